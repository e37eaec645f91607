//! What it costs to ask who reads: 10,000 streams with a token of ES256 each, beside as many of which nothing is asked.
//!
//! A token is judged when a stream opens, and never again: a delivery knows nothing of it. Whoever comes
//! back with a token that was verified before costs no signature.

use super::arena::{FIRST, TOPIC, Weight};
use super::ledger::{Ledger, Row, Target};
use super::payload;
use super::process::Process;
use super::publisher::Way;
use super::servers::Contender;
use super::swarm::{Pace, Plan, Swarm};
use super::tokens::{Provider, spoiled};
use super::{Measurement, Settings, float, note, rotated, tell};
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// Bytes of an event's data.
const SIZE: usize = 128;
/// Between two events: 50,000 deliveries a second at 10,000 streams.
const PAUSE: Duration = Duration::from_millis(200);
/// Streams that may be opening: as many as come back at once to one replica on an ordinary day.
const OPENING_MAX: usize = 256;
/// The same where the time of one opening is measured, not how many there are.
const OPENING_FEW: usize = 4;
/// Good streams that open beside bad tokens.
const OPENED: usize = 2_000;
/// Bad tokens a second.
const BAD: u32 = 5_000;
/// Connections that send them, and how many each sends before it reads the answers.
const CONNECTIONS: u32 = 4;
const AT_ONCE: u32 = 25;
/// What an answer begins with.
const STATUS: &[u8] = b"HTTP/1.1 ";

/// What can be asked for.
pub const ALL: &[Measurement] = &[
    Measurement::new(
        "rights",
        "streams opened with tokens of ES256, their memory, and the processor time of a delivery to them",
    ),
    Measurement::new(
        "bad-tokens",
        "the time of an opening with a good token, beside 5,000 bad ones a second",
    ),
];

const OPENING: Row = Row {
    what: "connects with a token of ES256",
    unit: "/s",
    // A time of 1.2 x.
    target: Target::RatioAtLeast(0.83),
    base: Contender::Memory,
};
const MEMORY: Row = Row {
    what: "memory a stream, a subject each",
    unit: "KB",
    target: Target::AtMost(0.6),
    base: Contender::Memory,
};
const CPU: Row = Row {
    what: "CPU a delivery, streams with tokens",
    unit: "us",
    target: Target::RatioAtMost(1.03),
    base: Contender::Memory,
};
const FLOOD: Row = Row {
    what: "an opening beside 5,000 bad tokens a second",
    unit: "ms",
    target: Target::RatioAtMost(1.5),
    base: Contender::KnownTokens,
};

const CONTENDERS: &[Contender] = &[
    Contender::Memory,
    Contender::KnownTokens,
    Contender::NewTokens,
];
const FLOODED: &[Contender] = &[
    Contender::KnownTokens,
    Contender::BadTokens,
    Contender::BesideHealth,
];

/// # Errors
/// As [`super::run`].
pub fn run(
    settings: &Settings,
    is_wanted: &dyn Fn(&str) -> bool,
    ledger: &mut Ledger,
) -> io::Result<()> {
    let directory = std::env::temp_dir().join(format!("tidegate-rights-{}", std::process::id()));
    std::fs::create_dir_all(&directory)?;
    let done = rounds(settings, is_wanted, ledger, &directory);
    std::fs::remove_dir_all(&directory)?;
    done
}

fn rounds(
    settings: &Settings,
    is_wanted: &dyn Fn(&str) -> bool,
    ledger: &mut Ledger,
    directory: &Path,
) -> io::Result<()> {
    let provider = Provider::new(directory)?;
    let tokens = provider.tokens(settings.streams.max(OPENED), TOPIC)?;
    for round in 0..settings.rounds {
        if is_wanted("rights") {
            for contender in rotated(CONTENDERS, round) {
                open(settings, &provider, &tokens, contender, round, ledger)?;
            }
        }
        if is_wanted("bad-tokens") {
            for contender in rotated(FLOODED, round) {
                let took = beside_a_flood(settings, &provider, &tokens, contender)?;
                note(ledger, FLOOD, contender, round, took);
            }
        }
    }
    Ok(())
}

fn open(
    settings: &Settings,
    provider: &Provider,
    tokens: &[String],
    contender: Contender,
    round: usize,
    ledger: &mut Ledger,
) -> io::Result<()> {
    let asks = contender != Contender::Memory;
    let configuration = asks.then_some(provider.configuration.as_path());
    let server = settings.programs.gateway_with(None, configuration)?;
    let topics = [TOPIC.to_owned()];
    let plan = |from: usize, streams: usize| {
        let own = tokens.get(from..).unwrap_or_default();
        Plan {
            opening_max: OPENING_MAX,
            tokens: if asks { own } else { &[] },
            ..Plan::live(server.address, streams, &topics)
        }
    };
    let rest = settings.streams.saturating_sub(FIRST);
    if contender != Contender::NewTokens {
        // They were here before, and went.
        Swarm::new(SIZE, &settings.programs.cores)?.open(&plan(FIRST, rest))?;
    }
    let mut swarm = Swarm::new(SIZE, &settings.programs.cores)?;
    swarm.add_publisher(Way::Http, server.address)?;
    if let Some(token) = tokens.first().filter(|_| asks) {
        swarm.publish_as(token);
    }
    swarm.open(&plan(0, FIRST))?;
    let warm_up = |swarm: &mut Swarm| swarm.drive(TOPIC, Pace::Every(PAUSE), PAUSE * 5).map(drop);
    warm_up(&mut swarm)?;
    let before = Weight::of(&server, FIRST)?;
    let took = swarm.open(&plan(FIRST, rest))?;
    let rate = float(rest as u64) / took.as_secs_f64();
    note(ledger, OPENING, contender, round, rate);
    if contender == Contender::NewTokens {
        return Ok(());
    }
    warm_up(&mut swarm)?;
    let weight = Weight::of(&server, settings.streams)?;
    note(ledger, MEMORY, contender, round, weight.per_stream(before));
    let spent = server.processor_time()?;
    let load = swarm.drive(TOPIC, Pace::Every(PAUSE), settings.time)?;
    let spent = server.processor_time()?.saturating_sub(spent);
    let cost = spent.as_secs_f64() * 1e6 / float(load.deliveries);
    note(ledger, CPU, contender, round, cost);
    Ok(())
}

/// Milliseconds that one opening takes. As many requests that nothing is asked of are its floor: they, too,
/// take the server's core.
fn beside_a_flood(
    settings: &Settings,
    provider: &Provider,
    tokens: &[String],
    contender: Contender,
) -> io::Result<f64> {
    let configuration = Some(provider.configuration.as_path());
    let server = settings.programs.gateway_with(None, configuration)?;
    let topics = [TOPIC.to_owned()];
    let plan = Plan {
        opening_max: OPENING_FEW,
        tokens,
        ..Plan::live(server.address, OPENED, &topics)
    };
    Swarm::new(SIZE, &settings.programs.cores)?.open(&plan)?;
    let requests = requests(contender, tokens);
    let flood = requests.map(|requests| Flood::begin(&server, requests));
    let flood = flood.transpose()?;
    let took = Swarm::new(SIZE, &settings.programs.cores)?.open(&plan)?;
    if let Some(flood) = flood {
        let rate = flood.end()?;
        tell(&format!("beside {rate:.0} requests a second"));
    }
    let each = took.as_secs_f64() * 1e3 * float(OPENING_FEW as u64) / float(OPENED as u64);
    Ok(each)
}

/// What is sent beside good openings: none, or requests as they stand on the wire.
fn requests(contender: Contender, tokens: &[String]) -> Option<Vec<String>> {
    let host = "Host: localhost\r\n";
    match contender {
        Contender::BadTokens => {
            let pairs = tokens.windows(2).filter_map(|pair| match pair {
                [token, other] => Some(spoiled(token, other)),
                _ => None,
            });
            let requests = pairs.map(|token| {
                format!(
                    "GET /events/{TOPIC} HTTP/1.1\r\n{host}Authorization: Bearer {token}\r\n\r\n"
                )
            });
            Some(requests.collect())
        }
        Contender::BesideHealth => Some(vec![format!("GET /healthz HTTP/1.1\r\n{host}\r\n")]),
        _ => None,
    }
}

/// Requests at a fixed rate, from threads of their own.
struct Flood {
    threads: Vec<JoinHandle<io::Result<()>>>,
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    /// As [`payload::now`].
    began: u64,
}

impl Flood {
    fn begin(server: &Process, requests: Vec<String>) -> io::Result<Self> {
        let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::default());
        let requests: Arc<[String]> = requests.into();
        let mut threads = Vec::new();
        for number in 0..CONNECTIONS {
            let (stop, answered) = (stop.clone(), Arc::clone(&answered));
            let (requests, address) = (requests.clone(), server.address);
            let send = move || send(address, &requests, number, &stop, &answered);
            threads.push(thread::Builder::new().spawn(send)?);
        }
        Ok(Self {
            threads,
            stop,
            answered,
            began: payload::now(),
        })
    }

    /// Ends it; returns how many were answered in a second.
    fn end(self) -> io::Result<f64> {
        self.stop.store(true, Ordering::Relaxed);
        let time = Duration::from_nanos(payload::now() - self.began);
        let rate = float(self.answered.load(Ordering::Relaxed)) / time.as_secs_f64();
        for thread in self.threads {
            let ended = thread.join();
            ended.map_err(|_| io::Error::other("a flood panicked"))??;
        }
        Ok(rate)
    }
}

/// Sends a few requests at a time on one connection, and reads their answers.
fn send(
    address: SocketAddr,
    requests: &[String],
    number: u32,
    stop: &AtomicBool,
    answered: &AtomicU64,
) -> io::Result<()> {
    let mut socket = TcpStream::connect(address)?;
    socket.set_nodelay(true)?;
    // Nanoseconds between two rounds.
    let pause = 1_000_000_000 / u64::from(BAD / CONNECTIONS / AT_ONCE);
    let mut requests = requests.iter().cycle().skip(number as usize);
    let (mut due, mut buffer) = (payload::now(), vec![0; 64 * 1024]);
    // What two reads share of a status line.
    let mut rest: Vec<u8> = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let some: String = requests.by_ref().take(AT_ONCE as usize).cloned().collect();
        socket.write_all(some.as_bytes())?;
        let mut heads = 0;
        while heads < AT_ONCE {
            let count = socket.read(&mut buffer)?;
            if count == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            rest.extend_from_slice(buffer.get(..count).unwrap_or_default());
            let begun = memchr::memmem::find_iter(&rest, STATUS).count();
            heads += u32::try_from(begun).unwrap_or(AT_ONCE);
            rest.drain(..rest.len().saturating_sub(STATUS.len() - 1));
        }
        answered.fetch_add(AT_ONCE.into(), Ordering::Relaxed);
        due += pause;
        // Woken early, it is only ahead of its time by one round.
        thread::park_timeout(Duration::from_nanos(due.saturating_sub(payload::now())));
    }
    Ok(())
}
