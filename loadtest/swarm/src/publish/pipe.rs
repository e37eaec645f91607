//! Thousands of raw publishes in one pipe: `redis-cli` reads the commands from its standard input
//! and prints how many receivers each had.

use super::sender::channel;
use super::{Fate, Record, Sender};
use crate::clock::Clock;
use crate::cluster::Cluster;
use crate::event::{Event, Key, Shape, Way};
use rand::rngs::StdRng;
use std::ops::Range;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

/// Time for the whole pipe.
const PATIENCE: Duration = Duration::from_secs(60);

/// Publishes events of these numbers, on all topics in random turn. Without the tool, one by one.
///
/// An event's time is the moment it is written to the pipe, so what it waits there is counted as
/// latency. Lines that the tool does not print leave their events unacknowledged.
///
/// # Errors
/// The tool does not come to an end, or Redis has no address.
pub async fn burst(
    numbers: Range<u32>,
    shape: Shape,
    cluster: &Cluster,
    clock: Clock,
    rng: StdRng,
) -> Result<Vec<Record>, String> {
    let tool = Command::new("redis-cli")
        .args(["-u", &cluster.redis_url])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn();
    let Ok(mut tool) = tool else {
        let sender = Sender::new(Way::Pipe, "", cluster)?;
        return Ok(one_by_one(numbers, shape, sender, clock, rng).await);
    };
    let (Some(input), Some(output)) = (tool.stdin.take(), tool.stdout.take()) else {
        return Err("redis-cli has no pipe".to_owned());
    };
    let both = async { tokio::join!(write(numbers, shape, input, clock, rng), read(output)) };
    let done = timeout(PATIENCE, both).await;
    let (events, receivers) = done.map_err(|_| "redis-cli does not come to an end".to_owned())?;
    let fates = receivers
        .into_iter()
        .map(|heard| heard.map_or(Fate::Unknown, Fate::Heard));
    let fates = fates.chain(std::iter::repeat(Fate::Unknown));
    let record = |(event, fate)| Record {
        event,
        fate,
        tries: 1,
    };
    Ok(events.into_iter().zip(fates).map(record).collect())
}

fn draw(number: u32, shape: Shape, clock: Clock, rng: &mut StdRng) -> Event {
    let key = Key {
        way: Way::Pipe,
        number,
    };
    shape.draw(key, clock.micros(), rng)
}

async fn one_by_one(
    numbers: Range<u32>,
    shape: Shape,
    mut sender: Sender,
    clock: Clock,
    mut rng: StdRng,
) -> Vec<Record> {
    let mut records = Vec::new();
    for number in numbers {
        let event = draw(number, shape, clock, &mut rng);
        records.extend(sender.send(vec![event]).await);
    }
    records
}

async fn write(
    numbers: Range<u32>,
    shape: Shape,
    mut input: ChildStdin,
    clock: Clock,
    mut rng: StdRng,
) -> Vec<Event> {
    let mut events = Vec::new();
    for number in numbers {
        let event = draw(number, shape, clock, &mut rng);
        let line = format!("PUBLISH {} {}\n", channel(&event), event.data);
        events.push(event);
        if input.write_all(line.as_bytes()).await.is_err() {
            break;
        }
    }
    events
}

/// A line that is no number is an error that Redis answered.
async fn read(output: ChildStdout) -> Vec<Option<u64>> {
    let (mut lines, mut receivers) = (BufReader::new(output).lines(), Vec::new());
    while let Ok(Some(line)) = lines.next_line().await {
        receivers.push(line.trim().parse().ok());
    }
    receivers
}
