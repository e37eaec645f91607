//! Who asks to have one credential made of another: a ticket or a session of a token.

use super::credential::{InQuery, credential, is_forced, is_of_our_page};
use super::refused::{NotCleared, Refused, not_taken_back, now};
use crate::auth::{Action, Grant, Place, Who};
use crate::http::gateway::Gateway;
use crate::http::problem::Problem;
use crate::metrics::AuthRefusal;
use axum::extract::FromRequestParts;
use axum::http::HeaderMap;
use axum::http::request::Parts;
use axum::response::{IntoResponse as _, Response};
use secrecy::SecretString;
use std::sync::Arc;

/// Who has a credential that is good. It asks for no right: what is made of it has the rights that it has, where it is shown.
#[derive(Debug)]
pub(in crate::http) struct Bearer {
    grant: Grant,
    text: SecretString,
    /// It was sent on purpose, and not by a browser of itself.
    is_given: bool,
    is_of_our_page: bool,
}

impl FromRequestParts<Arc<Gateway>> for Bearer {
    type Rejection = Response;

    async fn from_request_parts(
        parts: &mut Parts,
        gateway: &Arc<Gateway>,
    ) -> Result<Self, Response> {
        let bearer = Self::judge(parts, gateway);
        bearer.map_err(|no| match no {
            None => Problem::not_found(
                "this gateway takes no tokens, so there are neither tickets nor sessions: set auth.token_secret or auth.keys",
            )
            .into_response(),
            Some(NotCleared::Away(why)) => Problem::unavailable(why).into_response(),
            Some(NotCleared::Refused(reason)) => {
                refused(gateway, reason, &parts.headers).into_response()
            }
        })
    }
}

impl Bearer {
    /// An error that says nothing: there are no tokens.
    fn judge(parts: &mut Parts, gateway: &Gateway) -> Result<Self, Option<NotCleared>> {
        let rules = gateway.rules.get();
        let auth = &rules.auth;
        if !auth.authority.has_tokens() {
            return Err(None);
        }
        let in_query = InQuery::take(parts, auth, false);
        let refused = |reason| Some(NotCleared::Refused(reason));
        let credential = credential(auth, parts, &in_query).map_err(refused)?;
        if is_forced(credential.as_ref(), parts) {
            return Err(refused(AuthRefusal::Origin));
        }
        let credential = credential.ok_or_else(|| refused(AuthRefusal::Missing))?;
        let grant = auth.authority.grant(Some(credential), now());
        let grant = grant.map_err(refused)?;
        not_taken_back(gateway, grant.holder()).map_err(Some)?;
        Ok(Self {
            grant,
            text: credential.text.into(),
            is_given: credential.place == Place::Given,
            is_of_our_page: is_of_our_page(parts),
        })
    }

    /// Refuses all but tokens.
    ///
    /// # Errors
    /// 403: it is a key.
    pub(in crate::http) fn is_token(&self, gateway: &Gateway) -> Result<(), Problem> {
        if matches!(**self.grant.who(), Who::Bearer { .. }) {
            return Ok(());
        }
        gateway.metrics.auth_refused(AuthRefusal::Denied);
        Err(Problem::not_granted(
            "a ticket is made of a token; whoever has a key sends it as Authorization: Bearer",
        ))
    }

    /// Refuses what is not of one of our pages, or was sent by a browser of itself.
    ///
    /// # Errors
    /// 401: the credential stands in a cookie alone. 403: no page of ours asks, so that somebody else's could log its
    /// visitors in as whom it likes.
    pub(in crate::http) fn is_for_page(&self, gateway: &Gateway) -> Result<(), Problem> {
        if !self.is_given {
            return Err(refused(gateway, AuthRefusal::Missing, &HeaderMap::new()));
        }
        if self.is_of_our_page {
            return Ok(());
        }
        Err(not_our_page(gateway))
    }

    /// What it may do.
    pub(in crate::http) fn grant(&self) -> &Grant {
        &self.grant
    }

    /// The key or token.
    pub(in crate::http) fn text(&self) -> &SecretString {
        &self.text
    }
}

/// A request of one of our pages, whoever it is of: this host's, or one of an origin that is allowed by its name.
#[derive(Clone, Copy, Debug)]
pub(in crate::http) struct OurPage;

impl FromRequestParts<Arc<Gateway>> for OurPage {
    type Rejection = Problem;

    async fn from_request_parts(
        parts: &mut Parts,
        gateway: &Arc<Gateway>,
    ) -> Result<Self, Problem> {
        if is_of_our_page(parts) {
            Ok(Self)
        } else {
            Err(not_our_page(gateway))
        }
    }
}

fn not_our_page(gateway: &Gateway) -> Problem {
    gateway.metrics.auth_refused(AuthRefusal::Origin);
    Problem::forbidden(
        "Origin: a session is for a page, so the request needs an Origin, of this host or one that cors.origins names",
    )
}

fn refused(gateway: &Gateway, reason: AuthRefusal, headers: &HeaderMap) -> Problem {
    let refused = Refused {
        reason,
        action: Action::Subscribe,
        topic: None,
    };
    refused.answer(gateway, headers)
}
