//! What callers send. Strict: a field that is not known is an error, so that a typing error cannot lose a wish.

use super::error::ApiError;
use crate::service::directory::{LocationInput, TechnicianInput};
use crate::service::model::{Absence, Skill, TechnicianStatus};
use crate::service::office::{AssignInput, NewRequest, RescheduleInput};
use serde::Deserialize;
use std::collections::BTreeMap;
use sync_core::domain::geo::Coordinates;
use sync_core::domain::plan::{ChecklistItem, Contact, PartRequirement, Priority, SkillRequirement};
use sync_core::domain::{
    ChecklistItemId, DispatchId, LocationId, PartNumber, ServiceOrderId, SkillCode, TechnicianId, Timestamp, Window,
};
use utoipa::ToSchema;

/// Longest reason, resolution or name, bytes.
pub const TEXT_BYTES_MAX: usize = 1_000;
/// Longest instructions, bytes.
pub const INSTRUCTIONS_BYTES_MAX: usize = 20_000;
/// Most entries of a list or map in a request.
pub const LIST_ITEMS_MAX: usize = 200;

/// Needs words, and not too many.
pub(super) fn check_text(field: &str, text: &str) -> Result<(), ApiError> {
    if text.trim().is_empty() {
        return Err(ApiError::invalid(field, "must not be empty"));
    }
    check_length(field, text, TEXT_BYTES_MAX)
}

fn check_length(field: &str, text: &str, bytes_max: usize) -> Result<(), ApiError> {
    if text.len() > bytes_max {
        return Err(ApiError::invalid(field, format!("has {} bytes; at most {bytes_max}", text.len())));
    }
    Ok(())
}

fn check_count(field: &str, count: usize) -> Result<(), ApiError> {
    if count > LIST_ITEMS_MAX {
        return Err(ApiError::invalid(field, format!("has {count} entries; at most {LIST_ITEMS_MAX}")));
    }
    Ok(())
}

/// A span of time.
#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct WindowBody {
    /// First instant inside.
    #[schema(value_type = String, format = DateTime, example = "2026-02-03T08:00:00Z")]
    start: Timestamp,
    /// First instant after.
    #[schema(value_type = String, format = DateTime, example = "2026-02-03T10:00:00Z")]
    end: Timestamp,
}

impl WindowBody {
    fn check(self, field: &str) -> Result<Window, ApiError> {
        if self.end <= self.start {
            return Err(ApiError::invalid(field, "must end after it starts"));
        }
        Ok(Window { start: self.start, end: self.end })
    }
}

fn window(field: &str, body: Option<WindowBody>) -> Result<Option<Window>, ApiError> {
    body.map(|window| window.check(field)).transpose()
}

/// A place on Earth, WGS 84 degrees.
#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CoordinatesBody {
    /// Degrees north.
    #[schema(minimum = -90, maximum = 90, example = 48.2082)]
    latitude: f64,
    /// Degrees east.
    #[schema(minimum = -180, maximum = 180, example = 16.3738)]
    longitude: f64,
}

impl CoordinatesBody {
    fn check(self, field: &str) -> Result<Coordinates, ApiError> {
        let place = Coordinates { latitude: self.latitude, longitude: self.longitude };
        if place.is_valid() {
            Ok(place)
        } else {
            Err(ApiError::invalid(field, "latitude is -90 to 90, longitude -180 to 180"))
        }
    }
}

/// A skill that the lead must have: its code alone, or with the least level.
#[derive(Debug, Clone, ToSchema)]
#[schema(as = RequiredSkill)]
pub struct RequiredSkillBody(#[schema(inline)] SkillRequirementForm);

#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(untagged)]
enum SkillRequirementForm {
    /// Any level.
    #[schema(value_type = String, example = "HVAC")]
    Code(SkillCode),
    /// At least this level.
    Full(SkillLevelBody),
}

/// A skill at a level.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SkillLevelBody {
    /// Which.
    #[schema(value_type = String, example = "HVAC")]
    code: SkillCode,
    /// At least this, 1 the lowest.
    #[serde(default = "lowest_level")]
    #[schema(minimum = 1, default = 1)]
    level: u8,
}

fn lowest_level() -> u8 {
    1
}

impl<'de> Deserialize<'de> for RequiredSkillBody {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        SkillRequirementForm::deserialize(deserializer).map(Self).map_err(|_| {
            serde::de::Error::custom("a skill is a code, like \"HVAC\", or {\"code\":\"HVAC\",\"level\":2}")
        })
    }
}

impl From<RequiredSkillBody> for SkillRequirement {
    fn from(body: RequiredSkillBody) -> Self {
        match body.0 {
            SkillRequirementForm::Code(code) => Self { code, level: 1 },
            SkillRequirementForm::Full(SkillLevelBody { code, level }) => Self { code, level },
        }
    }
}

/// A part to bring.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PartBody {
    /// Which.
    #[schema(value_type = String, example = "PART-55")]
    part: PartNumber,
    /// How many.
    #[schema(minimum = 1)]
    quantity: u32,
}

/// One thing to tick off.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ChecklistItemBody {
    /// Unique within the visit.
    #[schema(value_type = String, example = "pressure")]
    id: ChecklistItemId,
    /// The question.
    #[schema(example = "Pressure in bar?")]
    label: String,
    /// True when the visit should not be completed without an answer.
    #[serde(default)]
    required: bool,
}

/// The person on site.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ContactBody {
    /// Name.
    name: String,
    /// Phone number.
    #[serde(default)]
    phone: Option<String>,
}

/// A request for a visit. The first three fields are enough.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(example = json!({ "serviceOrderId": "SO-100", "locationId": "LOC-10", "requiredSkills": ["HVAC"] }))]
pub struct CreateRequestBody {
    /// The order behind it; one dispatch an order, for ever.
    #[schema(value_type = String, example = "SO-100")]
    service_order_id: ServiceOrderId,
    /// Where; must be known.
    #[schema(value_type = String, example = "LOC-10")]
    location_id: LocationId,
    /// Skills the lead must have.
    #[serde(default)]
    required_skills: Vec<RequiredSkillBody>,
    /// Headline; made of order and site where it is missing.
    #[serde(default)]
    title: String,
    /// What to do.
    #[serde(default)]
    instructions: String,
    /// Urgency.
    #[serde(default)]
    #[schema(value_type = super::schema::Priority)]
    priority: Priority,
    /// Planned start and end.
    #[serde(default)]
    scheduled: Option<WindowBody>,
    /// When the customer expects the arrival.
    #[serde(default)]
    arrival_window: Option<WindowBody>,
    /// The customer has confirmed the arrival window.
    #[serde(default)]
    customer_confirmed: bool,
    /// Arrive before this, or the service level is breached.
    #[serde(default)]
    #[schema(value_type = Option<String>, format = DateTime)]
    sla_deadline: Option<Timestamp>,
    /// Parts to bring.
    #[serde(default)]
    required_parts: Vec<PartBody>,
    /// What to tick off.
    #[serde(default)]
    checklist: Vec<ChecklistItemBody>,
    /// Whom to ask for.
    #[serde(default)]
    contact: Option<ContactBody>,
    /// Fields of your own, shown to the technician.
    #[serde(default)]
    attributes: BTreeMap<String, String>,
}

impl TryFrom<CreateRequestBody> for NewRequest {
    type Error = ApiError;
    fn try_from(body: CreateRequestBody) -> Result<Self, ApiError> {
        check_length("title", &body.title, TEXT_BYTES_MAX)?;
        check_length("instructions", &body.instructions, INSTRUCTIONS_BYTES_MAX)?;
        check_count("requiredSkills", body.required_skills.len())?;
        check_count("requiredParts", body.required_parts.len())?;
        check_count("checklist", body.checklist.len())?;
        check_count("attributes", body.attributes.len())?;
        for item in &body.checklist {
            check_text("checklist.label", &item.label)?;
        }
        for (name, value) in &body.attributes {
            check_text("attributes", name)?;
            check_length("attributes", value, TEXT_BYTES_MAX)?;
        }
        if let Some(contact) = &body.contact {
            check_text("contact.name", &contact.name)?;
            check_length("contact.phone", contact.phone.as_deref().unwrap_or_default(), TEXT_BYTES_MAX)?;
        }
        Ok(Self {
            service_order_id: body.service_order_id,
            location_id: body.location_id,
            required_skills: body.required_skills.into_iter().map(SkillRequirement::from).collect(),
            title: body.title,
            instructions: body.instructions,
            priority: body.priority,
            scheduled: window("scheduled", body.scheduled)?,
            arrival_window: window("arrivalWindow", body.arrival_window)?,
            customer_confirmed: body.customer_confirmed,
            sla_deadline: body.sla_deadline,
            required_parts: body
                .required_parts
                .into_iter()
                .map(|PartBody { part, quantity }| PartRequirement { part, quantity })
                .collect(),
            checklist: body
                .checklist
                .into_iter()
                .map(|ChecklistItemBody { id, label, required }| ChecklistItem { id, label, required })
                .collect(),
            contact: body.contact.map(|ContactBody { name, phone }| Contact { name, phone }),
            attributes: body.attributes,
        })
    }
}

/// Whom to send.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(example = json!({ "technicianId": "TECH-10" }))]
pub struct AssignBody {
    /// The lead; only the lead completes.
    #[schema(value_type = String, example = "TECH-10")]
    technician_id: TechnicianId,
    /// The others, at most 7.
    #[serde(default)]
    #[schema(value_type = Vec<String>)]
    crew: Vec<TechnicianId>,
}

impl From<AssignBody> for AssignInput {
    fn from(AssignBody { technician_id, crew }: AssignBody) -> Self {
        Self { technician_id, crew }
    }
}

/// A reason in words.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({ "reason": "the customer has postponed" }))]
pub struct ReasonBody {
    /// Why; the other side reads it.
    reason: String,
}

impl ReasonBody {
    pub(super) fn check(&self) -> Result<&str, ApiError> {
        check_text("reason", &self.reason)?;
        Ok(&self.reason)
    }
}

/// A technician takes a visit.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({ "eta": "2026-02-03T09:30:00Z" }))]
pub struct ConfirmBody {
    /// Expected arrival.
    #[serde(default)]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub(super) eta: Option<Timestamp>,
}

/// Nothing needs to be said: no body, or `{}`.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EmptyBody {}

/// When to go instead. What is missing stays as it is.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(example = json!({
    "scheduled": { "start": "2026-02-03T10:00:00Z", "end": "2026-02-03T11:30:00Z" },
    "arrivalWindow": { "start": "2026-02-03T09:30:00Z", "end": "2026-02-03T10:30:00Z" },
    "customerConfirmed": true
}))]
pub struct RescheduleBody {
    /// New planned start and end.
    #[serde(default)]
    scheduled: Option<WindowBody>,
    /// New arrival window. While the technician is travelling it is a proposal until the phone has acknowledged it.
    #[serde(default)]
    arrival_window: Option<WindowBody>,
    /// The customer has confirmed the new arrival window.
    #[serde(default)]
    customer_confirmed: bool,
}

impl TryFrom<RescheduleBody> for RescheduleInput {
    type Error = ApiError;
    fn try_from(body: RescheduleBody) -> Result<Self, ApiError> {
        if body.scheduled.is_none() && body.arrival_window.is_none() {
            return Err(ApiError::invalid("scheduled", "name scheduled, arrivalWindow, or both"));
        }
        Ok(Self {
            scheduled: window("scheduled", body.scheduled)?,
            arrival_window: window("arrivalWindow", body.arrival_window)?,
            customer_confirmed: body.customer_confirmed,
        })
    }
}

/// How urgent.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PriorityBody {
    /// Urgency.
    #[schema(value_type = super::schema::Priority)]
    pub(super) priority: Priority,
}

/// What a technician is doing.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(example = json!({ "status": "ON_ROUTE", "dispatchId": "DSP-100" }))]
pub struct TechnicianStatusBody {
    /// The status.
    #[schema(value_type = super::schema::TechnicianStatus)]
    pub(super) status: TechnicianStatus,
    /// On which visit, if on one.
    #[serde(default)]
    #[schema(value_type = Option<String>, example = "DSP-100")]
    pub(super) dispatch_id: Option<DispatchId>,
}

/// A skill that a technician has.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SkillBody {
    /// Which.
    #[schema(value_type = String, example = "HVAC")]
    code: SkillCode,
    /// How well, 1 the lowest.
    #[serde(default = "lowest_level")]
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

/// How an exception was settled.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(example = json!({ "dispatchId": "DSP-100", "resolution": "billed half, agreed with the customer" }))]
pub struct ResolveBody {
    /// The visit that it belongs to.
    #[schema(value_type = String, example = "DSP-100")]
    pub(super) dispatch_id: DispatchId,
    /// What was decided, in words.
    resolution: String,
}

impl ResolveBody {
    pub(super) fn check(&self) -> Result<&str, ApiError> {
        check_text("resolution", &self.resolution)?;
        Ok(&self.resolution)
    }
}
