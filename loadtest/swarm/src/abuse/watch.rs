//! What a kind costs: memory of replicas and of Redis, the time of Redis, and what was refused.

use crate::cluster::Cluster;
use crate::redis_link::RedisLink;
use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, interval};

/// Between two looks at memory.
const LOOK: Duration = Duration::from_millis(100);
/// Calls of Redis that are longer are remembered.
const SLOW_US: &str = "500";
/// Parts of names of metrics that count what was refused, cut or not believed.
const REFUSALS: [&str; 8] = [
    "refused",
    "discarded",
    "floods",
    "ahead",
    "unreadable",
    "dropped",
    "overflows",
    "closed",
];

/// What was seen meanwhile.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// The most memory of one replica, in KB.
    pub replica_kb: u64,
    /// The most memory of Redis, in KB.
    pub redis_kb: u64,
    /// Hundredths of one core that Redis was busy.
    pub redis_busy: u64,
    /// The longest call of Redis, in microseconds, and its name. Nothing if none took half a millisecond.
    pub longest: Option<(u64, String)>,
    /// Counters that have moved, by how much.
    pub refused: Vec<(String, u64)>,
}

/// Watches until it is ended.
#[derive(Debug)]
pub struct Watch<'a> {
    cluster: &'a Cluster,
    redis: RedisLink,
    began: Instant,
    cpu_us: u64,
    counters: BTreeMap<String, u64>,
    /// Looks at memory for as long as this lives.
    looks: JoinSet<()>,
    peaks: Arc<Peaks>,
}

#[derive(Debug, Default)]
struct Peaks {
    replica_kb: AtomicU64,
    redis_kb: AtomicU64,
}

impl<'a> Watch<'a> {
    /// Begins.
    ///
    /// # Errors
    /// Redis or a process cannot be looked at.
    pub async fn begin(cluster: &'a Cluster) -> Result<Self, String> {
        let mut redis = RedisLink::new(&cluster.redis_url).map_err(|why| why.to_string())?;
        for words in [
            &["CONFIG", "SET", "slowlog-log-slower-than", SLOW_US][..],
            &["CONFIG", "SET", "slowlog-max-len", "100000"],
            &["SLOWLOG", "RESET"],
        ] {
            let _ok: redis::Value = ask(&mut redis, words).await?;
        }
        let pids: Vec<u32> = cluster
            .replicas
            .iter()
            .filter_map(|door| cluster.pid(&door.name))
            .collect();
        let server = cluster.pid("redis");
        let peaks = Arc::<Peaks>::default();
        let mut looks = JoinSet::new();
        looks.spawn(look(pids, server, peaks.clone()));
        Ok(Self {
            cpu_us: cpu_us(&mut redis).await?,
            counters: counters(cluster).await,
            began: Instant::now(),
            cluster,
            redis,
            looks,
            peaks,
        })
    }

    /// Ends, and says what was seen.
    ///
    /// # Errors
    /// Redis cannot be looked at any more.
    pub async fn end(mut self) -> Result<Seen, String> {
        self.looks.abort_all();
        let busy_us = cpu_us(&mut self.redis).await?.saturating_sub(self.cpu_us);
        let time_us = u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX);
        let calls: Vec<Vec<redis::Value>> = ask(&mut self.redis, &["SLOWLOG", "GET", "-1"]).await?;
        let after = counters(self.cluster).await;
        let moved = |(name, count): (String, u64)| {
            let more = count.saturating_sub(self.counters.get(&name).copied().unwrap_or_default());
            (more > 0).then_some((name, more))
        };
        let peak = |peak: &AtomicU64| peak.load(Relaxed);
        Ok(Seen {
            replica_kb: peak(&self.peaks.replica_kb),
            redis_kb: peak(&self.peaks.redis_kb),
            redis_busy: busy_us * 100 / time_us.max(1),
            longest: calls.iter().filter_map(|call| named(call)).max(),
            refused: after.into_iter().filter_map(moved).collect(),
        })
    }
}

/// An entry of SLOWLOG: its number, when, how long, the words of the command, and more.
fn named(call: &[redis::Value]) -> Option<(u64, String)> {
    let [_, _, time_us, words, ..] = call else {
        return None;
    };
    let time_us: u64 = redis::from_redis_value(time_us.clone()).ok()?;
    let words: Vec<Vec<u8>> = redis::from_redis_value(words.clone()).ok()?;
    let word = |at: usize| {
        words
            .get(at)
            .map(|word| String::from_utf8_lossy(word).into_owned())
    };
    let name = match word(0)?.to_ascii_lowercase() {
        // A function's own name ends what its library is called.
        call if call.starts_with("fcall") => word(1)?.rsplit('_').next()?.to_owned(),
        other => other,
    };
    Some((time_us, name))
}

async fn ask<T: redis::FromRedisValue>(link: &mut RedisLink, words: &[&str]) -> Result<T, String> {
    let mut cmd = redis::Cmd::new();
    words.iter().for_each(|word| {
        cmd.arg(word);
    });
    link.ask(&cmd).await.map_err(|why| why.to_string())
}

/// Time that Redis was busy since its start.
async fn cpu_us(link: &mut RedisLink) -> Result<u64, String> {
    let info: String = ask(link, &["INFO", "cpu"]).await?;
    let field = |name: &str| {
        let value = info.lines().find_map(|line| line.strip_prefix(name));
        value.and_then(|value| value.trim().parse::<f64>().ok())
    };
    let seconds = field("used_cpu_sys:").zip(field("used_cpu_user:"));
    let (sys, user) = seconds.ok_or("Redis does not say how long it was busy")?;
    Ok(u64::try_from(Duration::from_secs_f64(sys + user).as_micros()).unwrap_or(u64::MAX))
}

/// Counters of what was refused, of all replicas together.
async fn counters(cluster: &Cluster) -> BTreeMap<String, u64> {
    let mut all = BTreeMap::new();
    for replica in &cluster.replicas {
        for line in cluster.metrics(replica).await.lines() {
            let Some((name, value)) = line.rsplit_once(' ') else {
                continue;
            };
            let bare = name.split('{').next().unwrap_or_default();
            let is_meant =
                bare.ends_with("_total") && REFUSALS.iter().any(|part| bare.contains(part));
            if let (true, Ok(value)) = (is_meant, value.parse::<u64>()) {
                *all.entry(short(name)).or_default() += value;
            }
        }
    }
    all
}

/// `tidegate_requests_refused_total{reason="path"}` as `requests_refused path`.
fn short(name: &str) -> String {
    let (bare, labels) = name.split_once('{').unwrap_or((name, ""));
    let bare = bare
        .trim_start_matches("tidegate_")
        .trim_end_matches("_total");
    let values: Vec<&str> = labels.split('"').skip(1).step_by(2).collect();
    [&[bare], values.as_slice()].concat().join(" ")
}

async fn look(replicas: Vec<u32>, redis: Option<u32>, peaks: Arc<Peaks>) {
    let mut beat = interval(LOOK);
    loop {
        beat.tick().await;
        let most = replicas.iter().filter_map(|pid| resident_kb(*pid)).max();
        peaks
            .replica_kb
            .fetch_max(most.unwrap_or_default(), Relaxed);
        peaks
            .redis_kb
            .fetch_max(redis.and_then(resident_kb).unwrap_or_default(), Relaxed);
    }
}

/// Memory of a process that is in use.
fn resident_kb(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().trim_end_matches(" kB").parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_metrics_are_short() {
        let name = "tidegate_requests_refused_total{reason=\"path\",way=\"x\"}";
        assert_eq!(short(name), "requests_refused path x");
        assert_eq!(short("tidegate_http2_floods_total"), "http2_floods");
    }

    #[test]
    fn memory_of_this_process_is_found() {
        assert!(resident_kb(std::process::id()).unwrap() > 100);
        assert_eq!(resident_kb(0), None);
    }
}
