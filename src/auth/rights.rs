//! Which actions on which topics: patterns, by action.

use super::action::Action;
use crate::topic::{BadTopic, Pattern, Topic};

/// What may be done, to which topics. Whoever asks goes through the patterns of one action: their number is bounded
/// where they come from (`auth.patterns_max`), their length by that of a topic.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rights {
    patterns: [Vec<Pattern>; Action::COUNT],
    operate: bool,
    /// Everything, the gateway's own topics too.
    all: bool,
}

impl Rights {
    /// Everything.
    #[must_use]
    pub fn all() -> Self {
        Self {
            all: true,
            ..Self::default()
        }
    }

    /// The same patterns for several actions.
    #[must_use]
    pub fn of(patterns: &[Pattern], actions: &[Action]) -> Self {
        let mut rights = Self::default();
        for action in actions {
            for pattern in patterns {
                rights.add(*action, pattern.clone());
            }
        }
        rights
    }

    /// Adds a pattern, if it is not there. For what is of no topic any pattern will do.
    pub fn add(&mut self, action: Action, pattern: Pattern) {
        if action == Action::Operate {
            self.operate = true;
            return;
        }
        if let Some(patterns) = self.patterns.get_mut(action.place())
            && !patterns.contains(&pattern)
        {
            patterns.push(pattern);
        }
    }

    /// Adds what is of no topic.
    pub fn add_operate(&mut self) {
        self.operate = true;
    }

    /// The patterns of an action.
    #[must_use]
    pub fn patterns(&self, action: Action) -> &[Pattern] {
        self.patterns
            .get(action.place())
            .map(Vec::as_slice)
            .unwrap_or_default()
    }

    /// How many patterns there are, of all actions together.
    #[must_use]
    pub fn count(&self) -> usize {
        self.patterns.iter().map(Vec::len).sum()
    }

    /// Whether this may be done to this topic. Topics of the gateway's own are covered by patterns that begin as they
    /// do, and by no others.
    #[must_use]
    pub fn allow(&self, action: Action, topic: &Topic) -> bool {
        self.all
            || self
                .patterns(action)
                .iter()
                .any(|pattern| pattern.covers(topic))
    }

    /// Whether this may be done to every topic that fits a pattern, as far as that is plain.
    #[must_use]
    pub fn cover(&self, action: Action, wanted: &Pattern) -> bool {
        self.all
            || self
                .patterns(action)
                .iter()
                .any(|granted| granted.includes(wanted))
    }

    /// Whether what operators ask is answered.
    #[must_use]
    pub fn allow_operate(&self) -> bool {
        self.all || self.operate
    }

    /// Whether everything may be done.
    #[must_use]
    pub fn is_all(&self) -> bool {
        self.all
    }
}

/// A pattern of a grant: that of `log.overrides`, or one that begins as the names of the gateway's own topics do.
///
/// # Errors
/// As [`Topic::parse`], of the topic that it would be with a letter in place of each `*`.
pub fn pattern(text: &str) -> Result<Pattern, BadTopic> {
    Pattern::parse_any(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rights(action: Action, patterns: &[&str]) -> Rights {
        let patterns: Vec<_> = patterns.iter().map(|text| pattern(text).unwrap()).collect();
        Rights::of(&patterns, &[action])
    }

    #[test]
    fn no_action_follows_from_another() {
        for granted in Action::ALL {
            let rights = rights(granted, &["*"]);
            let topic = Topic::parse("a").unwrap();
            for asked in Action::ALL {
                let is_allowed = match asked {
                    Action::Operate => rights.allow_operate(),
                    asked => rights.allow(asked, &topic),
                };
                assert_eq!(is_allowed, asked == granted, "{granted:?} {asked:?}");
            }
        }
    }

    #[test]
    fn a_star_does_not_cover_what_is_the_gateways_own() {
        let table = [
            ("*", false),
            ("t*", false),
            ("tidegate*", false),
            ("*.connections", false),
            ("*tidegate.connections", false),
            ("tidegate.connections", true),
            ("tidegate.*", true),
            ("tidegate.refused", false),
        ];
        let own = Topic::parse(Topic::CONNECTIONS).unwrap();
        for (text, expected) in table {
            let rights = rights(Action::Subscribe, &[text]);
            assert_eq!(rights.allow(Action::Subscribe, &own), expected, "{text}");
        }
        assert!(Rights::all().allow(Action::Subscribe, &own));
    }

    #[test]
    fn a_pattern_counts_once() {
        let rights = rights(Action::Publish, &["a", "b*", "a"]);
        assert_eq!(rights.count(), 2);
    }
}
