//! Goal: all replicas are replaced one by one, nginx is reloaded after each, events are published all
//! the while, and no `EventSource` of a real browser loses an event, sees one twice, or gives up.
//!
//! Method: Chromium without a window, with several pages of several streams each; a browser opens six
//! connections to an origin, so each page has a name of its own for nginx. Events are published by a
//! thread of its own at a fixed rate, whatever else happens, and all pages are asked all the while
//! whether one of their streams is closed.
//!
//! Clients are told to come back soon, so that nothing but the drain spreads them: were a replica's
//! streams cut at once, nearly all of them would come back within one second. At most three quarters
//! may; over a drain of five seconds a fifth is to be expected, so that a busy machine does not matter.
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

mod support;

use serde_json::json;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;
use support::chromium::{Chromium, Page};
use support::{Nginx, Redis, eventually, fleet, replica_at};
use tokio::time::Instant;

/// Streams of one page: one connection is left for the page itself.
const STREAMS: usize = 5;
/// Between two events; one that waited for its answer too long is made up for.
const BEAT: Duration = Duration::from_millis(50);

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

const ALL_OPEN: &str = "sources.every((source) => source.readyState === EventSource.OPEN)";

/// The browser and its pages.
struct Load {
    browser: Chromium,
    pages: Vec<Page>,
}

impl Load {
    /// Every page says that it is well.
    fn assert_well(&mut self) {
        let unwell = self.of_all("givenUp + gaps");
        assert_eq!(
            unwell,
            vec![json!(0); self.pages.len()],
            "a stream is closed, or was told of a gap"
        );
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

    /// When streams were opened since the last time that this was asked.
    fn opens(&mut self) -> Vec<u64> {
        let opens = self.of_all("opens.splice(0)");
        let all = opens.iter().flat_map(|page| page.as_array().unwrap());
        all.map(|at| at.as_u64().unwrap()).collect()
    }
}

/// Publishes the numbers from 0 on, one each [`BEAT`], until it is told to stop; how many.
fn publish_at_a_rate(nginx: &Nginx, stop: &Receiver<()>) -> usize {
    let (mut published, mut due) = (0, Instant::now());
    while stop.recv_timeout(due.duration_since(Instant::now())) == Err(RecvTimeoutError::Timeout) {
        due += BEAT;
        let (number, key) = (published.to_string(), format!("event-{published}"));
        // What has no answer is sent again, and published once.
        eventually("it is published", || {
            let headers = [("Idempotency-Key", key.as_str())];
            let answer = nginx.post("/events/news", &headers, &number);
            answer.status == 200 && answer.json()["id"].is_string()
        });
        published += 1;
    }
    published
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
        "--host-resolver-rules=MAP *.tidegate.localhost 127.0.0.1",
        "--disable-background-timer-throttling",
        "--disable-renderer-backgrounding",
    ];
    let Some(browser) = Chromium::start_with(&flags) else {
        return;
    };
    let pages: usize = asked("TIDEGATE_ROLLING_PAGES", "8").parse().unwrap();
    let drain = asked("TIDEGATE_ROLLING_DRAIN", "5s");
    let redis = Redis::start();
    let config = [
        ("drain.wait", "100ms"),
        ("drain.time", drain.as_str()),
        ("stream.retry", "400ms"),
    ];
    let mut replicas = fleet(&redis, 3, &config);
    let nginx = Nginx::before(&replicas);
    let mut load = Load {
        browser,
        pages: Vec::new(),
    };
    let port = nginx.address().port();
    for number in 0..pages {
        let page = load.browser.another_page();
        // Any document of this origin will do.
        load.browser.open(&format!(
            "http://page-{number}.tidegate.localhost:{port}/topics"
        ));
        load.browser
            .evaluate(&OPEN.replace("COUNT", &STREAMS.to_string()));
        load.pages.push(page);
    }
    load.until(ALL_OPEN);
    load.opens();

    let (mut reconnects, mut most) = (0, 0);
    let published = std::thread::scope(|scope| {
        // Dropped at the end, or when something has failed.
        let (stop, stopped) = channel();
        let nginx = &nginx;
        let publisher = scope.spawn(move || publish_at_a_rate(nginx, &stopped));
        for (index, replica) in replicas.iter_mut().enumerate() {
            let address = replica.address();
            let streams = replica.metric("tidegate_open_connections", &[]);
            replica.terminate();
            while replica.ended().is_none() {
                load.assert_well();
            }
            assert_eq!(replica.wait().code(), Some(0));
            *replica = replica_at(address, &redis, &format!("again-{index}"), &config);
            eventually("the new one is ready", || {
                load.assert_well();
                replica.get("/readyz").status == 200
            });
            load.until(ALL_OPEN);
            let opens = load.opens();
            #[expect(clippy::cast_precision_loss, reason = "some hundred streams")]
            let (came, at_once) = (opens.len() as f64, peak(&opens) as f64);
            assert!(
                came >= streams && at_once <= (streams * 0.75).max(4.0),
                "{streams} streams were cut over {drain}, {came} came back, {at_once} in one second: {opens:?}"
            );
            (reconnects, most) = (reconnects + opens.len(), most.max(peak(&opens)));
            nginx.reload();
            load.assert_well();
        }
        drop(stop);
        publisher.join().unwrap()
    });

    load.until(&format!(
        "sources.every((source) => source.seen.at(-1) === {})",
        published - 1
    ));
    // Each stream has seen each event once, in order, and none was told of a gap or gave up.
    let whole = format!(
        "sources.every((source) => source.seen.length === {published} && source.seen.every((n, at) => n === at))"
    );
    assert_eq!(load.of_all(&whole), vec![json!(true); pages]);
    load.assert_well();
    let streams = pages * STREAMS;
    assert!(
        reconnects >= streams,
        "every stream was cut, or had been on the first: {reconnects}"
    );
    println!(
        "{streams} streams of a browser, 3 replicas replaced over {drain} each: {published} events, {reconnects} reconnects, at most {most} in a second; 0 lost, 0 repeated, 0 closed"
    );
}
