//! Replicas as they run, by what each says at `/metrics`.

use super::args::DoctorArgs;
use super::findings::{Finding, Findings, Level, SKEW, judge_skew};
use super::machine::OWN_FILES;
use crate::client::{Authorities, send, text};
use bytes::Bytes;
use hyper::StatusCode;
use std::collections::BTreeMap;
use std::time::Duration;

/// Time for a connection and an answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// A replica, and what it says of itself.
struct Replica<'a> {
    url: &'a str,
    exposition: String,
}

impl Replica<'_> {
    /// A metric's child: its labels, and its value.
    fn metric(&self, name: &str) -> Option<(&str, f64)> {
        self.exposition.lines().find_map(|line| {
            let rest = line.strip_prefix(name)?;
            let (labels, value) = match rest.strip_prefix('{') {
                Some(rest) => rest.rsplit_once("} ")?,
                None => ("", rest.strip_prefix(' ')?),
            };
            Some((labels, value.parse().ok()?))
        })
    }

    fn value(&self, name: &str) -> Option<f64> {
        self.metric(name).map(|(_, value)| value)
    }
}

pub(super) async fn inspect(args: &DoctorArgs) -> Vec<Finding> {
    let mut f = Findings::of("replicas");
    let authorities = Authorities::from(args.ca.clone());
    let (mut replicas, mut unreached) = (Vec::new(), Vec::new());
    for url in &args.replica {
        match ask(url.as_str(), &authorities).await {
            Ok(replica) => replicas.push(replica),
            Err(why) => unreached.push(why),
        }
    }
    if unreached.is_empty() {
        f.ok("reach", format!("{} asked", replicas.len()));
    } else {
        f.fault(
            "reach",
            unreached.join("; "),
            "check that it runs, and the address: ops.listen if it is set, otherwise server.listen, as this machine reaches it",
        );
    }
    if replicas.is_empty() {
        return f.all;
    }
    takes_streams(&mut f, &replicas);
    descriptors(&mut f, &replicas);
    accept_queue(&mut f, &replicas);
    clock(&mut f, &replicas);
    trust(&mut f, &replicas);
    same(
        &mut f,
        &replicas,
        "build",
        |replica| Some(replica.metric("tidegate_build_info")?.0.to_owned()),
        "finish the deploy: two builds may share one Redis during a deploy, not for ever",
    );
    same(
        &mut f,
        &replicas,
        "settings",
        |replica| Some(format!("hash {}", replica.value("tidegate_config_hash")?)),
        "give all replicas the same configuration, except names, addresses and secrets; then send SIGHUP, or restart those whose log names keys that need a restart",
    );
    f.all
}

async fn ask<'a>(url: &'a str, authorities: &Authorities) -> Result<Replica<'a>, String> {
    let target = format!("{url}/metrics");
    let asking = async {
        let answer = send(authorities, "GET", &target, &[], Bytes::new()).await?;
        let status = answer.status();
        let body = text(answer).await?;
        if status == StatusCode::OK && body.contains("tidegate_build_info") {
            Ok(body)
        } else {
            Err(format!(
                "{target}: {status}, and no metrics of a replica of Tidegate"
            ))
        }
    };
    let exposition = match tokio::time::timeout(PATIENCE, asking).await {
        Ok(told) => told?,
        Err(_) => return Err(format!("{target}: no answer in {PATIENCE:?}")),
    };
    Ok(Replica { url, exposition })
}

/// What `judge` says of each replica that is not well, and the worst of the levels.
fn unwell(
    replicas: &[Replica<'_>],
    judge: impl Fn(&Replica<'_>) -> Option<(Level, String)>,
) -> Option<(Level, String)> {
    let judged = replicas
        .iter()
        .filter_map(|replica| Some((replica, judge(replica)?)));
    let (mut worst, mut said) = (Level::Ok, Vec::new());
    for (replica, (level, what)) in judged {
        worst = worst.max(level);
        said.push(format!("{}: {what}", replica.url));
    }
    (!said.is_empty()).then(|| (worst, said.join("; ")))
}

/// One finding over all replicas: those that are not well, or that all are.
fn judge_all(
    f: &mut Findings,
    replicas: &[Replica<'_>],
    check: &'static str,
    judge: impl Fn(&Replica<'_>) -> Option<(Level, String)>,
    well: &str,
    advice: &str,
) {
    match unwell(replicas, judge) {
        Some((level, said)) => f.add(level, check, said, Some(advice.to_owned())),
        None => f.ok(check, well),
    }
}

fn takes_streams(f: &mut Findings, replicas: &[Replica<'_>]) {
    let judge = |replica: &Replica<'_>| {
        if replica.value("tidegate_draining") == Some(1.0) {
            return Some((Level::Warning, "draining".to_owned()));
        }
        (replica.value("tidegate_ready") == Some(0.0)).then(|| {
            (
                Level::Fault,
                "not ready: it has not reached Redis".to_owned(),
            )
        })
    };
    let advice = "a replica that drains ends within drain.wait + drain.time + 16 s, otherwise end it; the log of one that is not ready says what is wrong with Redis";
    judge_all(
        f,
        replicas,
        "ready",
        judge,
        "all are ready, and none drains",
        advice,
    );
}

fn descriptors(f: &mut Findings, replicas: &[Replica<'_>]) {
    #[expect(clippy::cast_precision_loss, reason = "a small constant")]
    let own = OWN_FILES as f64;
    let judge = |replica: &Replica<'_>| {
        let files = replica.value("process_max_fds")?;
        let sockets = replica.value("tidegate_sockets_limit")?;
        let needed = sockets + own;
        (files < needed).then(|| {
            let said = format!("{files}, and server.connections_max = {sockets} needs {needed}");
            (Level::Fault, said)
        })
    };
    let advice = "raise the limit of the service (LimitNOFILE= of a systemd unit; ulimits of a container; ulimit -Hn before it starts), or lower server.connections_max";
    let well = "enough for server.connections_max";
    judge_all(f, replicas, "descriptors", judge, well, advice);
}

fn trust(f: &mut Findings, replicas: &[Replica<'_>]) {
    let judge = |replica: &Replica<'_>| {
        (replica.value("tidegate_forwarded_without_key") == Some(1.0)).then(|| {
            let said = "on loopback without a publish key, and a proxy lets others reach it: their writes are refused";
            (Level::Warning, said.to_owned())
        })
    };
    let advice = "set auth.publish_key, or auth.open_publishing if everybody may publish";
    let well = "no replica without a key is reached from another machine";
    judge_all(f, replicas, "trust", judge, well, advice);
}

fn accept_queue(f: &mut Findings, replicas: &[Replica<'_>]) {
    let judge = |replica: &Replica<'_>| {
        let turned_away = replica.value("tidegate_listen_overflows_total")?;
        (turned_away > 0.0).then(|| {
            let said = format!(
                "{turned_away} connections refused by the kernel since its machine or container started"
            );
            (Level::Warning, said)
        })
    };
    let advice = "if it still rises: raise server.backlog and net.core.somaxconn, raise drain.time and stream.retry, or add a replica; the count includes all sockets there";
    let well = "no connection was refused";
    judge_all(f, replicas, "accept_queue", judge, well, advice);
}

fn clock(f: &mut Findings, replicas: &[Replica<'_>]) {
    let judge = |replica: &Replica<'_>| {
        let offset = replica.value("tidegate_clock_offset_seconds")?;
        let level = Some(judge_skew(offset)).filter(|level| *level != Level::Ok)?;
        let side = if offset < 0.0 { "behind" } else { "ahead of" };
        Some((level, format!("{:.3} s {side} Redis", offset.abs())))
    };
    let advice = "use NTP (chrony, systemd-timesyncd) on the machine that differs, or on that of Redis if all differ equally";
    let well = format!("within {} s of Redis", SKEW.0);
    judge_all(f, replicas, "clock", judge, &well, advice);
}

/// Whether all say the same; if not, who says what.
fn same(
    f: &mut Findings,
    replicas: &[Replica<'_>],
    check: &'static str,
    what: impl Fn(&Replica<'_>) -> Option<String>,
    advice: &str,
) {
    let mut said = BTreeMap::<String, Vec<&str>>::new();
    for replica in replicas {
        if let Some(word) = what(replica) {
            said.entry(word).or_default().push(replica.url);
        }
    }
    let groups: Vec<String> = said
        .iter()
        .map(|(word, urls)| format!("{word}: {}", urls.join(", ")))
        .collect();
    match said.first_key_value() {
        Some((word, _)) if said.len() == 1 => f.ok(check, word.clone()),
        _ => f.warning(check, groups.join("; "), advice),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(all: &[&str]) -> Vec<(&'static str, Level, String)> {
        let replicas: Vec<Replica<'_>> = all
            .iter()
            .map(|exposition| Replica {
                url: "r",
                exposition: (*exposition).to_owned(),
            })
            .collect();
        let mut f = Findings::of("replicas");
        takes_streams(&mut f, &replicas);
        descriptors(&mut f, &replicas);
        accept_queue(&mut f, &replicas);
        clock(&mut f, &replicas);
        let well = |finding: &Finding| (finding.level == Level::Ok) == finding.advice.is_none();
        assert!(f.all.iter().all(well));
        let found = f.all.into_iter().filter(|f| f.level != Level::Ok);
        found.map(|f| (f.check, f.level, f.found)).collect()
    }

    /// What the machine of a test cannot be made to have.
    #[test]
    fn what_a_replica_says_of_its_machine_is_judged() {
        let well = "tidegate_ready 1\ntidegate_draining 0\nprocess_max_fds 60256\n\
                    tidegate_sockets_limit 60000\ntidegate_listen_overflows_total 0\n\
                    tidegate_clock_offset_seconds -0.4\n";
        assert_eq!(judged(&[well]), []);
        let worse = [
            (
                "process_max_fds 60256",
                "process_max_fds 1024",
                "descriptors",
                Level::Fault,
                "r: 1024, and server.connections_max = 60000 needs 60256",
            ),
            (
                "overflows_total 0",
                "overflows_total 7",
                "accept_queue",
                Level::Warning,
                "r: 7 connections refused by the kernel since its machine or container started",
            ),
            (
                "-0.4",
                "-0.6",
                "clock",
                Level::Warning,
                "r: 0.600 s behind Redis",
            ),
            (
                "-0.4",
                "31",
                "clock",
                Level::Fault,
                "r: 31.000 s ahead of Redis",
            ),
            (
                "draining 0",
                "draining 1",
                "ready",
                Level::Warning,
                "r: draining",
            ),
            (
                "ready 1",
                "ready 0",
                "ready",
                Level::Fault,
                "r: not ready: it has not reached Redis",
            ),
        ];
        for (from, to, check, level, found) in worse {
            let unwell = well.replace(from, to);
            assert_eq!(
                judged(&[well, &unwell]),
                [(check, level, found.to_owned())],
                "{to}"
            );
        }
        let clocks = ["31", "-0.6"].map(|offset| well.replace("-0.4", offset));
        let found = judged(&[&clocks[0], &clocks[1]]);
        assert_eq!(
            found[0].1,
            Level::Fault,
            "the worst of all counts: {found:?}"
        );
    }
}
