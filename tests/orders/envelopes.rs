//! What envelopes cost in memory.

use super::streams::{at, stream};
use super::*;
use tidegate::stream::out::Out;
use tidegate::stream::request::StreamRequest;
use tidegate::stream::turn::{Stream, Turn};

const DATA: usize = 10_000;

/// Everything that a stream shows at once, and whether an envelope is around it.
fn shown(stream: &mut Stream, now: Instant) -> String {
    let mut out = Out::default();
    while stream.turn(at(now, 1), &mut out) == Turn::More {}
    let bytes: Vec<u8> = out.pieces.iter().flat_map(|piece| piece.to_vec()).collect();
    String::from_utf8(bytes).unwrap()
}

/// A replica with plain streams and some with envelopes, and four events.
fn replica_with(envelopes: usize, bytes_max: usize, now: Instant) -> (Arc<Hub>, Vec<Stream>) {
    let large = Retention {
        event_bytes_max: DATA,
        ..retention(100)
    };
    let mut l = Ledger::new(large, 100_000);
    let bounds = WindowBounds {
        events_max: 100,
        bytes_max,
    };
    let hub = Hub::new(1, bounds);
    let mut core = FollowerCore::new(hub.clone(), settings(), now);
    core.hear(up(0), now);
    drive(&mut core, &mut l, 100_001, now);
    let asks = |envelope| StreamRequest {
        topics: vec![topic()],
        envelope,
        ..StreamRequest::default()
    };
    let mut streams = vec![stream(&hub, &mut core, &mut l, asks(false), now)];
    streams.extend((0..envelopes).map(|_| stream(&hub, &mut core, &mut l, asks(true), now)));
    let event = Publication {
        topic: topic(),
        event_type: EventType::default(),
        data: "x".repeat(DATA),
        end: false,
        idempotency_key: None,
    };
    hear(
        &mut core,
        l.publish(&vec![event; 4], 100_100).unwrap().1,
        now,
    );
    (hub, streams)
}

#[test]
fn an_envelope_is_made_once_and_only_if_somebody_asks() {
    let now = Instant::now();
    let (hub, mut streams) = replica_with(3, 1 << 20, now);
    let plain = hub.window_bytes();
    assert!((4 * DATA..6 * DATA).contains(&plain), "{plain}");
    assert_eq!(shown(&mut streams[0], now).matches("data: x").count(), 4);
    assert_eq!(hub.window_bytes(), plain, "nobody asked");
    let first = shown(&mut streams[1], now);
    assert_eq!(first.matches("data: {\"topic\":\"a\",").count(), 4);
    let both = hub.window_bytes();
    assert!((8 * DATA..12 * DATA).contains(&both), "{both}");
    for stream in &mut streams[2..] {
        assert_eq!(shown(stream, now), first);
        assert_eq!(hub.window_bytes(), both, "it is there already");
    }
}

/// The oldest events make room for envelopes. Who has not seen them reads the log.
#[test]
fn envelopes_stay_within_the_bounds_of_the_window() {
    let now = Instant::now();
    let bytes_max = 5 * DATA;
    let (hub, mut streams) = replica_with(1, bytes_max, now);
    assert_eq!(shown(&mut streams[1], now).matches("data: {").count(), 4);
    assert!(
        hub.window_bytes() < bytes_max + DATA / 2,
        "{}",
        hub.window_bytes()
    );
    let mut out = Out::default();
    let turn = streams[0].turn(at(now, 1), &mut out);
    assert!(matches!(turn, Turn::Read(_)), "{turn:?}");
}
