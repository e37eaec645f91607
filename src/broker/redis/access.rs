//! How Redis is reached: the address of a server, or of sentinels that know it; users; TLS.

use redis::io::tcp::TcpSettings;
use redis::{
    Client, ClientTlsConfig, ConnectionAddr, ConnectionInfo, IntoConnectionInfo as _,
    RedisConnectionInfo, RedisError, TlsCertificates,
};
use secrecy::{ExposeSecret, SecretString};
use std::fmt;
use std::hash::{BuildHasher as _, Hash, RandomState};
use std::sync::LazyLock;
use std::time::Duration;

/// Where sentinels listen if nothing else is said.
const SENTINEL_PORT: u16 = 26379;

/// What `redis.url`, `redis.tls_*` and `redis.sentinel_*` say. It holds passwords and keys; its
/// `Debug` does not show them.
#[derive(Clone)]
pub struct Access {
    /// With sentinels, everything but the address.
    server: ConnectionInfo,
    sentinels: Option<Sentinels>,
    /// Tells it from what says anything else, passwords and keys among it; comparable within one process.
    mark: u64,
}

/// Who knows where the master is.
#[derive(Clone)]
pub(super) struct Sentinels {
    /// The name under which they watch it.
    pub(super) master: String,
    pub(super) addresses: Vec<ConnectionInfo>,
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.sentinels {
            None => write!(f, "Access({})", self.server.addr()),
            Some(Sentinels { master, addresses }) => {
                let names: Vec<String> = addresses.iter().map(|at| at.addr().to_string()).collect();
                write!(f, "Access({master} by {})", names.join(","))
            }
        }
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
        if text.contains('#') {
            return Err("contains a #, which has no meaning here; in a password write %23".into());
        }
        match text.split_once("://") {
            Some(("redis" | "rediss", _)) => Ok(Self {
                server: connection(text)?,
                sentinels: None,
                mark: mark_of(&text),
            }),
            Some(("redis+sentinel", rest)) => Self::by_sentinels("redis", rest),
            Some(("rediss+sentinel", rest)) => Self::by_sentinels("rediss", rest),
            _ => Err(
                "must begin with redis://, rediss://, redis+sentinel:// or rediss+sentinel://"
                    .into(),
            ),
        }
    }

    /// `[user:password@]host:port,host:port/master[?db=1]`; the user is the master's.
    fn by_sentinels(scheme: &str, rest: &str) -> Result<Self, String> {
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (user, hosts) = match authority.rsplit_once('@') {
            Some((user, hosts)) => (format!("{user}@"), hosts),
            None => (String::new(), authority),
        };
        let (master, query) = path.split_once('?').unwrap_or((path, "db=0"));
        if master.is_empty() {
            return Err("names no master: redis+sentinel://host:port,host:port/master-name".into());
        }
        if master.contains('/') {
            return Err(
                "has more than the name of the master after the hosts; name a database with ?db=1"
                    .into(),
            );
        }
        let Some(db) = query.strip_prefix("db=") else {
            return Err("has a parameter other than db".into());
        };
        let sentinel = |host: &str| connection(&format!("{scheme}://{}", with_port(host)));
        let addresses = hosts
            .split(',')
            .map(sentinel)
            .collect::<Result<Vec<_>, _>>()?;
        let any = hosts.split(',').next().unwrap_or_default();
        Ok(Self {
            server: connection(&format!("{scheme}://{user}{any}/{db}"))?,
            sentinels: Some(Sentinels {
                master: master.to_owned(),
                addresses,
            }),
            mark: mark_of(&(scheme, rest)),
        })
    }

    /// Whether it says the same in everything.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.mark == other.mark
    }

    /// Whether connections are encrypted.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        matches!(self.server.addr(), ConnectionAddr::TcpTls { .. })
    }

    /// Whether sentinels are asked for the master.
    #[must_use]
    pub fn has_sentinels(&self) -> bool {
        self.sentinels.is_some()
    }

    /// Trusts these authorities (PEM) in place of those that browsers trust, and shows a certificate.
    ///
    /// # Errors
    /// A sentence about certificates that cannot be read.
    pub fn with_certificates(
        mut self,
        authorities: Option<String>,
        identity: Option<Identity>,
    ) -> Result<Self, String> {
        let shown = identity.as_ref();
        let shown = shown.map(|one| (&one.certificates, one.key.expose_secret()));
        self.mark = mark_of(&(self.mark, &authorities, shown));
        let certificates = TlsCertificates {
            client_tls: identity.map(|identity| ClientTlsConfig {
                client_cert: identity.certificates.into_bytes(),
                client_key: identity.key.expose_secret().as_bytes().to_vec(),
            }),
            root_cert: authorities.map(String::into_bytes),
        };
        let sentinels = self.sentinels.iter_mut().flat_map(|s| &mut s.addresses);
        for info in sentinels.chain([&mut self.server]) {
            let client = Client::build_with_tls(info.clone(), certificates.clone());
            let client = client.map_err(|why| sentence(&why))?;
            *info = client.get_connection_info().clone();
        }
        Ok(self)
    }

    /// Says to sentinels who we are; the user in the URL is the master's.
    #[must_use]
    pub fn with_sentinel_user(
        mut self,
        name: Option<&str>,
        password: Option<&SecretString>,
    ) -> Self {
        self.mark = mark_of(&(self.mark, name, password.map(ExposeSecret::expose_secret)));
        for info in self.sentinels.iter_mut().flat_map(|s| &mut s.addresses) {
            let mut user = info.redis_settings().clone();
            user = name
                .into_iter()
                .fold(user, RedisConnectionInfo::set_username);
            let password = password.map(ExposeSecret::expose_secret);
            user = password
                .into_iter()
                .fold(user, RedisConnectionInfo::set_password);
            *info = info.clone().set_redis_settings(user);
        }
        self
    }

    /// The way to the one server, if no sentinel is to be asked.
    ///
    /// A connection whose bytes stay unacknowledged for `silence` counts as lost.
    pub(super) fn server(&self, silence: Duration) -> Option<ConnectionInfo> {
        let server = || self.server.clone().set_tcp_settings(tcp(silence));
        self.sentinels.is_none().then(server)
    }

    /// The way to a server that sentinels have named.
    pub(super) fn server_at(&self, host: &str, port: u16, silence: Duration) -> ConnectionInfo {
        let address = match self.server.addr() {
            ConnectionAddr::TcpTls {
                insecure,
                tls_params,
                ..
            } => ConnectionAddr::TcpTls {
                host: host.to_owned(),
                port,
                insecure: *insecure,
                tls_params: tls_params.clone(),
            },
            _ => ConnectionAddr::Tcp(host.to_owned(), port),
        };
        let server = self.server.clone().set_addr(address);
        server.set_tcp_settings(tcp(silence))
    }

    pub(super) fn sentinels(&self) -> Option<&Sentinels> {
        self.sentinels.as_ref()
    }

    /// Where to look when a connection does not come to stand for this reason.
    pub(super) fn hint(&self, why: &str) -> Option<&'static str> {
        let signs = |words: &[&str]| words.iter().any(|word| why.contains(word));
        if !self.is_tls() {
            return signs(&["reset by peer", "broken pipe"])
                .then_some("a port with TLS behaves like this: try rediss://");
        }
        if signs(&["UnknownIssuer", "BadSignature"]) {
            Some("redis.tls_ca_file must name the certificate authority of Redis")
        } else if signs(&["fatal alert"]) {
            Some("Redis requires a certificate that it trusts: set redis.tls_cert_file")
        } else {
            None
        }
    }
}

fn mark_of(said: &impl Hash) -> u64 {
    static KEYS: LazyLock<RandomState> = LazyLock::new(RandomState::new);
    KEYS.hash_one(said)
}

fn connection(url: &str) -> Result<ConnectionInfo, String> {
    let info = url
        .into_connection_info()
        .map_err(|why| format!("is not a Redis URL: {}", why.category()))?;
    // What names us to Redis would be one more right, and an older server does not know it.
    let user = info.redis_settings().clone().set_skip_set_lib_name();
    Ok(info.set_redis_settings(user))
}

fn with_port(host: &str) -> String {
    // An IPv6 address is full of colons, and stands in brackets.
    let has_port = host
        .rsplit_once(':')
        .is_some_and(|(_, port)| !port.ends_with(']'));
    if has_port {
        host.to_owned()
    } else {
        format!("{host}:{SENTINEL_PORT}")
    }
}

pub(super) fn tcp(silence: Duration) -> TcpSettings {
    TcpSettings::default()
        .set_nodelay(true)
        .set_user_timeout(silence)
}

/// What went wrong, without the words that say of which kind it is.
fn sentence(why: &RedisError) -> String {
    why.detail()
        .map_or_else(|| why.to_string(), ToOwned::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(url: &str) -> Result<Access, String> {
        Access::parse(&url.to_owned().into())
    }

    #[test]
    fn a_url_says_where_redis_is_and_whether_to_encrypt() {
        let table = [
            ("redis://host", "host:6379", false),
            ("rediss://host:6380/1", "host:6380", true),
            ("redis+sentinel://a/main", "main by a:26379", false),
            (
                "rediss+sentinel://a:1,b,c:2/main",
                "main by a:1,b:26379,c:2",
                true,
            ),
            (
                "redis+sentinel://[::1],[::1]:5/x?db=2",
                "x by ::1:26379,::1:5",
                false,
            ),
        ];
        for (url, place, tls) in table {
            let access = parse(url).unwrap();
            assert_eq!(format!("{access:?}"), format!("Access({place})"));
            assert_eq!(access.is_tls(), tls, "{url}");
        }
    }

    #[test]
    fn the_user_of_the_url_is_the_masters_and_sentinels_have_their_own() {
        let access = parse("redis+sentinel://user:s3cr%40t@a,b/main?db=2").unwrap();
        let access = access.with_sentinel_user(Some("watcher"), Some(&"other".to_owned().into()));
        let master = access.server_at("c", 7, Duration::ZERO);
        let user = master.redis_settings();
        assert_eq!(
            (user.username(), user.password()),
            (Some("user"), Some("s3cr@t"))
        );
        assert_eq!(
            (user.db(), master.addr().to_string()),
            (2, "c:7".to_owned())
        );
        for sentinel in &access.sentinels().unwrap().addresses {
            let user = sentinel.redis_settings();
            assert_eq!(
                (user.username(), user.password()),
                (Some("watcher"), Some("other"))
            );
            assert_eq!(user.db(), 0);
        }
        assert!(!format!("{access:?}").contains("s3cr"), "{access:?}");
    }

    #[test]
    fn another_password_makes_it_another_way_and_the_same_does_not() {
        let by = |url: &str, sentinels: &str| {
            let password = sentinels.to_owned().into();
            let access = parse(&format!("redis+sentinel://{url}/main")).unwrap();
            access.with_sentinel_user(None, Some(&password))
        };
        let first = by("user:one@a,b", "x");
        assert!(first.is_same(&by("user:one@a,b", "x")));
        for other in [
            by("user:two@a,b", "x"),
            by("user:one@a,b", "y"),
            by("user:one@a", "x"),
        ] {
            assert!(!first.is_same(&other), "{other:?}");
        }
    }

    #[test]
    fn what_is_no_address_is_refused_without_the_password() {
        for url in [
            "host",
            "http://host",
            "redis://user:s3cr3t@host:port",
            "redis://user:s3cr3t@host#insecure",
            "redis+sentinel://s3cr3t@a,b",
            "redis+sentinel://s3cr3t@a,b/",
            "redis+sentinel://s3cr3t@a,b/x/y",
            "redis+sentinel://s3cr3t@a,,b/x",
            "redis+sentinel://s3cr3t@a,b/x?tls=1",
            "redis+sentinel://s3cr3t@a,b/x?db=one",
        ] {
            let why = parse(url).map(|access| format!("{access:?}")).unwrap_err();
            assert!(!why.contains("s3cr3t"), "{url}: {why}");
        }
    }
}
