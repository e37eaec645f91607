//! Who is woken by what, and who waits on.

use super::counts::{Connections, Counts};
use super::reader::{Reader, Start};
use super::wake_source::WakeSource;
use super::window::WindowBounds;
use super::*;
use std::pin::pin;
use std::sync::atomic::AtomicUsize;
use std::task::{Context, Wake};

/// Counts how often it was woken.
#[derive(Debug, Default)]
struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl Woken {
    /// How often since the last call.
    fn take(&self) -> usize {
        self.0.swap(0, Ordering::Relaxed)
    }
}

fn woken() -> (Arc<Woken>, Waker) {
    let woken = Arc::new(Woken::default());
    (woken.clone(), Waker::from(woken))
}

fn hub(partitions: PartitionNo) -> Arc<Hub> {
    let bounds = WindowBounds {
        events_max: 1,
        bytes_max: 1,
    };
    Hub::new(partitions, bounds)
}

fn read(hub: &Arc<Hub>, name: &str) -> Reader {
    let topic = Topic::parse(name).unwrap();
    hub.reader(&[topic], Waker::noop(), |_| Start::Live)
}

fn tick(ms: u64) -> Tick {
    Tick {
        id: Id::new(ms, 0),
        of: None,
    }
}

#[test]
fn a_task_is_woken_where_it_was_polled_last() {
    let ((before, first), (now, second)) = (woken(), woken());
    let task = Arc::new(TaskWaker::default());
    task.register(&first);
    task.register(&second);
    Waker::from(task.clone()).wake_by_ref();
    assert_eq!((before.take(), now.take()), (0, 1));
    task.register(&first);
    Waker::from(task).wake();
    assert_eq!((before.take(), now.take()), (1, 0));
}

#[test]
fn who_waits_is_woken_at_each_change_until_its_waker_is_removed() {
    let hub = hub(1);
    let _reader = read(&hub, "news");
    let feed = hub.feeds().remove(0);
    for source in [WakeSource::Feed(feed), WakeSource::Counts(hub.clone())] {
        let (woken, waker) = woken();
        let waker_id = source.add_waker(waker);
        hub.wake_all_streams();
        hub.wake_all_streams();
        assert_eq!(woken.take(), 2, "{source:?}");
        source.remove_waker(waker_id);
        hub.wake_all_streams();
        assert_eq!(woken.take(), 0, "{source:?}");
    }
}

#[test]
fn what_is_waited_for_has_an_address_of_its_own() {
    let hub = hub(1);
    let _readers = ["news", "weather"].map(|name| read(&hub, name));
    let feeds = hub.feeds().into_iter().map(WakeSource::Feed);
    let sources: Vec<WakeSource> = feeds.chain([WakeSource::Counts(hub.clone())]).collect();
    let addresses: HashSet<usize> = sources.iter().map(WakeSource::address).collect();
    assert_eq!(addresses.len(), 3);
    let again: HashSet<usize> = sources
        .iter()
        .map(|source| source.clone().address())
        .collect();
    assert_eq!(addresses, again);
}

#[test]
fn a_reader_takes_its_own_wakers_along_and_leaves_those_that_it_shares() {
    let hub = hub(1);
    let _other = read(&hub, "news");
    let feed = hub.feeds().remove(0);
    let ((own, own_waker), (shared, shared_waker)) = (woken(), woken());
    let shared_id = feed.add_waker(shared_waker);
    let topic = [feed.topic().clone()];
    let wakes = || {
        feed.wake_all();
        (own.take(), shared.take())
    };
    let reader = hub.reader(&topic, &own_waker, |_| Start::Live);
    assert_eq!(wakes(), (1, 1));
    drop(reader);
    assert_eq!(wakes(), (0, 1), "it is gone, with its waker");
    let mut reader = hub.reader(&topic, &own_waker, |_| Start::Live);
    reader.share_wakers(|_| shared_id);
    assert_eq!(wakes(), (0, 1), "it waits with the others");
    drop(reader);
    assert_eq!(wakes(), (0, 1), "the others wait still");
}

#[test]
fn a_count_is_shown_the_first_time_and_then_only_if_it_is_another() {
    let counts = Counts::default();
    assert!(!counts.is_watched() && counts.newer_than(0).is_none());
    let (woken, waker) = woken();
    let waker_id = counts.add_waker(waker);
    assert!(counts.is_watched());
    let one = Connections {
        fleet: 1,
        replica: 1,
    };
    let table = [
        (Connections::default(), Some(1)),
        (Connections::default(), None),
        (one, Some(2)),
        (one, None),
    ];
    let mut seen = 0;
    for (count, version) in table {
        counts.set(count);
        let shown = counts.newer_than(seen).map(|(version, _)| version);
        assert_eq!(shown, version, "{count:?}");
        assert_eq!(woken.take(), usize::from(version.is_some()), "{count:?}");
        seen = version.unwrap_or(seen);
    }
    counts.remove_waker(waker_id);
    assert!(!counts.is_watched());
}

#[test]
fn the_follower_is_woken_for_a_topic_that_is_new_and_for_no_other() {
    let hub = hub(1);
    let (woken, waker) = woken();
    let mut looks = Context::from_waker(&waker);
    let mut wanted = pin!(hub.wanted());
    assert!(wanted.as_mut().poll(&mut looks).is_pending());
    let _first = read(&hub, "news");
    assert_eq!(woken.take(), 1);
    assert!(wanted.as_mut().poll(&mut looks).is_ready());
    assert_eq!(hub.take_added().len(), 1);
    let mut wanted = pin!(hub.wanted());
    let _second = read(&hub, "news");
    assert!(wanted.as_mut().poll(&mut looks).is_pending());
    let _third = read(&hub, "weather");
    assert_eq!(woken.take(), 1);
    assert!(wanted.as_mut().poll(&mut looks).is_ready());
}

#[test]
fn who_reads_the_log_waits_until_the_live_path_is_settled() {
    let hub = hub(2);
    let (woken, waker) = woken();
    let mut looks = Context::from_waker(&waker);
    for _ in 0..2 {
        let mut settled = pin!(hub.settled(1));
        assert!(settled.as_mut().poll(&mut looks).is_pending());
        hub.begin_following(&[]);
        assert_eq!(woken.take(), 1);
        assert!(settled.as_mut().poll(&mut looks).is_ready());
        assert!(pin!(hub.settled(1)).poll(&mut looks).is_ready());
        hub.break_off();
    }
}

#[test]
fn who_waits_for_an_id_waits_until_the_clock_has_come_as_far() {
    let hub = hub(1);
    hub.begin_following(&[]);
    let (woken, waker) = woken();
    let mut looks = Context::from_waker(&waker);
    let mut heard = pin!(hub.heard(0, Id::new(5, 0)));
    assert!(heard.as_mut().poll(&mut looks).is_pending());
    for (ms, is_reached) in [(4, false), (5, true)] {
        hub.tick(0, tick(ms));
        assert_eq!(woken.take(), 1, "{ms}");
        assert_eq!(heard.as_mut().poll(&mut looks).is_ready(), is_reached);
    }
    assert!(
        pin!(hub.heard(0, Id::new(4, 0)))
            .poll(&mut looks)
            .is_ready()
    );
}

#[test]
fn a_clock_is_waited_for_until_it_moves() {
    let hub = hub(1);
    hub.begin_following(&[]);
    let (woken, waker) = woken();
    assert!(!hub.partition(0).is_waited_for());
    hub.partition(0).wait_for_clock(waker);
    assert!(hub.partition(0).is_waited_for());
    hub.tick(0, tick(1));
    assert!(!hub.partition(0).is_waited_for());
    hub.tick(0, tick(2));
    assert_eq!(woken.take(), 1, "once for each wait");
}
