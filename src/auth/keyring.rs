//! The keys that are known, and which of them a token may be of.

use super::algorithm::Algorithm;
use super::key::Key;
use crate::metrics::AuthRefusal;
use std::sync::Arc;

/// Keys that one token is tried with, at most. A token that says which key it is of needs one; two or three while keys
/// that are called nothing are being replaced.
pub(super) const TRIED_MAX: usize = 8;

/// Keys of the configuration. Cloning shares them.
#[derive(Clone, Debug, Default)]
pub struct Keyring(Arc<[Key]>);

impl Keyring {
    /// Of these keys.
    #[must_use]
    pub fn new(keys: Vec<Key>) -> Self {
        Self(keys.into())
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All of them.
    #[must_use]
    pub fn keys(&self) -> &[Key] {
        &self.0
    }
}

/// Keys that a token may be of by its header: those that are called so, and those that are called nothing; all, if it
/// names none. Their algorithm must be the one that it says.
///
/// # Errors
/// [`AuthRefusal::Key`]: none is called so, or more fit than are tried. [`AuthRefusal::Algorithm`]: it says another
/// algorithm than the keys have.
pub(super) fn find<'a>(
    keys: impl Iterator<Item = &'a Key>,
    id: Option<&str>,
    algorithm: Option<Algorithm>,
) -> Result<Vec<&'a Key>, AuthRefusal> {
    let is_called = |key: &&Key| id.is_none() || key.id().is_none() || key.id() == id;
    let called: Vec<&Key> = keys.filter(is_called).collect();
    if called.is_empty() {
        return Err(AuthRefusal::Key);
    }
    let fits = |key: &&Key| Some(key.algorithm()) == algorithm;
    let keys: Vec<&Key> = called.into_iter().filter(fits).collect();
    match keys.len() {
        0 => Err(AuthRefusal::Algorithm),
        1..=TRIED_MAX => Ok(keys),
        _ => Err(AuthRefusal::Key),
    }
}
