//! Goal: a ticket opens one stream, once, on any replica, for a moment; whoever is sent away for another reason keeps it; and
//! nobody who reads URLs, logs or Redis gains anything by it. A session is a cookie that no script reads, and no page of
//! somebody else's begins.
//!
//! Method: real replicas over one Redis, nginx in front of one, and all that they write.

use crate::support::tokens::{SECRET, TOKENS, now, token_of};
use crate::support::{
    Answer, End, Gateway, Nginx, Redis, Sse, eventually, fleet, over_both_brokers,
};
use serde_json::{Value, json};

/// A token that is good for so many seconds, and may read and publish to `news` and `a`.
fn token(subject: &str, seconds: i64) -> String {
    let rights = json!({"subscribe": ["news", "a"], "publish": ["news"], "list": ["news"]});
    token_of(&json!({"sub": subject, "exp": now() + seconds, "tidegate": rights}))
}

fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

fn ask(gateway: &Gateway, method: &str, target: &str, token: &str) -> Answer {
    gateway.request(method, target, &[("Authorization", &bearer(token))], "x")
}

fn ticket(gateway: &Gateway, token: &str) -> String {
    let answer = ask(gateway, "POST", "/tickets", token);
    assert_eq!(answer.status, 201, "{}", answer.text());
    assert_eq!(answer.headers.get("cache-control"), Some("no-store"));
    let made = answer.json();
    assert_eq!(made["expires_in"], 30, "{made}");
    let ticket = made["ticket"].as_str().unwrap();
    assert!(ticket.starts_with("tgt_") && ticket.len() == 47, "{ticket}");
    ticket.to_owned()
}

fn open(gateway: &Gateway, ticket: &str) -> Sse {
    gateway.open(&format!("/events/news?ticket={ticket}"), &[])
}

/// Opens by a ticket that must be good.
fn opened(gateway: &Gateway, ticket: &str) -> Sse {
    let mut stream = open(gateway, ticket);
    assert_eq!(stream.status(), 200, "{}", stream.text());
    stream.opened();
    stream
}

/// Asks for a stream of `news` that is over at once, so that it has an answer; `query` comes before the others.
fn briefly(gateway: &Gateway, query: &str, fields: &[(&str, &str)]) -> Answer {
    let target = format!("/events/news?{query}&max_age=1ms");
    gateway.request("GET", &target, fields, "")
}

/// What the refusal of a ticket says, and no more.
fn assert_no_ticket(answer: &Answer) {
    let detail = answer.problem(401);
    assert_eq!(
        detail,
        "ticket: it is unknown, over or used; ask for another one with POST /tickets"
    );
    let expected =
        "Bearer error=\"invalid_token\", error_description=\"the ticket is not accepted\"";
    assert_eq!(answer.headers.get("www-authenticate"), Some(expected));
}

fn tickets(gateway: &Gateway, outcome: &str) -> f64 {
    gateway.metric("tidegate_tickets_total", &[("outcome", outcome)])
}

/// Asks for a stream that is to come back: 200, a time, a cut, and no event.
fn assert_comes_back(mut stream: Sse) {
    assert_eq!(stream.status(), 200, "{}", stream.text());
    let (events, end) = stream.rest();
    assert_eq!((events.len(), end), (0, End::Cut), "{}", stream.text());
    assert!(stream.text().starts_with("retry: "), "{}", stream.text());
}

#[test]
fn a_ticket_opens_one_stream_once() {
    over_both_brokers(&[TOKENS], |broker, gateway| {
        let token = token("alice", 60);
        let made = ticket(gateway, &token);
        let mut stream = opened(gateway, &made);
        ask(gateway, "POST", "/events/news", &token).id();
        assert_eq!(stream.next_data(1), ["x"], "{broker}");
        let before = gateway.metric("tidegate_connections_opened_total", &[]);
        for _ in 0..2 {
            assert_no_ticket(&briefly(gateway, &format!("ticket={made}"), &[]));
        }
        let reason = [("reason", "ticket")];
        gateway.wait_for_metric("tidegate_auth_refused_total", &reason, 2.0);
        let refused = [("reason", "unauthorized")];
        gateway.wait_for_metric("tidegate_connections_refused_total", &refused, 2.0);
        let after = gateway.metric("tidegate_connections_opened_total", &[]);
        assert!((before - after).abs() < 0.5, "{broker}");
        assert_eq!(stream.end(), None, "the one that it opened goes on");
        assert!((tickets(gateway, "made") - 1.0).abs() < 0.5);
        assert!((tickets(gateway, "used") - 1.0).abs() < 0.5);
    });
}

/// Of all who show one ticket at the same time, on two replicas, one is let through.
#[test]
fn a_ticket_of_one_replica_opens_one_stream_on_any() {
    let redis = Redis::start();
    let replicas = fleet(&redis, 2, &[TOKENS]);
    let token = token("alice", 60);
    drop(opened(&replicas[1], &ticket(&replicas[0], &token)));
    for _ in 0..5 {
        let made = ticket(&replicas[0], &token);
        let query = format!("ticket={made}");
        let statuses: Vec<u16> = std::thread::scope(|scope| {
            let asking: Vec<_> = (0..8)
                .map(|n| {
                    let (replica, query) = (&replicas[n % 2], &query);
                    scope.spawn(move || briefly(replica, query, &[]).status)
                })
                .collect();
            asking.into_iter().map(|it| it.join().unwrap()).collect()
        });
        let through = statuses.iter().filter(|status| **status == 200).count();
        assert_eq!(through, 1, "{statuses:?}");
        assert!(statuses.iter().all(|status| matches!(status, 200 | 401)));
    }
    for replica in &replicas {
        replica.wait_for_metric("tidegate_open_connections", &[], 0.0);
    }
}

#[test]
fn what_is_no_ticket_is_refused_and_nothing_is_told_of_it() {
    let redis = Redis::start();
    let gateway = Gateway::over(&redis, &[TOKENS, ("auth.query_token", "true")]);
    let token = token("alice", 60);
    let good = ticket(&gateway, &token);
    let unknown = format!("tgt_{}", "A".repeat(43));
    let giant = format!("tgt_{}", "A".repeat(9000));
    for bad in ["", "x", "tgt_", &good[..46], &unknown, &giant, &token] {
        assert_no_ticket(&briefly(&gateway, &format!("ticket={bad}"), &[]));
    }
    // What was sent on purpose twice, in whatever two places.
    let bearer = bearer(&token);
    let field = [("Authorization", bearer.as_str())];
    for (query, fields) in [
        (format!("ticket={good}"), &field[..]),
        (format!("ticket={good}&ticket={good}"), &[]),
        (format!("ticket={good}&access_token={token}"), &[]),
        (format!("%74icket={good}"), &field[..]),
    ] {
        let answer = briefly(&gateway, &query, fields);
        let detail = answer.problem(400);
        assert!(!detail.contains("tgt_"), "{detail}");
    }
    let two = [("reason", "two_tokens")];
    gateway.wait_for_metric("tidegate_auth_refused_total", &two, 4.0);
    // A ticket counts for streams alone, and there alone in the query.
    for (method, target) in [
        ("GET", format!("/topics/news/events?ticket={good}")),
        ("GET", format!("/topics/news?ticket={good}")),
        ("GET", format!("/topics?ticket={good}")),
        ("POST", format!("/events/news?ticket={good}")),
        ("POST", format!("/tickets?ticket={good}")),
        ("POST", format!("/session?ticket={good}")),
    ] {
        gateway.request(method, &target, &[], "x").problem(401);
        let detail = gateway.request(method, &target, &field, "x").problem(400);
        assert!(
            detail.contains("\"ticket\"") && !detail.contains("tgt_"),
            "{target} {detail}"
        );
    }
    for place in [
        ("Authorization", format!("Bearer {good}")),
        ("Cookie", format!("__Host-tidegate={good}")),
    ] {
        let answer = briefly(&gateway, "", &[(place.0, &place.1)]);
        assert_eq!(
            answer.problem(401),
            "Authorization: the token is not accepted"
        );
    }
    // None of it has used it up. A cookie beside it is not looked at.
    let field = ("Cookie", "__Host-tidegate=nonsense");
    let mut stream = gateway.open(
        &format!("/events/news?_=1&ticket={good}&since=1m"),
        &[field],
    );
    assert_eq!(stream.opened().json()["ignored"], json!(["_"]));
}

#[test]
fn a_ticket_is_over_after_its_time() {
    over_both_brokers(&[TOKENS, ("auth.ticket_life", "1s")], |_, gateway| {
        let token = token("alice", 60);
        let answer = ask(gateway, "POST", "/tickets", &token).json();
        assert_eq!(answer["expires_in"], 1);
        let first = answer["ticket"].as_str().unwrap().to_owned();
        // Asked for with another right that it has not, it is told apart from one that is over, and not used.
        let denied = || {
            let target = format!("/events/other?max_age=1ms&ticket={first}");
            gateway.request("GET", &target, &[], "").status
        };
        eventually("it is over", || denied() == 401);
        assert_no_ticket(&briefly(gateway, &format!("ticket={first}"), &[]));
    });
}

/// It stands for its token, by the rules of whoever is shown it, and no longer.
#[test]
fn a_ticket_grants_what_its_token_grants_now() {
    let redis = Redis::start();
    let config = [TOKENS, ("auth.leeway", "0s")];
    let maker = Gateway::over(&redis, &config);
    let long = token("alice", 60);
    let by = ticket(&maker, &long);
    let target = format!("/events?topic=news&topic=other&ticket={by}");
    let detail = maker.request("GET", &target, &[], "").problem(403);
    assert_eq!(
        detail,
        "topic \"other\": the key or token does not grant subscribe"
    );
    drop(opened(&maker, &by));
    // Its stream ends with the token.
    let short = token("bob", 3);
    let (first, second) = (ticket(&maker, &short), ticket(&maker, &short));
    let mut stream = opened(&maker, &first);
    assert_eq!(stream.rest().1, End::Cut);
    let expired = [("reason", "expired")];
    maker.wait_for_metric("tidegate_connections_closed_total", &expired, 1.0);
    let told = || {
        let answer = briefly(&maker, &format!("ticket={second}"), &[]);
        answer.status == 401 && answer.text().contains("the token has expired")
    };
    eventually("the token of the other one is over", told);
    // A replica that takes other keys takes no ticket of theirs.
    let other = (
        "auth.token_secret",
        "another secret of thirty-two bytes or more",
    );
    let stranger = Gateway::over(&redis, &[other]);
    let by = ticket(&maker, &long);
    let answer = briefly(&stranger, &format!("ticket={by}"), &[]);
    assert_eq!(
        answer.problem(401),
        "Authorization: the token is not accepted"
    );
    drop(opened(&maker, &by));
}

#[test]
fn a_replica_that_sends_a_stream_away_leaves_its_ticket_good() {
    let redis = Redis::start();
    let config = [TOKENS, ("limits.streams_max", "1"), ("drain.time", "24h")];
    let replicas = fleet(&redis, 2, &config);
    let [full, mut going] = <[Gateway; 2]>::try_from(replicas).unwrap();
    let token = token("alice", 60);
    let held = opened(&full, &ticket(&full, &token));
    let kept = opened(&going, &ticket(&going, &token));
    let made = ticket(&full, &token);
    let target = format!("/events/news?ticket={made}");
    let failover = [("Tidegate-Failover", "1")];
    for _ in 0..2 {
        assert_comes_back(open(&full, &made));
        full.request("GET", &target, &failover, "").problem(503);
    }
    going.terminate();
    eventually("it drains", || {
        going.request("GET", &target, &failover, "").status == 503
    });
    assert_comes_back(open(&going, &made));
    // A request that can never succeed uses nothing up either.
    full.request("GET", &format!("{target}&limit=x"), &[], "")
        .problem(400);
    drop(held);
    full.wait_for_metric("tidegate_open_connections", &[], 0.0);
    drop(opened(&full, &made));
    drop(kept);
}

#[test]
fn an_address_that_has_all_its_streams_keeps_its_ticket() {
    let config = [
        TOKENS,
        ("server.trusted_proxies", "127.0.0.1"),
        ("limits.address.streams_max", "1"),
    ];
    let gateway = Gateway::start(&config);
    let token = token("alice", 60);
    let of = [("X-Forwarded-For", "203.0.113.7")];
    let target = |ticket: &str| format!("/events/news?ticket={ticket}");
    let mut held = gateway.open(&target(&ticket(&gateway, &token)), &of);
    held.opened();
    let made = ticket(&gateway, &token);
    assert_comes_back(gateway.open(&target(&made), &of));
    drop(held);
    gateway.wait_for_metric("tidegate_open_connections", &[], 0.0);
    gateway.open(&target(&made), &of).opened();
}

#[test]
fn while_redis_is_away_no_ticket_is_refused_and_none_is_given_out() {
    let mut redis = Redis::durable();
    let config = [
        TOKENS,
        ("stream.heartbeat", "1s"),
        ("auth.ticket_life", "10m"),
    ];
    let gateway = Gateway::over(&redis, &config);
    let token = token("alice", 600);
    let answer = ask(&gateway, "POST", "/tickets", &token).json();
    let made = answer["ticket"].as_str().unwrap().to_owned();
    redis.kill();
    gateway.wait_for_metric("tidegate_redis_up", &[("role", "live")], 0.0);
    let target = format!("/events/news?ticket={made}");
    for fields in [&[][..], &[("Tidegate-Failover", "1")]] {
        assert_comes_back(gateway.open(&target, fields));
    }
    gateway.wait_for_metric(
        "tidegate_connections_refused_total",
        &[("reason", "undecided")],
        2.0,
    );
    // What is no ticket at all is known to be none.
    assert_no_ticket(&briefly(&gateway, "ticket=x", &[]));
    ask(&gateway, "POST", "/tickets", &token).problem(503);
    assert!((tickets(&gateway, "away") - 1.0).abs() < 0.5);
    redis.restart();
    let mut stream = None;
    eventually("the same ticket opens a stream", || {
        let mut again = open(&gateway, &made);
        assert_eq!(again.status(), 200, "{}", again.text());
        let first = again.try_next_event();
        let is_open = first.is_some_and(|event| event.event == "tidegate.open");
        stream = is_open.then_some(again);
        is_open
    });
    assert_no_ticket(&briefly(&gateway, &format!("ticket={made}"), &[]));
}

/// A Redis that accepts questions and does not answer: whoever asks waits for its own time, and no longer.
#[test]
fn while_redis_is_silent_no_ticket_is_refused_and_few_ask_at_once() {
    let mut redis = Redis::start();
    let config = [
        TOKENS,
        ("limits.replays_max", "1"),
        ("stream.open_wait", "200ms"),
        ("redis.command_timeout", "1s"),
        ("auth.ticket_life", "10m"),
    ];
    let gateway = Gateway::over(&redis, &config);
    let token = token("alice", 600);
    let made: Vec<String> = (0..4)
        .map(|_| {
            let answer = ask(&gateway, "POST", "/tickets", &token).json();
            answer["ticket"].as_str().unwrap().to_owned()
        })
        .collect();
    redis.pause();
    std::thread::scope(|scope| {
        for ticket in &made {
            scope.spawn(|| assert_comes_back(open(&gateway, ticket)));
        }
    });
    let away = [("reason", "undecided")];
    gateway.wait_for_metric("tidegate_connections_refused_total", &away, 4.0);
    redis.resume();
    for ticket in &made {
        eventually("the same ticket opens a stream", || {
            let first = open(&gateway, ticket).try_next_event();
            first.is_some_and(|event| event.event == "tidegate.open")
        });
    }
}

#[test]
fn one_has_so_many_tickets_and_others_have_theirs() {
    over_both_brokers(
        &[TOKENS, ("auth.tickets_each_max", "3")],
        |broker, gateway| {
            let (alice, bob) = (token("alice", 60), token("bob", 60));
            let mut made: Vec<String> = (0..3).map(|_| ticket(gateway, &alice)).collect();
            // By whatever token.
            for by in [&alice, &token("alice", 61)] {
                let answer = ask(gateway, "POST", "/tickets", by);
                let detail = answer.problem(429);
                assert!(
                    detail.contains("auth.tickets_each_max"),
                    "{broker} {detail}"
                );
                let wait: u64 = answer.headers.get("retry-after").unwrap().parse().unwrap();
                assert!((1..=31).contains(&wait), "{broker} {wait}");
            }
            assert!((tickets(gateway, "limit") - 2.0).abs() < 0.5, "{broker}");
            ticket(gateway, &bob);
            // One that is used makes room.
            drop(opened(gateway, &made.remove(1)));
            made.push(ticket(gateway, &alice));
            ask(gateway, "POST", "/tickets", &alice).problem(429);
            for one in made {
                drop(opened(gateway, &one));
            }
        },
    );
}

#[test]
fn a_ticket_is_made_of_a_token_alone() {
    let gateway = Gateway::start(&[
        TOKENS,
        ("auth.publish_key", "key"),
        ("auth.anonymous", "public:*"),
        ("cors.origins", "https://app.example.com"),
    ]);
    let token = token("alice", 60);
    gateway.post("/tickets", &[], "").problem(401);
    ask(&gateway, "POST", "/tickets", "nonsense").problem(401);
    let detail = ask(&gateway, "POST", "/tickets", "key").problem(403);
    assert!(detail.contains("made of a token"), "{detail}");
    let cookie = format!("__Host-tidegate={token}");
    let in_cookie = ("Cookie", cookie.as_str());
    gateway.post("/tickets", &[in_cookie], "").problem(403);
    for (origin, status) in [
        ("http://localhost", 201),
        ("https://app.example.com", 201),
        ("https://evil.example", 403),
    ] {
        let answer = gateway.post("/tickets", &[in_cookie, ("Origin", origin)], "");
        assert_eq!(answer.status, status, "{origin} {}", answer.text());
    }
    let detail = gateway.get("/tickets").problem(405);
    assert!(detail.ends_with("takes POST"), "{detail}");
    // Where there are no tokens, there is nothing to make one of, and the name is somebody else's.
    for config in [
        &[][..],
        &[("auth.publish_key", "key")],
        &[("auth.anonymous", "news")],
    ] {
        let gateway = Gateway::start(config);
        for target in ["/tickets", "/session"] {
            let detail = ask(&gateway, "POST", target, "key").problem(404);
            assert!(detail.contains("auth.token_secret"), "{detail}");
        }
        let mut stream = gateway.open("/events/news?ticket=5", &[]);
        assert_eq!(stream.opened().json()["ignored"], json!(["ticket"]));
    }
}

/// Whoever reads Redis, a log, a metric or an error finds neither a ticket nor the token that it stands for.
#[test]
fn no_ticket_stands_anywhere() {
    let redis = Redis::start();
    let config = [TOKENS, ("logging.level", "trace")];
    let replicas = fleet(&redis, 1, &config);
    let gateway = &replicas[0];
    let nginx = Nginx::before(&replicas);
    let token = token("alice", 60);
    let [first, second] = [(); 2].map(|()| {
        let answer = nginx.post("/tickets", &[("Authorization", &bearer(&token))], "");
        answer.json()["ticket"].as_str().unwrap().to_owned()
    });
    let mut kept = String::new();
    let keys: Vec<String> = redis.run(&["KEYS", "*ticket*"]);
    assert_eq!(keys.len(), 3, "{keys:?}");
    for key in keys {
        let life: i64 = redis.run(&["PTTL", &key]);
        assert!((1..=30_000).contains(&life), "{key} {life}");
        let value: Vec<u8> = match redis.run_bytes(&[b"GET", key.as_bytes()]) {
            Ok(value) => value,
            Err(_) => redis
                .run::<Vec<String>>(&["ZRANGE", &key, "0", "-1"])
                .concat()
                .into_bytes(),
        };
        kept.extend([&*key, " ", &*String::from_utf8_lossy(&value), "\n"]);
    }
    let mut stream = nginx.open(&format!("/events/news?ticket={first}"), &[]);
    stream.opened();
    let streams = gateway.get("/streams").text();
    for target in [
        "/events/news",
        "/events/nothing",
        "/topics",
        "/streams",
        "/nowhere",
    ] {
        drop(nginx.get(&format!("{target}?ticket={first}&max_age=1ms")));
        drop(gateway.get(&format!("{target}?ticket={first}&limit=x")));
    }
    drop(stream);
    nginx.wait_for_access("GET /nowhere");
    gateway.wait_for_log("stream closed").unwrap();
    let written = [
        kept,
        streams,
        gateway.log().join("\n"),
        nginx.written().join("\n"),
        gateway.get("/metrics").text(),
    ];
    let signature = token.rsplit('.').next().unwrap();
    for text in &written {
        for secret in [&first[4..], &second[4..], signature, "alice"] {
            assert!(!text.contains(secret), "{secret} in {text}");
        }
    }
    assert!(written[2].contains("DEBUG") && written[3].contains("GET /events/news"));
}

fn set_cookies(answer: &Answer) -> Vec<String> {
    let all = answer.headers.all("set-cookie");
    all.into_iter().map(str::to_owned).collect()
}

#[test]
fn a_session_is_a_cookie_of_whoever_says_who_it_is() {
    let gateway = Gateway::start(&[
        TOKENS,
        ("auth.publish_key", "key"),
        ("auth.leeway", "0s"),
        ("cors.origins", "*,https://app.example.com"),
    ]);
    let token = token("alice", 60);
    let ask = |method: &str, fields: &[(&str, &str)]| {
        let fields = [&[("X-Forwarded-Proto", "https")], fields].concat();
        gateway.request(method, "/session", &fields, "")
    };
    let header = bearer(&token);
    let (by, ours) = (
        ("Authorization", header.as_str()),
        ("Origin", "https://localhost"),
    );
    let answer = ask("POST", &[by, ours]);
    assert_eq!(answer.status, 204, "{}", answer.text());
    assert_eq!(answer.headers.get("cache-control"), Some("no-store"));
    let set = set_cookies(&answer);
    let (cookie, flags) = set[0].split_once("; ").unwrap();
    assert_eq!(cookie, format!("__Host-tidegate={token}"));
    let flags = flags
        .strip_prefix("Path=/; HttpOnly; SameSite=Lax; Secure; Max-Age=")
        .unwrap();
    assert!((1..=60).contains(&flags.parse::<u64>().unwrap()), "{set:?}");
    assert_eq!(set.len(), 1);
    // With it a stream opens.
    let mut stream = gateway.open("/events/news", &[("Cookie", cookie)]);
    stream.opened();
    // A key has no end, and its cookie goes with the browser.
    let answer = ask("POST", &[("Authorization", "Bearer key"), ours]);
    let expected = "__Host-tidegate=key; Path=/; HttpOnly; SameSite=Lax; Secure";
    assert_eq!(set_cookies(&answer), [expected]);
    // It is over when a page says so, whatever is in it.
    for fields in [
        &[ours][..],
        &[ours, ("Cookie", cookie)],
        &[ours, ("Cookie", "__Host-tidegate=x")],
    ] {
        let answer = ask("DELETE", fields);
        let expected = "__Host-tidegate=; Path=/; HttpOnly; SameSite=Lax; Secure; Max-Age=0";
        assert_eq!(
            (answer.status, set_cookies(&answer)),
            (204, vec![expected.to_owned()])
        );
    }
    // Nobody logs somebody in but by a page of ours, and by what it has itself.
    let table: [(&[(&str, &str)], u16); 8] = [
        (&[ours], 401),
        (&[("Authorization", "Bearer x"), ours], 401),
        (&[("Cookie", cookie), ours], 401),
        (&[by], 403),
        (&[by, ("Origin", "https://app.example.com")], 204),
        (&[by, ("Origin", "https://evil.example")], 403),
        (&[by, ("Origin", "null")], 403),
        (&[by, ours, ("Authorization", &header)], 400),
    ];
    for (fields, status) in table {
        let answer = ask("POST", fields);
        assert_eq!(answer.status, status, "{fields:?} {}", answer.text());
        assert_eq!(set_cookies(&answer).is_empty(), status != 204, "{fields:?}");
    }
    for fields in [&[][..], &[("Origin", "https://evil.example")]] {
        let answer = ask("DELETE", fields);
        answer.problem(403);
        assert_eq!(set_cookies(&answer), [""; 0]);
    }
    // A cookie that is too large for browsers would be lost without a word.
    let large = token_of(&json!({"exp": now() + 60, "x": "x".repeat(4000)}));
    let detail = ask("POST", &[("Authorization", &bearer(&large)), ours]).problem(400);
    assert!(
        detail.contains("4096") && !detail.contains(&large[..40]),
        "{detail}"
    );
    assert!(
        gateway
            .get("/session")
            .problem(405)
            .ends_with("takes POST and DELETE")
    );
    let without = Gateway::start(&[TOKENS, ("auth.cookie", "")]);
    let detail = without.post("/session", &[by, ours], "").problem(404);
    assert!(detail.contains("auth.cookie"), "{detail}");
}

/// Over plain http browsers take no cookie that begins with `__Host-`: on this machine, and only there, another name counts.
#[test]
fn on_this_machine_a_session_goes_over_plain_http() {
    let gateway = Gateway::start(&[TOKENS]);
    let token = token("alice", 60);
    let header = bearer(&token);
    let (by, ours) = (
        ("Authorization", header.as_str()),
        ("Origin", "http://localhost"),
    );
    let answer = gateway.post("/session", &[by, ours], "");
    let set = set_cookies(&answer);
    let plain = format!("tidegate={token}; Path=/; HttpOnly; SameSite=Lax; Max-Age=");
    assert!(set.len() == 1 && set[0].starts_with(&plain), "{set:?}");
    let cookie = format!("tidegate={token}");
    let status = |fields: &[(&str, &str)]| {
        let fields = [&[("Cookie", cookie.as_str())], fields].concat();
        gateway
            .request("GET", "/topics/news/events", &fields, "")
            .status
    };
    assert_eq!(status(&[]), 200);
    assert_eq!(
        status(&[
            ("X-Forwarded-Proto", "http"),
            ("X-Forwarded-For", "127.0.0.1")
        ]),
        200
    );
    // Neither for a browser from elsewhere, nor over https.
    for field in [
        ("X-Forwarded-Proto", "https"),
        ("X-Forwarded-For", "203.0.113.7"),
        ("Forwarded", "for=127.0.0.1;proto=https"),
    ] {
        assert_eq!(status(&[field]), 401, "{field:?}");
    }
    let head = format!(
        "GET /topics/news/events HTTP/1.1\r\nHost: events.example.com\r\nCookie: {cookie}\r\n\r\n"
    );
    let named = crate::support::exchange(gateway.address(), head.as_bytes());
    assert_eq!(named.status, 401);
    // Two are two, and both go.
    assert_eq!(
        status(&[("Cookie", &format!("__Host-tidegate={token}"))]),
        400
    );
    let gone = set_cookies(&gateway.request("DELETE", "/session", &[ours], ""));
    let names: Vec<&str> = gone
        .iter()
        .map(|one| one.split('=').next().unwrap())
        .collect();
    assert_eq!(names, ["__Host-tidegate", "tidegate"]);
}

#[test]
fn the_life_and_number_of_tickets_change_at_sighup() {
    let directory = crate::support::Directory::create();
    let path = directory.0.join("tidegate.toml");
    let file = |life: &str, most: u32| {
        let text = format!(
            "[auth]\ntoken_secret = '{SECRET}'\nticket_life = '{life}'\ntickets_each_max = {most}\n"
        );
        std::fs::write(&path, text).unwrap();
    };
    file("30s", 1);
    let mut gateway = Gateway::launch_with(&["--config", &path.to_string_lossy()], &[]);
    gateway.wait_ready();
    let token = token("alice", 60);
    ticket(&gateway, &token);
    ask(&gateway, "POST", "/tickets", &token).problem(429);
    file("90s", 2);
    gateway.hang_up();
    let taken = [("outcome", "taken")];
    gateway.wait_for_metric("tidegate_config_reloads_total", &taken, 1.0);
    let made: Value = ask(&gateway, "POST", "/tickets", &token).json();
    assert_eq!(made["expires_in"], 90);
}
