//! Events below where streams stand: found late, given out once more by a log that went back, or missing still
//! when a stream ends. And what a topic's end, and the word that a stream is live, are worth meanwhile.

use super::records::{is_written_down, lost_its_tail};
use super::streams::{at, stream, stream_beside, text};
use super::*;
use tidegate::stream::out::Out;
use tidegate::stream::request::{Begin, StreamRequest};
use tidegate::stream::turn::{Ending, Turn};

/// Whether a stream was shown an event, or told a gap that begins below it.
fn told(seen: &[String], id: Id) -> bool {
    seen.iter().any(|s| {
        *s == id.to_string()
            || s.starts_with("GAP") && {
                let from = s.split("Id { ms: ").nth(1).unwrap();
                let (ms, rest) = from.split_once(',').unwrap();
                let seq = rest.trim_start_matches(" seq: ").split(' ').next().unwrap();
                Id::new(ms.parse().unwrap(), seq.parse().unwrap()) < id
            }
    })
}

fn event(topic: &str, end: bool) -> Publication {
    Publication {
        topic: named(topic),
        event_type: EventType::default(),
        data: "x".into(),
        end,
        idempotency_key: None,
    }
}

/// Redis dies and loses the last event of a job; the job's publisher ends the topic before a replica has reported.
#[test]
fn a_topic_that_has_ended_stays_so_when_a_loss_is_written_down() {
    let now = Instant::now();
    let (mut l, hub, mut core, mut one) = standing(now);
    let before = l.clone();
    let lost = publish(&mut l, 1, 100_010);
    let lost_id = lost[0].1.id;
    hear(&mut core, lost, now);
    assert_eq!(
        shown_by(&mut one, &mut l, &hub, 100_011, 100, false),
        [lost_id.to_string()]
    );
    core.hear(Live::Down, now);
    l = before;
    l.run = 1;
    let end = l.publish(&[event("a", true)], 100_100).unwrap().0[0].unwrap();
    assert!(l.topic(&topic(), 100_101).unwrap().ended);
    core.hear(up(1), now);
    core.hear(confirmed(&hub), now);
    drive(&mut core, &mut l, 100_200, now);
    let mut seen = Seen(vec![]);
    let mut step = one.step(&mut seen);
    for _ in 0..3 {
        if let Step::Behind(q) = &step {
            let page = read(&mut l, &hub, q, 100_300);
            one.take_pages(&page);
            step = one.step(&mut seen);
        }
    }
    assert!(seen.0.contains(&end.to_string()), "{seen:?}", seen = seen.0);
    let ended = l.topic(&topic(), 100_301).unwrap().ended;
    let again = l.publish(&[event("a", false)], 100_400).is_ok();
    assert!(
        ended && !again && step == Step::Ended,
        "ended: {ended}; takes an event: {again}; its stream: {step:?}; shown: {:?}",
        seen.0
    );
}

#[test]
fn a_stream_that_is_cut_for_being_held_is_told_of_the_hole_that_it_has_passed() {
    let now = Instant::now();
    let mut l = Ledger::new(retention(100), 100_000);
    let (hub, mut core) = replica(100, up(0), now);
    let (other, mut other_core) = replica(100, up(0), now);
    drive(&mut core, &mut l, 100_001, now);
    drive(&mut other_core, &mut l, 100_001, now);
    let topics = vec![named("a"), named("b")];
    let request = StreamRequest {
        topics: topics.clone(),
        ..StreamRequest::default()
    };
    let mut one = stream(&hub, &mut core, &mut l, request, now);
    let _there = stream(
        &other,
        &mut other_core,
        &mut l,
        StreamRequest {
            topics: topics.clone(),
            ..StreamRequest::default()
        },
        now,
    );
    // The first of b vanishes on its way to this replica; a goes past it.
    let b1 = publish_to(&mut l, "b", 1, 100_100);
    let b1_id = b1[0].1.id;
    hear(&mut other_core, b1, now);
    let a1 = publish_to(&mut l, "a", 1, 100_200);
    let a1_id = a1[0].1.id;
    hear(&mut other_core, a1.clone(), now);
    hear(&mut core, a1, now);
    let mut out = Out::default();
    assert!(matches!(one.turn(at(now, 1), &mut out), Turn::Wait(_)));
    let shown = text(&mut out);
    assert!(shown.contains(&format!("id: {a1_id}")), "{shown}");
    // The second of b shows the hole. The log does not answer.
    let b2 = publish_to(&mut l, "b", 1, 100_300);
    hear(&mut other_core, b2.clone(), now);
    hear(&mut core, b2, now);
    let a2 = publish_to(&mut l, "a", 1, 100_400);
    hear(&mut other_core, a2.clone(), now);
    hear(&mut core, a2, now);
    assert!(core.next_ask().is_some(), "it asks, and nobody answers");
    let mut ending = None;
    for second in 2..60 {
        if let Turn::Over(over) = one.turn(at(now, second), &mut out) {
            ending = Some(over);
            break;
        }
    }
    assert!(matches!(ending, Some(Ending::Cut(_))), "{ending:?}");
    let last = text(&mut out);
    // It comes back to the other replica, which lacks nothing.
    let start = |_| Start::After(a1_id);
    let mut again = other.reader(&topics, Waker::noop(), start);
    open(&mut l, &other, &mut again, 101_000);
    let seen = shown_by(&mut again, &mut l, &other, 101_001, 100, false);
    assert!(
        last.contains("tidegate.gap") || told(&seen, b1_id),
        "{b1_id} of b: said before the cut: {last:?}; afterwards: {seen:?}"
    );
}

#[test]
fn live_is_said_only_when_all_up_to_the_head_was_shown() {
    let now = Instant::now();
    let mut l = Ledger::new(retention(100), 100_000);
    let (hub, mut core) = replica(100, up(0), now);
    drive(&mut core, &mut l, 100_001, now);
    let topics = vec![named("a"), named("b")];
    let request = StreamRequest {
        topics: topics.clone(),
        ..StreamRequest::default()
    };
    let _there = stream(&hub, &mut core, &mut l, request, now);
    let cursor = Cursor::One(hub.partition(0).heard());
    // One of b that is there and cannot be read; then the clock.
    let b1 = publish_to(&mut l, "b", 1, 100_100)[0].1.id;
    core.hear(Live::Unreadable(named("b")), now);
    core.hear(Live::Tick(0, l.tick(100_200)), now);
    // Somebody comes back before the log has answered.
    let request = StreamRequest {
        topics: topics.clone(),
        begin: Begin::After(cursor),
        ..StreamRequest::default()
    };
    let mut one = stream_beside(&hub, &mut l, request, now, 100_201);
    let mut out = Out::default();
    one.turn(at(now, 1), &mut out);
    let first = text(&mut out);
    drive(&mut core, &mut l, 100_300, now);
    one.turn(at(now, 2), &mut out);
    let second = text(&mut out);
    let live_at = first.find("tidegate.live");
    assert!(
        live_at.is_none()
            || first.find(&format!("id: {b1}")) < live_at && first.contains(&format!("id: {b1}")),
        "live is told, and {b1} comes after it:\n{first}\n--- then:\n{second}"
    );
}

/// The same of one topic: opened between a reconnect and the read of its topic.
#[test]
fn live_is_said_only_when_the_topic_was_read() {
    let now = Instant::now();
    let mut l = Ledger::new(retention(100), 100_000);
    let (hub, mut core) = replica(100, up(0), now);
    drive(&mut core, &mut l, 100_001, now);
    let request = StreamRequest {
        topics: vec![topic()],
        ..StreamRequest::default()
    };
    let _there = stream(&hub, &mut core, &mut l, request, now);
    let cursor = Cursor::One(hub.partition(0).heard());
    core.hear(Live::Down, now);
    let missed = publish(&mut l, 3, 100_100);
    core.hear(up(0), now);
    core.hear(confirmed(&hub), now);
    // Settled, and the topic not read yet.
    while let Some(ask) = core.next_ask() {
        if matches!(ask, Ask::Read { .. }) {
            break;
        }
        carry_out(&mut core, ask, &mut l, 100_150, now);
    }
    let request = StreamRequest {
        topics: vec![topic()],
        begin: Begin::After(cursor),
        ..StreamRequest::default()
    };
    let mut one = stream_beside(&hub, &mut l, request, now, 100_201);
    let mut out = Out::default();
    one.turn(at(now, 1), &mut out);
    let first = text(&mut out);
    assert!(
        !first.contains("tidegate.live") || first.contains(&format!("id: {}", missed[2].1.id)),
        "live, though three events from before it came are not shown:\n{first}"
    );
}

/// As `a_loss_below_what_was_published_since_is_written_down`, told in two parts: by two replicas, or by one that
/// knows more than 256 topics.
#[test]
fn a_loss_is_written_down_although_another_part_of_the_report_came_first() {
    let (mut l, followed, lost) = lost_its_tail();
    let mut told = l.report(followed, &[(named("b"), Id::new(100_001, 1))], 100_600);
    told.extend(l.report(followed, &[(named("a"), lost)], 100_600));
    assert!(
        is_written_down(&told, lost),
        "{lost} of a is told by nobody: {told:?}"
    );
}

#[test]
fn an_event_below_what_was_read_is_told_to_streams_that_stand_above_it() {
    let now = Instant::now();
    let (mut l, hub, mut core, mut one) = standing(now);
    let before = l.clone();
    // Nobody reads that here: the clock is read, and not heard.
    publish_to(&mut l, "other", 1, 100_900);
    core.hear(Live::Unreadable(topic()), now);
    drive(&mut core, &mut l, 100_901, now);
    assert!(one.refresh(&mut Seen(vec![])), "it stands there");
    let stands = one.oldest().unwrap();
    l = before;
    let below = publish(&mut l, 1, 100_500);
    let id = below[0].1.id;
    assert!(hub.partition(0).heard() < id && id < stands);
    hear(&mut core, below, now);
    let mut resets = drive(&mut core, &mut l, 100_501, now);
    hear(&mut core, publish(&mut l, 1, 101_500), now);
    resets += drive(&mut core, &mut l, 101_501, now);
    if resets > 0 {
        reconnect(&hub, &mut core, &mut l, 101_600, now);
    }
    let seen = shown_by(&mut one, &mut l, &hub, 101_700, 100, false);
    assert!(told(&seen, id), "{id}: resets {resets}, {seen:?}");
}

/// The path is down while the log goes back under its process, with its clock behind; the event is heard first
/// thing on the next connection.
#[test]
fn an_event_below_what_was_heard_is_told_although_the_topic_was_broken() {
    let now = Instant::now();
    let (mut l, hub, mut core, mut one) = standing(now);
    let before = l.clone();
    core.hear(Live::Tick(0, l.tick(100_900)), now);
    assert!(one.refresh(&mut Seen(vec![])), "it stands there");
    core.hear(Live::Down, now);
    l = before;
    core.hear(up(0), now);
    core.hear(confirmed(&hub), now);
    let below = publish(&mut l, 1, 100_500);
    let id = below[0].1.id;
    hear(&mut core, below, now);
    assert_eq!(drive(&mut core, &mut l, 100_501, now), 1, "it begins anew");
    reconnect(&hub, &mut core, &mut l, 100_600, now);
    let mut seen = shown_by(&mut one, &mut l, &hub, 100_700, 100, false);
    hear(&mut core, publish(&mut l, 1, 102_000), now);
    drive(&mut core, &mut l, 102_001, now);
    seen.extend(shown_by(&mut one, &mut l, &hub, 102_002, 100, false));
    assert!(told(&seen, id), "{id} is told by nobody: {seen:?}");
}

/// The connection stands; another topic shows it first.
#[test]
fn an_event_below_what_was_heard_is_told_although_another_topic_showed_that_first() {
    let now = Instant::now();
    let mut l = Ledger::new(retention(100), 100_000);
    publish(&mut l, 1, 100_001);
    let (hub, mut core) = replica(100, up(0), now);
    let mut one = hub.reader(&[named("a"), named("b")], Waker::noop(), |_| Start::Live);
    core.hub_wants(now);
    drive(&mut core, &mut l, 100_002, now);
    open(&mut l, &hub, &mut one, 100_003);
    let before = l.clone();
    core.hear(Live::Tick(0, l.tick(100_900)), now);
    assert!(one.refresh(&mut Seen(vec![])), "it stands there");
    l = before;
    hear(&mut core, publish_to(&mut l, "a", 1, 100_500), now);
    let below = publish_to(&mut l, "b", 1, 100_600);
    let id = below[0].1.id;
    hear(&mut core, below, now);
    assert_eq!(drive(&mut core, &mut l, 100_601, now), 1, "it begins anew");
    core.hear(Live::Down, now);
    core.hear(up(0), now);
    core.hear(all_confirmed(&hub), now);
    drive(&mut core, &mut l, 100_700, now);
    let mut seen = shown_by(&mut one, &mut l, &hub, 100_701, 100, false);
    hear(&mut core, publish_to(&mut l, "b", 1, 102_000), now);
    drive(&mut core, &mut l, 102_001, now);
    seen.extend(shown_by(&mut one, &mut l, &hub, 102_002, 100, false));
    let of_b: Vec<String> = seen
        .iter()
        .filter(|s| !s.starts_with("GAP a"))
        .cloned()
        .collect();
    assert!(told(&of_b, id), "{id} of b is told by nobody: {seen:?}");
}

#[test]
fn an_event_with_an_id_that_was_shown_is_told() {
    let now = Instant::now();
    let (mut l, hub, mut core, mut one) = standing(now);
    let before = l.clone();
    // The clock is ahead of the server's time, as after a leap.
    let first = publish(&mut l, 1, 100_001);
    l = before;
    let second = publish(&mut l, 1, 100_001);
    assert_eq!(first[0].1.id, second[0].1.id);
    hear(&mut core, first, now);
    let mut seen = shown_by(&mut one, &mut l, &hub, 100_002, 100, false);
    assert_eq!(seen.len(), 1);
    hear(&mut core, second, now);
    assert_eq!(drive(&mut core, &mut l, 100_002, now), 1, "it begins anew");
    reconnect(&hub, &mut core, &mut l, 100_003, now);
    hear(&mut core, publish(&mut l, 1, 102_000), now);
    drive(&mut core, &mut l, 102_001, now);
    seen.extend(shown_by(&mut one, &mut l, &hub, 102_002, 100, false));
    assert!(seen.iter().any(|s| s.starts_with("GAP")), "{seen:?}");
}

/// A reader of two topics that has been shown one of `a`, and so has gone past one of `b` that vanished.
fn gone_past(now: Instant) -> (Ledger, Arc<Hub>, FollowerCore, Reader, Id) {
    let mut l = Ledger::new(retention(100), 100_000);
    let (hub, mut core) = replica(100, up(0), now);
    let mut one = hub.reader(&[named("a"), named("b")], Waker::noop(), |_| Start::Live);
    core.hub_wants(now);
    drive(&mut core, &mut l, 100_002, now);
    open(&mut l, &hub, &mut one, 100_003);
    let vanished = publish_to(&mut l, "b", 1, 100_100)[0].1.id;
    hear(&mut core, publish_to(&mut l, "a", 1, 100_200), now);
    let seen = shown_by(&mut one, &mut l, &hub, 100_201, 100, false);
    assert_eq!(seen.len(), 1);
    (l, hub, core, one, vanished)
}

/// The reader has `seen` what followed, and goes; whoever comes back with its cursor is told of the event, if it was not.
fn assert_told_again(
    hub: &Arc<Hub>,
    l: &mut Ledger,
    one: Reader,
    mut seen: Vec<String>,
    event: Id,
) {
    let last = one.oldest().unwrap();
    drop(one);
    let topics = [named("a"), named("b")];
    let mut again = hub.reader(&topics, Waker::noop(), |_| Start::After(last));
    open(l, hub, &mut again, 100_600);
    seen.extend(shown_by(&mut again, l, hub, 100_601, 100, false));
    assert!(
        told(&seen, event),
        "{event} of b is told by nobody: {seen:?}, resumed at {last}"
    );
}

/// Lets others run once.
struct Between<F>(Vec<String>, Option<F>);
impl<F: FnOnce()> Sink for Between<F> {
    fn show(&mut self, shown: Shown<'_>, _: &Cursor) -> Flow {
        self.0.push(match &shown {
            Shown::Frame { frame, .. } => format!("{}", frame.id),
            Shown::Gap { gap, .. } => format!(
                "GAP {} {:?} {:?}..{}",
                gap.topic, gap.reason, gap.from, gap.to
            ),
        });
        Flow::More
    }
    fn others_run(&mut self) {
        if let Some(others) = self.1.take() {
            others();
        }
    }
}

/// The client gets what the step shows, and its connection breaks (or `limit`, or the end of all topics, ends the
/// stream right there).
#[test]
fn the_cursor_does_not_pass_a_find_that_was_not_told() {
    let now = Instant::now();
    let (mut l, hub, mut core, mut one, b1) = gone_past(now);
    hear(&mut core, publish_to(&mut l, "a", 1, 100_300), now);
    let mut sink = Between(
        vec![],
        Some(|| {
            // Another thread hears the next of b, and the log is read.
            hear(&mut core, publish_to(&mut l, "b", 1, 100_400), now);
            drive(&mut core, &mut l, 100_400, now);
        }),
    );
    one.step(&mut sink);
    let seen = sink.0;
    assert_told_again(&hub, &mut l, one, seen, b1);
}

/// A quiet stream whose cursor is refreshed between the find and the next look.
#[test]
fn a_refresh_does_not_pass_a_find_that_was_not_told() {
    let now = Instant::now();
    let (mut l, hub, mut core, mut one, b1) = gone_past(now);
    core.hear(Live::Unreadable(named("b")), now);
    drive(&mut core, &mut l, 100_400, now);
    core.hear(Live::Tick(0, l.tick(100_500)), now);
    let mut nothing = Seen(vec![]);
    assert!(!one.refresh(&mut nothing), "the cursor has moved");
    assert_told_again(&hub, &mut l, one, Vec::new(), b1);
}

#[test]
fn envelopes_stay_within_the_bound_of_all_windows() {
    const DATA: usize = 10_000;
    let now = Instant::now();
    let large = Retention {
        event_bytes_max: DATA,
        ..retention(100)
    };
    let mut l = Ledger::new(large, 100_000);
    let windows = tidegate::hub::window::Windows {
        each: WindowBounds {
            events_max: 100,
            bytes_max: 1 << 20,
        },
        total_bytes_max: 5 * DATA,
    };
    let hub = Hub::new(1, windows);
    let mut core = FollowerCore::new(hub.clone(), settings(), now);
    core.hear(up(0), now);
    drive(&mut core, &mut l, 100_001, now);
    let request = StreamRequest {
        topics: vec![topic()],
        envelope: true,
        ..StreamRequest::default()
    };
    let mut one = stream(&hub, &mut core, &mut l, request, now);
    let large = Publication {
        data: "x".repeat(DATA),
        ..event("a", false)
    };
    hear(
        &mut core,
        l.publish(&vec![large; 4], 100_100).unwrap().1,
        now,
    );
    assert!(hub.window_bytes() <= 5 * DATA);
    let mut out = Out::default();
    while one.turn(at(now, 1), &mut out) == Turn::More {}
    assert!(
        hub.window_bytes() <= 5 * DATA,
        "{} of {}",
        hub.window_bytes(),
        5 * DATA
    );
}
