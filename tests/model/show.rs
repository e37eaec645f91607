//! Show against hear: a cursor never passes an event, and a held event is not left lying.

use crate::hub::Hub;
use crate::hub::reader::Step;
use crate::id::Id;
use crate::scenario::{Scenario, Seen, frame, horizon, hub, id, page, reader, tick, topic};
use crate::sync::{Arc, Bell};
use loom::thread;
use std::task::Waker;

pub(crate) const ALL: &[Scenario] = &[
    Scenario {
        name: "refresh",
        preemptions: 3,
        what: "the cursor of a quiet stream is refreshed while events of its topic are heard",
        run: || {
            refresh(&[0], |hub| {
                for ms in 1..=2 {
                    hub.hear(&topic(0), frame(0, ms));
                }
            });
        },
    },
    Scenario {
        name: "refresh-merged",
        preemptions: 3,
        what: "the same, of a stream over two topics",
        run: || {
            refresh(&[0, 1], |hub| {
                hub.hear(&topic(0), frame(0, 1));
                hub.hear(&topic(1), frame(1, 2));
            });
        },
    },
    Scenario {
        name: "refresh-tick",
        preemptions: 3,
        what: "the same, while the clock is said aloud",
        run: || {
            refresh(&[0], |hub| {
                hub.tick(0, tick(id(0)));
                hub.hear(&topic(0), frame(0, 1));
                hub.tick(0, tick(Id::new(1, 9)));
            });
        },
    },
    Scenario {
        name: "refresh-repair",
        preemptions: 3,
        what: "the same, while a hole shows and is read from the log",
        run: || {
            refresh(&[0], |hub| {
                hub.hear(&topic(0), frame(0, 1));
                // The second was lost on the way.
                assert!(hub.hear(&topic(0), frame(0, 3)).hole);
                let feed = hub.feed(&topic(0)).unwrap();
                let read = page(0, 1, &[2, 3]);
                hub.repair(&feed, &read, &horizon(3));
            });
        },
    },
    Scenario {
        name: "held",
        preemptions: 3,
        what: "a stream over two topics sleeps until it is woken, with and without an event held",
        run: held,
    },
    Scenario {
        name: "held-tick",
        preemptions: 3,
        what: "the same, and nothing but the clock will tell that its event may be shown",
        run: held_tick,
    },
    Scenario {
        name: "held-settle",
        preemptions: 3,
        what: "the same, and its event counts only once the live path is followed",
        run: held_settle,
    },
    Scenario {
        name: "estranged",
        preemptions: 3,
        what: "a frame is heard while a read of another thread finds that another process answers",
        run: estranged,
    },
    Scenario {
        name: "late-twice",
        preemptions: 3,
        what: "two finds one after the other, while a stream is told of the first",
        run: late_twice,
    },
    Scenario {
        name: "late-shown",
        preemptions: 3,
        what: "a find while a stream is shown what comes after it",
        run: late_shown,
    },
];

/// What a stream is told, and what it is shown after that.
#[derive(Default)]
struct Told {
    gaps: Vec<(u64, u64)>,
    shown: Vec<(u64, usize)>,
}
impl crate::hub::reader::Sink for Told {
    fn show(
        &mut self,
        shown: crate::hub::reader::Shown<'_>,
        _: &crate::cursor::Cursor,
    ) -> crate::hub::reader::Flow {
        if let crate::hub::reader::Shown::Gap { gap, .. } = &shown {
            self.gaps.push((gap.from.unwrap().ms, gap.to.ms));
        } else {
            self.shown.push((shown.id().ms, self.gaps.len()));
        }
        crate::hub::reader::Flow::More
    }
}

/// The first and the third event of a topic vanish; a stream of two topics has gone past both.
fn late_twice() {
    let hub = hub();
    let mut reader = reader(&hub, &[0, 1], Waker::noop());
    hub.hear(&topic(1), frame(1, 4));
    let mut told = Told::default();
    reader.step(&mut told);
    assert_eq!(told.shown, [(4, 0)]);
    let finding = {
        let hub = hub.clone();
        thread::spawn(move || {
            for (after, event) in [(0, 1), (1, 3)] {
                hub.lose_frame(&topic(0));
                let feed = hub.feed(&topic(0)).unwrap();
                hub.repair(&feed, &page(0, after, &[event]), &horizon(event));
            }
        })
    };
    reader.step(&mut told);
    finding.join().unwrap();
    reader.step(&mut told);
    for event in [1, 3] {
        let covers = |gap: &(u64, u64)| gap.0 < event && event <= gap.1;
        assert!(
            told.gaps.iter().any(covers),
            "{event} is not told: {:?}",
            told.gaps
        );
    }
}

/// The first of a topic vanishes, and a stream of two goes past it; the third shows the hole.
fn late_shown() {
    let hub = hub();
    let mut reader = reader(&hub, &[0, 1], Waker::noop());
    hub.hear(&topic(1), frame(1, 2));
    let mut told = Told::default();
    reader.step(&mut told);
    assert_eq!(told.shown, [(2, 0)]);
    let finding = {
        let hub = hub.clone();
        thread::spawn(move || {
            assert!(hub.hear(&topic(0), frame(0, 3)).hole);
            let feed = hub.feed(&topic(0)).unwrap();
            hub.repair(&feed, &page(0, 0, &[1, 3]), &horizon(3));
        })
    };
    reader.step(&mut told);
    finding.join().unwrap();
    reader.step(&mut told);
    // What precedes the third is as much as the hole itself shows.
    assert_eq!(told.gaps, [(0, 2)]);
    assert_eq!(
        told.shown,
        [(2, 0), (3, 1)],
        "the cursor has passed what was not told"
    );
}

/// The process that took over has all that the one before gave out. Frames of that one are still heard when a
/// stream's read is answered by the new one.
fn estranged() {
    let hub = hub();
    let mut reader = reader(&hub, &[0], Waker::noop());
    let generation = hub.partition(0).settled().unwrap();
    let heard = {
        let hub = hub.clone();
        thread::spawn(move || {
            hub.hear(&topic(0), frame(0, 1));
        })
    };
    let other = || crate::log::Horizon {
        run: crate::log::RunId(2),
        ..horizon(2)
    };
    let learned = hub.learn(0, generation, &mut other());
    assert_eq!(learned, crate::hub::partition::Learned::Foreign);
    heard.join().unwrap();
    // The live path is begun anew, and the topic is read from where it broke.
    hub.break_off();
    hub.begin_generation();
    hub.begin_following(&[crate::log::ClockName::of(&other())]);
    let feed = hub.feed(&topic(0)).unwrap();
    let Some(crate::hub::feed::Wanted::Entries(after)) = feed.wants() else {
        panic!("it is broken")
    };
    let events: Vec<u64> = (1..=2).filter(|ms| id(*ms) > after).collect();
    hub.repair(&feed, &page(0, after.ms, &events), &other());
    let mut seen = Seen::default();
    reader.step(seen.begin());
    assert_eq!(seen.all, [1, 2], "shown once each, broken after {after}");
}

/// One thread hears, the other shows, and refreshes its cursor whenever there is no more.
fn refresh(topics: &[usize], hear: fn(&Hub)) {
    let hub = hub();
    let (mut reader, mut seen) = (reader(&hub, topics, Waker::noop()), Seen::default());
    let heard = {
        let hub = hub.clone();
        thread::spawn(move || hear(&hub))
    };
    for _ in 0..2 {
        if reader.step(seen.begin()) == Step::Idle && reader.refresh(&mut seen) {
            let cursor = reader.oldest().unwrap();
            let all: Vec<u64> = (1..=cursor.ms).collect();
            assert_eq!(
                seen.all, all,
                "shown by the time that the cursor stood at {cursor}"
            );
        }
    }
    heard.join().unwrap();
    assert_eq!(reader.step(seen.begin()), Step::Idle);
    let all: Vec<u64> = (1..=hub.partition(0).heard().ms).collect();
    assert_eq!(seen.all, all, "shown in the end");
}

fn held() {
    sleep_until_shown(
        |_| {},
        |hub| {
            hub.hear(&topic(0), frame(0, 1));
            hub.hear(&topic(1), frame(1, 2));
        },
        &[1, 2],
    );
}

fn held_tick() {
    let is_read_ahead = |hub: &Hub| {
        hub.lose_frame(&topic(0));
        let feed = hub.feed(&topic(0)).unwrap();
        hub.repair(&feed, &page(0, 0, &[1]), &horizon(1));
    };
    sleep_until_shown(
        is_read_ahead,
        |hub| {
            hub.tick(0, tick(id(1)));
        },
        &[1],
    );
}

fn held_settle() {
    sleep_until_shown(
        Hub::begin_generation,
        |hub| {
            hub.hear(&topic(0), frame(0, 1));
            hub.begin_following(&[]);
        },
        &[1],
    );
}

/// One thread changes the hub, the other shows a stream over two topics whenever it is woken.
fn sleep_until_shown(before: fn(&Hub), change: fn(&Hub), all: &[u64]) {
    let hub = hub();
    let bell = Arc::new(Bell::default());
    let waker = Waker::from(bell.clone());
    let (mut reader, mut seen) = (reader(&hub, &[0, 1], &waker), Seen::default());
    before(&hub);
    // Whatever that woke was woken before the stream looks.
    bell.forget();
    let changing = {
        let hub = hub.clone();
        thread::spawn(move || change(&hub))
    };
    loop {
        let step = reader.step(seen.begin());
        assert!(matches!(step, Step::Idle | Step::Held), "{step:?}");
        if seen.all.len() == all.len() {
            break;
        }
        bell.wait();
    }
    changing.join().unwrap();
    assert_eq!(seen.all, all);
}
