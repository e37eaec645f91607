//! What carries a request: its task over HTTP/2, the whole connection over HTTP/1.1.
//!
//! hyper asks a body only when there is room for what it says. A client that never makes room keeps the
//! body from noticing that its time is over, and with it the task, the body and its place, for as long
//! as the connection answers. So whoever holds a body can end what carries it: dropped, a task of HTTP/2
//! resets its stream (`CANCEL`), and the others of that connection go on.

use hyper::rt::Executor;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

tokio::task_local! {
    static CARRIER: Carrier;
}

/// What carries the request that is being served.
#[derive(Clone, Debug, Default)]
pub(super) struct Carrier {
    end: CancellationToken,
    /// Its answer is a stream, which has an age of its own.
    is_stream: Arc<AtomicBool>,
}

/// For the handler of a stream: ends what carries it.
pub(in crate::http) fn end_of_carrier() -> Option<CancellationToken> {
    let take = |carrier: &Carrier| {
        carrier.is_stream.store(true, Ordering::Release);
        carrier.end.clone()
    };
    CARRIER.try_with(take).ok()
}

impl Carrier {
    /// Carries a future; none if it was ended from outside. With a time, it is ended after it, unless it
    /// has become a stream.
    pub(super) async fn carry<F: Future>(
        self,
        future: F,
        most: Option<Duration>,
    ) -> Option<F::Output> {
        let (end, is_stream) = (self.end.clone(), self.is_stream.clone());
        let too_long = async {
            match most {
                Some(most) => tokio::time::sleep(most).await,
                None => std::future::pending().await,
            }
            if is_stream.load(Ordering::Acquire) {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            output = CARRIER.scope(self, future) => Some(output),
            () = end.cancelled() => None,
            () = too_long => None,
        }
    }
}

/// The requests of one HTTP/2 connection: a task each.
#[derive(Clone, Debug)]
pub(super) struct RequestTasks {
    tasks: TaskTracker,
    open: Arc<watch::Sender<usize>>,
    /// An answer that is no stream takes no longer.
    answer_time: Duration,
}

impl RequestTasks {
    /// None yet. Their tasks belong to `tasks`.
    pub(super) fn new(tasks: TaskTracker, answer_time: Duration) -> Self {
        Self {
            tasks,
            open: Arc::new(watch::Sender::new(0)),
            answer_time,
        }
    }

    /// Waits until there was none for so long.
    pub(super) async fn idle_for(&self, time: Duration) {
        let mut open = self.open.subscribe();
        loop {
            // The sender lives as long as `self`.
            drop(open.wait_for(|open| *open == 0).await);
            let comes = open.wait_for(|open| *open > 0);
            if tokio::time::timeout(time, comes).await.is_err() {
                return;
            }
        }
    }
}

impl<F> Executor<F> for RequestTasks
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, request: F) {
        let counted = Counted::new(&self.open);
        let answer_time = self.answer_time;
        self.tasks.spawn(async move {
            Carrier::default().carry(request, Some(answer_time)).await;
            drop(counted);
        });
    }
}

/// One of those that are open.
struct Counted(Arc<watch::Sender<usize>>);

impl Counted {
    fn new(open: &Arc<watch::Sender<usize>>) -> Self {
        open.send_modify(|open| *open += 1);
        Self(open.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.send_modify(|open| *open -= 1);
    }
}
