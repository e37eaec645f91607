//! Evidence that is good, and what each way of spoiling it is called.

use super::*;
use crate::event::{Shape, Way};
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
        (gap("rewound", 2, 0), vec![]),
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
