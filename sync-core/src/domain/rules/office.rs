//! The office's commands on a visit (rules 1, 2, 3, 13, 17): each takes the plan and the fold, and answers the new plan,
//! its revision increased by one.
//!
//! The fold is the server's, [`fold_ruled`](crate::domain::fold::fold_ruled).

use super::{adopt_proposal, end_assignment, epochs_continued};
use crate::domain::plan::{Assignment, AssignmentEnd, Cancellation, CancellationEffect, Priority, WindowProposal};
use crate::domain::state::VisitStatus;
use crate::domain::{Plan, TechnicianId, Timestamp, UserId, VisitState, Window};

/// Most crew members beside the lead.
pub const CREW_MAX: usize = 7;
/// Longest planned or arrival window, milliseconds.
pub const WINDOW_MILLIS_MAX: i64 = 24 * 60 * 60 * 1000;

/// Why a command is not possible.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OfficeError {
    /// The visit's status does not allow it.
    #[error("a visit that is {} cannot be {command}", .status.name())]
    IllegalTransition {
        /// Where the visit stands.
        status: VisitStatus,
        /// The past participle of what was asked: `assigned`, `cancelled`, ….
        command: &'static str,
    },
    /// The window ends before it starts, or is longer than a day.
    #[error("a window must end after it starts and within a day")]
    Window,
    /// The lead is named among the crew, or a member twice, or there are too many.
    #[error("the crew must not name the lead or anybody twice, and has at most {CREW_MAX} members")]
    Crew,
}

/// Who commands, when.
#[derive(Debug, Clone)]
pub struct Command<'a> {
    /// Who.
    pub by: &'a UserId,
    /// The server's time.
    pub now: Timestamp,
}

/// Assigns or re-assigns: epoch + 1, the former assignment is kept as history (rule 3). Allowed until somebody is on site,
/// also while the technician travels.
///
/// When the lead stays and only the crew changes, the new epoch continues the old one: the lead's acceptance and travel
/// still count. A window proposed to a traveller who no longer travels comes into force (rule 13).
///
/// # Errors
/// [`OfficeError`] when the visit has ended, is on site, or the crew is not possible.
pub fn assign(
    plan: &Plan,
    state: &VisitState,
    command: &Command<'_>,
    lead: &TechnicianId,
    crew: &[TechnicianId],
) -> Result<Plan, OfficeError> {
    movable(plan, state, "assigned")?;
    let twice = crew.iter().enumerate().any(|(index, member)| member == lead || crew[..index].contains(member));
    if twice || crew.len() > CREW_MAX {
        return Err(OfficeError::Crew);
    }
    let mut plan = revised(plan);
    let continues = match &plan.assignment {
        Some(present) if present.lead == *lead => epochs_continued(present),
        _ => {
            adopt_proposal(&mut plan);
            Vec::new()
        }
    };
    end_assignment(&mut plan, command.now, command.by, AssignmentEnd::Reassigned);
    plan.epoch = plan.epoch.saturating_add(1);
    plan.assignment = Some(Assignment {
        epoch: plan.epoch,
        lead: lead.clone(),
        crew: crew.to_vec(),
        continues,
        offered_at: command.now,
        offered_by: command.by.clone(),
    });
    Ok(plan)
}

/// Takes the visit back: nobody has it.
///
/// # Errors
/// [`OfficeError`] when nobody has it, it has ended, or somebody is on site.
pub fn unassign(plan: &Plan, state: &VisitState, command: &Command<'_>) -> Result<Plan, OfficeError> {
    movable(plan, state, "unassigned")?;
    if plan.assignment.is_none() {
        return Err(illegal(state, "unassigned"));
    }
    let mut plan = revised(plan);
    adopt_proposal(&mut plan);
    end_assignment(&mut plan, command.now, command.by, AssignmentEnd::Unassigned);
    Ok(plan)
}

/// Cancels (rule 1), or asks to stop work when somebody is on site (rule 17). The assignment stays in the plan, so that
/// what its technician did before knowing can be judged.
///
/// # Errors
/// [`OfficeError`] when the visit has ended or is cancelled already.
pub fn cancel(plan: &Plan, state: &VisitState, command: &Command<'_>, reason: &str) -> Result<Plan, OfficeError> {
    if state.status.is_final() || plan.standing_cancellation().is_some() {
        return Err(illegal(state, "cancelled"));
    }
    let mut plan = revised(plan);
    plan.cancellation = Some(Cancellation {
        at: command.now,
        by: command.by.clone(),
        reason: reason.to_owned(),
        effect: if state.status.is_on_site() { CancellationEffect::StopWork } else { CancellationEffect::Cancelled },
        revision: plan.revision,
    });
    Ok(plan)
}

/// Takes a cancellation or stop-work request back: the visit goes on as if it had never been cancelled, and a completion
/// that was in dispute because of it stands (rule 2).
///
/// # Errors
/// [`OfficeError`] when no cancellation stands, or the visit has ended otherwise.
pub fn reinstate(plan: &Plan, state: &VisitState, _command: &Command<'_>) -> Result<Plan, OfficeError> {
    settle_cancellation(plan, state, CancellationEffect::Void, "reinstated")
}

/// Ends a stop-work request that its technician does not answer, as after a disputed completion: the visit is cancelled,
/// its labour stays recorded (rules 2, 17).
///
/// # Errors
/// [`OfficeError`] when no stop-work request stands, or the visit has ended.
pub fn end_stop_work(plan: &Plan, state: &VisitState, _command: &Command<'_>) -> Result<Plan, OfficeError> {
    if !state.stop_work {
        return Err(illegal(state, "closed"));
    }
    settle_cancellation(plan, state, CancellationEffect::Cancelled, "closed")
}

/// Sets the urgency.
///
/// # Errors
/// [`OfficeError`] when the visit has ended.
pub fn set_priority(
    plan: &Plan,
    state: &VisitState,
    _command: &Command<'_>,
    priority: Priority,
) -> Result<Plan, OfficeError> {
    if state.status.is_final() {
        return Err(illegal(state, "given another priority"));
    }
    Ok(Plan { priority, ..revised(plan) })
}

/// Raises the urgency by one step, as when Service Orders reports a breached service level.
///
/// # Errors
/// [`OfficeError`] when the visit has ended.
pub fn escalate(plan: &Plan, state: &VisitState, command: &Command<'_>) -> Result<Plan, OfficeError> {
    set_priority(plan, state, command, plan.priority.raised())
}

/// What a reschedule changes.
#[derive(Debug, Clone, Default)]
pub struct Reschedule {
    /// New planned start and end.
    pub scheduled: Option<Window>,
    /// New arrival window.
    pub arrival_window: Option<Window>,
    /// The customer has confirmed the new arrival window; without a new one, that the present or proposed one is confirmed.
    pub customer_confirmed: bool,
}

/// Moves the visit. While the technician is travelling a moved arrival window is a proposal until the phone has
/// acknowledged (rule 13); a later proposal replaces an earlier one.
///
/// The planned start and end change at once in any case: they are the office's calendar, nobody was promised them, and no
/// arrival is judged by them.
///
/// # Errors
/// [`OfficeError`] when the visit has ended or is on site, or a window is impossible.
pub fn reschedule(
    plan: &Plan,
    state: &VisitState,
    command: &Command<'_>,
    change: &Reschedule,
) -> Result<Plan, OfficeError> {
    movable(plan, state, "rescheduled")?;
    for window in change.scheduled.iter().chain(&change.arrival_window) {
        if !(1..=WINDOW_MILLIS_MAX).contains(&window.end.millis_since(window.start)) {
            return Err(OfficeError::Window);
        }
    }
    let mut plan = revised(plan);
    plan.scheduled = change.scheduled.or(plan.scheduled);
    match change.arrival_window {
        Some(window) => {
            plan.window_revision = plan.window_revision.saturating_add(1);
            plan.proposed_window = Some(WindowProposal {
                window,
                window_revision: plan.window_revision,
                at: command.now,
                by: command.by.clone(),
                customer_confirmed: change.customer_confirmed,
            });
            if state.status != VisitStatus::EnRoute {
                adopt_proposal(&mut plan);
            }
        }
        None if change.customer_confirmed => match &mut plan.proposed_window {
            Some(proposal) => proposal.customer_confirmed = true,
            None => plan.confirmed_window = plan.arrival_window,
        },
        None => {}
    }
    Ok(plan)
}

/// The plan to change, one revision on.
fn revised(plan: &Plan) -> Plan {
    Plan { revision: plan.revision.saturating_add(1), ..plan.clone() }
}

fn illegal(state: &VisitState, command: &'static str) -> OfficeError {
    OfficeError::IllegalTransition { status: state.status, command }
}

/// Who has a visit, and when it is, can be changed until somebody is on site or it has ended.
fn movable(plan: &Plan, state: &VisitState, command: &'static str) -> Result<(), OfficeError> {
    if state.status.is_final() || state.status.is_on_site() || plan.standing_cancellation().is_some() {
        return Err(illegal(state, command));
    }
    Ok(())
}

/// Gives a standing cancellation another effect.
fn settle_cancellation(
    plan: &Plan,
    state: &VisitState,
    effect: CancellationEffect,
    command: &'static str,
) -> Result<Plan, OfficeError> {
    let ended_otherwise = state.status.is_final() && state.status != VisitStatus::Cancelled;
    match plan.standing_cancellation() {
        Some(cancellation) if !ended_otherwise => {
            let mut plan = revised(plan);
            plan.cancellation = Some(Cancellation { effect, ..cancellation.clone() });
            Ok(plan)
        }
        _ => Err(illegal(state, command)),
    }
}
