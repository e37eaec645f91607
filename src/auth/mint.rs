//! Making tokens, for trying things out: whoever has users has something that makes theirs.

use super::key::Key;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value, json};

/// A token that says this, signed with a secret. None if the key is none.
#[must_use]
pub fn mint(key: &Key, claims: &Map<String, Value>) -> Option<String> {
    let mut header = json!({ "alg": key.algorithm().as_str(), "typ": "JWT" });
    if let (Some(id), Some(members)) = (key.id(), header.as_object_mut()) {
        members.insert("kid".to_owned(), id.into());
    }
    let part = |text: String| URL_SAFE_NO_PAD.encode(text);
    // Members of plain values always serialise.
    let claims = serde_json::to_string(claims).ok()?;
    let signed = format!("{}.{}", part(header.to_string()), part(claims));
    let signature = key.sign(signed.as_bytes())?;
    Some(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
}
