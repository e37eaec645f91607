//! How Redis is reached: an address, a user, TLS.

use redis::io::tcp::TcpSettings;
use redis::{
    Client, ClientTlsConfig, ConnectionAddr, ConnectionInfo, IntoConnectionInfo as _, RedisError,
    TlsCertificates,
};
use secrecy::{ExposeSecret as _, SecretString};
use std::fmt;
use std::time::Duration;

/// What `redis.url` and `redis.tls_*` say. It holds passwords and keys; its `Debug` does not show them.
#[derive(Clone)]
pub struct Access {
    server: ConnectionInfo,
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Access({})", self.server.addr())
    }
}

/// A certificate of our own and its key, as PEM.
#[derive(Debug)]
pub struct Identity {
    /// The certificate, and those that lead up to the authority.
    pub certificates: String,
    /// The key of the first.
    pub key: SecretString,
}

impl Access {
    /// Reads a `redis.url`. Connects to nothing.
    ///
    /// # Errors
    /// A sentence that says what is wrong, without the password.
    pub fn parse(url: &SecretString) -> Result<Self, String> {
        let text = url.expose_secret();
        if !text.starts_with("redis://") && !text.starts_with("rediss://") {
            return Err("must begin with redis:// or rediss://".into());
        }
        if text.contains('#') {
            return Err("has a #, which says nothing here; in a password it is written %23".into());
        }
        let server = text
            .into_connection_info()
            .map_err(|why| format!("is not a Redis URL: {}", why.category()))?;
        // What names us to Redis would be one more right, and an older server does not know it.
        let user = server.redis_settings().clone().set_skip_set_lib_name();
        Ok(Self {
            server: server.set_redis_settings(user),
        })
    }

    /// Whether the connection is encrypted.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        matches!(self.server.addr(), ConnectionAddr::TcpTls { .. })
    }

    /// Trusts these authorities (PEM) in place of those that browsers trust, and shows a certificate.
    ///
    /// # Errors
    /// A sentence about certificates that cannot be read.
    pub fn with_certificates(
        self,
        authorities: Option<String>,
        identity: Option<Identity>,
    ) -> Result<Self, String> {
        let certificates = TlsCertificates {
            client_tls: identity.map(|identity| ClientTlsConfig {
                client_cert: identity.certificates.into_bytes(),
                client_key: identity.key.expose_secret().as_bytes().to_vec(),
            }),
            root_cert: authorities.map(String::into_bytes),
        };
        let client = Client::build_with_tls(self.server, certificates);
        let client = client.map_err(|why| sentence(&why))?;
        Ok(Self {
            server: client.get_connection_info().clone(),
        })
    }

    /// The way to the server; unacknowledged for `silence`, a connection counts as lost.
    pub(super) fn server(&self, silence: Duration) -> ConnectionInfo {
        let tcp = TcpSettings::default()
            .set_nodelay(true)
            .set_user_timeout(silence);
        self.server.clone().set_tcp_settings(tcp)
    }

    /// Where to look when a connection does not come to stand for this reason.
    pub(super) fn hint(&self, why: &str) -> Option<&'static str> {
        let signs = |words: &[&str]| words.iter().any(|word| why.contains(word));
        if !self.is_tls() {
            return signs(&["reset by peer", "broken pipe"])
                .then_some("a port that wants TLS does this: rediss://");
        }
        if signs(&["UnknownIssuer", "BadSignature"]) {
            Some("redis.tls_ca_file names who signs for Redis")
        } else if signs(&["fatal alert"]) {
            Some("Redis wants a certificate that it trusts: redis.tls_cert_file")
        } else {
            None
        }
    }
}

/// What went wrong, without the words that say of which kind it is.
fn sentence(why: &RedisError) -> String {
    why.detail()
        .map_or_else(|| why.to_string(), ToOwned::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_says_whether_the_connection_is_encrypted() {
        for (url, tls) in [("redis://host", false), ("rediss://host:6380/1", true)] {
            let access = Access::parse(&url.to_owned().into()).unwrap();
            assert_eq!(access.is_tls(), tls, "{url}");
        }
    }

    #[test]
    fn neither_password_nor_key_is_shown() {
        let access = Access::parse(&"redis://user:s3cr3t@host".to_owned().into()).unwrap();
        assert_eq!(format!("{access:?}"), "Access(host:6379)");
    }
}
