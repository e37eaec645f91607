//! 10,000 streams of 64 topics each that read nothing, while events go to all of their topics: what is held for them.

use super::arena::{Arena, FIRST};
use super::ledger::{Ledger, Row, Target};
use super::servers::Contender;
use super::swarm::Plan;
use super::{Measurement, Settings, float, note, rotated, tell};
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Bytes of an event's data.
const SIZE: usize = 1024;
/// Topics of one stream.
const EACH: usize = 64;
/// Receive buffer of a stream, in bytes: the least that the kernel gives.
const RECEIVE_BUFFER: usize = 4096;
/// Events that go to all topics together: a window of each of 64 is full then.
const EVENTS: u64 = 66_000;
/// Sockets are filled meanwhile, and windows that nobody needs any more dropped.
const REST: Duration = Duration::from_secs(5);
/// So often it is looked whether all are blocked: those that fell behind their windows read the log first.
const LOOKS: u32 = 24;

/// What can be asked for.
pub const ALL: &[Measurement] = &[Measurement {
    name: "stopped",
    about: "memory of a replica with 10,000 streams of 64 topics that stop reading; only when asked for",
    is_by_hand: true,
}];

const fn row(what: &'static str) -> Row {
    Row {
        what,
        unit: "MiB",
        target: Target::AtMost(300.0),
        base: Contender::Floor,
    }
}

/// How many topics there are, and the rows of it.
const CASES: [(usize, [Row; 3]); 2] = [
    (
        64,
        [
            row("stopped readers of the same 64 topics, open and quiet"),
            row("stopped readers of the same 64 topics, at the end"),
            row("stopped readers of the same 64 topics, at most"),
        ],
    ),
    (
        6_400,
        [
            row("stopped readers of 64 of 6,400 topics, open and quiet"),
            row("stopped readers of 64 of 6,400 topics, at the end"),
            row("stopped readers of 64 of 6,400 topics, at most"),
        ],
    ),
];

const CONTENDERS: &[Contender] = &[Contender::RedisFunction];

/// # Errors
/// As [`super::run`].
pub fn run(settings: &Settings, _: &dyn Fn(&str) -> bool, ledger: &mut Ledger) -> io::Result<()> {
    for round in 0..settings.rounds {
        for contender in rotated(CONTENDERS, round) {
            for (topics, rows) in CASES {
                let figures = weigh(settings, contender, topics)?;
                for (row, bytes) in rows.into_iter().zip(figures) {
                    note(
                        ledger,
                        row,
                        contender,
                        round,
                        float(bytes) / 1024.0 / 1024.0,
                    );
                }
            }
        }
    }
    Ok(())
}

/// Streams whose sockets take no more, as the replica tells.
fn blocked(address: SocketAddr) -> io::Result<usize> {
    let mut socket = TcpStream::connect(address)?;
    socket.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut told = String::new();
    socket.read_to_string(&mut told)?;
    let begin = "tidegate_streams_behind{state=\"blocked\"} ";
    let line = told.lines().find_map(|line| line.strip_prefix(begin));
    line.and_then(|count| count.parse().ok())
        .ok_or_else(|| io::Error::other("the replica does not tell how many are blocked"))
}

/// Bytes of the replica: with the streams open, after all events, and the most that it ever had.
fn weigh(settings: &Settings, contender: Contender, topics: usize) -> io::Result<[u64; 3]> {
    let topics: Vec<String> = (0..topics).map(|number| format!("stop:{number}")).collect();
    let mut arena = Arena::start(&settings.programs, contender, SIZE)?;
    let plan = Plan {
        each: Some(EACH),
        receive_buffer: Some(RECEIVE_BUFFER),
        ..Plan::live(arena.server.address, settings.streams.max(FIRST), &topics)
    };
    let took = arena.swarm.open(&plan)?;
    tell(&format!(
        "{} streams of {EACH} topics opened in {took:?}",
        plan.streams
    ));
    arena.swarm.stop_reading(plan.streams);
    arena.swarm.idle(REST)?;
    let open = arena.server.memory()?;
    let rounds = EVENTS / topics.len() as u64;
    for round in 0..rounds {
        for topic in &topics {
            arena.swarm.fill(topic, 1)?;
        }
        if round % 128 == 0 {
            tell(&format!(
                "{round} of {rounds} events of each topic, {} MiB",
                arena.server.memory()? >> 20
            ));
        }
    }
    for look in 1.. {
        arena.swarm.idle(REST)?;
        let blocked = blocked(arena.server.address)?;
        if blocked == plan.streams {
            break;
        }
        let told = format!("{blocked} of {} streams are blocked", plan.streams);
        tell(&told);
        if look == LOOKS {
            return Err(io::Error::other(told));
        }
    }
    Ok([open, arena.server.memory()?, arena.server.peak_memory()?])
}
