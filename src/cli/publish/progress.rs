//! How far a long publish is, on a terminal.

use crate::cli::output::complain;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::fmt;
use std::io::IsTerminal as _;
use std::time::Duration;
use tokio::time::Instant;

/// What takes longer than this is long.
const LONG: Duration = Duration::from_secs(1);

/// Shown once it is long, if standard error is a terminal.
#[derive(Debug)]
pub(super) struct Progress {
    bar: ProgressBar,
    began: Instant,
    may_be_shown: bool,
}

impl Progress {
    /// Of so many bytes of input, if that is known.
    pub(super) fn of(bytes: Option<u64>) -> Self {
        let bar = ProgressBar::with_draw_target(bytes, ProgressDrawTarget::hidden());
        let template = match bytes {
            Some(_) => "{bar:24} {percent}%  {msg}  {eta} left",
            None => "{msg}  {elapsed}",
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        Self {
            bar,
            began: Instant::now(),
            may_be_shown: std::io::stderr().is_terminal(),
        }
    }

    /// So many bytes more, and so many lines in all.
    pub(super) fn add(&mut self, bytes: u64, lines: u64) {
        if self.may_be_shown && self.began.elapsed() > LONG {
            self.may_be_shown = false;
            self.bar.set_draw_target(ProgressDrawTarget::stderr());
        }
        self.bar.set_message(format!("{lines} lines"));
        self.bar.inc(bytes);
    }

    /// Says something beside it.
    pub(super) fn complain(&self, what: impl fmt::Display) {
        self.bar.suspend(|| complain(what));
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
