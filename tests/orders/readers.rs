//! What a reader shows and what it asks for, step by step.

use super::*;
use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Context;
use tidegate::hub::reader::{Lag, PAGE_EVENTS};
use tidegate::log::Held;

/// Where each thing that was shown stands, whether it is a gap, and whether its place may be written as the cursor.
struct Places(Vec<(Id, bool, bool)>);
impl Sink for Places {
    fn show(&mut self, shown: Shown<'_>, _: &Cursor) -> Flow {
        let is_gap = matches!(shown, Shown::Gap { .. });
        self.0.push((shown.id(), is_gap, shown.is_anchored()));
        Flow::More
    }
}

/// A reader of one topic, of which four events were published and the first two are trimmed. It came with the
/// first event as its cursor, and has its page.
fn trimmed(now: Instant) -> (Vec<Id>, Reader) {
    let mut l = Ledger::new(retention(2), 100_000);
    let frames = publish(&mut l, 4, 100_001);
    let ids: Vec<Id> = frames.iter().map(|(_, frame)| frame.id).collect();
    let (hub, mut core) = replica(1, up(0), now);
    let start = |_| Start::After(ids[0]);
    let mut reader = hub.reader(&[topic()], Waker::noop(), start);
    core.hub_wants(now);
    drive(&mut core, &mut l, 100_002, now);
    open(&mut l, &hub, &mut reader, 100_003);
    read_on(&mut reader, &mut Seen(vec![]), &mut l, &hub, 100_004);
    (ids, reader)
}

/// Who loses the connection right after it is not told of it again.
#[test]
fn a_gap_in_its_place_carries_the_cursor_as_an_event_does() {
    let (ids, mut reader) = trimmed(Instant::now());
    let mut seen = Places(vec![]);
    assert_eq!(reader.step(&mut seen), Step::Idle, "all in one step");
    let expected = [
        (ids[1], true, true),
        (ids[2], false, true),
        (ids[3], false, true),
    ];
    assert_eq!(seen.0, expected);
}

#[test]
fn nothing_is_shown_to_a_sink_that_was_filled_by_a_gap() {
    let (_, mut reader) = trimmed(Instant::now());
    let mut seen = Narrow(vec![], 1);
    for shown in 1..=3 {
        assert_eq!(reader.step(&mut seen), Step::Full);
        assert_eq!(seen.0.len(), shown);
    }
    assert_eq!(reader.step(&mut seen), Step::Idle);
    assert_eq!(seen.0.len(), 3);
}

/// Two topics that stand in the log, and are behind their windows.
fn behind(now: Instant) -> (Ledger, Arc<Hub>, Reader) {
    let mut l = Ledger::new(retention(100), 100_000);
    for at in 1..=4 {
        publish_to(&mut l, "a", 1, 100_000 + at);
        publish_to(&mut l, "b", 1, 100_000 + at);
    }
    let (hub, mut core) = replica(1, up(0), now);
    let start = |_| Start::After(Id::new(100_000, 9));
    let topics = [named("a"), named("b")];
    let mut reader = hub.reader(&topics, Waker::noop(), start);
    core.hub_wants(now);
    drive(&mut core, &mut l, 100_005, now);
    open(&mut l, &hub, &mut reader, 100_006);
    (l, hub, reader)
}

/// One that holds pages is not kept waiting for memory that only it can give back.
#[test]
fn who_holds_a_page_of_one_topic_asks_for_the_rest_of_the_others() {
    let (mut l, hub, mut reader) = behind(Instant::now());
    let mut seen = Seen(vec![]);
    let Step::Behind(LogRead::Pages(0, both)) = reader.step(&mut seen) else {
        panic!("it holds nothing yet")
    };
    assert_eq!(both.len(), 2);
    let first = LogRead::Pages(0, vec![both[0].clone()]);
    let page = read(&mut l, &hub, &first, 100_007);
    reader.take_pages(&page);
    let step = reader.step(&mut seen);
    let rest = LogRead::Rest(0, vec![both[1].clone()]);
    assert_eq!(step, Step::Behind(rest.clone()));
    assert!(seen.0.is_empty(), "the other may have come before");
    let page = read(&mut l, &hub, &rest, 100_008);
    reader.take_pages(&page);
    assert_eq!(reader.step(&mut seen), Step::Idle);
    assert_eq!(seen.0.len(), 8);
    assert!(seen.0.is_sorted(), "{:?}", seen.0);
}

#[test]
fn the_more_topics_a_stream_has_the_smaller_is_the_page_of_each() {
    let now = Instant::now();
    let table = [
        (1, PAGE_EVENTS),
        (2, PAGE_EVENTS),
        (3, 170),
        (4, PAGE_EVENTS / 2),
        (128, 4),
        (300, 4),
    ];
    for (many, limit) in table {
        let mut l = Ledger::new(retention(100), 100_000);
        publish(&mut l, 1, 100_500);
        let (hub, mut core) = replica(1, up(0), now);
        let names = (0..many).map(|number| named(&format!("t{number}")));
        let topics: Vec<Topic> = names.collect();
        let start = |_| Start::After(Id::new(100_400, 0));
        let mut reader = hub.reader(&topics, Waker::noop(), start);
        core.hub_wants(now);
        drive(&mut core, &mut l, 100_501, now);
        open(&mut l, &hub, &mut reader, 100_502);
        let Step::Behind(read) = reader.step(&mut Seen(vec![])) else {
            panic!("the log begins before the windows")
        };
        let limits = read.requests().iter().map(|request| request.limit);
        assert_eq!(limits.collect::<Vec<_>>(), vec![limit; many]);
    }
}

#[test]
fn a_reader_has_reached_what_it_has_shown() {
    let now = Instant::now();
    let (mut l, hub, mut core, mut reader) = standing(now);
    reader.step(&mut Seen(vec![]));
    let before = reader.head().unwrap();
    hear(&mut core, publish(&mut l, 1, 100_010), now);
    let head = reader.head().unwrap();
    assert!(reader.has_reached(&before) && !reader.has_reached(&head));
    reader.step(&mut Seen(vec![]));
    assert!(reader.has_reached(&before) && reader.has_reached(&head));
    assert_eq!(hub.partition(0).heard(), head.oldest().unwrap());
}

#[test]
fn events_of_several_topics_come_in_one_order_and_each_carries_the_cursor() {
    let (mut l, hub, mut reader) = behind(Instant::now());
    read_on(&mut reader, &mut Seen(vec![]), &mut l, &hub, 100_007);
    let mut seen = Places(vec![]);
    assert_eq!(reader.step(&mut seen), Step::Idle);
    assert_eq!(seen.0.len(), 8);
    assert!(seen.0.is_sorted());
    let is_anchored_event = |place: &(Id, bool, bool)| !place.1 && place.2;
    assert!(seen.0.iter().all(is_anchored_event), "{:?}", seen.0);
}

/// Who loses the connection between the two comes back before both.
#[test]
fn of_two_gaps_that_end_at_one_id_the_last_carries_the_cursor() {
    let now = Instant::now();
    let mut l = Ledger::new(retention(100), 1000);
    publish(&mut l, 4, 1001);
    // Another process, without the tail.
    l.run = 1;
    let (hub, mut core) = replica(100, up(1), now);
    drive(&mut core, &mut l, 1100, now);
    let after_the_leap = publish(&mut l, 1, 1200)[0].1.id;
    let topics = [named("a"), named("b")];
    let in_the_seam = |_| Start::After(Id::new(1001, 6));
    let mut reader = hub.reader(&topics, Waker::noop(), in_the_seam);
    core.hub_wants(now);
    drive(&mut core, &mut l, 1203, now);
    open(&mut l, &hub, &mut reader, 1203);
    let mut seen = Places(vec![]);
    while let Step::Behind(asked) = reader.step(&mut seen) {
        let page = read(&mut l, &hub, &asked, 1204);
        reader.take_pages(&page);
    }
    let end = seen.0[0].0;
    let expected = [
        (end, true, false),
        (end, true, true),
        (after_the_leap, false, true),
    ];
    assert_eq!(seen.0, expected);
}

/// An end may have expired here unheard: nobody is turned away for what the log has forgotten.
#[test]
fn who_comes_after_the_end_asks_the_log_about_it_and_who_comes_before_does_not() {
    let now = Instant::now();
    let mut l = Ledger::new(retention(100), 100_000);
    let topics = [named("a"), named("b")];
    let end = |topic: &Topic| Publication {
        topic: topic.clone(),
        event_type: EventType::default(),
        data: "x".into(),
        end: true,
        idempotency_key: None,
    };
    let (ids, _) = l.publish(&topics.each_ref().map(end), 100_001).unwrap();
    let last = ids[1].unwrap();
    for (since, is_after) in [(Id::new(100_000, 9), false), (last, true)] {
        let (hub, mut core) = replica(100, up(0), now);
        let mut reader = hub.reader(&topics, Waker::noop(), |_| Start::After(since));
        core.hub_wants(now);
        drive(&mut core, &mut l, 100_002, now);
        let step = reader.open(&mut vec![]);
        let asks = matches!(step, OpenStep::Read(LogRead::State(0, _)));
        assert_eq!(asks, is_after, "{step:?}");
        open(&mut l, &hub, &mut reader, 100_003);
        assert_eq!(reader.has_ended(), is_after);
        let mut seen = Seen(vec![]);
        let mut step = reader.step(&mut seen);
        if let Step::Behind(asked) = &step {
            let page = read(&mut l, &hub, asked, 100_004);
            reader.take_pages(&page);
            step = reader.step(&mut seen);
        }
        assert_eq!(step, Step::Ended);
        assert_eq!(seen.0.len(), if is_after { 0 } else { 2 });
        assert!(reader.has_ended());
    }
}

/// Above what is known here the clock decides; at it nothing has to be asked, and nothing is missing.
#[test]
fn who_comes_with_the_newest_id_begins_there_and_who_comes_with_a_newer_one_asks_the_clock() {
    let now = Instant::now();
    let (mut l, hub, mut core, _one) = standing(now);
    hear(&mut core, publish(&mut l, 1, 100_010), now);
    let newest = hub.partition(0).last_known();
    assert!(hub.partition(0).horizon().unwrap().last < newest, "heard");
    let newer = Id::new(newest.ms, newest.seq + 1);
    for start in [Start::After, Start::History] {
        let mut reader = hub.reader(&[topic()], Waker::noop(), |_| start(newest));
        let mut told = vec![];
        assert_eq!(reader.open(&mut told), OpenStep::Open);
        assert!(told.is_empty() && reader.oldest() == Some(newest));
        assert_eq!(reader.step(&mut Seen(vec![])), Step::Idle);
        let mut ahead = hub.reader(&[topic()], Waker::noop(), |_| start(newer));
        let step = ahead.open(&mut told);
        assert_eq!(step, OpenStep::Read(LogRead::Clock(0)));
    }
}

/// A stream of the number of streams alone.
#[test]
fn a_reader_of_no_topic_has_no_cursor_and_does_not_end() {
    for partitions in [1, 2] {
        let bounds = WindowBounds {
            events_max: 1,
            bytes_max: 1,
        };
        let hub = Hub::new(partitions, bounds);
        let mut reader = hub.reader(&[], Waker::noop(), |_| Start::Live);
        assert_eq!(reader.open(&mut vec![]), OpenStep::Open);
        assert_eq!((reader.cursor(), reader.head()), (None, None));
        assert_eq!(reader.step(&mut Seen(vec![])), Step::Idle);
        assert!(!reader.has_ended());
    }
}

/// It has no place yet: everything would seem to lie before it.
#[test]
fn a_reader_that_has_not_begun_shows_nothing_and_lacks_nothing() {
    let now = Instant::now();
    let (mut l, hub, mut core, _one) = standing(now);
    hear(&mut core, publish(&mut l, 1, 100_010), now);
    let mut reader = hub.reader(&[topic()], Waker::noop(), |_| Start::Live);
    let mut seen = Seen(vec![]);
    assert_eq!(reader.step(&mut seen), Step::Opening);
    assert_eq!(reader.lag(), Lag::default());
    assert!(!reader.refresh(&mut seen) && !reader.has_ended());
    assert_eq!(reader.oldest(), Some(Id::ZERO));
    open(&mut l, &hub, &mut reader, 100_011);
    assert_eq!(reader.step(&mut seen), Step::Idle);
    assert!(seen.0.is_empty());
}

/// Whether the follower is woken now; the notice is taken.
fn is_wanted(hub: &Hub) -> bool {
    let mut looks = Context::from_waker(Waker::noop());
    pin!(hub.wanted()).poll(&mut looks).is_ready()
}

/// Else it would wait for the next silence.
#[test]
fn who_is_held_asks_for_the_clock_and_who_has_nothing_to_show_does_not() {
    let now = Instant::now();
    let mut l = Ledger::new(retention(100), 100_000);
    publish(&mut l, 1, 100_001);
    let (hub, mut core) = replica(100, up(0), now);
    let topics = [named("a"), named("b")];
    let mut reader = hub.reader(&topics, Waker::noop(), |_| Start::Live);
    core.hub_wants(now);
    drive(&mut core, &mut l, 100_002, now);
    open(&mut l, &hub, &mut reader, 100_003);
    assert!(is_wanted(&hub), "topics that are new");
    let mut seen = Seen(vec![]);
    assert_eq!(reader.step(&mut seen), Step::Idle);
    assert!(!hub.partition(0).is_waited_for() && !is_wanted(&hub));
    core.hear(Live::Unreadable(named("b")), now);
    hear(&mut core, publish(&mut l, 1, 100_010), now);
    assert_eq!(reader.step(&mut seen), Step::Held);
    assert!(hub.partition(0).is_waited_for() && is_wanted(&hub));
    core.hub_wants(now);
    drive(&mut core, &mut l, 100_011, now);
    assert!(!hub.partition(0).is_waited_for());
    assert_eq!(reader.step(&mut seen), Step::Idle);
    assert_eq!(seen.0.len(), 1);
    assert!(!hub.partition(0).is_waited_for() && !is_wanted(&hub));
}

/// Bytes by which a page has grown.
#[derive(Debug)]
struct Account(Arc<AtomicUsize>);
impl Held for Account {
    fn grow(&self, bytes: usize) {
        self.0.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// Makes something of seven bytes of each frame.
#[derive(Default)]
struct Growing(usize);
impl Sink for Growing {
    fn show(&mut self, _: Shown<'_>, _: &Cursor) -> Flow {
        self.0 += 7;
        Flow::More
    }
    fn take_grown(&mut self) -> usize {
        std::mem::take(&mut self.0)
    }
}

/// Pages in memory are bounded, with all that is made of them.
#[test]
fn what_is_made_of_a_page_is_counted_with_it() {
    let (mut l, hub, mut reader) = behind(Instant::now());
    let mut seen = Growing::default();
    let Step::Behind(asked) = reader.step(&mut seen) else {
        panic!("it is not behind")
    };
    let account = Arc::new(AtomicUsize::new(0));
    let mut reading = l.read(asked.requests(), 100_007);
    let generation = hub.partition(0).settled().unwrap();
    hub.learn(0, generation, &mut reading.horizon);
    reading.held = Some(Box::new(Account(account.clone())));
    reader.take_pages(&Arc::new(reading));
    assert_eq!(reader.step(&mut seen), Step::Idle);
    assert_eq!(account.load(Ordering::Relaxed), 8 * 7);
}
