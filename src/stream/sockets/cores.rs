//! Which core a thread stays on.
//!
//! What the kernel allocates to send a packet it keeps for each core, and 10,000 writes fill a
//! core's cache: threads that were moved between two events took some 10 % more time for a delivery.

/// How many threads, and whether each stays on one core.
#[derive(Clone, Copy, Debug)]
pub struct Threads {
    /// How many threads; one at least.
    pub count: usize,
    /// If there is one for each core that this process may use, each stays on its own. With fewer,
    /// several replicas on one machine would all choose the same cores.
    pub pinned: bool,
}

impl Threads {
    /// A core for each of the threads; none if they go where the scheduler puts them.
    pub(super) fn cores(self) -> Vec<usize> {
        let allowed = if self.pinned { allowed() } else { Vec::new() };
        if allowed.len() == self.count {
            allowed
        } else {
            Vec::new()
        }
    }
}

/// The cores that this process may use, as far as the system says.
#[cfg(target_os = "linux")]
fn allowed() -> Vec<usize> {
    use rustix::process::{CpuSet, sched_getaffinity};
    sched_getaffinity(None).map_or_else(
        |_| Vec::new(),
        |set| {
            (0..CpuSet::MAX_CPU)
                .filter(|core| set.is_set(*core))
                .collect()
        },
    )
}

/// Has the calling thread stay on a core.
#[cfg(target_os = "linux")]
pub(super) fn stay_on(core: usize) {
    use rustix::process::{CpuSet, sched_setaffinity};
    let mut set = CpuSet::new();
    set.set(core);
    if let Err(why) = sched_setaffinity(None, &set) {
        tracing::debug!(%why, core, "a thread that writes streams stays on no core");
    }
}

#[cfg(not(target_os = "linux"))]
fn allowed() -> Vec<usize> {
    Vec::new()
}

#[cfg(not(target_os = "linux"))]
pub(super) fn stay_on(_: usize) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_stay_on_cores_only_where_there_is_one_for_each() {
        let cores = allowed();
        let with = |count, pinned| Threads { count, pinned }.cores();
        assert_eq!(with(cores.len(), true), cores);
        assert_eq!(with(cores.len(), false), [0; 0]);
        assert_eq!(with(cores.len() + 1, true), [0; 0]);
    }
}
