//! Frames that were heard while their topic was not whole.

use crate::id::Id;
use crate::sse::Frame;

/// Frames that wait for a repair. When it overflows they are dropped, and read from the log instead.
const PENDING_MAX: usize = 1024;
/// Bytes of them, all but the last.
const PENDING_BYTES_MAX: usize = 1024 * 1024;

/// Frames that wait until the topic has been read. Hardly ever any do, so they stand behind a
/// pointer.
#[derive(Debug, Default)]
pub(super) struct Pending(Option<Box<Waiting>>);

/// What was kept.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    /// In the order in which they were heard.
    pub(super) frames: Vec<Frame>,
    bytes: usize,
    /// Some did not fit, or were lost on the way.
    pub(super) lost: bool,
}

impl Pending {
    /// Keeps a frame, or remembers that it could not.
    pub(super) fn keep(&mut self, frame: Frame) {
        let waiting = self.0.get_or_insert_default();
        if waiting.frames.len() < PENDING_MAX && waiting.bytes < PENDING_BYTES_MAX {
            // Each came by itself, in a buffer of its own.
            waiting.bytes += frame.held_beside(None);
            waiting.frames.push(frame);
        } else {
            waiting.lost = true;
        }
    }

    /// Bytes that stay in memory for it.
    pub(super) fn held(&self) -> usize {
        self.0.as_ref().map_or(0, |waiting| waiting.bytes)
    }

    /// A frame was lost before it came here.
    pub(super) fn note_lost(&mut self) {
        self.0.get_or_insert_default().lost = true;
    }

    /// What waits.
    pub(super) fn ids(&self) -> impl DoubleEndedIterator<Item = Id> {
        let frames = self.0.as_deref().map_or(&[][..], |waiting| &waiting.frames);
        frames.iter().map(|frame| frame.id)
    }

    /// The last of it, zero for none.
    pub(super) fn last(&self) -> Id {
        self.ids().next_back().unwrap_or_default()
    }

    /// Everything kept; nothing is left.
    pub(super) fn take(&mut self) -> Waiting {
        self.0
            .take()
            .map_or_else(Waiting::default, |waiting| *waiting)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sse::{Entry, Mark};
    use crate::topic::Topic;

    fn frame(number: u64, size: usize) -> Frame {
        let entry = Entry {
            id: Id::new(number, 1),
            prev: Id::ZERO,
            mark: Mark::Event,
            event_type: String::new(),
            data: "x".repeat(size),
        };
        Frame::encode(&Topic::parse("t").unwrap(), &entry)
    }

    /// How many of 2,000 such frames wait, and whether some were lost.
    fn kept(size: usize) -> (usize, bool) {
        let mut pending = Pending::default();
        (0..2_000).for_each(|number| pending.keep(frame(number, size)));
        let held = pending.held();
        let waiting = pending.take();
        assert!(held < PENDING_BYTES_MAX + 2 * size, "{held}");
        assert_eq!(pending.held(), 0);
        (waiting.frames.len(), waiting.lost)
    }

    #[test]
    fn frames_wait_within_a_number_and_a_size() {
        assert_eq!(kept(1), (PENDING_MAX, true));
        let (large, lost) = kept(10_000);
        assert!((100..=105).contains(&large) && lost, "{large}");
    }
}
