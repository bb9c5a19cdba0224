//! The office's commands on a visit (rules 1, 3, 13, 17): each takes the plan and the fold, and answers the new plan.

use crate::domain::state::VisitStatus;
use crate::domain::{Plan, TechnicianId, Timestamp, UserId, VisitState, Window};

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
    #[error("the crew must not name the lead or anybody twice, and has at most 7 members")]
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

/// Assigns or re-assigns: epoch + 1, the former assignment is kept as history (rule 3). Un-started visits only, unless
/// the office insists on a visit under way, which is allowed before arrival.
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
    let _ = (plan, state, command, lead, crew);
    unimplemented!()
}

/// Takes the visit back: nobody has it.
///
/// # Errors
/// [`OfficeError`] when nobody has it, it has ended, or somebody is on site.
pub fn unassign(plan: &Plan, state: &VisitState, command: &Command<'_>) -> Result<Plan, OfficeError> {
    let _ = (plan, state, command);
    unimplemented!()
}

/// Cancels (rule 1), or asks to stop work when somebody is on site (rule 17).
///
/// # Errors
/// [`OfficeError`] when the visit has ended.
pub fn cancel(plan: &Plan, state: &VisitState, command: &Command<'_>, reason: &str) -> Result<Plan, OfficeError> {
    let _ = (plan, state, command, reason);
    unimplemented!()
}

/// What a reschedule changes.
#[derive(Debug, Clone, Default)]
pub struct Reschedule {
    /// New planned start and end.
    pub scheduled: Option<Window>,
    /// New arrival window.
    pub arrival_window: Option<Window>,
    /// The customer has confirmed the new arrival window.
    pub customer_confirmed: bool,
}

/// Moves the visit. While the technician is travelling a moved window is a proposal until the phone has acknowledged
/// (rule 13).
///
/// # Errors
/// [`OfficeError`] when the visit has ended or is on site, or a window is impossible.
pub fn reschedule(
    plan: &Plan,
    state: &VisitState,
    command: &Command<'_>,
    change: &Reschedule,
) -> Result<Plan, OfficeError> {
    let _ = (plan, state, command, change);
    unimplemented!()
}
