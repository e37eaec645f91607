//! What can go wrong with the log.

/// Why something was not done. The caller's fault or the server's: `http` turns it into a status.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BrokerError {
    /// The topic has ended; retrying helps only once it has expired or been deleted.
    #[error("topic {0} has ended")]
    Ended(String),
    /// The key of the topic's log, or of an idempotency key, holds what is not the gateway's.
    /// Retrying helps once somebody has removed it.
    #[error("{0}")]
    Foreign(String),
    /// The topic is not logged, so it cannot end; retrying does not help.
    #[error("topic {0} is not logged, so it cannot end")]
    Unlogged(String),
    /// The data is larger than `publish.event_bytes_max`.
    #[error("the event has more than {0} bytes")]
    TooLarge(u64),
    /// `limits.topics_max` topics exist already.
    #[error("there are {0} topics already, and limits.topics_max allows no more")]
    TooManyTopics(u64),
    /// As much was taken back as may be kept (`auth.denied_max`); what is older stays. Retrying helps when some of it is
    /// over.
    #[error("there are {0} denials already, and auth.denied_max allows no more")]
    TooManyDenials(u64),
    /// It is published, but fewer replicas of Redis than `log.wait_replicas` have confirmed it in
    /// time: a failover now may lose it. Retry with the same idempotency key.
    #[error("{replicas} of {wanted} replicas have confirmed it in time")]
    Unreplicated {
        /// Those that have it.
        replicas: u64,
        /// Those that should.
        wanted: u64,
    },
    /// What this process reports of the log is so far ahead of Redis' clock that it is not believed. It cannot follow
    /// this log; one that begins anew can.
    #[error("what is known of the log is more than an hour ahead of Redis' clock: {0}")]
    FarAhead(String),
    /// Redis refused for want of memory; retry later.
    #[error("the log is out of memory")]
    OutOfMemory,
    /// No answer, or no connection; whether it was done is unknown. Retry with the same
    /// idempotency key.
    #[error("the log cannot be reached: {0}")]
    Unavailable(String),
    /// Redis refused for a reason that retrying does not mend.
    #[error("the log refused: {0}")]
    Refused(String),
}
