//! Whole streams, as clients have them: what the other orders open, turn and read.

use super::*;
use tidegate::metrics::Metrics;
use tidegate::stream::open::{Opened, Opener};
use tidegate::stream::out::Out;
use tidegate::stream::request::StreamRequest;
use tidegate::stream::settings::{Drain, Jitter, StreamSettings};
use tidegate::stream::turn::{Now, Stream};
use tidegate::swap::Swap;
use tidegate::time::CoarseInstant;

pub(super) const REPAIR: Duration = Duration::from_secs(30);

pub(super) fn at(begun: Instant, seconds: u64) -> Now {
    Now {
        instant: CoarseInstant::from(begun + Duration::from_secs(seconds)),
        wall: Duration::from_secs(100 + seconds),
    }
}

pub(super) fn stream_settings(open_event: bool, kept: Retention) -> StreamSettings {
    StreamSettings {
        replica: "r".into(),
        heartbeat: Duration::from_secs(15),
        retry: Duration::from_secs(3),
        age_max: Duration::from_secs(1 << 20),
        open_event,
        repair_time: REPAIR,
        retention: Swap::new(kept),
        drain: Arc::new(Drain::new(Duration::from_secs(1))),
        revocations: Arc::default(),
        metrics: Metrics::new(),
    }
}

pub(super) fn opener(
    hub: &Arc<Hub>,
    request: StreamRequest,
    settings: impl Into<Arc<StreamSettings>>,
) -> Opener {
    let jitter = Jitter {
        heartbeat: 0.5,
        age: 0.0,
        retry: 0.5,
        drain_slot: 0.0,
    };
    Opener::new(
        hub.clone(),
        settings.into(),
        request,
        jitter,
        Waker::noop().clone(),
    )
}

/// A stream that is open, without `tidegate.open`.
pub(super) fn stream(
    hub: &Arc<Hub>,
    core: &mut FollowerCore,
    l: &mut Ledger,
    request: StreamRequest,
    now: Instant,
) -> Stream {
    stream_by(
        hub,
        core,
        l,
        request,
        now,
        stream_settings(false, retention(100)),
    )
}

/// The same with these settings.
pub(super) fn stream_by(
    hub: &Arc<Hub>,
    core: &mut FollowerCore,
    l: &mut Ledger,
    request: StreamRequest,
    now: Instant,
    settings: impl Into<Arc<StreamSettings>>,
) -> Stream {
    let mut opener = opener(hub, request, settings);
    for _ in 0..10 {
        match opener.step(at(now, 0)) {
            Opened::Wait => {
                core.hub_wants(now);
                drive(core, l, 100_002, now);
            }
            Opened::Read(asked) => drop(read(l, hub, &asked, 100_003)),
            Opened::History(..) => panic!("it asked for none"),
            Opened::Stream(stream) => return *stream,
        }
    }
    panic!("it does not open")
}

/// A stream of topics that others read here; the follower does nothing meanwhile.
pub(super) fn stream_beside(
    hub: &Arc<Hub>,
    l: &mut Ledger,
    request: StreamRequest,
    now: Instant,
    now_ms: u64,
) -> Stream {
    stream_kept(hub, l, request, now, now_ms, retention(100))
}

/// The same, of a log that is kept so.
pub(super) fn stream_kept(
    hub: &Arc<Hub>,
    l: &mut Ledger,
    request: StreamRequest,
    now: Instant,
    now_ms: u64,
    kept: Retention,
) -> Stream {
    let mut opener = opener(hub, request, stream_settings(true, kept));
    loop {
        match opener.step(at(now, 0)) {
            Opened::Read(asked) => drop(read(l, hub, &asked, now_ms)),
            Opened::Stream(stream) => return *stream,
            Opened::Wait | Opened::History(..) => panic!("all is known that it needs"),
        }
    }
}

/// What was written, which is taken.
pub(super) fn text(out: &mut Out) -> String {
    let pieces = out.pieces.drain(..);
    let bytes: Vec<u8> = pieces.flat_map(|piece| piece.to_vec()).collect();
    String::from_utf8(bytes).unwrap()
}
