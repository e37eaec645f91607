//! Goal: all replicas are replaced one by one, nginx is reloaded after each, events are published all
//! the while, and no `EventSource` of a real browser loses an event, sees one twice, or gives up.
//!
//! Method: Chromium without a window, with several pages of several streams each; a browser opens six
//! connections to an origin, so each page has a name of its own for nginx. Each event is published
//! when every page has answered that none of its streams is closed, so that the load is what the
//! browser can take. How many streams came back in one second is told, not judged.
//!
//! `TIDEGATE_ROLLING_PAGES` and `TIDEGATE_ROLLING_DRAIN` make it longer: `make rolling-deploy`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    unreachable_pub,
    reason = "a failed step ends the test"
)]

#[path = "../support/mod.rs"]
mod support;

#[path = "../browser/chromium.rs"]
mod chromium;

use chromium::{Chromium, Page};
use serde_json::json;
use support::{Nginx, Redis, eventually, fleet, replica_at};

/// Streams of one page: one connection is left for the page itself.
const STREAMS: usize = 5;

/// Opens the streams of a page, and keeps what becomes of them.
const OPEN: &str = "window.opens = [];
    window.givenUp = 0;
    window.gaps = 0;
    window.sources = Array.from({ length: COUNT }, () => {
        const source = new EventSource('/events/news');
        source.seen = [];
        source.onopen = () => opens.push(Date.now());
        source.onmessage = (event) => source.seen.push(Number(event.data));
        source.onerror = () => { givenUp += source.readyState === EventSource.CLOSED; };
        source.addEventListener('tidegate.gap', () => { gaps += 1; });
        return source;
    });
    true";

/// The browser, its pages, and what was published.
struct Load {
    browser: Chromium,
    pages: Vec<Page>,
    nginx: Nginx,
    published: usize,
}

impl Load {
    /// One event, once every page has said that it is well.
    fn step(&mut self) {
        for page in &self.pages {
            self.browser.turn_to(page);
            let unwell = self.browser.evaluate("givenUp + gaps");
            assert_eq!(unwell, json!(0), "a stream is closed, or was told of a gap");
        }
        let (number, key) = (
            self.published.to_string(),
            format!("event-{}", self.published),
        );
        // What has no answer is sent again, and published once.
        eventually("it is published", || {
            let headers = [("Idempotency-Key", key.as_str())];
            let answer = self.nginx.post("/events/news", &headers, &number);
            answer.status == 200 && answer.json()["id"].is_string()
        });
        self.published += 1;
    }

    /// Goes on until this holds on every page.
    fn until(&mut self, expression: &str) {
        for page in self.pages.clone() {
            self.browser.turn_to(&page);
            self.browser.until(expression);
        }
    }

    /// The same of each page.
    fn of_all(&mut self, expression: &str) -> Vec<serde_json::Value> {
        let pages = self.pages.clone();
        let ask = |page: &Page| {
            self.browser.turn_to(page);
            self.browser.evaluate(expression)
        };
        pages.iter().map(ask).collect()
    }
}

fn asked(name: &str, default: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| default.to_owned())
}

/// The most of these times, in milliseconds, that lie within one second.
fn peak(times: &[u64]) -> usize {
    let within = |first: &u64| {
        times
            .iter()
            .filter(|at| (*first..first + 1000).contains(at))
            .count()
    };
    times.iter().map(within).max().unwrap_or_default()
}

#[test]
fn all_replicas_are_replaced_and_no_event_source_notices() {
    let flags = [
        "--host-resolver-rules=MAP *.tidegate.test 127.0.0.1",
        "--disable-background-timer-throttling",
        "--disable-renderer-backgrounding",
    ];
    let Some(browser) = Chromium::start_with(&flags) else {
        return;
    };
    let pages: usize = asked("TIDEGATE_ROLLING_PAGES", "4").parse().unwrap();
    let drain = asked("TIDEGATE_ROLLING_DRAIN", "1500ms");
    let redis = Redis::start();
    let retry = if drain == "1500ms" { "400ms" } else { "3s" };
    let config = [
        ("drain.wait", "100ms"),
        ("drain.time", drain.as_str()),
        ("stream.retry", retry),
    ];
    let mut replicas = fleet(&redis, 3, &config);
    let nginx = Nginx::before(&replicas);
    let mut load = Load {
        browser,
        pages: Vec::new(),
        nginx,
        published: 0,
    };
    let port = load.nginx.address().port();
    for number in 0..pages {
        let page = load.browser.another_page();
        // Any document of this origin will do.
        load.browser
            .open(&format!("http://page-{number}.tidegate.test:{port}/topics"));
        load.browser
            .evaluate(&OPEN.replace("COUNT", &STREAMS.to_string()));
        load.pages.push(page);
    }
    load.until("sources.every((source) => source.readyState === EventSource.OPEN)");
    load.until("(opens = [], true)");

    for (index, replica) in replicas.iter_mut().enumerate() {
        let address = replica.address();
        load.step();
        replica.terminate();
        while replica.ended().is_none() {
            load.step();
        }
        assert_eq!(replica.wait().code(), Some(0));
        *replica = replica_at(address, &redis, &format!("again-{index}"), &config);
        eventually("the new one is ready", || {
            load.step();
            replica.get("/readyz").status == 200
        });
        load.nginx.reload();
        load.step();
        load.until("sources.every((source) => source.readyState === EventSource.OPEN)");
    }

    load.step();
    let published = load.published;
    load.until(&format!(
        "sources.every((source) => source.seen.at(-1) === {})",
        published - 1
    ));
    // Each stream has seen each event once, in order, and none was told of a gap or gave up.
    let whole = format!(
        "sources.every((source) => source.seen.length === {published} && source.seen.every((n, at) => n === at))"
    );
    assert_eq!(load.of_all(&whole), vec![json!(true); pages]);
    assert_eq!(load.of_all("[givenUp, gaps]"), vec![json!([0, 0]); pages]);
    let opens = load.of_all("opens");
    let opens: Vec<u64> = opens
        .iter()
        .flat_map(|page| page.as_array().unwrap())
        .map(|at| at.as_u64().unwrap())
        .collect();
    let streams = pages * STREAMS;
    assert!(
        opens.len() >= streams,
        "every stream was cut, or had been on the first: {opens:?}"
    );
    println!(
        "{streams} streams of a browser, 3 replicas replaced over {drain} each: {published} events, {} reconnects, at most {} in a second; 0 lost, 0 repeated, 0 closed",
        opens.len(),
        peak(&opens)
    );
}
