//! What a technician can do next: the phone asks before it records an action, so that a slip of the thumb becomes no fact.
//!
//! This is a courtesy of the app and no rule of the server's: whatever is stated is accepted as a fact and ruled on.

use crate::domain::plan::CancellationEffect;
use crate::domain::{FactKind, Plan, TechnicianId, VisitState, VisitStatus};

/// Why an action makes no sense now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
pub enum IllegalAct {
    /// The technician is not on the present assignment.
    #[error("the visit is not assigned to you")]
    NotAssigned,
    /// Only the lead takes, refuses and ends a visit (rule 5).
    #[error("only the lead of the visit can do this")]
    NotLead,
    /// The office has cancelled the visit (rule 1).
    #[error("the visit is cancelled")]
    Cancelled,
    /// The office asks to stop: the visit can only end as cannot-complete (rule 17).
    #[error("the office asks to stop work; the visit can only be closed as not completed")]
    StopWork,
    /// The visit is completed, or could not be completed.
    #[error("the visit has already ended")]
    AlreadyEnded,
    /// It was done before.
    #[error("this was already done; the visit is {}", .status.name())]
    AlreadyDone {
        /// Where the visit stands.
        status: VisitStatus,
    },
    /// Only work in progress can be paused.
    #[error("the work is not in progress")]
    NotInProgress,
    /// Only paused work can be resumed.
    #[error("the work is not paused")]
    NotPaused,
    /// The office proposes no such window (rule 13).
    #[error("there is no such proposed window")]
    NoProposal,
    /// This release cannot record that kind.
    #[error("this version of the app does not know that action")]
    UnknownKind,
}

/// True to the phone's [`fold`](crate::domain::fold()), may `technician` do this now?
///
/// Skipped steps are allowed, because people forget to press buttons. Time, parts, photos and signatures are allowed at
/// any time to whoever is or was on the visit: paperwork is done after the end, and also for a visit that was taken away
/// (their fact goes under [`Plan::epoch_for`]). In a crew nobody's step is *already done*, for each of them travels and
/// arrives.
///
/// # Errors
/// [`IllegalAct`], for the technician to read.
pub fn legal_next(
    plan: &Plan,
    state: &VisitState,
    technician: &TechnicianId,
    kind: &FactKind,
) -> Result<(), IllegalAct> {
    match kind {
        FactKind::Unknown => return Err(IllegalAct::UnknownKind),
        FactKind::TimeEntry { .. }
        | FactKind::PartUsed { .. }
        | FactKind::Photo { .. }
        | FactKind::Signature { .. } => {
            return plan.epoch_for(technician).map(|_| ()).ok_or(IllegalAct::NotAssigned);
        }
        _ => {}
    }
    let assignment =
        plan.assignment.as_ref().filter(|assignment| assignment.includes(technician)).ok_or(IllegalAct::NotAssigned)?;
    let effect = plan.standing_cancellation().map(|cancellation| cancellation.effect);
    let is_lead = assignment.lead == *technician;
    let already = |reached: VisitStatus| assignment.crew.is_empty() && state.status >= reached;
    if effect == Some(CancellationEffect::Cancelled) {
        return Err(IllegalAct::Cancelled);
    }
    if state.status.is_final() {
        return Err(IllegalAct::AlreadyEnded);
    }
    if state.status == VisitStatus::Pending {
        // Rejected on this phone, and not yet ruled on.
        return Err(IllegalAct::NotAssigned);
    }
    let done = || Err(IllegalAct::AlreadyDone { status: state.status });
    match kind {
        FactKind::Rejected { .. } | FactKind::CannotComplete { .. } if !is_lead => Err(IllegalAct::NotLead),
        FactKind::Completed | FactKind::WindowAcknowledged { .. } if !is_lead => Err(IllegalAct::NotLead),
        FactKind::Completed | FactKind::WorkStarted | FactKind::Resumed
            if effect == Some(CancellationEffect::StopWork) =>
        {
            Err(IllegalAct::StopWork)
        }
        FactKind::Accepted { .. } if already(VisitStatus::Confirmed) => done(),
        FactKind::TravelStarted { .. } if already(VisitStatus::EnRoute) => done(),
        FactKind::Arrived if already(VisitStatus::Arrived) => done(),
        FactKind::WorkStarted if already(VisitStatus::InProgress) => done(),
        FactKind::Paused { .. } if state.status != VisitStatus::InProgress => Err(IllegalAct::NotInProgress),
        FactKind::Resumed if state.status != VisitStatus::Paused => Err(IllegalAct::NotPaused),
        FactKind::WindowAcknowledged { window_revision } => match &plan.proposed_window {
            Some(proposal) if proposal.window_revision == *window_revision => Ok(()),
            _ => Err(IllegalAct::NoProposal),
        },
        _ => Ok(()),
    }
}
