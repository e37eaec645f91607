//! Goal: the page at `/` does in a real browser what it says, and above all resumes: a native
//! `EventSource` behind nginx loses its replica and misses nothing. The scripts of docs/clients.md and docs/auth.md do
//! what those pages say of them.
//!
//! Method: Chromium without a window, on the page as it is served, through real nginx, replicas and
//! Redis. Skipped, with a word about it, where Chromium is not installed.

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

use serde_json::{Value, json};
use support::chromium::Chromium;
use support::tokens::{TOKENS, now, token_of};
use support::{Gateway, Nginx, Redis, eventually, fleet, replica_at};

/// The page is on a stream that is open.
const LIVE: &str = "document.querySelector('#status').dataset.state === 'live'
    && document.querySelector('#replica').textContent !== '–'";

/// Id and data of each event shown, in order.
const SHOWN: &str = "[...document.querySelectorAll('#log .row .data')]
    .map((data) => [data.parentNode.querySelector('.id').textContent, data.textContent])";

/// Writes into a field as a person does.
fn fill(browser: &mut Chromium, field: &str, text: &str) {
    browser.evaluate(&format!(
        "(() => {{ const field = document.querySelector('{field}'); field.value = {}; field.dispatchEvent(new Event('input')); }})()",
        json!(text)
    ));
}

fn click(browser: &mut Chromium, button: &str) {
    browser.evaluate(&format!("document.querySelector('{button}').click()"));
}

/// Waits until the page shows just these events.
fn shows(browser: &mut Chromium, events: &[(String, String)]) {
    browser.until(&format!("({SHOWN}).length >= {}", events.len()));
    assert_eq!(browser.evaluate(SHOWN), json!(events));
}

#[test]
fn the_page_resumes_on_another_replica_and_shows_each_event_once() {
    let Some(mut browser) = Chromium::start() else {
        return;
    };
    let redis = Redis::start();
    let mut replicas = fleet(&redis, 3, &[("stream.retry", "200ms")]);
    let nginx = Nginx::before(&replicas);
    browser.open(&format!("http://{}/", nginx.address()));
    fill(&mut browser, "#topics", "news, orders");
    click(&mut browser, "#toggle");
    browser.until(LIVE);

    let mut published: Vec<(String, String)> = Vec::new();
    let mut publish = |count: usize| {
        for _ in 0..count {
            let number = published.len();
            let topic = ["news", "orders?type=price"][number % 2];
            let data = format!("number {number}");
            let id = nginx.post(&format!("/events/{topic}"), &[], &data).id();
            published.push((id, data));
        }
        published.clone()
    };
    let events = publish(4);
    shows(&mut browser, &events);
    let topics = "[...document.querySelectorAll('#log .topic')].map((topic) => topic.parentElement.textContent)";
    assert_eq!(
        browser.evaluate(topics),
        json!(["news", "orders price", "news", "orders price"])
    );
    for gone in 1..=2 {
        let replica = browser.evaluate("document.querySelector('#replica').textContent");
        let number: usize = replica
            .as_str()
            .unwrap()
            .trim_start_matches('r')
            .parse()
            .unwrap();
        replicas[number - 1].kill9();
        let events = publish(5);
        shows(&mut browser, &events);
        browser.until(LIVE);
        let notes = "[...document.querySelectorAll('#log .note')].filter((note) => note.textContent.includes('Resumed on replica')).length";
        assert_eq!(
            browser.evaluate(notes),
            json!(gone),
            "the page tells that it resumed"
        );
        let events = publish(3);
        shows(&mut browser, &events);
    }
    assert_eq!(
        browser.evaluate("document.querySelectorAll('.gap').length"),
        json!(0)
    );
    assert_eq!(browser.faults(), json!([]));
}

/// A stream that waits for Redis has a good head, and heartbeats. That it began is said only when it did.
#[test]
fn the_page_says_why_no_stream_begins_while_redis_is_away() {
    let Some(mut browser) = Chromium::start() else {
        return;
    };
    let mut redis = Redis::start();
    let gateway = Gateway::over(&redis, &[]);
    redis.kill();
    gateway.wait_for_metric("tidegate_redis_up", &[("role", "live")], 0.0);
    browser.open(&format!("{}/", gateway.url()));
    fill(&mut browser, "#topics", "news");
    click(&mut browser, "#toggle");
    browser.until("document.querySelector('#why').textContent.includes('Redis may be away')");
    let state = "document.querySelector('#status').dataset.state";
    assert_eq!(browser.evaluate(state), json!("connecting"));
    redis.restart();
    browser.until(LIVE);
    redis.publish("news", "at last", &[]);
    browser.until("document.querySelectorAll('#log .row .data').length === 1");
    assert_eq!(browser.faults(), json!([]));
}

/// A parser of the browser's would round the numbers, and merge the names.
#[test]
fn the_page_shows_data_as_it_was_published() {
    let Some(mut browser) = Chromium::start() else {
        return;
    };
    let gateway = Gateway::start(&[]);
    let digits = "7".repeat(3_000);
    let all = [
        "12345678901234567890",
        "1e999",
        &digits,
        "{\"a\":1, \"a\": 2.50}",
        " \",\\\"data\\\":1\" ",
        "-0.0",
        "hello",
    ];
    let events: Vec<_> = all
        .iter()
        .map(|data| (gateway.publish("news", data), (*data).to_owned()))
        .collect();
    browser.open(&format!("{}/", gateway.url()));
    fill(&mut browser, "#topics", "news");
    browser.evaluate("document.querySelector('#from').value = 'earliest'");
    browser.evaluate("document.querySelector('#from').dispatchEvent(new Event('change'))");
    click(&mut browser, "#toggle");
    shows(&mut browser, &events);
    assert_eq!(browser.faults(), json!([]));
}

#[test]
fn the_page_shows_what_was_missed() {
    let Some(mut browser) = Chromium::start() else {
        return;
    };
    let gateway = Gateway::start(&[("log.events_max", "1"), ("window.events_max", "1")]);
    browser.open(&format!("{}/", gateway.url()));
    fill(&mut browser, "#topics", "news");
    click(&mut browser, "#toggle");
    browser.until(LIVE);
    let first = gateway.publish("news", "seen");
    shows(&mut browser, &[(first.clone(), "seen".to_owned())]);
    click(&mut browser, "#toggle");
    browser.until("document.querySelector('#status').dataset.state === 'closed'");
    // Once another stream has it, the window too has let go of what the log has dropped.
    let mut other = gateway.listen(&["news"]);
    gateway.publish("news", "missed");
    let last = gateway.publish("news", "kept");
    while other.next_event().data != "kept" {}
    click(&mut browser, "#toggle");
    shows(
        &mut browser,
        &[
            (first.clone(), "seen".to_owned()),
            (last, "kept".to_owned()),
        ],
    );
    let gap = browser.evaluate("document.querySelector('.gap').textContent");
    let gap = gap.as_str().unwrap();
    let told = format!("Gap in news: trimmed, from {first} to ");
    assert!(gap.contains(&told), "{gap}");
    assert_eq!(browser.faults(), json!([]));
}

#[test]
fn the_page_publishes_and_asks_for_the_key_if_there_is_one() {
    let Some(mut browser) = Chromium::start() else {
        return;
    };
    let gateway = Gateway::start(&[("auth.publish_key", "of the publishers")]);
    browser.open(&format!("{}/", gateway.url()));
    fill(&mut browser, "#topics", "news");
    click(&mut browser, "#toggle");
    browser.until(LIVE);
    fill(&mut browser, "#type", "price");
    fill(&mut browser, "#data", "<b>1</b>");
    click(&mut browser, "#publish button");
    browser.until("document.activeElement.id === 'key'");
    fill(&mut browser, "#key", "of the publishers");
    click(&mut browser, "#publish button");
    browser
        .until("document.querySelector('#told').textContent.startsWith('Published to news as ')");
    // Every type is shown, and data is text, never markup.
    browser.until(&format!("({SHOWN}).length === 1"));
    assert_eq!(
        browser.evaluate(&format!("({SHOWN})[0][1]")),
        json!("<b>1</b>")
    );
    assert_eq!(browser.faults(), json!([]));
}

#[test]
fn a_browser_without_event_source_is_told_so() {
    let Some(mut browser) = Chromium::start() else {
        return;
    };
    browser.before_each_page("delete window.EventSource");
    let gateway = Gateway::start(&[]);
    browser.open(&format!("{}/", gateway.url()));
    let told =
        "[!document.querySelector('#unable').hidden, document.querySelector('#toggle').disabled]";
    assert_eq!(browser.evaluate(told), json!([true, true]));
    assert_eq!(browser.faults(), json!([]));
}

/// The scripts of docs/clients.md, in order.
fn scripts() -> Vec<&'static str> {
    scripts_of(include_str!("../docs/clients.md"))
}

/// The scripts of a page, in order.
fn scripts_of(page: &'static str) -> Vec<&'static str> {
    let blocks = page.split("\n```js\n").skip(1);
    blocks
        .map(|rest| rest.split_once("```\n").unwrap().0)
        .collect()
}

/// Runs a script that shows events by `show`, at a path of the gateway that has no scripts of its own.
fn run_script(browser: &mut Chromium, gateway: &Gateway, script: &str) {
    browser.open(&format!("{}/healthz", gateway.url()));
    run_script_here(browser, script);
}

/// The same at the page that is open.
fn run_script_here(browser: &mut Chromium, script: &str) {
    let all =
        format!("window.shown = []; window.show = (event) => shown.push(event); {script}; true");
    assert_eq!(browser.evaluate(&all), json!(true));
}

const IN_ENVELOPE: &str = "(({ topic, data }) => topic + ' ' + data)(JSON.parse(event.data))";

/// What a script has shown, each as `data` says, once there is so much of it.
fn data_shown(browser: &mut Chromium, data: &str, count: usize) -> Value {
    let data = &format!("shown.filter((event) => event.type === 'message').map((event) => {data})");
    browser.until(&format!("{data}.length >= {count}"));
    browser.evaluate(data)
}

#[test]
fn one_stream_serves_all_tabs_and_the_next_tab_goes_on_with_it() {
    let Some(mut browser) = Chromium::start() else {
        return;
    };
    let gateway = Gateway::start(&[]);
    let script = scripts()[0];
    let pages: Vec<_> = (0..3)
        .map(|_| {
            let page = browser.another_page();
            run_script(&mut browser, &gateway, script);
            page
        })
        .collect();
    gateway.wait_for_metric("tidegate_open_connections", &[], 1.0);
    gateway.publish("prices", "1");
    for page in &pages {
        browser.turn_to(page);
        assert_eq!(
            data_shown(&mut browser, IN_ENVELOPE, 1),
            json!(["prices 1"])
        );
    }
    // The tab that reads goes, and something is published before the next one is there.
    browser.turn_to(&pages[0]);
    browser.open("about:blank");
    gateway.publish("prices", "2");
    gateway.wait_for_metric("tidegate_connections_opened_total", &[], 2.0);
    gateway.publish("prices", "3");
    for page in &pages[1..] {
        browser.turn_to(page);
        assert_eq!(
            data_shown(&mut browser, IN_ENVELOPE, 3),
            json!(["prices 1", "prices 2", "prices 3"])
        );
        let gaps =
            browser.evaluate("shown.filter((event) => event.type === 'tidegate.gap').length");
        assert_eq!(gaps, json!(0));
    }
    gateway.wait_for_metric("tidegate_open_connections", &[], 1.0);
}

#[test]
fn a_page_that_hears_no_heartbeat_opens_its_stream_anew_and_misses_nothing() {
    let Some(mut browser) = Chromium::start() else {
        return;
    };
    let mut gateway = Gateway::start(&[("stream.heartbeat", "200ms")]);
    // In times that a test can wait for.
    let script = scripts()[1].replace("45000", "2000").replace("5000", "100");
    run_script(&mut browser, &gateway, &script);
    gateway.wait_for_metric("tidegate_open_connections", &[], 1.0);
    gateway.publish("prices", "1");
    assert_eq!(data_shown(&mut browser, "event.data", 1), json!(["1"]));
    // The connection stands and is silent, as one that died in sleep.
    browser.evaluate("window.first = source; true");
    gateway.pause();
    browser.until("source !== first && first.readyState === EventSource.CLOSED");
    gateway.resume();
    gateway.publish("prices", "2");
    assert_eq!(data_shown(&mut browser, "event.data", 2), json!(["1", "2"]));
}

/// What a page from a file does to a gateway: reads by an `EventSource`, publishes, and resumes by a `fetch` that asks
/// before it sends.
const FROM_A_FILE: &str = "<!doctype html><title>From a file</title><script>
    const base = location.hash.slice(1), seen = [];
    const source = new EventSource(base + '/events/news');
    source.onmessage = (event) => seen.push(event.data);
    source.onerror = () => { if (source.readyState === EventSource.CLOSED) seen.push('closed'); };
    source.addEventListener('tidegate.open', async (event) => {
        const answer = await fetch(base + '/events/news', { method: 'POST', body: 'hello' });
        const { id } = await answer.json();
        seen.push('published');
        const again = await fetch(base + '/events/news?limit=1', { headers: { 'Last-Event-ID': event.lastEventId } });
        seen.push((await again.text()).includes('hello') ? 'resumed' : 'lost');
    });
</script>";

#[test]
fn a_page_from_a_file_reads_and_writes_if_its_origin_is_configured() {
    let Some(mut browser) = Chromium::start() else {
        return;
    };
    let directory = support::Directory::create();
    let file = directory.0.join("page.html");
    std::fs::write(&file, FROM_A_FILE).unwrap();
    let open = |browser: &mut Chromium, gateway: &Gateway| {
        // Another hash alone would load nothing.
        browser.open("about:blank");
        browser.open(&format!("file://{}#{}", file.display(), gateway.url()));
    };
    let gateway = Gateway::start(&[("cors.origins", "null")]);
    open(&mut browser, &gateway);
    browser.until("seen.length === 3");
    let seen = browser.evaluate("seen.sort()");
    assert_eq!(seen, json!(["hello", "published", "resumed"]));
    // It lives until the page was refused: of a gateway that is gone the page hears no refusal and tries for ever.
    let refusing = Gateway::start(&[]);
    open(&mut browser, &refusing);
    browser.until("seen.includes('closed')");
    assert_eq!(browser.evaluate("seen"), json!(["closed"]));
}

/// A token for `news` with this id that is good for so many seconds.
fn token(seconds: i64, id: &str) -> String {
    let grant = json!({"subscribe": ["news"]});
    token_of(&json!({"sub": "alice", "jti": id, "exp": now() + seconds, "tidegate": grant}))
}

/// The page of docs/auth.md. Its token ends, then its replica is killed, its token is taken back, and all replicas are
/// replaced: each time its `EventSource` comes back with a ticket that was used, is refused for good, and the page opens
/// another one.
#[test]
fn a_page_with_tickets_outlives_tokens_and_replicas_and_misses_nothing() {
    let Some(mut browser) = Chromium::start() else {
        return;
    };
    let redis = Redis::start();
    let config = [
        TOKENS,
        ("auth.leeway", "0s"),
        ("auth.publish_key", "key"),
        ("stream.retry", "200ms"),
        ("drain.time", "500ms"),
    ];
    let mut replicas = fleet(&redis, 2, &config);
    let nginx = Nginx::before(&replicas);
    browser.open(&format!("http://{}/nginx-health", nginx.address()));
    let tokens = json!([token(4, "first"), token(600, "second"), token(600, "third")]);
    let page = scripts_of(include_str!("../docs/auth.md"))[0];
    // The second one is asked for again and again, until it was taken back.
    let script =
        format!("window.tokens = {tokens}; window.freshToken = async () => tokens[0]; {page}");
    run_script_here(&mut browser, &script);
    let opens = "shown.filter((event) => event.type === 'tidegate.open')";
    browser.until(&format!("{opens}.length === 1"));
    browser.evaluate("tokens.shift()");
    let key = [("Authorization", "Bearer key")];
    let mut published: Vec<String> = Vec::new();
    let mut publish = |alive: &Gateway| {
        let data = published.len().to_string();
        alive.post("/events/news", &key, &data).id();
        published.push(data);
    };
    let mut streams = 1;
    let mut goes_on = |browser: &mut Chromium, alive: &Gateway, what: &str| {
        eventually(&format!("{what}, and the page has another stream"), || {
            publish(alive);
            browser.evaluate(&format!("{opens}.length > {streams}")) == json!(true)
        });
        streams = browser
            .evaluate(&format!("{opens}.length"))
            .as_u64()
            .unwrap();
        browser.evaluate(&format!("JSON.parse({opens}.at(-1).data).replica"))
    };
    let on = goes_on(&mut browser, &replicas[0], "the token has ended");
    let refused: f64 = replicas
        .iter()
        .map(|it| it.metric("tidegate_auth_refused_total", &[("reason", "ticket")]))
        .sum();
    assert!(refused > 0.5, "it came back by its old URL");
    let gone = usize::from(on == json!("r2"));
    replicas[gone].kill9();
    goes_on(&mut browser, &replicas[1 - gone], "its replica has gone");

    browser.evaluate("tokens.shift()");
    let what = json!({"token_id": "second"}).to_string();
    let taken = replicas[1 - gone].post("/disconnect", &key, &what);
    assert_eq!(taken.status, 200, "{}", taken.text());
    goes_on(
        &mut browser,
        &replicas[1 - gone],
        "the token was taken back",
    );

    // One goes when the other one is there.
    for number in [gone, 1 - gone] {
        let address = replicas[number].address();
        if number != gone {
            replicas[number].terminate();
            assert!(replicas[number].wait().success());
        }
        let name = format!("r{}", number + 1);
        replicas[number] = replica_at(address, &redis, &name, &config);
        replicas[number].wait_ready();
    }
    goes_on(&mut browser, &replicas[0], "all replicas were replaced");
    let data = data_shown(&mut browser, "event.data", published.len());
    assert_eq!(data, json!(published));
    let gaps = "shown.filter((event) => event.type === 'tidegate.gap').length";
    assert_eq!(browser.evaluate(gaps), json!(0));
    assert_eq!(browser.faults(), json!([]));
}

#[test]
fn an_event_source_that_comes_back_with_its_old_ticket_is_dead() {
    let Some(mut browser) = Chromium::start() else {
        return;
    };
    let gateway = Gateway::start(&[TOKENS, ("stream.retry", "200ms")]);
    browser.open(&format!("{}/healthz", gateway.url()));
    let token = token(600, "one");
    let begun = browser.evaluate(&format!(
        "(async () => {{
            const headers = {{ Authorization: 'Bearer {token}' }};
            const {{ ticket }} = await (await fetch('/tickets', {{ method: 'POST', headers }})).json();
            window.opened = 0;
            window.source = new EventSource('/events/news?max_age=1s&ticket=' + ticket);
            source.onopen = () => {{ opened += 1; }};
            return ticket.slice(0, 4);
        }})()"
    ));
    assert_eq!(begun, json!("tgt_"));
    browser.until("source.readyState === EventSource.CLOSED");
    assert_eq!(browser.evaluate("opened"), json!(1));
    let refused = [("reason", "ticket")];
    gateway.wait_for_metric("tidegate_auth_refused_total", &refused, 1.0);
}

/// On this machine over plain http, as whoever tries it out does.
#[test]
fn a_page_begins_a_session_and_its_streams_are_of_that_user_until_it_ends() {
    let Some(mut browser) = Chromium::start() else {
        return;
    };
    let gateway = Gateway::start(&[
        TOKENS,
        ("auth.publish_key", "key"),
        ("stream.retry", "200ms"),
    ]);
    let begin = scripts_of(include_str!("../docs/auth.md"))[1];
    let token = token(600, "one");
    let ask =
        |script: &str| format!("(async () => {{ const token = '{token}'; return {script}; }})()");
    browser.open(&format!("{}/healthz", gateway.url()));
    let begin = begin.trim().trim_end_matches(';');
    let status = browser.evaluate(&ask(&format!("({begin}).status")));
    assert_eq!(status, json!(204));
    assert_eq!(
        browser.evaluate("document.cookie"),
        json!(""),
        "no script reads it"
    );
    let follow = "window.shown = []; window.source = new EventSource('/events/news');
        source.onmessage = ({ data }) => shown.push(data); true";
    browser.evaluate(follow);
    browser.until("source.readyState === EventSource.OPEN");
    gateway
        .post("/events/news", &[("Authorization", "Bearer key")], "hello")
        .id();
    browser.until("shown.length === 1");
    let status = browser.evaluate(&ask(
        "(await fetch('/session', { method: 'DELETE' })).status",
    ));
    assert_eq!(status, json!(204));
    browser.evaluate("source.close(); true");
    browser.evaluate(follow);
    browser.until("source.readyState === EventSource.CLOSED");
    let refused = [("reason", "missing")];
    gateway.wait_for_metric("tidegate_auth_refused_total", &refused, 1.0);
}
