//! The accept loop: listeners with a deep backlog, sockets without delay, heads within a time.
//!
//! `axum::serve` listens with a backlog of 128 and sets no header time-out, so a reconnect storm
//! overflows it and a slow client holds a socket for ever.

pub(super) mod handoff;
mod socket;

use crate::config::Server;
use crate::metrics::Metrics;
use crate::stream::sockets::{Gate, HandedOff, Place, Sockets};
use axum::Router;
use axum::extract::Request;
use handoff::{Flushed, HandoffSlot, Routes};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use hyper_util::service::TowerToHyperService;
use socket::{Begins, Socket};
use socket2::{Domain, Protocol, SockRef, TcpKeepalive, Type};
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Pause after an accept failed, mostly for want of descriptors: the loop must not spin.
const REST: Duration = Duration::from_millis(50);
/// The same trouble is said again after this time.
const SAY_AGAIN: Duration = Duration::from_secs(10);
/// A silent peer is asked for a sign of life after this time.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// A listening socket with everything that its connections need.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    /// The same socket again: what waits there is taken without a word to the runtime.
    backlog: mio::net::TcpListener,
    gate: Arc<Gate>,
    connections: Connections,
}

/// What connections need; it does not keep the listening socket open.
#[derive(Clone, Debug)]
struct Connections {
    settings: Server,
    metrics: Arc<Metrics>,
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
            io::ErrorKind::AddrInUse => format!("{address} is in use by another process; server.listen or ops.listen takes another one"),
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
            connections: Connections {
                settings: settings.clone(),
                metrics,
                sockets: None,
            },
        })
    }

    /// Streams over plain HTTP/1.1 leave hyper for these threads.
    #[must_use]
    pub fn with_sockets(mut self, sockets: Option<Arc<Sockets>>) -> Self {
        self.connections.sockets = sockets;
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
        let metrics = &self.connections.metrics;
        let mut spare = Spare::new();
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => return,
                accepted = self.accept() => accepted,
            };
            match accepted {
                Ok((socket, place)) => {
                    let connections = self.connections.clone();
                    let (router, stop) = (router.clone(), stop.clone());
                    tracker.spawn(
                        async move { connections.serve(socket, router, &stop, place).await },
                    );
                }
                Err(why) => {
                    metrics.accept_errors.inc();
                    spare.say(&why);
                    if !spare.refuse(&self.backlog) {
                        tokio::time::sleep(REST).await;
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

/// A descriptor held back for the time when there is none: with it a connection is accepted only to
/// be closed. Its client hears at once, where it would wait in the backlog; a proxy tries the next
/// replica, an `EventSource` comes back.
struct Spare {
    file: Option<std::fs::File>,
    said: Option<Instant>,
}

impl Spare {
    fn new() -> Self {
        Self {
            file: std::fs::File::open("/dev/null").ok(),
            said: None,
        }
    }

    /// Closes the connection that could not be accepted. False if nothing could be done.
    fn refuse(&mut self, backlog: &mio::net::TcpListener) -> bool {
        if self.file.take().is_none() {
            *self = Self {
                said: self.said,
                ..Self::new()
            };
            return false;
        }
        // It stands in the backlog still; if it has gone meanwhile, there is nobody to wait for.
        let done = backlog.accept().is_ok();
        self.file = std::fs::File::open("/dev/null").ok();
        done
    }

    /// One line for many.
    fn say(&mut self, why: &io::Error) {
        let now = Instant::now();
        if self.said.is_none_or(|said| now >= said + SAY_AGAIN) {
            self.said = Some(now);
            tracing::warn!(%why, "a connection cannot be accepted");
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
    socket.set_tcp_user_timeout(Some(settings.write_timeout))
}

impl Connections {
    async fn serve(
        &self,
        (mut socket, peer): Accepted,
        router: Router,
        stop: &CancellationToken,
        place: Place,
    ) {
        let peer = Peer(peer);
        let began = tokio::time::timeout(self.settings.header_timeout, socket.begin());
        match began.await {
            Ok(Ok(Begins::Http1)) => self.serve_http1(socket, peer, router, stop, place).await,
            Ok(Ok(Begins::Http2)) => {
                // Large, and rare.
                Box::pin(self.serve_http2(socket, peer, router, stop)).await;
                drop(place);
            }
            Ok(Ok(Begins::Ended)) => {}
            Ok(Err(why)) => tracing::debug!(%why, "connection ended"),
            Err(_) => tracing::debug!("a connection said nothing in time"),
        }
    }

    async fn serve_http2(
        &self,
        socket: Socket,
        peer: Peer,
        router: Router,
        stop: &CancellationToken,
    ) {
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder
            .timer(TokioTimer::new())
            .max_send_buf_size(self.settings.buffer_bytes)
            .max_concurrent_streams(250);
        let service = WithPeer(TowerToHyperService::new(router), peer);
        let connection = builder.serve_connection(socket, service);
        let mut connection = std::pin::pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = stop.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(why) = ended {
            tracing::debug!(%why, "connection ended");
        }
    }

    /// Serves requests; a stream leaves with its connection.
    async fn serve_http1(
        &self,
        socket: Socket,
        peer: Peer,
        router: Router,
        stop: &CancellationToken,
        place: Place,
    ) {
        let mut builder = http1::Builder::new();
        builder
            .timer(TokioTimer::new())
            .header_read_timeout(self.settings.header_timeout)
            .max_buf_size(self.settings.buffer_bytes);
        let slot = HandoffSlot::default();
        let socket = Flushed::new(socket, slot.clone());
        let routes = Routes::new(router, slot.clone(), self.sockets.is_some());
        let mut connection = builder.serve_connection(socket, WithPeer(routes, peer));
        let mut stopping = std::pin::pin!(stop.cancelled());
        let mut stopped = false;
        let left = poll_fn(|cx| {
            loop {
                if let Poll::Ready(ended) = Pin::new(&mut connection).poll(cx) {
                    return Poll::Ready(Err(ended));
                }
                if let Some(handoff) = slot.take() {
                    return Poll::Ready(Ok(handoff));
                }
                // Only now: a request that is there already is read first, and answered.
                if stopped || stopping.as_mut().poll(cx).is_pending() {
                    return Poll::Pending;
                }
                stopped = true;
                Pin::new(&mut connection).graceful_shutdown();
            }
        });
        let handoff = match left.await {
            Ok(handoff) => handoff,
            Err(Ok(())) => return,
            Err(Err(why)) => return tracing::debug!(%why, "connection ended"),
        };
        // What the peer has sent after the head is nothing to a stream.
        let socket = connection.into_parts().io.into_socket();
        match (socket.into_std(), &self.sockets) {
            (Ok(socket), Some(sockets)) => sockets.adopt(HandedOff {
                socket,
                place,
                handoff,
            }),
            (Err(why), _) => tracing::warn!(%why, "a connection cannot be taken over"),
            (Ok(_), None) => {}
        }
    }
}

/// A connection, and the address of its other end.
type Accepted = (Socket, SocketAddr);

/// The other end of a connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer(pub(super) SocketAddr);

/// A service whose requests are told who is at the other end.
#[derive(Clone, Debug)]
struct WithPeer<S>(S, Peer);

impl<S: hyper::service::Service<Request<Incoming>>> hyper::service::Service<Request<Incoming>>
    for WithPeer<S>
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        request.extensions_mut().insert(self.1);
        self.0.call(request)
    }
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
