//! Goal: the way to Redis is encrypted when `redis.url` says `rediss://`, both sides are who they
//! say, and whatever is wrong with a certificate is said in words that lead to it.
//!
//! Method: a real redis-server with a TLS port, and certificates made for each test.

use crate::support::{
    Directory, Gateway, NewEvent, Redis, Way, eventually, free_address, run, wait_for_ears,
};
use rcgen::{CertificateParams, DistinguishedName, DnType, Issuer, KeyPair, date_time_ymd};

/// An authority that only this test knows.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    files: Directory,
}

/// A certificate and its key, as files.
struct Signed {
    certificate: String,
    key: String,
}

impl Authority {
    fn create(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.distinguished_name = named(name);
        let files = Directory::create();
        let certificate = params.self_signed(&key).unwrap();
        std::fs::write(files.0.join("ca.pem"), certificate.pem()).unwrap();
        let issuer = Issuer::new(params, key);
        Self { issuer, files }
    }

    fn path(&self, name: &str) -> String {
        self.files.0.join(name).to_str().unwrap().to_owned()
    }

    /// Its own certificate.
    fn file(&self) -> String {
        self.path("ca.pem")
    }

    /// A certificate for this host.
    fn sign(&self, host: &str) -> Signed {
        self.sign_until(host, 4096)
    }

    fn sign_until(&self, host: &str, year: i32) -> Signed {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new([host.to_owned()]).unwrap();
        params.distinguished_name = named(host);
        params.not_after = date_time_ymd(year, 1, 1);
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let signed = Signed {
            certificate: self.path(&format!("{host}-{year}.pem")),
            key: self.path(&format!("{host}-{year}.key")),
        };
        std::fs::write(&signed.certificate, certificate.pem()).unwrap();
        std::fs::write(&signed.key, key.serialize_pem()).unwrap();
        signed
    }
}

fn named(name: &str) -> DistinguishedName {
    let mut names = DistinguishedName::new();
    names.push(DnType::CommonName, name);
    names
}

/// A Redis with a port for TLS beside the one for the test's own commands.
struct Encrypted {
    redis: Redis,
    port: u16,
}

impl Encrypted {
    fn start(authority: &Authority, server: &Signed, clients: &str) -> Self {
        let port = free_address().port();
        let redis = Redis::with(&[
            "--tls-port",
            &port.to_string(),
            "--tls-cert-file",
            &server.certificate,
            "--tls-key-file",
            &server.key,
            "--tls-ca-cert-file",
            &authority.file(),
            "--tls-auth-clients",
            clients,
        ]);
        Self { redis, port }
    }

    fn url(&self) -> String {
        format!("rediss://127.0.0.1:{}", self.port)
    }
}

/// Asserts that a replica with this config does not become ready, and logs a sentence with these words.
fn assert_complains(config: &[(&str, &str)], words: &str) {
    let gateway = Gateway::launch(&[config, &[("redis.backoff_max", "50ms")]].concat());
    eventually(&format!("{config:?}: {words}"), || {
        let mut log = gateway.log().into_iter();
        log.any(|line| line.contains("no live path to Redis") && line.contains(words))
    });
    gateway.get("/readyz").problem(503);
}

#[test]
fn everything_that_a_replica_says_to_redis_is_encrypted() {
    let authority = Authority::create("authority");
    let server = Encrypted::start(&authority, &authority.sign("127.0.0.1"), "no");
    let config = [
        ("redis.url", &*server.url()),
        ("redis.tls_ca_file", &authority.file()),
    ];
    let gateway = Gateway::start(&config);
    wait_for_ears(&server.redis, std::slice::from_ref(&gateway));
    let mut stream = gateway.listen(&["news"]);
    for way in [Way::Http, Way::Function, Way::Inbox, Way::Raw] {
        let data = format!("{way:?}");
        let event = NewEvent {
            topic: "news",
            data: &data,
            ..NewEvent::default()
        };
        way.publish(&gateway, &server.redis, event);
        assert_eq!(stream.next_data(1), [data]);
    }
    // The live path is made again the same way.
    server
        .redis
        .run::<u32>(&["CLIENT", "KILL", "TYPE", "pubsub"]);
    gateway.publish("news", "after the cut");
    assert_eq!(stream.next_data(1), ["after the cut"]);

    let clients: String = server.redis.run(&["CLIENT", "LIST"]);
    let plain = format!(" laddr=127.0.0.1:{} ", server.redis.port());
    let (plain, encrypted): (Vec<&str>, Vec<&str>) =
        clients.lines().partition(|line| line.contains(&plain));
    assert_eq!(plain.len(), 1, "only the test's own: {clients}");
    assert!(
        encrypted.len() >= 3,
        "commands, live path and ear: {clients}"
    );
}

#[test]
fn a_redis_that_asks_for_a_certificate_gets_it() {
    let authority = Authority::create("authority");
    let server = Encrypted::start(&authority, &authority.sign("127.0.0.1"), "yes");
    let (url, ca) = (server.url(), authority.file());
    let anonymous = [("redis.url", &*url), ("redis.tls_ca_file", &ca)];
    let with = |identity: &Signed, test: &dyn Fn(&[(&str, &str)])| {
        let identity = [
            ("redis.tls_cert_file", &*identity.certificate),
            ("redis.tls_key_file", &identity.key),
        ];
        test(&[anonymous, identity].concat());
    };
    with(&authority.sign("replica"), &|config| {
        Gateway::start(config).publish("news", "x");
    });
    let stranger = Authority::create("another");
    let words = "redis.tls_cert_file";
    with(&stranger.sign("replica"), &|config| {
        assert_complains(config, words);
    });
    assert_complains(&anonymous, words);
}

#[test]
fn a_server_that_is_not_who_it_should_be_is_not_spoken_to() {
    let authority = Authority::create("authority");
    let [impostor, other] = ["authority", "another"].map(Authority::create);
    let cases = [
        (authority.sign("127.0.0.1"), &impostor, "redis.tls_ca_file"),
        (authority.sign("127.0.0.1"), &other, "redis.tls_ca_file"),
        (authority.sign("redis.example"), &authority, "not valid for"),
        (
            authority.sign_until("127.0.0.1", 2001),
            &authority,
            "expired",
        ),
    ];
    for (server, trusted, words) in cases {
        let server = Encrypted::start(&authority, &server, "no");
        let ca = trusted.file();
        let config = [("redis.url", &*server.url()), ("redis.tls_ca_file", &ca)];
        assert_complains(&config, words);
    }
    // Signed by nobody that browsers trust.
    let server = Encrypted::start(&authority, &authority.sign("127.0.0.1"), "no");
    assert_complains(&[("redis.url", &server.url())], "redis.tls_ca_file");
}

#[test]
fn a_port_that_wants_tls_is_recognised() {
    let authority = Authority::create("authority");
    let server = Encrypted::start(&authority, &authority.sign("127.0.0.1"), "no");
    let plain = format!("redis://127.0.0.1:{}", server.port);
    assert_complains(&[("redis.url", &plain)], "rediss://");
}

#[test]
fn certificates_are_judged_before_the_start() {
    let authority = Authority::create("authority");
    let mine = authority.sign("replica");
    let ca = authority.file();
    let empty = authority.path("empty.pem");
    std::fs::write(&empty, "not a certificate").unwrap();
    let broken = authority.path("broken.pem");
    let half = std::fs::read_to_string(&ca).unwrap().replace("MI", "MX");
    std::fs::write(&broken, half).unwrap();
    let url = "rediss://127.0.0.1";
    let table: [(&[(&str, &str)], &str); 6] = [
        (
            &[("URL", url), ("TLS_CA_FILE", "/nowhere")],
            "redis.tls_ca_file (in the environment): /nowhere cannot be read",
        ),
        (
            &[("URL", url), ("TLS_CA_FILE", &empty)],
            "redis.tls_ca_file (in the environment): the file has no CERTIFICATE in PEM",
        ),
        (
            &[("URL", url), ("TLS_CA_FILE", &broken)],
            "redis.tls_ca_file",
        ),
        (
            &[("URL", url), ("TLS_CERT_FILE", &mine.certificate)],
            "redis.tls_cert_file (in the environment): goes with redis.tls_key_file",
        ),
        (
            &[
                ("URL", url),
                ("TLS_CERT_FILE", &mine.certificate),
                ("TLS_KEY_FILE", &mine.certificate),
            ],
            "redis.tls_key_file (in the environment): the file has no PRIVATE KEY in PEM",
        ),
        (
            &[("URL", "redis://127.0.0.1"), ("TLS_CA_FILE", &ca)],
            "redis.url (in the environment): must begin with rediss if redis.tls_* is set",
        ),
    ];
    for (keys, sentence) in table {
        let named: Vec<(String, &str)> = keys
            .iter()
            .map(|(key, value)| (format!("TIDEGATE__REDIS__{key}"), *value))
            .collect();
        let environment: Vec<(&str, &str)> = named
            .iter()
            .map(|(key, value)| (key.as_str(), *value))
            .collect();
        let output = run(&["check-config"], &environment);
        assert_eq!(output.code, Some(64), "{keys:?} {output:?}");
        assert!(output.stderr.contains(sentence), "{keys:?} {output:?}");
        assert_eq!(output.stderr.lines().count(), 1, "{output:?}");
    }
}
