//! A subscriber that comes back.

use super::{End, Event, Sse};

/// Reads until an event with this data, and comes back by `come_back` whenever the stream ends:
/// every event that is not the gateway's own, in the order in which they came.
///
/// # Panics
/// If the stream tells of a gap, or ends cleanly: some clients take that for the end of all.
pub fn follow_until(
    last: &str,
    mut stream: Sse,
    mut come_back: impl FnMut(Sse) -> Sse,
) -> Vec<Event> {
    let mut seen = Vec::new();
    loop {
        let mut is_refused = true;
        while let Some(event) = stream.try_next_event() {
            is_refused = false;
            assert_ne!(event.event, "tidegate.gap", "{event:?}");
            if event.is_own() {
                continue;
            }
            let is_last = event.data == last;
            seen.push(event);
            if is_last {
                return seen;
            }
        }
        let is_cut = stream.end() == Some(End::Cut);
        assert!(is_cut || is_refused, "a clean end after {:?}", seen.last());
        stream = come_back(stream);
    }
}
