//! What commands say, and the codes with which they end.

/// The configuration is at fault (`EX_USAGE` of sysexits.h).
pub(super) const FAULTY: u8 = 64;
/// Something that is needed cannot be had.
pub(super) const FAILED: u8 = 1;

/// Says on standard error what is wrong.
#[expect(clippy::print_stderr, reason = "the command line speaks to a person")]
pub(super) fn complain(what: impl std::fmt::Display) {
    eprintln!("tidegate: {what}");
}

/// Says on standard output what was asked for. A closed pipe ends the command.
pub(super) fn say(what: impl std::fmt::Display) -> Result<(), String> {
    use std::io::Write as _;
    writeln!(std::io::stdout().lock(), "{what}").map_err(|why| why.to_string())
}
