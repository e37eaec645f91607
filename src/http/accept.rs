//! The accept loop: listeners with a deep backlog, sockets without delay, heads within a time.
//!
//! `axum::serve` listens with a backlog of 128 and sets no header time-out, so a reconnect storm
//! overflows it and a slow client holds a socket for ever.

use super::takeover::{Desk, Routes, Watched};
use crate::config::Server;
use crate::engine::sockets::{Adopted, Gate, Place, Sockets};
use crate::metrics::Metrics;
use axum::Router;
use axum::extract::Request;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use socket2::{SockRef, TcpKeepalive};
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Pause after an accept failed, mostly for want of descriptors: the loop must not spin.
const REST: Duration = Duration::from_millis(50);
/// The same trouble is said again after this time.
const SAY_AGAIN: Duration = Duration::from_secs(10);
/// A silent peer is asked for a sign of life after this time.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// Between two looks at a first line that comes in pieces.
const PIECES: Duration = Duration::from_millis(5);

/// A listening socket with everything that its connections need.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
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
        socket
            .set_nonblocking(true)
            .and_then(|()| TcpListener::from_std(socket))
            .and_then(|socket| Self::over(socket, settings, metrics))
            .map_err(|why| format!("a socket that was passed cannot be used: {why}"))
    }

    fn over(socket: TcpListener, settings: &Server, metrics: Arc<Metrics>) -> io::Result<Self> {
        prepare(&socket, settings)?;
        Ok(Self {
            socket,
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
                    if !spare.refuse(&self.socket).await {
                        tokio::time::sleep(REST).await;
                    }
                }
            }
        }
    }

    /// A place first: beyond `server.connections_max`, connections wait in the backlog.
    async fn accept(&self) -> io::Result<(Accepted, Place)> {
        self.gate.admit(self.socket.accept()).await
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
    async fn refuse(&mut self, listener: &TcpListener) -> bool {
        if self.file.take().is_none() {
            *self = Self {
                said: self.said,
                ..Self::new()
            };
            return false;
        }
        // It stands in the backlog still; if it has gone meanwhile, there is nobody to wait for.
        let refused = poll_fn(|cx| Poll::Ready(listener.poll_accept(cx))).await;
        let done = matches!(refused, Poll::Ready(Ok(_)));
        drop(refused);
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
fn prepare(socket: &TcpListener, settings: &Server) -> io::Result<()> {
    let socket = SockRef::from(socket);
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE))?;
    socket.set_tcp_user_timeout(Some(settings.write_timeout))
}

impl Connections {
    async fn serve(
        &self,
        (socket, peer): Accepted,
        router: Router,
        stop: &CancellationToken,
        place: Place,
    ) {
        let peer = Peer(peer);
        let began = tokio::time::timeout(self.settings.header_timeout, speaks_http2(&socket));
        match began.await {
            Ok(Ok(true)) => {
                self.serve_http2(socket, peer, router, stop).await;
                drop(place);
            }
            Ok(Ok(false)) => self.serve_http1(socket, peer, router, stop, place).await,
            Ok(Err(why)) => tracing::debug!(%why, "connection ended"),
            Err(_) => tracing::debug!("a connection said nothing in time"),
        }
    }

    async fn serve_http2(
        &self,
        socket: TcpStream,
        peer: Peer,
        router: Router,
        stop: &CancellationToken,
    ) {
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder
            .timer(TokioTimer::new())
            .max_send_buf_size(self.settings.buffer_bytes)
            .max_concurrent_streams(250);
        let service = Told(TowerToHyperService::new(router), peer);
        let connection = builder.serve_connection(TokioIo::new(socket), service);
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
        socket: TcpStream,
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
        let desk = Desk::default();
        let watched = Watched::new(socket, desk.clone());
        let routes = Routes::new(router, desk.clone(), self.sockets.is_some());
        let mut connection = builder.serve_connection(watched, Told(routes, peer));
        let mut stopping = std::pin::pin!(stop.cancelled());
        let mut stopped = false;
        let left = poll_fn(|cx| {
            loop {
                if let Poll::Ready(ended) = Pin::new(&mut connection).poll(cx) {
                    return Poll::Ready(Err(ended));
                }
                if let Some(ticket) = desk.take() {
                    return Poll::Ready(Ok(ticket));
                }
                // Only now: a request that is there already is read first, and answered.
                if stopped || stopping.as_mut().poll(cx).is_pending() {
                    return Poll::Pending;
                }
                stopped = true;
                Pin::new(&mut connection).graceful_shutdown();
            }
        });
        let ticket = match left.await {
            Ok(ticket) => ticket,
            Err(Ok(())) => return,
            Err(Err(why)) => return tracing::debug!(%why, "connection ended"),
        };
        // What the peer has sent after the head is nothing to a stream.
        let socket = connection.into_parts().io.into_socket();
        match (socket.into_std(), &self.sockets) {
            (Ok(socket), Some(sockets)) => sockets.adopt(Adopted {
                socket,
                place,
                ticket,
            }),
            (Err(why), _) => tracing::warn!(%why, "a connection cannot be taken over"),
            (Ok(_), None) => {}
        }
    }
}

/// A connection, and the address of its other end.
type Accepted = (TcpStream, SocketAddr);

/// The other end of a connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer(pub(super) SocketAddr);

/// A service whose requests are told who is at the other end.
#[derive(Clone, Debug)]
struct Told<S>(S, Peer);

impl<S: hyper::service::Service<Request<Incoming>>> hyper::service::Service<Request<Incoming>>
    for Told<S>
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        request.extensions_mut().insert(self.1);
        self.0.call(request)
    }
}

/// Whether the connection begins as HTTP/2 does, with prior knowledge
/// ([RFC 9113, section 3.4](https://www.rfc-editor.org/rfc/rfc9113#section-3.4)). Nothing is read.
async fn speaks_http2(socket: &TcpStream) -> io::Result<bool> {
    const PREFACE: &[u8] = b"PRI * HTTP/2.0";
    let mut begin = [0; PREFACE.len()];
    loop {
        let seen = socket.peek(&mut begin).await?;
        let (seen, known) = (begin.get(..seen), PREFACE.get(..seen));
        if seen != known {
            return Ok(false);
        }
        match seen {
            None | Some([]) => return Ok(false),
            Some(all) if all.len() == PREFACE.len() => return Ok(true),
            // It comes in pieces; what was seen stays, so there is nothing to wait for but time.
            Some(_) => tokio::time::sleep(PIECES).await,
        }
    }
}

fn listen(address: SocketAddr, backlog: u32) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    // A restarted replica takes its port back although old connections linger.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(backlog)
}
