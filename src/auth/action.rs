//! What a caller may want to do.

/// One kind of doing. Rights are given for each by itself: none follows from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    /// Read a topic: its stream, and what is retained of it.
    Subscribe,
    /// Publish to a topic.
    Publish,
    /// Publish the last event of a topic.
    End,
    /// Delete a topic's log.
    Delete,
    /// Ask what the log holds of a topic, and how many read it.
    List,
    /// End streams of a topic.
    Disconnect,
    /// Ask what operators ask. It is of no topic.
    Operate,
}

impl Action {
    /// How many there are.
    pub const COUNT: usize = 7;
    /// All of them, in the order of their places.
    pub const ALL: [Self; Self::COUNT] = [
        Self::Subscribe,
        Self::Publish,
        Self::End,
        Self::Delete,
        Self::List,
        Self::Disconnect,
        Self::Operate,
    ];

    /// The word in claims, in the configuration and in answers.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Subscribe => "subscribe",
            Self::Publish => "publish",
            Self::End => "end",
            Self::Delete => "delete",
            Self::List => "list",
            Self::Disconnect => "disconnect",
            Self::Operate => "operate",
        }
    }

    /// The action of a word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|action| action.as_str() == word)
    }

    /// Whether it only looks.
    #[must_use]
    pub const fn is_read(self) -> bool {
        matches!(self, Self::Subscribe | Self::List | Self::Operate)
    }

    /// Its place among all of them.
    pub(super) const fn place(self) -> usize {
        self as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_action_has_a_word_and_a_place_of_its_own() {
        for (place, action) in Action::ALL.into_iter().enumerate() {
            assert_eq!(Action::parse(action.as_str()), Some(action));
            assert_eq!(action.place(), place);
        }
        for word in ["", "Subscribe", "subscribe ", "read", "*"] {
            assert_eq!(Action::parse(word), None, "{word:?}");
        }
    }
}
