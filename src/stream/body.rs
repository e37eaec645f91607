//! A stream as an ordinary HTTP body: for HTTP/2, for streams with `limit` or `max_age`, and where
//! `engine.sockets` is off.
//!
//! The body is polled only when hyper has room, so a reader that stops costs a cursor, what hyper has
//! buffered, and for a second or two the pages of the log that it was about to be shown.
//!
//! ```text
//!  Opening ──> Live <──> Reading          clean end: Over
//!                 └──(limit, age, end, drain, held)──┤
//!                                         cut:       Flushing ──> Cut
//! ```
//!
//! So it does not notice either that its time is over while its reader takes nothing. [`Bodies::watch`]
//! looks at all of them now and then, and has the carrier of such a one end.

use super::life::Life;
use super::listing::{SLICE, Seen, StreamState, Top};
use super::open::{MaybeOpen, Opening};
use super::out::Out;
use super::registry::StreamGuard;
use super::settings::StreamSettings;
use super::tally::{age_of, clock};
use super::turn::{Ending, Now, Stream, Turn};
use crate::address::Address;
use crate::follow::reads::Reads;
use crate::hub::TaskWaker;
use crate::log::Reading;
use crate::metrics::{Behind, CloseReason, Counted, WayOut};
use crate::sse::HEARTBEAT;
use crate::time::CoarseInstant;
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::body::{Body, Frame};
use slab::Slab;
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::{Instant, Sleep};
use tokio_util::sync::CancellationToken;

/// Between two looks at all bodies.
const LOOK: Duration = Duration::from_secs(1);
/// Looks after which one that is to be cut, and was not asked to be, is ended with its carrier.
const LOOKS_CUT: u8 = 2;
/// The same for one whose right was taken back: it is not given another second.
const LOOKS_REVOKED: u8 = 1;
/// The same for one that is to end cleanly: its reader may be slow.
const LOOKS_CLEAN: u8 = 60;

/// The connection breaks off here on purpose: hyper closes it without the last chunk, and every
/// client comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the stream is cut so that its client comes back")]
pub struct Cut;

enum State {
    Opening(Opening),
    Live(Box<Stream>),
    Reading(
        Box<Stream>,
        Pin<Box<dyn Future<Output = Arc<Reading>> + Send>>,
        Counted,
    ),
    /// The last bytes are in hyper's buffer. Told of the cut at once, it would throw them away; asked
    /// again, it has written them.
    Flushing,
    /// The next answer is the error that has hyper break off.
    Cut,
    /// The next answer is the end.
    Over,
    /// Taken out to become another one: nobody sees this.
    Moving,
}

/// The body of an event stream. Its parts are shared with [`Bodies`], so that it can be listed while
/// hyper holds it, above all when hyper has not asked for long.
#[derive(Debug)]
pub struct StreamBody {
    outlet: Arc<Mutex<Outlet>>,
    bodies: Arc<Bodies>,
    number: usize,
}

/// Where the bytes of a body come from.
struct Outlet {
    state: State,
    reads: Reads,
    task_waker: Arc<TaskWaker>,
    settings: Arc<StreamSettings>,
    sleep: Pin<Box<Sleep>>,
    out: Out,
    guard: StreamGuard,
    outside: Outside,
    /// Looks in a row at which its time was over.
    overdue: u8,
    /// hyper has asked for more since the last look.
    asked: bool,
}

/// What a body goes out on.
#[derive(Debug)]
pub struct Outside {
    /// The other end of the connection, if it is known.
    pub peer: Option<Address>,
    /// Ends what carries the body, and drops it, whether or not its reader takes anything.
    pub end_of_carrier: Option<CancellationToken>,
    /// As in the request, for as long as there is no stream that knows of it.
    pub ends_at: Option<CoarseInstant>,
    /// As in the request, likewise.
    pub life: Life,
}

impl Outside {
    /// This time, or the end that the client wants, if that comes first.
    fn not_after_end(&self, time: Instant) -> Instant {
        self.ends_at.map_or(time, |end| end.instant().min(time))
    }
}

impl fmt::Debug for Outlet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outlet")
            .field("guard", &self.guard)
            .finish_non_exhaustive()
    }
}

/// The streams that go out as bodies, to be listed.
///
/// Its lock is held for single calls, never while one of an outlet is taken.
#[derive(Debug, Default)]
pub struct Bodies(Mutex<Slab<Arc<Mutex<Outlet>>>>);

impl Bodies {
    fn all(&self) -> MutexGuard<'_, Slab<Arc<Mutex<Outlet>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Offers every stream to a list.
    pub(super) async fn list(&self, top: &mut Top) {
        self.each(|outlet| outlet.offer_to(top)).await;
    }

    /// Has those let their pages go whose readers take nothing, and ends those whose time is over and whose
    /// readers do not let them notice. Never returns.
    ///
    /// # Cancel safety
    /// Safe: the next one begins anew.
    pub async fn watch(&self) {
        let mut look = tokio::time::interval(LOOK);
        loop {
            look.tick().await;
            self.each(Outlet::look).await;
        }
    }

    /// Does this with every stream, with some at a time.
    async fn each(&self, mut with: impl FnMut(&mut Outlet)) {
        let mut from = 0;
        loop {
            let slice: Vec<_> = {
                let all = self.all();
                if from >= all.capacity() {
                    return;
                }
                let numbers = from..from + SLICE;
                numbers.filter_map(|at| all.get(at).cloned()).collect()
            };
            slice.iter().for_each(|outlet| with(&mut lock(outlet)));
            from += SLICE;
            tokio::task::yield_now().await;
        }
    }
}

fn lock(outlet: &Mutex<Outlet>) -> MutexGuard<'_, Outlet> {
    outlet.lock().unwrap_or_else(PoisonError::into_inner)
}

impl StreamBody {
    /// A body over a stream that is open, or opens while the body is under way already.
    #[must_use]
    pub fn new(
        bodies: &Arc<Bodies>,
        opened: MaybeOpen,
        reads: Reads,
        task_waker: Arc<TaskWaker>,
        settings: Arc<StreamSettings>,
        guard: StreamGuard,
        outside: Outside,
    ) -> Self {
        let first = settings.heartbeat.mul_f64(rand::random_range(0.0..1.0));
        let first = outside.not_after_end(Instant::now() + first);
        let outlet = Arc::new(Mutex::new(Outlet {
            state: match opened {
                MaybeOpen::Open(stream) => State::Live(Box::new(stream)),
                MaybeOpen::Opening(opening) => State::Opening(opening),
            },
            sleep: Box::pin(tokio::time::sleep_until(first)),
            reads,
            task_waker,
            settings,
            out: Out::default(),
            guard,
            outside,
            overdue: 0,
            asked: true,
        }));
        let number = bodies.all().insert(outlet.clone());
        Self {
            outlet,
            bodies: bodies.clone(),
            number,
        }
    }

    /// As a body of axum's kind.
    pub fn into_axum(self) -> axum::body::Body {
        axum::body::Body::new(self.map_err(axum::Error::new))
    }
}

impl Drop for StreamBody {
    fn drop(&mut self) {
        let outlet = self.bodies.all().try_remove(self.number);
        // Whatever its end was, it is said now, while the stream is there.
        lock(&self.outlet).say_closed();
        drop(outlet);
    }
}

impl Outlet {
    fn stream(&self) -> Option<&Stream> {
        match &self.state {
            State::Live(stream) | State::Reading(stream, ..) => Some(stream),
            State::Opening(_) | State::Flushing | State::Cut | State::Over | State::Moving => None,
        }
    }

    fn say_closed(&mut self) {
        let standing = self.stream().map(Stream::standing);
        let (reason, address) = (self.guard.reason, self.address());
        self.guard
            .say_closed(reason, standing.unwrap_or_default(), address);
    }

    /// Whose it is: the client that a proxy has told, else the other end of the connection.
    fn address(&self) -> Option<Address> {
        self.guard.address().or(self.outside.peer)
    }

    fn offer_to(&self, top: &mut Top) {
        let seen = Seen {
            stream: self.stream(),
            age: self.guard.age(),
            bytes: self.guard.bytes(),
            way: WayOut::Body,
            state: match self.state {
                State::Opening(_) => StreamState::Opening,
                State::Live(_) => StreamState::Live,
                State::Reading(..) => StreamState::Reading,
                State::Flushing | State::Cut | State::Over | State::Moving => StreamState::Over,
            },
        };
        top.offer(&seen, || self.address());
    }

    /// How it is over, or would be if it were asked.
    fn overdue(&self) -> Option<Ending> {
        match &self.state {
            State::Live(stream) | State::Reading(stream, ..) => stream.overdue(Now::read().instant),
            State::Opening(_) => self.cut_before_begun(),
            State::Flushing | State::Cut => Some(Ending::Cut(self.guard.reason)),
            State::Over => Some(Ending::Clean(self.guard.reason)),
            State::Moving => None,
        }
    }

    fn cut_before_begun(&self) -> Option<Ending> {
        let life = &self.outside.life;
        life.cut_before_begun(&self.settings, clock())
            .map(Ending::Cut)
    }

    fn look(&mut self) {
        let was_asked = std::mem::take(&mut self.asked);
        if let State::Live(stream) = &mut self.state
            && !was_asked
        {
            stream.release_pages();
        }
        self.end_if_overdue();
    }

    fn end_if_overdue(&mut self) {
        let Some(ending) = self.overdue() else {
            self.overdue = 0;
            return;
        };
        self.overdue = self.overdue.saturating_add(1);
        let looks = match ending {
            Ending::Cut(CloseReason::Revoked) => LOOKS_REVOKED,
            Ending::Cut(_) => LOOKS_CUT,
            Ending::Clean(_) => LOOKS_CLEAN,
        };
        if self.overdue >= looks
            && let Some(end) = &self.outside.end_of_carrier
        {
            self.guard.close(ending.reason());
            end.cancel();
        }
    }

    fn end(&mut self, ending: Ending) {
        self.guard.close(ending.reason());
        self.state = match ending {
            Ending::Clean(_) => State::Over,
            Ending::Cut(_) => State::Flushing,
        };
    }

    /// Ends a stream that has begun.
    fn over(&mut self, stream: &Stream, ending: Ending) {
        let address = self.address();
        let standing = stream.standing();
        self.guard.say_closed(ending.reason(), standing, address);
        self.end(ending);
    }

    /// One step of whatever state it is in. `Pending` only with every wake-up arranged.
    fn advance(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        // Registered before the hub is read: what comes in between wakes this task again.
        self.task_waker.register(cx.waker());
        match std::mem::replace(&mut self.state, State::Moving) {
            State::Opening(opening) => self.advance_opening(opening, cx),
            State::Live(stream) => self.advance_live(stream, cx),
            State::Reading(mut stream, mut reading, counted) => match reading.as_mut().poll(cx) {
                Poll::Ready(pages) => {
                    stream.take(&pages);
                    self.state = State::Live(stream);
                    Poll::Ready(())
                }
                Poll::Pending => {
                    let ending = if self.settings.drain.has_begun() {
                        Some(Ending::Cut(CloseReason::Drain))
                    } else {
                        stream.overdue(Now::read().instant)
                    };
                    if let Some(ending) = ending {
                        stream.break_off(&mut self.out);
                        self.over(&stream, ending);
                        return Poll::Ready(());
                    }
                    self.state = State::Reading(stream, reading, counted);
                    self.heartbeat_meanwhile(cx)
                }
            },
            other => {
                self.state = other;
                Poll::Ready(())
            }
        }
    }

    fn advance_opening(&mut self, mut opening: Opening, cx: &mut Context<'_>) -> Poll<()> {
        if let Poll::Ready(stream) = opening.as_mut().poll(cx) {
            self.state = State::Live(Box::new(stream));
            return Poll::Ready(());
        }
        self.state = State::Opening(opening);
        if let Some(ending) = self.cut_before_begun() {
            self.end(ending);
            return Poll::Ready(());
        }
        self.heartbeat_meanwhile(cx)
    }

    /// While the log is waited for, the client still hears that it is connected.
    fn heartbeat_meanwhile(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.sleep.as_mut().poll(cx).is_ready() {
            if self
                .outside
                .ends_at
                .is_some_and(|end| end <= CoarseInstant::now())
            {
                self.end(Ending::Clean(CloseReason::Limit));
                return Poll::Ready(());
            }
            self.settings.metrics.heartbeats.inc();
            self.out.push(HEARTBEAT);
            self.sleep_until_heartbeat();
            return Poll::Ready(());
        }
        Poll::Pending
    }

    fn sleep_until_heartbeat(&mut self) {
        let next = Instant::now() + self.settings.heartbeat;
        self.sleep.as_mut().reset(self.outside.not_after_end(next));
    }

    fn advance_live(&mut self, mut stream: Box<Stream>, cx: &mut Context<'_>) -> Poll<()> {
        let turn = stream.turn(Now::read(), &mut self.out);
        self.count();
        match turn {
            Turn::More => self.state = State::Live(stream),
            Turn::Read(read) => {
                let (reads, name) = (self.reads.clone(), self.guard.network());
                self.sleep_until_heartbeat();
                self.state = State::Reading(
                    stream,
                    Box::pin(async move { reads.read(read, name).await }),
                    self.settings.metrics.behind(Behind::Reading),
                );
            }
            Turn::Over(ending) => self.over(&stream, ending),
            Turn::Wait(until) => {
                self.state = State::Live(stream);
                self.sleep.as_mut().reset(until.instant());
                return match self.sleep.as_mut().poll(cx) {
                    Poll::Pending if self.out.pieces.is_empty() => Poll::Pending,
                    // There is something to write, or the time came meanwhile.
                    Poll::Pending | Poll::Ready(()) => Poll::Ready(()),
                };
            }
        }
        Poll::Ready(())
    }

    fn count(&mut self) {
        let metrics = &self.settings.metrics;
        metrics
            .delivered
            .inc_by(std::mem::take(&mut self.out.delivered));
        if let Some(ms) = self.out.fresh_ms.take() {
            metrics.latency.observe(age_of(ms, clock()));
        }
    }

    /// Everything that waits, as one piece.
    fn take_out(&mut self) -> Option<Bytes> {
        self.out.bytes = 0;
        let pieces = &mut self.out.pieces;
        let bytes = match pieces.as_slice() {
            [] => return None,
            [_] => pieces.pop()?.into_bytes(),
            many => {
                let mut all = BytesMut::with_capacity(many.iter().map(|piece| piece.len()).sum());
                for piece in many {
                    all.extend_from_slice(piece);
                }
                pieces.clear();
                all.freeze()
            }
        };
        self.guard.add_bytes(bytes.len() as u64);
        self.settings.metrics.sent_bytes.inc_by(bytes.len() as u64);
        Some(bytes)
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        self.asked = true;
        loop {
            if let Some(bytes) = self.take_out() {
                return Poll::Ready(Some(Ok(Frame::data(bytes))));
            }
            match self.state {
                State::Over | State::Moving => return Poll::Ready(None),
                State::Cut => return Poll::Ready(Some(Err(Cut))),
                State::Flushing => {
                    self.state = State::Cut;
                    // hyper flushes whenever a body has nothing, and then asks again.
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                State::Opening(_) | State::Live(_) | State::Reading(..) => {
                    if self.advance(cx).is_pending() {
                        return Poll::Pending;
                    }
                }
            }
        }
    }
}

impl Body for StreamBody {
    type Data = Bytes;
    type Error = Cut;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        lock(&self.outlet).poll(cx)
    }
}
