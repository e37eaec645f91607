//! Slow readers among others: do the others notice, and does memory grow?

use super::arena::{Arena, FIRST, TOPIC};
use super::ledger::{Ledger, Row, Target};
use super::servers::Contender;
use super::swarm::{Pace, Plan};
use super::{Measurement, Settings, float, millis, note, rotated};
use std::io;
use std::time::Duration;

/// Bytes of an event's data: large, so that the buffers of a socket fill up.
const SIZE: usize = 1024;
/// Between two events.
const PAUSE: Duration = Duration::from_millis(200);
/// Events that fill a window, which then is as large as it gets.
const WINDOW: Duration = Duration::from_secs(2);
/// Events that fill the sockets of slow readers.
const STALL: Duration = Duration::from_secs(3);
/// Receive buffer of a slow reader, in bytes: the least that the kernel gives.
const RECEIVE_BUFFER: usize = 4096;

/// What can be asked for.
pub const ALL: &[Measurement] = &[Measurement::new(
    "slow",
    "1,000 readers of a byte now and then among 10,000: the neighbours' p99, and memory",
)];

const NEIGHBOURS: Row = Row {
    what: "beside slow readers, p99 of the others",
    unit: "ms",
    target: Target::RatioAtMost(1.2),
    base: Contender::Undisturbed,
};
const STALLED: Row = Row {
    what: "slow readers, memory when they stall, for each",
    unit: "KB",
    target: Target::None,
    base: Contender::Undisturbed,
};
/// Flat, but for what the allocator does: a slow reader falls behind by 5 KB a second.
const FLAT: Row = Row {
    what: "slow readers, memory from then on, for each",
    unit: "KB",
    target: Target::AtMost(1.0),
    base: Contender::Undisturbed,
};

const CONTENDERS: &[Contender] = &[Contender::Undisturbed, Contender::RedisFunction];

/// # Errors
/// As [`super::run`].
pub fn run(settings: &Settings, _: &dyn Fn(&str) -> bool, ledger: &mut Ledger) -> io::Result<()> {
    let slow = settings.streams / 10;
    for round in 0..settings.rounds {
        for contender in rotated(CONTENDERS, round) {
            let mut arena = Arena::start(&settings.programs, contender, SIZE)?;
            let (address, topics) = (arena.server.address, [TOPIC.to_owned()]);
            arena.swarm.open(&Plan::live(address, FIRST, &topics))?;
            arena.swarm.drive(TOPIC, Pace::UnderWay(100), WINDOW)?;
            let prompt = settings.streams - slow - FIRST;
            arena.swarm.open(&Plan::live(address, prompt, &topics))?;
            if contender != Contender::Undisturbed {
                let plan = Plan {
                    receive_buffer: Some(RECEIVE_BUFFER),
                    ..Plan::live(address, slow, &topics)
                };
                arena.swarm.open(&plan)?;
                arena.swarm.slow_down(slow);
            }
            let before = arena.server.memory()?;
            arena.swarm.drive(TOPIC, Pace::UnderWay(20), STALL)?;
            let stalled = arena.server.memory()?;
            let cost = arena.drive(Pace::Every(PAUSE), settings.time)?;
            let after = arena.server.memory()?;
            let each = |bytes: u64| float(bytes) / 1024.0 / float(slow as u64);
            let p99 = millis(cost.load.latency.value_at_quantile(0.99));
            note(ledger, NEIGHBOURS, contender, round, p99);
            note(
                ledger,
                STALLED,
                contender,
                round,
                each(stalled.saturating_sub(before)),
            );
            note(
                ledger,
                FLAT,
                contender,
                round,
                each(after.saturating_sub(stalled)),
            );
        }
    }
    Ok(())
}
