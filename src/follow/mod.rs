//! What keeps the hub complete, and the streams supplied.
//!
//! - [`task`] follows the live path: interest out, frames in, holes repaired.
//! - [`reads`] reads the log for streams behind their window, once for all who want the same.
//! - [`fleet`] tells the other replicas of this one, and hears of them.

pub mod fleet;
pub mod reads;
pub mod task;

pub use task::{FollowSettings, Follower};
