//! What an ear listens to, and what of it is a raw publish.

use crate::broker::BrokerError;
use crate::broker::channels::ChannelMap;
use crate::broker::raw::{Item, Unfit};
use crate::broker::redis::{PubSub, Push, Redis};

/// What the present connection of an ear hears.
#[derive(Debug)]
pub(super) struct Hearing {
    /// `ingest.channel`: with all below it common to all ears.
    pub(super) channel: String,
    /// Channels that this ear hears besides.
    pub(super) map: ChannelMap,
    /// `publish.event_bytes_max`.
    pub(super) event_bytes_max: usize,
}

impl Hearing {
    /// Subscribes, on a new connection. What ears tell one another comes last.
    pub(super) async fn subscribe(&self, redis: &Redis) -> Result<PubSub, BrokerError> {
        let mut pubsub = redis.subscribe_connection().await?;
        pubsub.subscribe(&self.channel).await?;
        pubsub.psubscribe(format!("{}:*", self.channel)).await?;
        for channel in self.map.channels() {
            // Each pattern is matched against each publish in Redis; a plain channel costs nothing.
            if channel.stars() > 0 {
                pubsub.psubscribe(channel.as_str()).await?;
            } else {
                pubsub.subscribe(channel.as_str()).await?;
            }
        }
        pubsub.subscribe(redis.ingest_channel()).await?;
        Ok(pubsub)
    }

    /// How many confirmations come.
    pub(super) fn subscriptions(&self) -> usize {
        3 + self.map.channels().count()
    }

    /// Whether a channel is common to all ears, and what was published there. None if it is another delivery of
    /// the same publish that counts.
    pub(super) fn read(
        &self,
        channel: &[u8],
        payload: &[u8],
        pattern: Option<&[u8]>,
    ) -> Option<(bool, Result<Item, Unfit>)> {
        if self.is_common(channel) {
            let item = Item::read(&self.channel, channel, payload, self.event_bytes_max);
            return Some((true, item));
        }
        let entry = self.map.entry_of(channel, pattern)?;
        Some((false, entry.read(channel, payload, self.event_bytes_max)))
    }

    fn is_common(&self, channel: &[u8]) -> bool {
        let rest = channel.strip_prefix(self.channel.as_bytes());
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(b":"))
    }

    /// Whether a push is a raw publish.
    pub(super) fn is_raw(&self, push: &Push) -> bool {
        match push {
            Push::Message {
                channel, pattern, ..
            } => {
                self.is_common(channel) || self.map.entry_of(channel, pattern.as_deref()).is_some()
            }
            Push::Subscribed(_) | Push::Lost { .. } => false,
        }
    }
}
