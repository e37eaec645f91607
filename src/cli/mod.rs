//! The command line: `tidegate serve` and the commands that call a gateway.

mod args;
mod client;
mod commands;
mod doctor;
mod functions;
mod log;
mod output;
mod serve;

use args::ServeArgs;
use clap::{Parser, Subcommand};
use std::process::ExitCode;

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
