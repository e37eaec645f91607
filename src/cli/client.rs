//! A small HTTP/1.1 client over hyper, for the commands, with and without TLS.

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::{Request, Response, Uri};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use std::path::PathBuf;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// A connection, plain or not.
trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// Who is believed to be a server: those that browsers trust, or whom a file names.
#[derive(Clone, Debug, Default)]
pub(super) struct Authorities(pub(super) Option<PathBuf>);

impl Authorities {
    fn roots(&self) -> Result<RootCertStore, String> {
        let mut roots = RootCertStore::empty();
        let Some(path) = &self.0 else {
            roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
            return Ok(roots);
        };
        let unreadable = |why: &dyn std::fmt::Display| format!("{}: {why}", path.display());
        let found = CertificateDer::pem_file_iter(path).map_err(|why| unreadable(&why))?;
        for certificate in found {
            let certificate = certificate.map_err(|why| unreadable(&why))?;
            roots.add(certificate).map_err(|why| unreadable(&why))?;
        }
        Ok(roots)
    }

    /// TLS with `host`, which may choose among these protocols.
    async fn secure(
        &self,
        socket: TcpStream,
        host: &str,
        protocols: &[&str],
    ) -> Result<TlsStream<TcpStream>, String> {
        let mut config = ClientConfig::builder()
            .with_root_certificates(self.roots()?)
            .with_no_client_auth();
        config.alpn_protocols = protocols
            .iter()
            .map(|name| name.as_bytes().into())
            .collect();
        let name = ServerName::try_from(host.to_owned()).map_err(|why| format!("{host}: {why}"))?;
        let connected = TlsConnector::from(Arc::new(config))
            .connect(name, socket)
            .await;
        connected.map_err(|why| format!("{host}: {why}"))
    }
}

/// Where a URL leads: its parts, the host without brackets, and a connection to it.
async fn reach(url: &str) -> Result<(Uri, String, TcpStream), String> {
    let uri: Uri = url
        .parse()
        .map_err(|why| format!("{url} is not a URL: {why}"))?;
    let port = match uri.scheme_str() {
        Some("http") => 80,
        Some("https") => 443,
        _ => return Err(format!("{url}: only http:// and https:// are spoken here")),
    };
    let authority = uri
        .authority()
        .ok_or_else(|| format!("{url} names no host"))?;
    let host = authority
        .host()
        .trim_start_matches('[')
        .trim_end_matches(']')
        .to_owned();
    let socket = TcpStream::connect((&*host, authority.port_u16().unwrap_or(port))).await;
    let socket = socket.map_err(|why| format!("{authority} cannot be reached: {why}"))?;
    Ok((uri, host, socket))
}

/// The protocol that a server chooses if it may, as a browser lets it: none without TLS.
pub(super) async fn chosen_protocol(
    url: &str,
    authorities: &Authorities,
) -> Result<Option<String>, String> {
    let (uri, host, socket) = reach(url).await?;
    if uri.scheme_str() != Some("https") {
        return Ok(None);
    }
    let stream = authorities
        .secure(socket, &host, &["h2", "http/1.1"])
        .await?;
    let chosen = stream.get_ref().1.alpn_protocol();
    let chosen = chosen.map_or("http/1.1".into(), String::from_utf8_lossy);
    Ok(Some(chosen.into_owned()))
}

/// Sends one request on a connection of its own.
pub(super) async fn send(
    method: &str,
    url: &str,
    headers: &[(&str, &str)],
    body: String,
) -> Result<Response<Incoming>, String> {
    send_to(&Authorities::default(), method, url, headers, body).await
}

/// The same, to a server that these authorities vouch for.
pub(super) async fn send_to(
    authorities: &Authorities,
    method: &str,
    url: &str,
    headers: &[(&str, &str)],
    body: String,
) -> Result<Response<Incoming>, String> {
    let (uri, host, socket) = reach(url).await?;
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    let socket: Box<dyn Io> = if uri.scheme_str() == Some("https") {
        Box::new(authorities.secure(socket, &host, &["http/1.1"]).await?)
    } else {
        Box::new(socket)
    };
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(socket))
        .await
        .map_err(|why| why.to_string())?;
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", authority);
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
