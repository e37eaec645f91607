//! `tidegate healthcheck`.

use super::output::Fault;
use crate::client::{Authorities, Base, Client};
use crate::config::{Config, Flags};
use clap::Args;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::time::Duration;

/// Time for an answer.
const PATIENCE: Duration = Duration::from_secs(3);

#[derive(Debug, Args)]
pub(super) struct HealthArgs {
    /// The replica; the default is the one with the configuration of this process.
    #[arg(long, value_name = "URL")]
    url: Option<Base>,
    /// The configuration file (TOML).
    #[arg(long, value_name = "FILE", env = "TIDEGATE_CONFIG")]
    config: Option<PathBuf>,
}

/// Where a replica of this configuration answers its operators, on this machine.
fn own(file: Option<PathBuf>) -> Result<Base, String> {
    let flags = Flags {
        file,
        environment: true,
        ..Flags::default()
    };
    let config = Config::load(&flags).map_err(|faults| faults.0.join("; "))?;
    let mut address = config.ops.listen.unwrap_or(config.server.listen);
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    format!("http://{address}").parse()
}

pub(super) async fn healthcheck(args: HealthArgs) -> Result<(), Fault> {
    let base = match args.url {
        Some(url) => url,
        None => own(args.config)?,
    };
    let client = Client::new(base, None, Authorities::default());
    let asking = client.ask("GET", "/healthz", &[], "");
    let late = |_| format!("{} does not answer within {PATIENCE:?}", client.base());
    let answer = tokio::time::timeout(PATIENCE, asking)
        .await
        .map_err(late)??;
    if answer.status.is_success() {
        Ok(())
    } else {
        let (base, status) = (client.base(), answer.status);
        Err(Fault::Failed(format!("{base} answers {status}")))
    }
}
