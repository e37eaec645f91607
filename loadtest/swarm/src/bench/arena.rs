//! One contender with its streams open.

use super::payload;
use super::process::{Process, machine_time};
use super::publisher::Way;
use super::servers::{Contender, Programs};
use super::swarm::{Load, Pace, Plan, Swarm};
use std::io;
use std::time::Duration;

/// The topic that all streams of an arena read.
pub const TOPIC: &str = "bench";
/// Streams that are there before memory is weighed for the first time.
pub const FIRST: usize = 10;
/// A server, the streams that it serves, and one publisher.
#[derive(Debug)]
pub struct Arena {
    /// Who is measured.
    pub contender: Contender,
    /// The process that is measured.
    pub server: Process,
    /// The Redis under it.
    pub redis: Option<Process>,
    /// Its subscribers, and its publisher.
    pub swarm: Swarm,
    /// Cores of the machine.
    cores: u32,
}

/// The memory of a server with so many streams.
#[derive(Clone, Copy, Debug)]
pub struct Weight {
    bytes: u64,
    streams: usize,
}

impl Weight {
    /// What it is now.
    ///
    /// # Errors
    /// The server has ended.
    pub fn of(server: &Process, streams: usize) -> io::Result<Self> {
        let bytes = server.memory()?;
        Ok(Self { bytes, streams })
    }

    /// Kilobytes for each stream that came since.
    #[must_use]
    pub fn per_stream(self, before: Self) -> f64 {
        let (bytes, streams) = (
            self.bytes.saturating_sub(before.bytes),
            self.streams.saturating_sub(before.streams),
        );
        super::float(bytes) / 1024.0 / super::float(streams as u64)
    }
}

/// A measurement of a load, and what it cost.
#[derive(Clone, Debug)]
pub struct Cost {
    /// What was delivered.
    pub load: Load,
    /// Processor time of the server.
    pub processor: Duration,
    /// Share of the machine's processors that neither the contender nor the swarm used.
    pub strangers: f64,
}

impl Cost {
    /// Microseconds of the server's processor time for each delivery.
    #[must_use]
    pub fn delivery_us(&self) -> f64 {
        self.processor.as_secs_f64() * 1e6 / super::float(self.load.deliveries)
    }

    /// Deliveries a second while it was published.
    #[must_use]
    pub fn rate(&self) -> f64 {
        super::float(self.load.in_time) / self.load.time.as_secs_f64()
    }
}

impl Arena {
    /// Starts a contender, without streams, for events of `size` bytes.
    ///
    /// # Errors
    /// A part does not start.
    pub fn start(programs: &Programs, contender: Contender, size: usize) -> io::Result<Self> {
        let redis = contender
            .is_over_redis()
            .then(|| programs.redis())
            .transpose()?;
        let server = match contender {
            Contender::Floor => programs.floor()?,
            _ => programs.gateway(redis.as_ref().map(|redis| redis.address))?,
        };
        let mut swarm = Swarm::new(size, &programs.cores)?;
        let publishes_to = match (&redis, contender.way()) {
            (Some(redis), Way::Raw | Way::Function) => redis.address,
            _ => server.address,
        };
        swarm.add_publisher(contender.way(), publishes_to)?;
        Ok(Self {
            contender,
            server,
            redis,
            swarm,
            cores: programs.cores.count(),
        })
    }

    /// Starts a contender and opens `streams` to it; says how much memory it had before.
    ///
    /// # Errors
    /// A part does not start, or a stream does not open.
    pub fn open(
        programs: &Programs,
        contender: Contender,
        streams: usize,
        size: usize,
    ) -> io::Result<(Self, Weight)> {
        let mut arena = Self::start(programs, contender, size)?;
        let topics = [TOPIC.to_owned()];
        let address = arena.server.address;
        let plan = |streams| Plan {
            is_enveloped: contender == Contender::Enveloped,
            ..Plan::live(address, streams, &topics)
        };
        arena.swarm.open(&plan(FIRST))?;
        arena.warm_up()?;
        let before = Weight::of(&arena.server, FIRST)?;
        let streams = streams.saturating_sub(FIRST);
        arena.swarm.open(&plan(streams))?;
        arena.warm_up()?;
        Ok((arena, before))
    }

    /// A few events, so that all that is allocated once is there.
    ///
    /// # Errors
    /// As [`Swarm::drive`].
    pub fn warm_up(&mut self) -> io::Result<()> {
        let (pause, time) = (Duration::from_millis(200), Duration::from_secs(1));
        self.swarm.drive(TOPIC, Pace::Every(pause), time)?;
        Ok(())
    }

    /// Publishes at a pace, and tells what it cost.
    ///
    /// # Errors
    /// As [`Swarm::drive`].
    pub fn drive(&mut self, pace: Pace, time: Duration) -> io::Result<Cost> {
        let (began, before) = (payload::now(), self.processor_times()?);
        let load = self.swarm.drive(TOPIC, pace, time)?;
        let (took, after) = (payload::now() - began, self.processor_times()?);
        let used = |which: fn(&Times) -> Duration| which(&after).saturating_sub(which(&before));
        let strangers = used(|times| times.machine).saturating_sub(used(|times| times.ours));
        let whole = Duration::from_nanos(took).as_secs_f64() * f64::from(self.cores);
        Ok(Cost {
            load,
            processor: used(|times| times.server),
            strangers: strangers.as_secs_f64() / whole,
        })
    }

    fn processor_times(&self) -> io::Result<Times> {
        let (machine, swarm) = machine_time()?;
        let server = self.server.processor_time()?;
        let redis = self
            .redis
            .as_ref()
            .map(Process::processor_time)
            .transpose()?;
        Ok(Times {
            machine,
            server,
            ours: server + swarm + redis.unwrap_or_default(),
        })
    }
}

/// Processor times at one moment.
struct Times {
    machine: Duration,
    server: Duration,
    /// Server, swarm and Redis.
    ours: Duration,
}
