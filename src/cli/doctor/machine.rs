//! What this machine allows a process: descriptors, queues, ports.

use super::findings::{Finding, Findings, Level};
pub(super) use crate::app::descriptors::OWN_FILES;
use crate::config::Config;
use std::str::FromStr;

/// What the system says of itself; none where it does not say.
#[derive(Clone, Copy, Debug, Default)]
struct Machine {
    files: Option<u64>,
    somaxconn: Option<u64>,
    syn_backlog: Option<u64>,
    ports: Option<(u64, u64)>,
    conntrack: Option<u64>,
}

impl Machine {
    fn read() -> Self {
        let file = |path: &str| std::fs::read_to_string(format!("/proc/{path}")).ok();
        let number = |path: &str| file(path).and_then(|text| first(&text));
        Self {
            files: file("self/limits").and_then(|text| open_files(&text)),
            somaxconn: number("sys/net/core/somaxconn"),
            syn_backlog: number("sys/net/ipv4/tcp_max_syn_backlog"),
            ports: file("sys/net/ipv4/ip_local_port_range").and_then(|text| {
                let mut words = text.split_whitespace();
                Some((words.next()?.parse().ok()?, words.next()?.parse().ok()?))
            }),
            conntrack: number("sys/net/netfilter/nf_conntrack_max"),
        }
    }
}

fn first<T: FromStr>(text: &str) -> Option<T> {
    text.split_whitespace().next()?.parse().ok()
}

/// The hard limit in `/proc/self/limits`: a replica takes all of it.
fn open_files(limits: &str) -> Option<u64> {
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))?;
    match line.split_whitespace().nth(1)? {
        "unlimited" => Some(u64::MAX),
        number => number.parse().ok(),
    }
}

pub(super) fn inspect(config: &Config) -> Vec<Finding> {
    judge(config, Machine::read())
}

fn judge(config: &Config, machine: Machine) -> Vec<Finding> {
    let mut f = Findings::of("machine");
    let sockets = config.server.connections_max as u64;
    let streams = config.limits.streams_max as u64;
    let backlog = u64::from(config.server.backlog);

    let needed = sockets + OWN_FILES;
    match machine.files {
        None => {}
        Some(files) if files < needed => f.fault(
            "descriptors",
            format!("{files} here, and server.connections_max = {sockets} needs {needed}"),
            format!("raise the limit to {needed} (ulimit -Hn; LimitNOFILE= of a systemd unit; ulimits of a container), or lower server.connections_max"),
        ),
        Some(files) => f.ok("descriptors", format!("{files} here, {needed} needed")),
    }
    if sockets < streams {
        f.fault(
            "connections_max",
            format!("server.connections_max = {sockets} is below limits.streams_max = {streams}"),
            "raise server.connections_max, or lower limits.streams_max: streams would wait to be accepted rather than be refused",
        );
    }
    let queues = [
        (
            Level::Fault,
            "somaxconn",
            "net.core.somaxconn",
            machine.somaxconn,
        ),
        // Beyond it the system falls back to cookies, which cost options of TCP.
        (
            Level::Warning,
            "syn_backlog",
            "net.ipv4.tcp_max_syn_backlog",
            machine.syn_backlog,
        ),
    ];
    for (level, check, key, have) in queues {
        match have {
            None => {}
            Some(have) if have < backlog => f.add(
                level,
                check,
                format!(
                    "{key} = {have} limits server.backlog = {backlog}: a reconnect storm overflows it"
                ),
                Some(format!(
                    "sysctl -w {key}={backlog}, and the same in /etc/sysctl.d"
                )),
            ),
            Some(have) => f.ok(check, format!("{key} = {have}, {backlog} needed")),
        }
    }
    if let Some((low, high)) = machine.ports {
        let ports = (high + 1).saturating_sub(low);
        if ports < streams {
            f.warning(
                "ports",
                format!("{ports} local ports ({low}-{high}); a proxy on this machine can open only that many connections to one replica, and limits.streams_max = {streams}"),
                "sysctl -w net.ipv4.ip_local_port_range=\"1024 65535\"; for more than 64,000 streams a replica, give the replica or the proxy more addresses (proxy_bind)",
            );
        } else {
            f.ok(
                "ports",
                format!("{ports} local ports, {streams} needed by a proxy here"),
            );
        }
    }
    if let Some(most) = machine.conntrack {
        if most < sockets * 2 {
            f.warning(
                "conntrack",
                format!("net.netfilter.nf_conntrack_max = {most}: connections beyond it are dropped silently"),
                format!("sysctl -w net.netfilter.nf_conntrack_max={}, or do not track this port", sockets * 2),
            );
        } else {
            f.ok("conntrack", format!("{most} connections tracked at most"));
        }
    }
    f.all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Flags;

    fn levels(machine: Machine) -> Vec<(&'static str, Level)> {
        let config = Config::load(&Flags::default()).expect("defaults are good");
        let found = judge(&config, machine);
        assert!(
            found
                .iter()
                .all(|f| (f.level == Level::Ok) == f.advice.is_none())
        );
        found.iter().map(|f| (f.check, f.level)).collect()
    }

    #[test]
    fn what_a_bare_machine_lacks_is_named_and_what_is_enough_is_enough() {
        let bare = Machine {
            files: Some(1024),
            somaxconn: Some(128),
            syn_backlog: Some(512),
            ports: Some((32_768, 60_999)),
            conntrack: Some(65_536),
        };
        let (fault, warning, ok) = (Level::Fault, Level::Warning, Level::Ok);
        let checks = [
            "descriptors",
            "somaxconn",
            "syn_backlog",
            "ports",
            "conntrack",
        ];
        let expected = |levels: [Level; 5]| checks.into_iter().zip(levels).collect::<Vec<_>>();
        assert_eq!(
            levels(bare),
            expected([fault, fault, warning, warning, warning])
        );
        let ready = Machine {
            files: Some(60_256),
            somaxconn: Some(4096),
            syn_backlog: Some(4096),
            ports: Some((1024, 65_535)),
            conntrack: Some(120_000),
        };
        assert_eq!(levels(ready), expected([ok; 5]));
        assert_eq!(levels(Machine::default()), []);
    }

    #[test]
    fn the_hard_limit_of_descriptors_is_read() {
        let limits = "Limit Soft Limit Hard Limit Units\nMax open files            1024                 524288               files\n";
        assert_eq!(open_files(limits), Some(524_288));
        assert_eq!(
            open_files("Max open files unlimited unlimited files"),
            Some(u64::MAX)
        );
        assert!(open_files(&std::fs::read_to_string("/proc/self/limits").unwrap()).is_some());
    }
}
