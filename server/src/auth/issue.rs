//! Making tokens: for the `token` command, the demo and tests. A production set-up has an identity provider for it.

use super::Secret;
use crate::service::Role;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde::Serialize;
use sync_core::domain::{DeviceId, TechnicianId, TenantId, UserId};

/// What a token shall say.
#[derive(Debug, Clone, Serialize)]
pub struct TokenRequest {
    /// Whose token.
    pub sub: UserId,
    /// Of which tenant.
    pub tenant: TenantId,
    /// With which rights.
    pub roles: Vec<Role>,
    /// Which technician; needed with [`Role::Technician`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub technician: Option<TechnicianId>,
    /// Only for this device.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<DeviceId>,
}

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// A technician's token names the technician.
    #[error("a token with the role technician needs a technician id, like TECH-10")]
    TechnicianMissing,
    /// A token without a role may do nothing.
    #[error("a token needs a role: dispatcher, technician, integration or admin")]
    RoleMissing,
    /// The signer failed.
    #[error("the token could not be signed: {0}")]
    Signing(String),
}

/// The registered claims around a request.
#[derive(Serialize)]
struct Claims<'a> {
    iss: &'a str,
    aud: &'a str,
    iat: i64,
    nbf: i64,
    exp: i64,
    #[serde(flatten)]
    request: &'a TokenRequest,
}

/// Signs a token with the shared secret (HS256), valid from `now_seconds` for `lifetime_seconds`.
///
/// # Errors
/// [`IssueError`] when the request lacks a role or a technician, or the signer fails.
pub fn issue_token(
    secret: &Secret,
    issuer: &str,
    audience: &str,
    now_seconds: i64,
    lifetime_seconds: i64,
    request: &TokenRequest,
) -> Result<String, IssueError> {
    if request.roles.is_empty() {
        return Err(IssueError::RoleMissing);
    }
    if request.roles.contains(&Role::Technician) && request.technician.is_none() {
        return Err(IssueError::TechnicianMissing);
    }
    let claims = Claims {
        iss: issuer,
        aud: audience,
        iat: now_seconds,
        nbf: now_seconds,
        exp: now_seconds.saturating_add(lifetime_seconds),
        request,
    };
    encode(&Header::new(Algorithm::HS256), &claims, &EncodingKey::from_secret(secret.expose()))
        .map_err(|error| IssueError::Signing(error.to_string()))
}
