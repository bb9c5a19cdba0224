//! What the office reads, as far as it looks.

use serde::Deserialize;
use serde_json::Value;
use sync_core::domain::plan::CancellationEffect;
use sync_core::domain::{
    ChecklistItemId, DeviceId, DispatchId, FactId, RulingReason, ServiceOrderId, TechnicianId, Timestamp, Verdict,
    VisitStatus, Window,
};

/// A page of a list.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Page<T> {
    /// The rows.
    pub items: Vec<T>,
    /// Where the next page starts; `None` on the last.
    #[serde(default = "Option::default")]
    pub next_cursor: Option<String>,
}

/// A dispatch, as far as the office looks.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DispatchSummary {
    /// Which.
    pub dispatch_id: DispatchId,
    /// The order behind it.
    pub service_order_id: ServiceOrderId,
    /// Where it stands.
    pub status: VisitStatus,
    /// Who has it.
    #[serde(default)]
    pub assignment: Option<AssignmentSummary>,
    /// The office's cancellation.
    #[serde(default)]
    pub cancellation: Option<CancellationSummary>,
    /// The service-level record, where a breach was ever announced.
    #[serde(default)]
    pub sla: Option<SlaSummary>,
    /// A moved window that waits for the technician's acknowledgement.
    #[serde(default)]
    pub proposed_window: Option<Window>,
    /// The office asked to stop.
    #[serde(default)]
    pub stop_work: bool,
    /// Not to be billed before a person has decided.
    #[serde(default)]
    pub billing_hold: bool,
    /// Arrived within the window the customer last confirmed.
    #[serde(default)]
    pub on_time: Option<bool>,
}

/// Who has a dispatch.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AssignmentSummary {
    /// The lead.
    pub technician_id: TechnicianId,
    /// The fencing token.
    pub epoch: u64,
}

/// A cancellation.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CancellationSummary {
    /// What it means.
    pub effect: CancellationEffect,
    /// False while a phone does not know of it (rule 1).
    pub delivered: bool,
}

/// Where a breach of the service level stands.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct SlaSummary {
    /// `PROVISIONAL`, `CONFIRMED` or `RETRACTED`.
    pub status: String,
}

/// Who could go.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Available {
    /// Who.
    pub technician_id: TechnicianId,
    /// How far, where that is known.
    #[serde(default)]
    pub distance_km: Option<f64>,
}

/// An entry of the journal.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct JournalEntry {
    /// The topic it goes to.
    pub topic: String,
    /// The event.
    pub event: JournalEvent,
}

/// A published event in its envelope.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct JournalEvent {
    /// Name.
    pub event_type: String,
    /// Stable id.
    pub event_id: String,
    /// When it was decided.
    pub timestamp: Timestamp,
    /// The key.
    pub aggregate_id: String,
    /// What happened.
    pub payload: Value,
}

/// What a consumed event came to.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IngestLine {
    /// The dispatch concerned.
    #[serde(default)]
    pub dispatch_id: Option<DispatchId>,
    /// `APPLIED`, `DUPLICATE` or `NO_EFFECT`; `None` when it failed.
    #[serde(default)]
    pub effect: Option<String>,
    /// Why it failed.
    #[serde(default)]
    pub error: Option<Value>,
}

/// Something that a person must decide.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Exception {
    /// Its id.
    pub exception_id: String,
    /// Which visit.
    pub dispatch_id: DispatchId,
    /// Which fact, if one raised it.
    #[serde(default)]
    pub fact_id: Option<FactId>,
    /// Why.
    pub reason: RulingReason,
    /// The conflict rule that raised it.
    #[serde(default)]
    pub rule: Option<u8>,
    /// Who stated the fact.
    #[serde(default)]
    pub technician_id: Option<TechnicianId>,
    /// When a person decided.
    #[serde(default)]
    pub resolved_at: Option<Timestamp>,
}

/// A fact with its ruling.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FactLine {
    /// Which.
    pub fact_id: FactId,
    /// Its kind.
    pub kind: String,
    /// Who stated it.
    pub technician_id: TechnicianId,
    /// Corrected time.
    pub occurred_at: Timestamp,
    /// The server's time.
    #[serde(default)]
    pub recorded_at: Option<Timestamp>,
    /// What it means; `None` while it is held.
    #[serde(default)]
    pub verdict: Option<Verdict>,
    /// Why.
    #[serde(default)]
    pub reason: Option<RulingReason>,
    /// The conflict rule behind it.
    #[serde(default)]
    pub rule: Option<u8>,
    /// The device's clock was off by more than two minutes (rule 6).
    #[serde(default)]
    pub clock_flagged: bool,
    /// Earlier facts of the device were missing (rule 16).
    #[serde(default)]
    pub gap_flagged: bool,
}

/// What a visit left behind.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReportView {
    /// Notes.
    pub notes: String,
    /// Summary.
    #[serde(default)]
    pub summary: Option<String>,
    /// The checklist with its standing answers.
    pub checklist: Vec<ChecklistView>,
    /// Every fact, with its ruling.
    pub facts: Vec<FactLine>,
}

/// One checklist item.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct ChecklistView {
    /// Which.
    pub id: ChecklistItemId,
    /// More than one when crew members answered differently (rule 5).
    pub answers: Vec<AnswerView>,
}

/// One standing answer.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct AnswerView {
    /// As entered.
    pub value: String,
    /// Who.
    pub by: TechnicianId,
}

/// A line of the audit trail.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AuditLine {
    /// Position in the chain, from 1.
    pub seq: u64,
    /// What.
    pub action: String,
    /// The previous line's hash.
    pub previous_hash: String,
    /// This line's.
    pub hash: String,
}

/// A phone as the office sees it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeviceHealth {
    /// Which.
    pub device_id: DeviceId,
    /// Whose.
    pub technician_id: TechnicianId,
    /// Unacknowledged changes that it announced.
    #[serde(default)]
    pub pending: u32,
    /// Announced facts that have not come (rule 9).
    #[serde(default)]
    pub missing_actions: u64,
}
