//! Public keys in PEM: `-----BEGIN PUBLIC KEY-----` ([RFC 7468](https://www.rfc-editor.org/rfc/rfc7468), [RFC
//! 5280](https://www.rfc-editor.org/rfc/rfc5280#section-4.1)).
//!
//! Of elliptic keys everything before the point is always the same, and of RSA keys the name of the algorithm. So a few
//! bytes are compared, and there is no reader of ASN.1 but for the two numbers of RSA.

use super::algorithm::Algorithm;
use super::key::Key;
use rustls::pki_types::SubjectPublicKeyInfoDer;
use rustls::pki_types::pem::PemObject as _;

const P256: &[u8] = &[
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a,
    0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];
const P384: &[u8] = &[
    0x30, 0x76, 0x30, 0x10, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x05, 0x2b,
    0x81, 0x04, 0x00, 0x22, 0x03, 0x62, 0x00,
];
const ED25519: &[u8] = &[
    0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00,
];
/// The name of RSA, with its empty parameters.
const RSA: &[u8] = &[
    0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00,
];

const SEQUENCE: u8 = 0x30;
const BIT_STRING: u8 = 0x03;
const INTEGER: u8 = 0x02;

/// All public keys of a text in PEM. Without `algorithm` it is that of the kind: RS256, ES256, ES384 or `EdDSA`.
///
/// # Errors
/// One sentence: there is none, or one is of a kind that is not taken.
pub fn public_keys(pem: &str, algorithm: Option<Algorithm>) -> Result<Vec<Key>, String> {
    let sections = SubjectPublicKeyInfoDer::pem_slice_iter(pem.as_bytes());
    let keys = sections.map(|section| {
        let der = section.map_err(|_| "a section of PEM cannot be read".to_owned())?;
        of_der(&der, algorithm)
    });
    let keys: Vec<Key> = keys.collect::<Result<_, _>>()?;
    if keys.is_empty() {
        return Err("there is no PUBLIC KEY in PEM; openssl makes one of a certificate (x509 -pubkey -noout) and of a private key (pkey -pubout)".to_owned());
    }
    Ok(keys)
}

fn of_der(der: &[u8], algorithm: Option<Algorithm>) -> Result<Key, String> {
    let elliptic = [
        (P256, Algorithm::Es256),
        (P384, Algorithm::Es384),
        (ED25519, Algorithm::EdDsa),
    ];
    for (begin, own) in elliptic {
        if let Some(point) = der.strip_prefix(begin) {
            return Key::point(algorithm.unwrap_or(own), point);
        }
    }
    let (n, e) = rsa(der)
        .ok_or_else(|| "this public key is neither RSA nor P-256, P-384 or Ed25519".to_owned())?;
    Key::rsa(algorithm.unwrap_or(Algorithm::Rs256), n, e)
}

/// Modulus and exponent.
fn rsa(der: &[u8]) -> Option<(&[u8], &[u8])> {
    let (info, rest) = value(der, SEQUENCE)?;
    let bits = info.strip_prefix(RSA).filter(|_| rest.is_empty())?;
    let (bits, rest) = value(bits, BIT_STRING)?;
    let key = bits.strip_prefix(&[0]).filter(|_| rest.is_empty())?;
    let (numbers, rest) = value(key, SEQUENCE)?;
    let (n, numbers) = value(numbers, INTEGER).filter(|_| rest.is_empty())?;
    let (e, rest) = value(numbers, INTEGER)?;
    rest.is_empty().then(|| (positive(n), positive(e)))
}

/// Without the zero that says that the number is not negative.
fn positive(number: &[u8]) -> &[u8] {
    number.strip_prefix(&[0]).unwrap_or(number)
}

/// What stands in a value of this kind, and what follows it. Lengths have two bytes at most: such a key is no RSA key
/// that is taken.
fn value(der: &[u8], kind: u8) -> Option<(&[u8], &[u8])> {
    let rest = der.strip_prefix(&[kind])?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81 => {
            let (&low, rest) = rest.split_first()?;
            (usize::from(low), rest)
        }
        0x82 => {
            let (&[high, low], rest) = rest.split_first_chunk::<2>()?;
            (usize::from(high) * 256 + usize::from(low), rest)
        }
        _ => return None,
    };
    rest.split_at_checked(length)
}
