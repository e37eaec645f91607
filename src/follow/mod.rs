//! What keeps the hub complete, and the streams supplied.
//!
//! - [`core`] is the follower's rules: interest out, frames in, holes repaired. No I/O.
//! - [`task`] carries out what they ask for ([`ask`]).
//! - [`reads`] reads the log for streams behind their window, once for all who want the same.
//! - [`denials`] reads what was taken back.
//! - [`fleet`] tells the other replicas of this one, and hears of them.

pub mod ask;
mod clock;
pub(crate) mod complaints;
pub mod core;
pub mod denials;
pub mod fleet;
pub mod reads;
pub mod task;

pub use core::FollowSettings;
pub use task::Follower;
