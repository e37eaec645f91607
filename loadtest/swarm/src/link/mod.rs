//! Links between replicas and Redis that can be cut, slowed down, or made to swallow everything; and on which the
//! replies to chosen commands come late, or never.
//!
//! Each replica has a port of its own, so that one can lose Redis while the others keep it. A connection keeps one
//! piece each way and what is due for `UNDER_WAY_MAX` commands; beyond that it reads no more.

mod replies;
mod resp;

pub use replies::{Mishap, Rule, Which};

use replies::{Commands, Due, Replies, Rules, Stretch};
use resp::Garbled;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener as StdListener};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

/// Ports are taken below those that the kernel hands out by itself.
const PORTS: std::ops::Range<u16> = 20_000..32_000;
/// Bytes carried at once.
const PIECE: usize = 16 * 1024;
/// A slow link carries a tenth of its rate ten times a second.
const SLICE: Duration = Duration::from_millis(100);
/// Commands of one connection that are not answered yet.
const UNDER_WAY_MAX: usize = 4096;

/// What a link does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Carries everything.
    Open,
    /// Connections are closed, and new ones too.
    Cut,
    /// Connections stand and carry nothing, as when packets are dropped. What was sent comes late.
    Silent,
    /// Carries so many bytes a second each way.
    Slow(usize),
}

/// The link of one replica. Copies are the same one.
#[derive(Clone, Debug)]
struct Link {
    state: watch::Sender<State>,
    rules: Arc<Mutex<Rules>>,
    /// Connections on which something came that is no RESP, or that nobody asked for; they were closed.
    garbled: Arc<AtomicUsize>,
}

impl Link {
    fn rules(&self) -> MutexGuard<'_, Rules> {
        self.rules.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One link for each replica.
#[derive(Debug)]
pub struct Links {
    /// The port of the first; the others follow.
    pub first_port: u16,
    /// The port of Redis, which nobody else has taken.
    pub redis_port: u16,
    each: Vec<Link>,
    /// Ends the links when it is dropped.
    _doors: JoinSet<()>,
}

impl Links {
    /// Opens links for `count` replicas to a Redis that is yet to be started.
    ///
    /// # Errors
    /// No ports are free.
    pub fn open(count: u16) -> io::Result<Self> {
        let row = || bind_row(rand::random_range(PORTS), count + 1);
        let mut row = (0..100)
            .find_map(|_| row().ok())
            .ok_or(io::ErrorKind::AddrInUse)?;
        let redis = row.pop().ok_or(io::ErrorKind::AddrInUse)?.local_addr()?;
        let (mut links, mut doors, mut first_port) = (Vec::new(), JoinSet::new(), None);
        for listener in row {
            first_port.get_or_insert(listener.local_addr()?.port());
            listener.set_nonblocking(true)?;
            let link = Link {
                state: watch::Sender::new(State::Open),
                rules: Arc::default(),
                garbled: Arc::default(),
            };
            doors.spawn(serve(TcpListener::from_std(listener)?, redis, link.clone()));
            links.push(link);
        }
        Ok(Self {
            first_port: first_port.ok_or(io::ErrorKind::AddrInUse)?,
            redis_port: redis.port(),
            each: links,
            _doors: doors,
        })
    }

    /// Changes the link of a replica, by its place.
    pub fn set(&self, replica: usize, state: State) {
        if let Some(link) = self.each.get(replica) {
            link.state.send_replace(state);
        }
    }

    /// Has replies to a replica, by its place, go by other rules; says how often each of those until now was followed.
    #[must_use]
    pub fn replace_rules(&self, replica: usize, rules: &[Rule]) -> Vec<(Rule, u32)> {
        let replace = |link: &Link| std::mem::replace(&mut *link.rules(), Rules::new(rules));
        let before = self.each.get(replica).map(replace).unwrap_or_default();
        before.met().collect()
    }

    /// Connections of all replicas that were closed because what they carried was not understood.
    #[must_use]
    pub fn garbled(&self) -> usize {
        let garbled = |link: &Link| link.garbled.load(Ordering::Relaxed);
        self.each.iter().map(garbled).sum()
    }
}

fn bind_row(first: u16, count: u16) -> io::Result<Vec<StdListener>> {
    (first..first + count)
        .map(|port| StdListener::bind((Ipv4Addr::LOCALHOST, port)))
        .collect()
}

async fn serve(listener: TcpListener, redis: SocketAddr, link: Link) {
    let mut connections = JoinSet::new();
    while let Ok((replica, _)) = listener.accept().await {
        if *link.state.borrow() != State::Cut {
            connections.spawn(connection(replica, redis, link.clone()));
        }
        while connections.try_join_next().is_some() {}
    }
}

/// Carries one connection until either end closes it, or the link is cut.
async fn connection(mut replica: TcpStream, redis: SocketAddr, link: Link) {
    let Ok(mut redis) = TcpStream::connect(redis).await else {
        return;
    };
    // A link that cannot do so is a little slower.
    let _slower = replica.set_nodelay(true).and(redis.set_nodelay(true));
    let (from_replica, to_replica) = replica.split();
    let (from_redis, to_redis) = redis.split();
    let (due, is_due) = mpsc::channel(UNDER_WAY_MAX);
    let asking = Asking {
        to: to_redis,
        commands: Commands::default(),
        link: &link,
        due,
    };
    let answering = Answering {
        to: to_replica,
        replies: Replies::default(),
        due: is_due,
        is_last: false,
        is_over: false,
    };
    let mut state = link.state.subscribe();
    let ended = tokio::select! {
        ended = carry(from_replica, asking, link.state.subscribe()) => ended,
        ended = carry(from_redis, answering, link.state.subscribe()) => ended,
        _ = state.wait_for(|state| *state == State::Cut) => Ok(()),
    };
    let is_garbled = |why: io::Error| why.kind() == io::ErrorKind::InvalidData;
    if ended.is_err_and(is_garbled) {
        link.garbled.fetch_add(1, Ordering::Relaxed);
    }
}

async fn carry(
    mut from: impl AsyncRead + Unpin,
    mut to: impl Pass,
    mut state: watch::Receiver<State>,
) -> io::Result<()> {
    let mut piece = vec![0; PIECE];
    loop {
        let now = *state.borrow_and_update();
        let most = match now {
            State::Open | State::Cut => PIECE,
            State::Slow(rate) => (rate / 10).clamp(1, PIECE),
            State::Silent => {
                state
                    .changed()
                    .await
                    .map_err(|_| io::ErrorKind::BrokenPipe)?;
                continue;
            }
        };
        let room = piece.get_mut(..most).unwrap_or_default();
        let read = tokio::select! {
            read = from.read(room) => read?,
            changed = state.changed() => match changed {
                Ok(()) => continue,
                Err(_) => return Ok(()),
            },
        };
        if read == 0 {
            return Ok(());
        }
        to.pass(piece.get(..read).unwrap_or_default()).await?;
        if most < PIECE {
            sleep(SLICE).await;
        }
    }
}

/// One direction of a connection.
trait Pass {
    /// Passes a piece on.
    async fn pass(&mut self, piece: &[u8]) -> io::Result<()>;
}

/// From the replica to Redis.
struct Asking<'a, To> {
    to: To,
    commands: Commands,
    link: &'a Link,
    due: mpsc::Sender<Due>,
}

impl<To: AsyncWrite + Unpin> Pass for Asking<'_, To> {
    async fn pass(&mut self, piece: &[u8]) -> io::Result<()> {
        let all = self
            .commands
            .read(piece, &mut self.link.rules(), Instant::now());
        for due in all.map_err(garbled)? {
            // Before the command itself: its reply must find it there.
            let sent = self.due.send(due).await;
            sent.map_err(|_| io::ErrorKind::BrokenPipe)?;
        }
        self.to.write_all(piece).await
    }
}

/// From Redis to the replica.
struct Answering<To> {
    to: To,
    replies: Replies,
    due: mpsc::Receiver<Due>,
    /// Nothing is passed on after the reply that is passing.
    is_last: bool,
    /// Nothing more is passed on.
    is_over: bool,
}

impl<To: AsyncWrite + Unpin> Pass for Answering<To> {
    async fn pass(&mut self, piece: &[u8]) -> io::Result<()> {
        // What can go on at once goes in one piece.
        let (mut begin, mut end) = (0, 0);
        while let Some(rest) = piece.get(end..).filter(|rest| !rest.is_empty()) {
            let stretch = self.replies.read(rest, || self.due.try_recv().ok());
            let Stretch { bytes, due } = stretch.map_err(garbled)?;
            if !matches!(due, Due::Reply | Due::Untold) {
                self.write(piece.get(begin..end).unwrap_or_default())
                    .await?;
                begin = end;
            }
            match due {
                Due::Reply | Due::Untold => {}
                Due::Last => self.is_last = true,
                Due::At(when) => sleep_until(when).await,
                Due::Never { close: false } => self.is_over = true,
                Due::Never { close: true } => return Err(io::ErrorKind::ConnectionReset.into()),
            }
            end += bytes;
            if self.is_last && self.replies.is_between() {
                self.write(piece.get(begin..end).unwrap_or_default())
                    .await?;
                (begin, self.is_over) = (end, true);
            }
        }
        self.write(piece.get(begin..).unwrap_or_default()).await
    }
}

impl<To: AsyncWrite + Unpin> Answering<To> {
    async fn write(&mut self, stretch: &[u8]) -> io::Result<()> {
        if self.is_over {
            return Ok(());
        }
        self.to.write_all(stretch).await
    }
}

fn garbled(_: Garbled) -> io::Error {
    io::ErrorKind::InvalidData.into()
}

#[cfg(test)]
mod tests;
