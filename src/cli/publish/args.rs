//! What `tidegate publish` is told.

use crate::cli::ask::{GatewayArgs, KeyArgs};
use clap::Args;
use std::path::PathBuf;

/// Characters of a run's name. A line's number goes with it into an idempotency key, which has 255.
const RUN_MAX: usize = 200;

#[derive(Debug, Args)]
pub(in crate::cli) struct PublishArgs {
    /// The topic; without it, each line is a JSON object that names its topic.
    pub(super) topic: Option<String>,
    /// The data of one event, unchanged; without it, lines are published.
    #[arg(conflicts_with_all = ["file", "run", "from"])]
    pub(super) data: Option<String>,
    /// Publishes the lines of this file; without it, or with `-`, the lines of standard input.
    #[arg(long, value_name = "FILE")]
    pub(super) file: Option<PathBuf>,
    /// The type of the events.
    #[arg(
        long = "type",
        value_name = "TYPE",
        alias = "event",
        requires = "topic",
        default_value = "",
        hide_default_value = true
    )]
    pub(super) kind: String,
    /// Ends the topic with the event, or with the last of several lines.
    #[arg(long, requires = "topic")]
    pub(super) end: bool,
    /// If the command is repeated with the same key, the event is published once.
    #[arg(long, value_name = "KEY", requires = "data")]
    pub(super) idempotency_key: Option<String>,
    /// Names the run. A second run with the same name does not publish the same lines again. The default
    /// name is made of the path, size and change time of the file. The gateway remembers it for
    /// `publish.idempotency_window`, 10m by default.
    #[arg(long, value_name = "NAME", value_parser = run_name)]
    pub(super) run: Option<String>,
    /// Begins with this line; the first is 1.
    #[arg(
        long,
        value_name = "LINE",
        default_value_t = 1,
        hide_default_value = true
    )]
    pub(super) from: u64,
    /// Publishes directly to this Redis, through the function.
    #[arg(long, value_name = "URL", conflicts_with = "key", requires = "topic")]
    pub(super) redis: Option<String>,
    /// The prefix of the functions in that Redis.
    #[arg(
        long,
        value_name = "PREFIX",
        default_value = "tidegate",
        requires = "redis"
    )]
    pub(super) prefix: String,
    #[command(flatten)]
    pub(super) key: KeyArgs,
    #[command(flatten)]
    pub(super) gateway: GatewayArgs,
}

fn run_name(text: &str) -> Result<String, String> {
    let fits =
        (1..=RUN_MAX).contains(&text.len()) && text.bytes().all(|b| (0x20..0x7f).contains(&b));
    if fits {
        Ok(text.to_owned())
    } else {
        Err(format!(
            "a name has 1 to {RUN_MAX} printable ASCII characters"
        ))
    }
}
