//! The dispatch domain: what a dispatcher would recognise, and nothing else.

pub mod card;
pub mod fact;
pub mod fold;
pub mod geo;
pub mod ids;
pub mod plan;
pub mod rules;
pub mod ruling;
pub mod state;
pub mod time;

pub use card::{Tombstone, TombstoneReason, VisitCard};
pub use fact::{ClockReading, Fact, FactKind, Position};
pub use fold::fold;
pub use ids::*;
pub use plan::Plan;
pub use ruling::{Ruling, RulingReason, Verdict};
pub use state::{VisitState, VisitStatus};
pub use time::{Timestamp, Window};

use std::collections::BTreeMap;

/// Everything the fold reads: the three regions of a visit document that decide its state.
///
/// The fourth region, the report, never influences the status; see [`Report`].
#[derive(Debug, Clone, Default, PartialEq)]
pub struct VisitView {
    /// What the office wants. Written by the server only.
    pub plan: Plan,
    /// What happened. A technician adds, nobody edits.
    pub facts: BTreeMap<FactId, Fact>,
    /// The server's final word on each fact. A fact without a ruling is pending.
    pub rulings: BTreeMap<FactId, Ruling>,
}

/// The visit's shared report: written by everybody on the visit, merged, never arbitrated.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Free text; concurrent edits merge.
    pub notes: String,
    /// Closing summary; the last writer in causal order wins.
    pub summary: Option<String>,
    /// Checklist item -> answers. More than one answer means that crew members answered concurrently: both are kept
    /// and shown until the lead answers again (rule 5).
    pub answers: BTreeMap<ChecklistItemId, Vec<Answer>>,
}

/// One crew member's answer to a checklist item.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct Answer {
    /// The answer as entered: `"yes"`, `"7.2"`, free text.
    pub value: String,
    /// Who answered.
    pub by: TechnicianId,
    /// The device's wall time.
    pub at: Timestamp,
}
