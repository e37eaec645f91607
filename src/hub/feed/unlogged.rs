//! Events of a topic that is not logged.
//!
//! They pass beside everything else: they have no id, none of them can be missed, and no state of
//! health holds them back. The feed numbers them as they come and keeps the last ones, within the
//! bounds of a window, for readers that look a moment later; a reader that is behind even that goes
//! on with what is there.

use crate::hub::window::{Window, WindowBounds};
use crate::id::Id;
use crate::sse::Frame;

/// The last events that were not logged, at positions `0-<number>`. Most topics have none, ever.
#[derive(Debug, Default)]
pub(super) struct Unlogged(Option<Box<Window>>);

/// How far a reader came among them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::hub) struct Passed {
    /// The number of the last event that the reader has seen, or missed.
    pub(in crate::hub) seen: u64,
    /// How many were there no more.
    pub(in crate::hub) skipped: u64,
}

impl Unlogged {
    /// Adds an event under its number.
    pub(super) fn append(&mut self, mut frame: Frame, number: u64, bounds: WindowBounds) {
        frame.id = Id::new(0, number);
        self.0
            .get_or_insert_with(|| Box::new(Window::new(Id::ZERO, bounds)))
            .append(frame);
    }

    /// Events after number `seen`, and how many between are there no more.
    pub(super) fn after(&self, seen: u64) -> (impl Iterator<Item = &Frame>, Passed) {
        let floor = self.0.as_ref().map_or(0, |window| window.floor().seq);
        let skipped = floor.saturating_sub(seen);
        let seen = seen + skipped;
        let frames = self.0.iter();
        let frames = frames.flat_map(move |window| window.after(Id::new(0, seen)));
        (frames, Passed { seen, skipped })
    }

    /// As [`Window::note_grown`].
    pub(super) fn note_grown(&mut self, bytes: usize) {
        if let Some(window) = &mut self.0 {
            window.note_grown(bytes);
        }
    }

    /// Bytes that stay in memory for it.
    pub(super) fn held(&self) -> usize {
        self.0.as_ref().map_or(0, |window| window.held())
    }

    /// Whether it can give something back: the newest event always stays, since no reader could get it
    /// elsewhere.
    pub(super) fn gives(&self) -> bool {
        self.0.as_ref().is_some_and(|window| window.len() > 1)
    }

    /// As [`Window::give_back`].
    pub(super) fn give_back(&mut self, most: usize) -> usize {
        self.0
            .as_mut()
            .map_or(0, |window| window.give_back(most, 1))
    }
}
