//! A server that answers each command with its number on the connection, behind a link with rules.

use super::*;
use std::time::Duration;

/// Answers every command until the connection ends.
async fn answer(mut stream: TcpStream) -> io::Result<()> {
    let (mut scanner, mut piece, mut number) = (resp::Scanner::default(), vec![0; PIECE], 0);
    loop {
        let read = stream.read(&mut piece).await?;
        let mut rest = &piece[..read];
        if rest.is_empty() {
            return Ok(());
        }
        while !rest.is_empty() {
            let scanned = scanner.scan(rest).map_err(garbled)?;
            rest = &rest[scanned.taken..];
            if scanned.ended {
                number += 1;
                stream
                    .write_all(format!(":{number}\r\n").as_bytes())
                    .await?;
            }
        }
    }
}

/// A link to such a server.
async fn linked(rules: &[Rule]) -> (Links, JoinSet<()>) {
    let links = Links::open(1).unwrap();
    assert_eq!(links.replace_rules(0, rules), []);
    let server = TcpListener::bind((Ipv4Addr::LOCALHOST, links.redis_port))
        .await
        .unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((stream, _)) = server.accept().await {
            connections.spawn(answer(stream));
        }
    });
    (links, tasks)
}

async fn connect(links: &Links) -> TcpStream {
    TcpStream::connect((Ipv4Addr::LOCALHOST, links.first_port))
        .await
        .unwrap()
}

async fn send(stream: &mut TcpStream, words: &[&str]) {
    let word = |word: &&str| format!("${}\r\n{word}\r\n", word.len());
    let text: String = words.iter().map(word).collect();
    let text = format!("*{}\r\n{text}", words.len());
    stream.write_all(text.as_bytes()).await.unwrap();
}

/// So many bytes of what comes.
async fn receive(stream: &mut TcpStream, bytes: usize) -> String {
    let mut text = vec![0; bytes];
    stream.read_exact(&mut text).await.unwrap();
    String::from_utf8(text).unwrap()
}

fn rule(mishap: Mishap) -> Rule {
    Rule {
        command: "_publish",
        which: Which::Next,
        mishap,
    }
}

const PUBLISH: &[&str] = &["FCALL", "tidegate_publish", "0"];

#[tokio::test]
async fn what_follows_on_a_connection_waits_behind_a_late_reply() {
    let late = rule(Mishap::Late(Duration::from_millis(50)));
    let (links, _server) = linked(&[late]).await;
    let mut stream = connect(&links).await;
    let sent = Instant::now();
    for words in [&["PING"], PUBLISH, &["PING"]] {
        send(&mut stream, words).await;
    }
    assert_eq!(receive(&mut stream, 12).await, ":1\r\n:2\r\n:3\r\n");
    assert!(sent.elapsed() >= Duration::from_millis(50));
    assert_eq!(links.replace_rules(0, &[]), [(late, 1)]);
}

#[tokio::test]
async fn a_lost_reply_ends_the_connection_after_the_replies_before_it() {
    let (links, _server) = linked(&[rule(Mishap::Lost)]).await;
    let mut stream = connect(&links).await;
    send(&mut stream, &["PING"]).await;
    assert_eq!(receive(&mut stream, 4).await, ":1\r\n");
    send(&mut stream, PUBLISH).await;
    // It may be reset rather than closed.
    assert_eq!(stream.read(&mut [0; 1]).await.unwrap_or_default(), 0);
    let mut another = connect(&links).await;
    send(&mut another, PUBLISH).await;
    assert_eq!(receive(&mut another, 4).await, ":1\r\n");
    assert_eq!(links.garbled(), 0);
}

#[tokio::test]
async fn after_a_swallowed_reply_the_connection_takes_and_answers_nothing() {
    let (links, _server) = linked(&[rule(Mishap::Swallowed)]).await;
    let mut stream = connect(&links).await;
    send(&mut stream, &["PING"]).await;
    assert_eq!(receive(&mut stream, 4).await, ":1\r\n");
    send(&mut stream, PUBLISH).await;
    send(&mut stream, &["PING"]).await;
    let mut another = connect(&links).await;
    for number in 1..4 {
        send(&mut another, PUBLISH).await;
        assert_eq!(receive(&mut another, 4).await, format!(":{number}\r\n"));
    }
    let nothing = stream.try_read(&mut [0; 1]);
    assert_eq!(nothing.unwrap_err().kind(), io::ErrorKind::WouldBlock);
    // It stands until the replica, or a cut, ends it.
    links.set(0, State::Cut);
    assert_eq!(stream.read(&mut [0; 1]).await.unwrap_or_default(), 0);
}

#[tokio::test]
async fn after_a_last_reply_the_connection_takes_and_answers_nothing() {
    let (links, _server) = linked(&[rule(Mishap::Last)]).await;
    let mut stream = connect(&links).await;
    send(&mut stream, PUBLISH).await;
    send(&mut stream, &["PING"]).await;
    assert_eq!(receive(&mut stream, 4).await, ":1\r\n");
    let mut another = connect(&links).await;
    send(&mut another, PUBLISH).await;
    send(&mut another, PUBLISH).await;
    assert_eq!(receive(&mut another, 8).await, ":1\r\n:2\r\n");
    let nothing = stream.try_read(&mut [0; 1]);
    assert_eq!(nothing.unwrap_err().kind(), io::ErrorKind::WouldBlock);
}

#[tokio::test]
async fn what_is_no_resp_is_counted_and_ends_the_connection() {
    let (links, _server) = linked(&[]).await;
    let mut stream = connect(&links).await;
    stream.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    assert_eq!(stream.read(&mut [0; 1]).await.unwrap_or_default(), 0);
    assert_eq!(links.garbled(), 1);
}
