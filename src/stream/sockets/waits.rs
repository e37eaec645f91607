//! The connections of a thread that want the same pages of the log wait for them together: one task
//! asks, and its answer serves all of them. One more asks in the name of each other address, up to a few: whichever has
//! the first turn (`limits::places`) is served for all.
//!
//! `follow::reads` joins the same requests once more, for all threads and bodies: there it saves
//! reads of Redis. Here it saves what every waiting connection would cost in a storm: a task, a
//! wake-up and a command each.

use super::table::Key;
use crate::address::Network;
use crate::log::LogRead;
use crate::metrics::{Behind, Counted, Metrics};
use smallvec::{SmallVec, smallvec};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use tokio::task::AbortHandle;

/// Everything that a thread waits for, by number.
#[derive(Debug, Default)]
pub(super) struct Waits {
    all: HashMap<u64, Wait>,
    by_request: HashMap<LogRead, u64>,
    number: u64,
    /// So many waits, and those that were given up are searched for.
    many: usize,
}

#[derive(Debug)]
struct Wait {
    tasks: Weak<Tasks>,
    /// In whose names they ask.
    names: SmallVec<[Option<Network>; 1]>,
    waiting: Vec<Key>,
}

/// They end when nobody waits for them any more.
#[derive(Debug)]
struct Tasks(Mutex<SmallVec<[AbortHandle; 1]>>);

impl Tasks {
    fn new(task: AbortHandle) -> Self {
        Self(Mutex::new(smallvec![task]))
    }

    fn add(&self, task: AbortHandle) {
        let tasks = self.0.lock();
        tasks.unwrap_or_else(PoisonError::into_inner).push(task);
    }
}

impl Drop for Tasks {
    fn drop(&mut self) {
        let tasks = self.0.get_mut();
        let tasks = tasks.unwrap_or_else(PoisonError::into_inner);
        tasks.iter().for_each(AbortHandle::abort);
    }
}

/// What a connection keeps while it waits.
#[derive(Debug)]
pub(super) struct Awaited {
    _tasks: Arc<Tasks>,
    _counted: Counted,
}

/// Names in which the same is asked for: with so many, it has its turn soon.
const NAMES_MAX: usize = 16;
/// Fewer waits than this are not searched.
const FEW: usize = 64;

impl Waits {
    /// Has a connection wait for an answer to come, in the name of an address if it is known. If no other waits for
    /// the same in that name, `ask` begins to, and the answer has the number that it is given.
    pub(super) fn join(
        &mut self,
        key: Key,
        name: Option<Network>,
        request: LogRead,
        metrics: &Metrics,
        ask: impl FnOnce(u64, LogRead) -> AbortHandle,
    ) -> Awaited {
        let tasks = match self.share(key, &request) {
            Some((number, wait, tasks)) => {
                if wait.names.len() < NAMES_MAX && !wait.names.contains(&name) {
                    wait.names.push(name);
                    tasks.add(ask(number, request));
                }
                tasks
            }
            None => self.begin(key, name, request, ask),
        };
        Awaited {
            _tasks: tasks,
            _counted: metrics.behind(Behind::Reading),
        }
    }

    fn begin(
        &mut self,
        key: Key,
        name: Option<Network>,
        request: LogRead,
        ask: impl FnOnce(u64, LogRead) -> AbortHandle,
    ) -> Arc<Tasks> {
        self.sweep();
        self.number += 1;
        // Some must be read after they were asked for: nobody joins these.
        if request.may_be_shared() {
            self.by_request.insert(request.clone(), self.number);
        }
        let tasks = Arc::new(Tasks::new(ask(self.number, request)));
        let wait = Wait {
            tasks: Arc::downgrade(&tasks),
            names: smallvec![name],
            waiting: vec![key],
        };
        self.all.insert(self.number, wait);
        tasks
    }

    fn share(&mut self, key: Key, request: &LogRead) -> Option<(u64, &mut Wait, Arc<Tasks>)> {
        let number = *self.by_request.get(request)?;
        let wait = self.all.get_mut(&number)?;
        let tasks = wait.tasks.upgrade()?;
        wait.waiting.push(key);
        Some((number, wait, tasks))
    }

    /// The answer of this number has come, to `request`: those that it is for.
    pub(super) fn end(&mut self, number: u64, request: &LogRead) -> Vec<Key> {
        if self.by_request.get(request) == Some(&number) {
            self.by_request.remove(request);
        }
        self.all
            .remove(&number)
            .map(|wait| wait.waiting)
            .unwrap_or_default()
    }

    /// Forgets those that were given up, before they are as many as the others.
    fn sweep(&mut self) {
        if self.all.len() < self.many.max(FEW) {
            return;
        }
        self.all.retain(|_, wait| wait.tasks.strong_count() > 0);
        self.by_request
            .retain(|_, number| self.all.contains_key(number));
        self.many = 2 * self.all.len();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Id;
    use crate::log::ReadRequest;
    use crate::topic::Topic;
    use tokio::task::JoinSet;

    fn key(number: u32) -> Key {
        Key { number, serial: 1 }
    }

    fn request(topic: &str) -> LogRead {
        let topic = Topic::parse(topic).unwrap();
        let (after, limit) = (Id::ZERO, 10);
        let request = ReadRequest {
            topic,
            after,
            limit,
        };
        LogRead::Pages(3, vec![request])
    }

    /// A task that never ends by itself, on `tasks`.
    fn task(tasks: &mut JoinSet<()>) -> AbortHandle {
        tasks.spawn(std::future::pending())
    }

    #[tokio::test]
    async fn who_wants_the_same_shares_a_task_that_lives_as_long_as_one_of_them_waits() {
        let (mut waits, metrics) = (Waits::default(), Metrics::new());
        let (mut begun, mut tasks) = (Vec::new(), JoinSet::new());
        let mut join = |waits: &mut Waits, number, request| {
            waits.join(key(number), None, request, &metrics, |number, _| {
                let task = task(&mut tasks);
                begun.push((number, task.clone()));
                task
            })
        };
        let a = join(&mut waits, 1, request("a"));
        let b = join(&mut waits, 2, request("a"));
        let other = join(&mut waits, 3, request("b"));
        drop(a);
        drop(other);
        tokio::task::yield_now().await;
        let again = join(&mut waits, 4, request("b"));
        let clock = LogRead::Clock(3);
        let clocks = [5, 6].map(|number| join(&mut waits, number, clock.clone()));
        assert_eq!(begun.iter().map(|(number, _)| *number).max(), Some(5));
        let ended: Vec<bool> = begun.iter().map(|(_, task)| task.is_finished()).collect();
        assert_eq!(ended, [false, true, false, false, false]);
        assert_eq!(waits.end(1, &request("a")), [key(1), key(2)]);
        assert_eq!(waits.end(2, &request("b")), [key(3)], "late");
        assert_eq!(waits.end(3, &request("b")), [key(4)]);
        assert_eq!(waits.end(4, &clock), [key(5)]);
        assert_eq!(waits.end(5, &clock), [key(6)]);
        assert!(waits.all.is_empty() && waits.by_request.is_empty());
        drop((b, again, clocks));
    }

    #[tokio::test]
    async fn the_same_is_asked_once_for_each_of_a_few_addresses() {
        let (mut waits, metrics) = (Waits::default(), Metrics::new());
        let (mut begun, mut tasks) = (Vec::new(), JoinSet::new());
        let awaited: Vec<_> = (0..100_u32)
            .map(|number| {
                let ip = std::net::Ipv4Addr::from_bits(number / 3);
                let name = Some(Network::of(ip.into()));
                waits.join(key(number), name, request("a"), &metrics, |number, _| {
                    begun.push(number);
                    task(&mut tasks)
                })
            })
            .collect();
        assert_eq!(begun, [1; NAMES_MAX]);
        assert_eq!(waits.end(1, &request("a")).len(), 100);
        assert!(waits.end(1, &request("a")).is_empty(), "of another name");
        drop(awaited);
        while let Some(ended) = tasks.join_next().await {
            assert!(ended.unwrap_err().is_cancelled());
        }
    }

    #[tokio::test]
    async fn what_was_given_up_is_forgotten_before_it_is_much() {
        let (mut waits, metrics) = (Waits::default(), Metrics::new());
        let mut tasks = JoinSet::new();
        for number in 0..1000 {
            let name = format!("topic-{number}");
            drop(
                waits.join(key(number), None, request(&name), &metrics, |_, _| {
                    task(&mut tasks)
                }),
            );
            assert!(waits.all.len() <= FEW && waits.by_request.len() <= FEW);
        }
    }
}
