//! Goal: whatever the log and the way to it do, a subscriber is shown each event of its topics
//! once and in order, or is told of a gap that covers it: above its `from`, up to its `to`.
//!
//! Method: a seeded simulation of the very types that ship. The log is the real `Ledger`, a replica
//! is the real `Hub`, `FollowerCore`, `SharedReads` and `Subscriptions`, a stream is the real `Opener`
//! and `Stream`, and clients read its bytes. Made up are only the network and the order of things:
//! connections break, replies are late, lost and repeated, frames vanish, logs are trimmed, deleted,
//! ended, expired, emptied, taken back to an older state; clocks are put back and forth; and while a
//! stream looks at the hub, another thread of its replica hears frames.
//!
//! | module | what |
//! |---|---|
//! | `mix` | which faults are mixed |
//! | `server` | the log's server and all that it ever sent |
//! | `replica` | a replica, and its network |
//! | `client` | a subscriber, and the oracle over what it was shown |
//! | `wire` | blocks from bytes |
//! | `world` | all of them, and the order of things |
//!
//! Streams are turned only when they were woken or their time has come, so a wake-up that is missing
//! shows as a client that is deaf. A failure prints its seed and the last steps;
//! `TIDEGATE_TEST_SEED` replays one seed, `TIDEGATE_TEST_SEEDS` widens the sweep.
//!
//! What no replica has heard and the log has forgotten cannot be known; such events are counted
//! apart. One topic is not logged: its events move no cursor, come in their order on each stream,
//! and stand in nobody's way.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    clippy::too_many_arguments,
    missing_docs,
    unreachable_pub,
    reason = "a step that cannot be ends the simulation"
)]

mod client;
mod mix;
mod replica;
mod server;
mod wire;
mod world;

use mix::Mix;
use std::collections::BTreeMap;
use tidegate::metrics::Metrics;
use tidegate::time::CoarseInstant;
use tidegate::topic::Topic;
use world::World;

/// The topic that is not logged.
const UNLOGGED: &str = "d";
/// The type of some events, by which some clients filter.
const TYPE: &str = "k";

/// Topics that are logged.
fn topics() -> Vec<Topic> {
    ["a", "b", "c"]
        .map(|name| Topic::parse(name).unwrap())
        .into()
}

/// The number of an event, from its data.
fn number_of(data: &str) -> Option<usize> {
    let data = data.strip_prefix("w ").unwrap_or(data);
    data.split(' ').next()?.parse().ok()
}

/// Runs seeds. Only these reasons may be told by any of them. Returns what was counted over all.
fn sweep(mix: Mix, reasons: &[&str]) -> BTreeMap<String, u64> {
    let number = |name: &str| {
        std::env::var(name)
            .ok()
            .map(|text| text.parse::<u64>().unwrap())
    };
    let range = match (number("TIDEGATE_TEST_SEED"), number("TIDEGATE_TEST_SEEDS")) {
        (Some(seed), _) => seed..seed + 1,
        (None, wide) => 0..wide.unwrap_or(SEEDS),
    };
    let metrics = Metrics::new();
    // The process's clock begins before that of any world.
    let begun = CoarseInstant::now();
    let start = begun.instant();
    let mut tally = BTreeMap::new();
    for seed in range {
        let mut world = World::new(seed, mix, &metrics, start);
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            world.run();
            told_only(&world.tally, reasons);
        }));
        if let Err(why) = outcome {
            let shown = number("TIDEGATE_TEST_SEED").map_or(250, |_| usize::MAX);
            let last = world.trace.len().saturating_sub(shown);
            let steps = world.trace[last..].join("\n  ");
            eprintln!("{mix:?}; the last steps of seed {seed}:\n  {steps}");
            eprintln!("TIDEGATE_TEST_SEED={seed} runs it again");
            std::panic::resume_unwind(why);
        }
        if number("TIDEGATE_TEST_SEED").is_some() {
            eprintln!("seed {seed}:\n  {}", world.trace.join("\n  "));
        }
        for (what, count) in &world.tally {
            *tally.entry(what.clone()).or_default() += count;
        }
    }
    eprintln!("{mix:?}: {tally:?}");
    assert!(tally["seen"] > 0);
    tally
}

/// All reasons for a gap.
const REASONS: [&str; 7] = [
    "trimmed",
    "expired",
    "log_lost",
    "rewound",
    "ahead",
    "late",
    "bad_cursor",
];

/// Only these reasons were told.
fn told_only(tally: &BTreeMap<String, u64>, reasons: &[&str]) {
    for reason in REASONS {
        assert!(
            reasons.contains(&reason) || !tally.contains_key(reason),
            "{reason} was told without a cause: {tally:?}"
        );
    }
    assert!(
        !reasons.is_empty() || !tally.contains_key(AT_AN_END),
        "something was missing: {tally:?}"
    );
}

/// In a tally: gaps that were told because a stream ended while its replica lacked something, and that cover nothing.
const AT_AN_END: &str = "needless at an end";

/// Seeds of a mix, if nobody says otherwise.
const SEEDS: u64 = 200;

#[test]
fn without_faults_no_gap_is_told() {
    let mix = Mix {
        sweeps: true,
        history: true,
        ..Mix::default()
    };
    sweep(mix, &[]);
}

#[test]
fn cuts_lose_nothing_and_tell_no_gap() {
    let mix = Mix {
        cuts: true,
        sweeps: true,
        history: true,
        ..Mix::default()
    };
    sweep(mix, &[]);
}

#[test]
fn a_frame_that_vanishes_is_found_or_told_as_late() {
    let mix = Mix {
        cuts: true,
        vanishing: true,
        history: true,
        ..Mix::default()
    };
    sweep(mix, &["late"]);
}

#[test]
fn what_was_trimmed_is_told_and_nothing_else() {
    let mix = Mix {
        cuts: true,
        trimming: true,
        sweeps: true,
        history: true,
        ..Mix::default()
    };
    let tally = sweep(mix, &["trimmed"]);
    assert!(!tally.contains_key("needless trimmed"), "{tally:?}");
}

#[test]
fn a_reply_that_is_late_hides_nothing() {
    let mix = Mix {
        slow_replies: true,
        sweeps: true,
        history: true,
        ..Mix::default()
    };
    sweep(mix, &[]);
}

#[test]
fn a_reply_that_is_late_brings_nothing_back() {
    let mix = Mix {
        slow_replies: true,
        deletion: true,
        sweeps: true,
        history: true,
        ..Mix::default()
    };
    sweep(mix, &["trimmed"]);
}

#[test]
fn deletion_and_expiry_are_told() {
    let mix = Mix {
        cuts: true,
        trimming: true,
        deletion: true,
        expiry: true,
        clock_steps: true,
        sweeps: true,
        history: true,
        ..Mix::default()
    };
    // A clock that is put forward has logs expire early, and back again: what went is told, as lost.
    sweep(mix, &["trimmed", "expired", "rewound"]);
}

#[test]
fn an_end_is_an_end_only_as_long_as_the_log_has_it() {
    let mix = Mix {
        cuts: true,
        deletion: true,
        ends: true,
        expiry: true,
        history: true,
        ..Mix::default()
    };
    sweep(mix, &["trimmed", "expired"]);
}

#[test]
fn other_ages_lose_nothing_silently() {
    let mix = Mix {
        cuts: true,
        expiry: true,
        settings: true,
        history: true,
        ..Mix::default()
    };
    sweep(mix, &["trimmed", "expired"]);
}

#[test]
fn a_log_that_goes_back_is_told() {
    let mix = Mix {
        cuts: true,
        rewinds: true,
        sweeps: true,
        history: true,
        ..Mix::default()
    };
    sweep(mix, &["rewound", "ahead"]);
}

/// What shows it is the next entry of a topic, to a replica that reads the topic still.
#[test]
fn a_log_that_goes_back_under_its_process_is_told() {
    let mix = Mix {
        cuts: true,
        reloads: true,
        rewinds: true,
        history: true,
        ..Mix::default()
    };
    // Ids are given out once more, below what streams were shown.
    sweep(mix, &["rewound", "ahead", "late"]);
}

#[test]
fn a_log_that_goes_back_while_replies_are_late_is_told() {
    let mix = Mix {
        slow_replies: true,
        trimming: true,
        rewinds: true,
        sweeps: true,
        history: true,
        ..Mix::default()
    };
    sweep(mix, &["rewound", "ahead", "trimmed"]);
}

#[test]
fn a_log_that_was_emptied_is_told() {
    let mix = Mix {
        cuts: true,
        flushes: true,
        clock_steps: true,
        history: true,
        ..Mix::default()
    };
    sweep(
        mix,
        &["rewound", "ahead", "log_lost", "expired", "trimmed", "late"],
    );
}

#[test]
fn a_log_that_goes_back_while_its_clock_is_wrong_is_told() {
    let mix = Mix {
        cuts: true,
        trimming: true,
        rewinds: true,
        flushes: true,
        clock_steps: true,
        sweeps: true,
        history: true,
        ..Mix::default()
    };
    sweep(mix, &REASONS);
}

const EVERYTHING: Mix = Mix {
    cuts: true,
    vanishing: true,
    trimming: true,
    deletion: true,
    ends: true,
    expiry: true,
    rewinds: true,
    flushes: true,
    clock_steps: true,
    settings: true,
    sweeps: true,
    slow_replies: false,
    reloads: false,
    history: true,
    crowded: false,
};

#[test]
fn everything_at_once() {
    sweep(EVERYTHING, &REASONS);
}

/// What leaves a window because all windows together are full is in the log, and is missed by nobody.
#[test]
fn windows_that_share_too_little_memory_lose_nothing_and_tell_no_gap() {
    let mix = Mix {
        cuts: true,
        sweeps: true,
        history: true,
        crowded: true,
        ..Mix::default()
    };
    let tally = sweep(mix, &[]);
    assert!(tally.contains_key("evicted"), "{tally:?}");
}

#[test]
fn windows_that_share_too_little_memory_bring_nothing_back() {
    let mix = Mix {
        slow_replies: true,
        deletion: true,
        sweeps: true,
        history: true,
        crowded: true,
        ..Mix::default()
    };
    let tally = sweep(mix, &["trimmed"]);
    assert!(tally.contains_key("evicted"), "{tally:?}");
}

#[test]
fn everything_at_once_in_too_little_memory() {
    let mix = Mix {
        crowded: true,
        ..EVERYTHING
    };
    let tally = sweep(mix, &REASONS);
    assert!(tally.contains_key("evicted"), "{tally:?}");
}
