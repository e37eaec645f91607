//! One connection: what it speaks, its requests, and how it leaves with a stream.

use super::carrier::{Carrier, RequestTasks};
use super::flood::Unflooded;
use super::handoff::{Flushed, HandoffSlot, Routes};
use super::leftover::{Leftovers, Unread, Watched};
use super::proxy_protocol::Header;
use super::socket::{Begins, Socket};
use crate::config::Server;
use crate::http::address::Trust;
use crate::metrics::{Metrics, ProxyRefusal};
use crate::stream::sockets::{HandedOff, Place, Sockets};
use axum::Router;
use axum::extract::Request;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper_util::rt::TokioTimer;
use hyper_util::service::TowerToHyperService;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Streams of HTTP/2 at the same time on one connection: as many as its RFC wants at least.
const HTTP2_STREAMS_MAX: u32 = 100;
/// What may come over one stream of HTTP/2, and over one connection, before its handler has read it.
const HTTP2_STREAM_WINDOW: u32 = 64 * 1024;
const HTTP2_CONNECTION_WINDOW: u32 = 256 * 1024;
/// Time for a peer to confirm that its connection closes, once there is no request on it.
const HTTP2_CLOSE: Duration = Duration::from_secs(1);
/// Streams that we have reset and that the peer may not have heard of yet.
const HTTP2_RESETS_MAX: usize = 64;

/// What all connections of a listener need; it does not keep the listening socket open.
#[derive(Debug)]
pub(super) struct Connections {
    pub(super) settings: Server,
    /// The threads that own the sockets of streams, if there are any.
    pub(super) sockets: Option<Arc<Sockets>>,
    /// Whose the tasks of connections and requests are.
    pub(super) tasks: TaskTracker,
    pub(super) leftovers: Arc<Leftovers>,
    /// Whose word about clients is believed.
    pub(super) trust: Trust,
    pub(super) metrics: Arc<Metrics>,
}

impl Connections {
    /// Serves one connection to its end, or until a stream leaves with it.
    pub(super) async fn serve(
        &self,
        (mut socket, peer): Accepted,
        router: Router,
        stop: &CancellationToken,
        place: Place,
    ) {
        let began = async {
            let peer = self.introduce(&mut socket, peer).await?;
            Ok::<_, io::Error>((socket.begin().await?, peer))
        };
        let began = tokio::time::timeout(self.settings.header_timeout, began).await;
        match began {
            Ok(Ok((Begins::Http1, peer))) => {
                self.serve_http1(socket, peer, router, stop, place).await;
            }
            Ok(Ok((Begins::Http2, peer))) => {
                // Large, and rare.
                Box::pin(self.serve_http2(socket, peer, router, stop)).await;
                drop(place);
            }
            Ok(Ok((Begins::Ended, _))) => {}
            Ok(Err(why)) => tracing::debug!(%why, "connection ended"),
            Err(_) => tracing::debug!("a connection said nothing in time"),
        }
    }

    /// Who is at the other end: where a proxy begins each connection with a header, what that says.
    async fn introduce(&self, socket: &mut Socket, peer: SocketAddr) -> io::Result<Peer> {
        let itself = Peer {
            address: peer,
            is_told: false,
        };
        if !self.settings.proxy_protocol {
            return Ok(itself);
        }
        if !self.trust.is_proxy(peer.ip()) {
            return Err(self.refuse(ProxyRefusal::Untrusted));
        }
        match socket.proxy_header().await? {
            Header::Whole(_, None) => Ok(itself),
            Header::Whole(_, Some(address)) => Ok(Peer {
                address,
                is_told: true,
            }),
            Header::Partial | Header::Malformed => Err(self.refuse(ProxyRefusal::Malformed)),
        }
    }

    fn refuse(&self, reason: ProxyRefusal) -> io::Error {
        self.metrics.proxy_refused(reason);
        let what = match reason {
            ProxyRefusal::Untrusted => "not from a trusted proxy",
            ProxyRefusal::Malformed => "no header of the PROXY protocol",
        };
        io::Error::new(io::ErrorKind::InvalidData, what)
    }

    fn requests<S>(&self, service: S, peer: Peer, unread: Option<Arc<Unread>>) -> Requests<S> {
        Requests {
            service,
            peer,
            trust: self.trust.clone(),
            leftovers: self.leftovers.clone(),
            unread,
        }
    }

    async fn serve_http2(
        &self,
        socket: Socket,
        peer: Peer,
        router: Router,
        stop: &CancellationToken,
    ) {
        let settings = &self.settings;
        let answer_time = settings.body_timeout + settings.write_timeout;
        let requests = RequestTasks::new(self.tasks.clone(), answer_time);
        // A peer that is dead is found in the time in which one of HTTP/1.1 is.
        let half = settings.write_timeout / 2;
        let mut builder = http2::Builder::new(requests.clone());
        builder
            .timer(TokioTimer::new())
            .max_send_buf_size(settings.buffer_bytes)
            .max_header_list_size(u32::try_from(settings.buffer_bytes).unwrap_or(u32::MAX))
            .max_concurrent_streams(HTTP2_STREAMS_MAX)
            .initial_stream_window_size(HTTP2_STREAM_WINDOW)
            .initial_connection_window_size(HTTP2_CONNECTION_WINDOW)
            .max_local_error_reset_streams(HTTP2_RESETS_MAX)
            .keep_alive_interval(half)
            .keep_alive_timeout(half);
        let service = self.requests(TowerToHyperService::new(router), peer, None);
        let control_frames = settings.http2_control_frames_max;
        let socket = Unflooded::new(socket, control_frames, self.metrics.clone());
        let connection = builder.serve_connection(socket, service);
        let mut connection = std::pin::pin!(connection);
        tokio::select! {
            ended = connection.as_mut() => return say_ended(ended),
            () = stop.cancelled() => {}
            () = requests.idle_for(settings.header_timeout) => {}
        }
        connection.as_mut().graceful_shutdown();
        tokio::select! {
            ended = connection => say_ended(ended),
            () = requests.idle_for(HTTP2_CLOSE) => tracing::debug!("a connection without a request is closed"),
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
        let unread = Arc::new(Unread::default());
        let is_open = self.sockets.is_some();
        let routes = Routes::new(router, slot.clone(), is_open, unread.clone());
        let requests = self.requests(routes, peer, Some(unread.clone()));
        let mut connection = builder.serve_connection(socket, requests);
        let mut stopping = std::pin::pin!(stop.cancelled());
        let mut stopped = false;
        let carrier = Carrier::default();
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
        let handoff = match carrier.carry(left, None).await {
            Some(Ok(handoff)) => handoff,
            Some(Err(ended)) => {
                // An error after which our side was shut: hyper has refused the head by itself, and read no further.
                let is_refused = ended.is_err();
                say_ended(ended);
                let socket = connection.into_parts().io.into_socket();
                // Large, and rare.
                let lingering = Box::pin(self.leftovers.linger(socket, &unread, is_refused));
                tokio::select! {
                    // What is there already is read even if all stops.
                    biased;
                    () = lingering => {}
                    () = stop.cancelled() => {}
                }
                return;
            }
            None => return tracing::debug!("a connection that took nothing is closed"),
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

fn say_ended(ended: hyper::Result<()>) {
    if let Err(why) = ended {
        tracing::debug!(%why, "connection ended");
    }
}

/// A connection, and the address of its other end.
pub(super) type Accepted = (Socket, SocketAddr);

/// The other end of a connection.
#[derive(Clone, Copy, Debug)]
pub(in crate::http) struct Peer {
    pub(in crate::http) address: SocketAddr,
    /// A proxy has said so by the PROXY protocol.
    pub(in crate::http) is_told: bool,
}

/// A service whose requests are told whom they come from, and whose bodies are read to their end.
#[derive(Clone, Debug)]
struct Requests<S> {
    service: S,
    peer: Peer,
    trust: Trust,
    leftovers: Arc<Leftovers>,
    /// What the connection has not read of its request, over HTTP/1.1.
    unread: Option<Arc<Unread>>,
}

impl<S: hyper::service::Service<Request<Watched>>> hyper::service::Service<Request<Incoming>>
    for Requests<S>
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let mut request = self.leftovers.watch(request, self.unread.as_ref());
        let Peer { address, is_told } = self.peer;
        let client = self.trust.client(address, is_told, request.headers());
        request.extensions_mut().insert(self.peer);
        request.extensions_mut().insert(client);
        self.service.call(request)
    }
}
