//! Tokens as somebody would send them who has no key, the wrong key, or the right one and strange claims.

#![no_main]

mod signer;

use crm_dispatch_server::auth::{AuthError, Authenticator, Principal};
use jsonwebtoken::{Algorithm, EncodingKey};
use libfuzzer_sys::fuzz_target;
use serde_json::{Map, Value};
use signer::{
    LEEWAY, NAME, NOW, PREVIOUS_SECRET, PUBLISHED, SECRET, key_set, private_key, signature, signing_input, token,
};
use std::sync::LazyLock;

static AUTHENTICATOR: LazyLock<Authenticator> = LazyLock::new(signer::authenticator);
static KEY_SET: LazyLock<String> = LazyLock::new(key_set);

fuzz_target!(|data: &[u8]| {
    let Some((door, bytes)) = data.split_first() else { return };
    match door % 6 {
        // A header as it comes. Nobody without a key writes one that is accepted.
        0 => assert!(AUTHENTICATOR.authenticate_header(Some(bytes)).is_err(), "accepted a token that nobody signed"),
        // Header and claims as they come; the signature is none, or made with what everybody knows.
        1 => unsigned(bytes),
        // Signed by one who may, with the algorithm that the key is for; header and claims as they come.
        2 => signed(
            bytes,
            |header| header.get("alg").is_some_and(|alg| alg == "HS256"),
            |input| signature(input, &EncodingKey::from_secret(SECRET.as_bytes()), Algorithm::HS256),
        ),
        3 => signed(
            bytes,
            |header| header.get("alg").is_some_and(|alg| alg == "HS256"),
            |input| signature(input, &EncodingKey::from_secret(PREVIOUS_SECRET.as_bytes()), Algorithm::HS256),
        ),
        // An RSA signature takes long; one of ten thousand runs would be as good. The other two are tried in turn.
        form => {
            let (kid, algorithm) = PUBLISHED[usize::from(form) - 3];
            let names_the_key = |header: &Map<String, Value>| header.get("kid").is_some_and(|named| named == kid);
            signed(bytes, names_the_key, |input| signature(input, &private_key(kid), algorithm));
        }
    }
});

/// Header and claims: JSON texts with a zero byte between them.
fn parts(bytes: &[u8]) -> (&[u8], &[u8]) {
    let at = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    (&bytes[..at], bytes.get(at + 1..).unwrap_or_default())
}

fn unsigned(bytes: &[u8]) {
    let (header, claims) = parts(bytes);
    let input = signing_input(header, claims);
    let with = |key: &[u8]| format!("{input}.{}", signature(&input, &EncodingKey::from_secret(key), Algorithm::HS256));
    // Public keys as secrets: how a verifier is fooled that lets the token choose the algorithm.
    let forged = [
        token(&input, b""),
        token(&input, b"signature"),
        input.clone(),
        with(b""),
        with(KEY_SET.as_bytes()),
        with(NAME.as_bytes()),
        with(include_bytes!("../keys/ec.der")),
    ];
    for token in forged {
        assert!(AUTHENTICATOR.authenticate(&token).is_err(), "accepted a token that nobody signed: {token}");
    }
    let header = format!("Bearer {}", token(&input, b""));
    assert!(AUTHENTICATOR.authenticate_header(Some(header.as_bytes())).is_err());
}

fn signed(bytes: &[u8], fits: impl Fn(&Map<String, Value>) -> bool, sign: impl Fn(&str) -> String) {
    let (header, claims) = parts(bytes);
    let input = signing_input(header, claims);
    let token = format!("{input}.{}", sign(&input));
    match AUTHENTICATOR.authenticate(&token) {
        Ok(principal) => {
            let header = serde_json::from_slice(header).expect("an accepted header is an object");
            let claims = serde_json::from_slice(claims).expect("accepted claims are an object");
            assert!(fits(&header), "accepted under another algorithm or key: {header:?}");
            check(&claims, &principal);
            spoiled(&token);
        }
        Err(error) => {
            assert!(!error.code().is_empty() && !error.to_string().contains(&token));
            if error == AuthError::Signature {
                // Signed with a key that is not the one named: right.
                let header: Map<String, Value> = serde_json::from_slice(header).expect("a header was read");
                assert!(header.contains_key("alg"));
            }
        }
    }
}

/// What is accepted says by its own claims that it is for here and for now.
fn check(claims: &Map<String, Value>, principal: &Principal) {
    let seconds = |name: &str| claims[name].as_f64().unwrap();
    let names = |claim: &Value| match claim {
        Value::Array(all) => all.iter().any(|one| one == NAME),
        one => one == NAME,
    };
    assert!(names(&claims["iss"]), "another issuer's: {claims:?}");
    assert!(names(&claims["aud"]), "for another audience: {claims:?}");
    assert!(seconds("exp") + LEEWAY as f64 > NOW as f64, "expired: {claims:?}");
    assert!(seconds("nbf") - LEEWAY as f64 <= NOW as f64, "not valid yet: {claims:?}");
    let caller = &principal.caller;
    assert_eq!(claims["sub"], caller.user.as_str());
    assert_eq!(claims["tenant"], caller.tenant.as_str());
    assert_eq!(claims.get("technician").and_then(Value::as_str), caller.technician.as_ref().map(|id| id.as_str()));
    assert_eq!(claims.get("device").and_then(Value::as_str), principal.device.as_ref().map(|id| id.as_str()));
    let roles = claims["roles"].as_array().unwrap();
    assert!(caller.roles.iter().all(|role| roles.iter().any(|named| named == role.name())), "a role from nowhere");
}

/// The same token with one letter changed, somewhere in each part.
fn spoiled(token: &str) {
    for (number, part) in token.split('.').enumerate() {
        let start = part.as_ptr() as usize - token.as_ptr() as usize;
        // Not the last letter: of an incomplete byte's letter some bits mean nothing, and a strict reader refuses them as malformed.
        for at in [start, start + part.len() / 2] {
            let mut bytes = token.as_bytes().to_vec();
            bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
            let spoiled = String::from_utf8(bytes).unwrap();
            assert!(AUTHENTICATOR.authenticate(&spoiled).is_err(), "part {number} was changed: {spoiled}");
        }
    }
}
