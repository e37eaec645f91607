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
pub mod connects;
pub mod cores;
pub mod envelope;
pub mod fan_out;
pub mod floor;
pub mod latency;
pub mod ledger;
pub mod many;
pub mod payload;
pub mod process;
pub mod publisher;
pub mod publishing;
pub mod relay;
pub mod rights;
pub mod servers;
pub mod slow;
pub mod stopped;
pub mod storm;
pub mod swarm;
pub mod tokens;
pub mod topics;
pub mod wire;

use ledger::{Ledger, Row};
use servers::{Contender, Programs};
use std::io;
use std::time::Duration;

/// How much is measured.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What is started, and on which cores.
    pub programs: Programs,
    /// Everyone shares all cores, whatever is measured.
    pub together: bool,
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
    /// It takes the whole machine, and is measured only when it is asked for.
    pub is_by_hand: bool,
}

impl Measurement {
    const fn new(name: &'static str, about: &'static str) -> Self {
        Self {
            name,
            about,
            is_by_hand: false,
        }
    }
}

/// Measures those of its measurements that are wanted.
type Run = fn(&Settings, &dyn Fn(&str) -> bool, &mut Ledger) -> io::Result<()>;

/// Who has which cores while a group is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// The swarm has one for itself.
    Apart,
    /// The scheduler decides: more than a server and a swarm are at work, or only memory is weighed.
    Together,
}

/// Every group of measurements, in the order of the table.
const GROUPS: &[(&[Measurement], Place, Run)] = &[
    (fan_out::ALL, Place::Apart, fan_out::run),
    (envelope::ALL, Place::Apart, envelope::run),
    (rights::ALL, Place::Apart, rights::run),
    (topics::ALL, Place::Together, topics::run),
    (latency::ALL, Place::Together, latency::run),
    (publishing::ALL, Place::Together, publishing::run),
    (storm::ALL, Place::Apart, storm::run),
    (slow::ALL, Place::Apart, slow::run),
    (stopped::ALL, Place::Together, stopped::run),
    (connects::ALL, Place::Apart, connects::run),
    (many::ALL, Place::Together, many::run),
];

/// Everything that can be asked for.
pub fn all() -> impl Iterator<Item = &'static Measurement> {
    GROUPS.iter().flat_map(|(group, ..)| *group)
}

/// Measures what is wanted. What fails does not keep the rest from being measured.
///
/// # Errors
/// A part does not start, or what was delivered is not what was published.
pub fn run(
    settings: &Settings,
    is_wanted: &dyn Fn(&str) -> bool,
    ledger: &mut Ledger,
) -> io::Result<()> {
    let mut failures = Vec::new();
    let shared = &settings.programs.cores;
    for (group, place, run) in GROUPS {
        let names: Vec<&str> = group.iter().map(|measurement| measurement.name).collect();
        if !names.iter().any(|name| is_wanted(name)) {
            continue;
        }
        let mut settings = settings.clone();
        if *place == Place::Apart && !settings.together {
            settings.programs.cores = shared.divided();
        }
        settings.programs.cores.take_swarms()?;
        if let Err(why) = run(&settings, is_wanted, ledger) {
            failures.push(format!("{}: {why}", names.join(", ")));
        }
    }
    if failures.is_empty() {
        return Ok(());
    }
    Err(io::Error::other(failures.join("; ")))
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

/// Notes a figure, and tells it.
pub fn note(ledger: &mut Ledger, row: Row, contender: Contender, round: usize, value: f64) {
    let Row { what, unit, .. } = row;
    tell(&format!(
        "round {}, {contender}: {what} {value:.3} {unit}",
        round + 1
    ));
    ledger.note(row, contender, round, value);
}

/// Nanoseconds as milliseconds.
#[must_use]
pub fn millis(nanos: u64) -> f64 {
    float(nanos) / 1e6
}

/// A count as a number to calculate with.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "counts here are far below 2^52")]
pub fn float(count: u64) -> f64 {
    count as f64
}
