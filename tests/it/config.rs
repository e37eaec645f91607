//! Goal: the shipped file tells the truth about every key, a bad configuration is refused whole and
//! in clear sentences before a socket opens, and nothing that is secret is ever said.
//!
//! Method: `deploy/tidegate.toml` is read line by line and held against the code; everything else is
//! asked of the real binary.

use crate::support::{Directory, Gateway, Process, Redis, binary, run};
use std::net::TcpListener;
use std::path::PathBuf;
use tidegate::config::{Config, Flags, OPEN_PUBLISHING};
use tidegate::topic::Topic;

const SHIPPED: &str = include_str!("../../deploy/tidegate.toml");

/// The configuration is at fault.
const FAULTY: Option<i32> = Some(64);

/// One key of the shipped file.
#[derive(Debug)]
struct Documented {
    key: String,
    /// `name = value`, as TOML.
    setting: String,
    /// The comment lines above it, joined.
    text: String,
}

impl Documented {
    /// A file with nothing but this key.
    fn alone(&self) -> String {
        let (section, _) = self.key.rsplit_once('.').unwrap();
        format!("[{section}]\n{}\n", self.setting)
    }
}

/// The keys of the shipped file, in order: `#name = value` under `[section]`.
fn documented() -> Vec<Documented> {
    let mut section = "";
    let mut text: Vec<&str> = Vec::new();
    let mut found = Vec::new();
    for line in SHIPPED.lines() {
        if let Some(name) = line.strip_prefix('[') {
            section = name.strip_suffix(']').unwrap();
            text.clear();
        } else if let Some(sentence) = line.strip_prefix("# ") {
            text.push(sentence);
        } else if let Some(setting) = line.strip_prefix('#').filter(|rest| !rest.is_empty()) {
            let (name, _) = setting
                .split_once(" = ")
                .unwrap_or_else(|| panic!("{line}"));
            found.push(Documented {
                key: format!("{section}.{name}"),
                setting: setting.to_owned(),
                text: text.join(" "),
            });
            text.clear();
        } else {
            assert!(matches!(line, "" | "#"), "neither comment nor key: {line}");
            text.clear();
        }
    }
    found
}

/// A file of this test's own; the directory goes with it.
fn file(text: &str) -> (Directory, PathBuf) {
    let directory = Directory::create();
    let path = directory.0.join("tidegate.toml");
    std::fs::write(&path, text).unwrap();
    (directory, path)
}

/// What this file alone comes to, with a name in place of the random one.
fn loaded(text: &str) -> String {
    let (_directory, path) = file(text);
    let mut config = Config::load(&Flags::file(path)).unwrap_or_else(|why| panic!("{text}: {why}"));
    assert!(!config.replica.name.is_empty());
    "r1".clone_into(&mut config.replica.name);
    format!("{config:#?}")
}

/// What `check-config` says of a file and an environment; the path of the file is shown as `FILE`.
fn faults(text: &str, environment: &[(&str, &str)]) -> Vec<String> {
    let (_directory, path) = file(text);
    let path = path.to_str().unwrap();
    let output = run(&["check-config", "--config", path], environment);
    assert_eq!(output.code, FAULTY, "{text}\n{environment:?}\n{output:?}");
    assert_eq!(output.stdout, "", "{text}");
    output
        .stderr
        .lines()
        .map(|line| without_path(line, path))
        .collect()
}

/// A line with `FILE` in place of the path, which may be shown relative to the present directory.
fn without_path(line: &str, path: &str) -> String {
    let parts: Vec<&str> = path.rsplitn(3, '/').collect();
    let end = format!("{}/{}", parts[1], parts[0]);
    let Some((before, after)) = line.split_once(&end) else {
        return line.to_owned();
    };
    let begin = before.rfind([' ', '(']).map_or(0, |at| at + 1);
    format!("{}FILE{after}", &before[..begin])
}

#[test]
fn the_shipped_file_documents_every_key_once() {
    let mut told: Vec<String> = documented().into_iter().map(|key| key.key).collect();
    told.sort();
    let mut known = Config::keys();
    known.sort_unstable();
    assert_eq!(told, known);
}

#[test]
fn every_key_of_the_shipped_file_comes_with_a_sentence() {
    for key in documented() {
        let begins = key
            .text
            .starts_with(|c: char| c.is_uppercase() || c.is_numeric());
        let ends = key.text.ends_with(['.', '"']);
        assert!(
            begins && ends && key.text.len() > 40,
            "{}: {:?}",
            key.key,
            key.text
        );
    }
}

#[test]
fn every_value_in_the_shipped_file_is_the_default() {
    let default = loaded("");
    for key in documented() {
        assert_eq!(loaded(&key.alone()), default, "{}", key.setting);
    }
}

#[test]
fn the_shipped_file_is_a_good_configuration_and_changes_nothing() {
    assert_eq!(loaded(SHIPPED), loaded(""));
    let shipped = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/tidegate.toml");
    let output = run(&["check-config", "--config", shipped], &[]);
    assert_eq!(output.code, Some(0), "{output:?}");
    assert_eq!(output.stdout, "the configuration is good");
}

#[test]
fn what_an_override_does_not_say_is_as_it_is_for_all() {
    let file = "[log]\nevents_max = 7\nage_max = '2h'\n\
                [[log.overrides]]\ntopics = 'chat:*:typing'\nlog = false\n\
                [[log.overrides]]\ntopics = 'chat:*'\nage_max = '1m'\n\
                [[log.overrides]]\ntopics = '*'\nevents_max = 3\n";
    let list = "[{topics = 'chat:*:typing', log = false}, {topics = 'chat:*', age_max = '1m'}, {topics = '*', events_max = 3}]";
    let line = format!("[log]\nevents_max = 7\nage_max = '2h'\noverrides = \"{list}\"\n");
    // As one text it may come from the environment.
    assert_eq!(loaded(file), loaded(&line));
    let (_directory, path) = self::file(file);
    let retention = Config::load(&Flags::file(path)).unwrap().retention();
    let kept = |name| {
        let bounds = retention.of(&Topic::parse(name).unwrap());
        bounds.map(|bounds| (bounds.events_max, bounds.age_ms))
    };
    assert_eq!(kept("chat:a:typing"), None);
    assert_eq!(kept("chat:a"), Some((7, 60_000)));
    assert_eq!(kept("news"), Some((3, 7_200_000)));
    let many = "[[log.overrides]]\ntopics = 'a'\n".repeat(65);
    let said = faults(&many, &[]);
    assert_eq!(
        said,
        ["tidegate: log.overrides (in FILE): must be at most 64: each publish checks all of them"]
    );
}

#[test]
fn all_faults_are_said_at_once() {
    let text = "\
        [server]\nlisten = \"localhost\"\nbacklog = -1\nbuffer_bytes = 100\n\
        [stream]\nheartbeat = \"0s\"\nopen_event = \"perhaps\"\n\
        [redis]\nurl = \"http://127.0.0.1\"\nprefix = \"Tide-Gate\"\n\
        [logging]\nformat = \"xml\"\n\
        [strem]\nretry = \"1s\"\n";
    let environment = [("TIDEGATE__LOG__AGE_MAX", "a day")];
    let said = faults(text, &environment);
    let begins = [
        "server.listen (in FILE): ",
        "server.backlog (in FILE): ",
        "server.buffer_bytes (in FILE): ",
        "stream.heartbeat (in FILE): ",
        "stream.open_event (in FILE): ",
        "redis.url (in FILE): ",
        "redis.prefix (in FILE): ",
        "logging.format (in FILE): ",
        "strem.retry (in FILE): ",
        "log.age_max (in the environment): ",
    ];
    for begin in begins {
        let lines = said
            .iter()
            .filter(|line| line.starts_with(&format!("tidegate: {begin}")));
        assert_eq!(lines.count(), 1, "{begin} in {said:#?}");
    }
    assert_eq!(said.len(), begins.len(), "{said:#?}");
}

#[test]
fn a_fault_is_one_clear_sentence() {
    let table = [
        (
            "[server]\nlisten = 'localhost'",
            "server.listen (in FILE): \"localhost\" is not an address such as 127.0.0.1:8081",
        ),
        (
            "[server]\nbacklog = 'many'",
            "server.backlog (in FILE): \"many\" is not a whole number",
        ),
        (
            "[server]\nbuffer_bytes = 8191",
            "server.buffer_bytes (in FILE): must be at least 8192",
        ),
        (
            "[server]\nhttp2_control_frames_max = 9",
            "server.http2_control_frames_max (in FILE): must be at least 10",
        ),
        (
            "[server]\ntrusted_proxies = ['nginx']",
            "server.trusted_proxies (in FILE): \"nginx\" is neither an address nor a network such as 10.0.0.0/8 or 2001:db8::/32",
        ),
        (
            "[server]\ntrusted_proxies = ['10.0.0.1/8']",
            "server.trusted_proxies (in FILE): \"10.0.0.1/8\" has bits beyond its prefix",
        ),
        (
            "[server]\ntrusted_proxies = ['::/0']",
            "server.trusted_proxies (in FILE): \"::/0\" covers every address",
        ),
        (
            "[server]\nproxy_protocol = true",
            "server.proxy_protocol (in FILE): needs server.trusted_proxies: otherwise every client could claim any address",
        ),
        (
            "[limits.address]\nstreams_per_second = 1000001",
            "limits.address.streams_per_second (in FILE): must be at most 1000000",
        ),
        (
            "[limits]\nfeeds_max = 63",
            "limits.feeds_max (in FILE): must be at least limits.topics_per_stream_max: otherwise such a stream could never open",
        ),
        (
            "[window]\ntotal_bytes_max = 1048575",
            "window.total_bytes_max (in FILE): must be at least window.bytes_max: it bounds all windows together",
        ),
        (
            "[engine]\nstall_after = '2999ms'",
            "engine.stall_after (in FILE): must be at least 3s",
        ),
        (
            "[engine]\nstall_max = '4s'",
            "engine.stall_max (in FILE): must be zero, or at least engine.stall_after",
        ),
        (
            "[logging]\nqueue_bytes = 16383",
            "logging.queue_bytes (in FILE): must be at least 16384",
        ),
        (
            "[auth]\ntoken_secret = 'short'",
            "auth.token_secret (in FILE): a secret for HS256 has at least 32 bytes, and this one has 5",
        ),
        (
            "[[auth.keys]]\nid = 'a'",
            "auth.keys, entry 1: file: a key has one of secret, secret_file, file and url",
        ),
        (
            "[[auth.keys]]\nurl = 'https://a/'\nsecret = '0123456789abcdef0123456789abcdef'",
            "auth.keys, entry 1: file: a key has one of secret, secret_file, file and url",
        ),
        (
            "[[auth.keys]]\nurl = 'http://login.example.com/jwks.json?password=p4ss'",
            "auth.keys, entry 1: url (in FILE): http is for this machine alone: whoever is on the way could answer with keys of their own, and sign every token; use https",
        ),
        (
            "[[auth.keys]]\nurl = 'https://a/'\nid = 'x'",
            "auth.keys, entry 1: id (in FILE): does not go with url: a set says what its keys are called",
        ),
        (
            "[[auth.keys]]\nurl = 'https://a/'\nalgorithm = 'HS256'",
            "auth.keys, entry 1: algorithm (in FILE): must be one with public keys, with url: who could fetch a secret could sign",
        ),
        (
            "[[auth.keys]]\nurl = 'https://a/'\n[[auth.keys]]\nurl = 'https://a/'",
            "auth.keys (in FILE): https://a/ stands twice",
        ),
        (
            "[auth]\njwks_floor = '6m'",
            "auth.jwks_floor (in FILE): must be at most auth.jwks_refresh",
        ),
        (
            "[auth]\njwks_stale_max = '4m'",
            "auth.jwks_stale_max (in FILE): must be at least auth.jwks_refresh: a set would be too old before it is fetched anew",
        ),
        (
            "[auth]\njwks_stale_max = '32days'",
            "auth.jwks_stale_max (in FILE): must be at most 31days",
        ),
        (
            "[auth]\njwks_ca_file = '/nowhere'",
            "auth.jwks_ca_file (in FILE): /nowhere cannot be read: No such file or directory (os error 2)",
        ),
        (
            "[[auth.keys]]\nalgorithm = 'none'\nsecret = '0123456789abcdef0123456789abcdef'",
            "auth.keys, entry 1: algorithm (in FILE): \"none\" is not one of HS256, HS384, HS512, RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, EdDSA",
        ),
        (
            "[[auth.keys]]\nalgorithm = 'HS512'\nsecret = '0123456789abcdef0123456789abcdef'",
            "auth.keys, entry 1: secret (in FILE): a secret for HS512 has at least 64 bytes, and this one has 32",
        ),
        (
            "[auth]\nissuers = ['https://login.example.com']",
            "auth.issuers (in FILE): needs a key of tokens: auth.token_secret or auth.keys",
        ),
        (
            "[auth]\nquery_token = true",
            "auth.query_token (in FILE): needs a key of tokens: auth.token_secret or auth.keys",
        ),
        (
            "[auth]\ntoken_secret = '0123456789abcdef0123456789abcdef'\n[[auth.rules]]\ntopics = 'user:{sub'",
            "auth.rules, entry 1: topics (in FILE): \"user:{sub\" is not a rule: a { has no }",
        ),
        (
            "[auth]\nanonymous = ['a,b']",
            "auth.anonymous (in FILE): \"a,b\" is not a pattern: a topic has no control character and none of # * ,",
        ),
        (
            "[auth]\nleeway = '11m'",
            "auth.leeway (in FILE): must be at most 10m",
        ),
        (
            "[auth]\ntoken_bytes_max = 65537",
            "auth.token_bytes_max (in FILE): must be at most 65536",
        ),
        (
            "[auth]\npatterns_max = 1001",
            "auth.patterns_max (in FILE): must be at most 1000: each request goes through them",
        ),
        (
            "[auth]\ncookie = 'a b'",
            "auth.cookie (in FILE): \"a b\" is not a cookie's name",
        ),
        (
            "[[auth.publishers]]\nname = 'token'\nhash = 'sha256:2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881'\ntopics = ['a']",
            "auth.publishers, entry 1: name (in FILE): must not be one of anyone, publish_key, token: they stand for others",
        ),
        (
            "[[auth.publishers]]\nname = 'p'\nhash = 'x'\ntopics = ['a']",
            "auth.publishers, entry 1: hash (in FILE): must be the hash that tidegate key new prints",
        ),
        (
            "[[auth.publishers]]\nname = 'p'\nhash = 'sha256:2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881'",
            "auth.publishers, entry 1: topics: must name at least one pattern",
        ),
        (
            "[[auth.publishers]]\nname = 'p'\nhash = 'sha256:2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881'\ntopics = ['a']\nactions = ['write']",
            "auth.publishers, entry 1: actions (in FILE): \"write\" is not one of subscribe, publish, end, delete, list, disconnect, operate",
        ),
        (
            "[stream]\nheartbeat = '15'",
            "stream.heartbeat (in FILE): \"15\" is not a duration such as 500ms, 15s or 24h",
        ),
        (
            "[stream]\nheartbeat = '0s'",
            "stream.heartbeat (in FILE): must be longer than zero",
        ),
        (
            "[stream]\nopen_event = 'on'",
            "stream.open_event (in FILE): \"on\" is not true or false",
        ),
        (
            "[stream]\nretry = ['1s']",
            "stream.retry (in FILE): must be a single value",
        ),
        (
            "[log]\nevents_max = 0",
            "log.events_max (in FILE): must be at least 1",
        ),
        (
            "[publish]\nbatch_events_max = 1001",
            "publish.batch_events_max (in FILE): must be at most 1000: a batch is one atomic step, and everything else waits for it",
        ),
        (
            "[publish]\nbodies_bytes_max = 4194303",
            "publish.bodies_bytes_max (in FILE): must be at least publish.batch_bytes_max and publish.event_bytes_max: one body must fit",
        ),
        (
            "[log]\nwait_replicas = 1",
            "log.wait_replicas (in FILE): must be 0 without redis.url",
        ),
        (
            "[log]\noverrides = 5",
            "log.overrides (in FILE): must be a list of tables",
        ),
        (
            "[log]\noverrides = [1]",
            "log.overrides (in FILE): must be a list of tables",
        ),
        (
            "[[log.overrides]]\nevents_max = 5",
            "log.overrides, entry 1: topics: \"\" is not a pattern: a topic has at least one byte",
        ),
        (
            "[[log.overrides]]\ntopics = 'a'\n[[log.overrides]]\ntopics = 'a,b'",
            "log.overrides, entry 2: topics (in FILE): \"a,b\" is not a pattern: a topic has no control character and none of # * ,",
        ),
        (
            "[[log.overrides]]\ntopics = 'a'\nevents_max = 0",
            "log.overrides, entry 1: events_max (in FILE): must be at least 1",
        ),
        (
            "[[log.overrides]]\ntopics = 'a'\nevent_max = 1",
            "log.overrides, entry 1: event_max (in FILE): there is no such key; did you mean events_max?",
        ),
        (
            "[[log.overrides]]\ntopics = 'a'\nlog = false\nage_max = '1h'",
            "log.overrides, entry 1: age_max (in FILE): has no meaning with log = false",
        ),
        (
            "[replica]\nname = 'r 1'",
            "replica.name (in FILE): must be 1 to 64 bytes without spaces",
        ),
        (
            "[redis]\nurl = 'localhost'",
            "redis.url (in FILE): must begin with redis://, rediss://, redis+sentinel:// or rediss+sentinel://",
        ),
        (
            "[redis]\nurl = 'redis+sentinel://a,b'",
            "redis.url (in FILE): names no master: redis+sentinel://host:port,host:port/master-name",
        ),
        (
            "[redis]\nurl = 'redis+sentinel://a,b/main/1'",
            "redis.url (in FILE): has more than the name of the master after the hosts; name a database with ?db=1",
        ),
        (
            "[redis]\nurl = 'redis://a'\nsentinel_password = 'x'",
            "redis.url (in FILE): must begin with redis+sentinel:// if redis.sentinel_* is set",
        ),
        (
            "[redis]\nprefix = 'Tide'",
            "redis.prefix (in FILE): must be lower-case letters, digits and _, and begin with a letter: function names contain it",
        ),
        (
            "[redis]\npartitions = 4",
            "redis.partitions (in FILE): must be 1 without redis.url",
        ),
        (
            "[ingest]\nchannel = 'a*'",
            "ingest.channel (in FILE): must be a plain name without spaces and none of * ? [ ] \\ # ,",
        ),
        (
            "[ingest]\nchannel = 'tidegate'",
            "ingest.channel (in FILE): must not begin with redis.prefix, \"tidegate\": the gateway would hear its own publishes, and publish them again for ever",
        ),
        (
            "[redis]\nprefix = 'p'\n[ingest]\nchannel = 'p:{0}:live'",
            "ingest.channel (in FILE): must not begin with redis.prefix, \"p\": the gateway would hear its own publishes, and publish them again for ever",
        ),
        (
            "[ingest]\nmap = [1]",
            "ingest.map (in FILE): must be a list of tables",
        ),
        (
            "[[ingest.map]]\nchannel = 'orders.?'\ntopic = 'orders'",
            "ingest.map, entry 1: channel (in FILE): \"orders.?\" cannot be heard: of Redis' patterns only * is taken: it has none of ? [ ] \\ and comma, no white space and no control character",
        ),
        (
            "[[ingest.map]]\ntopic = 'orders'",
            "ingest.map, entry 1: channel: \"\" cannot be heard: a channel has 1 to 255 bytes",
        ),
        (
            "[[ingest.map]]\nchannel = 'a**'\ntopic = 'orders'",
            "ingest.map, entry 1: channel (in FILE): \"a**\" cannot be heard: it has at most 8 stars, and something between any two",
        ),
        (
            "[[ingest.map]]\nchannel = 'orders.*'\ntopic = 'orders:{2}'",
            "ingest.map, entry 1: topic (in FILE): \"orders:{2}\" makes no topic: {2} is the text of a star that the channel does not have",
        ),
        (
            "[[ingest.map]]\nchannel = 'orders.*'\ntopic = 'orders:{id}'",
            "ingest.map, entry 1: topic (in FILE): \"orders:{id}\" makes no topic: a brace is part of {1}, {2} and so on, the text of the first star, the second",
        ),
        (
            "[[ingest.map]]\nchannel = 'orders.*'",
            "ingest.map, entry 1: topic: \"\" makes no topic: a topic has at least one byte",
        ),
        (
            "[[ingest.map]]\nchannel = 'orders.*'\ntopic = 'o'\ntypefield = 'kind'",
            "ingest.map, entry 1: typefield (in FILE): there is no such key; did you mean type_field?",
        ),
        (
            "[[ingest.map]]\nchannel = 't*'\ntopic = 'o'",
            "ingest.map, entry 1: channel (in FILE): \"t*\" would hear what the gateway publishes itself below redis.prefix, \"tidegate:\", and publish it again, without end",
        ),
        (
            "[redis]\nprefix = 'p'\n[[ingest.map]]\nchannel = 'p:{0}:live:x'\ntopic = 'o'",
            "ingest.map, entry 1: channel (in FILE): \"p:{0}:live:x\" would hear what the gateway publishes itself below redis.prefix, \"p:\", and publish it again, without end",
        ),
        (
            "[[ingest.map]]\nchannel = 'even*'\ntopic = 'o'",
            "ingest.map, entry 1: channel (in FILE): \"even*\" would hear ingest.channel, \"events\" and \"events:*\", which is heard already",
        ),
        (
            "[[ingest.map]]\nchannel = '__keyspace@0__:x:*'\ntopic = 'o'",
            "ingest.map, entry 1: channel (in FILE): \"__keyspace@0__:x:*\" would hear what Redis publishes itself, \"__keyspace@0__:...\" and the like: each write of the gateway would be an event, and a write again",
        ),
        (
            "[[ingest.map]]\nchannel = 'a.*'\ntopic = 'o'\n[[ingest.map]]\nchannel = 'a.b'\ntopic = 'p'",
            "ingest.map (in FILE): \"a.b\" is never the first entry that fits: \"a.*\" before it has all its channels",
        ),
        (
            "[server]\nhosts = 5",
            "server.hosts (in FILE): must be a list of texts",
        ),
        (
            "[server]\nhosts = ['a', 5]",
            "server.hosts (in FILE): must be a list of texts",
        ),
        (
            "[server]\nhosts = ['http://a']",
            "server.hosts (in FILE): \"http://a\" is not a name such as events.example.com or *.example.com, without scheme and port",
        ),
        (
            "[cors]\norigins = ['app.example.com']",
            "cors.origins (in FILE): \"app.example.com\" is not an origin such as https://app.example.com, https://*.example.com, null or *, without a path",
        ),
        (
            "[server]\ndiscard_time = '0s'",
            "server.discard_time (in FILE): must be longer than zero",
        ),
        (
            "[logging]\nformat = 'xml'",
            "logging.format (in FILE): \"xml\" is not one of text, json",
        ),
        (
            "[logging]\nlevel = 'a=b=c'",
            "logging.level (in FILE): must be a level or a filter, such as info or tidegate=debug",
        ),
        (
            "[auth]\npublish_key_file = '/nowhere'",
            "auth.publish_key_file (in FILE): /nowhere cannot be read: No such file or directory (os error 2)",
        ),
        (
            "[server]\nlisten = ",
            "the configuration cannot be read: FILE: TOML parse error at line 2, column 10: string values must be quoted, expected literal string",
        ),
        (
            "[log]\nage_max = '1h'\nage_max = '2h'",
            "the configuration cannot be read: FILE: TOML parse error at line 3, column 1: duplicate key",
        ),
    ];
    for (text, sentence) in table {
        assert_eq!(
            faults(text, &[]),
            [format!("tidegate: {sentence}")],
            "{text}"
        );
    }
    let output = run(&["check-config", "--config", "nowhere.toml"], &[]);
    assert_eq!(output.code, FAULTY);
    assert_eq!(
        output.stderr,
        "tidegate: the configuration cannot be read: configuration file \"nowhere.toml\" not found"
    );
}

#[test]
fn an_unknown_key_is_answered_with_the_nearest_known_one() {
    let table = [
        (
            "[stream]\nheart_beat = '1s'",
            "stream.heart_beat",
            "stream.heartbeat",
        ),
        ("[strem]\nretry = '1s'", "strem.retry", "stream.retry"),
        ("[server]\nlissten = 'x'", "server.lissten", "server.listen"),
        ("[redis]\nuri = 'x'", "redis.uri", "redis.url"),
        (
            "[auth]\npublishkey = 'x'",
            "auth.publishkey",
            "auth.publish_key",
        ),
        ("[log.events]\nmax = 5", "log.events.max", "log.events_max"),
    ];
    for (text, key, nearest) in table {
        let sentence =
            format!("tidegate: {key} (in FILE): there is no such key; did you mean {nearest}?");
        assert_eq!(faults(text, &[]), [sentence]);
    }
    let environment = [("TIDEGATE__STREAM__HEARBEAT", "1s")];
    assert_eq!(
        faults("", &environment),
        [
            "tidegate: stream.hearbeat (in the environment): there is no such key; did you mean stream.heartbeat?"
        ]
    );
}

#[test]
fn faults_end_the_start_before_a_socket_opens() {
    // Were the socket first, the sentence would be about the port, which is taken.
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for arguments in [
        &["serve", "--listen", &address][..],
        &["--listen", &address],
    ] {
        let output = run(arguments, &[("TIDEGATE__STREAM__RETRY", "soon")]);
        assert_eq!(output.code, FAULTY, "{output:?}");
        assert_eq!(
            output.stderr,
            "tidegate: stream.retry (in the environment): \"soon\" is not a duration such as 500ms, 15s or 24h"
        );
    }
}

#[test]
fn a_port_in_use_ends_the_start_with_its_address() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let free = "127.0.0.1:0";
    for (main, ops) in [(address.as_str(), ""), (free, address.as_str())] {
        let environment = [
            ("TIDEGATE__SERVER__LISTEN", main),
            ("TIDEGATE__OPS__LISTEN", ops),
        ];
        let output = run(&["serve"], &environment);
        assert_eq!(output.code, Some(1), "{output:?}");
        assert_eq!(
            output.stderr,
            format!(
                "tidegate: {address} is in use by another process; choose another address for server.listen or ops.listen"
            )
        );
    }
}

#[test]
fn flags_win_over_the_environment_and_the_environment_over_the_file() {
    let (_directory, path) = file("[replica]\nname = 'file'\n[logging]\nformat = 'json'\n");
    let path = path.to_str().unwrap();
    let environment = ("TIDEGATE__REPLICA__NAME", "environment");
    let flag = ["--replica-name", "flag"];
    let table: [(&[&str], &[(&str, &str)], &str); 4] = [
        (&[], &[], "file"),
        (&[], &[environment], "environment"),
        (&flag, &[environment], "flag"),
        (&flag, &[], "flag"),
    ];
    for (flags, environment, expected) in table {
        let mut command = binary();
        command
            .args(["serve", "--config", path, "--listen", "127.0.0.1:0"])
            .args(flags)
            .envs(environment.iter().copied());
        let process = Process::spawn("tidegate", &mut command).unwrap();
        let replica = process.stderr.wait_for(|line| {
            let line: serde_json::Value = serde_json::from_str(line).ok()?;
            line["fields"]["replica"].as_str().map(str::to_owned)
        });
        assert_eq!(
            replica.as_deref(),
            Some(expected),
            "{flags:?} {environment:?}"
        );
    }
}

#[test]
fn the_file_can_be_named_by_the_environment() {
    let (_directory, path) = file("[stream]\nretry = 'soon'\n");
    let output = run(
        &["check-config"],
        &[("TIDEGATE_CONFIG", path.to_str().unwrap())],
    );
    assert_eq!(output.code, FAULTY, "{output:?}");
    assert!(output.stderr.contains("stream.retry"), "{output:?}");
}

#[test]
fn beyond_loopback_publishing_has_a_key_or_is_open_in_so_many_words() {
    let (_directory, key_file) = file("from a file\n");
    let key_file = key_file.to_str().unwrap();
    let beyond = "is beyond loopback: set auth.publish_key, auth.publishers or auth.token_secret";
    let not_the_words = "auth.open_publishing (in the environment): must be exactly \"anyone who can reach this address may publish\"";
    // Address, key, value, and what is said against it; nothing for a good start.
    let table = [
        ("127.0.0.1:8081", "", "", ""),
        ("[::1]:8081", "", "", ""),
        ("0.0.0.0:8081", "", "", beyond),
        ("[::]:8081", "", "", beyond),
        ("192.0.2.1:8081", "", "", beyond),
        ("0.0.0.0:8081", "AUTH__PUBLISH_KEY", "", beyond),
        ("0.0.0.0:8081", "AUTH__PUBLISH_KEY", "a key", ""),
        ("0.0.0.0:8081", "AUTH__PUBLISH_KEY_FILE", key_file, ""),
        ("0.0.0.0:8081", "AUTH__OPEN_PUBLISHING", OPEN_PUBLISHING, ""),
        (
            "0.0.0.0:8081",
            "AUTH__OPEN_PUBLISHING",
            "true",
            not_the_words,
        ),
        (
            "127.0.0.1:8081",
            "AUTH__OPEN_PUBLISHING",
            "true",
            not_the_words,
        ),
    ];
    for (address, key, value, against) in table {
        let name = format!("TIDEGATE__{key}");
        let mut environment = vec![("TIDEGATE__SERVER__LISTEN", address)];
        environment.extend((!key.is_empty()).then_some((name.as_str(), value)));
        let output = run(&["check-config"], &environment);
        let expected = if against.is_empty() { Some(0) } else { FAULTY };
        assert_eq!(output.code, expected, "{environment:?} {output:?}");
        assert!(
            output.stderr.contains(against),
            "{environment:?} {output:?}"
        );
    }
}

#[test]
fn the_key_of_a_file_opens_publishing_without_the_line_end() {
    let (_directory, path) = file("from a file\n");
    let gateway = Gateway::start(&[("auth.publish_key_file", path.to_str().unwrap())]);
    let publish = |key| {
        gateway
            .post("/events/news", &[("Authorization", key)], "x")
            .status
    };
    assert_eq!(publish("Bearer from a file"), 200);
    assert_eq!(publish("Bearer from another"), 401);
}

#[test]
fn secrets_are_never_printed() {
    const SECRET: &str = "s3cr3t";
    let bad = [
        "[auth]\npublish_key = \"s3cr3t\n",
        "[auth]\npublish_key = s3cr3t\n",
        "[auth]\npublish_key = [\"s3cr3t\"]\n",
        "[auth]\npublish_ky = \"s3cr3t\"\n",
        "[auth]\ntoken_secret = \"s3cr3t\"\n",
        "[[auth.keys]]\nsecret = \"s3cr3t\"\n",
        "[[auth.keys]]\nalgorithm = \"RS256\"\nsecret = \"s3cr3t, which is long enough for any\"\n",
        "[[auth.publishers]]\nname = \"p\"\nhash = \"s3cr3t\"\ntopics = [\"a\"]\n",
        "[auth.publish_key]\nvalue = \"s3cr3t\"\n",
        "[redis]\nurl = \"redis://user:s3cr3t@host:port\"\n",
        "[redis]\nurl = \"redis://user:s3cr3t@host:99999\"\n",
        "[redis]\nurl = \"user:s3cr3t@host\"\n",
        "[redis]\nurl = \"redis+sentinel://user:s3cr3t@host\"\n",
        "[redis]\nurl = \"redis://user:s3cr3t@host\n",
    ];
    for text in bad {
        let said = faults(text, &[]).join("\n");
        assert!(!said.contains(SECRET), "{text}{said}");
    }
    let good = format!(
        "[auth]\npublish_key = '{SECRET}'\ntoken_secret = '{SECRET}, which is long enough for HS256'\n[redis]\nurl = 'redis://u:{SECRET}@127.0.0.1'\n"
    );
    assert!(!loaded(&good).contains(SECRET), "{}", loaded(&good));
}

#[test]
fn a_running_gateway_logs_no_secret() {
    const SECRET: &str = "s3cr3t";
    let redis = Redis::start();
    // A password that Redis does not know: every connection fails, and its failure is logged.
    let url = format!("redis://nobody:{SECRET}@127.0.0.1:{}", redis.port());
    let gateway = Gateway::launch(&[
        ("redis.url", &url),
        ("auth.publish_key", SECRET),
        ("logging.level", "trace"),
    ]);
    let bearer = format!("Bearer {SECRET}");
    gateway.post(
        "/events/news?key=s3cr3t",
        &[("Authorization", &bearer)],
        SECRET,
    );
    gateway.post(
        "/events/news",
        &[("Authorization", "Bearer s3cr3t2")],
        SECRET,
    );
    gateway
        .wait_for_log("no live path to Redis; trying again")
        .unwrap();
    for line in gateway.log() {
        assert!(!line.contains(SECRET), "{line}");
    }
}

#[test]
fn a_replica_starts_without_redis_and_is_ready_once_it_is_there() {
    let mut redis = Redis::start();
    redis.kill();
    let mut gateway =
        Gateway::launch_over(&redis, &[("stream.open_wait", "0s"), ("drain.time", "0s")]);
    assert_eq!(gateway.get("/healthz").status, 200);
    assert_eq!(
        gateway.get("/readyz").problem(503),
        "the log was not reached yet"
    );
    assert_eq!(
        gateway.post("/events/news", &[], "x").problem(503),
        "the log cannot be reached"
    );
    // The head is there; the stream waits for Redis.
    let mut stream = gateway.open("/events/news", &[]);
    assert_eq!(stream.status(), 200);
    redis.restart();
    gateway.wait_ready();
    stream.opened();
    let id = gateway.publish("news", "at last");
    let event = stream.next_published();
    assert_eq!((event.id(), event.data.as_str()), (id.as_str(), "at last"));
    gateway.terminate();
    assert!(gateway.wait().success());
}
