//! What one client may take of what all share, by its address: open streams, new streams and publishes a second,
//! topics wanted, and places to read the log.
//!
//! | module | what |
//! |---|---|
//! | `table` | what each address holds and when it may go on: a bounded table, with the time as an input |
//! | [`places`] | places that are given to waiting addresses by turns |
//!
//! What an address holds is given back when its lease or place is dropped, whatever way that goes.
//!
//! A client without a network (this machine, a trusted proxy) is not limited: behind it may be many.

pub mod places;
mod table;

pub use table::AddressLimits;

use crate::address::Client;
use crate::metrics::{AddressLimit, Metrics};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use table::Table;
use tokio::time::Instant;

/// What the addresses hold that are known.
#[derive(Debug)]
pub struct Addresses {
    table: Mutex<Table>,
    began: Instant,
    metrics: Arc<Metrics>,
}

impl Addresses {
    /// None is known.
    #[must_use]
    pub fn new(metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self {
            table: Mutex::default(),
            began: Instant::now(),
            metrics,
        })
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A stream of so many topics for this client, until the lease is dropped.
    ///
    /// # Errors
    /// The limit that its address has reached.
    pub fn open(
        self: &Arc<Self>,
        client: &Client,
        topics: usize,
        limits: &AddressLimits,
    ) -> Result<Lease, AddressLimit> {
        let topics = u32::try_from(topics).unwrap_or(u32::MAX);
        let is_counted = match client.network.filter(|_| limits.is_any()) {
            None => false,
            Some(network) => {
                let now = self.began.elapsed();
                let counted = self.table().open(network, topics, limits, now);
                match counted {
                    Ok(is_counted) => {
                        self.note_full(is_counted);
                        is_counted
                    }
                    Err(limit) => {
                        self.metrics.address_limited(limit);
                        return Err(limit);
                    }
                }
            }
        };
        Ok(Lease {
            addresses: self.clone(),
            client: *client,
            topics,
            is_counted,
        })
    }

    /// Something is to be published for this client.
    ///
    /// # Errors
    /// How long to wait, if its address has published as much as it may.
    pub fn publish(&self, client: &Client, limits: &AddressLimits) -> Result<(), Duration> {
        let Some(network) = client.network.filter(|_| limits.publishes_per_second > 0) else {
            return Ok(());
        };
        let now = self.began.elapsed();
        let counted = self.table().publish(network, limits, now);
        match counted {
            Ok(is_counted) => {
                self.note_full(is_counted);
                Ok(())
            }
            Err(wait) => {
                self.metrics.address_limited(AddressLimit::PublishRate);
                Err(wait)
            }
        }
    }

    /// It was so many events beyond the first. They are owed, and the next publish waits for them.
    ///
    /// # Errors
    /// As [`Addresses::publish`]: others came first that were let in at the same time.
    pub fn publish_more(
        &self,
        client: &Client,
        events: usize,
        limits: &AddressLimits,
    ) -> Result<(), Duration> {
        let Some(network) = client.network.filter(|_| limits.publishes_per_second > 0) else {
            return Ok(());
        };
        let now = self.began.elapsed();
        let counted = self.table().publish_more(network, events, limits, now);
        counted.inspect_err(|_| self.metrics.address_limited(AddressLimit::PublishRate))
    }

    /// How many addresses are known. Looks for some that need not be.
    #[must_use]
    pub fn known(&self) -> usize {
        let now = self.began.elapsed();
        self.table().known(now)
    }

    fn note_full(&self, is_counted: bool) {
        if !is_counted {
            self.metrics.addresses_beyond.inc();
        }
    }
}

/// A stream of a client, as long as it is open.
#[derive(Debug)]
pub struct Lease {
    addresses: Arc<Addresses>,
    client: Client,
    topics: u32,
    is_counted: bool,
}

impl Lease {
    /// Whose it is.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(network) = self.client.network.filter(|_| self.is_counted) {
            self.addresses.table().close(network, self.topics);
        }
    }
}
