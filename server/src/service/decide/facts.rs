//! Ruling on what technicians stated.
//!
//! Facts are judged in the order of their device's sequence numbers, each on the plan and the fold that the one before
//! left. Only facts that move the status, and changed plans, fold anew, and that fold sees only such facts: a thousand
//! time entries cost one pass.

use super::draft::Draft;
use super::office::assigned_event;
use crate::events::Payload;
use crate::service::commit::FactWrite;
use crate::service::model::{ExceptionRow, Technician, TechnicianStatus};
use serde_json::{Value, json};
use std::collections::{HashMap, HashSet};
use sync_core::domain::fold::fold_ruled;
use sync_core::domain::rules::facts::{FactContext, judge};
use sync_core::domain::rules::sequence::{SequenceLedger, must_hold};
use sync_core::domain::{
    DeviceId, Fact, FactId, FactKind, Plan, Ruling, RulingReason, SerialNumber, Timestamp, Verdict, VisitState,
    VisitView,
};
use sync_core::protocol::FactVerdict;

/// A fact to be judged.
#[derive(Debug, Clone)]
pub(crate) struct Stated {
    pub(crate) fact: Fact,
    /// The plan revision in its causal history.
    pub(crate) knew_revision: u64,
    /// Since when it waits for its predecessors; `None` when it is new.
    pub(crate) held_since: Option<Timestamp>,
}

/// What is known beside the visit, and grows as facts are judged; one for all visits of a push.
#[derive(Debug, Default)]
pub(crate) struct Books {
    /// Which facts have these sequence numbers.
    pub(crate) sequence: HashMap<(DeviceId, u64), FactId>,
    /// Which facts used these serial numbers.
    pub(crate) serials: HashMap<SerialNumber, FactId>,
    /// The author, with truck stock and status; `None` where the directory does not know them.
    pub(crate) technician: Option<Technician>,
    /// Everything of the device that has arrived, this push included.
    pub(crate) arrived: SequenceLedger,
    /// When the device was revoked.
    pub(crate) device_revoked_at: Option<Timestamp>,
}

/// What judging came to.
#[derive(Debug, Default)]
pub(crate) struct Judged {
    /// Verdicts other than accepted-in-order, for the technician.
    pub(crate) verdicts: Vec<FactVerdict>,
    /// Held facts that were ruled on.
    pub(crate) released: u32,
    /// The author's row changed.
    pub(crate) technician_changed: bool,
}

/// Judges facts on a draft. They must be in the document already, or be put into it by the same commit.
pub(crate) fn judge_all(draft: &mut Draft, mut stated: Vec<Stated>, books: &mut Books) -> Judged {
    stated.sort_by_key(|stated| stated.fact.seq);
    let mut judged = Judged::default();
    let mut moving = moving_view(draft.view());
    let mut state = draft.state().clone();
    let mut log: Vec<Value> = Vec::with_capacity(stated.len());
    let waiting: HashSet<FactId> = stated.iter().map(|stated| stated.fact.id.clone()).collect();
    moving.facts.retain(|id, _| !waiting.contains(id));
    for Stated { fact, knew_revision, held_since } in stated {
        let gap = !books.arrived.has_all_before(fact.seq);
        let held_for_ms = held_since.map_or(0, |since| draft.frame.now.millis_since(since));
        draft.add_fact(fact.clone());
        let believed = books.device_revoked_at.is_none();
        if believed && must_hold(gap, &fact.kind, held_for_ms) {
            if held_since.is_none() {
                log.push(json!({ "id": fact.id, "kind": fact.kind.name(), "seq": fact.seq, "held": true }));
                draft.facts.push(fact_write(&fact, knew_revision, None));
            }
            continue;
        }
        let taken = books.sequence.get(&(fact.device.clone(), fact.seq));
        let sequence_reused = taken.is_some_and(|other| *other != fact.id);
        let (serial_used_before, stock_falls_negative) = books.part_use(&fact);
        let judgement = judge(&FactContext {
            plan: draft.plan(),
            state: &state,
            fact: &fact,
            knew_revision,
            now: draft.frame.now,
            device_revoked_at: books.device_revoked_at,
            sequence_reused,
            gap,
            serial_used_before,
            stock_falls_negative,
        });
        let ruling = judgement.ruling;
        draft.rule(&fact.id, ruling.clone());
        let moves = fact.kind.moves_status();
        if moves {
            moving.facts.insert(fact.id.clone(), fact.clone());
            moving.rulings.insert(fact.id.clone(), ruling.clone());
        }
        let before = draft.plan().clone_if(judgement.plan.is_some());
        if let Some(plan) = judgement.plan {
            draft.replan(plan.clone());
            moving.plan = plan;
        }
        if moves || before.is_some() {
            let after = fold_ruled(&moving);
            draft.set_state(after.clone());
            let earlier = std::mem::replace(&mut state, after);
            tell(draft, &fact, &ruling, &earlier, &state, before.as_ref());
        }
        judged.technician_changed |= books.note(&fact, &ruling, draft.frame.now);
        judged.released += u32::from(held_since.is_some());
        if !(ruling.verdict == Verdict::Accepted && ruling.reason == RulingReason::InOrder) {
            judged.verdicts.push(FactVerdict { fact: fact.id.clone(), verdict: ruling.verdict, reason: ruling.reason });
        }
        if ruling.verdict == Verdict::Exception || ruling.reason == RulingReason::StockNegative {
            let row = exception(draft, &fact, &ruling, books);
            draft.exceptions.push(row);
        }
        log.push(log_line(&fact, &ruling));
        draft.facts.push(fact_write(&fact, knew_revision, Some(ruling)));
    }
    if !log.is_empty() {
        draft.audit("FACTS_RULED", json!({ "facts": log }));
    }
    judged
}

/// The plan and the facts that the status depends on.
fn moving_view(view: &VisitView) -> VisitView {
    let facts = view.facts.iter().filter(|(_, fact)| fact.kind.moves_status());
    let facts: std::collections::BTreeMap<_, _> = facts.map(|(id, fact)| (id.clone(), fact.clone())).collect();
    let rulings =
        view.rulings.iter().filter(|(id, _)| facts.contains_key(*id)).map(|(id, ruling)| (id.clone(), ruling.clone()));
    VisitView { plan: view.plan.clone(), rulings: rulings.collect(), facts }
}

/// `Some` clone on demand.
trait CloneIf: Clone {
    fn clone_if(&self, wanted: bool) -> Option<Self> {
        wanted.then(|| self.clone())
    }
}
impl CloneIf for Plan {}

fn fact_write(fact: &Fact, knew_revision: u64, ruling: Option<Ruling>) -> FactWrite {
    FactWrite {
        fact: fact.id.clone(),
        device: fact.device.clone(),
        seq: fact.seq,
        knew_revision,
        kind: fact.kind.name(),
        occurred_at: fact.occurred_at(),
        serial: match &fact.kind {
            FactKind::PartUsed { serial, .. } => serial.clone(),
            _ => None,
        },
        ruling,
    }
}

/// The audit trail's line on one fact; every decision of the sync is in it.
fn log_line(fact: &Fact, ruling: &Ruling) -> Value {
    let mut line = json!({
        "id": fact.id,
        "kind": fact.kind.name(),
        "technicianId": fact.technician,
        "deviceId": fact.device,
        "seq": fact.seq,
        "epoch": fact.epoch,
        "occurredAt": fact.occurred_at(),
        "verdict": ruling.verdict,
        "reason": ruling.reason,
        "knewRevision": ruling.knew_revision,
    });
    if let Value::Object(line) = &mut line {
        if ruling.clock_flagged {
            line.insert("clockOffsetMs".to_owned(), json!(fact.clock.offset_ms));
        }
        if ruling.gap_flagged {
            line.insert("gap".to_owned(), json!(true));
        }
    }
    line
}

fn exception(draft: &Draft, fact: &Fact, ruling: &Ruling, books: &Books) -> ExceptionRow {
    let mut detail = json!({ "fact": fact });
    if let (Value::Object(detail), FactKind::PartUsed { part, .. }) = (&mut detail, &fact.kind) {
        let stock = books.technician.as_ref().and_then(|technician| technician.van_stock.get(part));
        detail.insert("stock".to_owned(), json!(stock));
    }
    ExceptionRow {
        exception_id: fact.id.to_string(),
        dispatch_id: draft.dispatch().clone(),
        fact_id: Some(fact.id.clone()),
        reason: ruling.reason,
        rule: ruling.reason.rule().map(|rule| rule.0),
        technician_id: Some(fact.technician.clone()),
        raised_at: draft.frame.now,
        detail,
        resolved_at: None,
        resolved_by: None,
        resolution: None,
    }
}

impl Books {
    /// Whether the serial number was used before, and whether the truck's stock would fall below zero. Stock is judged only
    /// where it is kept.
    fn part_use(&self, fact: &Fact) -> (bool, bool) {
        let FactKind::PartUsed { part, quantity, serial } = &fact.kind else { return (false, false) };
        let used = serial.as_ref().and_then(|serial| self.serials.get(serial)).is_some_and(|other| *other != fact.id);
        let short = self.technician.as_ref().is_some_and(|technician| {
            !technician.van_stock.is_empty()
                && technician.van_stock.get(part).copied().unwrap_or(0) < i64::from(*quantity)
        });
        (used, short)
    }

    /// Remembers a judged fact. True when the author's row changed by it.
    fn note(&mut self, fact: &Fact, ruling: &Ruling, now: Timestamp) -> bool {
        self.sequence.entry((fact.device.clone(), fact.seq)).or_insert_with(|| fact.id.clone());
        if ruling.verdict != Verdict::Accepted {
            return false;
        }
        if let FactKind::PartUsed { serial: Some(serial), .. } = &fact.kind {
            self.serials.entry(serial.clone()).or_insert_with(|| fact.id.clone());
        }
        let Some(technician) = self.technician.as_mut().filter(|row| row.technician_id == fact.technician) else {
            return false;
        };
        if let FactKind::PartUsed { part, quantity, .. } = &fact.kind
            && !technician.van_stock.is_empty()
        {
            *technician.van_stock.entry(part.clone()).or_insert(0) -= i64::from(*quantity);
            return true;
        }
        let at = fact.occurred_at().min(now);
        match doing(&fact.kind) {
            // What came late does not undo what is known to have happened since.
            Some(status) if technician.status_since.is_none_or(|since| since <= at) => {
                technician.status = status;
                technician.status_since = Some(at);
                true
            }
            _ => false,
        }
    }
}

/// What the technician does from then on.
fn doing(kind: &FactKind) -> Option<TechnicianStatus> {
    match kind {
        FactKind::TravelStarted { .. } => Some(TechnicianStatus::OnRoute),
        FactKind::Arrived | FactKind::WorkStarted | FactKind::Resumed => Some(TechnicianStatus::OnSite),
        FactKind::Completed | FactKind::CannotComplete { .. } => Some(TechnicianStatus::Available),
        FactKind::Accepted { .. }
        | FactKind::Rejected { .. }
        | FactKind::Paused { .. }
        | FactKind::TimeEntry { .. }
        | FactKind::PartUsed { .. }
        | FactKind::Photo { .. }
        | FactKind::Signature { .. }
        | FactKind::WindowAcknowledged { .. }
        | FactKind::Unknown => None,
    }
}

/// The events of one judged fact.
fn tell(
    draft: &mut Draft,
    fact: &Fact,
    ruling: &Ruling,
    earlier: &VisitState,
    state: &VisitState,
    plan_before: Option<&Plan>,
) {
    if let Some(before) = plan_before {
        let detail = json!({ "fact": fact.id, "reason": ruling.reason, "status": state.status, "epoch": state.epoch });
        draft.audit("PLAN_CHANGED_BY_FACT", detail);
        let epoch_before = before.assignment.as_ref().map(|assignment| assignment.epoch);
        let epoch = draft.plan().assignment.as_ref().map(|assignment| assignment.epoch);
        if epoch.is_some() && epoch != epoch_before {
            assigned_event(draft);
        }
    }
    if ruling.verdict != Verdict::Accepted {
        return;
    }
    let (dispatch_id, technician_id) = (draft.dispatch().clone(), fact.technician.clone());
    let status = match &fact.kind {
        FactKind::Accepted { eta } if state.accepted.is_some() && state.accepted != earlier.accepted => {
            let plan = draft.plan();
            let planned = plan.arrival_window.or(plan.scheduled).map(|window| window.start);
            let eta = eta.or(planned).unwrap_or_else(|| fact.occurred_at());
            draft.event(Payload::DispatchConfirmed { dispatch_id, technician_id, eta });
            return;
        }
        FactKind::Rejected { reason } if draft.plan().assignment.is_none() => {
            let reason = reason.clone();
            draft.event(Payload::DispatchRejected { dispatch_id, technician_id, reason });
            return;
        }
        FactKind::TravelStarted { .. } => "ON_ROUTE",
        FactKind::Arrived => "ON_SITE",
        FactKind::Completed | FactKind::CannotComplete { .. } => "AVAILABLE",
        FactKind::Rejected { .. } if state.ended.is_some() && earlier.ended.is_none() => "AVAILABLE",
        _ => return,
    };
    draft.event(Payload::TechnicianStatusChanged {
        technician_id,
        dispatch_id: Some(dispatch_id),
        status: status.to_owned(),
        occurred_at: fact.occurred_at(),
        recorded_at: draft.frame.now,
    });
}
