//! `tidegate publish`: one event, or many lines, each once.
//!
//! | part | what |
//! |---|---|
//! | `args` | what is asked for |
//! | `lines` | the input, as it comes, in batches |
//! | `run` | batches published in order, one after the other, until one cannot be |
//! | `redis` | straight to Redis |
//! | `progress` | how far it is |
//!
//! Each line has an idempotency key of the run's name and its number, so that whoever does not know whether a line
//! was published sends it again. What was published for certain is told as a number, so that
//! the next run needs no key for it: keys are forgotten.

mod args;
mod lines;
mod progress;
mod redis;
mod run;

pub(super) use args::PublishArgs;

use super::ask::HERE;
use super::output::{Fault, complain, say, shown};
use crate::client::encode;
use lines::Wanted;
use progress::Progress;
use redis::{Event, Straight};
use run::{Ended, Form, Run, TYPE, Target};
use std::fs::Metadata;
use std::io::IsTerminal as _;
use std::path::Path;
use std::time::UNIX_EPOCH;

pub(super) async fn publish(args: PublishArgs) -> Result<(), Fault> {
    match (&args.topic, &args.data) {
        (Some(topic), Some(data)) => publish_one(&args, topic, data).await,
        _ => publish_lines(&args).await,
    }
}

async fn publish_one(args: &PublishArgs, topic: &str, data: &str) -> Result<(), Fault> {
    let key = args.idempotency_key.as_deref();
    if let Some(url) = &args.redis {
        let event = Event {
            topic,
            kind: &args.kind,
            data,
            end: args.end,
            key: key.unwrap_or_default(),
        };
        let id = Straight::connect(url, args).await?.publish(event).await?;
        return id.map_or(Ok(()), say);
    }
    let end = if args.end { "&end" } else { "" };
    let (topic, kind) = (encode(topic), encode(&args.kind));
    let path = format!("/events/{topic}?{TYPE}={kind}{end}");
    let headers: Vec<_> = key
        .into_iter()
        .map(|key| ("idempotency-key", key))
        .collect();
    let client = args.gateway.client_with(&args.key);
    let answer = client.ask("POST", &path, &headers, data.to_owned()).await?;
    match answer.json().get("id") {
        Some(id) if answer.status.is_success() => id.as_str().map_or(Ok(()), |id| say(shown(id))),
        _ if answer.refuses_content() => Err(Fault::Refused(answer.refusal())),
        _ => Err(Fault::Failed(answer.refusal())),
    }
}

async fn publish_lines(args: &PublishArgs) -> Result<(), Fault> {
    let file = input(args);
    if file.is_none() && std::io::stdin().is_terminal() {
        complain("each line that you enter is published; Ctrl-D ends it");
    }
    let about = file.and_then(|file| file.metadata().ok());
    let about = about.filter(Metadata::is_file);
    let name = args.run.clone();
    let name = name.unwrap_or_else(|| run_name(file, about.as_ref()));
    let wanted = Wanted {
        from: args.from,
        tell_last: args.end,
    };
    let to = match &args.redis {
        Some(url) => Target::Redis(Straight::connect(url, args).await?),
        None => Target::Gateway(args.gateway.client_with(&args.key)),
    };
    let form = args.topic.as_ref().map_or(Form::Json, |topic| Form::Data {
        topic: topic.clone(),
        kind: args.kind.clone(),
    });
    let source = lines::read(file, wanted)?;
    let progress = Progress::of(about.map(|about| about.len()));
    let mut run = Run::new(to, form, name, args.from, progress);
    let ended = run.follow(source).await;
    let done = run.done();
    match ended {
        Ok(()) => say(lines_are(done.published)),
        Err(ended) => Err(told(args, &ended, &done)),
    }
}

/// The file that is read, if it is not standard input.
fn input(args: &PublishArgs) -> Option<&Path> {
    args.file.as_deref().filter(|file| *file != Path::new("-"))
}

fn lines_are(published: u64) -> String {
    match published {
        0 => "no line is published".to_owned(),
        1 => "1 line is published".to_owned(),
        many => format!("{many} lines are published"),
    }
}

/// Why a run has ended, what is published, and how to go on.
fn told(args: &PublishArgs, ended: &Ended, done: &run::Done) -> Fault {
    let (from, why, advice) = match ended {
        Ended::Refused(line, why) => (
            *line,
            format!("line {line}: {why}"),
            "Correct the line, and publish the rest",
        ),
        Ended::Unreadable(line, why) => (
            line + 1,
            format!("the input cannot be read after line {line}: {why}"),
            "Once it can, publish the rest",
        ),
        Ended::Failed(why) => (done.next, why.clone(), "Later, publish the rest"),
        Ended::Interrupted => (
            done.next,
            "interrupted".to_owned(),
            "Publish the rest, each line once",
        ),
    };
    let unsure = done.under_way.map(|(first, last)| {
        format!("; lines {first} to {last} may be published, and the name of the run prevents a second publish")
    });
    let unsure = unsure.unwrap_or_default();
    let same = if input(args).is_none() {
        ", with the same lines as input"
    } else {
        ""
    };
    let text = format!(
        "{why}\n{}{unsure}. {advice}{same}:\n  {}",
        lines_are(done.published),
        command(args, &done.name, from)
    );
    match ended {
        Ended::Refused(..) => Fault::Refused(text),
        Ended::Unreadable(..) | Ended::Failed(_) => Fault::Failed(text),
        Ended::Interrupted => Fault::Interrupted(text),
    }
}

/// The command that goes on with a line, without keys.
fn command(args: &PublishArgs, name: &str, from: u64) -> String {
    let mut words = vec!["tidegate publish".to_owned()];
    let mut add = |flag: &str, value: &str| {
        words.push(flag.to_owned());
        words.push(quoted(value));
    };
    if let Some(file) = &args.file {
        add("--file", &file.to_string_lossy());
    }
    add("--run", name);
    add("--from", &from.to_string());
    if !args.kind.is_empty() {
        add("--type", &args.kind);
    }
    match &args.redis {
        Some(_) => add("--redis", "URL"),
        None if args.gateway.url.as_str() == HERE => {}
        None => add("--url", args.gateway.url.as_str()),
    }
    if args.redis.is_some() && args.prefix != "tidegate" {
        add("--prefix", &args.prefix);
    }
    if args.end {
        words.push("--end".to_owned());
    }
    if let Some(topic) = &args.topic {
        words.insert(1, quoted(topic));
    }
    words.join(" ")
}

/// A word as a shell reads it.
fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || "-_./:@%+=,".contains(c);
    if !word.is_empty() && !word.starts_with('-') && word.chars().all(is_plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

/// The name of a run that was given none. The same file, unchanged, has the same; what is no file has one at random.
fn run_name(file: Option<&Path>, about: Option<&Metadata>) -> String {
    let Some((file, about)) = file.zip(about) else {
        return format!("input-{:016x}", rand::random::<u64>());
    };
    let changed = about.modified().ok();
    let changed = changed.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    let path = file.canonicalize().unwrap_or_else(|_| file.to_owned());
    let mark = format!(
        "{} {} {}",
        path.display(),
        about.len(),
        changed.unwrap_or_default().as_nanos()
    );
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let plain = |c: char| {
        if c.is_ascii_alphanumeric() || c == '.' {
            c
        } else {
            '_'
        }
    };
    let name: String = name.chars().take(60).map(plain).collect();
    format!("{name}-{:016x}", fnv(mark.as_bytes()))
}

/// [FNV-1a](https://datatracker.ietf.org/doc/html/rfc9923), the same in every version of this program.
fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_as_a_shell_reads_them() {
        for (word, shown) in [
            ("a/b.ndjson", "a/b.ndjson"),
            ("it's", "'it'\\''s'"),
            ("a b", "'a b'"),
            ("$x", "'$x'"),
            ("", "''"),
        ] {
            assert_eq!(quoted(word), shown);
        }
    }

    #[test]
    fn a_mark_is_the_same_in_every_version() {
        // From the reference code of FNV.
        assert_eq!(fnv(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv(b"foobar"), 0x8594_4171_f739_67e8);
    }
}
