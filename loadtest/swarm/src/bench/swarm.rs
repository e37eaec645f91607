//! The subscriber swarm: thousands of streams and whoever publishes, in one thread over epoll.
//!
//! Each readable socket costs one `read`, each event a look at its number and its time. Order, loss
//! and repetition are judged for every event of every stream: the next number must be the one
//! after the last.

use super::cores::Cores;
use super::payload;
use super::publisher::{Publisher, Way};
use super::wire::{Item, Wire};
use hdrhistogram::Histogram;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::io::{self, Read as _, Write as _};
use std::net::SocketAddr;
use std::time::Duration;

/// Bytes read at once.
const BUFFER: usize = 256 * 1024;
/// Kernel events taken at once.
const EVENTS: usize = 1024;
/// Time for streams to open, and for what was published to arrive; past it something hangs.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two bytes that a slow stream reads.
const BITE: Duration = Duration::from_millis(200);
/// Publishes under way on one connection when nothing else paces them.
const PIPELINE: usize = 64;
/// Publishers have the tokens from here on.
const PUBLISHERS: usize = usize::MAX / 2;
/// Latencies are told apart up to a minute, in nanoseconds.
const LATENCY_MAX: u64 = 60_000_000_000;

/// What to open.
#[derive(Clone, Copy, Debug)]
pub struct Plan<'a> {
    /// The server.
    pub address: SocketAddr,
    /// How many streams.
    pub streams: usize,
    /// Streams that may be opening at the same time.
    pub opening_max: usize,
    /// The topics; stream n reads the n-th, all read the last if there are fewer.
    pub topics: &'a [String],
    /// Topics of one stream, if not one: the n-th reads so many from there on, and the first come after the last.
    pub each: Option<usize>,
    /// Whether they ask for events in envelopes.
    pub is_enveloped: bool,
    /// The cursor that they come back with, and how many events they are behind; without it they are live.
    pub behind: Option<(&'a str, u64)>,
    /// Tokens; stream n sends the n-th, all send the last if there are fewer, and none if there is none.
    pub tokens: &'a [String],
    /// Receive buffer of each socket, in bytes; without it the kernel's default.
    pub receive_buffer: Option<usize>,
}

impl<'a> Plan<'a> {
    /// Streams that read one topic live.
    #[must_use]
    pub fn live(address: SocketAddr, streams: usize, topics: &'a [String]) -> Self {
        Self {
            address,
            streams,
            opening_max: 512,
            topics,
            each: None,
            is_enveloped: false,
            behind: None,
            tokens: &[],
            receive_buffer: None,
        }
    }

    /// What the n-th stream says of who it is: a field, or nothing.
    fn authorization(&self, number: usize) -> String {
        let token = self.tokens.get(number).or(self.tokens.last());
        token.map_or_else(String::new, |token| {
            format!("Authorization: Bearer {token}\r\n")
        })
    }

    /// What the n-th stream asks for.
    fn target(&self, number: usize) -> String {
        let Some(each) = self.each else {
            let topic = self.topics.get(number).or(self.topics.last());
            let asked = if self.is_enveloped { "?envelope" } else { "" };
            return format!("/events/{}{asked}", topic.map_or("events", String::as_str));
        };
        let topics = self.topics.iter().cycle();
        let topics = topics.skip(number % self.topics.len().max(1)).take(each);
        let names = topics.map(|topic| format!("topic={topic}"));
        let asked = self.is_enveloped.then(|| "envelope".to_owned());
        let names: Vec<String> = names.chain(asked).collect();
        format!("/events?{}", names.join("&"))
    }
}

#[derive(Debug)]
struct Stream {
    socket: TcpStream,
    wire: Wire,
    /// The number that must come next.
    next: u64,
    /// The request, until it is written.
    request: Vec<u8>,
    is_open: bool,
    pace: Reads,
}

/// How a stream is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reads {
    /// At once.
    Promptly,
    /// A byte now and then, and nobody waits for it.
    Slowly,
    /// Not at all.
    Never,
}

/// What went wrong. All zero, or a measurement is void.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// Events that a stream did not get.
    pub lost: u64,
    /// Events that a stream got again, or late.
    pub repeated: u64,
    /// Gaps told.
    pub gaps: u64,
    /// Events of another origin or of another size.
    pub foreign: u64,
    /// Streams that the server closed.
    pub closed: u64,
    /// The last status that was not 200.
    pub refused: Option<u16>,
}

/// How events are published during a measurement.
#[derive(Clone, Copy, Debug)]
pub enum Pace {
    /// At fixed times, whatever comes of them.
    Every(Duration),
    /// As many as have not reached every stream, at any time.
    UnderWay(u64),
}

/// What a measurement found.
#[derive(Clone, Debug)]
pub struct Load {
    /// Events published.
    pub events: u64,
    /// Deliveries of all of them.
    pub deliveries: u64,
    /// Deliveries that came in time, and that time.
    pub in_time: u64,
    /// How long was published.
    pub time: Duration,
    /// From sending to one stream, in nanoseconds.
    pub latency: Histogram<u64>,
    /// From sending to the last of all streams, in nanoseconds.
    pub sweep: Histogram<u64>,
}

/// Streams and publishers.
pub struct Swarm {
    poll: Poll,
    sleeps: bool,
    events: Events,
    buffer: Box<[u8]>,
    streams: Vec<Stream>,
    publishers: Vec<Publisher>,
    /// When slow streams are read next.
    next_bite: u64,
    /// Bytes of each event's data.
    size: usize,
    tally: Tally,
}

impl std::fmt::Debug for Swarm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Swarm")
            .field("streams", &self.streams.len())
            .finish_non_exhaustive()
    }
}

/// What all streams saw.
#[derive(Debug)]
struct Tally {
    opened: usize,
    /// Streams that were answered in full.
    ended: usize,
    /// Streams that count: slow ones do not.
    prompt: u32,
    /// The number that is published next.
    published: u64,
    /// Numbers below this one have reached every prompt stream.
    complete: u64,
    /// How many prompt streams have the events from `complete` on.
    reached: std::collections::VecDeque<u32>,
    deliveries: u64,
    latency: Histogram<u64>,
    sweep: Histogram<u64>,
    faults: Faults,
}

impl Tally {
    fn event(&mut self, number: u64, sent: u64, now: u64) {
        let took = now.saturating_sub(sent);
        self.deliveries += 1;
        self.latency.saturating_record(took);
        let Some(place) = number.checked_sub(self.complete) else {
            return;
        };
        let place = usize::try_from(place).unwrap_or(usize::MAX);
        if let Some(reached) = self.reached.get_mut(place) {
            *reached += 1;
        }
        while self
            .reached
            .front()
            .is_some_and(|reached| *reached >= self.prompt)
        {
            self.reached.pop_front();
            self.complete += 1;
            self.sweep.saturating_record(took);
        }
    }
}

impl Swarm {
    /// A swarm without streams, for events of `size` bytes. If it has a core for itself, it looks
    /// for packets all the time: nobody pays for waking it.
    ///
    /// # Errors
    /// No epoll instance can be had.
    pub fn new(size: usize, cores: &Cores) -> io::Result<Self> {
        Ok(Self {
            sleeps: !cores.are_divided(),
            poll: Poll::new()?,
            events: Events::with_capacity(EVENTS),
            buffer: vec![0; BUFFER].into_boxed_slice(),
            streams: Vec::new(),
            publishers: Vec::new(),
            next_bite: 0,
            size,
            tally: Tally {
                opened: 0,
                ended: 0,
                prompt: 0,
                published: 0,
                complete: 0,
                reached: std::collections::VecDeque::new(),
                deliveries: 0,
                latency: latencies()?,
                sweep: latencies()?,
                faults: Faults::default(),
            },
        })
    }

    /// Adds a connection that publishes.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn add_publisher(&mut self, way: Way, address: SocketAddr) -> io::Result<()> {
        let token = Token(PUBLISHERS + self.publishers.len());
        let publisher = Publisher::connect(way, address, self.poll.registry(), token)?;
        self.publishers.push(publisher);
        Ok(())
    }

    /// From now on what is published over HTTP says who publishes.
    pub fn publish_as(&mut self, token: &str) {
        for publisher in &mut self.publishers {
            publisher.authorize(token);
        }
    }

    /// Opens streams, and returns when all are live; says how long that took.
    ///
    /// # Errors
    /// Not all open, or one is refused.
    pub fn open(&mut self, plan: &Plan<'_>) -> io::Result<Duration> {
        let (began, before) = (payload::now(), self.tally.opened);
        let deadline = Deadline::after(PATIENCE);
        let mut begun = 0;
        while self.tally.opened < before + plan.streams {
            let opening = before + begun - self.tally.opened;
            let room = plan.opening_max.saturating_sub(opening);
            for _ in 0..room.min(plan.streams - begun) {
                self.begin(plan, begun)?;
                begun += 1;
            }
            self.turn(Duration::from_millis(100))?;
            self.check()?;
            deadline.check(|| {
                format!(
                    "{} of {} streams opened",
                    self.tally.opened - before,
                    plan.streams
                )
            })?;
        }
        Ok(Duration::from_nanos(payload::now() - began))
    }

    fn begin(&mut self, plan: &Plan<'_>, number: usize) -> io::Result<()> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
        socket.set_nonblocking(true)?;
        // Closed by a reset: ten thousand ports that wait for late packets would be missing in the next round.
        socket.set_linger(Some(Duration::ZERO))?;
        if let Some(bytes) = plan.receive_buffer {
            socket.set_recv_buffer_size(bytes)?;
        }
        match socket.connect(&SockAddr::from(plan.address)) {
            Err(why) if why.raw_os_error() != Some(IN_PROGRESS) => return Err(why),
            _ => {}
        }
        let mut socket = TcpStream::from_std(socket.into());
        let token = Token(self.streams.len());
        self.poll.registry().register(
            &mut socket,
            token,
            Interest::READABLE | Interest::WRITABLE,
        )?;
        let target = plan.target(number);
        let cursor = plan.behind;
        let cursor = cursor.map_or_else(String::new, |(id, _)| format!("Last-Event-ID: {id}\r\n"));
        let authorization = plan.authorization(number);
        let request = format!(
            "GET {target} HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n{cursor}{authorization}\r\n"
        );
        self.streams.push(Stream {
            socket,
            wire: Wire::default(),
            next: self.tally.published - plan.behind.map_or(0, |(_, events)| events),
            request: request.into_bytes(),
            is_open: false,
            pace: Reads::Promptly,
        });
        self.tally.prompt += 1;
        Ok(())
    }

    /// Opens streams that are behind, and returns when each has what it missed; says how long that
    /// took.
    ///
    /// # Errors
    /// As [`Swarm::open`] and [`Swarm::drive`].
    pub fn storm(&mut self, plan: &Plan<'_>) -> io::Result<Duration> {
        let (began, before) = (payload::now(), self.tally.deliveries);
        let events = plan.behind.map_or(0, |(_, events)| events);
        let missed = events * plan.streams as u64;
        self.open(plan)?;
        self.until(|swarm| {
            let missing = (before + missed).saturating_sub(swarm.tally.deliveries);
            (missing > 0).then(|| format!("{missing} of {missed} events are missing"))
        })?;
        Ok(Duration::from_nanos(payload::now() - began))
    }

    /// Publishes `count` events that nobody reads; returns the answer to the last.
    ///
    /// # Errors
    /// One is not acknowledged.
    pub fn fill(&mut self, topic: &str, count: u64) -> io::Result<String> {
        for _ in 0..count {
            self.publish(topic)?;
            self.tally.reached.clear();
            self.tally.complete = self.tally.published;
            self.wait_in_flight(PIPELINE - 1)?;
        }
        self.settle()?;
        let answer = self.publishers.first().map(Publisher::answer);
        Ok(String::from_utf8_lossy(answer.unwrap_or_default()).into_owned())
    }

    /// Publishes one event to each topic, where the n-th stream reads the n-th, and waits for all.
    ///
    /// # Errors
    /// As [`Swarm::drive`].
    pub fn publish_each(&mut self, topics: &[String]) -> io::Result<()> {
        self.tally.reached.push_back(0);
        self.tally.published += 1;
        for topic in topics {
            let publisher = self.publishers.first_mut();
            let publisher = publisher.ok_or_else(|| io::Error::other("nobody publishes"))?;
            publisher.publish(topic, self.tally.published - 1, self.size)?;
            self.wait_in_flight(PIPELINE - 1)?;
        }
        self.settle()
    }

    /// Every publisher always has one event under way; returns how many were acknowledged.
    ///
    /// # Errors
    /// One is refused.
    pub fn flood(&mut self, topic: &str, time: Duration) -> io::Result<u64> {
        let acknowledged =
            |swarm: &Self| -> u64 { swarm.publishers.iter().map(Publisher::acknowledged).sum() };
        let (before, until) = (acknowledged(self), Deadline::after(time));
        while let Some(left) = until.left() {
            for publisher in &mut self.publishers {
                if publisher.in_flight() == 0 {
                    publisher.publish(topic, 0, self.size)?;
                }
            }
            self.turn(left)?;
        }
        Ok(acknowledged(self) - before)
    }

    fn wait_in_flight(&mut self, most: usize) -> io::Result<()> {
        self.until(|swarm| {
            let in_flight = swarm.publishers.first().map_or(0, Publisher::in_flight);
            (in_flight > most).then(|| format!("{in_flight} publishes are not acknowledged"))
        })
    }

    /// Goes on until nothing is missing any more.
    fn until(&mut self, missing: impl Fn(&Self) -> Option<String>) -> io::Result<()> {
        let deadline = Deadline::after(PATIENCE);
        while let Some(what) = missing(self) {
            self.turn(Duration::from_millis(100))?;
            self.check()?;
            deadline.check(|| what)?;
        }
        self.check()
    }

    /// From now on the newest `count` streams read a byte now and then.
    pub fn slow_down(&mut self, count: usize) {
        for stream in self.streams.iter_mut().rev().take(count) {
            stream.pace = Reads::Slowly;
            self.tally.prompt -= 1;
        }
    }

    /// From now on the newest `count` streams read nothing.
    pub fn stop_reading(&mut self, count: usize) {
        for stream in self.streams.iter_mut().rev().take(count) {
            stream.pace = Reads::Never;
            self.tally.prompt -= 1;
        }
    }

    /// A byte for each slow stream, if it is time.
    fn bite(&mut self) {
        let now = payload::now();
        if now < self.next_bite {
            return;
        }
        self.next_bite = now + nanos(BITE);
        let slow = |stream: &&mut Stream| stream.pace == Reads::Slowly;
        for stream in self.streams.iter_mut().filter(slow) {
            // One that was closed stays in the count of open streams, and its server's metrics tell.
            let _ended = stream.socket.read(&mut [0]);
        }
    }

    /// Goes on reading for a while.
    ///
    /// # Errors
    /// A socket fails.
    pub fn idle(&mut self, time: Duration) -> io::Result<()> {
        let until = Deadline::after(time);
        while let Some(left) = until.left() {
            self.turn(left)?;
        }
        Ok(())
    }

    /// Publishes to `topic` for `time` at this pace, and returns when every stream has every event.
    ///
    /// # Errors
    /// An event does not arrive, or something is wrong with a stream: see [`Faults`].
    pub fn drive(&mut self, topic: &str, pace: Pace, time: Duration) -> io::Result<Load> {
        self.tally.latency.reset();
        self.tally.sweep.reset();
        let (first, before) = (self.tally.published, self.tally.deliveries);
        let began = payload::now();
        let until = Deadline::after(time);
        while let Some(left) = until.left() {
            let sent = self.tally.published - first;
            let wait = match pace {
                Pace::Every(pause) => {
                    let due = began + nanos(pause) * sent;
                    let wait = due.saturating_sub(payload::now());
                    if wait == 0 {
                        self.publish(topic)?;
                    }
                    Duration::from_nanos(wait)
                }
                Pace::UnderWay(most) => {
                    while self.tally.published - self.tally.complete < most {
                        self.publish(topic)?;
                    }
                    left
                }
            };
            self.turn(wait.min(left))?;
        }
        let (in_time, time) = (
            self.tally.deliveries - before,
            Duration::from_nanos(payload::now() - began),
        );
        self.settle()?;
        Ok(Load {
            events: self.tally.published - first,
            deliveries: self.tally.deliveries - before,
            in_time,
            time,
            latency: self.tally.latency.clone(),
            sweep: self.tally.sweep.clone(),
        })
    }

    /// Waits until every stream has the next `events` events, which somebody else publishes.
    ///
    /// # Errors
    /// They do not all arrive within `time`, or something is wrong with a stream.
    pub fn listen(&mut self, events: u64, time: Duration) -> io::Result<Load> {
        let (before, began) = (self.tally.deliveries, payload::now());
        self.tally.published += events;
        self.tally.reached.extend((0..events).map(|_| 0));
        let until = Deadline::after(time);
        while let (Some(left), true) = (until.left(), self.tally.complete < self.tally.published) {
            self.turn(left)?;
            self.check()?;
        }
        let deliveries = self.tally.deliveries - before;
        if self.tally.complete < self.tally.published {
            return Err(io::Error::other(format!("only {deliveries} deliveries")));
        }
        Ok(Load {
            events,
            deliveries,
            in_time: deliveries,
            time: Duration::from_nanos(payload::now() - began),
            latency: self.tally.latency.clone(),
            sweep: self.tally.sweep.clone(),
        })
    }

    /// Publishes the next event.
    fn publish(&mut self, topic: &str) -> io::Result<()> {
        let publisher = self.publishers.first_mut();
        let publisher = publisher.ok_or_else(|| io::Error::other("nobody publishes"))?;
        publisher.publish(topic, self.tally.published, self.size)?;
        self.tally.published += 1;
        self.tally.reached.push_back(0);
        Ok(())
    }

    /// Reads until every event is everywhere and acknowledged.
    fn settle(&mut self) -> io::Result<()> {
        self.until(|swarm| {
            let missing = swarm.tally.published - swarm.tally.complete;
            let is_answered = |publisher: &Publisher| publisher.in_flight() == 0;
            let is_done = missing == 0 && swarm.publishers.iter().all(is_answered);
            (!is_done).then(|| format!("{missing} events have not reached every stream"))
        })
    }

    /// Fails if anything was wrong so far.
    fn check(&self) -> io::Result<()> {
        if self.tally.faults == Faults::default() {
            return Ok(());
        }
        Err(io::Error::other(format!("{:?}", self.tally.faults)))
    }

    /// Takes what the kernel has; waits for it, if this swarm sleeps. Timers of epoll are in milliseconds; shorter ones spin.
    fn turn(&mut self, timeout: Duration) -> io::Result<()> {
        let timeout = if self.sleeps { timeout } else { Duration::ZERO };
        match self.poll.poll(&mut self.events, Some(timeout)) {
            Err(why) if why.kind() == io::ErrorKind::Interrupted => return Ok(()),
            done => done?,
        }
        for event in &self.events {
            let Token(token) = event.token();
            if let Some(place) = token.checked_sub(PUBLISHERS) {
                if let Some(publisher) = self.publishers.get_mut(place) {
                    publisher.flush()?;
                    publisher.hear(&mut self.buffer)?;
                }
            } else if let Some(stream) = self.streams.get_mut(token) {
                if event.is_writable() && !stream.request.is_empty() {
                    stream.ask()?;
                }
                if event.is_readable() && stream.pace == Reads::Promptly {
                    stream.read(&mut self.buffer, self.size, &mut self.tally);
                }
            }
        }
        self.bite();
        Ok(())
    }
}

impl Stream {
    /// Writes the request; it fits into an empty socket.
    fn ask(&mut self) -> io::Result<()> {
        let request = std::mem::take(&mut self.request);
        match self.socket.write(&request) {
            Ok(written) if written == request.len() => Ok(()),
            Ok(_) => Err(io::Error::other("a request was written in part")),
            Err(why) if why.kind() == io::ErrorKind::NotConnected => {
                self.request = request;
                Ok(())
            }
            Err(why) => Err(why),
        }
    }

    /// Reads what is there. The interest is edge-triggered: a read that fills less than the buffer has emptied the socket.
    fn read(&mut self, buffer: &mut [u8], size: usize, tally: &mut Tally) {
        loop {
            match self.socket.read(buffer) {
                Ok(0) => {
                    tally.faults.closed += 1;
                    return;
                }
                Ok(count) => {
                    let now = payload::now();
                    let bytes = buffer.get(..count).unwrap_or_default();
                    let Self {
                        wire,
                        next,
                        is_open,
                        ..
                    } = self;
                    wire.feed(bytes, &mut |item| {
                        see(item, next, is_open, size, now, tally);
                    });
                    if count < buffer.len() {
                        return;
                    }
                }
                Err(why) if why.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => {
                    tally.faults.closed += 1;
                    return;
                }
            }
        }
    }
}

/// A histogram of latencies, in nanoseconds.
///
/// # Errors
/// None: its bounds are good.
pub fn latencies() -> io::Result<Histogram<u64>> {
    Histogram::new_with_max(LATENCY_MAX, 3).map_err(io::Error::other)
}

/// Judges one item of a stream.
fn see(item: Item, next: &mut u64, is_open: &mut bool, size: usize, now: u64, tally: &mut Tally) {
    match item {
        Item::Opened => {
            if !std::mem::replace(is_open, true) {
                tally.opened += 1;
            }
        }
        Item::Event {
            number,
            sent,
            size: told,
        } => {
            if told != size {
                tally.faults.foreign += 1;
            }
            if number < *next {
                tally.faults.repeated += 1;
                return;
            }
            tally.faults.lost += number - *next;
            *next = number + 1;
            tally.event(number, sent, now);
        }
        Item::Gap => tally.faults.gaps += 1,
        Item::Foreign => tally.faults.foreign += 1,
        Item::Refused(status) => tally.faults.refused = Some(status),
        Item::Ended => tally.ended += 1,
    }
}

/// `EINPROGRESS`: a connection that does not wait is under way.
const IN_PROGRESS: i32 = 115;

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// A moment to come.
#[derive(Clone, Copy, Debug)]
struct Deadline(u64);

impl Deadline {
    fn after(time: Duration) -> Self {
        Self(payload::now() + nanos(time))
    }

    /// The time until then; none once it has come.
    fn left(self) -> Option<Duration> {
        let left = self.0.saturating_sub(payload::now());
        (left > 0).then(|| Duration::from_nanos(left))
    }

    fn check(self, what: impl FnOnce() -> String) -> io::Result<()> {
        if self.left().is_some() {
            return Ok(());
        }
        Err(io::Error::other(format!("after {PATIENCE:?}: {}", what())))
    }
}
