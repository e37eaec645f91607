//! What can be done over HTTP/2 at a replica's own address: frames as they are
//! ([RFC 9113](https://www.rfc-editor.org/rfc/rfc9113)).

use super::Scale;
use super::crowd::{Tally, crowd};
use crate::cluster::{Cluster, Door};
use std::io;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until};

/// How a client begins, with settings that say nothing.
const BEGIN: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
const SETTINGS: &[u8] = b"\0\0\0\x04\0\0\0\0\0";
const PING: &[u8] = b"\0\0\x08\x06\0\0\0\0\0flooding";
const WINDOW_UPDATE: &[u8] = b"\0\0\x04\x08\0\0\0\0\0\0\0\0\x01";
/// Frames of one write.
const FRAMES: usize = 200;

pub(super) async fn say_nothing(
    cluster: &Cluster,
    scale: Scale,
    until: Instant,
) -> Result<String, String> {
    let (mut held, mut tally) = (Vec::new(), Tally::default());
    for number in 0..scale.clients * 100 {
        let replica = cluster.replicas.get(number % cluster.replicas.len());
        match connect(replica.ok_or("there is no replica")?).await {
            Ok(socket) => {
                tally.add("opened");
                held.push(socket);
            }
            Err(why) => tally.add(format!("no connection ({})", why.kind())),
        }
    }
    sleep_until(until).await;
    for socket in &held {
        let mut byte = [0; 4096];
        // What was sent at the beginning, then the end, if it has come.
        let is_over = std::iter::repeat_with(|| socket.try_read(&mut byte))
            .find(|read| !matches!(read, Ok(1..)))
            .is_some_and(|read| !read.is_err_and(|why| why.kind() == io::ErrorKind::WouldBlock));
        tally.add(if is_over { "closed" } else { "still open" });
    }
    Ok(tally.to_string())
}

pub(super) async fn flood(
    cluster: &Cluster,
    scale: Scale,
    until: Instant,
) -> Result<String, String> {
    let replicas = cluster.replicas.clone();
    let tally = crowd(scale.clients / 2, 20, until, move |client, time| {
        let turn = client + usize::try_from(time).unwrap_or_default();
        let replica = replicas.get(turn % replicas.len()).cloned();
        async move {
            let frame = [SETTINGS, PING, WINDOW_UPDATE];
            let frame = frame.get(turn % 3).copied().unwrap_or_default();
            let Some(replica) = replica else {
                return "no replica".to_owned();
            };
            match Box::pin(flood_one(&replica, frame)).await {
                Ok(()) => "not cut".to_owned(),
                Err(_) => "cut".to_owned(),
            }
        }
    });
    tally.await.only(&["cut"])
}

/// Floods one connection, up to ten times what it may; an error is its end.
async fn flood_one(replica: &Door, frame: &[u8]) -> io::Result<()> {
    let mut socket = connect(replica).await?;
    let flood = frame.repeat(FRAMES);
    for _ in 0..100 {
        socket.write_all(&flood).await?;
        let mut answers = [0; 16 * 1024];
        // Answers are read as far as they are there, so that it is not they that stop the flood.
        while let Ok(read) = socket.try_read(&mut answers) {
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
    // What was too much may lie there unread yet.
    let mut answers = [0; 16 * 1024];
    while socket.read(&mut answers).await? > 0 {}
    Err(io::ErrorKind::UnexpectedEof.into())
}

async fn connect(replica: &Door) -> io::Result<TcpStream> {
    let mut socket = TcpStream::connect(&replica.address).await?;
    socket.write_all(BEGIN).await?;
    Ok(socket)
}
