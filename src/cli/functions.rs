//! `tidegate functions`: which public functions Redis has, and a way back to an older version.

use super::args::ServeArgs;
use super::output::{Fault, say};
use crate::broker::redis::{code_of, library_words};
use crate::config::Config;
use clap::Args;
use redis::aio::MultiplexedConnection;
use redis::{Cmd, Value};
use std::time::Duration;

/// Time for a connection, and for an answer.
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Debug, Args)]
pub(super) struct FunctionsArgs {
    /// Installs the functions of this build, whichever version Redis has.
    #[arg(long)]
    install: bool,
    #[command(flatten)]
    serve: ServeArgs,
}

pub(super) async fn run(args: FunctionsArgs) -> Result<(), Fault> {
    let config = Config::load(&args.serve.flags()).map_err(|faults| faults.0.join("; "))?;
    let Some(access) = &config.redis.access else {
        return Err(Fault::Failed(
            "no redis.url: only Redis has functions".into(),
        ));
    };
    let words = library_words(&config.redis.prefix);
    let connecting = access.connect(PATIENCE).await;
    let mut redis = connecting.map_err(|why| format!("Redis cannot be reached: {why}"))?;
    let ask = Cmd::new()
        .arg("FCALL_RO")
        .arg(&words.public_version)
        .arg(0)
        .to_owned();
    let there = match answer(&mut redis, &ask).await {
        Ok(there) => code_of(&there).map(|(version, _)| version),
        Err(why) if why.contains("Function not found") => None,
        Err(why) => return Err(why.into()),
    };
    let there = there.map_or("none".to_owned(), |version| version.to_string());
    if args.install {
        let load = Cmd::new()
            .arg("FUNCTION")
            .arg("LOAD")
            .arg("REPLACE")
            .arg(&words.public)
            .to_owned();
        answer(&mut redis, &load).await?;
        return say(format_args!(
            "version {} is installed, before: {there}",
            words.version
        ));
    }
    say(format_args!(
        "Redis has version: {there}, this build: {}",
        words.version
    ))
}

async fn answer(redis: &mut MultiplexedConnection, cmd: &Cmd) -> Result<Value, String> {
    match tokio::time::timeout(PATIENCE, cmd.query_async(redis)).await {
        Ok(answer) => answer.map_err(|why| why.to_string()),
        Err(_) => Err("Redis does not answer in time".into()),
    }
}
