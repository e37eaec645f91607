//! What the follower asks for, and when.

use super::*;
use std::future::Future;
use std::pin::pin;
use std::task::Context;
use tidegate::follow::ask::{ConnectionNo, Failed, Note};
use tidegate::follow::core::TICK_PAUSE;

const MOMENT: Duration = Duration::from_millis(1);

/// All that is asked for now; nothing of it is done.
fn asked(core: &mut FollowerCore) -> Vec<Ask> {
    std::iter::from_fn(|| core.next_ask()).collect()
}
/// The connections on which the clock is asked to be said.
fn ticks(core: &mut FollowerCore) -> Vec<ConnectionNo> {
    let tick = |ask: Ask| match ask {
        Ask::Tick(connection, 0) => Some(connection),
        _ => None,
    };
    asked(core).into_iter().filter_map(tick).collect()
}
/// Which connection is to be settled.
fn to_settle(core: &mut FollowerCore) -> ConnectionNo {
    let settle = |ask: &Ask| match ask {
        Ask::Settle { connection, .. } => Some(*connection),
        _ => None,
    };
    asked(core).iter().find_map(settle).unwrap()
}
fn settled(connection: ConnectionNo) -> Answer {
    let told = Vec::new();
    Answer::Settled { connection, told }
}
/// Somebody waits for an id that does not come.
fn wait_for_clock(hub: &Hub) {
    let mut looks = Context::from_waker(Waker::noop());
    let heard = pin!(hub.heard(0, Id::new(u64::MAX, 0)));
    assert!(heard.poll(&mut looks).is_pending());
}

#[test]
fn the_clock_is_asked_for_once_at_a_time_and_after_a_pause() {
    let now = Instant::now();
    let (_l, hub, mut core, _one) = standing(now);
    assert!(ticks(&mut core).is_empty());
    wait_for_clock(&hub);
    core.hub_wants(now);
    let first = ticks(&mut core);
    assert_eq!(first, [core.connection()]);
    core.beat(now + 10 * TICK_PAUSE);
    assert!(ticks(&mut core).is_empty(), "one is under way");
    core.answer(Answer::Ticked(first[0], 0, Err(Failed)), now);
    core.beat(now + TICK_PAUSE.saturating_sub(MOMENT));
    assert!(ticks(&mut core).is_empty(), "it was asked for just now");
    core.beat(now + TICK_PAUSE);
    assert_eq!(ticks(&mut core), first);
}

/// It would be said on a connection on which nobody hears it yet.
#[test]
fn the_clock_is_not_asked_for_until_the_live_path_is_settled() {
    let now = Instant::now();
    let (hub, mut core) = replica(100, up(0), now);
    wait_for_clock(&hub);
    core.hub_wants(now);
    core.beat(now + TICK_PAUSE);
    let connection = to_settle(&mut core);
    core.beat(now + 2 * TICK_PAUSE);
    assert!(ticks(&mut core).is_empty());
    core.answer(settled(connection), now);
    core.beat(now + 3 * TICK_PAUSE);
    assert_eq!(ticks(&mut core), [connection]);
}

#[test]
fn what_was_done_for_a_connection_before_counts_for_nothing() {
    let now = Instant::now();
    let (hub, mut core) = replica(100, up(0), now);
    let before = to_settle(&mut core);
    core.hear(up(0), now);
    let present = to_settle(&mut core);
    assert_ne!(before, present);
    core.answer(settled(before), now);
    assert_eq!(hub.partition(0).settled(), None);
    core.answer(settled(present), now);
    assert!(hub.partition(0).settled().is_some());
}

/// The connection is there and brings nothing: it is made anew, once.
#[test]
fn a_tick_that_does_not_come_back_in_time_has_the_path_begin_anew() {
    let now = Instant::now();
    let deaf_after = settings().deaf_after;
    for comes_back in [false, true] {
        let (mut l, _hub, mut core, _one) = standing(now);
        core.beat(now);
        let connection = ticks(&mut core)[0];
        let tick = l.tick(100_100);
        core.answer(Answer::Ticked(connection, 0, Ok(tick.id)), now);
        core.beat(now + deaf_after);
        if comes_back {
            core.hear(Live::Tick(0, tick), now + deaf_after);
        }
        let is_reset = |ask: &Ask| matches!(ask, Ask::Interest(Interest::Reset));
        assert!(!asked(&mut core).iter().any(is_reset), "it is in time");
        core.notes().for_each(drop);
        core.beat(now + deaf_after + MOMENT);
        core.beat(now + deaf_after + 2 * MOMENT);
        let resets = asked(&mut core).into_iter().filter(is_reset).count();
        assert_eq!(resets, usize::from(!comes_back));
        assert_eq!(core.notes().any(|note| note == Note::Deaf(0)), !comes_back);
    }
}
