//! Channels of others: maps that ears have, and what Redis delivers of one publish on a connection.

use rand::Rng as _;
use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use tidegate::broker::channels::{ChannelMap, ChannelPattern, Mapping, TopicTemplate};

/// Maps, each a list of channel and topic. Patterns of one overlap, and so do those of two; some differ in their
/// topics alone.
const MAPS: [&[(&str, &str)]; 6] = [
    &[],
    &[("m.*", "a")],
    &[("m.x.*", "b"), ("m.*", "a"), ("n", "c")],
    &[("m.*.y", "c"), ("m.x.*", "b")],
    &[("m.x.*", "c"), ("m.*", "a"), ("n", "b")],
    &[("n", "a"), ("m.x.y", "b"), ("m.z.y", "b"), ("n*", "c")],
];

/// Where publishers publish; of the common channels there are as many as of the others.
pub(super) const CHANNELS: [&str; 10] = [
    "events:a", "events:b", "events:c", "events", "events:a", "m.x.y", "m.x.z", "m.z.y", "m.z.z",
    "n",
];

/// How many maps there are.
pub(super) const COUNT: usize = MAPS.len();

pub(super) fn map(number: usize) -> ChannelMap {
    let entries = MAPS[number].iter().map(|(channel, topic)| {
        let channel = ChannelPattern::parse(channel).unwrap();
        Mapping {
            topic: TopicTemplate::parse(topic, channel.stars()).unwrap(),
            channel,
            type_field: None,
        }
    });
    ChannelMap::new(entries.collect())
}

/// Whether the channel is one that all ears hear.
pub(super) fn is_common(channel: &str) -> bool {
    channel.starts_with("events")
}

/// What a connection with this map is sent of one publish: the pattern of each delivery, none for the channel
/// itself. The channel comes first, the patterns in any order.
pub(super) fn deliveries(map: &ChannelMap, channel: &str, rng: &mut StdRng) -> Vec<Option<String>> {
    if channel == "events" {
        return vec![None];
    }
    if is_common(channel) {
        return vec![Some("events:*".to_owned())];
    }
    let (patterns, plain): (Vec<_>, Vec<_>) =
        map.channels().partition(|pattern| pattern.stars() > 0);
    let mut through: Vec<_> = patterns
        .into_iter()
        .map(ChannelPattern::as_str)
        .filter(|pattern| glob(pattern.as_bytes(), channel.as_bytes()))
        .map(|pattern| Some(pattern.to_owned()))
        .collect();
    through.shuffle(rng);
    if plain.iter().any(|pattern| pattern.as_str() == channel) {
        through.insert(0, None);
    }
    through
}

/// As Redis matches, step by step.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    match (pattern, text) {
        ([], []) => true,
        ([b'*', rest @ ..], _) => (0..=text.len()).any(|skip| glob(rest, &text[skip..])),
        ([a, pattern @ ..], [b, text @ ..]) => a == b && glob(pattern, text),
        _ => false,
    }
}

/// Any map.
pub(super) fn any(rng: &mut StdRng) -> usize {
    rng.random_range(0..COUNT)
}
