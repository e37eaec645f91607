//! 100,000 streams over six replicas on one machine, one event a second to all.
//!
//! A process has 20,000 descriptors, so each replica has a swarm of its own beside it. Ports suffice:
//! the kernel gives each out once for each replica.

use super::arena::{TOPIC, Weight};
use super::cores::Cores;
use super::ledger::{Ledger, Row, Target};
use super::process::{Ending, Process};
use super::publisher::Way;
use super::servers::Contender;
use super::swarm::{Plan, Swarm};
use super::{Measurement, Settings, float, note, tell};
use clap::Args;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

/// Bytes of an event's data.
const SIZE: usize = 128;
const REPLICAS: u8 = 6;
/// Streams of one replica: six have 100,000 and a few more.
const STREAMS: usize = 16_667;
/// Between two events.
const PAUSE: Duration = Duration::from_secs(1);
/// Time for the last event to arrive everywhere.
const END: Duration = Duration::from_secs(60);

/// What can be asked for.
pub const ALL: &[Measurement] = &[Measurement {
    name: "hundred-thousand",
    about: "100,000 streams over 6 replicas, one event a second to all; only when asked for",
    is_by_hand: true,
}];

const fn row(what: &'static str, unit: &'static str) -> Row {
    Row {
        what,
        unit,
        target: Target::None,
        base: Contender::Floor,
    }
}

const OPENED: Row = row("100,000 streams, opened", "/s");
const MEMORY: Row = row("100,000 streams, memory a stream", "KB");
const CPU: Row = row("100,000 streams, CPU of all replicas", "%");
const REDIS: Row = row("100,000 streams, CPU of Redis", "%");
const LAST: Row = row("100,000 streams, publish to last subscriber, worst", "ms");
const DELIVERIES: Row = row("100,000 streams, deliveries", "");

/// What one swarm of many is told.
#[derive(Args, Clone, Debug)]
pub struct Share {
    /// The replica.
    #[arg(long)]
    address: SocketAddr,
    /// Streams.
    #[arg(long)]
    streams: usize,
    /// Events that each must get.
    #[arg(long)]
    events: u64,
    /// Seconds for all of it.
    #[arg(long)]
    seconds: u64,
}

/// One swarm of many: opens its streams, says so, waits for the events, and tells what came.
///
/// # Errors
/// A stream does not open, or an event is missing.
#[expect(clippy::print_stdout, reason = "its parent reads it")]
pub fn take_share(share: &Share) -> io::Result<()> {
    let mut swarm = Swarm::new(SIZE, &Cores::shared()?)?;
    let topics = [TOPIC.to_owned()];
    swarm.open(&Plan {
        opening_max: 64,
        ..Plan::live(share.address, share.streams, &topics)
    })?;
    println!("open");
    io::stdout().flush()?;
    let load = swarm.listen(share.events, Duration::from_secs(share.seconds))?;
    println!("{} {}", load.deliveries, load.sweep.max());
    Ok(())
}

/// A swarm in a process of its own.
struct Part {
    _process: Process,
    said: io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Part {
    fn start(settings: &Settings, replica: SocketAddr, events: u64) -> io::Result<Self> {
        let seconds = settings.time + END * 5;
        let bench = &settings.programs.bench;
        let mut process = Process::start(
            bench,
            &settings.programs.cores,
            replica,
            Ending::Kill,
            |command| {
                command
                    .arg("swarm")
                    .args(["--address", &replica.to_string()])
                    .args(["--streams", &STREAMS.to_string()])
                    .args(["--events", &events.to_string()])
                    .args(["--seconds", &seconds.as_secs().to_string()])
                    .stdout(Stdio::piped());
            },
        )?;
        let output = process.output().ok_or(io::ErrorKind::BrokenPipe)?;
        Ok(Self {
            _process: process,
            said: BufReader::new(output).lines(),
        })
    }

    fn line(&mut self) -> io::Result<String> {
        let line = self.said.next().transpose()?;
        line.ok_or_else(|| io::Error::other("a swarm has failed"))
    }
}

/// # Errors
/// As [`super::run`].
pub fn run(settings: &Settings, _: &dyn Fn(&str) -> bool, ledger: &mut Ledger) -> io::Result<()> {
    let contender = Contender::RedisFunction;
    let events = settings.time.as_secs();
    let redis = settings.programs.redis()?;
    let replicas = (0..REPLICAS).map(|_| settings.programs.gateway(Some(redis.address)));
    let replicas = replicas.collect::<io::Result<Vec<_>>>()?;
    let weigh = |streams: usize| -> io::Result<Vec<Weight>> {
        replicas
            .iter()
            .map(|replica| Weight::of(replica, streams))
            .collect()
    };
    let spent = || -> io::Result<Duration> { replicas.iter().map(Process::processor_time).sum() };
    let (began, before) = (super::payload::now(), weigh(0)?);
    let mut parts = Vec::new();
    for replica in &replicas {
        parts.push(Part::start(settings, replica.address, events)?);
    }
    for part in &mut parts {
        part.line()?;
    }
    let took = Duration::from_nanos(super::payload::now() - began);
    let streams = STREAMS * replicas.len();
    tell(&format!("{streams} streams are open after {took:?}"));
    note(
        ledger,
        OPENED,
        contender,
        0,
        float(streams as u64) / took.as_secs_f64(),
    );

    let mut publisher = Swarm::new(SIZE, &settings.programs.cores)?;
    publisher.add_publisher(Way::Function, redis.address)?;
    let (began, cpu, redis_cpu) = (super::payload::now(), spent()?, redis.processor_time()?);
    for _ in 0..events {
        publisher.fill(TOPIC, 1)?;
        publisher.idle(PAUSE)?;
    }
    let (mut deliveries, mut worst) = (0, 0);
    for part in &mut parts {
        let line = part.line()?;
        let mut figures = line
            .split(' ')
            .filter_map(|figure| figure.parse::<u64>().ok());
        deliveries += figures.next().unwrap_or_default();
        worst = figures.next().unwrap_or_default().max(worst);
    }
    let time = Duration::from_nanos(super::payload::now() - began).as_secs_f64();
    let percent = |used: Duration| used.as_secs_f64() / time * 100.0;
    let weights = weigh(STREAMS)?;
    let memory = weights
        .iter()
        .zip(&before)
        .map(|(after, before)| after.per_stream(*before));
    note(
        ledger,
        MEMORY,
        contender,
        0,
        memory.sum::<f64>() / f64::from(REPLICAS),
    );
    note(
        ledger,
        CPU,
        contender,
        0,
        percent(spent()?.saturating_sub(cpu)),
    );
    note(
        ledger,
        REDIS,
        contender,
        0,
        percent(redis.processor_time()?.saturating_sub(redis_cpu)),
    );
    note(ledger, LAST, contender, 0, super::millis(worst));
    note(ledger, DELIVERIES, contender, 0, float(deliveries));
    Ok(())
}
