//! What the commands that ask a gateway have in common.

use super::output::{Fault, finish};
use crate::client::{Base, Client};
use clap::Args;
use std::path::PathBuf;
use std::process::ExitCode;

/// Where a gateway is unless somebody says otherwise: where `tidegate serve` listens.
pub(super) const HERE: &str = "http://127.0.0.1:8081";

#[derive(Clone, Debug, Args)]
pub(super) struct GatewayArgs {
    /// The gateway, or the proxy before it.
    #[arg(
        long,
        global = true,
        value_name = "URL",
        env = "TIDEGATE_URL",
        default_value = HERE
    )]
    pub(super) url: Base,
    /// A token, if the gateway asks for one. Others see it in the list of processes: the variable is better.
    #[arg(
        long,
        global = true,
        value_name = "TOKEN",
        env = "TIDEGATE_TOKEN",
        hide_env_values = true
    )]
    token: Option<String>,
    /// Trusts the certificate authorities in this file (PEM) instead of those of browsers.
    #[arg(long, global = true, value_name = "FILE", env = "TIDEGATE_CA")]
    ca: Option<PathBuf>,
}

impl GatewayArgs {
    /// A client that reads.
    pub(super) fn client(self) -> Client {
        Client::new(self.url, self.token.as_deref(), self.ca.into())
    }

    /// A client that writes, by this key, or else by the token.
    pub(super) fn client_with(&self, key: &KeyArgs) -> Client {
        let key = key.key.as_deref().or(self.token.as_deref());
        Client::new(self.url.clone(), key, self.ca.clone().into())
    }
}

#[derive(Clone, Debug, Args)]
pub(super) struct KeyArgs {
    /// The publish key. Others see it in the list of processes: the variable is better.
    #[arg(
        long,
        value_name = "KEY",
        env = "TIDEGATE_PUBLISH_KEY",
        hide_env_values = true
    )]
    pub(super) key: Option<String>,
}

/// Runs a command to its end.
pub(super) fn run(work: impl Future<Output = Result<(), Fault>>) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let done = runtime
        .map_err(|why| Fault::Failed(why.to_string()))
        .and_then(|runtime| {
            let done = runtime.block_on(work);
            // A thread that waits for input that does not come is not waited for.
            runtime.shutdown_background();
            done
        });
    finish(done)
}
