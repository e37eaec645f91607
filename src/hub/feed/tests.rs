//! The rules of one topic's health, one step at a time.

use super::hole::Hole;
use super::known::LastKnown;
use super::repair::{Health, Repaired, Taken, Track};
use crate::hub::partition::Generation;
use crate::hub::window::WindowBounds;
use crate::id::Id;
use crate::log::{Floor, Horizon, Page, RunId, Seam};
use crate::sse::{Entry, Frame, Mark};
use crate::topic::Topic;

fn id(ms: u64) -> Id {
    Id::new(ms, 0)
}

fn topic() -> Topic {
    Topic::parse("news").unwrap()
}

/// The topic's entry of this millisecond, after that of the one before.
fn frame(ms: u64, prev: u64) -> Frame {
    let entry = Entry {
        id: id(ms),
        prev: id(prev),
        mark: Mark::Event,
        event_type: String::new(),
        data: "x".into(),
    };
    Frame::encode(&topic(), &entry)
}

/// A whole page after `after`, of a log that begins at `floor`.
fn page(after: u64, floor: u64, frames: &[Frame]) -> Page {
    Page {
        topic: topic(),
        after: id(after),
        floor: Floor::Log(id(floor)),
        ended: None,
        frames: frames.to_vec(),
        cut_at: None,
    }
}

fn horizon(last: u64) -> Horizon {
    Horizon {
        last: id(last),
        born: Id::ZERO,
        seams: Vec::new(),
        losses: Vec::new(),
        now_ms: last,
        run: RunId(1),
    }
}

fn repair(track: &mut Track, page: &Page, horizon: &Horizon) -> Repaired {
    let nothing_more = |at: Id, _: Generation| at;
    track.repair(page, horizon, Id::ZERO, || 1, nothing_more)
}

/// A topic that was opened at this clock.
fn opened(ms: u64) -> Track {
    let bounds = WindowBounds {
        events_max: 100,
        bytes_max: 1 << 20,
    };
    let mut track = Track::new(bounds, LastKnown::default());
    let state = page(0, 0, &[]);
    assert_eq!(repair(&mut track, &state, &horizon(ms)), Repaired::Live);
    track
}

fn shown(track: &Track) -> Vec<u64> {
    track
        .window
        .after(Id::ZERO)
        .map(|frame| frame.id.ms)
        .collect()
}

#[test]
fn a_window_takes_an_older_page_only_if_nothing_is_missing_in_it_or_up_to_the_window() {
    let frames = [frame(4, 3), frame(6, 4)];
    let whole = page(3, 3, &frames);
    let cut = |at: u64| Page {
        cut_at: Some(id(at)),
        ..whole.clone()
    };
    let of_no_log = Page {
        floor: Floor::Empty(id(3)),
        ..whole.clone()
    };
    let table = [
        ("whole", whole.clone(), 10, true),
        ("cut where the window begins", cut(10), 20, true),
        ("cut below the window", cut(9), 20, false),
        ("trimmed since", page(3, 5, &frames[1..]), 10, false),
        (
            "trimmed, and cut below",
            Page {
                cut_at: Some(id(9)),
                ..page(3, 5, &frames[1..])
            },
            20,
            false,
        ),
        ("of no log", of_no_log, 10, false),
    ];
    for (what, page, last, is_taken) in table {
        let mut track = opened(10);
        track.offer(&page, &horizon(last), usize::MAX);
        let expected: &[u64] = if is_taken { &[4, 6] } else { &[] };
        assert_eq!(shown(&track), expected, "{what}");
        let floor = if is_taken { id(3) } else { id(10) };
        assert_eq!(track.window.floor(), floor, "{what}");
    }
}

#[test]
fn an_older_page_has_an_end_forgotten_only_if_it_was_read_after_it_and_knows_of_none() {
    let table = [
        (None, 10, 9, Some(10)),
        (None, 10, 10, None),
        (None, 10, 11, None),
        (Some(10), 10, 11, Some(10)),
    ];
    for (told, ended, last, remains) in table {
        let mut track = opened(5);
        track.ended = Some(id(ended));
        let page = Page {
            ended: told.map(id),
            ..page(3, 3, &[])
        };
        track.offer(&page, &horizon(last), usize::MAX);
        assert_eq!(track.ended, remains.map(id), "{told:?}, {ended}, {last}");
    }
    let mut never = opened(5);
    never.offer(&page(3, 3, &[]), &horizon(5), usize::MAX);
    assert_eq!(never.ended, None);
}

/// A topic that opens has no place yet to put a page to.
#[test]
fn an_older_page_is_not_taken_by_a_topic_that_opens() {
    let bounds = opened(1).window.bounds();
    let mut track = Track::new(bounds, LastKnown::default());
    track.offer(&page(3, 3, &[frame(4, 3)]), &horizon(10), usize::MAX);
    assert!(shown(&track).is_empty() && track.complete(id(10)).is_none());
}

/// Entries that stand at or below the end of a gap are told by the gap.
#[test]
fn what_a_repair_finds_within_a_gap_is_not_shown() {
    let mut track = opened(3);
    track.health = Health::Broken(Hole::new(id(3), id(3)));
    // A log that was rewound, and kept the tail of this topic: three stands within the seam.
    let seam = Seam {
        before: id(2),
        after: id(6),
    };
    let rewound = Horizon {
        seams: vec![seam],
        ..horizon(10)
    };
    let found = page(3, 0, &[frame(5, 3), frame(6, 5), frame(7, 6)]);
    assert_eq!(repair(&mut track, &found, &rewound), Repaired::Live);
    assert_eq!(track.window.floor(), id(6));
    assert_eq!(shown(&track), [7]);
}

/// One that stands in its place is the last entry. One that waits is not, and a log may have lost it.
#[test]
fn a_deletion_is_reported_beside_the_last_entry_only_while_it_waits() {
    let deletion = |ms: u64| {
        let mut deletion = frame(ms, 0);
        deletion.mark = Mark::Deleted;
        deletion
    };
    let mut live = opened(3);
    assert_eq!(live.hear(deletion(4), id(3), || 1), Taken::Appended);
    let known = live.last_known();
    assert_eq!((known.entry, known.once_told), (id(4), Id::ZERO));
    let mut broken = opened(3);
    broken.lose_frame(id(3));
    assert_eq!(broken.hear(deletion(4), id(3), || 1), Taken::Waits);
    let known = broken.last_known();
    assert_eq!((known.entry, known.waited), (Id::ZERO, id(4)));
    assert_eq!(known.once_told, id(4));
}

/// Each is told once, and nothing that was never heard.
#[test]
fn a_log_that_may_have_gone_back_is_told_each_id_that_was_heard_once() {
    let known = |entry, waited, losses: &[u64], once_told| LastKnown {
        entry: id(entry),
        waited: id(waited),
        losses: losses.iter().copied().map(id).collect(),
        once_told: id(once_told),
        told: Id::ZERO,
    };
    let table: [(_, &[u64]); 7] = [
        (known(0, 0, &[], 0), &[0]),
        (known(5, 0, &[], 0), &[5]),
        (known(5, 5, &[], 5), &[5]),
        (known(5, 6, &[], 4), &[5, 6, 4]),
        (known(5, 4, &[2, 3], 0), &[5, 2, 3]),
        (known(5, 0, &[3, 5], 7), &[5, 3, 7]),
        (known(0, 6, &[], 0), &[0, 6]),
    ];
    for (last, told) in table {
        let reported: Vec<u64> = last.reported().map(|id| id.ms).collect();
        assert_eq!(reported, told, "{last:?}");
    }
}
