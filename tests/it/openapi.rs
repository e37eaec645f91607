//! Goal: `docs/openapi.json` says what the gateway does.
//!
//! Method: each path of the file is asked with every method. `src/http/openapi.rs` compares names, and `tests/api/run` sends
//! all sorts of requests.

use crate::support::{Gateway, exchange, request};
use serde_json::Value;
use std::collections::BTreeSet;

const METHODS: [&str; 8] = [
    "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE",
];

fn paths() -> serde_json::Map<String, Value> {
    let document: Value = serde_json::from_str(include_str!("../../docs/openapi.json")).unwrap();
    document["paths"].as_object().unwrap().clone()
}

#[test]
fn each_path_takes_the_methods_that_are_described() {
    let gateway = Gateway::start(&[]);
    gateway.publish("news", "x");
    for (path, described) in paths() {
        let target = path.replace("{topic}", "news");
        let target = if path.starts_with("/events") {
            format!("{target}?max_age=1ms")
        } else {
            target
        };
        let described = described.as_object().unwrap();
        for method in METHODS {
            // GET takes HEAD along.
            let is_described = described.contains_key(&method.to_lowercase())
                || method == "HEAD" && described.contains_key("get");
            let answer = exchange(gateway.address(), &request(method, &target, &[], b""));
            let about = format!("{method} {path}: {}", answer.text());
            assert_eq!(answer.status != 405, is_described, "{about}");
            let answers = &described
                .get(&method.to_lowercase())
                .unwrap_or(&Value::Null)["responses"];
            let is_told = answers.get(answer.status.to_string()).is_some();
            assert!(is_told || answers.is_null(), "{about}");
            if answer.status == 405 {
                let allowed = answer.headers.get("allow").unwrap();
                let allowed: BTreeSet<String> = allowed
                    .split(',')
                    .map(|one| one.trim().to_lowercase())
                    .collect();
                let mut known: BTreeSet<String> = described
                    .keys()
                    .filter(|name| *name != "parameters")
                    .cloned()
                    .collect();
                if known.contains("get") {
                    known.insert("head".to_owned());
                }
                assert_eq!(allowed, known, "{about}");
            }
        }
    }
}
