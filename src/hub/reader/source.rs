//! One topic of a stream: a page of the log while the stream is behind the topic's window, and the
//! window after that.

use super::step::{Flow, Showing, Shown, Sink};
use crate::gap::{self, Forgiven};
use crate::hub::feed::{Feed, LateFind, Stretch};
use crate::hub::waker::WakerId;
use crate::id::Id;
use crate::log::{Page, ReadRequest, Reading};
use crate::sse::{Frame, Gap, GapReason, Mark};
use std::sync::Arc;

#[derive(Debug)]
pub(super) struct Source {
    pub(super) feed: Arc<Feed>,
    pub(super) waker_id: WakerId,
    /// Nothing at or below this is still to come from this topic.
    pub(super) done: Id,
    /// The last event that was not logged and was shown, or came before this stream, by its number.
    pub(super) passed: u64,
    /// Events that were found late and told, or that do not concern this stream, by their number.
    late_seen: u32,
    /// The log was not read yet for a first visit that asks for history.
    pub(super) history: bool,
    /// What was gone when it was, of what was there when the visit began.
    forgiven: Option<Box<Forgiven>>,
    pub(super) page: Option<Box<PageCursor>>,
}

/// A page of the log on its way to the stream.
#[derive(Debug)]
pub(super) struct PageCursor {
    /// Told before anything else of the page.
    pub(super) gap: Option<Gap>,
    /// None if there is a gap to tell and nothing else.
    frames: Option<SharedFrames>,
    /// The topic is known up to here.
    pub(super) cap: Id,
}

/// What is left of a page that all who asked for it share.
#[derive(Debug)]
struct SharedFrames {
    reading: Arc<Reading>,
    page: usize,
    next: usize,
}

/// What a topic shows next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Front {
    /// It must be read from the log first.
    Behind,
    /// Nothing that is known here.
    Nothing,
    /// Something at this id.
    At(Id),
}

/// Decides which entries a stream is told.
#[derive(Clone, Copy, Debug)]
pub(super) struct Teller {
    /// Where the stream began.
    pub(super) since: Id,
    /// It came with a cursor.
    pub(super) resumed: bool,
    /// The hub's serial number when it began.
    pub(super) serial: u64,
}

impl Teller {
    /// Whether the stream is told of this entry.
    ///
    /// A stream that came with a cursor may have gone past the lost ids before the gap was written
    /// down, on this replica or on another: it is told although it begins above them.
    pub(super) fn tells(&self, frame: &Frame) -> bool {
        match frame.mark {
            Mark::Event | Mark::End | Mark::Deleted | Mark::Unlogged => true,
            Mark::Gap { lost, .. } => self.since < lost || self.resumed,
        }
    }

    /// Whether the stream may have gone past what was found late: here, or where it came from.
    fn may_lack(&self, find: &LateFind) -> bool {
        let was_open = self.serial < find.serial && self.since < find.stretch.to;
        // Who stands right where it was found may have left before it was told.
        was_open || (self.resumed && find.stretch.from < self.since && self.since <= find.at)
    }
}

impl PageCursor {
    fn left(&self) -> &[Frame] {
        self.frames.as_ref().map_or(&[], SharedFrames::left)
    }

    fn is_shown(&self) -> bool {
        self.gap.is_none() && self.left().is_empty()
    }

    fn note_grown(&self, bytes: usize) {
        let held = self
            .frames
            .as_ref()
            .and_then(|frames| frames.reading.held.as_ref());
        if let Some(held) = held
            && bytes > 0
        {
            held.grow(bytes);
        }
    }

    fn pass_one(&mut self) {
        if let Some(frames) = &mut self.frames {
            frames.next += 1;
        }
    }
}

impl SharedFrames {
    fn left(&self) -> &[Frame] {
        let page = self.reading.pages.get(self.page);
        page.and_then(|page| page.frames.get(self.next..))
            .unwrap_or_default()
    }
}

impl Source {
    pub(super) fn new(feed: Arc<Feed>, waker_id: WakerId) -> Self {
        Self {
            feed,
            waker_id,
            done: Id::ZERO,
            passed: 0,
            late_seen: 0,
            history: false,
            forgiven: None,
            page: None,
        }
    }

    /// It begins a first visit that asks for history.
    pub(super) fn begin_history(&mut self) {
        let head = self.feed.complete().unwrap_or_default();
        self.forgiven = Some(Box::new(Forgiven::from_head(head)));
        self.history = true;
    }

    /// Everything at or below this was shown, or is never shown to this stream.
    pub(super) fn position(&self, cursor: Id) -> Id {
        cursor.max(self.done)
    }

    /// The next page after a position, of `limit` entries at most.
    pub(super) fn request(&self, after: Id, limit: usize) -> ReadRequest {
        ReadRequest {
            topic: self.feed.topic().clone(),
            after,
            limit,
        }
    }

    /// How the log of this topic stands, and no entries.
    pub(super) fn state_request(&self) -> ReadRequest {
        ReadRequest {
            topic: self.feed.topic().clone(),
            after: Id::ZERO,
            limit: 0,
        }
    }

    /// Up to where this topic is known to this stream; none while it opens.
    pub(super) fn limit(&self) -> Option<Id> {
        let complete = self.feed.complete()?;
        Some(
            self.page
                .as_ref()
                .map_or(complete.max(self.done), |page| page.cap),
        )
    }

    /// A page that was shown whole is done with; the window, or another page, follows. One that was
    /// read before the topic was deleted is not shown any further.
    pub(super) fn turn_page(&mut self) {
        let Some(page) = &self.page else { return };
        if page.is_shown() {
            self.done = self.done.max(page.cap);
            self.page = None;
        } else if let Some(frames) = &page.frames
            && self.feed.was_deleted_after(&frames.reading.horizon)
        {
            self.page = None;
        }
    }

    /// Takes a page that this topic has asked for, unless the topic was deleted since it was read.
    pub(super) fn take_page(
        &mut self,
        reading: &Arc<Reading>,
        index: usize,
        page: &Page,
        since: Id,
    ) {
        if self.feed.was_deleted_after(&reading.horizon) {
            return;
        }
        // Only what was gone where the stream began, and when: what is trimmed while it reads is missed like
        // anything else. This very log was asked where a first visit begins, so what stands there is shown,
        // though it lies in a seam.
        if std::mem::take(&mut self.history)
            && page.after == since
            && let Some(forgiven) = &mut self.forgiven
        {
            forgiven.note(&reading.horizon, page.floor);
        }
        let forgiven = self.forgiven.as_deref().copied().unwrap_or_default();
        let gap = gap::judge_visit(page.after, &reading.horizon, page.floor, forgiven)
            .filter(|missing| missing.to > page.after);
        let cap = page.cut_at.unwrap_or(reading.horizon.last);
        let from = gap.map_or(page.after, |missing| missing.to);
        self.page = Some(Box::new(PageCursor {
            gap: gap.map(|missing| self.gap(missing)),
            frames: Some(SharedFrames {
                reading: reading.clone(),
                page: index,
                next: page.frames.partition_point(|frame| frame.id <= from),
            }),
            cap: cap.max(from),
        }));
    }

    /// Tells a gap although the window covers the cursor.
    pub(super) fn skip(&mut self, missing: gap::Missing) {
        self.page = Some(Box::new(PageCursor {
            gap: Some(self.gap(missing)),
            frames: None,
            cap: missing.to,
        }));
    }

    /// Whether entries of a page are held for it.
    pub(super) fn holds_page(&self) -> bool {
        self.page
            .as_ref()
            .is_some_and(|page| !page.left().is_empty())
    }

    /// The stream shows nothing for a while. What is left of the page is read again when it goes on; a gap
    /// that the page begins with was found, and stays.
    pub(super) fn release_page(&mut self) {
        self.page = self.page.take().and_then(|mut page| {
            let gap = page.gap.as_ref()?;
            page.cap = gap.to;
            page.frames = None;
            Some(page)
        });
    }

    fn gap(&self, missing: gap::Missing) -> Gap {
        Gap {
            topic: self.feed.topic().clone(),
            reason: missing.reason,
            from: Some(missing.from),
            to: missing.to,
        }
    }

    /// What this topic shows next.
    pub(super) fn front(&self, cursor: Id) -> Front {
        let next = if let Some(page) = &self.page {
            let gap = page.gap.as_ref().map(|gap| gap.to);
            gap.or_else(|| page.left().first().map(|frame| frame.id))
        } else {
            let position = self.position(cursor);
            let view = self.feed.view();
            if !view.covers(position) {
                return Front::Behind;
            }
            view.after(position).next().map(|frame| frame.id)
        };
        next.map_or(Front::Nothing, Front::At)
    }

    /// Shows everything up to `until`; returns how far it came, and whether the sink is full.
    pub(super) fn show(
        &mut self,
        cursor: Id,
        until: Id,
        anchored: bool,
        teller: &Teller,
        showing: &mut Showing<'_, impl Sink>,
    ) -> (Id, Flow) {
        let mut reached = self.position(cursor);
        let topic = self.feed.topic();
        let Some(page) = &mut self.page else {
            let mut view = self.feed.view();
            let mut flow = Flow::More;
            if !view.covers(reached) {
                // The window has moved on since it was looked at: the next look reads the log.
                return (reached, flow);
            }
            for frame in view.after(reached).take_while(|frame| frame.id <= until) {
                reached = frame.id;
                let shown = Shown::Frame {
                    topic,
                    frame,
                    anchored,
                };
                if teller.tells(frame) && showing.show(shown) == Flow::Full {
                    flow = Flow::Full;
                    break;
                }
            }
            view.note_grown(showing.sink.take_grown());
            return (reached, flow);
        };
        if let Some(gap) = page.gap.take_if(|gap| gap.to <= until) {
            reached = gap.to;
            if showing.show(Shown::Gap { gap, anchored }) == Flow::Full {
                return (reached, Flow::Full);
            }
        }
        if page.gap.is_some() {
            return (reached, Flow::More);
        }
        while let Some(frame) = page.left().first().filter(|frame| frame.id <= until) {
            reached = frame.id;
            let shown = Shown::Frame {
                topic,
                frame,
                anchored,
            };
            let flow = if teller.tells(frame) {
                showing.show(shown)
            } else {
                Flow::More
            };
            page.note_grown(showing.sink.take_grown());
            page.pass_one();
            if flow == Flow::Full {
                return (reached, Flow::Full);
            }
        }
        (reached, Flow::More)
    }

    /// Whether something was found late that this stream has not looked at.
    pub(super) fn has_late(&self) -> bool {
        self.late_seen < self.feed.late_finds()
    }

    /// Tells of events that were found after the stream may have gone past them. The cursor stays
    /// where it is, so the gap has no id.
    pub(super) fn tell_late(
        &mut self,
        teller: &Teller,
        showing: &mut Showing<'_, impl Sink>,
    ) -> Flow {
        if !self.has_late() {
            return Flow::More;
        }
        let view = self.feed.view();
        let finds = view.late_after(self.late_seen);
        let lacks = finds
            .filter(|find| teller.may_lack(find))
            .map(|find| find.stretch)
            .reduce(Stretch::and);
        // Under the lock: one that is found right after this look is looked at by the next.
        self.late_seen = self.feed.late_finds();
        drop(view);
        let anchored = false;
        match lacks {
            Some(Stretch { from, to, reason }) => {
                let gap = Gap {
                    topic: self.feed.topic().clone(),
                    reason,
                    from: Some(from),
                    to,
                };
                showing.show(Shown::Gap { gap, anchored })
            }
            None => Flow::More,
        }
    }

    /// Tells what this topic lacks below the stream's position, if that was not told yet; the stream began at
    /// `began`.
    pub(super) fn tell_untold(
        &mut self,
        cursor: Id,
        began: Id,
        showing: &mut Showing<'_, impl Sink>,
    ) {
        let Some((at, shown)) = self.feed.untold() else {
            return;
        };
        // Other topics have taken the cursor on. What this one was shown beyond the hole it was shown of a page.
        let (from, to) = (at.max(began).max(self.done), cursor.min(shown));
        if from < to {
            let gap = Gap {
                topic: self.feed.topic().clone(),
                reason: GapReason::Late,
                from: Some(from),
                to,
            };
            let anchored = false;
            // It ends whether or not there is room.
            let _is_full = showing.show(Shown::Gap { gap, anchored });
        }
    }

    /// Shows events that are not logged.
    pub(super) fn show_unlogged(&mut self, showing: &mut Showing<'_, impl Sink>) -> Flow {
        if self.passed >= self.feed.passed() {
            return Flow::More;
        }
        let mut view = self.feed.view();
        let (frames, passed) = view.unlogged_after(self.passed);
        self.passed = passed.seen;
        showing.skipped += passed.skipped;
        let mut flow = Flow::More;
        for frame in frames {
            self.passed = frame.id.seq;
            let shown = Shown::Frame {
                topic: self.feed.topic(),
                frame,
                anchored: false,
            };
            if showing.show(shown) == Flow::Full {
                flow = Flow::Full;
                break;
            }
        }
        view.note_unlogged_grown(showing.sink.take_grown());
        flow
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What was found above 3 ms, up to 5 ms, when the clock stood at 9 ms.
    #[test]
    fn a_late_find_is_told_to_streams_that_may_have_gone_past_it_and_to_no_other() {
        let id = |ms: u64| Id::new(ms, 0);
        let find = LateFind {
            number: 1,
            stretch: Stretch {
                from: id(3),
                to: id(5),
                reason: GapReason::Late,
            },
            at: id(9),
            serial: 7,
        };
        let (before, after) = (6, 7);
        let table = [
            ("was open below its end", before, 4, false, true),
            ("began at its end", before, 5, false, false),
            ("came later", after, 4, false, false),
            ("resumed where it begins", after, 3, true, false),
            ("resumed within it", after, 4, true, true),
            (
                "resumed above it, before it was found",
                after,
                8,
                true,
                true,
            ),
            ("resumed where it was found", after, 9, true, true),
            ("resumed above that", after, 10, true, false),
        ];
        for (what, serial, since, resumed, lacks) in table {
            let teller = Teller {
                since: id(since),
                resumed,
                serial,
            };
            assert_eq!(teller.may_lack(&find), lacks, "{what}");
        }
    }
}
