//! What comes over HTTP, read from any bytes. See [`crate::fuzz`].

use super::accept::is_flood;
use super::batch::read_line;
use super::disconnect;
use super::guard::let_through;
use super::query::{NOTHING, Query};
use super::vocabulary::Vocabulary;
use crate::auth::Denial;
use crate::topic::{Pattern, Topic};
use axum::body::Body;
use axum::http::{Request, Response};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::hint::black_box;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// Bytes of data of an event, by default.
const EVENT_BYTES_MAX: usize = 65_536;

/// A connection on which just these bytes come.
pub(crate) fn head(bytes: &[u8]) {
    assert_eq!(is_flood(bytes, 1), is_flood(bytes, usize::MAX));
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let Ok(runtime) = runtime else {
        return;
    };
    runtime.block_on(async {
        let (mut client, server) = tokio::io::duplex(1 << 20);
        let service = hyper::service::service_fn(|request: Request<Incoming>| async move {
            if let_through(&request) {
                has_one_meaning(request.uri().path());
            }
            Ok::<_, Infallible>(Response::new(Body::empty()))
        });
        let serve = hyper::server::conn::http1::Builder::new()
            .max_buf_size(16_384)
            .serve_connection(TokioIo::new(server), service);
        let ask = async {
            let mut answers = Vec::new();
            let sent = client.write_all(bytes).await.is_ok() && client.shutdown().await.is_ok();
            let read = client.read_to_end(&mut answers).await;
            (sent, read.is_ok())
        };
        // What is malformed ends the connection with an error.
        let _ended = tokio::join!(serve, ask);
    });
}

/// What a client would have taken back.
pub(crate) fn disconnect(bytes: &[u8]) {
    if let Ok(denial) = disconnect::read(bytes) {
        assert_eq!(Denial::parse(&denial.text()), Some(denial));
    }
}

/// What was let through is to a proxy, which decodes and tidies up, what it is to us.
fn has_one_meaning(path: &str) {
    let decoded = percent_decoded(path);
    if !decoded.starts_with(b"/") {
        return;
    }
    let mut tidy: Vec<&[u8]> = Vec::new();
    let is_below = decoded.ends_with(b"/");
    for segment in decoded.split(|&byte| byte == b'/') {
        match segment {
            b"" | b"." => {}
            b".." => {
                tidy.pop();
            }
            segment => tidy.push(segment),
        }
    }
    let mut tidy = [b"/", tidy.join(&b'/').as_slice()].concat();
    if is_below && tidy.len() > 1 {
        tidy.push(b'/');
    }
    assert_eq!(tidy, decoded, "{path:?}");
}

fn percent_decoded(path: &str) -> Vec<u8> {
    let (mut bytes, mut decoded) = (path.as_bytes(), Vec::new());
    while let [first, rest @ ..] = bytes {
        let value = rest.get(..2).and_then(|digits| {
            let digits = std::str::from_utf8(digits).ok()?;
            let is_hex = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
            u8::from_str_radix(digits, 16).ok().filter(|_| is_hex)
        });
        if let Some(value) = value.filter(|_| *first == b'%') {
            decoded.push(value);
            bytes = rest.get(2..).unwrap_or_default();
        } else {
            decoded.push(*first);
            bytes = rest;
        }
    }
    decoded
}

/// A query string, and what is asked of it.
pub(crate) fn query(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let query = Query::parse(Some(&text));
    for name in query.all("topic") {
        if let Ok(topic) = Topic::parse(name) {
            assert_eq!(topic.as_str(), name);
            assert!(!name.contains('\u{fffd}'), "{name:?}");
            let patterns = [name.to_owned(), format!("{name}*"), format!("*{name}*")];
            for pattern in patterns {
                let fits = Pattern::parse(&pattern).map(|pattern| pattern.fits(&topic));
                assert!(fits.unwrap_or(true), "{pattern:?} fits {name:?}");
            }
        }
        if let Some(pattern) = query
            .first("pattern")
            .and_then(|text| Pattern::parse(text).ok())
        {
            black_box(Topic::parse(name).is_ok_and(|topic| pattern.fits(&topic)));
        }
    }
    for key in ["limit", "last"] {
        let number = query.number(key, &1000_u64);
        assert!(
            number.is_ok_and(|number| number.is_none_or(|n| (1..=1000).contains(&n)))
                || query.first(key).is_some()
        );
    }
    for key in ["since", "max_age"] {
        let time = query.duration(key, "").ok().flatten();
        assert!(time.is_none_or(|time| !time.is_zero()));
    }
    black_box(query.switch("partial"));
    names(&text);
    if let Some(text) = query.first("last_event_id") {
        cursor(text.as_bytes());
    }
}

/// The names in a query: what is told of those that nobody reads is short.
fn names(text: &str) {
    let known = Vocabulary {
        names: &["topic", "since", "limit", "last_event_id"],
        slips: &[("event", "limit")],
        ..NOTHING
    };
    let strict = Query::read(Some(text), &known);
    match Query::read_among_others(Some(text), &known) {
        Ok((_, ignored)) => {
            assert!(ignored.len() <= 8 && ignored.iter().all(|name| name.len() <= 32));
            assert!(strict.is_ok() <= ignored.is_empty());
        }
        Err(why) => assert!(why.detail().ends_with('?') && strict.is_err()),
    }
    if let Err(why) = strict {
        assert!(why.detail().len() < 1000, "{}", why.detail());
    }
}

/// A cursor, which is read as it was written.
pub(crate) fn cursor(bytes: &[u8]) {
    use crate::cursor::Cursor;
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let Ok(cursor) = text.parse::<Cursor>() else {
        return;
    };
    assert_eq!(cursor.to_string(), text);
    assert!(text.len() <= Cursor::BYTES_MAX);
    let oldest = cursor.oldest();
    for partition in [0, 1, 63, u16::MAX] {
        let position = cursor.position(partition);
        assert!(position.is_none() || position >= oldest);
    }
    for partitions in [1, 64] {
        black_box(cursor.speaks_of(partitions));
    }
}

/// Lines of a batch.
pub(crate) fn ndjson(bytes: &[u8]) {
    for line in bytes.split(|&byte| byte == b'\n') {
        let Ok(read) = read_line(line, EVENT_BYTES_MAX) else {
            continue;
        };
        assert!(read.data.len() <= EVENT_BYTES_MAX);
        assert!(!read.event_type.as_str().contains(['\r', '\n', '\0']));
        let mut written = serde_json::json!({
            "topic": read.topic.as_str(),
            "type": read.event_type.as_str(),
            "data": read.data,
            "end": read.end,
        });
        if let (Some(key), Some(fields)) = (&read.idempotency_key, written.as_object_mut()) {
            fields.insert("idempotency_key".to_owned(), key.as_str().into());
        }
        let again = read_line(written.to_string().as_bytes(), EVENT_BYTES_MAX);
        assert_eq!(format!("{again:?}"), format!("{:?}", Ok::<_, String>(read)));
    }
}
