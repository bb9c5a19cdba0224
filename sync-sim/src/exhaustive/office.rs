//! What the office does, and what other systems tell it.

use super::model::{DEADLINE, MOVED, WINDOW};
use super::stage::{MINUTE, Stage, at, caller, minutes, service_error};
use super::step::{Order, Phone, Step, Who, id};
use super::world::World;
use crm_dispatch_server::service::office::{AssignInput, NewRequest, RescheduleInput};
use crm_dispatch_server::service::{Request, Role, ServiceError};
use std::collections::BTreeMap;
use sync_core::domain::plan::{ChecklistItem, Priority};

impl Stage {
    pub(super) fn office(&self, world: &mut World, order: Order) -> Result<bool, String> {
        let dora = caller(&self.tenant, "dora", Role::Admin);
        let request = Request::plain(&dora);
        let visit = &self.visit;
        let assign = |lead: Who, crew: &[Who]| {
            let crew = crew.iter().map(|who| id(who.id())).collect();
            self.service.assign(request, visit, AssignInput { technician_id: id(lead.id()), crew })
        };
        let moved = |confirmed| RescheduleInput {
            scheduled: None,
            arrival_window: Some(minutes(MOVED)),
            customer_confirmed: confirmed,
        };
        let holding_before =
            order == Order::Cancel && world.phones.values().any(|phone| phone.visits.contains_key(visit));
        let answer = match order {
            Order::AssignAnna => self.wait(assign(Who::Anna, &[])).map(drop),
            Order::AssignBen => self.wait(assign(Who::Ben, &[])).map(drop),
            Order::BenLeads => self.wait(assign(Who::Ben, &[Who::Anna])).map(drop),
            Order::Unassign => self.wait(self.service.unassign(request, visit)).map(drop),
            Order::Cancel => self.wait(self.service.cancel(request, visit, "the customer called")).map(drop),
            Order::CalledOff => {
                world.events += 1;
                return self.order_cancelled(world, true);
            }
            Order::CalledOffAgain if world.events == 0 => return Ok(false),
            Order::CalledOffAgain => return self.order_cancelled(world, false),
            Order::RequestAgain => {
                let again = self.wait(self.service.create_request(request, visit_request("SO-1")));
                world.model.order(order, world.now);
                return match again {
                    Err(ServiceError::ServiceOrderExists { dispatch, .. }) if dispatch == *visit => Ok(true),
                    other => Err(format!("a second request for the order is answered with {other:?}")),
                };
            }
            Order::Reinstate => self.wait(self.service.reinstate(request, visit)).map(drop),
            Order::EndStopWork => self.wait(self.service.end_stop_work(request, visit)).map(drop),
            Order::MoveConfirmed => self.wait(self.service.reschedule(request, visit, moved(true))).map(drop),
            Order::Move => self.wait(self.service.reschedule(request, visit, moved(false))).map(drop),
            Order::Confirmed => {
                let input = RescheduleInput { customer_confirmed: true, ..RescheduleInput::default() };
                self.wait(self.service.reschedule(request, visit, input)).map(drop)
            }
            Order::Revoke => {
                let device = world.handset(Phone::Anna)?.session.device.clone();
                self.wait(self.service.revoke_device(request, &device)).map(drop)
            }
            Order::Settle => {
                let open = self.wait(self.service.exceptions(&dora, Some(visit), true, 100)).map_err(service_error)?;
                match open.last() {
                    Some(row) => {
                        self.wait(self.service.resolve_exception(request, visit, &row.exception_id, "talked")).map(drop)
                    }
                    None => return Ok(world.model.order(order, world.now)),
                }
            }
        };
        let allowed = match answer {
            Ok(()) => true,
            Err(ServiceError::IllegalTransition { .. }) => false,
            Err(error) => return Err(service_error(error)),
        };
        let expected = world.model.order(order, world.now);
        if expected != allowed && order != Order::Revoke {
            return Err(format!("{}: by the rules this is {}", Step::Office(order), possible(expected)));
        }
        if allowed && holding_before {
            // Rule 1: accepted at once, and shown as not yet delivered.
            let seen = self.wait(self.service.dispatch(&dora, visit)).map_err(service_error)?;
            if seen.cancellation.is_none_or(|cancellation| cancellation.delivered) {
                return Err("a cancellation that no phone knows of is not shown as undelivered".to_owned());
            }
        }
        Ok(allowed && expected)
    }

    /// Rule 18: an event has its effect once, and so has the same cancellation under another event's name.
    pub(super) fn order_cancelled(&self, world: &mut World, fresh: bool) -> Result<bool, String> {
        use crm_dispatch_server::service::ingest::IngestEffect;
        let erp = caller(&self.tenant, "erp", Role::Integration);
        let event = serde_json::json!({
            "eventType": "ServiceOrderCancelledEvent",
            "eventId": format!("evt-{}", world.events),
            "timestamp": at(world.now),
            "tenantId": self.tenant,
            "payload": { "serviceOrderId": "SO-1", "reason": "withdrawn" },
        });
        let came_to = self.wait(self.service.ingest(&erp, &event.to_string())).map_err(service_error)?.effect;
        let order = if fresh { Order::CalledOff } else { Order::CalledOffAgain };
        let effective = world.model.order(order, world.now);
        let expected = match (fresh, effective) {
            (true, true) => IngestEffect::Applied,
            (true, false) => IngestEffect::NoEffect,
            (false, _) => IngestEffect::Duplicate,
        };
        if came_to != expected {
            return Err(format!("{} comes to {came_to:?} instead of {expected:?}", Step::Office(order)));
        }
        Ok(true)
    }
}

fn possible(possible: bool) -> &'static str {
    if possible { "possible, and it is refused" } else { "not possible, and it is done" }
}

/// What Service Orders asks for.
pub(super) fn visit_request(order: &str) -> NewRequest {
    NewRequest {
        service_order_id: id(order),
        location_id: id("LOC-1"),
        required_skills: Vec::new(),
        title: format!("Boiler of {order}"),
        instructions: String::new(),
        priority: Priority::Normal,
        scheduled: None,
        arrival_window: Some(minutes(WINDOW)),
        customer_confirmed: true,
        sla_deadline: Some(at(DEADLINE * MINUTE)),
        required_parts: Vec::new(),
        checklist: vec![ChecklistItem { id: id("pressure"), label: "Pressure?".to_owned(), required: false }],
        contact: None,
        attributes: BTreeMap::new(),
    }
}
