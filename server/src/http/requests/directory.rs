//! What is said about technicians and sites.

use super::{
    CoordinatesBody, INSTRUCTIONS_BYTES_MAX, TEXT_BYTES_MAX, WindowBody, check_count, check_length, check_text,
};
use crate::http::error::ApiError;
use crate::service::directory::{LocationInput, TechnicianInput};
use crate::service::model::{Absence, Skill, TechnicianStatus};
use serde::Deserialize;
use std::collections::BTreeMap;
use sync_core::domain::{DispatchId, PartNumber, SkillCode, Timestamp, Window};
use utoipa::ToSchema;

/// What a technician is doing.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(example = json!({ "status": "ON_ROUTE", "dispatchId": "DSP-100" }))]
pub struct TechnicianStatusBody {
    /// The status.
    #[schema(value_type = crate::http::schema::TechnicianStatus)]
    pub(in crate::http) status: TechnicianStatus,
    /// On which visit, if on one.
    #[serde(default)]
    #[schema(value_type = Option<String>, example = "DSP-100")]
    pub(in crate::http) dispatch_id: Option<DispatchId>,
}

/// A skill that a technician has.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SkillBody {
    /// Which.
    #[schema(value_type = String, example = "HVAC")]
    code: SkillCode,
    /// How well, 1 the lowest.
    #[serde(default = "super::lowest_level")]
    #[schema(minimum = 1, default = 1)]
    level: u8,
    /// Not valid from then on.
    #[serde(default)]
    #[schema(value_type = Option<String>, format = DateTime)]
    expires_at: Option<Timestamp>,
}

/// A planned absence.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AbsenceBody {
    /// When.
    window: WindowBody,
    /// Why.
    #[schema(example = "vacation")]
    reason: String,
}

impl TryFrom<AbsenceBody> for Absence {
    type Error = ApiError;
    fn try_from(body: AbsenceBody) -> Result<Self, ApiError> {
        check_text("reason", &body.reason)?;
        Ok(Self { window: body.window.check("window")?, reason: body.reason })
    }
}

/// A technician as the office enters one. What is missing stays as it is; a new one needs a name.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(example = json!({
    "name": "Maria Huber",
    "skills": [{ "code": "HVAC", "level": 2 }],
    "homeBase": { "latitude": 48.2082, "longitude": 16.3738 },
    "availability": [{ "start": "2026-02-03T07:00:00Z", "end": "2026-02-03T15:00:00Z" }]
}))]
pub struct TechnicianBody {
    /// Name.
    #[serde(default)]
    name: Option<String>,
    /// What they can do.
    #[serde(default)]
    skills: Option<Vec<SkillBody>>,
    /// Where the day starts.
    #[serde(default)]
    home_base: Option<CoordinatesBody>,
    /// Service territory.
    #[serde(default)]
    territory: Option<String>,
    /// When they can be booked. Empty: never.
    #[serde(default)]
    availability: Option<Vec<WindowBody>>,
    /// When they cannot, in spite of it.
    #[serde(default)]
    absences: Option<Vec<AbsenceBody>>,
    /// Truck stock: part and quantity.
    #[serde(default)]
    #[schema(value_type = Option<BTreeMap<String, i64>>)]
    van_stock: Option<BTreeMap<PartNumber, i64>>,
}

impl TryFrom<TechnicianBody> for TechnicianInput {
    type Error = ApiError;
    fn try_from(body: TechnicianBody) -> Result<Self, ApiError> {
        if let Some(name) = &body.name {
            check_text("name", name)?;
        }
        check_length("territory", body.territory.as_deref().unwrap_or_default(), TEXT_BYTES_MAX)?;
        Ok(Self {
            name: body.name,
            skills: body.skills.map(skills).transpose()?,
            home_base: body.home_base.map(|place| place.check("homeBase")).transpose()?,
            territory: body.territory,
            availability: body.availability.map(availability).transpose()?,
            absences: body.absences.map(absences).transpose()?,
            van_stock: body.van_stock,
        })
    }
}

fn skills(bodies: Vec<SkillBody>) -> Result<Vec<Skill>, ApiError> {
    check_count("skills", bodies.len())?;
    let skill = |SkillBody { code, level, expires_at }| Skill { code, level, expires_at };
    Ok(bodies.into_iter().map(skill).collect())
}

fn availability(bodies: Vec<WindowBody>) -> Result<Vec<Window>, ApiError> {
    check_count("availability", bodies.len())?;
    bodies.into_iter().map(|window| window.check("availability")).collect()
}

fn absences(bodies: Vec<AbsenceBody>) -> Result<Vec<Absence>, ApiError> {
    check_count("absences", bodies.len())?;
    bodies.into_iter().map(Absence::try_from).collect()
}

/// All of a technician's skills; those that are not named are gone.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({ "skills": [{ "code": "HVAC", "level": 2, "expiresAt": "2027-01-01T00:00:00Z" }] }))]
pub struct SkillsBody {
    /// The skills.
    skills: Vec<SkillBody>,
}

impl TryFrom<SkillsBody> for TechnicianInput {
    type Error = ApiError;
    fn try_from(body: SkillsBody) -> Result<Self, ApiError> {
        Ok(Self { skills: Some(skills(body.skills)?), ..Self::default() })
    }
}

/// When a technician can be booked, and when not.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({ "availability": [{ "start": "2026-02-03T07:00:00Z", "end": "2026-02-03T15:00:00Z" }] }))]
pub struct AvailabilityBody {
    /// All windows in which they can be booked.
    availability: Vec<WindowBody>,
    /// All absences; what is missing leaves them as they are.
    #[serde(default)]
    absences: Option<Vec<AbsenceBody>>,
}

impl TryFrom<AvailabilityBody> for TechnicianInput {
    type Error = ApiError;
    fn try_from(body: AvailabilityBody) -> Result<Self, ApiError> {
        Ok(Self {
            availability: Some(availability(body.availability)?),
            absences: body.absences.map(absences).transpose()?,
            ..Self::default()
        })
    }
}

/// A site.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(example = json!({
    "name": "Cafe Central",
    "address": "Herrengasse 14, 1010 Wien",
    "coordinates": { "latitude": 48.2105, "longitude": 16.3655 }
}))]
pub struct LocationBody {
    /// As the customer calls it.
    name: String,
    /// Postal address, one line.
    address: String,
    /// Where it is.
    coordinates: CoordinatesBody,
    /// Key box, gate code, parking.
    #[serde(default)]
    access_notes: Option<String>,
}

impl TryFrom<LocationBody> for LocationInput {
    type Error = ApiError;
    fn try_from(body: LocationBody) -> Result<Self, ApiError> {
        check_text("name", &body.name)?;
        check_text("address", &body.address)?;
        check_length("accessNotes", body.access_notes.as_deref().unwrap_or_default(), INSTRUCTIONS_BYTES_MAX)?;
        Ok(Self {
            name: body.name,
            address: body.address,
            coordinates: body.coordinates.check("coordinates")?,
            access_notes: body.access_notes,
        })
    }
}
