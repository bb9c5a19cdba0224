//! What the back office reads: JSON views, made of the projection rows.

use crate::service::fit::Unfit;
use crate::service::model::{ExceptionRow, SlaRow, StoredDispatch};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use sync_core::domain::geo::Coordinates;
use sync_core::domain::plan::{
    AssignmentEnd, CancellationEffect, ChecklistItem, Contact, PartRequirement, Priority, Site, SkillRequirement,
};
use sync_core::domain::{
    DeviceId, DispatchId, LocationId, RouteId, ServiceOrderId, TechnicianId, Timestamp, UserId, VisitStatus, Window,
};

/// One dispatch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DispatchView {
    /// Which.
    pub dispatch_id: DispatchId,
    /// The order behind it.
    pub service_order_id: ServiceOrderId,
    /// Where.
    pub location_id: LocationId,
    /// The `ETag`.
    pub revision: u64,
    /// As the office sees it: `DISPATCHED` once it has reached the phone.
    pub status: VisitStatus,
    /// Headline.
    pub title: String,
    /// What to do.
    pub instructions: String,
    /// Urgency.
    pub priority: Priority,
    /// Skills the lead must have.
    pub required_skills: Vec<SkillRequirement>,
    /// Parts to bring.
    pub required_parts: Vec<PartRequirement>,
    /// Planned start and end.
    pub scheduled: Option<Window>,
    /// The arrival window the office works with.
    pub arrival_window: Option<Window>,
    /// The arrival window the customer last confirmed; on-time is judged by it.
    pub confirmed_window: Option<Window>,
    /// A moved window that waits for the technician's acknowledgement.
    pub proposed_window: Option<Window>,
    /// Arrive before this.
    pub sla_deadline: Option<Timestamp>,
    /// The service-level record, where a breach was ever announced.
    pub sla: Option<SlaRow>,
    /// The site.
    pub site: Option<SiteView>,
    /// Whom to ask for.
    pub contact: Option<Contact>,
    /// What to tick off.
    pub checklist: Vec<ChecklistItem>,
    /// The tenant's own fields.
    pub attributes: BTreeMap<String, String>,
    /// The route it lies on.
    pub route_id: Option<RouteId>,
    /// Who has it.
    pub assignment: Option<AssignmentView>,
    /// Who had it before, oldest first.
    pub former_assignments: Vec<FormerAssignmentView>,
    /// The office's cancellation.
    pub cancellation: Option<CancellationView>,
    /// Last promised arrival.
    pub eta: Option<Timestamp>,
    /// First departure, corrected time.
    pub travel_started_at: Option<Timestamp>,
    /// First arrival, corrected time.
    pub arrived_at: Option<Timestamp>,
    /// First start of work, corrected time.
    pub work_started_at: Option<Timestamp>,
    /// Completion or cannot-complete, corrected time.
    pub ended_at: Option<Timestamp>,
    /// The technician's reason for cannot-complete, or the last rejection.
    pub reason: Option<String>,
    /// Arrived within the window the customer last confirmed.
    pub on_time: Option<bool>,
    /// The office asked to stop.
    pub stop_work: bool,
    /// Not to be billed before a person has decided.
    pub billing_hold: bool,
    /// How many exceptions wait for a person.
    pub open_exceptions: u32,
    /// Technicians whose phones do not know the present state yet.
    pub undelivered_to: Vec<TechnicianId>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
}

/// Where a dispatch is to be done, as it was known when it was planned.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SiteView {
    /// Its id.
    pub location_id: LocationId,
    /// As the customer calls it.
    pub name: String,
    /// Postal address, one line.
    pub address: String,
    /// Where it is.
    pub coordinates: Coordinates,
    /// Key box, gate code, parking.
    pub access_notes: Option<String>,
}

impl SiteView {
    fn new(site: &Site) -> Self {
        Self {
            location_id: site.location_id.clone(),
            name: site.name.clone(),
            address: site.address.clone(),
            coordinates: site.coordinates,
            access_notes: site.access_notes.clone(),
        }
    }
}

/// Who has a dispatch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AssignmentView {
    /// The lead.
    pub technician_id: TechnicianId,
    /// The others.
    pub crew: Vec<TechnicianId>,
    /// The fencing token.
    pub epoch: u64,
    /// When the office offered it.
    pub offered_at: Timestamp,
    /// Who offered it.
    pub offered_by: UserId,
    /// When it reached the lead's phone.
    pub delivered_at: Option<Timestamp>,
    /// When the lead took it, corrected time.
    pub accepted_at: Option<Timestamp>,
}

/// Who had a dispatch before.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FormerAssignmentView {
    /// The lead.
    pub technician_id: TechnicianId,
    /// The fencing token.
    pub epoch: u64,
    /// When it began.
    pub offered_at: Timestamp,
    /// When it ended.
    pub ended_at: Timestamp,
    /// Who ended it.
    pub ended_by: UserId,
    /// Why.
    pub reason: AssignmentEnd,
}

/// A cancellation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CancellationView {
    /// When.
    pub at: Timestamp,
    /// Who.
    pub by: UserId,
    /// Why.
    pub reason: String,
    /// What it means.
    pub effect: CancellationEffect,
    /// False while a phone does not know of it: *cancelled, not yet delivered* (rule 1).
    pub delivered: bool,
}

/// A page of dispatches.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DispatchPage {
    /// The dispatches.
    pub items: Vec<DispatchView>,
    /// Give it back for the next page; `None` on the last.
    pub next: Option<crate::service::model::SearchPosition>,
}

/// A technician who could go, or why not.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CandidateView {
    /// Who.
    pub technician_id: TechnicianId,
    /// Name.
    pub name: String,
    /// Nothing stands against it.
    pub available: bool,
    /// From the visit before, or from home; `None` where neither place is known.
    pub distance_km: Option<f64>,
    /// Estimated drive, milliseconds.
    pub travel_ms: Option<i64>,
    /// What stands against it.
    pub reasons: Vec<Unfit>,
}

/// A phone's health.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeviceView {
    /// Which.
    pub device_id: DeviceId,
    /// Whose.
    pub technician_id: TechnicianId,
    /// App name and version.
    pub app: String,
    /// First heard.
    pub registered_at: Timestamp,
    /// Last heard.
    pub seen_at: Timestamp,
    /// Connected now. With several nodes: to this one, or heard by another within the last minute and a half.
    pub connected: bool,
    /// Behind: it has unsent work, missing actions, or has not taken its feed.
    pub behind: bool,
    /// Since when, as far as known.
    pub behind_since: Option<Timestamp>,
    /// Actions that it announced and that have not arrived (rule 9).
    pub missing_actions: u64,
    /// Unacknowledged changes on the phone.
    pub pending: u32,
    /// When the oldest of them was made.
    pub oldest_pending: Option<Timestamp>,
    /// Feed entries that it has not acknowledged.
    pub feed_behind: u64,
    /// Revoked at.
    pub revoked_at: Option<Timestamp>,
    /// Removed what it held, at.
    pub wiped_at: Option<Timestamp>,
    /// Digest mismatches reported.
    pub digest_mismatches: u64,
}

/// Service levels over a span of time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SlaReport {
    /// Breaches announced in it.
    pub window: Window,
    /// Not yet decided.
    pub provisional: u32,
    /// Confirmed.
    pub confirmed: u32,
    /// Retracted: the arrival was in time and its news came late.
    pub retracted: u32,
    /// Each.
    pub breaches: Vec<SlaRow>,
}

/// An exception, after it was resolved or listed.
pub type ExceptionView = ExceptionRow;

impl DispatchView {
    /// Of a stored dispatch.
    #[must_use]
    pub fn new(stored: &StoredDispatch) -> Self {
        let row = &stored.row;
        let (plan, state) = (&row.plan, &row.state);
        Self {
            dispatch_id: row.dispatch_id.clone(),
            service_order_id: row.service_order_id.clone(),
            location_id: row.location_id.clone(),
            revision: row.revision,
            status: state.office_status(stored.delivered_epoch),
            title: plan.title.clone(),
            instructions: plan.instructions.clone(),
            priority: plan.priority,
            required_skills: plan.required_skills.clone(),
            required_parts: plan.required_parts.clone(),
            scheduled: plan.scheduled,
            arrival_window: plan.arrival_window,
            confirmed_window: plan.confirmed_window,
            proposed_window: plan.proposed_window.as_ref().map(|proposal| proposal.window),
            sla_deadline: plan.sla_deadline,
            sla: stored.sla.clone(),
            site: plan.site.as_ref().map(SiteView::new),
            contact: plan.contact.clone(),
            checklist: plan.checklist.clone(),
            attributes: plan.attributes.clone(),
            route_id: plan.route_id.clone(),
            assignment: plan.assignment.as_ref().map(|assignment| AssignmentView {
                technician_id: assignment.lead.clone(),
                crew: assignment.crew.clone(),
                epoch: assignment.epoch,
                offered_at: assignment.offered_at,
                offered_by: assignment.offered_by.clone(),
                delivered_at: stored.delivered_at.filter(|_| stored.delivered_epoch == Some(assignment.epoch)),
                accepted_at: state.accepted.map(|moment| moment.at),
            }),
            former_assignments: plan
                .former
                .iter()
                .map(|former| FormerAssignmentView {
                    technician_id: former.assignment.lead.clone(),
                    epoch: former.assignment.epoch,
                    offered_at: former.assignment.offered_at,
                    ended_at: former.ended_at,
                    ended_by: former.ended_by.clone(),
                    reason: former.reason,
                })
                .collect(),
            cancellation: plan.cancellation.as_ref().map(|cancellation| CancellationView {
                at: cancellation.at,
                by: cancellation.by.clone(),
                reason: cancellation.reason.clone(),
                effect: cancellation.effect,
                delivered: stored.undelivered_to.is_empty(),
            }),
            eta: state.eta,
            travel_started_at: state.travel_started.map(|moment| moment.at),
            arrived_at: state.arrived.map(|moment| moment.at),
            work_started_at: state.work_started.map(|moment| moment.at),
            ended_at: state.ended.map(|moment| moment.at),
            reason: state.reason.clone(),
            on_time: state.on_time,
            stop_work: state.stop_work,
            billing_hold: state.billing_hold,
            open_exceptions: stored.open_exceptions,
            undelivered_to: stored.undelivered_to.clone(),
            created_at: row.created_at,
            updated_at: row.updated_at,
        }
    }
}
