//! Reading what comes from Redis: replies, log entries, live frames. Nothing here can panic, and
//! what cannot be read says so.

use crate::broker::raw::{Appended, Class, InboxMove, Outcome, Positions, Refusal};
use crate::id::Id;
use crate::log::{ClockName, Floor, Horizon, Loss, Page, ReadRequest, Reading, Seam, Tick};
use crate::sse::{Entry, Frame, Mark};
use crate::topic::Topic;
use redis::Value;

/// Entries of a page whose frames share buffers. Smaller pages are for streams of several topics: those are shown
/// an entry of each in turn, and one that stops there would keep a buffer of every topic for a few bytes of each.
const TOGETHER_MIN: usize = 128;

/// The reply is not what the function library answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unreadable;

pub(crate) fn text(value: &Value) -> Result<&str, Unreadable> {
    match value {
        Value::BulkString(bytes) => std::str::from_utf8(bytes).map_err(|_| Unreadable),
        Value::SimpleString(text) | Value::VerbatimString { text, .. } => Ok(text),
        Value::Okay => Ok("OK"),
        _ => Err(Unreadable),
    }
}

/// A line `name:value` of INFO.
pub(crate) fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
        .map(str::trim)
}

pub(crate) fn number(value: &Value) -> Result<u64, Unreadable> {
    match value {
        Value::Int(n) => u64::try_from(*n).map_err(|_| Unreadable),
        other => text(other)?.parse().map_err(|_| Unreadable),
    }
}

pub(crate) fn id(value: &Value) -> Result<Id, Unreadable> {
    text(value)?.parse().map_err(|_| Unreadable)
}

/// An id, or nothing in its place.
pub(crate) fn maybe_id(value: &Value) -> Result<Option<Id>, Unreadable> {
    match text(value)? {
        "" => Ok(None),
        text => text.parse().map(Some).map_err(|_| Unreadable),
    }
}

/// A clock said aloud, `last born seam run`: its last id, and which clock it is, which earlier builds do not
/// say.
pub(crate) fn tick(payload: &[u8]) -> Option<Tick> {
    let words: Vec<&str> = std::str::from_utf8(payload).ok()?.split(' ').collect();
    let (id, of) = match words.as_slice() {
        [id] => (id, None),
        [id, born, seam, run] => {
            let (born, seam) = (born.parse().ok()?, seam.parse().ok()?);
            let run = run.parse().ok()?;
            (id, Some(ClockName { born, seam, run }))
        }
        _ => return None,
    };
    let id = id.parse().ok()?;
    Some(Tick { id, of })
}

/// `born seam run`.
pub(crate) fn clock_name(value: &Value) -> Result<ClockName, Unreadable> {
    let [born, seam, run] = list(value)? else {
        return Err(Unreadable);
    };
    Ok(ClockName {
        born: id(born)?,
        seam: id(seam)?,
        run: text(run)?.parse().map_err(|_| Unreadable)?,
    })
}

pub(crate) fn list(value: &Value) -> Result<&[Value], Unreadable> {
    match value {
        Value::Array(items) | Value::Set(items) => Ok(items),
        _ => Err(Unreadable),
    }
}

/// `last born seams now run losses`, then a page each: pages that are `later` are left out. Also counts
/// entries that are not ours.
pub(crate) fn reading(
    value: &Value,
    requests: &[ReadRequest],
) -> Result<(Reading, usize), Unreadable> {
    let [last, born, seams, now, run, losses, pages @ ..] = list(value)? else {
        return Err(Unreadable);
    };
    let horizon = Horizon {
        last: id(last)?,
        born: id(born)?,
        seams: pairs(seams)?
            .map(|(before, after)| Seam { before, after })
            .collect(),
        losses: pairs(losses)?
            .map(|(from, told)| Loss { from, told })
            .collect(),
        now_ms: number(now)?,
        run: text(run)?.parse().map_err(|_| Unreadable)?,
    };
    if pages.len() != requests.len() {
        return Err(Unreadable);
    }
    let mut foreign = 0;
    let there = requests
        .iter()
        .zip(pages)
        .filter(|(_, value)| !is_later(value));
    let pages = there.map(|(request, value)| {
        page(value, request, &mut foreign).unwrap_or_else(|Unreadable| {
            foreign += 1;
            tracing::error!(topic = %request.topic, "the log of this topic cannot be read: all of it is taken for missing");
            unreadable(request, horizon.last)
        })
    });
    let pages = pages.collect();
    let reading = Reading {
        horizon,
        pages,
        held: None,
    };
    Ok((reading, foreign))
}

/// Whether the call had no room for this page.
fn is_later(page: &Value) -> bool {
    list(page).is_ok_and(|page| matches!(page, [state] if text(state) == Ok("later")))
}

/// A page of which nothing can be read. Its neighbours do not wait for it, and its streams are told
/// that everything up to the present may be missing.
fn unreadable(request: &ReadRequest, last: Id) -> Page {
    Page {
        topic: request.topic.clone(),
        after: request.after,
        floor: Floor::Log(last),
        ended: None,
        frames: Vec::new(),
        cut_at: None,
    }
}

/// Pairs of ids, as the clock remembers seams and losses.
fn pairs(value: &Value) -> Result<impl Iterator<Item = (Id, Id)>, Unreadable> {
    let pairs = text(value)?.split_whitespace();
    let pairs: Option<Vec<_>> = pairs.map(pair).collect();
    Ok(pairs.ok_or(Unreadable)?.into_iter())
}

fn pair(text: &str) -> Option<(Id, Id)> {
    let (a, b) = text.split_once(',')?;
    Some((a.parse().ok()?, b.parse().ok()?))
}

fn page(value: &Value, request: &ReadRequest, foreign: &mut usize) -> Result<Page, Unreadable> {
    let [state, floor, ended, cut, entries, strangers] = list(value)? else {
        return Err(Unreadable);
    };
    let floor = match text(state)? {
        "log" => Floor::Log(id(floor)?),
        "none" => Floor::Empty(id(floor)?),
        "unlogged" => Floor::Unlogged,
        "foreign" => {
            *foreign += 1;
            tracing::warn!(topic = %request.topic, "the key of this topic's log holds something else");
            Floor::Empty(id(floor)?)
        }
        _ => return Err(Unreadable),
    };
    let strangers = number(strangers)?;
    if strangers > 0 {
        *foreign += 1;
        tracing::warn!(
            topic = %request.topic,
            strangers,
            "the log of this topic begins with entries that are not the gateway's: what stood before them may be told as missing"
        );
    }
    let (ended, cut) = (maybe_id(ended)?, maybe_id(cut)?);
    let ours = list(entries)?.iter().filter_map(|value| {
        let entry = entry(value);
        *foreign += usize::from(entry.is_err());
        entry.ok()
    });
    let topic = &request.topic;
    let frames = if request.limit < TOGETHER_MIN {
        ours.map(|entry| Frame::encode(topic, &entry)).collect()
    } else {
        Frame::encode_all(topic, ours)
    };
    Ok(Page {
        topic: request.topic.clone(),
        after: request.after,
        floor,
        ended,
        frames,
        // Of a page without entries nothing is known above where it begins.
        cut_at: if request.limit == 0 {
            Some(request.after)
        } else {
            cut
        },
    })
}

/// An entry of a log: `id`, then fields and values.
fn entry(value: &Value) -> Result<Entry, Unreadable> {
    let [at, fields] = list(value)? else {
        return Err(Unreadable);
    };
    let mut prev = None;
    let mut event_type = None;
    let mut data = None;
    let mut mark = Mark::Event;
    for field in list(fields)?.chunks_exact(2) {
        let [name, value] = field else { continue };
        match text(name)? {
            "prev" => prev = Some(id(value)?),
            "type" => event_type = Some(text(value)?.to_owned()),
            "data" => data = Some(text(value)?.to_owned()),
            "end" => mark = Mark::End,
            "gap" => {
                let (from, lost) = pair(text(value)?).ok_or(Unreadable)?;
                mark = Mark::Gap { from, lost };
            }
            // Fields are only ever added.
            _ => {}
        }
    }
    let event_type = event_type
        .filter(|event_type| !event_type.contains(['\r', '\n', '\0']))
        .ok_or(Unreadable)?;
    if event_type == "tidegate.deleted" {
        mark = Mark::Deleted;
    }
    Ok(Entry {
        id: id(at)?,
        prev: prev.ok_or(Unreadable)?,
        mark,
        event_type,
        data: data.ok_or(Unreadable)?,
    })
}

/// What became of an append: the log's word, how far each class has come, how many were logged and refused,
/// refusals.
pub(crate) fn appended(value: &Value) -> Result<Appended, Unreadable> {
    let [word, done, logged, refused, told] = list(value)? else {
        return Err(Unreadable);
    };
    let outcome = match text(word)? {
        "OK" => Outcome::Logged(positions(text(done)?)?),
        "STALE" => Outcome::Stale,
        "WAIT" => Outcome::Wait,
        "HOLE" => Outcome::Hole,
        "DIVERGED" => Outcome::Diverged,
        _ => return Err(Unreadable),
    };
    let count = |value| Ok(usize::try_from(number(value)?).unwrap_or(usize::MAX));
    Ok(Appended {
        outcome,
        logged: count(logged)?,
        refused: count(refused)?,
        refusals: refusals(told)?,
    })
}

/// `class:n` with spaces between.
fn positions(text: &str) -> Result<Positions, Unreadable> {
    let words = text.split(' ').map(|word| {
        let (class, n) = word.split_once(':').ok_or(Unreadable)?;
        let class = class.parse().map_err(|_| Unreadable)?;
        Ok((Class::numbered(class), n.parse().map_err(|_| Unreadable)?))
    });
    words.collect()
}

/// What became of entries of the inbox: how many were logged, up to which it was looked if there may be more, what
/// failed, where it was begun anew, how many are left, refusals.
pub(crate) fn inbox_move(value: &Value) -> Result<InboxMove, Unreadable> {
    let [logged, more, failed, anew, left, refused] = list(value)? else {
        return Err(Unreadable);
    };
    let some = |value| Ok(Some(text(value)?.to_owned()).filter(|text| !text.is_empty()));
    Ok(InboxMove {
        logged: usize::try_from(number(logged)?).unwrap_or(usize::MAX),
        left: i64::try_from(number(left)?).unwrap_or(i64::MAX),
        refused: refusals(refused)?,
        more_after: some(more)?,
        failed: some(failed)?,
        begun_anew_at: some(anew)?,
    })
}

/// Topic, code and reason of each event that the log did not take.
pub(crate) fn refusals(value: &Value) -> Result<Vec<Refusal>, Unreadable> {
    let read = |value| match list(value)? {
        [topic, code, why] => Ok(Refusal {
            topic: lossy(topic),
            code: lossy(code),
            why: lossy(why),
        }),
        _ => Err(Unreadable),
    };
    list(value)?.iter().map(read).collect()
}

/// A text that need not be one: publishers call topics what they like.
fn lossy(value: &Value) -> String {
    match value {
        Value::BulkString(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        other => text(other).unwrap_or_default().to_owned(),
    }
}

/// A live frame: `1 <id> <prev> <mark> <type>` and LF, then the data.
pub(crate) fn live(topic: &Topic, payload: &[u8]) -> Result<Frame, Unreadable> {
    let payload = std::str::from_utf8(payload).map_err(|_| Unreadable)?;
    let (head, data) = payload.split_once('\n').ok_or(Unreadable)?;
    let mut words = head.splitn(5, ' ');
    let mut word = || words.next().ok_or(Unreadable);
    let version = word()?;
    let (id, prev, mark, event_type) = (word()?, word()?, word()?, word()?);
    if version != "1" || event_type.contains(['\r', '\0']) {
        return Err(Unreadable);
    }
    let mark = match mark.split_at_checked(1) {
        Some(("e", "")) => Mark::Event,
        Some(("x", "")) => Mark::End,
        Some(("d", "")) => Mark::Deleted,
        Some(("u", "")) => Mark::Unlogged,
        Some(("g", span)) => {
            let (from, lost) = pair(span).ok_or(Unreadable)?;
            Mark::Gap { from, lost }
        }
        _ => return Err(Unreadable),
    };
    let parse = |text: &str| text.parse::<Id>().map_err(|_| Unreadable);
    let entry = Entry {
        id: parse(id)?,
        prev: parse(prev)?,
        mark,
        event_type: event_type.to_owned(),
        data: data.to_owned(),
    };
    Ok(Frame::encode(topic, &entry))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn live_frames() {
        let topic = Topic::parse("news").unwrap();
        let frame = live(&topic, b"1 5-1 4-0 e a b\nx\ny").unwrap();
        assert_eq!(frame.block(), "id: 5-1\nevent: a b\ndata: x\ndata: y\n\n");
        assert_eq!(live(&topic, b"1 5-1 4-0 x \n").unwrap().mark, Mark::End);
        let gap = live(&topic, b"1 9-1 4-0 g2-1,3-1 tidegate.gap\n").unwrap();
        assert_eq!(
            gap.mark,
            Mark::Gap {
                from: Id::new(2, 1),
                lost: Id::new(3, 1)
            }
        );
        let unlogged = live(&topic, b"1 0-0 0-0 u typing\nx").unwrap();
        assert_eq!(unlogged.block(), "event: typing\ndata: x\n\n");
        let bad: [&[u8]; 7] = [
            b"",
            b"hello",
            b"2 5-1 4-0 e a\nx",
            b"1 5-1 4-0 e",
            b"1 5 4-0 e a\nx",
            b"1 5-1 4-0 q a\nx",
            b"1 5-1 4-0 e a\n\xff",
        ];
        for payload in bad {
            assert_eq!(live(&topic, payload).err(), Some(Unreadable), "{payload:?}");
        }
    }

    #[test]
    fn a_page_that_cannot_be_read_fails_no_other() {
        let text = |text: &str| Value::BulkString(text.into());
        let good = || {
            let entry = ["prev", "1-0", "type", "t", "data", "d"].map(text);
            Value::Array(vec![
                text("log"),
                text("1-0"),
                text(""),
                text(""),
                Value::Array(vec![Value::Array(vec![
                    text("2-1"),
                    Value::Array(entry.into()),
                ])]),
                Value::Int(0),
            ])
        };
        let bad = [
            Value::Nil,
            Value::Array(vec![]),
            Value::Array(["log", "junk", "", "", "", "0"].map(text).into()),
            Value::Array(
                ["log", "1-9007199254740992", "", "", "", "0"]
                    .map(text)
                    .into(),
            ),
        ];
        for bad in bad {
            let horizon = ["5-1", "1-0", "", "5", "0a", ""].map(text);
            let pages = [good(), bad, good()];
            let reply = Value::Array(horizon.into_iter().chain(pages).collect());
            let requests = ["a", "b", "c"].map(|name| ReadRequest {
                topic: Topic::parse(name).unwrap(),
                after: Id::ZERO,
                limit: 9,
            });
            let (reading, foreign) = reading(&reply, &requests).unwrap();
            let frames: Vec<usize> = reading.pages.iter().map(|page| page.frames.len()).collect();
            assert_eq!((frames, foreign), (vec![1, 0, 1], 1));
            // Nothing of it is taken for held.
            assert_eq!(reading.pages[1].floor, Floor::Log(Id::new(5, 1)));
        }
    }

    proptest! {
        #[test]
        fn no_payload_panics(payload in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _read = live(&Topic::parse("t").unwrap(), &payload);
        }
    }
}
