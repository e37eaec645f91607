//! What was let through.

use crate::auth::{Action, Grant};
use crate::broker::Publication;
use crate::stream::request::StreamRequest;
use crate::topic::Topic;
use std::ops::Deref;

/// Something that its caller has a right to. Only a judgement makes one.
#[derive(Debug)]
pub(in crate::http) struct Cleared<T>(T);

impl<T> Cleared<T> {
    pub(super) fn new(wanted: T) -> Self {
        Self(wanted)
    }

    /// What it is.
    pub(in crate::http) fn into_inner(self) -> T {
        self.0
    }
}

impl Cleared<Publication> {
    /// The same with its data, of which no right depends.
    pub(in crate::http) fn with_data(mut self, data: String) -> Self {
        self.0.data = data;
        self
    }
}

impl<T> Deref for Cleared<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

/// What a request wants of topics.
pub(in crate::http) trait Wants {
    /// The first that the grant does not allow.
    fn first_denied(&self, grant: &Grant) -> Option<(Action, Topic)>;
}

fn denied(grant: &Grant, action: Action, topic: &Topic) -> Option<(Action, Topic)> {
    (!grant.allows(action, topic)).then(|| (action, topic.clone()))
}

impl Wants for StreamRequest {
    fn first_denied(&self, grant: &Grant) -> Option<(Action, Topic)> {
        self.all_topics()
            .find_map(|topic| denied(grant, Action::Subscribe, &topic))
    }
}

impl Wants for Publication {
    fn first_denied(&self, grant: &Grant) -> Option<(Action, Topic)> {
        let published = denied(grant, Action::Publish, &self.topic);
        let ended = || denied(grant, Action::End, &self.topic);
        published.or_else(|| self.end.then(ended).flatten())
    }
}

/// One topic, for one action.
impl Wants for (Action, Topic) {
    fn first_denied(&self, grant: &Grant) -> Option<(Action, Topic)> {
        denied(grant, self.0, &self.1)
    }
}
