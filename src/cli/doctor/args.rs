//! What `tidegate doctor` is told.

use crate::cli::args::ServeArgs;
use crate::client::Base;
use clap::Args;
use std::path::PathBuf;
use std::time::Duration;

#[derive(Debug, Args)]
pub(in crate::cli) struct DoctorArgs {
    /// Also checks the way through the proxy, at the address of clients. It publishes and reads an event.
    #[arg(long, value_name = "URL")]
    pub(super) url: Option<Base>,
    /// Also checks running replicas, by their metrics. Give the address of each, or its ops.listen
    /// if that is set.
    #[arg(long, value_name = "URL", num_args = 1..)]
    pub(super) replica: Vec<Base>,
    /// The publish key; it is sent only over https or to this machine. The default is the key of the
    /// configuration, which is sent only to server.hosts.
    #[arg(
        long,
        value_name = "KEY",
        env = "TIDEGATE_PUBLISH_KEY",
        hide_env_values = true
    )]
    pub(super) key: Option<String>,
    /// A token to try: what this configuration makes of it, and with --url what the gateway answers. It is sent only over https
    /// or to this machine. Others see it in the list of processes: the variable or a file is better.
    #[arg(
        long,
        value_name = "TOKEN",
        env = "TIDEGATE_TOKEN",
        hide_env_values = true
    )]
    pub(super) token: Option<String>,
    /// The file that the token is in.
    #[arg(long, value_name = "FILE")]
    pub(super) token_file: Option<PathBuf>,
    /// Trusts the certificate authorities in this file (PEM) instead of those of browsers.
    #[arg(long, value_name = "FILE", env = "TIDEGATE_CA")]
    pub(super) ca: Option<PathBuf>,
    /// How long to watch a silent stream; it must be longer than the idle timeouts to find.
    #[arg(long, value_name = "SPAN", default_value = "40s", value_parser = humantime::parse_duration)]
    pub(super) watch: Duration,
    /// Prints one JSON object instead of lines.
    #[arg(long)]
    pub(super) json: bool,
    #[command(flatten)]
    pub(super) serve: ServeArgs,
}
