//! What `tidegate doctor` is told.

use crate::cli::args::ServeArgs;
use crate::client::Base;
use clap::Args;
use std::path::PathBuf;
use std::time::Duration;

#[derive(Debug, Args)]
pub(in crate::cli) struct DoctorArgs {
    /// Looks through the proxy, too: its address as clients know it. An event is published and read.
    #[arg(long, value_name = "URL")]
    pub(super) url: Option<Base>,
    /// Looks at replicas as they run, too, by their metrics: the address of each, that of ops.listen
    /// where it is set.
    #[arg(long, value_name = "URL", num_args = 1..)]
    pub(super) replica: Vec<Base>,
    /// The publish key, over https or to this machine; else that of the configuration, to its server.hosts alone.
    #[arg(
        long,
        value_name = "KEY",
        env = "TIDEGATE_PUBLISH_KEY",
        hide_env_values = true
    )]
    pub(super) key: Option<String>,
    /// Trusts the authorities in this file (PEM) instead of those that browsers trust.
    #[arg(long, value_name = "FILE")]
    pub(super) ca: Option<PathBuf>,
    /// How long a silent stream is watched: longer than the idle time-outs to be found.
    #[arg(long, value_name = "SPAN", default_value = "40s", value_parser = humantime::parse_duration)]
    pub(super) watch: Duration,
    /// Prints one JSON object instead of lines.
    #[arg(long)]
    pub(super) json: bool,
    #[command(flatten)]
    pub(super) serve: ServeArgs,
}
