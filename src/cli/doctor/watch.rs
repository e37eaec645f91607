//! A stream that the doctor watches: what comes on it, as it comes.

use crate::client::{Authorities, Item, Parser, send};
use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::http::response::Parts;
use tokio::sync::mpsc;

/// What of a stream may wait to be looked at.
pub(super) const QUEUE: usize = 256;

/// What comes on a stream.
#[derive(Debug)]
pub(super) enum Got {
    Head(Box<Parts>),
    Event {
        kind: String,
        id: String,
        data: String,
    },
    Heartbeat,
    End(String),
}

impl From<Item> for Got {
    fn from(item: Item) -> Self {
        match item {
            Item::Event(event) => Self::Event {
                kind: event.kind,
                id: event.id.unwrap_or_default(),
                data: event.data,
            },
            Item::Comment => Self::Heartbeat,
        }
    }
}

pub(super) type Stream = mpsc::Receiver<Got>;

/// Reads a stream to its end, and says what that was.
pub(super) async fn read(
    authorities: &Authorities,
    url: &str,
    headers: &[(&'static str, String)],
    tell: &mpsc::Sender<Got>,
) -> String {
    let headers: Vec<(&str, &str)> = headers
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
    let (head, mut body) = match send(authorities, "GET", url, &headers, Bytes::new()).await {
        Ok(answer) => answer.into_parts(),
        Err(why) => return why.to_string(),
    };
    let mut parser = Parser::default();
    let mut wanted = tell.send(Got::Head(Box::new(head))).await.is_ok();
    while wanted {
        match body.frame().await {
            None => return "it was ended".into(),
            Some(Err(why)) => return format!("it was broken off ({why})"),
            Some(Ok(frame)) => {
                let bytes = frame.data_ref().map(AsRef::as_ref).unwrap_or_default();
                let mut all = Vec::new();
                let fed = parser.feed(bytes, |item| all.push(Got::from(item)));
                for got in all {
                    wanted = tell.send(got).await.is_ok();
                }
                if let Err(why) = fed {
                    return why.to_string();
                }
            }
        }
    }
    String::new()
}
