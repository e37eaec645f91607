//! What the tests stand on: a real Redis, the real binary, and a reader of event streams that
//! shares no code with the crate.
//!
//! | part | what |
//! |---|---|
//! | [`Redis`] | a private redis-server on a free port |
//! | [`Gateway`] | the binary, started with a config, its log kept for failures |
//! | [`Link`] | a way to Redis that can be spoiled |
//! | [`Sse`] | an event-stream client over a bare socket |
//! | [`Watched`] | a master, its replica and the sentinels that watch them |
//! | [`Terminal`] | a terminal without a window |
//! | [`fleet`] | several replicas over one Redis |
//! | [`follow_until`] | a subscriber that comes back whenever its stream is cut |
//! | [`Way`] | every way to publish |
//! | [`chromium`] | a browser without a window |
//! | [`identity`] | an identity provider that answers well or badly |
//! | [`tokens`] | tokens that a gateway takes |
//! | [`Nginx`] | a private nginx, with the shipped files or its own |
//! | [`Answer`] | one HTTP request and its answer |
//! | [`send_queue`], [`receive_queue`] | what waits in sockets |
//! | [`seed`] | choices at random that can be made again |
//! | [`eventually`] | the one place that waits by the clock |
//!
//! Everything that is started ends on drop. Tests never sleep: they wait for bytes, for a log
//! line, or with [`eventually`] for a condition; each wait has a failsafe of about [`FAILSAFE`],
//! and nothing asserts on time beyond it.

#![allow(
    dead_code,
    unused_imports,
    dropping_copy_types,
    clippy::string_slice,
    clippy::pedantic,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "shared by several test crates, each of which uses its part; a failed step ends the test"
)]

/// What belongs to operators: on a listener of their own if there is one, and passed on by no proxy.
pub const OPERATORS: [&str; 6] = [
    "/healthz",
    "/readyz",
    "/readyz?delivery",
    "/metrics",
    "/streams",
    "/streams?sort=lag",
];

pub mod chromium;
mod fleet;
mod follow;
mod gateway;
mod http;
pub mod identity;
mod link;
pub mod nginx;
mod process;
mod queues;
mod redis;
mod seed;
mod sentinel;
mod sse;
mod terminal;
pub mod tokens;
mod ways;

pub use fleet::{fleet, replica_at, wait_for_ears};
pub use follow::follow_until;
pub use gateway::{Gateway, NDJSON, SOCKETS, says};
pub use http::{Answer, Headers, connect, exchange, request};
pub use link::Link;
pub use nginx::{Nginx, free_address, program};
pub use process::{Directory, Lines, Output, Process, binary, environment, run, run_with};
pub use queues::{receive_queue, send_queue};
pub use redis::{Redis, server_program};
pub use seed::{choices, seed};
pub use sentinel::Watched;
pub use sse::{End, Event, Sse, position, positions};
pub use terminal::Terminal;
pub use ways::{NewEvent, Way};

use std::time::Duration;

/// How long a test waits for something that must come before it fails.
pub const FAILSAFE: Duration = Duration::from_secs(30);

/// Between two looks of [`eventually`].
const LOOK: Duration = Duration::from_millis(10);

/// Waits until `condition` holds.
///
/// The only place where tests wait by the clock: what they wait for here (a counter, a process, a
/// server that is away) has no signal of its own. The number of looks is bounded.
///
/// # Panics
/// If it does not hold within about [`FAILSAFE`].
pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    for _ in 0..FAILSAFE.as_millis() / LOOK.as_millis() {
        if condition() {
            return;
        }
        // Nobody unparks this thread; a wake-up for no reason only means another look.
        std::thread::park_timeout(LOOK);
    }
    panic!("{what}: it did not come to pass within {FAILSAFE:?}");
}

/// Both kinds of broker, one after the other: a name, and a gateway over it with `config`.
///
/// The redis-server, if there is one, lives as long as the test runs.
pub fn over_both_brokers(config: &[(&str, &str)], test: impl Fn(&str, &Gateway)) {
    test("memory", &Gateway::start(config));
    let redis = Redis::start();
    test("redis", &Gateway::over(&redis, config));
}
