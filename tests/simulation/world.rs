//! Server, replicas and clients together, and the order of things: every step one of them does
//! something, chosen by the seed.

use crate::client::{Client, Open, Published, Stage, Woken};
use crate::mix::Mix;
use crate::replica::{Command, Replica};
use crate::server::{AGE, EXPIRY_SLACK, Record, Server};
use crate::wire::Wire;
use crate::{TYPE, UNLOGGED, topics};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;
use tidegate::broker::{Bounds, Publication, Retention, Rule};
use tidegate::event::EventType;
use tidegate::hub::window::{WindowBounds, Windows};
use tidegate::id::Id;
use tidegate::log::{History, LogRead, Reading};
use tidegate::metrics::Metrics;
use tidegate::stream::open::{Opened, Opener};
use tidegate::stream::out::Out;
use tidegate::stream::request::{Begin, StreamRequest};
use tidegate::stream::settings::{Drain, Jitter, StreamSettings};
use tidegate::stream::turn::{Ending, Now, Turn};
use tidegate::swap::Swap;
use tidegate::time::CoarseInstant;
use tidegate::topic::{Pattern, Topic};
use tokio::time::Instant;

const REPLICAS: usize = 2;
const CLIENTS: usize = 6;
const STEPS: usize = 800;

pub struct World {
    rng: StdRng,
    mix: Mix,
    /// The log forgets events by itself, also once everything has healed.
    forgets: bool,
    start: Instant,
    step: usize,
    settings: Arc<StreamSettings>,
    server: Server,
    replicas: Vec<Replica>,
    clients: Vec<Client>,
    published: Vec<Published>,
    /// Of all windows of a replica.
    total_bytes_max: usize,
    /// Events of the topic that is not logged.
    whispers: usize,
    pub trace: Vec<String>,
    pub tally: BTreeMap<String, u64>,
}

macro_rules! say {
    ($world:expr, $($text:tt)*) => { $world.trace.push(format!($($text)*)) };
}

impl World {
    pub fn new(seed: u64, mix: Mix, metrics: &Arc<Metrics>, start: Instant) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let partitions = if rng.random_bool(0.3) { 2 } else { 1 };
        let server = Server::new(&mix, partitions);
        let each = WindowBounds {
            events_max: *[1, 2, 4, 8].choose(&mut rng).unwrap(),
            bytes_max: *[500, 1_500, 1 << 20].choose(&mut rng).unwrap(),
        };
        let total_bytes_max = if mix.crowded {
            *[1, 600, 2_000].choose(&mut rng).unwrap()
        } else {
            usize::MAX
        };
        let windows = Windows {
            each,
            total_bytes_max,
        };
        let keep = if mix.sweeps { 20 } else { 1_000_000_000 };
        let now = start + Duration::from_millis(server.now);
        let replica = |_| Replica::new(partitions, windows, Duration::from_millis(keep), now);
        let clients = (0..CLIENTS).map(|_| Client::new(&mut rng, mix.history));
        let clients = clients.collect();
        Self {
            settings: Arc::new(settings(&mut rng, &server.retention, metrics)),
            rng,
            forgets: mix.trimming || mix.expiry || mix.settings || mix.deletion,
            mix,
            start,
            step: 0,
            server,
            replicas: (0..REPLICAS).map(replica).collect(),
            clients,
            published: Vec::new(),
            total_bytes_max,
            whispers: 0,
            trace: Vec::new(),
            tally: BTreeMap::new(),
        }
    }

    fn now(&self) -> Instant {
        self.start + Duration::from_millis(self.server.now)
    }

    pub fn run(&mut self) {
        for _ in 0..STEPS {
            self.step();
        }
        // Everything heals; then all is quiet, and one more event on each topic shows who is deaf.
        say!(self, "EVERYTHING HEALS");
        self.mix = Mix::default();
        self.settle_down();
        for topic in topics() {
            self.publish(&[topic]);
        }
        self.whisper();
        self.settle_down();
        self.check();
    }

    fn step(&mut self) {
        self.step += 1;
        self.server.now += [0, 0, 1, 1, 5, 30].choose(&mut self.rng).unwrap();
        if self.mix.slow_replies && self.rng.random_bool(0.2) {
            match self.rng.random_range(0..16) {
                0 if self.mix.deletion => self.delete_some(),
                0..8 => self.drop_some(),
                _ => self.open_some(),
            }
            return;
        }
        match self.rng.random_range(0..100) {
            0..12 => {
                let batch = if self.rng.random_bool(0.15) {
                    self.rng.random_range(2..12)
                } else {
                    1
                };
                let topic = any(&mut self.rng);
                let batch: Vec<Topic> = (0..batch).map(|_| topic.clone()).collect();
                self.publish(&batch);
            }
            12..17 => self.open_some(),
            17..21 => self.drop_some(),
            21..25 => self.fault(),
            25..29 => self.whisper(),
            _ => self.serve_some(),
        }
        self.server.note_ends(self.step);
    }

    fn fault(&mut self) {
        let mix = self.mix;
        let replica = self.rng.random_range(0..REPLICAS);
        match self.rng.random_range(0..11) {
            0 | 1 if mix.cuts => self.cut(replica),
            2 if mix.vanishing => self.lose_frame(replica),
            3 if mix.deletion => self.delete_some(),
            4 if mix.expiry => {
                self.server.now += *[AGE - 10, AGE + 5, EXPIRY_SLACK, EXPIRY_SLACK + AGE + 10]
                    .choose(&mut self.rng)
                    .unwrap();
                say!(self, "time passes, now {}", self.server.now);
            }
            5 if mix.rewinds => self.rewind(),
            10 if mix.reloads => self.reload(),
            6 if mix.clock_steps => {
                // As long as a few steps, and longer than the run.
                self.server.skew = *[-150, 0, 150, -20_000, 20_000]
                    .choose(&mut self.rng)
                    .unwrap();
                say!(self, "the clock is off by {} ms", self.server.skew);
            }
            7 if mix.settings => self.configure(),
            8 if mix.flushes => {
                self.note_records();
                self.server.flush();
                say!(self, "FLUSHALL, the clock is at {}", self.server.wall());
                self.note_histories();
                self.note_losses(true);
            }
            9 if mix.ends => self.end_some(),
            _ => {}
        }
    }

    // --- publishers and faults of the server ---

    fn publish(&mut self, batch: &[Topic]) {
        let first = self.published.len();
        let typed: Vec<bool> = batch.iter().map(|_| self.rng.random_bool(0.5)).collect();
        let items: Vec<Publication> = batch
            .iter()
            .zip(&typed)
            .enumerate()
            .map(|(index, (topic, typed))| {
                let pad = "x".repeat(self.rng.random_range(0..120));
                publication(topic, format!("{} {pad}", first + index), *typed)
            })
            .collect();
        let begins = self.server.begins(&batch[0]);
        let Some(ids) = self.server.publish(&items) else {
            return;
        };
        for event in self.published.iter_mut().filter(|_| begins) {
            event.outlived |= event.topic == batch[0] && !event.vanished.is_empty();
        }
        for ((topic, typed), id) in batch.iter().zip(typed).zip(ids) {
            let id = id.expect("a logged topic");
            say!(self, "publish {topic} {}: {id}", self.published.len());
            self.note_published(topic, id, typed);
        }
    }

    fn note_published(&mut self, topic: &Topic, id: Id, typed: bool) {
        let partition = self.server.partition_of(topic).try_into().unwrap();
        let below = self.server.goes_below(topic, id);
        let event = Published::new(topic.clone(), partition, id, typed, below);
        self.published.push(event);
    }

    fn delete_some(&mut self) {
        let topic = any(&mut self.rng);
        if let Some(id) = self.server.delete(&topic) {
            say!(self, "delete {topic}: {id}");
        }
    }

    fn end_some(&mut self) {
        let topic = any(&mut self.rng);
        let number = self.published.len();
        let mut item = publication(&topic, format!("{number} end"), true);
        item.end = true;
        if let Some(ids) = self.server.publish(&[item]) {
            let id = ids[0].expect("a logged topic");
            say!(self, "end {topic} with {number}: {id}");
            self.note_published(&topic, id, true);
        }
    }

    fn whisper(&mut self) {
        self.whispers += 1;
        let topic = Topic::parse(UNLOGGED).unwrap();
        let item = publication(&topic, format!("w {}", self.whispers), true);
        let ids = self.server.publish(&[item]).unwrap();
        assert_eq!(ids, [None], "what is not logged has no id");
    }

    /// Other ages, for all topics and for one. Replicas say them whenever they connect.
    fn configure(&mut self) {
        let mut age = || {
            *[AGE / 2, AGE, 2 * EXPIRY_SLACK]
                .choose(&mut self.rng)
                .unwrap()
        };
        let retention = &mut self.server.retention;
        retention.bounds.age_ms = age();
        retention.rules.truncate(1);
        retention.rules.push(Rule {
            topics: Pattern::parse("b").unwrap(),
            bounds: Some(Bounds {
                age_ms: age(),
                ..retention.bounds
            }),
        });
        let said = format!("configure: {:?}", self.server.retention);
        self.trace.push(said);
        self.server.configure();
    }

    fn rewind(&mut self) {
        for replica in 0..REPLICAS {
            self.cut(replica);
        }
        // What was gone may be there again afterwards.
        self.note_histories();
        let back = self.rng.random_range(0..4);
        self.note_records();
        self.server.rewind(back);
        say!(
            self,
            "REWIND by {back} writes, to {}",
            self.server.ledgers[0].last()
        );
        self.note_histories();
        self.note_losses(false);
    }

    /// The process goes on with the log as it was; connections may stand meanwhile, and be told of nothing.
    fn reload(&mut self) {
        if self.rng.random_bool(0.5) {
            for replica in 0..REPLICAS {
                self.cut(replica);
            }
        }
        self.note_histories();
        let back = self.rng.random_range(0..4);
        self.note_records();
        self.server.reload(back);
        let last = self.server.ledgers[0].last();
        say!(self, "RELOAD, {back} writes back, to {last}");
        self.note_histories();
        self.note_losses(false);
    }

    /// Which events nobody can know to be lost: the log does not hold them, and no replica has heard
    /// them, or a later one of their topic. A log that is emptied also takes along what it had written down.
    fn note_losses(&mut self, emptied: bool) {
        // A deletion may be lost itself, and then its events are there again.
        for replica in &mut self.replicas {
            replica.deleted.clear();
        }
        for open in self.clients.iter_mut().filter_map(|c| c.open.as_mut()) {
            open.deleted.clear();
        }
        let held = self.server.held(&topics());
        let known: Vec<_> = self.replicas.iter().map(Replica::known_entries).collect();
        for (number, event) in self.published.iter_mut().enumerate() {
            let was_lost = std::mem::replace(&mut event.lost, !held.contains(&number));
            if event.unknowable || !event.lost {
                continue;
            }
            if emptied && event.below && !was_lost {
                // Who stands above it was to be told by the log that is gone.
                for client in &mut self.clients {
                    client.note_passed_below(number, event);
                }
            }
            let knows = |known: &BTreeMap<Topic, Id>| known.get(&event.topic) >= Some(&event.id);
            event.unknowable = !known.iter().any(knows);
        }
    }

    fn cut(&mut self, index: usize) {
        let hears = self.rng.random_range(0..6);
        for _ in 0..hears {
            self.hear(index);
        }
        say!(self, "replica {index}: cut");
        let now = self.now();
        self.replicas[index].cut(now);
    }

    fn lose_frame(&mut self, index: usize) {
        let readable = self.rng.random_bool(0.5);
        let now = self.now();
        let mut trace = Vec::new();
        let lost = self.replicas[index].lose(&self.server, now, readable, &mut trace);
        self.note(index, trace);
        if let Some((topic, frame)) = lost {
            // The newest: a log that went back may have given the id out before.
            let mut events = self.published.iter_mut().rev();
            if let Some(event) = events.find(|event| event.topic == topic && event.id == frame.id) {
                event.vanished.insert(index);
            }
        }
    }

    fn note(&mut self, replica: usize, trace: Vec<String>) {
        let lines = trace.into_iter();
        self.trace
            .extend(lines.map(|line| format!("replica {replica}: {line}")));
    }

    // --- replicas ---

    fn serve_some(&mut self) {
        let replica = self.rng.random_range(0..REPLICAS);
        match self.rng.random_range(0..12) {
            0 | 1 => {
                for _ in 0..self.rng.random_range(1..5) {
                    self.work_on_connection(replica);
                }
            }
            2..6 => {
                // More than is sent, all in all: a replica that only lags finds its windows where
                // they were, however late a reply is.
                let many = *[1, 1, 2, 5, 20].choose(&mut self.rng).unwrap();
                for _ in 0..many {
                    self.hear(replica);
                }
            }
            // Each takes several steps to be done: at one a time, replicas would be opening and settling
            // nearly always, and streams would read only when all is quiet.
            6 | 7 => {
                for _ in 0..self.rng.random_range(1..8) {
                    self.operate(replica);
                    self.collect_asks(replica);
                }
            }
            8 => {
                let now = self.now();
                self.replicas[replica].core.beat(now);
            }
            _ => {
                let client = self.rng.random_range(0..CLIENTS);
                self.turn(client);
            }
        }
        self.collect_asks(replica);
    }

    fn collect_asks(&mut self, replica: usize) {
        self.replicas[replica].collect_asks(self.step, &mut self.rng);
    }

    fn work_on_connection(&mut self, index: usize) {
        let now = self.now();
        let mut trace = Vec::new();
        self.replicas[index].work_on_connection(&mut self.server, now, &mut trace);
        self.note(index, trace);
    }

    fn hear(&mut self, index: usize) {
        let now = self.now();
        let mut trace = Vec::new();
        self.replicas[index].hear(&self.server, now, &mut trace);
        self.note(index, trace);
    }

    fn operate(&mut self, index: usize) {
        let now = self.now();
        let mut trace = Vec::new();
        let served = self.replicas[index].operate(
            &mut self.server,
            self.step,
            now,
            self.mix,
            &mut self.rng,
            &mut trace,
        );
        self.note(index, trace);
        if let Some((streams, reading)) = served {
            let reading = Arc::new(reading);
            for (client, number) in streams {
                self.serve(client, number, &reading);
            }
        }
    }

    /// A stream gets what it has asked for.
    fn serve(&mut self, client: usize, number: u64, reading: &Arc<Reading>) {
        let client = &mut self.clients[client];
        let Some(open) = client.open.as_mut().filter(|_| client.streams == number) else {
            return;
        };
        open.asking = false;
        open.woken.set();
        if let Stage::Live(stream) = &mut open.stage {
            stream.take(reading);
        }
    }

    /// Goes on until nothing is left to be done.
    fn settle_down(&mut self) {
        // Whoever was told to stay away comes once more: the topic may have been opened anew.
        for client in &mut self.clients {
            client.stays_away = false;
        }
        for round in 0..5_000 {
            self.step += 1;
            self.server.now += 5;
            self.server.note_ends(self.step);
            for replica in 0..REPLICAS {
                self.work_on_connection(replica);
                for _ in 0..40 {
                    self.hear(replica);
                }
                let now = self.now();
                self.replicas[replica].core.beat(now);
                for _ in 0..10 {
                    self.collect_asks(replica);
                    self.operate(replica);
                }
            }
            for client in 0..CLIENTS {
                let idle = self.clients[client].open.is_none();
                if idle && !self.clients[client].stays_away {
                    self.open(client);
                }
                self.turn(client);
                self.turn(client);
            }
            let quiet = |client: &Client| {
                client.open.as_ref().is_none_or(|open| {
                    open.wire.is_empty() && !open.asking && matches!(open.stage, Stage::Live(_))
                })
            };
            // A while longer than anything waits for: a clock, an end, a tick.
            if round > 150
                && self
                    .replicas
                    .iter()
                    .all(|replica| replica.is_quiet(&self.server))
                && self.clients.iter().all(quiet)
            {
                return;
            }
        }
        panic!("it never becomes quiet");
    }

    // --- subscribers ---

    fn open_some(&mut self) {
        let client = self.rng.random_range(0..CLIENTS);
        if self.clients[client].open.is_none() {
            self.open(client);
        }
    }

    fn open(&mut self, index: usize) {
        let replica = self.rng.random_range(0..REPLICAS);
        let client = &mut self.clients[index];
        let begin = match &client.cursor {
            Some(cursor) => Begin::After(cursor.clone()),
            None if client.asks_history => Begin::History(History::Earliest),
            None => Begin::Live,
        };
        client.streams += 1;
        let said = format!(
            "client {index} asks replica {replica} for {:?}: {begin:?}",
            client.topics.iter().map(Topic::as_str).collect::<Vec<_>>()
        );
        self.trace.push(said);
        let awaits_live = begin != Begin::Live;
        let request = StreamRequest {
            topics: client.topics.clone(),
            begin,
            event_types: client
                .filters
                .then(|| TYPE.to_owned())
                .into_iter()
                .collect(),
            ..StreamRequest::default()
        };
        let woken = Woken::yes();
        let jitter = Jitter {
            heartbeat: self.rng.random_range(0.0..1.0),
            age: 0.0,
            retry: 0.5,
            drain_slot: 0.0,
        };
        let opener = Opener::new(
            self.replicas[replica].hub.clone(),
            self.settings.clone(),
            request,
            jitter,
            Waker::from(woken.clone()),
        );
        client.open = Some(Open {
            replica,
            stage: Stage::Opening(Box::new(opener)),
            woken,
            asking: false,
            due: None,
            shared: Vec::new(),
            wire: Wire::default(),
            published: self.published.len(),
            asked_at: self.step,
            deleted: self.replicas[replica].deleted.clone(),
            last: None,
            whisper: None,
            is_live: false,
            awaits_live,
            reads_history: false,
            opened_at: usize::MAX,
            known_holes: BTreeSet::new(),
        });
    }

    fn drop_some(&mut self) {
        let index = self.rng.random_range(0..CLIENTS);
        let arrives = self.rng.random_range(0..4);
        for _ in 0..arrives {
            self.arrive(index);
        }
        let client = &mut self.clients[index];
        if client.leave(&self.published) {
            let said = format!("client {index} drops at {:?}", client.cursor);
            self.trace.push(said);
        }
    }

    fn arrive(&mut self, index: usize) {
        let client = &mut self.clients[index];
        let before = client.told.len();
        let Some(said) = client.arrive(&self.published) else {
            return;
        };
        self.trace.push(format!("client {index} {said}"));
        if client.told.len() > before
            && let Some(told) = client.told.last()
        {
            let reason = told.reason.clone();
            if client.last_gap_is_needed(&self.published) {
                *self.tally.entry(reason).or_default() += 1;
            } else if client.last_gap_is_an_end() {
                *self.tally.entry(super::AT_AN_END.to_owned()).or_default() += 1;
            } else {
                *self.tally.entry(format!("needless {reason}")).or_default() += 1;
                *self.tally.entry(reason).or_default() += 1;
            }
        }
    }

    /// The log goes, and with it what it has written down of earlier losses: for those whom nobody has
    /// told of it, and for those who have gone past a loss and not come to where it is told.
    fn note_records(&mut self) {
        for (number, event) in self.published.iter_mut().enumerate() {
            if !event.lost || !(self.mix.flushes || self.mix.reloads) {
                continue;
            }
            match self.server.record_of(event) {
                Record::Birth => {}
                Record::Nowhere => event.record_lost = true,
                Record::At(told) => {
                    for client in &mut self.clients {
                        client.note_record_lost(number, event, told);
                    }
                }
            }
        }
    }

    fn note_histories(&mut self) {
        for client in 0..CLIENTS {
            self.note_history(client);
        }
    }

    /// Whatever goes before a first visit has read it was not asked for.
    fn note_history(&mut self, index: usize) {
        let client = &mut self.clients[index];
        if !client.open.as_ref().is_some_and(|open| open.reads_history) {
            return;
        }
        let held = self.server.held(&client.topics);
        let mut known = std::mem::take(&mut client.history);
        // What comes once it is open is due in any case.
        let opened_at = client
            .open
            .as_ref()
            .map_or(usize::MAX, |open| open.opened_at);
        let until = opened_at
            .min(self.published.len())
            .max(client.history_until);
        known.extend(client.history_until..until);
        client.history = known.intersection(&held).copied().collect();
        client.history_until = until;
    }

    /// The stream goes on as far as it can, if there is a reason to look.
    fn turn(&mut self, index: usize) {
        for _ in 0..3 {
            self.arrive(index);
        }
        if self.forgets {
            self.note_history(index);
        }
        let now = Now {
            instant: CoarseInstant::from(self.now()),
            wall: Duration::from_millis(self.server.now),
        };
        let client = &mut self.clients[index];
        let stream_no = (index, client.streams);
        let Some(open) = client.open.as_mut().filter(|open| !open.asking) else {
            return;
        };
        let due = open.due.is_some_and(|due| due <= now.instant);
        if !open.woken.take() && !due {
            if matches!(open.stage, Stage::Over) && open.wire.is_empty() {
                client.leave(&self.published);
            }
            return;
        }
        match &mut open.stage {
            Stage::Opening(opener) => match opener.step(now) {
                Opened::Wait => {}
                Opened::Read(read) => self.ask(stream_no, read),
                Opened::History(topics, history) => {
                    client.history = self.server.held(&client.topics);
                    client.history_until = self.published.len();
                    open.reads_history = true;
                    let wall = self.server.wall();
                    let mut starts = BTreeMap::new();
                    for topic in topics {
                        let partition = self.server.partition_of(&topic);
                        starts.entry(partition).or_insert_with(Vec::new).push(topic);
                    }
                    let starts = starts.into_iter().map(|(partition, topics)| {
                        let ledger = &mut self.server.ledgers[partition];
                        let id = ledger.history(&topics, history, wall);
                        (partition.try_into().unwrap(), id)
                    });
                    opener.take_history(starts.collect());
                    open.woken.set();
                }
                Opened::Stream(mut stream) => {
                    say!(self, "client {index}: open");
                    open.opened_at = self.published.len();
                    if stream.is_over_for_good() {
                        self.is_over_for_good(index);
                        return;
                    }
                    if self.rng.random_bool(0.7) {
                        // From here on somebody else is woken, as when a socket is handed over.
                        open.woken = Woken::yes();
                        let waker = Waker::from(open.woken.clone());
                        let shared = &mut open.shared;
                        stream.share_wakers(|source| {
                            let waker_id = source.add_waker(waker.clone());
                            shared.push((source, waker_id));
                            waker_id
                        });
                    } else {
                        open.woken.set();
                    }
                    open.stage = Stage::Live(stream);
                }
            },
            Stage::Live(stream) => {
                let mut out = Out::default();
                let replica = &mut self.replicas[open.replica];
                let (server, rng) = (&self.server, &mut self.rng);
                let mut trace = Vec::new();
                let instant = self.start + Duration::from_millis(server.now);
                // The thread that hears frames runs while this one turns the stream.
                let turn = stream.turn_while(now, &mut out, || {
                    if rng.random_bool(0.08) {
                        for _ in 0..rng.random_range(1..12) {
                            replica.hear(server, instant, &mut trace);
                        }
                    }
                    if rng.random_bool(0.08) {
                        replica.repair(instant, rng, &mut trace);
                    }
                });
                for piece in &out.pieces {
                    open.wire.write(piece);
                }
                if !out.pieces.is_empty() && rng.random_bool(0.15) {
                    // Its socket did not take all of that.
                    stream.release_pages();
                }
                let replica = open.replica;
                match turn {
                    Turn::More => open.woken.set(),
                    Turn::Wait(until) => {
                        open.due = Some(until);
                        open.reads_history &= !stream.is_caught_up();
                    }
                    Turn::Read(read) => self.ask(stream_no, read),
                    Turn::Over(ending) => {
                        // What its replica knows to lack, it must have said.
                        let knows = |event: &Published| {
                            let feed = self.replicas[replica].hub.feed(&event.topic);
                            event.vanished.contains(&replica)
                                && feed.and_then(|feed| feed.complete()) < Some(event.id)
                        };
                        let published = self.published.iter().enumerate();
                        let known = published.filter(|(_, event)| knows(event));
                        open.known_holes = known.map(|(number, _)| number).collect();
                        open.stage = Stage::Over;
                        open.woken.set();
                        if let Ending::Clean(_) = ending {
                            // It was shown the end, by a replica that may hear late of a deletion.
                            self.has_ended(index, 0);
                        }
                    }
                }
                self.note(replica, trace);
                self.collect_asks(replica);
            }
            Stage::Over => {
                if open.wire.is_empty() {
                    client.leave(&self.published);
                } else {
                    open.woken.set();
                }
            }
        }
    }

    fn ask(&mut self, stream: (usize, u64), read: LogRead) {
        let Some(open) = self.clients[stream.0].open.as_mut() else {
            return;
        };
        open.asking = true;
        let replica = &mut self.replicas[open.replica];
        if replica.reads.join(read.clone(), stream) {
            replica.send(Command::Shared(read), self.step, &mut self.rng);
        }
    }

    /// A client that came back is told to stay away.
    fn is_over_for_good(&mut self, index: usize) {
        // For this the log was asked, after the client had come.
        let asked_at = self.clients[index]
            .open
            .as_ref()
            .map_or(0, |open| open.asked_at);
        self.has_ended(index, asked_at);
        self.has_nothing_left(index);
        say!(self, "client {index}: over for good");
        self.clients[index].leave(&self.published);
        self.clients[index].stays_away = true;
    }

    /// Whoever is told to stay away has nothing to come for: what was published before it asked, and is in the log
    /// still, above its cursor, it would have been shown.
    fn has_nothing_left(&mut self, index: usize) {
        let client = &self.clients[index];
        let held = self.server.held(&client.topics);
        let asked = client.open.as_ref().map_or(0, |open| open.published);
        for number in held.into_iter().filter(|number| *number < asked) {
            let event = &self.published[number];
            let at = client
                .cursor
                .as_ref()
                .and_then(|cursor| cursor.position(event.partition));
            let is_wanted = event.typed || !client.filters;
            assert!(
                at >= Some(event.id) || !is_wanted || client.seen.contains(&number),
                "client {index} is told to stay away at {at:?}, and {number} of {} at {} is in the log",
                event.topic,
                event.id
            );
        }
    }

    /// A stream may end only if every topic of it had ended, in the log, at this step or later.
    fn has_ended(&self, index: usize, since: usize) {
        let client = &self.clients[index];
        for topic in client
            .topics
            .iter()
            .filter(|topic| topic.as_str() != UNLOGGED)
        {
            assert!(
                self.server
                    .ended_at
                    .get(topic)
                    .is_some_and(|at| *at + 1 >= since),
                "client {index} is told that {topic} has ended, and it has not"
            );
        }
    }

    /// What windows hold is counted, and bounded: the newest event of the topic that is not logged stays, and
    /// that which was heard last.
    fn check_windows(&mut self) {
        const NEWEST: usize = 2_000;
        for replica in &self.replicas {
            let held: usize = replica.hub.feeds().iter().map(|feed| feed.held()).sum();
            assert_eq!(replica.hub.window_bytes(), held, "bytes of all windows");
            assert!(held <= self.total_bytes_max.saturating_add(NEWEST));
            let evicted = replica.hub.take_evicted();
            if evicted > 0 {
                *self.tally.entry("evicted".into()).or_default() += evicted;
            }
        }
    }

    /// What shows that a frame has vanished is the next entry of its topic, as long as the log has it.
    fn note_outlived(&mut self) {
        let held = self.server.held(&topics());
        let mut next: BTreeMap<Topic, usize> = BTreeMap::new();
        for (number, event) in self.published.iter_mut().enumerate().rev() {
            let shows = next.insert(event.topic.clone(), number);
            let is_gone = shows.is_some_and(|next| !held.contains(&next));
            event.outlived |= is_gone && !event.vanished.is_empty();
        }
    }

    fn check(&mut self) {
        self.check_windows();
        self.note_outlived();
        let unlogged = Topic::parse(UNLOGGED).unwrap();
        for index in 0..CLIENTS {
            say!(self, "checking client {index}");
            let client = &self.clients[index];
            let open = client.open.as_ref();
            assert!(
                open.is_none_or(|open| open.is_live || !open.awaits_live),
                "client {index} is never told that it is live"
            );
            let (seen, unknowable) = client.check(&self.published);
            *self.tally.entry("seen".into()).or_default() += seen;
            *self.tally.entry("unknowable".into()).or_default() += unknowable;
            if client.topics.contains(&unlogged) {
                assert!(
                    client.whisper == Some(self.whispers) || client.open.is_none(),
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

fn settings(rng: &mut StdRng, retention: &Retention, metrics: &Arc<Metrics>) -> StreamSettings {
    let mut retention = retention.clone();
    // Cursors are refreshed as often as that can be.
    retention.bounds.age_ms = *[2, 40, 1_000].choose(rng).unwrap();
    retention.bounds.events_max = *[2, 6, 10_000].choose(rng).unwrap();
    StreamSettings {
        replica: "r".into(),
        heartbeat: Duration::from_millis(*[5, 30, 300].choose(rng).unwrap()),
        retry: Duration::from_secs(3),
        age_max: Duration::from_secs(1 << 30),
        open_event: true,
        repair_time: Duration::from_millis(*[200, 100_000].choose(rng).unwrap()),
        retention: Swap::new(retention),
        drain: Arc::new(Drain::new(Duration::from_secs(1))),
        revocations: Arc::default(),
        metrics: metrics.clone(),
    }
}

fn publication(topic: &Topic, data: String, typed: bool) -> Publication {
    let event_type = if typed { TYPE } else { "" };
    Publication {
        topic: topic.clone(),
        event_type: EventType::parse(event_type).unwrap(),
        data,
        end: false,
        idempotency_key: None,
    }
}

fn any(rng: &mut StdRng) -> Topic {
    let names = ["a", "a", "a", "b", "b", "c"];
    Topic::parse(names.choose(rng).unwrap()).unwrap()
}
