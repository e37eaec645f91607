//! Goal: the recipe of docs/same-origin.md and the programs of docs/quick-starts.md work as they stand.
//!
//! Method: their blocks are cut out of the pages and run: nginx before a gateway, programs against a gateway over
//! Redis. Only addresses are exchanged. Programs whose libraries would have to be fetched are left out.

use crate::support::{Directory, Gateway, Nginx, Process, Redis, eventually};
use std::path::Path;
use std::process::Command;

/// The blocks of a page in this language, in order.
fn blocks<'a>(page: &'a str, language: &str) -> Vec<&'a str> {
    let begin = format!("\n```{language}\n");
    let rest = page.split(&begin).skip(1);
    rest.map(|rest| rest.split_once("```\n").expect("the end of a block").0)
        .collect()
}

#[test]
fn a_site_behind_nginx_has_the_events_on_its_own_origin() {
    let page = include_str!("../../docs/same-origin.md");
    let mut gateway = Gateway::start(&[]);
    let [block] = blocks(page, "nginx")[..] else {
        panic!("one block for nginx");
    };
    let block = block.replace("127.0.0.1:8080", &gateway.address().to_string());
    let site = Nginx::with(&format!("{block}location / {{ return 200 page; }}"));
    assert_eq!(site.get("/").text(), "page");

    let mut stream = site.open("/events?topic=orders", &[]);
    stream.opened();
    // What the browser says of a page of this site, over plain HTTP: requests of these tests go to that name.
    let origin = ("Origin", "http://localhost");
    let own = site.post("/events/orders", &[origin], "1");
    assert_eq!(stream.next_event().id(), own.id());
    let foreign = site.post("/events/orders", &[("Origin", "http://other.example")], "2");
    foreign.problem(403);
    stream.drop_connection();
    gateway.wait_for_metric("tidegate_open_connections", &[], 0.0);

    gateway.kill9();
    let away = site.get("/events?topic=orders");
    assert_eq!(
        (away.status, away.text().as_str()),
        (200, "retry: 3000\n\n")
    );
    assert_eq!(away.headers.get("content-type"), Some("text/event-stream"));
    assert_eq!(site.post("/events/orders", &[], "3").status, 502);
}

#[test]
fn quick_starts_for_curl_redis_cli_and_python_publish() {
    let page = include_str!("../../docs/quick-starts.md");
    let redis = Redis::start();
    let gateway = Gateway::over(&redis, &[]);
    let mut stream = gateway.listen(&["orders"]);
    let run = |program: &str, text: &str| {
        let text = text
            .replace("127.0.0.1:8080", &gateway.address().to_string())
            .replace("redis-cli ", &format!("redis-cli -p {} ", redis.port()));
        let said = Command::new(program).args(["-c", &text]).output().unwrap();
        assert!(said.status.success(), "{text}\n{said:?}");
        String::from_utf8(said.stdout).unwrap()
    };
    for block in blocks(page, "sh") {
        run("bash", &format!("set -euo pipefail\n{block}"));
    }
    let answer = run("python3", blocks(page, "python")[1]);
    assert!(answer.contains("\"topic\":\"orders\""), "{answer}");
    let published = [5, 6, 7, 2].map(|item| format!("{{\"item\":{item}}}"));
    assert_eq!(stream.next_data(4), published);
}

#[test]
fn the_quick_start_for_node_publishes_and_reads() {
    let page = include_str!("../../docs/quick-starts.md");
    if Command::new("node").arg("--version").output().is_err() {
        eprintln!("NOT CHECKED: no node on the path, and so not its quick start");
        return;
    }
    let gateway = Gateway::start(&[]);
    let folder = Directory::create();
    let program = blocks(page, "js")[0];
    let program = program.replace("127.0.0.1:8080", &gateway.address().to_string());
    std::fs::write(folder.0.join("orders.mjs"), program).unwrap();
    install(&folder.0);
    let mut node = Command::new("node");
    let node = Process::spawn("node", node.arg("orders.mjs").current_dir(&folder.0)).unwrap();
    let shown = || node.stdout.all().join("\n");
    eventually("the program shows its own event", || {
        shown() == "orders new { item: 1 }"
    });
}

/// Our client, where Node looks for it.
fn install(folder: &Path) {
    let client = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/js");
    let modules = folder.join("node_modules");
    std::fs::create_dir(&modules).unwrap();
    std::os::unix::fs::symlink(client, modules.join("tidegate")).unwrap();
}
