//! First visits, and what they are told of what was gone before they came.

use super::*;

/// A first visit of two topics; one of them had been trimmed before it came.
#[test]
fn a_first_visit_is_told_nothing_more_when_its_pages_are_let_go() {
    for lets_go in [false, true] {
        let now = Instant::now();
        let mut l = Ledger::new(retention(6), 100_000);
        publish_to(&mut l, "b", 3, 100_010);
        // Long before the visit: the first four of these are trimmed.
        publish_to(&mut l, "a", 4, 100_020);
        publish_to(&mut l, "b", 1, 100_025);
        publish_to(&mut l, "a", 6, 100_030);
        let topics = [named("a"), named("b")];
        let (hub, _core, mut one) = first_visit(&mut l, &topics, 1, 100_040, now);
        let seen = shown_by(&mut one, &mut l, &hub, 100_043, 2, lets_go);
        assert!(
            seen.iter().all(|s| !s.starts_with("GAP")),
            "let go: {lets_go}: {seen:?}"
        );
        assert_eq!(seen.len(), 10);
    }
}

/// What stands in a seam is shown to a first visit, until its page is let go.
#[test]
fn a_first_visit_whose_page_is_let_go_is_shown_what_stands_in_a_seam() {
    for lets_go in [false, true] {
        let now = Instant::now();
        let mut l = Ledger::new(retention(100), 100_000);
        publish(&mut l, 3, 100_001);
        l.report(Id::new(100_001, 4), &[], 100_002);
        let (hub, _core, mut one) = first_visit(&mut l, &[topic()], 100, 100_003, now);
        let seen = shown_by(&mut one, &mut l, &hub, 100_006, 1, lets_go);
        assert_eq!(seen.len(), 3, "let go: {lets_go}: {seen:?}");
        assert!(
            seen.iter().all(|s| !s.starts_with("GAP")),
            "let go: {lets_go}: {seen:?}"
        );
    }
}

/// The log that said where a history begins is gone before the stream has opened, and its clock was ahead.
#[test]
fn a_first_visit_does_not_begin_in_the_future_of_a_log_that_came_meanwhile() {
    let now = Instant::now();
    let mut l = Ledger::new(retention(100), 200_000);
    let (hub, mut core) = replica(100, up(0), now);
    drive(&mut core, &mut l, 200_001, now);
    // Other topics move the clock on, which nobody here hears.
    publish_to(&mut l, "other", 1, 210_000);
    let first = l.history(&[topic()], History::Earliest, 210_001);
    // The answer is there; Redis is emptied, and its clock is put right.
    let mut l = Ledger::new(retention(100), 100_000);
    let mut one = hub.reader(&[topic()], Waker::noop(), |_| Start::History(first));
    core.hub_wants(now);
    reconnect(&hub, &mut core, &mut l, 100_010, now);
    // It is another clock: the path begins anew, and reports.
    for at in [100_020, 100_030] {
        core.beat(now + Duration::from_secs(1));
        drive(&mut core, &mut l, at, now);
        reconnect(&hub, &mut core, &mut l, at + 1, now);
    }
    open(&mut l, &hub, &mut one, 100_100);
    hear(&mut core, publish(&mut l, 3, 100_200), now);
    let seen = shown_by(&mut one, &mut l, &hub, 100_300, 100, false);
    assert!(
        !seen.is_empty(),
        "three events, and not a word; the cursor is {:?}, the log {}",
        one.cursor(),
        l.last()
    );
}

/// A seam may hold more than one page.
#[test]
fn a_first_visit_is_shown_all_that_stands_in_a_seam() {
    let now = Instant::now();
    let mut l = Ledger::new(retention(1000), 100_000);
    publish(&mut l, 300, 100_001);
    l.report(Id::new(100_001, 301), &[], 100_002);
    let (hub, _core, mut one) = first_visit(&mut l, &[topic()], 100, 100_003, now);
    let seen = shown_by(&mut one, &mut l, &hub, 100_006, 10_000, false);
    let gaps: Vec<_> = seen.iter().filter(|s| s.starts_with("GAP")).collect();
    assert!(
        gaps.is_empty() && seen.len() == 300,
        "{} shown, {gaps:?}",
        seen.len()
    );
}

/// The log goes back under its process. Who has seen what it lost comes to a replica that has heard nothing of it: what the
/// log has kept was shown already.
#[test]
fn who_comes_back_to_a_log_that_went_back_under_its_process_is_shown_nothing_again() {
    let now = Instant::now();
    let mut l = Ledger::new(retention(100), 100_000);
    publish(&mut l, 3, 100_001);
    let (hub, mut core) = replica(100, up(0), now);
    drive(&mut core, &mut l, 100_002, now);
    let saved = l.clone();
    let shown = publish(&mut l, 1, 100_100)[0].1.id;
    let mut l = saved;
    let mut one = hub.reader(&[topic()], Waker::noop(), |_| Start::After(shown));
    core.hub_wants(now);
    drive(&mut core, &mut l, 100_149, now);
    let mut told = vec![];
    while let OpenStep::Read(asked) = one.open(&mut told) {
        read(&mut l, &hub, &asked, 100_150);
    }
    assert_eq!(told.len(), 1);
    let seen = shown_by(&mut one, &mut l, &hub, 100_160, 100, false);
    assert!(seen.is_empty(), "told {told:?}, and shown again: {seen:?}");
    hear(&mut core, publish(&mut l, 1, 100_200), now);
    let seen = shown_by(&mut one, &mut l, &hub, 100_201, 100, false);
    assert_eq!(seen.len(), 1);
}
