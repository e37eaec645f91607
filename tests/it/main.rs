//! Goal: what the gateway promises is what the real program does, whoever else talks to it.
//!
//! Method: each module starts servers of its own (Redis, replicas, proxies) on free ports, and looks
//! only at what comes out of them. One program instead of one a module is linked once, and keeps both
//! cores busy to the end; so all tests must bear each other: none changes this process (environment,
//! limits, working directory), none has a fixed port or folder.
//!
//! One module alone: `cargo test --test it wire::`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::print_stderr,
    reason = "a failed step ends the test"
)]

#[path = "../support/mod.rs"]
mod support;

mod acl;
mod addresses;
mod ahead;
mod auth;
mod auth_model;
mod auth_revoke;
mod bodies;
mod cli;
mod config;
mod connections;
mod cors;
mod decision;
mod doctor;
mod durability;
mod ended;
mod envelope;
mod exactly_once;
mod examples;
mod fanout;
mod foreign;
mod hand_over;
mod http2;
mod ingest;
mod interest;
mod jwks;
mod local;
mod logs;
mod make;
mod map;
mod metrics;
mod nginx;
mod openapi;
mod operations;
mod outage;
mod proxies;
mod publish;
mod readme;
mod recipes;
mod redis_tls;
mod refusals;
mod reload;
mod replay;
mod retention;
mod rotation;
mod sentinel;
mod shutdown;
mod silent_links;
mod slow_reader;
mod sockets;
mod stall;
mod stream_bounds;
mod streams;
mod stuck_log;
mod subscribe;
mod systemd;
mod tickets;
mod topics;
mod watched;
mod wire;
mod words;
