//! What `src/sync.rs` gives the code that ships, with types in their place that loom steps.

pub(crate) use loom::sync::{Mutex, MutexGuard};
pub(crate) use std::sync::{Arc, PoisonError};

use loom::sync::Condvar;
use std::io;
use std::task::Wake;
use std::time::Duration;

/// Loom's, which takes no `const`.
macro_rules! thread_local_const {
    (static $name:ident: $type:ty = const $init:block;) => {
        loom::thread_local! { static $name: $type = $init; }
    };
}
pub(crate) use thread_local_const as thread_local;

pub(crate) mod atomic {
    pub(crate) use loom::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
}

/// Somebody sleeps until it rings; a ring is kept for whoever sleeps next.
#[derive(Debug, Default)]
pub(crate) struct Bell {
    state: Mutex<Rung>,
    rings: Condvar,
}

#[derive(Debug, Default)]
struct Rung {
    once: bool,
    for_good: bool,
}

impl Bell {
    pub(crate) fn ring(&self) {
        self.state.lock().unwrap().once = true;
        self.rings.notify_one();
    }

    pub(crate) fn forget(&self) {
        self.state.lock().unwrap().once = false;
    }

    /// No more is waited for.
    pub(crate) fn end(&self) {
        self.state.lock().unwrap().for_good = true;
        self.rings.notify_one();
    }

    /// Sleeps, for ever if need be: loom then says that all threads are asleep. False if nothing
    /// more is waited for.
    pub(crate) fn wait(&self) -> bool {
        let mut state = self.state.lock().unwrap();
        while !state.once && !state.for_good {
            state = self.rings.wait(state).unwrap();
        }
        state.once = false;
        !state.for_good
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.ring();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.ring();
    }
}

/// In the place of what a thread sleeps at. No socket ever has anything to say.
pub(crate) struct Poll(Registry);

#[derive(Clone)]
pub(crate) struct Registry(Arc<Bell>);

#[derive(Debug)]
pub(crate) struct ThreadWaker(Arc<Bell>);

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Token(pub(crate) usize);

pub(crate) struct Events;

pub(crate) struct Event;

impl Poll {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self(Registry(Arc::default())))
    }

    pub(crate) fn registry(&self) -> &Registry {
        &self.0
    }

    /// Sleeps; a time may be over at once.
    pub(crate) fn poll(&mut self, _: &mut Events, wait: Option<Duration>) -> io::Result<()> {
        match wait {
            None => drop(self.0.0.wait()),
            Some(_) => self.0.0.forget(),
        }
        Ok(())
    }
}

impl Registry {
    pub(crate) fn try_clone(&self) -> io::Result<Self> {
        Ok(self.clone())
    }
}

impl ThreadWaker {
    pub(crate) fn new(registry: &Registry, _: Token) -> io::Result<Self> {
        Ok(Self(registry.0.clone()))
    }

    pub(crate) fn wake(&self) -> io::Result<()> {
        self.0.ring();
        Ok(())
    }
}

impl Events {
    pub(crate) fn with_capacity(_: usize) -> Self {
        Self
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Event> {
        std::iter::empty()
    }
}

impl Event {
    pub(crate) fn token(&self) -> Token {
        Token(0)
    }
}

/// In the place of tokio's: who waits blocks its thread.
#[derive(Debug, Default)]
pub(crate) struct Notify(Bell);

impl Notify {
    pub(crate) fn notify_one(&self) {
        self.0.ring();
    }

    pub(crate) async fn notified(&self) {
        if !self.0.wait() {
            std::future::pending::<()>().await;
        }
    }

    /// Whoever waits does so for ever.
    pub(crate) fn end(&self) {
        self.0.end();
    }
}
