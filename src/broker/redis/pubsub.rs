//! One connection that hears pushes, in order, behind a bounded queue.
//!
//! It never reconnects by itself: whoever owns it must know that something may be missing. It counts
//! as lost when another server becomes the master, since nothing is published here any more. When
//! the queue is full the connection counts as lost from that push on, because Redis does not send
//! twice; nothing waits for us in the socket either, so Redis has no reason to cut it. One push fills
//! half of the queue at most: whoever publishes something huge has nobody's connection begun anew.
//!
//! Where the same server is reached by another user or password from some moment on, that is said on the connection
//! (AUTH): it goes on hearing, and outlives the removal of the one before.
//!
//! A connection that carries nothing is asked for a sign of life now and then: one behind a balancer
//! whose server has vanished would be taken for quiet for ever, since nothing is ever sent on it. It
//! is given up only once another one can be had: on a way that is silent altogether the server has
//! sent what was published meanwhile, and it may still come.

use super::error::CommandError;
use super::node::{Masters, Ways, check_role};
use crate::broker::BrokerError;
use bytes::Bytes;
use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Client, Cmd, PushInfo, PushKind, RedisError, RedisResult, ToRedisArgs,
    Value,
};
use std::fmt;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc::{self, error::TryRecvError};
use tokio::sync::watch;
use tokio::time::Instant;

/// What is heard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Push {
    /// A publish on a channel, subscribed by name or by pattern.
    Message {
        /// The channel.
        channel: Bytes,
        /// What was published.
        payload: Bytes,
        /// The pattern that it was delivered for; none if for the channel itself.
        pattern: Option<Bytes>,
    },
    /// A subscription to this channel or pattern stands.
    Subscribed(Bytes),
    /// The connection is gone, leads to a master that was replaced, or the queue was full: something may be missing
    /// from here on.
    Lost {
        /// The queue was full.
        overflow: bool,
    },
}

/// Pushes that may wait, beside their bound in bytes.
const PUSHES_MAX: usize = 65_536;

/// Times that a silent connection is asked for a sign of life, each for as long as a command may
/// take: in all, as long as bytes may stay unacknowledged.
const SIGNS: usize = 4;

/// A connection with subscriptions, and what it hears.
pub struct PubSub {
    /// Sends SUBSCRIBE and its relatives.
    pub(super) commands: MultiplexedConnection,
    queue: mpsc::Receiver<Push>,
    shared: Arc<Shared>,
    /// Changes when another server becomes the master.
    masters: Masters,
    /// Something was heard then.
    heard: Instant,
    /// The question for a sign of life, while it is on its way: whether it was answered.
    sign: Option<Sign>,
    /// What may pass in silence before it is asked.
    quiet: Duration,
    /// How the server is reached; changes when it is by another user or password.
    ways: watch::Receiver<Arc<Ways>>,
    /// Who we are now, while it is said.
    auth: Option<Auth>,
}

type Sign = Pin<Box<dyn Future<Output = bool> + Send>>;
type Auth = Pin<Box<dyn Future<Output = RedisResult<()>> + Send>>;

impl fmt::Debug for PubSub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let PubSub { shared, heard, .. } = self;
        f.debug_struct("PubSub")
            .field("shared", shared)
            .field("heard", heard)
            .finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct Shared {
    bytes: AtomicUsize,
    bytes_max: usize,
    full: AtomicBool,
}

impl PubSub {
    pub(super) async fn connect(
        mut ways: watch::Receiver<Arc<Ways>>,
        connect: Duration,
        response: Duration,
        bytes_max: usize,
        masters: Masters,
    ) -> RedisResult<Self> {
        let (sender, queue) = mpsc::channel(PUSHES_MAX);
        let sender = Mutex::new(Some(sender));
        let shared = Arc::new(Shared {
            bytes: AtomicUsize::new(0),
            bytes_max,
            full: AtomicBool::new(false),
        });
        let ours = shared.clone();
        let hear = move |info: PushInfo| -> Result<(), ()> {
            let Some(push) = read(info) else {
                return Ok(());
            };
            ours.enqueue(&sender, push);
            Ok(())
        };
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(connect))
            .set_response_timeout(Some(response))
            .set_push_sender(hear);
        let client = ways.borrow_and_update().pushes().clone();
        let connecting = async {
            let mut commands = client
                .get_multiplexed_async_connection_with_config(&config)
                .await?;
            check_role(&mut commands).await?;
            Ok::<_, RedisError>(commands)
        };
        let commands = tokio::time::timeout(connect + response, connecting)
            .await
            .map_err(|_| RedisError::from(std::io::Error::from(std::io::ErrorKind::TimedOut)))??;
        Ok(Self {
            commands,
            queue,
            shared,
            masters,
            heard: Instant::now(),
            sign: None,
            quiet: response * 2,
            ways,
            auth: None,
        })
    }

    /// A command on this very connection.
    pub(super) async fn ask(&mut self, cmd: &Cmd) -> Result<Value, CommandError> {
        Ok(cmd.query_async(&mut self.commands).await?)
    }

    /// Subscribes to channels; from here on they are heard.
    ///
    /// # Errors
    /// [`BrokerError`], also if one of them is not allowed.
    pub async fn subscribe(&mut self, channels: impl ToRedisArgs) -> Result<(), BrokerError> {
        let done = self.commands.subscribe(channels).await;
        done.map_err(|why| CommandError::from(why).into())
    }

    /// Subscribes to a pattern.
    ///
    /// # Errors
    /// As [`PubSub::subscribe`].
    pub async fn psubscribe(&mut self, pattern: impl ToRedisArgs) -> Result<(), BrokerError> {
        let done = self.commands.psubscribe(pattern).await;
        done.map_err(|why| CommandError::from(why).into())
    }

    /// The next push. After [`Push::Lost`] there is nothing more.
    ///
    /// # Cancel safety
    /// Safe: a push that was not returned is kept, and so are the question for a sign of life and the word who we are.
    pub async fn recv(&mut self) -> Push {
        loop {
            let (ask_at, is_asked) = (self.heard + self.quiet, self.sign.is_some());
            let (sign, auth) = (pending_or(&mut self.sign), pending_or(&mut self.auth));
            let is_answered = tokio::select! {
                biased;
                _ = self.masters.changed() => return Push::Lost { overflow: false },
                // Before pushes, which may never end; both are rare.
                said = auth => {
                    self.auth = None;
                    if let Err(why) = said {
                        tracing::warn!(%why, "a subscription goes on as the user that it was made by");
                    }
                    continue;
                }
                Ok(()) = self.ways.changed() => {
                    self.say_who_we_are();
                    continue;
                }
                push = self.queue.recv() => {
                    // Whatever comes is a sign of life.
                    (self.heard, self.sign) = (Instant::now(), None);
                    return self.took(push);
                }
                is_answered = sign => is_answered,
                () = tokio::time::sleep_until(ask_at), if !is_asked => {
                    self.sign = Some(Box::pin(sign_of_life(self.commands.clone(), self.ways.borrow().pushes().clone(), self.quiet)));
                    continue;
                }
            };
            self.sign = None;
            if !is_answered {
                return Push::Lost { overflow: false };
            }
            self.heard = Instant::now();
        }
    }

    fn say_who_we_are(&mut self) {
        let auth = self.ways.borrow_and_update().auth();
        let mut commands = self.commands.clone();
        self.auth = auth
            .map(|auth| -> Auth { Box::pin(async move { auth.exec_async(&mut commands).await }) });
    }

    /// The next push, if there is one already.
    pub fn try_recv(&mut self) -> Option<Push> {
        match self.queue.try_recv() {
            Ok(push) => Some(self.took(Some(push))),
            Err(TryRecvError::Disconnected) => Some(self.took(None)),
            Err(TryRecvError::Empty) => None,
        }
    }

    fn took(&self, push: Option<Push>) -> Push {
        match push {
            Some(push) => {
                self.shared.free(&push);
                push
            }
            None => Push::Lost {
                overflow: self.shared.full.load(Ordering::Acquire),
            },
        }
    }
}

impl Shared {
    /// Everything before the first push that found no room is whole; everything after is dropped.
    /// Then the queue is closed, so that whoever waits at its empty end is told.
    fn enqueue(&self, queue: &Mutex<Option<mpsc::Sender<Push>>>, push: Push) {
        let mut queue = queue.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(sender) = queue.as_ref() else {
            return;
        };
        let room = self.room_of(&push);
        let before = self.bytes.fetch_add(room, Ordering::AcqRel);
        if before + room > self.bytes_max || sender.try_send(push).is_err() {
            self.full.store(true, Ordering::Release);
            *queue = None;
        }
    }

    fn free(&self, push: &Push) {
        self.bytes.fetch_sub(self.room_of(push), Ordering::AcqRel);
    }

    fn room_of(&self, push: &Push) -> usize {
        size(push).min(self.bytes_max.div_ceil(2))
    }
}

async fn pending_or<T>(future: &mut Option<Pin<Box<dyn Future<Output = T> + Send>>>) -> T {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

/// Whether a connection answers; false once it does not and another one does, within `patience`.
///
/// A server that is busy for longer than a command may take breaks no subscription: all replicas
/// would subscribe and read anew just when it has come to itself.
async fn sign_of_life(
    mut commands: MultiplexedConnection,
    client: Client,
    patience: Duration,
) -> bool {
    loop {
        for _ in 0..SIGNS {
            match redis::cmd("PING").exec_async(&mut commands).await {
                Err(why) if why.is_timeout() => {}
                answer => return answer.is_ok(),
            }
        }
        tracing::warn!(
            "a subscription takes bytes and answers nothing; another connection is tried"
        );
        let another = async {
            let mut another = client.get_multiplexed_async_connection().await?;
            redis::cmd("PING").exec_async(&mut another).await
        };
        if matches!(tokio::time::timeout(patience, another).await, Ok(Ok(()))) {
            return false;
        }
    }
}

fn size(push: &Push) -> usize {
    match push {
        Push::Message {
            channel, payload, ..
        } => channel.len() + payload.len(),
        Push::Subscribed(channel) => channel.len(),
        Push::Lost { .. } => 0,
    }
}

fn read(info: PushInfo) -> Option<Push> {
    let mut data = info.data.into_iter().map(|value| match value {
        Value::BulkString(bytes) => Bytes::from(bytes),
        Value::SimpleString(text) => Bytes::from(text),
        _ => Bytes::new(),
    });
    match info.kind {
        PushKind::Message => Some(Push::Message {
            channel: data.next()?,
            payload: data.next()?,
            pattern: None,
        }),
        PushKind::PMessage => {
            let pattern = data.next()?;
            Some(Push::Message {
                channel: data.next()?,
                payload: data.next()?,
                pattern: Some(pattern),
            })
        }
        PushKind::Subscribe | PushKind::PSubscribe => Some(Push::Subscribed(data.next()?)),
        PushKind::Disconnection => Some(Push::Lost { overflow: false }),
        _ => None,
    }
}
