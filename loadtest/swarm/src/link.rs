//! Links between replicas and Redis that can be cut, slowed down, or made to swallow everything.
//!
//! Each replica has a port of its own, so that one can lose Redis while the others keep it.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener as StdListener};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;

/// Ports are taken below those that the kernel hands out by itself.
const PORTS: std::ops::Range<u16> = 20_000..32_000;
/// Bytes carried at once.
const PIECE: usize = 16 * 1024;
/// A slow link carries a tenth of its rate ten times a second.
const SLICE: Duration = Duration::from_millis(100);

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

/// One link for each replica.
#[derive(Debug)]
pub struct Links {
    /// The port of the first; the others follow.
    pub first_port: u16,
    /// The port of Redis, which nobody else has taken.
    pub redis_port: u16,
    states: Vec<watch::Sender<State>>,
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
        let (mut states, mut doors, mut first_port) = (Vec::new(), JoinSet::new(), None);
        for listener in row {
            first_port.get_or_insert(listener.local_addr()?.port());
            listener.set_nonblocking(true)?;
            let (state, watched) = watch::channel(State::Open);
            doors.spawn(serve(TcpListener::from_std(listener)?, redis, watched));
            states.push(state);
        }
        Ok(Self {
            first_port: first_port.ok_or(io::ErrorKind::AddrInUse)?,
            redis_port: redis.port(),
            states,
            _doors: doors,
        })
    }

    /// Changes the link of a replica, by its place.
    pub fn set(&self, replica: usize, state: State) {
        if let Some(link) = self.states.get(replica) {
            link.send_replace(state);
        }
    }
}

fn bind_row(first: u16, count: u16) -> io::Result<Vec<StdListener>> {
    (first..first + count)
        .map(|port| StdListener::bind((Ipv4Addr::LOCALHOST, port)))
        .collect()
}

async fn serve(listener: TcpListener, redis: SocketAddr, state: watch::Receiver<State>) {
    let mut connections = JoinSet::new();
    while let Ok((replica, _)) = listener.accept().await {
        if *state.borrow() != State::Cut {
            connections.spawn(connection(replica, redis, state.clone()));
        }
        while connections.try_join_next().is_some() {}
    }
}

/// Carries one connection until either end closes it, or the link is cut.
async fn connection(mut replica: TcpStream, redis: SocketAddr, mut state: watch::Receiver<State>) {
    let Ok(mut redis) = TcpStream::connect(redis).await else {
        return;
    };
    // A link that cannot do so is a little slower.
    let _slower = replica.set_nodelay(true).and(redis.set_nodelay(true));
    let (from_replica, to_replica) = replica.split();
    let (from_redis, to_redis) = redis.split();
    tokio::select! {
        _ = carry(from_replica, to_redis, state.clone()) => {}
        _ = carry(from_redis, to_replica, state.clone()) => {}
        _ = state.wait_for(|state| *state == State::Cut) => {}
    }
}

async fn carry(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
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
        to.write_all(piece.get(..read).unwrap_or_default()).await?;
        if most < PIECE {
            sleep(SLICE).await;
        }
    }
}
