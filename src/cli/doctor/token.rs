//! One token, tried: what this configuration makes of it, and what the gateway answers. And the key sets, fetched once.

use super::args::DoctorArgs;
use super::findings::{Finding, Findings};
use super::key::{Key, key_for};
use crate::auth::{Authority, bearer};
use crate::cli::judged::{FetchedSet, fetch_sets, judge, now};
use crate::cli::token::{sentence, span};
use crate::client::{Authorities, Error, send, text};
use crate::config::Config;
use bytes::Bytes;
use hyper::StatusCode;
use std::io::Read as _;
use std::path::Path;
use std::time::Duration;

/// Bytes of a file that are read, at most; no token is as long.
const READ_MAX: u64 = 1 << 20;
/// Time for an answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// What every gateway answers to whoever has a credential, without doing anything.
const HARMLESS: &str = "/topics?limit=1";

pub(super) async fn inspect(args: &DoctorArgs, config: &Config) -> Vec<Finding> {
    let mut f = Findings::of("token");
    let authority = Authority::new(config.auth.settings.clone());
    let token = match given(args) {
        Ok(token) => token,
        Err(why) => {
            f.fault("given", why, "name a file that holds one token");
            return f.all;
        }
    };
    let Some(token) = token else {
        tell_sets(&mut f, fetch_sets(&authority, config).await);
        return f.all;
    };
    let is_good = tell_judged(&mut f, &authority, config, &token).await;
    if let Some(url) = &args.url {
        tell_answer(&mut f, url.as_str(), args, config, &token, is_good).await;
    }
    f.all
}

/// The token: of the file, or of the environment.
fn given(args: &DoctorArgs) -> Result<Option<String>, String> {
    let in_file = args.token_file.as_deref().map(read).transpose()?;
    let text = in_file.or_else(|| args.token.clone());
    let bare = text.map(|text| {
        let text = text.trim();
        bearer(text).unwrap_or(text).to_owned()
    });
    Ok(bare.filter(|text| !text.is_empty()))
}

fn read(path: &Path) -> Result<String, String> {
    let mut text = String::new();
    let file = std::fs::File::open(path);
    file.and_then(|file| file.take(READ_MAX).read_to_string(&mut text))
        .map_err(|why| format!("{}: {why}", path.display()))?;
    Ok(text)
}

fn tell_sets(f: &mut Findings, sets: Vec<FetchedSet>) {
    for FetchedSet { address, keys } in sets {
        match keys {
            Ok(count) => f.ok("key_set", format!("{address}: keys: {count}")),
            Err(why) => f.fault(
                "key_set",
                format!("{address}: {why}"),
                "check the url in auth.keys, the way to it from this machine, and auth.jwks_ca_file",
            ),
        }
    }
}

/// What this configuration makes of it. Returns whether it is good; none if that cannot be known here.
async fn tell_judged(
    f: &mut Findings,
    authority: &Authority,
    config: &Config,
    token: &str,
) -> Option<bool> {
    if let Some(grant) = authority.key_grant(token) {
        let name = grant.who().name();
        f.ok("judged", format!("no token: the key of {name}"));
        return Some(true);
    }
    if !authority.has_tokens() {
        let advice = "give the configuration of the gateway: --config";
        f.warning("judged", "this configuration has no key of tokens", advice);
        return None;
    }
    let (sets, judged) = judge(authority, config, token).await;
    tell_sets(f, sets);
    match judged {
        Ok(accepted) => {
            let left = span(accepted.until.saturating_sub(now()));
            let count = accepted.rights.count();
            f.ok(
                "judged",
                format!("good for {left}; it grants {count} patterns"),
            );
            Some(true)
        }
        Err(reason) => {
            let (word, why) = (reason.as_str(), sentence(reason));
            let advice = "see it member by member: tidegate token explain";
            f.fault("judged", format!("{word}: {why}"), advice);
            reason.is_definite().then_some(false)
        }
    }
}

/// What the gateway answers to it.
async fn tell_answer(
    f: &mut Findings,
    url: &str,
    args: &DoctorArgs,
    config: &Config,
    token: &str,
    is_good: Option<bool>,
) {
    let token = match key_for(url, Some(token), config) {
        Key::Sent(token) => token,
        Key::None => return,
        Key::Kept { .. } => {
            let found = "the token is not sent over http: anybody on the way could read it";
            f.warning("answer", found, "give --url as https://");
            return;
        }
    };
    let target = format!("{}{HARMLESS}", url.trim_end_matches('/'));
    let (status, told) = match ask(&target, args, &token).await {
        Ok(answer) => answer,
        Err(why) => {
            f.fault(
                "answer",
                why.to_string(),
                "check --url, and with a private authority --ca",
            );
            return;
        }
    };
    let told = if told.is_empty() {
        status.to_string()
    } else {
        format!("{status}: {told}")
    };
    match (status, is_good) {
        (StatusCode::UNAUTHORIZED, Some(true)) => f.fault(
            "answer",
            told,
            "it is good by this configuration: the gateway has another one, older keys, or another clock; or a proxy takes the header away",
        ),
        (StatusCode::UNAUTHORIZED, _) => {
            f.fault("answer", told, "the caller needs another token");
        }
        (StatusCode::SERVICE_UNAVAILABLE, _) => f.fault(
            "answer",
            told,
            "the gateway cannot judge it now; its log names the key set that is away",
        ),
        (status, Some(false)) if status.is_success() => f.warning(
            "answer",
            format!("{told}, and by this configuration it is refused"),
            "the gateway has another configuration than this one",
        ),
        (status, _) if status.is_success() => f.ok("answer", told),
        _ => f.warning("answer", told, "this is not about the token; the answer says what it is"),
    }
}

async fn ask(target: &str, args: &DoctorArgs, token: &str) -> Result<(StatusCode, String), Error> {
    let authorities = Authorities::from(args.ca.clone());
    let bearer = format!("Bearer {token}");
    let headers = [("authorization", bearer.as_str())];
    let asking = async {
        let answer = send(&authorities, "GET", target, &headers, Bytes::new()).await?;
        let status = answer.status();
        let body = text(answer).await?;
        let problem: serde_json::Value = serde_json::from_str(&body).unwrap_or_default();
        let detail = problem.get("detail").and_then(|detail| detail.as_str());
        Ok((status, detail.unwrap_or_default().to_owned()))
    };
    let answer = tokio::time::timeout(PATIENCE, asking).await;
    let late = || Error::Broken(format!("no answer within {PATIENCE:?}"));
    answer.unwrap_or_else(|_| Err(late()))
}
