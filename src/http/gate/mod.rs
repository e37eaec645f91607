//! The gate: each handler's first argument is a judgement.
//!
//! ```text
//! request ─► Caller<Publish>     who it is of; 401 if that has no rights at all
//!            Caller<Subscribe>   of a ticket: of whom the token is that it stands for
//!         ─► Caller::clear       may that be done to these topics? 403 with the first that it may not
//!         ─► Cleared<…>          what the rest of the handler works with; nothing else makes one
//! ```
//!
//! So nothing is wanted of the hub, no lease is taken and no body read before it was judged. A route whose handler does
//! not begin with a [`Caller`], with a [`Bearer`] where one credential is made of another, or with [`Unjudged`] where
//! nothing is to be judged, does not compile ([`Methods`]).
//!
//! Only a definite no is answered with 401 or 403. Where it cannot be told (`NotCleared::Away`), a stream is told to come
//! back, and all else is answered 503.

mod bearer;
mod caller;
mod cleared;
mod credential;
mod methods;
mod refused;

pub(super) use bearer::{Bearer, OurPage};
pub(super) use caller::{
    Caller, Delete, Disconnect, List, OpenStream, Operate, Publish, Subscribe, Unjudged,
    WithoutGate,
};
pub(super) use cleared::Cleared;
pub(super) use credential::{OfAnyPage, PlainHere, bare_name};
pub(super) use methods::{Methods, get, post};
