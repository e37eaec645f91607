//! What an envelope costs: 10,000 subscribers of one topic that ask for it, beside as many that do not.
//!
//! An envelope is made once for an event, however many streams show it. What is left is that its
//! bytes are more.

use super::arena::Arena;
use super::ledger::{Ledger, Row, Target};
use super::servers::Contender;
use super::swarm::Pace;
use super::{Measurement, Settings, note, rotated};
use std::io;
use std::time::Duration;

/// Bytes of an event's data.
const SIZE: usize = 128;
/// Between two events: 50,000 deliveries a second at 10,000 streams.
const PAUSE: Duration = Duration::from_millis(200);

/// What can be asked for.
pub const ALL: &[Measurement] = &[Measurement::new(
    "envelope",
    "processor time of a delivery in an envelope, and of one without",
)];

const CPU: Row = Row {
    what: "CPU a delivery, envelope beside plain",
    unit: "us",
    target: Target::RatioAtMost(1.05),
    base: Contender::Memory,
};

const CONTENDERS: &[Contender] = &[Contender::Memory, Contender::Enveloped];

/// # Errors
/// As [`super::run`].
pub fn run(settings: &Settings, _: &dyn Fn(&str) -> bool, ledger: &mut Ledger) -> io::Result<()> {
    for round in 0..settings.rounds {
        for contender in rotated(CONTENDERS, round) {
            let (mut arena, _) =
                Arena::open(&settings.programs, contender, settings.streams, SIZE)?;
            let cost = arena.drive(Pace::Every(PAUSE), settings.time)?;
            note(ledger, CPU, contender, round, cost.delivery_us());
        }
    }
    Ok(())
}
