//! The listening socket: a deep backlog, a place for each connection, and what to do when there is
//! no descriptor left.

use super::connection::{Accepted, Connections};
use super::leftover::Leftovers;
use super::socket::Socket;
use super::spare::Spare;
use crate::config::Server;
use crate::http::address::Trust;
use crate::metrics::Metrics;
use crate::stream::sockets::{Gate, Place, Sockets};
use axum::Router;
use socket2::{Domain, Protocol, SockRef, TcpKeepalive, Type};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Pause after an accept failed and nothing could be done about it: the loop must not spin.
const PAUSE: Duration = Duration::from_millis(50);
/// A silent peer is asked for a sign of life after this time.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// A listening socket with everything that its connections need.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    /// The same socket again: what waits there is taken without a word to the runtime.
    backlog: mio::net::TcpListener,
    gate: Arc<Gate>,
    metrics: Arc<Metrics>,
    settings: Server,
    /// Streams over plain HTTP/1.1 leave hyper for these threads.
    sockets: Option<Arc<Sockets>>,
}

impl Listener {
    /// Binds `address`.
    ///
    /// # Errors
    /// A sentence that names the address, for whoever starts the process.
    pub fn bind(
        address: SocketAddr,
        settings: &Server,
        metrics: Arc<Metrics>,
    ) -> Result<Self, String> {
        let socket = listen(address, settings.backlog).map_err(|why| match why.kind() {
            io::ErrorKind::AddrInUse => format!("{address} is in use by another process; choose another address for server.listen or ops.listen"),
            _ => format!("{address} cannot be listened on: {why}"),
        })?;
        Self::over(socket, settings, metrics)
            .map_err(|why| format!("{address} cannot be listened on: {why}"))
    }

    /// Takes a socket that listens already. Its queue is as deep as whoever opened it has said.
    ///
    /// # Errors
    /// If it cannot be waited on.
    pub fn adopt(
        socket: std::net::TcpListener,
        settings: &Server,
        metrics: Arc<Metrics>,
    ) -> Result<Self, String> {
        Self::over(socket, settings, metrics)
            .map_err(|why| format!("a socket that was passed cannot be used: {why}"))
    }

    fn over(
        socket: std::net::TcpListener,
        settings: &Server,
        metrics: Arc<Metrics>,
    ) -> io::Result<Self> {
        prepare(&socket, settings)?;
        socket.set_nonblocking(true)?;
        Ok(Self {
            backlog: mio::net::TcpListener::from_std(socket.try_clone()?),
            socket: TcpListener::from_std(socket)?,
            gate: Gate::new(settings.connections_max, metrics.clone()),
            metrics,
            settings: settings.clone(),
            sockets: None,
        })
    }

    /// Streams over plain HTTP/1.1 leave hyper for these threads.
    #[must_use]
    pub fn with_sockets(mut self, sockets: Option<Arc<Sockets>>) -> Self {
        self.sockets = sockets;
        self
    }

    /// Proxies do not come this way, nor begin its connections with a header: operators do.
    #[must_use]
    pub fn for_operators(mut self) -> Self {
        self.settings.proxy_protocol = false;
        self
    }

    /// The address, with the port that was taken.
    ///
    /// # Errors
    /// If the system does not say.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Serves until `stop`; then connections finish the request they are at. Their tasks belong to
    /// `tracker`.
    pub async fn serve(self, router: Router, stop: CancellationToken, tracker: TaskTracker) {
        let leftovers = Leftovers::new(&self.settings, self.metrics.clone(), tracker.clone());
        let connections = Arc::new(Connections {
            settings: self.settings.clone(),
            sockets: self.sockets.clone(),
            leftovers: Arc::new(leftovers),
            trust: Trust::of(&self.settings),
            metrics: self.metrics.clone(),
            tasks: tracker.clone(),
        });
        let mut spare = Spare::new();
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => return,
                accepted = self.accept() => accepted,
            };
            match accepted {
                Ok((socket, place)) => {
                    let connections = connections.clone();
                    let (router, stop) = (router.clone(), stop.clone());
                    tracker.spawn(
                        async move { connections.serve(socket, router, &stop, place).await },
                    );
                }
                Err(why) => {
                    self.metrics.accept_errors.inc();
                    if !spare.goes_on(&why, &self.backlog) {
                        tokio::time::sleep(PAUSE).await;
                    }
                }
            }
        }
    }

    /// A place first: beyond `server.connections_max`, connections wait in the backlog.
    async fn accept(&self) -> io::Result<(Accepted, Place)> {
        self.gate.admit(self.next()).await
    }

    async fn next(&self) -> io::Result<Accepted> {
        match self.backlog.accept() {
            Ok((socket, peer)) => Ok((Socket::new(socket.into()), peer)),
            Err(why) if why.kind() == io::ErrorKind::WouldBlock => {
                let (socket, peer) = self.socket.accept().await?;
                Ok((socket.into(), peer))
            }
            Err(why) => Err(why),
        }
    }
}

/// What every connection shall have. The listening socket passes it on to those that it accepts
/// ([tcp(7)](https://man7.org/linux/man-pages/man7/tcp.7.html)), so that they need no calls of
/// their own.
fn prepare(socket: &std::net::TcpListener, settings: &Server) -> io::Result<()> {
    let socket = SockRef::from(socket);
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE))?;
    if settings.unsent_bytes_max > 0 {
        // A reader that stops does not fill a buffer that the kernel has made large for it.
        socket.set_tcp_notsent_lowat(settings.unsent_bytes_max)?;
    }
    socket.set_tcp_user_timeout(Some(settings.write_timeout))
}

fn listen(address: SocketAddr, backlog: u32) -> io::Result<std::net::TcpListener> {
    let socket = socket2::Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    // A restarted replica takes its port back although old connections linger.
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))?;
    Ok(socket.into())
}
