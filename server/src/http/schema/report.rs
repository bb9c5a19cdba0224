//! What a visit left behind, and what compliance reads.

use super::{Sla, Window};
use serde::Deserialize;
use utoipa::ToSchema;

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

/// One line of a parts ledger.
#[derive(Debug, Clone, PartialEq, Deserialize, ToSchema)]
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
#[derive(Debug, Clone, PartialEq, Deserialize, ToSchema)]
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
#[derive(Debug, Clone, PartialEq, Deserialize, ToSchema)]
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
#[derive(Debug, Clone, PartialEq, Deserialize, ToSchema)]
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
#[derive(Debug, Clone, PartialEq, Deserialize, ToSchema)]
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
#[derive(Debug, Clone, PartialEq, Deserialize, ToSchema)]
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

/// Breaches of service levels announced in a span of time.
#[derive(Debug, Clone, PartialEq, Deserialize, ToSchema)]
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

/// One line of the audit trail.
#[derive(Debug, Clone, PartialEq, Deserialize, ToSchema)]
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
#[derive(Debug, Clone, PartialEq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AuditPage {
    /// The lines.
    pub items: Vec<AuditRecord>,
    /// Give it back as `cursor`; null on the last page.
    pub next_cursor: Option<String>,
}

/// Something that a person must decide.
#[derive(Debug, Clone, PartialEq, Deserialize, ToSchema)]
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
#[derive(Debug, Clone, PartialEq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ExceptionList {
    /// The exceptions.
    pub items: Vec<Exception>,
    /// Always null: one page.
    pub next_cursor: Option<String>,
}
