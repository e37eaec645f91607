//! What a kind needs before the good ones begin.

use super::{Kind, Scale};
use crate::cluster::{Cluster, Verb};
use crate::http::{self, Request};
use serde_json::json;
use std::fs::{self, File};
use std::path::PathBuf;
use std::process::Command;

/// Topics of the streams that ask for as many as they may.
pub(super) const TOPICS_MAX: usize = 64;
/// Lines of one batch.
const BATCH: usize = 1000;
/// The replica whose log nobody reads.
pub(super) const STALLED: usize = 0;

/// What stands ready. Dropping it takes away what is no event.
#[derive(Debug, Default)]
pub struct Ground {
    /// Held open on both sides, and read by nobody.
    pipe: Option<(File, PathBuf)>,
}

impl Drop for Ground {
    fn drop(&mut self) {
        if let Some((_, path)) = self.pipe.take() {
            // Whoever looks at the logs afterwards would wait for it.
            let _gone = fs::remove_file(path);
        }
    }
}

/// The name of a topic that holds many events.
pub(super) fn deep_name(index: usize) -> String {
    format!("deep{index}")
}

/// Prepares for each of the kinds.
///
/// # Errors
/// What could not be put in place.
pub async fn prepare(kinds: &[Kind], scale: Scale, cluster: &Cluster) -> Result<Ground, String> {
    let mut ground = Ground::default();
    let needs = |some: &[Kind]| some.iter().any(|kind| kinds.contains(kind));
    if needs(&[Kind::StalledLog]) {
        let log = cluster.log_of(STALLED);
        ground.pipe = Some(stall(cluster, log).await?);
    }
    if needs(&[Kind::TopicsList]) {
        let line = |topic| json!({ "topic": format!("many{topic}"), "data": "x" }).to_string();
        publish(cluster, (0..scale.topics).map(line)).await?;
    }
    if needs(&[Kind::LastOfMany, Kind::OldCursors, Kind::StoppedReaders]) {
        let data = "x".repeat(1024);
        let line =
            |number| json!({ "topic": deep_name(number % TOPICS_MAX), "data": data }).to_string();
        publish(cluster, (0..scale.events * TOPICS_MAX).map(line)).await?;
    }
    Ok(ground)
}

async fn publish(cluster: &Cluster, lines: impl Iterator<Item = String>) -> Result<(), String> {
    let address = &cluster.nginx.address;
    let key = cluster.publish_key().map(|key| format!("Bearer {key}"));
    let key = key.iter().map(|key| ("Authorization", key.as_str()));
    let headers: Vec<_> = key
        .chain([("Content-Type", "application/x-ndjson")])
        .collect();
    let mut lines = lines.peekable();
    while lines.peek().is_some() {
        let body: Vec<String> = lines.by_ref().take(BATCH).collect();
        let body = body.join("\n");
        let request = Request {
            method: "POST",
            target: "/events",
            headers: &headers,
            body: body.as_bytes(),
        };
        match http::ask(address, request).await {
            Ok((200, _)) => {}
            Ok((status, told)) => return Err(format!("a batch was answered {status}: {told}")),
            Err(why) => return Err(format!("a batch was not answered: {why}")),
        }
    }
    Ok(())
}

/// Starts a replica anew with a pipe for its log.
async fn stall(cluster: &Cluster, log: PathBuf) -> Result<(File, PathBuf), String> {
    let replica = cluster.replicas.get(STALLED).ok_or("there is no replica")?;
    let parts = [replica.name.clone()];
    cluster.act(Verb::Stop, &parts).await?;
    fs::rename(&log, log.with_extension("before")).map_err(|why| format!("its log: {why}"))?;
    let made = Command::new("mkfifo").arg(&log).status();
    if !made.is_ok_and(|status| status.success()) {
        return Err("mkfifo fails".to_owned());
    }
    // Both ways, so that opening it waits for nobody.
    let pipe = File::options().read(true).write(true).open(&log);
    let pipe = pipe.map_err(|why| format!("{}: {why}", log.display()))?;
    cluster.act(Verb::Start, &parts).await?;
    Ok((pipe, log))
}
