//! Configuration: a TOML file, the environment over it, flags over both.
//!
//! Every key is documented in `deploy/tidegate.toml`, and `tests/it/config.rs` holds that file against
//! this code. All faults are reported at once, before any socket opens.

mod address;
mod all;
mod auth;
mod cors;
mod ingest;
mod jwks;
mod redis;
mod reload;
mod secret;
mod sections;
mod server;
mod settled;
mod source;
mod token_keys;

pub use address::PerAddress;
pub use all::Config;
pub use auth::{Auth, OPEN_PUBLISHING};
pub use cors::{Allowed, Cors, Origins};
pub use ingest::Ingest;
pub use jwks::Jwks;
pub use redis::RedisConfig;
pub use reload::{RELOADABLE, Reload};
pub use sections::{Drain, Engine, Limits, Log, Logging, Ops, Publish, Repair, Replica, Stream};
pub use server::{FORWARDED, Server, names_host};
pub use source::{Faults, Flags};
