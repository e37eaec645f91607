//! `publish`, `tail`, `topics`, `healthcheck`.

use super::client::{encode, send, text};
use super::output::{FAILED, complain, say};
use crate::broker::redis::Access;
use crate::config::{Config, Flags};
use clap::Args;
use http_body_util::BodyExt as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// Which gateway.
#[derive(Debug, Args)]
pub(super) struct GatewayArgs {
    /// The gateway, or the proxy before it.
    #[arg(
        long,
        value_name = "URL",
        env = "TIDEGATE_URL",
        default_value = "http://127.0.0.1:8081"
    )]
    url: String,
}

#[derive(Debug, Args)]
pub(super) struct PublishArgs {
    /// The topic.
    topic: String,
    /// The data, verbatim.
    data: String,
    /// The event's type.
    #[arg(long = "type", value_name = "TYPE", conflicts_with = "event")]
    event_type: Option<String>,
    /// The same by its old name.
    #[arg(long, value_name = "TYPE", hide = true)]
    event: Option<String>,
    /// This is the topic's last event.
    #[arg(long)]
    end: bool,
    /// Repeating the command with the same key publishes once.
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
    /// The publish key.
    #[arg(
        long,
        value_name = "KEY",
        env = "TIDEGATE_PUBLISH_KEY",
        hide_env_values = true
    )]
    key: Option<String>,
    /// Straight to this Redis, through the function.
    #[arg(long, value_name = "URL", conflicts_with = "key")]
    redis: Option<String>,
    /// The prefix of the functions in that Redis.
    #[arg(
        long,
        value_name = "PREFIX",
        default_value = "tidegate",
        requires = "redis"
    )]
    prefix: String,
    #[command(flatten)]
    gateway: GatewayArgs,
}

#[derive(Debug, Args)]
pub(super) struct TailArgs {
    /// Topics; none means `events`.
    topics: Vec<String>,
    /// Begins after this id.
    #[arg(long, value_name = "ID")]
    last_event_id: Option<String>,
    /// Begins with what is retained: earliest, or a span such as 5m.
    #[arg(long, value_name = "SPAN")]
    since: Option<String>,
    /// Ends after so many events.
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
    #[command(flatten)]
    gateway: GatewayArgs,
}

#[derive(Debug, Args)]
pub(super) struct HealthArgs {
    /// The replica; by default the one that has this process's configuration.
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// The configuration file (TOML).
    #[arg(long, value_name = "FILE", env = "TIDEGATE_CONFIG")]
    config: Option<PathBuf>,
}

/// Time for an answer of Redis.
const PATIENCE: Duration = Duration::from_secs(5);
/// Time for an answer to `healthcheck`.
const HEALTH: Duration = Duration::from_secs(3);
/// Until the server says otherwise.
const RETRY: Duration = Duration::from_secs(3);

/// Runs a command to its end.
pub(super) fn run(work: impl Future<Output = Result<(), String>>) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let done = runtime
        .map_err(|why| why.to_string())
        .and_then(|runtime| runtime.block_on(work));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            complain(why);
            ExitCode::from(FAILED)
        }
    }
}

pub(super) async fn publish(args: PublishArgs) -> Result<(), String> {
    if let Some(url) = &args.redis {
        return publish_to_redis(url, &args).await;
    }
    let end = if args.end { "&end" } else { "" };
    // By the name that was said: a gateway of an older build knows only the old one.
    let (name, event_type) = match (&args.event_type, &args.event) {
        (None, Some(event)) => ("event", event.as_str()),
        (event_type, _) => ("type", event_type.as_deref().unwrap_or_default()),
    };
    let url = format!(
        "{}/events/{}?{name}={}{end}",
        base(&args.gateway.url),
        encode(&args.topic),
        encode(event_type)
    );
    let bearer = args.key.as_ref().map(|key| format!("Bearer {key}"));
    let mut headers = Vec::new();
    headers.extend(bearer.as_deref().map(|bearer| ("authorization", bearer)));
    headers.extend(
        args.idempotency_key
            .as_deref()
            .map(|key| ("idempotency-key", key)),
    );
    let answer = send("POST", &url, &headers, args.data).await?;
    let (status, body) = (answer.status(), text(answer).await?);
    let fields: serde_json::Value = serde_json::from_str(&body).unwrap_or_default();
    match fields.get("id") {
        Some(id) if status.is_success() => id.as_str().map_or(Ok(()), say),
        _ => Err(format!(
            "{status}: {}",
            fields
                .get("detail")
                .and_then(|detail| detail.as_str())
                .unwrap_or(&body)
        )),
    }
}

async fn publish_to_redis(url: &str, args: &PublishArgs) -> Result<(), String> {
    let access = Access::parse(&url.to_owned().into()).map_err(|why| format!("--redis {why}"))?;
    let mut connection = access
        .connect(PATIENCE)
        .await
        .map_err(|why| format!("Redis cannot be reached: {why}"))?;
    let mut cmd = redis::cmd("FCALL");
    cmd.arg(format!("{}_publish", args.prefix))
        .arg(0)
        .arg(&args.topic)
        .arg(&args.data)
        .arg(
            args.event_type
                .as_ref()
                .or(args.event.as_ref())
                .map_or("", String::as_str),
        );
    cmd.arg(if args.end { "end" } else { "" })
        .arg(args.idempotency_key.as_deref().unwrap_or_default());
    let id: Option<String> = cmd
        .query_async(&mut connection)
        .await
        .map_err(|why| why.to_string())?;
    id.map_or(Ok(()), say)
}

pub(super) async fn topics(args: GatewayArgs) -> Result<(), String> {
    let mut after = String::new();
    loop {
        let url = format!("{}/topics?after={}", base(&args.url), encode(&after));
        let answer = send("GET", &url, &[], String::new()).await?;
        let (status, body) = (answer.status(), text(answer).await?);
        let page: serde_json::Value =
            serde_json::from_str(&body).map_err(|_| format!("{status}: {body}"))?;
        let names = page
            .get("topics")
            .and_then(|names| names.as_array())
            .ok_or_else(|| format!("{status}: {body}"))?;
        for name in names.iter().filter_map(|name| name.as_str()) {
            say(name)?;
        }
        match page.get("next").and_then(|next| next.as_str()) {
            Some(next) => next.clone_into(&mut after),
            None => return Ok(()),
        }
    }
}

/// Where a replica of this configuration answers its operators, on this machine.
fn own(file: Option<PathBuf>) -> Result<String, String> {
    let flags = Flags {
        file,
        environment: true,
        ..Flags::default()
    };
    let config = Config::load(&flags).map_err(|faults| faults.0.join("; "))?;
    let mut address = config.ops.listen.unwrap_or(config.server.listen);
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    Ok(format!("http://{address}"))
}

pub(super) async fn healthcheck(args: HealthArgs) -> Result<(), String> {
    let url = match &args.url {
        Some(url) => base(url).to_owned(),
        None => own(args.config)?,
    };
    let url = format!("{url}/healthz");
    let asked = tokio::time::timeout(HEALTH, send("GET", &url, &[], String::new())).await;
    let answer = asked.map_err(|_| format!("{url} does not answer"))??;
    if answer.status().is_success() {
        Ok(())
    } else {
        Err(format!("{url} answers {}", answer.status()))
    }
}

/// Prints each event's data on a line, its type before it if it has one. Reconnects with the last id.
pub(super) async fn tail(args: TailArgs) -> Result<(), String> {
    let mut query: Vec<String> = args
        .topics
        .iter()
        .map(|topic| format!("topic={}", encode(topic)))
        .collect();
    query.extend(
        args.since
            .as_ref()
            .map(|since| format!("since={}", encode(since))),
    );
    let mut reader = Tail {
        last_event_id: args.last_event_id,
        retry: RETRY,
        left: args.limit,
        event: Received::default(),
    };
    let mut once = false;
    loop {
        let left = reader.left.map(|left| format!("limit={left}"));
        let all: Vec<&str> = query
            .iter()
            .map(String::as_str)
            .chain(left.as_deref())
            .collect();
        let url = format!("{}/events?{}", base(&args.gateway.url), all.join("&"));
        let id = reader.last_event_id.clone();
        let headers: Vec<(&str, &str)> = id
            .as_deref()
            .map(|id| ("last-event-id", id))
            .into_iter()
            .collect();
        match send("GET", &url, &headers, String::new()).await {
            Ok(answer) if answer.status() == 204 => return Ok(()),
            Ok(answer) if answer.status() == 200 => {
                once = true;
                reader.read(answer).await?;
            }
            Ok(answer) if answer.status().is_client_error() => return Err(text(answer).await?),
            Err(why) if !once => return Err(why),
            Ok(_) | Err(_) => {}
        }
        if reader.left == Some(0) {
            return Ok(());
        }
        tokio::time::sleep(reader.retry).await;
    }
}

#[derive(Debug, Default)]
struct Received {
    event_type: String,
    data: Vec<String>,
    id: Option<String>,
}

#[derive(Debug)]
struct Tail {
    last_event_id: Option<String>,
    retry: Duration,
    left: Option<u64>,
    event: Received,
}

impl Tail {
    async fn read(&mut self, answer: hyper::Response<hyper::body::Incoming>) -> Result<(), String> {
        let mut body = answer.into_body();
        let mut waiting: Vec<u8> = Vec::new();
        self.event = Received::default();
        while let Some(Ok(frame)) = body.frame().await {
            waiting.extend_from_slice(
                frame
                    .data_ref()
                    .map(std::convert::AsRef::as_ref)
                    .unwrap_or_default(),
            );
            while let Some(end) = memchr::memchr(b'\n', &waiting) {
                let line: Vec<u8> = waiting.drain(..=end).collect();
                self.line(String::from_utf8_lossy(&line).trim_end_matches('\n'))?;
                if self.left == Some(0) {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// One line, by the WHATWG rules that our own streams need.
    fn line(&mut self, line: &str) -> Result<(), String> {
        let (field, value) = line.split_once(": ").unwrap_or((line, ""));
        match field {
            "" if line.is_empty() => return self.dispatch(),
            "event" => value.clone_into(&mut self.event.event_type),
            "data" => self.event.data.push(value.to_owned()),
            "id" => self.event.id = Some(value.to_owned()),
            "retry" => self.retry = value.parse().map_or(self.retry, Duration::from_millis),
            _ => {}
        }
        Ok(())
    }

    fn dispatch(&mut self) -> Result<(), String> {
        let event = std::mem::take(&mut self.event);
        if event.id.is_some() {
            self.last_event_id = event.id;
        }
        let data = event.data.join("\n");
        match event.event_type.as_str() {
            "tidegate.gap" => {
                complain(format!("gap: {data}"));
                return Ok(());
            }
            "tidegate.open" | "tidegate.cursor" | "tidegate.live" | "tidegate.heartbeat" => {
                return Ok(());
            }
            "" => say(data)?,
            event_type => say(format!("{event_type}: {data}"))?,
        }
        self.left = self.left.map(|left| left.saturating_sub(1));
        Ok(())
    }
}

fn base(url: &str) -> &str {
    url.trim_end_matches('/')
}
