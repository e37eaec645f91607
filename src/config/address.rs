//! The section `limits.address`: what one address may take.
//!
//! Defaults hold only where `server.trusted_proxies` says which addresses are proxies. Elsewhere the other end of a
//! connection may be a proxy that nobody has named, and all clients behind it would be one.

use super::source::Source;
use crate::limits::AddressLimits;

/// A company behind one address has as many pages open as it has people at work. One address takes a fiftieth of
/// `limits.streams_max`.
const STREAMS_MAX: usize = 1000;
/// All of these come back within ten seconds, and as many again within the next.
const STREAMS_PER_SECOND: usize = 100;
/// Ten for each stream. A topic that nobody else reads costs a replica about a kilobyte.
const TOPICS_MAX: usize = 10_000;
/// A quarter of `limits.replays_max`.
const REPLAYS_MAX: usize = 8;

/// `limits.address`: what is said of it. None is not said.
#[derive(Clone, Debug)]
pub struct PerAddress {
    streams_max: Option<usize>,
    streams_per_second: Option<usize>,
    topics_max: Option<usize>,
    replays_max: Option<usize>,
    /// Off by default: publishers have a key, and one that publishes for all is one address.
    publishes_per_second: usize,
    entries_max: usize,
}

impl PerAddress {
    pub(super) fn take(s: &mut Source) -> Self {
        let limits = Self {
            streams_max: s.optional("limits.address.streams_max"),
            streams_per_second: s.optional("limits.address.streams_per_second"),
            topics_max: s.optional("limits.address.topics_max"),
            replays_max: s.optional("limits.address.replays_max"),
            publishes_per_second: s.get("limits.address.publishes_per_second", "0"),
            entries_max: s.count("limits.address.entries_max", "100000"),
        };
        let rates = [
            (
                "limits.address.streams_per_second",
                limits.streams_per_second,
            ),
            (
                "limits.address.publishes_per_second",
                Some(limits.publishes_per_second),
            ),
        ];
        for (key, rate) in rates {
            if rate.is_some_and(|rate| rate > 1_000_000) {
                s.fault(key, "must be at most 1000000");
            }
        }
        limits
    }

    /// What holds, where proxies are named or not.
    #[must_use]
    pub fn settled(&self, names_proxies: bool) -> AddressLimits {
        let or =
            |said: Option<usize>, default| said.unwrap_or(if names_proxies { default } else { 0 });
        AddressLimits {
            streams_max: or(self.streams_max, STREAMS_MAX),
            streams_per_second: or(self.streams_per_second, STREAMS_PER_SECOND),
            topics_max: or(self.topics_max, TOPICS_MAX),
            replays_max: or(self.replays_max, REPLAYS_MAX),
            publishes_per_second: self.publishes_per_second,
            entries_max: self.entries_max,
        }
    }
}
