//! Goal: who may read and write is decided before anything else is done for a request, by what the request brought
//! along, and topic by topic; and whoever has no right learns no more than that.
//!
//! Method: the real binary over both brokers, tokens signed here, and exact answers.

use crate::support::tokens::{SECRET, TOKENS, now, token_of};
use crate::support::{
    Answer, Directory, End, Event, Gateway, NDJSON, Redis, Sse, connect, eventually,
    over_both_brokers,
};
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use serde_json::{Value, json};
use tidegate::auth::{KeyHash, new_key};

fn granting(grant: &Value) -> String {
    token_of(&json!({"sub": "alice", "tidegate": grant}))
}

fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

/// A request with a token.
fn ask(gateway: &Gateway, method: &str, target: &str, token: &str, body: &str) -> Answer {
    let bearer = bearer(token);
    gateway.request(method, target, &[("Authorization", &bearer)], body)
}

fn get(gateway: &Gateway, target: &str, token: &str) -> Answer {
    ask(gateway, "GET", target, token, "")
}

fn open(gateway: &Gateway, target: &str, token: &str) -> Sse {
    let bearer = bearer(token);
    let mut stream = gateway.open(target, &[("Authorization", &bearer)]);
    assert_eq!(stream.status(), 200, "{}", stream.text());
    stream.opened();
    stream
}

/// What is asked of whoever is refused.
fn challenge(answer: &Answer) -> &str {
    answer.headers.get("www-authenticate").unwrap_or_default()
}

fn refused(gateway: &Gateway, reason: &str) -> f64 {
    gateway.metric("tidegate_auth_refused_total", &[("reason", reason)])
}

fn assert_refused(gateway: &Gateway, reason: &str, count: f64) {
    let labels = [("reason", reason)];
    gateway.wait_for_metric("tidegate_auth_refused_total", &labels, count);
}

const DENIED: &str = "Bearer error=\"insufficient_scope\", error_description=\"not granted\"";

#[test]
fn every_way_to_a_topic_asks_for_its_own_right() {
    over_both_brokers(&[TOKENS], |broker, gateway| {
        let all = json!({"publish": ["*"], "end": ["*"]});
        let writer = granting(&all);
        for topic in ["news", "other"] {
            ask(gateway, "POST", &format!("/events/{topic}"), &writer, "x").id();
        }
        let ways = [
            ("subscribe", "GET", "/events/news"),
            ("subscribe", "GET", "/events?topic=news"),
            ("subscribe", "GET", "/events?topic=news&topic=news"),
            ("subscribe", "GET", "/topics/news/events"),
            ("publish", "POST", "/events/news"),
            ("list", "GET", "/topics/news"),
            ("delete", "DELETE", "/topics/news"),
        ];
        for (action, method, target) in ways {
            let about = format!("{broker} {method} {target}");
            let ended = |query: &str| {
                let sign = if target.contains('?') { '&' } else { '?' };
                let is_stream = method == "GET" && target.starts_with("/events");
                format!(
                    "{target}{}",
                    if is_stream {
                        format!("{sign}{query}")
                    } else {
                        String::new()
                    }
                )
            };
            let target = ended("max_age=1ms");
            let answer = gateway.request(method, &target, &[], "x");
            answer.problem(401);
            assert_eq!(challenge(&answer), "Bearer", "{about}");
            for other in [
                "subscribe",
                "publish",
                "end",
                "delete",
                "list",
                "disconnect",
            ] {
                let answer = ask(
                    gateway,
                    method,
                    &target,
                    &granting(&json!({other: ["news"]})),
                    "x",
                );
                if other == action {
                    assert_eq!(answer.status, 200, "{about} {}", answer.text());
                    continue;
                }
                let detail = answer.problem(403);
                let expected = format!("topic \"news\": the key or token does not grant {action}");
                assert_eq!(detail, expected, "{about} {other}");
                assert_eq!(challenge(&answer), DENIED, "{about}");
            }
            let elsewhere = granting(&json!({action: ["news:*", "other", "newsx"]}));
            ask(gateway, method, &target, &elsewhere, "x").problem(403);
        }
        // An end needs both.
        let may_publish = granting(&json!({"publish": ["news"]}));
        let detail = ask(gateway, "POST", "/events/news?end", &may_publish, "x").problem(403);
        assert_eq!(
            detail,
            "topic \"news\": the key or token does not grant end"
        );
        let may_end = granting(&json!({"end": ["news"]}));
        ask(gateway, "POST", "/events/news?end", &may_end, "x").problem(403);
        ask(gateway, "POST", "/events/news?end", &writer, "x").id();
    });
}

#[test]
fn what_is_not_of_a_topic_is_for_operators_or_for_all() {
    let gateway = Gateway::start(&[TOKENS]);
    for target in ["/", "/healthz", "/readyz", "/metrics"] {
        assert_eq!(gateway.get(target).status, 200, "{target}");
    }
    for method in ["HEAD", "OPTIONS"] {
        let status = gateway.request(method, "/events/secret", &[], "").status;
        assert_eq!(status, if method == "HEAD" { 200 } else { 204 });
    }
    gateway.get("/streams").problem(401);
    let some = granting(&json!({"subscribe": ["*"], "list": ["*"], "operate": false}));
    let detail = get(&gateway, "/streams", &some).problem(403);
    assert_eq!(detail, "the key or token does not grant operate");
    let operator = granting(&json!({"operate": true}));
    assert_eq!(get(&gateway, "/streams", &operator).status, 200);
    // Whoever reaches the listener of operators is one.
    let gateway = Gateway::start(&[TOKENS, ("ops.listen", "127.0.0.1:0")]);
    let ops = gateway.ops_address().unwrap();
    assert_eq!(
        Sse::open(&format!("http://{ops}/streams"), &[]).status(),
        200
    );
}

#[test]
fn a_stream_shows_what_it_may_and_a_refused_one_takes_nothing() {
    over_both_brokers(&[TOKENS], |broker, gateway| {
        let writer = granting(&json!({"publish": ["*"]}));
        let reader = granting(&json!({"subscribe": ["user:a", "team:7:*"]}));
        let mut stream = open(gateway, "/events?topic=user:a&topic=team:7:x", &reader);
        for topic in ["user:b", "user:a", "team:7:y", "team:7:x"] {
            ask(gateway, "POST", &format!("/events/{topic}"), &writer, topic).id();
        }
        assert_eq!(stream.next_data(2), ["user:a", "team:7:x"], "{broker}");
        // One topic that it may not read is enough, wherever it stands.
        let bad = [
            "/events?topic=user:a&topic=user:b",
            "/events?topic=user:b&topic=user:a",
            "/events/user:b",
            "/events/user%3Ab",
            "/events/user:a%20",
            "/events?topic=user:A",
            "/events",
            "/events?topic=user:a&topic=tidegate.connections",
            "/events/tidegate.refused",
        ];
        let wanted = gateway.metric("tidegate_topics", &[]);
        for target in bad {
            get(gateway, target, &reader).problem(403);
        }
        let detail = get(gateway, bad[0], &reader).problem(403);
        assert_eq!(
            detail,
            "topic \"user:b\": the key or token does not grant subscribe"
        );
        let opened = gateway.metric("tidegate_connections_opened_total", &[]);
        assert_eq!(
            (opened, gateway.metric("tidegate_topics", &[])),
            (1.0, wanted)
        );
        let forbidden = [("reason", "forbidden")];
        gateway.wait_for_metric("tidegate_connections_refused_total", &forbidden, 10.0);
        assert_refused(gateway, "denied", 10.0);
        // A cursor holds a place in the order, and no right.
        let cursor = stream.last_event_id().to_owned();
        let fields = [
            ("Authorization", bearer(&reader)),
            ("Last-Event-ID", cursor),
        ];
        let fields = fields
            .each_ref()
            .map(|(name, value)| (*name, value.as_str()));
        gateway
            .request("GET", "/events/user:b", &fields, "")
            .problem(403);
        assert_eq!(stream.end(), None);
    });
}

#[test]
fn of_the_gateways_own_topics_each_is_granted_by_name() {
    let gateway = Gateway::start(&[TOKENS]);
    let everything = granting(&json!({"subscribe": ["*"]}));
    let named = granting(&json!({"subscribe": ["tidegate.connections"]}));
    get(&gateway, "/events/tidegate.connections", &everything).problem(403);
    get(&gateway, "/events/tidegate.refused", &named).problem(403);
    drop(open(&gateway, "/events/tidegate.connections", &named));
}

#[test]
fn what_the_world_may_read_adds_to_every_right() {
    let gateway = Gateway::start(&[
        TOKENS,
        ("auth.anonymous", "public:*, news"),
        ("auth.publish_key", "key"),
    ]);
    for topic in ["news", "public:a", "user:a", "user:b"] {
        ask(&gateway, "POST", &format!("/events/{topic}"), "key", "x").id();
    }
    let reader = granting(&json!({"subscribe": ["user:a"]}));
    let table = [
        ("news", 200, 200),
        ("public:a", 200, 200),
        ("user:a", 401, 200),
        ("user:b", 401, 403),
    ];
    for (topic, nobody, somebody) in table {
        let target = format!("/topics/{topic}/events");
        assert_eq!(gateway.get(&target).status, nobody, "{topic}");
        assert_eq!(get(&gateway, &target, &reader).status, somebody, "{topic}");
    }
    let listed = |answer: Answer| answer.json()["topics"].clone();
    assert_eq!(listed(gateway.get("/topics")), json!(["news", "public:a"]));
    assert_eq!(
        listed(get(&gateway, "/topics", &reader)),
        json!(["news", "public:a", "user:a"])
    );
    // Who takes itself for somebody and is not is told so, whatever the world may read.
    get(&gateway, "/events/news", "nonsense").problem(401);
    gateway.post("/events/news", &[], "x").problem(401);
    // It can be all that is said: then reading other topics needs the key.
    let gateway = Gateway::start(&[("auth.anonymous", "public:*"), ("auth.publish_key", "key")]);
    gateway.get("/events/user:a").problem(401);
    drop(gateway.listen(&["public:x"]));
    drop(open(&gateway, "/events/user:a", "key"));
}

#[test]
fn a_page_of_topics_has_no_name_that_its_reader_may_not_know() {
    over_both_brokers(&[TOKENS], |broker, gateway| {
        let writer = granting(&json!({"publish": ["*"]}));
        let names = [
            "a", "team:", "team:7", "team:7:x", "team:7:y", "team:8:x", "teams", "user:a", "z",
        ];
        let lines: Vec<String> = names
            .iter()
            .map(|topic| json!({"topic": topic, "data": "x"}).to_string())
            .collect();
        let fields = [NDJSON, ("Authorization", &bearer(&writer))];
        assert_eq!(
            gateway
                .post("/events", &fields, lines.join("\n"))
                .ids()
                .len(),
            9
        );
        let table = [
            (
                json!({"subscribe": ["team:7:*", "user:a"]}),
                "",
                json!(["team:7:x", "team:7:y", "user:a"]),
                Value::Null,
            ),
            (
                json!({"list": ["team:7:*"]}),
                "",
                json!(["team:7:x", "team:7:y"]),
                Value::Null,
            ),
            (
                json!({"subscribe": ["team:*"]}),
                "",
                json!(["team:", "team:7", "team:7:x", "team:7:y", "team:8:x"]),
                Value::Null,
            ),
            (
                json!({"subscribe": ["team:*"]}),
                "?limit=2",
                json!(["team:", "team:7"]),
                json!("team:7"),
            ),
            (
                json!({"subscribe": ["team:*"]}),
                "?limit=2&after=team:7",
                json!(["team:7:x", "team:7:y"]),
                json!("team:7:y"),
            ),
            (
                json!({"subscribe": ["*:x"]}),
                "?limit=1&after=team:7:x",
                json!(["team:8:x"]),
                json!("team:8:x"),
            ),
            (
                json!({"subscribe": ["*:x"]}),
                "?after=team:8:x",
                json!([]),
                Value::Null,
            ),
            (
                json!({"subscribe": ["user:a", "user:*", "z"]}),
                "?after=u",
                json!(["user:a", "z"]),
                Value::Null,
            ),
            (json!({"publish": ["*"]}), "", json!([]), Value::Null),
            (json!({}), "", json!([]), Value::Null),
        ];
        for (grant, query, topics, next) in table {
            let answer = get(gateway, &format!("/topics{query}"), &granting(&grant)).json();
            assert_eq!(
                answer,
                json!({"topics": topics, "next": next}),
                "{broker} {grant} {query}"
            );
        }
        gateway.get("/topics").problem(401);
        // Whether there is a topic is nothing that a refusal tells.
        let reader = granting(&json!({"list": ["a"]}));
        let there = get(gateway, "/topics/z", &reader).problem(403);
        let not_there = get(gateway, "/topics/y", &reader).problem(403);
        assert_eq!(there.replace('z', "y"), not_there);
    });
}

#[test]
fn topics_are_listed_beyond_what_is_read_at_once() {
    over_both_brokers(&[TOKENS], |broker, gateway| {
        let names: Vec<String> = ["a", "b", "c"]
            .iter()
            .flat_map(|team| (100..400).map(move |n| format!("{team}:{n}")))
            .collect();
        let lines = names
            .iter()
            .map(|topic| json!({"topic": topic, "data": "x"}).to_string());
        let lines: Vec<String> = lines.collect();
        let bearer = bearer(&granting(&json!({"publish": ["*"]})));
        let fields = [NDJSON, ("Authorization", &bearer)];
        assert_eq!(
            gateway
                .post("/events", &fields, lines.join("\n"))
                .ids()
                .len(),
            900
        );
        let table = [
            (json!(["b:*"]), 1000, 300),
            (json!(["*:399"]), 1000, 3),
            (json!(["*"]), 1000, 900),
            (json!(["a:*", "c:1*"]), 1000, 400),
            (json!(["b:*", "b:100", "nothing", "c:399"]), 7, 301),
        ];
        for (patterns, limit, expected) in table {
            let reader = granting(&json!({"subscribe": patterns}));
            let (mut listed, mut after) = (Vec::new(), String::new());
            loop {
                let target = format!("/topics?limit={limit}&after={after}");
                let page = get(gateway, &target, &reader).json();
                listed.extend(page["topics"].as_array().unwrap().clone());
                let Some(next) = page["next"].as_str() else {
                    break;
                };
                next.clone_into(&mut after);
            }
            assert_eq!(listed.len(), expected, "{broker} {patterns}");
            assert!(listed.is_sorted_by(|one, other| one.as_str() < other.as_str()));
        }
    });
}

/// How far was looked would tell where names lie that the caller may not know.
#[test]
fn whether_a_page_is_complete_tells_nothing_of_secret_names() {
    over_both_brokers(&[TOKENS], |broker, gateway| {
        let bearer = bearer(&granting(&json!({"publish": ["*"]})));
        let fields = [NDJSON, ("Authorization", &bearer)];
        let publish = |names: &mut dyn Iterator<Item = String>| {
            let lines = names.map(|topic| json!({"topic": topic, "data": ""}).to_string());
            let lines: Vec<String> = lines.collect();
            gateway.post("/events", &fields, lines.join("\n")).ids();
        };
        publish(
            &mut ["a:public", "m:secret", "own", "zz:public"]
                .map(str::to_owned)
                .into_iter(),
        );
        let reader = granting(&json!({"subscribe": ["*:public", "own"]}));
        let page = |query: &str| get(gateway, &format!("/topics{query}"), &reader).json();
        let all = json!(["a:public", "own", "zz:public"]);
        assert_eq!(page(""), json!({"topics": all, "next": null}), "{broker}");
        for thousand in 0..20 {
            publish(&mut (0..1000).map(|number| format!("z:{thousand}:{number}")));
        }
        // Of more topics none is looked through, wherever the page begins.
        for (after, topics) in [
            ("", json!(["own"])),
            ("m:secre", json!(["own"])),
            ("own", json!([])),
        ] {
            let next = topics.as_array().unwrap().last().cloned();
            let expected = json!({"topics": topics, "next": next, "complete": false});
            assert_eq!(
                page(&format!("?after={after}")),
                expected,
                "{broker} {after}"
            );
        }
        let whole = granting(&json!({"subscribe": ["z:19:*"]}));
        let page = get(gateway, "/topics?limit=1000", &whole).json();
        assert_eq!(page["topics"].as_array().unwrap().len(), 1000, "{broker}");
        assert_eq!(page["complete"], Value::Null, "{broker}");
    });
}

#[test]
fn a_batch_is_judged_line_by_line() {
    over_both_brokers(&[TOKENS], |broker, gateway| {
        let writer = granting(&json!({"publish": ["mine:*"], "end": ["mine:job"]}));
        let reader = granting(&json!({"subscribe": ["*"]}));
        let fields = [NDJSON, ("Authorization", &bearer(&writer))];
        let body = "{\"topic\":\"mine:a\",\"data\":1}\n\n{\"topic\":\"yours:a\",\"data\":2}\n{\"topic\":\"mine:a\",\"data\":3,\"end\":true}\n{\"topic\":\"mine:job\",\"data\":4,\"end\":true}\n";
        let detail = gateway.post("/events", &fields, body).problem(403);
        assert_eq!(
            detail,
            "line 3: topic \"yours:a\": the key or token does not grant publish"
        );
        let kept = get(gateway, "/topics/mine:a/events", &reader).json();
        assert_eq!(
            kept["events"],
            json!([]),
            "{broker}: nothing of it is published"
        );
        let answer = gateway.post("/events?partial", &fields, body);
        assert_eq!(answer.status, 200);
        let events = answer.json()["events"].clone();
        let said: Vec<&str> = events
            .as_array()
            .unwrap()
            .iter()
            .map(|line| line["detail"].as_str().unwrap_or("published"))
            .collect();
        let expected = [
            "published",
            "topic \"yours:a\": the key or token does not grant publish",
            "topic \"mine:a\": the key or token does not grant end",
            "published",
        ];
        assert_eq!(said, expected, "{broker}");
        let forbidden = [("reason", "forbidden")];
        gateway.wait_for_metric("tidegate_publish_refused_total", &forbidden, 3.0);
        // The topic of a POST that names none is a topic like any other.
        ask(gateway, "POST", "/events", &writer, "x").problem(403);
    });
}

/// A body that never comes keeps nobody waiting, and takes no place.
#[test]
fn a_right_is_judged_before_a_body_is_read() {
    let gateway = Gateway::start(&[TOKENS, ("publish.bodies_max", "1")]);
    let writer = granting(&json!({"publish": ["mine"]}));
    let mut waiting = Vec::new();
    let reader = granting(&json!({"subscribe": ["*"]}));
    let batch = "Content-Type: application/x-ndjson\r\nAuthorization";
    for (authorization, status) in [
        (String::new(), 401),
        ("Authorization: Bearer nonsense\r\n".to_owned(), 401),
        (format!("Authorization: {}\r\n", bearer(&writer)), 403),
        (format!("{batch}: {}\r\n", bearer(&reader)), 403),
    ] {
        for target in ["/events/yours", "/events"] {
            let head = format!(
                "POST {target} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n{authorization}\r\n"
            );
            let answer = Sse::exchange(connect(gateway.address()), head.as_bytes());
            assert_eq!(answer.status(), status, "{head}");
            waiting.push(answer);
        }
    }
    ask(&gateway, "POST", "/events/mine", &writer, "x").id();
}

#[test]
fn a_credential_stands_in_one_place() {
    let gateway = Gateway::start(&[TOKENS]);
    let (good, other) = (
        granting(&json!({"subscribe": ["a"]})),
        granting(&json!({"subscribe": ["b"]})),
    );
    let cookie = |token: &str| format!("theme=dark; __Host-tidegate={token}; x=y");
    let (header, in_cookie) = (bearer(&good), cookie(&good));
    let status =
        |fields: &[(&str, &str)], target: &str| gateway.request("GET", target, fields, "").status;
    let a = "/topics/a/events";
    let b = "/topics/b/events";
    assert_eq!(status(&[("Authorization", &header)], a), 200);
    assert_eq!(status(&[("Cookie", &in_cookie)], a), 200);
    assert_eq!(
        status(&[("Cookie", "theme=dark"), ("Cookie", &in_cookie)], a),
        200
    );
    let https = ("X-Forwarded-Proto", "https");
    let bare = format!("tidegate={good}");
    assert_eq!(status(&[("Cookie", &bare), https], a), 401);
    // A header is sent on purpose: it wins, good or bad.
    let header_b = bearer(&other);
    let both = [("Authorization", header_b.as_str()), ("Cookie", &in_cookie)];
    assert_eq!((status(&both, a), status(&both, b)), (403, 200));
    assert_eq!(
        status(
            &[("Authorization", "Bearer bad"), ("Cookie", &in_cookie)],
            a
        ),
        401
    );
    // Another scheme is for somebody else.
    let basic = ("Authorization", "Basic YTpi");
    assert_eq!(status(&[basic], a), 401);
    assert_eq!(status(&[basic, ("Cookie", &in_cookie)], a), 200);
    // Two of a kind are refused, the same twice as well.
    let twice = [
        ("Authorization", header.as_str()),
        ("Authorization", &header),
    ];
    let answer = gateway.request("GET", a, &twice, "");
    answer.problem(400);
    let expected = "Bearer error=\"invalid_request\", error_description=\"two credentials\"";
    assert_eq!(challenge(&answer), expected);
    assert_eq!(
        status(&[("Cookie", &in_cookie), ("Cookie", &cookie(&other))], a),
        400
    );
    // In the query it counts only if that was wanted; a stream leaves the name to others.
    assert_eq!(status(&[], &format!("/events/a?access_token={good}")), 401);
    let in_query = Gateway::start(&[
        TOKENS,
        ("auth.query_token", "true"),
        ("auth.cookie", "session"),
        ("logging.level", "debug"),
    ]);
    let status =
        |fields: &[(&str, &str)], target: &str| in_query.request("GET", target, fields, "").status;
    assert_eq!(status(&[], &format!("{a}?access_token={good}")), 200);
    assert_eq!(
        status(&[], &format!("{a}?limit=1&%61ccess_token={good}&after=1-0")),
        200
    );
    assert_eq!(
        status(
            &[("Authorization", &header)],
            &format!("{a}?access_token={good}")
        ),
        400
    );
    assert_eq!(
        status(&[], &format!("{a}?access_token={good}&access_token={good}")),
        400
    );
    assert_eq!(
        status(
            &[("Cookie", &format!("session={other}"))],
            &format!("{a}?access_token={good}")
        ),
        200
    );
    assert_eq!(status(&[("Cookie", &format!("session={good}"))], a), 200);
    let mut stream = in_query.open(&format!("/events/a?access_token={good}&_=1"), &[]);
    assert_eq!(stream.opened().json()["ignored"], json!(["_"]));
    let log = in_query.log().join("\n");
    let secret = good.rsplit('.').next().unwrap();
    assert!(
        !log.contains(secret) && !log.contains("access_token"),
        "{log}"
    );
}

/// A cookie is sent by a browser whatever page asks. What writes with it must say from where.
#[test]
fn a_cookie_writes_for_pages_that_are_ours_alone() {
    let gateway = Gateway::start(&[TOKENS, ("cors.origins", "https://app.example.com")]);
    let writer = granting(&json!({"publish": ["a"], "delete": ["a"]}));
    let cookie = format!("__Host-tidegate={writer}");
    let write = |fields: &[(&str, &str)]| {
        let fields = [&[("Cookie", cookie.as_str())], fields].concat();
        gateway.post("/events/a", &fields, "x")
    };
    assert_eq!(write(&[("Origin", "http://localhost")]).status, 200);
    assert_eq!(
        write(&[
            ("Origin", "https://app.example.com"),
            ("Sec-Fetch-Site", "cross-site")
        ])
        .status,
        200
    );
    let detail = write(&[]).problem(403);
    assert!(
        detail.contains("Origin") && !detail.contains(&writer),
        "{detail}"
    );
    write(&[("Sec-Fetch-Site", "same-origin")]).problem(403);
    write(&[("Origin", "https://evil.example")]).problem(403);
    write(&[("Origin", "null")]).problem(403);
    gateway
        .request("DELETE", "/topics/a", &[("Cookie", &cookie)], "")
        .problem(403);
    // Somebody else's page cannot send a header, so a bad one does not make its cookie good.
    let bad = [
        ("Origin", "https://evil.example"),
        ("Authorization", "Bearer x"),
    ];
    write(&bad).problem(401);
    assert_refused(&gateway, "origin", 3.0);
}

/// With `*` any page may write by a token that it has, and by a cookie only those that are named besides.
#[test]
fn a_cookie_writes_for_no_page_that_is_allowed_as_any() {
    let origins = ("cors.origins", "*,https://app.example.com");
    let gateway = Gateway::start(&[TOKENS, origins]);
    let writer = granting(&json!({"publish": ["a"], "delete": ["a"]}));
    let (cookie, header) = (format!("__Host-tidegate={writer}"), bearer(&writer));
    let ask = |method: &str, target: &str, origin: &str, credential: (&str, &str)| {
        gateway.request(method, target, &[("Origin", origin), credential], "x")
    };
    let (in_cookie, in_header) = (("Cookie", &*cookie), ("Authorization", &*header));
    for ours in ["https://app.example.com", "http://localhost"] {
        assert_eq!(
            ask("POST", "/events/a", ours, in_cookie).status,
            200,
            "{ours}"
        );
    }
    for any in ["https://evil.example", "null"] {
        for (method, target) in [("POST", "/events/a"), ("DELETE", "/topics/a")] {
            let answer = ask(method, target, any, in_cookie);
            let allowed = answer.headers.get("access-control-allow-origin");
            assert_eq!(allowed, Some("*"), "{any}");
            let detail = answer.problem(403);
            assert!(detail.contains("cors.origins"), "{detail}");
        }
        assert_eq!(
            ask("POST", "/events/a", any, in_header).status,
            200,
            "{any}"
        );
    }
}

#[test]
fn a_bad_token_is_refused_and_told_no_more_than_that() {
    let config = [
        TOKENS,
        ("auth.issuers", "https://us"),
        ("auth.audiences", "events"),
        ("auth.token_bytes_max", "1000"),
    ];
    let gateway = Gateway::start(&config);
    let with = |others: Value| {
        let mut claims =
            json!({"iss": "https://us", "aud": "events", "tidegate": {"subscribe": ["a"]}});
        let members = claims.as_object_mut().unwrap();
        members.extend(others.as_object().unwrap().clone());
        token_of(&claims)
    };
    assert_eq!(
        get(&gateway, "/topics/a/events", &with(json!({}))).status,
        200
    );
    let good = with(json!({}));
    let (signed, _) = good.rsplit_once('.').unwrap();
    let table = [
        (
            "malformed",
            "nonsense".to_owned(),
            "the token is not accepted",
        ),
        (
            "malformed",
            with(json!({"exp": "1"})),
            "the token is not accepted",
        ),
        (
            "too_long",
            with(json!({"x": "x".repeat(1000)})),
            "the token is too long",
        ),
        (
            "signature",
            format!("{signed}.AAAA"),
            "the token is not accepted",
        ),
        (
            "issuer",
            with(json!({"iss": "https://them"})),
            "the token is not accepted",
        ),
        (
            "audience",
            with(json!({"aud": ["mail"]})),
            "the token is not accepted",
        ),
        (
            "expired",
            with(json!({"exp": now() - 600})),
            "the token has expired",
        ),
        (
            "not_yet",
            with(json!({"nbf": now() + 600})),
            "the token is not valid yet",
        ),
        (
            "long_life",
            with(json!({"exp": 253_402_300_799_u64})),
            "the token is not accepted",
        ),
        (
            "grant",
            with(json!({"tidegate": {"subscribe": ["a", "b,c"]}})),
            "the token is not accepted",
        ),
        (
            "publish_key",
            new_key().unwrap(),
            "not a key of this gateway",
        ),
    ];
    for (reason, bad, told) in &table {
        let before = refused(&gateway, reason);
        for target in ["/events/a", "/topics", "/topics/a"] {
            let answer = get(&gateway, target, bad);
            let detail = answer.problem(401);
            assert!(!detail.contains(bad.as_str()), "{reason}");
            let expected = format!("Bearer error=\"invalid_token\", error_description=\"{told}\"");
            assert_eq!(challenge(&answer), expected, "{reason}");
        }
        assert!(refused(&gateway, reason) >= before + 3.0, "{reason}");
    }
    let log = gateway.log().join("\n");
    assert!(!log.contains(SECRET) && !log.contains(signed), "{log}");
}

#[test]
fn keys_of_an_identity_provider_are_read_from_a_file() {
    let random = ring::rand::SystemRandom::new();
    let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
    let key =
        EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, document.as_ref(), &random)
            .unwrap();
    let point = key.public_key().as_ref();
    let text = |bytes: &[u8]| {
        use base64::Engine as _;
        base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes)
    };
    let jwk = json!({"kty": "EC", "crv": "P-256", "kid": "one", "use": "sig", "x": text(&point[1..33]), "y": text(&point[33..])});
    let directory = Directory::create();
    let path = directory.0.join("jwks.json");
    std::fs::write(&path, json!({"keys": [jwk]}).to_string()).unwrap();
    let sign = |claims: Value| {
        let head = json!({"alg": "ES256", "kid": "one"}).to_string();
        let signed = format!(
            "{}.{}",
            text(head.as_bytes()),
            text(claims.to_string().as_bytes())
        );
        let signature = key.sign(&random, signed.as_bytes()).unwrap();
        format!("{signed}.{}", text(signature.as_ref()))
    };
    let file = format!(
        "[auth]\n[[auth.keys]]\nfile = '{}'\nissuer = 'https://login'\n[[auth.rules]]\ntopics = 'user:{{sub}}'\n[[auth.rules]]\ntopics = 'team:{{teams}}:*'\nactions = ['subscribe', 'publish']\n",
        path.display()
    );
    let config = directory.0.join("tidegate.toml");
    std::fs::write(&config, file).unwrap();
    let mut gateway = Gateway::launch_with(&["--config", &config.to_string_lossy()], &[]);
    gateway.wait_ready();
    let token = sign(
        json!({"iss": "https://login", "sub": "42", "teams": ["red", "*", "a:b"], "exp": now() + 60}),
    );
    let mut stream = open(
        &gateway,
        "/events?topic=user:42&topic=team:red:chat",
        &token,
    );
    ask(&gateway, "POST", "/events/team:red:chat", &token, "hi").id();
    assert_eq!(stream.next_data(1), ["hi"]);
    for topic in [
        "user:43",
        "user:42:x",
        "team:*:x",
        "team:a:b:x",
        "team:blue:chat",
    ] {
        let answer = get(&gateway, &format!("/topics/{topic}/events"), &token);
        assert!(
            matches!(answer.status, 400 | 403),
            "{topic} {}",
            answer.status
        );
    }
    let elsewhere = sign(json!({"iss": "https://else", "sub": "42", "exp": now() + 60}));
    get(&gateway, "/topics/user:42/events", &elsewhere).problem(401);
    // Half of a file is none: the old keys stay.
    std::fs::write(&path, "{\"keys\":[{\"kty\":\"EC\",").unwrap();
    gateway.hang_up();
    gateway.wait_for_metric(
        "tidegate_config_reloads_total",
        &[("outcome", "refused")],
        1.0,
    );
    assert_eq!(get(&gateway, "/topics/user:42/events", &token).status, 200);
    // Another key, and the old one is nobody's. A stream that lived by it ends.
    let mut other = jwk;
    other["kid"] = "two".into();
    std::fs::write(&path, json!({"keys": [other]}).to_string()).unwrap();
    gateway.hang_up();
    gateway.wait_for_metric(
        "tidegate_config_reloads_total",
        &[("outcome", "taken")],
        1.0,
    );
    get(&gateway, "/topics/user:42/events", &token).problem(401);
    assert_refused(&gateway, "key", 1.0);
    assert_eq!(stream.rest().1, End::Cut);
}

#[test]
fn a_publisher_does_what_its_key_grants_and_is_named() {
    over_both_brokers(&[], |broker, _| {
        let keys = [(); 2].map(|()| new_key().unwrap());
        let [billing, shop] = keys.each_ref().map(|key| KeyHash::of(key).to_string());
        let publishers = format!(
            "[{{name = 'billing', hash = '{billing}', topics = ['bill:*'], actions = ['publish', 'end']}}, {{name = 'shop', hash = '{shop}', topics = ['bill:*', 'shop']}}]"
        );
        let redis = Redis::start();
        let config = [
            ("auth.publishers", publishers.as_str()),
            ("auth.publish_key", "key"),
            ("logging.level", "tidegate=debug"),
        ];
        let gateway = match broker {
            "memory" => Gateway::start(&config),
            _ => Gateway::over(&redis, &config),
        };
        let [billing, shop] = &keys;
        let post = |key: &str, target: &str, headers: &[(&str, &str)]| {
            let bearer = bearer(key);
            let fields = [&[("Authorization", bearer.as_str())], headers].concat();
            gateway.post(target, &fields, "x")
        };
        post(billing, "/events/shop", &[]).problem(403);
        post(shop, "/events/bill:1?end", &[]).problem(403);
        post(shop, "/events/shop", &[]).id();
        ask(&gateway, "DELETE", "/topics/shop", shop, "").problem(403);
        // The same name for two things of two publishers is no repetition, and for one it is.
        let again = [("Idempotency-Key", "k")];
        let first = post(billing, "/events/bill:1", &again).id();
        assert_eq!(
            post(billing, "/events/bill:1", &again).id(),
            first,
            "{broker}"
        );
        let second = post(shop, "/events/bill:1", &again).id();
        let third = post("key", "/events/bill:1", &again).id();
        assert!(
            first != second && second != third && first != third,
            "{broker}"
        );
        assert_eq!(
            post(shop, "/events/bill:1", &again).id(),
            second,
            "{broker}"
        );
        // Parts do not run together.
        let colon = [("Idempotency-Key", "b:c")];
        let of_a = post("key", "/events/a", &colon).id();
        let of_ab = post("key", "/events/a:b", &[("Idempotency-Key", "c")]).id();
        assert_ne!(of_a, of_ab, "{broker}");
        // Reading stays open.
        drop(gateway.listen(&["bill:1"]));
        let count = |name| gateway.metric("tidegate_published_by_total", &[("publisher", name)]);
        eventually("each is counted by name", || {
            [
                ("billing", 2.0),
                ("shop", 3.0),
                ("publish_key", 3.0),
                ("anyone", 0.0),
            ]
            .iter()
            .all(|(name, expected)| (count(name) - expected).abs() < 0.1)
        });
        assert!(
            gateway
                .logged_at_least(1, "published over HTTP")
                .iter()
                .any(|line| line.contains("billing"))
        );
        let log = gateway.log().join("\n");
        assert!(keys.iter().all(|key| !log.contains(key.as_str())));
    });
}

#[test]
fn tokens_that_are_known_are_counted_and_bounded() {
    let gateway = Gateway::start(&[TOKENS, ("auth.tokens_known_max", "4")]);
    for n in 0..20 {
        let reader = token_of(&json!({"tidegate": {"subscribe": ["a"]}, "sub": n.to_string()}));
        for _ in 0..2 {
            assert_eq!(get(&gateway, "/topics/a/events", &reader).status, 200);
            assert_eq!(get(&gateway, "/topics/b/events", &reader).status, 403);
        }
        assert!(gateway.metric("tidegate_tokens_known", &[]) <= 4.0);
    }
    assert!(gateway.metric("tidegate_tokens_known", &[]) >= 2.0);
}

#[test]
fn another_publisher_is_taken_at_sighup() {
    let keys = [(); 2].map(|()| new_key().unwrap());
    let file = |key: &String| {
        let hash = KeyHash::of(key);
        format!(
            "[auth]\npublish_key = 'k'\n[[auth.publishers]]\nname = 'p'\nhash = '{hash}'\ntopics = ['*']\n"
        )
    };
    let directory = Directory::create();
    let path = directory.0.join("tidegate.toml");
    std::fs::write(&path, file(&keys[0])).unwrap();
    let mut gateway = Gateway::launch_with(&["--config", &path.to_string_lossy()], &[]);
    gateway.wait_ready();
    let status = |gateway: &Gateway, key: &str| ask(gateway, "POST", "/events/a", key, "x").status;
    assert_eq!(keys.each_ref().map(|key| status(&gateway, key)), [200, 401]);
    std::fs::write(&path, file(&keys[1])).unwrap();
    gateway.hang_up();
    gateway.wait_for_metric(
        "tidegate_config_reloads_total",
        &[("outcome", "taken")],
        1.0,
    );
    assert_eq!(keys.each_ref().map(|key| status(&gateway, key)), [401, 200]);
    assert!(
        gateway
            .log()
            .iter()
            .any(|line| line.contains("auth.publishers"))
    );
}

#[test]
fn a_secret_that_all_may_read_is_warned_of() {
    use std::os::unix::fs::PermissionsExt as _;
    let directory = Directory::create();
    for (mode, is_warned) in [(0o600, false), (0o640, false), (0o644, true)] {
        let path = directory.0.join(format!("secret-{mode:o}"));
        std::fs::write(&path, SECRET).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        let gateway = Gateway::start(&[("auth.token_secret_file", &path.to_string_lossy())]);
        let said = gateway.logged("every user of this machine may read this secret; chmod o-r");
        assert_eq!(!said.is_empty(), is_warned, "{mode:o}");
    }
}

/// Told before, and then cut: while it shows events, and while it is quiet.
#[test]
fn a_stream_ends_with_its_token() {
    let redis = Redis::start();
    for sockets in ["true", "false"] {
        let config = [
            TOKENS,
            ("auth.leeway", "0s"),
            ("engine.sockets", sockets),
            ("auth.publish_key", "key"),
            ("stream.heartbeat", "1s"),
            ("stream.open_wait", "1ms"),
        ];
        let gateway = Gateway::over(&redis, &config);
        let short = || {
            token_of(&json!({"tidegate": {"subscribe": ["a", "quiet", "new:*"]}, "exp": now() + 3}))
        };
        let (token, other) = (short(), short());
        let mut busy = open(&gateway, "/events/a", &token);
        let mut quiet = open(&gateway, "/events/quiet", &other);
        let seconds = quiet.next_of("tidegate.expiring").json()["seconds"]
            .as_f64()
            .unwrap();
        assert!((0.0..=3.0).contains(&seconds), "{seconds}");
        let ended = |stream: &mut Sse| {
            let (rest, end) = stream.rest();
            assert_eq!(end, End::Cut, "{sockets}");
            rest
        };
        let publisher = std::thread::scope(|scope| {
            let published = scope.spawn(|| {
                let mut count = 0;
                while gateway.metric("tidegate_open_connections", &[]) > 0.0 {
                    ask(&gateway, "POST", "/events/a", "key", "x").id();
                    count += 1;
                }
                count
            });
            let told = |rest: &[Event]| {
                rest.iter()
                    .filter(|event| event.event == "tidegate.expiring")
                    .count()
            };
            assert_eq!(told(&ended(&mut busy)), 1, "{sockets}");
            assert_eq!(told(&ended(&mut quiet)), 0, "it was told once");
            published.join().unwrap()
        });
        assert!(publisher > 0);
        gateway.wait_for_metric(
            "tidegate_connections_closed_total",
            &[("reason", "expired")],
            2.0,
        );
        eventually("the token is over", || {
            get(&gateway, "/topics/a/events", &token).status == 401
        });
        assert_refused(&gateway, "expired", 1.0);
    }
}

#[test]
fn a_reader_that_stops_is_let_go_with_its_token() {
    for sockets in ["true", "false"] {
        let config = [
            TOKENS,
            ("auth.leeway", "0s"),
            ("engine.sockets", sockets),
            ("auth.publish_key", "key"),
        ];
        let gateway = Gateway::start(&config);
        let short = token_of(&json!({"tidegate": {"subscribe": ["a"]}, "exp": now() + 3}));
        let stream = open(&gateway, "/events/a", &short);
        let event = "x".repeat(60_000);
        // More than the kernel takes for it.
        for _ in 0..200 {
            ask(&gateway, "POST", "/events/a", "key", &event).id();
        }
        let expired = [("reason", "expired")];
        gateway.wait_for_metric("tidegate_connections_closed_total", &expired, 1.0);
        gateway.wait_for_metric("tidegate_open_connections", &[], 0.0);
        drop(stream);
    }
}

#[test]
fn a_stream_that_could_not_begin_ends_with_its_token() {
    for sockets in ["true", "false"] {
        let mut redis = Redis::start();
        let config = [
            TOKENS,
            ("auth.leeway", "0s"),
            ("engine.sockets", sockets),
            ("stream.heartbeat", "1s"),
            ("stream.open_wait", "1ms"),
        ];
        let gateway = Gateway::over(&redis, &config);
        redis.kill();
        gateway.wait_for_metric("tidegate_redis_up", &[("role", "live")], 0.0);
        let short = token_of(&json!({"tidegate": {"subscribe": ["a"]}, "exp": now() + 2}));
        let bearer = bearer(&short);
        let mut stream = gateway.open("/events/a", &[("Authorization", &bearer)]);
        assert_eq!(stream.status(), 200);
        let (shown, end) = stream.rest();
        assert_eq!((shown.len(), end), (0, End::Cut), "{sockets}");
        gateway.wait_for_metric(
            "tidegate_connections_closed_total",
            &[("reason", "expired")],
            1.0,
        );
    }
}
