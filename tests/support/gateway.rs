//! The real binary, started for one test.

use super::http::{Answer, exchange, request};
use super::nginx::free_address;
use super::process::{Process, binary, environment};
use super::{Redis, Sse, eventually};
use std::io::PipeReader;
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, ExitStatus};

/// The one setting that replicas take from the environment of the tests; what a test sets goes first.
pub const SOCKETS: &str = "TIDEGATE__ENGINE__SOCKETS";

/// What says that a body is a batch, an event a line.
pub const NDJSON: (&str, &str) = ("Content-Type", "application/x-ndjson");

/// A running replica. Ended on drop; its log is shown if the test fails.
#[derive(Debug)]
pub struct Gateway {
    process: Process,
    address: SocketAddr,
    ops: Option<SocketAddr>,
}

impl Gateway {
    /// Starts a replica with these config keys and waits until it is ready. Without `redis.url` it
    /// has the memory broker.
    pub fn start(config: &[(&str, &str)]) -> Self {
        let gateway = Self::launch(config);
        gateway.wait_ready();
        gateway
    }

    /// Starts a replica over `redis`, and waits until it is ready.
    pub fn over(redis: &Redis, config: &[(&str, &str)]) -> Self {
        let gateway = Self::launch_over(redis, config);
        gateway.wait_ready();
        gateway
    }

    /// As [`Gateway::over`], without waiting for more than its listeners.
    pub fn launch_over(redis: &Redis, config: &[(&str, &str)]) -> Self {
        let url = redis.url();
        let mut all = vec![("redis.url", url.as_str())];
        all.extend(config);
        Self::launch(&all)
    }

    /// Starts a replica and waits only until it listens.
    pub fn launch(config: &[(&str, &str)]) -> Self {
        Self::launch_with(&[], config)
    }

    /// As [`Gateway::launch`], with more arguments.
    pub fn launch_with(args: &[&str], config: &[(&str, &str)]) -> Self {
        let mut command = serve(args, config);
        if config.iter().all(|(key, _)| *key != "server.listen") {
            command.args(["--listen", "127.0.0.1:0"]);
        }
        Self::spawn(&mut command)
    }

    /// Starts it and waits until it listens.
    fn spawn(command: &mut Command) -> Self {
        let process = Process::spawn("tidegate", command).expect("the binary starts");
        let mut gateway = Self {
            process,
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            ops: None,
        };
        gateway.address = gateway
            .wait_for_log("listening")
            .as_deref()
            .and_then(address_in)
            .expect("the gateway says where it listens");
        gateway.ops = gateway
            .log()
            .iter()
            .find(|line| says(line, "operations listening"))
            .and_then(|line| address_in(line));
        gateway
    }

    /// As [`Gateway::start`], for a supervisor that says so by these variables.
    pub fn start_for(supervisor: &[(&str, &str)], config: &[(&str, &str)]) -> Self {
        let mut command = serve(&["--listen", "127.0.0.1:0"], config);
        command.envs(supervisor.iter().copied());
        let gateway = Self::spawn(&mut command);
        gateway.wait_ready();
        gateway
    }

    /// Starts a replica whose log nobody reads, and waits until it is ready. Whoever reads the pipe reads the log.
    pub fn start_unread(config: &[(&str, &str)]) -> (Self, PipeReader) {
        let address = free_address();
        let mut command = serve(&["--listen", &address.to_string()], config);
        let (process, unread) =
            Process::spawn_unread("tidegate", &mut command).expect("the binary starts");
        let gateway = Self {
            process,
            address,
            ops: None,
        };
        eventually("it listens", || TcpStream::connect(address).is_ok());
        gateway.wait_ready();
        (gateway, unread)
    }

    /// Waits until `/readyz` answers 200.
    pub fn wait_ready(&self) {
        eventually("the gateway is ready", || {
            self.ops_get("/readyz").status == 200
        });
    }

    /// `http://127.0.0.1:<port>`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The main listener.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The operator's listener, if `ops.listen` is set.
    pub fn ops_address(&self) -> Option<SocketAddr> {
        self.ops
    }

    /// One request.
    pub fn request(
        &self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: impl AsRef<[u8]>,
    ) -> Answer {
        exchange(
            self.address,
            &request(method, target, headers, body.as_ref()),
        )
    }

    /// GET.
    pub fn get(&self, target: &str) -> Answer {
        self.request("GET", target, &[], "")
    }

    /// POST.
    pub fn post(&self, target: &str, headers: &[(&str, &str)], body: impl AsRef<[u8]>) -> Answer {
        self.request("POST", target, headers, body)
    }

    /// DELETE.
    pub fn delete(&self, target: &str) -> Answer {
        self.request("DELETE", target, &[], "")
    }

    /// Publishes over HTTP; the id.
    pub fn publish(&self, topic: &str, data: &str) -> String {
        self.post(&format!("/events/{topic}"), &[], data).id()
    }

    /// Publishes pairs of topic and data as one batch; the ids.
    pub fn publish_batch(&self, events: &[(&str, &str)]) -> Vec<String> {
        let line = |(topic, data): &(&str, &str)| {
            serde_json::json!({"topic": topic, "data": data}).to_string()
        };
        let lines: Vec<String> = events.iter().map(line).collect();
        self.post("/events", &[NDJSON], lines.join("\n")).ids()
    }

    /// Opens a stream.
    pub fn open(&self, target: &str, headers: &[(&str, &str)]) -> Sse {
        Sse::open(&format!("{}{target}", self.url()), headers)
    }

    /// Opens a stream of these topics and waits until it is live: its first event was read.
    pub fn listen(&self, topics: &[&str]) -> Sse {
        let query: Vec<String> = topics
            .iter()
            .map(|topic| format!("topic={topic}"))
            .collect();
        let mut stream = self.open(&format!("/events?{}", query.join("&")), &[]);
        stream.opened();
        stream
    }

    fn ops_get(&self, target: &str) -> Answer {
        let address = self.ops.unwrap_or(self.address);
        exchange(address, &request("GET", target, &[], b""))
    }

    /// The sum of a metric's children that have these labels, whatever others they have.
    ///
    /// # Panics
    /// If there is none.
    pub fn metric(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let text = self.ops_get("/metrics").text();
        let wanted: Vec<String> = labels
            .iter()
            .map(|(label, value)| format!("{label}=\"{value}\""))
            .collect();
        let children = text.lines().filter_map(|line| {
            let rest = line.strip_prefix(name)?;
            let (labels, value) = match rest.strip_prefix('{') {
                Some(rest) => rest.split_once("} ")?,
                None => ("", rest.strip_prefix(' ')?),
            };
            let has = |wanted: &String| labels.split(',').any(|label| label == wanted);
            (wanted.iter().all(has)).then(|| value.parse().expect("a number"))
        });
        let children: Vec<f64> = children.collect();
        assert!(!children.is_empty(), "no metric {name} {labels:?}");
        children.iter().sum()
    }

    /// Waits until a metric has this value.
    #[expect(clippy::float_cmp, reason = "counts are whole")]
    pub fn wait_for_metric(&self, name: &str, labels: &[(&str, &str)], value: f64) {
        eventually(&format!("{name} {labels:?} is {value}"), || {
            self.metric(name, labels) == value
        });
    }

    /// Everything logged up to now, as lines of JSON.
    pub fn log(&self) -> Vec<String> {
        self.process.stderr.all()
    }

    /// The lines logged up to now with this message.
    pub fn logged(&self, message: &str) -> Vec<String> {
        let mut lines = self.log();
        lines.retain(|line| says(line, message));
        lines
    }

    /// Waits for so many lines with this message, and returns all that there are. Nothing waits for whoever reads the
    /// log, so lines come a moment after what they are about.
    pub fn logged_at_least(&self, count: usize, message: &str) -> Vec<String> {
        eventually(&format!("{count} lines: {message}"), || {
            self.logged(message).len() >= count
        });
        self.logged(message)
    }

    /// Waits for a log line with this message; none if the process ended without it.
    pub fn wait_for_log(&self, message: &str) -> Option<String> {
        let find = |line: &str| says(line, message).then(|| line.to_owned());
        self.process.stderr.wait_for(find)
    }

    /// SIGKILL.
    pub fn kill9(&mut self) {
        self.process.kill();
    }

    /// SIGTERM: the drain begins.
    pub fn terminate(&mut self) {
        self.process.terminate();
    }

    /// SIGINT: as [`Gateway::terminate`].
    pub fn interrupt(&mut self) {
        self.process.interrupt();
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// The most memory that the process has had, in bytes.
    pub fn peak_memory(&self) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id()));
        let status = status.expect("Linux tells");
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmHWM:"))
            .expect("a line");
        let kib = line.trim().trim_end_matches(" kB").parse::<usize>();
        kib.expect("a number") * 1024
    }

    /// Waits for its end.
    pub fn wait(&mut self) -> ExitStatus {
        self.process.wait()
    }

    /// Its status, if it has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.process.ended()
    }

    /// SIGHUP: the configuration is read again.
    pub fn hang_up(&mut self) {
        self.process.hang_up();
    }

    /// SIGSTOP.
    pub fn pause(&mut self) {
        self.process.pause();
    }

    /// SIGCONT.
    pub fn resume(&mut self) {
        self.process.resume();
    }

    /// A bare connection to the main listener.
    pub fn connect(&self) -> TcpStream {
        super::http::connect(self.address)
    }
}

fn serve(args: &[&str], config: &[(&str, &str)]) -> Command {
    let mut command = binary();
    // A whole run may be made with every stream as an ordinary body.
    let of_the_run = std::env::vars().filter(|(name, _)| name == SOCKETS);
    command
        .arg("serve")
        .args(args)
        .env("TIDEGATE__LOGGING__FORMAT", "json")
        .envs(of_the_run)
        .envs(environment(config));
    command
}

/// Whether a line of the JSON log has this message.
pub fn says(line: &str, message: &str) -> bool {
    let line: serde_json::Value = serde_json::from_str(line).unwrap_or_default();
    line["fields"]["message"] == message
}

fn address_in(line: &str) -> Option<SocketAddr> {
    let line: serde_json::Value = serde_json::from_str(line).ok()?;
    line["fields"]["address"].as_str()?.parse().ok()
}
