//! `tidegate topics`.

use super::ask::{GatewayArgs, KeyArgs};
use super::output::{Fault, note, say, shown, shown_json};
use crate::client::{Answer, Client, encode};
use clap::{Args, Subcommand};
use serde_json::Value;
use std::io::IsTerminal as _;

#[derive(Debug, Args)]
pub(super) struct TopicsArgs {
    #[command(subcommand)]
    command: Option<TopicsCommand>,
    #[command(flatten)]
    gateway: GatewayArgs,
}

#[derive(Debug, Subcommand)]
enum TopicsCommand {
    /// Lists the topics that have a log (also without a subcommand).
    #[command(after_help = "Examples:\n  tidegate topics list")]
    List,
    /// Describes the log of a topic, and says how many streams read it.
    #[command(
        override_usage = "tidegate topics show <TOPIC>",
        after_help = "Examples:\n  tidegate topics show orders\n  \
        tidegate topics show orders --json"
    )]
    Show(ShowArgs),
    /// Prints the retained events of a topic, the oldest first, each after its id.
    #[command(
        override_usage = "tidegate topics history <TOPIC>",
        after_help = "Examples:\n  tidegate topics history orders\n  \
        tidegate topics history orders --json"
    )]
    History(HistoryArgs),
    /// Deletes the log of a topic; its streams are told, and the next publish creates it again.
    #[command(
        override_usage = "tidegate topics delete <TOPIC>",
        after_help = "Examples:\n  tidegate topics delete orders\n  \
        tidegate topics delete orders --yes"
    )]
    Delete(DeleteArgs),
}

#[derive(Debug, Args)]
struct ShowArgs {
    /// The topic.
    topic: String,
    /// Prints one JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct HistoryArgs {
    /// The topic.
    topic: String,
    /// Begins after this id.
    #[arg(long, value_name = "ID")]
    after: Option<String>,
    /// Ends after N events; without it, prints all.
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
    /// Prints each event as one JSON object with id, event and data.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct DeleteArgs {
    /// The topic.
    topic: String,
    /// Does not ask.
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    key: KeyArgs,
}

pub(super) async fn topics(args: TopicsArgs) -> Result<(), Fault> {
    let client = args.gateway.clone().client();
    match args.command {
        None | Some(TopicsCommand::List) => list(&client).await,
        Some(TopicsCommand::Show(of)) => show(&client, &of).await,
        Some(TopicsCommand::History(of)) => history(&client, of).await,
        Some(TopicsCommand::Delete(of)) => {
            let client = args.gateway.client_with(&of.key);
            delete(&client, &of).await
        }
    }
}

/// What was asked for, or why there is none.
fn taken(answer: Answer) -> Result<Answer, Fault> {
    if answer.status.is_success() && answer.json().is_object() {
        Ok(answer)
    } else {
        Err(Fault::Failed(answer.refusal()))
    }
}

async fn list(client: &Client) -> Result<(), Fault> {
    let mut after = String::new();
    loop {
        let path = format!("/topics?after={}", encode(&after));
        let page = taken(client.ask("GET", &path, &[], "").await?)?.json();
        let names = page.get("topics").and_then(Value::as_array);
        for name in names.into_iter().flatten().filter_map(Value::as_str) {
            say(shown(name))?;
        }
        match page.get("next").and_then(Value::as_str) {
            Some(next) => next.clone_into(&mut after),
            None => return Ok(()),
        }
    }
}

async fn state(client: &Client, topic: &str) -> Result<Answer, Fault> {
    let path = format!("/topics/{}", encode(topic));
    taken(client.ask("GET", &path, &[], "").await?)
}

async fn show(client: &Client, args: &ShowArgs) -> Result<(), Fault> {
    let answer = state(client, &args.topic).await?;
    if args.json {
        return say(shown_json(answer.body.trim()));
    }
    let state = answer.json();
    for (name, field) in [
        ("topic", "topic"),
        ("events", "length"),
        ("first", "first"),
        ("last", "last"),
        ("ended", "ended"),
        ("subscribers", "subscribers"),
    ] {
        let value = match state.get(field) {
            Some(Value::String(text)) => shown(text).into_owned(),
            Some(Value::Bool(is)) => if *is { "yes" } else { "no" }.to_owned(),
            None | Some(Value::Null) => "none".to_owned(),
            Some(value) => shown_json(&value.to_string()).into_owned(),
        };
        say(format_args!("{name:<12} {value}"))?;
    }
    Ok(())
}

async fn history(client: &Client, args: HistoryArgs) -> Result<(), Fault> {
    let mut after = args.after;
    let mut left = args.limit.unwrap_or(u64::MAX);
    while left > 0 {
        let topic = encode(&args.topic);
        let after_id = after.as_ref().map(|id| format!("?after={}", encode(id)));
        let path = format!("/topics/{topic}/events{}", after_id.unwrap_or_default());
        let page = taken(client.ask("GET", &path, &[], "").await?)?.json();
        let events = page.get("events").and_then(Value::as_array);
        for event in events.into_iter().flatten() {
            if left == 0 {
                return Ok(());
            }
            left -= 1;
            after = print(event, args.json)?.or(after);
        }
        if page.get("more").and_then(Value::as_bool) != Some(true) {
            return Ok(());
        }
    }
    Ok(())
}

/// An event, and its id.
fn print(event: &Value, json: bool) -> Result<Option<String>, Fault> {
    let text = |name| event.get(name).and_then(Value::as_str).unwrap_or_default();
    let id = text("id");
    if json {
        say(shown_json(&event.to_string()))?;
    } else {
        let kind = Some(text("event")).filter(|kind| !kind.is_empty());
        let kind = kind.map(|kind| format!("{kind}: ")).unwrap_or_default();
        // What follows of data with several lines stands below its beginning.
        let below = format!("\n{:1$}  ", "", id.len());
        let data = shown(&format!("{kind}{}", text("data"))).replace('\n', &below);
        say(format_args!("{}  {data}", shown(id)))?;
    }
    Ok(Some(id.to_owned()).filter(|id| !id.is_empty()))
}

async fn delete(client: &Client, args: &DeleteArgs) -> Result<(), Fault> {
    let topic = shown(&args.topic);
    if !args.yes {
        if !std::io::stdin().is_terminal() {
            return Err(Fault::Misused(format!(
                "there is no terminal to ask whether to delete topic {topic}; use --yes"
            )));
        }
        let state = state(client, &args.topic).await?.json();
        let events = state.get("length").and_then(Value::as_u64);
        if !is_meant(&topic, events.unwrap_or_default())? {
            return Err(Fault::Failed(format!("topic {topic} is unchanged")));
        }
    }
    let path = format!("/topics/{}", encode(&args.topic));
    let gone = taken(client.ask("DELETE", &path, &[], "").await?)?.json();
    let id = gone.get("id").and_then(Value::as_str).unwrap_or_default();
    say(format_args!("topic {topic} is deleted, at {}", shown(id)))
}

/// Asks whoever is at the terminal.
fn is_meant(topic: &str, events: u64) -> Result<bool, Fault> {
    note(format_args!(
        "Delete topic {topic} and its {events} events? [y/N]"
    ));
    let mut answer = String::new();
    let heard = std::io::stdin().read_line(&mut answer);
    heard.map_err(|why| Fault::Failed(format!("nobody can be asked: {why}")))?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes" | "Yes"))
}
