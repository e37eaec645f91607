use super::*;
use crate::event::EventType;

const LEAP: u64 = 50;
const AGE: u64 = 1_000;

pub(in crate::broker::ledger) fn ledger(events_max: usize) -> Ledger {
    let retention = Retention {
        bounds: Bounds {
            events_max,
            age_ms: AGE,
        },
        rules: Vec::new(),
        event_bytes_max: 100,
        topics_max: 0,
        idempotency_ms: 1_000,
        leap_ms: LEAP,
    };
    Ledger::new(retention, 10_000)
}

pub(in crate::broker::ledger) fn topic() -> Topic {
    Topic::parse("a").unwrap()
}

/// Publishes so many events at once.
pub(in crate::broker::ledger) fn publish(
    ledger: &mut Ledger,
    count: usize,
    now_ms: u64,
) -> Vec<Id> {
    let event = Publication {
        topic: topic(),
        event_type: EventType::default(),
        data: "x".into(),
        end: false,
        idempotency_key: None,
    };
    let (ids, _) = ledger.publish(&vec![event; count], now_ms).unwrap();
    ids.into_iter().flatten().collect()
}

pub(in crate::broker::ledger) fn read(ledger: &mut Ledger, now_ms: u64) -> Reading {
    let request = ReadRequest {
        topic: topic(),
        after: Id::ZERO,
        limit: 100,
    };
    ledger.read(&[request], now_ms)
}

/// The clock may be put back after a read: what is given out then was told as expired.
#[test]
fn nothing_has_expired_that_was_not_given_out() {
    let mut log = ledger(10);
    let last = publish(&mut log, 1, 20_000)[0];
    let later = 20_000 + 2 * (AGE + EXPIRY_SLACK_MS);
    let page = read(&mut log, later).pages.remove(0);
    assert_eq!(page.floor, Floor::Empty(last));
    assert!(publish(&mut log, 1, 20_001)[0] > last);
}

/// A clock that was put forward has a log expire early, and the next one must not say that it holds all.
#[test]
fn a_log_that_expired_early_is_told_by_the_next() {
    let mut log = ledger(10);
    let last = publish(&mut log, 1, 20_000)[0];
    read(&mut log, 20_000 + 2 * AGE);
    publish(&mut log, 1, 20_001);
    let page = read(&mut log, 20_001).pages.remove(0);
    assert_eq!(page.floor, Floor::Log(last));
}

/// Events of the very millisecond in which other ages were configured were kept by the old ones.
#[test]
fn what_expired_by_the_ages_before_is_below_the_floor() {
    let mut log = ledger(10);
    let burst = publish(&mut log, 3, 20_000);
    let mut retention = log.retention.clone();
    retention.bounds.age_ms = 100 * EXPIRY_SLACK_MS;
    log.configure(retention, 20_000);
    let later = 20_000 + AGE + EXPIRY_SLACK_MS + 1;
    let page = read(&mut log, later).pages.remove(0);
    assert!(page.frames.is_empty(), "it has expired");
    assert_eq!(page.floor, Floor::Empty(burst[2]));
    // And a log that begins then.
    publish(&mut log, 1, later);
    let page = read(&mut log, later).pages.remove(0);
    assert_eq!(page.floor, Floor::Log(Id::before_ms(20_001)));
}

/// FLUSHALL leaves no key and the same process.
#[test]
fn a_log_that_was_flushed_begins_anew_with_the_same_process() {
    let mut log = ledger(10);
    log.run = 3;
    publish(&mut log, 2, 20_000);
    let before = log.name();
    log.flush(20_500);
    let reading = read(&mut log, 20_501);
    assert!(reading.pages[0].frames.is_empty() && reading.horizon.seams.is_empty());
    assert_eq!(log.name().run, before.run);
    assert!(before.born < log.name().born, "its clock is another one");
    publish(&mut log, 1, 20_600);
    assert!(read(&mut log, 20_601).horizon.seams.is_empty());
}

/// As much again, so that one that is empty is not taken for one that is lost; but no more than an hour.
#[test]
fn a_log_outlives_its_last_entry_by_its_age_and_some_time() {
    const HOUR: u64 = EXPIRY_SLACK_MS;
    for (age, outlives) in [(0, 0), (10, 20), (HOUR, 2 * HOUR), (3 * HOUR, 4 * HOUR)] {
        assert_eq!(expiry(5, age), 5 + outlives, "{age}");
    }
}

#[test]
fn a_log_takes_as_much_as_its_limits_say_and_refuses_what_is_beyond() {
    let mut log = ledger(10);
    log.retention.topics_max = 2;
    let mut publish = |name: &str, bytes: usize| {
        let event = Publication {
            topic: Topic::parse(name).unwrap(),
            event_type: EventType::default(),
            data: "x".repeat(bytes),
            end: false,
            idempotency_key: None,
        };
        log.publish(&[event], 20_000).map(drop)
    };
    assert!(publish("a", 100).is_ok());
    let large = publish("a", 101);
    assert!(
        matches!(large, Err(BrokerError::TooLarge(100))),
        "{large:?}"
    );
    assert!(publish("b", 1).is_ok());
    let many = publish("c", 1);
    assert!(
        matches!(many, Err(BrokerError::TooManyTopics(2))),
        "{many:?}"
    );
    assert!(publish("b", 1).is_ok(), "it is there already");
}
