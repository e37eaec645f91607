//! The log of a replica: where it goes, how it looks, and what becomes of panics.

use super::output::wants_colours;
use crate::config::Logging;
use crate::stderr;
use std::backtrace::{Backtrace, BacktraceStatus};
use std::time::Duration;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime as _, SystemTime};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

/// For so long the end of the process waits for the last lines to be read.
const PATIENCE: Duration = Duration::from_secs(2);
/// For so long a thread that panics waits for it to be read: mostly it goes on, and others wait for it.
const PATIENCE_OF_PANICS: Duration = Duration::from_millis(250);

/// Changes what is logged.
pub(super) type SetLevel = Box<dyn Fn(&str) -> Result<(), String>>;

/// Begins the log of this process, on standard error. Nobody waits for whoever reads it.
///
/// # Errors
/// A sentence about what cannot be had.
pub(super) fn begin(logging: &Logging) -> Result<SetLevel, String> {
    stderr::open(logging.queue_bytes).map_err(|why| format!("the log cannot be written: {why}"))?;
    say_panics(logging.json);
    // The level was checked with the rest of the configuration.
    let filter = filter_of(&logging.level).unwrap_or_default();
    let (filter, handle) = tracing_subscriber::reload::Layer::new(filter);
    let lines = tracing_subscriber::fmt::layer().with_writer(|| stderr::Lines);
    let all = tracing_subscriber::registry().with(filter);
    if logging.json {
        all.with(lines.json()).init();
    } else {
        let terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
        let colours = terminal && wants_colours();
        all.with(lines.with_ansi(colours)).init();
    }
    Ok(Box::new(move |level| {
        let filter = filter_of(level).map_err(|why| why.to_string())?;
        handle.reload(filter).map_err(|why| why.to_string())
    }))
}

/// What is logged at this level. The library of HTTP/2 says what clients do wrong, at each frame, and bounds nothing of
/// it: it is heard only if the level names it.
fn filter_of(level: &str) -> Result<EnvFilter, ParseError> {
    // Without any directive, errors are what is logged.
    let level = if level.is_empty() { "error" } else { level };
    EnvFilter::try_new(format!("h2=error,{level}"))
}

/// Waits for what was said to be written; not for long, if nobody reads it.
pub(super) fn end() {
    // Whoever could be told is who does not read.
    let _is_written = stderr::flush(PATIENCE);
}

/// As [`super::output::complain`], once the log has begun.
pub(super) fn complain(what: impl std::fmt::Display) {
    stderr::say(&format!("tidegate: {what}"));
}

/// Panics go the way of the log, whatever its level: a thread that panics would else wait for whoever does not read, with
/// the locks that it holds.
fn say_panics(json: bool) {
    std::panic::set_hook(Box::new(move |panic| {
        let thread = std::thread::current();
        let trace = Backtrace::capture();
        let trace = (trace.status() == BacktraceStatus::Captured).then(|| trace.to_string());
        let thread = thread.name().unwrap_or_default();
        stderr::say(&line_of(&panic.to_string(), thread, trace.as_deref(), json));
        // The process may end at once.
        let _is_written = stderr::flush(PATIENCE_OF_PANICS);
    }));
}

fn line_of(panic: &str, thread: &str, trace: Option<&str>, json: bool) -> String {
    let mut time = String::new();
    // A time that cannot be written is left out.
    let _is_written = SystemTime.format_time(&mut Writer::new(&mut time));
    if json {
        let fields = serde_json::json!({"message": panic, "thread": thread, "backtrace": trace});
        let line = serde_json::json!({"timestamp": time, "level": "ERROR", "fields": fields, "target": "panic"});
        line.to_string()
    } else {
        let trace = trace.map(|trace| format!("\n{trace}")).unwrap_or_default();
        format!("{time} ERROR panic: thread {thread} {panic}{trace}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_a_line_like_others() {
        let line = line_of(
            "panicked at a.rs:1:2:\nno",
            "streams-0",
            Some("0: main"),
            true,
        );
        let json: serde_json::Value = serde_json::from_str(&line).unwrap();
        let fields = &json["fields"];
        assert_eq!(fields["message"], "panicked at a.rs:1:2:\nno");
        assert_eq!(
            (&fields["thread"], &fields["backtrace"]),
            (&"streams-0".into(), &"0: main".into())
        );
        assert_eq!(
            (&json["level"], &json["target"]),
            (&"ERROR".into(), &"panic".into())
        );
        assert!(
            json["timestamp"]
                .as_str()
                .is_some_and(|time| time.ends_with('Z'))
        );
        assert!(!line.contains('\n'), "one line");

        let text = line_of("panicked at a.rs:1:2:\nno", "streams-0", None, false);
        assert!(
            text.ends_with("Z ERROR panic: thread streams-0 panicked at a.rs:1:2:\nno"),
            "{text}"
        );
    }
}
