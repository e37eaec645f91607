//! How many descriptors this process may have: one a connection, and some of its own.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors besides those of clients: Redis, threads, files, listeners.
pub(crate) const OWN_FILES: u64 = 256;

/// Takes as many as the system grants: a limit is often lowered for programs that go through all numbers, and this one
/// does not. Says so if they are too few for so many connections.
pub(super) fn take(connections_max: usize) {
    let needed = OWN_FILES.saturating_add(connections_max as u64);
    match raise() {
        Some(descriptors) if descriptors < needed => tracing::warn!(
            descriptors,
            needed,
            "fewer descriptors than server.connections_max needs: raise the limit (LimitNOFILE=, ulimits, ulimit -Hn), or lower server.connections_max"
        ),
        descriptors => tracing::debug!(descriptors, needed, "descriptors"),
    }
}

/// Raises the soft limit to the hard one. Returns what it is then; none if there is no limit.
fn raise() -> Option<u64> {
    let before = getrlimit(Resource::Nofile);
    if before.current == before.maximum {
        return before.current;
    }
    let raised = Rlimit {
        current: before.maximum,
        maximum: before.maximum,
    };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => before.maximum,
        Err(why) => {
            tracing::warn!(%why, "the soft limit of descriptors cannot be raised");
            before.current
        }
    }
}
