//! The names that a request may have, in its query or in a line of a batch, and which of them was meant by
//! another.
//!
//! A name that nobody reads is a slip more often than not, and one that is passed over shows only by what does
//! not happen: `?limt=5` has no end, `?sicne=5m` no history.

use super::shown::Shown;

/// The names that one kind of request has.
#[derive(Debug)]
pub(super) struct Vocabulary {
    /// What a name is the name of.
    pub(super) what: &'static str,
    /// The names, as they are told.
    pub(super) names: &'static [&'static str],
    /// Other names that are taken as well, and not told.
    pub(super) also: &'static [&'static str],
    /// Names that are none here, each with the sentence that says what is to be done instead.
    pub(super) elsewhere: &'static [(&'static str, &'static str)],
    /// Words that stand for one of `names` in other gateways, or did here, each with that one.
    pub(super) slips: &'static [(&'static str, &'static str)],
}

impl Vocabulary {
    /// Whether somebody reads what has this name.
    #[must_use]
    pub(super) fn knows(&self, name: &str) -> bool {
        self.names.contains(&name) || self.also.contains(&name)
    }

    /// The name that was meant by one that is not known, if that can be said.
    #[must_use]
    pub(super) fn meant_by(&self, name: &str) -> Option<&'static str> {
        if self.knows(name) || is_of_others(name) {
            return None;
        }
        let names = self.names.iter().map(|known| (*known, *known, 2));
        let slips = self.slips.iter().map(|(slip, known)| (*slip, *known, 1));
        let near = names.chain(slips).filter_map(|(word, known, most)| {
            let shorter = word.len().min(name.len());
            let most = if shorter < 5 { 1 } else { most };
            Some((edits(name, word, most)?, known))
        });
        let nearest = near.min_by_key(|(edits, _)| *edits);
        nearest.map(|(_, known)| known)
    }

    /// The sentence about a name that is not known.
    #[must_use]
    pub(super) fn refusal(&self, name: &str) -> String {
        if let Some((_, instead)) = self.elsewhere.iter().find(|(other, _)| *other == name) {
            return format!("{name}: {instead}");
        }
        let (what, given) = (self.what, Shown(name));
        if let Some(known) = self.meant_by(name) {
            return format!("there is no {what} {given}; did you mean {known}?");
        }
        match self.names {
            [] => format!("there is no {what} {given} here; this path takes none"),
            [only] => format!("there is no {what} {given} here; the only one is {only}"),
            [first @ .., last] => {
                let first = first.join(", ");
                format!("there is no {what} {given} here; the known ones are {first} and {last}")
            }
        }
    }
}

/// Names that pages, proxies and trackers add to any URL, so that they are near nothing.
fn is_of_others(name: &str) -> bool {
    matches!(name, "_" | "nonce") || name.starts_with("utm_")
}

/// How many edits make one word of the other; none if it is more than `most`.
fn edits(name: &str, word: &str, most: usize) -> Option<usize> {
    let (name, word) = (name.as_bytes(), word.as_bytes());
    // Names come from strangers: of any length, and many at once.
    if name.len().abs_diff(word.len()) > most || !are_near(name, word, most) {
        return None;
    }
    (0..=most).find(|edits| are_near(name, word, *edits))
}

/// Whether so many edits make one of the other: a letter too many, too few, another one, or two that have
/// changed places ([Damerau](https://doi.org/10.1145/363958.363994)). Case is none, nor is `-` for `_`.
fn are_near(a: &[u8], b: &[u8], edits: usize) -> bool {
    let (Some((x, after_x)), Some((y, after_y))) = (a.split_first(), b.split_first()) else {
        return a.len() + b.len() <= edits;
    };
    let (x, y) = (letter(*x), letter(*y));
    if x == y {
        return are_near(after_x, after_y, edits);
    }
    let Some(left) = edits.checked_sub(1) else {
        return false;
    };
    are_near(after_x, b, left)
        || are_near(a, after_y, left)
        || are_near(after_x, after_y, left)
        || match (after_x.split_first(), after_y.split_first()) {
            (Some((next_x, rest_x)), Some((next_y, rest_y))) => {
                (letter(*next_x), letter(*next_y)) == (y, x) && are_near(rest_x, rest_y, left)
            }
            _ => false,
        }
}

fn letter(byte: u8) -> u8 {
    if byte == b'-' {
        b'_'
    } else {
        byte.to_ascii_lowercase()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOME: Vocabulary = Vocabulary {
        what: "parameter",
        names: &["topic", "since", "last", "type", "limit", "end"],
        also: &["event"],
        elsewhere: &[("partial", "it is for batches")],
        slips: &[("event", "type"), ("channel", "topic")],
    };

    #[test]
    fn edits_are_counted() {
        let table = [
            ("", "", 0),
            ("a", "", 1),
            ("since", "since", 0),
            ("sicne", "since", 1),
            ("sinc", "since", 1),
            ("sincee", "since", 1),
            ("sance", "since", 1),
            ("isnec", "since", 2),
            ("snc", "since", 2),
            ("ab", "ba", 1),
            ("abc", "cab", 2),
            ("abcd", "badc", 2),
            ("limit", "since", 4),
            ("aab", "aba", 1),
        ];
        for (one, other, edits) in table {
            let (a, b) = (one.as_bytes(), other.as_bytes());
            for most in 0..5 {
                assert_eq!(are_near(a, b, most), edits <= most, "{one} {other} {most}");
                assert_eq!(are_near(b, a, most), edits <= most, "{other} {one} {most}");
            }
        }
    }

    #[test]
    fn one_edit_makes_a_known_name_or_two_of_a_longer_one() {
        let table = [
            ("topics", Some("topic")),
            ("sicne", Some("since")),
            ("limt", Some("limit")),
            ("evnt", Some("type")),
            ("events", Some("type")),
            ("chanel", Some("topic")),
            ("isnec", Some("since")),
            ("TYPE", Some("type")),
            ("typ", Some("type")),
            ("lsat", Some("last")),
            ("lmt", None),
            ("tipp", None),
            ("lasting", None),
            ("en", Some("end")),
            ("e", None),
            ("", None),
            ("token", None),
            ("evnet", Some("type")),
            ("chnanl", None),
        ];
        for (name, meant) in table {
            assert_eq!(SOME.meant_by(name), meant, "{name:?}");
        }
        for known in SOME.names.iter().chain(SOME.also) {
            assert_eq!(SOME.meant_by(known), None, "{known}");
        }
    }

    #[test]
    fn what_others_add_is_near_nothing() {
        for name in ["_", "utm_", "utm_topic", "utm_source", "nonce"] {
            assert_eq!(SOME.meant_by(name), None, "{name}");
        }
        let bare = Vocabulary {
            names: &["_x", "utm_topics"],
            ..SOME
        };
        assert_eq!(bare.meant_by("_"), None);
        assert_eq!(bare.meant_by("utm_topic"), None);
    }

    #[test]
    fn a_refusal_says_what_there_is() {
        let names = |names| Vocabulary { names, ..SOME };
        let table: [(&'static [&'static str], &str); 3] = [
            (&[], "this path takes none"),
            (&["after"], "the only one is after"),
            (&["a1", "b1", "c1"], "the known ones are a1, b1 and c1"),
        ];
        for (known, end) in table {
            let said = names(known).refusal("fo\"o");
            let begin = "there is no parameter \"fo\\\"o\" here; ";
            assert_eq!(said, format!("{begin}{end}"));
        }
        let table = [
            (
                "sicne",
                "there is no parameter \"sicne\"; did you mean since?",
            ),
            ("partial", "partial: it is for batches"),
        ];
        for (name, said) in table {
            assert_eq!(SOME.refusal(name), said);
        }
    }
}
