//! The office's commands on dispatches.

use crate::service::decide::Draft;
use crate::service::decide::facts::{Books, Stated, judge_all};
use crate::service::decide::fit::Candidate;
use crate::service::decide::office as decide;
use crate::service::model::Location;
use crate::service::shell::{own_technician, theirs};
use crate::service::view::DispatchView;
use crate::service::{Action, Caller, Outcome, Request, Service, ServiceError};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::collections::BTreeMap;
use sync_core::document::{ActorKey, Edit};
use sync_core::domain::fact::{FACT_SCHEMA, FACT_TEXT_BYTES_MAX};
use sync_core::domain::plan::{ChecklistItem, Contact, PartRequirement, Priority, SkillRequirement};
use sync_core::domain::rules::sequence::SequenceLedger;
use sync_core::domain::{
    BootId, ClockReading, DeviceId, DispatchId, Fact, FactKind, LocationId, ServiceOrderId, TechnicianId, Timestamp,
    Verdict, Window,
};

/// A request for a visit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NewRequest {
    /// The order behind it; the natural key: one dispatch an order, for ever.
    pub service_order_id: ServiceOrderId,
    /// Where; must be known.
    pub location_id: LocationId,
    /// Skills the lead must have: `"HVAC"`, or `{"code":"HVAC","level":2}`.
    #[serde(default, deserialize_with = "crate::service::office::skills")]
    pub required_skills: Vec<SkillRequirement>,
    /// Headline; made of order and site where empty.
    #[serde(default)]
    pub title: String,
    /// What to do.
    #[serde(default)]
    pub instructions: String,
    /// Urgency.
    #[serde(default)]
    pub priority: Priority,
    /// Planned start and end.
    #[serde(default)]
    pub scheduled: Option<Window>,
    /// Arrival window.
    #[serde(default)]
    pub arrival_window: Option<Window>,
    /// The customer has confirmed the arrival window.
    #[serde(default)]
    pub customer_confirmed: bool,
    /// Arrive before this.
    #[serde(default)]
    pub sla_deadline: Option<Timestamp>,
    /// Parts to bring.
    #[serde(default)]
    pub required_parts: Vec<PartRequirement>,
    /// What to tick off.
    #[serde(default)]
    pub checklist: Vec<ChecklistItem>,
    /// Whom to ask for.
    #[serde(default)]
    pub contact: Option<Contact>,
    /// The tenant's own fields.
    #[serde(default)]
    pub attributes: BTreeMap<String, String>,
}

/// A skill by its code alone, or with a level.
#[derive(Deserialize)]
#[serde(untagged)]
enum SkillForm {
    Code(sync_core::domain::SkillCode),
    Full(SkillRequirement),
}

/// Reads skills in either form.
pub(crate) fn skills<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<SkillRequirement>, D::Error> {
    let forms = Vec::<SkillForm>::deserialize(deserializer)?;
    Ok(forms
        .into_iter()
        .map(|form| match form {
            SkillForm::Code(code) => SkillRequirement { code, level: 1 },
            SkillForm::Full(requirement) => requirement,
        })
        .collect())
}

/// Whom to send.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AssignInput {
    /// The lead.
    pub technician_id: TechnicianId,
    /// The others.
    #[serde(default)]
    pub crew: Vec<TechnicianId>,
}

/// When to go instead.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RescheduleInput {
    /// New planned start and end.
    #[serde(default)]
    pub scheduled: Option<Window>,
    /// New arrival window.
    #[serde(default)]
    pub arrival_window: Option<Window>,
    /// The customer has confirmed the new arrival window.
    #[serde(default)]
    pub customer_confirmed: bool,
}

impl Service {
    /// Creates a dispatch request. Roles: dispatcher, integration, admin.
    ///
    /// # Errors
    /// [`ServiceError::LocationNotFound`], [`ServiceError::ServiceOrderExists`], [`ServiceError::ValidationFailed`].
    pub async fn create_request(
        &self,
        request: Request<'_>,
        input: NewRequest,
    ) -> Result<Outcome<DispatchView>, ServiceError> {
        let caller = request.caller;
        caller.may(Action::CreateRequest)?;
        if let Some(outcome) = self.replay(&request).await? {
            return Ok(outcome);
        }
        let (store, order) = (self.store(), input.service_order_id.clone());
        if let Some(dispatch) = store.by_service_order(&caller.tenant, &order).await? {
            return Err(ServiceError::ServiceOrderExists { order, dispatch });
        }
        let location = store.location(&caller.tenant, &input.location_id).await?;
        let location = location.ok_or_else(|| ServiceError::LocationNotFound(input.location_id.clone()))?;
        let draft = self.draft_request(caller, input, location).await?;
        match self.settle(&request, draft.finish()).await? {
            Some(outcome) => Ok(outcome),
            // Ids are never given out twice, so it is the natural key that somebody else was faster with.
            None => Err(self.order_exists(caller, order).await?),
        }
    }

    /// Assigns or re-assigns. Roles: dispatcher, admin.
    ///
    /// # Errors
    /// [`ServiceError::TechnicianNotAvailable`] with everything that stands against it,
    /// [`ServiceError::AssignmentConflict`], [`ServiceError::IllegalTransition`], ….
    pub async fn assign(
        &self,
        request: Request<'_>,
        dispatch: &DispatchId,
        input: AssignInput,
    ) -> Result<Outcome<DispatchView>, ServiceError> {
        self.change(
            request,
            Action::Assign,
            dispatch,
            |draft| {
                let members = std::iter::once(&input.technician_id).chain(&input.crew).cloned().collect();
                Some((members, draft.plan().scheduled))
            },
            |draft, candidates| decide::assign(draft, &request.caller.user, &input, candidates),
        )
        .await
    }

    /// Takes the visit back: nobody has it. Roles: dispatcher, admin.
    ///
    /// # Errors
    /// [`ServiceError::IllegalTransition`], ….
    pub async fn unassign(
        &self,
        request: Request<'_>,
        dispatch: &DispatchId,
    ) -> Result<Outcome<DispatchView>, ServiceError> {
        self.change(
            request,
            Action::Unassign,
            dispatch,
            |_| None,
            |draft, _| decide::unassign(draft, &request.caller.user),
        )
        .await
    }

    /// The technician takes it, through REST: a fact, judged like a phone's. Role: technician, own visits.
    ///
    /// # Errors
    /// [`ServiceError::IllegalTransition`] when it is not theirs to take any more, ….
    pub async fn confirm(
        &self,
        request: Request<'_>,
        dispatch: &DispatchId,
        eta: Option<Timestamp>,
    ) -> Result<Outcome<DispatchView>, ServiceError> {
        self.state_fact(request, Action::Confirm, "confirmed", dispatch, FactKind::Accepted { eta }).await
    }

    /// The technician refuses it, through REST: a fact, judged like a phone's. Role: technician, own visits.
    ///
    /// # Errors
    /// [`ServiceError::IllegalTransition`] when it is not theirs to refuse any more, ….
    pub async fn reject(
        &self,
        request: Request<'_>,
        dispatch: &DispatchId,
        reason: &str,
    ) -> Result<Outcome<DispatchView>, ServiceError> {
        decide::text("reason", reason, FACT_TEXT_BYTES_MAX)?;
        if reason.trim().is_empty() {
            return Err(ServiceError::invalid("reason", "say why"));
        }
        let kind = FactKind::Rejected { reason: reason.to_owned() };
        self.state_fact(request, Action::Reject, "rejected", dispatch, kind).await
    }

    /// Cancels (rule 1), or asks to stop work (rule 17). Roles: dispatcher, integration, admin.
    ///
    /// # Errors
    /// [`ServiceError::IllegalTransition`] when the visit has ended, ….
    pub async fn cancel(
        &self,
        request: Request<'_>,
        dispatch: &DispatchId,
        reason: &str,
    ) -> Result<Outcome<DispatchView>, ServiceError> {
        self.change(
            request,
            Action::Cancel,
            dispatch,
            |_| None,
            |draft, _| decide::cancel(draft, &request.caller.user, reason),
        )
        .await
    }

    /// Moves the visit; checks the technicians' calendars anew (rule 13). Roles: dispatcher, admin.
    ///
    /// # Errors
    /// Those of [`Self::assign`].
    pub async fn reschedule(
        &self,
        request: Request<'_>,
        dispatch: &DispatchId,
        input: RescheduleInput,
    ) -> Result<Outcome<DispatchView>, ServiceError> {
        self.change(
            request,
            Action::Reschedule,
            dispatch,
            |draft| {
                let members = draft.plan().assignment.as_ref()?.members().cloned().collect();
                input.scheduled.map(|window| (members, Some(window)))
            },
            |draft, candidates| decide::reschedule(draft, &request.caller.user, &input, candidates),
        )
        .await
    }

    /// Sets the priority. Roles: dispatcher, admin.
    ///
    /// # Errors
    /// [`ServiceError::IllegalTransition`] when the visit has ended, ….
    pub async fn set_priority(
        &self,
        request: Request<'_>,
        dispatch: &DispatchId,
        priority: Priority,
    ) -> Result<Outcome<DispatchView>, ServiceError> {
        self.change(
            request,
            Action::SetPriority,
            dispatch,
            |_| None,
            |draft, _| decide::set_priority(draft, &request.caller.user, priority),
        )
        .await
    }

    /// Takes a cancellation or stop-work request back; a completion that was in dispute because of it stands (rule 2).
    /// Roles: dispatcher, admin.
    ///
    /// # Errors
    /// [`ServiceError::IllegalTransition`] when no cancellation stands, ….
    pub async fn reinstate(
        &self,
        request: Request<'_>,
        dispatch: &DispatchId,
    ) -> Result<Outcome<DispatchView>, ServiceError> {
        let user = &request.caller.user;
        self.change(request, Action::Reinstate, dispatch, |_| None, |draft, _| decide::reinstate(draft, user)).await
    }

    /// Ends a stop-work request that its technician does not answer: the visit is cancelled, its labour stays recorded
    /// (rules 2, 17). Roles: dispatcher, admin.
    ///
    /// # Errors
    /// [`ServiceError::IllegalTransition`] when no stop-work request stands, ….
    pub async fn end_stop_work(
        &self,
        request: Request<'_>,
        dispatch: &DispatchId,
    ) -> Result<Outcome<DispatchView>, ServiceError> {
        let user = &request.caller.user;
        self.change(request, Action::EndStopWork, dispatch, |_| None, |draft, _| decide::end_stop_work(draft, user))
            .await
    }

    /// Decides a new dispatch, up to its commit.
    pub(crate) async fn draft_request(
        &self,
        caller: &Caller,
        input: NewRequest,
        location: Location,
    ) -> Result<Draft, ServiceError> {
        let tenant = &caller.tenant;
        let order = input.service_order_id.clone();
        let plan = decide::request(input, &location)?;
        let number = self.store().next_number(tenant, "DSP").await?;
        let dispatch = DispatchId::new(format!("DSP-{number}"))
            .map_err(|error| ServiceError::Internal(format!("dispatch number {number}: {error}")))?;
        let frame = self.frame(tenant, caller.user.as_str());
        let mut draft = Draft::create(frame, self.ids(), dispatch, order, location.location_id, plan);
        let plan = draft.plan();
        let detail =
            json!({ "serviceOrderId": plan.service_order_id, "scheduled": plan.scheduled, "priority": plan.priority });
        draft.audit("DISPATCH_REQUESTED", detail);
        Ok(draft)
    }

    /// Names the dispatch that a service order has.
    pub(crate) async fn order_exists(
        &self,
        caller: &Caller,
        order: ServiceOrderId,
    ) -> Result<ServiceError, ServiceError> {
        Ok(match self.store().by_service_order(&caller.tenant, &order).await? {
            Some(dispatch) => ServiceError::ServiceOrderExists { order, dispatch },
            None => ServiceError::Busy,
        })
    }

    /// States a fact for a technician who is online: recorded in the document and judged by the same rules as a phone's.
    /// What would not count is not recorded, since the technician can be told.
    async fn state_fact(
        &self,
        request: Request<'_>,
        action: Action,
        command: &'static str,
        dispatch: &DispatchId,
        kind: FactKind,
    ) -> Result<Outcome<DispatchView>, ServiceError> {
        let technician = own_technician(request.caller, action)?;
        let seq = self.store().next_number(&request.caller.tenant, "REST").await?;
        let row = self.store().technician(&request.caller.tenant, &technician).await?;
        let decide = |draft: &mut Draft, _: &[Candidate]| {
            theirs(draft, &technician)?;
            let illegal = decide::illegal(draft, command);
            let fact = Fact {
                schema: FACT_SCHEMA,
                id: draft.ids.fact(),
                epoch: draft.plan().epoch_for(&technician).unwrap_or_default(),
                technician: technician.clone(),
                device: rest_device(&technician),
                seq,
                clock: ClockReading {
                    wall: draft.frame.now,
                    monotonic_ms: 0,
                    boot: rest_boot(),
                    offset_ms: Some(0),
                    uncertainty_ms: Some(0),
                },
                position: None,
                kind: kind.clone(),
            };
            let actor = ActorKey(draft.ids.actor());
            let (now, knew_revision) = (draft.frame.now, draft.plan().revision);
            let change = draft
                .document_mut()
                .edit(actor, &Edit::Fact { fact: fact.clone() }, now)
                .map_err(|refusal| ServiceError::Internal(refusal.to_string()))?;
            draft.push_change(change, None);
            let arrived = SequenceLedger { contiguous: seq, ..SequenceLedger::default() };
            let mut books = Books { technician: row.clone(), arrived, ..Books::default() };
            let judged = judge_all(draft, vec![Stated { fact, knew_revision, held_since: None }], &mut books);
            if judged.verdicts.iter().any(|verdict| verdict.verdict != Verdict::Accepted) {
                return Err(illegal);
            }
            Ok(())
        };
        self.change(request, action, dispatch, |_| None, decide).await
    }
}

/// The device under which a technician's REST calls are recorded.
fn rest_device(technician: &TechnicianId) -> DeviceId {
    match DeviceId::new(format!("rest:{technician}")) {
        Ok(device) => device,
        // The technician's id fills an id's length by itself.
        Err(_) => device_named("rest"),
    }
}

fn device_named(name: &'static str) -> DeviceId {
    match DeviceId::new(name) {
        Ok(device) => device,
        Err(_) => unreachable!("a word makes an id"),
    }
}

fn rest_boot() -> BootId {
    match BootId::new("rest") {
        Ok(boot) => boot,
        Err(_) => unreachable!("a word makes an id"),
    }
}
