//! The command line: `tidegate serve` and the commands that call a gateway.

mod args;
mod ask;
mod doctor;
mod functions;
mod health;
mod help;
mod judged;
mod key;
mod log;
mod output;
mod publish;
mod serve;
mod tail;
mod token;
mod topics;

use args::ServeArgs;
use clap::{Args, CommandFactory as _, Parser, Subcommand};
use clap_complete::Shell;
use output::{Fault, finish, say_all};
use std::process::ExitCode;
use std::sync::LazyLock;

/// What `--version` says: the version, and the commit that this was built from, where that is known. `deploy/local/program`
/// reads it.
static VERSION: LazyLock<String> = LazyLock::new(|| {
    let version = env!("CARGO_PKG_VERSION");
    option_env!("TIDEGATE_REVISION").map_or_else(
        || version.to_owned(),
        |revision| format!("{version} ({revision})"),
    )
});

/// A gateway for Server-Sent Events.
#[derive(Debug, Parser)]
#[command(
    name = "tidegate",
    version = VERSION.as_str(),
    args_conflicts_with_subcommands = true,
    max_term_width = 80,
    after_help = help::ALL
)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: ServeArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs a replica (also without a subcommand).
    #[command(after_help = help::SERVE)]
    Serve(ServeArgs),
    /// Publishes one event and prints its id, or publishes many lines, each once.
    #[command(after_help = help::PUBLISH, override_usage = "tidegate publish [TOPIC] [DATA]")]
    Publish(publish::PublishArgs),
    /// Prints the events of topics as they arrive; reconnects and misses nothing.
    #[command(after_help = help::TAIL, override_usage = "tidegate tail [TOPICS]...")]
    Tail(tail::TailArgs),
    /// Lists topics; shows, prints or deletes the log of one topic.
    #[command(after_help = help::TOPICS, override_usage = "tidegate topics [COMMAND]")]
    Topics(topics::TopicsArgs),
    /// Checks the configuration and names every fault.
    #[command(after_help = help::CHECK_CONFIG)]
    CheckConfig(ServeArgs),
    /// Asks a replica whether it is alive; for containers.
    #[command(after_help = help::HEALTHCHECK)]
    Healthcheck(health::HealthArgs),
    /// Says which version of the public functions Redis has, and can install those of this build.
    #[command(after_help = help::FUNCTIONS)]
    Functions(functions::FunctionsArgs),
    /// Checks this machine, Redis, replicas and the way through the proxy, and says what to change.
    #[command(after_help = help::DOCTOR)]
    Doctor(doctor::DoctorArgs),
    /// Makes keys for publishers.
    #[command(after_help = help::KEY)]
    Key(key::KeyArgs),
    /// Makes tokens to try things with, and says why one is refused.
    #[command(after_help = help::TOKEN)]
    Token(token::TokenArgs),
    /// Prints a script that lets a shell complete commands and flags.
    #[command(after_help = help::COMPLETIONS)]
    Completions(CompletionsArgs),
}

#[derive(Debug, Args)]
struct CompletionsArgs {
    /// The shell.
    shell: Shell,
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
        Command::Publish(args) => ask::run(publish::publish(args)),
        Command::Tail(args) => ask::run(tail::tail(args)),
        Command::Topics(args) => ask::run(topics::topics(args)),
        Command::Healthcheck(args) => ask::run(health::healthcheck(args)),
        Command::Functions(args) => ask::run(functions::run(args)),
        Command::Doctor(args) => doctor::run(&args),
        Command::Key(args) => finish(key::run(&args)),
        Command::Token(args) => finish(token::run(&args)),
        Command::Completions(args) => finish(completions(args.shell)),
    }
}

fn completions(shell: Shell) -> Result<(), Fault> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "tidegate", &mut script);
    say_all(&script)
}
