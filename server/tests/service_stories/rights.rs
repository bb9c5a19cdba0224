//! Who may what: every command, every role; and another tenant's things do not exist.

use crate::world::{HOUR, Phone, World, caller, id, window};
use crm_dispatch_server::service::directory::{LocationInput, TechnicianInput};
use crm_dispatch_server::service::model::{Absence, DispatchSearch, TechnicianStatus};
use crm_dispatch_server::service::office::{AssignInput, RescheduleInput};
use crm_dispatch_server::service::reads::CandidateSearch;
use crm_dispatch_server::service::{Action, Caller, Request, Role, ServiceError};
use sync_core::domain::geo::Coordinates;
use sync_core::domain::plan::Priority;
use sync_core::domain::{DeviceId, DispatchId, FactKind, TechnicianId};

/// Calls everything there is, and answers what each call failed with.
async fn everything(
    world: &World,
    caller: &Caller,
    dispatch: &DispatchId,
    technician: &TechnicianId,
    device: &DeviceId,
) -> Vec<(Action, Option<ServiceError>)> {
    let service = &world.service;
    let plain = || Request::plain(caller);
    let location = LocationInput {
        name: "X".into(),
        address: "Y".into(),
        coordinates: Coordinates { latitude: 1.0, longitude: 1.0 },
        access_notes: None,
    };
    let candidates = CandidateSearch {
        location_id: id("LOC-1"),
        window: None,
        required_skills: vec![],
        dispatch_id: None,
        include_unavailable: true,
    };
    let search = DispatchSearch {
        tenant: id("tenant-1"),
        statuses: vec![],
        technician: None,
        location: None,
        service_order: None,
        scheduled: None,
        priority_min: None,
        after: None,
        limit: 10,
    };
    let absence = Absence { window: window(0, HOUR), reason: "holiday".into() };
    let reschedule = RescheduleInput { scheduled: Some(window(7 * HOUR, 8 * HOUR)), ..Default::default() };
    let input = TechnicianInput { name: Some("N".into()), ..Default::default() };
    let assign = AssignInput { technician_id: technician.clone(), crew: vec![] };
    vec![
        (Action::ReadDispatch, service.dispatch(caller, dispatch).await.err()),
        (Action::SearchDispatches, service.search_dispatches(caller, search).await.err()),
        (Action::ReadTechnician, service.technician(caller, technician).await.err()),
        (Action::ListTechnicians, service.technicians(caller, None, 10).await.err()),
        (Action::ListTechnicians, service.available_technicians(caller, candidates).await.err()),
        (Action::ReadLocations, service.location(caller, &id("LOC-1")).await.err()),
        (Action::ReadLocations, service.locations(caller, None, 10).await.err()),
        (Action::ReadAudit, service.audit(caller, "dispatch:DSP-1", 0, 10).await.err()),
        (Action::ReadEvents, service.events(caller, 0, None, None, 10).await.err()),
        (Action::ReadDevices, service.devices(caller, None).await.err()),
        (Action::ReadExceptions, service.exceptions(caller, None, true, 10).await.err()),
        (Action::ReadSla, service.sla_report(caller, window(0, HOUR)).await.err()),
        (Action::Confirm, service.confirm(plain(), dispatch, None).await.err()),
        (Action::Reject, service.reject(plain(), dispatch, "no").await.err()),
        (Action::SetPriority, service.set_priority(plain(), dispatch, Priority::High).await.err()),
        (Action::Assign, service.assign(plain(), dispatch, assign).await.err()),
        (Action::Reschedule, service.reschedule(plain(), dispatch, reschedule).await.err()),
        (Action::Unassign, service.unassign(plain(), dispatch).await.err()),
        (Action::ResolveException, service.resolve_exception(plain(), dispatch, "none", "so").await.err()),
        (Action::Cancel, service.cancel(plain(), dispatch, "why").await.err()),
        (Action::EndStopWork, service.end_stop_work(plain(), dispatch).await.err()),
        (Action::Reinstate, service.reinstate(plain(), dispatch).await.err()),
        (Action::SetTechnicianStatus, {
            let status = TechnicianStatus::OnBreak;
            service.set_technician_status(plain(), technician, status, None).await.err()
        }),
        (Action::ChangeTechnician, service.add_absence(plain(), technician, absence).await.err()),
        (Action::ChangeTechnician, service.put_technician(plain(), &id("TECH-NEW"), input).await.err()),
        (Action::ChangeLocation, service.put_location(plain(), &id("LOC-NEW"), location).await.err()),
        (Action::RevokeDevice, service.revoke_device(plain(), device).await.err()),
        (Action::CreateRequest, service.create_request(plain(), world.request("SO-NEW", None)).await.err()),
        (Action::Ingest, service.ingest(caller, "{}").await.err()),
    ]
}

#[tokio::test]
async fn every_command_with_every_role() {
    for role in Role::ALL {
        let world = World::new().await;
        let (dispatch, phone) = world.assigned("SO-1", "TECH-A").await;
        let caller = caller("tenant-1", "TECH-A", role);
        let answers = everything(&world, &caller, &dispatch, &id("TECH-A"), &phone.session.device).await;
        for action in Action::ALL.into_iter().filter(|action| *action != Action::Sync) {
            assert!(answers.iter().any(|(called, _)| *called == action), "{action:?} is not in the matrix");
        }
        for (action, error) in answers {
            let forbidden = matches!(error, Some(ServiceError::Forbidden { .. }));
            let may = action.roles().contains(&role);
            assert_eq!(forbidden, !may, "{role:?} {action:?}: {error:?}");
            if let Some(ServiceError::Forbidden { needs, .. }) = error {
                assert_eq!(needs, action.roles());
            }
        }
    }
}

#[tokio::test]
async fn another_tenants_things_do_not_exist() {
    let world = World::new().await;
    // Ids are counted per tenant: an id that the other tenant's own requests will not reach.
    for number in 2..12 {
        world.create(world.request(&format!("SO-{number}"), None)).await;
    }
    let (dispatch, phone) = world.assigned("SO-1", "TECH-A").await;
    world.furnish("tenant-2").await;
    for role in Role::ALL {
        let stranger = caller("tenant-2", "TECH-Z", role);
        let answers = everything(&world, &stranger, &dispatch, &id("TECH-A"), &phone.session.device).await;
        for (action, error) in answers.into_iter().filter(|(action, _)| action.roles().contains(&role)) {
            let of_a_dispatch = matches!(
                action,
                Action::ReadDispatch
                    | Action::Confirm
                    | Action::Reject
                    | Action::SetPriority
                    | Action::Assign
                    | Action::Reschedule
                    | Action::Unassign
                    | Action::ResolveException
                    | Action::Cancel
                    | Action::EndStopWork
                    | Action::Reinstate
            );
            if of_a_dispatch {
                assert_eq!(error, Some(ServiceError::DispatchNotFound(dispatch.clone())), "{role:?} {action:?}");
            }
            if action == Action::RevokeDevice {
                assert_eq!(error, Some(ServiceError::DeviceNotFound(phone.session.device.clone())));
            }
        }
    }
    assert_eq!(world.see(&dispatch).await.revision, 2, "nothing has touched it");

    // A phone of the other tenant gets the answer that it would get for an id that nobody has.
    let mut other = Phone::new(&world, "TECH-A", 9);
    other.session.tenant = id("tenant-2");
    other.outbox.push((dispatch.clone(), b"x".to_vec()));
    let known = other.push(&world).await.ack.lanes.remove(0).refusal.unwrap();
    other.outbox.push((id("DSP-4711"), b"x".to_vec()));
    let unknown = other.push(&world).await.ack.lanes.remove(0).refusal.unwrap();
    assert_eq!((known.code, known.remedy), (unknown.code, unknown.remedy));
    assert!(world.service.fetch(&other.session, std::slice::from_ref(&dispatch)).await.unwrap().iter().all(|item| {
        matches!(item, sync_core::protocol::FeedItem::Gone { tombstone } if tombstone.title.is_empty())
    }));
}

#[tokio::test]
async fn a_technician_sees_only_their_own() {
    let world = World::new().await;
    let (dispatch, mut phone) = world.assigned("SO-1", "TECH-A").await;
    let (anna, berta) =
        (caller("tenant-1", "TECH-A", Role::Technician), caller("tenant-1", "TECH-B", Role::Technician));
    assert!(world.service.dispatch(&anna, &dispatch).await.is_ok());
    let error = world.service.dispatch(&berta, &dispatch).await.unwrap_err();
    assert_eq!(error, ServiceError::DispatchNotFound(dispatch.clone()));
    let error = world.service.technician(&berta, &id("TECH-A")).await.unwrap_err();
    assert_eq!(error, ServiceError::TechnicianNotFound(id("TECH-A")));
    let status = TechnicianStatus::OnBreak;
    let error =
        world.service.set_technician_status(Request::plain(&berta), &id("TECH-A"), status, None).await.unwrap_err();
    assert_eq!(error, ServiceError::TechnicianNotFound(id("TECH-A")));

    // Who lost the visit may still read it, and state what was done under the old epoch.
    world.assign(&dispatch, "TECH-B").await.unwrap();
    assert!(world.service.dispatch(&anna, &dispatch).await.is_ok());
    phone.act(&dispatch, FactKind::TimeEntry { category: "travel".into(), minutes: 9 }, world.now());
    let outcome = phone.push(&world).await;
    assert_eq!((outcome.ack.lanes[0].accepted, &outcome.ack.lanes[0].update), (1, &None));
    assert!(outcome.feed.is_empty());
}
