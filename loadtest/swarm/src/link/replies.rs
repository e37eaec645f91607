//! Which replies of Redis are late, lost or swallowed: each reply is matched to the command that it answers.
//!
//! [`Commands`] reads one direction of a connection, [`Replies`] the other. Between them goes one [`Due`] for each
//! command, in order, as Redis answers in order. Messages of RESP3 that nobody asked for begin with `>`, and are no
//! answers; nor is SUBSCRIBE answered by anything else there. A connection of RESP2 that has subscribed carries
//! messages from then on, and its replies cannot be told from them: no rule holds for it. A refused SUBSCRIBE over
//! RESP3 is not foreseen.

use super::resp::{Garbled, Scanner};
use std::fmt;
use std::time::Duration;
use tokio::time::Instant;

/// What becomes of some replies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The command, `PUBLISH`, or the end of a function's name, `_read`.
    pub command: &'static str,
    /// Which of its replies.
    pub which: Which,
    /// What happens to them. Redis has carried the command out by then.
    pub mishap: Mishap,
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.mishap {
            Mishap::Late(by) => write!(f, "late by {by:?} for ")?,
            Mishap::Lost => f.write_str("with a cut instead for ")?,
            Mishap::Swallowed => f.write_str("never for ")?,
            Mishap::Last => f.write_str("and none after it for ")?,
        }
        match self.which {
            Which::Every(1) => f.write_str(self.command),
            Which::Every(nth) => write!(f, "one in {nth} {}", self.command),
            Which::Next => write!(f, "the next {}", self.command),
        }
    }
}

/// Which replies to a command a rule is for; each link counts for itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// Every n-th from now on.
    Every(u32),
    /// The next one alone.
    Next,
}

/// What can happen to a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mishap {
    /// It comes so long after its command. What follows on the connection waits behind it.
    Late(Duration),
    /// The connection is closed in its place.
    Lost,
    /// It never comes, nor does anything after it. The connection stands, and takes what is sent.
    Swallowed,
    /// It comes, and nothing after it, likewise: the connection dies while nothing is under way.
    Last,
}

/// The rules of one link, and how often each was followed.
#[derive(Debug, Default)]
pub(super) struct Rules(Vec<Counted>);

#[derive(Debug)]
struct Counted {
    rule: Rule,
    /// Commands that it is about.
    seen: u32,
    /// Those of them whose reply met with a mishap.
    met: u32,
}

impl Rules {
    pub(super) fn new(rules: &[Rule]) -> Self {
        let counted = |rule: &Rule| Counted {
            rule: *rule,
            seen: 0,
            met: 0,
        };
        Self(rules.iter().map(counted).collect())
    }

    /// Each rule, and how often it was followed.
    pub(super) fn met(&self) -> impl Iterator<Item = (Rule, u32)> {
        self.0.iter().map(|counted| (counted.rule, counted.met))
    }

    /// What the reply to this command will meet with, by the first rule that is about it.
    fn judge(&mut self, words: &[Vec<u8>]) -> Option<Mishap> {
        let counted = self
            .0
            .iter_mut()
            .find(|counted| counted.rule.is_about(words))?;
        counted.seen += 1;
        let meets = match counted.rule.which {
            Which::Every(nth) => counted.seen.is_multiple_of(nth),
            Which::Next => counted.seen == 1,
        };
        counted.met += u32::from(meets);
        meets.then_some(counted.rule.mishap)
    }
}

impl Rule {
    fn is_about(&self, words: &[Vec<u8>]) -> bool {
        let [command, first @ ..] = words else {
            return false;
        };
        let is = |name: &str| command.eq_ignore_ascii_case(name.as_bytes());
        let calls = (is("FCALL") || is("FCALL_RO"))
            && self.command.starts_with('_')
            && first
                .first()
                .is_some_and(|function| function.ends_with(self.command.as_bytes()));
        calls || is(self.command)
    }
}

/// What the next reply is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// Passed on at once.
    Reply,
    /// Not passed on before this.
    At(Instant),
    /// Nothing more is passed on, and the connection is closed or not.
    Never { close: bool },
    /// Passed on, and nothing after it.
    Last,
    /// From here on replies cannot be told from messages.
    Untold,
}

/// What a replica sends.
#[derive(Debug, Default)]
pub(super) struct Commands {
    scanner: Scanner,
    /// RESP3 was asked for.
    is_resp3: bool,
}

/// Commands that change how messages come instead of being answered.
const SUBSCRIPTIONS: [&str; 6] = [
    "SUBSCRIBE",
    "PSUBSCRIBE",
    "SSUBSCRIBE",
    "UNSUBSCRIBE",
    "PUNSUBSCRIBE",
    "SUNSUBSCRIBE",
];

impl Commands {
    /// What is due for each command that ends within `piece`.
    ///
    /// # Errors
    /// It is no RESP.
    pub(super) fn read(
        &mut self,
        mut piece: &[u8],
        rules: &mut Rules,
        now: Instant,
    ) -> Result<Vec<Due>, Garbled> {
        let mut all = Vec::new();
        while !piece.is_empty() {
            let scanned = self.scanner.scan(piece)?;
            piece = piece.get(scanned.taken..).unwrap_or_default();
            if scanned.ended {
                all.extend(self.due(rules, now));
            }
        }
        Ok(all)
    }

    fn due(&mut self, rules: &mut Rules, now: Instant) -> Option<Due> {
        let words = self.scanner.words();
        let [command, first @ ..] = words else {
            return Some(Due::Reply);
        };
        let is = |name: &str| command.eq_ignore_ascii_case(name.as_bytes());
        if is("HELLO") {
            self.is_resp3 = first.first().is_some_and(|version| version == b"3");
        }
        if SUBSCRIPTIONS.into_iter().any(is) {
            return (!self.is_resp3).then_some(Due::Untold);
        }
        Some(match rules.judge(words) {
            None => Due::Reply,
            Some(Mishap::Late(by)) => Due::At(now + by),
            Some(Mishap::Lost) => Due::Never { close: true },
            Some(Mishap::Swallowed) => Due::Never { close: false },
            Some(Mishap::Last) => Due::Last,
        })
    }
}

/// What Redis sends.
#[derive(Debug, Default)]
pub(super) struct Replies {
    scanner: Scanner,
    is_untold: bool,
}

/// A stretch of what Redis sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stretch {
    /// How long it is.
    pub(super) bytes: usize,
    /// What it is.
    pub(super) due: Due,
}

impl Replies {
    /// Whether what was read last is whole.
    pub(super) fn is_between(&self) -> bool {
        self.scanner.is_between()
    }

    /// The first stretch of `piece`: a value, or what is there of it. `next` is asked for what is due when a reply
    /// begins.
    ///
    /// # Errors
    /// It is no RESP, or a reply that nobody asked for.
    pub(super) fn read(
        &mut self,
        piece: &[u8],
        next: impl FnOnce() -> Option<Due>,
    ) -> Result<Stretch, Garbled> {
        let mut due = Due::Reply;
        if !self.is_untold && self.scanner.is_between() && piece.first() != Some(&b'>') {
            due = next().ok_or(Garbled)?;
            self.is_untold = due == Due::Untold;
        }
        let bytes = if self.is_untold {
            piece.len()
        } else {
            self.scanner.scan(piece)?.taken
        };
        Ok(Stretch { bytes, due })
    }
}

#[cfg(test)]
mod tests {
    use super::super::resp::tests::draw;
    use super::*;
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng as _};
    use std::collections::VecDeque;

    const LATE: Duration = Duration::from_millis(1500);

    fn rule(command: &'static str, which: Which, mishap: Mishap) -> Rule {
        Rule {
            command,
            which,
            mishap,
        }
    }

    fn command(words: &[&str]) -> Vec<u8> {
        let word = |word: &&str| format!("${}\r\n{word}\r\n", word.len());
        let text: String = words.iter().map(word).collect();
        format!("*{}\r\n{text}", words.len()).into_bytes()
    }

    /// What is due for each of these commands.
    fn due(commands: &[&[&str]], rules: &[Rule], now: Instant) -> Vec<Due> {
        let bytes: Vec<u8> = commands.iter().flat_map(|words| command(words)).collect();
        let all = Commands::default().read(&bytes, &mut Rules::new(rules), now);
        all.unwrap()
    }

    #[test]
    fn a_rule_is_about_a_command_or_the_end_of_a_functions_name() {
        let now = Instant::now();
        let late = Due::At(now + LATE);
        let read = rule("_read", Which::Every(1), Mishap::Late(LATE));
        let table: [(&[&str], Due); 8] = [
            (&["FCALL_RO", "tidegate_v1_read", "0", "0"], late),
            (&["fcall_ro", "tidegate_c0ffee_read", "0", "0"], late),
            (&["FCALL", "tidegate_v1_read", "0"], late),
            (&["FCALL", "tidegate_v1_read_not", "0"], Due::Reply),
            (&["FCALL", "tidegate_v1_publish", "0", "_read"], Due::Reply),
            (&["GET", "tidegate_v1_read"], Due::Reply),
            (&["FCALL"], Due::Reply),
            (&["PING"], Due::Reply),
        ];
        for (words, expected) in table {
            assert_eq!(due(&[words], &[read], now), [expected], "{words:?}");
        }
        let ping = rule("PING", Which::Every(1), Mishap::Lost);
        assert_eq!(
            due(&[&["ping"], &["FCALL", "PING"]], &[read, ping], now),
            [Due::Never { close: true }, Due::Reply]
        );
    }

    #[test]
    fn every_third_or_the_next_alone() {
        let now = Instant::now();
        let publish: &[&str] = &["FCALL", "tidegate_v1_publish", "0"];
        let other: &[&str] = &["PING"];
        let seven = [publish, other, publish, publish, publish, publish, publish];
        let lost = |which| {
            let rules = [rule("_publish", which, Mishap::Swallowed)];
            let found = due(&seven, &rules, now);
            let lost = |due: &Due| *due == Due::Never { close: false };
            found.iter().map(lost).collect::<Vec<_>>()
        };
        assert_eq!(
            lost(Which::Every(3)),
            [false, false, false, true, false, false, true]
        );
        assert_eq!(
            lost(Which::Next),
            [true, false, false, false, false, false, false]
        );
    }

    #[test]
    fn how_often_a_rule_was_followed_is_counted() {
        let read = rule("_read", Which::Every(2), Mishap::Lost);
        let mut rules = Rules::new(&[read]);
        let bytes = command(&["FCALL_RO", "t_read", "0"]).repeat(5);
        let all = Commands::default().read(&bytes, &mut rules, Instant::now());
        assert_eq!(all.unwrap().len(), 5);
        assert_eq!(rules.met().collect::<Vec<_>>(), [(read, 2)]);
    }

    #[test]
    fn subscriptions_are_answered_by_messages() {
        let now = Instant::now();
        let subscribe: &[&str] = &["SUBSCRIBE", "a", "b"];
        assert_eq!(
            due(&[&["HELLO", "3"], subscribe, &["PING"]], &[], now),
            [Due::Reply, Due::Reply]
        );
        assert_eq!(
            due(&[&["PING"], subscribe], &[], now),
            [Due::Reply, Due::Untold]
        );
        let mut replies = Replies::default();
        let mut queue = VecDeque::from([Due::Reply, Due::Untold]);
        let stretch = replies.read(b"+PONG\r\n*3\r\n", || queue.pop_front());
        assert_eq!(stretch.map(|stretch| stretch.bytes), Ok(7));
        for piece in ["*3\r\n$9\r\nsubscribe\r\n", "anything"] {
            let stretch = replies.read(piece.as_bytes(), || queue.pop_front());
            assert_eq!(stretch.map(|stretch| stretch.bytes), Ok(piece.len()));
        }
    }

    #[test]
    fn a_reply_that_nobody_asked_for_is_refused() {
        assert_eq!(Replies::default().read(b"+OK\r\n", || None), Err(Garbled));
        assert!(
            Replies::default()
                .read(b">1\r\n+hello\r\n", || None)
                .is_ok()
        );
    }

    /// Replies and messages in random order, cut at random: each reply has what is due for its command, and what is
    /// passed on is what came.
    #[test]
    fn each_reply_meets_what_is_due_for_its_command() {
        let now = Instant::now();
        for seed in 0..300 {
            let rng = &mut StdRng::seed_from_u64(seed);
            let (mut dues, mut came, mut starts) = (VecDeque::new(), Vec::new(), Vec::new());
            for number in 0..rng.random_range(1..20) {
                if rng.random_bool(0.3) {
                    came.extend(b">2\r\n$7\r\nmessage\r\n");
                    came.extend(draw(rng, 2));
                } else {
                    starts.push((came.len(), Due::At(now + Duration::from_secs(number))));
                    dues.push_back(Due::At(now + Duration::from_secs(number)));
                    came.extend(draw(rng, 2));
                }
            }
            let (mut replies, mut at, mut found) = (Replies::default(), 0, Vec::new());
            while at < came.len() {
                let end = (at + rng.random_range(1..100)).min(came.len());
                while at < end {
                    let stretch = replies.read(&came[at..end], || dues.pop_front());
                    let Stretch { bytes, due } = stretch.unwrap();
                    if due != Due::Reply {
                        found.push((at, due));
                    }
                    at += bytes;
                }
            }
            assert_eq!(found, starts, "seed {seed}");
            assert!(dues.is_empty());
        }
    }
}
