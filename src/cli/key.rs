//! `tidegate key`: keys for publishers.

use super::output::{Fault, note, say};
use crate::auth::{KeyHash, new_key};
use clap::{Args, Subcommand};
use std::io::IsTerminal as _;

#[derive(Debug, Args)]
pub(super) struct KeyArgs {
    #[command(subcommand)]
    command: KeyCommand,
}

#[derive(Debug, Subcommand)]
enum KeyCommand {
    /// Makes a key for a publisher: two lines, the key and the hash for auth.publishers.
    #[command(after_help = "Examples:\n  tidegate key new")]
    New,
}

pub(super) fn run(args: &KeyArgs) -> Result<(), Fault> {
    match args.command {
        KeyCommand::New => {
            let key = new_key()?;
            say(format_args!("{key}\n{}", KeyHash::of(&key)))?;
            if std::io::stdout().is_terminal() {
                note(
                    "the first line is for the publisher, and is shown this once; the second for auth.publishers",
                );
            }
            Ok(())
        }
    }
}
