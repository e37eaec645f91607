//! One connection: what it speaks, its requests, and how it leaves with a stream.

use super::handoff::{Flushed, HandoffSlot, Routes};
use super::leftover::{Leftovers, Watched};
use super::socket::{Begins, Socket};
use crate::config::Server;
use crate::stream::sockets::{HandedOff, Place, Sockets};
use axum::Router;
use axum::extract::Request;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use tokio_util::sync::CancellationToken;

/// What all connections of a listener need; it does not keep the listening socket open.
#[derive(Debug)]
pub(super) struct Connections {
    pub(super) settings: Server,
    /// The threads that own the sockets of streams, if there are any.
    pub(super) sockets: Option<Arc<Sockets>>,
    pub(super) leftovers: Arc<Leftovers>,
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

    fn requests<S>(&self, service: S, peer: Peer) -> Requests<S> {
        Requests {
            service,
            peer,
            leftovers: self.leftovers.clone(),
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
        let service = self.requests(TowerToHyperService::new(router), peer);
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
        let mut connection = builder.serve_connection(socket, self.requests(routes, peer));
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
pub(super) type Accepted = (Socket, SocketAddr);

/// The other end of a connection, as requests are told it.
#[derive(Clone, Copy, Debug)]
pub(in crate::http) struct Peer(pub(in crate::http) SocketAddr);

/// A service whose requests are told who is at the other end, and whose bodies are read to their end.
#[derive(Clone, Debug)]
struct Requests<S> {
    service: S,
    peer: Peer,
    leftovers: Arc<Leftovers>,
}

impl<S: hyper::service::Service<Request<Watched>>> hyper::service::Service<Request<Incoming>>
    for Requests<S>
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let mut request = self.leftovers.watch(request);
        request.extensions_mut().insert(self.peer);
        self.service.call(request)
    }
}
