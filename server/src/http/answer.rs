//! From the service's outcome to a response.

use super::error::{ApiError, LogLevel};
use super::extract::is_known;
use super::layers::IDEMPOTENT_REPLAY;
use crate::service::{Outcome, ServiceError};
use axum::Json;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

/// The one table from what the service says to what HTTP says.
fn table(error: &ServiceError) -> (StatusCode, LogLevel) {
    match error {
        ServiceError::DispatchNotFound(_)
        | ServiceError::TechnicianNotFound(_)
        | ServiceError::LocationNotFound(_)
        | ServiceError::DeviceNotFound(_)
        | ServiceError::ExceptionNotFound(_) => (StatusCode::NOT_FOUND, LogLevel::Debug),
        ServiceError::TechnicianNotAvailable { .. }
        | ServiceError::AssignmentConflict { .. }
        | ServiceError::IllegalTransition { .. }
        | ServiceError::ServiceOrderExists { .. } => (StatusCode::CONFLICT, LogLevel::Debug),
        ServiceError::RevisionMismatch { .. } => (StatusCode::PRECONDITION_FAILED, LogLevel::Debug),
        ServiceError::ValidationFailed { .. } | ServiceError::IdempotencyKeyReused => {
            (StatusCode::UNPROCESSABLE_ENTITY, LogLevel::Debug)
        }
        ServiceError::UnknownEvent(_) | ServiceError::PoisonEvent { .. } => {
            (StatusCode::UNPROCESSABLE_ENTITY, LogLevel::Warn)
        }
        ServiceError::Forbidden { .. } | ServiceError::DeviceForeign(_) | ServiceError::DeviceRevoked(_) => {
            (StatusCode::FORBIDDEN, LogLevel::Warn)
        }
        ServiceError::Busy => (StatusCode::SERVICE_UNAVAILABLE, LogLevel::Warn),
        ServiceError::Unavailable(_) => (StatusCode::SERVICE_UNAVAILABLE, LogLevel::Error),
        ServiceError::Internal(_) => (StatusCode::INTERNAL_SERVER_ERROR, LogLevel::Error),
    }
}

impl From<ServiceError> for ApiError {
    fn from(error: ServiceError) -> Self {
        if let ServiceError::Internal(cause) = error {
            return Self::internal(cause);
        }
        if let ServiceError::Unavailable(cause) = &error {
            tracing::error!(%cause, "the database cannot be reached");
        }
        let (status, log) = table(&error);
        let answer = Self::new(status, error.code(), error.to_string()).with_details(error.details()).with_log(log);
        if status == StatusCode::SERVICE_UNAVAILABLE { answer.with_retry_after(1) } else { answer }
    }
}

/// A command's answer: byte for byte what the idempotency key remembers.
pub(super) fn outcome<T: Serialize>(outcome: &Outcome<T>) -> Response {
    let reply = outcome.reply();
    let status = StatusCode::from_u16(reply.status).unwrap_or(StatusCode::OK);
    let mut response = (status, [(header::CONTENT_TYPE, "application/json")], reply.body).into_response();
    let headers = response.headers_mut();
    if let Some(etag) = reply.etag.and_then(|etag| HeaderValue::try_from(etag).ok()) {
        headers.insert(header::ETAG, etag);
    }
    if matches!(outcome, Outcome::Replayed(_)) {
        headers.insert(IDEMPOTENT_REPLAY, HeaderValue::from_static("true"));
    }
    response
}

/// A single resource with the `ETag` that a change's `If-Match` names.
pub(super) fn resource<T: Serialize>(value: &T, revision: u64) -> Response {
    ([(header::ETAG, etag(revision))], Json(value)).into_response()
}

/// Like [`resource`], or 304 when the caller has it already. Only for what changes with its revision alone.
pub(super) fn cacheable<T: Serialize>(headers: &HeaderMap, value: &T, revision: u64) -> Response {
    let etag = etag(revision);
    if is_known(headers, &etag) {
        return (StatusCode::NOT_MODIFIED, [(header::ETAG, etag)]).into_response();
    }
    resource(value, revision)
}

fn etag(revision: u64) -> String {
    format!("\"{revision}\"")
}

/// A page of a list.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Page<T> {
    /// What there is.
    pub(super) items: Vec<T>,
    /// Give it back as `cursor` for the next page; `null` on the last.
    pub(super) next_cursor: Option<String>,
}

impl<T: Serialize> Page<T> {
    /// Of one item more than was asked for, if there is one: so a last page knows that it is the last.
    pub(super) fn cut(mut items: Vec<T>, limit: u32, cursor: impl FnOnce(&T) -> String) -> Self {
        let more = items.len() > limit as usize;
        items.truncate(limit as usize);
        let next_cursor = if more { items.last().map(cursor) } else { None };
        Self { items, next_cursor }
    }
}
