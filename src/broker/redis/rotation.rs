//! Another way to Redis while streams are open: what `redis.url` and its relatives say after a reload.
//!
//! | what is wanted | what is done |
//! |---|---|
//! | what is in force | nothing |
//! | another way that leads to no master, or whose user may call no function: a password is wrong, nobody is there | it is told and tried again; everything goes on as before |
//! | the same server and database by another user, password or certificate | new connections are made by it; those that stand say who they are now, and none is cut |
//! | another server or database | as if sentinels had named another master: all connections are made anew, and streams wait meanwhile |
//!
//! So a password may be changed at Redis before or after it is changed here, as long as both are good for a while.

use super::Redis;
use super::access::Access;
use super::node::{Ways, check_rights, check_role};
use redis::ConnectionInfo;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// The first pause before a way that does not work is tried again; it doubles up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(500);
/// Redis writes each wrong password down (ACL LOG): seldom enough to leave room for others there.
const PAUSE_MAX: Duration = Duration::from_secs(15);
/// The same reason is said again after this time.
const SAY_AGAIN: Duration = Duration::from_secs(60);

impl Redis {
    /// Redis shall be reached so from now on. [`follow_access`] sees to it.
    pub(in crate::broker) fn reach_by(&self, access: Access) {
        self.0.wanted.send_replace(Arc::new(access));
    }

    /// Goes on by a way that was tried, and led to this server.
    fn take(&self, access: &Arc<Access>, info: ConnectionInfo) -> Result<(), String> {
        let settings = self.settings();
        let info = info.set_tcp_settings(settings.tcp());
        let master = self.0.master.borrow().clone();
        let same = master.filter(|node| node.ways().leads_to(&info));
        let address = info.addr().to_string();
        // First, since whoever asks sentinels, and whoever makes a node, goes by it.
        self.0.access.send_replace(access.clone());
        if let Some(node) = same {
            node.rekey(access, info)?;
            tracing::info!(address, "Redis is reached by other credentials from now on");
        } else {
            tracing::warn!(address, "Redis is another server from now on");
            self.begin_anew(info);
        }
        Ok(())
    }
}

/// Takes each way to Redis that is wanted, once it works. Never ends.
///
/// # Cancel safety
/// Dropped, the way that is in force stays.
pub async fn follow_access(redis: Redis) {
    let mut wanted = redis.0.wanted.subscribe();
    loop {
        let access = wanted.borrow_and_update().clone();
        let taking = async {
            if !access.is_same(&redis.0.access.borrow()) {
                take_once_it_works(&redis, &access).await;
            }
            redis.metrics().redis_access_refused.set(0);
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = taking => {}
            changed = wanted.changed() => if changed.is_err() {
                return;
            },
        }
    }
}

async fn take_once_it_works(redis: &Redis, access: &Arc<Access>) {
    let mut pause = PAUSE_MIN;
    let mut said: Option<(String, Instant)> = None;
    loop {
        let Err(why) = try_to_take(redis, access).await else {
            return;
        };
        redis.metrics().redis_access_refused.set(1);
        let is_news = said
            .as_ref()
            .is_none_or(|(last, at)| *last != why || at.elapsed() > SAY_AGAIN);
        if is_news {
            tracing::error!(
                why,
                "what the configuration says of Redis does not work: it is tried again, and all goes on as before"
            );
            said = Some((why, Instant::now()));
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

async fn try_to_take(redis: &Redis, access: &Arc<Access>) -> Result<(), String> {
    let patience = redis.settings().connect_timeout;
    let trying = async {
        let (info, mut connection) = access.find(patience).await?;
        let checked = async {
            check_role(&mut connection).await?;
            check_rights(&mut connection).await
        };
        checked.await.map_err(|why| why.to_string())?;
        Ok::<_, String>(info)
    };
    // Sentinels are asked one after the other.
    let whole = patience * 8;
    let info = tokio::time::timeout(whole, trying)
        .await
        .map_err(|_| "no answer in time".to_owned())??;
    redis.take(access, info)
}

impl Ways {
    /// Whether the same server and database are meant.
    fn leads_to(&self, info: &ConnectionInfo) -> bool {
        let place = |info: &ConnectionInfo| {
            let tls = matches!(info.addr(), redis::ConnectionAddr::TcpTls { .. });
            (info.addr().to_string(), tls, info.redis_settings().db())
        };
        place(self.info()) == place(info)
    }
}
