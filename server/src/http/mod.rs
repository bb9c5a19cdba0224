//! The REST back office.
//!
//! A request passes the `layers`, is taken apart by `extract`, checked by [`requests`], decided by the service, and
//! answered by `answer`; every failure on the way ends in `error`'s one body.

mod admin;
mod answer;
mod error;
mod extract;
mod handlers;
mod layers;
mod openapi;
pub mod requests;
pub mod schema;
mod state;
mod trace;

pub use admin::{METRICS_PATH, admin_router};
pub use error::{ApiError, ErrorBody, LogLevel};
pub use extract::{
    ApiPath, ApiQuery, Batch, Command, IDEMPOTENCY_KEY_BYTES_MAX, PAGE_ITEMS_DEFAULT, PAGE_ITEMS_MAX, Signed,
};
pub use layers::{IDEMPOTENCY_KEY, IDEMPOTENT_REPLAY};
pub use openapi::{DOCS_PATH, OPENAPI_PATH};
pub use state::AppState;
pub use trace::{REQUEST_ID, TRACEPARENT, TraceContext};

use axum::Router;
use axum::http::header;
use axum::response::IntoResponse as _;
use axum::routing::get;
use handlers::{devices, dispatches, events, exceptions, health, locations, reports, sync, technicians};
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use utoipa_swagger_ui::SwaggerUi;

/// Where the calls are.
pub const PREFIX: &str = "/api/v1/crm/dispatch";

/// The server's router, ready to be served.
pub fn router(app: AppState) -> Router {
    router_with(app, Router::new())
}

/// Like [`router`], with more routes (full paths) inside the same layers, for a binary that serves something of its own.
pub fn router_with(app: AppState, more: Router<AppState>) -> Router {
    let (routes, document) = documented().split_for_parts();
    let document = openapi::complete(document);
    let text: axum::body::Bytes = serde_json::to_vec(&document).unwrap_or_default().into();
    let served = get(move || {
        let text = text.clone();
        async move { ([(header::CONTENT_TYPE, "application/json")], text).into_response() }
    });
    let page = SwaggerUi::new(DOCS_PATH).config(utoipa_swagger_ui::Config::from(OPENAPI_PATH));
    let (service, config) = (app.service.clone(), std::sync::Arc::clone(&app.config));
    let routes = routes.merge(more).route(OPENAPI_PATH, served).merge(page).with_state(app);
    layers::around(routes, service, &config.server)
}

/// The OpenAPI document of all calls.
#[must_use]
pub fn openapi() -> OpenApi {
    openapi::complete(documented().into_openapi())
}

/// Every call, with its documentation: what is not in here is not served.
fn documented() -> OpenApiRouter<AppState> {
    let calls = OpenApiRouter::default()
        .routes(routes!(dispatches::create, dispatches::search))
        .routes(routes!(dispatches::read))
        .routes(routes!(dispatches::report))
        .routes(routes!(dispatches::assign))
        .routes(routes!(dispatches::reassign))
        .routes(routes!(dispatches::unassign))
        .routes(routes!(dispatches::confirm))
        .routes(routes!(dispatches::reject))
        .routes(routes!(dispatches::cancel))
        .routes(routes!(dispatches::reinstate))
        .routes(routes!(dispatches::end_stop_work))
        .routes(routes!(dispatches::reschedule))
        .routes(routes!(dispatches::priority))
        .routes(routes!(reports::dispatch_audit))
        .routes(routes!(technicians::list))
        .routes(routes!(technicians::available))
        .routes(routes!(technicians::read, technicians::put))
        .routes(routes!(technicians::put_skills))
        .routes(routes!(technicians::put_availability))
        .routes(routes!(technicians::add_absence))
        .routes(routes!(technicians::set_status))
        .routes(routes!(technicians::skills))
        .routes(routes!(locations::list))
        .routes(routes!(locations::read, locations::put))
        .routes(routes!(devices::list))
        .routes(routes!(devices::revoke))
        .routes(routes!(exceptions::list))
        .routes(routes!(exceptions::resolve))
        .routes(routes!(events::journal, events::ingest))
        .routes(routes!(reports::audit))
        .routes(routes!(reports::sla))
        .routes(routes!(sync::connect));
    OpenApiRouter::with_openapi(openapi::skeleton())
        .nest(PREFIX, calls)
        .routes(routes!(health::live))
        .routes(routes!(health::ready))
}
