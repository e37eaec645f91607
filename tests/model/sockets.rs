//! The threads of `src/stream/sockets`: everything between a wake and the connections that it is
//! for. In the place of connections stand entries that only look at the hub.

#[cfg_attr(mutant, path = "../../.local/mutant/src/stream/sockets/groups.rs")]
#[cfg_attr(not(mutant), path = "../../src/stream/sockets/groups.rs")]
pub(crate) mod groups;
#[cfg_attr(mutant, path = "../../.local/mutant/src/stream/sockets/mailbox.rs")]
#[cfg_attr(not(mutant), path = "../../src/stream/sockets/mailbox.rs")]
pub(crate) mod mailbox;
#[cfg_attr(mutant, path = "../../.local/mutant/src/stream/sockets/run_queue.rs")]
#[cfg_attr(not(mutant), path = "../../src/stream/sockets/run_queue.rs")]
pub(crate) mod run_queue;
#[cfg_attr(mutant, path = "../../.local/mutant/src/stream/sockets/thread.rs")]
#[cfg_attr(not(mutant), path = "../../src/stream/sockets/thread.rs")]
pub(crate) mod thread;

#[path = "entries.rs"]
pub(crate) mod connections;
#[path = "wake.rs"]
pub(crate) mod wake;

pub(crate) mod beat {
    use std::time::Duration;

    /// In the place of a thread's sign of life: here nobody looks, and who is not woken sleeps for ever.
    #[derive(Debug)]
    pub(crate) struct Beat;

    impl Beat {
        pub(crate) fn touch(&self) {}

        pub(crate) fn end(&self) {}

        pub(crate) fn at_most(wait: Option<Duration>) -> Option<Duration> {
            wait
        }
    }
}

pub(crate) mod command {
    /// What a thread is told to do.
    #[derive(Debug)]
    pub(crate) enum Command {
        /// Take the entries that it was not given yet.
        Adopt,
        /// End.
        Stop,
    }
}

pub(crate) mod timer_wheel {
    use crate::time::CoarseInstant;
    use std::time::Duration;

    /// In the place of the wheel: every time may come at once.
    #[derive(Debug)]
    pub(crate) struct TimerWheel(Vec<u32>);

    impl TimerWheel {
        pub(crate) fn new(_: CoarseInstant) -> Self {
            Self(Vec::new())
        }

        pub(crate) fn put(
            &mut self,
            number: u32,
            at: CoarseInstant,
            _: Option<CoarseInstant>,
        ) -> CoarseInstant {
            self.0.push(number);
            at
        }

        pub(crate) fn len(&self) -> usize {
            self.0.len()
        }

        pub(crate) fn turn(&mut self, _: CoarseInstant, due: &mut Vec<u32>) {
            due.append(&mut self.0);
        }

        pub(crate) fn wait(&self, _: CoarseInstant) -> Option<Duration> {
            (!self.0.is_empty()).then_some(Duration::ZERO)
        }
    }
}
