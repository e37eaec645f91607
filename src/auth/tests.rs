//! Tokens as a whole: those of another implementation are taken, and each bad one is refused for its reason.

#![allow(
    clippy::string_slice,
    reason = "tokens and keys are ASCII, and a failed step ends the test"
)]

use super::*;
use crate::metrics::AuthRefusal;
use crate::topic::Topic;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use proptest::prelude::*;
use ring::hmac;
use serde_json::{Value, json};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

static MADE: LazyLock<Value> =
    LazyLock::new(|| serde_json::from_str(include_str!("../../tests/data/tokens.json")).unwrap());
const NOW: Seconds = 1_700_000_100;
const SECRET: &str = "0123456789abcdef0123456789abcdef";

fn made(path: &str) -> String {
    MADE.pointer(path).unwrap().as_str().unwrap().to_owned()
}

/// With these keys, and all else as the tokens that were made need it.
pub(super) fn tokens(keys: Vec<Key>) -> Tokens {
    Tokens {
        keys: Keyring::new(keys),
        sets: jwks::KeySets::default(),
        expected: Expected {
            audiences: vec!["events".to_owned()],
            leeway: Duration::from_secs(30),
            life_max: Duration::from_secs(86_400),
            ..Expected::default()
        },
        bytes_max: 8192,
        patterns_max: 64,
        claim: "tidegate".to_owned(),
        rules: Arc::default(),
    }
}

fn secret() -> Key {
    Key::secret(Algorithm::Hs256, SECRET.as_bytes()).unwrap()
}

/// A token with this header and these claims as they stand here, signed well with the secret.
fn token_of(header: &str, claims: &str) -> String {
    let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
    let signed = format!("{}.{}", part(header), part(claims));
    let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes());
    let signature = hmac::sign(&key, signed.as_bytes());
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature.as_ref()))
}

fn token(claims: &Value) -> String {
    token_of(r#"{"alg":"HS256"}"#, &claims.to_string())
}

/// Good claims, with these in place of theirs; null takes one away.
fn claims(others: &Value) -> Value {
    let mut claims = json!({"sub":"alice","aud":"events","exp":NOW + 60});
    let members = claims.as_object_mut().unwrap();
    for (name, value) in others.as_object().unwrap() {
        if value.is_null() {
            members.remove(name);
        } else {
            members.insert(name.clone(), value.clone());
        }
    }
    claims
}

fn reason(tokens: &Tokens, token: &str) -> Option<AuthRefusal> {
    tokens.judge(token, NOW).err()
}

#[test]
fn tokens_of_another_implementation_are_taken() {
    let long = made("/secret");
    let kinds = [
        ("HS256", None),
        ("HS384", None),
        ("HS512", None),
        ("RS256", Some("rsa")),
        ("RS384", Some("rsa")),
        ("RS512", Some("rsa")),
        ("PS256", Some("rsa")),
        ("PS384", Some("rsa")),
        ("PS512", Some("rsa")),
        ("ES256", Some("p256")),
        ("ES384", Some("p384")),
        ("EdDSA", Some("ed25519")),
    ];
    for (word, key) in kinds {
        let algorithm = Algorithm::parse(word).unwrap();
        let keys = match key {
            None => vec![vec![Key::secret(algorithm, long.as_bytes()).unwrap()]],
            Some(name) => {
                let pem = made(&format!("/pem/{name}"));
                let set = json!({"keys":[MADE.pointer(&format!("/jwk/{name}")).unwrap()]});
                vec![
                    public_keys(&pem, Some(algorithm)).unwrap(),
                    key_set(&set.to_string(), Some(algorithm)).unwrap(),
                ]
            }
        };
        let token = made(&format!("/tokens/{word}"));
        for keys in keys {
            let tokens = tokens(keys);
            let accepted = tokens.judge(&token, NOW).unwrap();
            assert_eq!(accepted.claims.subject.as_deref(), Some("alice"), "{word}");
            let news = Topic::parse("news").unwrap();
            assert!(accepted.rights.allow(Action::Subscribe, &news));
            assert!(!accepted.rights.allow(Action::Publish, &news));
            // One letter of what was signed, and one of the signature.
            for at in [60, token.len() - 20] {
                let mut other = token.clone().into_bytes();
                other[at] = if other[at] == b'A' { b'B' } else { b'A' };
                let other = String::from_utf8(other).unwrap();
                assert_eq!(reason(&tokens, &other), Some(AuthRefusal::Signature));
            }
        }
    }
}

#[test]
fn without_a_word_a_key_has_the_algorithm_of_its_kind() {
    let jwk = |name: &str| MADE.pointer(&format!("/jwk/{name}")).unwrap().clone();
    let set = json!({"keys":[jwk("rsa"), jwk("p256"), jwk("p384"), jwk("ed25519"), jwk("oct")]});
    let keys = key_set(&set.to_string(), None).unwrap();
    let words: Vec<_> = keys.iter().map(|key| key.algorithm().as_str()).collect();
    assert_eq!(words, ["RS256", "ES256", "ES384", "EdDSA", "HS256"]);
    let pem = ["rsa", "p256", "p384", "ed25519"].map(|name| made(&format!("/pem/{name}")));
    let keys = public_keys(&pem.concat(), None).unwrap();
    let words: Vec<_> = keys.iter().map(|key| key.algorithm().as_str()).collect();
    assert_eq!(words, ["RS256", "ES256", "ES384", "EdDSA"]);
    // All at once, each takes its own.
    let tokens = tokens(keys);
    for word in words {
        assert!(tokens.judge(&made(&format!("/tokens/{word}")), NOW).is_ok());
    }
}

/// The oldest trick: what is public as one kind of key is taken as a secret.
#[test]
fn an_algorithm_is_never_what_the_token_says() {
    let pem = made("/pem/rsa");
    let keys = tokens(public_keys(&pem, None).unwrap());
    let signed = token(&claims(&json!({})));
    let (signed, _) = signed.rsplit_once('.').unwrap();
    for secret in [
        pem.as_bytes(),
        pem.trim_end().as_bytes(),
        b"",
        SECRET.as_bytes(),
    ] {
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
        let signature = hmac::sign(&key, signed.as_bytes());
        let token = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature.as_ref()));
        assert_eq!(reason(&keys, &token), Some(AuthRefusal::Algorithm));
    }
    let claims = claims(&json!({})).to_string();
    for alg in [
        "none", "None", "NONE", "", "hs256", "HS1", "HS384", "RS256", "ES512",
    ] {
        let token = token_of(&json!({"alg":alg}).to_string(), &claims);
        let tokens = tokens(vec![secret()]);
        assert_eq!(
            reason(&tokens, &token),
            Some(AuthRefusal::Algorithm),
            "{alg}"
        );
        let (unsigned, _) = token.rsplit_once('.').unwrap();
        let unsigned = format!("{unsigned}.");
        assert_eq!(
            reason(&tokens, &unsigned),
            Some(AuthRefusal::Algorithm),
            "{alg}"
        );
    }
    // One set with both: the token of one key is not one of the other.
    let both = tokens([public_keys(&pem, None).unwrap(), vec![secret()]].concat());
    let key = hmac::Key::new(hmac::HMAC_SHA256, pem.as_bytes());
    let signature = hmac::sign(&key, signed.as_bytes());
    let token = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature.as_ref()));
    assert_eq!(reason(&both, &token), Some(AuthRefusal::Signature));
}

#[test]
fn what_is_no_token_is_refused() {
    let tokens = tokens(vec![secret()]);
    let good = token(&claims(&json!({})));
    assert_eq!(reason(&tokens, &good), None);
    let deep = format!("{{\"a\":{}{}}}", "[".repeat(50), "]".repeat(50));
    let huge = json!({"a": "x".repeat(7000)});
    let header = r#"{"alg":"HS256"}"#;
    let plain = claims(&json!({})).to_string();
    let twice = r#"{"aud":"events","exp":1700000160,"exp":1700000161}"#;
    let hidden = r#"{"aud":"events","exp":1700000160,"x":{"a":1,"\u0061":2}}"#;
    let malformed = [
        String::new(),
        ".".to_owned(),
        "..".to_owned(),
        "a.b.c".to_owned(),
        format!("{good}."),
        format!(".{good}"),
        format!("{good}.x"),
        format!("{good}="),
        format!("{good} "),
        good.replacen('.', "", 1),
        // The same bytes, written in another way.
        non_canonical(&good),
        token_of("[]", &plain),
        token_of("{}", &plain),
        token_of(r#"{"alg":1}"#, &plain),
        token_of(r#"{"alg":"HS256","alg":"HS256"}"#, &plain),
        token_of(r#"{"alg":"HS256","kid":1}"#, &plain),
        token_of(r#"{"alg":"HS256","typ":[]}"#, &plain),
        token_of(header, "[]"),
        token_of(header, "null"),
        token_of(header, twice),
        token_of(header, hidden),
        token_of(header, &deep),
        token_of(&deep, &plain),
        token(&claims(&json!({"exp": "1700000160"}))),
        token(&claims(&json!({"exp": true}))),
        token(&claims(&json!({"exp": [NOW]}))),
        token(&claims(&json!({"nbf": "0"}))),
        token(&claims(&json!({"iat": {}}))),
        token(&claims(&json!({"sub": 1}))),
        token(&claims(&json!({"iss": []}))),
        token(&claims(&json!({"jti": 7}))),
        token(&claims(&json!({"aud": 7}))),
        token(&claims(&json!({"aud": ["events", 7]}))),
    ];
    for bad in &malformed {
        assert_eq!(reason(&tokens, bad), Some(AuthRefusal::Malformed), "{bad}");
    }
    let long = token(&claims(&huge));
    assert!(long.len() > 8192);
    assert_eq!(reason(&tokens, &long), Some(AuthRefusal::TooLong));
    let fits = token(&claims(&json!({"a": "x".repeat(5900)})));
    assert!(fits.len() > 7800 && fits.len() < 8192, "{}", fits.len());
    assert_eq!(reason(&tokens, &fits), None);
    let critical = token_of(r#"{"alg":"HS256","crit":["exp"],"exp":1}"#, &plain);
    assert_eq!(reason(&tokens, &critical), Some(AuthRefusal::Critical));
    // Keys that a token brings along are nobody's.
    let brought = token_of(
        r#"{"alg":"HS256","jwk":{"kty":"oct","k":"AA"},"jku":"http://x"}"#,
        &plain,
    );
    assert_eq!(reason(&tokens, &brought), None, "they are not looked at");
}

/// The last letter with a bit more, which stands for no byte.
fn non_canonical(token: &str) -> String {
    const LETTERS: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let (rest, last) = token.split_at(token.len() - 1);
    let place = LETTERS.find(last).unwrap();
    format!("{rest}{}", &LETTERS[place + 1..place + 2])
}

#[test]
fn times_are_numbers_and_clocks_may_differ_a_little() {
    let tokens = tokens(vec![secret()]);
    let day = 86_400;
    let table = [
        (json!({"exp": NOW + 1}), None),
        (json!({"exp": NOW}), None),
        (json!({"exp": NOW - 29}), None),
        (json!({"exp": NOW - 30}), Some(AuthRefusal::Expired)),
        (json!({"exp": NOW - 600}), Some(AuthRefusal::Expired)),
        (json!({"exp": 0}), Some(AuthRefusal::Expired)),
        // 1969
        (json!({"exp": -1}), Some(AuthRefusal::Expired)),
        (json!({"exp": i64::MIN}), Some(AuthRefusal::Expired)),
        (json!({"exp": -1e300}), Some(AuthRefusal::Expired)),
        (json!({"exp": 1_700_000_100.5}), None),
        (json!({"exp": 1_700_000_069.9}), Some(AuthRefusal::Expired)),
        (json!({"exp": NOW + day + 30}), None),
        (json!({"exp": NOW + day + 31}), Some(AuthRefusal::LongLife)),
        // 9999
        (
            json!({"exp": 253_402_300_799_i64}),
            Some(AuthRefusal::LongLife),
        ),
        (json!({"exp": i64::MAX}), Some(AuthRefusal::LongLife)),
        (json!({"exp": u64::MAX}), Some(AuthRefusal::LongLife)),
        (json!({"exp": 1e300}), Some(AuthRefusal::LongLife)),
        (json!({"exp": null}), Some(AuthRefusal::NoExpiry)),
        (json!({"nbf": NOW + 30}), None),
        (json!({"nbf": NOW + 31}), Some(AuthRefusal::NotYet)),
        (json!({"nbf": NOW + 600}), Some(AuthRefusal::NotYet)),
        (json!({"nbf": i64::MAX}), Some(AuthRefusal::NotYet)),
        (json!({"nbf": -5}), None),
        (json!({"iat": NOW + 30}), None),
        (json!({"iat": NOW + 600}), Some(AuthRefusal::NotYet)),
        // It was too long when it was made, and a denial of it may be forgotten.
        (json!({"iat": NOW - 1, "exp": NOW + day + 29}), None),
        (
            json!({"iat": NOW - day, "exp": NOW + 60}),
            Some(AuthRefusal::LongLife),
        ),
        (
            json!({"iat": i64::MIN, "exp": NOW + 60}),
            Some(AuthRefusal::LongLife),
        ),
    ];
    for (others, expected) in table {
        let token = token(&claims(&others));
        assert_eq!(reason(&tokens, &token), expected, "{others}");
    }
    let accepted = tokens.judge(&token(&claims(&json!({}))), NOW).unwrap();
    assert_eq!(accepted.until, NOW + 60 + 30);
}

#[test]
fn a_token_is_for_us_and_of_whom_we_know() {
    let mut tokens = tokens(vec![secret()]);
    let check = |tokens: &Tokens, others: Value, expected| {
        assert_eq!(
            reason(tokens, &token(&claims(&others))),
            expected,
            "{others}"
        );
    };
    let audience = Some(AuthRefusal::Audience);
    check(&tokens, json!({"aud": ["x", "events"]}), None);
    check(&tokens, json!({"aud": "x"}), audience);
    check(&tokens, json!({"aud": ["x", "y"]}), audience);
    check(&tokens, json!({"aud": []}), audience);
    check(&tokens, json!({"aud": ""}), audience);
    check(&tokens, json!({"aud": null}), audience);
    // One that is for somebody is for nobody who has no name (RFC 7519, section 4.1.3).
    tokens.expected.audiences.clear();
    check(&tokens, json!({"aud": null}), None);
    check(&tokens, json!({}), audience);
    check(&tokens, json!({"aud": []}), audience);
    let issuer = Some(AuthRefusal::Issuer);
    check(&tokens, json!({"aud": null, "iss": "anybody"}), None);
    tokens.expected.issuers = vec!["https://a".to_owned(), "https://b".to_owned()];
    check(&tokens, json!({"aud": null, "iss": "https://b"}), None);
    for other in ["https://c", "https://a/", "HTTPS://A", ""] {
        check(&tokens, json!({"aud": null, "iss": other}), issuer);
    }
    check(&tokens, json!({"aud": null}), issuer);
    // A key that is one issuer's signs for no other.
    tokens.keys = Keyring::new(vec![secret().of_issuer(Some("https://a"))]);
    check(&tokens, json!({"aud": null, "iss": "https://a"}), None);
    check(&tokens, json!({"aud": null, "iss": "https://b"}), issuer);
}

#[test]
fn a_type_that_is_asked_for_must_be_there() {
    let mut tokens = tokens(vec![secret()]);
    tokens.expected.kind = Some("at+jwt".to_owned());
    let claims = claims(&json!({})).to_string();
    let table = [
        (r#"{"alg":"HS256","typ":"at+jwt"}"#, None),
        (r#"{"alg":"HS256","typ":"application/AT+JWT"}"#, None),
        (r#"{"alg":"HS256","typ":"JWT"}"#, Some(AuthRefusal::Type)),
        (r#"{"alg":"HS256"}"#, Some(AuthRefusal::Type)),
    ];
    for (header, expected) in table {
        assert_eq!(
            reason(&tokens, &token_of(header, &claims)),
            expected,
            "{header}"
        );
    }
}

#[test]
fn a_token_may_say_which_key_it_is_of() {
    let other = || Key::secret(Algorithm::Hs256, &[7; 32]).unwrap();
    let named = |id: Option<&str>| match id {
        Some(id) => token_of(
            &json!({"alg":"HS256","kid":id}).to_string(),
            &claims(&json!({})).to_string(),
        ),
        None => token(&claims(&json!({}))),
    };
    let table = [
        (vec![secret().called(Some("a"))], Some("a"), None),
        (vec![secret().called(Some("a"))], None, None),
        (vec![secret()], Some("a"), None),
        (vec![other(), secret()], None, None),
        (vec![other().called(Some("a")), secret()], Some("a"), None),
        (
            vec![secret().called(Some("a"))],
            Some("A"),
            Some(AuthRefusal::Key),
        ),
        (
            vec![secret().called(Some("a"))],
            Some(""),
            Some(AuthRefusal::Key),
        ),
        (
            vec![secret().called(Some("a")), other().called(Some("b"))],
            Some("b"),
            Some(AuthRefusal::Signature),
        ),
        // Eight are tried, and no more.
        (vec![secret(); 8], None, None),
        (vec![secret(); 9], None, Some(AuthRefusal::Key)),
    ];
    for (keys, id, expected) in table {
        let tokens = tokens(keys);
        assert_eq!(reason(&tokens, &named(id)), expected, "{id:?} {tokens:?}");
    }
}

#[test]
fn one_grant_that_cannot_be_read_refuses_the_token() {
    let mut tokens = tokens(vec![secret()]);
    tokens.patterns_max = 4;
    let good = [
        json!({}),
        json!({"subscribe": []}),
        json!({"subscribe": ["a", "b:*", "*", "tidegate.connections"]}),
        json!({"subscribe": ["a", "a", "a", "a", "a"]}),
        json!({"operate": true}),
        json!({"operate": false, "publish": ["a"], "end": ["a"], "delete": ["a"], "list": ["a"]}),
    ];
    for grant in good {
        let token = token(&claims(&json!({"tidegate": grant})));
        assert_eq!(reason(&tokens, &token), None, "{grant}");
    }
    let bad = [
        json!("*"),
        json!(["*"]),
        json!(true),
        json!({"subscribe": "a"}),
        json!({"subscribe": true}),
        json!({"subscribe": [1]}),
        json!({"subscribe": [["a"]]}),
        json!({"subscribe": ["good", ""]}),
        json!({"subscribe": ["good", "a,b"]}),
        json!({"subscribe": ["good", "a#b"]}),
        json!({"subscribe": ["good", "a\nb"]}),
        json!({"subscribe": ["x".repeat(256)]}),
        json!({"subscribe": ["good"], "read": ["a"]}),
        json!({"Subscribe": ["good"]}),
        json!({"operate": ["*"]}),
        json!({"operate": "true"}),
    ];
    for grant in bad {
        let token = token(&claims(&json!({"tidegate": grant})));
        assert_eq!(reason(&tokens, &token), Some(AuthRefusal::Grant), "{grant}");
    }
    // A claim that is null says something, and it is not a grant.
    let null = claims(&json!({}))
        .to_string()
        .replacen('{', "{\"tidegate\":null,", 1);
    let token_of_null = token_of(r#"{"alg":"HS256"}"#, &null);
    assert_eq!(reason(&tokens, &token_of_null), Some(AuthRefusal::Grant));
    let many = json!({"tidegate": {"subscribe": ["a", "b"], "publish": ["a", "b", "c"]}});
    assert_eq!(
        reason(&tokens, &token(&claims(&many))),
        Some(AuthRefusal::Rights)
    );
    // What rules grant counts as well.
    let rule = ClaimRule::parse("t:{teams}", vec![Action::Subscribe], None).unwrap();
    tokens.rules = Arc::new([rule]);
    let teams = |names: Value| {
        token(&claims(
            &json!({"teams": names, "tidegate": {"end": ["a"]}}),
        ))
    };
    assert_eq!(reason(&tokens, &teams(json!([1, 2, 3]))), None);
    assert_eq!(
        reason(&tokens, &teams(json!([1, 2, 3, 4]))),
        Some(AuthRefusal::Rights)
    );
}

#[test]
fn keys_that_cannot_be_used_are_refused_or_passed_over() {
    let jwk = |name: &str| MADE.pointer(&format!("/jwk/{name}")).unwrap().clone();
    let set = |keys: Vec<Value>| key_set(&json!({"keys": keys}).to_string(), None);
    let count = |keys: Vec<Value>| set(keys).map(|keys| keys.len());
    let with = |name: &str, member: &str, value: &str| {
        let mut key = jwk(name);
        key[member] = value.into();
        key
    };
    // Of other kinds and for other uses: passed over.
    assert_eq!(count(vec![jwk("p521"), jwk("p256")]), Ok(1));
    assert_eq!(count(vec![with("rsa", "use", "enc"), jwk("p256")]), Ok(1));
    assert_eq!(
        count(vec![with("rsa", "alg", "RSA-OAEP"), jwk("p256")]),
        Ok(1)
    );
    assert_eq!(count(vec![json!({"kty":"AKP"}), jwk("p256")]), Ok(1));
    assert_eq!(count(vec![with("rsa", "use", "sig")]), Ok(1));
    let none = "no key of the set can verify a token";
    assert_eq!(count(vec![jwk("p521")]).unwrap_err(), none);
    assert_eq!(count(vec![]).unwrap_err(), none);
    // Malformed: refused, as the whole set.
    let bad = [
        jwk("rsa1024"),
        with("rsa", "n", "!"),
        json!({"kty":"RSA","n":"AQAB"}),
        with("p256", "x", "AQAB"),
        with("p256", "crv", "P-384"),
        with("rsa", "alg", "HS256"),
        with("p256", "alg", "RS256"),
        with("oct", "k", "c2hvcnQ"),
        with("oct", "alg", "RS256"),
        with("ed25519", "x", "AQAB"),
    ];
    for key in bad {
        assert!(set(vec![jwk("p256"), key.clone()]).is_err(), "{key}");
    }
    for text in ["", "{}", "[]", "{\"keys\":{}}", "{\"keys\":[{}]}"] {
        assert!(key_set(text, None).is_err(), "{text}");
    }
    assert!(set(vec![jwk("p256"); 65]).is_err());
    for name in ["p521", "rsa1024"] {
        assert!(
            public_keys(&made(&format!("/pem/{name}")), None).is_err(),
            "{name}"
        );
    }
    let half = &made("/pem/rsa")[..200];
    for text in ["", "x", half] {
        assert!(public_keys(text, None).is_err(), "{text}");
    }
    assert!(public_keys(&made("/pem/rsa"), Some(Algorithm::Es256)).is_err());
    assert!(public_keys(&made("/pem/p256"), Some(Algorithm::Hs256)).is_err());
    assert!(Key::secret(Algorithm::Hs256, &[1; 31]).is_err());
    assert!(Key::secret(Algorithm::Hs512, &[1; 63]).is_err());
    assert!(Key::secret(Algorithm::Rs256, &[1; 64]).is_err());
}

#[test]
fn nothing_that_is_secret_is_shown() {
    let authority = Authority::new(Settings {
        publish_key: Some("let-me-in".into()),
        tokens: tokens(vec![secret()]),
        ..Settings::default()
    });
    let shown = format!("{authority:?}");
    assert!(
        !shown.contains(SECRET) && !shown.contains("let-me-in"),
        "{shown}"
    );
}

#[test]
fn what_is_asked_follows_from_what_is_known() {
    let none = Settings::default();
    let key = Settings {
        publish_key: Some("k".into()),
        ..Settings::default()
    };
    let world = Settings {
        anonymous: Some(Arc::default()),
        ..Settings::default()
    };
    let with_tokens = Settings {
        tokens: tokens(vec![secret()]),
        ..Settings::default()
    };
    // Reads, writes.
    let table = [
        (none, [false, false]),
        (key, [false, true]),
        (world, [true, false]),
        (with_tokens, [true, true]),
    ];
    for (settings, expected) in table {
        let authority = Authority::new(settings);
        for action in Action::ALL {
            let expected = if action.is_read() {
                expected[0]
            } else {
                expected[1]
            };
            assert_eq!(authority.asks(action), expected, "{action:?} {authority:?}");
        }
    }
}

#[test]
fn a_token_that_is_known_grants_what_it_did_and_ends_when_it_does() {
    let authority = Authority::new(Settings {
        tokens: tokens(vec![secret()]),
        tokens_known_max: 4,
        ..Settings::default()
    });
    let of = |name: &str| token(&claims(&json!({"tidegate": {"subscribe": [name]}})));
    let ask = |text: &str, now| {
        let place = Place::Given;
        authority.grant(Some(Credential { place, text }), now)
    };
    for name in ["a", "b", "a", "c", "d", "a", "e", "f", "a"] {
        let grant = ask(&of(name), NOW).unwrap();
        for topic in ["a", "b", "c"] {
            let is_own = topic == name;
            let topic = Topic::parse(topic).unwrap();
            assert_eq!(grant.allows(Action::Subscribe, &topic), is_own, "{name}");
        }
        assert!(authority.tokens_known() <= 4);
    }
    assert!(ask(&of("a"), NOW + 89).is_ok());
    assert_eq!(ask(&of("a"), NOW + 90).unwrap_err(), AuthRefusal::Expired);
    let before = authority.tokens_known();
    assert!(ask("nonsense", NOW).is_err());
    assert_eq!(
        authority.tokens_known(),
        before,
        "what is not good is not kept"
    );
}

#[test]
fn a_key_is_told_from_a_token() {
    let key = new_key().unwrap();
    let publisher = Publisher {
        name: "billing".into(),
        hash: KeyHash::of(&key),
        rights: Arc::new(Rights::of(
            &[pattern("bill:*").unwrap()],
            &[Action::Publish],
        )),
    };
    let authority = Authority::new(Settings {
        publish_key: Some("let-me-in".into()),
        publishers: Arc::new([publisher]),
        tokens: tokens(vec![secret()]),
        anonymous: Some(Arc::new(Rights::of(
            &[pattern("public:*").unwrap()],
            &[Action::Subscribe],
        ))),
        ..Settings::default()
    });
    let ask = |text: &str| {
        let place = Place::Given;
        authority.grant(Some(Credential { place, text }), NOW)
    };
    let may =
        |grant: &Grant, action, name: &str| grant.allows(action, &Topic::parse(name).unwrap());
    let own = ask("let-me-in").unwrap();
    assert_eq!(own.who().name(), "publish_key");
    assert!(may(&own, Action::Delete, "tidegate.connections") && own.allows_operating());
    let billing = ask(&key).unwrap();
    assert_eq!(billing.who().name(), "billing");
    assert!(may(&billing, Action::Publish, "bill:1"));
    assert!(!may(&billing, Action::Publish, "news") && !may(&billing, Action::End, "bill:1"));
    assert!(may(&billing, Action::Subscribe, "public:x"));
    let bearer = ask(&token(&claims(&json!({"tidegate":{"subscribe":["a"]}})))).unwrap();
    assert!(may(&bearer, Action::Subscribe, "a") && may(&bearer, Action::Subscribe, "public:x"));
    assert_eq!(bearer.holder().expires_at(), Some(NOW + 90));
    let nobody = authority.grant(None, NOW).unwrap();
    assert!(may(&nobody, Action::Subscribe, "public:x") && !nobody.has_credential());
    assert!(!may(&nobody, Action::Subscribe, "a") && !nobody.allows_operating());
    let refused = |text: &str| ask(text).unwrap_err();
    assert_eq!(refused("tgk_other"), AuthRefusal::PublishKey);
    assert_eq!(refused("let-me-out"), AuthRefusal::Malformed);
    assert_eq!(refused(&key[..46]), AuthRefusal::PublishKey);
}

/// Ten lines that say which topics a list of patterns grants.
fn model(patterns: &[String], topic: &str) -> bool {
    fn fits(pattern: &[u8], topic: &[u8]) -> bool {
        match pattern.split_first() {
            None => topic.is_empty(),
            Some((b'*', rest)) => (0..=topic.len()).any(|n| fits(rest, &topic[n..])),
            Some((one, rest)) => topic.first() == Some(one) && fits(rest, &topic[1..]),
        }
    }
    let is_own = |text: &str| text.starts_with("tidegate.");
    let meant = |pattern: &&String| !is_own(topic) || is_own(pattern);
    let mut meant = patterns.iter().filter(meant);
    meant.any(|pattern| fits(pattern.as_bytes(), topic.as_bytes()))
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => "[ab:]{1,6}",
        1 => "tidegate\\.[ab]{0,2}",
        1 => "t[ab:]{0,3}",
    ]
}

fn some_pattern() -> impl Strategy<Value = String> {
    prop_oneof![
        6 => "[ab:*]{1,5}",
        1 => "tidegate\\.[ab*]{0,2}",
        1 => "tide[*a]{1,3}",
    ]
}

/// By a token's own claim, by what the world may, and by both.
#[test]
fn what_is_let_through_is_what_the_model_says() {
    let granted = prop::collection::vec(
        (0_usize..5, prop::collection::vec(some_pattern(), 0..4)),
        0..4,
    );
    let everyones = prop::collection::vec(some_pattern(), 0..3);
    let names = prop::collection::vec(name(), 1..8);
    proptest!(|(granted in granted, everyones in everyones, names in names)| {
        let mut members = serde_json::Map::new();
        for (action, patterns) in &granted {
            members.insert(Action::ALL[*action].as_str().to_owned(), json!(patterns));
        }
        let world: Vec<_> = everyones.iter().map(|text| pattern(text).unwrap()).collect();
        let authority = Authority::new(Settings {
            tokens: tokens(vec![secret()]),
            anonymous: Some(Arc::new(Rights::of(&world, &[Action::Subscribe, Action::List]))),
            ..Settings::default()
        });
        let token = token(&claims(&json!({"tidegate": members.clone()})));
        let credential = Credential { place: Place::Given, text: &token };
        let grant = authority.grant(Some(credential), NOW).unwrap();
        for name in &names {
            is_as_the_model_says(&grant, name, &members, &everyones);
        }
    });
}

fn is_as_the_model_says(
    grant: &Grant,
    name: &str,
    members: &serde_json::Map<String, Value>,
    everyones: &[String],
) {
    let topic = Topic::parse(name).unwrap();
    for action in Action::ALL {
        let granted = members.get(action.as_str()).cloned().unwrap_or(json!([]));
        let mut patterns: Vec<String> = serde_json::from_value(granted).unwrap();
        if matches!(action, Action::Subscribe | Action::List) {
            patterns.extend(everyones.iter().cloned());
        }
        let expected = model(&patterns, name);
        assert_eq!(
            grant.allows(action, &topic),
            expected,
            "{action:?} {name} {patterns:?}"
        );
    }
    if grant.lists(&topic) {
        let lies_in = |stretch: &Stretch| match stretch.lists {
            Lists::One => name == stretch.begin,
            Lists::All | Lists::Some => name.starts_with(&stretch.begin),
        };
        assert!(grant.listed().iter().any(lies_in), "{name}");
    }
}

/// Whatever a claim says, it stays below its place.
#[test]
fn no_claim_reaches_beyond_its_place() {
    let names = prop::collection::vec(name(), 1..6);
    proptest!(|(sub in ".{0,12}|[a:*#,]{0,6}", names in names)| {
        let rule = ClaimRule::parse("user:{sub}:*", vec![Action::Subscribe], None).unwrap();
        let mut tokens = tokens(vec![secret()]);
        tokens.rules = Arc::new([rule]);
        let token = token(&claims(&json!({"sub": sub.clone()})));
        let accepted = tokens.judge(&token, NOW).unwrap();
        let leaves = |c: char| c.is_control() || "*#,:".contains(c);
        let plain = !sub.is_empty() && !sub.contains(leaves);
        let own = [format!("user:{sub}:x")];
        for name in names.iter().map(|name| format!("user:{name}:x")).chain(own) {
            let Ok(topic) = Topic::parse(&name) else { continue };
            let expected = plain && name.starts_with(&format!("user:{sub}:"));
            assert_eq!(accepted.rights.allow(Action::Subscribe, &topic), expected, "{name}");
        }
    });
}

#[test]
fn any_text_is_a_token_or_is_refused() {
    proptest!(|(text in ".{0,200}", claims in ".{0,100}", header in ".{0,60}")| {
        let tokens = tokens(vec![secret()]);
        assert!(tokens.judge(&text, NOW).is_err());
        assert!(tokens.judge(&token_of(&header, &claims), NOW).is_err());
        let signed_well = token_of(r#"{"alg":"HS256"}"#, &claims);
        assert!(tokens.judge(&signed_well, NOW).is_err());
    });
}
