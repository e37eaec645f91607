//! What whoever started this process (systemd, or anything that speaks its protocols) may hand
//! over and wants to be told: sockets that listen already, readiness, signs of life, the stop.
//!
//! Without such a supervisor all of it is silent.

use listenfd::ListenFd;
use sd_notify::NotifyState;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How often the status line is said anew, if it has changed.
const STATUS_EVERY: Duration = Duration::from_secs(1);

/// Sockets that were opened before this process, and stay open after it: while no process accepts,
/// connections wait in their queue and are not refused.
#[derive(Debug)]
pub(crate) struct Inherited(Vec<(SocketAddr, TcpListener)>);

impl Inherited {
    /// What was passed by `LISTEN_FDS`; mostly nothing.
    ///
    /// # Errors
    /// If something else than listening TCP sockets was passed.
    pub(crate) fn take() -> Result<Self, String> {
        let mut passed = ListenFd::from_env();
        let mut sockets = Vec::new();
        for index in 0..passed.len() {
            let socket = passed.take_tcp_listener(index);
            let socket = socket.map_err(|why| format!("a socket of LISTEN_FDS: {why}"))?;
            if let Some(socket) = socket {
                let address = socket.local_addr().map_err(|why| why.to_string())?;
                sockets.push((address, socket));
            }
        }
        Ok(Self(sockets))
    }

    /// The socket of this address. By address and not by order or name, so that what was judged
    /// in the configuration (who may publish where) holds for the socket that is really used.
    pub(crate) fn claim(&mut self, address: SocketAddr) -> Option<TcpListener> {
        let at = self.0.iter().position(|(known, _)| *known == address)?;
        Some(self.0.swap_remove(at).1)
    }

    /// All were claimed.
    ///
    /// # Errors
    /// A sentence that names one that was not: connections to it would wait for ever.
    pub(crate) fn nothing_left(&self) -> Result<(), String> {
        match self.0.first() {
            None => Ok(()),
            Some((address, _)) => Err(format!(
                "the socket {address} was passed to this process, but it is neither server.listen nor ops.listen"
            )),
        }
    }
}

/// What the replica looks like from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct State {
    pub(crate) ready: bool,
    pub(crate) draining: bool,
    /// A thread that writes streams does not go on.
    pub(crate) stands: bool,
    pub(crate) streams: usize,
}

impl State {
    fn status(self) -> String {
        match self {
            Self { stands: true, .. } => "a thread that writes streams does not go on".to_owned(),
            Self {
                draining: true,
                streams,
                ..
            } => format!("draining, {streams} streams left"),
            Self { ready: false, .. } => "waiting for Redis".to_owned(),
            Self { streams, .. } => format!("{streams} streams"),
        }
    }
}

/// Tells the supervisor how things stand, until the process ends: once that the replica is ready,
/// once that it stops, signs of life if they are asked for, and a line for `systemctl status`.
///
/// The signs come from a task of the runtime like all others, so that a runtime that is stuck gives
/// none; and there are none while a thread that writes streams stands. They do not depend on Redis. At `end` it is told
/// once more: a process without streams stops sooner than the next sign.
pub(crate) async fn tell(state: impl Fn() -> State, end: CancellationToken) {
    let watchdog = sd_notify::watchdog_enabled();
    let every = watchdog.map_or(STATUS_EVERY, |limit| STATUS_EVERY.min(limit / 3));
    let mut pause = tokio::time::interval(every);
    let mut told = None;
    let mut is_ready = false;
    let mut is_stopping = false;
    while !end.is_cancelled() {
        tokio::select! {
            _ = pause.tick() => {}
            () = end.cancelled() => {}
        }
        let now = state();
        let mut news = Vec::new();
        if now.ready && !is_ready {
            is_ready = true;
            news.push(NotifyState::Ready);
        }
        if now.draining && !is_stopping {
            is_stopping = true;
            news.push(NotifyState::Stopping);
        }
        let status = now.status();
        if told.replace(now) != Some(now) {
            news.push(NotifyState::Status(&status));
        }
        if watchdog.is_some() && !now.stands {
            news.push(NotifyState::Watchdog);
        }
        if news.is_empty() {
            continue;
        }
        if let Err(why) = sd_notify::notify(&news) {
            tracing::warn!(%why, "the supervisor cannot be told how things stand");
            return;
        }
    }
}

/// Whether this process was started by somebody who wants to be told.
pub(crate) fn is_there() -> bool {
    std::env::var_os("NOTIFY_SOCKET").is_some()
}
