//! How Redis is reached and used.

use super::access::{self, Access};
use crate::broker::Retention;
use crate::topic::PartitionNo;
use redis::AsyncConnectionConfig;
use redis::io::tcp::TcpSettings;
use std::time::Duration;

/// What the configuration says of Redis.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where it is, and who we are to it, at the start.
    pub access: Access,
    /// Begins every key, channel and function.
    pub prefix: String,
    /// Ordering domains.
    pub partitions: PartitionNo,
    /// Command connections.
    pub pool_size: usize,
    /// Time for a connection to stand.
    pub connect_timeout: Duration,
    /// Time for a command's answer.
    pub command_timeout: Duration,
    /// Longest pause between attempts.
    pub backoff_max: Duration,
    /// Bytes of pushes that may wait.
    pub live_queue_bytes: usize,
    /// Run although keys may be evicted.
    pub allow_eviction: bool,
    /// This replica's name.
    pub replica: String,
    /// What the log keeps.
    pub retention: Retention,
    /// Replicas of Redis that must have what is published before it is answered; 0 for none.
    pub wait_replicas: usize,
    /// Time for them to confirm it.
    pub wait_timeout: Duration,
}

impl Settings {
    /// For how long bytes may stay unacknowledged.
    pub(super) fn silence(&self) -> Duration {
        self.command_timeout * 4
    }

    /// Of all its sockets.
    pub(super) fn tcp(&self) -> TcpSettings {
        access::tcp(self.silence())
    }

    /// How a connection is made whose commands are answered within `response`.
    pub(super) fn connection(&self, response: Duration) -> AsyncConnectionConfig {
        AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.connect_timeout))
            .set_response_timeout(Some(response))
    }
}
