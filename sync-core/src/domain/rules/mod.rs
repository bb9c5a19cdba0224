//! The conflict rules, all in one place: what is decided when facts and plans disagree.
//!
//! Every function here is pure: it takes what is known and answers what shall be. The office's side is [`office`], the
//! technicians' side is [`facts`]; the status that follows from both is [`fold`](crate::domain::fold()).
//!
//! | # | situation | rule | decided by |
//! |---|---|---|---|
//! | 1 | office cancels, phone offline, not started | accepted at once; the phone shows a tombstone card | [`office::cancel`]; *not yet delivered* is the server's, the [`Tombstone`](crate::domain::Tombstone) its feed's |
//! | 2 | a visit is completed that was cancelled | recorded, billing hold; completed before by corrected time: the completion stands, the cancellation is void | [`facts::judge`], [`office::reinstate`], [`office::end_stop_work`] |
//! | 3 | re-assigned from A to B while A is offline | epoch + 1; A's facts are facts, not ownership; A had started: A keeps the visit, B's assignment is withdrawn | [`office::assign`], [`facts::judge`] |
//! | 4 | late accept or reject of an old epoch | recorded, without effect; a reject after arrival becomes cannot-complete | [`facts::judge`] |
//! | 5 | two crew members edit | union of facts, both answers kept; the lead alone takes, refuses and ends the visit | [`facts::judge`], [`FactKind::needs_lead`]; text and checklist merge in [`document`](crate::document) |
//! | 6 | wrong clock | a device's order is its sequence numbers'; times are corrected and carry their uncertainty; over two minutes is flagged | [`in_order`](crate::domain::fold::in_order), [`ClockReading`](crate::domain::ClockReading) |
//! | 7 | a part used twice | a ledger entry with an id; stock may go negative and is flagged; a serial number used twice is an exception | [`facts::judge`], [`fold`](crate::domain::fold()); the stock is the server's |
//! | 8 | photo half-way | content-addressed, in its own queue; completion does not wait | a photo is a fact that needs no predecessor, so completion never waits; its bytes travel apart from the document |
//! | 9 | phone lost | the announced high-water mark shows what is missing; the late outbox is quarantined | [`sequence::SequenceLedger::missing`], [`facts::judge`] |
//! | 10 | logout, other user, new phone | sealed per user; a new install is a new device, the old one's outbox is still accepted | outside: the phone's `store`. Here nothing asks whether a device is a technician's present one |
//! | 11 | app update with unsent work | facts describe themselves, never migrated in place | [`admission::validate_fact`], [`FactKind::Unknown`], [`facts::judge`] |
//! | 12 | arrived offline before the deadline, breach announced | provisional, then retracted or confirmed | [`sla::judge`] |
//! | 13 | window moved while travelling | a proposal until acknowledged; on-time by the window the customer last confirmed | [`office::reschedule`], [`facts::judge`], [`Plan::judged_window`] |
//! | 14 | access lost with unsent work | judged by the rights at the fact's epoch; otherwise quarantined | [`facts::had_right`], [`facts::judge`] |
//! | 15 | poison | parked on both sides, other lanes go on | outside: [`session`](crate::session), the phone's `store`. Here nothing can fail: every function is total |
//! | 16 | predecessor missing | held a bounded time, then applied where no predecessor is needed, and flagged | [`sequence::must_hold`], [`facts::judge`] |
//! | 17 | cancelled after arrival | a stop-work request, which ends in cannot-complete with the labour recorded | [`office::cancel`], [`facts::judge`], [`fold`](crate::domain::fold()) |
//! | 18 | the same event or visit seen twice | idempotent for ever | fact ids are map keys; a reused sequence number is [`RulingReason::SequenceReused`]; event ids and natural keys are the server's store |
//!
//! [`FactKind::needs_lead`]: crate::domain::FactKind::needs_lead
//! [`FactKind::Unknown`]: crate::domain::FactKind::Unknown
//! [`Plan::judged_window`]: crate::domain::Plan::judged_window
//! [`RulingReason::SequenceReused`]: crate::domain::RulingReason::SequenceReused

pub mod admission;
pub mod facts;
pub mod legal;
pub mod office;
pub mod sequence;
pub mod sla;

use super::plan::{Assignment, AssignmentEnd, FORMER_ASSIGNMENTS_MAX, FormerAssignment};
use super::{Plan, Timestamp, UserId};

/// Moves the present assignment, if there is one, into the history, and keeps the history bounded.
fn end_assignment(plan: &mut Plan, at: Timestamp, by: &UserId, reason: AssignmentEnd) {
    if let Some(assignment) = plan.assignment.take() {
        plan.former.push(FormerAssignment { assignment, ended_at: at, ended_by: by.clone(), reason });
        let surplus = plan.former.len().saturating_sub(FORMER_ASSIGNMENTS_MAX);
        plan.former.drain(..surplus);
    }
}

/// The epochs that an assignment continues when it takes up `earlier`: that one's own, and those that it continued.
fn epochs_continued(earlier: &Assignment) -> Vec<u64> {
    let mut epochs = earlier.continues.clone();
    epochs.push(earlier.epoch);
    let surplus = epochs.len().saturating_sub(FORMER_ASSIGNMENTS_MAX);
    epochs.drain(..surplus);
    epochs
}

/// Puts a proposed window into force (rule 13): its traveller has seen it, or there is no traveller any more.
fn adopt_proposal(plan: &mut Plan) {
    if let Some(proposal) = plan.proposed_window.take() {
        plan.arrival_window = Some(proposal.window);
        if proposal.customer_confirmed {
            plan.confirmed_window = Some(proposal.window);
        }
    }
}
