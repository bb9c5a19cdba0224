//! An authenticator that trusts two secrets and three published keys, and whoever holds them.

#![allow(dead_code, reason = "each target uses its share")]

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use crm_dispatch_server::auth::{Authenticator, JwksFile, Secret, SystemClock};
use jsonwebtoken::jwk::{Jwk, JwkSet};
use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::{Value, json};
use std::sync::Arc;

pub const SECRET: &str = "the office's shared secret, long enough";
pub const PREVIOUS_SECRET: &str = "the secret before it, long enough as well";
pub const NAME: &str = "crm-dispatch";
/// The authenticator's time, seconds since the epoch, and how far a clock may be off.
pub const NOW: i64 = 1_770_026_400;
pub const LEEWAY: i64 = 30;

/// The published kinds, each with its `kid`.
pub const PUBLISHED: [(&str, Algorithm); 3] =
    [("rsa", Algorithm::RS256), ("ec", Algorithm::ES256), ("ed", Algorithm::EdDSA)];

/// The private keys: made for this and used for nothing else.
pub fn private_key(kid: &str) -> EncodingKey {
    // Ed25519: 32 bytes in the frame of RFC 8410.
    const FRAME: [u8; 16] = [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
    match kid {
        "rsa" => EncodingKey::from_rsa_der(include_bytes!("../keys/rsa.der")),
        "ec" => EncodingKey::from_ec_der(include_bytes!("../keys/ec.der")),
        _ => EncodingKey::from_ed_der(&[FRAME.as_slice(), &[0x42; 32]].concat()),
    }
}

/// The key set as it is published.
pub fn key_set() -> String {
    let keys = PUBLISHED
        .into_iter()
        .map(|(kid, algorithm)| {
            let mut jwk = Jwk::from_encoding_key(&private_key(kid), algorithm).unwrap();
            jwk.common.key_id = Some(kid.to_owned());
            jwk
        })
        .collect();
    serde_json::to_string(&JwkSet { keys }).unwrap()
}

pub fn authenticator() -> Authenticator {
    let clock: SystemClock = Arc::new(|| NOW);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keys.json");
    std::fs::write(&file, key_set()).unwrap();
    // Read once: the clock stands still.
    let published = JwksFile::open(&file, 5, Arc::clone(&clock)).unwrap();
    let secrets = [SECRET, PREVIOUS_SECRET].map(|secret| Secret::new(secret).unwrap());
    Authenticator::new(NAME, NAME, LEEWAY, &secrets, Some(published), clock)
}

pub fn good_claims() -> Value {
    json!({ "iss": NAME, "aud": NAME, "sub": "anna", "tenant": "tenant-001", "roles": ["dispatcher"],
        "nbf": NOW, "iat": NOW, "exp": NOW + 3_600 })
}

/// What is signed: header and claims as they are, whatever they are.
pub fn signing_input(header: &[u8], claims: &[u8]) -> String {
    format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims))
}

pub fn token(input: &str, signature: &[u8]) -> String {
    format!("{input}.{}", URL_SAFE_NO_PAD.encode(signature))
}

/// A signature as `jsonwebtoken` makes it, in base64.
pub fn signature(input: &str, key: &EncodingKey, algorithm: Algorithm) -> String {
    jsonwebtoken::crypto::sign(input.as_bytes(), key, algorithm).unwrap()
}
