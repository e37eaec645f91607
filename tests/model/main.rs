//! Goal: whichever way threads run, no wake-up of a stream is lost, and no cursor passes an event.
//!
//! Method: [loom](https://docs.rs/loom) plays each scenario in every order that its steps can have,
//! and lets each atomic be read as the memory model allows, not only as this processor does. What
//! it plays is what ships: the files of `src/hub` and `src/stream/sockets` are compiled here once
//! more, with the types of `sync.rs` in the place of `src/sync.rs`. Made up are the sockets: the
//! entries of a thread only look at the hub.
//!
//! An order has a bounded number of preemptions, three as a rule: moments at which a thread could
//! go on and another one does. `--more 1` allows one more; names of scenarios play these alone.
//! That nobody is woken any more shows as a deadlock.
//!
//! What each scenario is for is seen by breaking it (`make model`): patches in `broken/`.
//!
//! | what is broken | scenario that fails |
//! |---|---|
//! | a group's mark is cleared once its members have looked | `logged` |
//! | a group's mark is cleared without an order | `mixed` |
//! | a group's mark is set without an order | `mixed` |
//! | a group is looked at before its mark is set: woken, then changed | `unlogged`, `count` |
//! | the nudge's mark is cleared once the lists are taken | `crowds` |
//! | the thread is nudged before the command is put | `adopt` |
//! | the thread is nudged before the group is on the list | `many` |
//! | the helper is told before the group is on the list | `logged` |
//! | the helper leaves the list to a thread that is at work | `many` |
//! | the helper leaves what has more to write | `again` |
//! | the helper leaves what is due before the thread would wake | `timer` |
//! | the thread sleeps although there is more to write | `turns` |
//! | an id is heard before its frame stands in the window | `refresh` |
//! | a cursor is refreshed whatever was heard since the last look | `refresh` |
//! | a cursor is refreshed up to what is heard after the look at what is next | `refresh-merged` |
//! | a stream that waits for the clock does not look again | `held-tick` |
//! | nobody is woken when what was heard before the live path is followed begins to count | `held-settle` |
//!
//! Loom knows no total order of operations that are sequentially consistent, and lets a swap read
//! past a plain store to the same place. Code that needs either would fail here although it is
//! right; none does.

#![allow(
    dead_code,
    unused_imports,
    unexpected_cfgs,
    unreachable_pub,
    missing_docs,
    missing_debug_implementations,
    clippy::indexing_slicing,
    clippy::needless_pass_by_value,
    clippy::panic,
    clippy::print_stdout,
    clippy::unnecessary_wraps,
    clippy::unused_self,
    clippy::unwrap_used,
    clippy::wildcard_imports,
    reason = "files that ship stand here without most of those that use them"
)]

#[cfg_attr(mutant, path = "../../.local/mutant/src/hub/mod.rs")]
#[cfg_attr(not(mutant), path = "../../src/hub/mod.rs")]
mod hub;
mod scenario;
mod show;
mod sockets;
mod sync;

// The words that they use are those that ship.
use tidegate::*;

use scenario::Scenario;
use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::Instant;

fn main() {
    let (mut more, mut names) = (0, Vec::new());
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--more" => more = arguments.next().unwrap().parse().unwrap(),
            // What cargo says to tests of the usual kind.
            option if option.starts_with('-') => {}
            name => names.push(name.to_owned()),
        }
    }
    let all = sockets::wake::ALL.iter().chain(show::ALL);
    for scenario in all.filter(|it| names.is_empty() || names.iter().any(|name| name == it.name)) {
        print!("{:<16}", scenario.name);
        std::io::stdout().flush().unwrap();
        let (orders, took) = play(scenario, scenario.preemptions + more);
        println!("{orders:>8} orders {took:>7.1?}  {}", scenario.what);
    }
}

/// Plays every order, and counts them.
fn play(scenario: &Scenario, preemptions: usize) -> (u64, Duration) {
    let began = Instant::now();
    let orders = Arc::new(AtomicU64::new(0));
    let (count, run) = (orders.clone(), scenario.run);
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(preemptions);
    model.max_branches = 10_000;
    model.check(move || {
        count.fetch_add(1, Ordering::Relaxed);
        run();
    });
    (orders.load(Ordering::Relaxed), began.elapsed())
}
