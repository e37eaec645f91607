//! The section `server`.

use super::source::Source;
use crate::address::Prefix;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// The fields in which proxies say whom they speak for, as `server.forwarded_header` names them.
pub const FORWARDED: &str = "forwarded";
const X_FORWARDED_FOR: &str = "x-forwarded-for";

/// `server`: the listener of publishers and subscribers, and what each connection may take.
#[derive(Clone, Debug)]
pub struct Server {
    /// Address; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Connections that may wait to be accepted. A reconnect storm overflows 128, tokio's default.
    pub backlog: u32,
    /// Time for a request's head to arrive.
    pub header_timeout: Duration,
    /// Time for the body of a publish.
    pub body_timeout: Duration,
    /// Time for which written bytes may stay unacknowledged (`TCP_USER_TIMEOUT`).
    pub write_timeout: Duration,
    /// Bytes that the kernel holds for a connection and has not sent; 0 for as many as it likes.
    pub unsent_bytes_max: u32,
    /// Bytes of buffer for each connection in each direction.
    pub buffer_bytes: usize,
    /// Sockets at most; more wait to be accepted.
    pub connections_max: usize,
    /// Bytes of a refused request's body that are read and thrown away.
    pub discard_bytes_max: usize,
    /// Time for them to come.
    pub discard_time: Duration,
    /// Frames of HTTP/2 that ask for nothing: so many a second on one connection.
    pub http2_control_frames_max: u32,
    /// Names of the gateway, besides its addresses and `localhost`.
    pub hosts: Arc<[String]>,
    /// Networks whose word is believed about whom a request comes from.
    pub trusted_proxies: Arc<[Prefix]>,
    /// The field that they write.
    pub forwarded_header: &'static str,
    /// They begin each connection with a header of the PROXY protocol.
    pub proxy_protocol: bool,
}

impl Server {
    pub(super) fn take(s: &mut Source) -> Self {
        let server = Self {
            listen: s.address("server.listen", "127.0.0.1:8081"),
            backlog: s.get("server.backlog", "4096"),
            header_timeout: s.positive("server.header_timeout", "10s"),
            body_timeout: s.positive("server.body_timeout", "20s"),
            write_timeout: s.positive("server.write_timeout", "60s"),
            unsent_bytes_max: s.get("server.unsent_bytes_max", "131072"),
            buffer_bytes: s.get("server.buffer_bytes", "16384"),
            connections_max: s.count("server.connections_max", "60000"),
            discard_bytes_max: s.get("server.discard_bytes_max", "16777216"),
            discard_time: s.positive("server.discard_time", "5s"),
            http2_control_frames_max: s.get("server.http2_control_frames_max", "200"),
            hosts: s.list("server.hosts").into(),
            trusted_proxies: trusted_proxies(s),
            forwarded_header: s.choice("server.forwarded_header", &[X_FORWARDED_FOR, FORWARDED]),
            proxy_protocol: s.flag("server.proxy_protocol", "false"),
        };
        // hyper's smallest buffer.
        if server.buffer_bytes < 8192 {
            s.fault("server.buffer_bytes", "must be at least 8192");
        }
        // With which every connection begins.
        if server.http2_control_frames_max < 10 {
            s.fault("server.http2_control_frames_max", "must be at least 10");
        }
        if server.proxy_protocol && server.trusted_proxies.is_empty() {
            s.fault(
                "server.proxy_protocol",
                "needs server.trusted_proxies: otherwise every client could claim any address",
            );
        }
        server.check_names(s);
        server
    }

    fn check_names(&self, s: &mut Source) {
        let is_name = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        for host in self.hosts.iter() {
            let name = host.strip_prefix("*.").unwrap_or(host);
            if host != "*" && (name.is_empty() || !name.chars().all(is_name)) {
                let what = "is not a name such as events.example.com or *.example.com, without scheme and port";
                s.fault("server.hosts", &format!("{host:?} {what}"));
            }
        }
    }
}

fn trusted_proxies(s: &mut Source) -> Arc<[Prefix]> {
    const KEY: &str = "server.trusted_proxies";
    let texts = s.list(KEY);
    let mut prefixes = Vec::with_capacity(texts.len());
    for text in texts {
        match text.parse() {
            Ok(prefix) => prefixes.push(prefix),
            Err(why) => s.fault(KEY, &format!("{text:?} {why}")),
        }
    }
    prefixes.into()
}

/// Whether an entry of `server.hosts` names a host, without its port: it is the same, or begins with `*.` and
/// ends the host's name. `*` names none here: who takes it for any says so.
#[must_use]
pub fn names_host(entry: &str, host: &str) -> bool {
    let Some(parent) = entry.strip_prefix("*.") else {
        return entry.eq_ignore_ascii_case(host);
    };
    let host = host.to_ascii_lowercase();
    let below = host.strip_suffix(&parent.to_ascii_lowercase());
    below.is_some_and(|below| below.ends_with('.'))
}
