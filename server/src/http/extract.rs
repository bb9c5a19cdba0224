//! From a request to what a handler asks for, each failure an [`ApiError`].

use super::error::ApiError;
use super::layers::IDEMPOTENCY_KEY;
use super::state::AppState;
use crate::auth::{AuthError, Principal};
use crate::http::trace::TraceContext;
use crate::service::{Caller, IdempotencyKey, Request as ServiceRequest};
use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

/// Longest idempotency key, bytes.
pub const IDEMPOTENCY_KEY_BYTES_MAX: usize = 128;
/// Items of a page where the caller asks for no number.
pub const PAGE_ITEMS_DEFAULT: u32 = 50;
/// Most items of a page.
pub const PAGE_ITEMS_MAX: u32 = 200;

/// A caller with a good token.
#[derive(Debug, Clone)]
pub struct Signed(pub Principal);

impl FromRequestParts<AppState> for Signed {
    type Rejection = ApiError;
    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, ApiError> {
        let mut values = parts.headers.get_all(header::AUTHORIZATION).iter();
        let authorization = values.next().map(|value| value.as_bytes());
        // Two tokens: which one is meant is anybody's guess, and guessing is how proxies and servers come to disagree.
        if values.next().is_some() {
            return Err(AuthError::Malformed.into());
        }
        Ok(Self(state.auth.authenticate_header(authorization)?))
    }
}

/// A path's ids.
#[derive(Debug, Clone)]
pub struct ApiPath<T>(pub T);

impl<T: DeserializeOwned + Send> FromRequestParts<AppState> for ApiPath<T> {
    type Rejection = ApiError;
    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, ApiError> {
        match axum::extract::Path::<T>::from_request_parts(parts, state).await {
            Ok(axum::extract::Path(ids)) => Ok(Self(ids)),
            Err(rejection) if rejection.status().is_server_error() => Err(ApiError::internal(rejection.body_text())),
            Err(rejection) => Err(ApiError::invalid("path", rejection.body_text())),
        }
    }
}

/// A query's parameters.
#[derive(Debug, Clone)]
pub struct ApiQuery<T>(pub T);

impl<T: DeserializeOwned> FromRequestParts<AppState> for ApiQuery<T> {
    type Rejection = ApiError;
    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, ApiError> {
        match axum::extract::Query::<T>::from_request_parts(parts, state).await {
            Ok(axum::extract::Query(query)) => Ok(Self(query)),
            Err(rejection) => Err(ApiError::invalid("query", rejection.body_text())),
        }
    }
}

/// A command: who, what, under which conditions.
#[derive(Debug, Clone)]
pub struct Command<T> {
    /// Who.
    pub caller: Caller,
    /// What.
    pub body: T,
    expected_revision: Option<u64>,
    key: Option<String>,
    hash: String,
    traceparent: Option<String>,
}

impl<T> Command<T> {
    /// For the service.
    #[must_use]
    pub fn request(&self) -> ServiceRequest<'_> {
        ServiceRequest {
            caller: &self.caller,
            expected_revision: self.expected_revision,
            idempotency: self.key.as_deref().map(|key| IdempotencyKey { key, request_hash: &self.hash }),
            traceparent: self.traceparent.as_deref(),
        }
    }

    /// The body out of the envelope.
    pub fn split(self) -> (Command<()>, T) {
        let Self { caller, body, expected_revision, key, hash, traceparent } = self;
        (Command { caller, body: (), expected_revision, key, hash, traceparent }, body)
    }
}

impl<T: DeserializeOwned> FromRequest<AppState> for Command<T> {
    type Rejection = ApiError;
    async fn from_request(request: Request, state: &AppState) -> Result<Self, ApiError> {
        let (envelope, bytes) = Command::<()>::open(request, state).await?;
        // None at all is an empty object, for commands that need no words. A list would be read as the fields in order.
        let text: &[u8] = if bytes.is_empty() { b"{}" } else { &bytes };
        if text.iter().find(|byte| !byte.is_ascii_whitespace()) != Some(&b'{') {
            parse::<IgnoredAny>(text)?;
            return Err(ApiError::invalid("body", "must be a JSON object"));
        }
        let body = parse(text)?;
        let Command { caller, expected_revision, key, hash, traceparent, .. } = envelope;
        Ok(Self { caller, body, expected_revision, key, hash, traceparent })
    }
}

/// A command on many things: one JSON value, or a list of them.
#[derive(Debug, Clone)]
pub struct Batch {
    /// Who.
    pub caller: Caller,
    /// What, in order.
    pub items: Vec<Value>,
}

impl FromRequest<AppState> for Batch {
    type Rejection = ApiError;
    async fn from_request(request: Request, state: &AppState) -> Result<Self, ApiError> {
        let (envelope, bytes) = Command::<()>::open(request, state).await?;
        let items = match parse(&bytes)? {
            Value::Array(items) => items,
            one => vec![one],
        };
        Ok(Self { caller: envelope.caller, items })
    }
}

impl Command<()> {
    /// Everything but the body's meaning.
    async fn open(request: Request, state: &AppState) -> Result<(Self, Bytes), ApiError> {
        let (mut parts, body) = request.into_parts();
        // First of all: who has no token learns nothing of what else is wrong.
        let Signed(principal) = Signed::from_request_parts(&mut parts, state).await?;
        let expected_revision = expected_revision(&parts.headers)?;
        let key = idempotency_key(&parts.headers)?;
        let traceparent = parts.extensions.get::<TraceContext>().map(TraceContext::traceparent);
        let (named_json, method, path) = (is_json(&parts.headers), parts.method.clone(), parts.uri.path().to_owned());
        let bytes = Bytes::from_request(Request::from_parts(parts, body), state)
            .await
            .map_err(|rejection| ApiError::of_status(rejection.status()))?;
        if !bytes.is_empty() && !named_json {
            return Err(ApiError::of_status(StatusCode::UNSUPPORTED_MEDIA_TYPE));
        }
        let mut hash = Sha256::new();
        for part in [principal.caller.user.as_str().as_bytes(), method.as_str().as_bytes(), path.as_bytes(), &bytes] {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        let hash = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        Ok((Self { caller: principal.caller, body: (), expected_revision, key, hash, traceparent }, bytes))
    }
}

fn parse<T: DeserializeOwned>(text: &[u8]) -> Result<T, ApiError> {
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    let value = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let field = error.path().to_string();
        unreadable(error.inner(), &field)
    })?;
    deserializer.end().map_err(|error| unreadable(&error, "."))?;
    Ok(value)
}

fn unreadable(error: &serde_json::Error, field: &str) -> ApiError {
    if error.is_data() {
        let field = if field == "." { "body" } else { field };
        return ApiError::invalid(field, error);
    }
    ApiError::new(StatusCode::BAD_REQUEST, "JSON_MALFORMED", format!("the body is no well-formed JSON: {error}"))
        .with_details(json!({ "line": error.line(), "column": error.column() }))
}

fn is_json(headers: &HeaderMap) -> bool {
    let named = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = named.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence == "application/json" || (essence.starts_with("application/") && essence.ends_with("+json"))
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, ApiError> {
    let refusal = |message: &str| {
        ApiError::new(StatusCode::BAD_REQUEST, "IDEMPOTENCY_KEY_INVALID", message.to_owned())
            .with_details(json!({ "header": "Idempotency-Key" }))
    };
    let mut values = headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(refusal("send one Idempotency-Key"));
    }
    match value.to_str() {
        Ok(key)
            if !key.is_empty()
                && key.len() <= IDEMPOTENCY_KEY_BYTES_MAX
                && key.bytes().all(|byte| byte.is_ascii_graphic()) =>
        {
            Ok(Some(key.to_owned()))
        }
        _ => Err(refusal(
            "an Idempotency-Key has 1 to 128 visible ASCII characters, without spaces; a random UUID is a good one",
        )),
    }
}

/// `If-Match`: one revision as an `ETag` names it, or `*` for whatever there is.
fn expected_revision(headers: &HeaderMap) -> Result<Option<u64>, ApiError> {
    let mut values = headers.get_all(header::IF_MATCH).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let text = value.to_str().unwrap_or_default().trim();
    if text == "*" && values.next().is_none() {
        return Ok(None);
    }
    let revision = text
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'))
        .filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))
        .and_then(|digits| digits.parse().ok());
    match revision {
        Some(revision) if values.next().is_none() => Ok(Some(revision)),
        _ => Err(ApiError::new(
            StatusCode::PRECONDITION_FAILED,
            "REVISION_MISMATCH",
            "If-Match takes one ETag as this server gave it, like \"7\", or *",
        )
        .with_details(json!({ "header": "If-Match" }))),
    }
}

/// True when the caller has this version already.
pub(super) fn is_known(headers: &HeaderMap, etag: &str) -> bool {
    headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok()).any(|text| {
        text.split(',').map(str::trim).any(|tag| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == etag)
    })
}

/// How many items a page shall have.
pub(super) fn page_limit(asked: Option<u32>) -> Result<u32, ApiError> {
    match asked {
        None => Ok(PAGE_ITEMS_DEFAULT),
        Some(limit) if (1..=PAGE_ITEMS_MAX).contains(&limit) => Ok(limit),
        Some(limit) => Err(ApiError::invalid("limit", format!("{limit}; use 1 to {PAGE_ITEMS_MAX}"))),
    }
}

/// Where a page ended, as text that means nothing to a caller.
pub(super) fn write_cursor<T: Serialize>(position: &T) -> String {
    URL_SAFE_NO_PAD.encode(serde_json::to_vec(position).unwrap_or_default())
}

/// The position in a cursor of ours.
pub(super) fn read_cursor<T: DeserializeOwned>(cursor: Option<&str>) -> Result<Option<T>, ApiError> {
    let Some(cursor) = cursor else { return Ok(None) };
    let position = URL_SAFE_NO_PAD.decode(cursor).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
    position
        .map(Some)
        .ok_or_else(|| ApiError::invalid("cursor", "give back the nextCursor of the page before, unchanged"))
}
