//! What every request passes through, outermost first.

use super::error::{ApiError, dress};
use super::trace::{REQUEST_ID, TRACEPARENT, TraceContext, follow};
use crate::config::ServerConfig;
use crate::service::Service;
use crate::telemetry::metrics::{HTTP_REQUESTS, HTTP_SECONDS};
use axum::Router;
use axum::error_handling::HandleErrorLayer;
use axum::extract::{DefaultBodyLimit, MatchedPath, Request};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use std::any::Any;
use std::time::{Duration, Instant};
use tower::ServiceBuilder;
use tower::limit::GlobalConcurrencyLimitLayer;
use tower::load_shed::LoadShedLayer;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::compression::CompressionLayer;
use tower_http::cors::CorsLayer;
use tower_http::limit::RequestBodyLimitLayer;
use tower_http::request_id::{MakeRequestId, PropagateRequestIdLayer, RequestId, SetRequestIdLayer};
use tower_http::sensitive_headers::SetSensitiveRequestHeadersLayer;
use tower_http::timeout::TimeoutLayer;
use tower_http::trace::TraceLayer;
use tracing::Span;

/// The header of a repeatable POST.
pub const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// Says that an answer was remembered, and nothing was done again.
pub const IDEMPOTENT_REPLAY: HeaderName = HeaderName::from_static("idempotent-replay");
/// A browser may keep the answer to a preflight this long.
const PREFLIGHT_MAX_AGE: Duration = Duration::from_secs(600);

/// Puts the layers around the routes.
pub(super) fn around(routes: Router, service: Service, config: &ServerConfig) -> Router {
    // Inside `dress`: whatever these answer gets the error body.
    let guarded = ServiceBuilder::new()
        .layer(from_fn_with_state(service, dress))
        .layer(CatchPanicLayer::custom(panicked))
        .layer(HandleErrorLayer::new(shed))
        .layer(LoadShedLayer::new())
        .layer(GlobalConcurrencyLimitLayer::new(config.requests_concurrent_max))
        .layer(TimeoutLayer::with_status_code(StatusCode::GATEWAY_TIMEOUT, config.request_timeout()))
        .layer(RequestBodyLimitLayer::new(config.body_bytes_max))
        .layer(DefaultBodyLimit::max(config.body_bytes_max));
    let outer = ServiceBuilder::new()
        .layer(from_fn(measure))
        .layer(SetSensitiveRequestHeadersLayer::new([header::AUTHORIZATION, header::COOKIE]))
        .layer(from_fn(follow))
        .layer(SetRequestIdLayer::new(REQUEST_ID, TraceIsRequestId))
        .layer(PropagateRequestIdLayer::new(REQUEST_ID))
        .layer(CompressionLayer::new())
        .layer(
            TraceLayer::new_for_http()
                .make_span_with(|request: &Request| span(request))
                .on_request(())
                .on_response(|response: &Response, latency: Duration, _: &Span| {
                    tracing::info!(
                        status = response.status().as_u16(),
                        latency_us = latency.as_micros() as u64,
                        "answered"
                    );
                })
                // `dress` says what went wrong, once.
                .on_failure(()),
        )
        .layer(cors(config));
    routes.layer(guarded).layer(outer)
}

/// Counts the call by its route, never by its path: ids would make a series each.
async fn measure(request: Request, next: Next) -> Response {
    let began = Instant::now();
    let method = match *request.method() {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::OPTIONS => "OPTIONS",
        // A caller may invent as many as it likes.
        _ => "OTHER",
    };
    let route = request.extensions().get::<MatchedPath>().map_or("unknown", MatchedPath::as_str).to_owned();
    let response = next.run(request).await;
    let status = response.status().as_u16().to_string();
    metrics::histogram!(HTTP_SECONDS, "method" => method, "route" => route.clone()).record(began.elapsed());
    metrics::counter!(HTTP_REQUESTS, "method" => method, "route" => route, "status" => status).increment(1);
    response
}

/// A span for the log: the path without its query, which may hold what is nobody's business.
fn span(request: &Request) -> Span {
    let trace_id = request.extensions().get::<TraceContext>().map_or("", TraceContext::trace_id);
    let request_id = request.headers().get(REQUEST_ID).and_then(|id| id.to_str().ok()).unwrap_or("");
    tracing::info_span!("http", method = %request.method(), path = request.uri().path(), trace_id, request_id)
}

/// A request without an id of its own is named after its trace.
#[derive(Clone, Copy)]
struct TraceIsRequestId;

impl MakeRequestId for TraceIsRequestId {
    fn make_request_id<B>(&mut self, request: &axum::http::Request<B>) -> Option<RequestId> {
        let trace = request.extensions().get::<TraceContext>()?;
        HeaderValue::from_str(trace.trace_id()).ok().map(RequestId::new)
    }
}

/// Only the named pages, never `*`; tokens travel in a header, so no cookies.
fn cors(config: &ServerConfig) -> CorsLayer {
    let origins: Vec<HeaderValue> = config.cors_origins.iter().filter_map(|origin| origin.parse().ok()).collect();
    CorsLayer::new()
        .allow_origin(origins)
        .allow_methods([Method::GET, Method::POST, Method::PUT])
        .allow_headers([
            header::AUTHORIZATION,
            header::CONTENT_TYPE,
            header::IF_MATCH,
            header::IF_NONE_MATCH,
            IDEMPOTENCY_KEY,
            REQUEST_ID,
            TRACEPARENT,
        ])
        .expose_headers([
            header::ETAG,
            header::LOCATION,
            header::RETRY_AFTER,
            IDEMPOTENT_REPLAY,
            REQUEST_ID,
            TRACEPARENT,
        ])
        .max_age(PREFLIGHT_MAX_AGE)
}

fn panicked(panic: Box<dyn Any + Send + 'static>) -> Response {
    let text = panic
        .downcast_ref::<&'static str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_default();
    ApiError::internal(format!("a handler panicked: {text}")).into_response()
}

/// The only error of the layers inside is that there are too many requests.
async fn shed(_: tower::BoxError) -> Response {
    ApiError::busy().into_response()
}
