//! Goal: no connection and no stream of HTTP/2 is kept for longer than it is of use: not one without a
//! request, not one whose client has gone silent, not one that floods, not a stream whose client makes no
//! room for it.
//!
//! Method: frames of RFC 9113 over a bare socket, since a client library answers, reads and makes room
//! by itself.

use crate::support::{Gateway, eventually};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const UNKNOWN: u8 = 0xfa;
const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;
const INITIAL_WINDOW_SIZE: u8 = 4;

/// One frame: its type, its flags, its stream, what it carries.
#[derive(Debug)]
struct Frame {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: Vec<u8>,
}

/// A frame as bytes.
fn bytes_of(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let head = [&length[1..], &[kind, flags], &stream.to_be_bytes()].concat();
    [&head, payload].concat()
}

/// The fields of a request.
fn block_of(method: &str, path: &str) -> Vec<u8> {
    let fields = [
        (":method", method),
        (":scheme", "http"),
        (":path", path),
        (":authority", "localhost"),
    ];
    let mut block = Vec::new();
    for (name, value) in fields {
        // Literal, without indexing, of a new name (RFC 7541, section 6.2.2).
        block.push(0);
        for text in [name, value] {
            block.push(u8::try_from(text.len()).unwrap());
            block.extend_from_slice(text.as_bytes());
        }
    }
    block
}

/// A client that does nothing by itself but to confirm settings.
struct Client(TcpStream);

impl Client {
    /// Connects, with so much room for each stream.
    fn connect(gateway: &Gateway, window: u32) -> Self {
        let mut client = Self(gateway.connect());
        client.0.write_all(PREFACE).unwrap();
        let setting = [&[0, INITIAL_WINDOW_SIZE][..], &window.to_be_bytes()].concat();
        client.send(SETTINGS, 0, 0, &setting);
        client
    }

    fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        assert!(self.try_send(kind, flags, stream, payload));
    }

    /// False if the other end has closed the connection.
    fn try_send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> bool {
        let bytes = bytes_of(kind, flags, stream, payload);
        self.0.write_all(&bytes).is_ok()
    }

    fn request(&mut self, stream: u32, method: &str, path: &str) {
        let block = block_of(method, path);
        self.send(HEADERS, END_STREAM | END_HEADERS, stream, &block);
    }

    /// Requests that are taken back, all in one write.
    fn request_and_reset(&mut self, streams: impl Iterator<Item = u32>) {
        let cancel = 8_u32.to_be_bytes();
        let pairs = streams.flat_map(|stream| {
            let block = block_of("GET", "/healthz");
            let request = bytes_of(HEADERS, END_STREAM | END_HEADERS, stream, &block);
            [request, bytes_of(RST_STREAM, 0, stream, &cancel)]
        });
        let bytes: Vec<u8> = pairs.flatten().collect();
        self.0.write_all(&bytes).unwrap();
    }

    /// The next frame; none at the end.
    fn read(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        match self.0.read_exact(&mut head) {
            Ok(()) => {}
            Err(why) if why.kind() == std::io::ErrorKind::WouldBlock => panic!("nothing came"),
            Err(_) => return None,
        }
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; length as usize];
        self.0.read_exact(&mut payload).ok()?;
        let frame = Frame {
            kind: head[3],
            flags: head[4],
            stream: u32::from_be_bytes([head[5], head[6], head[7], head[8]]),
            payload,
        };
        if frame.kind == SETTINGS && frame.flags & ACK == 0 {
            // The other end may have closed it behind this frame.
            let _closed = self.try_send(SETTINGS, ACK, 0, &[]);
        }
        Some(frame)
    }

    /// Reads until a frame of this kind on this stream.
    fn until(&mut self, kind: u8, stream: u32) -> Frame {
        loop {
            let frame = self.read().expect("a frame before the end");
            if frame.kind == kind && frame.stream == stream {
                return frame;
            }
        }
    }

    /// The kinds of all frames to the end.
    fn rest(&mut self) -> Vec<u8> {
        std::iter::from_fn(|| self.read())
            .map(|frame| frame.kind)
            .collect()
    }
}

const ROOM: u32 = 1 << 20;

/// By what the replica says at the beginning: requests at once, bytes of each, and bytes of a head
/// (RFC 9113, section 6.5.2).
#[test]
fn what_may_come_over_one_connection_is_bounded() {
    let gateway = Gateway::start(&[("server.buffer_bytes", "9000")]);
    let mut client = Client::connect(&gateway, ROOM);
    let settings = client.until(SETTINGS, 0).payload;
    for (name, most) in [(3, 100_u32), (4, 65_536), (6, 9_000)] {
        let mut all = settings.chunks(6);
        let said = all.find(|setting| setting[..2] == [0, name]);
        let said = said.unwrap_or_else(|| panic!("{name}: {settings:?}"));
        assert_eq!(said[2..], most.to_be_bytes(), "{name}");
    }
}

#[test]
fn a_connection_without_a_request_is_closed_and_one_with_a_stream_is_not() {
    // A busy machine may take its time between a connection and its request.
    let gateway = Gateway::start(&[("server.header_timeout", "1s")]);
    let mut kept = Client::connect(&gateway, ROOM);
    kept.request(1, "GET", "/events/news");
    kept.until(DATA, 1);
    let mut idle = Client::connect(&gateway, ROOM);
    let mut done = Client::connect(&gateway, ROOM);
    done.request(1, "GET", "/topics");
    done.until(HEADERS, 1);
    for client in [&mut idle, &mut done] {
        assert!(client.rest().contains(&GOAWAY));
    }
    gateway.publish("news", "live");
    // A heartbeat or a cursor may come first.
    while !kept.until(DATA, 1).payload.ends_with(b"data: live\n\n") {}
}

#[test]
fn a_connection_that_answers_no_ping_is_closed() {
    let gateway = Gateway::start(&[("server.write_timeout", "1s")]);
    let mut client = Client::connect(&gateway, ROOM);
    client.request(1, "GET", "/events/news");
    client.until(DATA, 1);
    assert!(client.rest().contains(&PING));
    gateway.wait_for_metric("tidegate_open_connections", &[], 0.0);
}

/// hyper asks a body only when there is room, and so the body never saw that its time was over.
#[test]
fn a_stream_whose_window_stays_shut_is_cut_by_its_age_and_the_others_go_on() {
    let gateway = Gateway::start(&[("stream.age_max", "1s")]);
    let mut client = Client::connect(&gateway, 0);
    client.request(1, "GET", "/events/news");
    client.until(HEADERS, 1);
    client.until(RST_STREAM, 1);
    let by_age = [("reason", "age")];
    gateway.wait_for_metric("tidegate_connections_closed_total", &by_age, 1.0);
    gateway.wait_for_metric("tidegate_open_connections", &[], 0.0);
    client.request(3, "OPTIONS", "/events/news");
    client.until(HEADERS, 3);
}

#[test]
fn a_stream_whose_window_stays_shut_holds_no_drain_up() {
    let mut gateway = Gateway::start(&[("drain.time", "3s")]);
    let mut client = Client::connect(&gateway, 0);
    client.request(1, "GET", "/events/news");
    client.until(HEADERS, 1);
    gateway.terminate();
    client.until(RST_STREAM, 1);
    assert!(gateway.wait().success());
    let line = gateway.logged("stream closed").concat();
    assert!(line.contains(r#""close_reason":"drain""#), "{line}");
    assert!(gateway.logged("some tasks did not end in time").is_empty());
}

/// They cost a client nothing, and the replica a turn each.
#[test]
fn a_flood_of_frames_that_ask_for_nothing_is_cut_and_a_stream_beside_it_goes_on() {
    let gateway = Gateway::start(&[]);
    let mut beside = Client::connect(&gateway, ROOM);
    beside.request(1, "GET", "/events/news");
    beside.until(DATA, 1);
    let floods: [(u8, &[u8]); 5] = [
        (SETTINGS, &[]),
        (PING, &[0; 8]),
        (WINDOW_UPDATE, &[0, 0, 0, 1]),
        (PRIORITY, &[0, 0, 0, 0, 16]),
        (UNKNOWN, &[]),
    ];
    let cut = || gateway.metric("tidegate_http2_floods_total", &[]);
    for (kind, payload) in floods {
        let before = cut();
        let mut client = Client::connect(&gateway, ROOM);
        let stream = if kind == PRIORITY { 3 } else { 0 };
        // So many at once that no time in which they may come is long enough.
        for _ in 0..20_000 {
            if !client.try_send(kind, 0, stream, payload) {
                break;
            }
        }
        client.rest();
        assert!(cut() - before > 0.5, "{kind} is cut");
    }
    gateway.publish("news", "live");
    beside.until(DATA, 1);
    assert!((cut() - 5.0).abs() < 0.5);
}

/// Twice for each piece of an answer: for its stream, and for the connection (RFC 9113, section 5.2.1).
#[test]
fn a_client_that_makes_room_for_each_piece_of_an_answer_floods_nobody() {
    let gateway = Gateway::start(&[("server.http2_control_frames_max", "10")]);
    let mut client = Client::connect(&gateway, ROOM);
    client.request(1, "GET", "/events/news");
    client.until(DATA, 1);
    for number in 0..200 {
        gateway.publish("news", &number.to_string());
        let came = client.until(DATA, 1).payload.len();
        let room = u32::try_from(came).unwrap().to_be_bytes();
        client.send(WINDOW_UPDATE, 0, 1, &room);
        client.send(WINDOW_UPDATE, 0, 0, &room);
    }
    assert!(gateway.metric("tidegate_http2_floods_total", &[]).abs() < 0.5);
}

/// An answer that is no stream has no age, so its task has.
#[test]
fn an_answer_for_which_no_room_is_made_is_given_up() {
    let config = [
        ("server.body_timeout", "500ms"),
        ("server.write_timeout", "500ms"),
    ];
    let gateway = Gateway::start(&config);
    let mut client = Client::connect(&gateway, 0);
    client.request(1, "GET", "/topics");
    client.until(HEADERS, 1);
    // It answers pings meanwhile.
    loop {
        let frame = client.read().expect("the connection stands");
        match frame.kind {
            PING if frame.flags & ACK == 0 => client.send(PING, ACK, 0, &frame.payload),
            RST_STREAM => break,
            _ => {}
        }
    }
}

/// Streams without a window hold answers, and so do connections that nobody reads: together no more than they may.
#[test]
fn answers_that_nobody_takes_share_one_bound_and_others_have_theirs_whole() {
    const BOUND: usize = 4 * 1024 * 1024;
    const STREAMS: usize = 20;
    const PATH: &str = "/topics/large/events?limit=1000";
    let bound = BOUND.to_string();
    let gateway = Gateway::start(&[("limits.answer_bytes_max", &bound)]);
    for _ in 0..10 {
        // Six bytes each in JSON.
        gateway.publish("large", &"\u{1}".repeat(30_000));
    }
    let whole = gateway.get(PATH);
    let size = whole.body.len();
    assert!(
        STREAMS * size > 3 * BOUND,
        "far more than may be held: {size}"
    );
    let held = || gateway.metric("tidegate_answer_bytes", &[]);
    let given_up = || gateway.metric("tidegate_answers_given_up_total", &[]);
    #[expect(clippy::cast_precision_loss, reason = "far below what is exact")]
    let (bound, least) = (BOUND as f64, (BOUND - 2 * size) as f64);

    let mut client = Client::connect(&gateway, 0);
    for number in 0..STREAMS {
        client.request(u32::try_from(2 * number + 1).unwrap(), "GET", PATH);
    }
    let mut unread: Vec<TcpStream> = (0..STREAMS)
        .map(|_| {
            let mut socket = gateway.connect();
            let request = format!("GET {PATH} HTTP/1.1\r\nHost: localhost\r\n\r\n");
            socket.write_all(request.as_bytes()).unwrap();
            socket
        })
        .collect();
    let expected = 2 * STREAMS - BOUND / size;
    #[expect(clippy::cast_precision_loss, reason = "a handful")]
    let expected = expected as f64;
    eventually("those beyond the bound were given up", || {
        assert!(held() <= bound, "{}", held());
        given_up() >= expected
    });
    assert!(held() > least, "{}", held());
    for _ in 0..20 {
        assert_eq!(gateway.get(PATH).body, whole.body);
        assert!(held() <= bound, "{}", held());
    }
    // One that was given up breaks off.
    let mut came = Vec::new();
    drop(unread[0].read_to_end(&mut came));
    assert!(came.len() < size, "{} of {size}", came.len());
    drop((client, unread));
    gateway.wait_for_metric("tidegate_answer_bytes", &[], 0.0);
}

/// The same over HTTP/1.1, where a stream goes out as a body: its connection is closed.
#[test]
fn a_body_over_http_1_whose_reader_stops_is_cut_by_its_age() {
    let gateway = Gateway::start(&[("stream.age_max", "2s"), ("server.write_timeout", "1h")]);
    let mut socket = gateway.connect();
    socket
        .write_all(b"GET /events/news?limit=1000000 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .unwrap();
    let mut head = [0; 12];
    socket.read_exact(&mut head).unwrap();
    let data = "x".repeat(60_000);
    let events = [("news", data.as_str()); 50];
    let closed = || gateway.metric("tidegate_connections_closed_total", &[("reason", "age")]);
    eventually("it is cut", || {
        if gateway.metric("tidegate_sent_bytes_total", &[]) < 2e7 {
            gateway.publish_batch(&events);
        }
        closed() > 0.5
    });
    gateway.wait_for_metric("tidegate_open_connections", &[], 0.0);
    gateway.wait_for_metric("tidegate_sockets", &[], 1.0);
}

/// The library of HTTP/2 says so each time, and a client can have it say so hundreds of times a second.
#[test]
fn connections_that_are_closed_for_a_flood_of_resets_leave_no_line_in_the_log() {
    let gateway = Gateway::start(&[]);
    for _ in 0..3 {
        let mut client = Client::connect(&gateway, 65_535);
        client.request_and_reset((1..400).step_by(2));
        // Until it is closed.
        client.rest();
    }
    assert_eq!(gateway.get("/healthz").status, 200);
    let lines = gateway.log();
    let resets = lines.iter().filter(|line| line.contains("recv_reset"));
    assert_eq!(resets.count(), 0, "{lines:?}");
}
