//! For the operator, on a listener of its own.
//!
//! The public listener faces phones anywhere; how many there are and how the business goes is not theirs to read, and a
//! scraper has no technician's token. So the figures have an address of their own: none unless one is set, loopback
//! unless another one is set.

use axum::Router;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use metrics_exporter_prometheus::PrometheusHandle;

/// Where the figures are.
pub const METRICS_PATH: &str = "/metrics";

/// The operator's routes.
pub fn admin_router(figures: &'static PrometheusHandle) -> Router {
    Router::new().route(METRICS_PATH, get(metrics)).with_state(figures)
}

async fn metrics(State(figures): State<&'static PrometheusHandle>) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], figures.render()).into_response()
}
