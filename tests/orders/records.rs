//! Losses, and whether somebody writes them down.

use super::*;
use tidegate::log::{ClockName, Followed};

/// A loss that was written down, and a second one at greater ids: both records go, and only the second is
/// written down again.
#[test]
fn a_loss_is_written_down_again_although_there_is_a_later_one() {
    let now = Instant::now();
    let (mut l, hub, mut core, _one) = standing(now);
    let before = l.clone();
    let lost = publish(&mut l, 1, 100_010);
    let lost_id = lost[0].1.id;
    hear(&mut core, lost, now);
    // Redis comes back without its last write, as another process, and somebody publishes.
    l = before;
    l.run = 1;
    publish(&mut l, 1, 200_000);
    let before = l.clone();
    // The replica reports: a gap entry. And hears one event more.
    reconnect(&hub, &mut core, &mut l, 200_010, now);
    hear(&mut core, publish(&mut l, 1, 210_000), now);
    let page = l.read(&[after(Id::ZERO)], 210_001).pages.remove(0);
    assert_eq!(gaps(&page.frames), 1, "the loss is written down");
    // The same process loads its snapshot from before the report (DEBUG RELOAD, a restore by hand).
    l = before;
    let next = publish(&mut l, 1, 300_000);
    hear(&mut core, next, now);
    assert_eq!(drive(&mut core, &mut l, 300_001, now), 1, "it begins anew");
    reconnect(&hub, &mut core, &mut l, 300_010, now);
    let page = l.read(&[after(Id::ZERO)], 500_000).pages.remove(0);
    let marks: Vec<_> = page.frames.iter().map(|f| (f.id, f.mark)).collect();
    let tells_of = |frame: &tidegate::sse::Frame| matches!(frame.mark, Mark::Gap { from, lost } if from < lost_id && lost_id <= lost);
    assert!(
        page.frames.iter().any(tells_of),
        "{lost_id} is told by nobody: {marks:?}"
    );
}

/// What was heard while a topic opened, or was repaired, is compared with nothing once it opens anew.
#[test]
fn what_waited_is_looked_for_when_the_topic_opens() {
    let now = Instant::now();
    let mut l = Ledger::new(retention(100), 100_000);
    publish(&mut l, 1, 100_001);
    let (hub, mut core) = replica(100, up(0), now);
    drive(&mut core, &mut l, 100_002, now);
    let _reader = hub.reader(&[topic()], Waker::noop(), |_| Start::Live);
    core.hub_wants(now);
    // Subscribed; before the state of the topic was read, an event is heard.
    let before = l.clone();
    let lost = publish(&mut l, 1, 100_010);
    let lost_id = lost[0].1.id;
    hear(&mut core, lost, now);
    core.hear(Live::Down, now);
    while core.next_ask().is_some() {}
    // The log goes back under its process, and two events more are published.
    l = before;
    publish(&mut l, 2, 170_000);
    core.hear(up(0), now);
    core.hear(confirmed(&hub), now);
    let resets = drive(&mut core, &mut l, 170_010, now);
    hear(&mut core, publish(&mut l, 1, 170_020), now);
    let resets = resets + drive(&mut core, &mut l, 170_030, now);
    if resets > 0 {
        reconnect(&hub, &mut core, &mut l, 170_040, now);
    }
    let page = l.read(&[after(Id::ZERO)], 180_000).pages.remove(0);
    assert_eq!(
        gaps(&page.frames),
        1,
        "{lost_id} was heard here, is gone, and is told by nobody"
    );
}

/// A log whose clock is behind, of a process that goes on, has lost its tail, and has published since. What a
/// replica followed of it, and an event of `a` that is lost.
pub(super) fn lost_its_tail() -> (Ledger, Followed, Id) {
    let mut l = Ledger::new(retention(100), 100_000);
    publish_to(&mut l, "b", 1, 100_001);
    let before = l.clone();
    let lost = publish_to(&mut l, "a", 1, 100_010)[0].1.id;
    let heard = l.tick(100_900).id;
    let followed = Followed::by(ClockName::of(&l.horizon(100_900)), heard);
    // Back, by a snapshot that is restored under the process; its clock is put back a second, too.
    l = before;
    publish_to(&mut l, "b", 1, 100_500);
    assert!(l.last() < heard && lost < l.last());
    (l, followed, lost)
}

/// Whether gap entries tell that this event of `a` is lost.
pub(super) fn is_written_down(told: &[(Topic, tidegate::sse::Frame)], event: Id) -> bool {
    told.iter().any(|(topic, frame)| {
        *topic == named("a")
            && matches!(frame.mark, Mark::Gap { from, lost } if from < event && event <= lost)
    })
}

#[test]
fn a_loss_below_what_was_published_since_is_written_down() {
    let (mut l, followed, lost) = lost_its_tail();
    let told = l.report(
        followed,
        &[(named("a"), lost), (named("b"), Id::new(100_001, 1))],
        100_600,
    );
    assert!(
        is_written_down(&told, lost),
        "{lost} of a is told by nobody: {told:?}"
    );
}

/// FLUSHALL once more between the report and the tick that settles, and the clock is behind.
#[test]
fn a_log_that_was_not_told_is_not_taken_for_the_one_that_was() {
    let now = Instant::now();
    let mut l = Ledger::new(retention(100), 100_000);
    publish_to(&mut l, "a", 1, 100_001);
    let (hub, mut core) = replica(100, up(0), now);
    let mut one = hub.reader(&[named("a"), named("b")], Waker::noop(), |_| Start::Live);
    core.hub_wants(now);
    drive(&mut core, &mut l, 100_002, now);
    open(&mut l, &hub, &mut one, 100_003);
    hear(&mut core, publish_to(&mut l, "b", 1, 100_850), now);
    core.hear(Live::Tick(0, l.tick(100_900)), now);
    assert_eq!(
        shown_by(&mut one, &mut l, &hub, 100_901, 100, false).len(),
        1
    );
    // FLUSHALL, which a tick shows.
    let mut l2 = Ledger::new(retention(100), 100_950);
    core.hear(Live::Tick(0, l2.tick(100_960)), now);
    assert_eq!(drive(&mut core, &mut l2, 100_961, now), 1);
    core.hear(Live::Down, now);
    core.hear(up(0), now);
    core.hear(all_confirmed(&hub), now);
    let Some(Ask::Settle {
        connection,
        reports,
    }) = core.next_ask()
    else {
        panic!()
    };
    for r in reports {
        hear(&mut core, l2.report(r.followed, &r.topics, 100_970), now);
    }
    let told = vec![l2.name()];
    // FLUSHALL, and the clock is put back. An event is published before the tick that settles.
    let mut l3 = Ledger::new(retention(100), 100_200);
    let unseen = publish_to(&mut l3, "a", 1, 100_300);
    let id = unseen[0].1.id;
    hear(&mut core, unseen, now);
    core.hear(Live::Tick(0, l3.tick(100_400)), now);
    core.answer(Answer::Settled { connection, told }, now);
    let mut seen = Vec::new();
    for round in 0..6 {
        let at = 100_500 + round * 50;
        core.beat(now + Duration::from_secs(1 + round));
        if drive(&mut core, &mut l3, at, now + Duration::from_secs(1 + round)) > 0 {
            core.hear(Live::Down, now);
            core.hear(up(0), now);
            core.hear(all_confirmed(&hub), now);
            drive(&mut core, &mut l3, at + 10, now);
        }
        core.hear(
            Live::Tick(0, l3.tick(at + 20)),
            now + Duration::from_secs(1 + round),
        );
        seen.extend(shown_by(&mut one, &mut l3, &hub, at + 30, 100, false));
    }
    hear(&mut core, publish_to(&mut l3, "a", 1, 102_000), now);
    drive(&mut core, &mut l3, 102_001, now);
    seen.extend(shown_by(&mut one, &mut l3, &hub, 102_002, 100, false));
    let covers = |s: &String| {
        *s == id.to_string()
            || s.starts_with("GAP a") && {
                let from = s
                    .split("Id { ms: ")
                    .nth(1)
                    .unwrap()
                    .split(',')
                    .next()
                    .unwrap()
                    .parse::<u64>()
                    .unwrap();
                from < id.ms
            }
    };
    assert!(
        seen.iter().any(covers),
        "{id} is neither shown nor told: {seen:?}"
    );
}

/// The log goes back under its process while its clock is behind: ids are given out once more, below what streams
/// were shown.
#[test]
fn an_event_below_what_was_heard_is_told_to_streams_that_stand_above_it() {
    let now = Instant::now();
    let (mut l, hub, mut core, mut one) = standing(now);
    let before = l.clone();
    core.hear(Live::Tick(0, l.tick(100_900)), now);
    assert!(one.refresh(&mut Seen(vec![])), "it stands there");
    l = before;
    let below = publish(&mut l, 1, 100_500);
    let id = below[0].1.id;
    hear(&mut core, below, now);
    assert_eq!(drive(&mut core, &mut l, 100_501, now), 1, "it begins anew");
    reconnect(&hub, &mut core, &mut l, 100_600, now);
    let seen = shown_by(&mut one, &mut l, &hub, 100_700, 100, false);
    assert!(id < Id::new(100_900, 0));
    let told = "GAP a Late Some(Id { ms: 100002, seq: 0 })..100900-1";
    assert_eq!(seen, [told], "{id}");
}

/// What was heard during a read follows it at once: it is not below what was heard, it *is* what was heard.
#[test]
fn what_waited_for_a_repair_is_not_looked_for_again() {
    let now = Instant::now();
    let (mut l, hub, mut core, mut one) = standing(now);
    core.hear(Live::Down, now);
    core.hear(up(0), now);
    core.hear(confirmed(&hub), now);
    let mut reads = 0;
    let mut heard = Vec::new();
    while let Some(ask) = core.next_ask() {
        if let Ask::Read {
            connection,
            feeds,
            requests,
            ..
        } = ask
        {
            let reading = Ok(l.read(&requests, 100_200 + reads));
            let frames = publish(&mut l, 1, 100_201 + reads);
            heard.push(frames[0].1.id.to_string());
            hear(&mut core, frames, now);
            core.answer(
                Answer::Read {
                    connection,
                    feeds,
                    reading,
                },
                now,
            );
            reads += 1;
            assert!(reads < 10, "it is read again and again");
        } else {
            carry_out(&mut core, ask, &mut l, 100_150, now);
        }
    }
    assert_eq!(reads, 1, "the log was read again");
    assert_eq!(shown_by(&mut one, &mut l, &hub, 100_700, 100, false), heard);
}

/// What a log that has gone back may have lost reaches up to what was heard last, not up to the last tick.
#[test]
fn a_report_says_how_far_was_heard() {
    let now = Instant::now();
    let (mut l, hub, mut core, _one) = standing(now);
    let last = publish(&mut l, 1, 100_500);
    let id = last[0].1.id;
    hear(&mut core, last, now);
    core.hear(Live::Down, now);
    // Another process may have lost something.
    l.run = 1;
    core.hear(up(1), now);
    core.hear(confirmed(&hub), now);
    let mut reported = Vec::new();
    while let Some(ask) = core.next_ask() {
        if let Ask::Settle { reports, .. } = &ask {
            reported.extend(reports.iter().map(|report| report.followed.heard));
        }
        carry_out(&mut core, ask, &mut l, 100_600, now);
    }
    assert_eq!(reported, [id]);
}

/// FLUSHALL, and an event before the replica has told the new log what it knew: that event is there.
#[test]
fn what_the_new_log_has_is_not_told_as_lost() {
    let now = Instant::now();
    let (mut l, hub, mut core, mut one) = standing(now);
    hear(&mut core, publish(&mut l, 1, 100_010), now);
    assert!(!shown_by(&mut one, &mut l, &hub, 100_020, 100, false).is_empty());
    let mut l = Ledger::new(retention(100), 100_500);
    let first = publish(&mut l, 1, 100_510);
    hear(&mut core, first.clone(), now);
    assert_eq!(drive(&mut core, &mut l, 100_520, now), 1, "it begins anew");
    core.hear(Live::Down, now);
    core.hear(up(0), now);
    core.hear(confirmed(&hub), now);
    // It comes between the two connections, and is heard before the log is told.
    let second = publish(&mut l, 1, 100_530);
    hear(&mut core, second.clone(), now);
    drive(&mut core, &mut l, 100_540, now);
    let page = l.read(&[after(Id::ZERO)], 100_550).pages.remove(0);
    assert_eq!(gaps(&page.frames), 0, "{page:?}");
    let seen = shown_by(&mut one, &mut l, &hub, 100_560, 100, false);
    let ids = [&first, &second].map(|event| event[0].1.id.to_string());
    assert!(seen.ends_with(&ids), "{seen:?}");
}

/// Two connections in a row break before what was heard of an older log was reported.
#[test]
fn what_waited_is_reported_although_more_waited_since() {
    let now = Instant::now();
    let (mut l, hub, mut core, _one) = standing(now);
    core.hear(Live::Unreadable(topic()), now);
    let before = l.clone();
    let lost = publish(&mut l, 1, 100_100);
    let lost_id = lost[0].1.id;
    hear(&mut core, lost, now);
    core.hear(Live::Down, now);
    // Another process, without it. It publishes before anybody has reported.
    l = before;
    l.run = 1;
    publish(&mut l, 1, 100_200);
    core.hear(up(1), now);
    core.hear(confirmed(&hub), now);
    hear(&mut core, publish(&mut l, 1, 100_300), now);
    core.hear(Live::Down, now);
    core.hear(up(1), now);
    let Some(Ask::Settle { reports, .. }) = std::iter::from_fn(|| core.next_ask())
        .filter(|ask| matches!(ask, Ask::Settle { .. }))
        .last()
    else {
        panic!("it does not settle")
    };
    let told = reports.iter().flat_map(|report| &report.topics);
    let ids: Vec<Id> = told.map(|(_, id)| *id).collect();
    assert!(ids.contains(&lost_id), "{lost_id}: {ids:?}");
}
