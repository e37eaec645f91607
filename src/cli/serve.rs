//! `tidegate serve` and `tidegate check-config`.

use super::log::{self, SetLevel};
use super::output::{FAILED, FAULTY, complain, finish, say};
use crate::app::App;
use crate::config::{Config, Flags};
use std::process::ExitCode;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

/// For so long the end of the process waits for threads of the runtime that are at work.
const RUNTIME_ENDS: Duration = Duration::from_secs(1);

pub(super) fn check(flags: &Flags) -> ExitCode {
    match Config::load(flags) {
        Ok(_) => finish(say("the configuration is good")),
        Err(faults) => {
            faults.0.iter().for_each(complain);
            ExitCode::from(FAULTY)
        }
    }
}

pub(super) fn serve(flags: &Flags) -> ExitCode {
    let config = match Config::load(flags) {
        Ok(config) => config,
        Err(faults) => {
            faults.0.iter().for_each(complain);
            return ExitCode::from(FAULTY);
        }
    };
    let set_level = match log::begin(&config.logging) {
        Ok(set_level) => set_level,
        Err(why) => {
            complain(why);
            return ExitCode::from(FAILED);
        }
    };
    let code = start_runtime()
        .and_then(|runtime| {
            let ended = runtime.block_on(run(flags, config, &set_level));
            runtime.shutdown_timeout(RUNTIME_ENDS);
            ended
        })
        .unwrap_or_else(|why| {
            log::complain(why);
            ExitCode::from(FAILED)
        });
    log::end();
    code
}

fn start_runtime() -> Result<tokio::runtime::Runtime, String> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|why| format!("the runtime cannot be started: {why}"))
}

async fn run(flags: &Flags, mut config: Config, set_level: &SetLevel) -> Result<ExitCode, String> {
    let hear = |kind| signal(kind).map_err(|why| format!("signals cannot be heard: {why}"));
    let mut terminate = hear(SignalKind::terminate())?;
    let mut interrupt = hear(SignalKind::interrupt())?;
    let mut hangup = hear(SignalKind::hangup())?;
    let app = App::start(&config)?;
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = hangup.recv() => reload(&app, flags, &mut config, set_level),
        }
    }
    // A second signal ends the wait.
    let second = tokio::select! {
        () = app.stop() => return Ok(ExitCode::SUCCESS),
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    };
    tracing::warn!(
        signal = second,
        "a second signal: open streams are cut, and what is under way is given up"
    );
    Ok(ExitCode::from(FAILED))
}

/// Reads the configuration again. If it is good, what of it can change does so, and no stream is
/// cut; if not, all stays as it is.
fn reload(app: &App, flags: &Flags, config: &mut Config, set_level: &SetLevel) {
    let newer = Config::load(flags).and_then(|newer| config.reload(newer));
    app.metrics().reloaded(newer.is_ok());
    let newer = match newer {
        Ok(newer) => newer,
        Err(faults) => {
            for fault in faults.0 {
                tracing::error!(fault, "the configuration is refused and stays as it was");
            }
            return;
        }
    };
    app.reload(&newer.config);
    if let Err(why) = set_level(&newer.config.logging.level) {
        tracing::error!(%why, "the log's level cannot be changed");
    }
    if !newer.left.is_empty() {
        let keys = newer.left.join(" ");
        tracing::warn!(
            keys,
            "changed in the configuration, but applied only at the next start"
        );
    }
    tracing::info!(
        keys = newer.taken.join(" "),
        "the configuration was read again"
    );
    *config = newer.config;
}
