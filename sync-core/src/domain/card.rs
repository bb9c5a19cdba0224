//! What lists show: the projection of one visit, small, and the same on phone and server.

use super::plan::{Contact, Plan, Priority};
use super::state::{VisitState, VisitStatus};
use super::{DispatchId, ServiceOrderId, TechnicianId, Timestamp, Window, geo::Coordinates};
use serde::{Deserialize, Serialize};

/// One visit as a list shows it, computed from plan and state; the phone stores it beside the document so that a list
/// opens no document.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VisitCard {
    /// Which visit.
    pub dispatch_id: DispatchId,
    /// The order behind it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_order_id: Option<ServiceOrderId>,
    /// Headline.
    pub title: String,
    /// Where it stands.
    pub status: VisitStatus,
    /// Urgency.
    pub priority: Priority,
    /// Planned start and end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheduled: Option<Window>,
    /// Arrival window.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arrival_window: Option<Window>,
    /// The site's name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub site_name: String,
    /// The site's address.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub address: String,
    /// Where it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub coordinates: Option<Coordinates>,
    /// Whom to ask for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contact: Option<Contact>,
    /// The lead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lead: Option<TechnicianId>,
    /// The current epoch.
    pub epoch: u64,
    /// The office asks to stop.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stop_work: bool,
    /// A moved window waits for the technician's acknowledgement.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub window_proposed: bool,
}

impl VisitCard {
    /// Projects.
    #[must_use]
    pub fn new(dispatch_id: DispatchId, plan: &Plan, state: &VisitState) -> Self {
        Self {
            dispatch_id,
            service_order_id: plan.service_order_id.clone(),
            title: plan.title.clone(),
            status: state.status,
            priority: plan.priority,
            scheduled: plan.scheduled,
            arrival_window: plan.arrival_window,
            site_name: plan.site.as_ref().map(|site| site.name.clone()).unwrap_or_default(),
            address: plan.site.as_ref().map(|site| site.address.clone()).unwrap_or_default(),
            coordinates: plan.site.as_ref().map(|site| site.coordinates),
            contact: plan.contact.clone(),
            lead: state.lead.clone(),
            epoch: state.epoch,
            stop_work: state.stop_work,
            window_proposed: plan.proposed_window.is_some(),
        }
    }
}

/// "Why is my job gone?": stays on the phone until the technician has seen it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tombstone {
    /// Which visit.
    pub dispatch_id: DispatchId,
    /// Its headline, so that the card explains itself.
    pub title: String,
    /// Why it is gone.
    pub reason: TombstoneReason,
    /// In the office's words, where there are any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// Who took it away.
    pub by: String,
    /// When.
    pub at: Timestamp,
}

/// Why a visit left a phone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum TombstoneReason {
    /// The office cancelled it.
    Cancelled,
    /// Somebody else has it now.
    Reassigned,
    /// Nobody has it now.
    Unassigned,
    /// The former technician had already started and keeps it (rule 3).
    Withdrawn,
    /// It left the time window that the phone holds (partial sync); not shown to the technician.
    OutOfWindow,
    /// A reason of a newer release.
    #[serde(other)]
    Unknown,
}
