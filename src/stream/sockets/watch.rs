//! Whether the threads that write streams go on.
//!
//! One thread looks at the beats of all of them. It says nothing itself, and takes no lock that others hold while they
//! work: whatever holds them up does not hold it up.

use super::beat::{BEAT_EVERY, Beat};
use crate::metrics::Metrics;
use crate::stderr;
use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// The exit code of a process that ended because one of its threads stood (`EX_SOFTWARE` of sysexits.h).
pub const STALLED: u8 = 70;
/// Between two looks. Of more time that has passed since, only twice this counts: the process as a whole did not run.
const LOOK_EVERY: Duration = BEAT_EVERY;
/// For so long the end waits for its reason to be written.
const PATIENCE: Duration = Duration::from_secs(2);

/// How long a thread may make no turn.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Then it counts as standing, and this replica as ill.
    pub stands_after: Duration,
    /// Then the process ends; none to go on.
    pub ends_after: Option<Duration>,
}

/// A thread that has made no turn for too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Its number.
    pub thread: usize,
    /// For how long, as far as it was seen.
    pub time: Duration,
}

impl std::fmt::Display for Standing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (thread, seconds) = (self.thread, self.time.as_secs());
        write!(f, "thread streams-{thread} has not gone on for {seconds} s")
    }
}

/// What was seen of each thread. It does no more than count.
#[derive(Debug, Default)]
struct Looks {
    threads: Vec<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    beat: Option<u64>,
    /// For how long it has been the same.
    stands: Duration,
}

impl Looks {
    /// Takes in the beats of all threads, so long after the last look.
    fn look(&mut self, beats: impl Iterator<Item = Option<u64>>, passed: Duration) {
        let passed = passed.min(LOOK_EVERY * 2);
        for (number, beat) in beats.enumerate() {
            if self.threads.len() == number {
                self.threads.push(Seen::default());
            }
            let Some(seen) = self.threads.get_mut(number) else {
                continue;
            };
            let goes_on = beat.is_none() || seen.beat != beat;
            seen.beat = beat;
            seen.stands = if goes_on {
                Duration::ZERO
            } else {
                seen.stands + passed
            };
        }
    }

    /// Those that have stood for so long.
    fn standing(&self, after: Duration) -> impl Iterator<Item = Standing> {
        let all = self
            .threads
            .iter()
            .enumerate()
            .map(|(thread, seen)| Standing {
                thread,
                time: seen.stands,
            });
        all.filter(move |standing| standing.time >= after)
    }
}

/// What the watch has found; for whoever is asked how this replica is.
#[derive(Debug, Default)]
pub(super) struct Found(Mutex<Option<Standing>>);

impl Found {
    /// The thread that has stood for longest, if one counts as standing.
    pub(super) fn standing(&self) -> Option<Standing> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns what was found before.
    fn set(&self, standing: Option<Standing>) -> Option<Standing> {
        let mut found = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *found, standing)
    }
}

/// Looks at the threads until it is dropped.
#[derive(Debug)]
pub(super) struct Watch {
    pub(super) found: Arc<Found>,
    _until: SyncSender<()>,
}

impl Watch {
    /// Begins to look at these threads.
    ///
    /// # Errors
    /// If the system has no thread left.
    pub(super) fn begin(
        beats: Vec<Arc<Beat>>,
        patience: Patience,
        metrics: Arc<Metrics>,
    ) -> io::Result<Self> {
        let (until, dropped) = sync_channel(0);
        let found = Arc::new(Found::default());
        let told = found.clone();
        std::thread::Builder::new()
            .name("watch".to_owned())
            .spawn(move || watch(&beats, patience, &metrics, &told, &dropped))?;
        Ok(Self {
            found,
            _until: until,
        })
    }
}

fn watch(
    beats: &[Arc<Beat>],
    patience: Patience,
    metrics: &Metrics,
    found: &Found,
    dropped: &Receiver<()>,
) {
    let mut looks = Looks::default();
    let mut looked = Instant::now();
    while dropped.recv_timeout(LOOK_EVERY) == Err(RecvTimeoutError::Timeout) {
        let now = Instant::now();
        looks.look(beats.iter().map(|beat| beat.count()), now - looked);
        looked = now;
        let standing: Vec<Standing> = looks.standing(patience.stands_after).collect();
        let count = i64::try_from(standing.len()).unwrap_or(i64::MAX);
        metrics.threads_standing.set(count);
        let longest = standing.into_iter().max_by_key(|it| it.time);
        let before = found.set(longest);
        if let (Some(standing), Some(most)) = (longest, patience.ends_after)
            && standing.time >= most
        {
            end(standing);
        }
        if before.is_none() != longest.is_none() {
            // Nobody waits for it.
            drop(tell(move || {
                if let Some(standing) = longest {
                    let thread = standing.thread;
                    tracing::error!(thread, "{standing}: its streams are silent");
                } else {
                    tracing::info!("all threads that write streams go on again");
                }
            }));
        }
    }
}

/// Ends the process, with a word about why if that can be said.
fn end(standing: Standing) -> ! {
    let told = tell(move || {
        tracing::error!(thread = standing.thread, "{standing}: the process ends");
        let _is_written = stderr::flush(PATIENCE);
    });
    // Whatever comes of it.
    let _is_said = told.recv_timeout(PATIENCE);
    std::process::exit(STALLED.into())
}

/// Has another thread say something: a lock that the log needs may be what is stuck. What it returns is told when that is
/// done, or cannot be.
fn tell(what: impl FnOnce() + Send + 'static) -> Receiver<()> {
    let (done, told) = sync_channel(1);
    let say = move || {
        what();
        // Whoever waited has gone.
        let _is_told = done.send(());
    };
    // Without a thread it is not said.
    drop(
        std::thread::Builder::new()
            .name("watch-says".to_owned())
            .spawn(say),
    );
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn seconds(looks: &Looks, after: u64) -> Vec<(usize, u64)> {
        let standing = looks.standing(SECOND * u32::try_from(after).unwrap());
        standing.map(|it| (it.thread, it.time.as_secs())).collect()
    }

    #[test]
    fn a_thread_whose_beat_does_not_change_stands_and_others_do_not() {
        let mut looks = Looks::default();
        for number in 0..10 {
            looks.look([Some(7), Some(number), None].into_iter(), SECOND);
        }
        assert_eq!(seconds(&looks, 9), [(0, 9)]);
        assert_eq!(seconds(&looks, 10), []);
        looks.look([Some(8), Some(9), None].into_iter(), SECOND);
        assert_eq!(seconds(&looks, 1), [(1, 1)], "one goes on, the next stands");
        looks.look([None, Some(9), None].into_iter(), SECOND);
        assert_eq!(
            seconds(&looks, 0),
            [(0, 0), (1, 2), (2, 0)],
            "one has ended"
        );
    }

    /// SIGSTOP, a container that is paused, a machine that sleeps: nobody ran, the watch neither.
    #[test]
    fn a_process_that_was_stopped_as_a_whole_has_no_thread_that_stands() {
        let mut looks = Looks::default();
        looks.look([Some(1)].into_iter(), SECOND);
        looks.look([Some(1)].into_iter(), SECOND * 3600);
        assert_eq!(seconds(&looks, 1), [(0, 2)], "two looks");
        looks.look([Some(2)].into_iter(), SECOND);
        assert_eq!(seconds(&looks, 1), []);
    }

    #[test]
    fn a_beat_goes_on_and_ends() {
        let beat = Beat::default();
        let before = beat.count();
        beat.touch();
        assert!(before.is_some() && beat.count().is_some() && beat.count() != before);
        beat.end();
        assert_eq!(beat.count(), None);
        let long = Some(SECOND * 3600);
        let waits = [None, long, Some(Duration::ZERO)].map(Beat::at_most);
        assert_eq!(
            waits,
            [Some(BEAT_EVERY), Some(BEAT_EVERY), Some(Duration::ZERO)]
        );
    }
}
