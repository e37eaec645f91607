use super::*;

fn item_of(payload: &[u8]) -> Result<Item, Unfit> {
    Item::read("events", b"events", payload, 3_000)
}

fn item(channel: &str, payload: &[u8]) -> Option<(String, String)> {
    Item::read("events", channel.as_bytes(), payload, 8)
        .map(|item| (item.topic.to_string(), item.event_type.to_string()))
        .ok()
}

fn ear(name: &str) -> Ear {
    let owed_max = OwedMax {
        publishes: 100,
        bytes: 10_000,
    };
    Ear::new(name.into(), owed_max)
}

#[test]
fn channels_name_topic_and_type() {
    let pair = |a: &str, b: &str| Some((a.to_owned(), b.to_owned()));
    assert_eq!(item("events", b"x"), pair("events", ""));
    assert_eq!(item("events:news", b"x"), pair("news", ""));
    assert_eq!(item("events:news#price", b"x"), pair("news", "price"));
    assert_eq!(item("events:a:b#c#d", b""), pair("a:b", "c#d"));
    for (channel, payload) in [
        ("events:", &b"x"[..]),
        ("events:a,b", b"x"),
        ("events:tidegate.x", b"x"),
        ("eventsnews", b"x"),
        ("events:a", b"\xff"),
        ("events:a", b"123456789"),
        ("events:a#b\nc", b"x"),
    ] {
        assert_eq!(item(channel, payload), None, "{channel:?}");
    }
}

#[test]
fn what_is_counted_stays_owed_until_it_is_logged() {
    let now = Instant::now();
    let mut ear = ear("a");
    assert!(
        !ear.hear_raw(b"events", b"x", item_of(b"x"), now),
        "nothing is counted before an epoch"
    );
    ear.subscribed("run");
    ear.hear_start("e1", "a", "run", now);
    assert!(ear.hear_raw(b"events", b"x", item_of(b"x"), now));
    ear.cut();
    let append = ear.next(now).unwrap();
    assert_eq!((append.first, append.items.len(), append.end), (1, 1, None));
    ear.answered(Outcome::Unknown, now);
    assert_eq!(ear.owes(), 1);
    let again = ear.next(now + RETRY).unwrap();
    assert_eq!(again.items, append.items);
    ear.answered(Outcome::Logged(1), now);
    assert_eq!(ear.owes(), 0);
}

/// What the new ear counts waits for the old epoch's end: nobody's patience may come before it.
#[test]
fn who_appended_an_epoch_ends_it_at_once_when_another_ear_begins_the_next() {
    let now = Instant::now();
    let begun = |appends: &str| {
        let mut ear = ear("a");
        ear.subscribed("run");
        ear.hear_start("e1", appends, "run", now);
        ear.hear_start("e2", "b", "run", now);
        assert!(ear.hear_raw(b"events", b"x", item_of(b"x"), now));
        ear
    };
    let mut ear = begun("a");
    let end = ear.next(now).unwrap();
    assert_eq!((&*end.epoch, end.end), ("e1", Some(0)));
    ear.answered(Outcome::Logged(0), now);
    assert_eq!(ear.next(now), None, "the next is for the other");
    assert_eq!(begun("c").next(now), None, "another ear appended the first");
}

/// The log compares hashes: with a wrong one it would take this ear for one that misheard.
#[test]
fn the_end_of_an_epoch_goes_on_where_its_last_publish_left_off() {
    let now = Instant::now();
    let mut ear = ear("a");
    ear.subscribed("run");
    ear.hear_start("e1", "a", "run", now);
    ear.hear_raw(b"events", b"x", item_of(b"x"), now);
    let hash = ear.next(now).unwrap().items[0].0;
    ear.answered(Outcome::Logged(1), now);
    ear.hear_start("e2", "a", "run", now);
    let end = ear.next(now).unwrap();
    assert_eq!((&*end.epoch, end.end), ("e1", Some(1)));
    assert_eq!((end.first, end.before, end.items.len()), (2, hash, 0));
}

/// Whatever the size of what is heard, one publish is taken, and what falls out later is given back.
#[test]
fn what_is_owed_is_bounded_in_bytes() {
    let now = Instant::now();
    let mut ear = ear("a");
    ear.subscribed("run");
    ear.hear_start("e1", "a", "run", now);
    let payload = [b'x'; 3_000];
    let hear = |ear: &mut Ear| {
        let item = item_of(&payload);
        ear.hear_raw(b"events", &payload, item, now)
    };
    let counted = (0..10).filter(|_| hear(&mut ear)).count();
    assert_eq!(
        counted, 4,
        "the fourth passes the bound, and no fifth is taken"
    );
    assert!(ear.is_full() && !ear.counts() && !ear.has_room());
    assert!(ear.next(now).is_some());
    ear.answered(Outcome::Logged(2), now);
    assert!(!ear.is_full() && !ear.has_room(), "{}", ear.owes_bytes());
    assert!(ear.next(now).is_some());
    ear.answered(Outcome::Stale, now);
    assert_eq!((ear.owes_bytes(), ear.has_room()), (0, true));
}

/// An ear with one publish of an epoch that another ear begins.
fn waiting(now: Instant) -> Ear {
    let mut ear = ear("a");
    ear.subscribed("run");
    ear.hear_start("e1", "b", "run", now);
    assert_eq!(ear.due(), None, "nothing is owed");
    assert!(ear.hear_raw(b"events", b"x", item_of(b"x"), now));
    ear
}

/// All of them would append at once else, where one does.
#[test]
fn an_ear_is_patient_until_the_one_that_appends_has_left() {
    let now = Instant::now();
    let mut ear = waiting(now);
    assert!(ear.due().unwrap() >= now + PATIENCE && ear.next(now).is_none());
    ear.hear_leave("c");
    assert!(ear.due().unwrap() >= now + PATIENCE && !ear.is_eager());
    ear.hear_leave("b");
    assert!(ear.is_eager() && ear.next(now).is_some());
    assert_eq!(ear.due(), None, "one append is under way");
    // Another one appends by now: who leaves is not that one.
    ear.answered(Outcome::Logged(1), now);
    ear.hear_done("e1", 1, "c");
    ear.hear_leave("b");
    assert!(!ear.is_eager());
}

#[test]
fn an_append_that_failed_is_tried_again_after_a_pause() {
    for outcome in [Outcome::Unknown, Outcome::Wait, Outcome::Hole] {
        let now = Instant::now();
        let mut ear = waiting(now);
        ear.hear_leave("b");
        assert!(ear.next(now).is_some());
        ear.answered(outcome, now);
        assert_eq!(ear.due(), Some(now + RETRY));
        assert!(ear.next(now).is_none());
        assert!(ear.next(now + RETRY).is_some_and(|again| !again.force));
    }
}

#[test]
fn counting_begins_while_less_than_half_of_what_may_be_owed_is_owed() {
    let now = Instant::now();
    for (owes, has_room) in [(0, true), (49, true), (50, false), (99, false)] {
        let mut ear = ear("a");
        ear.owed_max.bytes = usize::MAX / 4;
        ear.subscribed("run");
        ear.hear_start("e1", "a", "run", now);
        for _ in 0..owes {
            ear.hear_raw(b"events", b"x", item_of(b"x"), now);
        }
        assert_eq!((ear.owes(), ear.has_room()), (owes, has_room));
        // The same of bytes.
        let bytes = ear.owes_bytes();
        ear.owed_max.publishes = 1_000;
        for (bytes_max, has_room) in [(2 * bytes + 1, true), (2 * bytes, false)] {
            ear.owed_max.bytes = bytes_max;
            assert_eq!(ear.has_room(), has_room, "{bytes} of {bytes_max}");
        }
        ear.cut();
        ear.subscribed("run");
        assert!(!ear.wants_epoch(), "no room");
    }
}

/// The log compares the hashes of all ears, and takes none that has heard something else.
#[test]
fn ears_that_heard_something_else_have_another_hash() {
    let hash = |publishes: &[(&str, &str)]| {
        let roll_one = |hash, (channel, payload): &(&str, &str)| {
            roll(hash, channel.as_bytes(), payload.as_bytes())
        };
        publishes.iter().fold(0, roll_one)
    };
    let one = hash(&[("events:a", "x"), ("events:b", "y")]);
    assert_eq!(one, hash(&[("events:a", "x"), ("events:b", "y")]));
    for other in [
        &[("events:b", "y"), ("events:a", "x")][..],
        &[("events:a", "x")],
        &[("events:b", "y")],
        &[("events:a", "x"), ("events:b", "y"), ("events:b", "y")],
        &[("events:a", "x"), ("events:c", "y")],
        &[("events:a", "x"), ("events:b", "z")],
        &[("events:ax", ""), ("events:b", "y")],
        &[],
    ] {
        assert_ne!(one, hash(other), "{other:?}");
    }
}

/// A log that has not come as far says so, and takes the end when it has.
#[test]
fn an_end_that_is_not_reached_is_tried_again_after_a_pause() {
    let now = Instant::now();
    let mut ear = ear("a");
    ear.subscribed("run");
    ear.hear_start("e1", "a", "run", now);
    ear.hear_raw(b"events", b"x", item_of(b"x"), now);
    assert!(ear.next(now).is_some());
    ear.answered(Outcome::Logged(1), now);
    ear.hear_start("e2", "a", "run", now);
    assert_eq!(ear.next(now).and_then(|append| append.end), Some(1));
    ear.answered(Outcome::Logged(0), now);
    assert_eq!((ear.owes(), ear.due()), (1, Some(now + RETRY)));
    assert!(ear.next(now).is_none());
    let again = ear.next(now + RETRY);
    assert_eq!(again.and_then(|append| append.end), Some(1));
    ear.answered(Outcome::Logged(1), now);
    assert_eq!((ear.owes(), ear.due()), (0, None));
}

/// Another ear owes it, and may be gone.
#[test]
fn what_is_missing_is_waited_for_and_then_gone_without() {
    let now = Instant::now();
    let almost = FORCE_AFTER.saturating_sub(Duration::from_millis(1));
    for outcome in [Outcome::Wait, Outcome::Hole] {
        for (at, force) in [(RETRY, false), (almost, false), (FORCE_AFTER, true)] {
            let mut ear = waiting(now);
            ear.hear_leave("b");
            assert!(ear.next(now).is_some_and(|append| !append.force));
            ear.answered(outcome, now);
            let append = ear.next(now + at);
            assert!(append.is_some_and(|append| append.force == force), "{at:?}");
            ear.answered(Outcome::Logged(1), now + at);
            assert!(ear.hear_raw(b"events", b"x", item_of(b"x"), now));
            let next = ear.next(now + FORCE_AFTER);
            assert!(next.is_some_and(|append| !append.force), "it goes on");
        }
    }
}

#[test]
fn an_ear_that_is_not_the_one_to_append_is_patient_before_each_append() {
    let now = Instant::now();
    let mut ear = waiting(now);
    let later = now + 2 * PATIENCE;
    assert!(ear.next(later).is_some(), "the one that appends is late");
    assert!(ear.hear_raw(b"events", b"x", item_of(b"x"), later));
    ear.answered(Outcome::Logged(1), later);
    assert_eq!(ear.next(later), None);
    assert!(ear.due().unwrap() >= later + PATIENCE);
    assert!(ear.next(later + 2 * PATIENCE).is_some());
}

#[test]
fn an_append_is_bounded_in_publishes_and_in_bytes() {
    let now = Instant::now();
    let table = [(1, 300, [BATCH, BATCH, 44]), (100 * 1024, 9, [3, 3, 3])];
    for (bytes, owed, items) in table {
        let mut ear = ear("a");
        (ear.owed_max.publishes, ear.owed_max.bytes) = (1_000, usize::MAX / 4);
        ear.subscribed("run");
        ear.hear_start("e1", "a", "run", now);
        let payload = vec![b'x'; bytes];
        for _ in 0..owed {
            let item = Item::read("events", b"events", &payload, bytes);
            assert!(ear.hear_raw(b"events", &payload, item, now));
        }
        let mut logged = 0;
        for items in items {
            let append = ear.next(now).unwrap();
            assert_eq!((append.first, append.items.len()), (logged + 1, items));
            logged += items as u64;
            ear.answered(Outcome::Logged(logged), now);
        }
    }
}

/// Else ears that append by turns would keep it waiting for ever.
#[test]
fn patience_begins_with_what_is_owed_and_ends_when_the_ear_is_the_one_to_append() {
    let now = Instant::now();
    let mut ear = waiting(now);
    let due = ear.due();
    for other in ["b", "c"] {
        ear.hear_done("e1", 0, other);
        assert_eq!(ear.due(), due, "{other}");
    }
    assert!(ear.next(now).is_none());
    // Its append had gone through although it was not told.
    ear.hear_done("e1", 0, "a");
    assert!(ear.next(now).is_some());
}
