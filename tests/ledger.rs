//! Goal: the rules of the log in Lua and in Rust are the same, so that what is simulated with the
//! one holds for the other.
//!
//! Method: random calls to the functions on a real Redis, which is restarted now and then, and to
//! a [`Ledger`] whose clock is set to what Redis must have read. Every answer is compared. Now and
//! then another replica comes with other settings for both. A failure prints its seed;
//! `TIDEGATE_TEST_SEED` replays it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failed step ends the test"
)]

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
use tidegate::log::{History, Horizon, Page, ReadRequest};
use tidegate::metrics::Metrics;
use tidegate::topic::{Pattern, Topic};

const LEAP_MS: u64 = 150;
const TOPICS: [&str; 8] = ["a", "b", "ba", "c", "d", "e", "f", "g"];

/// Settings that a fleet may have one after the other.
fn retention(number: usize) -> Retention {
    let bounds = |events_max, age_ms| Bounds { events_max, age_ms };
    let rule = |topics: &str, bounds| Rule {
        topics: Pattern::parse(topics).unwrap(),
        bounds,
    };
    let rules = match number {
        0 => vec![],
        1 => vec![
            rule("b*", Some(bounds(3, 25))),
            rule("ba", None),
            rule("e", None),
        ],
        2 => vec![rule("*a", None), rule("*", Some(bounds(4, 120)))],
        _ => vec![rule("e", Some(bounds(1, 1_000)))],
    };
    Retention {
        bounds: bounds(8, if number == 3 { 20 } else { 60 }),
        rules,
        event_bytes_max: 12,
        topics_max: 6,
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
    rust: Ledger,
    last: Id,
    /// Another process answers, and has not written yet.
    fresh: bool,
    rng: StdRng,
}

#[test]
fn lua_and_rust_keep_the_same_log() {
    let seed = seed();
    let mut redis = Redis::durable();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let mut both = runtime.block_on(Both::new(&redis, seed));
    for _ in 0..=RESTARTS {
        for _ in 0..CALLS {
            runtime.block_on(both.call());
        }
        redis.kill();
        redis.restart();
        // Connections of the pool are found broken, and replaced.
        while runtime.block_on(both.read(Vec::new())).is_err() {}
        both.rust.run += 1;
        both.fresh = true;
    }
}

impl Both {
    async fn new(redis: &Redis, seed: u64) -> Self {
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
            retention: retention(1),
            wait_replicas: 0,
            wait_timeout: Duration::from_secs(1),
        };
        let mut both = Self {
            lua: prepared(&settings).await,
            direct: redis::Client::open(redis.url()).unwrap(),
            rust: Ledger::new(settings.retention.clone(), 0),
            settings,
            last: Id::ZERO,
            fresh: false,
            rng: StdRng::seed_from_u64(seed),
        };
        let (horizon, _) = both.read(Vec::new()).await.unwrap();
        both.rust = Ledger::new(both.settings.retention.clone(), horizon.born.ms);
        both.last = horizon.last;
        both
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
        self.compare_logs().await;
    }

    /// What the clock must have been for a write to end at `last`.
    fn now(&mut self, last: Id) -> u64 {
        let leap = if std::mem::take(&mut self.fresh) {
            LEAP_MS
        } else {
            0
        };
        last.ms - leap
    }

    async fn publish(&mut self) {
        let batch: Vec<Publication> = (0..self.rng.random_range(1..4))
            .map(|_| self.publication())
            .collect();
        let lua = self.lua.publish(&batch).await;
        let ids = lua.iter().flatten();
        let wrote = ids.copied().flatten().max();
        let now = match wrote.filter(|id| *id > self.last) {
            Some(id) => self.now(id),
            None => self.last.ms,
        };
        let rust = self.rust.publish(&batch, now).map(|(ids, _)| ids);
        assert_eq!(lua, rust, "{batch:?}");
    }

    fn publication(&mut self) -> Publication {
        let data = ["", "x", "two\nlines", "more than is allowed"];
        let key = [None, None, None, Some("k1"), Some("k2")];
        Publication {
            topic: self.topic(),
            event_type: EventType::parse(["", "price"].choose(&mut self.rng).unwrap()).unwrap(),
            data: (*data[..self.rng.random_range(3..=4)]
                .choose(&mut self.rng)
                .unwrap())
            .to_owned(),
            end: self.rng.random_bool(0.05),
            idempotency_key: key.choose(&mut self.rng).unwrap().map(str::to_owned),
        }
    }

    fn topic(&mut self) -> Topic {
        let often = self.rng.random_bool(0.5);
        let names = if often { &TOPICS[..3] } else { &TOPICS[..] };
        Topic::parse(names.choose(&mut self.rng).unwrap()).unwrap()
    }

    /// A replica with other settings.
    async fn configure(&mut self) {
        self.settings.retention = retention(self.rng.random_range(0..4));
        self.lua = prepared(&self.settings).await;
        let mut connection = self.direct.get_connection().unwrap();
        let before: Option<String> = redis::cmd("HGET")
            .arg(&["tidegate:{0}:clock", "before"])
            .query(&mut connection)
            .unwrap();
        let now = before.map_or(self.last.ms, |before| {
            before.split(' ').next().unwrap().parse().unwrap()
        });
        self.rust.configure(self.settings.retention.clone(), now);
    }

    async fn delete(&mut self) {
        let topic = self.topic();
        let lua = self.lua.delete(&topic).await.unwrap();
        let now = lua.map_or(self.last.ms, |id| self.now(id));
        let rust = self.rust.delete(&topic, now).map(|frame| frame.id);
        assert_eq!(lua, rust, "delete {topic}");
    }

    async fn tick(&mut self) {
        let lua = self.lua.tick(0).await.unwrap();
        let now = self.now(lua);
        assert_eq!(lua, self.rust.tick(now));
    }

    /// A replica that knows ids of a past that this log may have lost.
    async fn report(&mut self) {
        let far = if self.fresh { 0 } else { 40 };
        let mut near = |last: Id| {
            let ms = last
                .ms
                .saturating_add_signed(self.rng.random_range(-200..=far));
            Id::new(ms, self.rng.random_range(0..3))
        };
        let (heard, id) = (near(self.last), near(self.last));
        let topic = self.topic();
        self.lua
            .report(0, heard, &[(topic.clone(), id)])
            .await
            .unwrap();
        let (horizon, _) = self.read(Vec::new()).await.unwrap();
        let now = if self.fresh {
            let newest = horizon.seams.last().unwrap().after;
            self.now(newest)
        } else {
            horizon.last.ms
        };
        self.rust.report(heard, &[(topic.clone(), id)], now);
        assert_eq!(
            self.rust.last(),
            horizon.last,
            "report {heard}, {topic} {id}"
        );
    }

    async fn history(&mut self) {
        let topics = [self.topic(), self.topic()];
        let history = *[
            History::Earliest,
            History::Last { events: 0 },
            History::Last { events: 1 },
            History::Last { events: 5 },
            History::Since { ms: 1_000_000_000 },
        ]
        .choose(&mut self.rng)
        .unwrap();
        let lua = self.lua.history(&topics, history).await.unwrap();
        let rust = vec![(0, self.rust.history(&topics, history, self.last.ms))];
        assert_eq!(lua, rust, "{history:?} of {topics:?}");
    }

    async fn list(&mut self) {
        let after = self.topic();
        let now = self.last.ms;
        let lua = self.lua.topics(after.as_str(), 2).await.unwrap();
        assert_eq!(
            lua,
            self.rust.topics(after.as_str(), 2, now),
            "after {after}"
        );
        let lua = self.lua.topic(&after).await.unwrap();
        assert_eq!(lua, self.rust.topic(&after, now), "{after}");
    }

    async fn read(&self, requests: Vec<ReadRequest>) -> Result<(Horizon, Vec<Page>), BrokerError> {
        let reading = self.lua.read(0, &requests).await?;
        Ok((reading.horizon, reading.pages))
    }

    async fn compare_logs(&mut self) {
        let requests: Vec<ReadRequest> = TOPICS
            .map(|name| ReadRequest {
                topic: Topic::parse(name).unwrap(),
                after: Id::before_ms(self.last.ms.saturating_sub(self.rng.random_range(0..50))),
                limit: self.rng.random_range(0..6),
            })
            .into();
        let (horizon, pages) = self.read(requests.clone()).await.unwrap();
        self.last = horizon.last;
        let reading = self.rust.read(&requests, horizon.now_ms);
        assert_eq!(horizon.last, reading.horizon.last);
        assert_eq!(horizon.born, reading.horizon.born);
        assert_eq!(horizon.seams, reading.horizon.seams);
        for ((lua, rust), request) in pages.iter().zip(&reading.pages).zip(&requests) {
            assert_eq!(described(lua), described(rust), "{request:?}");
        }
    }
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
