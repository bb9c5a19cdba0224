//! Judging an incoming fact (rules 1 to 7, 9, 11, 13, 14, 16, 17, 18).
//!
//! The questions are asked in this order, and the first that has an answer decides:
//! 1. May this sender be believed at all? If not, the fact is quarantined (rules 9, 14, 18).
//! 2. Does it move the status? What does not is a ledger entry, and counts whoever has the visit now (rules 7, 11, 17).
//! 3. Is its epoch current? If not, either its author had started and keeps the visit, or it is history (rules 3, 4).
//! 4. Does its author speak for the visit? (rule 5)
//! 5. Has the visit ended, or been cancelled? (rules 1, 2, 17)
//!
//! **When the clocks cannot tell**, physical presence wins: an arrival whose interval of uncertainty touches the moment of
//! a cancellation or re-assignment counts as before it. A *completion* in such an interval is put before a person,
//! because money hangs on it. **Knowledge beats clocks**: who had the cancellation in the fact's causal history acted
//! after it, whatever the clock said.

use super::{adopt_proposal, end_assignment, epochs_continued};
use crate::domain::plan::{Assignment, AssignmentEnd, Cancellation, CancellationEffect, FormerAssignment};
use crate::domain::{
    Fact, FactKind, Plan, Ruling, RulingReason, TechnicianId, Timestamp, UserId, Verdict, VisitState, VisitStatus,
};

/// What is known when a fact is judged.
#[derive(Debug, Clone)]
pub struct FactContext<'a> {
    /// The plan before this fact's effects.
    pub plan: &'a Plan,
    /// [`fold_ruled`](crate::domain::fold::fold_ruled) before this fact. It changes only with the plan and with facts that
    /// move the status, so it need not be computed again after each part or time entry.
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
    let decision = decide(context);
    let plan = decision.plan.map(|mut plan| {
        plan.revision = context.plan.revision.saturating_add(1);
        plan
    });
    let ruling = Ruling {
        verdict: decision.verdict,
        reason: decision.reason,
        recorded_at: context.now,
        knew_revision: context.knew_revision,
        clock_flagged: context.fact.clock.is_flagged(),
        gap_flagged: context.gap,
    };
    Judgement { ruling, plan }
}

/// True when `technician` may state facts about the visit under `epoch` (rule 14): they were on the assignment of that
/// epoch, present or former.
#[must_use]
pub fn had_right(plan: &Plan, technician: &TechnicianId, epoch: u64) -> bool {
    plan.assignment_at(epoch).is_some_and(|assignment| assignment.includes(technician))
}

/// A verdict, and the plan where it changes.
struct Decision {
    verdict: Verdict,
    reason: RulingReason,
    plan: Option<Plan>,
}

impl Decision {
    fn accepted(reason: RulingReason) -> Self {
        Self { verdict: Verdict::Accepted, reason, plan: None }
    }

    fn stale(reason: RulingReason) -> Self {
        Self { verdict: Verdict::Stale, reason, plan: None }
    }

    fn exception(reason: RulingReason) -> Self {
        Self { verdict: Verdict::Exception, reason, plan: None }
    }

    fn with_plan(self, plan: Plan) -> Self {
        Self { plan: Some(plan), ..self }
    }
}

fn decide(context: &FactContext<'_>) -> Decision {
    let fact = context.fact;
    if let Some(reason) = quarantine(context) {
        return Decision::exception(reason);
    }
    match &fact.kind {
        FactKind::Unknown => Decision::accepted(RulingReason::UnknownKind),
        FactKind::PartUsed { .. } if context.serial_used_before => Decision::exception(RulingReason::SerialUsedTwice),
        FactKind::PartUsed { .. } if context.stock_falls_negative => Decision::accepted(RulingReason::StockNegative),
        FactKind::PartUsed { .. }
        | FactKind::TimeEntry { .. }
        | FactKind::Photo { .. }
        | FactKind::Signature { .. } => Decision::accepted(RulingReason::InOrder),
        FactKind::WindowAcknowledged { window_revision } => acknowledge_window(context, *window_revision),
        FactKind::Accepted { .. }
        | FactKind::Rejected { .. }
        | FactKind::TravelStarted { .. }
        | FactKind::Arrived
        | FactKind::WorkStarted
        | FactKind::Paused { .. }
        | FactKind::Resumed
        | FactKind::Completed
        | FactKind::CannotComplete { .. } => match current_assignment(context.plan, fact) {
            Some(assignment) => judge_current(context, assignment),
            None => judge_former(context),
        },
    }
}

/// The present assignment, when the fact was stated under it or one that it continues, by somebody who is on it.
fn current_assignment<'a>(plan: &'a Plan, fact: &Fact) -> Option<&'a Assignment> {
    plan.assignment.as_ref().filter(|assignment| fact.is_current(plan) && assignment.includes(&fact.technician))
}

/// Why the sender is not believed; the fact is recorded and counts nowhere (rules 9, 14, 18).
fn quarantine(context: &FactContext<'_>) -> Option<RulingReason> {
    let fact = context.fact;
    if context.sequence_reused {
        return Some(RulingReason::SequenceReused);
    }
    // Whoever holds a lost phone holds its whole outbox, also what was made before: all that comes late is suspect.
    if context.device_revoked_at.is_some_and(|at| context.now >= at || fact.occurred_at() >= at) {
        return Some(RulingReason::DeviceRevoked);
    }
    if !had_right(context.plan, &fact.technician, fact.epoch) {
        return Some(RulingReason::NoRightAtEpoch);
    }
    None
}

/// Rule 13: the proposal that the lead has seen comes into force. Too late once somebody is on site: the window that was
/// in force on arrival is the one that counts.
fn acknowledge_window(context: &FactContext<'_>, window_revision: u32) -> Decision {
    let Some(assignment) = current_assignment(context.plan, context.fact) else {
        return Decision::stale(RulingReason::FormerEpoch);
    };
    if assignment.lead != context.fact.technician {
        return Decision::stale(RulingReason::NotLead);
    }
    if context.plan.standing_cancellation().is_some() {
        return Decision::stale(RulingReason::AfterCancellation);
    }
    let matches =
        context.plan.proposed_window.as_ref().is_some_and(|proposal| proposal.window_revision == window_revision);
    if !matches || context.state.status.is_on_site() || context.state.status.is_final() {
        return Decision::stale(RulingReason::OutOfOrder);
    }
    let mut plan = context.plan.clone();
    adopt_proposal(&mut plan);
    Decision::accepted(RulingReason::InOrder).with_plan(plan)
}

/// A fact of the present assignment.
fn judge_current(context: &FactContext<'_>, assignment: &Assignment) -> Decision {
    let (plan, state, fact) = (context.plan, context.state, context.fact);
    let ends = matches!(fact.kind, FactKind::Completed | FactKind::CannotComplete { .. });
    let rejects = matches!(fact.kind, FactKind::Rejected { .. });
    if (ends || rejects) && assignment.lead != fact.technician {
        return Decision::exception(RulingReason::NotLead);
    }
    if matches!(state.status, VisitStatus::Completed | VisitStatus::CannotComplete) {
        // What a crew member's phone brings late, but happened before the end, still counts: nothing is dropped.
        let before_the_end = state.ended.is_some_and(|ended| fact.occurred_at() <= ended.at);
        return if ends || rejects || !before_the_end {
            Decision::stale(RulingReason::AlreadyEnded)
        } else {
            Decision::accepted(RulingReason::InOrder)
        };
    }
    if let Some(cancellation) = plan.standing_cancellation()
        && let Some(decision) = judge_cancelled(context, plan, cancellation)
    {
        return decision;
    }
    if rejects {
        return judge_rejection(context);
    }
    if context.gap && lacks_predecessor(state, &fact.kind) {
        return Decision::stale(RulingReason::OutOfOrder);
    }
    settle_arrival(Decision::accepted(RulingReason::InOrder), plan, &fact.kind)
}

/// Rule 4: a rejection gives the visit back; after arrival there is nothing to give back, and it cannot be completed.
fn judge_rejection(context: &FactContext<'_>) -> Decision {
    if context.state.status.is_on_site() {
        return Decision::accepted(RulingReason::RejectedAfterArrival);
    }
    let mut plan = context.plan.clone();
    end_assignment(&mut plan, context.now, &UserId::from(&context.fact.technician), AssignmentEnd::Rejected);
    adopt_proposal(&mut plan);
    Decision::accepted(RulingReason::InOrder).with_plan(plan)
}

/// Rule 16: true for what makes sense only after something that has not arrived. Everything else implies the steps before.
fn lacks_predecessor(state: &VisitState, kind: &FactKind) -> bool {
    match kind {
        FactKind::Paused { .. } => state.status != VisitStatus::InProgress,
        FactKind::Resumed => state.status != VisitStatus::Paused,
        _ => false,
    }
}

/// Rules 1, 2 and 17: what a fact means under a cancellation that stands. `None`: no more than without one.
///
/// `plan` is the one to change; it differs from the context's when the author has just been given the visit back.
fn judge_cancelled(context: &FactContext<'_>, plan: &Plan, cancellation: &Cancellation) -> Option<Decision> {
    let moment = context.fact.moment();
    let knew = cancellation.revision > 0 && context.knew_revision >= cancellation.revision;
    let with_effect = |reason, effect| {
        let mut plan = plan.clone();
        plan.cancellation = Some(Cancellation { effect, ..cancellation.clone() });
        Some(settle_arrival(Decision::accepted(reason).with_plan(plan.clone()), &plan, &context.fact.kind))
    };
    match (&context.fact.kind, cancellation.effect) {
        (_, CancellationEffect::Void) => None,
        // Rule 17: who had seen the request to stop, and completed in spite of it, is another case than who had not.
        (FactKind::Completed, CancellationEffect::StopWork) if knew => {
            Some(Decision::exception(RulingReason::CompletedDespiteStopWork))
        }
        (FactKind::Completed, _) if !knew && moment.is_surely_before(cancellation.at) => {
            with_effect(RulingReason::CompletedBeforeCancellation, CancellationEffect::Void)
        }
        (FactKind::Completed, _) if knew || moment.is_surely_after(cancellation.at) => {
            Some(Decision::exception(RulingReason::CompletedAfterCancellation))
        }
        (FactKind::Completed, _) => Some(Decision::exception(RulingReason::CompletionTimeUncertain)),
        (_, CancellationEffect::StopWork) => None,
        (FactKind::Arrived | FactKind::WorkStarted, CancellationEffect::Cancelled)
            if !knew && !moment.is_surely_after(cancellation.at) =>
        {
            with_effect(RulingReason::OnSiteBeforeCancellation, CancellationEffect::StopWork)
        }
        (_, CancellationEffect::Cancelled) => Some(Decision::stale(RulingReason::AfterCancellation)),
    }
}

/// On arrival a proposed window that nobody has acknowledged lapses: the technician came by the one in force (rule 13).
fn settle_arrival(decision: Decision, plan: &Plan, kind: &FactKind) -> Decision {
    let on_site = matches!(kind, FactKind::Arrived | FactKind::WorkStarted | FactKind::Completed);
    if !on_site || plan.proposed_window.is_none() {
        return decision;
    }
    let mut plan = plan.clone();
    plan.proposed_window = None;
    decision.with_plan(plan)
}

/// A fact of an assignment that is no more (rules 3, 4).
///
/// An arrival, start of work or completion that happened before the office took the visit away proves that its author had
/// started, and so keeps the visit, unless the present assignee is on site already. What remains: work is put before a
/// person, because it was done and nobody had asked for it; everything else, an arrival after the re-assignment included,
/// is history.
fn judge_former(context: &FactContext<'_>) -> Decision {
    let fact = context.fact;
    let Some(former) = context.plan.former_at(fact.epoch) else {
        return Decision::stale(RulingReason::FormerEpoch);
    };
    let on_site = match fact.kind {
        FactKind::Arrived | FactKind::WorkStarted => true,
        FactKind::Completed => former.assignment.lead == fact.technician,
        _ => false,
    };
    let taken_away = matches!(former.reason, AssignmentEnd::Reassigned | AssignmentEnd::Unassigned);
    let had_started = on_site && taken_away && !fact.moment().is_surely_after(former.ended_at);
    let status = context.state.status;
    let somebody_is_there =
        status.is_on_site() || matches!(status, VisitStatus::Completed | VisitStatus::CannotComplete);
    if had_started && !somebody_is_there {
        return keep_visit(context, former);
    }
    match fact.kind {
        FactKind::WorkStarted | FactKind::Completed => Decision::exception(RulingReason::FormerAssigneeWorked),
        FactKind::Arrived if had_started => Decision::exception(RulingReason::FormerAssigneeWorked),
        _ => Decision::stale(RulingReason::FormerEpoch),
    }
}

/// Rule 3: the former assignment comes back under a new epoch that continues the old one, so that everything stated under
/// it counts again; the present one is withdrawn.
fn keep_visit(context: &FactContext<'_>, former: &FormerAssignment) -> Decision {
    let mut plan = context.plan.clone();
    end_assignment(&mut plan, context.now, &UserId::from(&context.fact.technician), AssignmentEnd::Withdrawn);
    plan.epoch = plan.epoch.saturating_add(1);
    plan.assignment = Some(Assignment {
        epoch: plan.epoch,
        continues: epochs_continued(&former.assignment),
        ..former.assignment.clone()
    });
    if let Some(cancellation) = context.plan.standing_cancellation()
        && let Some(decision) = judge_cancelled(context, &plan, cancellation)
    {
        return match decision.verdict {
            Verdict::Accepted | Verdict::Stale => decision,
            // The office shall decide about a completion of somebody who has the visit.
            Verdict::Exception => decision.with_plan(plan),
        };
    }
    let kept = Decision::accepted(RulingReason::KeepsVisit).with_plan(plan.clone());
    settle_arrival(kept, &plan, &context.fact.kind)
}
