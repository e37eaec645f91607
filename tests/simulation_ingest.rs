//! Goal: a raw publish that an ear counted is logged exactly once, whatever dies, stalls or is cut.
//!
//! Method: a seeded simulation. The ears are the real [`Ear`], the log is the real function on a
//! real Redis; what is made up is the time, the order in which pushes and commands arrive, and
//! what becomes of connections and processes. Commands may be executed long after their sender
//! gave them up, or never. In one mix all ears have the same map of channels; in another a replica
//! may come back with another map, so that ears with several maps hear side by side, and older builds
//! without maps begin epochs among them; in the third nothing fails, and one replica after the other
//! stops and comes back with the next map. `TIDEGATE_TEST_SEED` replays one seed,
//! `TIDEGATE_TEST_SEEDS` widens the sweep.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a step that cannot be ends the simulation"
)]

#[path = "simulation_ingest/maps.rs"]
mod maps;
mod support;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Write as _;
use std::time::Duration;
use support::Redis;
use tidegate::broker::channels::{ChannelMap, Heard};
use tidegate::broker::{Bounds, Retention, redis as broker};
use tidegate::ingest::ear::{Append, Ear, Item, Outcome, OwedMax};
use tidegate::ingest::told::Told;
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
    /// On the channel of the ears.
    Told(String),
}

#[derive(Clone, Debug)]
enum Command {
    Start(String, Heard),
    Append(Append),
}

/// One life of one replica.
struct Life {
    ear: Ear,
    name: String,
    number: usize,
    /// As it is configured.
    map: ChannelMap,
    connection: Option<Connection>,
    phase: Phase,
    /// Which command connection is in use; commands on earlier ones are no longer awaited.
    commands: u64,
    asked: bool,
    starting: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Runs,
    /// It does nothing at all.
    Paused,
    /// It hears no more, and appends what it owes.
    Stops,
}

struct Connection {
    next: usize,
    confirmed: usize,
    /// What it is allowed to hear besides the common channels.
    map: ChannelMap,
    /// It has counted what its map alone has, and so it has to go on.
    counts: bool,
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

#[derive(Clone, Debug, PartialEq, Eq)]
enum Answer {
    Pending,
    Started,
    Appended(Outcome),
}

/// Whether ears may have several maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mix {
    OneMap,
    SeveralMaps,
    /// Several, and nothing but what a rolling change brings: one replica after the other stops in order.
    RollingChange,
}

struct World<'a> {
    rng: StdRng,
    runtime: &'a Runtime,
    store: &'a broker::Redis,
    redis: &'a Redis,
    mix: Mix,
    /// The number of the map with which each replica starts.
    maps: [usize; EARS],
    now: Instant,
    lives: Vec<Option<Life>>,
    born: usize,
    sent: Vec<Sent>,
    /// The channel of each raw publish.
    raws: Vec<&'static str>,
    sendings: VecDeque<Sending>,
    epochs: BTreeSet<String>,
    /// Lives that have counted a raw publish.
    counted: BTreeMap<usize, BTreeSet<usize>>,
    /// Deliveries that were for an ear, and that it did not count although it had before.
    passed_over: usize,
    forced: bool,
    trace: Vec<String>,
}

impl<'a> World<'a> {
    fn new(
        seed: u64,
        mix: Mix,
        runtime: &'a Runtime,
        store: &'a broker::Redis,
        redis: &'a Redis,
    ) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let map = maps::any(&mut rng);
        let mut world = Self {
            rng,
            runtime,
            store,
            redis,
            mix,
            maps: [map; EARS],
            now: Instant::now(),
            lives: Vec::new(),
            born: 0,
            sent: Vec::new(),
            raws: Vec::new(),
            sendings: VecDeque::new(),
            epochs: BTreeSet::new(),
            counted: BTreeMap::new(),
            passed_over: 0,
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
        self.beat(&name, 0);
        Life {
            map: maps::map(self.maps[ear]),
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
            phase: Phase::Runs,
            commands: 0,
            asked: false,
            starting: false,
        }
    }

    /// A replica was heard of so many milliseconds ago.
    fn beat(&self, name: &str, ago: u64) {
        let (seconds, micros): (u64, u64) = self.redis.run(&["TIME"]);
        let said = format!("{} 0", seconds * 1000 + micros / 1000 - ago);
        self.redis
            .run::<u64>(&["HSET", "tidegate:replicas", name, &said]);
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
            self.life(ear).phase = Phase::Runs;
        }
        // An epoch that nobody ends holds the next one up for a second, and there may be several.
        for round in 0..2_000 {
            let owes = |life: &Life| life.ear.owes() > 0;
            if round > 400 && !self.lives.iter().flatten().any(owes) {
                break;
            }
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
        // Where nothing fails nobody is waited for in vain, if all are quick enough.
        let pauses = match self.mix {
            Mix::RollingChange => [0, 0, 0, 0, 1, 2],
            Mix::OneMap | Mix::SeveralMaps => [0, 0, 1, 5, 30, 100],
        };
        self.now += Duration::from_millis(pauses[self.rng.random_range(0..6)]);
        let ear = self.rng.random_range(0..EARS);
        match self.rng.random_range(0..100) {
            0..3 if self.mix == Mix::RollingChange => self.stop(ear),
            0..3 => self.fault(ear),
            3..10 => {
                let paused = |life: &&mut Life| life.phase == Phase::Paused;
                if let Some(life) = self.lives[ear].as_mut().filter(paused) {
                    life.phase = Phase::Runs;
                }
            }
            10 => self.change(ear),
            11..13 => {
                if self.lives[ear].is_none() {
                    let life = self.bear(ear);
                    self.lives[ear] = Some(life);
                }
            }
            13..33 => {
                self.sent.push(Sent::Raw(self.raws.len()));
                let channel = self.rng.random_range(0..maps::CHANNELS.len());
                self.raws.push(maps::CHANNELS[channel]);
            }
            33..50 => {
                let at = self.rng.random_range(0..4);
                self.execute(at);
            }
            _ => {
                if self.lives[ear]
                    .as_ref()
                    .is_some_and(|life| life.phase != Phase::Paused)
                {
                    match self.rng.random_range(0..5) {
                        0 => self.answer(ear),
                        1 => self.act(ear),
                        _ => self.hear(ear),
                    }
                }
            }
        }
    }

    /// What a rolling change brings: another map at the next start, or an older build.
    fn change(&mut self, ear: usize) {
        if self.mix != Mix::SeveralMaps {
            return;
        }
        match self.rng.random_range(0..3) {
            0 => self.maps[ear] = maps::any(&mut self.rng),
            1 => {
                let to = self.rng.random_range(0..EARS);
                self.maps[ear] = self.maps[to];
            }
            _ => self.start_by_older_build(),
        }
    }

    /// A replica stops, if all others stand; it comes back with the next map.
    fn stop(&mut self, ear: usize) {
        let stands = |life: &Life| life.ear.counts() && life.phase == Phase::Runs;
        if !self.lives.iter().flatten().all(stands) {
            return;
        }
        let next = self.maps[ear] + 1;
        self.maps[ear] = next % maps::COUNT;
        let life = self.life(ear);
        life.phase = Phase::Stops;
        life.connection = None;
        life.ear.cut();
        let name = life.name.clone();
        self.trace.push(format!("{name} stops"));
        let leave = self.store.leave_ears(&name);
        self.runtime.block_on(leave).expect("redis answers");
        self.sent.push(Sent::Told(format!("leave {name} -")));
    }

    /// A replica that knows of no maps comes, begins an epoch, and goes.
    fn start_by_older_build(&mut self) {
        let epoch = format!("older{}", self.rng.random::<u32>());
        let hash = "tidegate:{0}:ingest";
        let epochs: Option<String> = self.redis.run(&["HGET", hash, "epochs"]);
        let epochs = format!("{} {epoch}@9999999999999", epochs.unwrap_or_default());
        let number = format!("n:{epoch}");
        self.redis
            .run::<u64>(&["HSET", hash, "epochs", epochs.trim(), &number, "0"]);
        self.trace.push(format!("an older build starts {epoch}"));
        self.sent
            .push(Sent::Told(format!("start {epoch} older {RUN}")));
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
                // Whether that is known by now.
                let ago = [0, 10_000, 100_000][self.rng.random_range(0..3)];
                self.beat(&name, ago);
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
                life.phase = Phase::Paused;
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
                let leave = self.store.leave_ears(&name);
                self.runtime.block_on(leave).expect("redis answers");
                self.sent.push(Sent::Told(format!("leave {name} -")));
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
            Command::Start(epoch, map) => {
                let start = self.store.start_epoch(epoch, &name, map);
                let told = self.runtime.block_on(start).expect("redis answers");
                if self.epochs.insert(epoch.clone()) {
                    self.trace.push(format!("{name}: {told}"));
                    // The process is this test's own.
                    let mut words: Vec<&str> = told.split(' ').collect();
                    words[3] = RUN;
                    self.sent.push(Sent::Told(words.join(" ")));
                }
                Answer::Started
            }
            Command::Append(append) => {
                let appended = self.store.append_raw(&name, append);
                let appended = self.runtime.block_on(appended).expect("redis answers");
                let (outcome, logged) = (appended.outcome, appended.logged);
                self.trace.push(format!(
                    "{name} appends {} of {}: {:?} +{} end {:?} force {}: {outcome:?}, {logged} logged",
                    append.epoch,
                    append.map,
                    append.classes,
                    append.items.len(),
                    append.end,
                    append.force
                ));
                self.forced |= append.force && matches!(outcome, Outcome::Logged(_));
                if let Outcome::Logged(done) = &outcome {
                    let mut told =
                        format!("done {} {} {name} {}", append.epoch, done[0].1, append.map);
                    for (class, n) in &done[1..] {
                        write!(told, " {}:{n}", class.number()).unwrap();
                    }
                    self.sent.push(Sent::Told(told));
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
        let refused = self.mix == Mix::SeveralMaps && self.rng.random_bool(0.1);
        let epoch = format!("e{}", self.rng.random::<u32>());
        if self.life(ear).phase == Phase::Stops && self.life(ear).ear.owes() == 0 {
            let life = self.bear(ear);
            self.lives[ear] = Some(life);
        }
        let life = self.life(ear);
        if life.connection.is_none() && life.phase != Phase::Stops {
            life.connection = Some(Connection {
                next: at,
                confirmed: 0,
                map: if refused {
                    ChannelMap::default()
                } else {
                    life.map.clone()
                },
                counts: false,
                end: None,
            });
            return;
        }
        let mut commands = Vec::new();
        if life.ear.wants_epoch() && !life.starting && begin {
            life.starting = true;
            commands.push(Command::Start(epoch, life.ear.map().clone()));
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
                life.ear.subscribed(RUN, &connection.map.heard());
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
                let (number, channel) = (*number, self.raws[*number]);
                let (text, map) = (number.to_string(), connection.map.clone());
                let payload = payload(number, &text);
                let mut taken = 0;
                for pattern in maps::deliveries(&map, channel, &mut self.rng) {
                    let is_common = maps::is_common(channel);
                    let entry =
                        map.entry_of(channel.as_bytes(), pattern.as_deref().map(str::as_bytes));
                    let item = match entry {
                        _ if is_common => Item::read("events", channel.as_bytes(), payload, 100),
                        Some(entry) => entry.read(channel.as_bytes(), payload, 100),
                        None => continue,
                    };
                    taken += 1;
                    if life
                        .ear
                        .hear_raw(is_common, channel.as_bytes(), payload, item, now)
                    {
                        let lives = self.counted.entry(number).or_default();
                        assert!(lives.insert(life.number), "{number} was counted twice");
                        connection.counts |= !is_common || map.is_empty();
                    } else {
                        self.passed_over += usize::from(connection.counts);
                    }
                }
                let hears = maps::is_common(channel) || map.heard().has(channel.as_bytes());
                assert_eq!(taken, usize::from(hears), "deliveries on {channel}");
            }
            Sent::Told(text) => {
                let told = Told::read(text).expect("it is understood");
                assert!(life.ear.hear_told(told, now), "{text}");
            }
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

    /// Events that were logged before one that was published earlier. Ears of one map keep the order of all
    /// channels; ears of several that of each channel, and of all that are common.
    fn disorder(&self, logged: &[usize]) -> usize {
        let mut last: BTreeMap<&str, usize> = BTreeMap::new();
        let mut disorder = 0;
        for number in logged {
            let channel = self.raws[*number];
            let is_one = self.mix == Mix::OneMap || maps::is_common(channel);
            let before = last.insert(if is_one { "" } else { channel }, *number);
            disorder += usize::from(before.is_some_and(|before| before > *number));
        }
        disorder
    }

    fn verdict(&mut self) -> Verdict {
        let alive: BTreeSet<usize> = self
            .lives
            .iter()
            .flatten()
            .map(|life| life.number)
            .collect();
        let mut log: Vec<(tidegate::id::Id, usize)> = Vec::new();
        for topic in ["a", "b", "c", "events"] {
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
        // Who stops in order owes nothing any more.
        let all_stopped = self.mix == Mix::RollingChange;
        let lost = self.counted.iter().filter(|(number, lives)| {
            let is_owed = all_stopped || !lives.is_disjoint(&alive);
            is_event(**number) && is_owed && !distinct.contains(number)
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
            disorder: self.disorder(&logged),
            passed_over: self.passed_over,
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
    passed_over: usize,
    forced: bool,
}

/// One in ten is no event: its payload is not UTF-8. It is counted all the same.
fn is_event(number: usize) -> bool {
    number % 10 != 9
}

fn payload(number: usize, text: &str) -> &[u8] {
    if is_event(number) {
        text.as_bytes()
    } else {
        b"\xff"
    }
}

#[test]
fn what_an_ear_counted_is_logged_once() {
    play(Mix::OneMap);
}

#[test]
fn what_ears_with_several_maps_counted_is_logged_once() {
    play(Mix::SeveralMaps);
}

#[test]
fn a_rolling_change_of_the_map_keeps_the_order_of_each_channel() {
    play(Mix::RollingChange);
}

fn play(mix: Mix) {
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
        let mut world = World::new(seed, mix, &runtime, &store, &redis);
        let verdict = world.run();
        let bad = verdict.repeated + verdict.lost + verdict.owed + verdict.passed_over;
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
