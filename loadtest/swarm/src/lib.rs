//! Subscribers and publishers that watch Tidegate from outside.
//!
//! The gateway promises order and exactly-once across drops, replicas and faults. This crate checks
//! the promise as a stranger would: with an SSE client that the tests share, against what publishers were
//! told, and against the log itself. It uses no code of the gateway.
//!
//! ```text
//! scenario ──> run: subscribers open their streams
//!                   publishers send, and keep what they were told     (publish::Record)
//!                   the script kills, pauses and starts parts         (scenario::Step)
//!                   subscribers drop, resume, and keep what they saw  (subscriber::Diary)
//!          ──> verdict: records, diaries and logs compared, event by event
//! ```
//!
//! Everything random is drawn from one seed. A seed fixes what is published, who subscribes to
//! what, where streams are dropped and when faults come; how the processes interleave stays theirs.

pub mod abuse;
pub mod bench;
mod builds;
pub mod clock;
pub mod cluster;
pub mod event;
pub mod http;
pub mod id;
pub mod link;
pub mod log;
pub mod publish;
pub mod redis_link;
pub mod report;
pub mod run;
pub mod scenario;
pub mod subscriber;
pub mod tokens;
pub mod verdict;
