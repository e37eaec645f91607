//! Goal: keys are fetched from an identity provider's address, replaced with it, and kept when it is away or answers
//! nonsense; and nobody is refused for what is not theirs.
//!
//! Method: the real binary, and a provider that answers as the test has it. The table of `docs/auth.md` that says what is ours
//! and what is theirs is played row by row.

use crate::support::identity::{Identity, Manner, Signer, answer, key_set};
use crate::support::tokens::now;
use crate::support::{
    Answer, Directory, End, Gateway, Output, Redis, Sse, environment, eventually, free_address,
    over_both_brokers, run, run_with,
};
use rcgen::{CertificateParams, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

const FETCHES: &str = "tidegate_jwks_refreshes_total";
const SETS: &str = "tidegate_jwks_sets";
/// So long that it does not come in a test.
const NEVER: &str = "1h";

/// What a token says that grants all of a topic.
fn claims(topic: &str) -> Value {
    json!({
        "sub": topic, "exp": now() + 600,
        "tidegate": {"subscribe": [topic], "publish": [topic], "list": [topic]},
    })
}

fn token(signer: &Signer) -> String {
    signer.sign(&claims("news"))
}

/// `auth.keys` of these addresses.
fn keys(urls: &[&str]) -> String {
    let entries: Vec<String> = urls
        .iter()
        .map(|url| format!("{{url = '{url}'}}"))
        .collect();
    format!("[{}]", entries.join(", "))
}

/// A gateway with the keys of one provider, asked as often as it may.
fn start(provider: &Identity, config: &[(&str, &str)]) -> Gateway {
    let keys = keys(&[&provider.url()]);
    let mut all = vec![
        ("auth.keys", &*keys),
        ("auth.jwks_refresh", NEVER),
        ("auth.jwks_floor", "50ms"),
        ("auth.jwks_time_max", "5s"),
    ];
    all.retain(|(key, _)| config.iter().all(|(other, _)| other != key));
    all.extend(config);
    Gateway::start(&all)
}

fn ask(gateway: &Gateway, method: &str, target: &str, token: &str) -> Answer {
    let bearer = format!("Bearer {token}");
    gateway.request(method, target, &[("Authorization", &bearer)], "x")
}

fn status(gateway: &Gateway, token: &str) -> u16 {
    ask(gateway, "GET", "/topics/news/events", token).status
}

fn stream(gateway: &Gateway, token: &str) -> Sse {
    let bearer = format!("Bearer {token}");
    gateway.open("/events/news", &[("Authorization", &bearer)])
}

/// A stream that is to come back.
#[track_caller]
fn assert_comes_back(mut stream: Sse) {
    assert_eq!(stream.status(), 200, "{}", stream.text());
    let kind = stream.headers().get("content-type");
    assert_eq!(kind, Some("text/event-stream"));
    assert_eq!(stream.rest(), (vec![], End::Cut));
    assert!(stream.retry().is_some());
}

#[track_caller]
fn assert_later(answer: &Answer) {
    let detail = answer.problem(503);
    assert!(detail.contains("cannot be judged now"), "{detail}");
    let seconds: u64 = answer.headers.get("retry-after").unwrap().parse().unwrap();
    assert!((1..=3).contains(&seconds), "{seconds}");
    assert_eq!(answer.headers.get("www-authenticate"), None);
}

fn is_good(gateway: &Gateway, token: &str) -> bool {
    status(gateway, token) == 200
}

fn fetched(gateway: &Gateway, outcome: &str) -> f64 {
    gateway.metric(FETCHES, &[("outcome", outcome)])
}

fn wait_for_state(gateway: &Gateway, state: &str) {
    gateway.wait_for_metric(SETS, &[("state", state)], 1.0);
}

#[test]
fn keys_are_fetched_and_replaced_while_nobody_is_refused_for_it() {
    let (one, two) = (Signer::create("one"), Signer::create("two"));
    let provider = Identity::start(&[&one]);
    let gateway = start(&provider, &[]);
    wait_for_state(&gateway, "fresh");
    let (old, new) = (token(&one), token(&two));
    let mut before = stream(&gateway, &old);
    before.opened();
    ask(&gateway, "POST", "/events/news", &old).id();
    assert_eq!(before.next_data(1), ["x"]);
    // The provider replaces its key, and signs with the new one at once.
    provider.has(&[&two]);
    assert_comes_back(stream(&gateway, &new));
    eventually("the new key is fetched", || is_good(&gateway, &new));
    stream(&gateway, &new).opened();
    // What was verified with the old one is not remembered.
    eventually("the old key is known to have gone", || {
        status(&gateway, &old) == 401
    });
    let refused = stream(&gateway, &old);
    assert_eq!(refused.status(), 401);
    assert_eq!(
        refused.headers().get("www-authenticate"),
        Some("Bearer error=\"invalid_token\", error_description=\"the token is not accepted\"")
    );
    let head = &provider.requests()[0];
    for field in [
        "GET /jwks.json HTTP/1.1\r\n",
        "\r\naccept: application/jwk-set+json, application/json\r\n",
    ] {
        assert!(head.contains(field), "{head}");
    }
    assert!(fetched(&gateway, "new") >= 2.0);
}

#[test]
fn a_flood_of_unknown_keys_fetches_nothing_and_delays_nobody() {
    let one = Signer::create("one");
    let provider = Identity::start(&[&one]);
    let config = [("auth.jwks_floor", NEVER), ("auth.jwks_unknown_max", "16")];
    let gateway = start(&provider, &config);
    wait_for_state(&gateway, "fresh");
    let good = token(&one);
    let mut reader = stream(&gateway, &good);
    reader.opened();
    for n in 0..200 {
        let stranger = Signer::create(&format!("made up {n}"));
        let made_up = token(&stranger);
        assert_later(&ask(&gateway, "POST", "/events/news", &made_up));
        // To a proxy that could try another replica as well: strangers would have it try them all.
        let bearer = format!("Bearer {made_up}");
        let fields = [
            ("Authorization", bearer.as_str()),
            ("Tidegate-Failover", "1"),
        ];
        assert_comes_back(gateway.open("/events/news", &fields));
        ask(&gateway, "POST", "/events/news", &good).id();
    }
    assert_eq!(reader.next_data(200), vec!["x"; 200]);
    assert_eq!(provider.asked(), 1);
    gateway.wait_for_metric("tidegate_jwks_tokens_waiting", &[], 16.0);
    gateway.wait_for_metric(
        "tidegate_auth_refused_total",
        &[("reason", "keys_away")],
        400.0,
    );
    let undecided = [("reason", "undecided")];
    gateway.wait_for_metric("tidegate_connections_refused_total", &undecided, 200.0);
    gateway.wait_for_metric("tidegate_publish_refused_total", &undecided, 200.0);
}

/// Whatever an address answers: the last good set serves, it is said why, and the next good answer mends it.
#[test]
fn what_is_no_key_set_leaves_the_last_good_one() {
    let one = Signer::create("one");
    let elsewhere = Identity::start(&[&one]);
    let set = key_set(&[&one]);
    let json = "application/json";
    let redirect = format!(
        "HTTP/1.1 302 Found\r\nLocation: {}\r\nContent-Length: 0\r\n\r\n",
        elsewhere.url()
    );
    let large = " ".repeat(10 << 20) + &set;
    let endless = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n          ".to_vec();
    let packed = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: {json}\r\nContent-Encoding: gzip\r\nContent-Length: {}\r\n\r\n{set}",
        set.len()
    );
    let short =
        format!("HTTP/1.1 200 OK\r\nContent-Type: {json}\r\nContent-Length: 9999\r\n\r\n{set}");
    let drips = |text: &str| Manner::Drips(text.as_bytes().to_vec());
    let whole = format!("HTTP/1.1 200 OK\r\nContent-Type: {json}\r\nContent-Length: 9999\r\n\r\n");
    let bad_key = r#"{"keys":[{"kty":"RSA","n":"AQAB","e":"AQAB"}]}"#;
    let many = json!({"keys": vec![one.jwk(); 65]}).to_string();
    let table = [
        (
            "10 MB",
            answer("200 OK", json, &large),
            "at most 524288 bytes",
        ),
        (
            "without end",
            Manner::Floods(endless),
            "broke off|at most 524288 bytes",
        ),
        (
            "a redirect to loopback",
            Manner::Says(redirect.into_bytes()),
            "redirects are not followed",
        ),
        (
            "a body by drops",
            drips(&format!("{whole}{set}")),
            "no whole answer in 400ms",
        ),
        (
            "a head by drops",
            drips("HTTP/1.1 200 OK\r\nX-Long: aaaaaaaaaaaaaaaaaaaaa"),
            "no whole answer in 400ms",
        ),
        ("nothing", Manner::Silent, "no whole answer in 400ms"),
        (
            "half of it",
            answer("200 OK", json, &set[..set.len() / 2]),
            "no JWK set",
        ),
        (
            "less than it says",
            Manner::Says(short.into_bytes()),
            "broke off",
        ),
        (
            "no HTTP",
            Manner::Says(b"SSH-2.0-x\r\n".to_vec()),
            "broke off",
        ),
        (
            "a page",
            answer("200 OK", "text/html", "<html>"),
            "Content-Type",
        ),
        (
            "a set as plain text",
            answer("200 OK", "text/plain", &set),
            "Content-Type",
        ),
        ("packed", Manner::Says(packed.into_bytes()), "packed"),
        (
            "another kind of JSON",
            answer("200 OK", json, "[1, 2]"),
            "no JWK set",
        ),
        (
            "no keys",
            answer("200 OK", json, "{\"keys\":[]}"),
            "no key of the set",
        ),
        (
            "a malformed key",
            answer("200 OK", json, bad_key),
            "key 1 of the set",
        ),
        (
            "too many keys",
            answer("200 OK", json, &many),
            "at most 64 keys",
        ),
        (
            "a fault",
            answer("500 Internal Server Error", json, &set),
            "answered 500",
        ),
        (
            "not there",
            answer("404 Not Found", json, &set),
            "answered 404",
        ),
        ("an empty answer", Manner::Says(Vec::new()), "broke off"),
    ];
    let provider = Identity::start(&[&one]);
    let gateway = start(&provider, &[("auth.jwks_time_max", "400ms")]);
    wait_for_state(&gateway, "fresh");
    let good = token(&one);
    let message = "a key set cannot be fetched, and the last good one serves";
    for (index, (what, manner, why)) in table.into_iter().enumerate() {
        let failed = fetched(&gateway, "failed");
        provider.behaves(manner);
        eventually(what, || {
            // Whoever shows a token that was not shown before asks for a fetch.
            let asks = token(&Signer::create("unknown"));
            assert_later(&ask(&gateway, "GET", "/topics", &asks));
            fetched(&gateway, "failed") > failed
        });
        wait_for_state(&gateway, "stale");
        assert!(is_good(&gateway, &good), "{what}");
        stream(&gateway, &good).opened();
        // Said once, however often it fails.
        eventually(what, || gateway.logged(message).len() > index);
        let said = gateway.logged(message);
        assert_eq!(said.len(), index + 1, "{what}");
        assert!(
            why.split('|').any(|why| said[index].contains(why)),
            "{what}: {said:?}"
        );
        provider.has(&[&one]);
        wait_for_state_by_asking(&gateway, "fresh");
    }
    assert_eq!(elsewhere.asked(), 0);
    // It was the same set throughout.
    gateway.wait_for_metric(FETCHES, &[("outcome", "new")], 1.0);
}

/// Asks for fetches until the set stands so.
fn wait_for_state_by_asking(gateway: &Gateway, state: &str) {
    eventually(state, || {
        let asks = token(&Signer::create("asks"));
        let _later = ask(gateway, "GET", "/topics", &asks);
        gateway.metric(SETS, &[("state", state)]) > 0.0
    });
}

#[test]
fn a_provider_that_comes_after_the_gateway_is_waited_for() {
    let one = Signer::create("one");
    let address = free_address();
    let url = format!("http://{address}/jwks.json");
    let keys = keys(&[&url]);
    let config = [
        ("auth.keys", &*keys),
        ("auth.jwks_floor", "50ms"),
        ("auth.jwks_refresh", "100ms"),
    ];
    over_both_brokers(&config, |broker, gateway| {
        wait_for_state(gateway, "away");
        let good = token(&one);
        assert_comes_back(stream(gateway, &good));
        for (method, target) in [
            ("GET", "/topics"),
            ("POST", "/events/news"),
            ("GET", "/streams"),
        ] {
            assert_later(&ask(gateway, method, target, &good));
            // Nothing is open meanwhile.
            gateway.request(method, target, &[], "x").problem(401);
        }
        assert_eq!(gateway.open("/events/news", &[]).status(), 401, "{broker}");
        let message = "a key set cannot be fetched, and there is none: its tokens cannot be judged";
        gateway.wait_for_log(message);
        let said = gateway.logged(message);
        assert!(
            said.len() == 1 && said[0].contains("cannot be reached"),
            "{said:?}"
        );
    });
    let gateway = Gateway::start(&config);
    wait_for_state(&gateway, "away");
    let _provider = Identity::start_at(address, &[&one], None);
    eventually("its keys are there", || is_good(&gateway, &token(&one)));
    wait_for_state(&gateway, "fresh");
}

#[test]
fn a_set_that_is_too_old_serves_no_more() {
    let one = Signer::create("one");
    let provider = Identity::start(&[&one]);
    let config = [
        ("auth.jwks_refresh", "100ms"),
        ("auth.jwks_stale_max", "1s"),
    ];
    let gateway = start(&provider, &config);
    let good = token(&one);
    eventually("it is fetched", || is_good(&gateway, &good));
    provider.behaves(Manner::Says(Vec::new()));
    wait_for_state(&gateway, "away");
    // It was verified before, and is not remembered any more.
    assert_comes_back(stream(&gateway, &good));
    assert_later(&ask(&gateway, "POST", "/events/news", &good));
    gateway.wait_for_metric("tidegate_jwks_age_seconds", &[], 0.0);
    provider.has(&[&one]);
    eventually("it is fetched again", || is_good(&gateway, &good));
}

/// TLS for this address, and the certificate of the authority that vouches for it.
fn tls() -> (ServerConfig, String) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new([]).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let authority = params.self_signed(&key).unwrap().pem();
    let issuer = Issuer::new(params, key);
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
    let certificate = params.signed_by(&key, &issuer).unwrap();
    let certificate = CertificateDer::from_pem_slice(certificate.pem().as_bytes()).unwrap();
    let key = PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    (config, authority)
}

#[test]
fn who_answers_over_tls_must_be_vouched_for() {
    let one = Signer::create("one");
    let (config, authority) = tls();
    let at = "127.0.0.1:0".parse().unwrap();
    let provider = Identity::start_at(at, &[&one], Some(config));
    let directory = Directory::create();
    let path = directory.0.join("ca.pem");
    std::fs::write(&path, authority).unwrap();
    let gateway = start(&provider, &[("auth.jwks_ca_file", &path.to_string_lossy())]);
    eventually("its keys are there", || is_good(&gateway, &token(&one)));
    let other = start(&provider, &[]);
    wait_for_state(&other, "away");
    let said = other.wait_for_log(
        "a key set cannot be fetched, and there is none: its tokens cannot be judged",
    );
    assert!(said.is_some_and(|said| said.contains("is not trusted")));
    assert_comes_back(stream(&other, &token(&one)));
}

#[test]
fn sighup_keeps_what_was_fetched_and_lets_go_of_what_was_taken_out() {
    let (one, two) = (Signer::create("one"), Signer::create("two"));
    let (first, second) = (Identity::start(&[&one]), Identity::start(&[&two]));
    let directory = Directory::create();
    let path = directory.0.join("tidegate.toml");
    let write = |urls: &[String], more: &str| {
        let entry = |url: &String| format!("[[auth.keys]]\nurl = '{url}?password=s3cr3t'\n");
        let entries: Vec<String> = urls.iter().map(entry).collect();
        let entries = entries.concat();
        let text = format!("[auth]\njwks_refresh = '1h'\njwks_floor = '1h'\n{more}\n{entries}");
        std::fs::write(&path, text).unwrap();
    };
    write(&[first.url(), second.url()], "");
    let mut gateway = Gateway::launch_with(&["--config", &path.to_string_lossy()], &[]);
    gateway.wait_ready();
    let tokens = [token(&one), token(&two)];
    let statuses = |gateway: &Gateway| tokens.each_ref().map(|token| status(gateway, token));
    gateway.wait_for_metric(SETS, &[("state", "fresh")], 2.0);
    assert_eq!(statuses(&gateway), [200, 200]);
    first.behaves(Manner::Silent);
    write(&[first.url()], "leeway = '29s'");
    gateway.hang_up();
    let taken = [("outcome", "taken")];
    gateway.wait_for_metric("tidegate_config_reloads_total", &taken, 1.0);
    gateway.wait_for_metric(SETS, &[], 1.0);
    assert_eq!(
        statuses(&gateway),
        [200, 503],
        "nobody has asked for its key yet"
    );
    assert_eq!((first.asked(), second.asked()), (1, 1), "the floor holds");
    assert!(first.requests()[0].contains("/jwks.json?password=s3cr3t "));
    let (log, metrics) = (gateway.log().join("\n"), gateway.get("/metrics").text());
    assert!(
        log.contains("/jwks.json") && !log.contains("s3cr3t"),
        "{log}"
    );
    assert!(!metrics.contains("s3cr3t"));
}

#[test]
fn commands_fetch_keys_and_try_a_token() {
    let (one, other) = (Signer::create("one"), Signer::create("other"));
    let provider = Identity::start(&[&one]);
    let gateway = start(&provider, &[]);
    wait_for_state(&gateway, "fresh");
    let entries = keys(&[&provider.url()]);
    let config = [("auth.keys", entries.as_str())];
    let environment: Vec<(String, String)> = environment(&config).into_iter().collect();
    let explain = |token: &str| {
        let fields: Vec<(&str, &str)> = environment.iter().map(|(k, v)| (&**k, &**v)).collect();
        run_with(&["token", "explain"], &fields, token)
    };
    let doctor = |token: &str| {
        let mut fields: Vec<(&str, &str)> = environment.iter().map(|(k, v)| (&**k, &**v)).collect();
        fields.push(("TIDEGATE_TOKEN", token));
        let url = gateway.url();
        run(
            &["doctor", "--json", "--url", &url, "--watch", "1ms"],
            &fields,
        )
    };
    let finding = |output: &Output, check: &str| {
        let report: Value = serde_json::from_str(&output.stdout).unwrap();
        let mut findings = report["findings"].as_array().unwrap().iter();
        let found = findings.find(|it| it["area"] == "token" && it["check"] == check);
        found.map(|it| {
            format!(
                "{} {}",
                it["level"].as_str().unwrap(),
                it["found"].as_str().unwrap()
            )
        })
    };
    let (good, unknown) = (token(&one), token(&other));
    let output = explain(&good);
    assert_eq!(output.code, Some(0), "{output:?}");
    assert!(
        output
            .stdout
            .contains(&format!("keys    {}: 1\n", provider.url()))
    );
    let output = explain(&unknown);
    assert!(
        output.stderr.contains("the token is refused: key:"),
        "{output:?}"
    );
    let output = doctor(&good);
    assert_eq!(
        finding(&output, "key_set").unwrap(),
        format!("ok {}: keys: 1", provider.url())
    );
    assert!(
        finding(&output, "judged")
            .unwrap()
            .starts_with("ok good for "),
        "{output:?}"
    );
    assert_eq!(finding(&output, "answer").unwrap(), "ok 200 OK");
    assert!(!output.stdout.contains(&good));
    eventually("the gateway is sure", || status(&gateway, &unknown) == 401);
    let output = doctor(&unknown);
    assert!(
        finding(&output, "judged")
            .unwrap()
            .starts_with("fault key: "),
        "{output:?}"
    );
    assert!(
        finding(&output, "answer")
            .unwrap()
            .starts_with("fault 401 Unauthorized: "),
        "{output:?}"
    );
    provider.behaves(Manner::Says(Vec::new()));
    let output = doctor(&good);
    assert!(
        finding(&output, "key_set").unwrap().contains("broke off"),
        "{output:?}"
    );
    assert!(
        finding(&output, "judged")
            .unwrap()
            .starts_with("fault keys_away: "),
        "{output:?}"
    );
    assert_eq!(finding(&output, "answer").unwrap(), "ok 200 OK");
}

// --- the table of the documents ---------------------------------------------------------------------------------------

/// How a request is answered, in the words of the table.
fn in_words(gateway: &Gateway, token: Option<&str>, method: &str, target: &str) -> String {
    let bearer = format!("Bearer {}", token.unwrap_or_default());
    let mut headers = vec![("Authorization", bearer.as_str())];
    if token.is_none() {
        headers.clear();
    }
    if target.starts_with("/events") && method == "GET" {
        let mut stream = gateway.open(target, &headers);
        return match stream.status() {
            200 if stream.try_next_event().is_some() => "200".to_owned(),
            200 if stream.retry().is_some() => "200, `retry:`, cut".to_owned(),
            status => status.to_string(),
        };
    }
    let answer = gateway.request(method, target, &headers, "x");
    if answer.headers.get("retry-after").is_some() {
        return format!("{}, `Retry-After`", answer.status);
    }
    answer.status.to_string()
}

/// The rows of "Ours or theirs", by what they are about.
fn documented() -> BTreeMap<String, [String; 4]> {
    let page = include_str!("../../docs/auth.md");
    let (_, after) = page.split_once("\n## Ours or theirs\n").unwrap();
    let section = after.split("\n## ").next().unwrap();
    let rows = section.lines().filter(|line| line.starts_with("| "));
    let rows = rows.map(|line| {
        let inner = line
            .strip_prefix('|')
            .and_then(|line| line.strip_suffix('|'))
            .unwrap();
        let cells = inner.split('|').map(|cell| cell.trim().to_owned());
        cells.collect::<Vec<String>>()
    });
    let rows = rows.skip(1).map(|cells| {
        let [what, rest @ ..] = <[String; 5]>::try_from(cells).unwrap();
        (what, rest)
    });
    rows.collect()
}

/// A situation of the table: a gateway, and the token that is shown.
struct Situation {
    gateway: Gateway,
    token: Option<String>,
    /// Where it asks.
    topic: &'static str,
    reason: &'static str,
    /// What must live meanwhile.
    _held: (Option<Identity>, Option<Redis>),
}

fn situation(what: &str) -> Situation {
    let (one, other) = (Signer::create("one"), Signer::create("other"));
    let provider = Identity::start(&[&one]);
    let never = [("auth.jwks_floor", NEVER)];
    let often = [
        ("auth.jwks_refresh", "100ms"),
        ("auth.jwks_stale_max", "1s"),
    ];
    let of = |gateway, provider, token: Option<String>, reason| Situation {
        gateway,
        token,
        topic: "news",
        reason,
        _held: (Some(provider), None),
    };
    let fresh = |config: &[(&str, &str)]| {
        let gateway = start(&provider, config);
        wait_for_state(&gateway, "fresh");
        gateway
    };
    match what {
        "A good token" => of(fresh(&never), provider, Some(token(&one)), ""),
        "No token" => of(fresh(&never), provider, None, "missing"),
        "No token at all, but some other text" => {
            of(fresh(&never), provider, Some("x".to_owned()), "malformed")
        }
        "An expired token" => {
            let mut old = claims("news");
            old["exp"] = json!(now() - 60);
            of(fresh(&never), provider, Some(one.sign(&old)), "expired")
        }
        "A token that its key has not signed" => {
            let forged = token(&Signer::create("one"));
            of(fresh(&never), provider, Some(forged), "signature")
        }
        "A token for other topics" => {
            let elsewhere = one.sign(&claims("other"));
            of(fresh(&never), provider, Some(elsewhere), "denied")
        }
        "A token of an unknown key, shown for the first time" => {
            of(fresh(&never), provider, Some(token(&other)), "keys_away")
        }
        "The same, once the key set was fetched after that" => {
            let (gateway, unknown) = (fresh(&[]), token(&other));
            eventually("it is known not to be there", || {
                status(&gateway, &unknown) == 401
            });
            of(gateway, provider, Some(unknown), "key")
        }
        "The identity provider is away, and the last good key set serves" => {
            let gateway = fresh(&[("auth.jwks_refresh", "100ms")]);
            provider.behaves(Manner::Says(Vec::new()));
            wait_for_state(&gateway, "stale");
            of(gateway, provider, Some(token(&one)), "")
        }
        "The same for longer than `auth.jwks_stale_max`" => {
            let gateway = fresh(&often);
            provider.behaves(Manner::Says(Vec::new()));
            wait_for_state(&gateway, "away");
            of(gateway, provider, Some(token(&one)), "keys_away")
        }
        "The identity provider has been away since the start" => {
            provider.behaves(Manner::Silent);
            let gateway = start(&provider, &never);
            wait_for_state(&gateway, "away");
            of(gateway, provider, Some(token(&one)), "keys_away")
        }
        other => panic!("docs/auth.md has a row that is not played: {other}"),
    }
}

#[test]
fn what_is_ours_and_what_is_theirs_is_as_the_documents_say() {
    let documented = documented();
    assert_eq!(documented.len(), 11);
    for (what, row) in documented {
        let situation = situation(&what);
        let Situation { gateway, topic, .. } = &situation;
        let token = situation.token.as_deref();
        let ask = |method: &str, target: &str| {
            in_words(gateway, token, method, &format!("{target}{topic}"))
        };
        let challenge = || {
            let bearer = format!("Bearer {}", token.unwrap_or_default());
            let headers = [("Authorization", bearer.as_str())];
            let headers = if token.is_some() { &headers[..] } else { &[] };
            let answer = gateway.request("GET", "/topics/news/events", headers, "");
            let text = answer.headers.get("www-authenticate").unwrap_or_default();
            let short = text.split(", error_description").next().unwrap().to_owned();
            if short.is_empty() {
                short
            } else {
                format!("`{short}`")
            }
        };
        let reason = situation.reason;
        let said = if reason.is_empty() {
            String::new()
        } else {
            format!("`{reason}`")
        };
        let elsewhere = [ask("POST", "/events/"), ask("GET", "/topics/")];
        let played = [
            ask("GET", "/events/"),
            elsewhere[0].clone(),
            challenge(),
            said,
        ];
        assert_eq!(played, row, "{what}");
        assert_eq!(elsewhere[0], elsewhere[1], "{what}");
        if !reason.is_empty() {
            let count = gateway.metric("tidegate_auth_refused_total", &[("reason", reason)]);
            assert!(count >= 4.0, "{what}: {count}");
        }
    }
}
