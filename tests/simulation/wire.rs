//! What comes over a stream, read from its bytes.

use std::collections::VecDeque;
use tidegate::cursor::Cursor;

/// One block of an event stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Block {
    /// The cursor after it, if it has one.
    pub id: Option<Cursor>,
    /// Its type; empty for an event without one.
    pub event: String,
    /// Its data.
    pub data: String,
}

impl Block {
    /// The data as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.data).unwrap_or_else(|why| panic!("{why}: {self:?}"))
    }
}

/// Bytes on their way to a client.
#[derive(Debug, Default)]
pub struct Wire {
    bytes: Vec<u8>,
    blocks: VecDeque<Block>,
}

impl Wire {
    /// More bytes are written.
    pub fn write(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        while let Some(end) = self.bytes.windows(2).position(|pair| pair == b"\n\n") {
            let block: Vec<u8> = self.bytes.drain(..end + 2).collect();
            self.blocks
                .push_back(parse(std::str::from_utf8(&block).unwrap()));
        }
    }

    /// The next block arrives.
    pub fn arrive(&mut self) -> Option<Block> {
        self.blocks.pop_front()
    }

    /// Whether nothing but such blocks is on its way.
    pub fn has_only(&self, event: &str) -> bool {
        self.blocks.iter().all(|block| block.event == event)
    }

    /// Whether anything is on its way.
    pub fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }
}

fn parse(text: &str) -> Block {
    let mut block = Block::default();
    let mut data = Vec::new();
    for line in text.lines() {
        match line.split_once(": ") {
            Some(("id", id)) => block.id = Some(id.parse().expect("an id is a cursor")),
            Some(("event", event)) => event.clone_into(&mut block.event),
            Some(("data", line)) => data.push(line),
            Some(("retry", _)) => {}
            None if line.is_empty() || line == ":" => {}
            _ => panic!("not a line of ours: {line:?}"),
        }
    }
    block.data = data.join("\n");
    block
}
