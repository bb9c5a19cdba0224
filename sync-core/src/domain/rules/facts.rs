//! Judging an incoming fact (rules 1 to 7, 9, 11, 13, 14, 16, 17, 18).

use crate::domain::{Fact, Plan, Ruling, TechnicianId, Timestamp, VisitState};

/// What is known when a fact is judged.
#[derive(Debug, Clone)]
pub struct FactContext<'a> {
    /// The plan before this fact's effects.
    pub plan: &'a Plan,
    /// The fold before this fact.
    pub state: &'a VisitState,
    /// The fact.
    pub fact: &'a Fact,
    /// The plan revision in the fact's causal history.
    pub knew_revision: u64,
    /// The server's time.
    pub now: Timestamp,
    /// When the sending device was revoked, if it was (rule 9).
    pub device_revoked_at: Option<Timestamp>,
    /// The device has used this sequence number for another fact (rule 18).
    pub sequence_reused: bool,
    /// Earlier facts of the device have not all arrived (rule 16).
    pub gap: bool,
    /// The serial number was used by another fact (rule 7).
    pub serial_used_before: bool,
    /// The part's stock falls below zero by this use (rule 7).
    pub stock_falls_negative: bool,
}

/// The answer: the ruling, and what it does to the plan.
#[derive(Debug, Clone, PartialEq)]
pub struct Judgement {
    /// The final word.
    pub ruling: Ruling,
    /// The plan afterwards; `None` when it stays as it is. Its revision is already increased.
    pub plan: Option<Plan>,
}

/// Judges one fact. Facts of one push are judged in order, each seeing the plan and the fold that the one before left.
#[must_use]
pub fn judge(context: &FactContext<'_>) -> Judgement {
    let _ = context;
    unimplemented!()
}

/// True when `technician` may state facts about the visit under `epoch` (rule 14).
#[must_use]
pub fn had_right(plan: &Plan, technician: &TechnicianId, epoch: u64) -> bool {
    let _ = (plan, technician, epoch);
    unimplemented!()
}
