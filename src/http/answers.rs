//! Answers out of the log (`GET /topics` and what lies below it) until their clients have taken them.
//!
//! A client may ask for much and take nothing. So these answers share one bound. Where there is no room for one more,
//! others are given up: the oldest of the address that holds most. Who takes its answer as it comes is done before it is
//! the oldest, and clients whose addresses are not known count as one address. A client whose answer is given up sees it break
//! off, short of its `Content-Length`.
//!
//! Each piece that goes out is a copy: what hyper holds of an answer that was given up is one piece, not the whole.

use super::answer::Json;
use crate::address::Network;
use crate::metrics::Metrics;
use crate::stream::body::Cut;
use axum::body::Body as AxumBody;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use serde::Serialize;
use std::collections::{BTreeMap, HashMap};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

/// Bytes that go out together: as much as hyper buffers.
const PIECE: usize = 16 * 1024;
/// What an answer takes besides its bytes, about.
const OVERHEAD: usize = 512;

/// All answers that wait for their clients. Cloning shares them.
#[derive(Clone, Debug)]
pub struct Answers(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    table: Mutex<Table>,
    metrics: Arc<Metrics>,
}

#[derive(Debug)]
struct Table {
    bytes_max: usize,
    bytes: usize,
    next: u64,
    by_address: HashMap<Option<Network>, OfAddress>,
}

/// What one address has not taken yet, the oldest first.
#[derive(Debug, Default)]
struct OfAddress {
    bytes: usize,
    answers: BTreeMap<u64, Box<[u8]>>,
}

impl Answers {
    /// Answers of so many bytes together. One that is larger is alone.
    #[must_use]
    pub fn new(bytes_max: usize, metrics: Arc<Metrics>) -> Self {
        let table = Mutex::new(Table {
            bytes_max,
            bytes: 0,
            next: 0,
            by_address: HashMap::new(),
        });
        Self(Arc::new(Shared { table, metrics }))
    }

    /// Another bound. What is beyond it is given up.
    pub fn set_bytes_max(&self, bytes_max: usize) {
        let mut table = self.0.table();
        table.bytes_max = bytes_max;
        self.0.make_room(&mut table, 0);
    }

    /// An answer in JSON to a client of this address, if it is known.
    pub(super) fn json(&self, name: Option<Network>, value: &impl Serialize) -> Response {
        match Json(value).into_bytes() {
            Ok(bytes) => Json::<()>::response(AxumBody::new(self.hold(name, bytes))),
            Err(problem) => problem.into_response(),
        }
    }

    fn hold(&self, name: Option<Network>, bytes: Vec<u8>) -> Answer {
        let bytes = bytes.into_boxed_slice();
        let left = bytes.len();
        let mut table = self.0.table();
        self.0.make_room(&mut table, left + OVERHEAD);
        let number = table.add(name, bytes);
        self.0.note(&table);
        Answer {
            shared: self.0.clone(),
            name,
            number,
            sent: 0,
            left,
        }
    }
}

impl Shared {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives answers up until so many bytes more have room, or there is none.
    fn make_room(&self, table: &mut Table, more: usize) {
        while table.bytes + more > table.bytes_max && table.give_one_up() {
            self.metrics.answers_given_up.inc();
        }
        self.note(table);
    }

    fn note(&self, table: &Table) {
        let bytes = i64::try_from(table.bytes).unwrap_or(i64::MAX);
        self.metrics.answer_bytes.set(bytes);
    }
}

impl Table {
    fn add(&mut self, name: Option<Network>, bytes: Box<[u8]>) -> u64 {
        let number = self.next;
        self.next += 1;
        let size = bytes.len() + OVERHEAD;
        self.bytes += size;
        let own = self.by_address.entry(name).or_default();
        own.bytes += size;
        own.answers.insert(number, bytes);
        number
    }

    fn get(&self, name: Option<Network>, number: u64) -> Option<&[u8]> {
        let own = self.by_address.get(&name)?;
        own.answers.get(&number).map(AsRef::as_ref)
    }

    /// False if it was given up before.
    fn remove(&mut self, name: Option<Network>, number: u64) -> bool {
        let Some(own) = self.by_address.get_mut(&name) else {
            return false;
        };
        let Some(bytes) = own.answers.remove(&number) else {
            return false;
        };
        let size = bytes.len() + OVERHEAD;
        own.bytes -= size;
        self.bytes -= size;
        if own.answers.is_empty() {
            self.by_address.remove(&name);
        }
        true
    }

    /// The oldest of the address that holds most. False if there is none.
    fn give_one_up(&mut self) -> bool {
        let most = self.by_address.iter().max_by_key(|(_, own)| own.bytes);
        let oldest = most.and_then(|(name, own)| Some((*name, *own.answers.first_key_value()?.0)));
        oldest.is_some_and(|(name, number)| self.remove(name, number))
    }
}

/// The body of one answer.
#[derive(Debug)]
struct Answer {
    shared: Arc<Shared>,
    name: Option<Network>,
    number: u64,
    sent: usize,
    left: usize,
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Cut;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        let end = self.sent + self.left.min(PIECE);
        let piece = {
            let table = self.shared.table();
            let bytes = table.get(self.name, self.number);
            bytes.and_then(|bytes| bytes.get(self.sent..end).map(Bytes::copy_from_slice))
        };
        let Some(piece) = piece else {
            return Poll::Ready(Some(Err(Cut)));
        };
        self.sent = end;
        self.left -= piece.len();
        if self.left == 0 {
            self.give_back();
        }
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(u64::try_from(self.left).unwrap_or(u64::MAX))
    }
}

impl Answer {
    fn give_back(&self) {
        let mut table = self.shared.table();
        if table.remove(self.name, self.number) {
            self.shared.note(&table);
        }
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.give_back();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt as _;

    #[expect(clippy::unnecessary_wraps, reason = "a name is what may be missing")]
    fn network(number: u32) -> Option<Network> {
        Some(Network::of(std::net::Ipv4Addr::from_bits(number).into()))
    }

    fn answers(count: usize, size: usize) -> Answers {
        Answers::new(count * (size + OVERHEAD), Metrics::new())
    }

    /// What came, and whether that was all.
    async fn read(answer: Answer) -> (usize, bool) {
        let mut answer = Box::pin(answer);
        let mut came = 0;
        while let Some(frame) = answer.frame().await {
            match frame {
                Ok(frame) => came += frame.into_data().unwrap().len(),
                Err(Cut) => return (came, false),
            }
        }
        (came, true)
    }

    #[tokio::test]
    async fn without_room_the_oldest_of_who_holds_most_is_given_up() {
        const SIZE: usize = 3 * PIECE + 1;
        let answers = answers(4, SIZE);
        let hold = |name| answers.hold(name, vec![b'x'; SIZE]);
        let quiet = hold(network(1));
        let [first, second, third] = [(); 3].map(|()| hold(network(2)));
        let (other, unknown) = (hold(network(3)), hold(None));
        assert_eq!(answers.0.metrics.answers_given_up.get(), 2);
        assert_eq!(read(first).await, (0, false));
        assert_eq!(read(second).await, (0, false));
        for answer in [quiet, third, other, unknown] {
            assert_eq!(read(answer).await, (SIZE, true));
        }
        assert_eq!(answers.0.metrics.answer_bytes.get(), 0);
        assert!(answers.0.table().by_address.is_empty());
    }

    #[tokio::test]
    async fn one_that_is_given_up_half_way_breaks_off() {
        let answers = answers(1, 3 * PIECE);
        let mut begun = Box::pin(answers.hold(None, vec![b'x'; 3 * PIECE]));
        assert_eq!(begun.size_hint().exact(), Some(3 * PIECE as u64));
        assert!(begun.frame().await.unwrap().is_ok());
        answers.set_bytes_max(1);
        assert_eq!(begun.frame().await.unwrap().unwrap_err(), Cut);
        // One that is larger than all may be together is alone.
        assert_eq!(read(answers.hold(None, vec![b'x'; 100])).await, (100, true));
    }

    #[tokio::test]
    async fn one_whose_client_goes_is_held_no_longer() {
        let answers = answers(9, 100);
        let answer = answers.hold(network(1), vec![b'x'; 100]);
        assert_eq!(
            answers.0.metrics.answer_bytes.get(),
            i64::try_from(100 + OVERHEAD).unwrap()
        );
        drop(answer);
        assert_eq!(answers.0.metrics.answer_bytes.get(), 0);
        assert_eq!(answers.0.metrics.answers_given_up.get(), 0);
    }
}
