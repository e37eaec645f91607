//! In the place of connections: entries that count what they are shown.
//!
//! Once everything that was published was shown, they end the thread and the helper. If that never
//! comes to pass, all are asleep, and loom says so.

use super::command::Command;
use super::mailbox::Mailbox;
use super::run_queue::{Batch, RunQueue};
use crate::hub::Hub;
use crate::hub::reader::{Reader, Step};
use crate::hub::wake_source::WakeSource;
use crate::scenario::Seen;
use crate::sync::{Arc, Event, Notify, Registry};
use crate::time::CoarseInstant;
use std::sync::Mutex;
use std::time::Duration;

/// What an entry looks at.
pub(crate) enum Entry {
    Topic(Reader, Seen),
    Count(Arc<Hub>, u64),
}

/// What entries are given.
pub(crate) struct Shared {
    /// Each with how many members of its group it is.
    pub(crate) entries: Vec<(Entry, usize)>,
    /// They come with a command.
    pub(crate) adopted: bool,
    /// The first look only plans another.
    pub(crate) later: bool,
    /// Changes that were not seen yet.
    pub(crate) missing: u64,
    pub(crate) help: Arc<Notify>,
}

pub(crate) struct Connections {
    shared: Shared,
    mailbox: Arc<Mailbox>,
    queue: RunQueue,
    all: Vec<Entry>,
    now: CoarseInstant,
}

impl Connections {
    pub(super) fn new(shared: Shared, _: Registry, mailbox: Arc<Mailbox>) -> Self {
        let now = CoarseInstant::now();
        let mut this = Self {
            queue: RunQueue::new(mailbox.clone(), now),
            mailbox,
            all: Vec::new(),
            now,
            shared,
        };
        if !this.shared.adopted {
            this.adopt();
        }
        this
    }

    pub(crate) fn wait(&self) -> Option<Duration> {
        self.queue.wait()
    }

    pub(crate) fn begin_round(&mut self) {}

    pub(crate) fn event(&mut self, _: &Event) {}

    pub(crate) fn command(&mut self, command: Command) -> bool {
        match command {
            Command::Adopt => {
                self.adopt();
                true
            }
            Command::Stop => false,
        }
    }

    pub(crate) fn end_round(&mut self, woken: &mut Vec<u32>) {
        let batch = self.queue.take(self.now, woken);
        self.advance_all(batch);
    }

    pub(crate) fn advance_woken(&mut self, woken: &mut Vec<u32>) -> bool {
        let batch = self.queue.take_woken(woken);
        self.advance_all(batch)
    }

    fn advance_all(&mut self, batch: Batch) -> bool {
        batch
            .numbers
            .iter()
            .for_each(|number| self.advance(*number));
        self.queue.finish(batch)
    }

    fn adopt(&mut self) {
        for (mut entry, members) in std::mem::take(&mut self.shared.entries) {
            let number = u32::try_from(self.all.len()).unwrap();
            for _ in 0..members {
                self.join(&mut entry, number);
            }
            self.all.push(entry);
            if self.shared.adopted {
                self.advance(number);
            }
        }
    }

    fn join(&mut self, entry: &mut Entry, number: u32) {
        match entry {
            Entry::Topic(reader, _) => reader.share_wakers(|feed| {
                let source = WakeSource::Feed(feed.clone());
                self.queue.join(source, number).0
            }),
            Entry::Count(hub, _) => {
                let source = WakeSource::Counts(hub.clone());
                let _membership = self.queue.join(source, number);
            }
        }
    }

    fn advance(&mut self, number: u32) {
        if std::mem::take(&mut self.shared.later) {
            self.queue.put(number, self.now, None);
            return;
        }
        let mut seen = 0;
        match &mut self.all[number as usize] {
            Entry::Topic(reader, shown) => {
                let before = shown.all.len();
                match reader.step(shown.begin()) {
                    Step::Full => self.queue.put_again(number),
                    Step::Idle | Step::Held => {}
                    other => panic!("{other:?}"),
                }
                seen = (shown.all.len() - before) as u64;
            }
            Entry::Count(hub, version) => {
                if let Some((newer, _)) = hub.counts().newer_than(*version) {
                    seen = newer - *version;
                    *version = newer;
                }
            }
        }
        self.shared.missing -= seen;
        if seen > 0 && self.shared.missing == 0 {
            self.mailbox.send(Command::Stop);
            self.shared.help.end();
        }
    }
}
