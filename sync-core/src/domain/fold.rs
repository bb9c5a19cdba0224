//! The lifecycle fold: what the office wants and what happened become where the visit stands.
//!
//! A fact counts for the status when
//! - it is not ruled stale or an exception (a disputed completion counts once its cancellation is void),
//! - it was stated under the current epoch, or one that the current assignment continues (rule 3),
//! - its author is on the current assignment, and is the lead where the lead speaks for the visit (rule 5).
//!
//! The lifecycle forgives skipped steps: a technician who forgot to state the arrival can still complete. A status never
//! goes backwards, except between working and paused; the first end counts. Parts and time are ledgers: whatever became
//! of the visit, they were used and worked (rules 7, 17).

use super::plan::{Assignment, CancellationEffect};
use super::ruling::{RulingReason, Verdict};
use super::state::{Moment, PartUse, TimeWorked, VisitException};
use super::{
    DeviceId, Fact, FactId, FactKind, PartNumber, Plan, Ruling, SerialNumber, Timestamp, VisitState, VisitStatus,
    VisitView,
};
use std::collections::{BTreeMap, BTreeSet};

/// Computes a visit's state from its plan, facts and rulings. Total, and the same for any merge order.
///
/// Facts without a ruling count: this is the phone's view, where a technician's own actions show at once.
#[must_use]
pub fn fold(view: &VisitView) -> VisitState {
    fold_counting(view, true)
}

/// [`fold`], in which facts without a ruling do not count yet: the server's view. There such a fact is one of the same
/// push that has still to be judged, or one that is held for its predecessors (rule 16).
#[must_use]
pub fn fold_ruled(view: &VisitView) -> VisitState {
    fold_counting(view, false)
}

/// The facts in the order in which they count (rule 6): a device's own by their sequence number, whatever its clock said;
/// those of several devices by corrected time, which for this purpose never runs backwards on a device. What is still
/// equal is ordered by device, sequence number and id, so that everybody has the same order.
#[must_use]
pub fn in_order(facts: &BTreeMap<FactId, Fact>) -> Vec<(&FactId, &Fact)> {
    let mut ordered: Vec<(Timestamp, &FactId, &Fact)> =
        facts.iter().map(|(id, fact)| (fact.occurred_at(), id, fact)).collect();
    ordered.sort_unstable_by(|(_, id, fact), (_, other_id, other)| {
        (&fact.device, fact.seq, id).cmp(&(&other.device, other.seq, other_id))
    });
    let mut previous: Option<(&DeviceId, Timestamp)> = None;
    for (effective, _, fact) in &mut ordered {
        if let Some((device, at)) = previous
            && *device == fact.device
        {
            *effective = at.max(*effective);
        }
        previous = Some((&fact.device, *effective));
    }
    // Stable: equal times keep the order by device, sequence number and id.
    ordered.sort_by_key(|(effective, _, _)| *effective);
    ordered.into_iter().map(|(_, id, fact)| (id, fact)).collect()
}

fn fold_counting(view: &VisitView, unruled_counts: bool) -> VisitState {
    let plan = &view.plan;
    let ordered: Vec<Ruled<'_>> =
        in_order(&view.facts).into_iter().map(|(id, fact)| Ruled { id, fact, ruling: view.rulings.get(id) }).collect();
    let mut state = VisitState {
        epoch: plan.assignment.as_ref().map_or(plan.epoch, |assignment| assignment.epoch),
        lead: plan.assignment.as_ref().map(|assignment| assignment.lead.clone()),
        ..VisitState::default()
    };
    match &plan.assignment {
        Some(assignment) => replay(&mut state, plan, assignment, &ordered, unruled_counts),
        None => state.reason = last_rejection(plan, &ordered),
    }
    match plan.standing_cancellation().map(|cancellation| cancellation.effect) {
        Some(CancellationEffect::Cancelled) => {
            state.status = VisitStatus::Cancelled;
            state.ended = None;
        }
        Some(CancellationEffect::StopWork) => state.stop_work = !state.status.is_final(),
        Some(CancellationEffect::Void) | None => {}
    }
    state.on_time = match (state.arrived, plan.judged_window()) {
        (Some(arrived), Some(window)) => Some(window.contains(arrived.at)),
        _ => None,
    };
    keep_books(&mut state, plan, &ordered);
    state
}

/// A fact with its ruling, if it has one.
struct Ruled<'a> {
    id: &'a FactId,
    fact: &'a Fact,
    ruling: Option<&'a Ruling>,
}

impl Ruled<'_> {
    fn is_exception(&self, reason: RulingReason) -> bool {
        self.ruling.is_some_and(|ruling| ruling.verdict == Verdict::Exception && ruling.reason == reason)
    }

    fn counts(&self, plan: &Plan, assignment: &Assignment, unruled_counts: bool) -> bool {
        let ruled = match self.ruling {
            None => unruled_counts,
            Some(ruling) => match ruling.verdict {
                Verdict::Accepted => true,
                Verdict::Stale => false,
                Verdict::Exception => is_settled(plan, ruling.reason),
            },
        };
        ruled
            && self.fact.is_current(plan)
            && assignment.includes(&self.fact.technician)
            && (!self.fact.kind.needs_lead() || self.fact.technician == assignment.lead)
    }
}

/// True when the office has let a disputed completion stand by taking the cancellation back.
fn is_settled(plan: &Plan, reason: RulingReason) -> bool {
    reason.is_disputed_completion() && plan.cancellation.is_some() && plan.standing_cancellation().is_none()
}

/// Plays the counting facts over an assigned visit.
fn replay(state: &mut VisitState, plan: &Plan, assignment: &Assignment, ordered: &[Ruled<'_>], unruled_counts: bool) {
    state.status = VisitStatus::Assigned;
    for ruled in ordered.iter().filter(|ruled| ruled.counts(plan, assignment, unruled_counts)) {
        let moment = ruled.fact.moment();
        match &ruled.fact.kind {
            FactKind::Accepted { eta } => {
                note_first(&mut state.accepted, moment);
                state.eta = eta.or(state.eta);
                advance(state, VisitStatus::Confirmed);
            }
            FactKind::TravelStarted { eta } => {
                note_first(&mut state.travel_started, moment);
                state.eta = eta.or(state.eta);
                advance(state, VisitStatus::EnRoute);
            }
            FactKind::Arrived => {
                note_first(&mut state.arrived, moment);
                advance(state, VisitStatus::Arrived);
            }
            FactKind::WorkStarted => {
                note_first(&mut state.work_started, moment);
                work(state, VisitStatus::InProgress);
            }
            FactKind::Resumed => work(state, VisitStatus::InProgress),
            FactKind::Paused { .. } => work(state, VisitStatus::Paused),
            FactKind::Completed => end(state, VisitStatus::Completed, moment, None),
            FactKind::CannotComplete { reason } => end(state, VisitStatus::CannotComplete, moment, Some(reason)),
            FactKind::Rejected { reason } => {
                let after_arrival =
                    ruled.ruling.is_some_and(|ruling| ruling.reason == RulingReason::RejectedAfterArrival);
                if after_arrival || state.status.is_on_site() {
                    end(state, VisitStatus::CannotComplete, moment, Some(reason));
                } else if !state.status.is_final() {
                    // The technician has given the visit back: what follows under this assignment is history.
                    state.status = VisitStatus::Pending;
                    state.reason = Some(reason.clone());
                    return;
                }
            }
            FactKind::TimeEntry { .. }
            | FactKind::PartUsed { .. }
            | FactKind::Photo { .. }
            | FactKind::Signature { .. }
            | FactKind::WindowAcknowledged { .. }
            | FactKind::Unknown => {}
        }
    }
}

/// Never backwards: a crew member who sets out late does not make a visit in progress one under way.
fn advance(state: &mut VisitState, to: VisitStatus) {
    state.status = state.status.max(to);
}

/// Working and paused alternate until the end.
fn work(state: &mut VisitState, to: VisitStatus) {
    if !state.status.is_final() {
        state.status = to;
    }
}

fn end(state: &mut VisitState, to: VisitStatus, moment: Moment, reason: Option<&String>) {
    if !state.status.is_final() {
        state.status = to;
        state.ended = Some(moment);
        state.reason = reason.cloned();
    }
}

fn note_first(slot: &mut Option<Moment>, moment: Moment) {
    slot.get_or_insert(moment);
}

/// Why nobody has the visit, where its last holder rejected it.
fn last_rejection(plan: &Plan, ordered: &[Ruled<'_>]) -> Option<String> {
    let last = &plan.former.last()?.assignment;
    ordered.iter().rev().find_map(|ruled| match &ruled.fact.kind {
        FactKind::Rejected { reason }
            if ruled.fact.epoch == last.epoch
                && ruled.fact.technician == last.lead
                && ruled.ruling.is_some_and(|ruling| ruling.verdict == Verdict::Accepted) =>
        {
            Some(reason.clone())
        }
        _ => None,
    })
}

/// Fills what does not depend on the status: the ledgers, the exceptions, the counts.
fn keep_books(state: &mut VisitState, plan: &Plan, ordered: &[Ruled<'_>]) {
    let doubled = serials_used_twice(ordered);
    for ruled in ordered {
        let Ruled { id, fact, ruling } = *ruled;
        state.pending_facts += u32::from(ruling.is_none());
        state.unknown_facts += u32::from(fact.kind == FactKind::Unknown);
        let serial_doubled = doubled.contains(id);
        let exception = match ruling {
            Some(ruling) if ruling.verdict == Verdict::Exception => Some(ruling.reason),
            _ if serial_doubled => Some(RulingReason::SerialUsedTwice),
            _ => None,
        };
        if let Some(reason) = exception.filter(|reason| !is_settled(plan, *reason)) {
            state.billing_hold |= reason.is_disputed_completion();
            state.exceptions.push(VisitException {
                fact: id.clone(),
                kind: fact.kind.name().to_owned(),
                reason,
                technician: fact.technician.clone(),
                device: fact.device.clone(),
            });
        }
        if ruling.is_some_and(|ruling| ruling.reason.is_quarantine()) {
            continue;
        }
        match &fact.kind {
            FactKind::PartUsed { part, quantity, serial } if !serial_doubled => state.parts.push(PartUse {
                fact: id.clone(),
                part: part.clone(),
                quantity: *quantity,
                serial: serial.clone(),
            }),
            FactKind::TimeEntry { category, minutes } => state.time.push(TimeWorked {
                fact: id.clone(),
                technician: fact.technician.clone(),
                category: category.clone(),
                minutes: *minutes,
            }),
            _ => {}
        }
    }
}

/// The part uses whose serial number another one of this visit has used (rule 7). What the server has accepted comes
/// before what it has not seen; it may also know of a use on another visit.
fn serials_used_twice<'a>(ordered: &[Ruled<'a>]) -> BTreeSet<&'a FactId> {
    let mut used: BTreeSet<(&PartNumber, &SerialNumber)> = BTreeSet::new();
    let mut doubled = BTreeSet::new();
    let (ruled, unruled): (Vec<&Ruled<'a>>, Vec<&Ruled<'a>>) = ordered.iter().partition(|ruled| ruled.ruling.is_some());
    for entry in ruled.into_iter().chain(unruled) {
        let FactKind::PartUsed { part, serial: Some(serial), .. } = &entry.fact.kind else { continue };
        if entry.ruling.is_some_and(|ruling| ruling.reason.is_quarantine()) {
            continue;
        }
        if entry.is_exception(RulingReason::SerialUsedTwice) || !used.insert((part, serial)) {
            doubled.insert(entry.id);
        }
    }
    doubled
}
