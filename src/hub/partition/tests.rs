//! What is known of a clock, one step at a time.

use super::*;
use crate::log::RunId;

fn id(ms: u64) -> Id {
    Id::new(ms, 0)
}

fn horizon(born: u64, last: u64, lost: &[u64]) -> Horizon {
    let loss = |from: &u64| Loss {
        from: id(*from),
        told: id(last),
    };
    Horizon {
        last: id(last),
        born: id(born),
        seams: Vec::new(),
        losses: lost.iter().map(loss).collect(),
        now_ms: last,
        run: RunId(1),
    }
}

/// Reads the clock that is followed; where the losses begin that are known then.
fn learn(partition: &Partition, mut read: Horizon) -> Vec<u64> {
    let generation = partition.settled().unwrap();
    assert_eq!(partition.learn(&mut read, generation), Learned::Counts);
    read.losses.iter().map(|loss| loss.from.ms).collect()
}

/// The live path begins anew, with a log that was told what was heard before.
fn follow(partition: &Partition, told: &Horizon) {
    partition.begin_generation();
    partition.begin_following(Some(ClockName::of(told)));
}

#[test]
fn losses_of_clocks_before_are_remembered_and_those_of_the_present_one_are_as_read() {
    let partition = Partition::new(0);
    follow(&partition, &horizon(1, 1, &[]));
    assert_eq!(learn(&partition, horizon(1, 5, &[2])), [2]);
    assert_eq!(learn(&partition, horizon(1, 6, &[2, 3])), [2, 3]);
    assert_eq!(learn(&partition, horizon(1, 7, &[3])), [3]);
    let emptied = horizon(8, 9, &[]);
    follow(&partition, &emptied);
    assert_eq!(learn(&partition, emptied.clone()), [3]);
    assert_eq!(learn(&partition, horizon(8, 10, &[9])), [9, 3]);
    assert_eq!(learn(&partition, horizon(8, 11, &[9])), [9, 3]);
}

#[test]
fn losses_of_clocks_before_are_bounded_and_the_oldest_go() {
    let partition = Partition::new(0);
    let clocks = LOSSES_MAX as u64 + 2;
    for born in 1..=clocks {
        let read = horizon(born, born, &[born]);
        follow(&partition, &read);
        learn(&partition, read);
    }
    let known = learn(&partition, horizon(clocks, clocks, &[]));
    assert_eq!(known, (2..clocks).collect::<Vec<_>>());
}

/// Frames may be of a log that was emptied between their publish and the report.
#[test]
fn what_is_heard_before_the_clock_is_named_was_not_followed() {
    let partition = Partition::new(0);
    let log = horizon(1, 1, &[]);
    let name = ClockName::of(&log);
    let tick = |ms| Tick {
        id: id(ms),
        of: Some(name),
    };
    partition.begin_generation();
    assert!(partition.hear(id(5), false));
    partition.begin_following(Some(name));
    assert!(partition.hear(id(6), false));
    let followed = partition.followed();
    assert_eq!((followed.heard, followed.known), (Id::ZERO, id(6)));
    assert!(partition.tick(&tick(7)));
    assert!(partition.hear(id(8), false));
    assert_eq!(partition.followed().heard, id(8));
    // On the next connection anew.
    partition.begin_generation();
    partition.begin_following(None);
    assert!(partition.hear(id(9), false));
    let followed = partition.followed();
    assert_eq!((followed.heard, followed.known), (id(8), id(9)));
}

/// Only the log that the live path showed begins where the one before was heard to its end.
#[test]
fn a_topic_is_complete_to_the_birth_of_the_log_that_the_live_path_showed_next() {
    let partition = Partition::new(0);
    follow(&partition, &horizon(1, 1, &[]));
    partition.estrange(id(6));
    let changed = partition.changed().unwrap();
    let table = [
        ("this log", id(3), horizon(5, 6, &[]), 5),
        ("and further", id(3), horizon(5, 9, &[]), 5),
        ("complete beyond", id(7), horizon(5, 9, &[]), 7),
        ("it has gone back since", id(3), horizon(5, 5, &[]), 3),
        ("it began there", id(3), horizon(6, 9, &[]), 3),
        ("it began later", id(3), horizon(7, 9, &[]), 3),
    ];
    for (what, at, read, complete) in table {
        let found = partition.complete_in(at, changed, &read);
        assert_eq!(found, id(complete), "{what}");
    }
    partition.begin_generation();
    partition.begin_following(None);
    partition.estrange(id(6));
    let found = partition.complete_in(id(3), changed, &horizon(5, 6, &[]));
    assert_eq!(found, id(3), "another change has come since");
}
