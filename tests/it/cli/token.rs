//! `tidegate token` and `tidegate key`: what they make is taken, and what is refused is explained and not shown.

use super::done;
use crate::support::tokens::{SECRET, TOKENS};
use crate::support::{Gateway, run, run_with};

const CONFIG: [(&str, &str); 1] = [("TIDEGATE__AUTH__TOKEN_SECRET", SECRET)];

#[test]
fn a_token_that_was_made_is_taken() {
    let gateway = Gateway::start(&[TOKENS]);
    let made = [
        "token",
        "new",
        "--sub",
        "alice",
        "--subscribe",
        "a:*",
        "--publish",
        "a:1",
        "--for",
        "5m",
    ];
    let token = done(run(&made, &CONFIG));
    let bearer = format!("Bearer {}", token.trim());
    let fields = [("Authorization", bearer.as_str())];
    gateway.post("/events/a:1", &fields, "x").id();
    gateway
        .request("GET", "/topics/b/events", &fields, "")
        .problem(403);
    let said = done(run_with(&["token", "check"], &CONFIG, &bearer));
    assert!(said.starts_with("the token is good for 5m"), "{said}");
    let said = done(run_with(&["token", "explain"], &CONFIG, &token));
    for part in [
        "header  alg \"HS256\"",
        "claim   sub \"alice\"",
        "grants  subscribe a:*",
        "grants  publish a:1",
        "key     HS256 kid (any)",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let parts: Vec<&str> = token.trim().split('.').collect();
    assert!(parts.iter().all(|part| !said.contains(part)), "{said}");
}

#[test]
fn commands_read_with_a_token() {
    let gateway = Gateway::start(&[TOKENS]);
    let made = [
        "token",
        "new",
        "--subscribe",
        "a",
        "--list",
        "a",
        "--publish",
        "a",
    ];
    let token = done(run(&made, &CONFIG));
    let with = [("TIDEGATE_TOKEN", token.trim())];
    let url = gateway.url();
    let ask = |words: &[&str]| run(&[words, &["--url", &url]].concat(), &with);
    done(ask(&["publish", "a", "hello"]));
    assert_eq!(done(ask(&["topics"])), "a");
    done(ask(&["topics", "show", "a"]));
    assert!(done(ask(&["topics", "history", "a"])).contains("hello"));
    let tail = ["tail", "a", "--since", "earliest", "--limit", "1"];
    assert_eq!(done(ask(&tail)), "hello");
    let without = run(&["tail", "a", "--url", &url], &[]);
    assert_eq!(without.code, Some(1));
    assert!(without.stderr.contains("TIDEGATE_TOKEN"), "{without:?}");
    let other = ask(&["tail", "b"]);
    assert!(
        other.stderr.contains("does not grant subscribe"),
        "{other:?}"
    );
}

#[test]
fn a_token_that_is_refused_is_explained_and_not_shown() {
    let make = |more: &[&str], secret: &str| {
        let args = [&["token", "new", "--sub", "alice"], more].concat();
        done(run(&args, &[("TIDEGATE__AUTH__TOKEN_SECRET", secret)]))
            .trim()
            .to_owned()
    };
    let other = "another secret, of thirty-two bytes and more";
    let table = [
        (
            make(&[], other),
            "signature: it was not signed with this key",
        ),
        ("nonsense".to_owned(), "malformed: it is no signed token"),
        (
            "x".repeat(9000),
            "too_long: it has more bytes than auth.token_bytes_max",
        ),
    ];
    for (token, why) in table {
        for command in ["check", "explain"] {
            let said = run_with(&["token", command], &CONFIG, &token);
            assert_eq!(said.code, Some(1), "{said:?}");
            let expected = format!("the token is refused: {why}");
            assert!(said.stderr.contains(&expected), "{said:?}");
            let signature = token.rsplit('.').next().unwrap();
            assert!(!said.stdout.contains(signature) && !said.stderr.contains(signature));
        }
    }
    // What this gateway would refuse is not made.
    for bad in [
        vec!["--for", "40days"],
        vec!["--subscribe", "a,b"],
        vec!["--for", "soon"],
        vec!["--claim", "x"],
    ] {
        let args = [&["token", "new"], bad.as_slice()].concat();
        assert_eq!(run(&args, &CONFIG).code, Some(2), "{bad:?}");
    }
    let without = run(&["token", "new"], &[]);
    assert_eq!(without.code, Some(1));
    assert!(
        without
            .stderr
            .contains("set auth.token_secret or auth.keys"),
        "{without:?}"
    );
}

#[test]
fn a_key_comes_with_its_hash() {
    let made = || done(run(&["key", "new"], &[]));
    let (first, second) = (made(), made());
    assert_ne!(first, second);
    let lines: Vec<&str> = first.lines().collect();
    let [key, hash] = lines.as_slice() else {
        panic!("{first}");
    };
    assert!(key.starts_with("tgk_") && hash.starts_with("sha256:"));
    let publishers = format!("[{{name = 'p', hash = '{hash}', topics = ['a']}}]");
    let gateway = Gateway::start(&[("auth.publishers", &publishers)]);
    let bearer = format!("Bearer {key}");
    gateway
        .post("/events/a", &[("Authorization", &bearer)], "x")
        .id();
    gateway.post("/events/a", &[], "x").problem(401);
}
