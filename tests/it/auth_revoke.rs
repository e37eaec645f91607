//! Goal: a right that is taken back is gone on every replica: streams that live by it end, and nobody who comes later reads
//! by it, whatever was away meanwhile.
//!
//! Method: real replicas over a real Redis, tokens signed here, and a link to Redis that is held. Streams of others are open
//! beside each stream that is to end, and go on.

use crate::support::tokens::{SECRET, TOKENS, now, token_by, token_of};
use crate::support::{
    Answer, Directory, End, Gateway, Link, Redis, Sse, eventually, fleet, over_both_brokers,
};
use serde_json::{Value, json};
use std::io::{Read as _, Write as _};
use tidegate::auth::{KeyHash, new_key};

const OTHER: &str = "another secret of thirty-two bytes and more";
const KEYS: [(&str, &str); 2] = [TOKENS, ("auth.publish_key", "own")];

/// Of this subject, made so many seconds from now: clocks may differ by half a minute.
fn token(subject: &str, made_in: i64) -> String {
    let grant = json!({"subscribe": ["*"], "publish": ["*"]});
    token_of(
        &json!({"sub": subject, "jti": format!("{subject}-{made_in}"), "iat": now() + made_in, "tidegate": grant}),
    )
}

fn ask(gateway: &Gateway, method: &str, target: &str, token: &str, body: &str) -> Answer {
    let bearer = format!("Bearer {token}");
    gateway.request(method, target, &[("Authorization", &bearer)], body)
}

fn disconnect(gateway: &Gateway, what: &Value) -> Value {
    let answer = ask(gateway, "POST", "/disconnect", "own", &what.to_string());
    assert_eq!(answer.status, 200, "{what}: {}", answer.text());
    answer.json()
}

fn come(gateway: &Gateway, target: &str, token: &str) -> Sse {
    let bearer = format!("Bearer {token}");
    gateway.open(target, &[("Authorization", &bearer)])
}

fn open(gateway: &Gateway, target: &str, token: &str) -> Sse {
    let mut stream = come(gateway, target, token);
    assert_eq!(stream.status(), 200, "{}", stream.text());
    stream.opened();
    stream
}

/// What the stream shows from here on, and how it ends.
fn rest(stream: &mut Sse) -> (Vec<String>, End) {
    let (events, end) = stream.rest();
    let shown = events.into_iter().filter(|event| !event.is_own());
    (shown.map(|event| event.data).collect(), end)
}

/// A replica whose way to Redis can be cut, and which notices soon.
fn over_link(link: &Link) -> Gateway {
    let url = link.url();
    let config = [
        ("redis.url", url.as_str()),
        ("redis.command_timeout", "500ms"),
        ("repair.time", "1h"),
    ];
    Gateway::start(&[&KEYS[..], &config].concat())
}

const CUT: (Vec<String>, End) = (Vec::new(), End::Cut);

#[test]
fn what_is_taken_back_ends_streams_on_every_replica_and_no_others() {
    let redis = Redis::durable();
    let replicas = fleet(&redis, 3, &KEYS);
    let other = token("other", -9);
    let table = [
        ("a", json!({"subject": "a"}), "/events/team:7:x", Some(401)),
        (
            "b",
            json!({"token_id": "b--9"}),
            "/events/team:7:x",
            Some(401),
        ),
        (
            "c",
            json!({"subject": "c", "answer": 204}),
            "/events/team:7:x?max_age=10m",
            Some(204),
        ),
        (
            "d",
            json!({"topics": "team:7:*"}),
            "/events?topic=news&topic=team:7:x",
            None,
        ),
        (
            "e",
            json!({"topics": "team:7:x"}),
            "/events/team:7:x?max_age=10m",
            None,
        ),
    ];
    for (name, what, target, comes_back) in table {
        let victim = token(name, -9);
        let mut of_victim: Vec<Sse> = replicas.iter().map(|r| open(r, target, &victim)).collect();
        let mut of_other: Vec<Sse> = replicas
            .iter()
            .map(|r| open(r, "/events/news", &other))
            .collect();
        let done = disconnect(&replicas[0], &what);
        let at = done["at"].as_i64().unwrap();
        assert_eq!(done["serial"].as_i64().unwrap() / 1000, at, "{what}");
        assert!((at - now()).abs() < 60, "{what}");
        for stream in &mut of_victim {
            assert_eq!(rest(stream), CUT, "{what}");
        }
        ask(&replicas[1], "POST", "/events/news", "own", "on").id();
        for stream in &mut of_other {
            assert_eq!(stream.next_data(1), ["on"], "{what}");
        }
        for replica in &replicas {
            let mut again = come(replica, target, &victim);
            match comes_back {
                Some(status) => assert_eq!(again.status(), status, "{what}"),
                None => drop(again.opened()),
            }
            let revoked = [("reason", "revoked")];
            let closed = replica.metric("tidegate_connections_closed_total", &revoked);
            assert!(closed > 0.5, "{what}");
        }
    }
}

#[test]
fn the_answer_is_by_choice_and_new_tokens_are_good() {
    over_both_brokers(&KEYS, |broker, gateway| {
        let old = token("a", -9);
        let mut stream = open(gateway, "/events/news", &old);
        disconnect(gateway, &json!({"subject": "a", "answer": 204}));
        assert_eq!(rest(&mut stream), CUT, "{broker}");
        assert_eq!(come(gateway, "/events/news", &old).status(), 204);
        assert_eq!(come(gateway, "/events?topic=news", &old).status(), 204);
        // Only a stream is told so; and what is written by it is refused, too.
        for (method, target) in [
            ("GET", "/topics/news/events"),
            ("GET", "/topics"),
            ("POST", "/events/news"),
            ("DELETE", "/topics/news"),
        ] {
            let answer = ask(gateway, method, target, &old, "x");
            answer.problem(401);
            let told = answer.headers.get("www-authenticate").unwrap_or_default();
            assert!(
                told.contains("invalid_token") && told.contains("taken back"),
                "{told}"
            );
        }
        let revoked = [("reason", "revoked")];
        assert!(
            gateway.metric("tidegate_auth_refused_total", &revoked) > 5.5,
            "{broker}"
        );
        let mut newer = open(gateway, "/events/news", &token("a", 9));
        // Its own name is denied, whenever it was made.
        disconnect(gateway, &json!({"token_id": "a-9"}));
        assert_eq!(rest(&mut newer), CUT, "{broker}");
        assert_eq!(come(gateway, "/events/news", &token("a", 9)).status(), 401);
        drop(open(gateway, "/events/news", &token("a", 10)));
        // All: streams with a key, and those of everybody.
        let mut streams = ["own", &token("c", -9)].map(|key| open(gateway, "/events/news", key));
        disconnect(gateway, &json!({"all": true}));
        for stream in &mut streams {
            assert_eq!(rest(stream), CUT, "{broker}");
        }
        drop(open(gateway, "/events/news", &token("c", -9)));
        gateway.wait_for_metric("tidegate_denied_entries", &[], 3.0);
        assert!(gateway.metric("tidegate_denied_read_age_seconds", &[]) < 30.0);
        let log = gateway.log().join("\n");
        assert!(!log.contains(&old) && !log.contains("a-9"), "{log}");
    });
}

#[test]
fn who_may_take_back_must_have_the_right_to_all_of_it() {
    let gateway = Gateway::start(&[("auth.token_secret", SECRET), ("auth.denied_max", "2")]);
    let by = |patterns: &[&str], what: &Value| {
        let grant = json!({"disconnect": patterns, "publish": ["*"]});
        let token = token_of(&json!({"sub": "admin", "tidegate": grant}));
        ask(&gateway, "POST", "/disconnect", &token, &what.to_string())
    };
    let (topics, subject) = (json!({"topics": "team:7:*"}), json!({"subject": "a"}));
    gateway
        .post("/disconnect", &[], subject.to_string())
        .problem(401);
    assert_eq!(
        by(&[], &subject).problem(403),
        "the key or token does not grant disconnect"
    );
    for patterns in [&["team:8:*"][..], &["team:7:x", "news"], &["*:7:*"]] {
        assert_eq!(
            by(patterns, &topics).problem(403),
            "topic \"team:7:*\": the key or token does not grant disconnect"
        );
    }
    for what in [&subject, &json!({"token_id": "x"}), &json!({"all": true})] {
        assert_eq!(
            by(&["team:*", "t*", "tidegate.*"], what).problem(403),
            "topic \"*\": the key or token does not grant disconnect"
        );
    }
    by(&["*"], &json!({"topics": "tidegate.connections"})).problem(403);
    for patterns in [&["team:7:*"][..], &["team:*"], &["*"]] {
        assert_eq!(by(patterns, &topics).status, 200, "{patterns:?}");
    }
    assert_eq!(by(&["*"], &subject).status, 200);
    // Two of each kind are kept, and no third one. Who ends streams keeps nobody from locking a subject out.
    assert_eq!(
        by(&["team:7:*"], &json!({"topics": "team:7:x"})).status,
        200
    );
    by(&["team:7:*"], &json!({"topics": "team:7:y"})).problem(507);
    assert_eq!(
        by(&["*"], &json!({"all": true})).status,
        200,
        "one is kept for all"
    );
    assert_eq!(by(&["*"], &json!({"subject": "b"})).status, 200);
    let detail = by(&["*"], &json!({"subject": "c"})).problem(507);
    assert!(detail.contains("auth.denied_max"), "{detail}");
    assert_eq!(by(&["*"], &subject).status, 200, "again");
    by(&["*"], &json!({"sub": "a"})).problem(400);
    by(&["*"], &json!({"subject": "x".repeat(40_000)})).problem(413);
    gateway.get("/disconnect").problem(405);
    let token = token_of(&json!({"tidegate": {"disconnect": ["*"]}}));
    ask(&gateway, "POST", "/disconnect?x=1", &token, "{}").problem(400);
    // A cookie takes nothing back for a page that does not say where it is from.
    let cookie = format!("__Host-tidegate={token}");
    let answer = gateway.post("/disconnect", &[("Cookie", &cookie)], subject.to_string());
    answer.problem(403);
}

/// A body may come long after its request was let through.
#[test]
fn a_body_that_comes_when_its_right_is_gone_is_not_published() {
    let gateway = Gateway::start(&KEYS);
    let victim = token("a", -9);
    let head = |line: &str| {
        format!(
            "{line} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {victim}\r\nContent-Length: 1\r\nConnection: close\r\n\r\n"
        )
    };
    let mut socket = gateway.connect();
    socket
        .write_all(head("POST /events/news").as_bytes())
        .unwrap();
    gateway.wait_for_metric("tidegate_publish_bodies", &[], 1.0);
    disconnect(&gateway, &json!({"subject": "a"}));
    eventually("it is known", || {
        ask(&gateway, "POST", "/events/others", &victim, "x").status == 401
    });
    socket.write_all(b"x").unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
    assert_eq!(ask(&gateway, "GET", "/topics/news", "own", "").status, 404);
}

#[test]
fn it_outlives_every_process() {
    let mut redis = Redis::durable();
    let mut gateway = Gateway::over(&redis, &KEYS);
    let (old, new) = (token("a", -9), token("a", 9));
    disconnect(&gateway, &json!({"subject": "a"}));
    eventually("it is known", || {
        ask(&gateway, "GET", "/topics", &old, "").status == 401
    });
    gateway.terminate();
    assert!(gateway.wait().success());
    redis.restart();
    let again = Gateway::over(&redis, &KEYS);
    eventually("it is known again", || {
        ask(&again, "GET", "/topics", &old, "").status == 401
    });
    assert_eq!(come(&again, "/events/news", &old).status(), 401);
    drop(open(&again, "/events/news", &new));
    // Redis holds no name of a person, and no token's.
    let kept: Vec<String> = redis.run(&["ZRANGE", "tidegate:denied", "0", "-1"]);
    assert_eq!(kept.len(), 1);
    assert!(
        kept[0].starts_with("subject ") && kept[0].len() == 44,
        "{kept:?}"
    );
}

/// A replica whose Redis is away has a window to show. It shows it to streams that were admitted before, and to none that
/// come.
#[test]
fn a_replica_that_does_not_hear_shows_nothing_to_whom_it_admits() {
    for target in ["/events/news", "/events/news?max_age=10m"] {
        let redis = Redis::start();
        let link = Link::to(&redis);
        let hears = Gateway::over(&redis, &KEYS);
        let config = [
            ("redis.url", link.url()),
            ("stream.open_wait", "100ms".to_owned()),
            ("stream.heartbeat", "100ms".to_owned()),
            ("redis.command_timeout", "500ms".to_owned()),
            ("repair.time", "1h".to_owned()),
        ];
        let config = config.each_ref().map(|(key, value)| (*key, value.as_str()));
        let deaf = Gateway::start(&[&KEYS[..], &config].concat());
        let mut before = open(&deaf, target, &token("b", -9));
        let first = ask(&hears, "POST", "/events/news", "own", "1").id();
        ask(&hears, "POST", "/events/news", "own", "2").id();
        assert_eq!(before.next_data(2), ["1", "2"]);
        link.hold(true);
        disconnect(&hears, &json!({"subject": "a"}));
        let bearer = format!("Bearer {}", token("a", -9));
        let resume = [
            ("Authorization", bearer.as_str()),
            ("Last-Event-ID", &first),
        ];
        let mut denied = deaf.open(target, &resume);
        let bearer = format!("Bearer {}", token("c", -9));
        let resume = [
            ("Authorization", bearer.as_str()),
            ("Last-Event-ID", &first),
        ];
        let mut good = deaf.open(target, &resume);
        for stream in [&mut denied, &mut good] {
            assert_eq!(stream.status(), 200);
            stream.next_comments(3);
            assert!(stream.received().is_empty(), "{}", stream.text());
        }
        // One that was admitted before knows nothing, and goes on.
        assert_eq!(before.end(), None);
        let opening = |state: &str| {
            let streams = ask(&deaf, "GET", "/streams", "own", "").json();
            let rows = streams["streams"].as_array().unwrap().clone();
            rows.iter().filter(|row| row["state"] == state).count()
        };
        assert_eq!(opening("opening"), 2, "{target}");
        // What is no stream is not judged by what was read long ago, although nothing of Redis is needed for it.
        let operator = json!({"sub": "o", "tidegate": {"operate": true}});
        let operator = token_of(&operator);
        eventually("what was taken back is too old to judge by", || {
            ask(&deaf, "GET", "/streams", &operator, "").status == 503
        });
        link.hold(false);
        assert_eq!(rest(&mut denied), CUT, "{target}");
        assert!(!denied.text().contains("data"), "{}", denied.text());
        assert_eq!(good.next_data(1), ["2"], "{target}");
        assert_eq!(denied.reconnect().status(), 401, "{target}");
    }
}

/// It is away while a right is taken back that a stream of its own lives by.
#[test]
fn a_replica_that_was_away_misses_nothing() {
    let redis = Redis::start();
    let link = Link::to(&redis);
    let hears = Gateway::over(&redis, &KEYS);
    let away = over_link(&link);
    let [mut subject, mut id, mut topics, mut other] =
        [("a", "x"), ("b", "x"), ("c", "team:7"), ("d", "x")]
            .map(|(name, topic)| open(&away, &format!("/events/{topic}"), &token(name, -9)));
    link.silence();
    disconnect(&hears, &json!({"subject": "a"}));
    disconnect(&hears, &json!({"token_id": "b--9"}));
    disconnect(&hears, &json!({"topics": "team:*"}));
    for stream in [&mut subject, &mut id, &mut topics] {
        assert_eq!(rest(stream), CUT);
    }
    ask(&hears, "POST", "/events/x", "own", "on").id();
    assert_eq!(other.next_data(1), ["on"]);
}

/// The store that answers after an outage may be another server, whose clock is behind by an hour.
#[test]
fn after_an_outage_all_is_read_again_however_old_it_says_it_is() {
    let redis = Redis::start();
    let link = Link::to(&redis);
    let hears = Gateway::over(&redis, &KEYS);
    let away = over_link(&link);
    let mut stream = open(&away, "/events/x", &token("a", -9));
    // It has read up to here.
    let mut before = open(&away, "/events/x", &token("b", -9));
    disconnect(&hears, &json!({"token_id": "b--9"}));
    assert_eq!(rest(&mut before), CUT);
    link.hold(true);
    away.logged_at_least(
        1,
        "what was taken back cannot be read: streams with a token wait until it can",
    );
    disconnect(&hears, &json!({"token_id": "a--9"}));
    let denied: Vec<String> = redis.run(&["ZRANGE", "tidegate:denied", "0", "-1"]);
    let [_, entry] = denied.as_slice() else {
        panic!("{denied:?}");
    };
    let _: f64 = redis.run(&["ZINCRBY", "tidegate:denied", "-3600000", entry]);
    link.hold(false);
    assert_eq!(rest(&mut stream), CUT);
}

#[test]
fn a_key_or_rule_that_sighup_takes_away_ends_the_streams_that_lived_by_it() {
    let keys = [(); 2].map(|()| new_key().unwrap());
    let hash = |key: &str| KeyHash::of(key).to_string();
    let directory = Directory::create();
    let path = directory.0.join("tidegate.toml");
    let all = format!(
        "[auth]\ntoken_secret = '{SECRET}'\nanonymous = ['public:*', 'news']\n\
         [[auth.keys]]\nsecret = '{OTHER}'\n\
         [[auth.rules]]\ntopics = 'user:{{sub}}'\n\
         [[auth.rules]]\ntopics = 'team:{{team}}'\n\
         [[auth.publishers]]\nname = 'one'\nhash = '{}'\ntopics = ['x']\nactions = ['subscribe']\n\
         [[auth.publishers]]\nname = 'two'\nhash = '{}'\ntopics = ['x']\nactions = ['subscribe']\n",
        hash(&keys[0]),
        hash(&keys[1])
    );
    std::fs::write(&path, &all).unwrap();
    let mut gateway = Gateway::launch_with(&["--config", &path.to_string_lossy()], &[]);
    gateway.wait_ready();
    let open = |target: &str, credential: &str| {
        if credential.is_empty() {
            let mut stream = gateway.open(target, &[]);
            assert_eq!(stream.status(), 200);
            stream.opened();
            return stream;
        }
        open(&gateway, target, credential)
    };
    let (plain, by_other) = (json!({"sub": "a"}), token_by(OTHER, &json!({"sub": "a"})));
    let plain = token_of(&plain);
    let with_team = token_of(&json!({"sub": "b", "team": "t"}));
    let mut gone = [
        open("/events/user:a", &by_other),
        open("/events/team:t", &with_team),
        open("/events/x", &keys[0]),
        open("/events/news", ""),
        open("/events?topic=user:a&topic=news", &plain),
    ];
    let mut bodies = [open("/events/user:a?max_age=10m", &by_other)];
    let mut stay = [
        open("/events/user:a", &plain),
        open("/events/x", &keys[1]),
        open("/events/public:a", ""),
        open("/events?topic=user:a&topic=public:a", &plain),
    ];
    let less = all
        .replace(", 'news'", "")
        .replace(&format!("[[auth.keys]]\nsecret = '{OTHER}'\n"), "")
        .replace("[[auth.rules]]\ntopics = 'team:{team}'\n", "")
        .replace(&hash(&keys[0]), &hash("tgk_other"));
    assert_ne!(less, all);
    std::fs::write(&path, less).unwrap();
    gateway.hang_up();
    for stream in gone.iter_mut().chain(&mut bodies) {
        assert_eq!(rest(stream), CUT);
    }
    let revoked = [("reason", "revoked")];
    gateway.wait_for_metric("tidegate_connections_closed_total", &revoked, 6.0);
    gateway.wait_for_metric("tidegate_open_connections", &[], 4.0);
    // A second one that changes nothing ends nothing.
    gateway.hang_up();
    gateway.wait_for_metric(
        "tidegate_config_reloads_total",
        &[("outcome", "taken")],
        2.0,
    );
    for stream in &mut stay {
        assert_eq!(stream.end(), None);
    }
    gateway.wait_for_metric("tidegate_open_connections", &[], 4.0);
    gateway.wait_for_metric("tidegate_connections_closed_total", &revoked, 6.0);
}
