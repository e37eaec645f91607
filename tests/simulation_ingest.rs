//! Goal: a raw publish that an ear counted is logged exactly once, whatever dies, stalls or is cut.
//!
//! Method: a seeded simulation. The ears are the real [`Ear`], the log is the real function on a
//! real Redis; what is made up is the time, the order in which pushes and commands arrive, and
//! what becomes of connections and processes. Commands may be executed long after their sender
//! gave them up, or never. `TIDEGATE_TEST_SEED` replays one seed, `TIDEGATE_TEST_SEEDS` widens the
//! sweep.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a step that cannot be ends the simulation"
)]

mod support;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;
use support::Redis;
use tidegate::broker::{Bounds, Retention, redis as broker};
use tidegate::ingest::ear::{Append, Ear, Item, Outcome, OwedMax};
use tidegate::metrics::Metrics;
use tokio::runtime::Runtime;
use tokio::time::Instant;

const EARS: usize = 3;
const STEPS: usize = 1_000;
const SEEDS: u64 = 40;
/// The node's process, as ears read it.
const RUN: &str = "run";

/// What every connection of the node is shown, in its order.
#[derive(Clone, Debug)]
enum Sent {
    Raw(usize),
    Start { epoch: String, ear: String },
    Done { epoch: String, n: u64, ear: String },
    Leave { ear: String },
}

#[derive(Clone, Debug)]
enum Command {
    Start(String),
    Append(Append),
}

/// One life of one replica.
struct Life {
    ear: Ear,
    name: String,
    number: usize,
    connection: Option<Connection>,
    paused: bool,
    /// Which command connection is in use; commands on earlier ones are no longer awaited.
    commands: u64,
    asked: bool,
    starting: bool,
}

struct Connection {
    next: usize,
    confirmed: usize,
    /// It is cut there.
    end: Option<usize>,
}

struct Sending {
    ear: usize,
    life: usize,
    connection: u64,
    command: Command,
    answer: Answer,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Pending,
    Started,
    Appended(Outcome),
}

struct World<'a> {
    rng: StdRng,
    runtime: &'a Runtime,
    store: &'a broker::Redis,
    now: Instant,
    lives: Vec<Option<Life>>,
    born: usize,
    sent: Vec<Sent>,
    raws: usize,
    sendings: VecDeque<Sending>,
    epochs: BTreeSet<String>,
    /// Lives that have counted a raw publish.
    counted: BTreeMap<usize, BTreeSet<usize>>,
    forced: bool,
    trace: Vec<String>,
}

impl<'a> World<'a> {
    fn new(seed: u64, runtime: &'a Runtime, store: &'a broker::Redis) -> Self {
        let mut world = Self {
            rng: StdRng::seed_from_u64(seed),
            runtime,
            store,
            now: Instant::now(),
            lives: Vec::new(),
            born: 0,
            sent: Vec::new(),
            raws: 0,
            sendings: VecDeque::new(),
            epochs: BTreeSet::new(),
            counted: BTreeMap::new(),
            forced: false,
            trace: Vec::new(),
        };
        for ear in 0..EARS {
            let life = world.bear(ear);
            world.lives.push(Some(life));
        }
        world
    }

    fn bear(&mut self, ear: usize) -> Life {
        self.born += 1;
        let name = format!("ear{ear}");
        Life {
            ear: Ear::new(
                name.clone(),
                OwedMax {
                    publishes: 1_000,
                    bytes: 1 << 20,
                },
            ),
            name,
            number: self.born,
            connection: None,
            paused: false,
            commands: 0,
            asked: false,
            starting: false,
        }
    }

    fn run(&mut self) -> Verdict {
        for _ in 0..STEPS {
            self.step();
        }
        for ear in 0..EARS {
            if self.lives[ear].is_none() {
                let life = self.bear(ear);
                self.lives[ear] = Some(life);
            }
            self.life(ear).paused = false;
        }
        for _ in 0..400 {
            for ear in 0..EARS {
                self.act(ear);
                self.hear(ear);
                self.hear(ear);
                self.execute(0);
                self.answer(ear);
            }
            self.now += Duration::from_millis(20);
        }
        self.verdict()
    }

    fn life(&mut self, ear: usize) -> &mut Life {
        self.lives[ear].as_mut().expect("a living ear")
    }

    fn step(&mut self) {
        self.now += Duration::from_millis([0, 0, 1, 5, 30, 100][self.rng.random_range(0..6)]);
        let ear = self.rng.random_range(0..EARS);
        match self.rng.random_range(0..100) {
            0..3 => self.fault(ear),
            3..10 => {
                if let Some(life) = &mut self.lives[ear] {
                    life.paused = false;
                }
            }
            10..13 => {
                if self.lives[ear].is_none() {
                    let life = self.bear(ear);
                    self.lives[ear] = Some(life);
                }
            }
            13..33 => {
                self.sent.push(Sent::Raw(self.raws));
                self.raws += 1;
            }
            33..50 => {
                let at = self.rng.random_range(0..4);
                self.execute(at);
            }
            _ => {
                if self.lives[ear].as_ref().is_some_and(|life| !life.paused) {
                    match self.rng.random_range(0..5) {
                        0 => self.answer(ear),
                        1 => self.act(ear),
                        _ => self.hear(ear),
                    }
                }
            }
        }
    }

    fn fault(&mut self, ear: usize) {
        let Some(life) = &mut self.lives[ear] else {
            return;
        };
        let name = life.name.clone();
        match self.rng.random_range(0..7) {
            0 => {
                self.trace.push(format!("{name} dies"));
                self.lives[ear] = None;
            }
            1 | 2 => {
                if let Some(connection) = life.connection.as_mut().filter(|c| c.end.is_none()) {
                    let end = self.rng.random_range(connection.next..=self.sent.len());
                    connection.end = Some(end);
                    self.trace.push(format!("{name} is cut at {end}"));
                }
            }
            3 => {
                self.trace.push(format!("{name} is stopped"));
                life.paused = true;
            }
            4 | 5 => {
                self.trace.push(format!("{name} gives up its commands"));
                life.commands += 1;
                life.starting = false;
                if std::mem::take(&mut life.asked) {
                    life.ear.answered(Outcome::Unknown, self.now);
                }
                // Some still arrive, later.
                if self.rng.random_bool(0.4) {
                    let number = life.number;
                    self.sendings.retain(|sending| sending.life != number);
                }
            }
            _ => {
                // A clean stop: it says so, and appends what it owes elsewhere in this test.
                self.sent.push(Sent::Leave { ear: name });
            }
        }
    }

    // --- the server ---

    fn execute(&mut self, at: usize) {
        let waiting = self
            .sendings
            .iter()
            .enumerate()
            .filter(|(_, s)| s.answer == Answer::Pending);
        let Some(index) = waiting.map(|(index, _)| index).nth(at) else {
            return;
        };
        // Commands of one connection are executed in their order.
        let (life, connection) = (self.sendings[index].life, self.sendings[index].connection);
        let earlier = self.sendings.iter().take(index);
        let blocked = |s: &Sending| {
            s.answer == Answer::Pending && (s.life, s.connection) == (life, connection)
        };
        if earlier.into_iter().any(blocked) {
            return;
        }
        let sending = &mut self.sendings[index];
        let name = format!("ear{}", sending.ear);
        let answer = match &sending.command {
            Command::Start(epoch) => {
                let start = self.store.start_epoch(epoch, &name);
                self.runtime.block_on(start).expect("redis answers");
                if self.epochs.insert(epoch.clone()) {
                    self.trace.push(format!("{name} starts {epoch}"));
                    self.sent.push(Sent::Start {
                        epoch: epoch.clone(),
                        ear: name,
                    });
                }
                Answer::Started
            }
            Command::Append(append) => {
                let appended = self.store.append_raw(&name, append);
                let appended = self.runtime.block_on(appended).expect("redis answers");
                let (outcome, logged) = (appended.outcome, appended.logged);
                self.trace.push(format!(
                    "{name} appends {}:{} +{} end {:?} force {}: {outcome:?}, {logged} logged",
                    append.epoch,
                    append.first,
                    append.items.len(),
                    append.end,
                    append.force
                ));
                self.forced |= append.force && matches!(outcome, Outcome::Logged(_));
                if let Outcome::Logged(n) = outcome {
                    self.sent.push(Sent::Done {
                        epoch: append.epoch.to_string(),
                        n,
                        ear: name,
                    });
                }
                Answer::Appended(outcome)
            }
        };
        sending.answer = answer;
    }

    // --- the ears: as ingest::link does it ---

    fn act(&mut self, ear: usize) {
        let now = self.now;
        let at = self.sent.len();
        let begin = self.rng.random_bool(0.3);
        let epoch = format!("e{}", self.rng.random::<u32>());
        let life = self.life(ear);
        if life.connection.is_none() {
            life.connection = Some(Connection {
                next: at,
                confirmed: 0,
                end: None,
            });
            return;
        }
        let mut commands = Vec::new();
        if life.ear.wants_epoch() && !life.starting && begin {
            life.starting = true;
            commands.push(Command::Start(epoch));
        }
        if !life.asked
            && let Some(append) = life.ear.next(now)
        {
            life.asked = true;
            commands.push(Command::Append(append));
        }
        let (number, connection) = (life.number, life.commands);
        for command in commands {
            self.sendings.push_back(Sending {
                ear,
                life: number,
                connection,
                command,
                answer: Answer::Pending,
            });
        }
    }

    fn hear(&mut self, ear: usize) {
        let now = self.now;
        let Some(life) = &mut self.lives[ear] else {
            return;
        };
        let Some(connection) = &mut life.connection else {
            return;
        };
        // Three confirmations come first, in the same order as everything else.
        if connection.confirmed < 3 {
            connection.confirmed += 1;
            if connection.confirmed == 3 {
                connection.next = self.sent.len();
                life.ear.subscribed(RUN);
            }
            return;
        }
        if connection.end.is_some_and(|end| connection.next >= end) {
            life.connection = None;
            life.ear.cut();
            return;
        }
        let Some(sent) = self.sent.get(connection.next) else {
            return;
        };
        connection.next += 1;
        match sent {
            Sent::Raw(number) => {
                let payload = number.to_string();
                let (channel, payload) = channel_and_payload(*number, &payload);
                let item = Item::read("events", channel.as_bytes(), payload, 100);
                if life.ear.hear_raw(channel.as_bytes(), payload, item, now) {
                    self.counted.entry(*number).or_default().insert(life.number);
                }
            }
            Sent::Start { epoch, ear } => life.ear.hear_start(epoch, ear, RUN, now),
            Sent::Done { epoch, n, ear } => life.ear.hear_done(epoch, *n, ear),
            Sent::Leave { ear } => life.ear.hear_leave(ear),
        }
    }

    fn answer(&mut self, ear: usize) {
        let now = self.now;
        let Some(life) = &mut self.lives[ear] else {
            return;
        };
        let mine = |s: &Sending| s.life == life.number && s.answer != Answer::Pending;
        let Some(index) = self.sendings.iter().position(mine) else {
            return;
        };
        let sending = self.sendings.remove(index).unwrap();
        if sending.connection != life.commands {
            return;
        }
        match sending.answer {
            Answer::Pending => {}
            Answer::Started => life.starting = false,
            Answer::Appended(outcome) => {
                life.asked = false;
                life.ear.answered(outcome, now);
            }
        }
    }

    fn verdict(&mut self) -> Verdict {
        let alive: BTreeSet<usize> = self
            .lives
            .iter()
            .flatten()
            .map(|life| life.number)
            .collect();
        let mut log: Vec<(tidegate::id::Id, usize)> = Vec::new();
        for topic in ["a", "b", "c"] {
            let request = tidegate::log::ReadRequest {
                topic: tidegate::topic::Topic::parse(topic).unwrap(),
                after: tidegate::id::Id::ZERO,
                limit: 100_000,
            };
            let broker = tidegate::broker::Broker::Redis(self.store.clone());
            let mut request = request;
            loop {
                let page = self
                    .runtime
                    .block_on(broker.read(0, std::slice::from_ref(&request)))
                    .unwrap()
                    .pages
                    .remove(0);
                let frames = page.frames.iter();
                log.extend(frames.map(|frame| (frame.id, frame.data().parse::<usize>().unwrap())));
                let Some(cut_at) = page.cut_at else {
                    break;
                };
                request.after = cut_at;
            }
        }
        log.sort_unstable();
        let logged: Vec<usize> = log.into_iter().map(|(_, number)| number).collect();
        let distinct: BTreeSet<usize> = logged.iter().copied().collect();
        let lost = self.counted.iter().filter(|(number, lives)| {
            is_event(**number) && !lives.is_disjoint(&alive) && !distinct.contains(number)
        });
        Verdict {
            counted: self.counted.len(),
            logged: logged.len(),
            repeated: logged.len() - distinct.len(),
            lost: lost.count(),
            owed: self
                .lives
                .iter()
                .flatten()
                .map(|life| life.ear.owes())
                .sum(),
            disorder: logged.windows(2).filter(|pair| pair[1] < pair[0]).count(),
            forced: self.forced,
        }
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Verdict {
    counted: usize,
    logged: usize,
    repeated: usize,
    lost: usize,
    owed: usize,
    disorder: usize,
    forced: bool,
}

/// One in ten is no event: its payload is not UTF-8. It is counted all the same.
fn is_event(number: usize) -> bool {
    number % 10 != 9
}

fn channel_and_payload(number: usize, text: &str) -> (&'static str, &[u8]) {
    let channel = ["events:a", "events:b", "events:c"][number % 3];
    let payload = if is_event(number) {
        text.as_bytes()
    } else {
        b"\xff"
    };
    (channel, payload)
}

#[test]
fn what_an_ear_counted_is_logged_once() {
    let number = |name: &str| {
        std::env::var(name)
            .ok()
            .map(|text| text.parse::<u64>().unwrap())
    };
    let seeds = match (number("TIDEGATE_TEST_SEED"), number("TIDEGATE_TEST_SEEDS")) {
        (Some(seed), _) => seed..seed + 1,
        (None, wide) => 0..wide.unwrap_or(SEEDS),
    };
    let redis = Redis::start();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let settings = broker::Settings {
        access: broker::Access::parse(&redis.url().into()).unwrap(),
        prefix: "tidegate".into(),
        partitions: 1,
        pool_size: 1,
        connect_timeout: Duration::from_secs(5),
        command_timeout: Duration::from_secs(5),
        backoff_max: Duration::from_secs(1),
        live_queue_bytes: 1 << 20,
        allow_eviction: false,
        replica: "test".into(),
        retention: Retention {
            bounds: Bounds {
                events_max: 10_000,
                age_ms: 3_600_000,
            },
            rules: Vec::new(),
            event_bytes_max: 100,
            topics_max: 0,
            idempotency_ms: 1_000,
            leap_ms: 2_000,
        },
        wait_replicas: 0,
        wait_timeout: Duration::from_secs(1),
    };
    let metrics = Metrics::new();
    let store = {
        let _entered = runtime.enter();
        broker::Redis::open(settings, metrics).unwrap()
    };
    let (mut all, mut forced) = (Verdict::default(), 0);
    for seed in seeds {
        redis.run::<()>(&["FLUSHALL"]);
        runtime.block_on(store.prepare()).unwrap();
        let mut world = World::new(seed, &runtime, &store);
        let verdict = world.run();
        let bad = verdict.repeated + verdict.lost + verdict.owed;
        let unordered = !verdict.forced && verdict.disorder > 0;
        if bad > 0 || unordered {
            let last = world.trace.len().saturating_sub(80);
            eprintln!("its last steps:\n  {}", world.trace[last..].join("\n  "));
        }
        assert!(bad == 0 && !unordered, "seed {seed}: {verdict:?}");
        all.counted += verdict.counted;
        all.logged += verdict.logged;
        all.disorder += verdict.disorder;
        forced += u64::from(verdict.forced);
    }
    eprintln!("{all:?}, {forced} runs with force");
    assert!(all.logged > 0);
}
