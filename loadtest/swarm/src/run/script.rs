//! Carries out the script of a scenario: the faults themselves.

use super::{Abused, Deletion, Done, Play};
use crate::abuse::{Abuse, Watch, misbehave};
use crate::event::topic_name;
use crate::id::Id;
use crate::link::Rule;
use crate::redis_link::RedisLink;
use crate::scenario::{Deed, Step, Victim, Whom};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use redis::Value;
use tokio::time::{Instant, sleep_until};

/// The state of a script.
struct Script {
    rng: StdRng,
    /// Who suffers.
    victim: String,
    /// The server of Redis that follows the victim, if that is one.
    standby: String,
}

impl Play<'_> {
    /// Takes each step at its time, one after the other.
    pub(super) async fn carry_out(&mut self) {
        let began = Instant::now();
        let mut script = Script {
            rng: self.fork(),
            victim: String::new(),
            standby: String::new(),
        };
        let steps = self
            .order
            .scenario
            .script
            .draw(&mut script.rng, self.order.size);
        for Step { at, deed } in steps {
            sleep_until(began + at).await;
            let from_us = self.clock.micros();
            match self.take(deed, &mut script).await {
                Ok(what) => {
                    let to_us = self.clock.micros();
                    // Whoever is chosen, nothing happens until then.
                    let is_choice = matches!(deed, Deed::Choose(_));
                    self.evidence.deeds.push(Done {
                        from_us: if is_choice { to_us } else { from_us },
                        to_us,
                        what,
                        may_lose: deed.may_lose(),
                    });
                }
                Err(why) => self.evidence.troubles.push(why),
            }
        }
    }

    /// Takes a step, and says what was done.
    async fn take(&mut self, deed: Deed, script: &mut Script) -> Result<String, String> {
        match deed {
            Deed::Choose(Victim::Master) => {
                let (master, standby) = self.cluster.master().await?;
                master.clone_into(&mut script.victim);
                standby.clone_into(&mut script.standby);
                Ok(format!("choose {master}, the master; {standby} follows it"))
            }
            Deed::Choose(kind) => {
                let (victim, appender) = self.choose(kind, &mut script.rng).await?;
                script.victim.clone_from(&victim);
                Ok(match appender {
                    Some(appender) => format!("choose {victim} while {appender} appends"),
                    None => format!("choose {victim} while nobody appends"),
                })
            }
            Deed::Part(verb, whom) => {
                let parts = self.named(whom, script);
                self.cluster.act(verb, &parts).await?;
                Ok(format!("{} {}", verb.as_str(), parts.join(" ")))
            }
            Deed::Redis(words) => {
                let mut cmd = redis::Cmd::new();
                for word in words {
                    cmd.arg(word);
                }
                // A connection of its own: an earlier one may have been cut by the fault before.
                let answer: Result<Value, _> =
                    async { RedisLink::new(&self.cluster.redis_url)?.ask(&cmd).await }.await;
                let answer = answer.map_err(|why| why.to_string())?;
                Ok(format!("{}: {answer:?}", words.join(" ")))
            }
            Deed::Forget(bytes) => {
                let left = self
                    .cluster
                    .forget(bytes)
                    .map_err(|why| format!("the log file of Redis: {why}"))?;
                Ok(format!(
                    "cut {bytes} bytes off the log file of Redis, {left} are left"
                ))
            }
            Deed::Clock(seconds) => {
                let set = self.cluster.set_clock(seconds);
                set.map_err(|why| format!("the clock of Redis: {why}"))?;
                Ok(format!("the clock of Redis is wrong by {seconds} s"))
            }
            Deed::Failover => {
                self.cluster.failed_over(&script.victim).await?;
                Ok(format!(
                    "{} takes the place of {}",
                    script.standby, script.victim
                ))
            }
            Deed::Link(state, whom) => {
                let parts = self.named(whom, script);
                self.cluster.link(state, &parts)?;
                Ok(format!("link {state:?} for {}", parts.join(" ")))
            }
            Deed::Replies(rules) => self.set_rules(rules),
            Deed::Delete => self.delete_all().await,
            Deed::Build(build) => {
                let set = self.cluster.set_build(build);
                let name = set.map_err(|why| format!("the {build:?} build: {why}"))?;
                Ok(format!("from their next start on, replicas are of {name}"))
            }
            Deed::StopReaders(hundredths) => {
                let count = self.order.size.subscribers * hundredths / 100;
                self.stopped.send_replace(count);
                Ok(format!("{count} subscribers do not read"))
            }
            Deed::Abuse(abuse) => self.abuse(abuse).await,
            Deed::Burst(count) => {
                self.burst(count).await?;
                Ok(format!("{count} raw publishes in one pipe"))
            }
        }
    }

    /// Clients misbehave for their time, and what that costs is watched.
    async fn abuse(&mut self, abuse: Abuse) -> Result<String, String> {
        let (name, about) = abuse.kind.described();
        let watch = Watch::begin(self.cluster).await?;
        let from_us = self.clock.micros();
        let said = misbehave(abuse, self.cluster).await;
        let to_us = self.clock.micros();
        let seen = watch.end().await?;
        let (said, done) = match said {
            Ok(said) => (said.clone(), Ok(format!("{name}: {about}: {said}"))),
            Err(why) => (why.clone(), Err(format!("{name}: {why}"))),
        };
        self.evidence.abuses.push(Abused {
            kind: abuse.kind,
            from_us,
            to_us,
            said,
            seen,
        });
        done
    }

    /// Says how often the rules until now were followed, too.
    fn set_rules(&self, rules: &[Rule]) -> Result<String, String> {
        let before = self.cluster.set_rules(rules)?;
        if let Some((idle, _)) = before.iter().find(|(_, met)| *met == 0) {
            return Err(format!("there was no reply for {idle:?}"));
        }
        let list = |rules: Vec<String>| match rules.as_slice() {
            [] => "as they are".to_owned(),
            rules => rules.join(", "),
        };
        let now = list(rules.iter().map(Rule::to_string).collect());
        let met = before.iter().map(|(rule, met)| format!("{rule}: {met}"));
        let until_now = list(met.collect());
        Ok(format!("replies come {now}; until now {until_now}"))
    }

    async fn delete_all(&mut self) -> Result<String, String> {
        let mut redis = RedisLink::new(&self.cluster.redis_url).map_err(|why| why.to_string())?;
        let mut count = 0;
        for topic in 0..self.order.size.shape.topics {
            let mut cmd = redis::cmd("FCALL");
            cmd.arg("tidegate_delete").arg(0).arg(topic_name(topic));
            let id: Option<String> = redis.ask(&cmd).await.map_err(|why| why.to_string())?;
            let Some(id) = id else {
                continue;
            };
            let id: Id = id.parse().map_err(|_| format!("{id} is no id"))?;
            let at_us = self.clock.micros();
            self.evidence.deletions.push(Deletion { topic, id, at_us });
            count += 1;
        }
        Ok(format!("{count} topics are deleted"))
    }

    fn named(&self, whom: Whom, script: &Script) -> Vec<String> {
        match whom {
            Whom::Victim => vec![script.victim.clone()],
            Whom::Standby => vec![script.standby.clone()],
            Whom::Named(part) => vec![part.to_owned()],
            Whom::Replicas => self
                .cluster
                .replicas
                .iter()
                .map(|door| door.name.clone())
                .collect(),
        }
    }

    /// A replica, and who appends.
    async fn choose(
        &self,
        kind: Victim,
        rng: &mut StdRng,
    ) -> Result<(String, Option<String>), String> {
        let appender = self.cluster.appender().await;
        let victim = match kind {
            Victim::Appender | Victim::Master => {
                appender.clone().ok_or("no replica appends raw publishes")?
            }
            Victim::Any => {
                let drawn = self
                    .cluster
                    .replicas
                    .choose(rng)
                    .ok_or("there is no replica")?;
                drawn.name.clone()
            }
        };
        Ok((victim, appender))
    }
}
