//! Why a token is not accepted. Each kind has a code and says what to do; none tells anything of the keys.

/// Why a token is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// No `Authorization: Bearer …` header.
    #[error("send a token in the header `Authorization: Bearer TOKEN`")]
    Missing,
    /// No JWT, too long, or a claim of the wrong type.
    #[error("the token is no well-formed JWT; get a new one")]
    Malformed,
    /// `none`, or an algorithm that this server does not accept for any key it has.
    #[error(
        "the token's algorithm is not accepted; use HS256 with the shared secret, or RS256, ES256, EdDSA with a published key"
    )]
    Algorithm,
    /// No `kid`, or one that is not published.
    #[error("the token's key is not known here; sign with a published key and name it in `kid`")]
    UnknownKey,
    /// The signature does not match.
    #[error("the token's signature does not match; get a new one")]
    Signature,
    /// Past `exp`.
    #[error("the token has expired; get a new one")]
    Expired,
    /// Before `nbf`.
    #[error("the token is not valid yet; check the issuer's clock")]
    NotYetValid,
    /// Another `iss`.
    #[error("the token comes from an issuer that is not accepted here")]
    Issuer,
    /// Another `aud`.
    #[error("the token is meant for another audience")]
    Audience,
    /// A claim that every token must have.
    #[error("the token lacks the claim `{0}`; the issuer must add it")]
    MissingClaim(&'static str),
    /// A claim whose value makes no sense here.
    #[error("the token's claim `{0}` is not usable; the issuer must correct it")]
    InvalidClaim(&'static str),
}

impl AuthError {
    /// The stable code of the error body.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Missing => "TOKEN_MISSING",
            Self::Malformed => "TOKEN_MALFORMED",
            Self::Algorithm => "TOKEN_ALGORITHM_NOT_ACCEPTED",
            Self::UnknownKey => "TOKEN_KEY_UNKNOWN",
            Self::Signature => "TOKEN_SIGNATURE_INVALID",
            Self::Expired => "TOKEN_EXPIRED",
            Self::NotYetValid => "TOKEN_NOT_YET_VALID",
            Self::Issuer => "TOKEN_ISSUER_NOT_ACCEPTED",
            Self::Audience => "TOKEN_AUDIENCE_NOT_ACCEPTED",
            Self::MissingClaim(_) => "TOKEN_CLAIM_MISSING",
            Self::InvalidClaim(_) => "TOKEN_CLAIM_INVALID",
        }
    }

    /// The `WWW-Authenticate` header (RFC 6750): without an error when no token was sent.
    #[must_use]
    pub fn challenge(self) -> &'static str {
        match self {
            Self::Missing => r#"Bearer realm="crm-dispatch""#,
            Self::Expired => {
                r#"Bearer realm="crm-dispatch", error="invalid_token", error_description="the token has expired""#
            }
            Self::Malformed
            | Self::Algorithm
            | Self::UnknownKey
            | Self::Signature
            | Self::NotYetValid
            | Self::Issuer
            | Self::Audience
            | Self::MissingClaim(_)
            | Self::InvalidClaim(_) => r#"Bearer realm="crm-dispatch", error="invalid_token""#,
        }
    }
}
