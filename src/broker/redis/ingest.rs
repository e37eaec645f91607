//! What ingest asks of Redis: epochs, appends, the inbox.

use super::{Redis, decode};
use crate::broker::BrokerError;
use crate::broker::raw::{Append, InboxEntry, Outcome};
use crate::topic::Topic;
use redis::Value;
use std::collections::BTreeMap;

impl Redis {
    /// The channel on which ears tell one another.
    #[must_use]
    pub fn ingest_channel(&self) -> String {
        self.key("ingest")
    }

    fn inbox_key(&self) -> String {
        self.key("inbox")
    }

    /// Begins an epoch.
    ///
    /// # Errors
    /// [`BrokerError`].
    pub async fn start_epoch(&self, epoch: &str, ear: &str) -> Result<(), BrokerError> {
        let mut cmd = self.function("start", 0);
        cmd.arg(epoch).arg(ear);
        self.call(&cmd).await?;
        Ok(())
    }

    /// Appends what was counted; also how many became events, and how many were refused.
    ///
    /// # Errors
    /// [`BrokerError`]; whether it was done is unknown, and repeating it is harmless.
    pub async fn append_raw(
        &self,
        ear: &str,
        append: &Append,
    ) -> Result<(Outcome, usize, usize), BrokerError> {
        let mut cmd = self.function("append", 0);
        cmd.arg(&*append.epoch).arg(ear).arg(u8::from(append.force));
        cmd.arg(append.end.map(|end| end.to_string()).unwrap_or_default());
        cmd.arg(append.first).arg(append.before);
        for (hash, item) in &append.items {
            cmd.arg(*hash);
            match item {
                Some(item) => {
                    let partition = item.topic.partition(self.settings().partitions);
                    cmd.arg(partition)
                        .arg(item.topic.as_str())
                        .arg(item.event_type.as_str())
                        .arg(&item.data)
                }
                None => cmd.arg(0).arg("").arg("").arg(""),
            };
        }
        let answer = self.call(&cmd).await?;
        let Ok([word, n, logged, refused]) = decode::list(&answer) else {
            return Err(self.unreadable());
        };
        let number = |value| decode::number(value).map_err(|_| self.unreadable());
        let outcome = match decode::text(word) {
            Ok("OK") => Outcome::Logged(number(n)?),
            Ok("STALE") => Outcome::Stale,
            Ok("WAIT") => Outcome::Wait,
            Ok("HOLE") => Outcome::Hole,
            Ok("DIVERGED") => Outcome::Diverged,
            _ => return Err(self.unreadable()),
        };
        let count = |value| number(value).map(|n| usize::try_from(n).unwrap_or(usize::MAX));
        Ok((outcome, count(logged)?, count(refused)?))
    }

    /// Tells the other ears that this one goes.
    ///
    /// # Errors
    /// [`BrokerError`].
    pub async fn leave_ears(&self, ear: &str) -> Result<(), BrokerError> {
        self.command(
            redis::cmd("PUBLISH")
                .arg(self.ingest_channel())
                .arg(format!("leave {ear} -")),
        )
        .await?;
        Ok(())
    }

    /// How many entries the inbox holds.
    ///
    /// # Errors
    /// [`BrokerError`].
    pub async fn inbox_entries(&self) -> Result<i64, BrokerError> {
        let answer = self
            .command(redis::cmd("XLEN").arg(self.inbox_key()))
            .await?;
        let entries = decode::number(&answer).map_err(|_| self.unreadable())?;
        Ok(i64::try_from(entries).unwrap_or(i64::MAX))
    }

    /// Waits a moment for the inbox to hold something. True if it does. It keeps a connection of the
    /// pool for as long, and gives it back in time for whoever waits behind it.
    ///
    /// # Errors
    /// [`BrokerError`].
    pub async fn wait_for_inbox(&self) -> Result<bool, BrokerError> {
        let block = self.settings().command_timeout / 2;
        let mut cmd = redis::cmd("XREAD");
        cmd.arg("COUNT")
            .arg(1)
            .arg("BLOCK")
            .arg(block.as_millis().max(1))
            .arg("STREAMS")
            .arg(self.inbox_key())
            .arg("0-0");
        let answer = self.command(&cmd).await?;
        Ok(answer != Value::Nil)
    }

    /// The oldest entries of the inbox.
    ///
    /// # Errors
    /// [`BrokerError`].
    pub async fn read_inbox(&self, most: usize) -> Result<Vec<InboxEntry>, BrokerError> {
        let answer = self
            .command(
                redis::cmd("XRANGE")
                    .arg(self.inbox_key())
                    .arg("-")
                    .arg("+")
                    .arg("COUNT")
                    .arg(most),
            )
            .await?;
        let entries = decode::list(&answer).map_err(|_| self.unreadable())?;
        entries
            .iter()
            .map(|value| inbox_entry(value).ok_or_else(|| self.unreadable()))
            .collect()
    }

    /// Publishes entries, each once, and deletes them in the same step. Says how many became events,
    /// and how many were refused. Another ear may have moved some of them meanwhile; they count there.
    ///
    /// One call a partition. Dropped between two, the rest is still in the inbox.
    ///
    /// # Errors
    /// [`BrokerError`]; repeating it is harmless.
    pub async fn move_inbox(&self, entries: &[InboxEntry]) -> Result<(usize, usize), BrokerError> {
        let mut by_partition: BTreeMap<u16, Vec<&InboxEntry>> = BTreeMap::new();
        for entry in entries {
            let topic = entry
                .fields
                .get("topic")
                .and_then(|name| Topic::parse(std::str::from_utf8(name).ok()?).ok());
            let partition = topic.map_or(0, |topic| topic.partition(self.settings().partitions));
            by_partition.entry(partition).or_default().push(entry);
        }
        let (mut logged, mut refused) = (0, 0);
        for (partition, entries) in by_partition {
            let mut cmd = self.function("inbox", partition);
            for entry in &entries {
                let field = |name: &str| {
                    entry
                        .fields
                        .get(name)
                        .map(Vec::as_slice)
                        .unwrap_or_default()
                };
                let end = if matches!(field("end"), b"" | b"0" | b"false") {
                    ""
                } else {
                    "end"
                };
                cmd.arg(&entry.entry)
                    .arg(field("topic"))
                    .arg(field("event"))
                    .arg(field("data"))
                    .arg(end)
                    .arg(field("key"));
            }
            let answer = self.call(&cmd).await?;
            let Ok([done, not]) = decode::list(&answer) else {
                return Err(self.unreadable());
            };
            let count = |value| {
                decode::number(value)
                    .ok()
                    .and_then(|n| usize::try_from(n).ok())
                    .unwrap_or_default()
            };
            logged += count(done);
            refused += count(not);
        }
        Ok((logged, refused))
    }
}

fn inbox_entry(value: &Value) -> Option<InboxEntry> {
    let Ok([entry, fields]) = decode::list(value) else {
        return None;
    };
    let bytes = |value: &Value| match value {
        Value::BulkString(bytes) => bytes.clone(),
        _ => Vec::new(),
    };
    let pairs = decode::list(fields)
        .ok()?
        .chunks_exact(2)
        .filter_map(|pair| match pair {
            [name, value] => Some((
                String::from_utf8_lossy(&bytes(name)).into_owned(),
                bytes(value),
            )),
            _ => None,
        });
    Some(InboxEntry {
        entry: decode::text(entry).ok()?.to_owned(),
        fields: pairs.collect(),
    })
}
