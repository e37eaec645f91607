//! Goal: the command line is a good neighbour: of scripts, of pipes, of terminals, and of whoever
//! presses Ctrl-C.
//!
//! Method: the real binary against real gateways; terminals are pseudo-terminals. What it says is
//! held word by word only where scripts or people go by it.

mod help;
mod liar;
mod publish;
mod tail;
mod token;
mod topics;

use crate::support::{Gateway, Output, run};

/// Runs a command that asks `gateway`.
fn ask(gateway: &Gateway, words: &[&str]) -> Output {
    run(&[words, &["--url", &gateway.url()]].concat(), &[])
}

/// Fails unless the command was done; what it printed.
#[track_caller]
fn done(output: Output) -> String {
    assert_eq!(output.code, Some(0), "{output:?}");
    output.stdout
}
