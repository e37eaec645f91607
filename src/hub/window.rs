//! The window: the recent tail of a topic's log that this replica holds in memory.

use crate::id::Id;
use crate::sse::{Frame, Mark};
use std::collections::VecDeque;

/// Bounds of the windows of a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Windows {
    /// Of each window.
    pub each: WindowBounds,
    /// Bytes of all of them together. Beyond it the largest give back their oldest frames.
    pub total_bytes_max: usize,
}

impl From<WindowBounds> for Windows {
    /// Without a bound of all together.
    fn from(each: WindowBounds) -> Self {
        Self {
            each,
            total_bytes_max: usize::MAX,
        }
    }
}

/// Bounds of one window; the older of the two rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowBounds {
    /// Frames at most. Below 1 nothing is kept and every reader that is not awake reads the log.
    pub events_max: usize,
    /// Bytes at most.
    pub bytes_max: usize,
}

/// Frames at the end that are looked at one by one before all are searched.
const NEAR: usize = 4;

/// Every entry of the topic above `floor`, up to where the topic is complete, encoded once.
#[derive(Debug)]
pub struct Window {
    frames: VecDeque<Frame>,
    floor: Id,
    /// Of the frames by themselves.
    bytes: usize,
    /// Of the frames, and of the buffers in which they stand.
    held: usize,
    bounds: WindowBounds,
}

impl Window {
    /// An empty window that covers everything above `floor`.
    #[must_use]
    pub fn new(floor: Id, bounds: WindowBounds) -> Self {
        Self {
            frames: VecDeque::new(),
            floor,
            bytes: 0,
            held: 0,
            bounds,
        }
    }

    /// A reader at or above this position misses nothing here.
    #[must_use]
    pub fn floor(&self) -> Id {
        self.floor
    }

    /// Its bounds.
    #[must_use]
    pub fn bounds(&self) -> WindowBounds {
        self.bounds
    }

    /// Bytes that stay in memory for it: frames of one page share buffers, and each of those lives as long
    /// as one of its frames.
    #[must_use]
    pub fn held(&self) -> usize {
        let spare = self.frames.capacity() - self.frames.len();
        self.held + spare * size_of::<Frame>()
    }

    /// How many frames there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.frames.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// The last id, if there is a frame.
    #[must_use]
    pub fn last(&self) -> Option<Id> {
        self.frames.back().map(|frame| frame.id)
    }

    /// Appends the topic's next entry. The oldest make room; at least one always stays.
    pub fn append(&mut self, frame: Frame) {
        debug_assert!(self.last().is_none_or(|last| last < frame.id), "ids grow");
        if frame.mark == Mark::Deleted {
            // What was deleted is not shown again, not even from memory.
            self.restart(frame.prev);
        }
        self.bytes += frame.size();
        self.held += frame.held_beside(self.frames.back());
        if self.frames.capacity() == 0 {
            // Very many topics never have a second event while somebody looks.
            self.frames.reserve_exact(1);
        }
        self.frames.push_back(frame);
        self.make_room();
    }

    /// Frames that stand here hold so many bytes more. The oldest make room; at least one always stays.
    pub fn note_grown(&mut self, bytes: usize) {
        self.bytes += bytes;
        self.held += bytes;
        self.make_room();
    }

    fn make_room(&mut self) {
        while self.frames.len() > 1 && self.is_over() {
            self.drop_oldest();
        }
    }

    /// Lets the oldest go until no more than `most` bytes are held, and `least` frames or fewer are left. How
    /// many went.
    pub fn give_back(&mut self, most: usize, least: usize) -> usize {
        let before = self.frames.len();
        while self.frames.len() > least && self.held() > most {
            self.drop_oldest();
        }
        before - self.frames.len()
    }

    /// Puts older entries before the present ones: everything above `floor`, as far as they fit, also into
    /// `room` bytes of memory.
    pub fn prepend(&mut self, floor: Id, older: &[Frame], room: usize) {
        let below = older.partition_point(|frame| frame.id <= self.floor);
        let older = older.get(..below).unwrap_or_default();
        if floor >= self.floor || self.frames.len() + older.len() > self.bounds.events_max {
            return;
        }
        // Frames of our own: those of the page are shared, and grow when another stream asks for an envelope.
        let older = older.to_vec();
        let bytes: usize = older.iter().map(Frame::size).sum();
        let beside = older.iter().skip(1).map(Some).chain([self.frames.front()]);
        let held: usize = older
            .iter()
            .zip(beside)
            .map(|(frame, next)| frame.held_beside(next))
            .sum();
        if self.bytes + bytes <= self.bounds.bytes_max && held <= room {
            for frame in older.into_iter().rev() {
                self.frames.push_front(frame);
            }
            self.bytes += bytes;
            self.held += held;
            self.floor = floor;
        }
    }

    /// Forgets everything; the window begins anew above `floor`.
    pub fn restart(&mut self, floor: Id) {
        self.frames = VecDeque::new();
        self.bytes = 0;
        self.held = 0;
        self.floor = floor;
    }

    /// Forgets what stands above `at`: it is not known whether it has its place there.
    pub fn forget_above(&mut self, at: Id) {
        while self.last().is_some_and(|last| last > at)
            && let Some(frame) = self.frames.pop_back()
        {
            self.bytes -= frame.size();
            self.held -= frame.held_beside(self.frames.back());
        }
    }

    /// Frames above `cursor`, ascending.
    pub fn after(&self, cursor: Id) -> impl Iterator<Item = &Frame> {
        self.frames.range(self.place_after(cursor)..)
    }

    /// How many frames there are above `cursor`.
    #[must_use]
    pub fn count_after(&self, cursor: Id) -> usize {
        self.frames.len() - self.place_after(cursor)
    }

    /// Where the frames above `cursor` begin. Nearly every reader lacks one or two.
    fn place_after(&self, cursor: Id) -> usize {
        let end = self.frames.len();
        let last = self.frames.iter().rev().take(NEAR);
        let above = last.take_while(|frame| frame.id > cursor).count();
        if above < NEAR {
            end - above
        } else {
            self.frames.partition_point(|frame| frame.id <= cursor)
        }
    }

    fn is_over(&self) -> bool {
        self.frames.len() > self.bounds.events_max || self.bytes > self.bounds.bytes_max
    }

    fn drop_oldest(&mut self) {
        if let Some(frame) = self.frames.pop_front() {
            self.bytes -= frame.size();
            self.held -= frame.held_beside(self.frames.front());
            self.floor = frame.id;
            if self.frames.len() * 4 < self.frames.capacity() {
                // A window that has shrunk does not hold what it needed once.
                self.frames.shrink_to(self.frames.len() * 2);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sse::Entry;
    use crate::topic::Topic;

    fn frame(ms: u64, mark: Mark) -> Frame {
        let entry = Entry {
            id: Id::new(ms, 1),
            prev: Id::new(ms - 1, 1),
            mark,
            event_type: String::new(),
            data: "x".into(),
        };
        Frame::encode(&Topic::parse("t").unwrap(), &entry)
    }

    fn ids(window: &Window, cursor: Id) -> Vec<u64> {
        window.after(cursor).map(|frame| frame.id.ms).collect()
    }

    #[test]
    fn the_oldest_make_room_and_raise_the_floor() {
        let bounds = WindowBounds {
            events_max: 3,
            bytes_max: 1 << 20,
        };
        let mut window = Window::new(Id::ZERO, bounds);
        (1..=5).for_each(|ms| window.append(frame(ms, Mark::Event)));
        assert_eq!(ids(&window, Id::ZERO), [3, 4, 5]);
        assert_eq!(window.floor(), Id::new(2, 1));
        assert_eq!(ids(&window, Id::new(4, 0)), [4, 5]);
        assert_eq!(ids(&window, Id::new(5, 1)), [0u64; 0]);
    }

    #[test]
    fn what_is_above_a_cursor_is_found_near_the_end_and_far_from_it() {
        let bounds = WindowBounds {
            events_max: 100,
            bytes_max: 1 << 20,
        };
        let mut window = Window::new(Id::ZERO, bounds);
        (1..=10).for_each(|ms| window.append(frame(ms, Mark::Event)));
        for cursor in 0..=11 {
            let above: Vec<u64> = (cursor + 1..=10).collect();
            assert_eq!(ids(&window, Id::new(cursor, 1)), above);
            assert_eq!(window.count_after(Id::new(cursor, 1)), above.len());
        }
    }

    #[test]
    fn bytes_bound_it_too_but_one_frame_always_stays() {
        let bounds = WindowBounds {
            events_max: 100,
            bytes_max: 1,
        };
        let mut window = Window::new(Id::ZERO, bounds);
        (1..=3).for_each(|ms| window.append(frame(ms, Mark::Event)));
        assert_eq!(ids(&window, Id::ZERO), [3]);
    }

    #[test]
    fn what_has_gone_leaves_room_for_as_much_and_no_more() {
        let bounds = WindowBounds {
            events_max: 100,
            bytes_max: 3 * frame(1, Mark::Event).size(),
        };
        let mut window = Window::new(Id::ZERO, bounds);
        for ms in 1..=9 {
            window.append(frame(ms, Mark::Event));
            assert_eq!(window.len() as u64, ms.min(3));
        }
    }

    #[test]
    fn a_deletion_forgets_what_was_before() {
        let bounds = WindowBounds {
            events_max: 10,
            bytes_max: 1 << 20,
        };
        let mut window = Window::new(Id::ZERO, bounds);
        (1..=3).for_each(|ms| window.append(frame(ms, Mark::Event)));
        window.append(frame(4, Mark::Deleted));
        assert_eq!(ids(&window, Id::ZERO), [4]);
        assert_eq!(window.floor(), Id::new(3, 1));
    }

    #[test]
    fn older_entries_can_be_put_before() {
        let bounds = WindowBounds {
            events_max: 4,
            bytes_max: 1 << 20,
        };
        let mut window = Window::new(Id::new(3, 1), bounds);
        window.append(frame(4, Mark::Event));
        let older: Vec<_> = (2..=4).map(|ms| frame(ms, Mark::Event)).collect();
        window.prepend(Id::new(1, 1), &older, 0);
        assert_eq!(window.floor(), Id::new(3, 1), "there is no room for them");
        window.prepend(Id::new(1, 1), &older, usize::MAX);
        assert_eq!(ids(&window, Id::ZERO), [2, 3, 4]);
        assert_eq!(window.floor(), Id::new(1, 1));
        let two = [frame(1, Mark::Event), frame(1, Mark::Event)];
        window.prepend(Id::ZERO, &two, usize::MAX);
        assert_eq!(
            window.floor(),
            Id::new(1, 1),
            "what does not fit is left out whole"
        );
    }

    const WIDE: WindowBounds = WindowBounds {
        events_max: 1_000,
        bytes_max: 1 << 20,
    };

    fn entry(ms: u64) -> Entry {
        Entry {
            id: Id::new(ms, 1),
            prev: Id::new(ms - 1, 1),
            mark: Mark::Event,
            event_type: String::new(),
            data: "x".repeat(100),
        }
    }

    #[test]
    fn what_is_above_is_forgotten_and_can_come_again() {
        let mut window = Window::new(Id::ZERO, WIDE);
        (1..=4).for_each(|ms| window.append(frame(ms, Mark::Event)));
        let (held, bytes) = (window.held, window.bytes);
        window.forget_above(Id::new(2, 1));
        assert_eq!(
            (ids(&window, Id::ZERO), window.floor()),
            (vec![1, 2], Id::ZERO)
        );
        (3..=4).for_each(|ms| window.append(frame(ms, Mark::Event)));
        assert_eq!((window.held, window.bytes), (held, bytes));
    }

    /// Frames of a page share a buffer, which lives as long as the last of them.
    #[test]
    fn what_is_held_is_what_stays_in_memory() {
        let topic = Topic::parse("t").unwrap();
        let page = Frame::encode_all(&topic, (1..=8).map(entry));
        let buffer = page[0].plain().chunk().buffer_len();
        let mut window = Window::new(Id::ZERO, WIDE);
        page.iter().for_each(|frame| window.append(frame.clone()));
        for left in (1..8).rev() {
            window.give_back(0, left);
            let frames = window.frames.capacity() * size_of::<Frame>();
            assert_eq!((window.len(), window.held()), (left, buffer + frames));
        }
        window.append(frame(9, Mark::Event));
        window.give_back(0, 1);
        assert!(window.held() < buffer, "the page's buffer is gone");
        assert_eq!(window.give_back(0, 0), 1);
        assert_eq!((window.held(), window.floor()), (0, Id::new(9, 1)));
    }

    #[test]
    fn a_page_that_is_put_before_is_held_once() {
        let topic = Topic::parse("t").unwrap();
        let page = Frame::encode_all(&topic, (1..=8).map(entry));
        let mut whole = Window::new(Id::ZERO, WIDE);
        page.iter().for_each(|frame| whole.append(frame.clone()));
        let mut window = Window::new(Id::new(4, 1), WIDE);
        page[4..]
            .iter()
            .for_each(|frame| window.append(frame.clone()));
        window.prepend(Id::ZERO, &page[..4], 4 * size_of::<Frame>());
        assert_eq!((window.len(), window.held), (8, whole.held));
        window.give_back(0, 0);
        assert_eq!((window.held(), window.bytes), (0, 0));
    }

    #[test]
    fn a_page_is_put_before_only_if_all_of_it_fits() {
        let older: Vec<Frame> = (1..=4).map(|ms| frame(ms, Mark::Event)).collect();
        let mut newer = Window::new(Id::new(4, 1), WIDE);
        (5..=8).for_each(|ms| newer.append(frame(ms, Mark::Event)));
        let bytes = newer.bytes + older.iter().map(Frame::size).sum::<usize>();
        let room: usize = older.iter().map(|frame| frame.held_beside(None)).sum();
        let table = [
            (8, bytes, room, true),
            (7, bytes, room, false),
            (8, bytes - 1, room, false),
            (8, bytes, room - 1, false),
        ];
        for (events_max, bytes_max, room, fits) in table {
            let bounds = WindowBounds {
                events_max,
                bytes_max,
            };
            let mut window = Window::new(Id::new(4, 1), bounds);
            (5..=8).for_each(|ms| window.append(frame(ms, Mark::Event)));
            window.prepend(Id::ZERO, &older, room);
            let first = if fits { 1 } else { 5 };
            assert_eq!(ids(&window, Id::ZERO), (first..=8).collect::<Vec<_>>());
            assert_eq!(window.floor() == Id::ZERO, fits);
        }
    }
}
