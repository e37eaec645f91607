//! What the simulation cannot meet, or its oracle excuses: ends that are told of an older life of a topic, deletions
//! that show a hole, streams whose time is over, what only a page has shown.

use super::streams::{at, stream, stream_beside, stream_by, stream_settings, text};
use super::*;
use tidegate::stream::out::Out;
use tidegate::stream::request::{Begin, StreamRequest};
use tidegate::stream::settings::StreamSettings;
use tidegate::stream::turn::{Ending, Stream, Turn};

fn ending() -> Publication {
    Publication {
        topic: topic(),
        event_type: EventType::default(),
        data: "x".into(),
        end: true,
        idempotency_key: None,
    }
}

/// The live path breaks, and stands again; the topic is subscribed to and not read yet.
fn reconnect_unread(hub: &Hub, core: &mut FollowerCore, l: &mut Ledger, now_ms: u64, now: Instant) {
    core.hear(up(l.run), now);
    core.hear(all_confirmed(hub), now);
    while let Some(ask) = core.next_ask() {
        if matches!(ask, Ask::Read { .. }) {
            return;
        }
        carry_out(core, ask, l, now_ms, now);
    }
    panic!("it asks for no page");
}

/// A topic ends, is deleted, opened anew and ended once more while the live path is down. Whoever comes back with the
/// first end as its cursor was answered 204, for good: the log has an end, and the one that is known here is below.
#[test]
fn who_comes_back_with_an_end_is_not_turned_away_for_a_later_one() {
    let now = Instant::now();
    let (mut l, hub, mut core, one) = standing(now);
    let (ids, frames) = l.publish(&[ending()], 100_010).unwrap();
    let first_end = ids[0].unwrap();
    hear(&mut core, frames, now);
    drop(one);
    core.hear(Live::Down, now);
    l.delete(&topic(), 100_020).unwrap();
    let missed = publish(&mut l, 2, 100_030);
    l.publish(&[ending()], 100_040).unwrap();
    reconnect_unread(&hub, &mut core, &mut l, 100_050, now);
    let request = StreamRequest {
        topics: vec![topic()],
        begin: Begin::After(Cursor::One(first_end)),
        ..StreamRequest::default()
    };
    let mut two = stream_beside(&hub, &mut l, request, now, 100_060);
    assert!(
        !two.is_over_for_good(),
        "204, and two events above its cursor are in the log"
    );
    // And it is shown them.
    core.hear(Live::Down, now);
    reconnect(&hub, &mut core, &mut l, 100_070, now);
    let mut out = Out::default();
    let mut over = None;
    for _ in 0..10 {
        match two.turn(at(now, 1), &mut out) {
            Turn::Read(asked) => {
                let page = read(&mut l, &hub, &asked, 100_080);
                two.take(&page);
            }
            Turn::Over(ending) => {
                over = Some(ending);
                break;
            }
            Turn::More | Turn::Wait(_) => {}
        }
    }
    let shown = text(&mut out);
    for (_, frame) in &missed {
        assert!(shown.contains(&format!("id: {}", frame.id)), "{shown}");
    }
    assert!(matches!(over, Some(Ending::Clean(_))), "{over:?}: {shown}");
}

/// The predecessor of a deletion has vanished. The deletion is heard, and waits until the log is read: what it
/// deletes stood in the window meanwhile, and was shown to whoever came.
#[test]
fn a_deletion_that_shows_a_hole_empties_the_window_at_once() {
    let now = Instant::now();
    let (mut l, hub, mut core, _one) = standing(now);
    let deleted = publish(&mut l, 2, 100_010);
    hear(&mut core, deleted, now);
    let _vanished = publish(&mut l, 1, 100_020);
    let deletion = l.delete(&topic(), 100_030).unwrap();
    hear(&mut core, vec![(topic(), deletion)], now);
    // The log does not answer yet.
    let mut two = hub.reader(&[topic()], Waker::noop(), |_| {
        Start::After(Id::new(100_005, 0))
    });
    open(&mut l, &hub, &mut two, 100_031);
    let mut seen = Seen(vec![]);
    two.step(&mut seen);
    assert!(seen.0.is_empty(), "shown after the deletion: {:?}", seen.0);
    drive(&mut core, &mut l, 100_040, now);
    assert!(hub.feed(&topic()).unwrap().wants().is_none(), "it is whole");
}

/// The same of a page that was read before the deletion, and comes after it.
#[test]
fn a_page_from_before_a_deletion_that_shows_a_hole_is_shown_to_nobody() {
    let now = Instant::now();
    let (mut l, hub, mut core, _one) = standing(now);
    let mut two = hub.reader(&[topic()], Waker::noop(), |_| {
        Start::After(Id::new(99_000, 0))
    });
    open(&mut l, &hub, &mut two, 100_004);
    let Step::Behind(asked) = two.step(&mut Seen(vec![])) else {
        panic!("it is not behind")
    };
    let page = read(&mut l, &hub, &asked, 100_005);
    let _vanished = publish(&mut l, 1, 100_020);
    let deletion = l.delete(&topic(), 100_030).unwrap();
    hear(&mut core, vec![(topic(), deletion)], now);
    two.take_pages(&page);
    let mut seen = Seen(vec![]);
    two.step(&mut seen);
    let shown: Vec<_> = seen.0.iter().filter(|s| !s.starts_with("GAP")).collect();
    assert!(shown.is_empty(), "shown after the deletion: {shown:?}");
}

/// A stream of `a` and `b` with these settings has gone past an event of `b` that vanished: its id. The next of `b`, which
/// shows that, is heard, and the log not read yet.
fn past_what_vanished(
    settings: impl Into<Arc<StreamSettings>>,
    now: Instant,
) -> (Ledger, FollowerCore, Stream, Id) {
    let mut l = Ledger::new(retention(100), 100_000);
    let (hub, mut core) = replica(100, up(0), now);
    drive(&mut core, &mut l, 100_001, now);
    let request = StreamRequest {
        topics: vec![named("a"), named("b")],
        ..StreamRequest::default()
    };
    let mut one = stream_by(&hub, &mut core, &mut l, request, now, settings);
    let vanished = publish_to(&mut l, "b", 1, 100_100)[0].1.id;
    hear(&mut core, publish_to(&mut l, "a", 1, 100_200), now);
    let mut out = Out::default();
    assert!(matches!(one.turn(at(now, 1), &mut out), Turn::Wait(_)));
    assert!(text(&mut out).contains("id: 100200-1"));
    hear(&mut core, publish_to(&mut l, "b", 1, 100_300), now);
    (l, core, one, vanished)
}

/// A stream of two topics has gone past an event that vanished. It is found in the log, and before the stream has a turn
/// its time is over (its age, a drain, the end of its right). Its client comes back to a replica that lacks nothing.
#[test]
fn a_stream_whose_time_is_over_is_told_first_what_was_found_late() {
    let now = Instant::now();
    let settings = stream_settings(false, retention(100));
    let (mut l, mut core, mut one, vanished) = past_what_vanished(settings, now);
    drive(&mut core, &mut l, 100_301, now);
    let mut out = Out::default();
    let turn = one.turn(at(now, 1 << 21), &mut out);
    assert!(matches!(turn, Turn::Over(Ending::Cut(_))), "{turn:?}");
    let last = text(&mut out);
    assert!(
        last.contains("tidegate.gap"),
        "{vanished} of b is told by nobody: {last:?}"
    );
}

/// The same of a stream that waits for a page when its right is taken back: it was told still what is missing.
#[test]
fn a_stream_whose_right_was_taken_back_while_it_waits_is_told_nothing() {
    let now = Instant::now();
    let settings = Arc::new(stream_settings(false, retention(100)));
    let (_, _, mut one, _) = past_what_vanished(settings.clone(), now);
    let all = [(1_000_000, "all")].into_iter();
    assert!(settings.revocations.learn(all, 1_000_000, Duration::ZERO));
    let mut out = Out::default();
    one.break_off(&mut out);
    assert_eq!(text(&mut out), "");
}

/// A page of the log has an event that the live path has not brought yet, and a stream that is behind is shown it. Then
/// Redis dies and comes back without it. Whoever else reads the topic here must be told, as if the event had been heard.
#[test]
fn what_only_a_page_has_shown_is_reported() {
    let now = Instant::now();
    let (mut l, hub, mut core, mut one) = standing(now);
    let mut two = hub.reader(&[topic()], Waker::noop(), |_| {
        Start::After(Id::new(99_000, 0))
    });
    open(&mut l, &hub, &mut two, 100_004);
    let before = l.clone();
    let lost = publish(&mut l, 1, 100_010)[0].1.id;
    let seen = shown_by(&mut two, &mut l, &hub, 100_011, 100, false);
    assert!(seen.contains(&lost.to_string()), "{seen:?}");
    // The live path never brings it.
    core.hear(Live::Down, now);
    l = before;
    l.run = 1;
    let next = publish(&mut l, 1, 100_020)[0].1.id;
    reconnect(&hub, &mut core, &mut l, 100_030, now);
    let seen = shown_by(&mut one, &mut l, &hub, 110_000, 100, false);
    assert!(seen.contains(&next.to_string()), "{seen:?}");
    assert!(
        seen.iter()
            .any(|s| s.starts_with("GAP") || s != &next.to_string()),
        "{lost} was shown to another stream of this replica, is lost, and is told by nobody: {seen:?}"
    );
}

/// A busy topic in a window that is too short: each turn of the stream shows a page and is behind again. It was live long
/// ago, and was never told.
#[test]
fn live_is_said_to_a_stream_that_has_reached_the_head_and_is_behind_again() {
    let now = Instant::now();
    let mut l = Ledger::new(retention(10_000), 100_000);
    let (hub, mut core) = replica(1, up(0), now);
    drive(&mut core, &mut l, 100_001, now);
    let request = StreamRequest {
        topics: vec![topic()],
        ..StreamRequest::default()
    };
    let _there = stream(&hub, &mut core, &mut l, request, now);
    let cursor = Cursor::One(hub.partition(0).heard());
    hear(&mut core, publish(&mut l, 3, 100_100), now);
    let request = StreamRequest {
        topics: vec![topic()],
        begin: Begin::After(cursor),
        ..StreamRequest::default()
    };
    let mut one = stream_beside(&hub, &mut l, request, now, 100_101);
    let mut out = Out::default();
    let mut shown = String::new();
    for round in 0..50 {
        if let Turn::Read(asked) = one.turn(at(now, 1), &mut out) {
            let page = read(&mut l, &hub, &asked, 100_200 + round);
            one.take(&page);
        }
        hear(&mut core, publish(&mut l, 3, 100_200 + round), now);
        shown += &text(&mut out);
    }
    let events = shown.matches("data: x").count();
    assert!(
        shown.contains("tidegate.live"),
        "{events} events from above the head were shown, and live was not said"
    );
}

/// A frame is heard between the two halves of a report: after what is reported was gathered, and before the log has
/// answered. Its topic is given up just then. It counted as told, and the log that has lost it was never told.
#[test]
fn what_was_heard_while_the_report_was_under_way_was_not_told_by_it() {
    let now = Instant::now();
    let (mut l, hub, mut core, one) = standing(now);
    core.hear(Live::Down, now);
    drop(one);
    core.beat(now);
    l.run = 1;
    core.hear(up(1), now);
    core.hear(confirmed(&hub), now);
    let Some(Ask::Settle {
        connection,
        reports,
    }) = core.next_ask()
    else {
        panic!("it reports first")
    };
    for report in reports {
        hear(
            &mut core,
            l.report(report.followed, &report.topics, 100_100),
            now,
        );
    }
    let before = l.clone();
    let lost = publish(&mut l, 1, 150_000);
    let lost_id = lost[0].1.id;
    hear(&mut core, lost, now);
    let later = now + settings().keep + Duration::from_secs(1);
    core.beat(later);
    assert!(hub.feeds().is_empty(), "given up");
    core.hear(Live::Tick(0, l.tick(150_010)), later);
    let told = vec![l.name()];
    core.answer(Answer::Settled { connection, told }, later);
    drive(&mut core, &mut l, 150_020, later);
    // The log goes back under its process.
    l = before;
    publish(&mut l, 1, 155_000);
    let _two = hub.reader(&[topic()], Waker::noop(), |_| Start::Live);
    core.hub_wants(later);
    let resets = drive(&mut core, &mut l, 155_010, later);
    if resets > 0 {
        reconnect(&hub, &mut core, &mut l, 155_020, later);
    }
    let page = l.read(&[after(Id::ZERO)], 155_030);
    assert_eq!(
        gaps(&page.pages[0].frames),
        1,
        "{lost_id} was heard here, is lost, and is told by nobody (resets: {resets})"
    );
}

/// A first visit is open, and its page takes long. What is published meanwhile is trimmed before the log is read: it was
/// not gone when the visit began, and is forgiven to nobody.
#[test]
fn a_first_visit_forgives_nothing_that_came_after_it_had_opened() {
    let now = Instant::now();
    let mut l = Ledger::new(retention(6), 100_000);
    publish(&mut l, 3, 100_001);
    let (hub, mut core, mut one) = first_visit(&mut l, &[topic()], 1, 100_010, now);
    let Step::Behind(asked) = one.step(&mut Seen(vec![])) else {
        panic!("it is not behind")
    };
    for at in 0..20 {
        hear(&mut core, publish(&mut l, 1, 100_100 + at), now);
    }
    let page = read(&mut l, &hub, &asked, 100_200);
    one.take_pages(&page);
    let seen = shown_by(&mut one, &mut l, &hub, 100_201, 100, false);
    assert!(
        seen.iter().any(|s| s.starts_with("GAP")),
        "14 events were published after it had opened, and nothing is told of them: {seen:?}"
    );
}

/// The same of a log that is emptied meanwhile.
#[test]
fn a_first_visit_is_told_of_a_log_that_was_emptied_after_it_had_opened() {
    let now = Instant::now();
    let mut l = Ledger::new(retention(100), 100_000);
    publish(&mut l, 3, 100_001);
    let (hub, mut core, mut one) = first_visit(&mut l, &[topic()], 1, 100_010, now);
    hear(&mut core, publish(&mut l, 2, 100_100), now);
    // FLUSHALL, which a tick shows.
    let mut l = Ledger::new(retention(100), 100_500);
    core.hear(Live::Tick(0, l.tick(100_600)), now);
    assert_eq!(drive(&mut core, &mut l, 100_600, now), 1, "it begins anew");
    reconnect(&hub, &mut core, &mut l, 100_700, now);
    hear(&mut core, publish(&mut l, 1, 100_800), now);
    let seen = shown_by(&mut one, &mut l, &hub, 100_900, 100, false);
    assert!(
        seen.iter().any(|s| s.starts_with("GAP")),
        "two events were published after it had opened, and nothing is told of them: {seen:?}"
    );
}
