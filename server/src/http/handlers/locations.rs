//! Sites.

use super::technicians::PageQuery;
use crate::http::answer::{Page, cacheable, outcome};
use crate::http::error::ApiError;
use crate::http::extract::{ApiPath, ApiQuery, Command, Signed, page_limit, read_cursor, write_cursor};
use crate::http::requests::LocationBody;
use crate::http::schema;
use crate::http::state::AppState;
use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use sync_core::domain::LocationId;

/// Lists sites.
#[utoipa::path(get, path = "/locations", tag = "locations", params(PageQuery), responses(
    (status = 200, description = "A page, by id", body = schema::LocationPage),
))]
pub(crate) async fn list(
    State(app): State<AppState>,
    Signed(principal): Signed,
    ApiQuery(query): ApiQuery<PageQuery>,
) -> Result<Response, ApiError> {
    let limit = page_limit(query.limit)?;
    let after: Option<LocationId> = read_cursor(query.cursor.as_deref())?;
    let found = app.service.locations(&principal.caller, after.as_ref(), limit + 1).await?;
    Ok(Json(Page::cut(found, limit, |last| write_cursor(&last.location_id))).into_response())
}

/// One site.
#[utoipa::path(get, path = "/locations/{locationId}", tag = "locations",
    params(("locationId" = String, Path, example = "LOC-10")), responses(
    (status = 200, description = "The site", body = schema::Location, headers(("ETag" = String))),
    (status = 304, description = "The caller has it already (`If-None-Match`)"),
    (status = 404, description = "`LOCATION_NOT_FOUND`"),
))]
pub(crate) async fn read(
    State(app): State<AppState>,
    Signed(principal): Signed,
    ApiPath(location): ApiPath<LocationId>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let found = app.service.location(&principal.caller, &location).await?;
    Ok(cacheable(&headers, &found, found.revision))
}

/// Enters or changes a site.
#[utoipa::path(put, path = "/locations/{locationId}", tag = "locations", request_body = LocationBody,
    params(("locationId" = String, Path, example = "LOC-10")), responses(
    (status = 200, description = "The site", body = schema::Location, headers(("ETag" = String))),
    (status = 201, description = "The new site", body = schema::Location, headers(("ETag" = String))),
))]
pub(crate) async fn put(
    State(app): State<AppState>,
    ApiPath(location): ApiPath<LocationId>,
    command: Command<LocationBody>,
) -> Result<Response, ApiError> {
    let (command, body) = command.split();
    Ok(outcome(&app.service.put_location(command.request(), &location, body.try_into()?).await?))
}
