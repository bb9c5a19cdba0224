//! The one error body, and everything that can fill it.
//!
//! `{"error":"CODE","message":"…","details":{…},"timestamp":"2026-02-02T10:30:00Z","traceId":"…"}` for every error: of a
//! handler, of a layer, of the router itself. A handler's [`ApiError`] travels as a response extension; [`dress`] alone
//! writes bodies, and gives one to whatever comes without (404, 405, 408, 413, a panic, …).
//!
//! **Architecture invariant:** a 5xx body tells nothing of the inside; the cause goes to the log.

use super::trace::TraceContext;
use crate::auth::AuthError;
use crate::service::Service;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::{Value, json};
use std::borrow::Cow;
use sync_core::domain::Timestamp;
use utoipa::ToSchema;

/// Longest field name in an error body.
const FIELD_CHARS_MAX: usize = 100;
/// Longest message about a field.
const MESSAGE_CHARS_MAX: usize = 500;

/// How loud an error is in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogLevel {
    /// A person must look: the server's fault.
    Error,
    /// The server protects itself, or a caller tries what it must not.
    Warn,
    /// A caller's everyday mistake.
    Debug,
}

/// An error on its way to the caller. Small, since it is half of every handler's result.
#[derive(Debug, Clone)]
pub struct ApiError(Box<Refusal>);

#[derive(Debug, Clone)]
struct Refusal {
    status: StatusCode,
    code: &'static str,
    message: Cow<'static, str>,
    details: Value,
    log: LogLevel,
    challenge: Option<&'static str>,
    retry_after_seconds: Option<u32>,
    cause: Option<String>,
}

/// Every error's body.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(example = json!({
    "error": "DISPATCH_NOT_FOUND",
    "message": "there is no dispatch DSP-100",
    "details": { "dispatchId": "DSP-100" },
    "timestamp": "2026-02-02T10:30:00Z",
    "traceId": "4bf92f3577b34da6a3ce929d0e0e4736"
}))]
pub struct ErrorBody {
    /// A stable code to decide on.
    pub error: String,
    /// For people: what is wrong and what to do.
    pub message: String,
    /// What it is about, by field; an empty object where there is nothing to add.
    #[schema(value_type = Object)]
    pub details: Value,
    /// The server's time.
    #[schema(value_type = String, format = DateTime)]
    pub timestamp: Timestamp,
    /// The W3C trace id: the caller's, where it sent a `traceparent`. Name it when asking for help.
    pub trace_id: String,
}

impl ApiError {
    /// An error of the caller's making, without details.
    #[must_use]
    pub fn new(status: StatusCode, code: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        Self(Box::new(Refusal {
            status,
            code,
            message: message.into(),
            details: json!({}),
            log: LogLevel::Debug,
            challenge: None,
            retry_after_seconds: None,
            cause: None,
        }))
    }

    /// With details: a JSON object.
    #[must_use]
    pub fn with_details(mut self, details: Value) -> Self {
        self.0.details = details;
        self
    }

    /// With another loudness.
    #[must_use]
    pub fn with_log(mut self, log: LogLevel) -> Self {
        self.0.log = log;
        self
    }

    /// Tells the caller when to come back.
    #[must_use]
    pub fn with_retry_after(mut self, seconds: u32) -> Self {
        self.0.retry_after_seconds = Some(seconds);
        self
    }

    /// The server's fault. `cause` goes to the log only.
    #[must_use]
    pub fn internal(cause: impl Into<String>) -> Self {
        let mut error = Self::of_status(StatusCode::INTERNAL_SERVER_ERROR);
        error.0.cause = Some(cause.into());
        error
    }

    /// A field of the input that makes no sense. Both texts may repeat what the caller sent, so they are cut.
    #[must_use]
    pub fn invalid(field: &str, message: impl std::fmt::Display) -> Self {
        let field = cut(field, FIELD_CHARS_MAX);
        let message = cut(&format!("{field}: {message}"), MESSAGE_CHARS_MAX);
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "VALIDATION_FAILED", message)
            .with_details(json!({ "field": field }))
    }

    /// The server has too much to do.
    #[must_use]
    pub fn busy() -> Self {
        Self::of_status(StatusCode::SERVICE_UNAVAILABLE).with_retry_after(1)
    }

    /// What a bare status means here.
    #[must_use]
    pub fn of_status(status: StatusCode) -> Self {
        let (code, message) = match status {
            StatusCode::NOT_FOUND => ("ROUTE_NOT_FOUND", "there is nothing here; /docs lists every call"),
            StatusCode::METHOD_NOT_ALLOWED => {
                ("METHOD_NOT_ALLOWED", "this path has other methods; see the header Allow")
            }
            StatusCode::NOT_ACCEPTABLE => ("NOT_ACCEPTABLE", "answers are JSON, plain or gzip; accept one of them"),
            StatusCode::REQUEST_TIMEOUT => ("REQUEST_TIMEOUT", "the request took too long to arrive; send it again"),
            StatusCode::PAYLOAD_TOO_LARGE => {
                ("BODY_TOO_LARGE", "the body is larger than this server accepts; send less at once")
            }
            StatusCode::UNSUPPORTED_MEDIA_TYPE => {
                ("UNSUPPORTED_MEDIA_TYPE", "send JSON with the header Content-Type: application/json")
            }
            StatusCode::UPGRADE_REQUIRED => ("UPGRADE_REQUIRED", "this path speaks WebSocket; send an upgrade request"),
            StatusCode::SERVICE_UNAVAILABLE => ("SERVER_BUSY", "the server has too much to do; try again in a moment"),
            StatusCode::GATEWAY_TIMEOUT => (
                "SERVER_TIMEOUT",
                "the server took too long; send it again with the same Idempotency-Key, which cannot do it twice",
            ),
            status if status.is_server_error() => {
                ("INTERNAL", "something went wrong on the server; the log knows it by the traceId")
            }
            _ => ("BAD_REQUEST", "the request makes no sense to this server"),
        };
        let log = match status {
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT => LogLevel::Warn,
            status if status.is_server_error() => LogLevel::Error,
            _ => LogLevel::Debug,
        };
        Self::new(status, code, message).with_log(log)
    }

    /// The status.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.0.status
    }

    /// The stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        self.0.code
    }

    fn write_log(&self) {
        let (status, code, cause) = (self.0.status.as_u16(), self.0.code, self.0.cause.as_deref());
        match self.0.log {
            LogLevel::Error => tracing::error!(status, code, cause, "refused"),
            LogLevel::Warn => tracing::warn!(status, code, cause, "refused"),
            LogLevel::Debug => tracing::debug!(status, code, cause, message = %self.0.message, "refused"),
        }
    }
}

fn cut(text: &str, chars_max: usize) -> String {
    match text.char_indices().nth(chars_max) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

impl From<AuthError> for ApiError {
    fn from(error: AuthError) -> Self {
        let mut refusal = Self::new(StatusCode::UNAUTHORIZED, error.code(), error.to_string());
        refusal.0.challenge = Some(error.challenge());
        match error {
            AuthError::MissingClaim(claim) | AuthError::InvalidClaim(claim) => {
                refusal.with_details(json!({ "claim": claim }))
            }
            AuthError::Missing | AuthError::Expired => refusal,
            AuthError::Malformed
            | AuthError::Algorithm
            | AuthError::UnknownKey
            | AuthError::Signature
            | AuthError::NotYetValid
            | AuthError::Issuer
            | AuthError::Audience => refusal.with_log(LogLevel::Warn),
        }
    }
}

impl IntoResponse for ApiError {
    /// Status and headers; `dress` writes the body.
    fn into_response(self) -> Response {
        let mut response = self.0.status.into_response();
        let headers = response.headers_mut();
        if let Some(challenge) = self.0.challenge {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        }
        if let Some(seconds) = self.0.retry_after_seconds {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response.extensions_mut().insert(self);
        response
    }
}

/// Gives every error response its body.
pub(super) async fn dress(State(service): State<Service>, request: Request, next: Next) -> Response {
    let trace = request.extensions().get::<TraceContext>().cloned().unwrap_or_default();
    let response = next.run(request).await;
    let status = response.status();
    if !status.is_client_error() && !status.is_server_error() {
        return response;
    }
    let (mut parts, _) = response.into_parts();
    let error = parts.extensions.remove::<ApiError>().unwrap_or_else(|| ApiError::of_status(status));
    error.write_log();
    let body = ErrorBody {
        error: error.0.code.to_owned(),
        message: error.0.message.into_owned(),
        details: error.0.details,
        timestamp: service.now(),
        trace_id: trace.trace_id().to_owned(),
    };
    for name in [header::CONTENT_LENGTH, header::CONTENT_ENCODING, header::TRANSFER_ENCODING] {
        parts.headers.remove(name);
    }
    parts.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    parts.headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    let text = serde_json::to_vec(&body).unwrap_or_default();
    Response::from_parts(parts, Body::from(text))
}
