//! What commands say, how it looks on a terminal, and the codes with which they end.

use crate::client;
use rustix::event::{PollFd, PollFlags, poll};
use std::borrow::Cow;
use std::fmt::{self, Write as _};
use std::io::{self, ErrorKind, IsTerminal as _, Write as _};
use std::process::ExitCode;
use tokio::sync::oneshot;

/// The configuration is at fault (`EX_USAGE` of sysexits.h).
pub(super) const FAULTY: u8 = 64;
/// Something that is needed cannot be had.
pub(super) const FAILED: u8 = 1;
/// As clap ends for what it cannot read.
const MISUSED: u8 = 2;
/// What was to be published is refused as it is (`EX_DATAERR`).
const REFUSED: u8 = 65;
/// As shells have it for SIGINT.
const INTERRUPTED: u8 = 130;

/// Lines are no longer than this, whatever the terminal.
const COLUMNS_MAX: usize = 80;
/// Narrower than this, lines are broken by the terminal.
const COLUMNS_MIN: usize = 30;

/// Why a command did not do what it was asked for.
#[derive(Debug)]
pub(super) enum Fault {
    /// Something that is needed cannot be had; trying again may help.
    Failed(String),
    /// It was not asked for as it must be.
    Misused(String),
    /// What was to be published is refused as it is.
    Refused(String),
    /// Somebody pressed Ctrl-C.
    Interrupted(String),
    /// Nobody reads what it says any more, which is an end like any other.
    Unread,
}

impl From<String> for Fault {
    fn from(why: String) -> Self {
        Self::Failed(why)
    }
}

impl From<client::Error> for Fault {
    fn from(why: client::Error) -> Self {
        let advice = match why {
            client::Error::Unreachable { .. } => {
                "; start a gateway there with `tidegate serve`, or name another one with --url"
            }
            client::Error::Untrusted { .. } => "; name the file of a private authority with --ca",
            client::Error::Broken(_) | client::Error::Impossible(_) => "",
        };
        Self::Failed(format!("{why}{advice}"))
    }
}

/// How a command ends; what went wrong is said.
pub(super) fn finish(done: Result<(), Fault>) -> ExitCode {
    let (code, why) = match done {
        Ok(()) | Err(Fault::Unread) => return ExitCode::SUCCESS,
        Err(Fault::Failed(why)) => (FAILED, why),
        Err(Fault::Misused(why)) => (MISUSED, why),
        Err(Fault::Refused(why)) => (REFUSED, why),
        Err(Fault::Interrupted(why)) => (INTERRUPTED, why),
    };
    complain(why);
    ExitCode::from(code)
}

/// Says on standard error what is wrong.
pub(super) fn complain(what: impl fmt::Display) {
    note(format_args!("tidegate: {what}"));
}

/// A line on standard error. Whoever does not read it misses it. Much of it is what a server has said, so on a
/// terminal it is [`harmless`].
pub(super) fn note(what: impl fmt::Display) {
    let mut output = io::stderr().lock();
    let mut what = what.to_string();
    if output.is_terminal() {
        what = harmless(&what);
    }
    drop(writeln!(output, "{what}"));
}

/// A line on standard output: what was asked for.
pub(super) fn say(what: impl fmt::Display) -> Result<(), Fault> {
    say_all(format!("{what}\n").as_bytes())
}

/// As [`say`], of what has its line ends.
pub(super) fn say_all(bytes: &[u8]) -> Result<(), Fault> {
    let mut output = io::stdout().lock();
    let written = output.write_all(bytes).and_then(|()| output.flush());
    written.map_err(|why| match why.kind() {
        ErrorKind::BrokenPipe => Fault::Unread,
        _ => Fault::Failed(format!("standard output cannot be written: {why}")),
    })
}

/// Waits until nobody reads standard output any more.
pub(super) async fn unread() {
    let (tell, told) = oneshot::channel();
    std::thread::spawn(move || {
        let output = io::stdout();
        // Ends and errors are told unasked.
        let mut watched = [PollFd::new(&output, PollFlags::empty())];
        while poll(&mut watched, -1) == Err(rustix::io::Errno::INTR) {}
        // The command may have ended.
        let _is_heard = tell.send(());
    });
    let _is_over = told.await;
}

/// How many columns a line may have: those of the terminal, or of `COLUMNS`.
pub(super) fn columns() -> usize {
    let terminal = rustix::termios::tcgetwinsize(io::stdout()).ok();
    let terminal = terminal.map(|size| usize::from(size.ws_col));
    let named = || std::env::var("COLUMNS").ok()?.parse().ok();
    let columns = terminal.filter(|columns| *columns > 0).or_else(named);
    columns
        .unwrap_or(COLUMNS_MAX)
        .clamp(COLUMNS_MIN, COLUMNS_MAX)
}

/// Whether standard output is a terminal.
pub(super) fn is_terminal() -> bool {
    io::stdout().is_terminal()
}

/// Whether colours are wanted where a terminal shows them ([NO_COLOR](https://no-color.org)).
pub(super) fn wants_colours() -> bool {
    let variable = |name| std::env::var_os(name).unwrap_or_default();
    variable("NO_COLOR").is_empty() && variable("TERM") != "dumb"
}

/// A text in lines of at most so many columns. Lines but the first begin with so many spaces; a word that is
/// longer than a line stands on one of its own.
pub(super) fn wrapped(text: &str, columns: usize, indent: usize) -> String {
    let (mut lines, mut length) = (String::new(), 0);
    // What stands before the first word stays.
    let begin = text.len() - text.trim_start().len();
    for (number, word) in text.trim_start().split(' ').enumerate() {
        let word_length = word.chars().count();
        if number == 0 {
            lines.push_str(&" ".repeat(begin));
            length = begin;
        } else if length + 1 + word_length > columns {
            lines.push('\n');
            lines.push_str(&" ".repeat(indent));
            length = indent;
        } else {
            lines.push(' ');
            length += 1;
        }
        lines.push_str(word);
        length += word_length;
    }
    lines
}

/// A text of somebody else's for standard output: on a terminal it is [`harmless`], else as it is.
pub(super) fn shown(text: &str) -> Cow<'_, str> {
    if is_terminal() {
        harmless(text).into()
    } else {
        text.into()
    }
}

/// As [`shown`], of JSON, which stays the same JSON.
pub(super) fn shown_json(json: &str) -> Cow<'_, str> {
    if is_terminal() {
        escaped(json).into()
    } else {
        json.into()
    }
}

/// JSON in which what would move a terminal's cursor or change its colours is escaped. JSON has no other control
/// characters than these within a string; what comes may be none.
fn escaped(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for c in json.chars() {
        match c {
            '\n' | '\t' => text.push(c),
            c if c.is_control() => drop(write!(text, "\\u{:04x}", u32::from(c))),
            c => text.push(c),
        }
    }
    text
}

/// A text of somebody else's on a terminal: what would move the cursor or change colours is shown as a sign
/// (U+2400 and on). Tabs and line ends stay.
pub(super) fn harmless(text: &str) -> String {
    let sign = |c: char| match c {
        '\n' | '\t' => c,
        '\u{7f}' => '\u{2421}',
        '\0'..' ' => char::from_u32(0x2400 + u32::from(c)).unwrap_or('\u{fffd}'),
        '\u{80}'..='\u{9f}' => '\u{fffd}',
        _ => c,
    };
    text.chars().map(sign).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_broken_between_words() {
        let text = "  ok       memory  64 bytes a-word-that-is-longer-than-a-line x";
        assert_eq!(
            wrapped(text, 24, 4),
            "  ok       memory  64\n    bytes\n    a-word-that-is-longer-than-a-line\n    x"
        );
        assert_eq!(wrapped("", 24, 4), "");
    }

    #[test]
    fn json_on_a_terminal_is_the_same_json_without_a_control_character() {
        let said = serde_json::json!({"a": "\u{9b}31m\u{9b}2J\u{7f}\u{80}é\u{1b}\n"});
        let shown = escaped(&said.to_string());
        assert!(!shown.contains(char::is_control), "{shown:?}");
        assert!(
            shown.contains("\\u009b31m\\u009b2J\\u007f\\u0080é\\u001b"),
            "{shown:?}"
        );
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(&shown).unwrap(),
            said
        );
        // What is no JSON does no harm either.
        assert_eq!(escaped("{\n\t\u{1b}[2J"), "{\n\t\\u001b[2J");
    }
}
