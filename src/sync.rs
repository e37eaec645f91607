//! What threads share, and how they sleep and are woken, by one door: `tests/model` compiles the
//! files that use it a second time, with types in their place that step through every order.

pub(crate) use mio::{Events, Poll, Token, Waker as ThreadWaker};
pub(crate) use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
#[cfg(debug_assertions)]
pub(crate) use std::thread_local;
pub(crate) use tokio::sync::Notify;

/// Values that are shared without a lock.
pub(crate) mod atomic {
    pub(crate) use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
}
