use super::super::tests::{ledger, publish, read, topic};
use super::*;
use crate::log::ClockName;

/// What a report has written down as lost: above the one, up to the other.
fn gap_of(frames: &LiveFrames) -> Option<(Id, Id)> {
    frames.iter().find_map(|(_, frame)| match frame.mark {
        Mark::Gap { from, lost } => Some((from, lost)),
        _ => None,
    })
}

/// A replica had followed a clock that was ahead; Redis lost all it had, and began below. What
/// was published before the report is at or below what the replica has heard, and not shown.
#[test]
fn what_a_clock_that_began_anew_gave_out_before_the_report_is_told() {
    let heard = Id::new(99_000, 3);
    let followed = Followed {
        heard,
        known: heard,
        born: Some(Id::new(90_000, 0)),
        seam: Some(Id::ZERO),
        run: None,
    };
    let mut log = ledger(10);
    let born = log.horizon(10_000).born;
    publish(&mut log, 2, 10_001);
    let told = log.report(followed, &[(topic(), Id::ZERO)], 10_002);
    assert_eq!(gap_of(&told), Some((born, heard)));
    assert!(log.last() > heard, "it goes on above what was heard");
    // The process ends before the report: what it gave out is below the seam.
    let mut log = ledger(10);
    publish(&mut log, 2, 10_001);
    log.run += 1;
    publish(&mut log, 1, 10_002);
    let told = log.report(followed, &[(topic(), Id::ZERO)], 10_003);
    assert_eq!(gap_of(&told), Some((born, heard)));
    // Trimmed already: the log does not say what it was.
    let mut log = ledger(1);
    publish(&mut log, 2, 10_001);
    log.last = Id::new(99_500, 0);
    publish(&mut log, 1, 10_002);
    let told = log.report(followed, &[(topic(), Id::ZERO)], 10_003);
    assert_eq!(gap_of(&told), Some((born, heard)));
    // Nothing was published: nothing is lost.
    let mut log = ledger(10);
    let told = log.report(followed, &[(topic(), Id::ZERO)], 10_002);
    assert_eq!(gap_of(&told), None);
    assert!(log.last() > heard);
}

/// A replica had heard more of a topic, and of a clock, than it followed, and another clock went on
/// below that: what it gave out seemed to go back, without end.
#[test]
fn what_was_heard_is_not_given_out_again_although_nobody_followed_it() {
    let heard = Id::new(99_000, 3);
    let more = Id::new(99_000, 9);
    for born in [Some(Id::new(90_000, 0)), None] {
        let followed = Followed {
            born,
            ..Followed::from(heard)
        };
        let mut log = ledger(10);
        log.report(followed, &[(topic(), more)], 10_002);
        assert!(publish(&mut log, 1, 10_003)[0] > more);
        let followed = Followed {
            known: more,
            ..followed
        };
        let mut log = ledger(10);
        log.report(followed, &[(topic(), Id::ZERO)], 10_002);
        assert!(publish(&mut log, 1, 10_003)[0] > more);
        // The process that it followed has lost its tail.
        let mut log = ledger(10);
        let followed = Followed {
            known: more,
            ..Followed::by(log.name(), log.last())
        };
        assert!(log.report(followed, &[], 10_002).is_empty());
        assert!(publish(&mut log, 1, 10_003)[0] > more);
    }
}

/// What was heard before anything of a new process was followed was lost with that process, and the log
/// held other events of the topic at ids that nobody is shown.
#[test]
fn an_entry_above_what_was_followed_is_told_beside_what_is_below() {
    let mut log = ledger(10);
    let known = publish(&mut log, 1, 10_001)[0];
    let seen = log.horizon(10_001);
    let followed = Followed::by(ClockName::of(&seen), Id::new(10_400, 0));
    log.run = 1;
    let kept = publish(&mut log, 1, 10_100)[0];
    assert!(kept < followed.heard, "{kept}");
    let waited = Id::new(30_000, 1);
    let told = log.report(followed, &[(topic(), known), (topic(), waited)], 20_300);
    let covers = |id: Id| {
        told.iter().any(
            |(_, frame)| matches!(frame.mark, Mark::Gap { from, lost } if from < id && id <= lost),
        )
    };
    assert!(covers(kept) && covers(waited), "{told:?}");
}

/// Frames of the log before FLUSHALL came after the log was told of them and read. Streams stood there, and
/// what the new log gives out below is shown to nobody.
#[test]
fn what_lies_below_an_id_that_was_heard_and_not_followed_is_told() {
    let mut log = ledger(10);
    let seen = log.horizon(10_000);
    let unseen = publish(&mut log, 1, 10_200)[0];
    let passed = Id::new(10_300, 0);
    let followed = Followed {
        known: passed,
        ..Followed::by(ClockName::of(&seen), Id::new(10_100, 0))
    };
    let told = log.report(followed, &[(topic(), Id::ZERO)], 10_250);
    let (from, lost) = gap_of(&told).unwrap();
    assert!(from < unseen && lost == passed, "{told:?}");
    assert!(log.last() > passed);
}

/// The process that a replica followed went, and so did the next one before the report.
#[test]
fn what_two_processes_wrote_that_a_replica_did_not_follow_is_told() {
    let mut log = ledger(10);
    let known = publish(&mut log, 1, 10_001)[0];
    let seen = log.horizon(10_001);
    // It followed a clock that was ahead, and which the log has forgotten.
    let followed = Followed::by(ClockName::of(&seen), Id::new(10_400, 0));
    for run in 1..=2 {
        log.run = run;
        publish(&mut log, 1, 10_100 * run);
    }
    let seams: Vec<Id> = log.seams.iter().map(|seam| seam.before).collect();
    assert_eq!(seams.len(), 2);
    let told = log.report(followed, &[(topic(), known)], 20_300);
    assert_eq!(gap_of(&told), Some((seams[0], followed.heard)));
    // A second replica that had heard no more is told by the same entry.
    let told = log.report(followed, &[(topic(), known)], 20_400);
    assert_eq!(gap_of(&told), None);
}

/// A process loaded a snapshot, was followed, and died; the next one loaded the same snapshot, so that its
/// seam begins where that of the one before began, and its clock was behind. What it gave out before the
/// report is at or below what streams were shown of the first.
#[test]
fn two_processes_that_began_with_one_snapshot_are_not_one() {
    let mut first = ledger(10);
    let kept = publish(&mut first, 1, 10_001)[0];
    let mut second = first.clone();
    first.run = 1;
    publish(&mut first, 1, 10_002);
    let followed = Followed::by(ClockName::of(&first.horizon(10_300)), Id::new(10_300, 0));
    second.run = 2;
    let unseen = publish(&mut second, 1, 10_003)[0];
    assert_eq!(first.name().seam, second.name().seam);
    assert!(unseen < followed.heard, "{unseen}");
    let told = second.report(followed, &[(topic(), kept)], 10_004);
    assert_eq!(gap_of(&told), Some((kept, followed.heard)));
}

/// Told as lost is only what a replica did not follow.
#[test]
fn a_replica_that_has_followed_everything_writes_no_gap() {
    let mut log = ledger(10);
    publish(&mut log, 1, 10_001);
    log.run = 1;
    let last = publish(&mut log, 2, 10_100)[1];
    let followed = Followed::by(ClockName::of(&log.horizon(10_100)), last);
    log.run = 2;
    publish(&mut log, 1, 10_200);
    let told = log.report(followed, &[(topic(), last)], 10_300);
    assert_eq!(gap_of(&told), None);
}

/// The log of one process goes back, as by REPLICAOF: lost is what stood above the last entry that it
/// still has, and what came before is shown to whoever resumes.
#[test]
fn a_process_that_goes_on_has_lost_no_more_than_its_tail() {
    let mut log = ledger(10);
    let kept = publish(&mut log, 3, 10_001)[2];
    let mut before = log.clone();
    let lost = publish(&mut log, 2, 10_010)[1];
    let followed = Followed::by(ClockName::of(&log.horizon(10_010)), lost);
    let told = before.report(followed, &[(topic(), lost)], 10_020);
    assert_eq!(gap_of(&told), Some((kept, lost)));
    let seam = before.horizon(10_020).seams[0];
    assert_eq!(seam.before, kept);
    assert!(lost < seam.after);
    // Somebody has published before the report.
    let mut before = log.clone();
    before.logs.get_mut(&topic()).unwrap().entries.truncate(3);
    before.logs.get_mut(&topic()).unwrap().head = kept;
    publish(&mut before, 1, 10_030);
    let told = before.report(followed, &[(topic(), lost)], 10_040);
    assert_eq!(gap_of(&told), Some((kept, lost)));
    assert!(
        before.horizon(10_040).seams.is_empty(),
        "other topics have lost nothing"
    );
    // A second replica that heard the same, and one that has heard all since.
    assert!(
        before
            .report(followed, &[(topic(), lost)], 10_050)
            .is_empty()
    );
    let last = before.last();
    let followed = Followed::by(ClockName::of(&before.horizon(10_050)), last);
    assert!(
        before
            .report(followed, &[(topic(), last)], 10_060)
            .is_empty()
    );
}

/// A frame that came twice leads to a report, too.
#[test]
fn a_report_of_what_the_log_has_writes_nothing() {
    let mut log = ledger(10);
    let last = publish(&mut log, 3, 10_001)[2];
    let seen = log.horizon(10_001);
    let followed = Followed::by(ClockName::of(&seen), last);
    assert!(log.report(followed, &[(topic(), last)], 10_002).is_empty());
    assert_eq!(log.horizon(10_001), seen);
}

#[test]
fn a_loss_outlives_the_entry_that_tells_of_it() {
    let mut log = ledger(2);
    let kept = publish(&mut log, 1, 10_001)[0];
    let lost = Id::new(10_002, 1);
    log.run = 1;
    publish(&mut log, 1, 10_010);
    let told = log.report(lost, &[(topic(), lost)], 10_020);
    let entry = told[0].1.id;
    publish(&mut log, 3, 10_030);
    let horizon = read(&mut log, 10_040).horizon;
    let loss = Loss {
        from: kept,
        told: entry,
    };
    assert_eq!(horizon.losses, [loss]);
    // Another replica reports the same: whoever is before the entry is told by its loss.
    assert!(log.report(lost, &[(topic(), lost)], 10_050).is_empty());
}

/// Two replicas report the same, and the second may do so late.
#[test]
fn a_stretch_is_written_down_once_as_long_as_the_log_remembers_it() {
    let mut log = ledger(1_000);
    let (gaps, losses) = (GAPS_MAX as u64, LOSSES_MAX as u64);
    let tell = |log: &mut Ledger, number: u64| {
        let (from, lost) = (Id::new(number, 0), Id::new(number, 1));
        log.write_gap(&topic(), from, lost, 20_000).is_some()
    };
    assert!((1..=gaps).all(|number| tell(&mut log, number)));
    assert!((1..=gaps).all(|number| !tell(&mut log, number)));
    assert!(tell(&mut log, gaps + 1));
    assert!(
        !tell(&mut log, 2) && tell(&mut log, 1),
        "the oldest is forgotten"
    );
    // Losses of all topics together are bounded, too, and the oldest goes.
    for (told, oldest) in [(losses, 1), (losses + 1, 2)] {
        let mut log = ledger(1_000);
        assert!((1..=told).all(|number| tell(&mut log, number)));
        let known = log.horizon(20_001).losses;
        let from = known.iter().map(|loss| loss.from.ms).min();
        assert_eq!((known.len(), from), (LOSSES_MAX, Some(oldest)));
    }
}

/// An id at either end of a seam was given out beside it.
#[test]
fn a_seam_lies_between_its_ends() {
    let mut log = ledger(10);
    let (before, after) = (Id::new(20_000, 3), Id::new(22_000, 1));
    log.seams.push_back(Seam { before, after });
    let table = [
        (before, None),
        (Id::new(20_000, 4), Some(before)),
        (Id::new(22_000, 0), Some(before)),
        (after, None),
    ];
    for (id, around) in table {
        assert_eq!(log.seam_around(id), around, "{id}");
    }
}
