//! One fetch: a request on a connection of its own, within a bound of time and of bytes, whoever answers.

use crate::config::Jwks;
use crate::dial::{Dialled, dial};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper::body::{Body as _, Incoming};
use hyper::client::conn::http1;
use hyper::header::{ACCEPT, CONTENT_ENCODING, CONTENT_TYPE, HOST, HeaderMap, USER_AGENT};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use std::pin::pin;

/// Bytes of an answer's head, at most.
const HEAD_BYTES_MAX: usize = 64 * 1024;

/// The text at a URL.
///
/// # Errors
/// Why there is none, in a few words, and none of what was answered.
pub(super) async fn fetch(url: &str, settings: &Jwks) -> Result<String, String> {
    let answer = tokio::time::timeout(settings.time_max, ask(url, settings)).await;
    answer.unwrap_or_else(|_| Err(format!("no whole answer in {:?}", settings.time_max)))
}

async fn ask(url: &str, settings: &Jwks) -> Result<String, String> {
    let Dialled {
        socket,
        authority,
        target,
    } = dial(url, &settings.authorities).await?;
    let mut client = http1::Builder::new();
    client.max_buf_size(HEAD_BYTES_MAX);
    let io = TokioIo::new(socket);
    let (mut sender, connection) = client.handshake(io).await.map_err(broken)?;
    let request = Request::get(target)
        .header(HOST, authority)
        .header(ACCEPT, "application/jwk-set+json, application/json")
        .header(USER_AGENT, concat!("tidegate/", env!("CARGO_PKG_VERSION")))
        .body(Empty::<Bytes>::new())
        .map_err(|_| "the request cannot be made".to_owned())?;
    let answered = async {
        let answer = sender.send_request(request).await.map_err(broken)?;
        read(answer, settings.bytes_max).await
    };
    // Both here, so that the connection ends with whoever waits for it.
    let (mut answered, connection) = (pin!(answered), pin!(connection));
    tokio::select! {
        biased;
        answer = &mut answered => answer,
        // What came before its end is still to be read.
        _ = connection => answered.await,
    }
}

fn broken(why: impl std::fmt::Display) -> String {
    format!("the answer broke off: {why}")
}

/// The body of an answer that is a set, as far as its head tells.
async fn read(answer: Response<Incoming>, bytes_max: usize) -> Result<String, String> {
    match answer.status() {
        StatusCode::OK => {}
        status if status.is_redirection() => {
            return Err(format!("answered {status}; redirects are not followed"));
        }
        status => return Err(format!("answered {status}")),
    }
    check_json(answer.headers())?;
    let too_large = || format!("a set has at most {bytes_max} bytes, and this one has more");
    let mut body = answer.into_body();
    let most = u64::try_from(bytes_max).unwrap_or(u64::MAX);
    if body.size_hint().lower() > most {
        return Err(too_large());
    }
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(broken)?;
        bytes.extend_from_slice(frame.data_ref().map(AsRef::as_ref).unwrap_or_default());
        if bytes.len() > bytes_max {
            return Err(too_large());
        }
    }
    String::from_utf8(bytes).map_err(|_| "the answer is not UTF-8".to_owned())
}

/// An answer must say that it is JSON, and not packed.
fn check_json(headers: &HeaderMap) -> Result<(), String> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    if text(CONTENT_ENCODING).is_some_and(|it| !it.eq_ignore_ascii_case("identity")) {
        return Err("the answer is packed, which was not asked for".to_owned());
    }
    let kind = text(CONTENT_TYPE).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    let kind = kind.to_ascii_lowercase();
    if kind == "application/json" || (kind.starts_with("application/") && kind.ends_with("+json")) {
        return Ok(());
    }
    Err(
        "the Content-Type of the answer is not application/json or application/jwk-set+json"
            .to_owned(),
    )
}
