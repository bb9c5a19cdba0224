//! What a person in the office must decide.

use crate::http::answer::{Page, outcome};
use crate::http::error::ApiError;
use crate::http::extract::{ApiPath, ApiQuery, Command, Signed, page_limit};
use crate::http::requests::ResolveBody;
use crate::http::schema;
use crate::http::state::AppState;
use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use sync_core::domain::DispatchId;
use utoipa::IntoParams;

/// Which exceptions.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ExceptionQuery {
    /// Only of this visit.
    #[param(value_type = Option<String>, example = "DSP-100")]
    dispatch_id: Option<DispatchId>,
    /// Also those that were resolved.
    #[serde(default)]
    include_resolved: bool,
    /// How many, 1 to 200; 50 where it is missing.
    limit: Option<u32>,
}

/// Lists exceptions, newest first.
#[utoipa::path(get, path = "/exceptions", tag = "exceptions", params(ExceptionQuery), responses(
    (status = 200, description = "The exceptions", body = schema::ExceptionList),
))]
pub(crate) async fn list(
    State(app): State<AppState>,
    Signed(principal): Signed,
    ApiQuery(query): ApiQuery<ExceptionQuery>,
) -> Result<Response, ApiError> {
    let limit = page_limit(query.limit)?;
    let (dispatch, open_only) = (query.dispatch_id.as_ref(), !query.include_resolved);
    let items = app.service.exceptions(&principal.caller, dispatch, open_only, limit).await?;
    Ok(Json(Page { items, next_cursor: None }).into_response())
}

/// Settles an exception.
#[utoipa::path(post, path = "/exceptions/{exceptionId}/resolve", tag = "exceptions", request_body = ResolveBody,
    params(("exceptionId" = String, Path)), responses(
    (status = 200, description = "The exception", body = schema::Exception, headers(("ETag" = String))),
    (status = 404, description = "`DISPATCH_NOT_FOUND`, `EXCEPTION_NOT_FOUND`"),
))]
pub(crate) async fn resolve(
    State(app): State<AppState>,
    ApiPath(exception): ApiPath<String>,
    command: Command<ResolveBody>,
) -> Result<Response, ApiError> {
    let (command, body) = command.split();
    let resolution = body.check()?;
    Ok(outcome(&app.service.resolve_exception(command.request(), &body.dispatch_id, &exception, resolution).await?))
}
