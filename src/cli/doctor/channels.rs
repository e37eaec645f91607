//! Channels of others (`ingest.map`): whether the user of Redis may hear them.

use super::findings::Findings;
use crate::broker::redis::Access;
use crate::config::Ingest;
use redis::aio::MultiplexedConnection;
use std::time::Duration;

/// Tries each on a connection of its own, which is closed at once. For a moment whoever publishes there has one
/// receiver more.
pub(super) async fn inspect(
    f: &mut Findings,
    access: &Access,
    ingest: &Ingest,
    patience: Duration,
) {
    if ingest.map.is_empty() {
        return;
    }
    if !ingest.enabled {
        f.warning(
            "channels",
            "ingest.map, and ingest.enabled = false: a replica with this configuration hears none of them",
            "take one of the two out; other replicas need the map",
        );
        return;
    }
    let mut refused = Vec::new();
    let (mut all, mut patterns) = (0, 0);
    for channel in ingest.map.channels() {
        let is_pattern = channel.stars() > 0;
        (all, patterns) = (all + 1, patterns + usize::from(is_pattern));
        let mut connection = match access.connect(patience).await {
            Ok(connection) => connection,
            Err(why) => {
                f.fault(
                    "channels",
                    why,
                    "see whether Redis takes more connections (maxclients)",
                );
                return;
            }
        };
        let command = if is_pattern {
            "PSUBSCRIBE"
        } else {
            "SUBSCRIBE"
        };
        match hear(&mut connection, command, channel.as_str(), patience).await {
            Ok(()) => {}
            Err(why) => refused.push((format!("&{}", channel.as_str()), why)),
        }
    }
    if let Some((_, why)) = refused.first() {
        let rights: Vec<&str> = refused.iter().map(|(right, _)| right.as_str()).collect();
        f.fault(
            "channels",
            format!(
                "{} of {all} channels of ingest.map cannot be heard, and then ears hear none of them: {why}",
                refused.len()
            ),
            format!(
                "give the user of redis.url, in deploy/redis/users.acl: {}; then restart the replicas, or CLIENT KILL \
                 TYPE pubsub",
                rights.join(" ")
            ),
        );
    } else {
        f.ok(
            "channels",
            format!(
                "all {all} channels of ingest.map can be heard, {patterns} of them as patterns"
            ),
        );
    }
}

async fn hear(
    connection: &mut MultiplexedConnection,
    command: &str,
    channel: &str,
    patience: Duration,
) -> Result<(), String> {
    let mut cmd = redis::cmd(command);
    cmd.arg(channel);
    match tokio::time::timeout(patience, cmd.exec_async(connection)).await {
        Ok(heard) => heard.map_err(|why| why.to_string()),
        Err(_) => Err("no answer in time".to_owned()),
    }
}
