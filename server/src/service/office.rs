//! The office's commands on dispatches.

use crate::service::view::DispatchView;
use crate::service::{Outcome, Request, Service, ServiceError};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use sync_core::domain::plan::{ChecklistItem, Contact, PartRequirement, Priority, SkillRequirement};
use sync_core::domain::{DispatchId, LocationId, ServiceOrderId, TechnicianId, Timestamp, Window};

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
        let _ = (request, input);
        unimplemented!()
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
        let _ = (request, dispatch, input);
        unimplemented!()
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
        let _ = (request, dispatch);
        unimplemented!()
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
        let _ = (request, dispatch, eta);
        unimplemented!()
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
        let _ = (request, dispatch, reason);
        unimplemented!()
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
        let _ = (request, dispatch, reason);
        unimplemented!()
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
        let _ = (request, dispatch, input);
        unimplemented!()
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
        let _ = (request, dispatch, priority);
        unimplemented!()
    }
}
