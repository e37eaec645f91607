//! The section `auth`: who may read, and who may write.

use super::jwks::Jwks;
use super::secret::secret_file;
use super::source::Source;
use super::token_keys::{TokenKeys, token_keys};
use crate::auth::jwks::Timing;
use crate::auth::{
    Action, ClaimRule, Expected, KeyHash, PUBLISHERS_MAX, Publisher, Rights, Settings, Tokens,
    check_name, pattern,
};
use crate::topic::Pattern;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// What a config must say, word for word, to let anyone publish beyond loopback.
pub const OPEN_PUBLISHING: &str = "anyone who can reach this address may publish";

/// Rules and patterns of one list, at most: each token, or each request, goes through them.
const ENTRIES_MAX: usize = 64;
/// Tickets of one owner, at most: each that is asked for looks at all of them.
const TICKETS_MAX: usize = 1000;
/// A ticket that is good for longer is a token in a URL.
const TICKET_LIFE_MAX: Duration = Duration::from_secs(600);
/// Clocks that differ by more are wrong.
const LEEWAY_MAX: Duration = Duration::from_secs(600);

/// `auth`: who may read, and who may write.
#[derive(Clone, Debug)]
pub struct Auth {
    /// How credentials are judged.
    pub settings: Settings,
    /// Whether anyone may publish beyond loopback, on purpose.
    pub open_publishing: bool,
    /// The cookie that may hold a token; empty for none.
    pub cookie: String,
    /// Whether a token may stand in the query, as `access_token`.
    pub query_token: bool,
    /// What may be taken back at a time, at most.
    pub denied_max: usize,
    /// How long a ticket waits to be used: whole seconds, one at least.
    pub ticket_life: Duration,
    /// Tickets of one owner that wait to be used, at most.
    pub tickets_each_max: usize,
    /// Files with secrets that every user of the machine may read.
    pub readable_by_all: Vec<String>,
    /// How key sets are kept that are fetched.
    pub jwks: Jwks,
}

impl Auth {
    /// `listen` decides how much must be said: beyond loopback, publishing has a key or is open on
    /// purpose.
    pub(super) fn take(s: &mut Source, listen: SocketAddr) -> Self {
        let mut readable_by_all = Vec::new();
        let file_key = secret_file(s, "auth.publish_key_file", &mut readable_by_all);
        let key = s.optional::<String>("auth.publish_key").or(file_key);
        let open = s.optional::<String>("auth.open_publishing");
        let is_open = open.as_deref() == Some(OPEN_PUBLISHING);
        if open.is_some() && !is_open {
            s.fault(
                "auth.open_publishing",
                &format!("must be exactly \"{OPEN_PUBLISHING}\""),
            );
        }
        let publishers = publishers(s);
        let jwks = Jwks::take(s);
        let tokens = tokens(s, jwks.timing, &mut readable_by_all);
        let anonymous = patterns(s, "auth.anonymous");
        let auth = Self {
            settings: Settings {
                publish_key: key.map(Into::into),
                publishers,
                tokens,
                tokens_known_max: s.count("auth.tokens_known_max", "10000"),
                anonymous: (!anonymous.is_empty())
                    .then(|| Arc::new(Rights::of(&anonymous, &[Action::Subscribe, Action::List]))),
            },
            open_publishing: is_open,
            cookie: cookie(s),
            query_token: s.flag("auth.query_token", "false"),
            denied_max: s.count("auth.denied_max", "10000"),
            ticket_life: ticket_life(s),
            tickets_each_max: tickets_each_max(s),
            readable_by_all,
            jwks,
        };
        auth.check_tokens(s);
        if let Err(why) = auth.check(listen) {
            s.fault("server.listen", &why);
        }
        auth
    }

    /// Whether this is enough to listen at an address.
    pub(super) fn check(&self, listen: SocketAddr) -> Result<(), String> {
        if listen.ip().is_loopback() || self.asks_publishers() || self.open_publishing {
            return Ok(());
        }
        Err(format!(
            "{listen} is beyond loopback: set auth.publish_key, auth.publishers or auth.token_secret, \
             or say auth.open_publishing = \"{OPEN_PUBLISHING}\""
        ))
    }

    fn asks_publishers(&self) -> bool {
        let settings = &self.settings;
        settings.publish_key.is_some()
            || !settings.publishers.is_empty()
            || settings.tokens.are_known()
    }

    /// Who says what tokens must say means to ask for them: without a key, nothing would be asked of readers at all.
    fn check_tokens(&self, s: &mut Source) {
        if self.settings.tokens.are_known() {
            return;
        }
        let expected = &self.settings.tokens.expected;
        let said = [
            ("auth.issuers", !expected.issuers.is_empty()),
            ("auth.audiences", !expected.audiences.is_empty()),
            ("auth.token_type", expected.kind.is_some()),
            ("auth.rules", !self.settings.tokens.rules.is_empty()),
            ("auth.query_token", self.query_token),
        ];
        for (key, _) in said.into_iter().filter(|(_, is_said)| *is_said) {
            s.fault(key, "needs a key of tokens: auth.token_secret or auth.keys");
        }
    }
}

fn cookie(s: &mut Source) -> String {
    let name: String = s.get("auth.cookie", "__Host-tidegate");
    // What RFC 6265 calls a token.
    let plain = |c: char| c.is_ascii_graphic() && !"()<>@,;:\\\"/[]?={}".contains(c);
    if !name.chars().all(plain) {
        s.fault("auth.cookie", &format!("{name:?} is not a cookie's name"));
    }
    name
}

fn ticket_life(s: &mut Source) -> Duration {
    const KEY: &str = "auth.ticket_life";
    let life = s.positive(KEY, "30s");
    if life < Duration::from_secs(1) || life > TICKET_LIFE_MAX || life.subsec_nanos() > 0 {
        s.fault(KEY, "must be whole seconds, and at most 10m");
    }
    life
}

fn tickets_each_max(s: &mut Source) -> usize {
    const KEY: &str = "auth.tickets_each_max";
    let most = s.count(KEY, "32");
    if most > TICKETS_MAX {
        let what =
            format!("must be at most {TICKETS_MAX}: each ticket that is asked for looks at all");
        s.fault(KEY, &what);
    }
    most
}

/// A list of patterns.
fn patterns(s: &mut Source, key: &'static str) -> Vec<Pattern> {
    let texts = s.list(key);
    if texts.len() > ENTRIES_MAX {
        s.fault(key, &format!("must be at most {ENTRIES_MAX}"));
    }
    let mut patterns = Vec::with_capacity(texts.len());
    for text in texts {
        match pattern(&text) {
            Ok(pattern) => patterns.push(pattern),
            Err(why) => s.fault(key, &format!("{text:?} is not a pattern: {why}")),
        }
    }
    patterns
}

/// A list of actions; `others` if none are named.
fn actions(s: &mut Source, others: Action) -> Vec<Action> {
    let words = s.list("actions");
    if words.is_empty() {
        return vec![others];
    }
    let mut actions = Vec::with_capacity(words.len());
    for word in words {
        if let Some(action) = Action::parse(&word) {
            actions.push(action);
        } else {
            let all = Action::ALL.map(Action::as_str).join(", ");
            s.fault("actions", &format!("{word:?} is not one of {all}"));
        }
    }
    actions
}

fn publishers(s: &mut Source) -> Arc<[Publisher]> {
    const KEY: &str = "auth.publishers";
    let publishers = s.tables(KEY, publisher);
    if publishers.len() > PUBLISHERS_MAX {
        s.fault(KEY, &format!("must be at most {PUBLISHERS_MAX}"));
    }
    s.settle(KEY, &format!("{publishers:?}"));
    publishers.into()
}

fn publisher(s: &mut Source) -> Option<Publisher> {
    let name: String = s.get("name", "");
    if let Err(why) = check_name(&name) {
        s.fault("name", &why);
    }
    let hash = KeyHash::parse(&s.get::<String>("hash", ""));
    if hash.is_none() {
        s.fault("hash", "must be the hash that tidegate key new prints");
    }
    let topics = patterns(s, "topics");
    if topics.is_empty() {
        s.fault("topics", "must name at least one pattern");
    }
    let actions = actions(s, Action::Publish);
    Some(Publisher {
        name: name.into(),
        hash: hash?,
        rights: Arc::new(Rights::of(&topics, &actions)),
    })
}

fn tokens(s: &mut Source, timing: Timing, readable_by_all: &mut Vec<String>) -> Tokens {
    let TokenKeys { keys, sets } = token_keys(s, timing, readable_by_all);
    let tokens = Tokens {
        keys,
        sets,
        expected: Expected {
            issuers: s.list("auth.issuers"),
            audiences: s.list("auth.audiences"),
            kind: s.optional("auth.token_type"),
            leeway: s.duration("auth.leeway", "30s"),
            life_max: s.positive("auth.token_life_max", "31days"),
        },
        bytes_max: s.count("auth.token_bytes_max", "8192"),
        patterns_max: s.count("auth.patterns_max", "64"),
        claim: s.get("auth.claim", "tidegate"),
        rules: rules(s),
    };
    if tokens.expected.leeway > LEEWAY_MAX {
        s.fault("auth.leeway", "must be at most 10m");
    }
    if tokens.bytes_max > 65_536 {
        s.fault("auth.token_bytes_max", "must be at most 65536");
    }
    if tokens.patterns_max > 1000 {
        let what = "must be at most 1000: each request goes through them";
        s.fault("auth.patterns_max", what);
    }
    tokens
}

fn rules(s: &mut Source) -> Arc<[ClaimRule]> {
    const KEY: &str = "auth.rules";
    let rules = s.tables(KEY, |s| {
        let topics: String = s.get("topics", "");
        let actions = actions(s, Action::Subscribe);
        let issuer = s.optional("issuer");
        let rule = ClaimRule::parse(&topics, actions, issuer);
        let fault = |why| s.fault("topics", &format!("{topics:?} is not a rule: {why}"));
        rule.map_err(fault).ok()
    });
    if rules.len() > ENTRIES_MAX {
        let what = format!("must be at most {ENTRIES_MAX}: each token goes through them");
        s.fault(KEY, &what);
    }
    s.settle(KEY, &format!("{rules:?}"));
    rules.into()
}
