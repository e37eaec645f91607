//! Streams of several partitions, and of topics that are not logged beside others: one part of a stream is busy, and
//! another is quiet, or held.

use super::streams::{REPAIR, at, opener, stream, stream_kept, stream_settings, text};
use super::*;
use tidegate::metrics::CloseReason;
use tidegate::stream::open::Opened;
use tidegate::stream::out::Out;
use tidegate::stream::request::{Begin, StreamRequest};
use tidegate::stream::turn::{Ending, Stream, Turn};

/// Logs of two partitions, and a replica that keeps the last event of each topic.
struct Two {
    ledgers: [Ledger; 2],
    hub: Arc<Hub>,
    core: FollowerCore,
    now: Instant,
}

impl Two {
    fn new() -> Self {
        let now = Instant::now();
        let bounds = WindowBounds {
            events_max: 1,
            bytes_max: 1 << 20,
        };
        let hub = Hub::new(2, bounds);
        let mut core = FollowerCore::new(hub.clone(), settings(), now);
        core.hear(up(0), now);
        let ledgers = [0, 1].map(|_| Ledger::new(retention(100_000), 100_000));
        let mut two = Self {
            ledgers,
            hub,
            core,
            now,
        };
        two.drive(100_001);
        two
    }

    fn tick(&mut self, partition: u16, now_ms: u64) -> Id {
        let tick = self.ledgers[usize::from(partition)].tick(now_ms);
        self.core.hear(Live::Tick(partition, tick), self.now);
        tick.id
    }

    fn drive(&mut self, now_ms: u64) {
        self.core.hub_wants(self.now);
        while let Some(ask) = self.core.next_ask() {
            let answer = match ask {
                Ask::Interest(Interest::Add(added)) => {
                    self.core.hear(Live::Confirmed(added), self.now);
                    continue;
                }
                Ask::Interest(_) => panic!("nothing goes"),
                Ask::Settle { connection, .. } => {
                    let _last = [0, 1].map(|partition| self.tick(partition, now_ms));
                    let told = Vec::new();
                    Answer::Settled { connection, told }
                }
                Ask::Read {
                    connection,
                    partition,
                    feeds,
                    requests,
                } => {
                    let reading = Ok(self.ledgers[usize::from(partition)].read(&requests, now_ms));
                    Answer::Read {
                        connection,
                        feeds,
                        reading,
                    }
                }
                Ask::Tick(connection, partition) => {
                    let id = self.tick(partition, now_ms);
                    Answer::Ticked(connection, partition, Ok(id))
                }
            };
            self.core.answer(answer, self.now);
        }
    }

    fn read(&mut self, asked: &LogRead, now_ms: u64) -> Arc<Reading> {
        let partition = asked.partition();
        let generation = self.hub.partition(partition).settled().unwrap();
        let mut reading = self.ledgers[usize::from(partition)].read(asked.requests(), now_ms);
        let learned = self.hub.learn(partition, generation, &mut reading.horizon);
        assert_eq!(learned, Learned::Counts);
        self.hub.offer(&reading);
        Arc::new(reading)
    }

    /// A reader that has begun live.
    fn reader(&mut self, topics: &[Topic]) -> Reader {
        let mut reader = self.hub.reader(topics, Waker::noop(), |_| Start::Live);
        self.drive(100_002);
        assert_eq!(reader.open(&mut vec![]), OpenStep::Open);
        reader
    }

    fn stream(&mut self, request: StreamRequest) -> Stream {
        self.stream_kept(request, retention(100_000))
    }

    /// The same of logs that are kept so.
    fn stream_kept(&mut self, request: StreamRequest, kept: Retention) -> Stream {
        let settings = stream_settings(true, kept);
        let mut opener = opener(&self.hub, request, settings);
        loop {
            match opener.step(at(self.now, 0)) {
                Opened::Read(asked) => drop(self.read(&asked, 100_150)),
                Opened::Stream(stream) => return *stream,
                Opened::Wait | Opened::History(..) => panic!("all is known that it needs"),
            }
        }
    }

    fn publish(&mut self, topic: &Topic, many: usize, now_ms: u64) -> Vec<Id> {
        let ledger = &mut self.ledgers[usize::from(topic.partition(2))];
        let frames = publish_to(ledger, topic.as_str(), many, now_ms);
        let ids = frames.iter().map(|(_, frame)| frame.id).collect();
        hear(&mut self.core, frames, self.now);
        ids
    }
}

/// Topic `d` is not logged.
fn without_log_of_d() -> Retention {
    let rule = Rule {
        topics: Pattern::parse("d").unwrap(),
        bounds: None,
    };
    Retention {
        rules: vec![rule],
        ..retention(100)
    }
}

/// A topic of each partition.
fn one_of_each() -> [Topic; 2] {
    [0, 1].map(|partition| {
        let mut names = ('a'..='z').map(|name| named(&name.to_string()));
        names.find(|topic| topic.partition(2) == partition).unwrap()
    })
}

/// One topic is busy, and its window is too short: each step ends behind it. The topics of the other partition were not
/// looked at as long as it stayed so.
#[test]
fn a_partition_that_is_always_behind_keeps_no_other_waiting() {
    for busy_one in [0, 1] {
        let mut two = Two::new();
        let topics = one_of_each();
        let (busy, other) = (&topics[busy_one], &topics[1 - busy_one]);
        let mut reader = two.reader(&topics);
        let waiting = two.publish(other, 1, 100_100)[0];
        let mut seen = Seen(vec![]);
        for round in 0..50 {
            two.publish(busy, 3, 100_200 + round);
            match reader.step(&mut seen) {
                Step::Behind(asked) => {
                    let page = two.read(&asked, 100_200 + round);
                    reader.take_pages(&page);
                }
                step => assert_eq!(step, Step::Idle),
            }
        }
        let shown = seen.0.len();
        assert!(
            seen.0.contains(&waiting.to_string()),
            "{shown} events of the busy topic were shown, and not the one of {other}"
        );
    }
}

/// The same of a socket that is full after each step.
#[test]
fn a_partition_that_always_fills_the_socket_keeps_no_other_waiting() {
    for busy_one in [0, 1] {
        let mut two = Two::new();
        let topics = one_of_each();
        let (busy, other) = (&topics[busy_one], &topics[1 - busy_one]);
        let mut reader = two.reader(&topics);
        let waiting = two.publish(other, 1, 100_100)[0];
        let mut seen = Narrow(vec![], 1);
        for round in 0..50 {
            two.publish(busy, 1, 100_200 + round);
            if let Step::Behind(asked) = reader.step(&mut seen) {
                let page = two.read(&asked, 100_200 + round);
                reader.take_pages(&page);
            }
        }
        assert!(seen.0.contains(&waiting.to_string()), "{:?}", seen.0.len());
    }
}

/// A stream has shown all that was there when it began. One of its partitions is quiet, so that its part of the cursor does
/// not move, and the other is busy: each turn ends behind its window.
#[test]
fn live_is_said_although_one_partition_is_quiet_and_the_other_is_behind() {
    for busy_one in [0, 1] {
        let mut two = Two::new();
        let topics = one_of_each();
        let _there = two.hub.reader(&topics, Waker::noop(), |_| Start::Live);
        two.drive(100_002);
        let heard = |partition: u16| (partition, two.hub.partition(partition).heard());
        let cursor = Cursor::Many([0, 1].map(heard).into());
        // Time passes in both.
        let _last = [0, 1].map(|partition| two.tick(partition, 100_050));
        two.publish(&topics[busy_one], 3, 100_100);
        let request = StreamRequest {
            topics: topics.to_vec(),
            begin: Begin::After(cursor),
            ..StreamRequest::default()
        };
        let mut one = two.stream(request);
        let mut out = Out::default();
        let mut shown = String::new();
        for round in 0..50 {
            if let Turn::Read(asked) = one.turn(at(two.now, 1), &mut out) {
                let page = two.read(&asked, 100_200 + round);
                one.take(&page);
            }
            two.publish(&topics[busy_one], 3, 100_200 + round);
            shown += &text(&mut out);
        }
        let events = shown.matches("data: x").count();
        assert!(
            shown.contains("tidegate.live"),
            "{events} events from above the head were shown, and live was not said"
        );
    }
}

/// A quiet topic beside one that is not logged: what is shown of that has no id. So the client keeps the cursor that it
/// has, until the log has forgotten the place; and is then told of a gap, though it has missed nothing.
#[test]
fn a_cursor_is_refreshed_although_events_without_an_id_are_shown() {
    const AGE: u64 = 60_000;
    let begun = Instant::now();
    let now = begun;
    let mut kept = without_log_of_d();
    kept.bounds.age_ms = AGE;
    let mut l = Ledger::new(kept.clone(), 100_000);
    publish(&mut l, 1, 100_001);
    let (hub, mut core) = replica(100, up(0), now);
    drive(&mut core, &mut l, 100_001, now);
    let topics = vec![named("a"), named("d")];
    let request = StreamRequest {
        topics: topics.clone(),
        ..StreamRequest::default()
    };
    let _there = stream(&hub, &mut core, &mut l, request.clone(), now);
    let mut one = stream_kept(&hub, &mut l, request, now, 100_003, kept.clone());
    let mut out = Out::default();
    let mut shown = String::new();
    for second in (1..4 * AGE / 1000).step_by(5) {
        let (now, now_ms) = (now + Duration::from_secs(second), 100_000 + 1000 * second);
        core.hear(Live::Tick(0, l.tick(now_ms)), now);
        hear(&mut core, publish_to(&mut l, "d", 1, now_ms), now);
        while one.turn(at(begun, second), &mut out) == Turn::More {}
        shown += &text(&mut out);
    }
    assert_eq!(shown.matches("data: x").count() as u64, 4 * AGE / 5000);
    let mut ids = shown.lines().filter_map(|line| line.strip_prefix("id: "));
    let cursor: Cursor = ids.next_back().unwrap().parse().unwrap();
    let request = StreamRequest {
        topics,
        begin: Begin::After(cursor),
        ..StreamRequest::default()
    };
    // It comes back to another replica.
    let now_ms = 100_000 + 4 * AGE;
    let (hub, mut core) = replica(100, up(0), now);
    drive(&mut core, &mut l, now_ms, now);
    let _there = stream(&hub, &mut core, &mut l, request.clone(), now);
    let mut two = stream_kept(&hub, &mut l, request, now, now_ms, kept);
    let seconds = 4 * AGE / 1000;
    for _ in 0..10 {
        if let Turn::Read(asked) = two.turn(at(now, seconds), &mut out) {
            let page = read(&mut l, &hub, &asked, now_ms);
            two.take(&page);
        }
    }
    let shown = text(&mut out);
    assert!(
        !shown.contains("tidegate.gap"),
        "nothing was missed: {shown}"
    );
}

/// A stream is held by a hole that nobody mends. Events that are not logged are shown all the same, more than one turn
/// takes: that took it for one that goes on.
#[test]
fn a_stream_that_is_held_is_cut_although_events_that_are_not_logged_fill_its_turns() {
    let now = Instant::now();
    let mut l = Ledger::new(without_log_of_d(), 100_000);
    let (hub, mut core) = replica(1_000, up(0), now);
    drive(&mut core, &mut l, 100_001, now);
    let request = StreamRequest {
        topics: vec![named("a"), named("b"), named("d")],
        ..StreamRequest::default()
    };
    let mut one = stream(&hub, &mut core, &mut l, request, now);
    let _vanished = publish_to(&mut l, "b", 1, 100_100);
    hear(&mut core, publish_to(&mut l, "b", 1, 100_110), now);
    hear(&mut core, publish_to(&mut l, "a", 1, 100_200), now);
    let whisper = Publication {
        topic: named("d"),
        event_type: EventType::default(),
        data: "x".repeat(100),
        end: false,
        idempotency_key: None,
    };
    let mut out = Out::default();
    for second in 0..=REPAIR.as_secs() + 2 {
        let frames = l.publish(&vec![whisper.clone(); 400], 100_300).unwrap().1;
        hear(&mut core, frames, now);
        loop {
            match one.turn(at(now, second), &mut out) {
                Turn::More => out = Out::default(),
                Turn::Over(ending) => {
                    assert_eq!(ending, Ending::Cut(CloseReason::Held));
                    return;
                }
                Turn::Wait(_) => break,
                Turn::Read(_) => panic!("it is in the window"),
            }
        }
        out = Out::default();
    }
    panic!("it is held for ever");
}

/// A hole of one partition is mended by nobody, and the other is busy, and its window too short: each turn ends behind it.
#[test]
fn a_stream_that_is_held_is_cut_although_another_partition_is_always_behind() {
    for busy_one in [0, 1] {
        let mut two = Two::new();
        let topics = one_of_each();
        let (busy, quiet) = (&topics[busy_one], &topics[1 - busy_one]);
        let mut names = ('a'..='z').map(|name| named(&name.to_string()));
        let beside = names
            .find(|topic| topic != quiet && topic.partition(2) == quiet.partition(2))
            .unwrap();
        let mut all = topics.to_vec();
        all.push(beside.clone());
        let _there = two.reader(&all);
        let request = StreamRequest {
            topics: all,
            ..StreamRequest::default()
        };
        let mut one = two.stream(request);
        let ledger = &mut two.ledgers[1 - busy_one];
        let _vanished = publish_to(ledger, beside.as_str(), 1, 100_160);
        two.publish(&beside, 1, 100_170);
        two.publish(quiet, 1, 100_180);
        let mut out = Out::default();
        let mut ended = None;
        for second in 0..=2 * REPAIR.as_secs() {
            two.publish(busy, 3, 100_200 + second);
            match one.turn(at(two.now, second), &mut out) {
                Turn::Read(asked) => {
                    let page = two.read(&asked, 100_200 + second);
                    one.take(&page);
                }
                Turn::Over(ending) => {
                    ended = Some(ending);
                    break;
                }
                Turn::More | Turn::Wait(_) => {}
            }
        }
        assert!(!text(&mut out).contains(&format!("topic\":\"{quiet}")));
        assert_eq!(ended, Some(Ending::Cut(CloseReason::Held)), "{busy_one}");
    }
}

/// One partition is quiet, and the other is busy, and its window too short: each turn ends behind it. The part of the cursor
/// that is quiet stayed where it was, until the log had forgotten the place.
#[test]
fn a_cursor_is_refreshed_although_another_partition_is_always_behind() {
    const AGE: u64 = 24_000;
    for busy_one in [0, 1] {
        let mut two = Two::new();
        let topics = one_of_each();
        let quiet = u16::from(busy_one == 0);
        let _there = two.reader(&topics);
        let mut kept = retention(100_000);
        kept.bounds.age_ms = AGE;
        let request = StreamRequest {
            topics: topics.to_vec(),
            ..StreamRequest::default()
        };
        let mut one = two.stream_kept(request, kept);
        let mut out = Out::default();
        let mut shown = String::new();
        let mut newest = Id::ZERO;
        for second in 0..2 * AGE / 1000 {
            let now_ms = 100_200 + 1000 * second;
            newest = two.tick(quiet, now_ms);
            two.publish(&topics[busy_one], 3, now_ms);
            if let Turn::Read(asked) = one.turn(at(two.now, second), &mut out) {
                let page = two.read(&asked, now_ms);
                one.take(&page);
            }
            shown += &text(&mut out);
        }
        let mut ids = shown.lines().filter_map(|line| line.strip_prefix("id: "));
        let cursor: Cursor = ids.next_back().unwrap().parse().unwrap();
        let position = cursor.position(quiet).unwrap();
        assert!(
            newest.ms < position.ms + AGE,
            "{busy_one}: at {newest} it has {cursor}"
        );
    }
}

/// A stream that holds a page of one partition needs one of another: it waits for no room, or streams that each hold some
/// would wait for one another.
#[test]
fn whoever_holds_a_page_of_one_partition_waits_for_no_room_for_another() {
    let mut two = Two::new();
    let topics = one_of_each();
    let mut reader = two.reader(&topics);
    for topic in &topics {
        two.publish(topic, 3, 100_100);
    }
    let mut seen = Narrow(vec![], 1);
    let Step::Behind(asked) = reader.step(&mut seen) else {
        panic!("it is behind")
    };
    assert!(matches!(asked, LogRead::Pages(0, _)), "{asked:?}");
    let page = two.read(&asked, 100_101);
    reader.take_pages(&page);
    let mut steps = std::iter::repeat_with(|| reader.step(&mut seen));
    let asked = steps.find(|step| *step != Step::Full);
    assert!(
        matches!(asked, Some(Step::Behind(LogRead::Rest(1, _)))),
        "{asked:?}"
    );
}
