//! Technicians: who there is, who could go, what they can do and when.

use crate::http::answer::{Page, cacheable, outcome};
use crate::http::error::ApiError;
use crate::http::extract::{ApiPath, ApiQuery, Command, PAGE_ITEMS_MAX, Signed, page_limit, read_cursor, write_cursor};
use crate::http::requests::{AbsenceBody, AvailabilityBody, SkillsBody, TechnicianBody, TechnicianStatusBody};
use crate::http::schema;
use crate::http::state::AppState;
use crate::service::reads::CandidateSearch;
use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use sync_core::domain::plan::SkillRequirement;
use sync_core::domain::{DispatchId, LocationId, SkillCode, TechnicianId, Timestamp, Window};
use utoipa::IntoParams;

/// Most pages of technicians that the list of skills is made from.
const SKILL_PAGES_MAX: usize = 100;

/// Which page.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct PageQuery {
    /// The `nextCursor` of the page before.
    pub(super) cursor: Option<String>,
    /// How many, 1 to 200; 50 where it is missing.
    pub(super) limit: Option<u32>,
}

/// Lists technicians.
#[utoipa::path(get, path = "/technicians", tag = "technicians", params(PageQuery), responses(
    (status = 200, description = "A page, by id", body = schema::TechnicianPage),
))]
pub(crate) async fn list(
    State(app): State<AppState>,
    Signed(principal): Signed,
    ApiQuery(query): ApiQuery<PageQuery>,
) -> Result<Response, ApiError> {
    let limit = page_limit(query.limit)?;
    let after: Option<TechnicianId> = read_cursor(query.cursor.as_deref())?;
    let found = app.service.technicians(&principal.caller, after.as_ref(), limit + 1).await?;
    Ok(Json(Page::cut(found, limit, |last| write_cursor(&last.technician_id))).into_response())
}

/// Where, when and with which skills.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct AvailableQuery {
    /// Where to go.
    #[param(value_type = String, example = "LOC-10")]
    location_id: LocationId,
    /// Needed from then on; with `to`. Where both are missing: the hour from now on.
    #[param(value_type = Option<String>, format = DateTime)]
    from: Option<Timestamp>,
    /// Needed until then.
    #[param(value_type = Option<String>, format = DateTime)]
    to: Option<Timestamp>,
    /// What they must be able to do, separated by commas, each with a least level where it matters: `HVAC:2,GAS`.
    skills: Option<String>,
    /// For this visit: its own booking does not count against anybody.
    #[param(value_type = Option<String>, example = "DSP-100")]
    dispatch_id: Option<DispatchId>,
    /// Also list who cannot, and why.
    #[serde(default)]
    include_unavailable: bool,
}

/// Who could go, nearest first.
#[utoipa::path(get, path = "/technicians/available", tag = "technicians", params(AvailableQuery), responses(
    (status = 200, description = "Who could go, and if asked for, who could not and why", body = schema::CandidateList),
    (status = 404, description = "`LOCATION_NOT_FOUND`"),
))]
pub(crate) async fn available(
    State(app): State<AppState>,
    Signed(principal): Signed,
    ApiQuery(query): ApiQuery<AvailableQuery>,
) -> Result<Response, ApiError> {
    let window = match (query.from, query.to) {
        (None, None) => None,
        (Some(start), Some(end)) if start < end => Some(Window { start, end }),
        (Some(_), Some(_)) => return Err(ApiError::invalid("to", "must be after from")),
        _ => return Err(ApiError::invalid("from", "name from and to, or neither")),
    };
    let search = CandidateSearch {
        location_id: query.location_id,
        window,
        required_skills: required_skills(query.skills.as_deref())?,
        dispatch_id: query.dispatch_id,
        include_unavailable: query.include_unavailable,
    };
    let items = app.service.available_technicians(&principal.caller, search).await?;
    Ok(Json(Page { items, next_cursor: None }).into_response())
}

fn required_skills(text: Option<&str>) -> Result<Vec<SkillRequirement>, ApiError> {
    let one = |part: &str| {
        let (code, level) = part.trim().split_once(':').unwrap_or((part.trim(), "1"));
        match (SkillCode::new(code), level.parse()) {
            (Ok(code), Ok(level)) => Ok(SkillRequirement { code, level }),
            _ => Err(ApiError::invalid("skills", format!("{part:?}; use codes and levels like HVAC:2,GAS"))),
        }
    };
    text.into_iter().flat_map(|text| text.split(',')).map(one).collect()
}

/// One technician.
#[utoipa::path(get, path = "/technicians/{technicianId}", tag = "technicians",
    params(("technicianId" = String, Path, example = "TECH-10")), responses(
    (status = 200, description = "The technician", body = schema::Technician, headers(("ETag" = String))),
    (status = 304, description = "The caller has it already (`If-None-Match`)"),
    (status = 404, description = "`TECHNICIAN_NOT_FOUND`"),
))]
pub(crate) async fn read(
    State(app): State<AppState>,
    Signed(principal): Signed,
    ApiPath(technician): ApiPath<TechnicianId>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let found = app.service.technician(&principal.caller, &technician).await?;
    Ok(cacheable(&headers, &found, found.revision))
}

/// Enters or changes a technician.
#[utoipa::path(put, path = "/technicians/{technicianId}", tag = "technicians", request_body = TechnicianBody,
    params(("technicianId" = String, Path, example = "TECH-10")), responses(
    (status = 200, description = "The technician", body = schema::Technician, headers(("ETag" = String))),
    (status = 201, description = "The new technician", body = schema::Technician, headers(("ETag" = String))),
))]
pub(crate) async fn put(
    State(app): State<AppState>,
    ApiPath(technician): ApiPath<TechnicianId>,
    command: Command<TechnicianBody>,
) -> Result<Response, ApiError> {
    let (command, body) = command.split();
    Ok(outcome(&app.service.put_technician(command.request(), &technician, body.try_into()?).await?))
}

/// Replaces a technician's skills.
#[utoipa::path(put, path = "/technicians/{technicianId}/skills", tag = "technicians", request_body = SkillsBody,
    params(("technicianId" = String, Path, example = "TECH-10")), responses(
    (status = 200, description = "The technician", body = schema::Technician, headers(("ETag" = String))),
    (status = 404, description = "`TECHNICIAN_NOT_FOUND`"),
))]
pub(crate) async fn put_skills(
    State(app): State<AppState>,
    ApiPath(technician): ApiPath<TechnicianId>,
    command: Command<SkillsBody>,
) -> Result<Response, ApiError> {
    let (command, body) = command.split();
    let input = body.try_into()?;
    app.service.technician(&command.caller, &technician).await?;
    Ok(outcome(&app.service.put_technician(command.request(), &technician, input).await?))
}

/// Replaces when a technician can be booked.
#[utoipa::path(put, path = "/technicians/{technicianId}/availability", tag = "technicians",
    request_body = AvailabilityBody, params(("technicianId" = String, Path, example = "TECH-10")), responses(
    (status = 200, description = "The technician", body = schema::Technician, headers(("ETag" = String))),
    (status = 404, description = "`TECHNICIAN_NOT_FOUND`"),
))]
pub(crate) async fn put_availability(
    State(app): State<AppState>,
    ApiPath(technician): ApiPath<TechnicianId>,
    command: Command<AvailabilityBody>,
) -> Result<Response, ApiError> {
    let (command, body) = command.split();
    let input = body.try_into()?;
    app.service.technician(&command.caller, &technician).await?;
    Ok(outcome(&app.service.put_technician(command.request(), &technician, input).await?))
}

/// Adds a planned absence.
#[utoipa::path(post, path = "/technicians/{technicianId}/absences", tag = "technicians", request_body = AbsenceBody,
    params(("technicianId" = String, Path, example = "TECH-10")), responses(
    (status = 200, description = "The technician", body = schema::Technician, headers(("ETag" = String))),
    (status = 404, description = "`TECHNICIAN_NOT_FOUND`"),
))]
pub(crate) async fn add_absence(
    State(app): State<AppState>,
    ApiPath(technician): ApiPath<TechnicianId>,
    command: Command<AbsenceBody>,
) -> Result<Response, ApiError> {
    let (command, body) = command.split();
    Ok(outcome(&app.service.add_absence(command.request(), &technician, body.try_into()?).await?))
}

/// Sets what a technician is doing.
#[utoipa::path(post, path = "/technicians/{technicianId}/status", tag = "technicians",
    request_body = TechnicianStatusBody, params(("technicianId" = String, Path, example = "TECH-10")), responses(
    (status = 200, description = "The technician", body = schema::Technician, headers(("ETag" = String))),
    (status = 404, description = "`TECHNICIAN_NOT_FOUND`, `DISPATCH_NOT_FOUND`"),
))]
pub(crate) async fn set_status(
    State(app): State<AppState>,
    ApiPath(technician): ApiPath<TechnicianId>,
    command: Command<TechnicianStatusBody>,
) -> Result<Response, ApiError> {
    let (command, body) = command.split();
    let dispatch = body.dispatch_id.as_ref();
    Ok(outcome(&app.service.set_technician_status(command.request(), &technician, body.status, dispatch).await?))
}

/// A skill and who has it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct SkillSummary {
    code: SkillCode,
    technicians: u32,
    highest_level: u8,
}

/// Lists every skill of the tenant's technicians.
#[utoipa::path(get, path = "/skills", tag = "technicians", responses(
    (status = 200, description = "The skills, by code", body = schema::SkillList),
))]
pub(crate) async fn skills(State(app): State<AppState>, Signed(principal): Signed) -> Result<Response, ApiError> {
    let mut found: BTreeMap<SkillCode, SkillSummary> = BTreeMap::new();
    let mut after: Option<TechnicianId> = None;
    for _ in 0..SKILL_PAGES_MAX {
        let page = app.service.technicians(&principal.caller, after.as_ref(), PAGE_ITEMS_MAX).await?;
        let last_page = page.len() < PAGE_ITEMS_MAX as usize;
        after = page.last().map(|technician| technician.technician_id.clone());
        for skill in page.into_iter().flat_map(|technician| technician.skills) {
            let summary = found.entry(skill.code.clone()).or_insert(SkillSummary {
                code: skill.code,
                technicians: 0,
                highest_level: 0,
            });
            summary.technicians += 1;
            summary.highest_level = summary.highest_level.max(skill.level);
        }
        if last_page {
            break;
        }
    }
    Ok(Json(Page { items: found.into_values().collect(), next_cursor: None }).into_response())
}
