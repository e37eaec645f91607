//! Every scenario.

use super::Deed::{
    Build, Burst, Choose, Clock, Delete, Failover, Forget, Link, Part, Redis, Replies, StopReaders,
};
use super::{Build as Which, Expectation, Scenario, Script, Setup, Size, Victim, Whom};
use crate::cluster::Verb::{Kill, Pause, Reload, Restart, Resume, Start, Stop};
use crate::event::{Shape, Way};
use crate::link::Which::{Every, Next};
use crate::link::{Mishap, Rule, State};
use std::time::Duration;

/// Many topics and subscribers, a minute long.
pub const LARGE: Size = Size {
    shape: Shape {
        topics: 50,
        padding_max: 120,
    },
    subscribers: 200,
    topics_each: (2, 2),
    burst: 0,
    per_second: 500,
    time: Duration::from_secs(60),
    faults_max: u32::MAX,
    retry_max: Duration::from_secs(5),
    receive_buffer: None,
    stay_max: None,
    away_max: Duration::from_millis(200),
};

/// For every change.
const SHORT: Size = Size {
    shape: Shape {
        topics: 5,
        padding_max: 120,
    },
    subscribers: 12,
    topics_each: (1, 3),
    burst: 2_000,
    per_second: 300,
    time: Duration::from_secs(4),
    retry_max: Duration::from_secs(1),
    ..LARGE
};

/// For faults of half a minute each.
const LONG: Size = Size {
    time: Duration::from_secs(110),
    ..LARGE
};

/// Hardly anything is published but what the script does in bursts.
const QUIET: Size = Size {
    shape: Shape {
        topics: 6,
        padding_max: 120,
    },
    subscribers: 100,
    topics_each: (1, 1),
    burst: 600,
    per_second: 2,
    stay_max: Some(Duration::from_secs(4)),
    ..LARGE
};

/// Nothing is explained.
const PROMISE: Expectation = Expectation {
    gaps: &[],
    log_forgets: None,
    ears_lost_within: None,
    deleted_within: None,
    tries_max: None,
    replicas_end: false,
};

/// All ears are cut at once. Until one counts again, connections that only begin to listen are receivers of
/// a raw publish too.
const EARS_CUT: Expectation = Expectation {
    ears_lost_within: Some(Duration::from_secs(1)),
    ..PROMISE
};

/// The master is lost, and with it what its replica had not been sent yet.
const MASTER_LOST: Expectation = Expectation {
    gaps: &["rewound", "ahead"],
    log_forgets: Some(Duration::from_secs(3)),
    ears_lost_within: Some(Duration::from_secs(3)),
    ..PROMISE
};

/// The whole log is lost.
const LOG_LOST: Expectation = Expectation {
    gaps: &["log_lost", "ahead"],
    log_forgets: Some(Duration::MAX),
    ears_lost_within: Some(Duration::from_secs(3)),
    ..PROMISE
};

/// How late replies are: less than the gateway's patience, `redis.command_timeout`.
const LATE: Duration = Duration::from_millis(1_500);

/// Pages of the log are late.
const READS_LATE: &[Rule] = &[rule("_read", Every(1), Mishap::Late(LATE))];

const fn rule(command: &'static str, which: crate::link::Which, mishap: Mishap) -> Rule {
    Rule {
        command,
        which,
        mishap,
    }
}

/// The base of all: each entry says what is different.
const SCENARIO: Scenario = Scenario {
    name: "",
    about: "",
    full: LARGE,
    short: None,
    redis: Setup::Plain,
    gateway: &[],
    ways: &Way::ALL,
    foreign: 0,
    script: Script {
        times: 0,
        fault: &[],
    },
    expectation: PROMISE,
};

const REDIS: Whom = Whom::Named("redis");
const R1: Whom = Whom::Named("r1");
const R2: Whom = Whom::Named("r2");
const R3: Whom = Whom::Named("r3");

/// Logs of the topics that others write to.
const ALIEN_0: &str = "tidegate:{0}:log:alien0";
const ALIEN_1: &str = "tidegate:{0}:log:alien1";
const ALIEN_2: &str = "tidegate:{0}:log:alien2";

/// Every scenario.
pub const ALL: &[Scenario] = &[
    Scenario {
        name: "replica-kill",
        about: "a replica is killed with SIGKILL and started again",
        full: Size {
            burst: 10_000,
            ..LARGE
        },
        short: Some(Size {
            faults_max: 1,
            ..SHORT
        }),
        script: Script {
            times: 8,
            fault: &[
                (0, Choose(Victim::Any)),
                (0, Part(Kill, Whom::Victim)),
                (2_000, Part(Start, Whom::Victim)),
            ],
        },
        ..SCENARIO
    },
    Scenario {
        name: "appender-kill",
        about: "the replica that appends raw publishes is killed with SIGKILL",
        script: Script {
            times: 5,
            fault: &[
                (0, Choose(Victim::Appender)),
                (0, Part(Kill, Whom::Victim)),
                (4_000, Part(Start, Whom::Victim)),
            ],
        },
        ..SCENARIO
    },
    Scenario {
        name: "all-replicas-kill",
        about: "all replicas are killed with SIGKILL at once",
        script: Script {
            times: 4,
            fault: &[
                (0, Part(Kill, Whom::Replicas)),
                (3_000, Part(Start, Whom::Replicas)),
            ],
        },
        expectation: EARS_CUT,
        ..SCENARIO
    },
    Scenario {
        name: "appender-stop",
        about: "the replica that appends raw publishes is stopped (SIGSTOP) for 20 s",
        script: Script {
            times: 2,
            fault: &[
                (0, Choose(Victim::Appender)),
                (0, Part(Pause, Whom::Victim)),
                (20_000, Part(Resume, Whom::Victim)),
            ],
        },
        ..SCENARIO
    },
    Scenario {
        name: "rolling-restart",
        about: "one replica after the other is drained (SIGTERM) and started again",
        script: Script {
            times: 1,
            fault: &[(0, Part(Restart, Whom::Replicas))],
        },
        ..SCENARIO
    },
    Scenario {
        name: "pubsub-kill",
        about: "CLIENT KILL TYPE pubsub: every subscription of every replica is cut",
        short: Some(SHORT),
        script: Script {
            times: 10,
            fault: &[(0, Redis(&["CLIENT", "KILL", "TYPE", "pubsub"]))],
        },
        expectation: EARS_CUT,
        ..SCENARIO
    },
    Scenario {
        name: "redis-restart",
        about: "Redis is stopped (SIGTERM) and started again after 10 s, AOF always",
        script: Script {
            times: 3,
            fault: &[
                (0, Redis(&["CONFIG", "SET", "appendfsync", "always"])),
                (1_000, Part(Stop, REDIS)),
                (11_000, Part(Start, REDIS)),
            ],
        },
        expectation: EARS_CUT,
        ..SCENARIO
    },
    Scenario {
        name: "redis-stop",
        about: "Redis is stopped (SIGSTOP) for 20 s",
        script: Script {
            times: 2,
            fault: &[(0, Part(Pause, REDIS)), (20_000, Part(Resume, REDIS))],
        },
        ..SCENARIO
    },
    Scenario {
        name: "nginx-reload",
        about: "nginx reads its configuration anew every 5 s, with new workers",
        script: Script {
            times: 12,
            fault: &[(0, Part(Reload, Whom::Named("nginx")))],
        },
        ..SCENARIO
    },
    Scenario {
        name: "function-flush",
        about: "FUNCTION FLUSH: the gateway's functions are gone",
        script: Script {
            times: 10,
            fault: &[(0, Redis(&["FUNCTION", "FLUSH"]))],
        },
        ..SCENARIO
    },
    Scenario {
        name: "script-flush",
        about: "SCRIPT FLUSH: every cached script is gone",
        script: Script {
            times: 10,
            fault: &[(0, Redis(&["SCRIPT", "FLUSH"]))],
        },
        ..SCENARIO
    },
    Scenario {
        name: "slow-readers",
        about: "a fifth of the subscribers do not read for 20 s",
        full: Size {
            shape: Shape {
                topics: 50,
                padding_max: 4_000,
            },
            receive_buffer: Some(8 * 1024),
            ..LARGE
        },
        script: Script {
            times: 2,
            fault: &[(0, StopReaders(20)), (20_000, StopReaders(0))],
        },
        ..SCENARIO
    },
    Scenario {
        name: "redis-kill-everysec",
        about: "Redis is killed with SIGKILL, AOF everysec",
        script: Script {
            times: 4,
            fault: &[
                (0, Redis(&["CONFIG", "SET", "appendfsync", "everysec"])),
                (1_000, Part(Kill, REDIS)),
                (3_000, Part(Start, REDIS)),
            ],
        },
        expectation: Expectation {
            gaps: &["rewound"],
            log_forgets: Some(Duration::from_secs(3)),
            ears_lost_within: Some(Duration::from_secs(3)),
            ..PROMISE
        },
        ..SCENARIO
    },
    Scenario {
        name: "redis-rewind",
        about: "Redis is killed with SIGKILL and comes back without the last 300 KB of its log file",
        script: Script {
            times: 4,
            fault: &[
                (0, Part(Kill, REDIS)),
                (0, Forget(300_000)),
                (2_000, Part(Start, REDIS)),
            ],
        },
        expectation: Expectation {
            gaps: &["rewound", "ahead"],
            log_forgets: Some(Duration::from_secs(5)),
            ears_lost_within: Some(Duration::from_secs(5)),
            ..PROMISE
        },
        ..SCENARIO
    },
    Scenario {
        name: "flushall",
        about: "FLUSHALL: the log itself is gone",
        script: Script {
            times: 3,
            fault: &[(0, Redis(&["FLUSHALL"]))],
        },
        expectation: LOG_LOST,
        ..SCENARIO
    },
    Scenario {
        name: "sentinel-failover",
        about: "the master is killed with SIGKILL, sentinels replace it, and it comes back",
        full: LONG,
        redis: Setup::Sentinels,
        script: Script {
            times: 3,
            fault: &[
                (0, Choose(Victim::Master)),
                (0, Part(Kill, Whom::Victim)),
                (0, Failover),
                (6_000, Part(Start, Whom::Victim)),
            ],
        },
        expectation: MASTER_LOST,
        ..SCENARIO
    },
    Scenario {
        name: "sentinel-lag",
        about: "the same, and the replica that takes over lacks the last second",
        full: LONG,
        redis: Setup::Sentinels,
        script: Script {
            times: 3,
            fault: &[
                (0, Choose(Victim::Master)),
                (0, Part(Pause, Whom::Standby)),
                (0, Redis(&["CLIENT", "KILL", "TYPE", "replica"])),
                (1_000, Part(Kill, Whom::Victim)),
                (1_000, Part(Resume, Whom::Standby)),
                (1_000, Failover),
                (7_000, Part(Start, Whom::Victim)),
            ],
        },
        expectation: MASTER_LOST,
        ..SCENARIO
    },
    Scenario {
        name: "clock-back",
        about: "the clock of Redis goes back by an hour, and forward again; then the other way round",
        redis: Setup::Clock,
        script: Script {
            times: 2,
            fault: &[
                (0, Clock(-3_600)),
                (5_000, Clock(0)),
                (10_000, Clock(3_600)),
                (15_000, Clock(0)),
            ],
        },
        ..SCENARIO
    },
    Scenario {
        name: "link-cut",
        about: "the link of a replica to Redis is cut for 30 s, then those of all",
        full: LONG,
        redis: Setup::Linked,
        script: Script {
            times: 1,
            fault: &[
                (0, Choose(Victim::Appender)),
                (0, Link(State::Cut, Whom::Victim)),
                (30_000, Link(State::Open, Whom::Victim)),
                (35_000, Link(State::Cut, Whom::Replicas)),
                (65_000, Link(State::Open, Whom::Replicas)),
            ],
        },
        expectation: EARS_CUT,
        ..SCENARIO
    },
    Scenario {
        name: "link-drop",
        about: "the link of a replica to Redis swallows everything for 30 s, then those of all",
        full: LONG,
        redis: Setup::Linked,
        script: Script {
            times: 1,
            fault: &[
                (0, Choose(Victim::Appender)),
                (0, Link(State::Silent, Whom::Victim)),
                (30_000, Link(State::Open, Whom::Victim)),
                (35_000, Link(State::Silent, Whom::Replicas)),
                (65_000, Link(State::Open, Whom::Replicas)),
            ],
        },
        ..SCENARIO
    },
    Scenario {
        name: "link-slow",
        about: "the link of a replica to Redis carries 2 KB/s for 30 s, then those of all",
        full: LONG,
        redis: Setup::Linked,
        script: Script {
            times: 1,
            fault: &[
                (0, Choose(Victim::Appender)),
                (0, Link(State::Slow(2_000), Whom::Victim)),
                (30_000, Link(State::Open, Whom::Victim)),
                (35_000, Link(State::Slow(2_000), Whom::Replicas)),
                (65_000, Link(State::Open, Whom::Replicas)),
            ],
        },
        ..SCENARIO
    },
    Scenario {
        name: "buffer-overflow",
        about: "Redis cuts subscriptions whose output buffer passes 8 KB, under bursts",
        script: Script {
            times: 5,
            fault: &[
                (
                    0,
                    Redis(&[
                        "CONFIG",
                        "SET",
                        "client-output-buffer-limit",
                        "pubsub 8kb 0 0",
                    ]),
                ),
                (500, Burst(2_000)),
                (
                    4_000,
                    Redis(&[
                        "CONFIG",
                        "SET",
                        "client-output-buffer-limit",
                        "pubsub 32mb 8mb 60",
                    ]),
                ),
            ],
        },
        ..SCENARIO
    },
    Scenario {
        name: "maxmemory",
        about: "Redis refuses writes because maxmemory is reached, for 5 s",
        script: Script {
            times: 4,
            fault: &[
                (0, Redis(&["CONFIG", "SET", "maxmemory", "1mb"])),
                (5_000, Redis(&["CONFIG", "SET", "maxmemory", "0"])),
            ],
        },
        ..SCENARIO
    },
    Scenario {
        name: "reply-late",
        about: "a replica is killed and started again, pages of the log are late by 1.5 s, and windows are outrun meanwhile",
        full: QUIET,
        short: Some(Size {
            subscribers: 60,
            time: Duration::from_secs(8),
            faults_max: 1,
            stay_max: Some(Duration::from_millis(1_200)),
            retry_max: Duration::from_secs(1),
            ..QUIET
        }),
        redis: Setup::Linked,
        // Small, so that bursts outrun it within the time of a reply on a busy machine, too.
        gateway: &[("TIDEGATE__WINDOW__EVENTS_MAX", "128")],
        // The page that does harm is one that has nothing new on it.
        ways: &[Way::Raw, Way::Post],
        script: Script {
            times: 6,
            fault: &[
                (0, Replies(READS_LATE)),
                (0, Choose(Victim::Any)),
                (450, Part(Kill, Whom::Victim)),
                (450, Part(Start, Whom::Victim)),
                (2_800, Burst(4_000)),
                (5_000, Replies(&[])),
            ],
        },
        ..SCENARIO
    },
    Scenario {
        name: "delete-late",
        about: "the same, and all topics are deleted while pages of the log are on their way",
        full: Size {
            away_max: Duration::from_secs(6),
            ..LARGE
        },
        redis: Setup::Linked,
        script: Script {
            times: 4,
            fault: &[
                (0, Replies(READS_LATE)),
                (0, Choose(Victim::Any)),
                (500, Part(Kill, Whom::Victim)),
                (600, Part(Start, Whom::Victim)),
                (3_000, Delete),
                (8_000, Replies(&[])),
            ],
        },
        expectation: Expectation {
            // Who comes back with a cursor from before is told that the log begins later now.
            gaps: &["trimmed"],
            // A page that was asked for before, and half a second for the word to come round.
            deleted_within: Some(Duration::from_secs(2)),
            ..PROMISE
        },
        ..SCENARIO
    },
    Scenario {
        name: "reply-lost",
        about: "every third reply to a publish, an append or a read is lost: the connection is closed instead",
        redis: Setup::Linked,
        // So small that nearly every stream that comes back reads the log.
        gateway: &[("TIDEGATE__WINDOW__EVENTS_MAX", "2")],
        script: Script {
            times: 4,
            fault: &[
                (
                    0,
                    Replies(&[
                        rule("_publish", Every(3), Mishap::Lost),
                        rule("_append", Every(3), Mishap::Lost),
                        rule("_inbox", Every(3), Mishap::Lost),
                    ]),
                ),
                (2_000, Replies(&[rule("_read", Every(3), Mishap::Lost)])),
                (4_000, Replies(&[])),
            ],
        },
        ..SCENARIO
    },
    Scenario {
        name: "report-lost",
        about: "Redis is stopped (SIGTERM) and started again, AOF always, and the first replies to what replicas tell it then are lost",
        redis: Setup::Linked,
        script: Script {
            times: 3,
            fault: &[
                (0, Redis(&["CONFIG", "SET", "appendfsync", "always"])),
                (1_000, Part(Stop, REDIS)),
                (
                    1_000,
                    Replies(&[
                        rule("_report", Next, Mishap::Lost),
                        rule("_configure", Next, Mishap::Lost),
                        rule("_tick", Every(2), Mishap::Lost),
                    ]),
                ),
                (3_000, Part(Start, REDIS)),
                (11_000, Replies(&[])),
            ],
        },
        expectation: EARS_CUT,
        ..SCENARIO
    },
    Scenario {
        name: "lane-dead",
        about: "the connection on which a replica publishes takes everything and answers nothing more; a new one would",
        redis: Setup::Linked,
        // One publisher over HTTP: another one that comes meanwhile may find out for it.
        ways: &[Way::Raw, Way::Function, Way::Inbox, Way::Post],
        script: Script {
            times: 2,
            fault: &[
                // It dies while nothing is under way; then, under a publish.
                (0, Replies(&[rule("_publish", Next, Mishap::Last)])),
                (
                    10_000,
                    Replies(&[rule("_publish", Next, Mishap::Swallowed)]),
                ),
                (16_000, Replies(&[])),
            ],
        },
        expectation: Expectation {
            // Each of three replicas may fail the same event once, and nginx may come back to one of them.
            tries_max: Some(6),
            ..PROMISE
        },
        ..SCENARIO
    },
    Scenario {
        name: "flushall-clock",
        about: "FLUSHALL while the clock of Redis is ahead by an hour, after it went back, and after it went back further",
        redis: Setup::Clock,
        script: Script {
            times: 2,
            fault: &[
                (0, Clock(3_600)),
                (2_000, Redis(&["FLUSHALL"])),
                (5_000, Clock(0)),
                (7_000, Redis(&["FLUSHALL"])),
                (10_000, Clock(-3_600)),
                (12_000, Redis(&["FLUSHALL"])),
                (15_000, Clock(0)),
            ],
        },
        expectation: Expectation {
            // A clock that begins below what replicas have heard is moved above it, as after any rewind.
            // What a replica hears below that before it ends, streams have gone past.
            gaps: &["log_lost", "ahead", "rewound", "late"],
            // No stream can go on whose log is set back by more than an hour, so its replica begins anew.
            replicas_end: true,
            ..LOG_LOST
        },
        ..SCENARIO
    },
    Scenario {
        name: "foreign-entry",
        about: "others write to logs what is none of ours: no predecessor, a strange one, ids beyond 2^53; then CLIENT KILL TYPE pubsub",
        foreign: 3,
        script: Script {
            times: 4,
            fault: &[
                (0, Redis(&["DEL", ALIEN_0, ALIEN_1, ALIEN_2])),
                (
                    500,
                    Redis(&[
                        "XADD", ALIEN_0, "*", "prev", "junk", "type", "alien", "data", "x",
                    ]),
                ),
                (500, Redis(&["XADD", ALIEN_1, "*", "colour", "green"])),
                (
                    500,
                    Redis(&[
                        "XADD",
                        ALIEN_2,
                        "9007199254740993-1",
                        "prev",
                        "9007199254740992-1",
                        "type",
                        "alien",
                        "data",
                        "x",
                    ]),
                ),
                (1_000, Redis(&["CLIENT", "KILL", "TYPE", "pubsub"])),
            ],
        },
        expectation: EARS_CUT,
        ..SCENARIO
    },
    Scenario {
        name: "two-builds",
        about: "replicas of an older build are replaced one by one by those of this one, and back again",
        full: LONG,
        redis: Setup::TwoBuilds,
        // Streams are ended within this time, so that both ways fit in.
        gateway: &[("TIDEGATE__DRAIN__TIME", "5s")],
        script: Script {
            times: 1,
            fault: &[
                (0, Build(Which::New)),
                (0, Part(Restart, R1)),
                (8_000, Part(Restart, R2)),
                (16_000, Part(Restart, R3)),
                (30_000, Build(Which::Old)),
                (30_000, Part(Restart, R1)),
                (38_000, Part(Restart, R2)),
                (46_000, Part(Restart, R3)),
            ],
        },
        ..SCENARIO
    },
];
