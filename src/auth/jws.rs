//! A token before anything in it is believed: JWS, compact ([RFC 7515](https://www.rfc-editor.org/rfc/rfc7515)).

use super::algorithm::Algorithm;
use super::json;
use crate::metrics::AuthRefusal;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};
use std::fmt;

/// The parts of a token. `Debug` shows its header alone.
pub struct Jws<'a> {
    /// What is signed.
    pub(super) signed: &'a [u8],
    pub(super) signature: Vec<u8>,
    payload: &'a str,
    /// None: none that is known, `none` among them.
    pub(super) algorithm: Option<Algorithm>,
    pub(super) key_id: Option<String>,
    pub(super) kind: Option<String>,
    header: Map<String, Value>,
}

impl fmt::Debug for Jws<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Jws")
            .field("header", &self.header)
            .finish_non_exhaustive()
    }
}

impl<'a> Jws<'a> {
    /// Takes a token apart; it has `bytes_max` bytes at most.
    ///
    /// # Errors
    /// [`AuthRefusal::TooLong`], [`AuthRefusal::Malformed`]; [`AuthRefusal::Critical`]: its header has extensions that
    /// must be understood, and none is.
    pub fn read(token: &'a str, bytes_max: usize) -> Result<Self, AuthRefusal> {
        if token.len() > bytes_max {
            return Err(AuthRefusal::TooLong);
        }
        let malformed = AuthRefusal::Malformed;
        let (signed, signature) = token.rsplit_once('.').ok_or(malformed)?;
        let (header, payload) = signed.split_once('.').ok_or(malformed)?;
        if payload.contains('.') {
            return Err(malformed);
        }
        let header = object(header)?;
        let text = |name| match header.get(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(_) => Err(malformed),
        };
        if header.contains_key("crit") {
            return Err(AuthRefusal::Critical);
        }
        let algorithm = text("alg")?.ok_or(malformed)?;
        Ok(Self {
            signed: signed.as_bytes(),
            signature: decoded(signature)?,
            payload,
            algorithm: Algorithm::parse(&algorithm),
            key_id: text("kid")?,
            kind: text("typ")?,
            header,
        })
    }

    /// What it says, signed by whomever.
    ///
    /// # Errors
    /// [`AuthRefusal::Malformed`].
    pub fn claims(&self) -> Result<Map<String, Value>, AuthRefusal> {
        object(self.payload)
    }

    /// What it says of itself.
    #[must_use]
    pub fn header(&self) -> &Map<String, Value> {
        &self.header
    }
}

fn decoded(text: &str) -> Result<Vec<u8>, AuthRefusal> {
    let bytes = URL_SAFE_NO_PAD.decode(text);
    bytes.map_err(|_| AuthRefusal::Malformed)
}

fn object(text: &str) -> Result<Map<String, Value>, AuthRefusal> {
    json::object(&decoded(text)?).ok_or(AuthRefusal::Malformed)
}
