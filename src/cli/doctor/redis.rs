//! Redis, as the log needs it, and the fleet that shares it.

use super::channels;
use super::findings::{Finding, Findings, Level, judge_skew};
use crate::broker::redis::decode::field;
use crate::broker::redis::{code_of, library_words};
use crate::config::Config;
use redis::aio::MultiplexedConnection;
use redis::{FromRedisValue, RedisError, Value};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::time::Instant;

/// Time for a connection, and for an answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Redis' own bounds for what waits for a subscriber: 32 MiB at once, 8 MiB for a minute.
const PUBSUB: (u64, u64) = (32 << 20, 8 << 20);
/// A replica that has not been heard of for so long is gone.
const ALIVE_MS: u128 = 5_000;

struct Server<'a> {
    config: &'a Config,
    connection: MultiplexedConnection,
}

impl Server<'_> {
    async fn ask<T: FromRedisValue>(&mut self, words: &[&str]) -> Result<T, RedisError> {
        let mut cmd = redis::Cmd::new();
        words.iter().for_each(|word| {
            cmd.arg(*word);
        });
        match tokio::time::timeout(PATIENCE, cmd.query_async(&mut self.connection)).await {
            Ok(answer) => answer,
            Err(_) => Err((redis::ErrorKind::Io, "no answer in time").into()),
        }
    }

    /// A setting; an error where this user may not ask.
    async fn setting(&mut self, name: &str) -> Result<String, RedisError> {
        let found: BTreeMap<String, String> = self.ask(&["CONFIG", "GET", name]).await?;
        Ok(found.get(name).cloned().unwrap_or_default())
    }
}

/// How long what was refused is worth a word.
const REFUSED_SINCE: Duration = Duration::from_secs(3600);

pub(super) async fn inspect(config: &Config) -> Vec<Finding> {
    let mut f = Findings::of("redis");
    let Some(access) = &config.redis.access else {
        f.warning(
            "log",
            "no redis.url: the log is kept in memory, by one process",
            "set redis.url (--redis-url) to run more than one replica, or to keep the log",
        );
        return f.all;
    };
    let mut server = match access.connect(PATIENCE).await {
        Ok(connection) => Server { config, connection },
        Err(why) => {
            f.fault(
                "reach",
                format!("it cannot be reached: {why}"),
                "check redis.url, the network between here and there, user and password, and redis.tls_*",
            );
            return f.all;
        }
    };
    let info: String = match server.ask(&["INFO", "everything"]).await {
        Ok(info) => info,
        Err(why) => {
            f.fault(
                "reach",
                format!("INFO is refused: {why}"),
                "give the user the rights of deploy/redis/users.acl",
            );
            return f.all;
        }
    };
    version(&mut f, &info);
    memory(&mut f, &info);
    output_buffers(&mut f, &mut server).await;
    persistence(&mut f, &mut server, &info).await;
    replication(&mut f, &mut server, &info).await;
    clock(&mut f, &mut server).await;
    library(&mut f, &mut server).await;
    partitions(&mut f, &mut server).await;
    fleet(&mut f, &mut server).await;
    refused(&mut f, &mut server).await;
    channels::inspect(&mut f, access, &config.ingest, PATIENCE).await;
    f.all
}

fn number(info: &str, name: &str) -> u64 {
    field(info, name)
        .and_then(|text| text.parse().ok())
        .unwrap_or_default()
}

fn version(f: &mut Findings, info: &str) {
    let valkey = field(info, "valkey_version").map(|version| format!("Valkey {version}"));
    let version = field(info, "redis_version").unwrap_or_default();
    let name = valkey.unwrap_or_else(|| format!("Redis {version}"));
    let major: u32 = version
        .split('.')
        .next()
        .and_then(|major| major.parse().ok())
        .unwrap_or_default();
    if major < 7 {
        f.fault(
            "version",
            format!("{name} has no functions"),
            "run Redis 7.0 or newer, or Valkey",
        );
    } else if field(info, "cluster_enabled") == Some("1") {
        f.fault(
            "version",
            format!("{name}, as a cluster"),
            "run one master with replicas: Redis Cluster is not supported",
        );
    } else {
        f.ok("version", name);
    }
}

fn memory(f: &mut Findings, info: &str) {
    match field(info, "maxmemory_policy") {
        Some("noeviction") | None => f.ok("eviction", "maxmemory-policy noeviction"),
        Some(policy) => f.fault(
            "eviction",
            format!("maxmemory-policy {policy}: Redis may delete keys of the log one by one"),
            "CONFIG SET maxmemory-policy noeviction, and the same in redis.conf",
        ),
    }
    let (used, most) = (number(info, "used_memory"), number(info, "maxmemory"));
    let mib = |bytes: u64| bytes >> 20;
    if most == 0 {
        f.warning(
            "memory",
            format!(
                "{} MiB used, without a limit: the system may end Redis instead",
                mib(used)
            ),
            "set maxmemory below the memory of the machine, and leave a third of it for copies on write",
        );
    } else if used > most / 10 * 9 {
        f.fault(
            "memory",
            format!(
                "{} of {} MiB used: publishing is about to be refused",
                mib(used),
                mib(most)
            ),
            "raise maxmemory, or keep less: log.events_max, log.age_max, log.overrides",
        );
    } else {
        f.ok("memory", format!("{} of {} MiB used", mib(used), mib(most)));
    }
}

/// Bytes at once, bytes for a while, and the while, of subscribers.
fn pubsub_limit(setting: &str) -> Option<(u64, u64, u64)> {
    let words: Vec<&str> = setting.split_whitespace().collect();
    let at = words.iter().position(|word| *word == "pubsub")?;
    let number = |offset: usize| words.get(at + offset)?.parse().ok();
    Some((number(1)?, number(2)?, number(3)?))
}

async fn output_buffers(f: &mut Findings, server: &mut Server<'_>) {
    let batch = server.config.publish.batch_bytes_max as u64;
    let advice =
        "CONFIG SET client-output-buffer-limit \"pubsub 64mb 32mb 60\", and the same in redis.conf";
    match server.setting("client-output-buffer-limit").await {
        Err(why) => f.warning(
            "output_buffer",
            format!("CONFIG GET is refused: {why}"),
            format!("run it again with a --redis-url whose user may read settings; this one should be at least: {advice}"),
        ),
        Ok(setting) => match pubsub_limit(&setting) {
            Some((hard, soft, seconds)) => {
                let said = format!("client-output-buffer-limit pubsub {hard} {soft} {seconds}");
                let below = |limit: u64, least: u64| limit != 0 && limit < least;
                if below(hard, batch * 2) || (below(soft, batch * 2) && seconds == 0) {
                    f.fault("output_buffer", format!("{said}: one batch of publish.batch_bytes_max = {batch} disconnects every replica"), advice);
                } else if below(hard, PUBSUB.0) || below(soft, PUBSUB.1) {
                    f.warning(
                        "output_buffer",
                        format!("{said}: replicas that stall for a moment are disconnected"),
                        advice,
                    );
                } else {
                    f.ok("output_buffer", said);
                }
                one_publish(f, server, hard).await;
            }
            None => f.warning(
                "output_buffer",
                format!("cannot be read: {setting}"),
                advice,
            ),
        },
    }
}

/// Redis closes every subscriber that one publish takes over its limit: all ears at once.
async fn one_publish(f: &mut Findings, server: &mut Server<'_>, limit: u64) {
    let setting = server.setting("proto-max-bulk-len").await;
    let Some(most) = setting.ok().and_then(|bytes| bytes.parse::<u64>().ok()) else {
        return;
    };
    let said = format!("proto-max-bulk-len {} MiB", most >> 20);
    if limit != 0 && most >= limit {
        f.warning(
            "one_publish",
            format!("{said}: one PUBLISH above client-output-buffer-limit pubsub closes all ears"),
            "CONFIG SET proto-max-bulk-len 4mb, and the same in redis.conf",
        );
    } else {
        f.ok("one_publish", said);
    }
}

async fn persistence(f: &mut Findings, server: &mut Server<'_>, info: &str) {
    if field(info, "aof_enabled") == Some("1") {
        if field(info, "aof_last_write_status") == Some("err") {
            f.fault(
                "persistence",
                "the append-only file cannot be written",
                "check the disk of Redis; its log says why",
            );
            return;
        }
        match server.setting("appendfsync").await {
            Ok(fsync) if fsync == "no" => f.warning(
                "persistence",
                "appendonly yes, appendfsync no: a crash of the machine loses half a minute",
                "CONFIG SET appendfsync everysec",
            ),
            Ok(fsync) => f.ok(
                "persistence",
                format!("appendonly yes, appendfsync {fsync}"),
            ),
            Err(_) => f.ok("persistence", "appendonly yes"),
        }
    } else {
        f.warning(
            "persistence",
            "no append-only file: a crash loses everything since the last snapshot, and streams receive gaps",
            "CONFIG SET appendonly yes; docs/durability.md has what each setting may lose",
        );
    }
    let refuses = server.setting("stop-writes-on-bgsave-error").await;
    if field(info, "rdb_last_bgsave_status") == Some("err")
        && refuses.is_ok_and(|setting| setting == "yes")
    {
        f.fault(
            "snapshot",
            "the last snapshot failed, so that Redis refuses to write",
            "check its disk; its log says why",
        );
    }
}

async fn replication(f: &mut Findings, server: &mut Server<'_>, info: &str) {
    if field(info, "role") != Some("master") {
        f.fault(
            "replication",
            "this is a replica: it accepts no writes",
            "name the master in redis.url, or the sentinels: redis+sentinel://",
        );
        return;
    }
    let (have, wanted) = (
        number(info, "connected_slaves"),
        server.config.log.wait_replicas,
    );
    if have < wanted as u64 {
        f.fault(
            "replication",
            format!("{have} replicas of Redis, and log.wait_replicas = {wanted}: publishing over HTTP is answered 503"),
            "start the replicas that are missing, or lower log.wait_replicas",
        );
        return;
    }
    let least = server.setting("min-replicas-to-write").await;
    if have > 0 && least.is_ok_and(|least| least == "0") {
        f.warning(
            "replication",
            format!("{have} replicas of Redis, and a replaced master still accepts writes, which are lost"),
            "CONFIG SET min-replicas-to-write 1",
        );
    } else {
        f.ok("replication", format!("master with {have} replicas"));
    }
}

/// The clock of Redis against this machine's, and how sure that is.
async fn clock(f: &mut Findings, server: &mut Server<'_>) {
    let mut best: Option<(Duration, f64)> = None;
    for _ in 0..5 {
        let (asked, before) = (Instant::now(), now_seconds());
        let Ok((seconds, micros)) = server.ask::<(f64, f64)>(&["TIME"]).await else {
            f.warning(
                "clock",
                "TIME is refused",
                "give the user the rights of deploy/redis/users.acl",
            );
            return;
        };
        let trip = asked.elapsed();
        let here = before + trip.as_secs_f64() / 2.0;
        let skew = seconds + micros / 1e6 - here;
        if best.is_none_or(|(quickest, _)| trip < quickest) {
            best = Some((trip, skew));
        }
    }
    let Some((trip, skew)) = best else { return };
    let ahead = if skew > 0.0 { "ahead of" } else { "behind" };
    let trip_ms = trip.as_secs_f64() * 1e3;
    let said = format!(
        "Redis is {:.3} s {ahead} this machine; a round trip takes {trip_ms:.1} ms",
        skew.abs()
    );
    let advice = "use NTP on both (chrony, systemd-timesyncd): ?since=, ages of cursors and the latency metric use both clocks";
    match judge_skew(skew) {
        Level::Ok => f.ok("clock", said),
        level => f.add(level, "clock", said, Some(advice.to_owned())),
    }
}

fn now_seconds() -> f64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.unwrap_or_default().as_secs_f64()
}

async fn library(f: &mut Findings, server: &mut Server<'_>) {
    let words = library_words(&server.config.redis.prefix);
    let (version, code) = (words.version, words.code);
    let here: Option<Value> = server
        .ask(&["FCALL_RO", &words.internal_version, "0"])
        .await
        .ok();
    let common: Option<Value> = server
        .ask(&["FCALL_RO", &words.public_version, "0"])
        .await
        .ok();
    let (here, common) = (
        here.as_ref().and_then(code_of),
        common.as_ref().and_then(code_of),
    );
    match (here, common) {
        (None, None) => f.warning(
            "functions",
            "Redis has no function library yet",
            "start a replica: it loads the library; until then tidegate_publish cannot be called",
        ),
        (_, Some((other, loaded))) if other == version && loaded != code => f.fault(
            "functions",
            format!("the public functions of version {version} are of another build ({loaded}, this is {code})"),
            "raise the version of one of the builds, or install the functions of this one: tidegate functions --install",
        ),
        (_, Some((other, _))) if other > version => f.warning(
            "functions",
            format!("the public functions are of version {other}, this build has {version}"),
            "finish the deploy; or, if it was rolled back: tidegate functions --install",
        ),
        (_, Some((other, _))) if other < version => f.warning(
            "functions",
            format!("the public functions are of version {other}, this build has {version}"),
            "nothing, if a deploy is in progress: a replica of this build installs its own when it starts",
        ),
        (Some(_), None) => f.warning(
            "functions",
            "Redis has no public functions, so tidegate_publish cannot be called",
            "tidegate functions --install",
        ),
        (None, Some(_)) => f.warning(
            "functions",
            "no replica of this build has run there yet",
            "nothing, if a deploy is in progress: replicas of two builds share one Redis",
        ),
        (Some(_), Some(_)) => f.ok("functions", format!("version {version}, build {code}")),
    }
}

async fn partitions(f: &mut Findings, server: &mut Server<'_>) {
    let (meta, wanted) = (
        format!("{}:meta", server.config.redis.prefix),
        server.config.redis.partitions,
    );
    match server.ask::<Option<String>>(&["HGET", &meta, "partitions"]).await {
        Ok(None) => f.ok("partitions", format!("{meta} is not written yet; redis.partitions = {wanted}")),
        Ok(Some(stored)) if stored == wanted.to_string() => f.ok("partitions", stored),
        Ok(Some(stored)) => f.fault(
            "partitions",
            format!("{meta} says {stored}, and redis.partitions = {wanted}: replicas with this configuration do not become ready"),
            format!("set redis.partitions = {stored}; it cannot change while there is a log"),
        ),
        Err(why) => f.fault("partitions", format!("{meta} cannot be read: {why}"), "give the user the rights of deploy/redis/users.acl, or another redis.prefix"),
    }
}

async fn fleet(f: &mut Findings, server: &mut Server<'_>) {
    let key = format!("{}:replicas", server.config.redis.prefix);
    let heard: BTreeMap<String, String> = server.ask(&["HGETALL", &key]).await.unwrap_or_default();
    // Their times are those of Redis.
    let now = match server.ask::<(u128, u128)>(&["TIME"]).await {
        Ok((seconds, micros)) => seconds * 1000 + micros / 1000,
        Err(_) => return,
    };
    let alive = heard.iter().filter_map(|(name, word)| {
        let (at, streams) = word.split_once(' ')?;
        (at.parse::<u128>().ok()? + ALIVE_MS > now).then(|| format!("{name} ({streams} streams)"))
    });
    let alive: Vec<String> = alive.collect();
    match alive.len() {
        0 => f.warning(
            "fleet",
            "no replica of Tidegate is known",
            "start one, or compare redis.prefix with that of the running replicas",
        ),
        1 => f.warning(
            "fleet",
            format!("one replica: {}", alive.join(", ")),
            "run at least two, so that streams can move to another one",
        ),
        count => f.ok("fleet", format!("{count} replicas: {}", alive.join(", "))),
    }
}

/// What ears note of a publish that was refused.
#[derive(Deserialize)]
struct Refused {
    way: String,
    topic: String,
    reason: String,
    size: u64,
    time: f64,
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            way,
            topic,
            reason,
            size,
            ..
        } = self;
        write!(f, "{way} {topic:?}, {size} bytes: {reason}")
    }
}

/// Who publishes raw, or into the inbox, is not told what became of it.
async fn refused(f: &mut Findings, server: &mut Server<'_>) {
    let key = format!("{}:refused", server.config.redis.prefix);
    let words = ["XREVRANGE", &key, "+", "-"];
    let Ok(entries) = server.ask::<Vec<(String, [String; 2])>>(&words).await else {
        f.warning(
            "refused",
            format!("{key} cannot be read"),
            "give the user the rights of deploy/redis/users.acl",
        );
        return;
    };
    let since = (now_seconds() - REFUSED_SINCE.as_secs_f64()) * 1000.0;
    let notes = entries
        .iter()
        .filter_map(|(_, [_, note])| serde_json::from_str(note).ok());
    let notes: Vec<Refused> = notes.filter(|note: &Refused| note.time > since).collect();
    if let Some(last) = notes.first() {
        f.warning(
            "refused",
            format!(
                "{} raw publishes or inbox entries were refused within the hour; the last: {last}",
                notes.len()
            ),
            format!("correct the publisher; redis-cli XREVRANGE {key} + - shows the last hundred"),
        );
    } else {
        f.ok("refused", "no raw publish or inbox entry within the hour");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bounds_of_subscribers_are_found_among_the_others() {
        let setting = "normal 0 0 0 slave 268435456 67108864 60 pubsub 33554432 8388608 60";
        assert_eq!(pubsub_limit(setting), Some((33_554_432, 8_388_608, 60)));
        assert_eq!(pubsub_limit("normal 0 0 0"), None);
    }
}
