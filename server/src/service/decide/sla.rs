//! The service-level record that goes with a change of a visit (rule 12).

use crate::service::model::SlaRow;
use sync_core::domain::rules::sla::{BreachStatus, SlaContext, judge};
use sync_core::domain::{DispatchId, Plan, Timestamp, VisitState, VisitStatus};

/// The record afterwards, where it changes.
pub(crate) fn record(
    dispatch: &DispatchId,
    plan: &Plan,
    state: &VisitState,
    before: Option<&SlaRow>,
    phone_complete_at: Option<Timestamp>,
    now: Timestamp,
) -> Option<SlaRow> {
    let deadline = plan.sla_deadline?;
    let arrived = state.first_on_site();
    let status = match (ended_without_arrival(plan, state), arrived) {
        // Whether it would have been in time is decided when it ended: nobody will arrive any more.
        (Some(ended), None) if ended <= deadline => before.map(|_| BreachStatus::Retracted)?,
        (Some(_), None) => BreachStatus::Confirmed,
        _ => judge(&SlaContext {
            deadline,
            arrived,
            now,
            phone_complete_at,
            assigned: plan.assignment.is_some(),
            before: before.map(|row| row.status),
        })?,
    };
    let row = SlaRow {
        dispatch_id: dispatch.clone(),
        deadline,
        status,
        announced_at: before.map_or(now, |row| row.announced_at),
        decided_at: match before {
            Some(row) if row.status == status => row.decided_at,
            _ => (status != BreachStatus::Provisional).then_some(now),
        },
        arrived_at: arrived.map(|moment| moment.at),
    };
    (before != Some(&row)).then_some(row)
}

/// When the visit ended, where it did without anybody having been there.
fn ended_without_arrival(plan: &Plan, state: &VisitState) -> Option<Timestamp> {
    match state.status {
        VisitStatus::Cancelled => plan.cancellation.as_ref().map(|cancellation| cancellation.at),
        VisitStatus::CannotComplete => state.ended.map(|moment| moment.at),
        _ => None,
    }
}
