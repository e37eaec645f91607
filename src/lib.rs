//! Tidegate: a horizontally scaled gateway for Server-Sent Events.
//!
//! The way of an event:
//!
//! ```text
//! publish -> broker: id, log entry and live frame in one atomic step
//!         -> engine::follow: hub.hear(frame)
//!         -> hub: the topic's window, every reader's bell
//!         -> engine::body: reader.step, bytes to the socket
//! connect -> http::subscribe: route, admit, hub.reader(cursor) -> engine::stream
//! ```
//!
//! The words ([`id`], [`topic`], [`event`], [`cursor`], [`sse`], [`log`], [`gap`]) know nothing of
//! each other's users. Above them stand [`hub`] and [`broker`], which do not know one another;
//! then [`engine`] and [`ingest`], which bring the two together; then [`http`]; and [`app`] starts
//! and stops it all.

pub mod app;
pub mod broker;
pub mod cli;
pub mod config;
pub mod cursor;
pub mod event;
pub mod follow;
pub mod gap;
pub mod http;
pub mod hub;
pub mod id;
pub mod ingest;
pub mod log;
pub mod metrics;
pub mod sse;
pub mod stream;
pub mod swap;
pub mod time;
pub mod topic;
