//! Published keys: a JWKS file that may change under the running server.

use super::verify::SystemClock;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

/// Largest JWKS file, bytes.
pub const JWKS_BYTES_MAX: u64 = 256 * 1024;
/// Shortest RSA modulus, bytes: 2048 bits.
const RSA_MODULUS_BYTES_MIN: usize = 256;
/// An unknown `kid` has the file looked at again, at most this often: a flood of made-up names costs nothing.
const UNKNOWN_KEY_RECHECK_SECONDS: i64 = 1;

/// Why there are no keys.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file cannot be read.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is larger than [`JWKS_BYTES_MAX`].
    #[error("{0}: larger than {JWKS_BYTES_MAX} bytes; a key set is a few kilobytes")]
    TooLarge(PathBuf),
    /// The file is no JWKS.
    #[error("{path}: no JSON Web Key Set: {detail}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Why.
        detail: String,
    },
    /// No key in it can be used.
    #[error("{0}: no usable key; each needs a `kid`, and is RSA of at least 2048 bits, EC P-256, or Ed25519")]
    Empty(PathBuf),
}

/// A key and the one algorithm that it may check.
pub(super) struct PublishedKey {
    pub(super) algorithm: Algorithm,
    pub(super) key: DecodingKey,
}

/// A JWKS file, read again when it changes.
pub struct JwksFile {
    path: PathBuf,
    recheck_seconds: i64,
    clock: SystemClock,
    state: Mutex<State>,
}

struct State {
    keys: Arc<HashMap<String, PublishedKey>>,
    stamp: Option<(SystemTime, u64)>,
    checked_at: i64,
}

impl std::fmt::Debug for JwksFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("JwksFile").field("path", &self.path).finish_non_exhaustive()
    }
}

impl JwksFile {
    /// Reads the file. It is looked at again every `recheck_seconds` at most, and when a token names a key that is not
    /// in it.
    ///
    /// # Errors
    /// [`KeyError`] when it cannot be read or has no usable key.
    pub fn open(path: &Path, recheck_seconds: i64, clock: SystemClock) -> Result<Self, KeyError> {
        let stamp = stamp(path);
        let keys = Arc::new(read(path)?);
        let checked_at = clock();
        Ok(Self { path: path.to_owned(), recheck_seconds, clock, state: Mutex::new(State { keys, stamp, checked_at }) })
    }

    /// The keys, with the one named `kid` if it is published by now.
    pub(super) fn keys(&self, kid: &str) -> Arc<HashMap<String, PublishedKey>> {
        let mut state = self.lock();
        let patience = if state.keys.contains_key(kid) { self.recheck_seconds } else { UNKNOWN_KEY_RECHECK_SECONDS };
        let now = (self.clock)();
        // A clock that was set back must not stop the rotation.
        if !(0..patience).contains(&(now - state.checked_at)) {
            state.checked_at = now;
            self.reload(&mut state);
        }
        Arc::clone(&state.keys)
    }

    /// Reads the file if it has changed. One that cannot be used leaves the old keys in force: a half-written file locks
    /// nobody out, and the next look repairs it.
    fn reload(&self, state: &mut State) {
        let found = stamp(&self.path);
        if found.is_some() && found == state.stamp {
            return;
        }
        match read(&self.path) {
            Ok(keys) => {
                tracing::info!(keys = keys.len(), "the published keys have changed");
                state.keys = Arc::new(keys);
                state.stamp = found;
            }
            Err(error) => {
                tracing::warn!(%error, "the published keys could not be read again; the old ones stay in force")
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it is held, and each field is whole at any moment.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The set, each key still as it is: one of a newer kind must not take the others with it.
#[derive(serde::Deserialize)]
struct KeySet {
    keys: Vec<serde_json::Value>,
}

fn stamp(path: &Path) -> Option<(SystemTime, u64)> {
    let metadata = fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}

fn read(path: &Path) -> Result<HashMap<String, PublishedKey>, KeyError> {
    let io = |source| KeyError::Io { path: path.to_owned(), source };
    if fs::metadata(path).map_err(io)?.len() > JWKS_BYTES_MAX {
        return Err(KeyError::TooLarge(path.to_owned()));
    }
    let bytes = fs::read(path).map_err(io)?;
    let set: KeySet = serde_json::from_slice(&bytes)
        .map_err(|error| KeyError::Malformed { path: path.to_owned(), detail: error.to_string() })?;
    let keys: HashMap<_, _> = set
        .keys
        .into_iter()
        .filter_map(|value| {
            let kid = value.get("kid").and_then(serde_json::Value::as_str).map(str::to_owned);
            let usable = serde_json::from_value::<Jwk>(value).ok().and_then(|jwk| usable(&jwk));
            if usable.is_none() {
                tracing::warn!(kid, "a published key cannot be used and is left out");
            }
            usable
        })
        .collect();
    if keys.is_empty() { Err(KeyError::Empty(path.to_owned())) } else { Ok(keys) }
}

/// A published key under its name, if it is one of the three accepted kinds. Symmetric keys have no place in a published
/// set, and would let whoever reads it sign.
fn usable(jwk: &Jwk) -> Option<(String, PublishedKey)> {
    let kid = jwk.common.key_id.clone().filter(|kid| !kid.is_empty())?;
    if jwk.common.public_key_use.as_ref().is_some_and(|use_| *use_ != PublicKeyUse::Signature) {
        return None;
    }
    let algorithm = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => Algorithm::RS256,
        AlgorithmParameters::EllipticCurve(ec) if ec.curve == EllipticCurve::P256 => Algorithm::ES256,
        AlgorithmParameters::OctetKeyPair(okp) if okp.curve == EllipticCurve::Ed25519 => Algorithm::EdDSA,
        _ => return None,
    };
    let declared = match algorithm {
        Algorithm::RS256 => KeyAlgorithm::RS256,
        Algorithm::ES256 => KeyAlgorithm::ES256,
        _ => KeyAlgorithm::EdDSA,
    };
    if jwk.common.key_algorithm.is_some_and(|named| named != declared) {
        return None;
    }
    let key = DecodingKey::from_jwk(jwk).ok()?;
    if let jsonwebtoken::DecodingKeyKind::RsaModulusExponent { n, .. } = key.kind()
        && n.iter().skip_while(|byte| **byte == 0).count() < RSA_MODULUS_BYTES_MIN
    {
        return None;
    }
    Some((kid, PublishedKey { algorithm, key }))
}
