//! A small HTTP/1.1 client over hyper, for the commands. Plain HTTP: TLS ends at the proxy.

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::{Request, Response, Uri};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// Sends one request on a connection of its own.
pub(super) async fn send(
    method: &str,
    url: &str,
    headers: &[(&str, &str)],
    body: String,
) -> Result<Response<Incoming>, String> {
    let uri: Uri = url
        .parse()
        .map_err(|why| format!("{url} is not a URL: {why}"))?;
    if uri.scheme_str() != Some("http") {
        return Err(format!("{url}: only http:// is spoken here"));
    }
    let authority = uri
        .authority()
        .ok_or_else(|| format!("{url} names no host"))?;
    let host = authority
        .host()
        .trim_start_matches('[')
        .trim_end_matches(']')
        .to_owned();
    let socket = TcpStream::connect((host, authority.port_u16().unwrap_or(80))).await;
    let socket = socket.map_err(|why| format!("{authority} cannot be reached: {why}"))?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(socket))
        .await
        .map_err(|why| why.to_string())?;
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", authority.as_str());
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request
        .body(Full::new(Bytes::from(body)))
        .map_err(|why| why.to_string())?;
    let answer = sender.send_request(request);
    let mut connection = Box::pin(connection);
    // The connection is driven until the head is there; the body drives the rest through its task.
    let answer = tokio::select! {
        answer = answer => answer,
        ended = &mut connection => return Err(format!("{authority} closed the connection: {ended:?}")),
    };
    let drive = async move {
        // What ends it shows in the body.
        let _ended = connection.await;
    };
    #[expect(
        clippy::disallowed_methods,
        reason = "lives as long as this short command"
    )]
    tokio::spawn(drive);
    answer.map_err(|why| why.to_string())
}

/// The whole body as text.
pub(super) async fn text(response: Response<Incoming>) -> Result<String, String> {
    let bytes = response
        .into_body()
        .collect()
        .await
        .map_err(|why| why.to_string())?
        .to_bytes();
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// A path segment or a query value, percent-encoded.
pub(super) fn encode(text: &str) -> String {
    // `+` for a space is right in a query but not in a path.
    form_urlencoded::byte_serialize(text.as_bytes())
        .collect::<String>()
        .replace('+', "%20")
}
