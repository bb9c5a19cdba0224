//! Service-level breaches on two clocks (rule 12): provisional while the responsible phone is silent, then confirmed or
//! retracted, with both facts kept.

use crate::domain::Timestamp;
use crate::domain::state::Moment;
use serde::{Deserialize, Serialize};

/// Where a breach stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum BreachStatus {
    /// The deadline passed without an arrival known here, and the phone has unsent work or is silent.
    Provisional,
    /// The phone has reported since the deadline, and there was no arrival in time.
    Confirmed,
    /// An arrival in time came late to the server.
    Retracted,
}

/// What is known of one visit's service level.
#[derive(Debug, Clone, Copy)]
pub struct SlaContext {
    /// Arrive before this.
    pub deadline: Timestamp,
    /// First on-site arrival by corrected time, if known.
    pub arrived: Option<Moment>,
    /// The server's time.
    pub now: Timestamp,
    /// When the responsible phone last reported with nothing left unsent; `None` when it never did or nobody has the visit.
    pub phone_complete_at: Option<Timestamp>,
    /// True when somebody has the visit, so that a silent phone may hold an arrival.
    pub assigned: bool,
    /// Where the breach stood before.
    pub before: Option<BreachStatus>,
}

/// The breach's status now; `None` when there is no breach to speak of.
///
/// An arrival is in time when its corrected time is not after the deadline. Pass what
/// [`VisitState::first_on_site`](crate::domain::VisitState::first_on_site) answers. A confirmed breach becomes no
/// provisional one again when another phone falls silent, but an arrival in time retracts it whenever it comes; a deadline
/// that was moved into the future retracts what was announced under the old one.
#[must_use]
pub fn judge(context: &SlaContext) -> Option<BreachStatus> {
    let announced = context.before.is_some();
    if let Some(arrived) = context.arrived {
        return if arrived.at > context.deadline {
            Some(BreachStatus::Confirmed)
        } else {
            announced.then_some(BreachStatus::Retracted)
        };
    }
    if context.now <= context.deadline {
        return announced.then_some(BreachStatus::Retracted);
    }
    let phone_has_reported = context.phone_complete_at.is_some_and(|at| at > context.deadline);
    if !context.assigned || phone_has_reported || context.before == Some(BreachStatus::Confirmed) {
        Some(BreachStatus::Confirmed)
    } else {
        Some(BreachStatus::Provisional)
    }
}
