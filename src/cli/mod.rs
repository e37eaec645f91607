//! The command line: `tidegate serve` and the commands that call a gateway.

mod client;
mod commands;
mod doctor;
mod functions;
mod serve;

use crate::config::Flags;
use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;

/// The configuration is at fault (`EX_USAGE` of sysexits.h).
const FAULTY: u8 = 64;
/// Something that is needed cannot be had.
const FAILED: u8 = 1;

/// A gateway for Server-Sent Events.
#[derive(Debug, Parser)]
#[command(name = "tidegate", version, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: ServeArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs a replica (also without a subcommand).
    Serve(ServeArgs),
    /// Publishes one event, over HTTP or straight to Redis, and prints its id.
    Publish(commands::PublishArgs),
    /// Prints the events of topics as they come; reconnects and misses nothing.
    Tail(commands::TailArgs),
    /// Lists the topics that have a log.
    Topics(commands::GatewayArgs),
    /// Judges the configuration and says everything that is wrong with it.
    CheckConfig(ServeArgs),
    /// Asks a replica whether it lives; for containers.
    Healthcheck(commands::HealthArgs),
    /// Says which version of the public functions Redis has, and can put this build's there.
    Functions(functions::FunctionsArgs),
    /// Looks at this machine, at Redis, at replicas and through the proxy, and says what to change.
    Doctor(doctor::DoctorArgs),
}

/// Where the configuration comes from. Every key is also `TIDEGATE__SECTION__KEY`.
#[derive(Clone, Debug, Default, Args)]
struct ServeArgs {
    /// The configuration file (TOML).
    #[arg(long, value_name = "FILE", env = "TIDEGATE_CONFIG")]
    config: Option<PathBuf>,
    /// server.listen
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
    /// redis.url
    #[arg(long, value_name = "URL")]
    redis_url: Option<String>,
    /// replica.name
    #[arg(long, value_name = "NAME")]
    replica_name: Option<String>,
    /// logging.format: text or json
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<String>,
    /// logging.level
    #[arg(long, value_name = "FILTER")]
    log_level: Option<String>,
}

impl ServeArgs {
    fn flags(&self) -> Flags {
        let given = [
            ("server.listen", &self.listen),
            ("redis.url", &self.redis_url),
            ("replica.name", &self.replica_name),
            ("logging.format", &self.log_format),
            ("logging.level", &self.log_level),
        ];
        Flags {
            file: self.config.clone(),
            overrides: given
                .into_iter()
                .filter_map(|(key, value)| Some((key, value.clone()?)))
                .collect(),
            environment: true,
        }
    }
}

/// Reads the command line and does what it says.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    // rustls is built without a provider; one is named before anything connects.
    let _first = rustls::crypto::ring::default_provider().install_default();
    match cli.command.unwrap_or(Command::Serve(cli.serve)) {
        Command::Serve(args) => serve::serve(&args.flags()),
        Command::CheckConfig(args) => serve::check(&args.flags()),
        Command::Publish(args) => commands::run(commands::publish(args)),
        Command::Tail(args) => commands::run(commands::tail(args)),
        Command::Topics(args) => commands::run(commands::topics(args)),
        Command::Healthcheck(args) => commands::run(commands::healthcheck(args)),
        Command::Functions(args) => commands::run(functions::run(args)),
        Command::Doctor(args) => doctor::run(&args),
    }
}

/// Says on standard error what is wrong.
#[expect(clippy::print_stderr, reason = "the command line speaks to a person")]
fn complain(what: impl std::fmt::Display) {
    eprintln!("tidegate: {what}");
}

/// Says on standard output what was asked for. A closed pipe ends the command.
fn say(what: impl std::fmt::Display) -> Result<(), String> {
    use std::io::Write as _;
    writeln!(std::io::stdout().lock(), "{what}").map_err(|why| why.to_string())
}
