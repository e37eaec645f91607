//! What the kernel and the runtime say of this process. Asked at each scrape, counted nowhere.

use super::register::Register;
use prometheus::{Counter, CounterVec, IntCounter, IntGauge};
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::net::{IpAddr, SocketAddr};
use std::sync::OnceLock;
use tokio::runtime::Handle;

/// Bytes of the kernel's list of sockets that are read. Those that listen come first in it, so this
/// is some hundred of them; the whole of it may be tens of megabytes.
const SOCKETS_BYTES: u64 = 64 * 1024;
/// How the kernel's list says that a socket listens.
const LISTENING: &str = "0A";
/// The threads that write streams are called this, and a number.
const STREAMS: &str = "streams-";

#[derive(Debug)]
pub(super) struct Machine {
    address: OnceLock<SocketAddr>,
    accept_queue: IntGauge,
    listen_overflows: IntCounter,
    workers: IntGauge,
    tasks: IntGauge,
    queue: IntGauge,
    busy: Counter,
    threads_busy: CounterVec,
    lines_dropped: IntCounter,
}

impl Machine {
    pub(super) fn new(r: &Register<'_>) -> Self {
        Self {
            address: OnceLock::new(),
            accept_queue: r.gauge("accept_queue", "Connections that wait to be accepted on the main listener. Standing above 0: server.connections_max is reached, or this replica is overloaded."),
            listen_overflows: r.counter("listen_overflows_total", "Connections that the kernel turned away because an accept queue was full, of all sockets in this network namespace. Rising: raise server.backlog and net.core.somaxconn."),
            workers: r.gauge("runtime_workers", "Threads of the runtime that serves requests and speaks with Redis."),
            tasks: r.gauge("runtime_tasks", "Tasks that live in the runtime. Streams on sockets of their own have none."),
            queue: r.gauge("runtime_queue", "Tasks that wait in the runtime's common queue. Standing above 0: its threads have more to do than they can."),
            busy: r.seconds("runtime_busy_seconds_total", "Time that the runtime's threads were busy, all together."),
            threads_busy: r.seconds_of("stream_thread_busy_seconds_total", "Processor time of each thread that writes streams. Near 1 s a second: it is the limit, raise engine.threads or add a replica.", "thread"),
            lines_dropped: r.counter("log_lines_dropped_total", "Lines of the log that were not written: more than logging.queue_bytes waited for whoever reads standard error, or nobody reads it any more."),
        }
    }

    pub(super) fn listens_at(&self, address: SocketAddr) {
        self.address.get_or_init(|| address);
    }

    pub(super) fn sample(&self) {
        if let Some(waiting) = self.address.get().and_then(|at| accept_queue(*at)) {
            self.accept_queue.set(waiting);
        }
        if let Some(overflows) = listen_overflows() {
            let counted = self.listen_overflows.get();
            self.listen_overflows
                .inc_by(overflows.saturating_sub(counted));
        }
        let dropped = crate::stderr::dropped();
        self.lines_dropped
            .inc_by(dropped.saturating_sub(self.lines_dropped.get()));
        if let Ok(runtime) = Handle::try_current() {
            let metrics = runtime.metrics();
            let workers = metrics.num_workers();
            let gauge = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
            self.workers.set(gauge(workers));
            self.tasks.set(gauge(metrics.num_alive_tasks()));
            self.queue.set(gauge(metrics.global_queue_depth()));
            let busy = (0..workers).map(|worker| metrics.worker_total_busy_duration(worker));
            raise(&self.busy, busy.map(|time| time.as_secs_f64()).sum());
        }
        for (thread, seconds) in stream_threads() {
            raise(&self.threads_busy.with_label_values(&[thread]), seconds);
        }
    }
}

/// Takes a counter to what its source says, never back.
fn raise(counter: &Counter, total: f64) {
    counter.inc_by((total - counter.get()).max(0.0));
}

/// Connections that wait to be accepted at an address. None if the kernel does not say.
fn accept_queue(address: SocketAddr) -> Option<i64> {
    let word = |bytes: &[u8; 4]| format!("{:08X}", u32::from_ne_bytes(*bytes));
    let (file, words): (_, Vec<String>) = match address.ip() {
        IpAddr::V4(ip) => ("/proc/self/net/tcp", vec![word(&ip.octets())]),
        IpAddr::V6(ip) => {
            let octets = ip.octets();
            let words = octets.as_chunks().0.iter().map(word);
            ("/proc/self/net/tcp6", words.collect())
        }
    };
    let local = format!("{}:{:04X}", words.concat(), address.port());
    let list = fs::File::open(file).ok()?.take(SOCKETS_BYTES);
    waiting(BufReader::new(list).lines().map_while(Result::ok), &local)
}

/// Columns: number, local and remote address, state, `tx_queue:rx_queue`. Of a socket that listens
/// the last one is how many wait.
fn waiting(lines: impl Iterator<Item = String>, local: &str) -> Option<i64> {
    lines.skip(1).find_map(|line| {
        let mut columns = line.split_whitespace().skip(1);
        let (at, _, state, queues) = (
            columns.next()?,
            columns.next()?,
            columns.next()?,
            columns.next()?,
        );
        let (_, waiting) = queues.split_once(':')?;
        (at == local && state == LISTENING)
            .then(|| i64::from_str_radix(waiting, 16).ok())
            .flatten()
    })
}

/// `ListenOverflows` of the lines `TcpExt:`, the first of which names the columns.
fn listen_overflows() -> Option<u64> {
    let text = fs::read_to_string("/proc/self/net/netstat").ok()?;
    let mut lines = text.lines().filter(|line| line.starts_with("TcpExt:"));
    let (names, values) = (lines.next()?, lines.next()?);
    let mut columns = names.split(' ').zip(values.split(' '));
    let (_, value) = columns.find(|(name, _)| *name == "ListenOverflows")?;
    value.parse().ok()
}

/// Processor time of the threads that write streams, by their number, in seconds.
fn stream_threads() -> Vec<(String, f64)> {
    let Ok(threads) = fs::read_dir("/proc/self/task") else {
        return Vec::new();
    };
    let of = |path: std::path::PathBuf| {
        let name = fs::read_to_string(path.join("comm")).ok()?;
        let number = name.trim_end().strip_prefix(STREAMS)?.to_owned();
        // Its first word: nanoseconds on a processor.
        let times = fs::read_to_string(path.join("schedstat")).ok()?;
        let nanos = times.split(' ').next()?.parse().ok()?;
        Some((number, std::time::Duration::from_nanos(nanos).as_secs_f64()))
    };
    threads
        .filter_map(|thread| of(thread.ok()?.path()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn the_kernel_says_how_many_wait_to_be_accepted() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            // A machine may be without IPv6.
            let Ok(listener) = TcpListener::bind(address) else {
                continue;
            };
            let address = listener.local_addr().unwrap();
            assert_eq!(accept_queue(address), Some(0), "{address}");
            // A connection stands once `connect` returns, accepted or not.
            let _waiting = [address; 2].map(|at| TcpStream::connect(at).unwrap());
            assert_eq!(accept_queue(address), Some(2), "{address}");
            drop(listener);
            assert_eq!(accept_queue(address), None, "{address}");
        }
    }

    #[test]
    fn the_kernel_counts_connections_that_it_turned_away() {
        assert!(listen_overflows().is_some());
    }

    #[test]
    fn the_time_of_threads_that_write_streams_is_found_by_their_name() {
        let name = format!("{STREAMS}7");
        let thread = std::thread::Builder::new().name(name);
        let found = thread.spawn(stream_threads).unwrap().join().unwrap();
        assert_eq!(found.len(), 1);
        assert!(found[0].0 == "7" && found[0].1 >= 0.0);
    }
}
