//! When a stream ends: by a hole that nobody mends, by the end that its client wants.

use super::streams::{REPAIR, at, stream};
use super::*;
use tidegate::metrics::CloseReason;
use tidegate::stream::out::Out;
use tidegate::stream::request::StreamRequest;
use tidegate::stream::turn::{Ending, Turn};

/// Its page is let go while it waits, and read again: that took it for one that goes on.
#[test]
fn a_stream_that_is_held_is_cut_although_its_page_is_read_again() {
    let now = Instant::now();
    let mut l = Ledger::new(retention(100), 100_000);
    let (hub, mut core) = replica(1, up(0), now);
    drive(&mut core, &mut l, 100_001, now);
    let request = StreamRequest {
        topics: vec![named("a"), named("b")],
        ..StreamRequest::default()
    };
    let mut stream = stream(&hub, &mut core, &mut l, request, now);
    publish_to(&mut l, "a", 1, 100_100);
    hear(&mut core, publish_to(&mut l, "a", 1, 100_110), now);
    hear(&mut core, publish_to(&mut l, "b", 5, 100_200), now);
    let mut out = Out::default();
    let mut reads = 0;
    for second in 0..=REPAIR.as_secs() + 1 {
        let turn = match stream.turn(at(now, second), &mut out) {
            Turn::Read(asked) => {
                reads += 1;
                let page = read(&mut l, &hub, &asked, 100_300);
                stream.take(&page);
                stream.turn(at(now, second), &mut out)
            }
            other => other,
        };
        match turn {
            Turn::Wait(_) => stream.release_pages(),
            Turn::Over(ending) => {
                assert_eq!(ending, Ending::Cut(CloseReason::Held));
                assert!(reads > 20, "it was read again: {reads}");
                return;
            }
            Turn::More | Turn::Read(_) => panic!("there is nothing to show"),
        }
    }
    panic!("it is held for ever");
}

/// `max_age` counts from the request: what the opening took is part of it.
#[test]
fn a_stream_ends_when_its_client_said_however_long_it_took_to_open() {
    let now = Instant::now();
    let mut l = Ledger::new(retention(100), 100_000);
    let (hub, mut core) = replica(1, up(0), now);
    drive(&mut core, &mut l, 100_001, now);
    let [opened_at, end] = [0, 5];
    for ends_at in [opened_at, end] {
        let request = StreamRequest {
            topics: vec![topic()],
            ends_at: Some(at(now, ends_at).instant),
            ..StreamRequest::default()
        };
        let mut stream = stream(&hub, &mut core, &mut l, request, now);
        let mut out = Out::default();
        let ended = (0..60).find(|second| {
            let turn = stream.turn(at(now, *second), &mut out);
            turn == Turn::Over(Ending::Clean(CloseReason::Limit))
        });
        assert_eq!(ended, Some(ends_at));
    }
}
