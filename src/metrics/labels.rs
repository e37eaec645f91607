//! The closed sets of words that stand in labels, in logs and in lists.

use crate::sse::GapReason;

/// A closed set: one child of a metric for each value.
pub(super) trait Label: Copy + Eq + 'static {
    /// Every value, in the order of its children.
    const ALL: &'static [Self];

    /// The value as it stands in the label.
    fn text(self) -> &'static str;
}

macro_rules! label {
    ($(#[$about:meta])* $name:ident { $($(#[$doc:meta])* $value:ident = $text:literal,)+ }) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name {
            $($(#[$doc])* $value,)+
        }

        impl $name {
            /// The word in metrics and logs.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$value => $text,)+
                }
            }
        }

        impl Label for $name {
            const ALL: &'static [Self] = &[$(Self::$value),+];

            fn text(self) -> &'static str {
                self.as_str()
            }
        }
    };
}

label! {
    /// Why a stream ended.
    CloseReason {
        /// The client went, or its connection broke.
        Client = "client",
        /// It took nothing for `server.write_timeout`, or did not answer signs of life.
        Timeout = "timeout",
        /// `?limit=` or `?max_age=` was reached.
        Limit = "limit",
        /// It was open for `stream.age_max`, and is cut so that its client goes elsewhere.
        Age = "age",
        /// The right to it has ended, as its client was told before.
        Expired = "expired",
        /// The right to it was taken back, or what that lived by.
        Revoked = "revoked",
        /// All of its topics have ended.
        Ended = "ended",
        /// This replica is going, and the stream's slice of the drain has come.
        Drain = "drain",
        /// It was held longer than `repair.time`.
        Held = "held",
    }
}

label! {
    /// Why a stream was refused.
    Refusal {
        /// The request can never succeed as it is.
        BadRequest = "bad_request",
        /// This replica is going, and takes no new ones.
        Draining = "draining",
        /// `limits.streams_max` are open.
        Limit = "limit",
        /// Its address has as much as one may.
        Address = "address",
        /// It wants topics that nobody reads here, and `limits.feeds_max` are followed.
        Feeds = "feeds",
        /// 401: it must say who it is, or what it says is not good.
        Unauthorized = "unauthorized",
        /// 403: it may not read one of its topics.
        Forbidden = "forbidden",
        /// What would have to be asked is away: it is told to come back.
        Undecided = "undecided",
    }
}

label! {
    /// Which limit an address has reached.
    AddressLimit {
        /// `limits.address.streams_max`: a stream is refused.
        Streams = "streams",
        /// `limits.address.streams_per_second`: a stream is refused.
        StreamRate = "stream_rate",
        /// `limits.address.topics_max`: a stream is refused.
        Topics = "topics",
        /// `limits.address.replays_max`: a read of the log waits.
        Replays = "replays",
        /// `limits.address.publishes_per_second`: a publish is refused.
        PublishRate = "publish_rate",
        /// Its share of `publish.bodies_max` or `publish.bodies_bytes_max`: a publish is refused.
        Bodies = "bodies",
    }
}

label! {
    /// Why a connection was refused that is to begin with the PROXY protocol.
    ProxyRefusal {
        /// It does not come from a trusted proxy.
        Untrusted = "untrusted",
        /// It begins with something else.
        Malformed = "malformed",
    }
}

label! {
    /// Which way a stream goes out.
    WayOut {
        /// On a socket that a thread of `stream::sockets` owns.
        Socket = "socket",
        /// As an ordinary HTTP body.
        Body = "body",
    }
}

label! {
    /// What a stream that is behind waits for.
    Behind {
        /// Its socket takes no more.
        Blocked = "blocked",
        /// A page of the log is under way.
        Reading = "reading",
    }
}

label! {
    /// Where the events came from that a stream showed before it was live.
    ReplaySource {
        /// The window that this replica holds in memory.
        Window = "window",
        /// Pages of the log, read from Redis.
        Log = "log",
    }
}

label! {
    /// How events came into the log.
    Source {
        /// `POST /events`.
        Http = "http",
        /// A plain `PUBLISH`, through an ear.
        Raw = "raw",
        /// `XADD` to the inbox.
        Inbox = "inbox",
    }
}

label! {
    /// Why a publish over HTTP was refused.
    PublishRefusal {
        /// 400: it can never succeed as it is.
        Invalid = "invalid",
        /// 413: more bytes than are allowed.
        TooLarge = "too_large",
        /// 408: its body did not come in `server.body_timeout`.
        Timeout = "timeout",
        /// 409: its topic has ended.
        Ended = "ended",
        /// 401: no key or token, or another one.
        Unauthorized = "unauthorized",
        /// 403: its key or token does not grant it.
        Forbidden = "forbidden",
        /// 429: its address publishes as much as one may, or has its share of what is on its way.
        Address = "address",
        /// 503: the log is away, or does not keep up.
        Unavailable = "unavailable",
        /// 503: as many publishes as may be are on their way already. The log was not asked.
        Busy = "busy",
        /// 503: what would judge its token is away. The log was not asked.
        Undecided = "undecided",
        /// 507: there are as many topics as may be.
        Limit = "limit",
        /// 500: a fault of this process or of the log.
        Internal = "internal",
    }
}

label! {
    /// Why a request was refused before any handler saw it.
    RequestRefusal {
        /// It names two hosts.
        TwoHosts = "two_hosts",
        /// Its path can be read in two ways.
        Path = "path",
        /// It names a host that is not this gateway.
        Host = "host",
        /// A page of another origin would write.
        CrossSite = "cross_site",
        /// A proxy passes a write on, from beyond this machine, and no key is asked for.
        Forwarded = "forwarded",
    }
}

label! {
    /// Why a request has not the right to what it asks for.
    AuthRefusal {
        /// It brought no credential, and what everybody may is not enough.
        Missing = "missing",
        /// It brought two credentials that were both sent on purpose, or two cookies.
        TwoTokens = "two_tokens",
        /// A cookie would write, and no page says where it is from.
        Origin = "origin",
        /// The ticket is unknown, used, or over.
        Ticket = "ticket",
        /// It is no publish key, and no key of a publisher.
        PublishKey = "publish_key",
        /// The token is longer than `auth.token_bytes_max`.
        TooLong = "too_long",
        /// It is no token, or what it says is not what it must be.
        Malformed = "malformed",
        /// Its header has extensions that must be understood.
        Critical = "critical",
        /// No key is called as it says, or too many could be meant.
        Key = "key",
        /// It may be of a key that could not be fetched yet. This is no definite no.
        KeysAway = "keys_away",
        /// It says another algorithm than its key has.
        Algorithm = "algorithm",
        /// It was not signed with that key, or was changed since.
        Signature = "signature",
        /// It is of another type than `auth.token_type`.
        Type = "type",
        /// Another issuer has made it.
        Issuer = "issuer",
        /// It is for somebody else.
        Audience = "audience",
        /// It says no time at which it ends.
        NoExpiry = "no_expiry",
        /// Its time is over.
        Expired = "expired",
        /// Its time has not come.
        NotYet = "not_yet",
        /// It would be good for longer than `auth.token_life_max`.
        LongLife = "long_life",
        /// One of its grants cannot be read.
        Grant = "grant",
        /// It grants more patterns than `auth.patterns_max`.
        Rights = "rights",
        /// It was taken back.
        Revoked = "revoked",
        /// It is good, and does not grant this.
        Denied = "denied",
    }
}

impl AuthRefusal {
    /// Whether it stays so, whoever asks again with the same. If not, something is away by which it would be judged.
    #[must_use]
    pub const fn is_definite(self) -> bool {
        !matches!(self, Self::KeysAway)
    }
}

label! {
    /// How a key set stands that is fetched.
    KeySetState {
        /// The last fetch was good.
        Fresh = "fresh",
        /// The last fetch failed, and the last good set serves.
        Stale = "stale",
        /// Nothing serves.
        Away = "away",
    }
}

label! {
    /// What a fetch of a key set came to.
    KeySetFetch {
        /// Keys that serve from now on.
        New = "new",
        /// Those that serve already.
        Same = "same",
        /// Nothing that can serve.
        Failed = "failed",
    }
}

label! {
    /// What became of a ticket, or of the wish for one.
    TicketOutcome {
        /// It was given out.
        Made = "made",
        /// A stream was opened by it.
        Used = "used",
        /// Its owner has `auth.tickets_each_max` that nobody has used.
        Limit = "limit",
        /// The log is away, so none could be kept.
        Away = "away",
    }
}

label! {
    /// What became of the rest of a body that its handler had not read, and of what came after the last answer.
    Discarded {
        /// It was read to its end, and the connection goes on; or until the peer closed it.
        Whole = "whole",
        /// It was longer than `server.discard_bytes_max`: the connection is closed.
        Bytes = "bytes",
        /// It did not end within `server.discard_time`: the connection is closed.
        Time = "time",
        /// The peer broke it off.
        Broken = "broken",
    }
}

label! {
    /// Why a raw publish or an inbox entry did not become an event.
    IngestRefusal {
        /// It is no event: topic, type, UTF-8 or size.
        Invalid = "invalid",
        /// The log refused it: its topic has ended, or there are too many.
        Log = "log",
        /// It was owed, and its epoch was over before it could be appended.
        Unowned = "unowned",
        /// An ear heard it and did not count it, since it owed as much as it may.
        Full = "full",
    }
}

impl IngestRefusal {
    /// Of what can be an event at no time, and of all else that the log refuses.
    #[must_use]
    pub const fn by_log(is_invalid: bool) -> Self {
        if is_invalid { Self::Invalid } else { Self::Log }
    }
}

label! {
    /// What an append of an ear came to.
    AppendOutcome {
        /// All of it is logged, now or by an ear before this one.
        Ok = "ok",
        /// Its epoch is over: another one counts from here on.
        Stale = "stale",
        /// Another ear's epoch is appended first.
        Wait = "wait",
        /// A publish before it is not logged yet.
        Hole = "hole",
        /// Two ears have heard different publishes.
        Diverged = "diverged",
        /// The command failed, or its reply was lost.
        Error = "error",
    }
}

label! {
    /// Which connection to Redis.
    Role {
        /// The pool of command connections.
        Commands = "commands",
        /// The subscription that carries live frames.
        Live = "live",
        /// The ear.
        Ear = "ear",
    }
}

label! {
    /// How a command failed, or an attempt to connect.
    RedisFailure {
        /// No connection, or no answer in time.
        Unavailable = "unavailable",
        /// Redis has reached `maxmemory`.
        OutOfMemory = "out_of_memory",
        /// Redis answered with an error.
        Refused = "refused",
    }
}

label! {
    /// A way in which Redis puts what it holds on its disk.
    RedisSave {
        /// A snapshot (`BGSAVE`).
        Snapshot = "snapshot",
        /// Each write, to the append-only file.
        Append = "append",
        /// That file, written anew (`BGREWRITEAOF`).
        Rewrite = "rewrite",
    }
}

label! {
    /// What the command connections to Redis are at.
    PoolState {
        /// A command is on it.
        Busy = "busy",
        /// It is open and free.
        Idle = "idle",
        /// Tasks that wait for one.
        Waiting = "waiting",
    }
}

label! {
    /// What became of a reload.
    ReloadOutcome {
        /// It is in force.
        Taken = "taken",
        /// It is at fault, and the replica goes on as it was.
        Refused = "refused",
    }
}

impl Label for GapReason {
    const ALL: &'static [Self] = &GapReason::ALL;

    fn text(self) -> &'static str {
        self.as_str()
    }
}
