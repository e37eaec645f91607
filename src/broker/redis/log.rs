//! The log: what is asked of the functions, and what they answer.

use super::history::Search;
use super::{Redis, decode};
use crate::broker::{BrokerError, Fleet, Publication, TopicState};
use crate::id::Id;
use crate::log::{ClockName, Followed, History, ReadRequest, Reading};
use crate::topic::{PartitionNo, Topic};
use redis::{Cmd, Value};
use std::collections::BTreeSet;

/// Names of topics that one call looks at, at most.
const LISTED_AT_ONCE: usize = 256;

impl Redis {
    pub(in crate::broker) async fn publish(
        &self,
        batch: &[Publication],
    ) -> Result<Vec<Option<Id>>, BrokerError> {
        let mut cmd = self.write_function("publish");
        for item in batch {
            cmd.arg(item.topic.partition(self.partitions()))
                .arg(item.topic.as_str())
                .arg(item.event_type.as_str())
                .arg(&item.data)
                .arg(if item.end { "end" } else { "" })
                .arg(item.idempotency_key.as_deref().unwrap_or_default());
        }
        let answer = self.call_durably(&cmd).await?;
        let ids = decode::list(&answer).map_err(|_| self.unreadable())?;
        let ids: Result<Vec<_>, _> = ids.iter().map(decode::maybe_id).collect();
        ids.ok()
            .filter(|ids| ids.len() == batch.len())
            .ok_or_else(|| self.unreadable())
    }

    /// Calls a function whose write must last. If `log.wait_replicas` asks for it, it is done only when so
    /// many replicas have it: [WAIT](https://redis.io/docs/latest/commands/wait/), on the same
    /// connection. WAIT asks for the last write of that connection, so it relies on every call having
    /// written something: the function writes for a repeated key, too.
    ///
    /// Dropped while it waits, the event is published; the connection leaves its pool, since the
    /// answer to WAIT is still to come on it.
    pub(super) async fn call_durably(&self, cmd: &Cmd) -> Result<Value, BrokerError> {
        let settings = self.settings();
        if settings.wait_replicas == 0 {
            let answer = self.call_by(|| self.timed(self.publish_on_lane(cmd))).await;
            return answer.map_err(BrokerError::from);
        }
        let mut wait = redis::cmd("WAIT");
        wait.arg(settings.wait_replicas)
            .arg(settings.wait_timeout.as_millis().max(1));
        let (limit, wait) = (settings.command_timeout + settings.wait_timeout, &wait);
        let both = || {
            self.at_master(
                limit,
                |node| async move { node.write_and_wait(cmd, wait).await },
            )
        };
        let (answer, replicas) = self.call_by(both).await?;
        let replicas = decode::number(&replicas).map_err(|_| self.unreadable())?;
        let wanted = settings.wait_replicas as u64;
        if replicas < wanted {
            self.metrics().unreplicated.inc();
            return Err(BrokerError::Unreplicated { replicas, wanted });
        }
        Ok(answer)
    }

    pub(in crate::broker) async fn read(
        &self,
        partition: PartitionNo,
        requests: &[ReadRequest],
    ) -> Result<Reading, BrokerError> {
        let mut cmd = self.read_function("read");
        cmd.arg(partition);
        for request in requests {
            cmd.arg(request.topic.as_str())
                .arg(request.after.to_string())
                .arg(request.limit);
        }
        let answer = self.call(&cmd).await?;
        let (reading, foreign) =
            decode::reading(&answer, requests).map_err(|_| self.unreadable())?;
        self.0.metrics.unreadable.inc_by(foreign as u64);
        Ok(reading)
    }

    /// [`Redis::read`] when it is its turn.
    pub(in crate::broker) async fn replay(
        &self,
        partition: PartitionNo,
        requests: &[ReadRequest],
    ) -> Result<Reading, BrokerError> {
        let _turn = self.0.long_calls.acquire().await;
        self.read(partition, requests).await
    }

    /// Calls a function that may take the server long, when it is its turn.
    async fn call_in_turn(&self, cmd: &Cmd) -> Result<Value, BrokerError> {
        let _turn = self.0.long_calls.acquire().await;
        Ok(self.call(cmd).await?)
    }

    pub(in crate::broker) async fn history(
        &self,
        topics: &[Topic],
        history: History,
    ) -> Result<Vec<(PartitionNo, Id)>, BrokerError> {
        let mut search = Search::new(topics, history, self.partitions());
        loop {
            let asked = search.ask();
            if asked.is_empty() {
                return Ok(search.positions());
            }
            let mut cmd = self.read_function("ids");
            match history {
                History::Earliest => cmd.arg("up").arg(""),
                History::Since { ms } => cmd.arg("up").arg(ms),
                History::Last { .. } => cmd.arg("down").arg(""),
            };
            for topic in &asked {
                cmd.arg(topic.partition)
                    .arg(topic.topic.as_str())
                    .arg(topic.from)
                    .arg(topic.limit);
            }
            let indexes: Vec<usize> = asked.iter().map(|asked| asked.index).collect();
            let answer = self.call_in_turn(&cmd).await?;
            if search.take(&indexes, &answer) != Ok(true) {
                return Err(self.unreadable());
            }
        }
    }

    pub(in crate::broker) async fn delete(&self, topic: &Topic) -> Result<Option<Id>, BrokerError> {
        let partition = topic.partition(self.partitions());
        let mut cmd = self.function("delete", partition);
        cmd.arg(topic.as_str());
        match self.call(&cmd).await? {
            Value::Nil => Ok(None),
            value => decode::id(&value).map(Some).map_err(|_| self.unreadable()),
        }
    }

    /// Has the partition's clock said aloud: the least that Redis does only if it takes writes.
    ///
    /// # Errors
    /// [`BrokerError::Unavailable`] or [`BrokerError::Refused`].
    pub async fn tick(&self, partition: PartitionNo) -> Result<Id, BrokerError> {
        let answer = self.call(&self.function("tick", partition)).await?;
        let Ok([last, configured]) = decode::list(&answer) else {
            return Err(self.unreadable());
        };
        if decode::number(configured) != Ok(1) {
            Box::pin(self.prepare()).await?;
        }
        decode::id(last).map_err(|_| self.unreadable())
    }

    pub(in crate::broker) async fn report(
        &self,
        partition: PartitionNo,
        followed: Followed,
        topics: &[(Topic, Id)],
    ) -> Result<ClockName, BrokerError> {
        let known = |id: Option<Id>| id.map(|id| id.to_string()).unwrap_or_default();
        let mut cmd = self.function("report", partition);
        cmd.arg(followed.heard.to_string())
            .arg(known(followed.born))
            .arg(known(followed.seam))
            .arg(followed.run.map(|run| run.to_string()).unwrap_or_default())
            .arg(followed.known.to_string());
        for (topic, id) in topics {
            cmd.arg(topic.as_str()).arg(id.to_string());
        }
        let answer = self.call(&cmd).await?;
        decode::clock_name(&answer).map_err(|_| self.unreadable())
    }

    pub(in crate::broker) async fn topics(
        &self,
        after: &str,
        limit: usize,
    ) -> Result<Vec<Topic>, BrokerError> {
        let mut found = BTreeSet::new();
        for partition in 0..self.partitions() {
            let (mut from, mut here) = (after.to_owned(), 0);
            // Names without a log are passed over, so one look may not be enough.
            while here < limit {
                let mut cmd = self.read_function("topics");
                cmd.arg(partition)
                    .arg(&from)
                    .arg((limit - here).min(LISTED_AT_ONCE));
                let answer = self.call_in_turn(&cmd).await?;
                let Ok([next, names @ ..]) = decode::list(&answer) else {
                    return Err(self.unreadable());
                };
                let names = names.iter().filter_map(|name| decode::text(name).ok());
                for topic in names.filter_map(|name| Topic::parse(name).ok()) {
                    here += 1;
                    found.insert(topic);
                }
                decode::text(next)
                    .map_err(|_| self.unreadable())?
                    .clone_into(&mut from);
                if from.is_empty() {
                    break;
                }
            }
        }
        Ok(found.into_iter().take(limit).collect())
    }

    /// [ZCARD](https://redis.io/docs/latest/commands/zcard/) of each partition's index.
    pub(in crate::broker) async fn topics_count(&self) -> Result<usize, BrokerError> {
        let mut count: u64 = 0;
        for partition in 0..self.partitions() {
            let key = self.key(&format!("{{{partition}}}:topics"));
            let answer = self.command(redis::cmd("ZCARD").arg(key)).await?;
            count += decode::number(&answer).map_err(|_| self.unreadable())?;
        }
        Ok(usize::try_from(count).unwrap_or(usize::MAX))
    }

    pub(in crate::broker) async fn topic(
        &self,
        topic: &Topic,
    ) -> Result<Option<TopicState>, BrokerError> {
        let partition = topic.partition(self.partitions());
        let mut cmd = self.read_function("topic");
        cmd.arg(partition);
        cmd.arg(topic.as_str()).arg(&self.settings().replica);
        let answer = self.call(&cmd).await?;
        let Ok([first, last, length, ended, elsewhere]) = decode::list(&answer) else {
            return Err(self.unreadable());
        };
        let number = |value| decode::number(value).map_err(|_| self.unreadable());
        let range = decode::id(first).ok().zip(decode::id(last).ok());
        let state = TopicState {
            range,
            length: number(length)?,
            ended: number(ended)? == 1,
            subscribers_elsewhere: number(elsewhere)?,
        };
        Ok((state.range.is_some() || state.subscribers_elsewhere > 0).then_some(state))
    }

    pub(in crate::broker) async fn heartbeat(
        &self,
        streams: u64,
        subscribers: &[(Topic, u64)],
        anew: bool,
    ) -> Result<Fleet, BrokerError> {
        let mut cmd = self.write_function("heartbeat");
        // By which it is known that the library is used.
        cmd.arg(&self.0.library.name);
        cmd.arg(&self.settings().replica)
            .arg(streams)
            .arg(self.partitions())
            .arg(if anew { "anew" } else { "" });
        for (topic, count) in subscribers {
            cmd.arg(topic.as_str()).arg(*count);
        }
        let answer = self.call(&cmd).await?;
        self.tidy_libraries().await;
        let [fresh, unset, replicas @ ..] = decode::list(&answer).map_err(|_| self.unreadable())?
        else {
            return Err(self.unreadable());
        };
        if decode::number(unset) == Ok(1) {
            // FLUSHALL has taken the settings, too. Until now who calls functions was refused.
            Box::pin(self.prepare()).await?;
        }
        let pairs = replicas.chunks_exact(2).filter_map(|pair| match pair {
            [name, count] => Some((
                decode::text(name).ok()?.to_owned(),
                decode::number(count).ok()?,
            )),
            _ => None,
        });
        Ok(Fleet {
            streams: pairs.collect(),
            forgotten: decode::number(fresh) == Ok(1),
        })
    }

    /// Forgets topics of a partition whose logs are gone. True if there may be more.
    pub(in crate::broker) async fn sweep(
        &self,
        partition: PartitionNo,
    ) -> Result<bool, BrokerError> {
        let answer = self.call(&self.function("sweep", partition)).await?;
        let more = decode::number(&answer).map_err(|_| self.unreadable())?;
        Ok(more == 1)
    }

    /// Notes some topics that are not noted. True if there may be more.
    pub(in crate::broker) async fn note_topics(&self) -> Result<bool, BrokerError> {
        let answer = self.call(&self.write_function("note_topics")).await?;
        let more = decode::number(&answer).map_err(|_| self.unreadable())?;
        Ok(more == 1)
    }

    /// Takes this replica off the list, at a clean stop.
    pub(in crate::broker) async fn farewell(&self) -> Result<(), BrokerError> {
        let replica = &self.settings().replica;
        self.command(redis::cmd("HDEL").arg(self.key("replicas")).arg(replica))
            .await?;
        self.command(redis::cmd("DEL").arg(self.key(&format!("subscribers:{replica}"))))
            .await?;
        Ok(())
    }
}
