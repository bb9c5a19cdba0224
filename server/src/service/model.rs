//! The service's records: what the back office reads, and what the store keeps beside the documents.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use sync_core::document::StateTag;
use sync_core::domain::geo::Coordinates;
use sync_core::domain::plan::{Plan, Priority};
use sync_core::domain::rules::sequence::SequenceLedger;
use sync_core::domain::rules::sla::BreachStatus;
use sync_core::domain::{
    DeviceId, DispatchId, FactId, LocationId, PartNumber, RulingReason, ServiceOrderId, SkillCode, TechnicianId,
    TenantId, Timestamp, VisitCard, VisitState, VisitStatus, Window,
};

/// A dispatch's projection: everything that lists, searches and reads need, computed from the document at each commit.
#[derive(Debug, Clone, PartialEq)]
pub struct DispatchRow {
    /// Which.
    pub dispatch_id: DispatchId,
    /// Unique per tenant: the natural key (rule 18).
    pub service_order_id: ServiceOrderId,
    /// Where.
    pub location_id: LocationId,
    /// Grows by one with every commit; the `ETag`.
    pub revision: u64,
    /// The fold's status (never `DISPATCHED`: that is derived from `delivered_epoch`).
    pub status: VisitStatus,
    /// Urgency.
    pub priority: Priority,
    /// Current lead.
    pub technician_id: Option<TechnicianId>,
    /// Current epoch.
    pub epoch: u64,
    /// Planned start and end.
    pub scheduled: Option<Window>,
    /// Arrive before this.
    pub sla_deadline: Option<Timestamp>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
    /// The plan, as JSON in the store.
    pub plan: Plan,
    /// The fold, as JSON in the store.
    pub state: VisitState,
    /// For lists on the phone, as CBOR in the store.
    pub card: VisitCard,
}

/// A dispatch as the store gives it back.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredDispatch {
    /// The projection.
    pub row: DispatchRow,
    /// Names the document's content.
    pub tag: StateTag,
    /// The epoch whose assignment has reached a phone of its lead; makes `ASSIGNED` `DISPATCHED`.
    pub delivered_epoch: Option<u64>,
    /// When it reached the phone.
    pub delivered_at: Option<Timestamp>,
    /// Technicians who hold a revision of this visit older than the present one, and so may not know of it yet (rule 1:
    /// *cancelled, not yet delivered*).
    pub undelivered_to: Vec<TechnicianId>,
    /// The service-level record, where a breach was ever announced.
    pub sla: Option<SlaRow>,
    /// How many exceptions wait for a person.
    pub open_exceptions: u32,
}

/// What of a [`StoredDispatch`] may change while its revision stays.
#[derive(Debug, Clone, PartialEq)]
pub struct Standing {
    /// See [`StoredDispatch::delivered_epoch`].
    pub delivered_epoch: Option<u64>,
    /// See [`StoredDispatch::delivered_at`].
    pub delivered_at: Option<Timestamp>,
    /// See [`StoredDispatch::undelivered_to`].
    pub undelivered_to: Vec<TechnicianId>,
    /// See [`StoredDispatch::sla`].
    pub sla: Option<SlaRow>,
    /// See [`StoredDispatch::open_exceptions`].
    pub open_exceptions: u32,
}

impl StoredDispatch {
    /// Of a row, and what stands beside it.
    #[must_use]
    pub fn new(row: DispatchRow, tag: StateTag, standing: Standing) -> Self {
        let Standing { delivered_epoch, delivered_at, undelivered_to, sla, open_exceptions } = standing;
        Self { row, tag, delivered_epoch, delivered_at, undelivered_to, sla, open_exceptions }
    }
}

/// A technician.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Technician {
    /// Which.
    pub technician_id: TechnicianId,
    /// Grows by one with every change; the `ETag`.
    #[serde(default)]
    pub revision: u64,
    /// Name.
    pub name: String,
    /// What they can do.
    #[serde(default)]
    pub skills: Vec<Skill>,
    /// Where the day starts.
    #[serde(default)]
    pub home_base: Option<Coordinates>,
    /// Service territory.
    #[serde(default)]
    pub territory: Option<String>,
    /// When they can be booked. Empty: never.
    #[serde(default)]
    pub availability: Vec<Window>,
    /// When they cannot, in spite of it.
    #[serde(default)]
    pub absences: Vec<Absence>,
    /// Truck stock: part -> quantity. May go negative (rule 7).
    #[serde(default)]
    pub van_stock: BTreeMap<PartNumber, i64>,
    /// What they are doing.
    #[serde(default)]
    pub status: TechnicianStatus,
    /// Since when.
    #[serde(default)]
    pub status_since: Option<Timestamp>,
}

/// A technician's skill.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Skill {
    /// Which.
    pub code: SkillCode,
    /// 1 the lowest.
    #[serde(default = "Skill::lowest_level")]
    pub level: u8,
    /// Not valid from then on.
    #[serde(default)]
    pub expires_at: Option<Timestamp>,
}

impl Skill {
    fn lowest_level() -> u8 {
        1
    }
}

/// A planned absence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Absence {
    /// When.
    pub window: Window,
    /// Why.
    pub reason: String,
}

/// What a technician is doing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum TechnicianStatus {
    /// Not at work.
    #[default]
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

impl TechnicianStatus {
    /// The stable name, as in REST and events.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::OffShift => "OFF_SHIFT",
            Self::Available => "AVAILABLE",
            Self::OnRoute => "ON_ROUTE",
            Self::OnSite => "ON_SITE",
            Self::OnBreak => "ON_BREAK",
            Self::Unavailable => "UNAVAILABLE",
        }
    }
}

/// A site.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Location {
    /// Which.
    pub location_id: LocationId,
    /// Grows by one with every change; the `ETag`.
    #[serde(default)]
    pub revision: u64,
    /// As the customer calls it.
    pub name: String,
    /// Postal address, one line.
    pub address: String,
    /// Where it is.
    pub coordinates: Coordinates,
    /// Key box, gate code, parking.
    #[serde(default)]
    pub access_notes: Option<String>,
}

/// A phone as the store gives it back.
#[derive(Debug, Clone, PartialEq)]
pub struct Device {
    /// Which.
    pub device: DeviceId,
    /// Whose.
    pub technician: TechnicianId,
    /// App name and version.
    pub app: String,
    /// First heard.
    pub registered_at: Timestamp,
    /// Last heard.
    pub seen_at: Timestamp,
    /// Which sequence numbers have arrived.
    pub ledger: SequenceLedger,
    /// Grows by one with every ledger write.
    pub ledger_version: u64,
    /// Unacknowledged changes on the phone.
    pub pending: u32,
    /// When the oldest of them was made.
    pub oldest_pending: Option<Timestamp>,
    /// When the phone last reported that nothing is unsent.
    pub complete_at: Option<Timestamp>,
    /// Feed position that the phone has durably stored.
    pub acknowledged: u64,
    /// Revoked at.
    pub revoked_at: Option<Timestamp>,
    /// Removed what it held, at.
    pub wiped_at: Option<Timestamp>,
    /// Digest mismatches reported.
    pub digest_mismatches: u64,
}

/// One line of the audit trail, before it is chained.
#[derive(Debug, Clone, PartialEq)]
pub struct AuditEntry {
    /// The chain it belongs to: a dispatch, technician, location or device id, prefixed by its kind (`dispatch:DSP-1`).
    pub aggregate: String,
    /// When.
    pub at: Timestamp,
    /// Who: the token's `sub`, a device, or `system`.
    pub actor: String,
    /// What, in the past tense: `DISPATCH_ASSIGNED`, `FACT_RULED`, ….
    pub action: &'static str,
    /// Machine-readable detail.
    pub detail: serde_json::Value,
}

/// One line of the audit trail as stored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AuditRecord {
    /// Its chain.
    pub aggregate: String,
    /// Position in the chain, from 1.
    pub seq: u64,
    /// When.
    pub at: Timestamp,
    /// Who.
    pub actor: String,
    /// What.
    pub action: String,
    /// Machine-readable detail.
    pub detail: serde_json::Value,
    /// The previous line's hash, hex; all zeros for the first.
    pub previous_hash: String,
    /// SHA-256 over tenant, aggregate, seq, at, actor, action, detail and the previous hash, hex.
    pub hash: String,
}

/// Something that a person in the office must decide.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExceptionRow {
    /// The exception's id; the fact's id where a fact raised it.
    pub exception_id: String,
    /// Which visit.
    pub dispatch_id: DispatchId,
    /// Which fact, if one raised it.
    pub fact_id: Option<FactId>,
    /// Why.
    pub reason: RulingReason,
    /// The conflict rule that raised it.
    pub rule: Option<u8>,
    /// Who stated the fact.
    pub technician_id: Option<TechnicianId>,
    /// When it was raised.
    pub raised_at: Timestamp,
    /// Machine-readable detail (the quarantined payload, the stock level, …).
    pub detail: serde_json::Value,
    /// When it was resolved.
    pub resolved_at: Option<Timestamp>,
    /// Who resolved it.
    pub resolved_by: Option<String>,
    /// In their words.
    pub resolution: Option<String>,
}

/// A dispatch's service-level record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SlaRow {
    /// Which visit.
    pub dispatch_id: DispatchId,
    /// Arrive before this.
    pub deadline: Timestamp,
    /// Where the breach stands.
    pub status: BreachStatus,
    /// When it was first announced.
    pub announced_at: Timestamp,
    /// When it was confirmed or retracted.
    pub decided_at: Option<Timestamp>,
    /// The arrival, by corrected time, once known.
    pub arrived_at: Option<Timestamp>,
}

/// Whose data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DispatchSearch {
    /// Whose.
    pub tenant: TenantId,
    /// Any of these; empty for all. `DISPATCHED` means assigned and delivered.
    pub statuses: Vec<VisitStatus>,
    /// This lead's.
    pub technician: Option<TechnicianId>,
    /// At this site.
    pub location: Option<LocationId>,
    /// Of this order.
    pub service_order: Option<ServiceOrderId>,
    /// Scheduled start in this window.
    pub scheduled: Option<Window>,
    /// At least this urgent.
    pub priority_min: Option<Priority>,
    /// After this one, from the last page.
    pub after: Option<SearchPosition>,
    /// Page size.
    pub limit: u32,
}

/// Where a page ended: results are ordered by scheduled start (unscheduled last), then id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SearchPosition {
    /// Scheduled start, milliseconds; `i64::MAX` for unscheduled.
    pub start_ms: i64,
    /// The last id.
    pub dispatch_id: DispatchId,
}
