//! `tidegate serve` and `tidegate check-config`.

use super::output::{FAILED, FAULTY, complain, say};
use crate::app::App;
use crate::config::{Config, Flags, Logging};
use std::process::ExitCode;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

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
    let set_level = log_to_stderr(&config.logging);
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
    runtime.block_on(run(flags, config, &set_level))
}

async fn run(flags: &Flags, mut config: Config, set_level: &SetLevel) -> ExitCode {
    let (mut terminate, mut interrupt, mut hangup) = match (
        signal(SignalKind::terminate()),
        signal(SignalKind::interrupt()),
        signal(SignalKind::hangup()),
    ) {
        (Ok(terminate), Ok(interrupt), Ok(hangup)) => (terminate, interrupt, hangup),
        (Err(why), ..) | (_, Err(why), _) | (.., Err(why)) => {
            complain(format!("signals cannot be heard: {why}"));
            return ExitCode::from(FAILED);
        }
    };
    let app = match App::start(&config) {
        Ok(app) => app,
        Err(why) => {
            complain(why);
            return ExitCode::from(FAILED);
        }
    };
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = hangup.recv() => reload(&app, flags, &mut config, set_level),
        }
    }
    // A second signal ends the wait.
    tokio::select! {
        () = app.stop() => ExitCode::SUCCESS,
        _ = terminate.recv() => ExitCode::from(FAILED),
        _ = interrupt.recv() => ExitCode::from(FAILED),
    }
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
            "changed in the configuration, but taken at the next start only"
        );
    }
    tracing::info!(
        keys = newer.taken.join(" "),
        "the configuration was read again"
    );
    *config = newer.config;
}

/// Changes what is logged.
type SetLevel = Box<dyn Fn(&str) -> Result<(), String>>;

fn log_to_stderr(logging: &Logging) -> SetLevel {
    // The level was checked with the rest of the configuration.
    let filter = EnvFilter::try_new(&logging.level).unwrap_or_default();
    let (filter, handle) = tracing_subscriber::reload::Layer::new(filter);
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let all = tracing_subscriber::registry().with(filter);
    if logging.json {
        all.with(lines.json()).init();
    } else {
        let colours = std::io::IsTerminal::is_terminal(&std::io::stderr());
        all.with(lines.with_ansi(colours)).init();
    }
    Box::new(move |level| {
        let filter = EnvFilter::try_new(level).map_err(|why| why.to_string())?;
        handle.reload(filter).map_err(|why| why.to_string())
    })
}
