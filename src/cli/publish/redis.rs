//! Straight to Redis, through the public function.

use super::args::PublishArgs;
use crate::broker::redis::Access;
use crate::cli::output::Fault;
use redis::RedisError;
use redis::aio::MultiplexedConnection;
use std::time::Duration;

/// Time for an answer of Redis.
const PATIENCE: Duration = Duration::from_secs(5);

/// A Redis that has the function.
#[derive(Debug)]
pub(super) struct Straight {
    connection: MultiplexedConnection,
    prefix: String,
}

/// One event, as the function takes it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Event<'a> {
    pub(super) topic: &'a str,
    pub(super) kind: &'a str,
    pub(super) data: &'a str,
    pub(super) end: bool,
    pub(super) key: &'a str,
}

impl Straight {
    /// A connection to the Redis of `--redis`.
    pub(super) async fn connect(url: &str, args: &PublishArgs) -> Result<Self, Fault> {
        let access = Access::parse(&url.to_owned().into());
        let access = access.map_err(|why| Fault::Misused(format!("--redis {why}")))?;
        let connection = access.connect(PATIENCE).await.map_err(|why| {
            format!("Redis cannot be reached: {why}; start one with redis-server, or name another one with --redis")
        })?;
        Ok(Self {
            connection,
            prefix: args.prefix.clone(),
        })
    }

    /// Publishes an event; its id, if the topic is logged.
    pub(super) async fn publish(&mut self, event: Event<'_>) -> Result<Option<String>, Fault> {
        let mut cmd = redis::cmd("FCALL");
        cmd.arg(format!("{}_publish", self.prefix))
            .arg(0)
            .arg(event.topic)
            .arg(event.data)
            .arg(event.kind)
            .arg(if event.end { "end" } else { "" })
            .arg(event.key);
        let answer = cmd.query_async(&mut self.connection);
        match tokio::time::timeout(PATIENCE, answer).await {
            Ok(answer) => answer.map_err(|why| self.fault(&why)),
            Err(_) => Err(Fault::Failed(format!(
                "Redis does not answer within {PATIENCE:?}"
            ))),
        }
    }

    /// Why it is not published, without the first word that programs go by.
    fn fault(&self, why: &RedisError) -> Fault {
        let detail = why.detail().unwrap_or_default();
        match why.code().unwrap_or_default() {
            "TGENDED" => Fault::Refused(format!("topic {detail} has ended")),
            "TGLARGE" => Fault::Refused(format!("an event has at most {detail} bytes")),
            "TGUNLOGGED" => {
                Fault::Refused(format!("topic {detail} is not logged, so it cannot end"))
            }
            "TGTOPICS" => Fault::Refused(format!(
                "there are {detail} topics already, and limits.topics_max allows no more"
            )),
            "TGINVALID" => Fault::Refused(detail.to_owned()),
            code if code.starts_with("TG") => Fault::Failed(detail.to_owned()),
            "ERR" if detail.starts_with("Function not found") => Fault::Failed(format!(
                "this Redis has no function {}_publish: start a gateway with this Redis, or name your prefix with --prefix",
                self.prefix
            )),
            "" => Fault::Failed(why.to_string()),
            code => Fault::Failed(format!("Redis refuses: {code} {detail}")),
        }
    }
}
