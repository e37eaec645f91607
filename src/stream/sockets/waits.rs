//! The connections of a thread that want the same pages of the log wait for them together: one task
//! asks, and its answer serves all of them.
//!
//! `follow::reads` joins the same requests once more, for all threads and bodies: there it saves
//! reads of Redis. Here it saves what every waiting connection would cost in a storm: a task, a
//! wake-up and a command each.

use super::table::Key;
use crate::log::LogRead;
use crate::metrics::{Behind, Counted, Metrics};
use std::collections::HashMap;
use std::sync::{Arc, Weak};
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
    task: Weak<Task>,
    waiting: Vec<Key>,
}

/// Ends when nobody waits for it any more.
#[derive(Debug)]
struct Task(AbortHandle);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What a connection keeps while it waits.
#[derive(Debug)]
pub(super) struct Awaited {
    _task: Arc<Task>,
    _counted: Counted,
}

/// Fewer waits than this are not searched.
const FEW: usize = 64;

impl Waits {
    /// Has a connection wait for an answer to come. If no other waits for the same, `ask` begins to,
    /// and the answer has the number that it is given.
    pub(super) fn join(
        &mut self,
        key: Key,
        request: LogRead,
        metrics: &Metrics,
        ask: impl FnOnce(u64, LogRead) -> AbortHandle,
    ) -> Awaited {
        let task = self.share(key, &request).unwrap_or_else(|| {
            self.sweep();
            self.number += 1;
            // Some must be read after they were asked for: nobody joins these.
            if request.may_be_shared() {
                self.by_request.insert(request.clone(), self.number);
            }
            let task = Arc::new(Task(ask(self.number, request)));
            let wait = Wait {
                task: Arc::downgrade(&task),
                waiting: vec![key],
            };
            self.all.insert(self.number, wait);
            task
        });
        Awaited {
            _task: task,
            _counted: metrics.behind(Behind::Reading),
        }
    }

    fn share(&mut self, key: Key, request: &LogRead) -> Option<Arc<Task>> {
        let number = self.by_request.get(request)?;
        let wait = self.all.get_mut(number)?;
        let task = wait.task.upgrade()?;
        wait.waiting.push(key);
        Some(task)
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
        self.all.retain(|_, wait| wait.task.strong_count() > 0);
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
            waits.join(key(number), request, &metrics, |number, _| {
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
    async fn what_was_given_up_is_forgotten_before_it_is_much() {
        let (mut waits, metrics) = (Waits::default(), Metrics::new());
        let mut tasks = JoinSet::new();
        for number in 0..1000 {
            let name = format!("topic-{number}");
            drop(waits.join(key(number), request(&name), &metrics, |_, _| {
                task(&mut tasks)
            }));
            assert!(waits.all.len() <= FEW && waits.by_request.len() <= FEW);
        }
    }
}
