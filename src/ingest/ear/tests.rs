use super::*;
use crate::ingest::counting::roll;

fn item_of(payload: &[u8]) -> Result<Item, Unfit> {
    Item::read("events", b"events", payload, 3_000)
}

fn item(channel: &str, payload: &[u8]) -> Option<(String, String)> {
    Item::read("events", channel.as_bytes(), payload, 8)
        .map(|item| (item.topic.to_string(), item.event_type.to_string()))
        .ok()
}

fn start(ear: &mut Ear, epoch: &str, by: &str, now: Instant) {
    ear.hear_start(epoch, (by, Heard::NOTHING), "run", None, now);
}

fn logged_to(n: u64) -> Outcome {
    Outcome::Logged(vec![(Class::COMMON, n)])
}

/// The number of the first item, or of the one that would come next.
fn first(append: &Append) -> u64 {
    append.classes[0].1
}

/// How many there are, if it says that this is all.
fn end(append: &Append) -> Option<u64> {
    append.end.as_ref().map(|ends| ends[0].1)
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
        !ear.hear_raw(true, b"events", b"x", item_of(b"x"), now),
        "nothing is counted before an epoch"
    );
    ear.subscribed("run", &Heard::default());
    start(&mut ear, "e1", "a", now);
    assert!(ear.hear_raw(true, b"events", b"x", item_of(b"x"), now));
    ear.cut();
    let append = ear.next(now).unwrap();
    assert_eq!(
        (first(&append), append.items.len(), end(&append)),
        (1, 1, None)
    );
    ear.answered(Outcome::Unknown, now);
    assert_eq!(ear.owes(), 1);
    let again = ear.next(now + RETRY).unwrap();
    assert_eq!(again.items, append.items);
    ear.answered(logged_to(1), now);
    assert_eq!(ear.owes(), 0);
}

/// What the new ear counts waits for the old epoch's end: nobody's patience may come before it.
#[test]
fn who_appended_an_epoch_ends_it_at_once_when_another_ear_begins_the_next() {
    let now = Instant::now();
    let begun = |appends: &str| {
        let mut ear = ear("a");
        ear.subscribed("run", &Heard::default());
        start(&mut ear, "e1", appends, now);
        start(&mut ear, "e2", "b", now);
        assert!(ear.hear_raw(true, b"events", b"x", item_of(b"x"), now));
        ear
    };
    let mut ear = begun("a");
    let last = ear.next(now).unwrap();
    assert_eq!((&*last.epoch, end(&last)), ("e1", Some(0)));
    ear.answered(logged_to(0), now);
    assert_eq!(ear.next(now), None, "the next is for the other");
    assert_eq!(begun("c").next(now), None, "another ear appended the first");
}

/// The log compares hashes: with a wrong one it would take this ear for one that misheard.
#[test]
fn the_end_of_an_epoch_goes_on_where_its_last_publish_left_off() {
    let now = Instant::now();
    let mut ear = ear("a");
    ear.subscribed("run", &Heard::default());
    start(&mut ear, "e1", "a", now);
    ear.hear_raw(true, b"events", b"x", item_of(b"x"), now);
    let hash = ear.next(now).unwrap().items[0].1;
    ear.answered(logged_to(1), now);
    start(&mut ear, "e2", "a", now);
    let last = ear.next(now).unwrap();
    assert_eq!((&*last.epoch, end(&last)), ("e1", Some(1)));
    assert_eq!(last.classes, [(Class::COMMON, 2, hash)]);
    assert_eq!(last.items, []);
}

/// Whatever the size of what is heard, one publish is taken, and what falls out later is given back.
#[test]
fn what_is_owed_is_bounded_in_bytes() {
    let now = Instant::now();
    let mut ear = ear("a");
    ear.subscribed("run", &Heard::default());
    start(&mut ear, "e1", "a", now);
    let payload = [b'x'; 3_000];
    let hear = |ear: &mut Ear| {
        let item = item_of(&payload);
        ear.hear_raw(true, b"events", &payload, item, now)
    };
    let counted = (0..10).filter(|_| hear(&mut ear)).count();
    assert_eq!(
        counted, 4,
        "the fourth passes the bound, and no fifth is taken"
    );
    assert!(ear.is_full() && !ear.counts() && !ear.has_room());
    assert!(ear.next(now).is_some());
    ear.answered(logged_to(2), now);
    assert!(!ear.is_full() && !ear.has_room(), "{}", ear.owes_bytes());
    assert!(ear.next(now).is_some());
    ear.answered(Outcome::Stale, now);
    assert_eq!((ear.owes_bytes(), ear.has_room()), (0, true));
}

/// An ear with one publish of an epoch that another ear begins.
fn waiting(now: Instant) -> Ear {
    let mut ear = ear("a");
    ear.subscribed("run", &Heard::default());
    start(&mut ear, "e1", "b", now);
    assert_eq!(ear.due(), None, "nothing is owed");
    assert!(ear.hear_raw(true, b"events", b"x", item_of(b"x"), now));
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
    ear.answered(logged_to(1), now);
    ear.hear_done("e1", &[(Class::COMMON, 1)], ("c", "-"));
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
        ear.subscribed("run", &Heard::default());
        start(&mut ear, "e1", "a", now);
        for _ in 0..owes {
            ear.hear_raw(true, b"events", b"x", item_of(b"x"), now);
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
        ear.subscribed("run", &Heard::default());
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
    ear.subscribed("run", &Heard::default());
    start(&mut ear, "e1", "a", now);
    ear.hear_raw(true, b"events", b"x", item_of(b"x"), now);
    assert!(ear.next(now).is_some());
    ear.answered(logged_to(1), now);
    start(&mut ear, "e2", "a", now);
    assert_eq!(ear.next(now).and_then(|append| end(&append)), Some(1));
    ear.answered(logged_to(0), now);
    assert_eq!((ear.owes(), ear.due()), (1, Some(now + RETRY)));
    assert!(ear.next(now).is_none());
    let again = ear.next(now + RETRY);
    assert_eq!(again.and_then(|append| end(&append)), Some(1));
    ear.answered(logged_to(1), now);
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
            ear.answered(outcome.clone(), now);
            let append = ear.next(now + at);
            assert!(append.is_some_and(|append| append.force == force), "{at:?}");
            ear.answered(logged_to(1), now + at);
            assert!(ear.hear_raw(true, b"events", b"x", item_of(b"x"), now));
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
    assert!(ear.hear_raw(true, b"events", b"x", item_of(b"x"), later));
    ear.answered(logged_to(1), later);
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
        ear.subscribed("run", &Heard::default());
        start(&mut ear, "e1", "a", now);
        let payload = vec![b'x'; bytes];
        for _ in 0..owed {
            let item = Item::read("events", b"events", &payload, bytes);
            assert!(ear.hear_raw(true, b"events", &payload, item, now));
        }
        let mut logged = 0;
        for items in items {
            let append = ear.next(now).unwrap();
            assert_eq!((first(&append), append.items.len()), (logged + 1, items));
            logged += items as u64;
            ear.answered(logged_to(logged), now);
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
        ear.hear_done("e1", &[(Class::COMMON, 0)], (other, "-"));
        assert_eq!(ear.due(), due, "{other}");
    }
    assert!(ear.next(now).is_none());
    // Its append had gone through although it was not told.
    ear.hear_done("e1", &[(Class::COMMON, 0)], ("a", "-"));
    assert!(ear.next(now).is_some());
}

fn heard(name: &str) -> Heard {
    Heard::parse(name).unwrap()
}

/// An ear with the second of these maps, in an epoch that has both.
fn mapped(now: Instant) -> (Ear, [Heard; 2]) {
    let word = |patterns: &str| format!("{:08x}={patterns}", crc32fast::hash(patterns.as_bytes()));
    let maps = [word("m.*"), word("m.x,n")].map(|word| heard(&word));
    let mut ear = ear("a");
    ear.subscribed("run", &maps[1]);
    let own = maps[1].name().clone();
    ear.hear_start("e1", ("a", &own), "run", Some(maps.clone().into()), now);
    (ear, maps)
}

fn hear_on(ear: &mut Ear, channel: &str, now: Instant) -> bool {
    let is_common = channel.starts_with("events");
    ear.hear_raw(is_common, channel.as_bytes(), b"x", item_of(b"x"), now)
}

/// What ears with other maps hear besides moves no number of what both hear.
#[test]
fn each_class_of_channels_is_counted_for_itself() {
    let now = Instant::now();
    let (mut ear, _) = mapped(now);
    for channel in ["events", "n", "m.x", "events:a", "m.x"] {
        assert!(hear_on(&mut ear, channel, now), "{channel}");
    }
    let append = ear.next(now).unwrap();
    let firsts: Vec<_> = append
        .classes
        .iter()
        .map(|(class, n, _)| (class.number(), *n))
        .collect();
    assert_eq!(firsts, [(0, 1), (2, 1), (3, 1)]);
    let items: Vec<_> = append
        .items
        .iter()
        .map(|(class, ..)| class.number())
        .collect();
    assert_eq!(items, [0, 2, 3, 0, 3], "in the order of the publishes");
    let done = [(0, 2), (3, 1)].map(|(class, n)| (Class::numbered(class), n));
    ear.answered(Outcome::Logged(done.to_vec()), now);
    assert_eq!(ear.owes(), 2);
    ear.hear_done("e1", &[(Class::numbered(2), 1)], ("b", "-"));
    assert_eq!(ear.owes(), 1);
}

/// Builds without maps begin epochs as well: nobody who counts stops for that.
#[test]
fn an_epoch_without_a_word_on_maps_has_those_of_the_one_before() {
    let now = Instant::now();
    let (mut ear, maps) = mapped(now);
    start(&mut ear, "e2", "older", now);
    assert!(hear_on(&mut ear, "n", now) && !ear.wants_epoch());
    // One that names other maps has no number for what this one has alone.
    ear.hear_start("e3", ("b", "-"), "run", Some(maps[..1].into()), now);
    assert!(!hear_on(&mut ear, "n", now) && ear.wants_epoch());
    assert!(hear_on(&mut ear, "events", now), "others suffer nothing");
    // Nor has an ear that has just come.
    ear.cut();
    ear.subscribed("run", &maps[1]);
    start(&mut ear, "e4", "older", now);
    assert!(!hear_on(&mut ear, "n", now) && ear.wants_epoch());
    // Without a map there is nothing to want.
    ear.cut();
    ear.subscribed("run", &Heard::default());
    start(&mut ear, "e5", "older", now);
    assert!(!ear.wants_epoch());
}

/// The log names the maps of the ears that it knows, and drops those of which it hears no more.
#[test]
fn an_ear_with_a_map_begins_an_epoch_although_another_one_has() {
    let now = Instant::now();
    let (mut ear, maps) = mapped(now);
    assert!(!ear.wants_epoch());
    let (own, other) = (maps[1].name(), maps[0].name());
    ear.cut();
    ear.subscribed("run", &maps[1]);
    let hear_start = |ear: &mut Ear, epoch: &str, by: (&str, &str)| {
        ear.hear_start(epoch, by, "run", Some(maps.clone().into()), now);
    };
    hear_start(&mut ear, "e2", ("b", own));
    assert!(ear.counts() && ear.wants_epoch());
    hear_start(&mut ear, "e3", ("a", own));
    assert!(!ear.wants_epoch());
    // By the same replica before its restart: it comes late.
    hear_start(&mut ear, "e4", ("a", other));
    assert!(ear.wants_epoch());
}

/// What it has alone would wait for its patience each time.
#[test]
fn an_ear_with_another_map_takes_nobodys_turn() {
    let now = Instant::now();
    let (mut ear, maps) = mapped(now);
    let other = maps[0].name();
    ear.hear_done("e1", &[(Class::COMMON, 0)], ("b", other));
    ear.hear_start("e2", ("b", other), "run", Some(maps.clone().into()), now);
    assert!(ear.is_eager());
    let own = maps[1].name();
    let last = ear.next(now).unwrap();
    assert_eq!((&last.map, end(&last)), (own, Some(0)));
    ear.hear_done("e1", &[(Class::COMMON, 0)], ("b", own));
    assert!(ear.is_eager(), "it has an epoch to end");
    ear.answered(logged_to(0), now);
    assert!(!ear.is_eager());
}

/// Another ear may be ahead in one class and behind in another.
#[test]
fn an_epoch_is_ended_when_all_of_its_classes_are() {
    let now = Instant::now();
    let (mut ear, maps) = mapped(now);
    hear_on(&mut ear, "events", now);
    hear_on(&mut ear, "n", now);
    let own = maps[1].name().clone();
    ear.hear_start("e2", ("a", &own), "run", Some(maps.into()), now);
    let append = ear.next(now).unwrap();
    let ends = [(0, 1), (2, 1)].map(|(class, n)| (Class::numbered(class), n));
    assert_eq!((append.items.len(), append.end), (2, Some(ends.to_vec())));
    ear.answered(Outcome::Logged(vec![ends[0], (ends[1].0, 0)]), now);
    assert_eq!(ear.owes(), 2, "one publish and the end");
    let append = ear.next(now).unwrap();
    assert_eq!(append.items.len(), 1);
    ear.answered(Outcome::Logged(ends.to_vec()), now);
    assert_eq!((ear.owes(), ear.due()), (0, None));
}
