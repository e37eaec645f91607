//! Goal: the rules of the log in Lua and in Rust are the same, so that what is simulated with the
//! one holds for the other.
//!
//! Method: random calls to the functions on a real Redis, which is restarted now and then, and to
//! a [`Ledger`] whose clock is set to what Redis must have read. Every answer is compared. A
//! failure prints its seed; `TIDEGATE_TEST_SEED` replays it.

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
use tidegate::broker::{BrokerError, Ledger, Publication, Retention, redis as broker};
use tidegate::event::EventType;
use tidegate::id::Id;
use tidegate::log::{History, Horizon, Page, ReadRequest};
use tidegate::metrics::Metrics;
use tidegate::topic::Topic;

const RETENTION: Retention = Retention {
    events_max: 8,
    age_ms: 60,
    event_bytes_max: 12,
    topics_max: 5,
    idempotency_ms: 600_000,
    leap_ms: 150,
};
const CALLS: usize = 400;
const RESTARTS: usize = 4;

struct Both {
    lua: tidegate::broker::Broker,
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
            retention: RETENTION,
        };
        let lua = broker::Redis::open(settings, Metrics::new()).unwrap();
        lua.prepare().await.unwrap();
        let mut both = Self {
            lua: tidegate::broker::Broker::Redis(lua),
            rust: Ledger::new(RETENTION, 0),
            last: Id::ZERO,
            fresh: false,
            rng: StdRng::seed_from_u64(seed),
        };
        let (horizon, _) = both.read(Vec::new()).await.unwrap();
        both.rust = Ledger::new(RETENTION, horizon.born.ms);
        both.last = horizon.last;
        both
    }

    async fn call(&mut self) {
        match self.rng.random_range(0..10) {
            0..5 => self.publish().await,
            5 => self.delete().await,
            6 => self.tick().await,
            7 => self.report().await,
            8 => self.history().await,
            _ => self.list().await,
        }
        self.compare_logs().await;
    }

    /// What the clock must have been for a write to end at `last`.
    fn now(&mut self, last: Id) -> u64 {
        let leap = if std::mem::take(&mut self.fresh) {
            RETENTION.leap_ms
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
        let wrote = lua.as_ref().ok().and_then(|ids| ids.iter().max().copied());
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
            kind: EventType::parse(["", "price"].choose(&mut self.rng).unwrap()).unwrap(),
            data: (*data[..self.rng.random_range(3..=4)]
                .choose(&mut self.rng)
                .unwrap())
            .to_owned(),
            end: self.rng.random_bool(0.05),
            idempotency_key: key.choose(&mut self.rng).unwrap().map(str::to_owned),
        }
    }

    fn topic(&mut self) -> Topic {
        let names = ["a", "a", "a", "b", "b", "c", "d", "e", "f"];
        Topic::parse(names.choose(&mut self.rng).unwrap()).unwrap()
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
        let lua = self.lua.history(0, &topics, history).await.unwrap();
        let rust = self.rust.history(&topics, history, self.last.ms);
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
        let requests: Vec<ReadRequest> = ["a", "b", "c", "d", "e", "f"]
            .map(|name| ReadRequest {
                topic: Topic::parse(name).unwrap(),
                after: Id::before_ms(self.last.ms.saturating_sub(self.rng.random_range(0..50))),
                limit: self.rng.random_range(0..6),
            })
            .into();
        let (horizon, pages) = self.read(requests.clone()).await.unwrap();
        self.last = horizon.last;
        let reading = self.rust.read(&requests, self.last.ms);
        assert_eq!(horizon.last, reading.horizon.last);
        assert_eq!(horizon.born, reading.horizon.born);
        assert_eq!(horizon.seams, reading.horizon.seams);
        assert_eq!(horizon.age_ms, reading.horizon.age_ms);
        for ((lua, rust), request) in pages.iter().zip(&reading.pages).zip(&requests) {
            assert_eq!(described(lua), described(rust), "{request:?}");
        }
    }
}

/// Everything that a page says.
fn described(page: &Page) -> String {
    let frames = page.frames.iter().map(|frame| {
        let block = String::from_utf8_lossy(frame.block());
        format!(
            "{} after {}, {:?} {block:?}",
            frame.id, frame.prev, frame.mark
        )
    });
    let frames: Vec<String> = frames.collect();
    format!(
        "floor {:?}, ended {:?}, more {}: {frames:#?}",
        page.floor, page.ended, page.more
    )
}
