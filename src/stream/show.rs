//! Where a stream's events go: the sink of its reader's step.

use super::cursor::SentCursor;
use super::options::StreamOptions;
use super::out::Out;
use crate::cursor::Cursor;
use crate::hub::reader::{Flow, Shown, Sink};
use crate::metrics::Metrics;
use crate::sse::{Encoded, Frame, Mark};
use crate::topic::Topic;
use bytes::Bytes;

/// Where a step's events go: encoded bytes, the cursor that the client knows, counts.
pub(super) struct Writer<'a, F> {
    /// Ids stand on the wire as they stand in frames.
    pub(super) bare: bool,
    /// The next event's age is worth measuring.
    pub(super) sample: bool,
    /// Bytes after which the turn stops.
    pub(super) most: usize,
    pub(super) metrics: &'a Metrics,
    pub(super) options: Option<&'a mut StreamOptions>,
    pub(super) sent: &'a mut SentCursor,
    pub(super) events: &'a mut u64,
    pub(super) out: &'a mut Out,
    pub(super) others: &'a mut F,
    /// Bytes that frames have grown by.
    pub(super) grown: usize,
}

impl<F: FnMut()> Sink for Writer<'_, F> {
    fn show(&mut self, shown: Shown<'_>, cursor: &Cursor) -> Flow {
        match shown {
            Shown::Gap { gap, anchored } => {
                self.metrics.gap(gap.reason);
                self.out.push(gap.block(anchored.then_some(cursor)));
                if anchored {
                    self.sent.written(cursor);
                }
            }
            Shown::Frame {
                topic,
                frame,
                anchored,
            } => {
                if !self.is_wanted(frame) {
                    self.sent.behind = self.sent.behind.saturating_add(u32::from(anchored));
                    return Flow::More;
                }
                let (encoded, grown) = self.encoded(topic, frame);
                self.grown += grown;
                self.write(encoded, anchored, cursor);
                self.count(frame);
            }
        }
        let limit = self.options.as_ref().and_then(|options| options.limit);
        if limit == Some(0) || self.out.bytes >= self.most {
            Flow::Full
        } else {
            Flow::More
        }
    }

    fn take_grown(&mut self) -> usize {
        std::mem::take(&mut self.grown)
    }

    fn others_run(&mut self) {
        (self.others)();
    }
}

impl<F> Writer<'_, F> {
    /// A filter by type keeps back events only: what the gateway itself says concerns all.
    fn is_wanted(&self, frame: &Frame) -> bool {
        match frame.mark {
            Mark::Event | Mark::End | Mark::Unlogged => {
                let options = self.options.as_ref();
                options.is_none_or(|options| options.shows(frame.event_type()))
            }
            Mark::Deleted | Mark::Gap { .. } => true,
        }
    }

    /// The block that this stream reads, and by how much the frame has grown because of it.
    fn encoded<'f>(&self, topic: &Topic, frame: &'f Frame) -> (&'f Encoded, usize) {
        let options = self.options.as_ref();
        if options.is_some_and(|options| options.envelope) {
            frame.envelope(topic)
        } else {
            (frame.plain(), 0)
        }
    }

    fn write(&mut self, block: &Encoded, anchored: bool, cursor: &Cursor) {
        if anchored {
            self.sent.written(cursor);
        }
        match (anchored, self.bare) {
            (true, true) => self.out.push_encoded(block),
            (true, false) => {
                let parts = block.block_with(cursor);
                let bytes = parts.iter().map(Bytes::len).sum();
                self.out.push_parts(bytes, parts);
            }
            (false, _) => self.out.push(block.block_without_id()),
        }
    }

    fn count(&mut self, frame: &Frame) {
        if let Some(reason) = frame.gap_reason() {
            self.metrics.gap(reason);
        }
        let is_logged = frame.mark != Mark::Unlogged;
        if is_logged && std::mem::take(&mut self.sample) {
            self.out.fresh_ms = Some(frame.id.ms);
        }
        if matches!(frame.mark, Mark::Gap { .. }) {
            return;
        }
        self.out.delivered += 1;
        *self.events += 1;
        // What has no id is never replayed, so it does not bring a reader nearer to its end.
        if is_logged
            && let Some(options) = self.options.as_mut()
            && let Some(left) = options.limit.as_mut()
        {
            *left = left.saturating_sub(1);
        }
    }
}

/// Shows nothing; a refresh only looks.
pub(super) struct Unheeding<'a, F>(pub(super) &'a mut F);

impl<F: FnMut()> Sink for Unheeding<'_, F> {
    fn show(&mut self, _: Shown<'_>, _: &Cursor) -> Flow {
        Flow::Full
    }

    fn others_run(&mut self) {
        (self.0)();
    }
}
