//! The state of a visit, computed by [`super::fold()`] and never stored as a mergeable value.

use super::ruling::RulingReason;
use super::{DeviceId, FactId, PartNumber, SerialNumber, TechnicianId, Timestamp};
use serde::{Deserialize, Serialize};

/// A dispatch's status, in lifecycle order.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum VisitStatus {
    /// Nobody has it.
    #[default]
    Pending,
    /// A technician has it, the phone not yet.
    Assigned,
    /// Delivered to the phone. Known to the server only: the fold never answers it, see [`VisitState::office_status`].
    Dispatched,
    /// The technician takes it.
    Confirmed,
    /// On the way.
    EnRoute,
    /// On site.
    Arrived,
    /// Working.
    InProgress,
    /// Work interrupted.
    Paused,
    /// Done.
    Completed,
    /// Could not be done.
    CannotComplete,
    /// Cancelled before anybody was on site.
    Cancelled,
}

impl VisitStatus {
    /// The stable name, as in REST and events.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Pending => "PENDING",
            Self::Assigned => "ASSIGNED",
            Self::Dispatched => "DISPATCHED",
            Self::Confirmed => "CONFIRMED",
            Self::EnRoute => "EN_ROUTE",
            Self::Arrived => "ARRIVED",
            Self::InProgress => "IN_PROGRESS",
            Self::Paused => "PAUSED",
            Self::Completed => "COMPLETED",
            Self::CannotComplete => "CANNOT_COMPLETE",
            Self::Cancelled => "CANCELLED",
        }
    }

    /// Every status, in order.
    pub const ALL: [Self; 11] = [
        Self::Pending,
        Self::Assigned,
        Self::Dispatched,
        Self::Confirmed,
        Self::EnRoute,
        Self::Arrived,
        Self::InProgress,
        Self::Paused,
        Self::Completed,
        Self::CannotComplete,
        Self::Cancelled,
    ];

    /// True when nothing more is expected to happen.
    #[must_use]
    pub fn is_final(self) -> bool {
        matches!(self, Self::Completed | Self::CannotComplete | Self::Cancelled)
    }

    /// True from arrival until the end: somebody is at the customer's.
    #[must_use]
    pub fn is_on_site(self) -> bool {
        matches!(self, Self::Arrived | Self::InProgress | Self::Paused)
    }
}

/// A corrected point in time with its uncertainty (rule 6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moment {
    /// Corrected time.
    pub at: Timestamp,
    /// Half-width of the interval around it, milliseconds.
    pub uncertainty_ms: i64,
}

impl Moment {
    /// True when it lies before `other` however far off the clock was.
    #[must_use]
    pub fn is_surely_before(&self, other: Timestamp) -> bool {
        self.at.plus_millis(self.uncertainty_ms) < other
    }

    /// True when it lies after `other` however far off the clock was.
    #[must_use]
    pub fn is_surely_after(&self, other: Timestamp) -> bool {
        self.at.plus_millis(self.uncertainty_ms.saturating_neg()) > other
    }
}

/// What the fold answers.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct VisitState {
    /// Where the visit stands.
    pub status: VisitStatus,
    /// The current epoch; 0 when never assigned.
    pub epoch: u64,
    /// The current lead.
    pub lead: Option<TechnicianId>,
    /// Last promised arrival.
    pub eta: Option<Timestamp>,
    /// First acceptance under the current assignment.
    pub accepted: Option<Moment>,
    /// First departure.
    pub travel_started: Option<Moment>,
    /// First on-site arrival.
    pub arrived: Option<Moment>,
    /// First start of work.
    pub work_started: Option<Moment>,
    /// Completion or cannot-complete.
    pub ended: Option<Moment>,
    /// The technician's reason for cannot-complete, or the last rejection.
    pub reason: Option<String>,
    /// The office asks to stop (rule 17).
    pub stop_work: bool,
    /// Not to be billed before a person has decided (rules 2, 17).
    pub billing_hold: bool,
    /// Arrived within the window the customer last confirmed; `None` before arrival or without a window (rule 13).
    pub on_time: Option<bool>,
    /// Facts without a ruling.
    pub pending_facts: u32,
    /// Facts of a kind this release does not know.
    pub unknown_facts: u32,
    /// What a person in the office must decide.
    pub exceptions: Vec<VisitException>,
    /// Parts ledger, one entry a fact (rule 7).
    pub parts: Vec<PartUse>,
    /// Labour and travel worked, one entry a fact; kept whatever became of the visit (rule 17).
    pub time: Vec<TimeWorked>,
}

/// A fact ruled an exception.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VisitException {
    /// The fact.
    pub fact: FactId,
    /// Its kind.
    pub kind: String,
    /// Why.
    pub reason: RulingReason,
    /// Who stated it.
    pub technician: TechnicianId,
    /// From which device.
    pub device: DeviceId,
}

/// One line of the parts ledger.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartUse {
    /// The ledger entry's id.
    pub fact: FactId,
    /// Which part.
    pub part: PartNumber,
    /// How many.
    pub quantity: u32,
    /// For serialised parts.
    pub serial: Option<SerialNumber>,
}

/// One line of time worked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimeWorked {
    /// The fact.
    pub fact: FactId,
    /// Who worked.
    pub technician: TechnicianId,
    /// `labour`, `travel`, ….
    pub category: String,
    /// How long.
    pub minutes: u32,
}

impl VisitState {
    /// The status the office sees: an assigned visit that has reached the phone is dispatched. Delivery is a property
    /// of a device, not of the document, so the fold does not know it.
    #[must_use]
    pub fn office_status(&self, delivered_epoch: Option<u64>) -> VisitStatus {
        if self.status == VisitStatus::Assigned && delivered_epoch == Some(self.epoch) {
            VisitStatus::Dispatched
        } else {
            self.status
        }
    }

    /// The first proof that somebody was on site: the arrival, or what cannot be done without one where the technician
    /// forgot to state it. The service level is judged by it (rule 12).
    #[must_use]
    pub fn first_on_site(&self) -> Option<Moment> {
        let completed = self.ended.filter(|_| self.status == VisitStatus::Completed);
        [self.arrived, self.work_started, completed].into_iter().flatten().min_by_key(|moment| moment.at)
    }
}
