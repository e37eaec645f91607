//! A change made before a wake is seen by a look after it: publishers, a thread and its helper.
//!
//! Each scenario is a hub, a thread with entries that read it, the helper, and publishers.

use super::beat::Beat;
use super::command::Command;
use super::connections::{Entry, Shared};
use super::thread::{help_all, prepare};
use crate::hub::Hub;
use crate::hub::counts::Connections as Count;
use crate::scenario::{Scenario, Seen, frame, hub, reader, topic, unlogged};
use crate::sse::Frame;
use crate::sync::{Arc, Notify};
use loom::thread;
use std::task::{Context, Waker};

pub(crate) const ALL: &[Scenario] = &[
    Scenario {
        name: "logged",
        preemptions: 3,
        what: "two events of a topic: the hub keeps them under a lock",
        run: || play(&[Publish::Logged(0, 2)], &Setting::default()),
    },
    Scenario {
        name: "unlogged",
        preemptions: 3,
        what: "two events of a topic that is not logged: a look begins with an atomic",
        run: || play(&[Publish::Unlogged(0, 2)], &Setting::default()),
    },
    Scenario {
        name: "count",
        preemptions: 3,
        what: "the number of streams changes twice",
        run: || play(&[Publish::Count(2)], &Setting::default()),
    },
    Scenario {
        name: "mixed",
        preemptions: 3,
        what: "an event of a topic that is logged, and then is not: either wakes the same group",
        run: || play(&[Publish::Mixed(0)], &Setting::default()),
    },
    Scenario {
        name: "adopt",
        preemptions: 3,
        what: "an event, while the thread is given its only reader",
        run: || {
            let setting = Setting {
                adopted: true,
                ..Setting::default()
            };
            play(&[Publish::Unlogged(0, 1)], &setting);
        },
    },
    Scenario {
        name: "again",
        preemptions: 3,
        what: "two events, and turns that take one",
        run: || {
            let setting = Setting {
                one_a_turn: true,
                ..Setting::default()
            };
            play(&[Publish::Logged(0, 2)], &setting);
        },
    },
    Scenario {
        name: "turns",
        preemptions: 2,
        what: "two events, while the thread is given their only reader, and turns that take one",
        run: || {
            let setting = Setting {
                adopted: true,
                one_a_turn: true,
                ..Setting::default()
            };
            play(&[Publish::Unlogged(0, 2)], &setting);
        },
    },
    Scenario {
        name: "timer",
        preemptions: 3,
        what: "an event that is shown at a time which the first look sets",
        run: || {
            let setting = Setting {
                later: true,
                ..Setting::default()
            };
            play(&[Publish::Logged(0, 1)], &setting);
        },
    },
    Scenario {
        name: "two",
        preemptions: 2,
        what: "two publishers, a topic each, and few to wake: the helper is told twice",
        run: || {
            let publishers = [Publish::Unlogged(0, 1), Publish::Unlogged(1, 1)];
            play(&publishers, &Setting::default());
        },
    },
    Scenario {
        name: "many",
        preemptions: 2,
        what: "two publishers: one rings few and tells the helper, one rings many and the thread",
        run: || {
            let setting = Setting {
                members: [17, 1],
                ..Setting::default()
            };
            let publishers = [Publish::Unlogged(0, 1), Publish::Unlogged(1, 1)];
            play(&publishers, &setting);
        },
    },
    Scenario {
        name: "crowds",
        preemptions: 2,
        what: "two publishers that wake many: the thread is nudged twice",
        run: || {
            let setting = Setting {
                members: [17, 17],
                ..Setting::default()
            };
            let publishers = [Publish::Unlogged(0, 1), Publish::Unlogged(1, 1)];
            play(&publishers, &setting);
        },
    },
];

/// What a publisher does: on which topic, and how often.
#[derive(Clone, Copy)]
enum Publish {
    Logged(usize, u64),
    Unlogged(usize, u64),
    Mixed(usize),
    Count(u64),
}

struct Setting {
    /// Entries of each topic.
    members: [usize; 2],
    /// Entries are given to the thread when it runs.
    adopted: bool,
    /// A turn shows one event.
    one_a_turn: bool,
    /// The first look only plans another.
    later: bool,
}

impl Default for Setting {
    fn default() -> Self {
        Self {
            members: [1, 1],
            adopted: false,
            one_a_turn: false,
            later: false,
        }
    }
}

impl Publish {
    fn play(self, hub: &Hub) {
        for ms in 1..=self.times() {
            match self {
                Self::Logged(number, _) => hear(hub, number, frame(number, ms)),
                Self::Mixed(number) if ms == 1 => hear(hub, number, frame(number, ms)),
                Self::Unlogged(number, _) | Self::Mixed(number) => {
                    hear(hub, number, unlogged(number));
                }
                Self::Count(_) => hub.counts().set(Count {
                    fleet: ms,
                    replica: ms,
                }),
            }
        }
    }

    fn times(self) -> u64 {
        match self {
            Self::Logged(_, times) | Self::Unlogged(_, times) | Self::Count(times) => times,
            Self::Mixed(_) => 2,
        }
    }

    fn entry(self, hub: &Arc<Hub>, setting: &Setting) -> Entry {
        match self {
            Self::Logged(number, _) | Self::Unlogged(number, _) | Self::Mixed(number) => {
                let seen = Seen::taking(usize::from(setting.one_a_turn));
                Entry::Topic(reader(hub, &[number], Waker::noop()), seen)
            }
            Self::Count(_) => Entry::Count(hub.clone(), 0),
        }
    }
}

fn hear(hub: &Hub, number: usize, frame: Frame) {
    let hearing = hub.hear(&topic(number), frame);
    assert!(!hearing.hole && !hearing.backwards);
}

/// All publishers at once, the first of them on the thread that made everything.
fn play(publishers: &[Publish], setting: &Setting) {
    let hub = hub();
    let help = Arc::new(Notify::default());
    let entries = publishers
        .iter()
        .map(|publish| publish.entry(&hub, setting));
    let shared = Shared {
        entries: entries.zip(setting.members).collect(),
        adopted: setting.adopted,
        later: setting.later,
        missing: publishers.iter().map(|publish| publish.times()).sum(),
        help: help.clone(),
    };
    let (worker, run) = prepare(shared, help.clone(), Arc::new(Beat)).unwrap();
    let mut threads = vec![thread::spawn(run)];
    let helped = vec![worker.clone()];
    threads.push(thread::spawn(move || {
        let helping = std::pin::pin!(help_all(helped, help));
        let step = helping.poll(&mut Context::from_waker(Waker::noop()));
        assert!(step.is_pending(), "ended");
    }));
    for publish in publishers[1..].iter().copied() {
        let hub = hub.clone();
        threads.push(thread::spawn(move || publish.play(&hub)));
    }
    if setting.adopted {
        worker.mailbox.send(Command::Adopt);
    }
    publishers[0].play(&hub);
    for thread in threads {
        thread.join().unwrap();
    }
}
