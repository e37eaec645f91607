//! Kills, pauses and cuts parts of a cluster while subscribers watch for loss.

use clap::Parser;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use swarm::cluster::Cluster;
use swarm::report::{Row, Table, story};
use swarm::run::{Order, play};
use swarm::scenario::{self, Scenario, Size};
use swarm::verdict::judge;

/// Plays fault scenarios, each on a cluster of its own, and tells what subscribers saw.
///
/// Exit status: 0 if the promise was kept, 1 if it was not, 2 if a scenario could not be played.
#[derive(Debug, Parser)]
#[command(name = "fault")]
struct Arguments {
    /// Lists the scenarios.
    #[arg(long)]
    list: bool,
    /// Plays this one; may be repeated. Without it all are played.
    #[arg(long, value_name = "NAME")]
    scenario: Vec<String>,
    /// The short forms only: those of the scenarios that have one.
    #[arg(long)]
    short: bool,
    /// An older build of the gateway, for the scenario in which two run side by side. Without it a stand-in is made:
    /// this build, with a letter changed in a comment of its functions in Redis.
    #[arg(long, value_name = "PATH", env = "TIDEGATE_OLD_BIN")]
    old_binary: Option<PathBuf>,
    /// Has everybody who reads bring a token, which runs out within the run, and another one when they come back.
    #[arg(long)]
    tokens: bool,
    /// Repeats what was drawn in an earlier run.
    #[arg(long)]
    seed: Option<u64>,
}

#[tokio::main]
#[expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "it is a program for the terminal"
)]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let chosen = match chosen(&arguments) {
        Ok(chosen) => chosen,
        Err(why) => {
            eprintln!("fault: {why}");
            return ExitCode::from(64);
        }
    };
    if arguments.list {
        for (Scenario { name, about, .. }, _) in chosen {
            println!("    {name:<20} {about}");
        }
        println!(
            "\nnot here but `make rolling-deploy`: replaces all replicas one by one, and reloads nginx, under the EventSource of a real browser"
        );
        return ExitCode::SUCCESS;
    }
    let (mut table, mut status) = (Table::default(), 0);
    for (scenario, size) in chosen {
        let seed = arguments
            .seed
            .unwrap_or_else(|| rand::random_range(0..1_000_000));
        println!("fault: {}, seed {seed}: {}", scenario.name, scenario.about);
        let order = Order {
            scenario,
            size,
            seed,
            with_tokens: arguments.tokens,
        };
        match run(order, arguments.old_binary.as_deref()).await {
            Ok(played) => {
                print!("{}", played.story);
                println!(
                    "fault: {} {}",
                    scenario.name,
                    if played.is_good { "is good" } else { "FAILED" }
                );
                table.push(played.row);
                status = status.max(u8::from(!played.is_good));
            }
            Err(why) => {
                eprintln!("fault: {} could not be played: {why}", scenario.name);
                status = 2;
            }
        }
    }
    print!("\n{table}");
    ExitCode::from(status)
}

/// The scenarios that were asked for, and how large.
fn chosen(arguments: &Arguments) -> Result<Vec<(&'static Scenario, Size)>, String> {
    let named = |name: &String| {
        scenario::named(name).ok_or_else(|| format!("no scenario is called {name}: see --list"))
    };
    let named: Vec<&Scenario> = arguments
        .scenario
        .iter()
        .map(named)
        .collect::<Result<_, _>>()?;
    let all = if named.is_empty() {
        scenario::ALL.iter().collect()
    } else {
        named
    };
    let sized = |scenario: &'static Scenario| {
        let size = if arguments.short {
            scenario.short?
        } else {
            scenario.full
        };
        Some((scenario, size))
    };
    let chosen: Vec<_> = all.into_iter().filter_map(sized).collect();
    if chosen.is_empty() {
        Err("this scenario has no short form".to_owned())
    } else {
        Ok(chosen)
    }
}

/// A scenario that was played and judged.
struct Played {
    is_good: bool,
    story: String,
    row: Row,
}

#[expect(clippy::print_stdout, reason = "it is a program for the terminal")]
async fn run(order: Order, other: Option<&Path>) -> Result<Played, String> {
    let cluster = Cluster::start(order.scenario, order.with_tokens, other).await?;
    let evidence = play(order, &cluster).await;
    let judged = evidence.map(|evidence| {
        let verdict = judge(&evidence, &order.scenario.expectation);
        Played {
            is_good: verdict.is_good(),
            story: story(&evidence, &verdict),
            row: Row::of(order.scenario.name, order.seed, &evidence, &verdict),
        }
    });
    let is_good = judged.as_ref().is_ok_and(|played| played.is_good);
    for line in cluster.end(is_good).await? {
        println!("{line}");
    }
    judged
}
