//! A connection to a server by its URL, plain or over TLS. For the commands, and for what a replica fetches.

use hyper::Uri;
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
    /// The server shows a certificate that nobody vouches for. Retrying does not help.
    #[error("the certificate of {at} is not trusted: {why}")]
    Untrusted {
        /// The host.
        at: String,
        /// What is wrong with it.
        why: String,
    },
    /// The request cannot be made: of the URL, or of TLS. Retrying does not help.
    #[error("{0}")]
    Impossible(String),
}

impl Error {
    /// Whether trying again is in vain.
    #[must_use]
    pub fn is_final(&self) -> bool {
        matches!(self, Self::Untrusted { .. } | Self::Impossible(_))
    }
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
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// Who is believed to be a server.
#[derive(Clone, Debug, Default)]
pub enum Authorities {
    /// Whom those vouch for that browsers trust.
    #[default]
    OfBrowsers,
    /// Whom those vouch for that stand in this file, in PEM; read for each connection.
    File(PathBuf),
    /// The same in a text.
    Text(Arc<str>),
}

impl From<Option<PathBuf>> for Authorities {
    fn from(file: Option<PathBuf>) -> Self {
        file.map_or(Self::OfBrowsers, Self::File)
    }
}

impl Authorities {
    /// Certificates of those authorities.
    ///
    /// # Errors
    /// One sentence: they cannot be read.
    pub fn roots(&self) -> Result<RootCertStore, String> {
        let mut roots = RootCertStore::empty();
        let (found, place) = match self {
            Self::OfBrowsers => {
                roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
                return Ok(roots);
            }
            Self::File(path) => {
                let text = std::fs::read(path);
                let place = path.display().to_string();
                (text.map_err(|why| format!("{place}: {why}"))?, place)
            }
            Self::Text(text) => (text.as_bytes().to_vec(), "a certificate".to_owned()),
        };
        let unreadable = |why: &dyn std::fmt::Display| format!("{place}: {why}");
        for certificate in CertificateDer::pem_slice_iter(&found) {
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
        connected.map_err(|why| match untrusted(&why) {
            Some(why) => Error::Untrusted {
                at: host.to_owned(),
                why,
            },
            None => impossible(&in_words(&why)),
        })
    }
}

/// What is wrong with the certificate, if that is why there is no connection.
fn untrusted(why: &std::io::Error) -> Option<String> {
    use rustls::{CertificateError, Error};
    match why.get_ref()?.downcast_ref()? {
        Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
            Some("no authority that is trusted here has signed it".to_owned())
        }
        Error::InvalidCertificate(why) => Some(why.to_string()),
        _ => None,
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

/// A connection to whom a URL names.
#[expect(
    missing_debug_implementations,
    reason = "a connection has nothing to show"
)]
pub struct Dialled {
    /// Plain, or over TLS.
    pub socket: Box<dyn Io>,
    /// The host, and the port if the URL names one: what `Host` says.
    pub authority: String,
    /// The path and the query.
    pub target: String,
}

/// Connects to whom a URL names, if over TLS to one that these authorities vouch for.
///
/// # Errors
/// [`Error`].
pub async fn dial(url: &str, authorities: &Authorities) -> Result<Dialled, Error> {
    let (uri, host, socket) = reach(url).await?;
    let socket: Box<dyn Io> = if uri.scheme_str() == Some("https") {
        Box::new(authorities.secure(socket, &host, &["http/1.1"]).await?)
    } else {
        Box::new(socket)
    };
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    let target = uri.path_and_query().map_or("/", |path| path.as_str());
    Ok(Dialled {
        socket,
        authority: authority.to_owned(),
        target: target.to_owned(),
    })
}
