//! Goal: streams that come back to a replica which holds nothing of their topic share the reads of the log, and reads at
//! the same time are bounded: whoever must wait gets everything all the same.
//!
//! Method: a real Redis that is stopped while they come, so that they all want their pages at once; and a link to Redis
//! that holds back the answers of reads, so that those under way can be counted.

use crate::support::{Gateway, Redis, Sse, eventually, fleet};
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};

/// Nothing fails while Redis is held up, and no stream waits for it with its head.
const PATIENT: [(&str, &str); 2] = [
    ("redis.command_timeout", "60s"),
    ("stream.open_wait", "10ms"),
];

/// Publishes so many events, `0` first; the id of the first one.
fn fill(redis: &Redis, topic: &str, events: usize) -> String {
    let mut ids = (0..events).map(|number| redis.publish(topic, &number.to_string(), &[]));
    let first = ids.next().unwrap();
    ids.for_each(drop);
    first
}

/// Everything after the first event, in order and once.
fn assert_all_after_the_first(stream: &mut Sse, events: usize) {
    let expected: Vec<String> = (1..events).map(|number| number.to_string()).collect();
    assert_eq!(stream.next_data(events - 1), expected);
}

/// Functions that Redis has run without a right to write: reads of the log, and little else.
fn reads(redis: &Redis) -> u64 {
    let stats: String = redis.run(&["INFO", "commandstats"]);
    let line = stats
        .lines()
        .find_map(|line| line.strip_prefix("cmdstat_fcall_ro:calls="));
    let count = line.and_then(|line| line.split(',').next());
    count.map_or(0, |count| count.parse().unwrap())
}

#[test]
fn streams_that_come_back_at_once_share_their_reads_of_the_log() {
    const STREAMS: usize = 200;
    const EVENTS: usize = 500;
    const READS_MAX: u32 = 20;
    let mut redis = Redis::start();
    let gateway = fleet(&redis, 1, &PATIENT).remove(0);
    let first = fill(&redis, "news", EVENTS);
    let before = reads(&redis);
    redis.pause();
    let cursor = [("Last-Event-ID", first.as_str())];
    let mut streams: Vec<Sse> = (0..STREAMS)
        .map(|_| gateway.open("/events/news", &cursor))
        .collect();
    redis.resume();
    for stream in &mut streams {
        stream.opened();
        assert_all_after_the_first(stream, EVENTS);
    }
    let pages = gateway.metric("tidegate_log_reads_total", &[]);
    assert!(
        (1.0..=f64::from(READS_MAX)).contains(&pages),
        "{pages} pages for {STREAMS} streams"
    );
    let asked = reads(&redis) - before;
    println!("{STREAMS} streams, {EVENTS} events behind: {pages} pages, {asked} reads");
    assert!(
        asked <= u64::from(READS_MAX),
        "{asked} reads for {STREAMS} streams"
    );
}

/// A way to Redis on which answers to reads of topics that begin with [`HELD`] wait until it is let go.
///
/// It relies on the gateway's pool: a connection has one command at a time. Its threads end with the connections; the one
/// that accepts ends with the process.
struct Gate {
    address: SocketAddr,
    reads: Arc<Reads>,
}

#[derive(Default)]
struct Reads {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Clone, Copy, Default)]
struct State {
    /// Asked, and not answered yet.
    under_way: usize,
    /// The most that ever were.
    most: usize,
    is_open: bool,
}

const HELD: &str = "held-";

/// Whether a whole command reads events of such a topic. A topic that opens is read, too: how it stands, and no event.
fn asks_for_events(command: &[u8]) -> bool {
    has(command, "_read\r\n") && has(command, HELD) && !command.ends_with(b"\r\n$1\r\n0\r\n")
}

fn has(bytes: &[u8], part: &str) -> bool {
    bytes
        .windows(part.len())
        .any(|window| window == part.as_bytes())
}

impl Gate {
    fn before(redis: &Redis) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (reads, port) = (Arc::<Reads>::default(), redis.port());
        let gate = reads.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let Ok(server) = TcpStream::connect(("127.0.0.1", port)) else {
                    continue;
                };
                gate.link(&client, &server);
            }
        });
        Self { address, reads }
    }

    fn state(&self) -> State {
        *self.reads.state.lock().unwrap()
    }

    fn open(&self) {
        self.reads.change(|state| state.is_open = true);
    }
}

impl Reads {
    fn change(&self, with: impl FnOnce(&mut State)) {
        with(&mut self.state.lock().unwrap());
        self.changed.notify_all();
    }

    fn link(self: &Arc<Self>, client: &TcpStream, server: &TcpStream) {
        let is_reading = Arc::<Mutex<bool>>::default();
        let ends = || (client.try_clone().unwrap(), server.try_clone().unwrap());
        let ((mut from, mut to), reads, flag) = (ends(), self.clone(), is_reading.clone());
        std::thread::spawn(move || {
            // A command may come in pieces; one is over when the next begins.
            let mut command = Vec::new();
            pump(&mut from, &mut to, |bytes| {
                if bytes.starts_with(b"*") {
                    command.clear();
                }
                command.extend(bytes);
                let mut is_reading = flag.lock().unwrap();
                if !*is_reading && asks_for_events(&command) {
                    *is_reading = true;
                    reads.change(|state| {
                        state.under_way += 1;
                        state.most = state.most.max(state.under_way);
                    });
                }
            });
        });
        let ((mut to, mut from), reads) = (ends(), self.clone());
        std::thread::spawn(move || {
            pump(&mut from, &mut to, |_| {
                if std::mem::take(&mut *is_reading.lock().unwrap()) {
                    let state = reads.state.lock().unwrap();
                    let let_go = reads.changed.wait_while(state, |state| !state.is_open);
                    let_go.unwrap().under_way -= 1;
                }
            });
        });
    }
}

/// Passes on what comes, after a look at it, until either end closes.
fn pump(from: &mut TcpStream, to: &mut TcpStream, mut look: impl FnMut(&[u8])) {
    let mut bytes = [0; 8 << 10];
    while let Ok(count @ 1..) = from.read(&mut bytes) {
        look(&bytes[..count]);
        if to.write_all(&bytes[..count]).is_err() {
            break;
        }
    }
    let _closed = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
}

#[test]
fn reads_at_the_same_time_are_bounded_and_those_that_wait_get_everything() {
    const TOPICS: usize = 12;
    const EVENTS: usize = 100;
    // However many may read: who publishes waits in Redis behind two of them, and no more.
    for (replays_max, in_redis) in [(1, 1), (2, 2), (TOPICS, 2)] {
        let redis = Redis::start();
        let gate = Gate::before(&redis);
        let topic = |number: usize| format!("{HELD}{number}");
        let url = format!("redis://{}", gate.address);
        let replays = replays_max.to_string();
        let more = [
            ("redis.url", url.as_str()),
            ("redis.pool_size", "32"),
            ("limits.replays_max", &replays),
        ];
        let gateway = Gateway::start(&[&PATIENT[..], &more].concat());
        let cursors: Vec<String> = (0..TOPICS)
            .map(|number| fill(&redis, &topic(number), EVENTS))
            .collect();
        let mut streams: Vec<Sse> = (0..TOPICS)
            .map(|number| {
                let cursor = [("Last-Event-ID", cursors[number].as_str())];
                gateway.open(&format!("/events/{}", topic(number)), &cursor)
            })
            .collect();
        // Those beyond the bound have no signal: what is seen must last.
        let mut looks = 0;
        eventually("as many reads are under way as may be", || {
            let is_full = gate.state().under_way == in_redis;
            looks = if is_full { looks + 1 } else { 0 };
            looks == 50
        });
        gate.open();
        for stream in &mut streams {
            stream.opened();
            assert_all_after_the_first(stream, EVENTS);
        }
        assert_eq!(gate.state().most, in_redis);
    }
}
