//! Replicas that share one Redis.

use super::nginx::free_address;
use super::{Gateway, Redis, eventually};
use std::net::SocketAddr;

/// Replicas `r1`, `r2`, … over `redis`, at addresses that they find free when they come back.
pub fn fleet(redis: &Redis, replicas: usize, config: &[(&str, &str)]) -> Vec<Gateway> {
    let launched: Vec<Gateway> = (1..=replicas)
        .map(|number| replica_at(free_address(), redis, &format!("r{number}"), config))
        .collect();
    launched.iter().for_each(Gateway::wait_ready);
    launched
}

/// One replica at an address of the test's choice, not yet ready.
pub fn replica_at(
    address: SocketAddr,
    redis: &Redis,
    name: &str,
    config: &[(&str, &str)],
) -> Gateway {
    let listen = address.to_string();
    let mut all = vec![("replica.name", name), ("server.listen", &listen)];
    all.extend(config);
    Gateway::launch_over(redis, &all)
}

/// Waits until every replica hears raw publishes, so that none is lost from here on.
///
/// An ear counts from the first epoch on that it has heard begin, so `PUBLISH` is tried until all
/// have counted.
pub fn wait_for_ears(redis: &Redis, replicas: &[Gateway]) {
    eventually("every ear counts", || {
        redis.publish_raw("events:warm-up", b"x");
        replicas
            .iter()
            .all(|replica| replica.metric("tidegate_ingest_heard_total", &[]) > 0.0)
    });
}
