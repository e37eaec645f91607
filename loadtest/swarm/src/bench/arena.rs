//! One contender with its streams open.

use super::process::Process;
use super::servers::{Contender, Programs};
use super::swarm::{Load, Pace, Plan, Swarm};
use std::io;
use std::time::Duration;

/// The topic that all streams of an arena read.
pub const TOPIC: &str = "bench";
/// Streams that are there before memory is weighed for the first time.
const FIRST: usize = 10;

/// A server, the streams that it serves, and one publisher.
#[derive(Debug)]
pub struct Arena {
    /// Who is measured.
    pub contender: Contender,
    server: Process,
    _redis: Option<Process>,
    /// Its subscribers.
    pub swarm: Swarm,
    /// Memory before the streams were opened, and how many were opened since.
    before: u64,
    opened: usize,
}

/// A measurement of a load, and what it cost.
#[derive(Clone, Debug)]
pub struct Cost {
    /// What was delivered.
    pub load: Load,
    /// Processor time of the server.
    pub processor: Duration,
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
    /// Starts a contender and opens `streams` to it.
    ///
    /// # Errors
    /// A part does not start, or a stream does not open.
    pub fn open(
        programs: &Programs,
        contender: Contender,
        streams: usize,
        size: usize,
    ) -> io::Result<Self> {
        let redis = contender
            .is_over_redis()
            .then(|| programs.redis())
            .transpose()?;
        let server = match contender {
            Contender::Floor => programs.floor()?,
            _ => programs.gateway(redis.as_ref().map(|redis| redis.address))?,
        };
        let mut swarm = Swarm::new(size)?;
        let publishes_to = match (&redis, contender) {
            (Some(redis), Contender::RedisRaw | Contender::RedisFunction) => redis.address,
            _ => server.address,
        };
        let topics = [TOPIC.to_owned()];
        swarm.open(&Plan::live(server.address, FIRST, &topics))?;
        swarm.add_publisher(contender.way(), publishes_to)?;
        let mut arena = Self {
            contender,
            server,
            _redis: redis,
            swarm,
            before: 0,
            opened: streams.saturating_sub(FIRST),
        };
        arena.warm_up()?;
        arena.before = arena.server.memory()?;
        arena
            .swarm
            .open(&Plan::live(arena.server.address, arena.opened, &topics))?;
        arena.warm_up()?;
        Ok(arena)
    }

    /// A few events, so that all that is allocated once is there.
    fn warm_up(&mut self) -> io::Result<()> {
        let (pause, time) = (Duration::from_millis(200), Duration::from_secs(1));
        self.swarm.drive(TOPIC, Pace::Every(pause), time)?;
        Ok(())
    }

    /// Bytes of memory for each stream that was opened since the first few.
    ///
    /// # Errors
    /// The server has ended.
    pub fn memory_per_stream(&self) -> io::Result<f64> {
        let grown = self.server.memory()?.saturating_sub(self.before);
        Ok(super::float(grown) / super::float(self.opened as u64))
    }

    /// Publishes at a pace, and tells what it cost.
    ///
    /// # Errors
    /// As [`Swarm::drive`].
    pub fn drive(&mut self, pace: Pace, time: Duration) -> io::Result<Cost> {
        let before = self.server.processor_time()?;
        let load = self.swarm.drive(TOPIC, pace, time)?;
        let processor = self.server.processor_time()?.saturating_sub(before);
        Ok(Cost { load, processor })
    }
}
