//! Goal: what a stream shows and which publish is taken is what `covers` says of the rights that hold at that time, whatever
//! happens to streams, rights and replicas in between.
//!
//! Method: a random walk with a seed, over three replicas and one Redis. Readers come, and come back elsewhere; tokens are
//! taken back and run out; what all may read changes by SIGHUP; replicas are killed and others take their place. After each
//! step that takes a right away, streams that lived by it have ended, and nothing is published before they have.

use crate::support::tokens::{SECRET, now, token_of};
use crate::support::{Directory, End, Event, Gateway, Redis, Sse, eventually, seed};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};
use serde_json::json;
use std::path::PathBuf;

const TOPICS: [&str; 5] = ["a:1", "a:2", "b:1", "b:2", "c"];
const PATTERNS: [&str; 6] = ["a:*", "b:*", "a:1", "b:2", "c", "*"];
const FOR_ALL: [&[&str]; 3] = [&[], &["c"], &["a:*"]];
const REPLICAS: usize = 3;
const STEPS: usize = 60;

/// The model.
fn covers(patterns: &[&str], topic: &str) -> bool {
    patterns
        .iter()
        .any(|pattern| match pattern.strip_suffix('*') {
            Some(prefix) => topic.starts_with(prefix),
            None => *pattern == topic,
        })
}

/// Who reads and writes with a token. The first of them has none, and the last one's runs out.
struct User {
    name: String,
    subscribe: Vec<&'static str>,
    publish: Vec<&'static str>,
    token: Option<String>,
    token_id: String,
    /// The token was taken back.
    is_denied: bool,
}

impl User {
    /// What their next token has; made a little later than anything that was taken back.
    fn renew(&mut self, made_in: i64, number: usize) {
        self.token_id = format!("{}-{number}", self.name);
        self.is_denied = false;
        let grant = json!({"subscribe": self.subscribe, "publish": self.publish});
        let claims = json!({"sub": self.name, "jti": self.token_id, "iat": now() + made_in, "tidegate": grant});
        self.token = Some(token_of(&claims));
    }
}

struct Reader {
    user: usize,
    topics: Vec<&'static str>,
    stream: Sse,
    replica: usize,
    /// Events that were published before those that its stream shows.
    since: usize,
    seen: Vec<String>,
}

impl Reader {
    fn see(&mut self, events: impl IntoIterator<Item = Event>) {
        let shown = events.into_iter().filter(|event| !event.is_own());
        self.seen.extend(shown.map(|event| event.data));
        // A stream begins where its replica is. What was on its way there is shown, and all that came after it.
        let first = self.seen.first().and_then(|number| number.parse().ok());
        self.since = first.map_or(self.since, |first| self.since.min(first));
    }
}

struct World {
    rng: StdRng,
    redis: Redis,
    directory: Directory,
    replicas: Vec<Gateway>,
    for_all: &'static [&'static str],
    reloads: Vec<f64>,
    users: Vec<User>,
    readers: Vec<Reader>,
    published: Vec<&'static str>,
    tokens: usize,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut some = |at_least: usize| -> Vec<&'static str> {
            let count = rng.random_range(at_least..=2);
            PATTERNS.choose_multiple(&mut rng, count).copied().collect()
        };
        let users = (0..5).map(|number| User {
            name: format!("u{number}"),
            subscribe: if number == 0 { Vec::new() } else { some(1) },
            publish: if number == 0 { Vec::new() } else { some(0) },
            token: None,
            token_id: String::new(),
            is_denied: false,
        });
        let users = users.collect();
        let mut world = Self {
            rng,
            redis: Redis::durable(),
            directory: Directory::create(),
            replicas: Vec::new(),
            for_all: FOR_ALL[0],
            reloads: vec![0.0; REPLICAS],
            users,
            readers: Vec::new(),
            published: Vec::new(),
            tokens: 0,
        };
        world.configure();
        world.replicas = (0..REPLICAS).map(|_| world.launch()).collect();
        for user in 1..world.users.len() {
            world.renew(user, -9);
        }
        world
    }

    fn path(&self) -> PathBuf {
        self.directory.0.join("tidegate.toml")
    }

    fn configure(&self) {
        let text = format!(
            "[auth]\ntoken_secret = '{SECRET}'\npublish_key = 'own'\nleeway = '3s'\nanonymous = {:?}\n\
             [stream]\nheartbeat = '1s'\n",
            self.for_all
        );
        std::fs::write(self.path(), text).unwrap();
    }

    fn launch(&self) -> Gateway {
        let (path, url) = (self.path(), self.redis.url());
        let gateway = Gateway::launch_with(
            &["--config", &path.to_string_lossy()],
            &[("redis.url", &url)],
        );
        gateway.wait_ready();
        gateway
    }

    fn renew(&mut self, user: usize, made_in: i64) {
        self.tokens += 1;
        self.users[user].renew(made_in, self.tokens);
    }

    fn a_replica(&mut self) -> usize {
        self.rng.random_range(0..REPLICAS)
    }

    fn may_read(&self, user: usize, topic: &str) -> bool {
        covers(self.for_all, topic) || covers(&self.users[user].subscribe, topic)
    }

    /// The status that this user is answered with, whose rights allow it or not.
    fn expected(&self, user: usize, allowed: bool) -> u16 {
        let user = &self.users[user];
        match (&user.token, user.is_denied) {
            (_, false) if allowed => 200,
            (Some(_), false) => 403,
            _ => 401,
        }
    }

    fn come(&self, user: usize, replica: usize, target: &str) -> Sse {
        let bearer = self.users[user].token.as_ref();
        let bearer = bearer.map(|token| format!("Bearer {token}"));
        let headers = bearer
            .as_ref()
            .map(|bearer| ("Authorization", bearer.as_str()));
        self.replicas[replica].open(target, headers.as_slice())
    }

    fn publish(&mut self) {
        let (user, replica) = (
            self.rng.random_range(0..self.users.len() - 1),
            self.a_replica(),
        );
        let topic = *TOPICS.choose(&mut self.rng).unwrap();
        let data = self.published.len().to_string();
        let own = self.rng.random_bool(0.5);
        let bearer = match &self.users[user].token {
            _ if own => Some("Bearer own".to_owned()),
            token => token.as_ref().map(|token| format!("Bearer {token}")),
        };
        let headers = bearer
            .as_ref()
            .map(|bearer| ("Authorization", bearer.as_str()));
        let answer =
            self.replicas[replica].post(&format!("/events/{topic}"), headers.as_slice(), &data);
        let allowed = covers(&self.users[user].publish, topic);
        let expected = if own {
            200
        } else {
            self.expected(user, allowed)
        };
        assert_eq!(
            answer.status,
            expected,
            "{user} publishes {topic}: {}",
            answer.text()
        );
        if expected == 200 {
            self.published.push(topic);
        }
    }

    fn open(&mut self) {
        let (user, replica) = (
            self.rng.random_range(0..self.users.len() - 1),
            self.a_replica(),
        );
        let count = self.rng.random_range(1..=2);
        let topics: Vec<&str> = TOPICS
            .choose_multiple(&mut self.rng, count)
            .copied()
            .collect();
        let query: Vec<String> = topics
            .iter()
            .map(|topic| format!("topic={topic}"))
            .collect();
        let mut stream = self.come(user, replica, &format!("/events?{}", query.join("&")));
        let allowed = topics.iter().all(|topic| self.may_read(user, topic));
        assert_eq!(
            stream.status(),
            self.expected(user, allowed),
            "{user} reads {topics:?}"
        );
        if stream.status() == 200 {
            stream.opened();
            self.readers.push(Reader {
                user,
                topics,
                stream,
                replica,
                since: self.published.len(),
                seen: Vec::new(),
            });
        }
    }

    /// What this reader is to be shown by now.
    fn due(&self, reader: &Reader) -> Vec<String> {
        let published = self.published.iter().enumerate().skip(reader.since);
        let due = published.filter(|(_, topic)| reader.topics.contains(topic));
        due.map(|(number, _)| number.to_string()).collect()
    }

    /// Reads all that is due; streams that are cut meanwhile come back.
    fn catch_up(&self, mut reader: Reader) -> Reader {
        while reader.seen.len() < self.due(&reader).len() {
            match reader.stream.try_next_event() {
                Some(event) => {
                    assert_ne!(event.event, "tidegate.gap", "{event:?}");
                    reader.see([event]);
                }
                None => reader = self.come_back(reader),
            }
        }
        assert_eq!(reader.seen, self.due(&reader), "of {:?}", reader.topics);
        reader
    }

    fn come_back(&self, mut reader: Reader) -> Reader {
        // What was read from the socket is seen: the cursor that it comes back with is after it.
        let received = reader.stream.received();
        reader.see(received);
        reader.replica = (reader.replica + 1) % REPLICAS;
        reader.stream = reader.stream.reconnect_to(&self.replicas[reader.replica]);
        assert_eq!(reader.stream.status(), 200);
        reader
    }

    fn each_reader(&mut self, with: impl Fn(&Self, Reader) -> Option<Reader>) {
        let readers = std::mem::take(&mut self.readers);
        self.readers = readers
            .into_iter()
            .filter_map(|reader| with(self, reader))
            .collect();
    }

    /// A right went: whoever lived by it is cut, and was shown nothing but what was published while it held.
    fn end_those_without_a_right(&mut self) {
        self.each_reader(|world, mut reader| {
            let allowed = reader
                .topics
                .iter()
                .all(|topic| world.may_read(reader.user, topic));
            if world.expected(reader.user, allowed) == 200 {
                return Some(reader);
            }
            let (events, end) = reader.stream.rest();
            assert_eq!(end, End::Cut);
            reader.see(events);
            let due = world.due(&reader);
            assert!(
                due.starts_with(&reader.seen),
                "{:?} of {due:?}",
                reader.seen
            );
            None
        });
    }

    fn take_back(&mut self) {
        let user = self.rng.random_range(1..self.users.len() - 1);
        let is_first = self.users[user].token_id.ends_with(&format!("-{user}"));
        // A subject's later tokens are made after it was denied, so each of them is denied by its own name.
        let what = if is_first && self.rng.random_bool(0.5) {
            json!({"subject": self.users[user].name})
        } else {
            json!({"token_id": self.users[user].token_id})
        };
        let replica = self.a_replica();
        let own = [("Authorization", "Bearer own")];
        let answer = self.replicas[replica].post("/disconnect", &own, what.to_string());
        assert_eq!(answer.status, 200, "{}", answer.text());
        self.users[user].is_denied = true;
        eventually("every replica has heard of it", || {
            (0..REPLICAS)
                .all(|replica| self.come(user, replica, "/events/c?max_age=1ms").status() == 401)
        });
        self.end_those_without_a_right();
        if self.rng.random_bool(0.5) {
            self.renew(user, 2);
        }
    }

    /// Other topics are for all.
    fn reload(&mut self) {
        self.for_all = FOR_ALL.choose(&mut self.rng).unwrap();
        self.configure();
        for (replica, reloads) in self.replicas.iter_mut().zip(&mut self.reloads) {
            replica.hang_up();
            *reloads += 1.0;
            let taken = [("outcome", "taken")];
            replica.wait_for_metric("tidegate_config_reloads_total", &taken, *reloads);
        }
        self.end_those_without_a_right();
    }

    /// One is killed, and another one takes its place: it knows what was taken back before it serves.
    fn replace(&mut self) {
        let replica = self.a_replica();
        self.replicas[replica].kill9();
        self.replicas[replica] = self.launch();
        self.reloads[replica] = 0.0;
        for user in 1..self.users.len() {
            let allowed = self.may_read(user, "c");
            let status = self.come(user, replica, "/events/c?max_age=1ms").status();
            assert_eq!(status, self.expected(user, allowed), "of a new replica");
        }
        self.each_reader(|world, reader| {
            Some(if reader.replica == replica {
                world.come_back(reader)
            } else {
                reader
            })
        });
    }

    /// Some come back, although nothing was cut.
    fn move_some(&mut self) {
        let which = self.rng.random_range(0..3);
        self.each_reader(|world, reader| {
            let moves = reader.since % 3 == which;
            Some(if moves {
                world.come_back(reader)
            } else {
                reader
            })
        });
    }

    /// A token that runs out: its stream is cut then, and it opens no other one.
    fn expire(&mut self) {
        let user = self.users.len() - 1;
        self.renew(user, -9);
        let grant = json!({"subscribe": ["c"]});
        let claims = json!({"sub": "short", "exp": now() + 2, "tidegate": grant});
        self.users[user].token = Some(token_of(&claims));
        let replica = self.a_replica();
        let mut stream = self.come(user, replica, "/events/c");
        if stream.status() == 200 {
            stream.opened();
            assert_eq!(stream.rest().1, End::Cut);
        }
        eventually("it is over everywhere", || {
            (0..REPLICAS)
                .all(|replica| self.come(user, replica, "/events/c?max_age=1ms").status() == 401)
        });
        self.renew(user, 2);
    }

    fn check(&mut self) {
        self.each_reader(|world, reader| Some(world.catch_up(reader)));
    }
}

#[test]
fn rights_are_what_the_model_says_on_three_replicas_of_which_one_is_killed() {
    for seed in [1, seed()] {
        let mut world = World::new(seed);
        for step in 0..STEPS {
            match world.rng.random_range(0..20) {
                0..=9 => world.publish(),
                10..=13 => world.open(),
                14 | 15 => world.move_some(),
                16 => world.check(),
                17 => world.take_back(),
                18 => world.reload(),
                _ => world.replace(),
            }
            if step == STEPS / 2 {
                world.expire();
            }
        }
        world.replace();
        world.check();
    }
}
