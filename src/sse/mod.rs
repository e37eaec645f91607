//! The wire form: `text/event-stream` of
//! [WHATWG HTML, section 9.2](https://html.spec.whatwg.org/multipage/server-sent-events.html).
//!
//! LF only, no BOM, lower-case field names, one space after the colon, every block complete, and
//! never a block without data: several clients raise an empty event for one.

mod block;
pub mod chunk;
mod encoded;
mod envelope;
mod frame;
mod json;
mod span;

pub use block::{Block, Gap, GapReason, HEARTBEAT, heartbeat_event, retry_line};
pub use encoded::Encoded;
pub use frame::{Entry, Frame, Mark};
pub use span::Span;
