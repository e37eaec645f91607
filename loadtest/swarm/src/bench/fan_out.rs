//! 10,000 subscribers of one topic: memory, processor time, and how fast it goes.

use super::arena::{Arena, Weight};
use super::ledger::{Ledger, Row, Target};
use super::servers::Contender;
use super::swarm::Pace;
use super::{Measurement, Settings, millis, note, rotated};
use std::io;
use std::time::Duration;

/// Bytes of an event's data.
const SIZE: usize = 128;
/// Between two events of a steady load: 50,000 deliveries a second at 10,000 streams.
const PAUSE: Duration = Duration::from_millis(200);
/// Events that have not reached everyone, in saturation.
const UNDER_WAY: u64 = 100;

/// What can be asked for.
pub const ALL: &[Measurement] = &[
    Measurement::new(
        "memory",
        "user memory for each of 10,000 streams of one topic",
    ),
    Measurement::new(
        "cpu",
        "processor time of a delivery at 50,000 a second, and the time to the last subscriber",
    ),
    Measurement::new(
        "closed-loop",
        "deliveries a second when each event waits for the one before",
    ),
    Measurement::new(
        "saturation",
        "deliveries a second with 100 events under way",
    ),
];

const fn row(what: &'static str, unit: &'static str, target: Target) -> Row {
    Row {
        what,
        unit,
        target,
        base: Contender::Floor,
    }
}

const MEMORY: Row = row("memory a stream, one topic", "KB", Target::AtMost(0.5));
const CPU: Row = row("CPU a delivery, 50,000/s", "us", Target::RatioAtMost(1.10));
const SWEEP: Row = row(
    "publish to last subscriber",
    "ms",
    Target::RatioAtMost(1.15),
);
const LATENCY: Row = row("publish to subscriber, p99", "ms", Target::None);
const CLOSED: Row = row("closed loop, deliveries", "/s", Target::RatioAtLeast(0.95));
const CLOSED_CPU: Row = row("closed loop, CPU a delivery", "us", Target::None);
const SATURATION: Row = row("saturation, deliveries", "/s", Target::RatioAtLeast(5.0));
const STRANGERS: Row = row("other processes' share of the machine", "%", Target::None);
const SATURATION_CPU: Row = row("saturation, CPU a delivery", "us", Target::None);

/// Everyone, and what they are measured in.
const CONTENDERS: &[Contender] = &[
    Contender::Floor,
    Contender::Memory,
    Contender::RedisRaw,
    Contender::RedisFunction,
    Contender::RedisHttp,
];

/// How fast it goes is the affair of the streams, so one broker will do.
const FAST: &[Contender] = &[Contender::Floor, Contender::Memory];

/// Measures what was asked for, each contender in one arena a round.
///
/// # Errors
/// As [`super::run`].
pub fn run(
    settings: &Settings,
    is_wanted: &dyn Fn(&str) -> bool,
    ledger: &mut Ledger,
) -> io::Result<()> {
    let [memory, cpu, closed, saturation] =
        ["memory", "cpu", "closed-loop", "saturation"].map(is_wanted);
    let contenders = if memory || cpu { CONTENDERS } else { FAST };
    for round in 0..settings.rounds {
        for contender in rotated(contenders, round) {
            let is_fast = FAST.contains(&contender);
            let (mut arena, before) =
                Arena::open(&settings.programs, contender, settings.streams, SIZE)?;
            let mut note = |row: Row, value: f64| note(ledger, row, contender, round, value);
            if memory {
                let weight = Weight::of(&arena.server, settings.streams)?;
                note(MEMORY, weight.per_stream(before));
            }
            if cpu {
                let cost = arena.drive(Pace::Every(PAUSE), settings.time)?;
                note(CPU, cost.delivery_us());
                note(SWEEP, millis(cost.load.sweep.value_at_quantile(0.5)));
                note(LATENCY, millis(cost.load.latency.value_at_quantile(0.99)));
                note(STRANGERS, cost.strangers * 100.0);
            }
            if closed && is_fast {
                let cost = arena.drive(Pace::UnderWay(1), settings.time)?;
                note(CLOSED, cost.rate());
                note(CLOSED_CPU, cost.delivery_us());
            }
            if saturation && is_fast {
                let cost = arena.drive(Pace::UnderWay(UNDER_WAY), settings.time)?;
                note(SATURATION, cost.rate());
                note(SATURATION_CPU, cost.delivery_us());
            }
        }
    }
    Ok(())
}
