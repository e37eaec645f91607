//! Goal: whatever the log and the way to it do, a subscriber is shown each event of its topics
//! once and in order, or is told of a gap that covers it.
//!
//! Method: a seeded simulation. The log is the real [`Ledger`], the replicas are the real [`Hub`]
//! and [`Reader`]s; only the network between them and the order of things are made up. Streams
//! are looked at only when their bell has rung. A failure prints its seed and the last steps;
//! `TIDEGATE_TEST_SEED` replays one seed, `TIDEGATE_TEST_SEEDS` widens the sweep.
//!
//! What no replica has heard and the log has forgotten cannot be known; such events are counted
//! apart. One topic is not logged: its events move no cursor, come in their order on each stream,
//! and stand in nobody's way.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a step that cannot be ends the simulation"
)]

use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Wake, Waker};
use tidegate::broker::{Bounds, Ledger, Publication, Retention, Rule};
use tidegate::event::EventType;
use tidegate::hub::Hub;
use tidegate::hub::feed::{Feed, Mended, Wanted};
use tidegate::hub::reader::{Reader, Shown, Start, Step};
use tidegate::hub::window::WindowBounds;
use tidegate::id::Id;
use tidegate::log::{ReadRequest, Reading};
use tidegate::sse::{Frame, Gap, GapReason, Mark};
use tidegate::topic::{Pattern, Topic};

/// Milliseconds that the log keeps an entry.
const AGE: u64 = 1_000;
/// How long a log outlives its age, as in the ledger.
const EXPIRY_SLACK: u64 = 3_600_000;
const LEAP: u64 = 50;
const REPLICAS: usize = 2;
const CLIENTS: usize = 6;
const STEPS: usize = 600;

/// What may go wrong.
#[derive(Clone, Copy, Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each fault by itself")]
struct Faults {
    /// Connections of replicas break; operations run twice.
    cuts: bool,
    /// A frame vanishes on a connection that stays up, or cannot be read.
    vanishing: bool,
    /// Logs hold six entries only.
    trimming: bool,
    /// Topics are deleted.
    deletion: bool,
    /// Hours pass.
    expiry: bool,
    /// The log's server is replaced by one that lacks the last writes.
    rewinds: bool,
    /// The server's clock is put back and forth.
    clock_steps: bool,
    /// Ages are configured anew, longer or shorter.
    settings: bool,
}

#[derive(Clone, Debug)]
enum Sent {
    Frame(Topic, Frame),
    Tick(Id),
    Confirmed(u64, Vec<Topic>),
}

/// The log's server, and everything that it ever sent, in its order.
struct Server {
    ledger: Ledger,
    /// What replicas say that should be kept.
    retention: Retention,
    now: u64,
    skew: i64,
    sent: Vec<Sent>,
    before: VecDeque<Ledger>,
}

struct Connection {
    number: u64,
    next: usize,
    subscribed: BTreeMap<Topic, usize>,
}

struct Replica {
    hub: Arc<Hub>,
    connection: Option<Connection>,
    connections: u64,
    run: Option<u64>,
    generation: u64,
    settled: bool,
    to_subscribe: BTreeSet<Topic>,
    to_mend: VecDeque<Arc<Feed>>,
    after_tick: Vec<Arc<Feed>>,
    ticking: bool,
}

/// Something asked of the server; it is done at some moment, and answered at some later one.
struct Operation {
    replica: usize,
    generation: u64,
    ask: Ask,
    answer: Answer,
}

enum Answer {
    Pending,
    Done,
    Read(Reading),
}

enum Ask {
    Settle(Id, Vec<(Topic, Id)>),
    Mend(Vec<Arc<Feed>>, Vec<ReadRequest>),
    Read(usize, u64, Vec<ReadRequest>),
    Tick,
}

/// An event as its publisher knows it.
struct Published {
    topic: Topic,
    id: Id,
    /// The log has forgotten it in a rewind before any replica that still knows it heard it.
    unknowable: bool,
    /// It vanished from a connection that stayed up. A stream that leaves before the hole shows,
    /// and goes on elsewhere, cannot be told.
    vanished: bool,
}

struct Told {
    topic: Topic,
    reason: GapReason,
    /// The last that was shown of the topic: a stream that dropped on its way to the gap is told
    /// of it again, from where it stands then.
    after: Id,
    to: Id,
    /// Events published by then.
    published: usize,
}

struct Client {
    topics: Vec<Topic>,
    cursor: Option<Id>,
    /// The first position, and the events published by then.
    began: Option<(Id, usize)>,
    seen: BTreeSet<usize>,
    /// The last event seen that was not logged.
    whisper: Option<usize>,
    /// The last that was shown of each topic.
    shown: BTreeMap<Topic, Id>,
    told: Vec<Told>,
    stream: Option<Open>,
    streams: u64,
}

struct Open {
    replica: usize,
    reader: Reader,
    rung: Arc<Rung>,
    published: usize,
    opened: bool,
    asking: bool,
    /// The last id that was written.
    last: Option<Id>,
    /// The last event seen that was not logged.
    whisper: Option<usize>,
    /// On the way to the client.
    under_way: VecDeque<Wire>,
}

enum Wire {
    Cursor(Id),
    Gap(Gap, bool),
    Frame(Frame, bool),
}

#[derive(Default)]
struct Rung(AtomicBool);

impl Wake for Rung {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

struct World {
    rng: StdRng,
    faults: Faults,
    server: Server,
    replicas: Vec<Replica>,
    clients: Vec<Client>,
    operations: Vec<Operation>,
    published: Vec<Published>,
    /// Events of the topic that is not logged.
    whispers: usize,
    trace: Vec<String>,
    tally: BTreeMap<&'static str, u64>,
}

macro_rules! say {
    ($world:expr, $($text:tt)*) => { $world.trace.push(format!($($text)*)) };
}

impl World {
    fn new(seed: u64, faults: Faults) -> Self {
        let now = 1_000_000;
        let retention = Retention {
            bounds: Bounds {
                events_max: if faults.trimming { 6 } else { 10_000 },
                age_ms: if faults.expiry { AGE } else { 1_000_000_000 },
            },
            rules: vec![Rule {
                topics: Pattern::parse(UNLOGGED).unwrap(),
                bounds: None,
            }],
            event_bytes_max: 100,
            topics_max: 0,
            idempotency_ms: 1_000,
            leap_ms: LEAP,
        };
        let bounds = WindowBounds {
            events_max: 4,
            bytes_max: 1 << 20,
        };
        let replica = || Replica {
            hub: Hub::new(1, bounds),
            connection: None,
            connections: 0,
            run: None,
            generation: 0,
            settled: false,
            to_subscribe: BTreeSet::new(),
            to_mend: VecDeque::new(),
            after_tick: Vec::new(),
            ticking: false,
        };
        let mut rng = StdRng::seed_from_u64(seed);
        let clients = (0..CLIENTS).map(|_| Client::new(&mut rng)).collect();
        Self {
            rng,
            faults,
            server: Server {
                ledger: Ledger::new(retention.clone(), now),
                retention,
                now,
                skew: 0,
                sent: Vec::new(),
                before: VecDeque::new(),
            },
            replicas: (0..REPLICAS).map(|_| replica()).collect(),
            clients,
            operations: Vec::new(),
            published: Vec::new(),
            whispers: 0,
            trace: Vec::new(),
            tally: BTreeMap::new(),
        }
    }

    fn run(&mut self) {
        for _ in 0..STEPS {
            self.step();
        }
        // Everything heals; then all is quiet, and one more event on each topic shows who is deaf.
        self.faults = Faults::default();
        self.settle_down();
        for topic in topics() {
            self.publish(&topic);
        }
        self.whisper();
        self.settle_down();
        self.check();
    }

    fn step(&mut self) {
        self.server.now += [0, 0, 1, 1, 5, 30].choose(&mut self.rng).unwrap();
        match self.rng.random_range(0..100) {
            0..15 => {
                let topic = any(&mut self.rng);
                self.publish(&topic);
            }
            15..20 => self.open_some(),
            20..24 => self.drop_some(),
            24..27 => self.fault(),
            27..29 => self.refresh_some(),
            29..33 => self.whisper(),
            _ => self.serve_some(),
        }
    }

    fn fault(&mut self) {
        let faults = self.faults;
        match self.rng.random_range(0..9) {
            0 | 1 if faults.cuts => {
                let replica = self.rng.random_range(0..REPLICAS);
                self.cut(replica);
            }
            2 if faults.vanishing => {
                let replica = self.rng.random_range(0..REPLICAS);
                self.vanish(replica);
            }
            3 if faults.deletion => {
                let topic = any(&mut self.rng);
                let wall = self.server.wall();
                if let Some(frame) = self.server.ledger.delete(&topic, wall) {
                    say!(self, "delete {topic}: {}", frame.id);
                    self.server.sent.push(Sent::Frame(topic, frame));
                }
            }
            4 if faults.expiry => {
                self.server.now += *[AGE - 10, AGE + 5, EXPIRY_SLACK, EXPIRY_SLACK + AGE + 10]
                    .choose(&mut self.rng)
                    .unwrap();
                say!(self, "time passes, now {}", self.server.now);
            }
            5 if faults.rewinds => self.rewind(),
            6 if faults.clock_steps => {
                self.server.skew = *[-150, 0, 150].choose(&mut self.rng).unwrap();
                say!(self, "the clock is off by {} ms", self.server.skew);
            }
            7 if faults.settings => self.configure(),
            _ => {}
        }
    }

    // --- the server ---

    /// Other ages, for all topics and for one. Replicas say them whenever they connect.
    fn configure(&mut self) {
        let mut age = || {
            *[AGE / 2, AGE, 2 * EXPIRY_SLACK]
                .choose(&mut self.rng)
                .unwrap()
        };
        self.server.retention.bounds.age_ms = age();
        self.server.retention.rules.truncate(1);
        self.server.retention.rules.push(Rule {
            topics: Pattern::parse("b").unwrap(),
            bounds: Some(Bounds {
                age_ms: age(),
                ..self.server.retention.bounds
            }),
        });
        say!(self, "configure: {:?}", self.server.retention);
        let wall = self.server.wall();
        self.server
            .ledger
            .configure(self.server.retention.clone(), wall);
    }

    fn whisper(&mut self) {
        self.whispers += 1;
        let topic = Topic::parse(UNLOGGED).unwrap();
        let publication = publication(&topic, self.whispers);
        let wall = self.server.wall();
        let (ids, frames) = self.server.ledger.publish(&[publication], wall).unwrap();
        assert_eq!(ids, [None], "what is not logged has no id");
        say!(self, "whisper {}", self.whispers);
        for (topic, frame) in frames {
            self.server.sent.push(Sent::Frame(topic, frame));
        }
    }

    fn publish(&mut self, topic: &Topic) {
        self.server.before.push_back(self.server.ledger.clone());
        if self.server.before.len() > 4 {
            self.server.before.pop_front();
        }
        let publication = publication(topic, self.published.len());
        let wall = self.server.wall();
        let (ids, frames) = self.server.ledger.publish(&[publication], wall).unwrap();
        let id = ids[0].expect("a logged topic");
        say!(
            self,
            "publish {topic} {}: {id} after {}",
            self.published.len(),
            frames[0].1.prev
        );
        self.published.push(Published {
            topic: topic.clone(),
            id,
            unknowable: false,
            vanished: false,
        });
        for (topic, frame) in frames {
            self.server.sent.push(Sent::Frame(topic, frame));
        }
    }

    /// Another process takes over, with the log as it was a few writes ago.
    fn rewind(&mut self) {
        for replica in 0..REPLICAS {
            self.cut(replica);
        }
        let run = self.server.ledger.run + 1;
        let back = self.rng.random_range(0..4);
        let wall = self.server.wall();
        let kept = self.server.before.len().saturating_sub(back);
        if back > 0
            && let Some(older) = self.server.before.get(kept)
        {
            self.server.ledger = older.clone();
        }
        self.server.before.clear();
        self.server.ledger.run = run;
        say!(
            self,
            "REWIND by {back} writes, to {}",
            self.server.ledger.last()
        );
        let last = self.server.ledger.last();
        let held: BTreeSet<String> = topics()
            .into_iter()
            .flat_map(|topic| {
                let request = ReadRequest {
                    topic,
                    after: Id::ZERO,
                    limit: 1 << 20,
                };
                let reading = self.server.ledger.read(&[request], wall);
                let frames = reading.pages.into_iter().flat_map(|page| page.frames);
                frames.map(|frame| frame.data()).collect::<Vec<_>>()
            })
            .collect();
        for (number, event) in self.published.iter_mut().enumerate() {
            let lost = event.id > last && !held.contains(&number.to_string());
            let knows = |replica: &Replica| {
                let feed = replica.hub.feed(&event.topic);
                feed.and_then(|feed| feed.last_entry())
                    .is_some_and(|id| id >= event.id)
            };
            event.unknowable |= lost && !self.replicas.iter().any(knows);
        }
    }

    fn execute(&mut self, index: usize) {
        let wall = self.server.wall();
        let operation = &mut self.operations[index];
        let server = &mut self.server;
        let reading = match &operation.ask {
            Ask::Settle(heard, topics) => {
                server.ledger.configure(server.retention.clone(), wall);
                let reported = server.ledger.report(*heard, topics, wall);
                for (topic, frame) in reported {
                    self.trace
                        .push(format!("reported: gap entry {} of {topic}", frame.id));
                    server.sent.push(Sent::Frame(topic, frame));
                }
                let id = server.ledger.tick(wall);
                server.sent.push(Sent::Tick(id));
                None
            }
            Ask::Mend(_, requests) | Ask::Read(_, _, requests) => {
                Some(server.ledger.read(requests, wall))
            }
            Ask::Tick => {
                let id = server.ledger.tick(wall);
                server.sent.push(Sent::Tick(id));
                None
            }
        };
        operation.answer = reading.map_or(Answer::Done, Answer::Read);
    }

    // --- replicas: as follow::task does it ---

    fn serve_some(&mut self) {
        let replica = self.rng.random_range(0..REPLICAS);
        match self.rng.random_range(0..10) {
            0 | 1 => self.connect_or_subscribe(replica),
            2..6 => self.hear(replica),
            6 => self.mend(replica),
            7 => self.operate(),
            _ => {
                let client = self.rng.random_range(0..CLIENTS);
                self.turn(client);
            }
        }
    }

    /// Goes on until nothing is left to be done.
    fn settle_down(&mut self) {
        for _ in 0..400 {
            self.server.now += 5;
            for replica in 0..REPLICAS {
                self.connect_or_subscribe(replica);
                for _ in 0..40 {
                    self.hear(replica);
                }
                self.mend(replica);
            }
            for _ in 0..10 {
                self.operate();
            }
            for client in 0..CLIENTS {
                if self.clients[client].stream.is_none() {
                    self.open(client);
                }
                self.turn(client);
                self.turn(client);
            }
        }
    }

    fn connect_or_subscribe(&mut self, index: usize) {
        let run = self.server.ledger.run;
        let replica = &mut self.replicas[index];
        replica.to_subscribe.extend(replica.hub.take_added());
        let Some(connection) = &mut replica.connection else {
            replica.connections += 1;
            replica.connection = Some(Connection {
                number: replica.connections * 10 + index as u64,
                next: self.server.sent.len(),
                subscribed: BTreeMap::new(),
            });
            let feeds = replica.hub.feeds();
            replica.to_subscribe = feeds.iter().map(|feed| feed.topic().clone()).collect();
            replica.generation += 1;
            replica.settled = false;
            let another = replica.run.replace(run).is_some_and(|before| before != run);
            let heard = replica.hub.partition(0).heard();
            let topics = feeds.iter().map(|feed| {
                let last = feed.last_entry().unwrap_or_default();
                (feed.topic().clone(), last)
            });
            let (heard, topics) = if another {
                (heard, topics.collect())
            } else {
                (Id::ZERO, Vec::new())
            };
            let settle = Ask::Settle(heard, topics);
            self.trace.push(format!("replica {index} connects"));
            self.ask(index, settle);
            return;
        };
        let topics: Vec<Topic> = std::mem::take(&mut replica.to_subscribe)
            .into_iter()
            .collect();
        if !topics.is_empty() {
            let at = self.server.sent.len();
            for topic in &topics {
                connection.subscribed.entry(topic.clone()).or_insert(at);
            }
            let number = connection.number;
            self.server.sent.push(Sent::Confirmed(number, topics));
        }
        let waited_for = replica.hub.partition(0).is_waited_for() || !replica.after_tick.is_empty();
        if waited_for && replica.settled && !replica.ticking {
            replica.ticking = true;
            self.ask(index, Ask::Tick);
        }
    }

    fn ask(&mut self, replica: usize, ask: Ask) {
        let generation = self.replicas[replica].generation;
        self.operations.push(Operation {
            replica,
            generation,
            ask,
            answer: Answer::Pending,
        });
    }

    fn cut(&mut self, index: usize) {
        let hears = self.rng.random_range(0..6);
        for _ in 0..hears {
            self.hear(index);
        }
        self.break_off(index);
    }

    fn break_off(&mut self, index: usize) {
        say!(self, "replica {index}: cut");
        let replica = &mut self.replicas[index];
        if replica.connection.take().is_some() {
            replica.generation += 1;
            replica.settled = false;
            replica.to_mend.clear();
            replica.after_tick.clear();
            replica.hub.break_off();
        }
    }

    /// The next message of the replica's connection.
    fn hear(&mut self, index: usize) {
        if let Some((topic, frame)) = self.next_frame(index) {
            let replica = &mut self.replicas[index];
            say!(self, "replica {index} hears {topic} {}", frame.id);
            let hearing = replica.hub.hear(&topic, frame);
            if hearing.backwards {
                self.break_off(index);
            } else if hearing.hole {
                let feed = replica.hub.feed(&topic);
                replica.to_mend.extend(feed);
            }
        }
    }

    /// A frame is lost, or cannot be read.
    fn vanish(&mut self, index: usize) {
        if let Some((topic, frame)) = self.next_frame(index) {
            let readable = self.rng.random_bool(0.5);
            say!(
                self,
                "replica {index}: {topic} {} vanishes, {readable}",
                frame.id
            );
            if readable {
                let lost = self.published.iter_mut().find(|event| event.id == frame.id);
                lost.into_iter().for_each(|event| event.vanished = true);
            } else {
                let replica = &mut self.replicas[index];
                replica.hub.puncture(&topic);
                replica.to_mend.extend(replica.hub.feed(&topic));
            }
        }
    }

    /// Takes everything else on the way to the next frame.
    fn next_frame(&mut self, index: usize) -> Option<(Topic, Frame)> {
        let replica = &mut self.replicas[index];
        let connection = replica.connection.as_mut()?;
        while let Some(sent) = self.server.sent.get(connection.next) {
            let at = connection.next;
            connection.next += 1;
            match sent {
                Sent::Tick(id) => {
                    replica.hub.tick(0, *id);
                    replica.to_mend.extend(replica.after_tick.drain(..));
                    return None;
                }
                Sent::Confirmed(number, topics) if *number == connection.number => {
                    let feeds = topics.iter().filter_map(|topic| replica.hub.feed(topic));
                    replica.to_mend.extend(feeds);
                    return None;
                }
                Sent::Frame(topic, frame)
                    if connection
                        .subscribed
                        .get(topic)
                        .is_some_and(|from| *from <= at) =>
                {
                    return Some((topic.clone(), frame.clone()));
                }
                Sent::Frame(..) | Sent::Confirmed(..) => {}
            }
        }
        None
    }

    fn mend(&mut self, index: usize) {
        let limit = self.rng.random_range(1..5);
        let replica = &mut self.replicas[index];
        if !replica.settled {
            return;
        }
        let mut feeds = Vec::new();
        let mut requests = Vec::new();
        while let Some(feed) = replica.to_mend.pop_front() {
            let (after, limit) = match feed.wants_read_after() {
                Some(Wanted::State) => (Id::ZERO, 0),
                Some(Wanted::Entries(after)) => (after, limit),
                None => continue,
            };
            requests.push(ReadRequest {
                topic: feed.topic().clone(),
                after,
                limit,
            });
            feeds.push(feed);
        }
        if !requests.is_empty() {
            self.ask(index, Ask::Mend(feeds, requests));
        }
    }

    /// Something that was asked is done, or answered.
    fn operate(&mut self) {
        if self.operations.is_empty() {
            return;
        }
        let index = self.rng.random_range(0..self.operations.len());
        if matches!(self.operations[index].answer, Answer::Pending) {
            self.execute(index);
            return;
        }
        // The reply may be lost on the way: then it is asked again.
        if self.faults.cuts && self.rng.random_bool(0.1) {
            self.operations[index].answer = Answer::Pending;
            return;
        }
        let operation = self.operations.swap_remove(index);
        let reading = match operation.answer {
            Answer::Read(reading) => Some(reading),
            Answer::Pending | Answer::Done => None,
        };
        let replica = &mut self.replicas[operation.replica];
        let current = operation.generation == replica.generation;
        match operation.ask {
            Ask::Settle(..) => replica.settled |= current,
            Ask::Tick => replica.ticking = false,
            Ask::Mend(feeds, _) if current => {
                let reading = reading.unwrap();
                for (feed, page) in feeds.iter().zip(&reading.pages) {
                    let mended = replica.hub.mend(feed, page, &reading.horizon);
                    match mended {
                        Mended::Live => {}
                        Mended::More(_) => replica.to_mend.push_back(feed.clone()),
                        Mended::AwaitsClock => replica.after_tick.push(feed.clone()),
                    }
                    self.trace.push(format!(
                        "replica {} mends {} up to {}: {mended:?}",
                        operation.replica,
                        feed.topic(),
                        reading.horizon.last
                    ));
                }
            }
            Ask::Mend(..) => {}
            Ask::Read(client, stream, _) => {
                let reading = reading.unwrap();
                replica.hub.learn(0, &reading.horizon);
                reading
                    .pages
                    .iter()
                    .for_each(|page| replica.hub.prepend(page));
                let client = &mut self.clients[client];
                if let Some(open) = client.stream.as_mut().filter(|_| client.streams == stream) {
                    open.asking = false;
                    open.rung.0.store(true, Ordering::Relaxed);
                    open.reader.take_pages(&Arc::new(reading));
                }
            }
        }
    }

    // --- subscribers: as stream::turn does it ---

    fn open_some(&mut self) {
        let client = self.rng.random_range(0..CLIENTS);
        if self.clients[client].stream.is_none() {
            self.open(client);
        }
    }

    fn open(&mut self, index: usize) {
        let replica = self.rng.random_range(0..REPLICAS);
        let client = &mut self.clients[index];
        let rung = Arc::new(Rung(AtomicBool::new(true)));
        let waker = Waker::from(rung.clone());
        let start = client.cursor.map_or(Start::Live, Start::After);
        let reader = self.replicas[replica]
            .hub
            .reader(&client.topics, &waker, |_| start);
        client.streams += 1;
        self.trace.push(format!(
            "client {index} opens {:?} on replica {replica}: {start:?}",
            client.topics
        ));
        client.stream = Some(Open {
            replica,
            reader,
            rung,
            published: self.published.len(),
            opened: false,
            asking: false,
            last: None,
            whisper: None,
            under_way: VecDeque::new(),
        });
    }

    fn drop_some(&mut self) {
        let index = self.rng.random_range(0..CLIENTS);
        let arrives = self.rng.random_range(0..4);
        for _ in 0..arrives {
            self.arrive(index);
        }
        let client = &mut self.clients[index];
        if client.stream.take().is_some() {
            say!(self, "client {index} drops at {:?}", client.cursor);
        }
    }

    /// A quiet stream's cursor is refreshed.
    fn refresh_some(&mut self) {
        let index = self.rng.random_range(0..CLIENTS);
        let Some(open) = &mut self.clients[index].stream else {
            return;
        };
        if open.opened
            && !open.asking
            && !open.rung.0.load(Ordering::Relaxed)
            && open.reader.advance_to_complete()
        {
            let id = position(&open.reader);
            self.trace
                .push(format!("client {index}: cursor refreshed to {id}"));
            open.under_way.push_back(Wire::Cursor(id));
        }
    }

    /// The stream goes on as far as it can, if there is a reason to look.
    fn turn(&mut self, index: usize) {
        for _ in 0..3 {
            self.arrive(index);
        }
        let mut room = self.rng.random_range(1..6);
        let client = &mut self.clients[index];
        let stream = client.streams;
        let Some(open) = client.stream.as_mut().filter(|open| !open.asking) else {
            return;
        };
        if !open.rung.0.swap(false, Ordering::Relaxed) {
            return;
        }
        let step = if open.opened {
            let shown = &mut open.under_way;
            open.reader.step(|what, _| {
                shown.push_back(match what {
                    Shown::Frame { frame, anchored } => Wire::Frame(frame.clone(), anchored),
                    Shown::Gap { gap, anchored } => Wire::Gap(gap, anchored),
                });
                room -= 1;
                room > 0
            })
        } else {
            let mut gaps = Vec::new();
            let step = open.reader.open(&mut gaps);
            if step == Step::Idle {
                open.opened = true;
                // From here on somebody else is woken, as when a socket is taken over.
                open.rung = Arc::new(Rung(AtomicBool::new(true)));
                let waker = Waker::from(open.rung.clone());
                open.reader
                    .share_wakers(|feed| feed.add_waker(waker.clone()));
                let at = position(&open.reader);
                self.trace.push(format!("client {index}: opened at {at}"));
                if gaps.is_empty() {
                    open.under_way.push_back(Wire::Cursor(at));
                }
                let last = gaps.len();
                for (n, gap) in gaps.into_iter().enumerate() {
                    open.under_way.push_back(Wire::Gap(gap, n + 1 == last));
                }
            }
            step
        };
        let replica = open.replica;
        match step {
            Step::Full => open.rung.0.store(true, Ordering::Relaxed),
            Step::Behind(_, mut requests) => {
                for request in &mut requests {
                    request.limit = self.rng.random_range(1..5);
                }
                open.asking = true;
                self.ask(replica, Ask::Read(index, stream, requests));
            }
            Step::Clock(_) => {
                open.asking = true;
                self.ask(replica, Ask::Read(index, stream, Vec::new()));
            }
            Step::Idle | Step::Held | Step::Ended => {}
        }
    }

    /// The client gets the next thing that was written for it.
    fn arrive(&mut self, index: usize) {
        let published = self.published.len();
        let client = &mut self.clients[index];
        let Some(open) = &mut client.stream else {
            return;
        };
        let Some(wire) = open.under_way.pop_front() else {
            return;
        };
        if let Wire::Frame(frame, anchored) = &wire
            && frame.mark == Mark::Unlogged
        {
            let number: usize = frame.data().parse().unwrap();
            assert!(!anchored, "client {index}: whisper {number} has an id");
            assert!(
                open.whisper < Some(number),
                "client {index}: whisper {number} after {:?}",
                open.whisper
            );
            open.whisper = Some(number);
            client.whisper = Some(number);
            return;
        }
        let (id, anchored) = match &wire {
            Wire::Cursor(id) => (*id, true),
            Wire::Gap(gap, anchored) => (gap.to, *anchored),
            Wire::Frame(frame, anchored) => (frame.id, *anchored),
        };
        // A gap without an id may name a position that lies ahead; nothing stands below the cursor.
        if !matches!(wire, Wire::Cursor(_)) {
            assert!(
                open.last < Some(id),
                "client {index}: {id} after {:?}",
                open.last
            );
        }
        if anchored {
            open.last = Some(id);
        }
        client.began.get_or_insert((id, open.published));
        if anchored {
            client.cursor = Some(id);
        }
        let tell = match wire {
            Wire::Cursor(_) => return,
            Wire::Gap(gap, _) => Told {
                after: client.shown(&gap.topic),
                topic: gap.topic,
                reason: gap.reason,
                to: gap.to,
                published,
            },
            Wire::Frame(frame, _) => match frame.mark {
                Mark::Gap { from, .. } | Mark::Late { from, .. } => {
                    let told: serde_json::Value = serde_json::from_str(&frame.data()).unwrap();
                    let topic = Topic::parse(told["topic"].as_str().unwrap()).unwrap();
                    Told {
                        after: client.shown(&topic).min(from),
                        topic,
                        reason: frame.gap_reason().unwrap(),
                        to: frame.id,
                        published,
                    }
                }
                Mark::Deleted => return,
                Mark::Event | Mark::End | Mark::Unlogged => {
                    let number: usize = frame.data().parse().unwrap();
                    self.trace
                        .push(format!("client {index} sees {number} at {id}"));
                    assert!(
                        client.topics.contains(&self.published[number].topic),
                        "client {index} sees an event of another topic"
                    );
                    assert!(
                        client.seen.insert(number),
                        "client {index} sees {number} again"
                    );
                    return;
                }
            },
        };
        self.trace.push(format!(
            "client {index} is told {:?} of {}: {:?} to {}",
            tell.reason, tell.topic, tell.after, tell.to
        ));
        *self.tally.entry(tell.reason.as_str()).or_default() += 1;
        let began = client.began.map_or(Id::ZERO, |(id, _)| id);
        let missing = self.published.iter().enumerate().any(|(number, event)| {
            event.id > began && !client.seen.contains(&number) && tell.covers(event, number)
        });
        if !missing {
            *self.tally.entry("needless").or_default() += 1;
            *self.tally.entry(needless(tell.reason)).or_default() += 1;
        }
        client.shown.insert(tell.topic.clone(), id);
        client.told.push(tell);
    }

    fn check(&mut self) {
        for (index, client) in self.clients.iter().enumerate() {
            for number in client.missing(&self.published) {
                let event = &self.published[number];
                let told = client.told.iter().any(|told| told.covers(event, number));
                let excused = event.unknowable || (event.vanished && client.streams > 1);
                if excused && !told {
                    *self.tally.entry("unknowable").or_default() += 1;
                } else {
                    assert!(
                        told,
                        "client {index} lost event {number} of {} at {} silently",
                        event.topic, event.id
                    );
                }
            }
            *self.tally.entry("seen").or_default() += client.seen.len() as u64;
            let unlogged = Topic::parse(UNLOGGED).unwrap();
            if client.topics.contains(&unlogged) {
                assert_eq!(
                    client.whisper,
                    Some(self.whispers),
                    "client {index} is deaf"
                );
                assert!(
                    client.told.iter().all(|told| told.topic != unlogged),
                    "client {index} is told that a topic without a log misses something"
                );
            }
        }
    }
}

impl Server {
    fn wall(&self) -> u64 {
        self.now.saturating_add_signed(self.skew)
    }
}

impl Client {
    fn new(rng: &mut StdRng) -> Self {
        let mut all = topics();
        let count = rng.random_range(1..=2);
        let chosen = (0..count).map(|_| all.remove(rng.random_range(0..all.len())));
        let mut topics: Vec<Topic> = chosen.collect();
        if rng.random_bool(0.4) {
            topics.push(Topic::parse(UNLOGGED).unwrap());
        }
        Self {
            topics,
            cursor: None,
            began: None,
            seen: BTreeSet::new(),
            whisper: None,
            shown: BTreeMap::new(),
            told: Vec::new(),
            stream: None,
            streams: 0,
        }
    }

    fn shown(&self, topic: &Topic) -> Id {
        self.shown.get(topic).copied().unwrap_or_default()
    }

    /// Events that are due and were not seen.
    fn missing<'a>(&'a self, published: &'a [Published]) -> impl Iterator<Item = usize> + 'a {
        let began = self.began.unwrap_or((Id::ZERO, usize::MAX));
        published
            .iter()
            .enumerate()
            .filter_map(move |(number, event)| {
                let due =
                    number >= began.1 && event.id > began.0 && self.topics.contains(&event.topic);
                (due && !self.seen.contains(&number)).then_some(number)
            })
    }
}

impl Told {
    fn covers(&self, event: &Published, number: usize) -> bool {
        self.topic == event.topic
            && number < self.published
            && (self.reason == GapReason::Ahead || self.after < event.id && event.id <= self.to)
    }
}

fn needless(reason: GapReason) -> &'static str {
    match reason {
        GapReason::Trimmed => "needless trimmed",
        GapReason::Late => "needless late",
        _ => "needless other",
    }
}

fn position(reader: &Reader) -> Id {
    reader.oldest().expect("a reader has a topic")
}

/// The topic that is not logged.
const UNLOGGED: &str = "d";

fn publication(topic: &Topic, number: usize) -> Publication {
    Publication {
        topic: topic.clone(),
        event_type: EventType::default(),
        data: number.to_string(),
        end: false,
        idempotency_key: None,
    }
}

/// Those that are logged.
fn topics() -> Vec<Topic> {
    ["a", "b", "c"]
        .map(|name| Topic::parse(name).unwrap())
        .into()
}

fn any(rng: &mut StdRng) -> Topic {
    let names = ["a", "a", "a", "b", "b", "c"];
    Topic::parse(names.choose(rng).unwrap()).unwrap()
}

/// Runs seeds, and returns what was counted over all of them.
fn sweep(faults: Faults, seeds: u64) -> BTreeMap<&'static str, u64> {
    let number = |name: &str| {
        std::env::var(name)
            .ok()
            .map(|text| text.parse::<u64>().unwrap())
    };
    let range = match (number("TIDEGATE_TEST_SEED"), number("TIDEGATE_TEST_SEEDS")) {
        (Some(seed), _) => seed..seed + 1,
        (None, wide) => 0..wide.unwrap_or(seeds),
    };
    let mut tally = BTreeMap::new();
    for seed in range {
        let mut world = World::new(seed, faults);
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| world.run()));
        if let Err(why) = outcome {
            let last = world.trace.len().saturating_sub(150);
            let steps = world.trace[last..].join("\n  ");
            eprintln!("seed {seed}, {faults:?}; its last steps:\n  {steps}");
            std::panic::resume_unwind(why);
        }
        for (what, count) in &world.tally {
            *tally.entry(*what).or_default() += count;
        }
    }
    eprintln!("{faults:?}: {tally:?}");
    tally
}

/// Only these reasons were told.
fn told_only(tally: &BTreeMap<&'static str, u64>, reasons: &[&str]) {
    for reason in [
        "trimmed",
        "expired",
        "log_lost",
        "rewound",
        "ahead",
        "late",
        "bad_cursor",
    ] {
        assert!(
            reasons.contains(&reason) || !tally.contains_key(reason),
            "{reason} was told without a cause: {tally:?}"
        );
    }
    assert!(tally["seen"] > 0);
}

const SEEDS: u64 = 100;

#[test]
fn without_faults_no_gap_is_told() {
    told_only(&sweep(Faults::default(), SEEDS), &[]);
}

#[test]
fn cuts_lose_nothing_and_tell_no_gap() {
    let faults = Faults {
        cuts: true,
        ..Faults::default()
    };
    told_only(&sweep(faults, SEEDS), &[]);
}

#[test]
fn a_frame_that_vanishes_is_found_or_told_as_late() {
    let faults = Faults {
        cuts: true,
        vanishing: true,
        ..Faults::default()
    };
    told_only(&sweep(faults, SEEDS), &["late"]);
}

#[test]
fn what_was_trimmed_is_told_and_nothing_else() {
    let faults = Faults {
        cuts: true,
        trimming: true,
        ..Faults::default()
    };
    let tally = sweep(faults, SEEDS);
    told_only(&tally, &["trimmed"]);
    assert!(!tally.contains_key("needless"), "{tally:?}");
}

#[test]
fn deletion_and_expiry_are_told() {
    let faults = Faults {
        cuts: true,
        trimming: true,
        deletion: true,
        expiry: true,
        clock_steps: true,
        ..Faults::default()
    };
    told_only(&sweep(faults, SEEDS), &["trimmed", "expired"]);
}

#[test]
fn other_ages_lose_nothing_silently() {
    let faults = Faults {
        cuts: true,
        expiry: true,
        settings: true,
        ..Faults::default()
    };
    told_only(&sweep(faults, SEEDS), &["trimmed", "expired"]);
}

#[test]
fn a_log_that_goes_back_is_told() {
    let faults = Faults {
        cuts: true,
        rewinds: true,
        ..Faults::default()
    };
    told_only(&sweep(faults, SEEDS), &["rewound", "ahead"]);
}

#[test]
fn everything_at_once() {
    let faults = Faults {
        cuts: true,
        vanishing: true,
        trimming: true,
        deletion: true,
        expiry: true,
        rewinds: true,
        clock_steps: true,
        settings: true,
    };
    sweep(faults, SEEDS);
}
