//! Who is calling: bearer tokens (JWT), the keys that prove them, and what they say.
//!
//! **Architecture invariant:** the tenant comes from the token only. The algorithm is decided by the *key*: HS256 only with
//! the shared secret, RS256, ES256 and EdDSA only with a published key of that very kind. Nothing here logs a token or a
//! secret. Token times are on the system's clock, whatever clock the domain runs on.

mod error;
mod issue;
mod keys;
mod principal;
mod secret;
mod verify;

pub use error::AuthError;
pub use issue::{IssueError, TokenRequest, issue_token};
pub use keys::{JWKS_BYTES_MAX, JwksFile, KeyError};
pub use principal::Principal;
pub use secret::{SECRET_BYTES_MIN, Secret, SecretError, development_secret};
pub use verify::{Authenticator, SystemClock, TOKEN_BYTES_MAX, system_clock};
