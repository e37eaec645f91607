//! Goal: whatever a client does with its connection, its stream goes on or ends, is counted, and
//! harms nobody; and a replica without a descriptor left refuses whom it cannot serve, at once.
//!
//! Method: raw bytes on raw sockets, both ways out; limits are put on the running process.

use crate::support::{Gateway, Process, SOCKETS, Sse, environment, eventually};
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::process::Command;
use std::time::Duration;

const REQUEST: &[u8] = b"GET /events/news HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// Waits until so many streams are open.
fn wait_for_streams(gateway: &Gateway, streams: u32) {
    gateway.wait_for_metric("tidegate_open_connections", &[], streams.into());
}

/// Publishes, and asserts that the stream shows it next.
fn assert_goes_on(gateway: &Gateway, stream: &mut Sse, data: &str) {
    gateway.publish("news", data);
    assert_eq!(stream.next_event().data, data);
}

/// Whether this run asks for every stream as an ordinary body.
fn as_bodies() -> bool {
    std::env::var(SOCKETS).is_ok_and(|value| value == "false")
}

/// The same tests are run once more over ordinary bodies: were the setting lost on its way, nobody
/// would notice.
#[test]
fn streams_leave_by_the_way_that_the_run_asks_for() {
    let gateway = Gateway::start(&[]);
    let _stream = gateway.listen(&["news"]);
    let way = if as_bodies() { "body" } else { "socket" };
    gateway.wait_for_metric("tidegate_open_connections", &[("way", way)], 1.0);
}

/// What is sent with the head or after it is nothing to a stream.
#[test]
fn what_a_client_says_on_its_stream_changes_nothing() {
    // As an ordinary body, one whose words nobody reads is found gone when it is next written to.
    let gateway = Gateway::start(&[("stream.heartbeat", "1s")]);
    let with: [(&str, &[u8], &[u8]); 4] = [
        ("nothing", REQUEST, b""),
        (
            "a body",
            b"GET /events/news HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello",
            b"",
        ),
        (
            "a second request",
            b"GET /events/news HTTP/1.1\r\nHost: localhost\r\n\r\nGET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n",
            b"GET /events/other HTTP/1.1\r\nHost: localhost\r\n\r\n",
        ),
        ("noise", REQUEST, b"\x16\x03\x01\x00\xff\r\n\r\n\0"),
    ];
    for (what, request, later) in with {
        let socket = gateway.connect();
        let mut speaker = socket.try_clone().unwrap();
        let mut stream = Sse::exchange(socket, request);
        stream.opened();
        assert_goes_on(&gateway, &mut stream, &format!("{what}, before"));
        speaker.write_all(later).unwrap();
        for number in 0..3 {
            assert_goes_on(&gateway, &mut stream, &format!("{what}, then {number}"));
        }
        drop((stream, speaker));
        wait_for_streams(&gateway, 0);
    }
}

#[test]
fn a_client_that_never_stops_talking_is_cut() {
    let gateway = Gateway::start(&[("stream.heartbeat", "1s")]);
    let mut neighbour = gateway.listen(&["news"]);
    let mut socket = gateway.connect();
    socket.write_all(REQUEST).unwrap();
    // Nobody reads four megabytes of it.
    let chatter = vec![b'x'; 64 * 1024];
    let written = (0..64).try_for_each(|_| socket.write_all(&chatter));
    // As an ordinary body it is not read, and what it says stays in the kernel's buffers.
    if !as_bodies() {
        let mut rest = Vec::new();
        assert!(written.is_err() || socket.read_to_end(&mut rest).is_err() || !rest.is_empty());
    }
    drop(socket);
    wait_for_streams(&gateway, 1);
    assert_goes_on(&gateway, &mut neighbour, "still there");
}

/// Half-closed, reset or simply closed: the place is free again, and the reason is the client's.
#[test]
fn a_client_that_goes_leaves_nothing_behind() {
    let gateway = Gateway::start(&[]);
    let mut neighbour = gateway.listen(&["news"]);
    let go: [fn(TcpStream); 3] = [
        |socket| {
            socket.shutdown(Shutdown::Write).unwrap();
            // The replica closes its side, too.
            let mut rest = Vec::new();
            let _ended = (&socket).read_to_end(&mut rest);
        },
        |socket| {
            // What arrives is not read: closing answers it with a reset.
            socket.set_nonblocking(true).unwrap();
            drop(socket);
        },
        |socket| {
            let _read = (&socket).read(&mut [0; 4096]).unwrap();
            drop(socket);
        },
    ];
    for (count, go) in (1_u32..).zip(go) {
        let mut socket = gateway.connect();
        socket.write_all(REQUEST).unwrap();
        wait_for_streams(&gateway, 2);
        go(socket);
        wait_for_streams(&gateway, 1);
        let reason = [("reason", "client")];
        gateway.wait_for_metric(
            "tidegate_connections_closed_total",
            &reason,
            f64::from(count),
        );
        assert_goes_on(&gateway, &mut neighbour, "still there");
    }
}

/// Users of other servers saw memory stay after a wave of disconnects. Four more waves than the first may leave half
/// a kilobyte a stream at most.
#[test]
fn waves_of_clients_that_come_and_go_leave_no_memory_behind() {
    const STREAMS: u32 = 2_000;
    const WAVES: u32 = 4;
    const LEFT_MAX: f64 = (STREAMS * WAVES * 512) as f64;
    let gateway = Gateway::start(&[]);
    let resident = || gateway.metric("process_resident_memory_bytes", &[]);
    let wave = || {
        let streams: Vec<Sse> = (0..STREAMS).map(|_| gateway.listen(&["news"])).collect();
        wait_for_streams(&gateway, STREAMS);
        drop(streams);
        wait_for_streams(&gateway, 0);
    };
    wave();
    // The allocator gives pages back a moment later: the least of what is seen until nothing less comes.
    let (mut before, mut looks) = (resident(), 0);
    eventually("memory has settled", || {
        let now = resident();
        looks = if now < before { 0 } else { looks + 1 };
        before = before.min(now);
        looks == 100
    });
    (0..WAVES).for_each(|_| wave());
    let mut least = f64::MAX;
    eventually("memory is given back", || {
        least = least.min(resident());
        least < before + LEFT_MAX
    });
    println!("{before} bytes after the first wave, {least} in the end");
}

/// Descriptors that a process has.
fn descriptors(gateway: &Gateway) -> u64 {
    let directory = format!("/proc/{}/fd", gateway.id());
    std::fs::read_dir(directory).unwrap().count() as u64
}

#[test]
fn without_a_descriptor_left_new_connections_are_refused_at_once_and_old_ones_live() {
    let gateway = Gateway::start(&[]);
    let mut old = gateway.listen(&["news"]);
    let id = Pid::from_raw(i32::try_from(gateway.id()).unwrap());
    let before = prlimit(
        id,
        Resource::Nofile,
        Rlimit {
            current: Some(descriptors(&gateway) + 4),
            maximum: Some(20_000),
        },
    )
    .unwrap();
    let mut held = Vec::new();
    let refused = (0..64)
        .filter(|_| {
            let mut socket = gateway.connect();
            socket
                .set_read_timeout(Some(Duration::from_secs(30)))
                .unwrap();
            // Whoever is refused hears it here or there.
            let heard = socket
                .write_all(REQUEST)
                .and_then(|()| socket.read(&mut [0; 1]));
            let is_open = heard.is_ok_and(|read| read == 1);
            if is_open {
                held.push(socket);
            }
            !is_open
        })
        .count();
    assert!(
        !held.is_empty() && refused >= 50,
        "{} open, {refused} refused",
        held.len()
    );
    prlimit(id, Resource::Nofile, before).unwrap();
    assert_goes_on(&gateway, &mut old, "still there");
    drop(held);
    wait_for_streams(&gateway, 1);
    let mut new = gateway.listen(&["news"]);
    assert_goes_on(&gateway, &mut new, "as before");
    let errors = gateway.metric("tidegate_accept_errors_total", &[]);
    assert!(errors >= 50.0, "{errors}");
    // Told, and not once for each.
    let lines = gateway
        .logged_at_least(1, "a connection cannot be accepted")
        .len();
    assert!((1..=10).contains(&lines), "{lines}");
}

/// Its soft limit is what a shell or a service gives to programs that ask for no more.
#[test]
fn a_replica_takes_all_descriptors_that_it_may_have_and_says_when_they_are_few() {
    const FEW: &str = "fewer descriptors than server.connections_max needs";
    for (connections, is_said) in [("60000", true), ("744", false), ("745", true)] {
        let mut shell = Command::new("/bin/sh");
        shell
            .args([
                "-c",
                "ulimit -Sn 300; ulimit -Hn 1000; exec \"$0\" serve --listen 127.0.0.1:0",
            ])
            .arg(env!("CARGO_BIN_EXE_tidegate"))
            .env_clear()
            .envs(environment(&[
                ("server.connections_max", connections),
                ("limits.streams_max", "100"),
            ]));
        let process = Process::spawn("tidegate", &mut shell).unwrap();
        let listens = |line: &str| line.contains("listening").then_some(());
        assert!(process.stderr.wait_for(listens).is_some());
        let limits = std::fs::read_to_string(format!("/proc/{}/limits", process.id())).unwrap();
        let files = limits
            .lines()
            .find(|line| line.starts_with("Max open files"));
        let soft = files.unwrap().split_whitespace().nth(3);
        assert_eq!(soft, Some("1000"), "{limits}");
        let said = process.stderr.all().iter().any(|line| line.contains(FEW));
        assert_eq!(said, is_said, "{connections}");
    }
}
