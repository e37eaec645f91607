//! Has clients misbehave while others publish and subscribe, and tells what those noticed.

use clap::Parser;
use std::fmt::Write as _;
use std::process::ExitCode;
use swarm::abuse::{self, Kind, Row, Scale, Table};
use swarm::cluster::Cluster;
use swarm::report::story;
use swarm::run::{Order, play};
use swarm::verdict::judge;

/// Plays kinds of abuse, each on a cluster of its own, and prints a table.
///
/// Exit status: 0 if all were within their bounds, 1 if not, 2 if one could not be played.
#[derive(Debug, Parser)]
#[command(name = "abuse")]
struct Arguments {
    /// Lists the kinds.
    #[arg(long)]
    list: bool,
    /// Plays this one; may be repeated. Without it all are played.
    #[arg(long, value_name = "NAME")]
    scenario: Vec<String>,
    /// All in turn on one cluster, small. Times are printed and decide nothing.
    #[arg(long)]
    short: bool,
    /// Topics that there are for topics-list.
    #[arg(long, default_value_t = abuse::FULL.topics)]
    topics: usize,
    /// p99 of the good ones may be so many times that of the quiet time of the same run.
    #[arg(long, default_value_t = 3.0)]
    ratio_max: f64,
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
    let kinds = match chosen(&arguments) {
        Ok(kinds) => kinds,
        Err(why) => {
            eprintln!("abuse: {why}");
            return ExitCode::from(64);
        }
    };
    if arguments.list {
        for (name, about) in kinds.into_iter().map(Kind::described) {
            println!("    {name:<20} {about}");
        }
        return ExitCode::SUCCESS;
    }
    let scale = Scale {
        topics: arguments.topics,
        ..abuse::FULL
    };
    let (mut table, mut status) = (Table::default(), 0);
    let ratio_max = (!arguments.short).then_some(arguments.ratio_max);
    let runs: Vec<(Vec<Kind>, Scale)> = if arguments.short {
        vec![(kinds, abuse::SHORT)]
    } else {
        kinds.into_iter().map(|kind| (vec![kind], scale)).collect()
    };
    for (kinds, scale) in runs {
        let seed = arguments
            .seed
            .unwrap_or_else(|| rand::random_range(0..1_000_000));
        let names: Vec<&str> = kinds.iter().map(|kind| kind.described().0).collect();
        println!("abuse: {}, seed {seed}", names.join(", "));
        match run(&kinds, scale, (arguments.short, ratio_max), seed).await {
            Ok(played) => {
                print!("{}", played.story);
                let told = if played.is_good { "is good" } else { "FAILED" };
                println!("abuse: {} {told}", names.join(", "));
                played.rows.iter().for_each(|row| table.push(row));
                status = status.max(u8::from(!played.is_good));
            }
            Err(why) => {
                eprintln!("abuse: {} could not be played: {why}", names.join(", "));
                status = 2;
            }
        }
    }
    print!("\n{table}");
    ExitCode::from(status)
}

fn chosen(arguments: &Arguments) -> Result<Vec<Kind>, String> {
    let named = |name: &String| {
        Kind::named(name).ok_or_else(|| format!("no kind of abuse is called {name}: see --list"))
    };
    let named: Vec<Kind> = arguments
        .scenario
        .iter()
        .map(named)
        .collect::<Result<_, _>>()?;
    Ok(if named.is_empty() {
        abuse::ALL.to_vec()
    } else {
        named
    })
}

/// Kinds that were played and judged.
struct Played {
    is_good: bool,
    story: String,
    rows: Vec<Row>,
}

#[expect(clippy::print_stdout, reason = "it is a program for the terminal")]
async fn run(
    kinds: &[Kind],
    scale: Scale,
    (short, ratio_max): (bool, Option<f64>),
    seed: u64,
) -> Result<Played, String> {
    let (scenario, size) = match kinds {
        [kind] if !short => abuse::alone(*kind, scale),
        kinds => abuse::in_turn(kinds, scale),
    };
    let order = Order {
        scenario,
        size,
        seed,
        with_tokens: false,
    };
    let cluster = Cluster::start(scenario, false, None).await?;
    let played = played(kinds, scale, ratio_max, order, &cluster).await;
    let is_good = played.as_ref().is_ok_and(|played| played.is_good);
    for line in cluster.end(is_good).await? {
        println!("{line}");
    }
    played
}

async fn played(
    kinds: &[Kind],
    scale: Scale,
    ratio_max: Option<f64>,
    order: Order,
    cluster: &Cluster,
) -> Result<Played, String> {
    let _ground = abuse::prepare(kinds, scale, cluster).await?;
    let evidence = play(order, cluster).await?;
    let verdict = judge(&evidence, &order.scenario.expectation);
    let rows = Row::all(&evidence, &verdict);
    let mut story = story(&evidence, &verdict);
    let mut is_good = verdict.is_good();
    for row in &rows {
        let (name, _) = row.kind.described();
        #[expect(clippy::cast_precision_loss, reason = "it has a few digits")]
        let ratio = row.ratio_hundredths() as f64 / 100.0;
        if ratio_max.is_some_and(|most| ratio > most) {
            is_good = false;
            // Writing to a String cannot fail.
            let _infallible = writeln!(
                story,
                "  {name}: p99 is {ratio} times that of the quiet time"
            );
        }
    }
    Ok(Played {
        is_good,
        story,
        rows,
    })
}
