//! Lines published in order, batch after batch, until one cannot be.

use super::lines::{Batch, Line, Stop};
use super::progress::Progress;
use super::redis::{Event, Straight};
use crate::cli::output::Fault;
use crate::client::{Client, Error};
use serde::de::IgnoredAny;
use serde_json::json;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::Instant;

/// What the type of an event is called in requests.
pub(super) const TYPE: &str = "type";
/// For so long a batch is tried again while the gateway or its log is away.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two tries, at first and at most.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// For so long the answer to what is under way is waited for after Ctrl-C.
const GRACE: Duration = Duration::from_secs(2);

/// Where lines go.
#[derive(Debug)]
pub(super) enum Target {
    /// A batch is one request, and published as a whole or not at all.
    Gateway(Client),
    /// One after the other, each answered for itself.
    Redis(Straight),
}

/// What a line is.
#[derive(Clone, Debug)]
pub(super) enum Form {
    /// The data of an event.
    Data { topic: String, kind: String },
    /// A JSON object, as in a batch over HTTP.
    Json,
}

/// Why a run has ended before its input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// This line is refused as it is. All before it are published, and none after it.
    Refused(u64, String),
    /// The input cannot be read after this line. All that came are published.
    Unreadable(u64, String),
    /// What is needed cannot be had.
    Failed(String),
    Interrupted,
}

/// What a run has done.
#[derive(Clone, Debug)]
pub(super) struct Done {
    /// Its name.
    pub(super) name: String,
    /// How many lines are published for certain.
    pub(super) published: u64,
    /// The line after the last of which that is known.
    pub(super) next: u64,
    /// The first and the last of those of which it is not known.
    pub(super) under_way: Option<(u64, u64)>,
}

/// Lines on their way.
#[derive(Debug)]
pub(super) struct Run {
    to: Target,
    form: Form,
    done: Done,
    /// Lines that the gateway takes at once, as far as that is known.
    most: usize,
    progress: Progress,
}

impl Run {
    pub(super) fn new(to: Target, form: Form, name: String, from: u64, progress: Progress) -> Self {
        let done = Done {
            name,
            published: 0,
            next: from,
            under_way: None,
        };
        Self {
            to,
            form,
            done,
            most: usize::MAX,
            progress,
        }
    }

    /// What is done; the progress is gone from the terminal.
    pub(super) fn done(self) -> Done {
        self.done
    }

    /// Publishes what comes, to its end or to Ctrl-C.
    pub(super) async fn follow(&mut self, mut source: mpsc::Receiver<Batch>) -> Result<(), Ended> {
        let mut signals = Signals::hear().map_err(Ended::Failed)?;
        loop {
            let batch = tokio::select! {
                biased;
                () = signals.next() => return Err(Ended::Interrupted),
                batch = source.recv() => batch,
            };
            let Some(batch) = batch else { return Ok(()) };
            let mut delivery = std::pin::pin!(self.deliver(&batch.lines));
            tokio::select! {
                biased;
                done = &mut delivery => done?,
                () = signals.next() => {
                    // What is under way may still be answered.
                    let done = tokio::time::timeout(GRACE, delivery).await;
                    return done.unwrap_or(Ok(())).and(Err(Ended::Interrupted));
                }
            }
            match batch.stop {
                Some(Stop::Bad(line, why)) => return Err(Ended::Refused(line, why)),
                Some(Stop::Unreadable(line, why)) => return Err(Ended::Unreadable(line, why)),
                None => {}
            }
        }
    }

    /// Publishes these lines, or those before the first that cannot be.
    async fn deliver(&mut self, lines: &[Line]) -> Result<(), Ended> {
        if let Target::Redis(_) = self.to {
            for line in lines {
                self.deliver_to_redis(line).await?;
            }
            return Ok(());
        }
        let (mut ready, mut bad) = (Vec::with_capacity(lines.len()), None);
        for line in lines {
            match self.form.event(line, &self.done.name) {
                Ok(event) => ready.push((line, event)),
                Err(why) => {
                    bad = Some(Ended::Refused(line.number, why));
                    break;
                }
            }
        }
        self.deliver_parts(&ready).await?;
        bad.map_or(Ok(()), Err)
    }

    /// A part that is refused is halved, until it is taken or a line alone is at fault: whatever bounds the gateway
    /// has, and whoever finds the fault, it or its log.
    async fn deliver_parts(&mut self, ready: &[(&Line, Option<String>)]) -> Result<(), Ended> {
        let mut open = vec![ready];
        while let Some(part) = open.pop() {
            let Some(((first, _), (last, _))) = part.first().zip(part.last()) else {
                continue;
            };
            if part.len() > self.most {
                let (before, after) = part.split_at(self.most);
                open.extend([after, before]);
                continue;
            }
            self.done.under_way = Some((first.number, last.number));
            match self.send(part).await {
                Ok(()) => self.published(part.iter().map(|(line, event)| (*line, event.is_some()))),
                Err(Refusal::Content(why)) => {
                    self.done.under_way = None;
                    if part.len() == 1 {
                        // The gateway counts the lines of its batch.
                        let why = why.strip_prefix("line 1: ").unwrap_or(&why);
                        return Err(Ended::Refused(first.number, why.to_owned()));
                    }
                    self.most = part.len().div_ceil(2);
                    open.push(part);
                }
                Err(Refusal::Failed { why, is_sure }) => {
                    if is_sure {
                        self.done.under_way = None;
                    }
                    return Err(Ended::Failed(why));
                }
            }
        }
        Ok(())
    }

    fn published<'a>(&mut self, lines: impl Iterator<Item = (&'a Line, bool)>) {
        let mut bytes = 0;
        for (line, is_event) in lines {
            bytes += line.bytes;
            self.done.published += u64::from(is_event);
            self.done.next = line.number + 1;
        }
        self.done.under_way = None;
        self.progress.add(bytes, self.done.published);
    }

    /// One batch, tried until it is answered for good.
    async fn send(&self, part: &[(&Line, Option<String>)]) -> Result<(), Refusal> {
        let events: Vec<&str> = part
            .iter()
            .filter_map(|(_, event)| event.as_deref())
            .collect();
        let Target::Gateway(client) = &self.to else {
            return Ok(());
        };
        if events.is_empty() {
            return Ok(());
        }
        let body = bytes::Bytes::from(events.join("\n"));
        let headers = [("content-type", "application/x-ndjson")];
        let (began, mut pause) = (Instant::now(), PAUSE.0);
        let (mut is_sure, mut is_told) = (true, false);
        loop {
            let answer = client.ask("POST", "/events", &headers, body.clone()).await;
            let (why, wait) = match answer {
                Ok(answer)
                    if answer.status.is_success() && answer.json().get("events").is_some() =>
                {
                    return Ok(());
                }
                Ok(answer) if answer.refuses_content() && !answer.may_be_repeated() => {
                    let why = answer.detail().unwrap_or_else(|| answer.refusal());
                    return Err(Refusal::Content(why));
                }
                Ok(answer) if answer.may_be_repeated() => (answer.refusal(), answer.retry_after),
                Ok(answer) => {
                    let why = answer.refusal();
                    return Err(Refusal::Failed { why, is_sure });
                }
                Err(why) if why.is_final() => return Err(Refusal::of(why, is_sure)),
                Err(why @ Error::Unreachable { .. }) if self.done.published == 0 && is_sure => {
                    return Err(Refusal::of(why, true));
                }
                Err(why) => (why.to_string(), None),
            };
            // It may have been published, and only its answer been lost.
            is_sure = false;
            if began.elapsed() > PATIENCE {
                let why = format!("{why}; it was tried for {} s", PATIENCE.as_secs());
                return Err(Refusal::Failed { why, is_sure });
            }
            if !std::mem::replace(&mut is_told, true) {
                self.progress.complain(format_args!("waiting: {why}"));
            }
            let jitter = rand::random_range(0.5..1.0);
            tokio::time::sleep(wait.unwrap_or_default().max(pause.mul_f64(jitter))).await;
            pause = (pause * 2).min(PAUSE.1);
        }
    }

    async fn deliver_to_redis(&mut self, line: &Line) -> Result<(), Ended> {
        let (Target::Redis(redis), Form::Data { topic, kind }) = (&mut self.to, &self.form) else {
            return Ok(());
        };
        self.done.under_way = Some((line.number, line.number));
        let event = Event {
            topic,
            kind,
            data: &line.text,
            end: line.last,
            key: &key(&self.done.name, line),
        };
        match redis.publish(event).await {
            Ok(_) => {
                self.published(std::iter::once((line, true)));
                Ok(())
            }
            Err(Fault::Refused(why)) => {
                self.done.under_way = None;
                Err(Ended::Refused(line.number, why))
            }
            Err(Fault::Failed(why)) => Err(Ended::Failed(why)),
            Err(_) => Err(Ended::Interrupted),
        }
    }
}

/// Why a batch is not published.
enum Refusal {
    /// A line of it, or its size, is at fault.
    Content(String),
    /// What is needed cannot be had. Unless it is sure, the batch may be published.
    Failed { why: String, is_sure: bool },
}

impl Refusal {
    fn of(why: Error, is_sure: bool) -> Self {
        let why = match Fault::from(why) {
            Fault::Failed(why) => why,
            other => format!("{other:?}"),
        };
        Self::Failed { why, is_sure }
    }
}

impl Form {
    /// The event of a line, as a batch over HTTP has it; none if the line is blank.
    fn event(&self, line: &Line, run: &str) -> Result<Option<String>, String> {
        let key = json!(key(run, line));
        let end = if line.last { ",\"end\":true" } else { "" };
        match self {
            Self::Data { topic, kind } => {
                let (topic, kind, data) = (json!(topic), json!(kind), json!(line.text));
                Ok(Some(format!(
                    "{{\"topic\":{topic},\"{TYPE}\":{kind},\"data\":{data},\"idempotency_key\":{key}{end}}}"
                )))
            }
            Self::Json => with_key(line.text.trim(), &key.to_string()),
        }
    }
}

/// The idempotency key of a line.
fn key(run: &str, line: &Line) -> String {
    format!("{run}:{}", line.number)
}

/// A JSON object with this key, unless it has one of its own.
fn with_key(text: &str, key: &str) -> Result<Option<String>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    let fields: BTreeMap<String, Option<IgnoredAny>> =
        serde_json::from_str(text).map_err(|why| {
            let why = why.to_string();
            let what = why.split(" at line ").next().unwrap_or_default();
            format!("not a JSON object: {what}")
        })?;
    match fields.get("idempotency_key") {
        Some(Some(_)) => return Ok(Some(text.to_owned())),
        Some(None) => return Err("idempotency_key: null is no key; leave it out".into()),
        None => {}
    }
    let rest = text.strip_prefix('{').unwrap_or(text);
    let comma = if fields.is_empty() { "" } else { "," };
    Ok(Some(format!("{{\"idempotency_key\":{key}{comma}{rest}")))
}

/// SIGINT and SIGTERM.
struct Signals(Signal, Signal);

impl Signals {
    fn hear() -> Result<Self, String> {
        let hear = |kind| signal(kind).map_err(|why| format!("signals cannot be heard: {why}"));
        Ok(Self(
            hear(SignalKind::interrupt())?,
            hear(SignalKind::terminate())?,
        ))
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.0.recv() => {}
            _ = self.1.recv() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_json_gets_a_key_unless_it_has_one() {
        for (text, with) in [
            ("{\"a\": 1.50}", Some("{\"idempotency_key\":K,\"a\": 1.50}")),
            ("{ }", Some("{\"idempotency_key\":K }")),
            (
                "{\"idempotency_key\":\"x\"}",
                Some("{\"idempotency_key\":\"x\"}"),
            ),
            ("", None),
        ] {
            assert_eq!(with_key(text, "K"), Ok(with.map(str::to_owned)));
        }
        let null = "{\"idempotency_key\":null}";
        for bad in ["[1]", "1", "{\"a\":1", "{} {}", "x", null] {
            assert!(with_key(bad, "K").is_err(), "{bad}");
        }
    }
}
