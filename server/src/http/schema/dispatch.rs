//! Dispatches.

use serde::Deserialize;
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// How urgent, lowest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum Priority {
    /// When somebody passes by.
    Low,
    /// The default.
    Normal,
    /// Before normal work.
    High,
    /// Now.
    Emergency,
}

/// Where a dispatch stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum DispatchStatus {
    /// Nobody has it.
    Pending,
    /// Somebody has it.
    Assigned,
    /// It has reached the lead's phone.
    Dispatched,
    /// The technician takes it.
    Confirmed,
    /// On the way.
    EnRoute,
    /// On site.
    Arrived,
    /// Working.
    InProgress,
    /// Work interrupted.
    Paused,
    /// Done.
    Completed,
    /// Could not be done.
    CannotComplete,
    /// Cancelled before anybody was on site.
    Cancelled,
}

/// Where a breach of a service level stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum BreachStatus {
    /// The deadline passed, and the phone is silent or has unsent work.
    Provisional,
    /// The phone has reported since, and there was no arrival in time.
    Confirmed,
    /// An arrival in time came late to the server.
    Retracted,
}

/// A skill that the lead must have.
#[derive(Debug, Clone, PartialEq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RequiredSkill {
    /// Which.
    #[schema(example = "HVAC")]
    pub code: String,
    /// At least this, 1 the lowest.
    pub level: u8,
}

/// A part to bring.
#[derive(Debug, Clone, PartialEq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RequiredPart {
    /// Which.
    #[schema(example = "PART-55")]
    pub part: String,
    /// How many.
    pub quantity: u32,
}

/// Where a dispatch is to be done.
#[derive(Debug, Clone, PartialEq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Site {
    /// Its id.
    #[schema(example = "LOC-10")]
    pub location_id: String,
    /// As the customer calls it.
    pub name: String,
    /// Postal address, one line.
    pub address: String,
    /// Where it is.
    pub coordinates: Coordinates,
    /// Key box, gate code, parking.
    pub access_notes: Option<String>,
}

/// Whom to ask for.
#[derive(Debug, Clone, PartialEq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Contact {
    /// Name.
    pub name: String,
    /// Phone number.
    pub phone: Option<String>,
}

/// One thing to tick off.
#[derive(Debug, Clone, PartialEq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ChecklistItem {
    /// Unique within the visit.
    pub id: String,
    /// The question.
    pub label: String,
    /// True when the visit should not be completed without an answer.
    pub required: bool,
}

/// Who has a dispatch.
#[derive(Debug, Clone, PartialEq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Assignment {
    /// The lead.
    #[schema(example = "TECH-10")]
    pub technician_id: String,
    /// The others.
    pub crew: Vec<String>,
    /// Grows with every re-assignment: late news of an older one is told apart by it.
    pub epoch: u64,
    /// When the office offered it.
    #[schema(format = DateTime)]
    pub offered_at: String,
    /// Who offered it.
    pub offered_by: String,
    /// When it reached the lead's phone.
    #[schema(format = DateTime)]
    pub delivered_at: Option<String>,
    /// When the lead took it.
    #[schema(format = DateTime)]
    pub accepted_at: Option<String>,
}

/// Who had a dispatch before.
#[derive(Debug, Clone, PartialEq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FormerAssignment {
    /// The lead.
    #[schema(example = "TECH-11")]
    pub technician_id: String,
    /// Its epoch.
    pub epoch: u64,
    /// When it began.
    #[schema(format = DateTime)]
    pub offered_at: String,
    /// When it ended.
    #[schema(format = DateTime)]
    pub ended_at: String,
    /// Who ended it.
    pub ended_by: String,
    /// `reassigned`, `unassigned`, `rejected` or `withdrawn`.
    #[schema(example = "reassigned")]
    pub reason: String,
}

/// The office's cancellation.
#[derive(Debug, Clone, PartialEq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Cancellation {
    /// When.
    #[schema(format = DateTime)]
    pub at: String,
    /// Who.
    pub by: String,
    /// Why.
    pub reason: String,
    /// `cancelled`, `stop_work` when somebody was on site, `void` when the work had been completed before.
    #[schema(example = "cancelled")]
    pub effect: String,
    /// False while a phone does not know of it.
    pub delivered: bool,
}

/// A service-level record.
#[derive(Debug, Clone, PartialEq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Sla {
    /// Which visit.
    #[schema(example = "DSP-100")]
    pub dispatch_id: String,
    /// Arrive before this.
    #[schema(format = DateTime)]
    pub deadline: String,
    /// Where the breach stands.
    pub status: BreachStatus,
    /// When it was first announced.
    #[schema(format = DateTime)]
    pub announced_at: String,
    /// When it was confirmed or retracted.
    #[schema(format = DateTime)]
    pub decided_at: Option<String>,
    /// The arrival, once known.
    #[schema(format = DateTime)]
    pub arrived_at: Option<String>,
}

/// One dispatch. Its `ETag` is its revision; that it has reached a phone does not change it.
#[derive(Debug, Clone, PartialEq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Dispatch {
    /// Which.
    #[schema(example = "DSP-100")]
    pub dispatch_id: String,
    /// The order behind it.
    #[schema(example = "SO-100")]
    pub service_order_id: String,
    /// Where.
    #[schema(example = "LOC-10")]
    pub location_id: String,
    /// Grows by one with every change; the `ETag`.
    pub revision: u64,
    /// Where it stands.
    pub status: DispatchStatus,
    /// Headline.
    pub title: String,
    /// What to do.
    pub instructions: String,
    /// Urgency.
    pub priority: Priority,
    /// Skills the lead must have.
    pub required_skills: Vec<RequiredSkill>,
    /// Parts to bring.
    pub required_parts: Vec<RequiredPart>,
    /// Planned start and end.
    pub scheduled: Option<Window>,
    /// The arrival window the office works with.
    pub arrival_window: Option<Window>,
    /// The arrival window the customer last confirmed; on-time is judged by it.
    pub confirmed_window: Option<Window>,
    /// A moved window that waits for the technician's acknowledgement.
    pub proposed_window: Option<Window>,
    /// Arrive before this.
    #[schema(format = DateTime)]
    pub sla_deadline: Option<String>,
    /// Where a breach was ever announced.
    pub sla: Option<Sla>,
    /// The site.
    pub site: Option<Site>,
    /// Whom to ask for.
    pub contact: Option<Contact>,
    /// What to tick off.
    pub checklist: Vec<ChecklistItem>,
    /// The tenant's own fields.
    pub attributes: BTreeMap<String, String>,
    /// The route it lies on.
    #[schema(example = "ROUTE-200")]
    pub route_id: Option<String>,
    /// Who has it.
    pub assignment: Option<Assignment>,
    /// Who had it before, oldest first.
    pub former_assignments: Vec<FormerAssignment>,
    /// The office's cancellation.
    pub cancellation: Option<Cancellation>,
    /// Last promised arrival.
    #[schema(format = DateTime)]
    pub eta: Option<String>,
    /// First departure.
    #[schema(format = DateTime)]
    pub travel_started_at: Option<String>,
    /// First arrival.
    #[schema(format = DateTime)]
    pub arrived_at: Option<String>,
    /// First start of work.
    #[schema(format = DateTime)]
    pub work_started_at: Option<String>,
    /// Completion, or that it could not be done.
    #[schema(format = DateTime)]
    pub ended_at: Option<String>,
    /// Why it could not be done, or why it was last rejected.
    pub reason: Option<String>,
    /// Arrived within the window the customer last confirmed.
    pub on_time: Option<bool>,
    /// The office asked to stop.
    pub stop_work: bool,
    /// Not to be billed before a person has decided.
    pub billing_hold: bool,
    /// How many exceptions wait for a person.
    pub open_exceptions: u32,
    /// Technicians whose phones do not know the present state yet.
    pub undelivered_to: Vec<String>,
    /// When it was made.
    #[schema(format = DateTime)]
    pub created_at: String,
    /// When it last changed.
    #[schema(format = DateTime)]
    pub updated_at: String,
}

/// A page of dispatches, ordered by scheduled start, unscheduled ones last.
#[derive(Debug, Clone, PartialEq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DispatchPage {
    /// The dispatches.
    pub items: Vec<Dispatch>,
    /// Give it back as `cursor`; null on the last page.
    pub next_cursor: Option<String>,
}

/// A span of time.
#[derive(Debug, Clone, PartialEq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Window {
    /// First instant inside.
    #[schema(format = DateTime)]
    pub start: String,
    /// First instant after.
    #[schema(format = DateTime)]
    pub end: String,
}

/// A place on Earth, WGS 84 degrees.
#[derive(Debug, Clone, PartialEq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Coordinates {
    /// Degrees north.
    pub latitude: f64,
    /// Degrees east.
    pub longitude: f64,
}
