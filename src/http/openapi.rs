//! `docs/openapi.json` has what there is here, and nothing else: paths, methods, parameters.
//!
//! Whether answers are as it says is seen from outside: `tests/it/openapi.rs`, `tests/api/run`.

use super::nowhere::{OPS_PATHS, PATHS, methods_of};
use super::query::NOTHING;
use super::vocabulary::Vocabulary;
use super::{batch, health, publish, streams, subscribe, topics};
use serde_json::{Map, Value};
use std::collections::BTreeSet;

/// What each operation takes in its query; all others take nothing.
const TAKEN: [(&str, &str, &[Vocabulary]); 9] = [
    ("/events", "get", &[subscribe::NAMES]),
    ("/events", "post", &[batch::BATCH, batch::ONE]),
    ("/events/{topic}", "get", &[subscribe::NAMES]),
    ("/events/{topic}", "post", &[publish::ONE]),
    ("/topics", "get", &[topics::PAGE]),
    ("/topics/{topic}", "get", &[NOTHING]),
    ("/topics/{topic}/events", "get", &[topics::PAGE]),
    ("/readyz", "get", &[health::READYZ]),
    ("/streams", "get", &[streams::NAMES]),
];
/// Members of a path that are no methods.
const SHARED: &str = "parameters";

fn document() -> Value {
    serde_json::from_str(include_str!("../../docs/openapi.json")).unwrap()
}

fn paths(document: &Value) -> &Map<String, Value> {
    document["paths"].as_object().unwrap()
}

/// What a reference leads to.
fn followed<'a>(document: &'a Value, value: &'a Value) -> &'a Value {
    let Some(reference) = value["$ref"].as_str() else {
        return value;
    };
    let found = document.pointer(reference.strip_prefix('#').unwrap());
    found.unwrap_or_else(|| panic!("{reference} leads nowhere"))
}

/// The parameters of an operation that stand in its query.
fn in_query<'a>(document: &'a Value, path: &str, method: &str) -> BTreeSet<&'a str> {
    let all = document["paths"][path][method]["parameters"].as_array();
    let all = all.into_iter().flatten();
    let all = all.map(|parameter| followed(document, parameter));
    all.filter(|parameter| parameter["in"] == "query")
        .map(|parameter| parameter["name"].as_str().unwrap())
        .collect()
}

#[test]
fn it_has_every_path() {
    let document = document();
    let described: BTreeSet<&str> = paths(&document).keys().map(String::as_str).collect();
    let routes = include_str!("routes.rs").split(".route(").skip(1);
    let routed: BTreeSet<&str> = routes.map(|rest| rest.split('"').nth(1).unwrap()).collect();
    assert_eq!(described, routed);
    let told = PATHS.iter().chain(OPS_PATHS);
    let told = told.map(|path| path.replace("TOPIC", "{topic}"));
    // The page is for who looks for nothing else.
    let told: BTreeSet<String> = told.chain(["/".to_owned()]).collect();
    let described = described.iter().map(|path| (*path).to_owned());
    assert_eq!(told, described.collect());
}

#[test]
fn it_has_the_methods_that_a_refusal_names() {
    let document = document();
    for (path, described) in paths(&document) {
        let methods = described.as_object().unwrap().keys();
        let methods = methods.filter(|method| *method != SHARED);
        let mut methods: BTreeSet<String> = methods.map(|method| method.to_uppercase()).collect();
        // GET takes HEAD along.
        if methods.contains("GET") {
            methods.insert("HEAD".to_owned());
        }
        let named = methods_of(&path.replace("{topic}", "news")).replace(" and ", ", ");
        let named: BTreeSet<String> = named.split(", ").map(str::to_owned).collect();
        assert_eq!(methods, named, "{path}");
    }
}

#[test]
fn it_has_every_parameter() {
    let document = document();
    let mut seen = 0;
    for (path, described) in paths(&document) {
        for method in described.as_object().unwrap().keys() {
            let described = in_query(&document, path, method);
            let row = TAKEN.iter().find(|row| (row.0, row.1) == (path, method));
            let taken = row.map_or(&[][..], |row| row.2);
            seen += usize::from(row.is_some());
            // Where the path names the topic, one beside it is known, and refused.
            let is_named = |name: &&&str| path.contains("{topic}") && **name == "topic";
            let names = taken.iter().flat_map(|taken| taken.names);
            for name in names.filter(|name| !is_named(name)) {
                assert!(described.contains(name), "{method} {path}: {name}");
            }
            for name in described {
                let is_taken = taken.iter().any(|taken| taken.knows(name));
                assert!(is_taken, "{method} {path}: {name}");
            }
        }
    }
    assert_eq!(seen, TAKEN.len());
}

#[test]
fn it_has_every_member_of_a_line() {
    let document = document();
    let described = &document["components"]["schemas"]["BatchLine"]["properties"];
    let described: BTreeSet<&str> = described
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    let known = batch::LINE.names.iter().chain(batch::LINE.also);
    assert_eq!(described, known.copied().collect());
}

#[test]
fn its_references_lead_somewhere_and_all_that_it_names_is_used() {
    let document = document();
    let mut used = BTreeSet::new();
    collect(&document, &mut used);
    for reference in &used {
        assert!(
            document
                .pointer(reference.strip_prefix('#').unwrap())
                .is_some(),
            "{reference}"
        );
    }
    for (kind, members) in document["components"].as_object().unwrap() {
        for name in members.as_object().unwrap().keys() {
            let reference = format!("#/components/{kind}/{name}");
            let is_named_otherwise = kind == "securitySchemes" || name == "BatchLine";
            assert!(
                is_named_otherwise || used.contains(&reference),
                "{reference}"
            );
        }
    }
}

/// All references below a value.
fn collect(value: &Value, into: &mut BTreeSet<String>) {
    match value {
        Value::Object(members) => {
            if let Some(Value::String(reference)) = members.get("$ref") {
                into.insert(reference.clone());
            }
            members.values().for_each(|value| collect(value, into));
        }
        Value::Array(items) => items.iter().for_each(|value| collect(value, into)),
        _ => {}
    }
}
