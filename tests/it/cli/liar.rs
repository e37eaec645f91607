//! A server that is no gateway, though it speaks as one: what it says neither moves a terminal's cursor nor fills
//! the memory.

use crate::support::{Lines, Process, Terminal, binary};
use std::io::{BufRead as _, BufReader, Write};
use std::net::{TcpListener, TcpStream};

/// What would move the cursor, as JSON escapes it.
const EVIL: &str = "\\u001b[31mevil\\u009b2J\\u0007\\u007f";

/// Starts a server that answers every request so, until its client has gone. Its URL.
fn liar(answer: impl Fn(&mut TcpStream) -> std::io::Result<()> + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let mut client = client.unwrap();
            let mut head = BufReader::new(client.try_clone().unwrap()).lines();
            while head
                .next()
                .is_some_and(|line| line.is_ok_and(|line| !line.is_empty()))
            {}
            // Who has gone wants no more.
            drop(answer(&mut client));
        }
    });
    url
}

/// A refusal of the gateway's form.
fn problem(detail: &str) -> String {
    let body = format!("{{\"status\":400,\"detail\":\"{detail}\"}}");
    let length = body.len();
    format!("HTTP/1.1 400 Bad Request\r\nContent-Length: {length}\r\n\r\n{body}")
}

/// A command with a terminal for both outputs. What that shows, when it has ended.
fn on_a_terminal(words: &[&str], url: &str) -> String {
    let terminal = Terminal::of(80);
    let mut command = binary();
    command
        .args(words)
        .args(["--url", url])
        .stdout(terminal.side());
    let mut child = command.stderr(terminal.side()).spawn().unwrap();
    // What lies open here would keep the terminal from its end.
    drop(command);
    let lines: Lines = terminal.shown();
    let code = child.wait().unwrap().code();
    writeln!(&terminal.theirs, "\nthat was all").unwrap();
    lines.wait_for(|line| line.contains("that was all").then_some(()));
    format!("{code:?}\n{}", lines.all().join("\n"))
}

#[test]
fn nothing_that_a_server_says_moves_the_cursor_of_a_terminal() {
    let refusing = liar(|client| client.write_all(problem(EVIL).as_bytes()));
    for words in [
        &["tail", "news"][..],
        &["publish", "news", "hello"],
        &["topics", "show", "news"],
        &["topics", "delete", "news", "--yes"],
    ] {
        let shown = on_a_terminal(words, &refusing);
        assert!(shown.contains("evil"), "{words:?}: {shown:?}");
        let controls = |c: char| c.is_control() && c != '\n';
        assert!(!shown.contains(controls), "{words:?}: {shown:?}");
    }
    let streaming = liar(|client| {
        let said = format!("{{\"topic\":\"{EVIL}\",\"reason\":\"{EVIL}\"}}");
        let raw = "{\"data\":\"\u{1b}[31mevil\u{9b}2J\u{7f}\"}";
        write!(
            client,
            "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n\
            event: tidegate.gap\ndata: {said}\n\nevent: tidegate.deleted\ndata: {said}\n\ndata: {raw}\n\n"
        )
    });
    for words in [
        &["tail", "news", "--limit", "1"][..],
        &["tail", "--json", "--limit", "1"],
    ] {
        let shown = on_a_terminal(words, &streaming);
        assert_eq!(shown.matches("evil").count(), 4, "{words:?}: {shown:?}");
        let controls = |c: char| c.is_control() && c != '\n';
        assert!(!shown.contains(controls), "{words:?}: {shown:?}");
    }
}

#[test]
fn a_refusal_without_an_end_is_one() {
    let endless = liar(|client| {
        write!(client, "HTTP/1.1 401 Unauthorized\r\n\r\n")?;
        // It is read no further, and so this fails.
        (0..4096).try_for_each(|_| client.write_all(&[b'x'; 16_384]))?;
        std::io::copy(client, &mut std::io::sink()).map(drop)
    });
    for words in [
        &["tail", "news"][..],
        &["topics"],
        &["publish", "news", "hello"],
    ] {
        let mut command = binary();
        command.args(words).args(["--url", &endless]);
        let mut process = Process::spawn("tidegate", &mut command).unwrap();
        assert_eq!(process.wait().code(), Some(1), "{words:?}");
        let said = process.stderr.all().join("\n");
        assert!(
            said.contains("401 Unauthorized") && said.len() < 1000,
            "{said}"
        );
    }
}

#[test]
fn a_line_without_an_end_is_not_kept() {
    let endless = liar(|client| {
        write!(
            client,
            "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: "
        )?;
        (0..8192).try_for_each(|_| client.write_all(&[b'x'; 16_384]))
    });
    let mut command = binary();
    command.args(["tail", "news", "--url", &endless]);
    let process = Process::spawn("tail", &mut command).unwrap();
    let lost = process
        .stderr
        .wait_for(|line| line.contains("lost").then(|| line.to_owned()));
    assert!(lost.unwrap().contains("larger than 64 MiB"));
}
