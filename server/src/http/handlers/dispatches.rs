//! Dispatches: the office's commands, the technician's answer, search and reading.

use crate::http::answer::{Page, outcome, resource};
use crate::http::error::ApiError;
use crate::http::extract::{ApiPath, ApiQuery, Command, Signed, page_limit, read_cursor, write_cursor};
use crate::http::requests::{
    AssignBody, ConfirmBody, CreateRequestBody, EmptyBody, PriorityBody, ReasonBody, RescheduleBody,
};
use crate::http::schema;
use crate::http::state::AppState;
use crate::service::model::DispatchSearch;
use axum::Json;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use sync_core::domain::plan::Priority;
use sync_core::domain::{DispatchId, LocationId, ServiceOrderId, TechnicianId, Timestamp, VisitStatus, Window};
use utoipa::IntoParams;

/// Asks for a visit.
///
/// One dispatch a service order, for ever: a second request for the same order is refused, and names the first.
#[utoipa::path(post, path = "/requests", tag = "dispatches", request_body = CreateRequestBody, responses(
    (status = 201, description = "The dispatch", body = schema::Dispatch,
        headers(("ETag" = String), ("Location" = String))),
    (status = 404, description = "`LOCATION_NOT_FOUND`"),
    (status = 409, description = "`SERVICE_ORDER_EXISTS`: `details.dispatchId` is its dispatch"),
))]
pub(crate) async fn create(
    State(app): State<AppState>,
    command: Command<CreateRequestBody>,
) -> Result<Response, ApiError> {
    let (command, body) = command.split();
    let done = app.service.create_request(command.request(), body.try_into()?).await?;
    let mut response = outcome(&done);
    if response.status() == StatusCode::CREATED
        && let Some(location) = location_of(&done.reply().body)
    {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}

/// Where the created dispatch is; read from the body, so that a remembered answer has it too.
fn location_of(body: &str) -> Option<HeaderValue> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Created {
        dispatch_id: DispatchId,
    }
    let created: Created = serde_json::from_str(body).ok()?;
    HeaderValue::try_from(format!("{}/{}", crate::http::PREFIX, created.dispatch_id)).ok()
}

/// What to look for.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct SearchQuery {
    /// Any of these, separated by commas: `PENDING,ASSIGNED`.
    status: Option<String>,
    /// This lead's.
    #[param(value_type = Option<String>, example = "TECH-10")]
    technician_id: Option<TechnicianId>,
    /// At this site.
    #[param(value_type = Option<String>, example = "LOC-10")]
    location_id: Option<LocationId>,
    /// Of this order.
    #[param(value_type = Option<String>, example = "SO-100")]
    service_order_id: Option<ServiceOrderId>,
    /// Scheduled to start from then on.
    #[param(value_type = Option<String>, format = DateTime)]
    scheduled_from: Option<Timestamp>,
    /// Scheduled to start before.
    #[param(value_type = Option<String>, format = DateTime)]
    scheduled_to: Option<Timestamp>,
    /// At least this urgent.
    #[param(value_type = Option<schema::Priority>)]
    priority_min: Option<Priority>,
    /// The `nextCursor` of the page before.
    cursor: Option<String>,
    /// How many, 1 to 200; 50 where it is missing.
    limit: Option<u32>,
}

/// Searches dispatches.
#[utoipa::path(get, path = "/requests", tag = "dispatches", params(SearchQuery), responses(
    (status = 200, description = "A page, ordered by scheduled start, unscheduled ones last", body = schema::DispatchPage),
))]
pub(crate) async fn search(
    State(app): State<AppState>,
    Signed(principal): Signed,
    ApiQuery(query): ApiQuery<SearchQuery>,
) -> Result<Response, ApiError> {
    let scheduled = (query.scheduled_from.is_some() || query.scheduled_to.is_some()).then(|| Window {
        start: query.scheduled_from.unwrap_or(Timestamp::from_millis(i64::MIN)),
        end: query.scheduled_to.unwrap_or(Timestamp::from_millis(i64::MAX)),
    });
    let search = DispatchSearch {
        tenant: principal.caller.tenant.clone(),
        statuses: statuses(query.status.as_deref())?,
        technician: query.technician_id,
        location: query.location_id,
        service_order: query.service_order_id,
        scheduled,
        priority_min: query.priority_min,
        after: read_cursor(query.cursor.as_deref())?,
        limit: page_limit(query.limit)?,
    };
    let page = app.service.search_dispatches(&principal.caller, search).await?;
    Ok(Json(Page { items: page.items, next_cursor: page.next.as_ref().map(write_cursor) }).into_response())
}

fn statuses(text: Option<&str>) -> Result<Vec<VisitStatus>, ApiError> {
    let find = |name: &str| {
        VisitStatus::ALL.into_iter().find(|status| status.name() == name).ok_or_else(|| {
            let known = VisitStatus::ALL.map(VisitStatus::name).join(", ");
            ApiError::invalid("status", format!("{name:?} is none of {known}"))
        })
    };
    text.into_iter().flat_map(|text| text.split(',')).map(|name| find(name.trim())).collect()
}

/// One dispatch.
#[utoipa::path(get, path = "/{dispatchId}", tag = "dispatches",
    params(("dispatchId" = String, Path, example = "DSP-100")), responses(
    (status = 200, description = "The dispatch", body = schema::Dispatch, headers(("ETag" = String))),
    (status = 404, description = "`DISPATCH_NOT_FOUND`"),
))]
pub(crate) async fn read(
    State(app): State<AppState>,
    Signed(principal): Signed,
    ApiPath(dispatch): ApiPath<DispatchId>,
) -> Result<Response, ApiError> {
    let view = app.service.dispatch(&principal.caller, &dispatch).await?;
    Ok(resource(&view, view.revision))
}

/// What a visit left behind: notes, answers, facts with their rulings.
#[utoipa::path(get, path = "/{dispatchId}/report", tag = "dispatches",
    params(("dispatchId" = String, Path, example = "DSP-100")), responses(
    (status = 200, description = "The report", body = schema::Report, headers(("ETag" = String))),
    (status = 404, description = "`DISPATCH_NOT_FOUND`"),
))]
pub(crate) async fn report(
    State(app): State<AppState>,
    Signed(principal): Signed,
    ApiPath(dispatch): ApiPath<DispatchId>,
) -> Result<Response, ApiError> {
    let view = app.service.report(&principal.caller, &dispatch).await?;
    Ok(resource(&view, view.revision))
}

/// Assigns a technician, or re-assigns to another one.
///
/// The assignment satisfies every required skill and overlaps no other visit, travel included.
#[utoipa::path(post, path = "/{dispatchId}/assign", tag = "dispatches", request_body = AssignBody,
    params(("dispatchId" = String, Path, example = "DSP-100")), responses(
    (status = 200, description = "The dispatch", body = schema::Dispatch, headers(("ETag" = String))),
    (status = 404, description = "`DISPATCH_NOT_FOUND`, `TECHNICIAN_NOT_FOUND`"),
    (status = 409, description = "`TECHNICIAN_NOT_AVAILABLE` (`details.reasons` has all of them), `ASSIGNMENT_CONFLICT`, `ILLEGAL_TRANSITION`"),
))]
pub(crate) async fn assign(
    State(app): State<AppState>,
    ApiPath(dispatch): ApiPath<DispatchId>,
    command: Command<AssignBody>,
) -> Result<Response, ApiError> {
    let (command, body) = command.split();
    Ok(outcome(&app.service.assign(command.request(), &dispatch, body.into()).await?))
}

/// Gives the visit to somebody else: another name for `assign`, for those who look for it.
#[utoipa::path(post, path = "/{dispatchId}/reassign", tag = "dispatches", request_body = AssignBody,
    params(("dispatchId" = String, Path, example = "DSP-100")), responses(
    (status = 200, description = "The dispatch", body = schema::Dispatch, headers(("ETag" = String))),
    (status = 404, description = "`DISPATCH_NOT_FOUND`, `TECHNICIAN_NOT_FOUND`"),
    (status = 409, description = "`TECHNICIAN_NOT_AVAILABLE`, `ASSIGNMENT_CONFLICT`, `ILLEGAL_TRANSITION`"),
))]
pub(crate) async fn reassign(
    State(app): State<AppState>,
    ApiPath(dispatch): ApiPath<DispatchId>,
    command: Command<AssignBody>,
) -> Result<Response, ApiError> {
    let (command, body) = command.split();
    Ok(outcome(&app.service.assign(command.request(), &dispatch, body.into()).await?))
}

/// Takes the visit back: nobody has it.
#[utoipa::path(post, path = "/{dispatchId}/unassign", tag = "dispatches", request_body = Option<EmptyBody>,
    params(("dispatchId" = String, Path, example = "DSP-100")), responses(
    (status = 200, description = "The dispatch", body = schema::Dispatch, headers(("ETag" = String))),
    (status = 404, description = "`DISPATCH_NOT_FOUND`"),
    (status = 409, description = "`ILLEGAL_TRANSITION`"),
))]
pub(crate) async fn unassign(
    State(app): State<AppState>,
    ApiPath(dispatch): ApiPath<DispatchId>,
    command: Command<EmptyBody>,
) -> Result<Response, ApiError> {
    Ok(outcome(&app.service.unassign(command.request(), &dispatch).await?))
}

/// The technician takes the visit.
#[utoipa::path(post, path = "/{dispatchId}/confirm", tag = "dispatches", request_body = Option<ConfirmBody>,
    params(("dispatchId" = String, Path, example = "DSP-100")), responses(
    (status = 200, description = "The dispatch", body = schema::Dispatch, headers(("ETag" = String))),
    (status = 404, description = "`DISPATCH_NOT_FOUND`"),
    (status = 409, description = "`ILLEGAL_TRANSITION`: it is not theirs to take any more"),
))]
pub(crate) async fn confirm(
    State(app): State<AppState>,
    ApiPath(dispatch): ApiPath<DispatchId>,
    command: Command<ConfirmBody>,
) -> Result<Response, ApiError> {
    Ok(outcome(&app.service.confirm(command.request(), &dispatch, command.body.eta).await?))
}

/// The technician refuses the visit: it is pending again.
#[utoipa::path(post, path = "/{dispatchId}/reject", tag = "dispatches", request_body = ReasonBody,
    params(("dispatchId" = String, Path, example = "DSP-100")), responses(
    (status = 200, description = "The dispatch", body = schema::Dispatch, headers(("ETag" = String))),
    (status = 404, description = "`DISPATCH_NOT_FOUND`"),
    (status = 409, description = "`ILLEGAL_TRANSITION`: it is not theirs to refuse any more"),
))]
pub(crate) async fn reject(
    State(app): State<AppState>,
    ApiPath(dispatch): ApiPath<DispatchId>,
    command: Command<ReasonBody>,
) -> Result<Response, ApiError> {
    Ok(outcome(&app.service.reject(command.request(), &dispatch, command.body.check()?).await?))
}

/// Cancels; after arrival it becomes a request to stop work.
#[utoipa::path(post, path = "/{dispatchId}/cancel", tag = "dispatches", request_body = ReasonBody,
    params(("dispatchId" = String, Path, example = "DSP-100")), responses(
    (status = 200, description = "The dispatch", body = schema::Dispatch, headers(("ETag" = String))),
    (status = 404, description = "`DISPATCH_NOT_FOUND`"),
    (status = 409, description = "`ILLEGAL_TRANSITION`: the visit has ended"),
))]
pub(crate) async fn cancel(
    State(app): State<AppState>,
    ApiPath(dispatch): ApiPath<DispatchId>,
    command: Command<ReasonBody>,
) -> Result<Response, ApiError> {
    Ok(outcome(&app.service.cancel(command.request(), &dispatch, command.body.check()?).await?))
}

/// Takes a cancellation or a request to stop work back; a completion in dispute because of it stands.
#[utoipa::path(post, path = "/{dispatchId}/reinstate", tag = "dispatches", request_body = Option<EmptyBody>,
    params(("dispatchId" = String, Path, example = "DSP-100")), responses(
    (status = 200, description = "The dispatch", body = schema::Dispatch, headers(("ETag" = String))),
    (status = 404, description = "`DISPATCH_NOT_FOUND`"),
    (status = 409, description = "`ILLEGAL_TRANSITION`: no cancellation stands"),
))]
pub(crate) async fn reinstate(
    State(app): State<AppState>,
    ApiPath(dispatch): ApiPath<DispatchId>,
    command: Command<EmptyBody>,
) -> Result<Response, ApiError> {
    Ok(outcome(&app.service.reinstate(command.request(), &dispatch).await?))
}

/// Ends a request to stop work that the technician does not answer: cancelled, the labour stays recorded.
#[utoipa::path(post, path = "/{dispatchId}/end-stop-work", tag = "dispatches", request_body = Option<EmptyBody>,
    params(("dispatchId" = String, Path, example = "DSP-100")), responses(
    (status = 200, description = "The dispatch", body = schema::Dispatch, headers(("ETag" = String))),
    (status = 404, description = "`DISPATCH_NOT_FOUND`"),
    (status = 409, description = "`ILLEGAL_TRANSITION`: no request to stop work stands"),
))]
pub(crate) async fn end_stop_work(
    State(app): State<AppState>,
    ApiPath(dispatch): ApiPath<DispatchId>,
    command: Command<EmptyBody>,
) -> Result<Response, ApiError> {
    Ok(outcome(&app.service.end_stop_work(command.request(), &dispatch).await?))
}

/// Moves the visit.
///
/// While the technician is travelling, a moved arrival window is a proposal until the phone has acknowledged it.
#[utoipa::path(post, path = "/{dispatchId}/reschedule", tag = "dispatches", request_body = RescheduleBody,
    params(("dispatchId" = String, Path, example = "DSP-100")), responses(
    (status = 200, description = "The dispatch", body = schema::Dispatch, headers(("ETag" = String))),
    (status = 404, description = "`DISPATCH_NOT_FOUND`"),
    (status = 409, description = "`TECHNICIAN_NOT_AVAILABLE`, `ASSIGNMENT_CONFLICT`, `ILLEGAL_TRANSITION`"),
))]
pub(crate) async fn reschedule(
    State(app): State<AppState>,
    ApiPath(dispatch): ApiPath<DispatchId>,
    command: Command<RescheduleBody>,
) -> Result<Response, ApiError> {
    let (command, body) = command.split();
    Ok(outcome(&app.service.reschedule(command.request(), &dispatch, body.try_into()?).await?))
}

/// Sets how urgent it is.
#[utoipa::path(post, path = "/{dispatchId}/priority", tag = "dispatches", request_body = PriorityBody,
    params(("dispatchId" = String, Path, example = "DSP-100")), responses(
    (status = 200, description = "The dispatch", body = schema::Dispatch, headers(("ETag" = String))),
    (status = 404, description = "`DISPATCH_NOT_FOUND`"),
    (status = 409, description = "`ILLEGAL_TRANSITION`: the visit has ended"),
))]
pub(crate) async fn priority(
    State(app): State<AppState>,
    ApiPath(dispatch): ApiPath<DispatchId>,
    command: Command<PriorityBody>,
) -> Result<Response, ApiError> {
    Ok(outcome(&app.service.set_priority(command.request(), &dispatch, command.body.priority).await?))
}
