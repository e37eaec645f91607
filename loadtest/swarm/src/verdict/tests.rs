//! Evidence that is good, and what each way of spoiling it is called.

use super::*;
use crate::event::{Shape, Way};
use crate::run::Done;
use crate::subscriber::{Ended, Opened};
use rand::{SeedableRng as _, rngs::StdRng};
use std::time::Duration;

const EVENTS: u32 = 4;
const SHAPE: Shape = Shape {
    topics: 1,
    padding_max: 50,
};

fn key(number: u32) -> Key {
    Key {
        way: Way::Function,
        number,
    }
}

fn id(number: u32) -> Id {
    Id {
        ms: 100 + u64::from(number),
        seq: 1,
    }
}

fn seen(entry: &Entry) -> Seen {
    Seen {
        id: Some(entry.id),
        at_us: 0,
        stream: 0,
        kind: entry.kind.clone(),
        data: entry.data.clone(),
    }
}

/// Four events of one topic, acknowledged, logged, and seen by one subscriber.
fn good() -> Evidence {
    let mut evidence = Evidence::default();
    let mut log = Vec::new();
    for number in 0..EVENTS {
        let rng = &mut StdRng::seed_from_u64(u64::from(number));
        let event = SHAPE.event(key(number), 0, 0, rng);
        log.push(Entry {
            id: id(number),
            prev: number.checked_sub(1).map(id).unwrap_or_default(),
            kind: Way::Function.as_str().to_owned(),
            data: event.data.clone(),
            is_gap: false,
        });
        evidence.records.push(Record {
            event,
            fate: Fate::Accepted(Some(id(number))),
            tries: 1,
        });
    }
    evidence.diaries.push(Diary {
        topics: vec![0],
        seen: log.iter().map(seen).collect(),
        resumes: RESUMES_MIN,
        is_finished: true,
        ..Diary::default()
    });
    evidence.logs.push(log);
    evidence
}

fn gap(reason: &str, from: u32, to: u32) -> Gap {
    Gap {
        topic: Some(0),
        reason: reason.to_owned(),
        from: Some(id(from)),
        to: id(to),
        after: Some(id(from)),
        moves: true,
        seen: 1,
        text: String::new(),
    }
}

fn offences(evidence: &Evidence, gaps: &'static [&'static str]) -> Vec<(Offence, usize)> {
    let verdict = judge(
        evidence,
        &Expectation {
            gaps,
            ..Expectation::default()
        },
    );
    assert_eq!(verdict.is_good(), verdict.offences().next().is_none());
    verdict
        .offences()
        .map(|(offence, count, _)| (offence, count))
        .collect()
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn each_wrong_is_called_by_its_name() {
    type Spoil = fn(&mut Evidence);
    let table: [(&str, Spoil, &[Offence]); 18] = [
        ("nothing", |_| {}, &[]),
        (
            "one missing",
            |e| drop(e.diaries[0].seen.remove(1)),
            &[Offence::Lost],
        ),
        (
            "the last one missing",
            |e| drop(e.diaries[0].seen.pop()),
            &[Offence::Lost],
        ),
        (
            "seen twice",
            |e| {
                let again = e.diaries[0].seen[1].clone();
                e.diaries[0].seen.insert(2, again);
            },
            &[Offence::Repeated],
        ),
        (
            "swapped",
            |e| e.diaries[0].seen.swap(1, 2),
            &[Offence::OutOfOrder],
        ),
        (
            "another id",
            |e| e.diaries[0].seen[1].id = Some(Id { ms: 101, seq: 2 }),
            &[Offence::Altered],
        ),
        (
            "no id",
            |e| e.diaries[0].seen[3].id = None,
            &[Offence::Lost, Offence::Altered],
        ),
        (
            "another type",
            |e| e.diaries[0].seen[3].kind = "message".to_owned(),
            &[Offence::Lost, Offence::Altered],
        ),
        (
            "half of the data",
            |e| e.diaries[0].seen[3].data.truncate(20),
            &[Offence::Lost, Offence::Altered],
        ),
        (
            "acknowledged, neither logged nor seen",
            |e| {
                e.diaries[0].seen.pop();
                e.logs[0].pop();
            },
            &[Offence::Lost, Offence::Unlogged],
        ),
        (
            "not acknowledged, neither logged nor seen",
            |e| {
                e.diaries[0].seen.pop();
                e.logs[0].pop();
                e.records[3].fate = Fate::Unknown;
            },
            &[],
        ),
        (
            "not acknowledged, logged, not seen",
            |e| {
                e.diaries[0].seen.pop();
                e.records[3].fate = Fate::Unknown;
            },
            &[Offence::Lost],
        ),
        (
            "acknowledged with another id",
            |e| e.records[1].fate = Fate::Accepted(Some(id(9))),
            &[Offence::Altered],
        ),
        (
            "logged twice",
            |e| {
                let mut again = e.logs[0][3].clone();
                (again.prev, again.id) = (again.id, id(9));
                e.logs[0].push(again);
            },
            &[Offence::Repeated],
        ),
        (
            "a predecessor that is none",
            |e| e.logs[0][2].prev = id(0),
            &[Offence::Altered],
        ),
        (
            "logged in another order than sent",
            |e| {
                for (number, record) in [1, 0].into_iter().zip(&mut e.records) {
                    let rng = &mut StdRng::seed_from_u64(0);
                    record.event = SHAPE.event(key(number), 0, 0, rng);
                }
                for (record, (entry, seen)) in e
                    .records
                    .iter()
                    .zip(e.logs[0].iter_mut().zip(&mut e.diaries[0].seen))
                {
                    entry.data.clone_from(&record.event.data);
                    seen.data.clone_from(&record.event.data);
                }
            },
            &[Offence::OutOfOrder],
        ),
        (
            "a gap",
            |e| e.diaries[0].gaps.push(gap("rewound", 0, 1)),
            &[Offence::Gap],
        ),
        (
            "hardly ever dropped",
            |e| e.diaries[0].resumes = RESUMES_MIN - 1,
            &[Offence::Unproven],
        ),
    ];
    for (name, spoil, expected) in table {
        let mut evidence = good();
        spoil(&mut evidence);
        let found: Vec<Offence> = offences(&evidence, &[])
            .into_iter()
            .map(|(offence, _)| offence)
            .collect();
        assert_eq!(found, expected, "{name}");
    }
}

#[test]
fn a_gap_that_was_expected_explains_what_it_holds_and_no_more() {
    let table = [
        (gap("rewound", 0, 2), vec![]),
        // Back to where the log begins anew: what it holds from there on is owed.
        (gap("rewound", 2, 0), vec![(Offence::Lost, 2)]),
        (gap("rewound", 0, 1), vec![(Offence::Lost, 1)]),
        (gap("rewound", 1, 2), vec![(Offence::Lost, 1)]),
        (gap("late", 0, 2), vec![(Offence::Gap, 1)]),
        (
            Gap {
                after: Some(id(2)),
                ..gap("rewound", 0, 2)
            },
            vec![(Offence::OutOfOrder, 1)],
        ),
        (
            Gap {
                topic: Some(1),
                ..gap("rewound", 0, 2)
            },
            vec![(Offence::Lost, 2)],
        ),
    ];
    for (gap, expected) in table {
        let mut evidence = good();
        evidence.diaries[0].seen.drain(1..3);
        evidence.diaries[0].gaps.push(gap.clone());
        assert_eq!(offences(&evidence, &["rewound"]), expected, "{gap:?}");
    }
}

#[test]
fn what_the_log_forgot_may_come_again_and_is_owed_again() {
    let forgets = Expectation {
        log_forgets: Some(Duration::from_secs(1)),
        ..Expectation::default()
    };
    let mut evidence = good();
    evidence.records[3].fate = Fate::Accepted(None);
    evidence.logs[0][3].id = id(9);
    assert_eq!(judge(&evidence, &forgets).count(Offence::Lost), 1);
    let again = seen(&evidence.logs[0][3]);
    evidence.diaries[0].seen.push(again);
    assert!(judge(&evidence, &forgets).is_good());
    let strict = judge(&evidence, &Expectation::default());
    assert_eq!(
        (
            strict.count(Offence::Repeated),
            strict.count(Offence::Altered)
        ),
        (1, 1)
    );
}

#[test]
fn a_gap_that_goes_back_explains_what_came_after_the_cursor_and_is_gone() {
    let forgets = Expectation {
        gaps: &["ahead"],
        log_forgets: Some(Duration::MAX),
        ..Expectation::default()
    };
    let done = Done {
        from_us: 0,
        to_us: 10,
        what: "FLUSHALL".to_owned(),
        may_lose: true,
    };
    // Seen up to 1; 2 and 3 are forgotten; then the log begins anew below.
    let mut evidence = good();
    evidence.deeds.push(done);
    evidence.diaries[0].seen.truncate(2);
    evidence.logs[0].truncate(2);
    assert_eq!(judge(&evidence, &forgets).count(Offence::Lost), 2);
    evidence.diaries[0].gaps.push(Gap {
        seen: 2,
        to: Id { ms: 50, seq: 0 },
        ..gap("ahead", 1, 0)
    });
    assert!(judge(&evidence, &forgets).is_good());
    // An event of the new log, below what was seen: it is in order, and it is owed.
    let rng = &mut StdRng::seed_from_u64(9);
    let event = SHAPE.event(key(EVENTS), 0, 20, rng);
    let entry = Entry {
        id: Id { ms: 60, seq: 1 },
        prev: Id::default(),
        kind: Way::Function.as_str().to_owned(),
        data: event.data.clone(),
        is_gap: false,
    };
    evidence.logs[0] = vec![entry.clone()];
    evidence.records.push(Record {
        event,
        fate: Fate::Accepted(Some(entry.id)),
        tries: 1,
    });
    assert_eq!(judge(&evidence, &forgets).count(Offence::Lost), 1);
    evidence.diaries[0].seen.push(seen(&entry));
    assert!(judge(&evidence, &forgets).is_good());
    evidence.diaries[0].gaps.clear();
    assert_eq!(judge(&evidence, &forgets).count(Offence::OutOfOrder), 1);
}

#[test]
fn what_was_deleted_is_not_owed_once_that_is_told_and_is_not_shown_again() {
    let deletes = Expectation {
        deleted_within: Some(Duration::from_micros(100)),
        ..Expectation::default()
    };
    let mut evidence = good();
    evidence.logs[0].clear();
    evidence.logs[0].push(Entry {
        id: id(9),
        prev: id(3),
        kind: "tidegate.deleted".to_owned(),
        data: String::new(),
        is_gap: false,
    });
    assert_eq!(judge(&evidence, &deletes).count(Offence::Unlogged), 4);
    evidence.deletions.push(Deletion {
        topic: 0,
        id: id(9),
        at_us: 50,
    });
    evidence.diaries[0].streams.push(Opened {
        door: String::new(),
        opened_us: 150,
        live_us: None,
        cursor: String::new(),
        ended: Ended::Open,
    });
    let verdict = judge(&evidence, &deletes);
    assert!(verdict.is_good());
    assert_eq!(verdict.explained, 4);
    let missing = evidence.diaries[0].seen.split_off(2);
    assert_eq!(judge(&evidence, &deletes).count(Offence::Lost), 2);
    evidence.diaries[0].deleted.push((0, id(9)));
    assert!(judge(&evidence, &deletes).is_good());
    evidence.diaries[0].seen.extend(missing);
    evidence.diaries[0].streams[0].opened_us = 151;
    assert_eq!(judge(&evidence, &deletes).count(Offence::Deleted), 4);
}

#[test]
fn a_publish_that_can_be_repeated_is_taken_soon() {
    let soon = Expectation {
        tries_max: Some(3),
        ..Expectation::default()
    };
    let mut evidence = good();
    evidence.records[1].tries = 3;
    assert!(judge(&evidence, &soon).is_good());
    evidence.records[1].tries = 4;
    evidence.records[2].fate = Fate::Unknown;
    assert_eq!(judge(&evidence, &soon).count(Offence::Refused), 2);
}
