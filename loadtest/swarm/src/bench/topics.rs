//! 10,000 streams on a topic each, as `user:alice` is: what a topic costs.

use super::arena::{Arena, FIRST, Weight};
use super::ledger::{Ledger, Row, Target};
use super::servers::Contender;
use super::swarm::Plan;
use super::{Measurement, Settings, note, rotated};
use std::io;
use std::time::Duration;

/// Bytes of an event's data.
const SIZE: usize = 128;
/// Windows that nobody needs any more may be dropped meanwhile.
const REST: Duration = Duration::from_secs(2);

/// What can be asked for.
pub const ALL: &[Measurement] = &[Measurement::new(
    "topics",
    "user memory for each of 10,000 streams that read a topic each",
)];

const fn row(what: &'static str) -> Row {
    Row {
        what,
        unit: "KB",
        target: Target::AtMost(2.0),
        base: Contender::Floor,
    }
}

const QUIET: Row = row("memory a stream, a topic each, no event yet");
const BUSY: Row = row("memory a stream, a topic each, one event each");

/// The log of the memory broker lies in the same process, so only Redis tells what a stream costs.
const CONTENDERS: &[Contender] = &[Contender::RedisFunction];

/// # Errors
/// As [`super::run`].
pub fn run(settings: &Settings, _: &dyn Fn(&str) -> bool, ledger: &mut Ledger) -> io::Result<()> {
    let topics: Vec<String> = (0..settings.streams)
        .map(|number| format!("user:{number:07}"))
        .collect();
    let (first, others) = topics.split_at(FIRST.min(topics.len()));
    for round in 0..settings.rounds {
        for contender in rotated(CONTENDERS, round) {
            let mut arena = Arena::start(&settings.programs, contender, SIZE)?;
            let address = arena.server.address;
            arena.swarm.open(&Plan::live(address, first.len(), first))?;
            arena.swarm.publish_each(first)?;
            let before = Weight::of(&arena.server, first.len())?;
            arena
                .swarm
                .open(&Plan::live(address, others.len(), others))?;
            arena.swarm.idle(REST)?;
            let quiet = Weight::of(&arena.server, topics.len())?;
            arena.swarm.publish_each(&topics)?;
            arena.swarm.idle(REST)?;
            let busy = Weight::of(&arena.server, topics.len())?;
            note(ledger, QUIET, contender, round, quiet.per_stream(before));
            note(ledger, BUSY, contender, round, busy.per_stream(before));
        }
    }
    Ok(())
}
