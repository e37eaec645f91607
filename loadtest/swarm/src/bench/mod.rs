//! The benchmark: what the gateway costs beyond what the kernel costs.
//!
//! ```text
//! swarm ──opens streams──> floor | gateway     (processes of their own, one at a time, in turn)
//!   └────publishes───────> floor | gateway | Redis
//! ```
//!
//! All contenders of a measurement meet in each round, in an order that rotates, and a ratio is
//! taken within a round; the table shows the median of the rounds.

pub mod arena;
pub mod fan_out;
pub mod floor;
pub mod ledger;
pub mod payload;
pub mod process;
pub mod publisher;
pub mod servers;
pub mod swarm;
pub mod wire;

use ledger::Ledger;
use servers::Programs;
use std::io;
use std::time::Duration;

/// How much is measured.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What is started.
    pub programs: Programs,
    /// How often every contender is measured.
    pub rounds: usize,
    /// Time of one load.
    pub time: Duration,
    /// Streams of a full house.
    pub streams: usize,
}

/// Something that can be asked for by name.
#[derive(Clone, Copy, Debug)]
pub struct Measurement {
    /// What it is called.
    pub name: &'static str,
    /// What it measures.
    pub about: &'static str,
}

/// Every measurement, in the order of the table.
pub const ALL: &[&[Measurement]] = &[fan_out::ALL];

/// Measures what was asked for.
///
/// # Errors
/// A part does not start, or what was delivered is not what was published.
pub fn run(
    settings: &Settings,
    is_wanted: &dyn Fn(&str) -> bool,
    ledger: &mut Ledger,
) -> io::Result<()> {
    fan_out::run(settings, is_wanted, ledger)
}

/// The contenders of a round: in turn, so that none is always first.
pub fn rotated<T: Copy>(contenders: &[T], round: usize) -> Vec<T> {
    let (before, after) = contenders.split_at(round % contenders.len().max(1));
    [after, before].concat()
}

/// Tells how far it is.
#[expect(clippy::print_stderr, reason = "it is a program for the terminal")]
pub fn tell(line: &str) {
    eprintln!("bench: {line}");
}

/// A count as a number to calculate with.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "counts here are far below 2^52")]
pub fn float(count: u64) -> f64 {
    count as f64
}
