//! The plan: what the office wants. One writer (the server), arbitrated, versioned by [`Plan::revision`].

use super::{
    ChecklistItemId, LocationId, PartNumber, ServiceOrderId, SkillCode, TechnicianId, Timestamp, UserId, Window,
};
use super::{RouteId, geo::Coordinates};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What shall happen. The document keeps each top-level field as one register: one writer, so no finer merge is needed.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Plan {
    /// Grows by one with every change of the plan. A fact's causal history names the revision its author had seen.
    pub revision: u64,
    /// The order behind the visit. Always set by the server; optional so that a default plan exists for a total fold.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_order_id: Option<ServiceOrderId>,
    /// Short headline for lists.
    pub title: String,
    /// What to do, for the technician.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub instructions: String,
    /// Urgency.
    pub priority: Priority,
    /// Where.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub site: Option<Site>,
    /// Whom to ask for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub contact: Option<Contact>,
    /// Skills the lead must have.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub required_skills: Vec<SkillRequirement>,
    /// Parts to bring.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub required_parts: Vec<PartRequirement>,
    /// Planned start and end of the work.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scheduled: Option<Window>,
    /// Arrive before this, or the service level is breached.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sla_deadline: Option<Timestamp>,
    /// The arrival window the office works with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub arrival_window: Option<Window>,
    /// The arrival window the customer last confirmed; on-time is judged by it (rule 13).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub confirmed_window: Option<Window>,
    /// Grows by one with every proposed or moved window.
    pub window_revision: u32,
    /// A window moved while the technician was travelling: a proposal until the phone has acknowledged (rule 13).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proposed_window: Option<WindowProposal>,
    /// Who has the visit now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub assignment: Option<Assignment>,
    /// The highest epoch ever given out: the fencing token. Grows with every assignment, also across un-assignments.
    pub epoch: u64,
    /// Who had the visit before, oldest first, at most [`FORMER_ASSIGNMENTS_MAX`] (the oldest are dropped).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub former: Vec<FormerAssignment>,
    /// Set when the office cancelled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cancellation: Option<Cancellation>,
    /// What to tick off.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub checklist: Vec<ChecklistItem>,
    /// The tenant's own fields, shown to the technician.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub attributes: BTreeMap<String, String>,
    /// The route it lies on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub route_id: Option<RouteId>,
}

/// Most former assignments that a plan keeps; more re-assignments than this lose the oldest ones' rights (rule 14).
pub const FORMER_ASSIGNMENTS_MAX: usize = 32;

/// Urgency, lowest first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Priority {
    /// When somebody passes by.
    Low,
    /// The default.
    #[default]
    Normal,
    /// Before normal work.
    High,
    /// Now.
    Emergency,
}

impl Priority {
    /// One step more urgent; [`Self::Emergency`] stays.
    #[must_use]
    pub fn raised(self) -> Self {
        match self {
            Self::Low => Self::Normal,
            Self::Normal => Self::High,
            Self::High | Self::Emergency => Self::Emergency,
        }
    }
}

/// A customer's site.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Site {
    /// Its id.
    pub location_id: LocationId,
    /// As the customer calls it.
    pub name: String,
    /// Postal address, one line.
    pub address: String,
    /// Where it is.
    pub coordinates: Coordinates,
    /// Key box, gate code, parking.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access_notes: Option<String>,
}

/// The person on site.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contact {
    /// Name.
    pub name: String,
    /// Phone number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phone: Option<String>,
}

/// A skill that the lead must have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SkillRequirement {
    /// Which.
    pub code: SkillCode,
    /// At least this level, 1 the lowest.
    #[serde(default = "SkillRequirement::lowest_level")]
    pub level: u8,
}

impl SkillRequirement {
    fn lowest_level() -> u8 {
        1
    }
}

/// A part to bring.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartRequirement {
    /// Which.
    pub part: PartNumber,
    /// How many.
    pub quantity: u32,
}

/// Who has the visit, under which fencing epoch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assignment {
    /// The fencing token: grows with every re-assignment (rule 3).
    pub epoch: u64,
    /// The lead; only the lead completes (rule 5).
    pub lead: TechnicianId,
    /// The others on the visit.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub crew: Vec<TechnicianId>,
    /// Older epochs whose facts still count as current: a technician who had already started keeps the visit (rule 3).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub continues: Vec<u64>,
    /// When the office offered it.
    pub offered_at: Timestamp,
    /// Who offered it.
    pub offered_by: UserId,
}

impl Assignment {
    /// True for the lead and every crew member.
    #[must_use]
    pub fn includes(&self, technician: &TechnicianId) -> bool {
        self.lead == *technician || self.crew.contains(technician)
    }

    /// The lead, then the crew.
    pub fn members(&self) -> impl Iterator<Item = &TechnicianId> {
        std::iter::once(&self.lead).chain(&self.crew)
    }
}

/// An assignment that ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FormerAssignment {
    /// As it was.
    #[serde(flatten)]
    pub assignment: Assignment,
    /// When the office ended it.
    pub ended_at: Timestamp,
    /// Who ended it.
    pub ended_by: UserId,
    /// Why.
    pub reason: AssignmentEnd,
}

/// Why an assignment ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AssignmentEnd {
    /// Given to somebody else.
    Reassigned,
    /// Taken back, nobody has it.
    Unassigned,
    /// The technician rejected it.
    Rejected,
    /// Withdrawn because the former technician had already started (rule 3).
    Withdrawn,
    /// A reason of a newer release.
    #[serde(other)]
    Unknown,
}

/// The office's cancellation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cancellation {
    /// When.
    pub at: Timestamp,
    /// Who.
    pub by: UserId,
    /// Why.
    pub reason: String,
    /// What it means, by what had happened before it.
    pub effect: CancellationEffect,
    /// The [`Plan::revision`] that carried it first: whoever knew that revision knew of the cancellation, whatever the
    /// clocks say. 0 where it is not known.
    #[serde(default)]
    pub revision: u64,
}

/// What a cancellation means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CancellationEffect {
    /// Nobody was on site: the visit is cancelled (rule 1).
    Cancelled,
    /// Somebody was on site: a request to stop, which ends in cannot-complete (rule 17).
    StopWork,
    /// The work had been completed before: the completion stands (rule 2).
    Void,
}

/// A window proposed while the visit is under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WindowProposal {
    /// The proposed arrival window.
    pub window: Window,
    /// Its [`Plan::window_revision`].
    pub window_revision: u32,
    /// When it was proposed.
    pub at: Timestamp,
    /// By whom.
    pub by: UserId,
    /// True when the customer has already confirmed it.
    #[serde(default)]
    pub customer_confirmed: bool,
}

/// One thing to tick off.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChecklistItem {
    /// Its id, unique within the visit.
    pub id: ChecklistItemId,
    /// The question.
    pub label: String,
    /// True when the visit should not be completed without an answer.
    #[serde(default)]
    pub required: bool,
}

impl Plan {
    /// The window that on-time is judged by: what the customer last confirmed, else the office's (rule 13).
    #[must_use]
    pub fn judged_window(&self) -> Option<Window> {
        self.confirmed_window.or(self.arrival_window)
    }

    /// The current or former assignment of that epoch (rule 14: judged by the rights at the time and epoch of the fact).
    #[must_use]
    pub fn assignment_at(&self, epoch: u64) -> Option<&Assignment> {
        self.assignment
            .iter()
            .chain(self.former.iter().rev().map(|former| &former.assignment))
            .find(|assignment| assignment.epoch == epoch)
    }

    /// The former assignment of that epoch.
    #[must_use]
    pub fn former_at(&self, epoch: u64) -> Option<&FormerAssignment> {
        self.former.iter().rev().find(|former| former.assignment.epoch == epoch)
    }

    /// The epoch that a technician's next fact is stated under: the current one on the present assignment, else that of
    /// the latest one they were on, so that work done for a visit that was taken away can still be recorded. `None` when
    /// they never had it.
    #[must_use]
    pub fn epoch_for(&self, technician: &TechnicianId) -> Option<u64> {
        self.assignment
            .iter()
            .chain(self.former.iter().rev().map(|former| &former.assignment))
            .find(|assignment| assignment.includes(technician))
            .map(|assignment| assignment.epoch)
    }

    /// The cancellation, unless it is void.
    #[must_use]
    pub fn standing_cancellation(&self) -> Option<&Cancellation> {
        self.cancellation.as_ref().filter(|cancellation| cancellation.effect != CancellationEffect::Void)
    }
}
