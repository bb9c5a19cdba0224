//! What the people do: the office's calls, and a technician's next action.

use crate::scenario::{HOUR, MINUTE, Office};
use crm_dispatch_server::service::directory::{LocationInput, TechnicianInput};
use crm_dispatch_server::service::model::{DispatchSearch, Skill, StoredDispatch};
use crm_dispatch_server::service::office::{AssignInput, NewRequest, RescheduleInput};
use crm_dispatch_server::service::{Caller, IdempotencyKey, Request, Role, Service, ServiceError};
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use std::collections::BTreeMap;
use sync_core::domain::fact::FactKind;
use sync_core::domain::geo::Coordinates;
use sync_core::domain::plan::{ChecklistItem, Priority, SkillRequirement};
use sync_core::domain::{
    DeviceId, LocationId, PartNumber, SkillCode, TechnicianId, TenantId, Timestamp, UserId, VisitCard, VisitStatus,
    Window,
};
use sync_core::store::NewEdit;

/// The call may be made again under the same key.
pub(crate) const AGAIN: &str = "INTERNAL";
/// How many of each part a truck has in the morning.
pub(crate) const STOCK: i64 = 2;

pub(crate) enum Call {
    Office(Office),
    Revoke(DeviceId),
}

fn id<T: TryFrom<String>>(text: impl Into<String>) -> T {
    T::try_from(text.into()).unwrap_or_else(|_| unreachable!("the simulator's names are ids"))
}

pub(crate) fn technician(name: &str) -> TechnicianId {
    id(name)
}

pub(crate) fn caller(tenant: &TenantId, user: &str, role: Role) -> Caller {
    Caller {
        tenant: tenant.clone(),
        user: id::<UserId>(user),
        roles: vec![role],
        technician: (role == Role::Technician).then(|| id(user)),
    }
}

pub(crate) async fn furnish(
    service: &Service,
    admin: &Caller,
    technicians: &[TechnicianId],
) -> Result<(), ServiceError> {
    for (name, latitude) in [("LOC-1", 48.2082), ("LOC-2", 48.1986)] {
        let input = LocationInput {
            name: name.to_owned(),
            address: "Ring 1, 1010 Wien".to_owned(),
            coordinates: Coordinates { latitude, longitude: 16.37 },
            access_notes: None,
        };
        service.put_location(Request::plain(admin), &id::<LocationId>(name), input).await?;
    }
    let now = service.now();
    for technician in technicians {
        let input = TechnicianInput {
            name: Some(technician.to_string()),
            skills: Some(vec![Skill { code: id::<SkillCode>("HVAC"), level: 2, expires_at: None }]),
            home_base: Some(Coordinates { latitude: 48.2, longitude: 16.36 }),
            availability: Some(vec![Window { start: now.plus_millis(-HOUR), end: now.plus_millis(48 * HOUR) }]),
            van_stock: Some(BTreeMap::from([(id("FILTER"), STOCK), (id("PUMP"), STOCK)])),
            ..TechnicianInput::default()
        };
        service.put_technician(Request::plain(admin), technician, input).await?;
    }
    Ok(())
}

/// One call of the office; answers what was done, or the refusal's code.
pub(crate) async fn call(
    service: &Service,
    tenant: &TenantId,
    call: Call,
    salt: u64,
    key: &str,
    technicians: &[TechnicianId],
    dawn: i64,
) -> Result<String, String> {
    let result = match call {
        Call::Office(op) => office(service, tenant, op, salt, key, technicians, dawn).await,
        Call::Revoke(device) => {
            let admin = caller(tenant, "admin", Role::Admin);
            let request = keyed(&admin, key);
            service.revoke_device(request, &device).await.map(|_| format!("revoked {device}"))
        }
    };
    result.map_err(|error| match error {
        ServiceError::Internal(_) | ServiceError::Busy => AGAIN.to_owned(),
        other => other.code().to_owned(),
    })
}

fn keyed<'a>(caller: &'a Caller, key: &'a str) -> Request<'a> {
    Request { idempotency: Some(IdempotencyKey { key, request_hash: "the same" }), ..Request::plain(caller) }
}

async fn office(
    service: &Service,
    tenant: &TenantId,
    op: Office,
    salt: u64,
    key: &str,
    technicians: &[TechnicianId],
    dawn: i64,
) -> Result<String, ServiceError> {
    let mut rng = SmallRng::seed_from_u64(salt);
    let dora = caller(tenant, "dora", Role::Dispatcher);
    let request = keyed(&dora, key);
    let window = {
        let start = Timestamp::from_millis(dawn + rng.random_range(0..8_i64) * HOUR);
        Window { start, end: start.plus_millis(HOUR) }
    };
    if op == Office::Create {
        let scheduled = rng.random_bool(0.7).then_some(window);
        let made = service.create_request(request, new_request(salt, scheduled, &mut rng)).await?;
        return Ok(format!(
            "created {}",
            made.into_value().map_or_else(String::new, |view| view.dispatch_id.to_string())
        ));
    }
    let search = DispatchSearch {
        tenant: tenant.clone(),
        statuses: Vec::new(),
        technician: None,
        location: None,
        service_order: None,
        scheduled: None,
        priority_min: None,
        after: None,
        limit: 100,
    };
    let found = service.store().search(&search).await?;
    // Mostly a visit for which it makes sense.
    let fits: Vec<&StoredDispatch> = found.iter().filter(|found| suits(op, found)).collect();
    let chosen = if rng.random_bool(0.9) { fits.choose(&mut rng).copied() } else { found.choose(&mut rng) };
    let Some(chosen) = chosen else { return Ok("nothing to do".to_owned()) };
    let dispatch = chosen.row.dispatch_id.clone();
    let lead = technicians.choose(&mut rng).cloned().unwrap_or_else(|| id("TECH-0"));
    let crew: Vec<TechnicianId> = match op {
        Office::AssignCrew => technicians.iter().filter(|other| **other != lead).take(1).cloned().collect(),
        _ => Vec::new(),
    };
    let done = format!("{op:?} {dispatch}");
    match op {
        Office::Create => {}
        Office::Assign | Office::AssignCrew => {
            service.assign(request, &dispatch, AssignInput { technician_id: lead.clone(), crew }).await?;
            return Ok(format!("{done} to {lead}"));
        }
        Office::Unassign => drop(service.unassign(request, &dispatch).await?),
        Office::Cancel => drop(service.cancel(request, &dispatch, "the customer called").await?),
        Office::Reinstate => drop(service.reinstate(request, &dispatch).await?),
        Office::EndStopWork => drop(service.end_stop_work(request, &dispatch).await?),
        Office::Reschedule => {
            let input = RescheduleInput {
                scheduled: rng.random_bool(0.5).then_some(window),
                arrival_window: rng.random_bool(0.7).then_some(window),
                customer_confirmed: rng.random(),
            };
            service.reschedule(request, &dispatch, input).await?;
        }
        Office::Priority => drop(service.set_priority(request, &dispatch, Priority::High).await?),
        Office::Resolve => {
            let open = service.store().exceptions(tenant, Some(&dispatch), true, 10).await?;
            let Some(row) = open.choose(&mut rng) else { return Ok("nothing to resolve".to_owned()) };
            service.resolve_exception(request, &dispatch, &row.exception_id, "talked to the customer").await?;
        }
        Office::Confirm | Office::Reject => {
            let name = chosen.row.technician_id.clone().unwrap_or(lead);
            let technician = caller(tenant, name.as_str(), Role::Technician);
            let request = keyed(&technician, key);
            match op {
                Office::Confirm => drop(service.confirm(request, &dispatch, None).await?),
                _ => drop(service.reject(request, &dispatch, "too far").await?),
            }
        }
        Office::OrderCancelled => {
            let erp = caller(tenant, "erp", Role::Integration);
            let event = serde_json::json!({
                "eventType": "ServiceOrderCancelledEvent",
                "eventId": format!("evt-{salt:016x}"),
                "timestamp": service.now(),
                "aggregateId": chosen.row.service_order_id,
                "tenantId": tenant,
                "payload": { "serviceOrderId": chosen.row.service_order_id, "reason": "withdrawn" },
            });
            service.ingest(&erp, &event.to_string()).await?;
            service.ingest(&erp, &event.to_string()).await?;
        }
    }
    Ok(done)
}

fn suits(op: Office, found: &StoredDispatch) -> bool {
    let row = &found.row;
    let over = row.status.is_final();
    match op {
        Office::Unassign | Office::Confirm | Office::Reject => row.plan.assignment.is_some() && !over,
        Office::Reinstate => row.plan.standing_cancellation().is_some(),
        Office::EndStopWork => row.state.stop_work,
        Office::Resolve => found.open_exceptions > 0,
        Office::Create => true,
        Office::Assign
        | Office::AssignCrew
        | Office::Cancel
        | Office::Reschedule
        | Office::Priority
        | Office::OrderCancelled => !over,
    }
}

fn new_request(salt: u64, scheduled: Option<Window>, rng: &mut SmallRng) -> NewRequest {
    NewRequest {
        service_order_id: id(format!("SO-{salt:016x}")),
        location_id: id(if rng.random() { "LOC-1" } else { "LOC-2" }),
        required_skills: vec![SkillRequirement { code: id("HVAC"), level: 1 }],
        title: "Boiler".to_owned(),
        instructions: String::new(),
        priority: Priority::Normal,
        scheduled,
        arrival_window: scheduled,
        customer_confirmed: rng.random(),
        sla_deadline: scheduled.filter(|_| rng.random_bool(0.5)).map(|window| window.end.plus_millis(30 * MINUTE)),
        required_parts: Vec::new(),
        checklist: vec![ChecklistItem { id: id("pressure"), label: "Pressure?".to_owned(), required: false }],
        contact: None,
        attributes: BTreeMap::new(),
    }
}

/// What the technician does next to this visit: mostly the next step of the work.
pub(crate) fn next_edit(card: &VisitCard, rng: &mut SmallRng) -> NewEdit {
    let reason = || "it does not fit".to_owned();
    let sha256 = || "ab".repeat(32);
    NewEdit::Fact(match rng.random_range(0..100) {
        0..=61 => match card.status {
            VisitStatus::Assigned | VisitStatus::Dispatched if rng.random_bool(0.8) => FactKind::Accepted { eta: None },
            VisitStatus::Assigned | VisitStatus::Dispatched | VisitStatus::Confirmed => {
                FactKind::TravelStarted { eta: None }
            }
            VisitStatus::EnRoute => FactKind::Arrived,
            VisitStatus::Arrived => FactKind::WorkStarted,
            VisitStatus::InProgress => match rng.random_range(0..10) {
                0..=5 => FactKind::Completed,
                6..=8 => FactKind::Paused { reason: None },
                _ => FactKind::CannotComplete { reason: reason() },
            },
            VisitStatus::Paused => FactKind::Resumed,
            _ => FactKind::TimeEntry { category: "labour".to_owned(), minutes: 15 },
        },
        62..=64 => FactKind::Rejected { reason: reason() },
        65..=66 => FactKind::CannotComplete { reason: reason() },
        67 => FactKind::Completed,
        68..=76 => {
            let serial = rng.random_bool(0.4).then(|| id(format!("SN-{}", rng.random_range(1..4))));
            let part: PartNumber = id(if rng.random() { "FILTER" } else { "PUMP" });
            FactKind::PartUsed { part, quantity: 1, serial }
        }
        77..=82 => FactKind::TimeEntry { category: "travel".to_owned(), minutes: 5 },
        83..=84 => FactKind::Photo { sha256: sha256(), bytes: 1_000, media_type: "image/jpeg".to_owned() },
        85..=86 => FactKind::Signature { signer: "Frau Huber".to_owned(), sha256: sha256() },
        87 => FactKind::WindowAcknowledged { window_revision: rng.random_range(1..4) },
        88..=94 => {
            let insert = format!("[{:012x}]", rng.random_range(0..1_u64 << 48));
            return NewEdit::Note { at: 0, delete: 0, insert };
        }
        95..=97 => return NewEdit::Answer { item: id("pressure"), value: format!("{} bar", rng.random_range(1..4)) },
        _ => return NewEdit::Summary(format!("done {}", rng.random_range(0..1_000))),
    })
}
