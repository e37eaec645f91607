//! What a request brought along that says who it is.
//!
//! | where | taken |
//! |---|---|
//! | `Authorization: Bearer` | always |
//! | a cookie, called as `auth.cookie` says | if tokens are known |
//! | `?access_token=` | with `auth.query_token = true` alone |
//! | `?ticket=` | by streams, if tokens are known |
//!
//! A header or a parameter is sent on purpose, and a cookie with every request. So where both are there, the cookie is not
//! looked at. Two that were sent on purpose are refused: one reader would take the one, another the other ([RFC 6750,
//! section 2](https://www.rfc-editor.org/rfc/rfc6750#section-2)).

use crate::metrics::AuthRefusal;
use std::fmt;

/// Where the credential stood that counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In a header or in the query: somebody put it there.
    Given,
    /// In the query, as a ticket: it stands for a token.
    Ticket,
    /// In a cookie, which a browser sends by itself.
    Cookie,
}

/// The credential that counts. `Debug` shows where it stood alone.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Credential<'a> {
    /// Where it stood.
    pub place: Place,
    /// A key, a token or a ticket.
    pub text: &'a str,
}

impl fmt::Debug for Credential<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credential")
            .field("place", &self.place)
            .finish_non_exhaustive()
    }
}

/// The values of the fields of a request that may say who it is. `Debug` shows none.
#[derive(Clone, Default)]
pub struct Fields<'a> {
    /// Each value of `Authorization`, in order; none for one that is no text.
    pub authorization: Vec<Option<&'a str>>,
    /// Each value of `Cookie`, in order.
    pub cookie: Vec<&'a str>,
    /// Each `access_token` of the query, if they count.
    pub query: Vec<&'a str>,
    /// Each `ticket` of the query, if they count.
    pub ticket: Vec<&'a str>,
}

impl fmt::Debug for Fields<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Fields")
    }
}

impl<'a> Fields<'a> {
    /// The one that counts; none if there is none. A scheme other than Bearer is for somebody else.
    ///
    /// # Errors
    /// [`AuthRefusal::TwoTokens`].
    pub fn credential(&self, cookie_names: &[&str]) -> Result<Option<Credential<'a>>, AuthRefusal> {
        if self.authorization.len() > 1 {
            return Err(AuthRefusal::TwoTokens);
        }
        let header = self.authorization.iter().copied().flatten();
        let header = header.filter_map(bearer);
        let given = header.chain(self.query.iter().copied());
        let given = given.map(|text| (Place::Given, text));
        let tickets = self.ticket.iter().map(|text| (Place::Ticket, *text));
        let given: Vec<_> = given.chain(tickets).collect();
        match *given.as_slice() {
            [] => match *self.cookies(cookie_names).as_slice() {
                [] => Ok(None),
                [text] => Ok(Some(Credential {
                    place: Place::Cookie,
                    text,
                })),
                _ => Err(AuthRefusal::TwoTokens),
            },
            [(place, text)] => Ok(Some(Credential { place, text })),
            _ => Err(AuthRefusal::TwoTokens),
        }
    }

    /// Values of the cookies of these names ([RFC 6265, section 4.2](https://www.rfc-editor.org/rfc/rfc6265#section-4.2)).
    fn cookies(&self, names: &[&str]) -> Vec<&'a str> {
        let pairs = self.cookie.iter().flat_map(|value| value.split(';'));
        let named = pairs.filter_map(|pair| {
            let (found, value) = pair.split_once('=')?;
            let value = value.trim();
            let bare = value.strip_prefix('"').and_then(|v| v.strip_suffix('"'));
            names
                .contains(&found.trim())
                .then_some(bare.unwrap_or(value))
        });
        named.filter(|value| !value.is_empty()).collect()
    }
}

/// What follows `Bearer`, in letters of any case.
#[must_use]
pub fn bearer(value: &str) -> Option<&str> {
    let (scheme, text) = value.trim().split_once(' ')?;
    let is_bearer = scheme.eq_ignore_ascii_case("bearer");
    is_bearer
        .then(|| text.trim())
        .filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    type Row<'a> = (&'a [&'a str], &'a [&'a str], &'a [&'a str], Expected<'a>);
    type Expected<'a> = Result<Option<(Place, &'a str)>, AuthRefusal>;

    #[test]
    fn one_credential_counts() {
        use Place::{Cookie, Given};
        let two = Err(AuthRefusal::TwoTokens);
        let table: [Row<'_>; 20] = [
            (&[], &[], &[], Ok(None)),
            (&["Bearer a"], &[], &[], Ok(Some((Given, "a")))),
            (&["bEARER   a "], &[], &[], Ok(Some((Given, "a")))),
            (&["Bearer"], &[], &[], Ok(None)),
            (&["Bearer "], &[], &[], Ok(None)),
            (&["Basic a"], &[], &[], Ok(None)),
            (&["Basic a"], &["t=c"], &[], Ok(Some((Cookie, "c")))),
            (&["a"], &[], &[], Ok(None)),
            (&[], &["x=1; t=c; y=2"], &[], Ok(Some((Cookie, "c")))),
            (&[], &["x=1", "t=\"c\""], &[], Ok(Some((Cookie, "c")))),
            (&[], &["t="], &[], Ok(None)),
            (&[], &["tt=c; T=c; at=c"], &[], Ok(None)),
            (&[], &["t=a.b=c"], &[], Ok(Some((Cookie, "a.b=c")))),
            (&[], &["t=a; t=b"], &[], two),
            (&[], &["t=a", "t=a"], &[], two),
            (&["Bearer a", "Bearer a"], &[], &[], two),
            (&["Bearer a"], &["t=b"], &[], Ok(Some((Given, "a")))),
            (&["Bearer a"], &["t=b; t=c"], &[], Ok(Some((Given, "a")))),
            (&["Bearer a"], &[], &["a"], two),
            (&[], &["t=b"], &["a"], Ok(Some((Given, "a")))),
        ];
        for (authorization, cookie, query, expected) in table {
            let fields = Fields {
                authorization: authorization.iter().copied().map(Some).collect(),
                cookie: cookie.to_vec(),
                query: query.to_vec(),
                ticket: Vec::new(),
            };
            let found = fields.credential(&["t"]);
            let found = found.map(|found| found.map(|it| (it.place, it.text)));
            assert_eq!(found, expected, "{authorization:?} {cookie:?} {query:?}");
        }
        let query = Fields {
            query: vec!["a", "b"],
            ..Fields::default()
        };
        assert!(query.credential(&["t"]).is_err());
        let cookie = Fields {
            cookie: vec!["=a; t=b"],
            ..Fields::default()
        };
        assert!(cookie.credential(&[]).is_ok_and(|found| found.is_none()));
        let both = cookie.credential(&["t", ""]);
        assert_eq!(both, Err(AuthRefusal::TwoTokens), "of two names");
    }

    #[test]
    fn a_ticket_is_sent_on_purpose() {
        let with = |authorization: &[&'static str], query: &[&'static str], tickets: usize| {
            let fields = Fields {
                authorization: authorization.iter().copied().map(Some).collect(),
                cookie: vec!["t=c"],
                query: query.to_vec(),
                ticket: vec!["a"; tickets],
            };
            let found = fields.credential(&["t"]);
            found.map(|found| found.map(|it| (it.place, it.text)))
        };
        assert_eq!(with(&[], &[], 0), Ok(Some((Place::Cookie, "c"))));
        assert_eq!(with(&[], &[], 1), Ok(Some((Place::Ticket, "a"))));
        assert_eq!(with(&["Basic x"], &[], 1), Ok(Some((Place::Ticket, "a"))));
        for two in [
            with(&[], &[], 2),
            with(&["Bearer b"], &[], 1),
            with(&[], &["b"], 1),
        ] {
            assert_eq!(two, Err(AuthRefusal::TwoTokens));
        }
    }
}
