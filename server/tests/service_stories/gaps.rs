//! What the phone made and the server lacks.

use crate::world::{HOUR, MINUTE, Phone, World, id};
use crm_dispatch_server::service::{Request, ServiceError};
use sync_core::domain::rules::sequence::GAP_HOLD_MS;
use sync_core::domain::{DispatchId, FactKind, RulingReason, VisitStatus};
use sync_core::protocol::{ByeCode, Remedy};

#[tokio::test]
async fn a_fact_waits_for_its_predecessor_and_counts_when_that_has_come() {
    let world = World::new().await;
    let (first, mut phone) = world.assigned("SO-1", "TECH-A").await;
    let second = world.create(world.request("SO-2", None)).await.dispatch_id;
    world.assign(&second, "TECH-A").await.unwrap();
    phone.prime(&world).await;
    phone.act(&first, FactKind::Completed, world.now());
    phone.act(&second, FactKind::Arrived, world.now());
    phone.act(&second, FactKind::TimeEntry { category: "travel".into(), minutes: 5 }, world.now());
    // The first visit's lane is stuck somewhere: only the second one's arrives.
    let stuck = phone.outbox.remove(0);
    let outcome = phone.push(&world).await;
    assert_eq!(outcome.ack.lanes[0].accepted, 2, "the change is durable, so the phone may forget it");
    assert_eq!(world.see(&second).await.status, VisitStatus::Dispatched, "its arrival waits");
    let health = world.service.devices(&world.dispatcher(), None).await.unwrap();
    assert_eq!((health[0].missing_actions, health[0].behind), (1, true));

    phone.outbox.push(stuck);
    phone.push(&world).await;
    assert_eq!(world.see(&first).await.status, VisitStatus::Completed);
    assert_eq!(world.see(&second).await.status, VisitStatus::Arrived, "released, though its visit was in no lane");
    assert_eq!(world.service.devices(&world.dispatcher(), None).await.unwrap()[0].missing_actions, 0);
    phone.prime(&world).await;
    let view = phone.documents[&second].view();
    assert!(view.rulings.values().all(|ruling| !ruling.gap_flagged || ruling.reason == RulingReason::InOrder));
    assert_eq!(view.rulings.len(), 2);
}

#[tokio::test]
async fn a_fact_whose_predecessor_never_comes_counts_after_a_while_and_is_flagged() {
    let world = World::new().await;
    let (dispatch, mut phone) = world.assigned("SO-1", "TECH-A").await;
    phone.seq = 2; // Two actions were lost with a damaged file.
    let fact = phone.act(&dispatch, FactKind::Arrived, world.now());
    phone.push(&world).await;
    assert_eq!(world.see(&dispatch).await.status, VisitStatus::Dispatched);
    world.pass(GAP_HOLD_MS - 1);
    assert_eq!(world.service.sweep().await.unwrap().facts_released, 0);
    world.pass(2);
    assert_eq!(world.service.sweep().await.unwrap().facts_released, 1);
    assert_eq!(world.see(&dispatch).await.status, VisitStatus::Arrived);
    assert_eq!(world.service.sweep().await.unwrap().facts_released, 0);
    phone.prime(&world).await;
    assert!(phone.documents[&dispatch].view().rulings[&fact].gap_flagged);
    assert!(world.audit("device:TECH-A-phone-1").await.contains(&"MISSING_ACTIONS_GIVEN_UP".to_owned()));

    // What comes next does not wait for the same gap again.
    phone.act(&dispatch, FactKind::WorkStarted, world.now());
    phone.push(&world).await;
    assert_eq!(world.see(&dispatch).await.status, VisitStatus::InProgress);
}

#[tokio::test]
async fn what_comes_again_because_an_answer_was_lost_has_no_second_effect() {
    let world = World::new().await;
    let (dispatch, mut phone) = world.assigned("SO-1", "TECH-A").await;
    phone.act(&dispatch, FactKind::Arrived, world.now());
    phone.act(&dispatch, FactKind::PartUsed { part: id("FILTER"), quantity: 1, serial: None }, world.now());
    let push = phone.packed();
    let first = world.service.push(&phone.session, &push).await.unwrap();
    let revision = world.see(&dispatch).await.revision;
    let again = world.service.push(&phone.session, &push).await.unwrap();
    assert_eq!(again.ack.lanes[0].accepted, first.ack.lanes[0].accepted);
    assert_eq!(again.ack.lanes[0].refusal, None);
    assert!(again.feed.is_empty());
    assert_eq!(world.see(&dispatch).await.revision, revision);
    assert_eq!(world.told(&dispatch).await, ["assigned TECH-A", "ON_SITE"]);
    let technician = world.service.technician(&world.dispatcher(), &id("TECH-A")).await.unwrap();
    assert_eq!(technician.van_stock[&id("FILTER")], 1);
}

#[tokio::test]
async fn a_poisoned_lane_holds_up_nobody_and_is_kept_for_the_office() {
    let world = World::new().await;
    let (first, mut phone) = world.assigned("SO-1", "TECH-A").await;
    let second = world.create(world.request("SO-2", None)).await.dispatch_id;
    world.assign(&second, "TECH-A").await.unwrap();
    let third = world.create(world.request("SO-3", None)).await.dispatch_id;
    world.assign(&third, "TECH-B").await.unwrap();
    phone.prime(&world).await;
    phone.act(&first, FactKind::Accepted { eta: None }, world.now());
    phone.outbox.push((second.clone(), b"not a change at all".to_vec()));
    phone.outbox.push((id("DSP-999"), b"whatever".to_vec()));
    phone.outbox.push((third.clone(), b"of somebody else".to_vec()));
    let lost: DispatchId = id("DSP-999");
    let outcome = phone.push(&world).await;
    let [good, poison, unknown, foreign] = &outcome.ack.lanes[..] else { panic!("four lanes, four answers") };
    assert_eq!((good.accepted, &good.refusal), (1, &None));
    let refused =
        |lane: &sync_core::protocol::LaneAck| lane.refusal.clone().map(|refusal| (refusal.code, refusal.remedy));
    assert_eq!(refused(poison), Some(("CHANGE_MALFORMED".into(), Remedy::Park)));
    assert_eq!(refused(unknown), Some(("DISPATCH_NOT_FOUND".into(), Remedy::Park)));
    assert_eq!(refused(foreign), Some(("DISPATCH_NOT_FOUND".into(), Remedy::Park)));
    assert_eq!(world.see(&first).await.status, VisitStatus::Confirmed);
    for (dispatch, payload) in [
        (&second, "6e6f742061206368616e676520617420616c6c"),
        (&third, "6f6620736f6d65626f647920656c7365"),
        (&lost, "7768617465766572"),
    ] {
        let kept = world.service.exceptions(&world.dispatcher(), Some(dispatch), true, 10).await.unwrap();
        assert_eq!(kept.len(), 1);
        assert_eq!(kept[0].detail["payloadHex"], payload);
    }
    let view = world.see(&third).await;
    assert_eq!((view.status, view.open_exceptions), (VisitStatus::Assigned, 1));
    // Of a visit that is not here as well: a restore may have lost it. The office settles it as any other.
    let dora = world.dispatcher();
    let kept = world.service.exceptions(&dora, Some(&lost), true, 10).await.unwrap();
    let settle = |words: &'static str| {
        world.service.resolve_exception(Request::plain(&dora), &lost, &kept[0].exception_id, words)
    };
    assert_eq!(settle(" ").await.unwrap_err().code(), "VALIDATION_FAILED");
    let settled = settle("asked the technician, and made the visit anew").await.unwrap().into_value().unwrap();
    assert_eq!(settled.resolved_by.as_deref(), Some("dora"));
    assert_eq!(world.service.exceptions(&dora, Some(&lost), true, 10).await.unwrap(), []);
}

#[tokio::test]
async fn a_lost_phone_is_revoked_and_what_it_still_sends_is_quarantined() {
    let world = World::new().await;
    let (dispatch, mut phone) = world.assigned("SO-1", "TECH-A").await;
    let feed = world.service.hub().subscribe(&world.tenant, &id("TECH-A"), &phone.session.device);
    phone.act(&dispatch, FactKind::Arrived, world.now());
    world.pass(MINUTE);
    let dora = world.dispatcher();
    let view = world.service.revoke_device(Request::plain(&dora), &phone.session.device).await.unwrap();
    assert_eq!(view.into_value().unwrap().revoked_at, Some(world.now()));
    assert_eq!(feed.next().await, crm_dispatch_server::service::Signal::Disconnect(ByeCode::DeviceRevoked));
    let hello = world.service.hello(&phone.session, &phone.hello()).await.unwrap_err();
    assert_eq!(hello, ServiceError::DeviceRevoked(phone.session.device.clone()));

    world.pass(HOUR);
    let outcome = phone.push(&world).await;
    assert_eq!(outcome.ack.lanes[0].verdicts[0].reason, RulingReason::DeviceRevoked);
    let view = world.see(&dispatch).await;
    assert_eq!((view.arrived_at, view.open_exceptions), (None, 1));
    // A note from that phone is not let into the shared report.
    let note = sync_core::document::Edit::Note { at: 0, delete: 0, insert: "I have your phone".into() };
    phone.edit(&dispatch, &note, world.now());
    let outcome = phone.push(&world).await;
    assert_eq!(outcome.ack.lanes[0].refusal.as_ref().unwrap().code, "DEVICE_REVOKED");
    assert_eq!(world.see(&dispatch).await.open_exceptions, 2);
    world.service.wiped(&phone.session, 3).await.unwrap();
    let health = world.service.devices(&dora, None).await.unwrap();
    assert_eq!((health[0].wiped_at, health[0].pending), (Some(world.now()), 3));
    // A new phone of the same technician has everything, and not the note.
    let mut next = Phone::new(&world, "TECH-A", 2);
    next.prime(&world).await;
    assert_eq!(next.documents[&dispatch].report().notes, "");
}

#[tokio::test]
async fn a_phone_belongs_to_one_technician() {
    let world = World::new().await;
    let (_, phone) = world.assigned("SO-1", "TECH-A").await;
    let mut other = Phone::new(&world, "TECH-B", 1);
    other.session.device = phone.session.device.clone();
    let error = world.service.hello(&other.session, &other.hello()).await.unwrap_err();
    assert_eq!(error, ServiceError::DeviceForeign(phone.session.device.clone()));
}

#[tokio::test]
async fn a_visit_that_is_long_over_leaves_the_phone() {
    let world = World::new().await;
    let (dispatch, mut phone) = world.assigned("SO-1", "TECH-A").await;
    phone.act(&dispatch, FactKind::Completed, world.now().plus_millis(HOUR));
    phone.push(&world).await;
    phone.prime(&world).await;
    assert_eq!(phone.documents.len(), 1, "still in the window");
    world.pass(9 * 24 * HOUR);
    assert_eq!(world.service.sweep().await.unwrap().let_go, 1);
    phone.prime(&world).await;
    assert!(phone.documents.is_empty());
    assert_eq!(world.service.sweep().await.unwrap().let_go, 0);
    assert_eq!(world.see(&dispatch).await.status, VisitStatus::Completed, "the office still has it");
}
