//! The accept loop: listeners with a deep backlog, sockets without delay, heads within a time.
//!
//! `axum::serve` listens with a backlog of 128 and sets no header time-out, so a reconnect storm
//! overflows it and a slow client holds a socket for ever.

use crate::config::Server;
use crate::metrics::Metrics;
use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use socket2::{SockRef, TcpKeepalive};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Pause after an accept failed, mostly for want of descriptors: the loop must not spin.
const REST: Duration = Duration::from_millis(50);
/// A silent peer is asked for a sign of life after this time.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// A listening socket with everything that its connections need.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    settings: Server,
    metrics: Arc<Metrics>,
    places: Arc<Semaphore>,
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
        Ok(Self {
            socket,
            places: Arc::new(Semaphore::new(
                settings.connections_max.min(Semaphore::MAX_PERMITS),
            )),
            settings: settings.clone(),
            metrics,
        })
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
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => return,
                accepted = self.accept() => accepted,
            };
            match accepted {
                Ok((socket, place)) => {
                    if let Err(why) = self.prepare(&socket) {
                        tracing::debug!(%why, "a connection was gone before it began");
                        continue;
                    }
                    let work = self.connection(socket, router.clone(), stop.clone(), place);
                    tracker.spawn(work);
                }
                Err(why) => {
                    self.metrics.accept_errors.inc();
                    tracing::warn!(%why, "a connection cannot be accepted");
                    tokio::time::sleep(REST).await;
                }
            }
        }
    }

    /// A place first: beyond `server.connections_max`, connections wait in the backlog.
    async fn accept(&self) -> io::Result<(TcpStream, OwnedSemaphorePermit)> {
        let place = self
            .places
            .clone()
            .acquire_owned()
            .await
            .map_err(io::Error::other)?;
        let (socket, _) = self.socket.accept().await?;
        Ok((socket, place))
    }

    fn prepare(&self, socket: &TcpStream) -> io::Result<()> {
        socket.set_nodelay(true)?;
        let socket = SockRef::from(socket);
        socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE))?;
        socket.set_tcp_user_timeout(Some(self.settings.write_timeout))
    }

    fn connection(
        &self,
        socket: TcpStream,
        router: Router,
        stop: CancellationToken,
        place: OwnedSemaphorePermit,
    ) -> impl Future<Output = ()> + Send + 'static {
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(self.settings.header_timeout)
            .max_buf_size(self.settings.buffer_bytes);
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_send_buf_size(self.settings.buffer_bytes)
            .max_concurrent_streams(250);
        let metrics = self.metrics.clone();
        async move {
            let _place = place;
            metrics.sockets.inc();
            let service = TowerToHyperService::new(router);
            let connection = builder.serve_connection(TokioIo::new(socket), service);
            let mut connection = std::pin::pin!(connection);
            let ended = tokio::select! {
                ended = connection.as_mut() => ended,
                () = stop.cancelled() => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            };
            metrics.sockets.dec();
            if let Err(why) = ended {
                tracing::debug!(why = &*why, "connection ended");
            }
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
