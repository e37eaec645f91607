//! Goal: what one stream may ask for is bounded, and so is what a replica follows for all of them. Whoever asks for
//! more is told so, and nobody else notices.
//!
//! Method: bounds of a handful, reached over the wire.

use crate::support::{End, Gateway, Sse, eventually};

/// A proxy would take a replica that answers 503 for full, and streams of topics that are read here would suffer.
#[test]
fn topics_beyond_what_a_replica_follows_are_refused_and_those_that_are_read_are_not() {
    let gateway = Gateway::start(&[
        ("limits.feeds_max", "4"),
        ("limits.topics_per_stream_max", "4"),
        ("redis.unsubscribe_after", "0s"),
    ]);
    let first = gateway.listen(&["a", "b"]);
    let mut second = gateway.listen(&["b", "c", "d"]);
    let refused = "tidegate_connections_refused_total";
    for (number, path) in ["/events/e", "/events?topic=a&topic=e", "/events/e?last=1"]
        .iter()
        .enumerate()
    {
        let mut stream = gateway.open(path, &[("Tidegate-Failover", "1")]);
        assert_eq!(stream.status(), 200, "{path}");
        assert_eq!(stream.rest(), (vec![], End::Cut), "{path}");
        let retry = stream.retry().unwrap();
        assert!(retry >= 15_000, "ten times 3 s, less half: {retry} ms");
        let count = f64::from(u32::try_from(number).unwrap() + 1);
        gateway.wait_for_metric(refused, &[("reason", "feeds")], count);
    }
    let mut third = gateway.listen(&["a", "b", "c", "d"]);
    let id = gateway.publish("d", "x");
    gateway.publish("e", "for nobody");
    assert_eq!(second.next_event().id(), id);
    assert_eq!(third.next_event().id(), id);
    drop((second, third));
    eventually("a topic that nobody reads makes room", || {
        gateway.open("/events/e", &[]).try_next_event().is_some()
    });
    drop(first);
}

/// Whoever asks first has the room, also while history is looked for.
#[test]
fn however_many_streams_open_at_once_no_more_topics_are_followed_than_may_be() {
    const STREAMS: usize = 24;
    let gateway = &Gateway::start(&[
        ("limits.feeds_max", "10"),
        ("limits.topics_per_stream_max", "2"),
    ]);
    let opened: Vec<Option<Sse>> = std::thread::scope(|scope| {
        let openers: Vec<_> = (0..STREAMS)
            .map(|number| {
                scope.spawn(move || {
                    let history = if number % 2 == 0 { "&last=1" } else { "" };
                    let path = format!("/events?topic=a{number}&topic=b{number}{history}");
                    let mut stream = gateway.open(&path, &[]);
                    stream.try_next_event().map(|_| stream)
                })
            })
            .collect();
        openers
            .into_iter()
            .map(|opener| opener.join().unwrap())
            .collect()
    });
    assert_eq!(opened.iter().flatten().count(), 5);
    gateway.wait_for_metric("tidegate_topics", &[], 10.0);
}

#[test]
fn types_of_one_stream_are_bounded_in_number_and_bytes() {
    let gateway = Gateway::start(&[
        ("limits.types_per_stream_max", "3"),
        ("limits.types_bytes_max", "8"),
    ]);
    let detail = |query: &str| gateway.get(&format!("/events/news?{query}")).problem(400);
    assert_eq!(
        detail("type=a&type=b&type=c&type=d"),
        "type: a stream has at most 3 types, and this request names 4"
    );
    assert_eq!(
        detail("type=aaaaaa&type=bbb"),
        "type: the types of a stream have at most 8 bytes together, and these have 9"
    );
    // One that is named twice is one.
    let mut stream = gateway.open("/events/news?type=a&type=b&type=c&type=a", &[]);
    stream.opened();
    gateway.publish("news", "of no type");
    gateway.post("/events/news?type=c", &[], "of type c").id();
    assert_eq!(stream.next_event().data, "of type c");
    let refused = [("reason", "bad_request")];
    gateway.wait_for_metric("tidegate_connections_refused_total", &refused, 2.0);
}
