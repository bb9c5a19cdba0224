//! Who holds a visit on their phones, and why others no longer do.

use sync_core::domain::plan::{AssignmentEnd, CancellationEffect};
use sync_core::domain::{
    DispatchId, Plan, TechnicianId, Timestamp, Tombstone, TombstoneReason, VisitState, VisitStatus,
};

/// Who should hold the visit: everybody on the assignment, unless it is cancelled or has left the window that phones
/// hold (it ended, or was scheduled to end, before `oldest`).
pub(crate) fn holders<'a>(plan: &'a Plan, state: &VisitState, oldest: Timestamp) -> Vec<&'a TechnicianId> {
    if is_cancelled(plan) || is_outside(plan, state, oldest) {
        return Vec::new();
    }
    plan.assignment.iter().flat_map(|assignment| assignment.members()).collect()
}

/// True when a visit is cancelled outright: no stop-work request, not void.
pub(crate) fn is_cancelled(plan: &Plan) -> bool {
    plan.cancellation.as_ref().is_some_and(|cancellation| cancellation.effect == CancellationEffect::Cancelled)
}

fn is_outside(plan: &Plan, state: &VisitState, oldest: Timestamp) -> bool {
    let ended = state.ended.map(|moment| moment.at);
    let scheduled = plan.scheduled.map(|window| window.end);
    ended.into_iter().chain(scheduled).min().is_some_and(|end| end < oldest)
}

/// True when the visit keeps its technicians' time: assigned, not cancelled, not ended.
pub(crate) fn keeps_busy(plan: &Plan, state: &VisitState) -> bool {
    plan.assignment.is_some()
        && !is_cancelled(plan)
        && !matches!(state.status, VisitStatus::Completed | VisitStatus::CannotComplete | VisitStatus::Cancelled)
}

/// The card that stays on the phone of somebody who lost the visit, so that it explains itself.
pub(crate) fn tombstone(dispatch: &DispatchId, plan: &Plan, technician: &TechnicianId, now: Timestamp) -> Tombstone {
    let card = |reason, note, by: &str, at| Tombstone {
        dispatch_id: dispatch.clone(),
        title: plan.title.clone(),
        reason,
        note,
        by: by.to_owned(),
        at,
    };
    let on_it = plan.assignment.as_ref().is_some_and(|assignment| assignment.includes(technician));
    if let Some(cancellation) = plan.cancellation.as_ref().filter(|_| on_it && is_cancelled(plan)) {
        let note = Some(cancellation.reason.clone()).filter(|reason| !reason.is_empty());
        return card(TombstoneReason::Cancelled, note, cancellation.by.as_str(), cancellation.at);
    }
    if on_it {
        return card(TombstoneReason::OutOfWindow, None, "system", now);
    }
    match plan.former.iter().rev().find(|former| former.assignment.includes(technician)) {
        Some(former) => {
            let reason = match former.reason {
                AssignmentEnd::Reassigned => TombstoneReason::Reassigned,
                AssignmentEnd::Unassigned | AssignmentEnd::Rejected | AssignmentEnd::Unknown => {
                    TombstoneReason::Unassigned
                }
                AssignmentEnd::Withdrawn => TombstoneReason::Withdrawn,
            };
            card(reason, None, former.ended_by.as_str(), former.ended_at)
        }
        None => card(TombstoneReason::Unassigned, None, "system", now),
    }
}
