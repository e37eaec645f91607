//! `tidegate token`: makes tokens to try things with, and says why one is refused. It never prints one that it was given.

use super::args::ServeArgs;
use super::judged::{FetchedSet, judge, now};
use super::output::{Fault, harmless, say};
use crate::auth::{Accepted, Action, Authority, Jws, Key, Seconds, Tokens, mint, pattern};
use crate::config::Config;
use crate::metrics::AuthRefusal;
use clap::{Args, Subcommand};
use serde_json::{Map, Value};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Bytes of what is read as a token, at most; longer ones are said to be too long.
const READ_MAX: u64 = 1 << 20;

#[derive(Debug, Args)]
pub(super) struct TokenArgs {
    #[command(subcommand)]
    command: TokenCommand,
}

#[derive(Debug, Subcommand)]
enum TokenCommand {
    /// Makes a token, signed with `auth.token_secret` or another secret of auth.keys.
    #[command(
        override_usage = "tidegate token new [--sub NAME]",
        after_help = "Examples:\n  tidegate token new --sub alice\n  tidegate token new --subscribe 'user:42'"
    )]
    New(Box<NewArgs>),
    /// Says whether a token is taken, in one line and by the exit code.
    #[command(
        override_usage = "tidegate token check [FILE]",
        after_help = "Examples:\n  tidegate token check token.txt\n  tidegate token check < token.txt"
    )]
    Check(GivenArgs),
    /// Says what is in a token, what it grants, and why it is refused.
    #[command(
        override_usage = "tidegate token explain [FILE]",
        after_help = "Examples:\n  tidegate token explain token.txt\n  tidegate token explain < token.txt"
    )]
    Explain(GivenArgs),
}

#[derive(Debug, Args)]
struct NewArgs {
    /// Whom it is about (sub).
    #[arg(long, value_name = "NAME")]
    sub: Option<String>,
    /// Topics that it may read; may be repeated, as all of these.
    #[arg(long, value_name = "PATTERN")]
    subscribe: Vec<String>,
    /// Topics that it may publish to.
    #[arg(long, value_name = "PATTERN")]
    publish: Vec<String>,
    /// Topics that it may end.
    #[arg(long, value_name = "PATTERN")]
    end: Vec<String>,
    /// Topics that it may delete.
    #[arg(long, value_name = "PATTERN")]
    delete: Vec<String>,
    /// Topics that it may list.
    #[arg(long, value_name = "PATTERN")]
    list: Vec<String>,
    /// Topics whose streams it may end; "*" to take back any right.
    #[arg(long, value_name = "PATTERN")]
    disconnect: Vec<String>,
    /// It may ask what operators ask.
    #[arg(long)]
    operate: bool,
    /// Another claim, as text; may be repeated.
    #[arg(long, value_name = "NAME=TEXT")]
    claim: Vec<String>,
    /// For how long it is good.
    #[arg(long = "for", value_name = "SPAN", default_value = "1h")]
    life: String,
    /// The secret to sign with, by its id; the first one if it is not given.
    #[arg(long, value_name = "ID")]
    key_id: Option<String>,
    #[command(flatten)]
    serve: ServeArgs,
}

#[derive(Debug, Args)]
struct GivenArgs {
    /// The file with the token; standard input if it is not given. It is no argument: those are seen by all.
    file: Option<PathBuf>,
    #[command(flatten)]
    serve: ServeArgs,
}

pub(super) fn run(args: &TokenArgs) -> Result<(), Fault> {
    match &args.command {
        TokenCommand::New(args) => new(args),
        TokenCommand::Check(args) => check(args),
        TokenCommand::Explain(args) => explain(args),
    }
}

fn authority(serve: &ServeArgs) -> Result<(Authority, Config), Fault> {
    let config = Config::load(&serve.flags()).map_err(|faults| faults.0.join("; "))?;
    let authority = Authority::new(config.auth.settings.clone());
    if authority.has_tokens() {
        return Ok((authority, config));
    }
    Err(Fault::Failed(
        "the configuration has no key of tokens: set auth.token_secret or auth.keys".into(),
    ))
}

fn new(args: &NewArgs) -> Result<(), Fault> {
    let (authority, _) = authority(&args.serve)?;
    let tokens = authority.tokens();
    let is_meant = |key: &&Key| args.key_id.is_none() || key.id() == args.key_id.as_deref();
    let mut keys = tokens.keys.keys().iter().filter(is_meant);
    let key = keys.find(|key| key.algorithm().secret_bytes_min().is_some());
    let key = key.ok_or_else(|| {
        "the configuration has no such secret; who has the private half of a key signs with it"
            .to_owned()
    })?;
    let claims = claims(args, tokens)?;
    let token = mint(key, &claims).ok_or_else(|| "it cannot be signed".to_owned())?;
    if let Err(reason) = tokens.judge(&token, now()) {
        return Err(Fault::Misused(format!(
            "this gateway would refuse it: {}",
            sentence(reason)
        )));
    }
    say(token)
}

fn claims(args: &NewArgs, tokens: &Tokens) -> Result<Map<String, Value>, Fault> {
    let life = humantime::parse_duration(&args.life)
        .map_err(|_| Fault::Misused(format!("--for {:?}: a span such as 15m or 1h", args.life)))?;
    let life = Seconds::try_from(life.as_secs()).unwrap_or(Seconds::MAX);
    let now = now();
    let mut claims = Map::new();
    if let Some(subject) = &args.sub {
        claims.insert("sub".to_owned(), subject.as_str().into());
    }
    let expected = &tokens.expected;
    for (name, first) in [
        ("iss", expected.issuers.first()),
        ("aud", expected.audiences.first()),
    ] {
        if let Some(first) = first {
            claims.insert(name.to_owned(), first.as_str().into());
        }
    }
    claims.insert("iat".to_owned(), now.into());
    claims.insert("exp".to_owned(), now.saturating_add(life).into());
    let granted = granted(args)?;
    if !granted.is_empty() {
        claims.insert(tokens.claim.clone(), granted.into());
    }
    for claim in &args.claim {
        let (name, text) = claim
            .split_once('=')
            .ok_or_else(|| Fault::Misused(format!("--claim {claim:?}: a name, = and a text")))?;
        claims.insert(name.to_owned(), text.into());
    }
    Ok(claims)
}

fn granted(args: &NewArgs) -> Result<Map<String, Value>, Fault> {
    let lists = [
        (Action::Subscribe, &args.subscribe),
        (Action::Publish, &args.publish),
        (Action::End, &args.end),
        (Action::Delete, &args.delete),
        (Action::List, &args.list),
        (Action::Disconnect, &args.disconnect),
    ];
    let mut granted = Map::new();
    for (action, patterns) in lists
        .into_iter()
        .filter(|(_, patterns)| !patterns.is_empty())
    {
        for text in patterns {
            let word = action.as_str();
            pattern(text)
                .map_err(|why| Fault::Misused(format!("--{word} {text:?}: no pattern: {why}")))?;
        }
        granted.insert(action.as_str().to_owned(), patterns.clone().into());
    }
    if args.operate {
        granted.insert(Action::Operate.as_str().to_owned(), true.into());
    }
    Ok(granted)
}

/// The token in a file, or on standard input, without white space and `Bearer` before it.
fn given(file: Option<&Path>) -> Result<String, Fault> {
    let mut text = String::new();
    let read = match file {
        Some(path) => std::fs::File::open(path)
            .and_then(|file| file.take(READ_MAX).read_to_string(&mut text))
            .map_err(|why| format!("{}: {why}", path.display())),
        None => std::io::stdin()
            .take(READ_MAX)
            .read_to_string(&mut text)
            .map_err(|why| format!("standard input: {why}")),
    };
    read?;
    let token = text.trim();
    Ok(crate::auth::bearer(token).unwrap_or(token).to_owned())
}

fn check(args: &GivenArgs) -> Result<(), Fault> {
    let (authority, config) = authority(&args.serve)?;
    let token = given(args.file.as_deref())?;
    let (_, judged) = judged(&authority, &config, &token)?;
    let now = now();
    match judged {
        Ok(accepted) => say(format_args!(
            "the token is good for {}, and grants {}",
            span(accepted.until.saturating_sub(now)),
            match accepted.rights.count() {
                1 => "1 pattern".to_owned(),
                count => format!("{count} patterns"),
            }
        )),
        Err(reason) => Err(refused(reason)),
    }
}

/// The verdict, with key sets as they are now.
fn judged(
    authority: &Authority,
    config: &Config,
    token: &str,
) -> Result<(Vec<FetchedSet>, Result<Accepted, AuthRefusal>), Fault> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|why| Fault::Failed(why.to_string()))?;
    let judged = runtime.block_on(judge(authority, config, token));
    // The name of a host may be looked up for long.
    runtime.shutdown_background();
    Ok(judged)
}

fn refused(reason: AuthRefusal) -> Fault {
    let (word, why) = (reason.as_str(), sentence(reason));
    Fault::Failed(format!("the token is refused: {word}: {why}"))
}

fn explain(args: &GivenArgs) -> Result<(), Fault> {
    let (authority, config) = authority(&args.serve)?;
    let tokens = authority.tokens();
    let token = given(args.file.as_deref())?;
    let (sets, judged) = judged(&authority, &config, &token)?;
    let now = now();
    if let Ok(jws) = Jws::read(&token, tokens.bytes_max) {
        say_members("header", jws.header())?;
        if let Ok(claims) = jws.claims() {
            say_members("claim", &claims)?;
        }
    }
    for key in tokens.keys.keys() {
        let id = key.id().unwrap_or("(any)");
        say(format_args!(
            "key     {} kid {id}",
            key.algorithm().as_str()
        ))?;
    }
    for set in sets {
        let came = match &set.keys {
            Ok(count) => count.to_string(),
            Err(why) => format!("not fetched: {why}"),
        };
        say(harmless(&format!("keys    {}: {came}", set.address)))?;
    }
    say(format_args!("now     {now}"))?;
    match judged {
        Ok(accepted) => say_accepted(&accepted, now),
        Err(reason) => Err(refused(reason)),
    }
}

/// What is in it, one member a line. Its signature is not among it.
fn say_members(what: &str, members: &Map<String, Value>) -> Result<(), Fault> {
    for (name, value) in members {
        let line = format!("{what:<7} {name} {value}");
        say(harmless(&line))?;
    }
    Ok(())
}

fn say_accepted(accepted: &Accepted, now: Seconds) -> Result<(), Fault> {
    for action in Action::ALL {
        for pattern in accepted.rights.patterns(action) {
            let line = format!("grants  {} {}", action.as_str(), pattern.as_str());
            say(harmless(&line))?;
        }
    }
    if accepted.rights.allow_operate() {
        say("grants  operate")?;
    }
    if accepted.rights.count() == 0 && !accepted.rights.allow_operate() {
        say("grants  nothing: neither a claim nor a rule gives it a topic")?;
    }
    let left = span(accepted.until.saturating_sub(now));
    say(format_args!("the token is good for {left}"))
}

pub(super) fn span(seconds: Seconds) -> String {
    let seconds = u64::try_from(seconds).unwrap_or_default();
    humantime::format_duration(Duration::from_secs(seconds)).to_string()
}

/// What a reason means, for whoever made the token.
pub(super) fn sentence(reason: AuthRefusal) -> &'static str {
    match reason {
        AuthRefusal::TooLong => "it has more bytes than auth.token_bytes_max",
        AuthRefusal::Malformed => {
            "it is no signed token of three parts, or a claim is not what it must be: sub, iss and jti are texts, exp, nbf and iat numbers, and no member stands twice"
        }
        AuthRefusal::Critical => "its header has crit: extensions that this gateway does not know",
        AuthRefusal::Key => "no key is called as its kid says, or too many keys could be meant",
        AuthRefusal::KeysAway => {
            "no key that is there fits, and a key set of auth.keys cannot be fetched; a replica refuses nobody for that, and says to come back"
        }
        AuthRefusal::Algorithm => "its alg is not the algorithm of the key",
        AuthRefusal::Signature => "it was not signed with this key, or was changed since",
        AuthRefusal::Type => "its typ is not auth.token_type",
        AuthRefusal::Issuer => "its iss is not in auth.issuers, or not the issuer of its key",
        AuthRefusal::Audience => {
            "its aud is not in auth.audiences; without auth.audiences a token must have no aud"
        }
        AuthRefusal::NoExpiry => "it has no exp, and would be good for ever",
        AuthRefusal::Expired => "its exp is over",
        AuthRefusal::NotYet => "its nbf or iat lies ahead",
        AuthRefusal::LongLife => "its exp lies further ahead than auth.token_life_max",
        AuthRefusal::Grant => {
            "its claim auth.claim is not an object of actions and lists of patterns, operate being true or false"
        }
        AuthRefusal::Rights => "it grants more patterns than auth.patterns_max",
        AuthRefusal::Missing
        | AuthRefusal::TwoTokens
        | AuthRefusal::Ticket
        | AuthRefusal::Origin
        | AuthRefusal::PublishKey
        | AuthRefusal::Revoked
        | AuthRefusal::Denied => "this is a matter of the request, and not of the token",
    }
}
