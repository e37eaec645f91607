//! Rules of the configuration that make topics of claims: `user:{sub}`.
//!
//! What a claim says, its owner may have chosen: a name, a team. So a value counts only if it stays within its place. It
//! grants nothing if it
//!
//! - holds `*`, which would be a pattern, or `#`, `,` or a control character, which no topic has;
//! - holds `:`, which would reach another level (`alice:private` in `user:{sub}`), unless the rule says that it may:
//!   `{team:path}`;
//! - is empty, or makes a topic too long, or one of the gateway's own;
//! - is neither a text nor a whole number, nor a list of them. Of a list each element counts by itself.
//!
//! What grants nothing is no error: most tokens lack some claim.

use super::action::Action;
use super::mark::Mark;
use super::rights::{Rights, pattern};
use crate::metrics::AuthRefusal;
use crate::topic::{Pattern, Topic};
use serde_json::{Map, Value};

/// One rule.
#[derive(Clone, Debug)]
pub struct ClaimRule {
    pieces: Vec<Piece>,
    actions: Vec<Action>,
    /// Only for tokens of this issuer: two may call different people the same.
    issuer: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Claim { name: String, is_path: bool },
}

impl ClaimRule {
    /// Reads a rule.
    ///
    /// # Errors
    /// One sentence.
    pub fn parse(text: &str, actions: Vec<Action>, issuer: Option<String>) -> Result<Self, String> {
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('{') {
            let (name, after) = after.split_once('}').ok_or("a { has no }")?;
            let (name, is_path) = match name.strip_suffix(":path") {
                Some(name) => (name, true),
                None => (name, false),
            };
            if name.is_empty() || name.contains('{') {
                return Err("between { and } stands the name of a claim".to_owned());
            }
            pieces.push(Piece::Text(before.to_owned()));
            pieces.push(Piece::Claim {
                name: name.to_owned(),
                is_path,
            });
            rest = after;
        }
        pieces.push(Piece::Text(rest.to_owned()));
        let rule = Self {
            pieces,
            actions,
            issuer,
        };
        if rule.texts().any(|text| text.contains('}')) {
            return Err("a } has no {".to_owned());
        }
        // With any letter for each claim it is a pattern.
        let example: String = rule
            .pieces
            .iter()
            .map(|piece| match piece {
                Piece::Text(text) => text.as_str(),
                Piece::Claim { .. } => "x",
            })
            .collect();
        pattern(&example).map_err(|why| why.to_string())?;
        Ok(rule)
    }

    /// By which the same rule is known again.
    pub(super) fn mark(&self) -> Mark {
        Mark::of("rule", &[format!("{self:?}").as_bytes()])
    }

    fn texts(&self) -> impl Iterator<Item = &str> {
        self.pieces.iter().filter_map(|piece| match piece {
            Piece::Text(text) => Some(text.as_str()),
            Piece::Claim { .. } => None,
        })
    }

    /// Whether the rule itself speaks of the gateway's own topics, before any claim does.
    fn is_of_own(&self) -> bool {
        self.texts()
            .next()
            .is_some_and(|begin| begin.starts_with(Topic::RESERVED))
    }

    /// Adds what the rule grants by these claims. A rule with several lists grants each combination.
    ///
    /// # Errors
    /// [`AuthRefusal::Rights`]: there would be more patterns than `patterns_max`.
    pub fn apply(
        &self,
        claims: &Map<String, Value>,
        issuer: Option<&str>,
        patterns_max: usize,
        rights: &mut Rights,
    ) -> Result<(), AuthRefusal> {
        if self.issuer.is_some() && self.issuer.as_deref() != issuer {
            return Ok(());
        }
        let mut texts = vec![String::new()];
        for piece in &self.pieces {
            let values = match piece {
                Piece::Text(text) => vec![text.clone()],
                Piece::Claim { name, is_path } => values(claims.get(name), *is_path),
            };
            if texts.len().saturating_mul(values.len()) > patterns_max {
                return Err(AuthRefusal::Rights);
            }
            let combined = texts
                .iter()
                .flat_map(|text| values.iter().map(move |value| format!("{text}{value}")));
            texts = combined.collect();
        }
        for text in texts {
            let pattern = if self.is_of_own() {
                Pattern::parse_any(&text)
            } else {
                Pattern::parse(&text)
            };
            if let Ok(pattern) = pattern {
                for action in &self.actions {
                    rights.add(*action, pattern.clone());
                }
            }
        }
        Ok(())
    }
}

/// The values of a claim that count.
fn values(claim: Option<&Value>, is_path: bool) -> Vec<String> {
    let several = match claim {
        Some(Value::Array(several)) => several.as_slice(),
        Some(one) => std::slice::from_ref(one),
        None => &[],
    };
    let texts = several.iter().filter_map(|value| match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => (number.is_i64() || number.is_u64()).then(|| number.to_string()),
        _ => None,
    });
    texts.filter(|text| stays_in_place(text, is_path)).collect()
}

fn stays_in_place(text: &str, is_path: bool) -> bool {
    let leaves = |c: char| c.is_control() || matches!(c, '*' | '#' | ',') || (c == ':' && !is_path);
    !text.is_empty() && text.len() <= Topic::BYTES_MAX && !text.contains(leaves)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn granted(rule: &str, claims: &Value) -> Vec<String> {
        let rule = ClaimRule::parse(rule, vec![Action::Subscribe], None).unwrap();
        let mut rights = Rights::default();
        let members = claims.as_object().unwrap();
        rule.apply(members, None, 8, &mut rights).unwrap();
        let patterns = rights.patterns(Action::Subscribe).iter();
        patterns
            .map(|pattern| pattern.as_str().to_owned())
            .collect()
    }

    #[test]
    fn a_claim_becomes_a_topic() {
        let table = [
            ("user:{sub}", json!({"sub":"alice"}), vec!["user:alice"]),
            ("user:{sub}:*", json!({"sub":"a b"}), vec!["user:a b:*"]),
            ("user:{id}", json!({"id":42}), vec!["user:42"]),
            ("user:{id}", json!({"id":-1}), vec!["user:-1"]),
            ("{sub}", json!({"sub":"日本"}), vec!["日本"]),
            ("public:*", json!({}), vec!["public:*"]),
            (
                "team:{team}:*",
                json!({"team":["a","b",7]}),
                vec!["team:a:*", "team:b:*", "team:7:*"],
            ),
            (
                "{org}:{team}",
                json!({"org":["x","y"],"team":["a","b"]}),
                vec!["x:a", "x:b", "y:a", "y:b"],
            ),
            (
                "dir:{dir:path}:*",
                json!({"dir":"eu:berlin"}),
                vec!["dir:eu:berlin:*"],
            ),
            (
                "x:{https://example.com/team}",
                json!({"https://example.com/team":"a"}),
                vec!["x:a"],
            ),
            (
                "tidegate.{what}",
                json!({"what":"refused"}),
                vec!["tidegate.refused"],
            ),
        ];
        for (rule, claims, expected) in table {
            assert_eq!(granted(rule, &claims), expected, "{rule} {claims}");
        }
    }

    #[test]
    fn a_value_that_leaves_its_place_grants_nothing() {
        let long = "x".repeat(251);
        let values = [
            json!("*"),
            json!("a*"),
            json!("a#b"),
            json!("a,b"),
            json!("a:b"),
            json!(":"),
            json!("a\nb"),
            json!("a\u{0}"),
            json!("a\u{7f}"),
            json!("a\u{85}"),
            json!(""),
            json!(long),
            json!(null),
            json!(true),
            json!(1.5),
            json!(1e30),
            json!({"a":"b"}),
            json!([]),
            json!([["a"]]),
            json!([null, "", "*", "a:b", {"a":1}]),
        ];
        for value in values {
            let claims = json!({"sub": value});
            assert_eq!(granted("user:{sub}", &claims), [""; 0], "{claims}");
        }
        assert_eq!(granted("user:{sub}", &json!({})), [""; 0]);
        // Of two claims both count.
        assert_eq!(granted("{a}:{b}", &json!({"a":"x"})), [""; 0]);
        // In a list each by itself.
        assert_eq!(granted("u:{a}", &json!({"a":["*","b"]})), ["u:b"]);
        // A path may hold colons, and nothing else that is special.
        for value in ["a*", "a,b", "a#b", "a\tb", ""] {
            assert_eq!(granted("d:{p:path}", &json!({"p":value})), [""; 0]);
        }
        // Nobody becomes the gateway by its name.
        let own = json!({"sub":"tidegate.refused","rest":"idegate.refused"});
        assert_eq!(granted("{sub}", &own), [""; 0]);
        assert_eq!(granted("t{rest}", &own), [""; 0]);
    }

    #[test]
    fn more_than_may_be_is_refused() {
        let rule = ClaimRule::parse("{a}:{b}", vec![Action::Subscribe], None).unwrap();
        let claims = json!({"a":["1","2","3"],"b":["1","2","3"]});
        let claims = claims.as_object().unwrap();
        let mut rights = Rights::default();
        let done = |most, rights: &mut Rights| rule.apply(claims, None, most, rights);
        assert_eq!(done(8, &mut rights), Err(AuthRefusal::Rights));
        assert_eq!(done(9, &mut rights), Ok(()));
        assert_eq!(rights.count(), 9);
    }

    #[test]
    fn a_rule_may_be_for_one_issuer() {
        let actions = vec![Action::Publish];
        let rule = ClaimRule::parse("u:{sub}", actions, Some("https://a".to_owned())).unwrap();
        let claims = json!({"sub":"x"});
        for (issuer, expected) in [(Some("https://a"), 1), (Some("https://b"), 0), (None, 0)] {
            let mut rights = Rights::default();
            let claims = claims.as_object().unwrap();
            rule.apply(claims, issuer, 8, &mut rights).unwrap();
            assert_eq!(rights.count(), expected, "{issuer:?}");
        }
    }

    #[test]
    fn a_rule_that_is_none_is_refused() {
        let table = [
            ("user:{sub", "a { has no }"),
            ("user:sub}", "a } has no {"),
            ("user:{}", "between { and } stands the name of a claim"),
            ("user:{:path}", "between { and } stands the name of a claim"),
            ("user:{a{b}", "between { and } stands the name of a claim"),
            ("", "a topic has at least one byte"),
            (
                "a,{sub}",
                "a topic has no control character and none of # * ,",
            ),
        ];
        for (rule, why) in table {
            let parsed = ClaimRule::parse(rule, Vec::new(), None);
            assert_eq!(parsed.err().as_deref(), Some(why), "{rule}");
        }
    }
}
