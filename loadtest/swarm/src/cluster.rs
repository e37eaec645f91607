//! The cluster under test, started by `deploy/local/cluster run`, and what a script may do to its parts.

use crate::builds::Builds;
use crate::http::{self, Request};
use crate::link::{self, Links};
use crate::redis_link::RedisLink;
use crate::scenario::{Build, Scenario, Setup};
use crate::tokens;
use std::collections::HashMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use std::{fs, io};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::{sleep, timeout};

/// How long the appends of the ears are watched to tell which of them appends.
const WATCH: Duration = Duration::from_millis(400);

/// Servers of Redis where sentinels watch them.
const SERVERS: [&str; 2] = ["redis", "redis2"];
/// Time for sentinels to put another server in the master's place, or to be able to.
const FAILOVER: Duration = Duration::from_secs(30);
/// Between two questions to them.
const ASK: Duration = Duration::from_millis(50);

/// Time for all parts to end; replicas drain.
const END: Duration = Duration::from_secs(60);
/// What the keeper says last.
const READY: &str = "ready";
/// Tells where everything is, and ends with the status that it is given.
const KEEP: &str = "env; echo ready; read -r status; exit ${status:-1}";

/// Replicas of a cluster.
const REPLICAS: u16 = 3;

/// What can be done to a part: the words of `deploy/local/cluster`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// SIGKILL.
    Kill,
    /// SIGTERM, and wait.
    Stop,
    /// Starts it, and waits until it answers.
    Start,
    /// Stop and start.
    Restart,
    /// SIGSTOP.
    Pause,
    /// SIGCONT.
    Resume,
    /// SIGHUP: it reads its configuration anew.
    Reload,
}

impl Verb {
    /// The word on the command line.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::Stop => "stop",
            Self::Start => "start",
            Self::Restart => "restart",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Reload => "reload",
        }
    }
}

/// Where streams can be opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Door {
    /// `nginx`, or the name of a replica.
    pub name: String,
    /// `host:port`.
    pub address: String,
}

/// A running cluster. It ends with the runner, however that ends: its keeper waits for a line on a
/// pipe, and the end of the pipe will do.
#[derive(Debug)]
pub struct Cluster {
    /// The proxy.
    pub nginx: Door,
    /// The replicas, reached past the proxy.
    pub replicas: Vec<Door>,
    /// Redis, or the sentinels that know it.
    pub redis_url: String,
    /// The port of the first server.
    redis_port: u16,
    /// The gateway's binary.
    pub tidegate: PathBuf,
    /// Where its state lies.
    directory: PathBuf,
    /// Runs as long as the cluster.
    keeper: Child,
    /// Settings of the replicas, for those that are started later, too.
    gateway: Vec<(&'static str, &'static str)>,
    links: Option<Links>,
    builds: Option<Builds>,
    /// What the keeper and the script say.
    said: Lines<BufReader<ChildStdout>>,
}

impl Cluster {
    /// Starts a cluster of its own, on free ports. `other` is a second build of the gateway, if there is one. With
    /// tokens, whoever reads needs one ([`tokens`]).
    ///
    /// # Errors
    /// What the script said instead of an address.
    pub async fn start(
        scenario: &Scenario,
        with_tokens: bool,
        other: Option<&Path>,
    ) -> Result<Self, String> {
        let rights = if with_tokens { tokens::SETTINGS } else { &[] };
        let gateway = [scenario.gateway, rights].concat();
        let redis = scenario.redis;
        let builds = (redis == Setup::TwoBuilds)
            .then(|| Builds::new(other))
            .transpose()?;
        let links = (redis == Setup::Linked)
            .then(|| Links::open(REPLICAS))
            .transpose()
            .map_err(|why| format!("links: {why}"))?;
        let ports = |links: &Links| {
            [
                ("REDIS_PORT", links.redis_port),
                ("REDIS_LINK_PORT", links.first_port),
            ]
        };
        let ports = links.as_ref().map(ports).into_iter().flatten();
        let mut keeper = Command::new(script())
            .envs(ports.map(|(name, port)| (name, port.to_string())))
            .env("REPLICAS", REPLICAS.to_string())
            .envs((redis == Setup::Sentinels).then_some(("SENTINELS", "3")))
            .envs((redis == Setup::Clock).then_some(("REDIS_CLOCK", "movable")))
            .envs(
                builds
                    .as_ref()
                    .map(|builds| ("TIDEGATE_BIN", builds.program())),
            )
            .envs(builds.as_ref().map(|_| ("OLDER_BUILDS", "1")))
            .envs(gateway.iter().copied())
            .args(["run", "--", "sh", "-c", KEEP])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|why| format!("the cluster's script: {why}"))?;
        let output = keeper
            .stdout
            .take()
            .ok_or("the cluster's script has no output")?;
        let (mut said, mut told) = (BufReader::new(output).lines(), HashMap::new());
        while let Some(line) = said.next_line().await.map_err(|why| why.to_string())? {
            match line.split_once('=') {
                Some((name, value)) => told.insert(name.to_owned(), value.to_owned()),
                None if line == READY => {
                    let mut cluster = Self::told(&told, keeper, said, (links, builds))?;
                    cluster.gateway = gateway;
                    return Ok(cluster);
                }
                None => None,
            };
        }
        Err("the cluster does not start".to_owned())
    }

    /// The cluster that the environment of its keeper tells of.
    fn told(
        told: &HashMap<String, String>,
        keeper: Child,
        said: Lines<BufReader<ChildStdout>>,
        (links, builds): (Option<Links>, Option<Builds>),
    ) -> Result<Self, String> {
        let text = |name: &str| told.get(name).ok_or_else(|| format!("{name} is not told"));
        let number = |name: &str| {
            text(name)?
                .parse::<u16>()
                .map_err(|why| format!("{name}: {why}"))
        };
        let door = |name: String, port: u16| Door {
            name,
            address: format!("127.0.0.1:{port}"),
        };
        let first = number("REPLICA_PORT")?;
        Ok(Self {
            nginx: door("nginx".to_owned(), number("NGINX_PORT")?),
            replicas: (0..REPLICAS)
                .map(|n| door(format!("r{}", n + 1), first + n))
                .collect(),
            redis_url: text("REDIS_URL")?.clone(),
            redis_port: number("REDIS_PORT")?,
            tidegate: text("TIDEGATE_BIN")?.into(),
            directory: text("CLUSTER_DIR")?.into(),
            keeper,
            gateway: Vec::new(),
            links,
            builds,
            said,
        })
    }

    /// Ends it, and returns what its script says. Its logs are kept unless all was good.
    ///
    /// # Errors
    /// It does not end.
    pub async fn end(mut self, good: bool) -> Result<Vec<String>, String> {
        if let Some(mut input) = self.keeper.stdin.take() {
            let status: &[u8] = if good { b"0\n" } else { b"1\n" };
            // A keeper that is gone has ended the cluster already.
            let _gone = input.write_all(status).await;
        }
        let ended = async {
            let mut said = Vec::new();
            while let Ok(Some(line)) = self.said.next_line().await {
                said.push(line);
            }
            self.keeper.wait().await.map(|_| said)
        };
        let ended = timeout(END, ended).await;
        ended
            .map_err(|_| "the cluster does not end")?
            .map_err(|why| why.to_string())
    }

    /// Every address under which streams can be opened.
    #[must_use]
    pub fn doors(&self) -> Vec<Door> {
        let mut doors = self.replicas.clone();
        doors.push(self.nginx.clone());
        doors
    }

    /// Does something to parts, through the cluster's own script.
    ///
    /// # Errors
    /// What the script said.
    pub async fn act(&self, verb: Verb, parts: &[String]) -> Result<(), String> {
        self.command(verb.as_str(), parts).await.map(drop)
    }

    /// What the script says of a command.
    async fn command(&self, verb: &str, parts: &[String]) -> Result<String, String> {
        let done = Command::new(script())
            .arg(verb)
            .args(parts)
            .env("CLUSTER_DIR", &self.directory)
            .envs(self.gateway.iter().copied())
            .stdin(Stdio::null())
            .output()
            .await
            .map_err(|why| format!("the cluster's script: {why}"))?;
        if done.status.success() {
            return Ok(String::from_utf8_lossy(&done.stdout).into_owned());
        }
        let said = String::from_utf8_lossy(&done.stderr);
        Err(format!("{verb} {}: {}", parts.join(" "), said.trim()))
    }

    /// Waits until parts have ended by themselves, and starts them again, as a supervisor does. Says their names.
    ///
    /// # Errors
    /// What the script said.
    pub async fn revive(&self) -> Result<Vec<String>, String> {
        while !self.replicas.iter().any(|replica| self.has_ended(replica)) {
            sleep(ASK).await;
        }
        let said = self.command("revive", &[]).await?;
        // It also says that it waits for another command: for the one that stops this replica, if there is one.
        let is_replica = |line: &&str| self.replicas.iter().any(|replica| replica.name == *line);
        Ok(said.lines().filter(is_replica).map(str::to_owned).collect())
    }

    /// Whether a replica that nobody has stopped or killed runs no more.
    fn has_ended(&self, replica: &Door) -> bool {
        self.pid(&replica.name).is_some_and(|pid| {
            // Its starter has not asked for its status, so that its entry may still be there.
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            let state = stat.rsplit_once(") ").map(|(_, fields)| fields);
            state.is_none_or(|fields| fields.starts_with(['Z', 'X']))
        })
    }

    /// Cuts bytes off the newest of the append-only files of a Redis that is not running, back to the beginning
    /// of a transaction; says how many are left.
    ///
    /// A file that ends within a transaction is read well once. But Redis 7.0 leaves the beginning of that
    /// transaction in it, goes on writing behind it, and carries it out at the next start.
    ///
    /// # Errors
    /// There is no such file.
    pub fn forget(&self, bytes: usize) -> io::Result<usize> {
        const BEGIN: &[u8] = b"*1\r\n$5\r\nMULTI\r\n";
        let mut files = Vec::new();
        for entry in fs::read_dir(self.directory.join("redis/appendonlydir"))? {
            let path = entry?.path();
            if path.to_string_lossy().ends_with(".incr.aof") {
                files.push((fs::metadata(&path)?.modified()?, path));
            }
        }
        let (_, newest) = files.into_iter().max().ok_or(io::ErrorKind::NotFound)?;
        let text = fs::read(&newest)?;
        let kept = text
            .get(..text.len().saturating_sub(bytes))
            .unwrap_or_default();
        let left = kept
            .windows(BEGIN.len())
            .rposition(|window| window == BEGIN)
            .unwrap_or_default();
        fs::OpenOptions::new()
            .write(true)
            .open(newest)?
            .set_len(left as u64)?;
        Ok(left)
    }

    /// Moves the clock of Redis, which is wrong by so many seconds from here on.
    ///
    /// # Errors
    /// The scenario has asked for no such clock.
    pub fn set_clock(&self, seconds: i64) -> io::Result<()> {
        let mut file = fs::OpenOptions::new()
            .write(true)
            .open(self.directory.join("redis/clock"))?;
        // In place: the process has mapped these bytes.
        file.write_all(&seconds.to_ne_bytes())
    }

    /// The server that takes writes, once another is ready to take its place; and that other one.
    ///
    /// # Errors
    /// There are no sentinels, or it takes too long.
    pub async fn master(&self) -> Result<(&'static str, &'static str), String> {
        let mut link = RedisLink::new(&self.redis_url).map_err(|why| why.to_string())?;
        let ready = async {
            loop {
                let port = link.master().await;
                let info: Result<String, _> = link.ask(redis::cmd("INFO").arg("replication")).await;
                let follows = info.is_ok_and(|info| info.contains("state=online"));
                match port {
                    Ok(port) if follows => return port,
                    _ => sleep(ASK).await,
                }
            }
        };
        let port = timeout(FAILOVER, ready).await;
        let port = port.map_err(|_| "no server is ready to take the master's place")?;
        let [first, second] = SERVERS;
        Ok(if port == self.redis_port {
            (first, second)
        } else {
            (second, first)
        })
    }

    /// Waits until another server than this one is the master.
    ///
    /// # Errors
    /// There are no sentinels, or it takes too long.
    pub async fn failed_over(&self, from: &str) -> Result<(), String> {
        let mut link = RedisLink::new(&self.redis_url).map_err(|why| why.to_string())?;
        let was_first = SERVERS.first() == Some(&from);
        let done = async {
            loop {
                let is_first = link.master().await.map(|port| port == self.redis_port);
                let answer: Result<String, _> = link.ask(&redis::cmd("PING")).await;
                if is_first.is_ok_and(|is_first| is_first != was_first) && answer.is_ok() {
                    return;
                }
                sleep(ASK).await;
            }
        };
        let done = timeout(FAILOVER, done).await;
        done.map_err(|_| format!("no server takes the place of {from}"))
    }

    /// Changes the links of replicas to Redis.
    ///
    /// # Errors
    /// The scenario has asked for no links.
    pub fn link(&self, state: link::State, replicas: &[String]) -> Result<(), String> {
        let links = self.links.as_ref().ok_or("this cluster has no links")?;
        for (number, replica) in self.replicas.iter().enumerate() {
            if replicas.contains(&replica.name) {
                links.set(number, state);
            }
        }
        Ok(())
    }

    /// Has replies of Redis to all replicas go by these rules; says how often each of those until now was followed.
    ///
    /// # Errors
    /// The scenario has asked for no links.
    pub fn set_rules(&self, rules: &[link::Rule]) -> Result<Vec<(link::Rule, u32)>, String> {
        let links = self.links.as_ref().ok_or("this cluster has no links")?;
        let mut all: Vec<(link::Rule, u32)> = Vec::new();
        let of_link = |replica| links.replace_rules(replica, rules);
        for (rule, met) in (0..self.replicas.len()).flat_map(of_link) {
            match all.iter_mut().find(|(known, _)| *known == rule) {
                Some((_, sum)) => *sum += met,
                None => all.push((rule, met)),
            }
        }
        Ok(all)
    }

    /// Connections between replicas and Redis that were closed because they were not understood.
    #[must_use]
    pub fn garbled(&self) -> usize {
        self.links.as_ref().map_or(0, Links::garbled)
    }

    /// Replicas that are started from here on are of this build. Says what it is.
    ///
    /// # Errors
    /// It cannot be put in place, or there is one only.
    pub fn set_build(&self, build: Build) -> io::Result<String> {
        let builds = self.builds.as_ref().ok_or(io::ErrorKind::NotFound)?;
        builds.put(build)?;
        Ok(builds.name(build))
    }

    /// The replica whose ear appends raw publishes just now. Some must be under way.
    pub async fn appender(&self) -> Option<String> {
        let before = self.appends().await;
        sleep(WATCH).await;
        let after = self.appends().await;
        let risen = after
            .into_iter()
            .zip(before)
            .map(|(after, before)| after.saturating_sub(before));
        let (replica, most) = self
            .replicas
            .iter()
            .zip(risen)
            .max_by_key(|(_, risen)| *risen)?;
        (most > 0).then(|| replica.name.clone())
    }

    /// What publishers call the type of an event, by a name that all builds here know: the old one where one is older.
    pub const fn name_of_type(&self) -> &'static str {
        if self.builds.is_some() {
            "event"
        } else {
            "type"
        }
    }

    /// The key that publishers send, if the scenario has one.
    #[must_use]
    pub fn publish_key(&self) -> Option<&'static str> {
        let mut settings = self.gateway.iter();
        settings
            .find_map(|(name, value)| (*name == "TIDEGATE__AUTH__PUBLISH_KEY").then_some(*value))
    }

    /// The process of a part, if it runs.
    #[must_use]
    pub fn pid(&self, part: &str) -> Option<u32> {
        let text = fs::read_to_string(self.directory.join(format!("run/{part}.pid"))).ok()?;
        text.split(' ').next()?.parse().ok()
    }

    /// Where a replica's log is.
    #[must_use]
    pub fn log_of(&self, replica: usize) -> PathBuf {
        let log = self.directory.join("log");
        log.join(format!("r{}.log", replica + 1))
    }

    /// The metrics of a replica; nothing if they cannot be had.
    pub async fn metrics(&self, replica: &Door) -> String {
        metrics(replica).await
    }

    async fn appends(&self) -> Vec<u64> {
        let mut counts = Vec::new();
        for replica in &self.replicas {
            counts.push(metric(replica, "tidegate_ingest_appends_total{outcome=\"ok\"}").await);
        }
        counts
    }
}

/// One whole number of a replica's metrics; 0 if it cannot be had.
async fn metric(replica: &Door, name: &str) -> u64 {
    let text = metrics(replica).await;
    let mut lines = text.lines();
    let value = lines.find_map(|line| line.strip_prefix(name));
    value
        .and_then(|value| value.trim().parse().ok())
        .unwrap_or(0)
}

async fn metrics(replica: &Door) -> String {
    let request = Request {
        method: "GET",
        target: "/metrics",
        headers: &[],
        body: &[],
    };
    match http::ask(&replica.address, request).await {
        Ok((200, text)) => text,
        _ => String::new(),
    }
}

/// The root of the repository that this was built from.
#[must_use]
pub fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

/// The script that owns clusters.
#[must_use]
pub fn script() -> PathBuf {
    root().join("deploy/local/cluster")
}
