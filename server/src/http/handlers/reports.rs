//! What compliance reads: audit chains and service levels.

use crate::http::answer::Page;
use crate::http::error::ApiError;
use crate::http::extract::{ApiPath, ApiQuery, Signed, page_limit, read_cursor, write_cursor};
use crate::http::handlers::technicians::PageQuery;
use crate::http::schema;
use crate::http::state::AppState;
use crate::service::Caller;
use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use sync_core::domain::{DispatchId, Timestamp, Window};
use utoipa::IntoParams;

/// The report's span where none is named.
const SLA_SPAN_DEFAULT_MS: i64 = 30 * 24 * 60 * 60 * 1000;

/// Which chain.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct AuditQuery {
    /// The chain: `dispatch:DSP-100`, `technician:TECH-10`, `location:LOC-10`, `device:…`.
    #[param(example = "technician:TECH-10")]
    aggregate: String,
    /// The `nextCursor` of the page before.
    cursor: Option<String>,
    /// How many, 1 to 200; 50 where it is missing.
    limit: Option<u32>,
}

/// Reads one chain of the audit trail.
///
/// Each line holds the hash of the one before, so that a line that was changed or removed later shows.
#[utoipa::path(get, path = "/audit", tag = "reports", params(AuditQuery), responses(
    (status = 200, description = "A page of the chain, oldest first", body = schema::AuditPage),
))]
pub(crate) async fn audit(
    State(app): State<AppState>,
    Signed(principal): Signed,
    ApiQuery(query): ApiQuery<AuditQuery>,
) -> Result<Response, ApiError> {
    chain(&app, &principal.caller, &query.aggregate, query.cursor.as_deref(), query.limit).await
}

/// Reads a dispatch's audit trail.
#[utoipa::path(get, path = "/{dispatchId}/audit", tag = "dispatches",
    params(("dispatchId" = String, Path, example = "DSP-100"), PageQuery), responses(
    (status = 200, description = "A page of the chain, oldest first", body = schema::AuditPage),
    (status = 404, description = "`DISPATCH_NOT_FOUND`"),
))]
pub(crate) async fn dispatch_audit(
    State(app): State<AppState>,
    Signed(principal): Signed,
    ApiPath(dispatch): ApiPath<DispatchId>,
    ApiQuery(query): ApiQuery<PageQuery>,
) -> Result<Response, ApiError> {
    app.service.dispatch(&principal.caller, &dispatch).await?;
    let aggregate = format!("dispatch:{dispatch}");
    chain(&app, &principal.caller, &aggregate, query.cursor.as_deref(), query.limit).await
}

async fn chain(
    app: &AppState,
    caller: &Caller,
    aggregate: &str,
    cursor: Option<&str>,
    limit: Option<u32>,
) -> Result<Response, ApiError> {
    let limit = page_limit(limit)?;
    let after: Option<u64> = read_cursor(cursor)?;
    let found = app.service.audit(caller, aggregate, after.unwrap_or(0), limit + 1).await?;
    Ok(Json(Page::cut(found, limit, |last| write_cursor(&last.seq))).into_response())
}

/// Which span of time.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct SlaQuery {
    /// Breaches announced from then on; 30 days before `to` where it is missing.
    #[param(value_type = Option<String>, format = DateTime)]
    from: Option<Timestamp>,
    /// Until then; now where it is missing.
    #[param(value_type = Option<String>, format = DateTime)]
    to: Option<Timestamp>,
}

/// Reports breaches of service levels.
#[utoipa::path(get, path = "/reports/sla", tag = "reports", params(SlaQuery), responses(
    (status = 200, description = "The report", body = schema::SlaReport),
))]
pub(crate) async fn sla(
    State(app): State<AppState>,
    Signed(principal): Signed,
    ApiQuery(query): ApiQuery<SlaQuery>,
) -> Result<Response, ApiError> {
    let end = query.to.unwrap_or_else(|| app.service.now().plus_millis(1));
    let start = query.from.unwrap_or_else(|| end.plus_millis(-SLA_SPAN_DEFAULT_MS));
    if end <= start {
        return Err(ApiError::invalid("to", "must be after from"));
    }
    Ok(Json(app.service.sla_report(&principal.caller, Window { start, end }).await?).into_response())
}
