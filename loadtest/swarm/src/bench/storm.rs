//! A reconnect storm: 10,000 streams come back at once, each 500 events behind.

use super::arena::{Arena, TOPIC};
use super::ledger::{Ledger, Row, Target};
use super::process::{Process, ask};
use super::servers::Contender;
use super::swarm::Plan;
use super::{Measurement, Settings, float, note, rotated};
use std::io;

/// Bytes of an event's data.
const SIZE: usize = 128;
/// Events that each stream missed.
const BEHIND: u64 = 500;
/// Streams that may be opening: what a listen backlog of 4,096 takes without losing a handshake.
const OPENING_MAX: usize = 4000;

/// What can be asked for.
pub const ALL: &[Measurement] = &[Measurement::new(
    "storm",
    "10,000 streams come back at once, 500 events behind, to a replica that holds nothing in memory",
)];

const STORM: Row = Row {
    what: "reconnect storm, to the last missed event",
    unit: "ms",
    target: Target::RatioAtMost(1.3),
    base: Contender::Floor,
};
/// Constant: not by the number of subscribers.
const READS: Row = Row {
    what: "reconnect storm, reads of Redis",
    unit: "",
    target: Target::AtMost(100.0),
    base: Contender::Floor,
};

const CONTENDERS: &[Contender] = &[Contender::Floor, Contender::RedisFunction];

/// # Errors
/// As [`super::run`].
pub fn run(settings: &Settings, _: &dyn Fn(&str) -> bool, ledger: &mut Ledger) -> io::Result<()> {
    for round in 0..settings.rounds {
        for contender in rotated(CONTENDERS, round) {
            let mut arena = Arena::start(&settings.programs, contender, SIZE)?;
            // The floor sends all that it ever had; its cursor is any.
            let cursor = match contender {
                Contender::Floor => "0-0".to_owned(),
                _ => arena.swarm.fill(TOPIC, 1)?,
            };
            arena.swarm.fill(TOPIC, BEHIND)?;
            let before = reads(arena.redis.as_ref())?;
            let topics = [TOPIC.to_owned()];
            let plan = Plan {
                opening_max: OPENING_MAX,
                behind: Some((&cursor, BEHIND)),
                ..Plan::live(arena.server.address, settings.streams, &topics)
            };
            let took = arena.swarm.storm(&plan)?;
            note(ledger, STORM, contender, round, took.as_secs_f64() * 1e3);
            if let (Some(before), Some(after)) = (before, reads(arena.redis.as_ref())?) {
                let reads = after.saturating_sub(before);
                note(ledger, READS, contender, round, float(reads));
            }
        }
    }
    Ok(())
}

/// Reads of the log that Redis has answered: each is a function that does not write.
fn reads(redis: Option<&Process>) -> io::Result<Option<u64>> {
    let Some(redis) = redis else {
        return Ok(None);
    };
    let told = ask(redis.address, "INFO commandstats\r\n")?;
    let line = told
        .lines()
        .find_map(|line| line.strip_prefix("cmdstat_fcall_ro:calls="));
    let count = line.and_then(|line| line.split(',').next()?.parse().ok());
    Ok(Some(count.unwrap_or(0)))
}
