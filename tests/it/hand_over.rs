//! Goal: between replay and live nothing is lost and nothing comes twice, at whatever moment a
//! stream begins or comes back, and on whatever replica, while publishers go on.
//!
//! Method: publishers write what they were told (topic, data, id). Subscribers with several topics
//! each read a few events, drop the connection, and come back to any replica, or begin anew with
//! some history. At the end every topic is ended, so that streams say themselves when they are
//! over, and what each subscriber saw is compared with what the publishers were told. Windows are
//! smaller than pages and pages smaller than the log, so streams begin in all of them.
//!
//! Choices come from a seed that a failure prints; `TIDEGATE_TEST_SEED` makes them again.

use crate::support::{End, Event, Gateway, Redis, Sse, choices, fleet, position, positions, seed};
use rand::Rng as _;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Barrier, Mutex};

const TOPICS: [&str; 5] = ["a", "b", "c", "d", "quiet"];
/// What publishers choose from: one topic's log is longer than two pages.
const BUSY: [&str; 6] = ["a", "a", "a", "b", "c", "d"];
const PUBLISHERS: usize = 3;
/// Of each publisher.
const EVENTS: usize = 350;
const SUBSCRIBERS: usize = 8;
/// A subscriber reads at most so many events before it drops.
const READ_MAX: usize = 20;

/// Both numbers of an id.
type Position = (u64, u64);

/// What a publisher was told.
struct Acknowledged {
    topic: &'static str,
    data: String,
    id: Position,
}

/// One visit: from a first connection over any number of drops, until the subscriber forgets where
/// it was, or every topic has ended.
struct Visit {
    topics: Vec<&'static str>,
    /// The cursor of its first `tidegate.open`.
    from: String,
    /// What it would have come back with; none once it has seen everything.
    until: Option<String>,
    seen: Vec<Event>,
    drops: usize,
}

/// Runs publishers and subscribers over these replicas, and compares.
fn hand_over(replicas: &[Gateway], redis: Option<&Redis>) {
    let seed = seed();
    let partitions = partitions_of(&replicas[0]);
    // Every subscriber is there before the first event; later visits begin amid them.
    let ready = Barrier::new(SUBSCRIBERS + 1);
    let told = Mutex::new(Vec::new());
    let visits = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for number in 0..SUBSCRIBERS {
            let (ready, visits) = (&ready, &visits);
            scope.spawn(move || {
                let choices = choices(seed, PUBLISHERS + number);
                let mine = Subscriber { replicas, choices }.watch(ready);
                visits.lock().unwrap().extend(mine);
            });
        }
        ready.wait();
        std::thread::scope(|scope| {
            for number in 0..PUBLISHERS {
                let told = &told;
                scope.spawn(move || {
                    let said = publish(replicas, redis, number, choices(seed, number));
                    told.lock().unwrap().extend(said);
                });
            }
        });
        for topic in TOPICS {
            let end = replicas[0]
                .post(&format!("/events/{topic}?end"), &[], "end")
                .id();
            told.lock().unwrap().push(Acknowledged {
                topic,
                data: "end".to_owned(),
                id: position(&end).unwrap(),
            });
        }
    });
    let mut told = told.into_inner().unwrap();
    told.sort_by_key(|event| event.id);
    let visits = visits.into_inner().unwrap();
    for visit in &visits {
        visit.check(&told, &partitions);
    }
    let drops: usize = visits.iter().map(|visit| visit.drops).sum();
    // A drop comes after READ_MAX events at most, and the least that one subscriber sees is one
    // busy topic.
    assert!(drops >= 5 * SUBSCRIBERS, "only {drops} drops");
    assert!(visits.len() > SUBSCRIBERS, "nobody began anew");
}

/// The partition of a topic, as the cursor of a stream of it alone tells.
fn partition_of(gateway: &Gateway, topic: &str) -> u64 {
    let cursor = positions(gateway.listen(&[topic]).last_event_id()).unwrap();
    *cursor.keys().next().unwrap()
}

fn partitions_of(gateway: &Gateway) -> HashMap<&'static str, u64> {
    TOPICS
        .map(|topic| (topic, partition_of(gateway, topic)))
        .into()
}

/// Publishes to random topics, over random replicas, in any way that tells the id.
fn publish(
    replicas: &[Gateway],
    redis: Option<&Redis>,
    publisher: usize,
    mut choices: StdRng,
) -> Vec<Acknowledged> {
    let mut told = Vec::new();
    while told.len() < EVENTS {
        let replica = replicas.choose(&mut choices).unwrap();
        let count = choices.random_range(1..=4);
        let fresh: Vec<(&str, String)> = (told.len()..told.len() + count)
            .map(|n| {
                let topic = BUSY.choose(&mut choices).unwrap();
                (*topic, format!("{publisher}-{n}"))
            })
            .collect();
        let events: Vec<(&str, &str)> = fresh.iter().map(|(t, data)| (*t, data.as_str())).collect();
        let ids = match redis {
            Some(redis) if choices.random() => events
                .iter()
                .map(|(topic, data)| redis.publish(topic, data, &[]))
                .collect(),
            _ if choices.random() => replica.publish_batch(&events),
            _ => events
                .iter()
                .map(|(topic, data)| replica.publish(topic, data))
                .collect(),
        };
        told.extend(
            fresh
                .into_iter()
                .zip(ids)
                .map(|((topic, data), id)| Acknowledged {
                    topic,
                    data,
                    id: position(&id).unwrap(),
                }),
        );
    }
    told
}

struct Subscriber<'a> {
    replicas: &'a [Gateway],
    choices: StdRng,
}

impl Subscriber<'_> {
    /// Visits until every topic has ended.
    fn watch(&mut self, ready: &Barrier) -> Vec<Visit> {
        let mut visits = Vec::new();
        let mut history = "";
        loop {
            let (visit, stream) = self.begin(history);
            if visits.is_empty() {
                ready.wait();
            }
            visits.push(self.go_on(visit, stream));
            if visits.last().is_some_and(|visit| visit.until.is_none()) {
                return visits;
            }
            let all = ["", "&since=earliest", "&since=1h", "&last=7", "&last=300"];
            history = all.choose(&mut self.choices).unwrap();
        }
    }

    /// A visit to some topics, and its stream, which is open.
    fn begin(&mut self, history: &str) -> (Visit, Sse) {
        let count = self.choices.random_range(1..=TOPICS.len());
        let mut topics: Vec<&str> = TOPICS
            .choose_multiple(&mut self.choices, count)
            .copied()
            .collect();
        // A stream of the quiet topic alone has nothing to show until the end.
        if topics == ["quiet"] {
            topics.push("a");
        }
        let query: Vec<String> = topics
            .iter()
            .map(|topic| format!("topic={topic}"))
            .collect();
        let target = format!("/events?{}{history}", query.join("&"));
        let replica = self.replicas.choose(&mut self.choices).unwrap();
        let mut stream = replica.open(&target, &[]);
        let visit = Visit {
            topics,
            from: stream.opened().id().to_owned(),
            until: None,
            seen: Vec::new(),
            drops: 0,
        };
        (visit, stream)
    }

    fn go_on(&mut self, mut visit: Visit, mut stream: Sse) -> Visit {
        loop {
            for _ in 0..self.choices.random_range(0..=READ_MAX) {
                let Some(event) = stream.try_next_event() else {
                    break;
                };
                visit.seen.push(event);
            }
            // What was read from the socket counts: the last id covers it.
            visit.seen.extend(stream.received());
            match stream.end() {
                Some(End::Clean) => return visit,
                Some(End::Cut) => panic!("the stream was cut:\n{}", stream.text()),
                None => {}
            }
            if self.choices.random_bool(0.1) {
                visit.until = Some(stream.last_event_id().to_owned());
                return visit;
            }
            visit.drops += 1;
            let cursor = stream.last_event_id().to_owned();
            stream = stream.reconnect_to(self.replicas.choose(&mut self.choices).unwrap());
            if stream.status() == 204 {
                return visit;
            }
            assert_eq!(stream.opened().id(), cursor, "the client's own cursor");
        }
    }
}

impl Visit {
    /// Nothing lost, nothing twice, in order.
    fn check(&self, told: &[Acknowledged], partitions: &HashMap<&str, u64>) {
        let from = positions(&self.from).unwrap();
        let until = self.until.as_ref().map(|cursor| positions(cursor).unwrap());
        let is_due = |event: &&Acknowledged| {
            let partition = partitions[event.topic];
            self.topics.contains(&event.topic)
                && event.id > from[&partition]
                && until
                    .as_ref()
                    .is_none_or(|until| event.id <= until[&partition])
        };
        // Each partition has an order of its own.
        let mut expected: BTreeMap<u64, Vec<&str>> = BTreeMap::new();
        for event in told.iter().filter(is_due) {
            let order = expected.entry(partitions[event.topic]).or_default();
            order.push(&event.data);
        }
        let told_as: HashMap<(u64, Position), &Acknowledged> = told
            .iter()
            .map(|event| ((partitions[event.topic], event.id), event))
            .collect();
        let mut seen: BTreeMap<u64, Vec<&str>> = BTreeMap::new();
        let mut before = from.clone();
        for event in &self.seen {
            let now = positions(event.id()).unwrap();
            // The part of the cursor that moved is the event's own id.
            let moved: Vec<_> = now.iter().filter(|(p, at)| before[p] != **at).collect();
            let [(partition, id)] = moved[..] else {
                panic!("{event:?} after {before:?}");
            };
            let known = told_as.get(&(*partition, *id));
            assert_eq!(
                known.map(|known| &known.data),
                Some(&event.data),
                "{event:?}"
            );
            seen.entry(*partition).or_default().push(&event.data);
            before = now;
        }
        assert_eq!(
            seen, expected,
            "{:?} after {} until {:?}",
            self.topics, self.from, self.until
        );
    }
}

/// Replays come from pages, windows and the live path alike.
const SMALL_WINDOWS: (&str, &str) = ("window.events_max", "30");

#[test]
fn no_event_is_lost_or_repeated_on_one_gateway_in_memory() {
    hand_over(&[Gateway::start(&[SMALL_WINDOWS])], None);
}

#[test]
fn no_event_is_lost_or_repeated_on_any_replica() {
    let redis = Redis::start();
    hand_over(&fleet(&redis, 2, &[SMALL_WINDOWS]), Some(&redis));
}

#[test]
fn no_event_is_lost_or_repeated_over_several_partitions() {
    let redis = Redis::start();
    let config = [SMALL_WINDOWS, ("redis.partitions", "4")];
    hand_over(&fleet(&redis, 2, &config), Some(&redis));
}

/// A client tells an event's own id by the part of the cursor that moved.
#[test]
fn an_event_moves_its_own_part_of_the_cursor_and_no_other() {
    let redis = Redis::start();
    let replicas = fleet(&redis, 2, &[("redis.partitions", "4")]);
    let names: Vec<String> = (0..16).map(|number| format!("topic-{number}")).collect();
    let here = partition_of(&replicas[0], &names[0]);
    let (beside, elsewhere): (Vec<&String>, Vec<&String>) = names[1..]
        .iter()
        .partition(|name| partition_of(&replicas[0], name) == here);
    let topics = [names[0].as_str(), elsewhere[0].as_str()];
    let mut stream = replicas[0].listen(&topics);
    replicas[0].publish(topics[0], "seen");
    let seen = stream.next_event();
    // Something that the stream does not read goes on in its partition, and the other replica, which
    // knows nothing yet, reads the log up to there.
    replicas[0].publish(beside[0], "unread");
    let mut stream = stream.reconnect_to(&replicas[1]);
    stream.opened();
    replicas[0].publish(topics[1], "next");
    let next = stream.next_event();
    assert_eq!(next.data, "next");
    let (before, now) = (positions(seen.id()).unwrap(), positions(next.id()).unwrap());
    assert_eq!(
        now[&here],
        before[&here],
        "{} after {}",
        next.id(),
        seen.id()
    );
}

#[test]
fn no_event_is_lost_or_repeated_where_topics_are_subscribed_and_left_all_the_time() {
    let redis = Redis::start();
    let config = [SMALL_WINDOWS, ("redis.unsubscribe_after", "0s")];
    hand_over(&fleet(&redis, 2, &config), Some(&redis));
}
