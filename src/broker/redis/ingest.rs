//! What ingest asks of Redis: epochs, appends, the inbox.

use super::{Redis, decode};
use crate::broker::BrokerError;
use crate::broker::channels::Heard;
use crate::broker::raw::{Append, Appended, InboxMove};

impl Redis {
    /// The channel on which ears tell one another.
    #[must_use]
    pub fn ingest_channel(&self) -> String {
        self.key("ingest")
    }

    fn inbox_key(&self) -> String {
        self.key("inbox")
    }

    /// Begins an epoch, as an ear that hears these channels besides the common ones. What all ears are told.
    ///
    /// # Errors
    /// [`BrokerError`].
    pub async fn start_epoch(
        &self,
        epoch: &str,
        ear: &str,
        map: &Heard,
    ) -> Result<String, BrokerError> {
        let mut cmd = self.function("start", 0);
        cmd.arg(epoch).arg(ear);
        cmd.arg(&**map.name()).arg(map.patterns());
        let told = self.call(&cmd).await?;
        let told = decode::text(&told).map_err(|_| self.unreadable())?;
        Ok(told.to_owned())
    }

    /// Appends what was counted.
    ///
    /// # Errors
    /// [`BrokerError`]; whether it was done is unknown, and repeating it is harmless.
    pub async fn append_raw(&self, ear: &str, append: &Append) -> Result<Appended, BrokerError> {
        let mut cmd = self.function("append", 0);
        cmd.arg(&*append.epoch).arg(ear).arg(&*append.map);
        cmd.arg(u8::from(append.force));
        let ends = append.end.iter().flatten();
        let ends: Vec<String> = ends
            .map(|(class, n)| format!("{}:{n}", class.number()))
            .collect();
        cmd.arg(ends.join(" "));
        cmd.arg(append.classes.len());
        for (class, first, before) in &append.classes {
            cmd.arg(class.number()).arg(*first).arg(*before);
        }
        for (class, hash, item) in &append.items {
            cmd.arg(class.number()).arg(*hash);
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
        decode::appended(&answer).map_err(|_| self.unreadable())
    }

    /// Tells the other ears that this one goes.
    ///
    /// # Errors
    /// [`BrokerError`].
    pub async fn leave_ears(&self, ear: &str) -> Result<(), BrokerError> {
        let mut cmd = self.function("leave", 0);
        cmd.arg(ear);
        self.call(&cmd).await?;
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
