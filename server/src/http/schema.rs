//! The answers as they are documented: what OpenAPI shows, and what the contract tests read every answer with.
//!
//! The service writes its views itself, since an idempotency key remembers them byte for byte. These types are the other
//! side of the contract: strict, so that a field that is not documented fails a test.

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

/// What a technician is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum TechnicianStatus {
    /// Not at work.
    OffShift,
    /// Ready.
    Available,
    /// Driving.
    OnRoute,
    /// At a customer's.
    OnSite,
    /// Pausing.
    OnBreak,
    /// At work, but not to be booked.
    Unavailable,
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

/// What a ruling on a fact means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It counts.
    Accepted,
    /// It is recorded and changes nothing.
    Stale,
    /// It is recorded, and a person must decide.
    Exception,
}

/// A span of time.
#[derive(Debug, Clone, Deserialize, ToSchema)]
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
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Coordinates {
    /// Degrees north.
    pub latitude: f64,
    /// Degrees east.
    pub longitude: f64,
}

/// A skill that the lead must have.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RequiredSkill {
    /// Which.
    #[schema(example = "HVAC")]
    pub code: String,
    /// At least this, 1 the lowest.
    pub level: u8,
}

/// A part to bring.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RequiredPart {
    /// Which.
    #[schema(example = "PART-55")]
    pub part: String,
    /// How many.
    pub quantity: u32,
}

/// Where a dispatch is to be done.
#[derive(Debug, Clone, Deserialize, ToSchema)]
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
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Contact {
    /// Name.
    pub name: String,
    /// Phone number.
    pub phone: Option<String>,
}

/// One thing to tick off.
#[derive(Debug, Clone, Deserialize, ToSchema)]
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
#[derive(Debug, Clone, Deserialize, ToSchema)]
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
#[derive(Debug, Clone, Deserialize, ToSchema)]
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
#[derive(Debug, Clone, Deserialize, ToSchema)]
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
#[derive(Debug, Clone, Deserialize, ToSchema)]
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
#[derive(Debug, Clone, Deserialize, ToSchema)]
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
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DispatchPage {
    /// The dispatches.
    pub items: Vec<Dispatch>,
    /// Give it back as `cursor`; null on the last page.
    pub next_cursor: Option<String>,
}

/// One line of a parts ledger.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PartUse {
    /// The ledger entry's id.
    pub fact: String,
    /// Which part.
    pub part: String,
    /// How many.
    pub quantity: u32,
    /// For serialised parts.
    pub serial: Option<String>,
}

/// One line of time worked.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TimeWorked {
    /// The entry's id.
    pub fact: String,
    /// Who worked.
    pub technician: String,
    /// `labour`, `travel`, ….
    pub category: String,
    /// How long.
    pub minutes: u32,
}

/// One answer to a checklist item.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Answer {
    /// As entered.
    pub value: String,
    /// Who answered.
    pub by: String,
    /// The device's wall time.
    #[schema(format = DateTime)]
    pub at: String,
}

/// One checklist item with its answers.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ChecklistLine {
    /// Which.
    pub id: String,
    /// The question; null where the plan has dropped it and the answers are kept.
    pub label: Option<String>,
    /// True when the visit should not be completed without an answer.
    pub required: bool,
    /// More than one: crew members answered at the same time, and the lead is asked.
    pub answers: Vec<Answer>,
}

/// One fact, with the server's word on it.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FactLine {
    /// Which.
    pub fact_id: String,
    /// `arrived`, `part_used`, ….
    #[schema(example = "arrived")]
    pub kind: String,
    /// What belongs to the kind.
    #[schema(value_type = Object)]
    pub content: serde_json::Value,
    /// Who stated it.
    #[schema(example = "TECH-10")]
    pub technician_id: String,
    /// On which device.
    pub device_id: String,
    /// The device's number for it.
    pub seq: u64,
    /// The assignment it was stated under.
    pub epoch: u64,
    /// When, corrected by the device's measured clock offset.
    #[schema(format = DateTime)]
    pub occurred_at: String,
    /// Half-width of the interval around it, milliseconds.
    pub uncertainty_ms: i64,
    /// When the server ruled on it; null while it waits.
    #[schema(format = DateTime)]
    pub recorded_at: Option<String>,
    /// The ruling; null while it waits.
    pub verdict: Option<Verdict>,
    /// Why.
    #[schema(example = "IN_ORDER")]
    pub reason: Option<String>,
    /// The conflict rule that decided, where there was a conflict.
    pub rule: Option<u8>,
    /// The plan revision that the technician knew.
    pub knew_revision: Option<u64>,
    /// The device's clock was off by more than two minutes.
    pub clock_flagged: bool,
    /// Earlier facts of the device had not all arrived.
    pub gap_flagged: bool,
}

/// What a visit left behind.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Report {
    /// Which visit.
    #[schema(example = "DSP-100")]
    pub dispatch_id: String,
    /// Of which revision.
    pub revision: u64,
    /// Free text of everybody on the visit.
    pub notes: String,
    /// Closing summary.
    pub summary: Option<String>,
    /// The checklist, in its order.
    pub checklist: Vec<ChecklistLine>,
    /// Parts used.
    pub parts: Vec<PartUse>,
    /// Time worked.
    pub time: Vec<TimeWorked>,
    /// Every fact, by device and number.
    pub facts: Vec<FactLine>,
}

/// A technician's skill.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Skill {
    /// Which.
    #[schema(example = "HVAC")]
    pub code: String,
    /// How well, 1 the lowest.
    pub level: u8,
    /// Not valid from then on.
    #[schema(format = DateTime)]
    pub expires_at: Option<String>,
}

/// A planned absence.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Absence {
    /// When.
    pub window: Window,
    /// Why.
    pub reason: String,
}

/// A technician.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Technician {
    /// Which.
    #[schema(example = "TECH-10")]
    pub technician_id: String,
    /// Grows by one with every change; the `ETag`.
    pub revision: u64,
    /// Name.
    pub name: String,
    /// What they can do.
    pub skills: Vec<Skill>,
    /// Where the day starts.
    pub home_base: Option<Coordinates>,
    /// Service territory.
    pub territory: Option<String>,
    /// When they can be booked.
    pub availability: Vec<Window>,
    /// When they cannot, in spite of it.
    pub absences: Vec<Absence>,
    /// Truck stock; may go negative, which raises an exception.
    pub van_stock: BTreeMap<String, i64>,
    /// What they are doing.
    pub status: TechnicianStatus,
    /// Since when.
    #[schema(format = DateTime)]
    pub status_since: Option<String>,
}

/// A page of technicians, by id.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TechnicianPage {
    /// The technicians.
    pub items: Vec<Technician>,
    /// Give it back as `cursor`; null on the last page.
    pub next_cursor: Option<String>,
}

/// A technician who could go, or why not.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Candidate {
    /// Who.
    #[schema(example = "TECH-10")]
    pub technician_id: String,
    /// Name.
    pub name: String,
    /// Nothing stands against it.
    pub available: bool,
    /// From the visit before, or from home.
    pub distance_km: Option<f64>,
    /// Estimated drive, milliseconds.
    pub travel_ms: Option<i64>,
    /// What stands against it: each has a `reason` like SKILL_MISSING or BOOKED.
    #[schema(value_type = Vec<Object>)]
    pub reasons: Vec<serde_json::Value>,
}

/// Who could go, nearest first.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CandidateList {
    /// The technicians.
    pub items: Vec<Candidate>,
    /// Always null: one page.
    pub next_cursor: Option<String>,
}

/// A skill and who has it.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SkillSummary {
    /// Which.
    #[schema(example = "HVAC")]
    pub code: String,
    /// How many technicians have it.
    pub technicians: u32,
    /// The highest level among them.
    pub highest_level: u8,
}

/// Every skill of the tenant's technicians, by code.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SkillList {
    /// The skills.
    pub items: Vec<SkillSummary>,
    /// Always null: one page.
    pub next_cursor: Option<String>,
}

/// A site.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Location {
    /// Which.
    #[schema(example = "LOC-10")]
    pub location_id: String,
    /// Grows by one with every change; the `ETag`.
    pub revision: u64,
    /// As the customer calls it.
    pub name: String,
    /// Postal address, one line.
    pub address: String,
    /// Where it is.
    pub coordinates: Coordinates,
    /// Key box, gate code, parking.
    pub access_notes: Option<String>,
}

/// A page of sites, by id.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LocationPage {
    /// The sites.
    pub items: Vec<Location>,
    /// Give it back as `cursor`; null on the last page.
    pub next_cursor: Option<String>,
}

/// A phone's health.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Device {
    /// Which.
    pub device_id: String,
    /// Whose.
    #[schema(example = "TECH-10")]
    pub technician_id: String,
    /// App name and version.
    pub app: String,
    /// First heard.
    #[schema(format = DateTime)]
    pub registered_at: String,
    /// Last heard.
    #[schema(format = DateTime)]
    pub seen_at: String,
    /// Connected now.
    pub connected: bool,
    /// It has unsent work, missing actions, or has not taken its feed.
    pub behind: bool,
    /// Since when, as far as known.
    #[schema(format = DateTime)]
    pub behind_since: Option<String>,
    /// Actions that it announced and that have not arrived.
    pub missing_actions: u64,
    /// Unacknowledged changes on the phone.
    pub pending: u32,
    /// When the oldest of them was made.
    #[schema(format = DateTime)]
    pub oldest_pending: Option<String>,
    /// Feed entries that it has not acknowledged.
    pub feed_behind: u64,
    /// Revoked at.
    #[schema(format = DateTime)]
    pub revoked_at: Option<String>,
    /// Removed what it held, at.
    #[schema(format = DateTime)]
    pub wiped_at: Option<String>,
    /// Digest mismatches reported.
    pub digest_mismatches: u64,
}

/// The tenant's phones, those behind first.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DeviceList {
    /// The phones.
    pub items: Vec<Device>,
    /// Always null: one page.
    pub next_cursor: Option<String>,
}

/// Something that a person must decide.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Exception {
    /// Which.
    pub exception_id: String,
    /// Of which visit.
    #[schema(example = "DSP-100")]
    pub dispatch_id: String,
    /// Which fact raised it, if one did.
    pub fact_id: Option<String>,
    /// Why.
    #[schema(example = "COMPLETED_AFTER_CANCELLATION")]
    pub reason: String,
    /// The conflict rule that raised it.
    pub rule: Option<u8>,
    /// Who stated the fact.
    pub technician_id: Option<String>,
    /// When it was raised.
    #[schema(format = DateTime)]
    pub raised_at: String,
    /// Machine-readable detail.
    #[schema(value_type = Object)]
    pub detail: serde_json::Value,
    /// When it was resolved.
    #[schema(format = DateTime)]
    pub resolved_at: Option<String>,
    /// Who resolved it.
    pub resolved_by: Option<String>,
    /// In their words.
    pub resolution: Option<String>,
}

/// Exceptions, newest first.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ExceptionList {
    /// The exceptions.
    pub items: Vec<Exception>,
    /// Always null: one page.
    pub next_cursor: Option<String>,
}

/// One line of the audit trail.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AuditRecord {
    /// Its chain.
    #[schema(example = "dispatch:DSP-100")]
    pub aggregate: String,
    /// Position in the chain, from 1.
    pub seq: u64,
    /// When.
    #[schema(format = DateTime)]
    pub at: String,
    /// Who.
    pub actor: String,
    /// What.
    #[schema(example = "DISPATCH_ASSIGNED")]
    pub action: String,
    /// Machine-readable detail.
    #[schema(value_type = Object)]
    pub detail: serde_json::Value,
    /// The previous line's hash; zeros for the first.
    pub previous_hash: String,
    /// SHA-256 over tenant, aggregate, seq, at, actor, action, detail and the previous hash, hexadecimal.
    pub hash: String,
}

/// A page of an audit chain, oldest first.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AuditPage {
    /// The lines.
    pub items: Vec<AuditRecord>,
    /// Give it back as `cursor`; null on the last page.
    pub next_cursor: Option<String>,
}

/// A published event in its envelope.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Event {
    /// `TechnicianAssignedEvent`, ….
    #[schema(example = "TechnicianAssignedEvent")]
    pub event_type: String,
    /// Stable: a consumer that remembers ids sees each event once.
    #[schema(example = "evt-4501")]
    pub event_id: String,
    /// When it was decided.
    #[schema(format = DateTime)]
    pub timestamp: String,
    /// The dispatch, or the technician where none is concerned; the key.
    #[schema(example = "DSP-100")]
    pub aggregate_id: String,
    /// Whose.
    #[schema(example = "tenant-001")]
    pub tenant_id: String,
    /// By type.
    #[schema(value_type = Object)]
    pub payload: serde_json::Value,
}

/// One entry of the journal.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct JournalEntry {
    /// Its position; grows.
    pub position: u64,
    /// Its topic.
    #[schema(example = "crm.dispatch.assignment.created")]
    pub topic: String,
    /// The event.
    pub event: Event,
}

/// A page of the journal, oldest first.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct JournalPage {
    /// The entries.
    pub items: Vec<JournalEntry>,
    /// Where to read on: always given, so that a follower asks again with it; null in an empty journal.
    pub next_cursor: Option<String>,
}

/// What became of one consumed event.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct IngestLine {
    /// Its id, where it could be read.
    #[schema(example = "evt-77")]
    pub event_id: Option<String>,
    /// The dispatch concerned, if any.
    #[schema(example = "DSP-100")]
    pub dispatch_id: Option<String>,
    /// `APPLIED`, `DUPLICATE`, `NO_EFFECT`; null when it failed.
    #[schema(example = "APPLIED")]
    pub effect: Option<String>,
    /// Why it failed; send it again only where the code is `BUSY` or `INTERNAL`.
    pub error: Option<IngestFailure>,
}

/// Why a consumed event had no effect.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct IngestFailure {
    /// A stable code, as in an error body.
    #[schema(example = "EVENT_UNREADABLE")]
    pub code: String,
    /// For people.
    pub message: String,
}

/// What became of the consumed events, in their order.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct IngestResult {
    /// One line an event.
    pub items: Vec<IngestLine>,
}

/// Breaches of service levels announced in a span of time.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SlaReport {
    /// The span.
    pub window: Window,
    /// Not yet decided.
    pub provisional: u32,
    /// Confirmed.
    pub confirmed: u32,
    /// Retracted: the arrival was in time and its news came late.
    pub retracted: u32,
    /// Each.
    pub breaches: Vec<Sla>,
}

/// How the server is.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Health {
    /// `UP`.
    #[schema(example = "UP")]
    pub status: String,
}
