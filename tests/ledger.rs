//! Goal: the rules of the log in Lua and in Rust are the same, so that what is simulated with the
//! one holds for the other.
//!
//! Method: random calls to the functions on a real Redis, which is restarted now and then, and to
//! one [`Ledger`] a partition whose clock is set to what Redis must have read. Every answer is
//! compared. Now and then another replica comes with other settings for both, or Redis loses all
//! that it holds. A failure prints its seed;
//! `TIDEGATE_TEST_SEED` replays it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failed step ends the test"
)]

#[path = "ledger/words.rs"]
mod words;

mod support;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};
use std::time::Duration;
use support::{Redis, seed};
use tidegate::broker::{
    Bounds, BrokerError, Ledger, Publication, Retention, Rule, redis as broker,
};
use tidegate::event::EventType;
use tidegate::id::Id;
use tidegate::log::{Followed, History, Horizon, Page, ReadRequest, RunId};
use tidegate::metrics::Metrics;
use tidegate::topic::{Pattern, Topic};
use words::Words;

const LEAP_MS: u64 = 150;
const PARTITIONS: u16 = 2;

/// Settings that a fleet may have one after the other. Redis has logs expire by its wall clock, and none does
/// while this runs. Entries become too old all the same, since reports have the log's clock leap far ahead.
fn retention(number: usize, words: &Words) -> Retention {
    let bounds = |events_max, age_ms| Bounds { events_max, age_ms };
    let rule = |topics: &str, bounds| Rule {
        topics: Pattern::parse(topics).unwrap(),
        bounds,
    };
    let rules = match number {
        0 => vec![],
        1 => vec![
            rule("b*", Some(bounds(3, 25_000))),
            rule("ba", None),
            rule("e", None),
        ],
        2 => vec![rule("*a", None), rule("*", Some(bounds(4, 120_000)))],
        _ => vec![rule("e", Some(bounds(1, 1_000_000)))],
    };
    Retention {
        bounds: bounds(8, if number == 3 { 20_000 } else { 60_000 }),
        rules,
        event_bytes_max: words.event_bytes_max,
        topics_max: words.topics_max,
        idempotency_ms: 600_000,
        leap_ms: LEAP_MS,
    }
}
const CALLS: usize = 400;
const RESTARTS: usize = 4;

struct Both {
    lua: tidegate::broker::Broker,
    /// Asks the same Redis.
    direct: redis::Client,
    settings: broker::Settings,
    rust: Vec<Side>,
    rng: StdRng,
    words: Words,
}

/// One partition in Rust, and what its clock said last.
struct Side {
    ledger: Ledger,
    last: Id,
    horizon: Horizon,
    /// Another process answers, and has not written yet.
    fresh: bool,
}

#[test]
fn lua_and_rust_keep_the_same_log() {
    keep_the_same_log(Words::plain(), CALLS);
}

/// Whatever a publisher may call things, and however large.
#[test]
fn lua_and_rust_keep_the_same_log_of_hostile_words() {
    keep_the_same_log(Words::hostile(), CALLS / 2);
}

fn keep_the_same_log(words: Words, calls: usize) {
    let seed = seed();
    let mut redis = Redis::durable();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let mut both = runtime.block_on(Both::new(&redis, seed, words));
    for run in 0..=RESTARTS {
        for _ in 0..calls {
            runtime.block_on(both.call());
        }
        if run % 2 == 1 {
            redis.run::<()>(&["FLUSHALL"]);
            runtime.block_on(both.begin_anew());
            continue;
        }
        redis.kill();
        redis.restart();
        // Connections of the pool are found broken, and replaced.
        while runtime.block_on(both.read(0, Vec::new())).is_err() {}
        for side in &mut both.rust {
            side.ledger.run += 1;
            side.fresh = true;
        }
    }
}

/// Random bytes, mostly near what UTF-8 allows.
fn text(rng: &mut StdRng) -> Vec<u8> {
    let pieces: [&[u8]; 24] = [
        b"a",
        b"plain text ",
        b"\0",
        b"\x7f",
        b"\xc2\x80",
        b"\xdf\xbf",
        b"\xe0\xa0\x80",
        b"\xe0\x9f\xbf",
        b"\xec\x80\x80",
        b"\xed\x9f\xbf",
        b"\xed\xa0\x80",
        b"\xef\xbf\xbf",
        b"\xf0\x90\x80\x80",
        b"\xf0\x8f\xbf\xbf",
        b"\xf3\xbf\xbf\xbf",
        b"\xf4\x8f\xbf\xbf",
        b"\xf4\x90\x80\x80",
        b"\xf5",
        b"\xc1",
        b"\x80",
        b"\xbf",
        b"\xe2\x82",
        b"\xf0\x9f\x98",
        b"0123456789abcdef0123456789abcdef0123456789abcdef",
    ];
    let good = [0, 1, 2, 3, 4, 5, 6, 8, 9, 11, 12, 14, 15, 23];
    let all_good = rng.random_bool(0.5);
    let count = rng.random_range(0..24);
    let piece = |_| {
        if all_good {
            pieces[*good.choose(rng).unwrap()]
        } else {
            pieces[rng.random_range(0..pieces.len())]
        }
    };
    (0..count).flat_map(piece).copied().collect()
}

#[test]
fn lua_and_rust_take_the_same_bytes_for_text() {
    let mut rng = StdRng::seed_from_u64(seed());
    let redis = Redis::start();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(Both::new(&redis, 0, Words::plain()));
    for partition in 0..PARTITIONS {
        let clock = format!("tidegate:{{{partition}}}:clock");
        redis.run::<u64>(&["HSET", &clock, "bytes_max", "65536"]);
    }
    let mut valid = 0;
    for _ in 0..4_000 {
        let data = text(&mut rng);
        let call = [&b"FCALL"[..], b"tidegate_publish", b"0", b"c", &data];
        let published: redis::RedisResult<String> = redis.run_bytes(&call);
        let why = published.as_ref().err().map(ToString::to_string);
        assert_eq!(
            published.is_ok(),
            std::str::from_utf8(&data).is_ok(),
            "{data:?}: {why:?}"
        );
        valid += u32::from(published.is_ok());
    }
    assert!((1_000..3_500).contains(&valid), "{valid} of 4,000");
}

impl Both {
    async fn new(redis: &Redis, seed: u64, words: Words) -> Self {
        let settings = broker::Settings {
            access: broker::Access::parse(&redis.url().into()).unwrap(),
            prefix: "tidegate".into(),
            partitions: PARTITIONS,
            pool_size: 1,
            connect_timeout: Duration::from_secs(5),
            command_timeout: Duration::from_secs(5),
            backoff_max: Duration::from_secs(1),
            live_queue_bytes: 1 << 20,
            allow_eviction: false,
            replica: "test".into(),
            retention: retention(1, &words),
            wait_replicas: 0,
            wait_timeout: Duration::from_secs(1),
        };
        let mut both = Self {
            lua: prepared(&settings).await,
            direct: redis::Client::open(redis.url()).unwrap(),
            rust: Vec::new(),
            settings,
            rng: StdRng::seed_from_u64(seed),
            words,
        };
        both.begin_anew().await;
        both
    }

    /// Clocks that have just been born.
    async fn begin_anew(&mut self) {
        self.lua = prepared(&self.settings).await;
        self.rust.clear();
        for partition in 0..PARTITIONS {
            let (horizon, _) = self.read(partition, Vec::new()).await.unwrap();
            self.rust.push(Side {
                ledger: Ledger::new(self.settings.retention.clone(), horizon.born.ms),
                last: horizon.last,
                horizon,
                fresh: false,
            });
        }
    }

    async fn call(&mut self) {
        match self.rng.random_range(0..30) {
            0..15 => self.publish().await,
            15..18 => self.delete().await,
            18..21 => self.tick().await,
            21..24 => self.report().await,
            24..27 => self.history().await,
            27..29 => self.list().await,
            _ => self.configure().await,
        }
        for partition in 0..PARTITIONS {
            self.compare_logs(partition).await;
        }
    }

    /// Redis' wall clock, after whatever was called last.
    fn wall(&self) -> u64 {
        let mut connection = self.direct.get_connection().unwrap();
        let (seconds, micros): (u64, u64) = redis::cmd("TIME").query(&mut connection).unwrap();
        seconds * 1000 + micros / 1000
    }

    fn side_of(&mut self, topic: &Topic) -> &mut Side {
        &mut self.rust[usize::from(topic.partition(PARTITIONS))]
    }

    async fn publish(&mut self) {
        let batch: Vec<Publication> = (0..self.rng.random_range(1..4))
            .map(|_| self.publication())
            .collect();
        let lua = self.lua.publish(&batch).await;
        let wall = self.wall();
        // Of the events that are refused the first names the reason.
        let refused = (1..=batch.len()).find_map(|count| {
            let mut sides: Vec<Ledger> = self.rust.iter().map(|side| side.ledger.clone()).collect();
            let last: Vec<Id> = self.rust.iter().map(|side| side.last).collect();
            (0..PARTITIONS).find_map(|partition| {
                let (_, part) = part_of(&batch[..count], partition);
                let index = usize::from(partition);
                sides[index].publish(&part, last[index].ms.min(wall)).err()
            })
        });
        if let Some(refused) = refused {
            assert_eq!(lua, Err(refused), "{batch:?}");
            return;
        }
        let lua = lua.unwrap_or_else(|why| panic!("{why}: {batch:?}"));
        for partition in 0..PARTITIONS {
            let (indices, part) = part_of(&batch, partition);
            let ids: Vec<Option<Id>> = indices.into_iter().map(|index| lua[index]).collect();
            let side = &mut self.rust[usize::from(partition)];
            let wrote = ids.iter().copied().flatten().max();
            let now = match wrote.filter(|id| *id > side.last) {
                Some(id) => side.now(id, wall),
                None => side.last.ms.min(wall),
            };
            let rust = side.ledger.publish(&part, now).map(|(ids, _)| ids);
            assert_eq!(Ok(ids), rust, "{part:?}");
        }
    }

    fn publication(&mut self) -> Publication {
        let topic = self.topic();
        let rng = &mut self.rng;
        let event_type = self.words.types.choose(rng).unwrap();
        let with_key = rng.random_bool(0.4);
        let key = self.words.keys.choose(rng).unwrap();
        Publication {
            topic,
            event_type: EventType::parse(event_type).unwrap(),
            data: self.words.data.choose(rng).unwrap().clone(),
            end: rng.random_bool(0.05),
            idempotency_key: with_key.then(|| key.clone()),
        }
    }

    fn topic(&mut self) -> Topic {
        let often = self.rng.random_bool(0.5);
        let topics = &self.words.topics;
        let names = if often { &topics[..5] } else { &topics[..] };
        Topic::parse(names.choose(&mut self.rng).unwrap()).unwrap()
    }

    /// A replica with other settings.
    async fn configure(&mut self) {
        self.settings.retention = retention(self.rng.random_range(0..4), &self.words);
        self.lua = prepared(&self.settings).await;
        let wall = self.wall();
        let mut connection = self.direct.get_connection().unwrap();
        for (partition, side) in self.rust.iter_mut().enumerate() {
            let clock = format!("tidegate:{{{partition}}}:clock");
            let before: Option<String> = redis::cmd("HGET")
                .arg(&[clock.as_str(), "before"])
                .query(&mut connection)
                .unwrap();
            let now = before.map_or(side.last.ms, |before| {
                let until: u64 = before.split(' ').next().unwrap().parse().unwrap();
                until - 1
            });
            let now = now.min(wall);
            side.ledger.configure(self.settings.retention.clone(), now);
        }
    }

    async fn delete(&mut self) {
        let topic = self.topic();
        let lua = self.lua.delete(&topic).await.unwrap();
        let wall = self.wall();
        let side = self.side_of(&topic);
        let now = lua.map_or(side.last.ms.min(wall), |id| side.now(id, wall));
        let rust = side.ledger.delete(&topic, now).map(|frame| frame.id);
        assert_eq!(lua, rust, "delete {topic}");
    }

    async fn tick(&mut self) {
        let partition = self.rng.random_range(0..PARTITIONS);
        let lua = self.lua.tick(partition).await.unwrap();
        let wall = self.wall();
        let side = &mut self.rust[usize::from(partition)];
        let now = side.now(lua, wall);
        assert_eq!(lua, side.ledger.tick(now).id);
    }

    /// A replica that knows ids of a past that this log may have lost, and perhaps which clock it
    /// had followed.
    async fn report(&mut self) {
        let topic = self.topic();
        let partition = topic.partition(PARTITIONS);
        let side = &self.rust[usize::from(partition)];
        let (fresh, last, horizon) = (side.fresh, side.last, side.horizon.clone());
        let far = if fresh {
            0
        } else {
            *[40, 40, 40, 30_000].choose(&mut self.rng).unwrap()
        };
        let rng = &mut self.rng;
        let mut near = |last: Id| {
            let ms = last.ms.saturating_add_signed(rng.random_range(-200..=far));
            Id::new(ms, rng.random_range(0..3))
        };
        let (heard, known, of_topic) = (near(last), near(last), near(last));
        let another = Id::before_ms(1);
        let befores = horizon.seams.iter().map(|seam| seam.before);
        let seams: Vec<Id> = befores.chain([Id::ZERO, last]).collect();
        let followed = Followed {
            heard,
            known: known.max(heard),
            born: *[None, Some(horizon.born), Some(another)]
                .choose(rng)
                .unwrap(),
            seam: rng.random_bool(0.7).then(|| *seams.choose(rng).unwrap()),
            run: None,
        };
        let (followed_run, is_of_this) = (rng.random_bool(0.8), rng.random_bool(0.8));
        // Each side names its processes in its own way.
        let of = |run: RunId| Followed {
            run: followed_run.then_some(if is_of_this { run } else { RunId(u64::MAX) }),
            ..followed
        };
        let known = [(topic, of_topic)];
        let run = self.lua.read(partition, &[]).await.unwrap().horizon.run;
        self.lua.report(partition, of(run), &known).await.unwrap();
        let (horizon, _) = self.read(partition, Vec::new()).await.unwrap();
        let wall = self.wall();
        let side = &mut self.rust[usize::from(partition)];
        let now = if fresh {
            side.now(horizon.seams.last().unwrap().after, wall)
        } else {
            horizon.last.ms.min(wall)
        };
        let run = RunId(side.ledger.run);
        side.ledger.report(of(run), &known, now);
        assert_eq!(side.ledger.last(), horizon.last, "{followed:?}, {known:?}");
    }

    async fn history(&mut self) {
        let topics = [self.topic(), self.topic()];
        let history = *[
            History::Earliest,
            History::Last { events: 0 },
            History::Last { events: 1 },
            History::Last { events: 5 },
            History::Since { ms: 1_000_000_000 },
            History::Last { events: 1000 },
            History::Since { ms: words::EXACT },
        ]
        .choose(&mut self.rng)
        .unwrap();
        let mut lua = self.lua.history(&topics, history).await.unwrap();
        lua.sort_unstable();
        assert_eq!(
            lua,
            self.positions(&topics, history),
            "{history:?} of {topics:?}"
        );
    }

    /// What a history asks for, of several partitions: as many events of all together.
    fn positions(&mut self, topics: &[Topic], history: History) -> Vec<(u16, Id)> {
        let mut partitions: Vec<u16> = topics.iter().map(|t| t.partition(PARTITIONS)).collect();
        partitions.sort_unstable();
        partitions.dedup();
        let wall = self.wall();
        let mut ids: Vec<(Id, u16)> = Vec::new();
        let mut alone = Vec::new();
        for partition in &partitions {
            let side = &mut self.rust[usize::from(*partition)];
            let here = topics
                .iter()
                .filter(|t| t.partition(PARTITIONS) == *partition);
            let here: Vec<Topic> = here.cloned().collect();
            alone.push((
                *partition,
                side.ledger.history(&here, history, side.last.ms.min(wall)),
            ));
            let requests: Vec<ReadRequest> = here
                .into_iter()
                .map(|topic| ReadRequest {
                    topic,
                    after: Id::ZERO,
                    limit: 1_000,
                })
                .collect();
            let reading = side.ledger.read(&requests, side.last.ms.min(wall));
            let frames = reading.pages.iter().flat_map(|page| &page.frames);
            ids.extend(frames.map(|frame| (frame.id, *partition)));
        }
        if let (History::Last { events }, 2..) = (history, partitions.len()) {
            ids.sort_unstable();
            let first = ids.len().saturating_sub(events);
            for (partition, position) in &mut alone {
                let mut of_it = ids[first..].iter().filter(|(_, other)| other == partition);
                *position = of_it.next().map_or_else(
                    || self.rust[usize::from(*partition)].last,
                    |(id, _)| id.just_before(),
                );
            }
        }
        alone
    }

    async fn list(&mut self) {
        let after = self.topic();
        let lua = self.lua.topics(after.as_str(), 2).await.unwrap();
        let wall = self.wall();
        let sides = self.rust.iter_mut();
        let mut rust: Vec<Topic> = sides
            .flat_map(|side| {
                side.ledger
                    .topics(after.as_str(), 2, side.last.ms.min(wall))
            })
            .collect();
        rust.sort_by(|a, b| a.as_str().cmp(b.as_str()));
        rust.truncate(2);
        assert_eq!(lua, rust, "after {after}");
        let lua = self.lua.topic(&after).await.unwrap();
        let side = self.side_of(&after);
        let now = side.last.ms.min(wall);
        assert_eq!(lua, side.ledger.topic(&after, now), "{after}");
    }

    async fn read(
        &self,
        partition: u16,
        requests: Vec<ReadRequest>,
    ) -> Result<(Horizon, Vec<Page>), BrokerError> {
        let reading = self.lua.read(partition, &requests).await?;
        Ok((reading.horizon, reading.pages))
    }

    async fn compare_logs(&mut self, partition: u16) {
        let last = self.rust[usize::from(partition)].last;
        let names = self.words.topics.iter();
        let topics = names.map(|name| Topic::parse(name).unwrap());
        let rng = &mut self.rng;
        let requests: Vec<ReadRequest> = topics
            .filter(|topic| topic.partition(PARTITIONS) == partition)
            .map(|topic| ReadRequest {
                topic,
                after: match rng.random_range(0..20) {
                    0 => *self.words.ids.choose(rng).unwrap(),
                    _ => Id::before_ms(last.ms.saturating_sub(rng.random_range(0..50))),
                },
                limit: rng.random_range(0..6),
            })
            .collect();
        let (horizon, pages) = self.read(partition, requests.clone()).await.unwrap();
        let wall = self.wall();
        let side = &mut self.rust[usize::from(partition)];
        let reading = side.ledger.read(&requests, horizon.now_ms.min(wall));
        assert_eq!(horizon.last, reading.horizon.last);
        assert_eq!(horizon.born, reading.horizon.born);
        assert_eq!(horizon.seams, reading.horizon.seams);
        assert_eq!(horizon.losses, reading.horizon.losses);
        for ((lua, rust), request) in pages.iter().zip(&reading.pages).zip(&requests) {
            assert_eq!(described(lua), described(rust), "{request:?}");
        }
        side.last = horizon.last;
        side.horizon = horizon;
    }
}

impl Side {
    /// What the wall clock, which stands at `wall` now, must have been for a write to end at `last`. Where the
    /// log's clock is ahead of it, it does not matter.
    fn now(&mut self, last: Id, wall: u64) -> u64 {
        let leap = if std::mem::take(&mut self.fresh) {
            LEAP_MS
        } else {
            0
        };
        (last.ms - leap).min(wall)
    }
}

/// What of a batch belongs to one partition, and where it stood.
fn part_of(batch: &[Publication], partition: u16) -> (Vec<usize>, Vec<Publication>) {
    let here = batch.iter().enumerate();
    let here = here.filter(|(_, item)| item.topic.partition(PARTITIONS) == partition);
    here.map(|(index, item)| (index, item.clone())).unzip()
}

/// The functions with these settings.
async fn prepared(settings: &broker::Settings) -> tidegate::broker::Broker {
    let lua = broker::Redis::open(settings.clone(), Metrics::new()).unwrap();
    lua.prepare().await.unwrap();
    tidegate::broker::Broker::Redis(lua)
}

/// Everything that a page says.
fn described(page: &Page) -> String {
    let frames = page.frames.iter().map(|frame| {
        let block = frame.block();
        let block = String::from_utf8_lossy(&block);
        format!(
            "{} after {}, {:?} {block:?}",
            frame.id, frame.prev, frame.mark
        )
    });
    let frames: Vec<String> = frames.collect();
    format!(
        "floor {:?}, ended {:?}, cut at {:?}: {frames:#?}",
        page.floor, page.ended, page.cut_at
    )
}
