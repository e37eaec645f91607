//! The lane: one connection on which publishers go together.
//!
//! Publishes that are under way at the same time are written together and answered together, which
//! spares both sides most of their system calls. A command that takes long would hold up all behind
//! it; such take a connection of the pool.
//!
//! A lane may fall silent: the connection stands, takes bytes and answers nothing (behind a balancer
//! whose server has vanished, say). It is given up as soon as that is known, by these rules:
//!
//! 1. One on which nobody waits for an answer is asked for a sign of life before it is used again, so
//!    that a server that was restarted meanwhile fails no command.
//! 2. One on which somebody has waited for `patience` without a break, and nobody has heard anything,
//!    is silent. Answers come in the order of commands, so an answer to one says that the connection
//!    answered up to there.
//! 3. Somebody who leaves before that has learned nothing: a publisher whose client goes away takes
//!    the lane from nobody. Only the wait for a sign of life is continued by whoever comes next, or
//!    impatient clients alone would never find out.

use redis::aio::MultiplexedConnection;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// The way that publishers share.
#[derive(Debug)]
pub(super) struct Lane {
    /// Locked while a connection is made or asked for a sign of life: all who come meanwhile want
    /// the same to be known.
    open: tokio::sync::Mutex<Option<Open>>,
    /// How long a connection may be silent while somebody waits.
    patience: Duration,
}

#[derive(Debug)]
struct Open {
    connection: MultiplexedConnection,
    health: Arc<Mutex<Health>>,
}

impl Lane {
    pub(super) fn new(patience: Duration) -> Self {
        Self {
            open: tokio::sync::Mutex::default(),
            patience,
        }
    }

    /// A place for one command; to be taken just before it is sent. `connect` makes a connection if
    /// there is none, or none that answers.
    ///
    /// # Cancel safety
    /// Dropped while a connection is made, the connection is dropped with it, and the next in line
    /// makes another one. Dropped while one is asked for a sign of life, the next in line goes on
    /// waiting for it.
    pub(super) async fn seat<E>(
        &self,
        connect: impl Future<Output = Result<MultiplexedConnection, E>>,
    ) -> Result<Seat, E> {
        let mut open = self.open.lock().await;
        if let Some(open) = &*open
            && self.answers(open).await
        {
            return Ok(self.seat_on(open));
        }
        // What is under way on the old one may still be answered; nothing new goes over it, even if
        // the attempt to make another one fails or is given up here.
        *open = None;
        let connection = connect.await?;
        let made = open.insert(Open {
            connection,
            health: Arc::default(),
        });
        Ok(self.seat_on(made))
    }

    /// Whether a connection is good for a command.
    async fn answers(&self, open: &Open) -> bool {
        let until = match lock(&open.health).judge(Instant::now(), self.patience) {
            Verdict::Use => return true,
            Verdict::GiveUp => return false,
            Verdict::Ask { until } => until,
        };
        let mut connection = open.connection.clone();
        let ping = redis::cmd("PING");
        let answer = tokio::time::timeout_at(until, ping.exec_async(&mut connection)).await;
        let answers = matches!(answer, Ok(Ok(())));
        if answers {
            lock(&open.health).silent_since = None;
        }
        answers
    }

    fn seat_on(&self, open: &Open) -> Seat {
        lock(&open.health).sent(Instant::now());
        Seat {
            connection: open.connection.clone(),
            health: open.health.clone(),
            patience: self.patience,
            is_answered: false,
        }
    }
}

/// The place of one command on the lane. Dropped without a word the command was not answered: its
/// time is over, or nobody waits for it any more.
#[derive(Debug)]
pub(super) struct Seat {
    pub(super) connection: MultiplexedConnection,
    health: Arc<Mutex<Health>>,
    patience: Duration,
    is_answered: bool,
}

impl Seat {
    /// The server has answered, be it with an error.
    pub(super) fn answered(mut self) {
        self.is_answered = true;
    }

    /// The connection is of no more use.
    pub(super) fn lost(self) {
        lock(&self.health).is_lost = true;
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let (now, mut health) = (Instant::now(), lock(&self.health));
        if self.is_answered {
            health.answered(now);
        } else {
            health.left(now, self.patience);
        }
    }
}

fn lock(health: &Mutex<Health>) -> MutexGuard<'_, Health> {
    health.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What is known of a connection.
#[derive(Clone, Debug, Default)]
struct Health {
    /// Commands on their way; somebody waits for each.
    under_way: usize,
    /// Since when somebody waits, and nothing was heard.
    silent_since: Option<Instant>,
    /// It is closed, or leads to a server that is no master.
    is_lost: bool,
}

/// What to do with a connection before a command goes over it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// Somebody waits already, and not for too long.
    Use,
    /// Ask it for a sign of life.
    Ask { until: Instant },
    /// Make another one.
    GiveUp,
}

impl Health {
    /// Before a command. Whoever is told to ask waits from now on.
    fn judge(&mut self, now: Instant, patience: Duration) -> Verdict {
        let until = *self.silent_since.get_or_insert(now) + patience;
        if self.is_lost || until <= now {
            Verdict::GiveUp
        } else if self.under_way == 0 {
            Verdict::Ask { until }
        } else {
            Verdict::Use
        }
    }

    /// A command is sent.
    fn sent(&mut self, now: Instant) {
        self.under_way += 1;
        self.silent_since.get_or_insert(now);
    }

    /// One was answered. Those behind it wait anew: it took its time, not theirs.
    fn answered(&mut self, now: Instant) {
        self.under_way -= 1;
        self.silent_since = (self.under_way > 0).then_some(now);
    }

    /// Somebody waits no more.
    fn left(&mut self, now: Instant, patience: Duration) {
        self.under_way -= 1;
        let too_early = |since| now < since + patience;
        if self.under_way == 0 && self.silent_since.is_some_and(too_early) {
            // Rule 3: what would have come is heard by nobody.
            self.silent_since = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(1);
    const SHORT: Duration = Duration::from_millis(100);

    /// A connection and the time.
    struct At {
        health: Health,
        now: Instant,
    }

    impl At {
        fn new() -> Self {
            Self {
                health: Health::default(),
                now: Instant::now(),
            }
        }

        fn after(&mut self, time: Duration) -> &mut Self {
            self.now += time;
            self
        }

        fn judge(&mut self) -> Verdict {
            self.health.judge(self.now, PATIENCE)
        }

        fn send(&mut self) {
            self.health.sent(self.now);
        }

        fn answer(&mut self) {
            self.health.answered(self.now);
        }

        fn leave(&mut self) {
            self.health.left(self.now, PATIENCE);
        }
    }

    #[test]
    fn those_who_come_while_others_wait_share_a_connection_unasked() {
        let mut at = At::new();
        at.send();
        assert_eq!(at.after(SHORT).judge(), Verdict::Use);
        at.send();
        at.answer();
        assert_eq!(at.after(SHORT).judge(), Verdict::Use);
        at.send();
        at.answer();
        at.answer();
        // Nobody waits: it is asked first, however long nothing happened.
        let until = at.after(PATIENCE * 100).now + PATIENCE;
        assert_eq!(at.judge(), Verdict::Ask { until });
    }

    #[test]
    fn one_that_falls_silent_under_way_is_given_up_after_the_patience() {
        let mut at = At::new();
        at.send();
        assert_eq!(at.after(PATIENCE / 10 * 9).judge(), Verdict::Use);
        at.send();
        assert_eq!(at.after(SHORT).judge(), Verdict::GiveUp);
        // Nor do those who waited in vain take it along.
        at.leave();
        at.leave();
        assert_eq!(at.judge(), Verdict::GiveUp);
    }

    #[test]
    fn an_answer_to_one_is_a_sign_of_life_for_all() {
        let mut at = At::new();
        at.send();
        for _ in 0..10 {
            assert_eq!(at.after(PATIENCE / 2).judge(), Verdict::Use);
            at.send();
            at.answer();
        }
    }

    #[test]
    fn whoever_goes_away_early_takes_it_from_nobody() {
        let mut at = At::new();
        for _ in 0..10 {
            at.send();
            at.after(PATIENCE / 2).leave();
            at.after(PATIENCE);
        }
        let until = at.now + PATIENCE;
        assert_eq!(at.judge(), Verdict::Ask { until });
        // It answers, and somebody else waits.
        at.health.silent_since = None;
        at.send();
        at.after(SHORT).send();
        at.leave();
        at.answer();
        let until = at.after(PATIENCE).now + PATIENCE;
        assert_eq!(at.judge(), Verdict::Ask { until });
    }

    #[test]
    fn impatient_publishers_find_out_together() {
        // One after the other: each goes while it asks for a sign of life.
        let mut at = At::new();
        let until = at.now + PATIENCE;
        for _ in 0..10 {
            assert_eq!(at.judge(), Verdict::Ask { until });
            at.after(SHORT);
        }
        assert_eq!(at.judge(), Verdict::GiveUp);
        // Or each comes before the last one goes.
        let mut at = At::new();
        at.send();
        for _ in 0..9 {
            assert_eq!(at.after(SHORT).judge(), Verdict::Use);
            at.send();
            at.leave();
        }
        assert_eq!(at.after(SHORT).judge(), Verdict::GiveUp);
    }

    #[test]
    fn a_lost_one_is_used_no_more() {
        let mut at = At::new();
        at.send();
        at.health.is_lost = true;
        assert_eq!(at.judge(), Verdict::GiveUp);
        at.leave();
        assert_eq!(at.after(SHORT).judge(), Verdict::GiveUp);
    }
}
