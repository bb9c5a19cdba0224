//! Phones: which one is behind, since when, and how much of its work is missing.

use crate::http::answer::{Page, outcome};
use crate::http::error::ApiError;
use crate::http::extract::{ApiPath, ApiQuery, Command, Signed};
use crate::http::requests::EmptyBody;
use crate::http::schema;
use crate::http::state::AppState;
use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use sync_core::domain::{DeviceId, TechnicianId};
use utoipa::IntoParams;

/// Whose phones.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct DeviceQuery {
    /// Only this technician's.
    #[param(value_type = Option<String>, example = "TECH-10")]
    technician_id: Option<TechnicianId>,
}

/// Lists phones and their health, those behind first.
#[utoipa::path(get, path = "/devices", tag = "devices", params(DeviceQuery), responses(
    (status = 200, description = "The phones", body = schema::DeviceList),
))]
pub(crate) async fn list(
    State(app): State<AppState>,
    Signed(principal): Signed,
    ApiQuery(query): ApiQuery<DeviceQuery>,
) -> Result<Response, ApiError> {
    let items = app.service.devices(&principal.caller, query.technician_id.as_ref()).await?;
    Ok(Json(Page { items, next_cursor: None }).into_response())
}

/// Revokes a phone: it is disconnected, removes what it holds, and what it still sends is quarantined.
#[utoipa::path(post, path = "/devices/{deviceId}/revoke", tag = "devices", request_body = Option<EmptyBody>,
    params(("deviceId" = String, Path)), responses(
    (status = 200, description = "The phone", body = schema::Device, headers(("ETag" = String))),
    (status = 404, description = "`DEVICE_NOT_FOUND`"),
))]
pub(crate) async fn revoke(
    State(app): State<AppState>,
    ApiPath(device): ApiPath<DeviceId>,
    command: Command<EmptyBody>,
) -> Result<Response, ApiError> {
    Ok(outcome(&app.service.revoke_device(command.request(), &device).await?))
}
