//! Who is let in: every way in which a token can be wrong, and what a caller is told about it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod http_support;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use crm_dispatch_server::service::Role;
use http_support::{AUDIENCE, Answer, ISSUER, Office, PREVIOUS_SECRET, SECRET, Setup, TENANT};
use jsonwebtoken::jwk::{Jwk, JwkSet};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use rsa::pkcs1::{EncodeRsaPrivateKey as _, EncodeRsaPublicKey as _, LineEnding};
use serde_json::{Value, json};
use std::fs;
use std::path::PathBuf;
use std::sync::OnceLock;

/// Good claims, at the office's time.
fn claims(office: &Office) -> Value {
    let now = office.clock.seconds();
    json!({ "iss": ISSUER, "aud": AUDIENCE, "sub": "anna", "tenant": TENANT, "roles": ["dispatcher"],
        "nbf": now, "iat": now, "exp": now + 3_600 })
}

fn with(mut claims: Value, name: &str, value: Value) -> Value {
    claims[name] = value;
    claims
}

fn without(mut claims: Value, name: &str) -> Value {
    claims.as_object_mut().unwrap().remove(name);
    claims
}

fn hs256(secret: &str, claims: &Value) -> String {
    encode(&Header::new(Algorithm::HS256), claims, &EncodingKey::from_secret(secret.as_bytes())).unwrap()
}

/// A token put together by hand.
fn crafted(header: &Value, claims: &Value, signature: &[u8]) -> String {
    [header.to_string().as_bytes(), claims.to_string().as_bytes(), signature]
        .map(|part| URL_SAFE_NO_PAD.encode(part))
        .join(".")
}

async fn ask(office: &Office, token: &str) -> Answer {
    office.get("/requests").token(token).send().await
}

/// Refused with that code, a challenge, and not a word of the token or the keys.
async fn refused(office: &Office, token: &str, code: &str) -> Value {
    let answer = ask(office, token).await;
    let body = answer.error(401, code);
    assert!(answer.header("www-authenticate").starts_with("Bearer realm=\"crm-dispatch\", error=\"invalid_token\""));
    let text = String::from_utf8_lossy(&answer.bytes);
    assert!(!text.contains(SECRET) && !text.contains("hunter2") && !text.contains(token), "{text}");
    body
}

/// A pair of keys of each published kind, made once.
struct Keys {
    rsa: EncodingKey,
    rsa_public_pem: String,
    ec: EncodingKey,
    ed: EncodingKey,
}

/// A fresh Ed25519 key: 32 random bytes in the frame of RFC 8410.
fn ed25519() -> EncodingKey {
    const FRAME: [u8; 16] = [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
    let seed: [u8; 32] = rand::random();
    EncodingKey::from_ed_der(&[FRAME.as_slice(), &seed].concat())
}

fn keys() -> &'static Keys {
    static KEYS: OnceLock<Keys> = OnceLock::new();
    KEYS.get_or_init(|| {
        let rsa = rsa::RsaPrivateKey::new(&mut rsa::rand_core::OsRng, 2048).unwrap();
        let ec = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        Keys {
            rsa: EncodingKey::from_rsa_der(rsa.to_pkcs1_der().unwrap().as_bytes()),
            rsa_public_pem: rsa.to_public_key().to_pkcs1_pem(LineEnding::LF).unwrap(),
            ec: EncodingKey::from_ec_der(ec.serialized_der()),
            ed: ed25519(),
        }
    })
}

fn published(kid: &str, key: &EncodingKey, algorithm: Algorithm) -> Jwk {
    let mut jwk = Jwk::from_encoding_key(key, algorithm).unwrap();
    jwk.common.key_id = Some(kid.to_owned());
    jwk
}

fn signed(kid: Option<&str>, key: &EncodingKey, algorithm: Algorithm, claims: &Value) -> String {
    let mut header = Header::new(algorithm);
    header.kid = kid.map(str::to_owned);
    encode(&header, claims, key).unwrap()
}

/// An office that trusts an identity provider's published keys too.
struct Federated {
    office: Office,
    file: PathBuf,
    _folder: tempfile::TempDir,
}

impl Federated {
    async fn open(published: Vec<Jwk>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("jwks.json");
        fs::write(&file, serde_json::to_string(&JwkSet { keys: published }).unwrap()).unwrap();
        let office = Office::with(Setup { jwks: Some(file.clone()), ..Setup::default() }).await;
        Self { office, file, _folder: folder }
    }
    fn publish(&self, published: Vec<Jwk>) {
        fs::write(&self.file, serde_json::to_string(&JwkSet { keys: published }).unwrap()).unwrap();
    }
}

#[tokio::test]
async fn without_a_token_nobody_comes_in() {
    let office = Office::open().await;
    for call in [
        office.get("/requests"),
        office.get("/requests").header("authorization", "Basic YW5uYTpodW50ZXIy"),
        office.get("/requests").header("authorization", "Bearer"),
        office.get("/requests").header("authorization", "Bearer "),
        office.get("/requests?access_token=x"),
    ] {
        let answer = call.send().await;
        // A query that is not known is only looked at once the caller is.
        answer.error(401, "TOKEN_MISSING");
        assert_eq!(answer.header("www-authenticate"), "Bearer realm=\"crm-dispatch\"");
    }
}

#[tokio::test]
async fn a_good_token_comes_in() {
    let office = Office::open().await;
    ask(&office, &hs256(SECRET, &claims(&office))).await.ok(200);
    let many = with(claims(&office), "aud", json!(["elsewhere", AUDIENCE]));
    ask(&office, &hs256(SECRET, &many)).await.ok(200);
}

#[tokio::test]
async fn what_is_no_token_is_refused() {
    let office = Office::open().await;
    let good = hs256(SECRET, &claims(&office));
    let (head, tail) = good.split_once('.').unwrap();
    let long = "x".repeat(9_000);
    for token in ["x", "a.b", "a.b.c", "a.b.c.d", "....", "\u{e9}", &format!("{head}.{tail}.{tail}"), &long] {
        refused(&office, token, "TOKEN_MALFORMED").await;
    }
    let two = office.get("/requests").token(&good).token(&good).send().await;
    two.error(401, "TOKEN_MALFORMED");
    let crit = crafted(&json!({ "alg": "HS256", "crit": ["b64"], "b64": false }), &claims(&office), b"x");
    refused(&office, &crit, "TOKEN_MALFORMED").await;
}

#[tokio::test]
async fn an_algorithm_that_is_not_accepted_is_refused() {
    let office = Office::open().await;
    for name in ["none", "None", "NONE", "", "HS1", "RS256", "ES256", "EdDSA"] {
        let header = json!({ "alg": name, "typ": "JWT", "kid": "any" });
        refused(&office, &crafted(&header, &claims(&office), b""), "TOKEN_ALGORITHM_NOT_ACCEPTED").await;
    }
    for algorithm in [Algorithm::HS384, Algorithm::HS512] {
        let token = signed(None, &EncodingKey::from_secret(SECRET.as_bytes()), algorithm, &claims(&office));
        refused(&office, &token, "TOKEN_ALGORITHM_NOT_ACCEPTED").await;
    }
}

#[tokio::test]
async fn a_token_is_good_for_its_time_only_give_or_take_the_leeway() {
    let office = Office::open().await;
    let now = office.clock.seconds();
    let until = |seconds: i64| hs256(SECRET, &with(claims(&office), "exp", json!(now + seconds)));
    let from = |seconds: i64| hs256(SECRET, &with(claims(&office), "nbf", json!(now + seconds)));
    refused(&office, &until(-3_600), "TOKEN_EXPIRED").await;
    refused(&office, &until(-30), "TOKEN_EXPIRED").await;
    ask(&office, &until(-29)).await.ok(200);
    refused(&office, &from(31), "TOKEN_NOT_YET_VALID").await;
    ask(&office, &from(30)).await.ok(200);
    let token = until(10);
    office.clock.advance(39_000);
    ask(&office, &token).await.ok(200);
    office.clock.advance(1_000);
    refused(&office, &token, "TOKEN_EXPIRED").await;
}

#[tokio::test]
async fn another_issuer_or_audience_is_refused() {
    let office = Office::open().await;
    let foreign = hs256(SECRET, &with(claims(&office), "iss", json!("somebody-else")));
    refused(&office, &foreign, "TOKEN_ISSUER_NOT_ACCEPTED").await;
    for audience in [json!("payroll"), json!(["payroll", "mail"]), json!([])] {
        let token = hs256(SECRET, &with(claims(&office), "aud", audience));
        refused(&office, &token, "TOKEN_AUDIENCE_NOT_ACCEPTED").await;
    }
}

#[tokio::test]
async fn a_claim_that_is_missing_or_of_the_wrong_kind_is_named() {
    let office = Office::open().await;
    for claim in ["iss", "aud", "exp", "nbf", "sub", "tenant", "roles"] {
        let body = refused(&office, &hs256(SECRET, &without(claims(&office), claim)), "TOKEN_CLAIM_MISSING").await;
        assert_eq!(body["details"]["claim"], claim);
    }
    let field = hs256(SECRET, &with(claims(&office), "roles", json!(["technician"])));
    assert_eq!(refused(&office, &field, "TOKEN_CLAIM_MISSING").await["details"]["claim"], "technician");
    for (claim, value) in [
        ("tenant", json!("no spaces")),
        ("tenant", json!(7)),
        ("tenant", json!("")),
        ("sub", json!("hunter2 hunter2")),
        ("roles", json!("dispatcher")),
        ("roles", json!([7])),
        ("technician", json!(["TECH-10"])),
        ("device", json!({})),
    ] {
        let token = hs256(SECRET, &with(claims(&office), claim, value));
        assert_eq!(refused(&office, &token, "TOKEN_CLAIM_INVALID").await["details"]["claim"], claim);
    }
    let words = hs256(SECRET, &with(claims(&office), "exp", json!("tomorrow")));
    refused(&office, &words, "TOKEN_CLAIM_MISSING").await;
}

#[tokio::test]
async fn the_secret_before_the_present_one_is_still_accepted_and_no_other() {
    let office = Office::open().await;
    ask(&office, &hs256(PREVIOUS_SECRET, &claims(&office))).await.ok(200);
    refused(&office, &hs256("the secret before the one before it", &claims(&office)), "TOKEN_SIGNATURE_INVALID").await;
    let good = hs256(SECRET, &claims(&office));
    let (unsigned, _) = good.rsplit_once('.').unwrap();
    refused(&office, &format!("{unsigned}."), "TOKEN_SIGNATURE_INVALID").await;
    // The claims of one token under the signature of another.
    let admin = hs256("somebody's own secret, also long enough", &with(claims(&office), "roles", json!(["admin"])));
    let (_, signature) = good.rsplit_once('.').unwrap();
    let (forged, _) = admin.rsplit_once('.').unwrap();
    refused(&office, &format!("{forged}.{signature}"), "TOKEN_SIGNATURE_INVALID").await;
}

#[tokio::test]
async fn published_keys_of_all_three_kinds_are_accepted() {
    let keys = keys();
    let all =
        [("rsa", &keys.rsa, Algorithm::RS256), ("ec", &keys.ec, Algorithm::ES256), ("ed", &keys.ed, Algorithm::EdDSA)];
    let world =
        Federated::open(all.iter().map(|(kid, key, algorithm)| published(kid, key, *algorithm)).collect()).await;
    let office = &world.office;
    for (kid, key, algorithm) in all {
        ask(office, &signed(Some(kid), key, algorithm, &claims(office))).await.ok(200);
        refused(office, &signed(None, key, algorithm, &claims(office)), "TOKEN_KEY_UNKNOWN").await;
        refused(office, &signed(Some("other"), key, algorithm, &claims(office)), "TOKEN_KEY_UNKNOWN").await;
    }
    // The right kind of key under the wrong name.
    refused(office, &signed(Some("rsa"), &keys.ec, Algorithm::ES256, &claims(office)), "TOKEN_ALGORITHM_NOT_ACCEPTED")
        .await;
    refused(office, &signed(Some("ed"), &ed25519(), Algorithm::EdDSA, &claims(office)), "TOKEN_SIGNATURE_INVALID")
        .await;
    // The shared secret goes on beside them.
    ask(office, &hs256(SECRET, &claims(office))).await.ok(200);
}

#[tokio::test]
async fn a_public_key_is_no_secret() {
    let keys = keys();
    let jwk = published("rsa", &keys.rsa, Algorithm::RS256);
    let jwk_text = serde_json::to_string(&jwk).unwrap();
    let world = Federated::open(vec![jwk]).await;
    let body: String = keys.rsa_public_pem.lines().filter(|line| !line.starts_with("--")).collect();
    let der = STANDARD.decode(body).unwrap();
    let pem = keys.rsa_public_pem.as_bytes();
    for secret in [pem, keys.rsa_public_pem.trim().as_bytes(), der.as_slice(), jwk_text.as_bytes()] {
        let token = signed(Some("rsa"), &EncodingKey::from_secret(secret), Algorithm::HS256, &claims(&world.office));
        refused(&world.office, &token, "TOKEN_SIGNATURE_INVALID").await;
    }
}

#[tokio::test]
async fn a_key_that_the_token_brings_along_counts_for_nothing() {
    let keys = keys();
    let world = Federated::open(vec![published("rsa", &keys.rsa, Algorithm::RS256)]).await;
    let mut header = Header::new(Algorithm::ES256);
    header.jwk = Some(published("mine", &keys.ec, Algorithm::ES256));
    header.kid = Some("mine".to_owned());
    let token = encode(&header, &claims(&world.office), &keys.ec).unwrap();
    refused(&world.office, &token, "TOKEN_KEY_UNKNOWN").await;
}

#[tokio::test]
async fn a_symmetric_or_weak_key_in_the_published_set_is_left_out() {
    let keys = keys();
    let octets = json!({ "kty": "oct", "kid": "shared", "alg": "HS256", "k": URL_SAFE_NO_PAD.encode(SECRET) });
    let weak = rsa::RsaPrivateKey::new(&mut rsa::rand_core::OsRng, 1024).unwrap();
    let weak = EncodingKey::from_rsa_der(weak.to_pkcs1_der().unwrap().as_bytes());
    let world = Federated::open(vec![published("ec", &keys.ec, Algorithm::ES256)]).await;
    let good = serde_json::to_value(published("ec", &keys.ec, Algorithm::ES256)).unwrap();
    let poor = serde_json::to_value(published("weak", &weak, Algorithm::RS256)).unwrap();
    let future = json!({ "kty": "PQC", "kid": "future", "alg": "ML-DSA-44", "pub": "AAAA" });
    fs::write(&world.file, json!({ "keys": [octets, poor, future, good] }).to_string()).unwrap();
    world.office.clock.advance(6_000);
    let office = &world.office;
    ask(office, &signed(Some("ec"), &keys.ec, Algorithm::ES256, &claims(office))).await.ok(200);
    refused(office, &signed(Some("weak"), &weak, Algorithm::RS256, &claims(office)), "TOKEN_KEY_UNKNOWN").await;
}

#[tokio::test]
async fn keys_are_rotated_while_the_server_runs() {
    let keys = keys();
    let world = Federated::open(vec![published("2025", &keys.ec, Algorithm::ES256)]).await;
    let office = &world.office;
    let old = || signed(Some("2025"), &keys.ec, Algorithm::ES256, &claims(office));
    let new = || signed(Some("2026"), &keys.ed, Algorithm::EdDSA, &claims(office));
    ask(office, &old()).await.ok(200);
    refused(office, &new(), "TOKEN_KEY_UNKNOWN").await;

    // Both are published for a while: a new name has the file looked at within a second.
    world.publish(vec![published("2025", &keys.ec, Algorithm::ES256), published("2026", &keys.ed, Algorithm::EdDSA)]);
    refused(office, &new(), "TOKEN_KEY_UNKNOWN").await;
    office.clock.advance(1_000);
    ask(office, &new()).await.ok(200);
    ask(office, &old()).await.ok(200);

    // A file that is half written locks nobody out.
    fs::write(&world.file, "{\"keys\":[").unwrap();
    office.clock.advance(10_000);
    ask(office, &new()).await.ok(200);

    // The old key is withdrawn: refused within the recheck time.
    world.publish(vec![published("2026", &keys.ed, Algorithm::EdDSA)]);
    office.clock.advance(10_000);
    refused(office, &old(), "TOKEN_KEY_UNKNOWN").await;
    ask(office, &new()).await.ok(200);
}

#[tokio::test]
async fn each_call_says_which_roles_may() {
    let office = Office::open().await;
    office.furnish().await;
    let dispatch = office.request_visit("SO-100").await;
    let assign = json!({ "technicianId": "TECH-10" });
    let technician = office.technician("TECH-10");
    let body = office
        .post(&format!("/{dispatch}/assign"))
        .token(&technician)
        .json(&assign)
        .send()
        .await
        .error(403, "FORBIDDEN");
    assert_eq!(body["details"]["roles"], json!(["dispatcher", "admin"]));
    office.get("/events").token(&office.dispatcher()).send().await.error(403, "FORBIDDEN");
    office.get("/devices").token(&office.integration()).send().await.error(403, "FORBIDDEN");
    office.post("/events").token(&office.dispatcher()).json(&json!([])).send().await.error(403, "FORBIDDEN");
    // Roles of other systems are no roles here.
    let stranger = hs256(SECRET, &with(claims(&office), "roles", json!(["superuser", "Dispatcher"])));
    ask(&office, &stranger).await.error(403, "FORBIDDEN");
    ask(&office, &hs256(SECRET, &with(claims(&office), "roles", json!([])))).await.error(403, "FORBIDDEN");
}

#[tokio::test]
async fn one_tenant_never_sees_anothers_data() {
    let office = Office::open().await;
    office.furnish().await;
    let dispatch = office.request_visit("SO-100").await;
    let roles = [Role::Dispatcher, Role::Admin, Role::Integration];
    let stranger = office.token("tenant-002", "eve", &roles, None);
    for path in [format!("/{dispatch}"), format!("/{dispatch}/report"), format!("/{dispatch}/audit")] {
        office.get(&path).token(&stranger).send().await.error(404, "DISPATCH_NOT_FOUND");
    }
    office.get("/technicians/TECH-10").token(&stranger).send().await.error(404, "TECHNICIAN_NOT_FOUND");
    office.get("/locations/LOC-10").token(&stranger).send().await.error(404, "LOCATION_NOT_FOUND");
    for path in ["/requests", "/technicians", "/locations", "/skills", "/devices", "/exceptions", "/events"] {
        let body = office.get(path).token(&stranger).send().await.ok(200);
        assert_eq!(body["items"], json!([]), "{path}");
    }
    let audit = office.get(&format!("/audit?aggregate=dispatch:{dispatch}")).token(&stranger).send().await.ok(200);
    assert_eq!(audit["items"], json!([]));
    let cancel = json!({ "reason": "not mine" });
    let answer = office.post(&format!("/{dispatch}/cancel")).token(&stranger).json(&cancel).send().await;
    answer.error(404, "DISPATCH_NOT_FOUND");
    // What a stranger guesses and what does not exist cannot be told apart but by the id asked for.
    office.get("/DSP-999").token(&stranger).send().await.error(404, "DISPATCH_NOT_FOUND");
    // Not even where the token's owner names another tenant: there is no place to name one.
    let body = json!({ "serviceOrderId": "SO-7", "locationId": "LOC-10", "tenantId": TENANT });
    office.post("/requests").token(&stranger).json(&body).send().await.error(422, "VALIDATION_FAILED");
}
