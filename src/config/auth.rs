//! The section `auth`: who may read, and who may write.

use super::source::Source;
use crate::auth::{
    Action, Algorithm, ClaimRule, Expected, Key, KeyHash, Keyring, PUBLISHERS_MAX, Publisher,
    Rights, Settings, Tokens, check_name, key_set, pattern, public_keys,
};
use crate::topic::Pattern;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// What a config must say, word for word, to let anyone publish beyond loopback.
pub const OPEN_PUBLISHING: &str = "anyone who can reach this address may publish";

/// Rules and patterns of one list, at most: each token, or each request, goes through them.
const ENTRIES_MAX: usize = 64;
/// Keys of tokens, at most.
const KEYS_MAX: usize = 64;
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
    /// How long a ticket waits to be used: whole seconds, one at least.
    pub ticket_life: Duration,
    /// Tickets of one owner that wait to be used, at most.
    pub tickets_each_max: usize,
    /// Files with secrets that every user of the machine may read.
    pub readable_by_all: Vec<String>,
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
        let tokens = tokens(s, &mut readable_by_all);
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
            ticket_life: ticket_life(s),
            tickets_each_max: tickets_each_max(s),
            readable_by_all,
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
            "{listen} is beyond loopback: set auth.publish_key or auth.publish_key_file, \
             or say auth.open_publishing = \"{OPEN_PUBLISHING}\""
        ))
    }

    fn asks_publishers(&self) -> bool {
        let settings = &self.settings;
        settings.publish_key.is_some()
            || !settings.publishers.is_empty()
            || !settings.tokens.keys.is_empty()
    }

    /// Who says what tokens must say means to ask for them: without a key, nothing would be asked of readers at all.
    fn check_tokens(&self, s: &mut Source) {
        if !self.settings.tokens.keys.is_empty() {
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

/// The contents of a file that holds a secret.
fn secret_file(
    s: &mut Source,
    key: &'static str,
    readable_by_all: &mut Vec<String>,
) -> Option<String> {
    let text = s.file(key)?;
    let path = s.said(key).unwrap_or_default();
    note_readable(&path, readable_by_all);
    Some(text)
}

fn note_readable(path: &str, readable_by_all: &mut Vec<String>) {
    use std::os::unix::fs::PermissionsExt as _;
    let mode = std::fs::metadata(path).map(|data| data.permissions().mode());
    if mode.is_ok_and(|mode| mode & 0o004 != 0) {
        readable_by_all.push(path.to_owned());
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

fn tokens(s: &mut Source, readable_by_all: &mut Vec<String>) -> Tokens {
    let tokens = Tokens {
        keys: keyring(s, readable_by_all),
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

fn keyring(s: &mut Source, readable_by_all: &mut Vec<String>) -> Keyring {
    const KEY: &str = "auth.keys";
    let in_file = secret_file(s, "auth.token_secret_file", readable_by_all);
    let said = s.optional::<String>("auth.token_secret");
    let said_in = if said.is_some() {
        "auth.token_secret"
    } else {
        "auth.token_secret_file"
    };
    let mut keys = Vec::new();
    if let Some(secret) = said.or(in_file) {
        match Key::secret(Algorithm::Hs256, secret.as_bytes()) {
            Ok(key) => keys.push(key),
            Err(why) => s.fault(said_in, &why),
        }
    }
    let mut settled = String::new();
    for entry in s.tables(KEY, key_entry) {
        keys.extend(entry.keys);
        readable_by_all.extend(entry.readable_by_all);
        // Of what is secret a hash is kept, which no other process can compare with.
        let _written = write!(settled, "{}\n\n", entry.settled);
    }
    if keys.len() > KEYS_MAX {
        s.fault(KEY, &format!("must be at most {KEYS_MAX} in all"));
    }
    s.settle(KEY, &settled);
    Keyring::new(keys)
}

/// What one of `auth.keys` comes to.
struct KeyEntry {
    keys: Vec<Key>,
    settled: String,
    readable_by_all: Option<String>,
}

fn key_entry(s: &mut Source) -> Option<KeyEntry> {
    let id = s.optional::<String>("id");
    let issuer = s.optional::<String>("issuer");
    let word = s.optional::<String>("algorithm");
    let algorithm = word.as_deref().and_then(Algorithm::parse);
    if let Some(word) = word.as_deref().filter(|_| algorithm.is_none()) {
        let all = Algorithm::words();
        s.fault("algorithm", &format!("{word:?} is not one of {all}"));
    }
    let mut readable = Vec::new();
    let secret = s.optional::<String>("secret");
    let secret_in_file = secret_file(s, "secret_file", &mut readable);
    let public = s.file("file");
    let texts = [&secret, &secret_in_file, &public];
    if ["secret", "secret_file", "file"]
        .iter()
        .filter(|key| s.has(key))
        .count()
        != 1
    {
        s.fault("file", "a key has one of secret, secret_file and file");
    }
    let settled = format!("{id:?} {issuer:?} {word:?} {texts:?}");
    let made = match (secret.or(secret_in_file), public) {
        (Some(secret), _) => {
            let algorithm = algorithm.unwrap_or(Algorithm::Hs256);
            Key::secret(algorithm, secret.as_bytes()).map(|key| vec![key])
        }
        (None, Some(text)) if text.starts_with('{') => key_set(&text, algorithm),
        (None, Some(text)) => public_keys(&text, algorithm),
        (None, None) => return None,
    };
    let keys = match made {
        Ok(keys) => keys,
        Err(why) => {
            let key = if s.has("file") { "file" } else { "secret" };
            s.fault(key, &why);
            return None;
        }
    };
    let has_secret = |key: &Key| key.algorithm().secret_bytes_min().is_some();
    if s.has("file") && keys.iter().any(has_secret) {
        note_readable(&s.said("file").unwrap_or_default(), &mut readable);
    }
    let named = keys.into_iter().map(|key| {
        let own = key.id().map(str::to_owned);
        key.called(id.as_deref().or(own.as_deref()))
            .of_issuer(issuer.as_deref())
    });
    Some(KeyEntry {
        keys: named.collect(),
        settled,
        readable_by_all: readable.pop(),
    })
}
