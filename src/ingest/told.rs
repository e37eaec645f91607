//! What ears tell one another, on a channel of their own: in the same order as the publishes that it is about.
//!
//! | words | what |
//! |---|---|
//! | `start EPOCH EAR RUN MAP COUNT NAME=PATTERNS…` | an epoch begins, in that process; the ear's map, and the maps among all ears |
//! | `done EPOCH N EAR MAP CLASS:N…` | so far the log has come |
//! | `leave EAR MAP` | an ear goes |
//!
//! Builds that know of no maps end after RUN, N and EAR. What may be said one day is passed over.

use crate::broker::channels::Heard;
use crate::broker::raw::{Class, Positions};
use std::sync::Arc;

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told<'a> {
    /// An epoch begins here.
    Start {
        /// Its name.
        epoch: &'a str,
        /// Who began it, and the name of its map.
        by: (&'a str, &'a str),
        /// The process of Redis.
        run: &'a str,
        /// All maps that ears have; none if whoever began it knows of none.
        maps: Option<Arc<[Heard]>>,
    },
    /// The log has come so far in an epoch.
    Done {
        /// Its name.
        epoch: &'a str,
        /// Who has appended, and the name of its map.
        by: (&'a str, &'a str),
        /// How far.
        done: Positions,
    },
    /// An ear goes.
    Leave {
        /// Its name.
        ear: &'a str,
    },
    /// A later version may say more, and no ear counts otherwise for it.
    Other,
}

impl<'a> Told<'a> {
    /// Reads a message; none if it should be known, and is not understood.
    #[must_use]
    pub fn read(text: &'a str) -> Option<Self> {
        let mut words = text.split(' ');
        let told = match words.next()? {
            "start" => {
                let (epoch, ear, run) = (words.next()?, words.next()?, words.next()?);
                let map = words.next();
                let maps = match words.next() {
                    None => None,
                    Some(count) => Some(maps(count, &mut words)?),
                };
                Self::Start {
                    epoch,
                    by: (ear, map.unwrap_or(Heard::NOTHING)),
                    run,
                    maps,
                }
            }
            "done" => {
                let (epoch, n, ear) = (words.next()?, words.next()?, words.next()?);
                let map = words.next().unwrap_or(Heard::NOTHING);
                let mut done = vec![(Class::COMMON, n.parse().ok()?)];
                for word in words {
                    done.push(position(word)?);
                }
                Self::Done {
                    epoch,
                    by: (ear, map),
                    done,
                }
            }
            "leave" => Self::Leave { ear: words.next()? },
            _ => Self::Other,
        };
        Some(told)
    }
}

fn maps<'a>(count: &str, words: &mut impl Iterator<Item = &'a str>) -> Option<Arc<[Heard]>> {
    let count: usize = count.parse().ok()?;
    if count > Class::MAPS_MAX {
        return None;
    }
    (0..count).map(|_| Heard::parse(words.next()?)).collect()
}

fn position(word: &str) -> Option<(Class, u64)> {
    let (class, n) = word.split_once(':')?;
    Some((Class::numbered(class.parse().ok()?), n.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ears_of_builds_without_maps_say_is_understood() {
        let start = Told::read("start e r1 run").unwrap();
        let expected = Told::Start {
            epoch: "e",
            by: ("r1", "-"),
            run: "run",
            maps: None,
        };
        assert_eq!(start, expected);
        let done = Told::read("done e 7 r1").unwrap();
        let expected = Told::Done {
            epoch: "e",
            by: ("r1", "-"),
            done: vec![(Class::COMMON, 7)],
        };
        assert_eq!(done, expected);
        assert_eq!(Told::read("leave r1 -"), Some(Told::Leave { ear: "r1" }));
        assert_eq!(Told::read("begin e"), Some(Told::Other));
    }

    #[test]
    fn maps_and_classes_are_read_or_the_message_is_not_understood() {
        let heard = Heard::parse("e8b7be43=a").unwrap();
        let text = format!(
            "start e r1 run {} 1 {}=a and more",
            heard.name(),
            heard.name()
        );
        let Some(Told::Start { by, maps, .. }) = Told::read(&text) else {
            panic!("{text}");
        };
        assert_eq!(
            (by.1, maps.as_deref()),
            (&**heard.name(), Some(&[heard.clone()][..]))
        );
        let done = Told::read("done e 7 r1 e8b7be43 1:3 3:0");
        let expected = vec![
            (Class::COMMON, 7),
            (Class::numbered(1), 3),
            (Class::numbered(3), 0),
        ];
        assert!(matches!(done, Some(Told::Done { done, .. }) if done == expected));
        for bad in [
            "",
            "start e r1",
            "start e r1 run - x",
            "start e r1 run - 1",
            "start e r1 run - 1 00000000=a",
            "start e r1 run - 33",
            "done e x r1",
            "done e 7 r1 - 1",
            "done e 7 r1 - 1:x",
            "leave",
        ] {
            let told = Told::read(bad);
            assert!(told.is_none() || bad.is_empty(), "{bad:?}: {told:?}");
        }
    }
}
