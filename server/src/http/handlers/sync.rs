//! The phones' WebSocket: authenticated like every call, then handed over.

use crate::http::error::ApiError;
use crate::http::extract::Signed;
use crate::http::state::AppState;
use crate::service::{Action, ServiceError};
use crate::sync::NotTaken;
use axum::extract::State;
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::http::StatusCode;
use axum::response::Response;

/// A phone that finds no place comes back after this.
const RETRY_AFTER_SECONDS: u32 = 2;

/// Connects a technician's phone (WebSocket).
///
/// Binary frames of the subprotocol `crm-dispatch-sync.v1`; only for the role technician.
#[utoipa::path(get, path = "/sync", tag = "sync", responses(
    (status = 101, description = "The connection is a WebSocket from here on"),
    (status = 400, description = "`BAD_REQUEST`, `UPGRADE_REQUIRED`: no WebSocket handshake"),
))]
pub(crate) async fn connect(
    State(app): State<AppState>,
    Signed(principal): Signed,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, ApiError> {
    principal.caller.may(Action::Sync)?;
    let upgrade = upgrade
        .map_err(|rejection| ApiError::of_status(axum::response::IntoResponse::into_response(rejection).status()))?;
    app.sync.accept(principal, upgrade).map_err(|refusal| match refusal {
        NotTaken::NoTechnician => {
            ServiceError::Forbidden { action: Action::Sync, needs: Action::Sync.roles().to_vec() }.into()
        }
        NotTaken::Full | NotTaken::Draining => {
            ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "SYNC_FULL", refusal.to_string())
                .with_retry_after(RETRY_AFTER_SECONDS)
        }
    })
}
