//! One request on a connection of its own, over hyper, with and without TLS.

use crate::dial::{Authorities, Dialled, Error, dial};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;

/// Bytes of an answer that are kept, at most. No gateway sends as many.
const ANSWER_BYTES_MAX: usize = 64 << 20;
/// The same of a refusal.
const REFUSAL_BYTES_MAX: usize = 64 << 10;

/// Sends one request on a connection of its own, to a server that these authorities vouch for. The
/// answer's body comes as long as the runtime runs.
///
/// # Errors
/// [`Error`]; nothing limits the time for the answer's head.
pub async fn send(
    authorities: &Authorities,
    method: &str,
    url: &str,
    headers: &[(&str, &str)],
    body: Bytes,
) -> Result<Response<Incoming>, Error> {
    let Dialled {
        socket,
        authority,
        target,
    } = dial(url, authorities).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(socket))
        .await
        .map_err(|why| Error::Broken(why.to_string()))?;
    let mut request = Request::builder()
        .method(method)
        .uri(target)
        .header("host", &authority);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request
        .body(Full::new(body))
        .map_err(|why| Error::Impossible(why.to_string()))?;
    let drive = async move {
        // What ends it shows in the answer and in its body.
        let _ended = connection.await;
    };
    #[expect(
        clippy::disallowed_methods,
        reason = "lives as long as this short command"
    )]
    tokio::spawn(drive);
    let answer = sender.send_request(request).await;
    answer.map_err(|why| Error::Broken(format!("no answer from {authority}: {why}")))
}

/// The whole body as text; of a refusal the first 64 KiB, which no problem of a gateway's fills.
///
/// # Errors
/// [`Error::Broken`], if it breaks off, or has more than 64 MiB.
pub async fn text(response: Response<Incoming>) -> Result<String, Error> {
    let status = response.status();
    let is_refusal = status.is_client_error() || status.is_server_error();
    let mut body = response.into_body();
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|why| Error::Broken(format!("the answer broke off: {why}")))?;
        bytes.extend_from_slice(frame.data_ref().map(AsRef::as_ref).unwrap_or_default());
        if is_refusal && bytes.len() >= REFUSAL_BYTES_MAX {
            bytes.truncate(REFUSAL_BYTES_MAX);
            break;
        }
        if bytes.len() > ANSWER_BYTES_MAX {
            let most = ANSWER_BYTES_MAX >> 20;
            return Err(Error::Broken(format!(
                "the answer is larger than {most} MiB"
            )));
        }
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
