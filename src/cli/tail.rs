//! `tidegate tail`.

use super::ask::GatewayArgs;
use super::output::{
    Fault, complain, harmless, is_terminal, say, shown_json, unread, wants_colours,
};
use crate::client::{Event, Follower, Told};
use clap::Args;
use serde::Deserialize;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::collections::BTreeSet;
use std::io::IsTerminal as _;

/// The parameter of a stream that leaves other types out.
const TYPE: &str = "type";
/// Colours of topics, one after the other: those that are read on dark and on light.
const COLOURS: [u8; 6] = [36, 33, 35, 32, 34, 31];

#[derive(Debug, Args)]
pub(super) struct TailArgs {
    /// Topics; the default is `events`. With several topics, each line names its topic.
    topics: Vec<String>,
    /// Begins with the last N events of all topics together, up to 1000.
    #[arg(long, value_name = "N")]
    last: Option<u64>,
    /// Begins with logged events: from `earliest`, or from a span such as 5m.
    #[arg(long, value_name = "SPAN", conflicts_with = "last")]
    since: Option<String>,
    /// Begins after this id.
    #[arg(long, value_name = "ID", conflicts_with_all = ["last", "since"])]
    last_event_id: Option<String>,
    /// Shows only events of this type; can be repeated.
    #[arg(long = "type", value_name = "TYPE", alias = "event")]
    types: Vec<String>,
    /// Ends after N events.
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
    /// Prints each event as one JSON object with topic, id, event, time and data.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    gateway: GatewayArgs,
}

/// What a stream with `?envelope` says of an event.
#[derive(Debug, Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    topic: Cow<'a, str>,
    #[serde(borrow)]
    event: Option<Cow<'a, str>>,
    #[serde(borrow)]
    encoding: Cow<'a, str>,
    #[serde(borrow)]
    data: &'a RawValue,
}

/// Prints events as they come. Reconnects with the last id, and says so on standard error.
pub(super) async fn tail(args: TailArgs) -> Result<(), Fault> {
    let topics: BTreeSet<&str> = args.topics.iter().map(String::as_str).collect();
    let printer = Printer {
        json: args.json,
        names: (topics.len() > 1).then(|| Names::of(&args.topics)),
        terminal: is_terminal(),
        colours: is_terminal() && wants_colours(),
    };
    let base = args.gateway.url.clone();
    if printer.terminal && std::io::stderr().is_terminal() {
        complain(format_args!("following {base}; Ctrl-C ends it"));
    }
    let query = query(&args, printer.json || printer.names.is_some());
    let client = args.gateway.client();
    let mut follower = Follower::new(client, query, args.last_event_id, args.limit);
    let mut unread = std::pin::pin!(unread());
    loop {
        let told = tokio::select! {
            biased;
            () = &mut unread => return Err(Fault::Unread),
            told = follower.next() => told?,
        };
        match told {
            None => return Ok(()),
            Some(Told::Event(event)) => printer.show(&event)?,
            Some(Told::Lost(why)) => complain(format_args!("lost {base}: {why}; trying again")),
            Some(Told::Back(after)) => {
                complain(format_args!("{base} is back after {} s", after.as_secs()));
            }
        }
    }
}

fn query(args: &TailArgs, envelope: bool) -> Vec<(&'static str, String)> {
    let mut query = Vec::new();
    query.extend(args.topics.iter().map(|topic| ("topic", topic.clone())));
    query.extend(args.types.iter().map(|kind| (TYPE, kind.clone())));
    query.extend(args.since.iter().map(|since| ("since", since.clone())));
    query.extend(args.last.map(|last| ("last", last.to_string())));
    query.extend(envelope.then(|| ("envelope", String::new())));
    query
}

/// The topics that are followed: how wide the longest is, and the colour of each.
#[derive(Debug)]
struct Names {
    width: usize,
    names: Vec<String>,
}

impl Names {
    fn of(topics: &[String]) -> Self {
        let width = topics.iter().map(|topic| topic.chars().count()).max();
        Self {
            width: width.unwrap_or_default(),
            names: topics.to_vec(),
        }
    }

    fn colour(&self, topic: &str) -> u8 {
        let place = self.names.iter().position(|name| name == topic);
        let colour = COLOURS.get(place.unwrap_or_default() % COLOURS.len());
        colour.copied().unwrap_or_default()
    }
}

/// How events are printed.
#[derive(Debug)]
struct Printer {
    json: bool,
    names: Option<Names>,
    terminal: bool,
    colours: bool,
}

impl Printer {
    fn show(&self, event: &Event) -> Result<(), Fault> {
        let kind = event.kind.as_str();
        match kind {
            "tidegate.open" | "tidegate.cursor" | "tidegate.live" | "tidegate.heartbeat" => Ok(()),
            "tidegate.gap" => {
                complain(gap(&event.data));
                Ok(())
            }
            "tidegate.deleted" => {
                let topic = field(&event.data, "topic");
                complain(format_args!("topic {topic} was deleted here"));
                Ok(())
            }
            "tidegate.expiring" => {
                complain("the token of this stream ends soon, and the stream with it");
                Ok(())
            }
            _ if self.json => say(shown_json(&event.data)),
            "" if self.names.is_some() => match serde_json::from_str(&event.data) {
                Ok(envelope) => self.enveloped(&envelope),
                // An older gateway does not know the parameter.
                Err(_) => self.line("", "", &event.data),
            },
            _ => self.line("", kind, &event.data),
        }
    }

    fn enveloped(&self, envelope: &Envelope<'_>) -> Result<(), Fault> {
        let data = match &*envelope.encoding {
            "text" => serde_json::from_str(envelope.data.get()).unwrap_or_default(),
            _ => envelope.data.get().to_owned(),
        };
        let kind = envelope.event.as_deref().unwrap_or_default();
        self.line(&envelope.topic, kind, &data)
    }

    /// The topic before each line if there are several, and the type before the first if there is one.
    fn line(&self, topic: &str, kind: &str, data: &str) -> Result<(), Fault> {
        let (mut topic, mut kind, mut data) = (Cow::from(topic), Cow::from(kind), Cow::from(data));
        if self.terminal {
            topic = harmless(&topic).into();
            kind = harmless(&kind).into();
            data = harmless(&data).into();
        }
        let mut text = if kind.is_empty() {
            data.into_owned()
        } else {
            let kind = self.coloured(1, &kind);
            format!("{kind}: {data}")
        };
        if let Some(names) = &self.names
            && !topic.is_empty()
        {
            let width = names.width;
            let name = self.coloured(names.colour(&topic), &format!("{topic:width$}"));
            text = text
                .split('\n')
                .map(|line| format!("{name} | {line}"))
                .collect::<Vec<_>>()
                .join("\n");
        }
        say(text)
    }

    fn coloured(&self, colour: u8, text: &str) -> String {
        if self.colours {
            format!("\u{1b}[{colour}m{text}\u{1b}[0m")
        } else {
            text.to_owned()
        }
    }
}

/// A field of one of the gateway's own events.
fn field(data: &str, name: &str) -> String {
    let fields: serde_json::Value = serde_json::from_str(data).unwrap_or_default();
    let field = fields.get(name).and_then(|field| field.as_str());
    field.unwrap_or("?").to_owned()
}

/// A gap, as a sentence.
fn gap(data: &str) -> String {
    let (topic, reason) = (field(data, "topic"), field(data, "reason"));
    let why = match reason.as_str() {
        "trimmed" => "the log no longer reaches back so far",
        "expired" => "the topic's log has expired, or was removed",
        "ahead" => "the cursor is newer than the log: it belongs to another log",
        "log_lost" => "the log was lost, and began again",
        "rewound" => "Redis lost its newest data",
        "late" => "they were found too late",
        "bad_cursor" => "the cursor cannot be read",
        _ => "for a reason that this version does not know",
    };
    format!("gap: events of {topic} may be missing here ({reason}: {why})")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sse::GapReason;

    #[test]
    fn every_reason_of_a_gap_is_known() {
        for reason in GapReason::ALL.map(GapReason::as_str) {
            let said = gap(&format!("{{\"topic\":\"a\",\"reason\":\"{reason}\"}}"));
            assert!(said.contains(reason) && said.contains(" a "), "{said}");
            assert!(!said.contains("does not know"), "{said}");
        }
    }
}
