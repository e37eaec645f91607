//! `tidegate topics`.

use super::{ask, done};
use crate::support::{Gateway, Process, Terminal, binary, run};
use std::io::Write as _;

#[test]
fn topics_are_listed_and_shown_and_their_history_read() {
    let gateway = Gateway::start(&[("limits.history_events_max", "2")]);
    let first = gateway.publish("news", "hello");
    let second = gateway
        .post("/events/news?event=price", &[], "{\"eur\":1}")
        .id();
    let third = gateway.publish("news", "two\nlines");
    gateway.publish_batch(&[("a/b c", "x")]);
    assert_eq!(done(ask(&gateway, &["topics"])), "a/b c\nnews");
    assert_eq!(done(ask(&gateway, &["topics", "list"])), "a/b c\nnews");
    let shown = done(ask(&gateway, &["topics", "show", "news"]));
    for part in ["news", "3", &first, &third] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    let json = done(ask(&gateway, &["topics", "show", "a/b c", "--json"]));
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(
        (&json["topic"], &json["length"]),
        (&"a/b c".into(), &1.into())
    );
    // More than one page.
    let history = done(ask(&gateway, &["topics", "history", "news"]));
    assert_eq!(
        history,
        format!(
            "{first}  hello\n{second}  price: {{\"eur\":1}}\n{third}  two\n{:1$}  lines",
            "",
            third.len()
        )
    );
    let rest = [
        "topics", "history", "news", "--after", &first, "--limit", "1", "--json",
    ];
    let rest: serde_json::Value = serde_json::from_str(&done(ask(&gateway, &rest))).unwrap();
    assert_eq!(rest["id"], second.as_str());
    let none = ask(&gateway, &["topics", "show", "none"]);
    assert_eq!(none.code, Some(1));
    assert!(none.stderr.contains("has no log"), "{none:?}");
    assert!(!none.stderr.contains('{'), "{none:?}");
}

#[test]
fn a_topic_is_deleted_only_by_who_means_it() {
    let gateway = Gateway::start(&[]);
    let id = gateway.publish("news", "hello");
    let there = || gateway.get("/topics/news").json()["last"] == id.as_str();
    let asked = ask(&gateway, &["topics", "delete", "news"]);
    assert_eq!(asked.code, Some(2), "nobody is there to be asked");
    assert!(asked.stderr.contains("--yes"), "{asked:?}");
    assert!(there());
    for (answer, goes) in [("n\n", false), ("\n", false), ("", false), ("yes\n", true)] {
        let mut terminal = Terminal::of(80);
        let mut command = binary();
        command.args(["topics", "delete", "news", "--url", &gateway.url()]);
        let mut process =
            Process::start("delete", &mut command, terminal.side(), terminal.side()).unwrap();
        process
            .stderr
            .wait_for(|line| line.contains("Delete").then_some(()));
        if answer.is_empty() {
            // Whoever has gone has not said yes.
            drop(terminal);
        } else {
            terminal.ours.write_all(answer.as_bytes()).unwrap();
        }
        let code = process.wait().code();
        assert_eq!(
            code,
            Some(i32::from(!goes)),
            "{answer:?} {:?}",
            process.stderr.all()
        );
        assert_eq!(there(), !goes, "{answer:?}");
    }
    gateway.publish("other", "hello");
    done(ask(&gateway, &["topics", "delete", "other", "--yes"]));
    let gone = ask(&gateway, &["topics", "delete", "none", "--yes"]);
    assert_eq!(gone.code, Some(1), "{gone:?}");
}

#[test]
fn who_may_not_delete_is_told() {
    let key = "a-key-of-sufficient-length-for-this";
    let gateway = Gateway::start(&[("auth.publish_key", key)]);
    let url = gateway.url();
    let words = ["topics", "delete", "news", "--yes", "--url", &url];
    let refused = run(&words, &[]);
    assert_eq!(refused.code, Some(1));
    assert!(
        refused.stderr.contains("TIDEGATE_PUBLISH_KEY"),
        "{refused:?}"
    );
    let taken = run(&words, &[("TIDEGATE_PUBLISH_KEY", key)]);
    assert!(taken.stderr.contains("has no log"), "{taken:?}");
}
