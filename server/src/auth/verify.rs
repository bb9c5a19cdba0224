//! From a bearer token to a [`Principal`], or a typed refusal.

use super::keys::JwksFile;
use super::{AuthError, Principal, Secret};
use crate::service::{Caller, Role};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode};
use serde::Deserialize;
use serde_json::{Map, Value};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};
use sync_core::domain::Timestamp;

/// Longest token, bytes.
pub const TOKEN_BYTES_MAX: usize = 8 * 1024;
/// Most roles in a token.
const ROLES_MAX: usize = 64;

/// The system's time in seconds since the Unix epoch; an argument so that a test can let a token expire.
pub type SystemClock = Arc<dyn Fn() -> i64 + Send + Sync>;

/// The clock of this machine.
#[must_use]
#[allow(
    clippy::disallowed_methods,
    reason = "token times are on the system's clock, whatever clock the domain runs on"
)]
pub fn system_clock() -> SystemClock {
    Arc::new(|| {
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |elapsed| i64::try_from(elapsed.as_secs()).unwrap_or(i64::MAX))
    })
}

/// Checks tokens.
pub struct Authenticator {
    issuer: String,
    audience: String,
    leeway_seconds: i64,
    secrets: Vec<DecodingKey>,
    published: Option<JwksFile>,
    clock: SystemClock,
}

impl std::fmt::Debug for Authenticator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authenticator")
            .field("issuer", &self.issuer)
            .field("audience", &self.audience)
            .field("secrets", &self.secrets.len())
            .field("published", &self.published)
            .finish_non_exhaustive()
    }
}

impl Authenticator {
    /// Accepts tokens of `issuer` for `audience`, off by `leeway_seconds` at most, signed with one of the `secrets` (the
    /// current one first, then the one before it while it is being rotated out) or with a `published` key.
    #[must_use]
    pub fn new(
        issuer: impl Into<String>,
        audience: impl Into<String>,
        leeway_seconds: i64,
        secrets: &[Secret],
        published: Option<JwksFile>,
        clock: SystemClock,
    ) -> Self {
        Self {
            issuer: issuer.into(),
            audience: audience.into(),
            leeway_seconds,
            secrets: secrets.iter().map(|secret| DecodingKey::from_secret(secret.expose())).collect(),
            published,
            clock,
        }
    }

    /// Checks an `Authorization` header's value.
    ///
    /// # Errors
    /// [`AuthError`], typed.
    pub fn authenticate_header(&self, authorization: Option<&[u8]>) -> Result<Principal, AuthError> {
        let text = std::str::from_utf8(authorization.ok_or(AuthError::Missing)?).map_err(|_| AuthError::Malformed)?;
        let (scheme, token) = text.split_once(' ').ok_or(AuthError::Missing)?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Err(AuthError::Missing);
        }
        self.authenticate(token.trim())
    }

    /// Checks a token.
    ///
    /// # Errors
    /// [`AuthError`], typed.
    pub fn authenticate(&self, token: &str) -> Result<Principal, AuthError> {
        if token.is_empty() {
            return Err(AuthError::Missing);
        }
        if token.len() > TOKEN_BYTES_MAX {
            return Err(AuthError::Malformed);
        }
        let claims = self.verified_claims(token, &Header::read(token)?)?;
        self.check_times(&claims)?;
        principal(&claims)
    }

    /// The claims of a token whose signature, issuer and audience are right.
    fn verified_claims(&self, token: &str, header: &Header) -> Result<Map<String, Value>, AuthError> {
        // An extension that must be understood, and is not.
        if header.crit.is_some() {
            return Err(AuthError::Malformed);
        }
        match header.alg.as_str() {
            "HS256" if !self.secrets.is_empty() => {
                let mut result = Err(AuthError::UnknownKey);
                for secret in &self.secrets {
                    result = self.decode(token, Algorithm::HS256, secret);
                    if result != Err(AuthError::Signature) {
                        break;
                    }
                }
                result
            }
            "RS256" | "ES256" | "EdDSA" => {
                let published = self.published.as_ref().ok_or(AuthError::Algorithm)?;
                let kid = header.kid.as_deref().ok_or(AuthError::UnknownKey)?;
                let keys = published.keys(kid);
                let key = keys.get(kid).ok_or(AuthError::UnknownKey)?;
                // The key decides; a header that says otherwise is refused by the decoder's allow-list of one.
                self.decode(token, key.algorithm, &key.key)
            }
            _ => Err(AuthError::Algorithm),
        }
    }

    fn decode(&self, token: &str, algorithm: Algorithm, key: &DecodingKey) -> Result<Map<String, Value>, AuthError> {
        let mut validation = Validation::new(algorithm);
        validation.set_required_spec_claims(&["exp", "nbf", "iss", "aud", "sub"]);
        validation.set_issuer(&[&self.issuer]);
        validation.set_audience(&[&self.audience]);
        // Checked by `check_times` against the injected clock.
        validation.validate_exp = false;
        validation.validate_nbf = false;
        match decode::<Map<String, Value>>(token, key, &validation) {
            Ok(data) => Ok(data.claims),
            Err(error) => Err(refusal(error.kind())),
        }
    }

    fn check_times(&self, claims: &Map<String, Value>) -> Result<(), AuthError> {
        let now = (self.clock)() as f64;
        let leeway = self.leeway_seconds as f64;
        if now >= number(claims, "exp")? + leeway {
            return Err(AuthError::Expired);
        }
        if now < number(claims, "nbf")? - leeway {
            return Err(AuthError::NotYetValid);
        }
        Ok(())
    }
}

/// The part of a JOSE header that decides. Read here, and not by the decoder, so that `none` and its like get their own
/// answer.
#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    crit: Option<Value>,
}

impl Header {
    fn read(token: &str) -> Result<Self, AuthError> {
        let mut parts = token.split('.');
        let (Some(header), Some(_), Some(_), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
            return Err(AuthError::Malformed);
        };
        let bytes = URL_SAFE_NO_PAD.decode(header).map_err(|_| AuthError::Malformed)?;
        serde_json::from_slice(&bytes).map_err(|_| AuthError::Malformed)
    }
}

/// What the decoder's error means to the caller. The decoder's list may grow, so the rest is malformed.
fn refusal(kind: &ErrorKind) -> AuthError {
    match kind {
        ErrorKind::InvalidSignature => AuthError::Signature,
        ErrorKind::InvalidIssuer => AuthError::Issuer,
        ErrorKind::InvalidAudience => AuthError::Audience,
        ErrorKind::InvalidAlgorithm | ErrorKind::InvalidAlgorithmName | ErrorKind::UnsupportedAlgorithm => {
            AuthError::Algorithm
        }
        ErrorKind::MissingRequiredClaim(name) => AuthError::MissingClaim(match name.as_str() {
            "exp" => "exp",
            "nbf" => "nbf",
            "iss" => "iss",
            "aud" => "aud",
            _ => "sub",
        }),
        _ => AuthError::Malformed,
    }
}

fn number(claims: &Map<String, Value>, name: &'static str) -> Result<f64, AuthError> {
    let value = claims.get(name).ok_or(AuthError::MissingClaim(name))?;
    value.as_f64().filter(|seconds| seconds.is_finite()).ok_or(AuthError::InvalidClaim(name))
}

fn text<'a>(claims: &'a Map<String, Value>, name: &'static str) -> Result<Option<&'a str>, AuthError> {
    match claims.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(AuthError::InvalidClaim(name)),
    }
}

fn principal(claims: &Map<String, Value>) -> Result<Principal, AuthError> {
    fn id<T: std::str::FromStr>(claims: &Map<String, Value>, name: &'static str) -> Result<Option<T>, AuthError> {
        text(claims, name)?.map(|text| text.parse().map_err(|_| AuthError::InvalidClaim(name))).transpose()
    }
    let roles = roles(claims)?;
    let technician = id(claims, "technician")?;
    if roles.contains(&Role::Technician) && technician.is_none() {
        return Err(AuthError::MissingClaim("technician"));
    }
    let expires_at_ms = (number(claims, "exp")? * 1000.0) as i64;
    let caller = Caller {
        tenant: id(claims, "tenant")?.ok_or(AuthError::MissingClaim("tenant"))?,
        user: id(claims, "sub")?.ok_or(AuthError::MissingClaim("sub"))?,
        roles,
        technician,
    };
    Ok(Principal { caller, device: id(claims, "device")?, expires_at: Timestamp::from_millis(expires_at_ms) })
}

fn roles(claims: &Map<String, Value>) -> Result<Vec<Role>, AuthError> {
    let named = match claims.get("roles") {
        None | Some(Value::Null) => return Err(AuthError::MissingClaim("roles")),
        Some(Value::Array(named)) if named.len() <= ROLES_MAX => named,
        Some(_) => return Err(AuthError::InvalidClaim("roles")),
    };
    let mut roles = Vec::new();
    for name in named {
        let name = name.as_str().ok_or(AuthError::InvalidClaim("roles"))?;
        // An identity provider has roles of other systems too.
        if let Some(role) = Role::from_name(name)
            && !roles.contains(&role)
        {
            roles.push(role);
        }
    }
    Ok(roles)
}
