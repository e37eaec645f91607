//! `tidegate doctor`: looks at this machine, at Redis, at replicas that run, and through the proxy, and
//! says what to change.

mod machine;
mod probe;
mod redis;
mod replicas;

use super::{FAILED, FAULTY, ServeArgs, complain, say};
use crate::config::Config;
use clap::Args;
use serde::Serialize;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

#[derive(Debug, Args)]
pub(super) struct DoctorArgs {
    /// Looks through the proxy, too: its address as clients know it. An event is published and read.
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// Looks at replicas as they run, too, by their metrics: the address of each, that of ops.listen
    /// where it is set.
    #[arg(long, value_name = "URL", num_args = 1..)]
    replica: Vec<String>,
    /// The publish key; that of the configuration if there is one.
    #[arg(
        long,
        value_name = "KEY",
        env = "TIDEGATE_PUBLISH_KEY",
        hide_env_values = true
    )]
    key: Option<String>,
    /// Trusts the authorities in this file (PEM) instead of those that browsers trust.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// How long a silent stream is watched: longer than the idle time-outs to be found.
    #[arg(long, value_name = "SPAN", default_value = "40s", value_parser = humantime::parse_duration)]
    watch: Duration,
    /// Prints one JSON object instead of lines.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    serve: ServeArgs,
}

/// Clocks that differ by more seconds are worth a look, as the alert `TidegateClockOff` has it: latencies, which are judged by
/// the second, are off by as much. By so much more, something is wrong.
const SKEW: (f64, f64) = (0.5, 30.0);

/// How bad it is that two clocks differ by so many seconds, to either side.
fn judge_skew(seconds: f64) -> Level {
    match seconds.abs() {
        skew if skew > SKEW.1 => Level::Fault,
        skew if skew > SKEW.0 => Level::Warning,
        _ => Level::Ok,
    }
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
enum Level {
    Ok,
    /// Worth a look; the exit code is 0.
    Warning,
    /// Something fails, or will under load.
    Fault,
}

/// What one look has found.
#[derive(Clone, Debug, Serialize)]
struct Finding {
    area: &'static str,
    check: &'static str,
    level: Level,
    /// What is.
    found: String,
    /// What to change.
    #[serde(skip_serializing_if = "Option::is_none")]
    advice: Option<String>,
}

/// Findings of one area, as they come.
#[derive(Debug)]
struct Findings {
    area: &'static str,
    all: Vec<Finding>,
}

impl Findings {
    fn of(area: &'static str) -> Self {
        Self {
            area,
            all: Vec::new(),
        }
    }

    fn add(&mut self, level: Level, check: &'static str, found: String, advice: Option<String>) {
        self.all.push(Finding {
            area: self.area,
            check,
            level,
            found,
            advice,
        });
    }

    fn ok(&mut self, check: &'static str, found: impl Into<String>) {
        self.add(Level::Ok, check, found.into(), None);
    }

    fn warning(
        &mut self,
        check: &'static str,
        found: impl Into<String>,
        advice: impl Into<String>,
    ) {
        self.add(Level::Warning, check, found.into(), Some(advice.into()));
    }

    fn fault(&mut self, check: &'static str, found: impl Into<String>, advice: impl Into<String>) {
        self.add(Level::Fault, check, found.into(), Some(advice.into()));
    }
}

#[derive(Debug, Serialize)]
struct Report {
    ok: bool,
    findings: Vec<Finding>,
}

pub(super) fn run(args: &DoctorArgs) -> ExitCode {
    let config = match Config::load(&args.serve.flags()) {
        Ok(config) => config,
        Err(faults) => {
            faults.0.iter().for_each(complain);
            return ExitCode::from(FAULTY);
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let findings = match runtime {
        Ok(runtime) => runtime.block_on(look(args, &config)),
        Err(why) => {
            complain(why);
            return ExitCode::from(FAILED);
        }
    };
    let report = Report {
        ok: findings.iter().all(|finding| finding.level != Level::Fault),
        findings,
    };
    let said = if args.json {
        serde_json::to_string_pretty(&report)
            .map_err(|why| why.to_string())
            .and_then(say)
    } else {
        say(text(&report.findings))
    };
    if let Err(why) = said {
        complain(why);
        return ExitCode::from(FAILED);
    }
    if report.ok {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(FAILED)
    }
}

async fn look(args: &DoctorArgs, config: &Config) -> Vec<Finding> {
    let mut all = machine::look(config);
    all.extend(redis::look(config).await);
    if !args.replica.is_empty() {
        all.extend(replicas::look(args).await);
    }
    if let Some(url) = &args.url {
        all.extend(probe::look(url, args, config).await);
    }
    all
}

/// For a person: a line each, what to change below it, and the sum.
fn text(findings: &[Finding]) -> String {
    let mut lines = Vec::new();
    let mut area = "";
    for finding in findings {
        if finding.area != area {
            area = finding.area;
            lines.push(area.to_owned());
        }
        let level = match finding.level {
            Level::Ok => "ok",
            Level::Warning => "WARNING",
            Level::Fault => "FAULT",
        };
        let (check, found) = (finding.check, &finding.found);
        lines.push(format!("  {level:<8} {check:<20} {found}"));
        if let Some(advice) = &finding.advice {
            lines.push(format!("           {:<20} -> {advice}", ""));
        }
    }
    let count = |level| findings.iter().filter(|f| f.level == level).count();
    let (faults, warnings) = (count(Level::Fault), count(Level::Warning));
    lines.push(format!("{faults} faults, {warnings} warnings"));
    lines.join("\n")
}
