//! What is said about a dispatch.

use super::{INSTRUCTIONS_BYTES_MAX, TEXT_BYTES_MAX, WindowBody, check_count, check_length, check_text, window};
use crate::http::error::ApiError;
use crate::service::office::{AssignInput, NewRequest, RescheduleInput};
use serde::Deserialize;
use std::collections::BTreeMap;
use sync_core::domain::plan::{ChecklistItem, Contact, PartRequirement, Priority, SkillRequirement};
use sync_core::domain::{
    ChecklistItemId, DispatchId, LocationId, PartNumber, ServiceOrderId, SkillCode, TechnicianId, Timestamp,
};
use utoipa::ToSchema;

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
    #[serde(default = "super::lowest_level")]
    #[schema(minimum = 1, default = 1)]
    level: u8,
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
    #[schema(value_type = crate::http::schema::Priority)]
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
    pub(in crate::http) fn check(&self) -> Result<&str, ApiError> {
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
    pub(in crate::http) eta: Option<Timestamp>,
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
    #[schema(value_type = crate::http::schema::Priority)]
    pub(in crate::http) priority: Priority,
}

/// How an exception was settled.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(example = json!({ "dispatchId": "DSP-100", "resolution": "billed half, agreed with the customer" }))]
pub struct ResolveBody {
    /// The visit that it belongs to.
    #[schema(value_type = String, example = "DSP-100")]
    pub(in crate::http) dispatch_id: DispatchId,
    /// What was decided, in words.
    resolution: String,
}

impl ResolveBody {
    pub(in crate::http) fn check(&self) -> Result<&str, ApiError> {
        check_text("resolution", &self.resolution)?;
        Ok(&self.resolution)
    }
}
