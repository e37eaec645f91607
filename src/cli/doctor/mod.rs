//! `tidegate doctor`: looks at this machine, at Redis, at replicas that run, and through the proxy, and
//! says what to change.

mod args;
mod channels;
mod findings;
mod key;
mod machine;
mod probe;
mod redis;
mod replicas;
mod token;
mod watch;

pub(super) use args::DoctorArgs;

use super::output::{
    FAILED, FAULTY, Fault, columns, complain, finish, say, shown, shown_json, wrapped,
};
use crate::config::Config;
use findings::{Finding, Level};
use serde::Serialize;
use std::process::ExitCode;

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
        Ok(runtime) => runtime.block_on(inspect(args, &config)),
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
            .map_err(|why| Fault::Failed(why.to_string()))
            .and_then(|json| say(shown_json(&json)))
    } else {
        say(shown(&text(&report.findings, columns())))
    };
    if said.is_err() {
        return finish(said);
    }
    if report.ok {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(FAILED)
    }
}

async fn inspect(args: &DoctorArgs, config: &Config) -> Vec<Finding> {
    let mut all = machine::inspect(config);
    all.extend(redis::inspect(config).await);
    all.extend(token::inspect(args, config).await);
    if !args.replica.is_empty() {
        all.extend(replicas::inspect(args).await);
    }
    if let Some(url) = &args.url {
        all.extend(probe::inspect(url.as_str(), args, config).await);
    }
    all
}

/// Where what was found begins, beside its check.
const FOUND: usize = 32;
/// Where it begins if there is no room beside it.
const BELOW: usize = 4;

/// For a person: what was found of each, what to change below it, and the sum.
fn text(findings: &[Finding], columns: usize) -> String {
    let indent = if columns < 2 * FOUND { BELOW } else { FOUND };
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
        lines.push(wrapped(
            &format!("  {level:<8} {check:<20} {found}"),
            columns,
            indent,
        ));
        if let Some(advice) = &finding.advice {
            let advice = format!("{:indent$}-> {advice}", "");
            lines.push(wrapped(&advice, columns, indent + 3));
        }
    }
    let count = |level| findings.iter().filter(|f| f.level == level).count();
    let (faults, warnings) = (count(Level::Fault), count(Level::Warning));
    lines.push(format!("{faults} faults, {warnings} warnings"));
    lines.join("\n")
}
