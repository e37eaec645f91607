//! `auth.jwks_*`: how key sets are kept that are fetched from an address.

use super::source::Source;
use crate::auth::jwks::Timing;
use crate::dial::Authorities;
use std::time::Duration;

/// Keys that went may be good for so long, at most, after their address said so last.
const STALE_MOST: Duration = Duration::from_secs(31 * 24 * 3600);
/// Bytes of a set, at most.
const BYTES_MOST: usize = 16 << 20;
/// Tokens that wait, at most: each takes some sixteen bytes, three times.
const UNKNOWN_MOST: usize = 1_000_000;

/// How key sets are kept that are fetched.
#[derive(Clone, Debug)]
pub struct Jwks {
    /// When they are fetched, and how long they serve.
    pub timing: Timing,
    /// Who is believed to be an identity provider.
    pub authorities: Authorities,
    /// Time for all of one fetch.
    pub time_max: Duration,
    /// Bytes of a set.
    pub bytes_max: usize,
}

impl Jwks {
    pub(super) fn take(s: &mut Source) -> Self {
        let authorities = s
            .pem("auth.jwks_ca_file", "CERTIFICATE")
            .map_or(Authorities::OfBrowsers, |text| {
                Authorities::Text(text.into())
            });
        if s.has("auth.jwks_ca_file")
            && let Err(why) = authorities.roots()
        {
            s.fault("auth.jwks_ca_file", &why);
        }
        let jwks = Self {
            timing: Timing {
                refresh: s.positive("auth.jwks_refresh", "5m"),
                floor: s.positive("auth.jwks_floor", "10s"),
                stale_max: s.positive("auth.jwks_stale_max", "24h"),
                unknown_max: s.count("auth.jwks_unknown_max", "4096"),
            },
            authorities,
            time_max: s.positive("auth.jwks_time_max", "5s"),
            bytes_max: s.count("auth.jwks_bytes_max", "524288"),
        };
        jwks.check(s);
        jwks
    }

    fn check(&self, s: &mut Source) {
        let Timing {
            refresh,
            floor,
            stale_max,
            unknown_max,
        } = self.timing;
        if floor > refresh {
            s.fault("auth.jwks_floor", "must be at most auth.jwks_refresh");
        }
        if stale_max < refresh {
            let what = "must be at least auth.jwks_refresh: a set would be too old before it is fetched anew";
            s.fault("auth.jwks_stale_max", what);
        }
        if stale_max > STALE_MOST {
            s.fault("auth.jwks_stale_max", "must be at most 31days");
        }
        if self.bytes_max > BYTES_MOST {
            s.fault("auth.jwks_bytes_max", "must be at most 16777216");
        }
        if unknown_max > UNKNOWN_MOST {
            s.fault("auth.jwks_unknown_max", "must be at most 1000000");
        }
    }
}
