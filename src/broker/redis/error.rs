//! Why a command was not done: the one place that reads what Redis says of it.

use crate::broker::BrokerError;
use crate::topic::PartitionNo;
use redis::{ErrorKind, RedisError};

/// How Redis begins to say that a function did what its caller may not: 7.0, and later ones.
const IN_FUNCTIONS: [&str; 2] = [
    "The user executing the script can't",
    "ACL failure in script",
];

/// Why a command was not done, as this folder needs to know it. Callers get a [`BrokerError`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum CommandError {
    /// The library is not loaded: a server that was emptied, or another one than before.
    NoFunction,
    /// These partitions have no clock: a server that was emptied.
    NoClock(Vec<PartitionNo>),
    /// A library of this name is loaded.
    LibraryExists,
    /// None of this name is loaded.
    NoLibrary,
    /// The server does not know the command.
    UnknownCommand(String),
    /// The server is no master any more. What it reads from then on may be old.
    Demoted(String),
    /// Nothing more comes from this connection; whether the command was done is unknown.
    Lost(String),
    /// Everything else is the caller's to know.
    Broker(BrokerError),
}

impl CommandError {
    /// Whether the connection is of no more use.
    pub(super) fn ends_connection(&self) -> bool {
        matches!(self, Self::Lost(_) | Self::Demoted(_))
    }

    /// The time for an answer is over; whether the command was done is unknown.
    pub(super) fn too_late() -> Self {
        Self::Lost("no answer in time".into())
    }
}

impl From<BrokerError> for CommandError {
    fn from(why: BrokerError) -> Self {
        Self::Broker(why)
    }
}

impl From<CommandError> for BrokerError {
    fn from(why: CommandError) -> Self {
        match why {
            CommandError::NoFunction => Self::Refused("the function library is not loaded".into()),
            CommandError::NoClock(_) => Self::Refused("the partition has no clock".into()),
            CommandError::LibraryExists => Self::Refused("the library is loaded already".into()),
            CommandError::NoLibrary => Self::Refused("the library is not loaded".into()),
            CommandError::UnknownCommand(why) => Self::Refused(why),
            CommandError::Demoted(why) | CommandError::Lost(why) => Self::Unavailable(why),
            CommandError::Broker(why) => why,
        }
    }
}

impl From<RedisError> for CommandError {
    fn from(why: RedisError) -> Self {
        Self::from(&why)
    }
}

impl From<&RedisError> for CommandError {
    fn from(why: &RedisError) -> Self {
        match why.code() {
            Some(code) => of_server(code, why.detail().unwrap_or_default(), why),
            None if why.kind() == ErrorKind::AuthenticationFailed => {
                BrokerError::Refused("the user or the password in redis.url is wrong".into()).into()
            }
            // Not a word of the server: broken, closed, silent for too long, or not understood.
            None => Self::Lost(why.to_string()),
        }
    }
}

/// What the first word of an error of Redis, and the rest of it, say.
fn of_server(code: &str, detail: &str, whole: &RedisError) -> CommandError {
    let count = detail.trim().parse().unwrap_or_default();
    let error = match code {
        "ERR" if detail.starts_with("Function not found") => return CommandError::NoFunction,
        "ERR" if detail.starts_with("Library ") && detail.ends_with("already exists") => {
            return CommandError::LibraryExists;
        }
        "ERR" if detail.starts_with("unknown command") => {
            return CommandError::UnknownCommand(format!("{code} {detail}"));
        }
        "ERR" if detail.starts_with("Library not found") => return CommandError::NoLibrary,
        "TGNOCLOCK" => {
            let partitions = detail.split(' ').filter_map(|word| word.parse().ok());
            return CommandError::NoClock(partitions.collect());
        }
        "READONLY" | "UNBLOCKED" | "MASTERDOWN" => {
            return CommandError::Demoted(whole.to_string());
        }
        "TGENDED" => BrokerError::Ended(detail.to_owned()),
        "TGFOREIGN" => BrokerError::Foreign(detail.to_owned()),
        "TGUNLOGGED" => BrokerError::Unlogged(detail.to_owned()),
        "TGAHEAD" => BrokerError::FarAhead(detail.to_owned()),
        "TGLARGE" => BrokerError::TooLarge(count),
        "TGTOPICS" => BrokerError::TooManyTopics(count),
        "TGDENIALS" => BrokerError::TooManyDenials(count),
        "OOM" => BrokerError::OutOfMemory,
        "NOREPLICAS" | "LOADING" | "BUSY" | "TRYAGAIN" | "MISCONF" => {
            BrokerError::Unavailable(whole.to_string())
        }
        "NOAUTH" => BrokerError::Refused("Redis wants a user; redis.url names none".into()),
        _ if code == "NOPERM" || IN_FUNCTIONS.iter().any(|no| detail.starts_with(no)) => {
            BrokerError::Refused(format!(
                "the Redis user lacks a right: {detail} (deploy/redis/users.acl has all of them, ACL LOG names this one)"
            ))
        }
        _ => BrokerError::Refused(format!("{code} {detail}")),
    };
    error.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is made of an error as a server writes it.
    fn of(line: &str) -> CommandError {
        let answer = redis::parse_redis_value(format!("-{line}\r\n").as_bytes()).unwrap();
        answer.extract_error().unwrap_err().into()
    }

    #[test]
    fn what_a_server_says_is_read_by_its_first_word() {
        let refused = |why: &str| CommandError::Broker(BrokerError::Refused(why.into()));
        let table = [
            ("ERR Function not found", CommandError::NoFunction),
            ("ERR Library not found", CommandError::NoLibrary),
            (
                "ERR Library 'tidegate_0' already exists",
                CommandError::LibraryExists,
            ),
            ("TGNOCLOCK 0 3", CommandError::NoClock(vec![0, 3])),
            ("TGENDED news", BrokerError::Ended("news".into()).into()),
            ("TGLARGE 65536", BrokerError::TooLarge(65_536).into()),
            ("TGTOPICS 10", BrokerError::TooManyTopics(10).into()),
            ("TGDENIALS 9", BrokerError::TooManyDenials(9).into()),
            (
                "OOM command not allowed when used memory > 'maxmemory'.",
                BrokerError::OutOfMemory.into(),
            ),
            (
                "WRONGTYPE Operation against a key",
                refused("WRONGTYPE Operation against a key"),
            ),
            // Topics may be called anything.
            (
                "TGENDED Function not found",
                BrokerError::Ended("Function not found".into()).into(),
            ),
            ("ERR no such thing", refused("ERR no such thing")),
        ];
        for (line, expected) in table {
            assert_eq!(of(line), expected, "{line}");
        }
        for line in [
            "READONLY You can't write against a read only replica.",
            "UNBLOCKED force unblock from blocking operation, instance state changed (master -> replica?)",
            "MASTERDOWN Link with MASTER is down",
        ] {
            assert!(matches!(of(line), CommandError::Demoted(_)), "{line}");
            assert!(of(line).ends_connection(), "{line}");
        }
        for line in ["LOADING Redis is loading", "BUSY Redis is busy", "MISCONF"] {
            let why = of(line);
            assert!(!why.ends_connection(), "{line}");
            assert!(
                matches!(BrokerError::from(why), BrokerError::Unavailable(_)),
                "{line}"
            );
        }
        for line in [
            "NOPERM this user has no permissions to run the 'fcall' command",
            "ERR The user executing the script can't run this command or subcommand",
            "ERR ACL failure in script: this user has no permissions",
        ] {
            let BrokerError::Refused(why) = of(line).into() else {
                panic!("{line}");
            };
            assert!(why.contains("lacks a right"), "{why}");
        }
    }

    #[test]
    fn what_no_server_has_said_ends_the_connection() {
        use std::io::ErrorKind::{BrokenPipe, ConnectionRefused, TimedOut, UnexpectedEof};
        for kind in [BrokenPipe, ConnectionRefused, TimedOut, UnexpectedEof] {
            let why = CommandError::from(RedisError::from(std::io::Error::from(kind)));
            assert!(why.ends_connection(), "{why:?}");
        }
    }
}
