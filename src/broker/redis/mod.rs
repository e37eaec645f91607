//! The Redis broker: the log in streams, live frames over pub/sub, each operation one atomic function.
//!
//! | key or channel | type | what |
//! |---|---|---|
//! | `tidegate:meta` | hash | `partitions`, written once; `denied`, when something was taken back last |
//! | `tidegate:{p}:clock` | hash | last id given out, `born`, run id of the process that wrote last, seams, losses, settings and rules |
//! | `tidegate:{p}:log:<topic>` | stream | `prev`, `type`, `data`, and `end` or `gap` |
//! | `tidegate:{p}:heads` | hash | topic to last id, and `end` |
//! | `tidegate:{p}:expires` | sorted set | topics by the time at which they are looked at: what is kept of one goes once its log has gone |
//! | `tidegate:{p}:gaps` | hash | topic to the gaps that its log tells of: `from,lost`, the newest last |
//! | `tidegate:{p}:idem:<topic>:<key>` | string | id, with expiry; of a topic with a colon `idem::<bytes>:<topic>:<key>` |
//! | `tidegate:{p}:ingest` | hash | epochs and positions of ingest, and of the inbox; maps of channels, and which ears have them |
//! | `tidegate:{p}:live:<topic>`, `tidegate:{p}:tick` | pub/sub | frames, ticks |
//! | `tidegate:ingest` | pub/sub | `start`, `done` and `leave` among the ears: `ingest::told` |
//! | `tidegate:inbox` | stream | XADD ingestion |
//! | `tidegate:refused`, `tidegate:refused:second` | stream, text | the last raw publishes and inbox entries that were refused, and how many were noted within this second |
//! | `tidegate:ticket:<name>` | string | what a ticket stands for, sealed by it, with expiry |
//! | `tidegate:tickets:<owner>` | sorted set | names of an owner's tickets by the time at which they are over, with expiry |
//! | `tidegate:replicas`, `tidegate:subscribers:<replica>` | hash | heartbeats |
//! | `tidegate:denied`, `tidegate:disconnected` | sorted set | what was taken back, by when: subjects and tokens by a hash of them; patterns of topics whose streams were ended |
//! | `tidegate:libraries` | hash | function library to when a replica has used it last |
//!
//! `p` is the partition's number.
//!
//! | file | what |
//! |---|---|
//! | `settings`, `access` | what the configuration says; how a server is reached: addresses, users, TLS |
//! | `client` | what the operations share: the `Redis` that all of them are methods of |
//! | `node` | one server: pools for commands, and the `lane` on which publishes go together |
//! | `master`, `sentinel` | which server is asked, and what is done when it changes |
//! | `rotation` | another way to Redis while streams are open: other credentials, other certificates, another server |
//! | `error` | what a failure is, from what Redis says |
//! | `library`, `functions` | the Lua sources; loading, calling and removing them |
//! | `log`, `denials`, `ingest`, `tickets` | what is asked: operations of the log; what was taken back; epochs, appends and the inbox; tickets |
//! | `live`, `pubsub` | the connection that hears, on its own so that Redis dropping a slow subscriber takes no command along |
//! | `decode` | reading answers, entries and frames |

mod access;
mod client;
pub(crate) mod decode;
mod denials;
mod error;
mod functions;
mod history;
mod ingest;
mod lane;
mod library;
mod live;
mod log;
mod master;
mod node;
mod outage;
mod pubsub;
mod rotation;
mod sentinel;
mod settings;
mod tickets;

pub use access::{Access, Identity};
pub use client::Redis;
pub(crate) use functions::code_of;
pub(crate) use library::words as library_words;
pub use live::run as run_live;
pub(crate) use outage::Outage;
pub use pubsub::{PubSub, Push};
pub use rotation::follow_access;
pub use sentinel::follow_master;
pub use settings::Settings;
