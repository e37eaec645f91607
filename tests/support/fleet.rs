//! Replicas that share one Redis.

use super::nginx::free_address;
use super::{Gateway, Redis, eventually};

/// Replicas `r1`, `r2`, … over `redis`, at addresses that they find free when they come back.
pub fn fleet(redis: &Redis, replicas: usize, config: &[(&str, &str)]) -> Vec<Gateway> {
    let launched: Vec<Gateway> = (1..=replicas)
        .map(|number| {
            let (name, listen) = (format!("r{number}"), free_address().to_string());
            let mut all = vec![
                ("replica.name", name.as_str()),
                ("server.listen", listen.as_str()),
            ];
            all.extend(config);
            Gateway::launch_over(redis, &all)
        })
        .collect();
    launched.iter().for_each(Gateway::wait_ready);
    launched
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
