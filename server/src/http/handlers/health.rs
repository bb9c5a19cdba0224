//! Is it alive, can it work: for whoever restarts it, and whoever sends it requests.

use crate::http::error::ApiError;
use crate::http::schema;
use crate::http::state::AppState;
use crate::telemetry::metrics::READY;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::json;
use sync_core::domain::{DispatchId, TenantId};

/// The process answers.
#[utoipa::path(get, path = "/health/live", tag = "health", security(()), responses(
    (status = 200, description = "It does", body = schema::Health),
))]
pub(crate) async fn live() -> Response {
    up()
}

/// The server can work: the database answers, and it is not shutting down.
///
/// `DEGRADED` says that it works, and that events wait for Kafka; `events` says how publishing is going.
#[utoipa::path(get, path = "/health/ready", tag = "health", security(()), responses(
    (status = 200, description = "It can", body = schema::Health),
    (status = 503, description = "`NOT_READY`: send requests elsewhere"),
))]
pub(crate) async fn ready(State(app): State<AppState>) -> Result<Response, ApiError> {
    let answer = is_ready(&app).await;
    metrics::gauge!(READY).set(if answer.is_ok() { 1 } else { 0 });
    answer?;
    let relay = app.relay_status();
    // Dispatching goes on without Kafka, so requests are still welcome here.
    let status = if relay.is_degraded() { "DEGRADED" } else { "UP" };
    Ok(Json(json!({ "status": status, "events": relay.name() })).into_response())
}

async fn is_ready(app: &AppState) -> Result<(), ApiError> {
    if app.is_draining() {
        return Err(not_ready("the server is shutting down"));
    }
    // Any row of anybody: what counts is that the database answers.
    if let (Ok(tenant), Ok(dispatch)) = (TenantId::new("-"), DispatchId::new("-"))
        && let Err(error) = app.service.store().dispatch(&tenant, &dispatch).await
    {
        tracing::error!(%error, "the database does not answer");
        return Err(not_ready("the database does not answer"));
    }
    Ok(())
}

fn up() -> Response {
    Json(json!({ "status": "UP" })).into_response()
}

fn not_ready(message: &'static str) -> ApiError {
    ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "NOT_READY", message).with_retry_after(5)
}
