//! Goal: orders of events that a hostile reader found, each once and for good: what one order does is
//! read off step by step here, where the simulation only meets it by chance.
//!
//! Method: the real follower, hub and readers over the real ledger; each step is told by hand.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a step that cannot be ends the test"
)]

#[path = "orders/asks.rs"]
mod asks;
#[path = "orders/envelopes.rs"]
mod envelopes;
#[path = "orders/held.rs"]
mod held;
#[path = "orders/parts.rs"]
mod parts;
#[path = "orders/passed.rs"]
mod passed;
#[path = "orders/readers.rs"]
mod readers;
#[path = "orders/records.rs"]
mod records;
#[path = "orders/streams.rs"]
mod streams;
#[path = "orders/unseen.rs"]
mod unseen;
#[path = "orders/visits.rs"]
mod visits;

use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;
use tidegate::broker::{Bounds, Interest, Ledger, Live, Publication, Retention, Rule};
use tidegate::cursor::Cursor;
use tidegate::event::EventType;
use tidegate::follow::ask::{Answer, Ask};
use tidegate::follow::core::{FollowSettings, FollowerCore};
use tidegate::follow::reads::shared::{Begun, Finished, SharedReads};
use tidegate::hub::Hub;
use tidegate::hub::partition::Learned;
use tidegate::hub::reader::{Flow, OpenStep, Reader, Shown, Sink, Start, Step};
use tidegate::hub::window::WindowBounds;
use tidegate::id::Id;
use tidegate::log::{History, LogRead, ReadRequest, Reading};
use tidegate::sse::Mark;
use tidegate::topic::{Pattern, Topic};
use tokio::time::Instant;

struct Seen(Vec<String>);
impl Sink for Seen {
    fn show(&mut self, shown: Shown<'_>, _: &Cursor) -> Flow {
        self.0.push(match &shown {
            Shown::Frame { frame, .. } => format!("{}", frame.id),
            Shown::Gap { gap, .. } => format!("GAP {:?} {:?}..{}", gap.reason, gap.from, gap.to),
        });
        Flow::More
    }
}
fn topic() -> Topic {
    named("a")
}
fn retention(events_max: usize) -> Retention {
    Retention {
        bounds: Bounds {
            events_max,
            age_ms: 1 << 40,
        },
        rules: vec![],
        event_bytes_max: 100,
        topics_max: 0,
        idempotency_ms: 1,
        leap_ms: 2000,
    }
}
fn publish(l: &mut Ledger, n: usize, now: u64) -> Vec<(Topic, tidegate::sse::Frame)> {
    publish_to(l, "a", n, now)
}
fn settings() -> FollowSettings {
    FollowSettings {
        reads_max: 2,
        tick_after: Duration::from_secs(15),
        deaf_after: Duration::from_secs(5),
        keep: Duration::from_secs(60),
    }
}
/// Carries out everything the core asks; returns whether a Reset was asked, and feeds it ticks.
fn drive(core: &mut FollowerCore, l: &mut Ledger, now_ms: u64, now: Instant) -> usize {
    let mut resets = 0;
    while let Some(ask) = core.next_ask() {
        resets += carry_out(core, ask, l, now_ms, now);
    }
    resets
}
/// Carries out one thing that the core asks; returns whether it was a Reset.
fn carry_out(
    core: &mut FollowerCore,
    ask: Ask,
    l: &mut Ledger,
    now_ms: u64,
    now: Instant,
) -> usize {
    match ask {
        Ask::Interest(Interest::Add(added)) => core.hear(Live::Confirmed(added), now),
        Ask::Interest(Interest::Reset) => return 1,
        Ask::Interest(_) => {}
        Ask::Settle {
            connection,
            reports,
        } => {
            let mut told = Vec::new();
            for r in reports {
                hear(core, l.report(r.followed, &r.topics, now_ms), now);
                told.push(l.name());
            }
            let tick = l.tick(now_ms);
            core.hear(Live::Tick(0, tick), now);
            core.answer(Answer::Settled { connection, told }, now);
        }
        Ask::Read {
            connection,
            feeds,
            requests,
            ..
        } => {
            let reading = l.read(&requests, now_ms);
            core.answer(
                Answer::Read {
                    connection,
                    feeds,
                    reading: Ok(reading),
                },
                now,
            );
        }
        Ask::Tick(c, p) => {
            let tick = l.tick(now_ms);
            core.hear(Live::Tick(0, tick), now);
            core.answer(Answer::Ticked(c, p, Ok(tick.id)), now);
        }
    }
    0
}
/// The same while a tick was not believed, and the clock is asked for once more.
fn drive_doubted(core: &mut FollowerCore, l: &mut Ledger, now_ms: u64, now: Instant) -> usize {
    let beats = 1..=2;
    beats.fold(0, |resets, beat| {
        let now = now + beat * Duration::from_millis(150);
        core.beat(now);
        resets + drive(core, l, now_ms, now)
    })
}
fn up(run: u64) -> Live {
    Live::Up {
        run: run.to_string().into(),
    }
}
fn read(l: &mut Ledger, hub: &Hub, read: &LogRead, now: u64) -> Arc<Reading> {
    let g = hub.partition(0).settled().unwrap();
    let mut reading = l.read(read.requests(), now);
    assert_eq!(hub.learn(0, g, &mut reading.horizon), Learned::Counts);
    hub.offer(&reading);
    Arc::new(reading)
}
fn open(l: &mut Ledger, hub: &Arc<Hub>, r: &mut Reader, now: u64) {
    loop {
        match r.open(&mut vec![]) {
            OpenStep::Open => return,
            OpenStep::Read(q) => {
                read(l, hub, &q, now);
            }
            OpenStep::Wait => panic!("waits"),
        }
    }
}

/// A replica that keeps a topic's last `events_max`, and has heard `up`.
fn replica(events_max: usize, up: Live, now: Instant) -> (Arc<Hub>, FollowerCore) {
    let bounds = WindowBounds {
        events_max,
        bytes_max: 1 << 20,
    };
    let hub = Hub::new(1, bounds);
    let mut core = FollowerCore::new(hub.clone(), settings(), now);
    core.hear(up, now);
    (hub, core)
}
/// A reader that is live, of a log that was written up to 100,001 ms.
fn live(hub: &Arc<Hub>, core: &mut FollowerCore, l: &mut Ledger, now: Instant) -> Reader {
    let mut reader = hub.reader(&[topic()], Waker::noop(), |_| Start::Live);
    core.hub_wants(now);
    drive(core, l, 100_002, now);
    open(l, hub, &mut reader, 100_003);
    reader
}
/// A log with one event, and a replica with a reader that is live.
fn standing(now: Instant) -> (Ledger, Arc<Hub>, FollowerCore, Reader) {
    let mut l = Ledger::new(retention(100), 100_000);
    publish(&mut l, 1, 100_001);
    let (hub, mut core) = replica(100, up(0), now);
    let reader = live(&hub, &mut core, &mut l, now);
    (l, hub, core, reader)
}
/// The connection breaks, and stands again; whatever the follower asks for is done.
fn reconnect(hub: &Hub, core: &mut FollowerCore, l: &mut Ledger, now_ms: u64, now: Instant) {
    core.hear(Live::Down, now);
    core.hear(up(l.run), now);
    core.hear(confirmed(hub), now);
    drive(core, l, now_ms, now);
}
/// A reader that is behind its window gets its page.
fn read_on(reader: &mut Reader, seen: &mut Seen, l: &mut Ledger, hub: &Hub, now_ms: u64) {
    let Step::Behind(q) = reader.step(seen) else {
        panic!("it is not behind")
    };
    let page = read(l, hub, &q, now_ms);
    reader.take_pages(&page);
}
/// The topic's entries above an id.
fn after(id: Id) -> ReadRequest {
    ReadRequest {
        topic: topic(),
        after: id,
        limit: 100,
    }
}
/// How many gap entries there are.
fn gaps(frames: &[tidegate::sse::Frame]) -> usize {
    let gaps = frames.iter().filter(|f| matches!(f.mark, Mark::Gap { .. }));
    gaps.count()
}
/// The live path says that it hears the topic.
fn confirmed(hub: &Hub) -> Live {
    Live::Confirmed(vec![(topic(), hub.feed(&topic()).unwrap().number())])
}
/// The live path says that it hears all topics that are read.
fn all_confirmed(hub: &Hub) -> Live {
    let feeds = hub.feeds();
    let named = feeds.iter().map(|f| (f.topic().clone(), f.number()));
    Live::Confirmed(named.collect())
}
/// The live path shows frames.
fn hear(core: &mut FollowerCore, frames: Vec<(Topic, tidegate::sse::Frame)>, now: Instant) {
    for (topic, frame) in frames {
        core.hear(Live::Frame(topic, frame), now);
    }
}

fn named(name: &str) -> Topic {
    Topic::parse(name).unwrap()
}
fn publish_to(
    l: &mut Ledger,
    name: &str,
    n: usize,
    now: u64,
) -> Vec<(Topic, tidegate::sse::Frame)> {
    let e = Publication {
        topic: named(name),
        event_type: EventType::default(),
        data: "x".into(),
        end: false,
        idempotency_key: None,
    };
    l.publish(&vec![e; n], now).unwrap().1
}
/// A replica with a first visit that asks for all that is retained, and is open; at `now_ms` the log was asked.
fn first_visit(
    l: &mut Ledger,
    topics: &[Topic],
    events_max: usize,
    now_ms: u64,
    now: Instant,
) -> (Arc<Hub>, FollowerCore, Reader) {
    let (hub, mut core) = replica(events_max, up(0), now);
    let first = l.history(topics, History::Earliest, now_ms);
    let mut reader = hub.reader(topics, Waker::noop(), |_| Start::History(first));
    core.hub_wants(now);
    drive(&mut core, l, now_ms + 1, now);
    open(l, &hub, &mut reader, now_ms + 2);
    (hub, core, reader)
}
/// Takes so many, then is full.
struct Narrow(Vec<String>, usize);
impl Sink for Narrow {
    fn show(&mut self, shown: Shown<'_>, _: &Cursor) -> Flow {
        let text = match &shown {
            Shown::Frame { frame, .. } => format!("{}", frame.id),
            Shown::Gap { gap, .. } => {
                format!(
                    "GAP {} {:?} {:?}..{}",
                    gap.topic, gap.reason, gap.from, gap.to
                )
            }
        };
        self.0.push(text);
        if self.0.len().is_multiple_of(self.1) {
            Flow::Full
        } else {
            Flow::More
        }
    }
}
/// Everything that a reader shows whose socket is full after every `many`, its pages let go then or not.
fn shown_by(
    reader: &mut Reader,
    l: &mut Ledger,
    hub: &Hub,
    now: u64,
    many: usize,
    lets_go: bool,
) -> Vec<String> {
    let mut seen = Narrow(vec![], many);
    for _ in 0..1000 {
        match reader.step(&mut seen) {
            Step::Behind(q) => {
                let page = read(l, hub, &q, now);
                reader.take_pages(&page);
            }
            Step::Full if lets_go => reader.release_pages(),
            Step::Full => {}
            _ => return seen.0,
        }
    }
    panic!("it never ends")
}

/// The flag of a first visit outlived its first page when another stream had read that page for it.
#[test]
fn a_first_visit_forgives_only_what_was_gone_when_it_began() {
    let now = Instant::now();
    let mut l = Ledger::new(retention(6), 1000);
    publish(&mut l, 4, 1001);
    let (hub, mut core) = replica(4, up(0), now);
    drive(&mut core, &mut l, 1002, now);
    let start = |_| Start::History(Id::new(1000, 0));
    let mut one = hub.reader(&[topic()], Waker::noop(), start);
    let mut two = hub.reader(&[topic()], Waker::noop(), start);
    core.hub_wants(now);
    drive(&mut core, &mut l, 1003, now);
    open(&mut l, &hub, &mut one, 1003);
    open(&mut l, &hub, &mut two, 1003);
    let mut seen = Seen(vec![]);
    read_on(&mut one, &mut seen, &mut l, &hub, 1003);
    // The other looks only now: the window covers it.
    assert_eq!(two.step(&mut Seen(vec![])), Step::Idle);
    for i in 0..20 {
        hear(&mut core, publish(&mut l, 1, 2000 + i), now);
    }
    let mut seen = Seen(vec![]);
    read_on(&mut two, &mut seen, &mut l, &hub, 3000);
    two.step(&mut seen);
    assert!(
        seen.0.iter().any(|s| s.starts_with("GAP")),
        "14 events were trimmed and nothing told"
    );
}

/// A page that another stream had read covered the cursor, and the gap was left to a page that was never read.
#[test]
fn a_cursor_inside_a_seam_is_told_although_the_window_grows_before_the_first_look() {
    let now = Instant::now();
    let mut l = Ledger::new(retention(100), 1000);
    publish(&mut l, 4, 1001);
    // another process, without the tail: ids 1001-5.. were given out and lost
    l.run = 1;
    let (hub, mut core) = replica(100, up(1), now);
    drive(&mut core, &mut l, 1100, now);
    publish(&mut l, 2, 1200);
    let mut one = hub.reader(&[topic()], Waker::noop(), |_| {
        Start::After(Id::new(1000, 0))
    });
    let mut two = hub.reader(&[topic()], Waker::noop(), |_| {
        Start::After(Id::new(1001, 6))
    });
    core.hub_wants(now);
    drive(&mut core, &mut l, 1203, now);
    open(&mut l, &hub, &mut one, 1203);
    open(&mut l, &hub, &mut two, 1203);
    let mut seen = Seen(vec![]);
    read_on(&mut one, &mut seen, &mut l, &hub, 1203);
    let mut seen = Seen(vec![]);
    let step = two.step(&mut seen);
    if let Step::Behind(q) = step {
        let page = read(&mut l, &hub, &q, 1203);
        two.take_pages(&page);
    }
    assert!(
        seen.0.iter().any(|s| s.starts_with("GAP")),
        "cursor inside a seam and nothing told"
    );
}

/// It stood above all that the next process showed: the path was begun anew without end, and streams began there.
#[test]
fn what_was_heard_before_the_report_is_forgotten_with_its_connection() {
    let now = Instant::now();
    let (mut l, hub, mut core, _one) = standing(now);
    let before = l.clone();
    // reconnect; frames are heard before the report and the ticks are answered
    core.hear(Live::Down, now);
    core.hear(up(0), now);
    let tick = l.tick(160_000);
    core.hear(Live::Tick(0, tick), now);
    // it breaks before Settled; another process whose clock is 50 s behind
    core.hear(Live::Down, now);
    while core.next_ask().is_some() {}
    let mut l = before;
    l.run = 1;
    let mut clock = 110_000;
    let mut resets = 0;
    for _ in 0..20 {
        core.hear(up(1), now);
        core.hear(confirmed(&hub), now);
        let mut r = drive(&mut core, &mut l, clock, now);
        let mut live = hub.reader(&[topic()], Waker::noop(), |_| Start::Live);
        live.open(&mut vec![]);
        hear(&mut core, publish(&mut l, 1, clock + 1), now);
        r += drive(&mut core, &mut l, clock + 2, now);
        let mut seen = Seen(vec![]);
        live.step(&mut seen);
        if r > 0 {
            resets += 1;
            core.hear(Live::Down, now);
        } else {
            assert_eq!(seen.0.len(), 1, "the stream is deaf: {:?}", live.cursor());
            break;
        }
        clock += 100;
    }
    assert!(resets < 3, "resets in a loop: {resets}");
}

/// A page asked for between Down and Up was answered by the process before, and arrived after the new
/// one was settled. Nothing is asked then any more; what was asked before counts for nothing.
#[test]
fn a_reading_of_the_process_before_counts_for_nothing_however_late() {
    let now = Instant::now();
    let (mut l, hub, mut core, _one) = standing(now);
    hear(&mut core, publish(&mut l, 1, 100_010), now);
    // somebody asks for the clock or a page; the path breaks; it is answered by the old process
    let asked = hub.partition(0).settled().unwrap();
    let mut old = l.read(&[], 100_020);
    core.hear(Live::Down, now);
    assert_eq!(hub.partition(0).settled(), None);
    // Redis restarts, nothing is lost
    l.run = 1;
    core.hear(up(1), now);
    assert_eq!(hub.partition(0).settled(), None);
    core.hear(confirmed(&hub), now);
    drive(&mut core, &mut l, 100_500, now);
    for i in 0..5 {
        hear(&mut core, publish(&mut l, 1, 110_000 + i), now);
    }
    // The old reply arrives.
    assert_eq!(hub.learn(0, asked, &mut old.horizon), Learned::Outdated);
    core.beat(now);
    let resets = drive(&mut core, &mut l, 110_020, now);
    if resets > 0 {
        reconnect(&hub, &mut core, &mut l, 110_030, now);
    }
    let q = after(Id::ZERO);
    let page = l.read(&[q], 110_050);
    assert!(
        gaps(&page.pages[0].frames) == 0 || resets == 0,
        "a gap was written without a cause"
    );
}

/// More frames than are kept are heard while the topic waits for its repair: nobody went past any of them.
#[test]
fn what_overflows_while_a_topic_waits_is_late_for_nobody() {
    let now = Instant::now();
    let mut l = Ledger::new(retention(10_000), 100_000);
    publish(&mut l, 1, 100_001);
    let (hub, mut core) = replica(5000, up(0), now);
    let mut one = live(&hub, &mut core, &mut l, now);
    core.hear(Live::Down, now);
    core.hear(up(0), now);
    core.hear(confirmed(&hub), now);
    // Settle is asked and takes a moment; meanwhile frames are heard
    let mut replies = vec![];
    while let Some(ask) = core.next_ask() {
        match ask {
            Ask::Settle { connection, .. } => {
                let id = l.tick(100_009);
                core.hear(Live::Tick(0, id), now);
                let told = Vec::new();
                core.answer(Answer::Settled { connection, told }, now);
            }
            Ask::Read {
                connection,
                feeds,
                requests,
                ..
            } => {
                let r = l.read(&requests, 100_009);
                replies.push(Answer::Read {
                    connection,
                    feeds,
                    reading: Ok(r),
                });
            }
            _ => {}
        }
    }
    // the log has answered; before the answer is taken 1,100 frames come
    hear(&mut core, publish(&mut l, 1100, 100_010), now);
    for r in replies {
        core.answer(r, now);
    }
    drive(&mut core, &mut l, 100_020, now);
    let mut seen = Seen(vec![]);
    one.step(&mut seen);
    let gaps: Vec<&String> = seen.0.iter().filter(|s| s.starts_with("GAP")).collect();
    assert!(gaps.is_empty(), "a gap without a cause");
}
/// A topic was given up during the outage, and with it what was heard of it.
#[test]
fn what_only_this_replica_heard_is_reported_although_nobody_reads_it() {
    let now = Instant::now();
    let (mut l, hub, mut core, one) = standing(now);
    let before = l.clone();
    hear(&mut core, publish(&mut l, 1, 100_010), now);
    core.hear(Live::Down, now);
    drop(one);
    core.beat(now);
    core.beat(now + Duration::from_secs(61));
    // Redis comes back without its last write
    let mut l = before;
    l.run = 1;
    core.hear(up(1), now);
    drive(&mut core, &mut l, 170_000, now);
    publish(&mut l, 1, 170_001);
    let mut two = hub.reader(&[topic()], Waker::noop(), |_| {
        Start::After(Id::new(100_001, 1))
    });
    core.hub_wants(now);
    drive(&mut core, &mut l, 170_003, now);
    open(&mut l, &hub, &mut two, 170_003);
    let mut seen = Seen(vec![]);
    let step = two.step(&mut seen);
    if let Step::Behind(q) = step {
        let page = read(&mut l, &hub, &q, 170_003);
        two.take_pages(&page);
        two.step(&mut seen);
    }
    let page = l.read(&[after(Id::ZERO)], 170_050);
    assert!(
        gaps(&page.pages[0].frames) > 0,
        "100010-1 is lost and nothing written"
    );
}

/// A page that was read of the next process before it was told of the last one's tail moved a cursor
/// past that tail. The gap that was written then was gone with FLUSHALL before the client came back.
#[test]
fn no_page_is_taken_of_a_log_that_was_not_told_of_the_one_before() {
    let now = Instant::now();
    let (mut l, hub, mut core, _one) = standing(now);
    let before = l.clone();
    hear(&mut core, publish(&mut l, 1, 100_010), now);
    let mut reads = SharedReads::default();
    let page = LogRead::Pages(0, vec![after(Id::new(100_001, 1))]);
    assert!(reads.join(page.clone(), ()));
    // Redis comes back without its last write, and somebody publishes there.
    core.hear(Live::Down, now);
    let mut l = before;
    l.run = 1;
    publish(&mut l, 1, 100_020);
    assert_eq!(reads.begin(&page, &hub, |()| true), Begun::Wait);
    core.hear(up(1), now);
    assert_eq!(reads.begin(&page, &hub, |()| true), Begun::Wait);
    core.hear(confirmed(&hub), now);
    drive(&mut core, &mut l, 100_030, now);
    assert_eq!(reads.begin(&page, &hub, |()| true), Begun::Ask);
    let mut reading = l.read(page.requests(), 100_040);
    let served = reads.finish(&page, &mut reading, &hub);
    assert_eq!(served, Finished::Done(vec![()]));
    let frames = &reading.pages[0].frames;
    assert!(gaps(frames) > 0, "100010-1 is lost and nothing written");
}

/// The same process has lost everything, and a stream is the first to read it: what it read is of
/// another log than its windows.
#[test]
fn no_page_is_taken_of_a_log_that_was_emptied_before_the_live_path_began_anew() {
    let now = Instant::now();
    let (_, hub, mut core, _one) = standing(now);
    let page = LogRead::Pages(0, vec![after(Id::new(100_001, 1))]);
    let mut reads = SharedReads::default();
    assert!(reads.join(page.clone(), ()));
    assert_eq!(reads.begin(&page, &hub, |()| true), Begun::Ask);
    // FLUSHALL
    let mut l = Ledger::new(retention(100), 100_500);
    publish(&mut l, 1, 100_501);
    let mut reading = l.read(page.requests(), 100_510);
    let known = hub.partition(0).last_known();
    let nothing = reads.finish(&page, &mut reading, &hub);
    assert_eq!(nothing, Finished::Again(vec![]));
    assert_eq!(hub.partition(0).last_known(), known);
    assert_eq!(reads.begin(&page, &hub, |()| true), Begun::Wait);
    core.beat(now);
    assert_eq!(drive(&mut core, &mut l, 100_520, now), 1, "it begins anew");
    reconnect(&hub, &mut core, &mut l, 100_530, now);
    assert_eq!(reads.begin(&page, &hub, |()| true), Begun::Ask);
    let mut reading = l.read(page.requests(), 100_540);
    let served = reads.finish(&page, &mut reading, &hub);
    assert_eq!(served, Finished::Done(vec![()]));
}

/// Each frame that went back began the connection anew, and took it away from the report that would have
/// ended it: while somebody published, streams stood still for as long as the replicas' reports lost the
/// race.
#[test]
fn frames_from_before_the_report_do_not_keep_it_from_being_made() {
    let now = Instant::now();
    let (mut l, hub, mut core, _one) = standing(now);
    hear(&mut core, publish(&mut l, 1, 155_000), now);
    drive(&mut core, &mut l, 155_001, now);
    // FLUSHALL, and the clock is put back
    let mut l = Ledger::new(retention(100), 150_000);
    hear(&mut core, publish(&mut l, 1, 150_001), now);
    assert_eq!(drive(&mut core, &mut l, 150_002, now), 1, "it begins anew");
    core.hear(Live::Down, now);
    core.hear(up(0), now);
    core.hear(confirmed(&hub), now);
    let Some(settle @ Ask::Settle { .. }) = core.next_ask() else {
        panic!("it reports first")
    };
    hear(&mut core, publish(&mut l, 3, 150_010), now);
    assert!(core.next_ask().is_none(), "the report has its connection");
    let Ask::Settle {
        connection,
        reports,
    } = settle
    else {
        unreachable!()
    };
    assert!(!reports.is_empty());
    for r in reports {
        hear(&mut core, l.report(r.followed, &r.topics, 150_020), now);
    }
    let id = l.tick(150_020);
    core.hear(Live::Tick(0, id), now);
    let told = vec![l.name()];
    // The log goes back once more before the answer: now it is another log that must be told.
    let mut l = Ledger::new(retention(100), 150_030);
    hear(&mut core, publish(&mut l, 1, 150_031), now);
    core.answer(Answer::Settled { connection, told }, now);
    assert_eq!(drive(&mut core, &mut l, 150_040, now), 1, "it begins anew");
    core.hear(Live::Down, now);
    core.hear(up(0), now);
    let Some(Ask::Settle { reports, .. }) = core.next_ask() else {
        panic!("it reports first")
    };
    assert!(!reports.is_empty(), "the second loss is not reported");
}

/// What was heard of a log that went back was reported on the next connection only; if that broke first,
/// nobody reported.
#[test]
fn a_report_that_did_not_arrive_is_made_on_the_next_connection() {
    let now = Instant::now();
    let (_, _, mut core, _one) = standing(now);
    for _ in 0..3 {
        core.hear(Live::Down, now);
        core.hear(up(1), now);
        let Some(Ask::Settle { reports, .. }) = core.next_ask() else {
            panic!("it settles first")
        };
        assert_eq!(reports.len(), 1);
    }
}

/// A replica without frames of its own went on following after FLUSHALL: it took the ids of the next log
/// for heard of the last one, and its report put the whole life of that log into a seam.
#[test]
fn a_tick_of_another_clock_is_not_taken_for_one_of_the_clock_that_is_followed() {
    let now = Instant::now();
    let (_, hub, mut core, _one) = standing(now);
    let heard = hub.partition(0).followed().heard;
    // FLUSHALL; others publish on topics that nobody reads here
    let mut l = Ledger::new(retention(100), 100_500);
    let tick = l.tick(100_600);
    core.hear(Live::Tick(0, tick), now);
    assert_eq!(hub.partition(0).followed().heard, heard);
    assert_eq!(drive(&mut core, &mut l, 100_600, now), 1, "it begins anew");
    publish(&mut l, 3, 100_700);
    reconnect(&hub, &mut core, &mut l, 100_800, now);
    let horizon = l.horizon(100_900);
    assert!(horizon.seams.is_empty(), "a seam where nothing was lost");
}

/// What a first visit asks for was found in this log, and it lay in a seam: it was left out without a
/// word.
#[test]
fn a_first_visit_is_shown_what_stands_in_a_seam() {
    let now = Instant::now();
    let mut l = Ledger::new(retention(100), 100_000);
    publish(&mut l, 3, 100_001);
    // A replica had heard ids of a log before this one, up to here.
    l.report(Id::new(100_001, 2), &[], 100_002);
    assert_eq!(l.horizon(100_003).seams.len(), 1);
    let (hub, _core, mut one) = first_visit(&mut l, &[topic()], 100, 100_003, now);
    let mut seen = Seen(vec![]);
    read_on(&mut one, &mut seen, &mut l, &hub, 100_006);
    one.step(&mut seen);
    assert_eq!(seen.0.len(), 3, "{:?}", seen.0);
}

/// A first visit found nothing, waited, and fell behind its window: what was trimmed then was forgiven as
/// if it had been gone when it came.
#[test]
fn a_first_visit_that_has_caught_up_is_told_what_it_misses() {
    let now = Instant::now();
    let mut l = Ledger::new(retention(6), 100_000);
    let (hub, mut core) = replica(4, up(0), now);
    let mut one = hub.reader(&[topic()], Waker::noop(), |_| {
        Start::History(Id::new(100_000, 0))
    });
    core.hub_wants(now);
    drive(&mut core, &mut l, 100_000, now);
    open(&mut l, &hub, &mut one, 100_000);
    assert_eq!(one.step(&mut Seen(vec![])), Step::Idle);
    for ms in 0..20 {
        hear(&mut core, publish(&mut l, 1, 100_010 + ms), now);
    }
    let mut seen = Seen(vec![]);
    read_on(&mut one, &mut seen, &mut l, &hub, 100_100);
    one.step(&mut seen);
    assert!(
        seen.0.iter().any(|s| s.starts_with("GAP")),
        "14 events were trimmed and nothing told"
    );
}

/// A log that went back under the same process, as by REPLICAOF, names an entry before the last one that
/// was heard.
#[test]
fn an_entry_that_follows_an_older_one_than_the_last_shows_that_the_log_has_gone_back() {
    let now = Instant::now();
    let (mut l, hub, mut core, mut one) = standing(now);
    let before = l.clone();
    hear(&mut core, publish(&mut l, 2, 100_010), now);
    assert_eq!(drive(&mut core, &mut l, 100_011, now), 0);
    let mut l = before;
    hear(&mut core, publish(&mut l, 1, 100_020), now);
    assert_eq!(drive(&mut core, &mut l, 100_021, now), 1, "it begins anew");
    reconnect(&hub, &mut core, &mut l, 100_030, now);
    let all = after(Id::ZERO);
    let page = l.read(&[all], 100_050);
    assert_eq!(gaps(&page.pages[0].frames), 1, "two events are lost");
    one.step(&mut Seen(vec![]));
}

/// The same while the live path was down. The page that repaired the topic was taken as it came: what was
/// lost was told to nobody.
#[test]
fn a_page_that_follows_an_older_entry_than_the_last_shows_that_the_log_has_gone_back() {
    let now = Instant::now();
    let (mut l, hub, mut core, mut one) = standing(now);
    let mut before = l.clone();
    hear(&mut core, publish(&mut l, 2, 100_010), now);
    assert_eq!(drive(&mut core, &mut l, 100_011, now), 0);
    core.hear(Live::Down, now);
    publish(&mut before, 1, 100_020);
    let mut l = before;
    core.hear(up(l.run), now);
    core.hear(confirmed(&hub), now);
    assert_eq!(drive(&mut core, &mut l, 100_030, now), 1, "it begins anew");
    assert!(hub.partition(0).settled().is_none(), "nobody reads it yet");
    reconnect(&hub, &mut core, &mut l, 100_040, now);
    assert_eq!(drive(&mut core, &mut l, 100_050, now), 0, "it was told");
    let page = l.read(&[after(Id::ZERO)], 100_060);
    assert_eq!(gaps(&page.pages[0].frames), 1, "two events are lost");
    one.step(&mut Seen(vec![]));
    assert!(hub.feed(&topic()).unwrap().wants().is_none());
}

/// A frame that waited while its topic was read, and that the page lacks although it reaches further, was
/// dropped without a word.
#[test]
fn what_waits_and_is_in_no_page_shows_that_the_log_has_gone_back() {
    let now = Instant::now();
    let (mut l, hub, mut core, _one) = standing(now);
    core.hear(Live::Down, now);
    core.hear(up(0), now);
    let before = l.clone();
    hear(&mut core, publish(&mut l, 1, 100_010), now);
    let mut l = before;
    publish(&mut l, 1, 100_020);
    core.hear(confirmed(&hub), now);
    assert_eq!(drive(&mut core, &mut l, 100_030, now), 1, "it begins anew");
    reconnect(&hub, &mut core, &mut l, 100_040, now);
    let page = l.read(&[after(Id::ZERO)], 100_060);
    assert_eq!(gaps(&page.pages[0].frames), 1, "one event is lost");
}

/// A topic was given up and read again; meanwhile the log went back under its process. The new feed knew
/// nothing of what the one before had heard.
#[test]
fn a_topic_that_is_read_again_shows_that_the_log_has_gone_back() {
    let now = Instant::now();
    let (mut l, hub, mut core, one) = standing(now);
    let before = l.clone();
    hear(&mut core, publish(&mut l, 1, 100_010), now);
    drop(one);
    core.beat(now);
    core.beat(now + Duration::from_secs(61));
    drive(&mut core, &mut l, 161_000, now);
    assert!(hub.feeds().is_empty());
    let mut l = before;
    publish(&mut l, 1, 170_000);
    let _two = hub.reader(&[topic()], Waker::noop(), |_| Start::Live);
    core.hub_wants(now);
    assert_eq!(drive(&mut core, &mut l, 170_010, now), 1, "it begins anew");
    reconnect(&hub, &mut core, &mut l, 170_020, now);
    let page = l.read(&[after(Id::ZERO)], 170_030);
    assert_eq!(gaps(&page.pages[0].frames), 1, "one event is lost");
}

/// One forged frame, or tick, with an id of the far future silenced its partition until the replica was
/// restarted: every id after it seemed to go back.
#[test]
fn an_id_of_the_far_future_is_not_believed() {
    let now = Instant::now();
    let (mut l, hub, mut core, mut one) = standing(now);
    let mut forged = publish(&mut l.clone(), 1, 100_010);
    let far = Id::new((1 << 53) - 1, 1);
    forged[0].1.id = far;
    let tick = tidegate::log::Tick { id: far, of: None };
    hear(&mut core, forged, now);
    core.hear(Live::Tick(0, tick), now);
    assert_eq!(drive(&mut core, &mut l, 100_020, now), 0);
    assert!(hub.partition(0).heard() < far);
    assert!(hub.feed(&topic()).unwrap().wants().is_none(), "it was read");
    hear(&mut core, publish(&mut l, 1, 100_030), now);
    assert_eq!(drive(&mut core, &mut l, 100_030, now), 0);
    let mut seen = Seen(vec![]);
    one.step(&mut seen);
    assert_eq!(seen.0, ["100030-1"]);
}

/// Redis' clock is put forward by a day: what is published then is read, and shown.
#[test]
fn a_clock_that_is_put_forward_is_believed_once_the_log_says_so() {
    let now = Instant::now();
    let (mut l, hub, mut core, mut one) = standing(now);
    let later = 100_010 + 86_400_000;
    hear(&mut core, publish(&mut l, 2, later), now);
    assert_eq!(drive(&mut core, &mut l, later, now), 0);
    hear(&mut core, publish(&mut l, 1, later + 1), now);
    assert_eq!(drive(&mut core, &mut l, later + 1, now), 0);
    let mut seen = Seen(vec![]);
    one.step(&mut seen);
    assert_eq!(seen.0.len(), 3, "{:?}", seen.0);
    assert!(hub.partition(0).heard() >= Id::new(later, 2));
}

/// FLUSHALL while the live path was down: only within one connection was a clock of another birth seen.
#[test]
fn a_log_that_was_emptied_while_the_path_was_down_is_told_what_was_heard() {
    let now = Instant::now();
    let (mut l, hub, mut core, _one) = standing(now);
    hear(&mut core, publish(&mut l, 1, 100_010), now);
    core.hear(Live::Down, now);
    let mut l = Ledger::new(retention(100), 100_500);
    core.hear(up(0), now);
    core.hear(confirmed(&hub), now);
    assert_eq!(drive(&mut core, &mut l, 100_600, now), 1, "it begins anew");
}

/// A page that was late was taken for one that reaches the window, although the window had moved on: all who
/// came found a hole there, and no gap.
#[test]
fn a_page_that_is_late_is_not_put_before_a_window_that_has_moved_on() {
    let now = Instant::now();
    let mut l = Ledger::new(retention(100), 100_000);
    publish(&mut l, 1, 100_001);
    let (hub, mut core) = replica(2, up(0), now);
    let _one = live(&hub, &mut core, &mut l, now);
    let early = Id::new(100_000, 0);
    let mut reading = l.read(&[after(early)], 100_004);
    hear(&mut core, publish(&mut l, 5, 100_010), now);
    let settled = hub.partition(0).settled().unwrap();
    assert_eq!(hub.learn(0, settled, &mut reading.horizon), Learned::Counts);
    hub.offer(&reading);
    let feed = hub.feed(&topic()).unwrap();
    assert!(!feed.covers(early), "three events are in neither");
    assert!(feed.covers(Id::new(100_010, 3)));
}

/// The flag of a topic that was not logged outlived the rule: its readers were told of no gap.
#[test]
fn a_logged_frame_shows_that_its_topic_is_logged_now() {
    let now = Instant::now();
    let unlogged = Retention {
        rules: vec![Rule {
            topics: Pattern::parse("a").unwrap(),
            bounds: None,
        }],
        ..retention(100)
    };
    let mut l = Ledger::new(unlogged, 100_000);
    let (hub, mut core) = replica(100, up(0), now);
    let _one = live(&hub, &mut core, &mut l, now);
    let feed = hub.feed(&topic()).unwrap();
    assert!(!feed.is_logged());
    l.configure(retention(100), 100_010);
    hear(&mut core, publish(&mut l, 1, 100_011), now);
    assert!(feed.is_logged());
}

/// The first event of each topic after FLUSHALL began the live path anew, long after the log was told: its
/// window still held an entry of the log before. Each time what was heard was reported, and every topic
/// was told a gap.
#[test]
fn a_log_that_was_told_is_not_told_again_for_each_of_its_topics() {
    let now = Instant::now();
    let (mut l, hub, mut core, _one) = standing(now);
    hear(&mut core, publish(&mut l, 1, 100_010), now);
    // FLUSHALL, which a tick shows; another topic is published to
    let mut l = Ledger::new(retention(100), 100_500);
    let tick = l.tick(100_600);
    core.hear(Live::Tick(0, tick), now);
    assert_eq!(drive(&mut core, &mut l, 100_600, now), 1, "it begins anew");
    reconnect(&hub, &mut core, &mut l, 100_700, now);
    hear(&mut core, publish(&mut l, 1, 100_800), now);
    assert_eq!(drive(&mut core, &mut l, 100_900, now), 0, "it was told");
}

/// A page was read before a deletion and came after it. Meanwhile nobody had read the topic, and its feed
/// was given up, and with it what was known of the deletion: the streams of the next feed were shown the page.
#[test]
fn a_page_from_before_a_deletion_is_not_shown_by_the_feed_that_comes_after_it() {
    let now = Instant::now();
    let (mut l, hub, mut core, one) = standing(now);
    let early = Start::After(Id::new(99_000, 0));
    let mut reading = l.read(&[after(Id::new(99_000, 0))], 100_004);
    let deletion = l.delete(&topic(), 100_010).unwrap();
    hear(&mut core, vec![(topic(), deletion)], now);
    drop(one);
    core.beat(now);
    core.beat(now + Duration::from_secs(61));
    drive(&mut core, &mut l, 170_000, now);
    let mut two = hub.reader(&[topic()], Waker::noop(), |_| early);
    core.hub_wants(now);
    drive(&mut core, &mut l, 170_001, now);
    open(&mut l, &hub, &mut two, 170_002);
    let settled = hub.partition(0).settled().unwrap();
    assert_eq!(hub.learn(0, settled, &mut reading.horizon), Learned::Counts);
    hub.offer(&reading);
    two.take_pages(&Arc::new(reading));
    let mut seen = Seen(vec![]);
    assert!(matches!(two.step(&mut seen), Step::Behind(_)));
    assert!(seen.0.is_empty(), "shown: {:?}", seen.0);
}

/// A log that went back wrote down what it had lost, and then went back itself, to before that entry. The
/// replica that had heard it reported only the topic's last entry.
#[test]
fn a_loss_is_written_down_again_by_a_log_that_has_lost_the_entry_about_it() {
    let now = Instant::now();
    let (mut l, hub, mut core, _one) = standing(now);
    let before = l.clone();
    hear(&mut core, publish(&mut l, 1, 100_010), now);
    // Redis comes back without its last write. Another replica has it leap over what is lost.
    l = before;
    l.run = 1;
    l.report(Id::new(100_010, 1), &[], 100_020);
    publish(&mut l, 1, 200_000);
    let before = l.clone();
    reconnect(&hub, &mut core, &mut l, 200_010, now);
    // And once more: without the gap entry.
    l = before;
    l.run = 2;
    publish(&mut l, 1, 400_000);
    reconnect(&hub, &mut core, &mut l, 400_010, now);
    let page = l.read(&[after(Id::ZERO)], 500_000).pages.remove(0);
    let tells_of = |frame: &tidegate::sse::Frame| {
        matches!(frame.mark, Mark::Gap { from, lost }
            if from < Id::new(100_010, 1) && Id::new(100_010, 1) <= lost)
    };
    assert!(
        page.frames.iter().any(tells_of),
        "100010-1 is told by nobody"
    );
}

/// An id that was heard while the log was seen to be another one stood above all that came next, and was in
/// no report: the path was begun anew without end, and new streams began in the future.
#[test]
fn what_is_heard_of_a_log_that_was_told_nothing_is_forgotten_with_it() {
    let now = Instant::now();
    let (mut l, hub, mut core, _one) = standing(now);
    hear(&mut core, publish(&mut l, 1, 100_010), now);
    // FLUSHALL with a clock that is far ahead, which a tick shows
    let mut ahead = Ledger::new(retention(100), 9_000_000);
    core.hear(Live::Tick(0, ahead.tick(9_000_000)), now);
    assert_eq!(
        drive_doubted(&mut core, &mut ahead, 9_000_000, now),
        1,
        "it begins anew"
    );
    // And once more, with the right clock, before anything was reported
    let mut l = Ledger::new(retention(100), 100_500);
    reconnect(&hub, &mut core, &mut l, 100_600, now);
    for at in [100_700, 100_800, 100_900] {
        hear(&mut core, publish(&mut l, 1, at), now);
        assert_eq!(drive(&mut core, &mut l, at, now), 0, "it was told");
    }
    assert!(hub.partition(0).heard() < Id::new(200_000, 0));
}

/// A page that was read to repair a topic, and came after a deletion that was heard meanwhile, brought the
/// deleted events into the window.
#[test]
fn a_repair_that_was_read_before_a_deletion_is_read_again() {
    let now = Instant::now();
    let (mut l, hub, mut core, mut one) = standing(now);
    core.hear(Live::Down, now);
    let lost_sight_of = publish(&mut l, 3, 100_010);
    core.hear(up(0), now);
    core.hear(confirmed(&hub), now);
    let mut reads = Vec::new();
    let mut seen = Seen(vec![]);
    let mut deletion = None;
    while let Some(ask) = core.next_ask() {
        match ask {
            Ask::Settle { connection, .. } => core.answer(
                Answer::Settled {
                    connection,
                    told: Vec::new(),
                },
                now,
            ),
            Ask::Read {
                connection,
                feeds,
                requests,
                ..
            } => {
                let mut reading = l.read(&requests, 100_020);
                // One page has room for two of the three.
                let page = reading.pages.first_mut().unwrap();
                if page.frames.len() == 3 {
                    page.frames.truncate(2);
                    page.cut_at = page.frames.last().map(|frame| frame.id);
                }
                if deletion.is_none() {
                    let frame = l.delete(&topic(), 100_030).unwrap();
                    deletion = Some(frame.id);
                    hear(&mut core, vec![(topic(), frame)], now);
                }
                reads.push(reading.horizon.last);
                let reading = Ok(reading);
                core.answer(
                    Answer::Read {
                        connection,
                        feeds,
                        reading,
                    },
                    now,
                );
                one.step(&mut seen);
            }
            _ => {}
        }
    }
    if let Step::Behind(q) = one.step(&mut seen) {
        let page = read(&mut l, &hub, &q, 100_040);
        one.take_pages(&page);
        one.step(&mut seen);
    }
    let deletion = deletion.unwrap();
    assert!(
        reads.last() >= Some(&deletion) && reads.len() > 1,
        "it was read again: {reads:?}"
    );
    for (_, frame) in lost_sight_of {
        assert!(
            !seen.0.contains(&frame.id.to_string()),
            "shown: {:?}",
            seen.0
        );
    }
}

/// A topic was given up and is wanted again. While the new subscription is under way, a frame of the one
/// before comes, and cannot be read. The topic is not read for it: what is published before the
/// subscription begins would be in neither.
#[test]
fn a_frame_of_the_subscription_before_does_not_have_an_opening_topic_read() {
    let now = Instant::now();
    let (_l, hub, mut core, reader) = standing(now);
    drop(reader);
    // Once to see that nobody reads it, once to give it up.
    let _none = hub.sweep(now, Duration::ZERO);
    assert!(hub.feed(&topic()).is_none(), "given up");
    let _reader = hub.reader(&[topic()], Waker::noop(), |_| Start::Live);
    core.hub_wants(now);
    core.hear(Live::Unreadable(topic()), now);
    let mut asked_to_hear = false;
    while let Some(ask) = core.next_ask() {
        assert!(!matches!(ask, Ask::Read { .. }), "{ask:?}");
        asked_to_hear |= matches!(ask, Ask::Interest(_));
    }
    assert!(asked_to_hear);
}

/// Its client comes back with that cursor, and nothing before it needs to be read.
#[test]
fn the_cursor_of_a_quiet_stream_goes_along_with_the_clock() {
    let now = Instant::now();
    let (mut l, hub, mut core, mut one) = standing(now);
    one.step(&mut Seen(vec![]));
    one.refresh(&mut Seen(vec![]));
    assert!(!one.refresh(&mut Seen(vec![])), "it is where the clock is");
    core.hear(Live::Tick(0, l.tick(160_000)), now);
    assert!(one.refresh(&mut Seen(vec![])));
    assert_eq!(one.cursor(), Some(Cursor::One(hub.partition(0).heard())));
}
