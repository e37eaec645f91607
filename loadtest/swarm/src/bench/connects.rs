//! Connects a second: from nothing to the open event, against nginx with `return 200`.

use super::arena::TOPIC;
use super::floor::OPEN;
use super::ledger::{Ledger, Row, Target};
use super::servers::Contender;
use super::swarm::{Plan, Swarm};
use super::{Measurement, Settings, float, note, rotated};
use std::io;

/// Streams that may be opening.
const OPENING_MAX: usize = 256;

/// What can be asked for.
pub const ALL: &[Measurement] = &[Measurement::new(
    "connects",
    "streams opened a second, open event included, against nginx with return 200 of the same bytes",
)];

const CONNECTS: Row = Row {
    what: "connects, open event included",
    unit: "/s",
    target: Target::RatioAtLeast(0.7),
    base: Contender::Nginx,
};

const CONTENDERS: &[Contender] = &[Contender::Nginx, Contender::Memory, Contender::Floor];

/// # Errors
/// As [`super::run`].
pub fn run(settings: &Settings, _: &dyn Fn(&str) -> bool, ledger: &mut Ledger) -> io::Result<()> {
    let directory = std::env::temp_dir().join(format!("tidegate-bench-{}", std::process::id()));
    std::fs::create_dir_all(&directory)?;
    let done = rounds(settings, ledger, &directory);
    std::fs::remove_dir_all(&directory)?;
    done
}

fn rounds(settings: &Settings, ledger: &mut Ledger, directory: &std::path::Path) -> io::Result<()> {
    for round in 0..settings.rounds {
        for contender in rotated(CONTENDERS, round) {
            let server = match contender {
                Contender::Nginx => settings.programs.nginx(directory, OPEN)?,
                Contender::Floor => settings.programs.floor()?,
                _ => settings.programs.gateway(None)?,
            };
            let topics = [TOPIC.to_owned()];
            let plan = Plan {
                opening_max: OPENING_MAX,
                ..Plan::live(server.address, settings.streams, &topics)
            };
            let took = Swarm::new(0, &settings.programs.cores)?.open(&plan)?;
            let rate = float(settings.streams as u64) / took.as_secs_f64();
            note(ledger, CONNECTS, contender, round, rate);
        }
    }
    Ok(())
}
