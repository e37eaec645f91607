//! What is measured: the floor, and a gateway in its settings.

use super::process::{Process, free_address};
use super::publisher::Way;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// Descriptors that a process may have here.
pub const DESCRIPTORS: u64 = 20_000;
/// Streams that a process can hold: some descriptors are for other things.
pub const STREAMS_MAX: usize = 19_000;

/// Somebody who does the work that is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Contender {
    /// The bare loop of `write(2)`.
    Floor,
    /// A gateway with the memory broker, published to over HTTP.
    Memory,
    /// A gateway over Redis, published to by raw `PUBLISH`.
    RedisRaw,
    /// A gateway over Redis, published to by the function.
    RedisFunction,
    /// A gateway over Redis, published to over HTTP.
    RedisHttp,
}

impl Contender {
    /// Whether events come through Redis.
    #[must_use]
    pub const fn is_over_redis(self) -> bool {
        matches!(self, Self::RedisRaw | Self::RedisFunction | Self::RedisHttp)
    }

    /// How it is published to.
    #[must_use]
    pub const fn way(self) -> Way {
        match self {
            Self::Floor | Self::Memory | Self::RedisHttp => Way::Http,
            Self::RedisRaw => Way::Raw,
            Self::RedisFunction => Way::Function,
        }
    }
}

impl fmt::Display for Contender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Floor => "floor",
            Self::Memory => "memory broker",
            Self::RedisRaw => "Redis, raw PUBLISH",
            Self::RedisFunction => "Redis, function",
            Self::RedisHttp => "Redis, HTTP",
        })
    }
}

/// Starts servers.
#[derive(Clone, Debug)]
pub struct Programs {
    /// The gateway's binary.
    pub tidegate: PathBuf,
    /// This program: its subcommands are the floor and the relay.
    pub bench: PathBuf,
}

impl Programs {
    /// The floor.
    ///
    /// # Errors
    /// It does not start.
    pub fn floor(&self) -> io::Result<Process> {
        let address = free_address()?;
        let mut floor = Process::start(&self.bench, address, |command| {
            command.args(["floor", "--listen", &address.to_string()]);
        })?;
        floor.wait("GET / HTTP/1.1\r\n\r\n", "HTTP/1.1 200")?;
        Ok(floor)
    }

    /// A gateway; over a Redis, or with the memory broker.
    ///
    /// # Errors
    /// It does not start.
    pub fn gateway(&self, redis: Option<SocketAddr>) -> io::Result<Process> {
        let address = free_address()?;
        let mut gateway = Process::start(&self.tidegate, address, |command| {
            command
                .args(["serve", "--listen", &address.to_string()])
                .args(["--log-level", "error"])
                .env("TIDEGATE__LIMITS__STREAMS_MAX", STREAMS_MAX.to_string())
                .env(
                    "TIDEGATE__SERVER__CONNECTIONS_MAX",
                    (STREAMS_MAX + 500).to_string(),
                )
                // A publisher's connection may rest between two measurements.
                .env("TIDEGATE__SERVER__HEADER_TIMEOUT", "10m")
                .env_remove("TIDEGATE__REDIS__URL");
            if let Some(redis) = redis {
                command.args(["--redis-url", &format!("redis://{redis}")]);
            }
        })?;
        let request = "GET /readyz HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n";
        gateway.wait(request, "HTTP/1.1 200")?;
        Ok(gateway)
    }

    /// A Redis that keeps nothing on disk.
    ///
    /// # Errors
    /// It does not start.
    pub fn redis(&self) -> io::Result<Process> {
        let address = free_address()?;
        let mut redis = Process::start(Path::new("redis-server"), address, |command| {
            command
                .args(["--bind", "127.0.0.1", "--port", &address.port().to_string()])
                .args(["--save", "", "--appendonly", "no", "--loglevel", "warning"]);
        })?;
        redis.wait("PING\r\n", "+PONG")?;
        Ok(redis)
    }
}
