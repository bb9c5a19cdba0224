//! Events: the journal of published ones, and the way in for consumed ones.

use crate::events::Event;
use crate::http::answer::Page;
use crate::http::error::ApiError;
use crate::http::extract::{ApiQuery, Batch, Signed, page_limit, read_cursor, write_cursor};
use crate::http::schema;
use crate::http::state::AppState;
use crate::service::ingest::IngestEffect;
use crate::service::{Action, ServiceError};
use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sync_core::domain::{DispatchId, EventId};
use utoipa::IntoParams;

/// Most consumed events in one call.
pub(crate) const INGEST_EVENTS_MAX: usize = 500;

/// Which part of the journal.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct JournalQuery {
    /// Only of this topic.
    #[param(example = "crm.dispatch.assignment.created")]
    topic: Option<String>,
    /// Only of this dispatch, or technician.
    #[param(example = "DSP-100")]
    aggregate_id: Option<String>,
    /// The `nextCursor` of the page before.
    cursor: Option<String>,
    /// How many, 1 to 200; 50 where it is missing.
    limit: Option<u32>,
}

#[derive(Debug, Serialize)]
struct JournalEntry {
    position: u64,
    topic: &'static str,
    event: Event,
}

/// Reads published events, oldest first.
///
/// `nextCursor` is always given: ask again with it for what has happened since.
#[utoipa::path(get, path = "/events", tag = "events", params(JournalQuery), responses(
    (status = 200, description = "A page of the journal", body = schema::JournalPage),
))]
pub(crate) async fn journal(
    State(app): State<AppState>,
    Signed(principal): Signed,
    ApiQuery(query): ApiQuery<JournalQuery>,
) -> Result<Response, ApiError> {
    let limit = page_limit(query.limit)?;
    let after: Option<u64> = read_cursor(query.cursor.as_deref())?;
    let (topic, aggregate) = (query.topic.as_deref(), query.aggregate_id.as_deref());
    let found = app.service.events(&principal.caller, after.unwrap_or(0), topic, aggregate, limit).await?;
    let next_cursor = found.last().map(|(position, _)| *position).or(after).as_ref().map(write_cursor);
    let items: Vec<_> = found
        .into_iter()
        .map(|(position, event)| JournalEntry { position, topic: event.payload.topic(), event })
        .collect();
    Ok(Json(Page { items, next_cursor }).into_response())
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct IngestLine {
    event_id: Option<EventId>,
    dispatch_id: Option<DispatchId>,
    effect: Option<IngestEffect>,
    error: Option<IngestFailure>,
}

#[derive(Debug, Serialize)]
struct IngestFailure {
    code: &'static str,
    message: String,
}

#[derive(Debug, Serialize)]
struct IngestResult {
    items: Vec<IngestLine>,
}

/// Hands in events of other systems: one envelope, or an array of them.
///
/// Each is consumed on its own, in order, and at most once by its event id and its natural key, so that a call may be
/// repeated at any time. One that cannot be read fails alone: its line says why, and the others go on.
#[utoipa::path(post, path = "/events", tag = "events",
    request_body(content = Value, description = "An event envelope, or an array of at most 500", example = json!({
        "eventType": "ServiceOrderScheduledEvent",
        "eventId": "evt-77",
        "timestamp": "2026-02-02T13:05:00Z",
        "aggregateId": "SO-100",
        "tenantId": "tenant-001",
        "payload": {
            "serviceOrderId": "SO-100",
            "locationId": "LOC-10",
            "scheduleStart": "2026-02-03T08:00:00Z",
            "scheduleEnd": "2026-02-03T10:00:00Z"
        }
    })),
    responses((status = 200, description = "One line an event, in order", body = schema::IngestResult)))]
pub(crate) async fn ingest(State(app): State<AppState>, batch: Batch) -> Result<Response, ApiError> {
    batch.caller.may(Action::Ingest)?;
    if batch.items.len() > INGEST_EVENTS_MAX {
        let count = batch.items.len();
        return Err(ApiError::invalid("body", format!("has {count} events; at most {INGEST_EVENTS_MAX}")));
    }
    let mut items = Vec::with_capacity(batch.items.len());
    for event in batch.items {
        let line = match app.service.ingest(&batch.caller, &event.to_string()).await {
            Ok(done) => IngestLine {
                event_id: Some(done.event_id),
                dispatch_id: done.dispatch_id,
                effect: Some(done.effect),
                error: None,
            },
            Err(error) => failed(&event, &error),
        };
        items.push(line);
    }
    Ok(Json(IngestResult { items }).into_response())
}

fn failed(event: &Value, error: &ServiceError) -> IngestLine {
    if let ServiceError::Internal(cause) = error {
        tracing::error!(%cause, "a consumed event failed");
    }
    let event_id = event.get("eventId").and_then(Value::as_str).and_then(|id| id.parse().ok());
    let failure = IngestFailure { code: error.code(), message: error.to_string() };
    IngestLine { event_id, dispatch_id: None, effect: None, error: Some(failure) }
}
