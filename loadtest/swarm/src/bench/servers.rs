//! What is measured: the floor, and a gateway in its settings.

use super::cores::Cores;
use super::process::{Ending, Process, free_address};
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
    /// The same, with streams that ask for envelopes.
    Enveloped,
    /// The same, with tokens of ES256 that it has seen before.
    KnownTokens,
    /// The same, with tokens that it has never seen.
    NewTokens,
    /// The gateway that asks for tokens, while somebody sends bad ones.
    BadTokens,
    /// The same, while somebody asks as often for `/healthz`.
    BesideHealth,
    /// A gateway over Redis, published to by raw `PUBLISH`.
    RedisRaw,
    /// A gateway over Redis, published to by the function.
    RedisFunction,
    /// A gateway over Redis, published to over HTTP.
    RedisHttp,
    /// The least that can stand between Redis and a stream.
    Relay,
    /// Redis itself: `PUBLISH` to `SUBSCRIBE`, or `XADD` and `PUBLISH` from `redis-benchmark`.
    Redis,
    /// nginx with `return 200`.
    Nginx,
    /// The gateway over Redis, while nobody disturbs it.
    Undisturbed,
}

impl Contender {
    /// Whether events come through Redis.
    #[must_use]
    pub const fn is_over_redis(self) -> bool {
        matches!(
            self,
            Self::RedisRaw | Self::RedisFunction | Self::RedisHttp | Self::Undisturbed
        )
    }

    /// Whether targets are meant for it; the others are there to compare with.
    #[must_use]
    pub const fn is_gateway(self) -> bool {
        matches!(
            self,
            Self::Memory
                | Self::Enveloped
                | Self::KnownTokens
                | Self::BadTokens
                | Self::RedisRaw
                | Self::RedisFunction
                | Self::RedisHttp
        )
    }

    /// How it is published to.
    #[must_use]
    pub const fn way(self) -> Way {
        match self {
            Self::Floor
            | Self::Memory
            | Self::Enveloped
            | Self::KnownTokens
            | Self::NewTokens
            | Self::BadTokens
            | Self::BesideHealth
            | Self::RedisHttp
            | Self::Nginx => Way::Http,
            Self::RedisRaw | Self::Redis => Way::Raw,
            Self::RedisFunction | Self::Relay | Self::Undisturbed => Way::Function,
        }
    }
}

impl fmt::Display for Contender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Floor => "floor",
            Self::Memory => "memory broker",
            Self::Enveloped => "memory broker, envelopes",
            Self::KnownTokens => "memory broker, tokens",
            Self::NewTokens => "memory broker, new tokens",
            Self::BadTokens => "memory broker, beside bad tokens",
            Self::BesideHealth => "memory broker, beside /healthz",
            Self::RedisRaw => "Redis, raw PUBLISH",
            Self::RedisFunction => "Redis, function",
            Self::RedisHttp => "Redis, HTTP",
            Self::Relay => "relay",
            Self::Redis => "Redis itself",
            Self::Nginx => "nginx",
            Self::Undisturbed => "undisturbed",
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
    /// Where they run.
    pub cores: Cores,
}

impl Programs {
    /// The floor.
    ///
    /// # Errors
    /// It does not start.
    pub fn floor(&self) -> io::Result<Process> {
        let address = free_address()?;
        let mut floor =
            Process::start(&self.bench, &self.cores, address, Ending::Kill, |command| {
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
        self.gateway_with(redis, None)
    }

    /// The same with a file of configuration.
    ///
    /// # Errors
    /// It does not start.
    pub fn gateway_with(
        &self,
        redis: Option<SocketAddr>,
        configuration: Option<&Path>,
    ) -> io::Result<Process> {
        let address = free_address()?;
        let mut gateway = Process::start(
            &self.tidegate,
            &self.cores,
            address,
            Ending::Kill,
            |command| {
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
                    // Readers that stop are weighed, not cut.
                    .env("TIDEGATE__SERVER__WRITE_TIMEOUT", "30m")
                    .env_remove("TIDEGATE__REDIS__URL");
                if let Some(file) = configuration {
                    command.arg("--config").arg(file);
                }
                if let Some(redis) = redis {
                    command.args(["--redis-url", &format!("redis://{redis}")]);
                }
            },
        )?;
        let request = "GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        gateway.wait(request, "HTTP/1.1 200")?;
        Ok(gateway)
    }

    /// A Redis that keeps nothing on disk.
    ///
    /// # Errors
    /// It does not start.
    pub fn redis(&self) -> io::Result<Process> {
        let address = free_address()?;
        let mut redis = Process::start(
            Path::new("redis-server"),
            &self.cores,
            address,
            Ending::Kill,
            |command| {
                command
                    .args(["--bind", "127.0.0.1", "--port", &address.port().to_string()])
                    .args(["--save", "", "--appendonly", "no", "--loglevel", "warning"]);
            },
        )?;
        redis.wait("PING\r\n", "+PONG")?;
        Ok(redis)
    }

    /// The relay: what is published on the live channel of `topic` goes to one stream.
    ///
    /// # Errors
    /// It does not start.
    pub fn relay(&self, redis: SocketAddr, topic: &str) -> io::Result<Process> {
        let address = free_address()?;
        let mut relay =
            Process::start(&self.bench, &self.cores, address, Ending::Kill, |command| {
                command
                    .args(["relay", "--listen", &address.to_string()])
                    .args(["--redis", &redis.to_string()])
                    .args(["--channel", &format!("tidegate:{{0}}:live:{topic}")]);
            })?;
        relay.wait("", "")?;
        Ok(relay)
    }

    /// An nginx that answers every request with these bytes, as an event stream. It has a directory
    /// of its own.
    ///
    /// # Errors
    /// It does not start.
    pub fn nginx(&self, directory: &Path, body: &str) -> io::Result<Process> {
        let address = free_address()?;
        let body = body.replace('"', "\\\"").replace('\n', "\\n");
        let configuration = format!(
            "daemon off; worker_processes auto; worker_rlimit_nofile {DESCRIPTORS}; pid nginx.pid;\n\
             error_log stderr error;\n\
             events {{ worker_connections {STREAMS_MAX}; }}\n\
             http {{ access_log off; default_type text/event-stream;\n\
             client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi;\n\
             uwsgi_temp_path uwsgi; scgi_temp_path scgi;\n\
             server {{ listen {address} backlog=4096; location / {{\n\
             add_header Cache-Control \"no-store, no-transform\"; add_header X-Accel-Buffering no;\n\
             add_header X-Content-Type-Options nosniff; add_header X-Request-Id $request_id;\n\
             return 200 \"{body}\"; }} }} }}\n"
        );
        let file = directory.join("nginx.conf");
        std::fs::write(&file, configuration)?;
        let mut nginx = Process::start(
            Path::new("nginx"),
            &self.cores,
            address,
            Ending::Terminate,
            |command| {
                command
                    .args(["-e", "stderr", "-p"])
                    .arg(directory)
                    .arg("-c")
                    .arg(&file);
            },
        )?;
        nginx.wait("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", "HTTP/1.1 200")?;
        Ok(nginx)
    }
}
