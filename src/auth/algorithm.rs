//! What tokens are signed with ([RFC 7518, section 3](https://www.rfc-editor.org/rfc/rfc7518#section-3), [RFC
//! 8037](https://www.rfc-editor.org/rfc/rfc8037)). `none` is no algorithm here.

/// An algorithm. It belongs to a key; what a token says must be the same, and chooses nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "they are called as in RFC 7518")]
pub enum Algorithm {
    Hs256,
    Hs384,
    Hs512,
    Rs256,
    Rs384,
    Rs512,
    Ps256,
    Ps384,
    Ps512,
    Es256,
    Es384,
    EdDsa,
}

impl Algorithm {
    const ALL: [(Self, &'static str); 12] = [
        (Self::Hs256, "HS256"),
        (Self::Hs384, "HS384"),
        (Self::Hs512, "HS512"),
        (Self::Rs256, "RS256"),
        (Self::Rs384, "RS384"),
        (Self::Rs512, "RS512"),
        (Self::Ps256, "PS256"),
        (Self::Ps384, "PS384"),
        (Self::Ps512, "PS512"),
        (Self::Es256, "ES256"),
        (Self::Es384, "ES384"),
        (Self::EdDsa, "EdDSA"),
    ];

    /// The word in headers of tokens and in JWKs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        let mut all = Self::ALL.into_iter();
        all.find(|(algorithm, _)| *algorithm == self)
            .map_or("", |(_, word)| word)
    }

    /// The algorithm of a word; letters count as they are.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        let mut all = Self::ALL.into_iter();
        all.find(|(_, known)| *known == word)
            .map(|(algorithm, _)| algorithm)
    }

    /// All words, as a sentence lists them.
    #[must_use]
    pub fn words() -> String {
        Self::ALL.map(|(_, word)| word).join(", ")
    }

    /// Bytes that a secret has at least: as many as the hash has (RFC 7518, section 3.2). None if it has no secret.
    #[must_use]
    pub const fn secret_bytes_min(self) -> Option<usize> {
        match self {
            Self::Hs256 => Some(32),
            Self::Hs384 => Some(48),
            Self::Hs512 => Some(64),
            _ => None,
        }
    }
}
