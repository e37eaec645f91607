//! What each key says in the end, so that one that has changed is found.

use std::collections::BTreeMap;
use std::fmt;

/// What each key says in the end, so that another value can be told from it. It does not show in
/// `Debug`: keys are among it.
#[derive(Clone, Default, PartialEq, Eq)]
pub(super) struct Settled(BTreeMap<&'static str, u64>);

impl fmt::Debug for Settled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Settled")
    }
}

impl From<BTreeMap<&'static str, u64>> for Settled {
    fn from(settled: BTreeMap<&'static str, u64>) -> Self {
        Self(settled)
    }
}

impl Settled {
    /// Keys that say something else, in order.
    pub(super) fn changed(&self, newer: &Self) -> Vec<&'static str> {
        let keys = newer.0.keys();
        keys.copied()
            .filter(|key| self.0.get(key) != newer.0.get(key))
            .collect()
    }

    /// These keys say from here on what they say in a newer one.
    pub(super) fn take(&mut self, newer: &Self, keys: &[&'static str]) {
        for (key, value) in &newer.0 {
            if keys.contains(key) {
                self.0.insert(key, *value);
            }
        }
    }
}
