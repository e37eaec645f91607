//! What ingest asks of Redis: epochs, appends, the inbox.

use super::{Redis, decode};
use crate::broker::BrokerError;
use crate::broker::raw::{Append, Appended, InboxMove, Outcome};

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

    /// Appends what was counted.
    ///
    /// # Errors
    /// [`BrokerError`]; whether it was done is unknown, and repeating it is harmless.
    pub async fn append_raw(&self, ear: &str, append: &Append) -> Result<Appended, BrokerError> {
        let mut cmd = self.function("append", 0);
        cmd.arg(&*append.epoch).arg(ear).arg(u8::from(append.force));
        cmd.arg(append.end.map(|end| end.to_string()).unwrap_or_default());
        cmd.arg(append.first).arg(append.before);
        for (hash, item) in &append.items {
            cmd.arg(*hash);
            match item {
                Ok(item) => {
                    let partition = item.topic.partition(self.settings().partitions);
                    cmd.arg(partition)
                        .arg(item.topic.as_str())
                        .arg(item.event_type.as_str())
                        .arg(&item.data)
                }
                Err(unfit) => cmd
                    .arg(0)
                    .arg("")
                    .arg(unfit.why.as_str())
                    .arg(format!("{} {}", unfit.size, unfit.channel)),
            };
        }
        let answer = self.call(&cmd).await?;
        let Ok([word, n, logged, refused, refusals]) = decode::list(&answer) else {
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
        Ok(Appended {
            outcome,
            logged: count(logged)?,
            refused: count(refused)?,
            refusals: decode::refusals(refusals).map_err(|_| self.unreadable())?,
        })
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

    /// Publishes entries of the inbox from the first one on, or from the one after `after`, each once,
    /// and deletes them in the same step. No more of them at once than Redis does in a moment; what is in
    /// them does not leave Redis. Another ear may have moved some meanwhile; they count there.
    ///
    /// # Errors
    /// [`BrokerError`]; repeating it is harmless.
    pub async fn move_inbox(&self, after: Option<&str>) -> Result<InboxMove, BrokerError> {
        // Topics are of any partition. The function is told how many there are, in place of one.
        let mut cmd = self.function("inbox", self.settings().partitions);
        cmd.arg(after.unwrap_or_default());
        let answer = self.call(&cmd).await?;
        decode::inbox_move(&answer).map_err(|_| self.unreadable())
    }
}
