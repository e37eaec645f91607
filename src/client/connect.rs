//! One request on a connection of its own, over hyper, with and without TLS.

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
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Bytes of an answer that are kept, at most. No gateway sends as many.
const ANSWER_BYTES_MAX: usize = 64 << 20;
/// The same of a refusal.
const REFUSAL_BYTES_MAX: usize = 64 << 10;
/// Time for a connection.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Nobody is there. Retrying helps once somebody is.
    #[error("{at} cannot be reached: {why}")]
    Unreachable {
        /// Host and port.
        at: String,
        /// What the system says of it.
        why: String,
    },
    /// The connection ended before the answer did; whether the request was carried out is unknown.
    #[error("{0}")]
    Broken(String),
    /// The request cannot be made: of the URL, or of TLS. Retrying does not help.
    #[error("{0}")]
    Impossible(String),
}

impl From<Error> for String {
    fn from(why: Error) -> Self {
        why.to_string()
    }
}

/// What the system says, without the number that it has for it.
fn in_words(why: &std::io::Error) -> String {
    let text = why.to_string();
    let words = text.split(" (os error").next();
    words.unwrap_or_default().to_owned()
}

/// A connection, plain or not.
trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// Who is believed to be a server: those that browsers trust, or whom a file names.
#[derive(Clone, Debug, Default)]
pub struct Authorities(pub Option<PathBuf>);

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
    ) -> Result<TlsStream<TcpStream>, Error> {
        let roots = self.roots().map_err(Error::Impossible)?;
        let mut config = ClientConfig::builder()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = protocols
            .iter()
            .map(|name| name.as_bytes().into())
            .collect();
        let impossible = |why: &dyn std::fmt::Display| Error::Impossible(format!("{host}: {why}"));
        let name = ServerName::try_from(host.to_owned()).map_err(|why| impossible(&why))?;
        let connector = TlsConnector::from(Arc::new(config));
        let connected = in_time(host, connector.connect(name, socket)).await?;
        connected.map_err(|why| impossible(&in_words(&why)))
    }
}

/// What is done within the time for a connection.
async fn in_time<T>(at: &str, work: impl Future<Output = T>) -> Result<T, Error> {
    let late = |_| Error::Unreachable {
        at: at.to_owned(),
        why: format!("no connection in {PATIENCE:?}"),
    };
    tokio::time::timeout(PATIENCE, work).await.map_err(late)
}

/// Where a URL leads: its parts, the host without brackets, and a connection to it.
async fn reach(url: &str) -> Result<(Uri, String, TcpStream), Error> {
    let uri: Uri = url
        .parse()
        .map_err(|why| Error::Impossible(format!("{url} is not a URL: {why}")))?;
    let port = match uri.scheme_str() {
        Some("http") => 80,
        Some("https") => 443,
        _ => {
            let why = format!("{url}: only http:// and https:// are supported");
            return Err(Error::Impossible(why));
        }
    };
    let authority = uri
        .authority()
        .ok_or_else(|| Error::Impossible(format!("{url} names no host")))?;
    let host = authority
        .host()
        .trim_start_matches('[')
        .trim_end_matches(']')
        .to_owned();
    let socket = TcpStream::connect((&*host, authority.port_u16().unwrap_or(port)));
    let socket = in_time(authority.as_str(), socket).await?;
    let socket = socket.map_err(|why| Error::Unreachable {
        at: authority.to_string(),
        why: in_words(&why),
    })?;
    Ok((uri, host, socket))
}

/// The protocol that a server chooses if it may, as a browser lets it: none without TLS.
///
/// # Errors
/// [`Error`].
pub async fn chosen_protocol(
    url: &str,
    authorities: &Authorities,
) -> Result<Option<String>, Error> {
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
    let (uri, host, socket) = reach(url).await?;
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    let socket: Box<dyn Io> = if uri.scheme_str() == Some("https") {
        Box::new(authorities.secure(socket, &host, &["http/1.1"]).await?)
    } else {
        Box::new(socket)
    };
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(socket))
        .await
        .map_err(|why| Error::Broken(why.to_string()))?;
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", authority);
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
