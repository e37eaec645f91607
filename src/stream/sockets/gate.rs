//! How many client connections this process may have.
//!
//! The places are given out by whoever accepts (`http::accept`), and kept by whoever owns the
//! connection: by hyper's task at first, then by a thread of this folder. Both need the type, so it
//! stands with the lower of the two.

use crate::metrics::Metrics;
use std::io;
use std::sync::Arc;
use tokio::sync::Semaphore;

/// How many sockets a listener may have.
#[derive(Debug)]
pub struct Gate {
    places: Semaphore,
    metrics: Arc<Metrics>,
}

impl Gate {
    /// A gate for `most` sockets.
    #[must_use]
    pub fn new(most: usize, metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self {
            places: Semaphore::new(most.min(Semaphore::MAX_PERMITS)),
            metrics,
        })
    }

    /// Waits for a place, and then for whatever `accept` brings to take it.
    ///
    /// # Errors
    /// Those of `accept`; the place is free again then.
    ///
    /// # Cancel safety
    /// As safe as `accept` is.
    pub async fn admit<T>(
        self: &Arc<Self>,
        accept: impl Future<Output = io::Result<T>>,
    ) -> io::Result<(T, Place)> {
        let place = self.places.acquire().await.map_err(io::Error::other)?;
        let accepted = accept.await?;
        place.forget();
        self.metrics.sockets.inc();
        Ok((accepted, Place(self.clone())))
    }
}

/// A place among the sockets of this process; given back on drop.
#[derive(Debug)]
pub struct Place(Arc<Gate>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.places.add_permits(1);
        self.0.metrics.sockets.dec();
    }
}
