//! Who runs on which cores.
//!
//! In the field a subscriber has a machine of its own. Here it shares one with the server, and
//! where both want the same core, a delivery also pays for waking its reader, for the caches that
//! the reader takes, and for the luck of where the scheduler puts the two. So where a server is
//! measured against a floor, the swarm has a core for itself and never sleeps, and whatever it
//! subscribes to, floor or gateway, has all the others.

use rustix::process::{CpuSet, sched_getaffinity, sched_setaffinity};
use std::io;

/// How the cores of this process are divided.
#[derive(Clone, Debug)]
pub struct Cores {
    all: CpuSet,
    /// The one that the swarm has for itself.
    swarm: Option<usize>,
}

impl Cores {
    /// All that this process may use, for everyone.
    ///
    /// # Errors
    /// The kernel does not tell.
    pub fn shared() -> io::Result<Self> {
        Ok(Self {
            all: sched_getaffinity(None)?,
            swarm: None,
        })
    }

    /// The last for the swarm, the others for servers. With a single one everyone shares it.
    #[must_use]
    pub fn divided(&self) -> Self {
        let last = (0..CpuSet::MAX_CPU)
            .rev()
            .find(|core| self.all.is_set(*core));
        Self {
            all: self.all,
            swarm: last.filter(|_| self.all.count() > 1),
        }
    }

    /// Whether the swarm has a core for itself.
    #[must_use]
    pub const fn are_divided(&self) -> bool {
        self.swarm.is_some()
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.all.count()
    }

    /// Puts the calling thread where the swarm is to be.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn take_swarms(&self) -> io::Result<()> {
        let mut own = self.all;
        if let Some(core) = self.swarm {
            own = CpuSet::new();
            own.set(core);
        }
        Ok(sched_setaffinity(None, &own)?)
    }

    /// Starts something on the servers' cores, as a child of this thread.
    ///
    /// # Errors
    /// Those of `start`, or the kernel refuses.
    pub fn on_servers<T>(&self, start: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        let mut servers = self.all;
        if let Some(core) = self.swarm {
            servers.unset(core);
        }
        sched_setaffinity(None, &servers)?;
        let started = start();
        self.take_swarms()?;
        started
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_core_is_the_swarms_unless_it_is_the_only_one() {
        let mut all = CpuSet::new();
        let of = |all| Cores { all, swarm: None }.divided().swarm;
        all.set(3);
        assert_eq!(of(all), None);
        all.set(5);
        all.set(0);
        assert_eq!(of(all), Some(5));
    }
}
