//! Events as publishers give them: a type and data, checked once at the edge.

use std::fmt;
use std::sync::Arc;

/// The type of an event, which `EventSource` uses as the name of the DOM event.
///
/// Empty means none was given, which a browser reads as `message`. At most 255 bytes, without CR,
/// LF or NUL (they would end the line, or the id: [WHATWG HTML, 9.2.6](https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation)).
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct EventType(Option<Arc<str>>);

/// Why something is not an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadEvent {
    /// CR, LF or NUL in the type.
    #[error("an event type has no line break and no NUL")]
    TypeBreaksLine,
    /// A type of more than 255 bytes.
    #[error("an event type has at most 255 bytes")]
    TypeTooLong,
    /// The type begins with `tidegate.`.
    #[error("event types that begin with \"tidegate.\" are the gateway's own")]
    TypeReserved,
    /// The type, or the data, is not UTF-8; an event stream is always UTF-8.
    #[error("an event is UTF-8")]
    NotUtf8,
}

impl EventType {
    /// Longest type, in bytes.
    pub const BYTES_MAX: usize = 255;

    /// Checks a type that a publisher gave.
    ///
    /// # Errors
    /// [`BadEvent`] says which rule is broken.
    pub fn parse(text: &str) -> Result<Self, BadEvent> {
        if text.bytes().any(|b| matches!(b, b'\r' | b'\n' | 0)) {
            return Err(BadEvent::TypeBreaksLine);
        }
        if text.len() > Self::BYTES_MAX {
            return Err(BadEvent::TypeTooLong);
        }
        if text.starts_with("tidegate.") {
            return Err(BadEvent::TypeReserved);
        }
        Ok(Self((!text.is_empty()).then(|| text.into())))
    }

    /// The text; empty when none was given.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_deref().unwrap_or_default()
    }
}

impl fmt::Display for EventType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_cannot_break_its_line() {
        assert_eq!(EventType::parse("price").unwrap().as_str(), "price");
        assert_eq!(EventType::parse("").unwrap(), EventType::default());
        for bad in ["a\r", "a\nb", "\0"] {
            assert_eq!(EventType::parse(bad), Err(BadEvent::TypeBreaksLine));
        }
        assert_eq!(
            EventType::parse("tidegate.gap"),
            Err(BadEvent::TypeReserved)
        );
        assert_eq!(
            EventType::parse(&"x".repeat(256)),
            Err(BadEvent::TypeTooLong)
        );
    }
}
