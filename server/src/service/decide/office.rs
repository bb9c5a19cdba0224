//! The office's commands, decided.

use super::draft::Draft;
use super::fit::{self, Candidate, Need};
use crate::events::Payload;
use crate::service::error::ServiceError;
use crate::service::model::Location;
use crate::service::office::{AssignInput, NewRequest, RescheduleInput};
use serde_json::json;
use sync_core::domain::plan::{Plan, Priority, Site};
use sync_core::domain::rules::office::{self, Command, OfficeError, WINDOW_MILLIS_MAX};
use sync_core::domain::{Timestamp, UserId, Window};

/// Longest headline, bytes.
const TITLE_BYTES_MAX: usize = 200;
/// Longest instructions, and any other free text of the office, bytes.
pub(crate) const TEXT_BYTES_MAX: usize = 8_000;
/// Most skills, parts, checklist items or attributes of one request.
const LIST_MAX: usize = 100;

/// Checks a request and makes its first plan.
pub(crate) fn request(input: NewRequest, location: &Location) -> Result<Plan, ServiceError> {
    text("title", &input.title, TITLE_BYTES_MAX)?;
    text("instructions", &input.instructions, TEXT_BYTES_MAX)?;
    window("scheduled", input.scheduled)?;
    window("arrivalWindow", input.arrival_window)?;
    few("requiredSkills", input.required_skills.len())?;
    few("requiredParts", input.required_parts.len())?;
    few("checklist", input.checklist.len())?;
    few("attributes", input.attributes.len())?;
    if input.required_skills.iter().any(|skill| skill.level == 0) {
        return Err(ServiceError::invalid("requiredSkills", "a level is at least 1"));
    }
    if input.required_parts.iter().any(|part| part.quantity == 0) {
        return Err(ServiceError::invalid("requiredParts", "a quantity is at least 1"));
    }
    for item in &input.checklist {
        text("checklist", &item.label, TITLE_BYTES_MAX * 2)?;
        if input.checklist.iter().filter(|other| other.id == item.id).count() > 1 {
            return Err(ServiceError::invalid("checklist", format!("the item {} occurs twice", item.id)));
        }
    }
    for (key, value) in &input.attributes {
        text("attributes", key, TITLE_BYTES_MAX)?;
        text("attributes", value, TEXT_BYTES_MAX)?;
    }
    if let Some(contact) = &input.contact {
        text("contact", &contact.name, TITLE_BYTES_MAX)?;
        text("contact", contact.phone.as_deref().unwrap_or_default(), TITLE_BYTES_MAX)?;
    }
    if input.customer_confirmed && input.arrival_window.is_none() {
        return Err(ServiceError::invalid("customerConfirmed", "there is no arrival window to confirm"));
    }
    let title = match input.title.trim() {
        "" => format!("{} at {}", input.service_order_id, location.name),
        title => title.to_owned(),
    };
    Ok(Plan {
        revision: 1,
        service_order_id: Some(input.service_order_id),
        title,
        instructions: input.instructions,
        priority: input.priority,
        site: Some(site(location)),
        contact: input.contact,
        required_skills: input.required_skills,
        required_parts: input.required_parts,
        scheduled: input.scheduled,
        sla_deadline: input.sla_deadline,
        arrival_window: input.arrival_window,
        confirmed_window: input.arrival_window.filter(|_| input.customer_confirmed),
        checklist: input.checklist,
        attributes: input.attributes,
        ..Plan::default()
    })
}

fn site(location: &Location) -> Site {
    Site {
        location_id: location.location_id.clone(),
        name: location.name.clone(),
        address: location.address.clone(),
        coordinates: location.coordinates,
        access_notes: location.access_notes.clone(),
    }
}

/// What whoever takes the visit needs.
pub(crate) fn need(draft: &Draft, scheduled: Option<Window>) -> Need<'_> {
    let plan = draft.plan();
    Need {
        skills: &plan.required_skills,
        window: scheduled,
        site: plan.site.as_ref().map(|site| site.coordinates),
        now: draft.frame.now,
    }
}

/// Assigns or re-assigns. `candidates`: the lead, then the crew.
pub(crate) fn assign(
    draft: &mut Draft,
    by: &UserId,
    input: &AssignInput,
    candidates: &[Candidate],
) -> Result<(), ServiceError> {
    let command = Command { by, now: draft.frame.now };
    let plan = office::assign(draft.plan(), draft.state(), &command, &input.technician_id, &input.crew)
        .map_err(|error| refused(draft, error, "crew"))?;
    draft.bookings = Some(fit::book(candidates, &need(draft, plan.scheduled))?);
    let former = draft.plan().assignment.as_ref().map(|assignment| assignment.lead.clone());
    let epoch = plan.epoch;
    draft.set_plan(plan);
    assigned_event(draft);
    draft.audit(
        "DISPATCH_ASSIGNED",
        json!({ "technicianId": input.technician_id, "crew": input.crew, "epoch": epoch, "former": former }),
    );
    Ok(())
}

/// Tells Service Orders who has it.
pub(crate) fn assigned_event(draft: &mut Draft) {
    let Some(assignment) = &draft.plan().assignment else { return };
    let payload = Payload::TechnicianAssigned {
        dispatch_id: draft.dispatch().clone(),
        service_order_id: draft.order().clone(),
        technician_id: assignment.lead.clone(),
        status: "ASSIGNED".to_owned(),
    };
    draft.event(payload);
}

/// Takes the visit back.
pub(crate) fn unassign(draft: &mut Draft, by: &UserId) -> Result<(), ServiceError> {
    let former = draft.plan().assignment.as_ref().map(|assignment| assignment.lead.clone());
    apply(draft, by, office::unassign)?;
    draft.audit("DISPATCH_UNASSIGNED", json!({ "former": former }));
    Ok(())
}

/// Cancels, or asks to stop work.
pub(crate) fn cancel(draft: &mut Draft, by: &UserId, reason: &str) -> Result<(), ServiceError> {
    text("reason", reason, TEXT_BYTES_MAX)?;
    apply(draft, by, |plan, state, command| office::cancel(plan, state, command, reason))?;
    let effect = draft.plan().cancellation.as_ref().map(|cancellation| cancellation.effect);
    draft.audit("DISPATCH_CANCELLED", json!({ "reason": reason, "effect": effect }));
    Ok(())
}

/// Takes a cancellation back.
pub(crate) fn reinstate(draft: &mut Draft, by: &UserId) -> Result<(), ServiceError> {
    apply(draft, by, office::reinstate)?;
    draft.audit("DISPATCH_REINSTATED", json!({}));
    Ok(())
}

/// Ends a stop-work request that nobody answers.
pub(crate) fn end_stop_work(draft: &mut Draft, by: &UserId) -> Result<(), ServiceError> {
    apply(draft, by, office::end_stop_work)?;
    draft.audit("STOP_WORK_ENDED", json!({}));
    Ok(())
}

/// Sets the urgency.
pub(crate) fn set_priority(draft: &mut Draft, by: &UserId, priority: Priority) -> Result<(), ServiceError> {
    let before = draft.plan().priority;
    apply(draft, by, |plan, state, command| office::set_priority(plan, state, command, priority))?;
    draft.audit("PRIORITY_SET", json!({ "before": before, "after": priority }));
    Ok(())
}

/// Raises the urgency, because the service level is breached.
pub(crate) fn escalate(draft: &mut Draft, by: &UserId) -> Result<(), ServiceError> {
    let before = draft.plan().priority;
    apply(draft, by, office::escalate)?;
    let after = draft.plan().priority;
    draft.audit("PRIORITY_ESCALATED", json!({ "before": before, "after": after }));
    Ok(())
}

/// Moves the visit. `candidates`: the present members, the lead first; none when nobody has it.
pub(crate) fn reschedule(
    draft: &mut Draft,
    by: &UserId,
    input: &RescheduleInput,
    candidates: &[Candidate],
) -> Result<(), ServiceError> {
    window("scheduled", input.scheduled)?;
    window("arrivalWindow", input.arrival_window)?;
    if input.scheduled.is_none() && input.arrival_window.is_none() && !input.customer_confirmed {
        return Err(ServiceError::invalid("scheduled", "give a new scheduled or arrival window"));
    }
    let change = office::Reschedule {
        scheduled: input.scheduled,
        arrival_window: input.arrival_window,
        customer_confirmed: input.customer_confirmed,
    };
    let moves = input.scheduled.is_some_and(|window| draft.plan().scheduled != Some(window));
    let bookings = if moves && draft.plan().assignment.is_some() {
        Some(fit::book(candidates, &need(draft, input.scheduled))?)
    } else {
        None
    };
    apply(draft, by, |plan, state, command| office::reschedule(plan, state, command, &change))?;
    draft.bookings = bookings;
    let plan = draft.plan();
    let detail = json!({
        "scheduled": plan.scheduled,
        "arrivalWindow": plan.arrival_window,
        "proposed": plan.proposed_window.as_ref().map(|proposal| proposal.window),
        "customerConfirmed": input.customer_confirmed,
    });
    draft.audit("DISPATCH_RESCHEDULED", detail);
    Ok(())
}

/// Settles an exception by hand.
pub(crate) fn resolve(
    draft: &mut Draft,
    mut row: crate::service::model::ExceptionRow,
    by: &UserId,
    resolution: &str,
) -> Result<(), ServiceError> {
    let was_open = settled(&mut row, draft.frame.now, by, resolution)?;
    if was_open {
        draft.exceptions_closed = 1;
    }
    draft.audit("EXCEPTION_RESOLVED", json!({ "exceptionId": row.exception_id, "resolution": resolution }));
    draft.exceptions.push(row);
    Ok(())
}

/// The row, settled. True when it was open.
pub(crate) fn settled(
    row: &mut crate::service::model::ExceptionRow,
    now: Timestamp,
    by: &UserId,
    resolution: &str,
) -> Result<bool, ServiceError> {
    text("resolution", resolution, TEXT_BYTES_MAX)?;
    if resolution.trim().is_empty() {
        return Err(ServiceError::invalid("resolution", "say how it was settled"));
    }
    let was_open = row.resolved_at.is_none();
    row.resolved_at = Some(now);
    row.resolved_by = Some(by.to_string());
    row.resolution = Some(resolution.to_owned());
    Ok(was_open)
}

fn apply(
    draft: &mut Draft,
    by: &UserId,
    rule: impl FnOnce(&Plan, &sync_core::domain::VisitState, &Command<'_>) -> Result<Plan, OfficeError>,
) -> Result<(), ServiceError> {
    let command = Command { by, now: draft.frame.now };
    let plan = rule(draft.plan(), draft.state(), &command).map_err(|error| refused(draft, error, "window"))?;
    draft.set_plan(plan);
    Ok(())
}

/// The rule's refusal, with the status as the office sees it.
fn refused(draft: &Draft, error: OfficeError, field: &'static str) -> ServiceError {
    match error {
        OfficeError::IllegalTransition { command, .. } => illegal(draft, command),
        OfficeError::Window | OfficeError::Crew => ServiceError::invalid(field, error.to_string()),
    }
}

/// Not possible from where the visit stands.
pub(crate) fn illegal(draft: &Draft, command: &'static str) -> ServiceError {
    let delivered = draft.before().and_then(|stored| stored.delivered_epoch);
    ServiceError::IllegalTransition { status: draft.state().office_status(delivered), command }
}

/// Checks a text's length.
pub(crate) fn text(field: &'static str, value: &str, bytes_max: usize) -> Result<(), ServiceError> {
    if value.len() > bytes_max {
        return Err(ServiceError::invalid(field, format!("at most {bytes_max} bytes, this has {}", value.len())));
    }
    Ok(())
}

fn few(field: &'static str, count: usize) -> Result<(), ServiceError> {
    if count > LIST_MAX {
        return Err(ServiceError::invalid(field, format!("at most {LIST_MAX}, these are {count}")));
    }
    Ok(())
}

/// Checks a window.
pub(crate) fn window(field: &'static str, window: Option<Window>) -> Result<(), ServiceError> {
    match window {
        Some(window) if !(1..=WINDOW_MILLIS_MAX).contains(&window.end.millis_since(window.start)) => {
            Err(ServiceError::invalid(field, "a window must end after it starts and within a day"))
        }
        _ => Ok(()),
    }
}
