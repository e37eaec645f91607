//! One publisher, one subscriber: from the function in Redis to the stream.

use super::arena::{Arena, TOPIC};
use super::ledger::{Ledger, Row, Target};
use super::payload;
use super::process::{Process, nap};
use super::publisher::Way;
use super::relay::{hear, subscribe};
use super::servers::Contender;
use super::swarm::{Pace, Plan, Swarm, latencies};
use super::{Measurement, Settings, float, note, rotated};
use hdrhistogram::Histogram;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Bytes of an event's data.
const SIZE: usize = 128;
/// Between two events.
const PAUSE: Duration = Duration::from_millis(2);

/// What can be asked for.
pub const ALL: &[Measurement] = &[Measurement::new(
    "latency",
    "publish (function) to one subscriber, against a minimal relay and bare PUBLISH to SUBSCRIBE",
)];

const fn row(what: &'static str) -> Row {
    Row {
        what,
        unit: "us",
        target: Target::RatioAtMost(1.3),
        base: Contender::Relay,
    }
}

const P50: Row = row("publish to client, p50");
const P99: Row = row("publish to client, p99");

const CONTENDERS: &[Contender] = &[Contender::Relay, Contender::RedisFunction, Contender::Redis];

/// # Errors
/// As [`super::run`].
pub fn run(settings: &Settings, _: &dyn Fn(&str) -> bool, ledger: &mut Ledger) -> io::Result<()> {
    for round in 0..settings.rounds {
        for contender in rotated(CONTENDERS, round) {
            let latency = match contender {
                Contender::Relay => of_relay(settings)?,
                Contender::Redis => of_redis(settings)?,
                _ => of_gateway(settings, contender)?,
            };
            let at = |quantile| float(latency.value_at_quantile(quantile)) / 1e3;
            note(ledger, P50, contender, round, at(0.5));
            note(ledger, P99, contender, round, at(0.99));
        }
    }
    Ok(())
}

fn of_gateway(settings: &Settings, contender: Contender) -> io::Result<Histogram<u64>> {
    let mut arena = Arena::start(&settings.programs, contender, SIZE)?;
    follow(&mut arena.swarm, arena.server.address, settings.time)
}

/// The relay knows no function: a gateway brings it, and leaves.
fn of_relay(settings: &Settings) -> io::Result<Histogram<u64>> {
    let redis = redis_with_function(settings)?;
    let relay = settings.programs.relay(redis.address, TOPIC)?;
    let mut swarm = Swarm::new(SIZE, &settings.programs.cores)?;
    swarm.add_publisher(Way::Function, redis.address)?;
    follow(&mut swarm, relay.address, settings.time)
}

fn redis_with_function(settings: &Settings) -> io::Result<Process> {
    let redis = settings.programs.redis()?;
    drop(settings.programs.gateway(Some(redis.address))?);
    Ok(redis)
}

/// Opens one stream, and publishes to it.
fn follow(swarm: &mut Swarm, address: SocketAddr, time: Duration) -> io::Result<Histogram<u64>> {
    let topics = [TOPIC.to_owned()];
    swarm.open(&Plan::live(address, 1, &topics))?;
    swarm.drive(TOPIC, Pace::Every(PAUSE), time / 10)?;
    Ok(swarm.drive(TOPIC, Pace::Every(PAUSE), time)?.latency)
}

/// `PUBLISH` to `SUBSCRIBE`, nothing else.
fn of_redis(settings: &Settings) -> io::Result<Histogram<u64>> {
    let redis = settings.programs.redis()?;
    let mut publisher = TcpStream::connect(redis.address)?;
    publisher.set_nodelay(true)?;
    let mut subscriber = subscribe(redis.address, TOPIC)?;
    let mut latency = latencies()?;
    let (mut command, mut message, mut answer) = (Vec::new(), Vec::new(), [0; 64]);
    let began = payload::now();
    let mut number = 0;
    while Duration::from_nanos(payload::now() - began) < settings.time {
        command.clear();
        write!(
            command,
            "*3\r\n$7\r\nPUBLISH\r\n$5\r\n{TOPIC}\r\n${SIZE}\r\n"
        )?;
        payload::write(&mut command, number, payload::now(), SIZE);
        command.extend_from_slice(b"\r\n");
        publisher.write_all(&command)?;
        hear(&mut subscriber, &mut message)?;
        let (_, sent) = payload::read(&message).ok_or(io::ErrorKind::InvalidData)?;
        latency.saturating_record(payload::now() - sent);
        let _read = publisher.read(&mut answer)?;
        number += 1;
        nap(PAUSE);
    }
    Ok(latency)
}
