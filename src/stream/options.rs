//! What few streams ask for, behind one pointer.

use super::request::StreamRequest;
use crate::hub::{Hub, WakerId};
use crate::time::CoarseInstant;
use std::task::Waker;

/// What few streams ask for.
#[derive(Debug, Default)]
pub(super) struct StreamOptions {
    pub(super) event_types: Box<[String]>,
    pub(super) limit: Option<u64>,
    pub(super) counts: Option<Watch>,
    pub(super) heartbeat_events: bool,
    pub(super) envelope: bool,
    pub(super) ends_at: Option<CoarseInstant>,
}

impl StreamOptions {
    pub(super) fn of(request: &StreamRequest, hub: &Hub, waker: &Waker) -> Option<Box<Self>> {
        let plain = request.event_types.is_empty()
            && request.limit.is_none()
            && request.ends_at.is_none()
            && !request.connections
            && !request.heartbeat_events
            && !request.envelope;
        (!plain).then(|| {
            Box::new(Self {
                event_types: request.event_types.clone().into(),
                limit: request.limit,
                counts: request.connections.then(|| Watch {
                    waker_id: Some(hub.counts().add_waker(waker.clone())),
                    seen: 0,
                }),
                heartbeat_events: request.heartbeat_events,
                envelope: request.envelope,
                ends_at: request.ends_at,
            })
        })
    }

    pub(super) fn shows(&self, event_type: &str) -> bool {
        self.event_types.is_empty()
            || self
                .event_types
                .iter()
                .any(|wanted| is_type(event_type, wanted))
    }
}

/// Watching the number of connections.
#[derive(Debug)]
pub(super) struct Watch {
    /// Where its own waker hangs, if it has one.
    pub(super) waker_id: Option<WakerId>,
    pub(super) seen: u64,
}

impl Watch {
    pub(super) fn of(options: &mut Option<Box<StreamOptions>>) -> Option<&mut Self> {
        options.as_mut()?.counts.as_mut()
    }

    pub(super) fn remove_waker(&mut self, hub: &Hub) {
        if let Some(waker_id) = self.waker_id.take() {
            hub.counts().remove_waker(waker_id);
        }
    }
}

/// An event without a type is a `message`, as it is for `EventSource`.
pub(super) fn is_type(event_type: &str, wanted: &str) -> bool {
    event_type == wanted || (event_type.is_empty() && wanted == "message")
}
