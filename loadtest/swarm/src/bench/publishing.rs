//! Logged publishes a second over HTTP, against what Redis takes of the two commands they come to.

use super::arena::{Arena, TOPIC};
use super::ledger::{Ledger, Row, Target};
use super::publisher::Way;
use super::servers::Contender;
use super::{Measurement, Settings, float, note, rotated};
use std::io;
use std::net::SocketAddr;
use std::process::Command;

/// Bytes of an event's data.
const SIZE: usize = 128;
/// Publishes under way.
const IN_FLIGHT: usize = 64;
/// Commands that `redis-benchmark` sends for each second that is measured.
const COMMANDS_A_SECOND: u64 = 40_000;

/// What can be asked for.
pub const ALL: &[Measurement] = &[Measurement::new(
    "publish",
    "logged publishes a second over HTTP, 64 in flight, against XADD followed by PUBLISH",
)];

const PUBLISHES: Row = Row {
    what: "publishes over HTTP, 64 in flight",
    unit: "/s",
    target: Target::RatioAtLeast(0.6),
    base: Contender::Redis,
};

const CONTENDERS: &[Contender] = &[Contender::Redis, Contender::RedisHttp];

/// # Errors
/// As [`super::run`].
pub fn run(settings: &Settings, _: &dyn Fn(&str) -> bool, ledger: &mut Ledger) -> io::Result<()> {
    for round in 0..settings.rounds {
        for contender in rotated(CONTENDERS, round) {
            let rate = match contender {
                Contender::Redis => of_redis(settings)?,
                _ => of_gateway(settings, contender)?,
            };
            note(ledger, PUBLISHES, contender, round, rate);
        }
    }
    Ok(())
}

fn of_gateway(settings: &Settings, contender: Contender) -> io::Result<f64> {
    let mut arena = Arena::start(&settings.programs, contender, SIZE)?;
    for _ in 1..IN_FLIGHT {
        arena.swarm.add_publisher(Way::Http, arena.server.address)?;
    }
    arena.swarm.flood(TOPIC, settings.time / 10)?;
    let count = arena.swarm.flood(TOPIC, settings.time)?;
    Ok(float(count) / settings.time.as_secs_f64())
}

/// One after the other: the times of both add up.
fn of_redis(settings: &Settings) -> io::Result<f64> {
    let redis = settings.programs.redis()?;
    let data = "x".repeat(SIZE);
    let commands = COMMANDS_A_SECOND * settings.time.as_secs();
    let adds = rate(
        redis.address,
        commands,
        &["XADD", "log", "*", "type", "", "data", &data],
    )?;
    let publishes = rate(redis.address, commands, &["PUBLISH", "live", &data])?;
    Ok(1.0 / (1.0 / adds + 1.0 / publishes))
}

/// Commands a second, as `redis-benchmark` tells.
fn rate(redis: SocketAddr, commands: u64, command: &[&str]) -> io::Result<f64> {
    let told = Command::new("redis-benchmark")
        .args([
            "-h",
            &redis.ip().to_string(),
            "-p",
            &redis.port().to_string(),
        ])
        .args([
            "-c",
            &IN_FLIGHT.to_string(),
            "-n",
            &commands.to_string(),
            "--csv",
        ])
        .args(command)
        .output()?;
    let told = String::from_utf8_lossy(&told.stdout);
    // "the command","rps",latencies...
    let line = told.lines().last().unwrap_or_default();
    let rate = line
        .rsplit("\",\"")
        .nth(6)
        .and_then(|field| field.parse().ok());
    rate.ok_or_else(|| io::Error::other(format!("redis-benchmark said {line:?}")))
}
