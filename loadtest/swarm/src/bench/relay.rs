//! The least that can stand between Redis and a stream: one `SUBSCRIBE`, and one `write` for each
//! frame. It serves one stream, and blocks.

use super::floor::opening;
use clap::Args;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};

/// Between whom it stands.
#[derive(Args, Clone, Debug)]
pub struct Places {
    /// The address to listen on.
    #[arg(long)]
    listen: SocketAddr,
    /// Redis.
    #[arg(long)]
    redis: SocketAddr,
    /// The live channel.
    #[arg(long)]
    channel: String,
}

/// Serves one stream after the other, until the process is ended.
///
/// # Errors
/// It cannot listen, or Redis is gone.
pub fn serve(places: &Places) -> io::Result<()> {
    let mut redis = subscribe(places.redis, &places.channel)?;
    let listener = TcpListener::bind(places.listen)?;
    let (mut message, mut block) = (Vec::new(), Vec::new());
    for socket in listener.incoming() {
        let mut socket = socket?;
        socket.set_nodelay(true)?;
        let mut request = [0; 4096];
        if socket.read(&mut request)? == 0 {
            continue;
        }
        socket.write_all(&opening())?;
        loop {
            hear(&mut redis, &mut message)?;
            write_block(&message, &mut block)?;
            if socket.write_all(&block).is_err() {
                break;
            }
        }
    }
    Ok(())
}

/// A connection that hears one channel, after the confirmation.
///
/// # Errors
/// Redis is gone.
pub fn subscribe(redis: SocketAddr, channel: &str) -> io::Result<BufReader<TcpStream>> {
    let mut socket = TcpStream::connect(redis)?;
    socket.set_nodelay(true)?;
    socket.write_all(format!("SUBSCRIBE {channel}\r\n").as_bytes())?;
    let mut redis = BufReader::new(socket);
    // *3 $9 subscribe $n <channel> :1
    let mut line = String::new();
    for _ in 0..6 {
        redis.read_line(&mut line)?;
    }
    Ok(redis)
}

/// Reads the next message of the channel.
///
/// # Errors
/// Redis is gone.
pub fn hear(redis: &mut BufReader<TcpStream>, message: &mut Vec<u8>) -> io::Result<()> {
    // *3 $7 message $n <channel> $n <message>
    for _ in 0..5 {
        message.clear();
        redis.read_until(b'\n', message)?;
    }
    message.clear();
    redis.read_until(b'\n', message)?;
    let length = std::str::from_utf8(message).ok();
    let length = length.and_then(|line| line.trim().strip_prefix('$')?.parse::<usize>().ok());
    let length = length.ok_or(io::ErrorKind::UnexpectedEof)?;
    message.resize(length + 2, 0);
    redis.read_exact(message)?;
    message.truncate(length);
    Ok(())
}

/// A frame (`1 ID PREV MARK TYPE`, a line end, the data) as a chunk that holds one block.
fn write_block(frame: &[u8], block: &mut Vec<u8>) -> io::Result<()> {
    let end = memchr::memchr(b'\n', frame).ok_or(io::ErrorKind::InvalidData)?;
    let (head, data) = frame.split_at(end);
    let id = head.split(|byte| *byte == b' ').nth(1).unwrap_or_default();
    block.clear();
    let size = b"id: ".len() + id.len() + b"\ndata: ".len() + data.len() - 1 + b"\n\n".len();
    write!(block, "{size:x}\r\nid: ")?;
    block.extend_from_slice(id);
    block.extend_from_slice(b"\ndata: ");
    block.extend_from_slice(data.get(1..).unwrap_or_default());
    block.extend_from_slice(b"\n\n\r\n");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_becomes_a_chunk() {
        let mut block = Vec::new();
        write_block(b"1 5-1 4-0 e \nhello", &mut block).unwrap();
        assert_eq!(block, b"15\r\nid: 5-1\ndata: hello\n\n\r\n");
    }
}
