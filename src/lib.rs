//! Tidegate: a horizontally scaled gateway for Server-Sent Events.
//!
//! The way of an event:
//!
//! ```text
//! publish -> broker: id, log entry and live frame in one atomic step
//!         -> broker::redis: the live path, one connection a replica
//!         -> follow: task hears each frame, core has the log read where one is missing
//!         -> hub: feed and window of the topic; the wakers of all who read it
//!         -> stream: sockets (or body) give the stream its turn
//!         -> stream::turn: hub::reader shows what comes after the cursor; a sink makes bytes of it
//!         -> stream::sockets: one write, as much as the socket takes
//! connect -> http::accept: a socket, a request
//!         -> http::subscribe: what is asked for, whether it is admitted
//!         -> stream::open: hub::reader, at the cursor
//!         -> stream::sockets: the connection, once its head is out
//! behind  -> follow::reads: a page of the log, once for all who want it
//! ```
//!
//! The words ([`address`], [`id`], [`topic`], [`event`], [`cursor`], [`sse`], [`log`], [`gap`], [`time`],
//! [`swap`], [`stderr`], `sync`) know nothing of their users. Above them stand [`limits`], [`auth`], [`hub`] and [`broker`], which
//! do not know one another; [`follow`] brings the two together; [`stream`] takes what it shows from the
//! hub, and what it is behind by from [`follow`]; [`ingest`] brings raw publishes to the broker. Then
//! comes [`http`], and [`app`] starts and stops it all for [`cli`], whose commands speak to a gateway through
//! [`client`]. That and [`app`] connect to others through [`dial`]. `tests/tidy_arrows.rs` holds the direction.
// Futures that hold the whole gateway are deeper than the compiler looks by default.
#![recursion_limit = "256"]

pub mod address;
pub mod app;
pub mod auth;
pub mod broker;
pub mod cli;
pub mod client;
pub mod config;
pub mod cursor;
pub mod dial;
pub mod event;
pub mod follow;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
pub mod gap;
pub mod http;
pub mod hub;
pub mod id;
pub mod ingest;
pub mod limits;
pub mod log;
pub mod metrics;
pub mod sse;
pub mod stderr;
pub mod stream;
pub mod swap;
mod sync;
pub mod time;
pub mod topic;
