//! Measures the gateway against the floor: what it costs beyond what the kernel costs.

use clap::{Parser, Subcommand};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use std::{env, io};
use swarm::bench::cores::Cores;
use swarm::bench::ledger::Ledger;
use swarm::bench::servers::{DESCRIPTORS, Programs};
use swarm::bench::{Measurement, Settings, all, floor, many, relay, run};
use swarm::cluster::root;

/// Runs floor and gateway in turn, several rounds, and prints medians and ratios as a table.
///
/// Exit status: 0 if it was measured, whatever the figures; 2 if something could not be measured.
#[derive(Debug, Parser)]
#[command(name = "bench")]
struct Arguments {
    /// Lists the measurements.
    #[arg(long)]
    list: bool,
    /// Measures this one; may be repeated. Without it all are measured.
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// One short round: does it work?
    #[arg(long)]
    quick: bool,
    /// How often every contender is measured.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds of one load.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Streams of a full house.
    #[arg(long, default_value_t = 10_000)]
    streams: usize,
    /// Everyone shares all cores; otherwise, where there are two or more, the swarm has one for itself.
    #[arg(long)]
    together: bool,
    /// The gateway's binary.
    #[arg(long, env = "TIDEGATE_BIN", default_value_os_t = root().join("target/release/tidegate"))]
    tidegate: PathBuf,
    #[command(subcommand)]
    part: Option<Part>,
}

/// What the benchmark starts of itself.
#[derive(Clone, Debug, Subcommand)]
enum Part {
    /// The floor.
    #[command(hide = true)]
    Floor {
        /// The address to listen on.
        #[arg(long)]
        listen: SocketAddr,
    },
    /// The relay.
    #[command(hide = true)]
    Relay(relay::Places),
    /// Some of many streams.
    #[command(hide = true)]
    Swarm(many::Share),
}

#[expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "it is a program for the terminal"
)]
fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = match arguments.part.clone() {
        Some(Part::Floor { listen }) => floor::serve(listen),
        Some(Part::Relay(places)) => relay::serve(&places),
        Some(Part::Swarm(share)) => many::take_share(&share),
        None if arguments.list => {
            for Measurement { name, about, .. } in all() {
                println!("    {name:<20} {about}");
            }
            Ok(())
        }
        None => measure(&arguments),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("bench: {why}");
            ExitCode::from(2)
        }
    }
}

#[expect(clippy::print_stdout, reason = "it is a program for the terminal")]
fn measure(arguments: &Arguments) -> io::Result<()> {
    let is_known = |name: &str| all().any(|known| known.name == name);
    if let Some(name) = arguments.only.iter().find(|name| !is_known(name)) {
        let why = format!("no measurement is called {name}: see --list");
        return Err(io::Error::other(why));
    }
    raise_descriptors();
    let settings = Settings {
        programs: Programs {
            tidegate: arguments.tidegate.clone(),
            bench: env::current_exe()?,
            cores: Cores::shared()?,
        },
        together: arguments.together,
        rounds: if arguments.quick { 1 } else { arguments.rounds },
        time: Duration::from_secs(if arguments.quick {
            2
        } else {
            arguments.seconds
        }),
        streams: arguments.streams,
    };
    let is_by_hand = |name: &str| all().any(|known| known.name == name && known.is_by_hand);
    let is_wanted = |name: &str| match arguments.only.as_slice() {
        [] => !is_by_hand(name),
        only => only.iter().any(|wanted| wanted == name),
    };
    let mut ledger = Ledger::default();
    let done = run(&settings, &is_wanted, &mut ledger);
    print!("{ledger}");
    done
}

/// As many descriptors as this process and those that it starts may have.
fn raise_descriptors() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let most = limit.maximum.unwrap_or(DESCRIPTORS);
    let raised = Rlimit {
        current: Some(most),
        maximum: limit.maximum,
    };
    // Where it may not be raised, opening the streams fails, and says so.
    let _refused = setrlimit(Resource::Nofile, raised);
}
