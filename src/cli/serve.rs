//! `tidegate serve` and `tidegate check-config`.

use super::{FAILED, FAULTY, complain, say};
use crate::app::App;
use crate::config::{Config, Flags, Logging};
use std::process::ExitCode;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

pub(super) fn check(flags: &Flags) -> ExitCode {
    match Config::load(flags) {
        Ok(_) => {
            say("the configuration is good").map_or(ExitCode::from(FAILED), |()| ExitCode::SUCCESS)
        }
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
    log_to_stderr(&config.logging);
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(why) => {
            complain(format!("the runtime cannot be started: {why}"));
            return ExitCode::from(FAILED);
        }
    };
    runtime.block_on(run(&config))
}

async fn run(config: &Config) -> ExitCode {
    let (mut terminate, mut interrupt) = match (
        signal(SignalKind::terminate()),
        signal(SignalKind::interrupt()),
    ) {
        (Ok(terminate), Ok(interrupt)) => (terminate, interrupt),
        (Err(why), _) | (_, Err(why)) => {
            complain(format!("signals cannot be heard: {why}"));
            return ExitCode::from(FAILED);
        }
    };
    let app = match App::start(config) {
        Ok(app) => app,
        Err(why) => {
            complain(why);
            return ExitCode::from(FAILED);
        }
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    // A second signal ends the wait.
    tokio::select! {
        () = app.stop() => ExitCode::SUCCESS,
        _ = terminate.recv() => ExitCode::from(FAILED),
        _ = interrupt.recv() => ExitCode::from(FAILED),
    }
}

fn log_to_stderr(logging: &Logging) {
    // The level was checked with the rest of the configuration.
    let filter = EnvFilter::try_new(&logging.level).unwrap_or_default();
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    if logging.json {
        subscriber.json().init();
    } else {
        subscriber
            .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
            .init();
    }
}
