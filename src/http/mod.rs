//! HTTP: routes, admission, answers. The only part that knows status codes.
//!
//! | path | methods |
//! |---|---|
//! | `/events`, `/events/{topic}` | GET (stream), HEAD, POST, OPTIONS |
//! | `/topics`, `/topics/{topic}`, `/topics/{topic}/events` | GET, DELETE |
//! | `/tickets` | POST |
//! | `/session` | POST, DELETE |
//! | `/healthz`, `/readyz`, `/metrics`, `/streams` | GET; on `ops.listen` if there is one |
//! | `/` | GET: the page |

pub mod accept;
mod address;
mod answer;
mod answers;
mod batch;
mod come_back;
mod cors;
mod cut;
mod disconnect;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod gate;
mod gateway;
mod guard;
mod health;
mod intake;
mod listing;
mod name;
mod nowhere;
#[cfg(test)]
mod openapi;
mod problem;
mod publish;
mod query;
mod routes;
mod session;
mod shown;
mod streams;
mod subscribe;
mod tickets;
mod topics;
mod vocabulary;

pub use answers::Answers;
pub use gateway::{Auth, Gateway, Rules};
pub use guard::Guard;
pub use intake::Intake;
pub use routes::{ops_router, router};
