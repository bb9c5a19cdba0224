//! An ordinary day.

use crate::world::{HOUR, MINUTE, Phone, World, caller, id, window};
use crm_dispatch_server::events::Payload;
use crm_dispatch_server::service::model::{DispatchSearch, TechnicianStatus};
use crm_dispatch_server::service::office::{AssignInput, RescheduleInput};
use crm_dispatch_server::service::{IdempotencyKey, Outcome, Request, Role, ServiceError, Signal};
use sync_core::domain::plan::Priority;
use sync_core::domain::{FactKind, TombstoneReason, VisitStatus};
use sync_core::protocol::FeedItem;

#[tokio::test]
async fn a_visit_from_the_request_to_its_completion() {
    let world = World::new().await;
    let visit = world.create(world.request("SO-1", Some(window(3 * HOUR, 4 * HOUR)))).await;
    assert_eq!(visit.dispatch_id.as_str(), "DSP-1");
    assert_eq!((visit.status, visit.revision), (VisitStatus::Pending, 1));
    let dispatch = visit.dispatch_id;

    let assigned = world.assign(&dispatch, "TECH-A").await.unwrap();
    assert_eq!(assigned.status, VisitStatus::Assigned);
    assert_eq!(assigned.undelivered_to, [id("TECH-A")]);

    let mut phone = Phone::new(&world, "TECH-A", 1);
    phone.prime(&world).await;
    let delivered = world.see(&dispatch).await;
    assert_eq!(delivered.status, VisitStatus::Dispatched, "it has reached the phone");
    assert!(delivered.undelivered_to.is_empty());
    assert_eq!(delivered.assignment.unwrap().delivered_at, Some(world.now()));

    let eta = world.now().plus_millis(3 * HOUR);
    phone.act(&dispatch, FactKind::Accepted { eta: Some(eta) }, world.now());
    let outcome = phone.push(&world).await;
    assert_eq!(outcome.ack.lanes[0].accepted, 1);
    assert!(outcome.ack.lanes[0].verdicts.is_empty());
    assert_eq!(outcome.feed.len(), 1);
    assert_eq!(world.see(&dispatch).await.status, VisitStatus::Confirmed);

    world.pass(2 * HOUR + 40 * MINUTE);
    phone.act(&dispatch, FactKind::TravelStarted { eta: None }, world.now());
    phone.push(&world).await;
    let dora = world.dispatcher();
    let technician = world.service.technician(&dora, &id("TECH-A")).await.unwrap();
    assert_eq!(technician.status, TechnicianStatus::OnRoute);

    world.pass(20 * MINUTE);
    let arrived_at = world.now();
    phone.act(&dispatch, FactKind::Arrived, arrived_at);
    phone.act(&dispatch, FactKind::WorkStarted, world.now());
    phone.act(&dispatch, FactKind::TimeEntry { category: "labour".into(), minutes: 40 }, world.now());
    phone.push(&world).await;
    world.pass(40 * MINUTE);
    phone.act(&dispatch, FactKind::Completed, world.now());
    phone.push(&world).await;

    let done = world.see(&dispatch).await;
    assert_eq!(done.status, VisitStatus::Completed);
    assert_eq!(done.arrived_at, Some(arrived_at));
    assert_eq!(done.on_time, Some(true));
    assert_eq!(world.service.technician(&dora, &id("TECH-A")).await.unwrap().status, TechnicianStatus::Available);
    assert_eq!(
        world.told(&dispatch).await,
        ["assigned TECH-A", "DispatchConfirmedEvent", "ON_ROUTE", "ON_SITE", "AVAILABLE"]
    );
    let events = world.events().await;
    let confirmed = events.iter().find(|event| event.payload.event_type() == "DispatchConfirmedEvent").unwrap();
    assert!(matches!(&confirmed.payload, Payload::DispatchConfirmed { eta: told, .. } if *told == eta));
    let ids: std::collections::BTreeSet<_> = events.iter().map(|event| &event.event_id).collect();
    assert_eq!(ids.len(), events.len(), "every event has its own id");
    assert_eq!(
        world.audit(&format!("dispatch:{dispatch}")).await,
        ["DISPATCH_REQUESTED", "DISPATCH_ASSIGNED", "FACTS_RULED", "FACTS_RULED", "FACTS_RULED", "FACTS_RULED"]
    );

    // The calendar is free again: another visit at the same hour fits.
    let second = world.visit("SO-2").await;
    assert_eq!(world.assign(&second, "TECH-A").await.unwrap().status, VisitStatus::Assigned);
}

#[tokio::test]
async fn a_technician_confirms_or_rejects_at_a_desk() {
    let world = World::new().await;
    let dispatch = world.visit("SO-1").await;
    world.assign(&dispatch, "TECH-A").await.unwrap();
    let (anna, berta) =
        (caller("tenant-1", "TECH-A", Role::Technician), caller("tenant-1", "TECH-B", Role::Technician));

    let stranger = world.service.confirm(Request::plain(&berta), &dispatch, None).await.unwrap_err();
    assert_eq!(stranger, ServiceError::DispatchNotFound(dispatch.clone()));

    let view = world.service.confirm(Request::plain(&anna), &dispatch, None).await.unwrap().into_value().unwrap();
    assert_eq!(view.status, VisitStatus::Confirmed);
    let events = world.events().await;
    let planned = window(3 * HOUR, 4 * HOUR).start;
    assert!(
        events.iter().any(|event| matches!(&event.payload,
        Payload::DispatchConfirmed { eta, .. } if *eta == planned)),
        "without an eta the window's start is promised"
    );

    let view = world.service.reject(Request::plain(&anna), &dispatch, "van broke down").await.unwrap();
    let view = view.into_value().unwrap();
    assert_eq!(view.status, VisitStatus::Pending);
    assert_eq!(view.reason.as_deref(), Some("van broke down"));
    assert_eq!(view.former_assignments.len(), 1);
    assert!(world.told(&dispatch).await.contains(&"rejected van broke down".to_owned()));

    let late = world.service.confirm(Request::plain(&anna), &dispatch, None).await.unwrap_err();
    assert_eq!(late.code(), "ILLEGAL_TRANSITION");
    assert_eq!(world.assign(&dispatch, "TECH-B").await.unwrap().status, VisitStatus::Assigned);
    // The rejected one's phone gets a card, the new one's the visit.
    let mut phone = Phone::new(&world, "TECH-B", 1);
    phone.prime(&world).await;
    assert_eq!(phone.documents.len(), 1);
}

#[tokio::test]
async fn connected_phones_are_told_at_once_and_a_lost_visit_leaves_a_card() {
    let world = World::new().await;
    let (dispatch, mut anna) = world.assigned("SO-1", "TECH-A").await;
    let hub = world.service.hub();
    let feed_a = hub.subscribe(&world.tenant, &id("TECH-A"), &anna.session.device);
    let feed_b = hub.subscribe(&world.tenant, &id("TECH-B"), &id("TECH-B-phone-1"));

    let dora = world.dispatcher();
    world.service.set_priority(Request::plain(&dora), &dispatch, Priority::High).await.unwrap();
    let Signal::Notice(notice) = feed_a.next().await else { panic!("a notice") };
    assert_eq!(notice.from_seq, anna.cursor);
    assert!(matches!(notice.items[0], FeedItem::Changes { .. }), "the phone has the visit: only what is new");
    anna.take(notice.items.to_vec());
    assert_eq!(anna.documents[&dispatch].plan().priority, Priority::High);

    world.assign(&dispatch, "TECH-B").await.unwrap();
    let Signal::Notice(gone) = feed_a.next().await else { panic!("a notice") };
    anna.take(gone.items.to_vec());
    assert_eq!((anna.gone[0].reason, anna.gone[0].by.as_str()), (TombstoneReason::Reassigned, "dora"));
    let Signal::Notice(new) = feed_b.next().await else { panic!("a notice") };
    assert!(matches!(new.items[0], FeedItem::Snapshot { .. }), "the other phone has nothing: the whole visit");

    let cancelled = world.cancel(&dispatch, "customer called").await;
    assert_eq!(cancelled.status, VisitStatus::Cancelled);
    assert!(!cancelled.cancellation.unwrap().delivered, "cancelled, not yet delivered");
    let Signal::Notice(card) = feed_b.next().await else { panic!("a notice") };
    let FeedItem::Gone { tombstone } = &card.items[0] else { panic!("a card") };
    assert_eq!(tombstone.note.as_deref(), Some("customer called"));
}

#[tokio::test]
async fn a_second_connection_of_a_phone_replaces_the_first() {
    let world = World::new().await;
    let hub = world.service.hub();
    let first = hub.subscribe(&world.tenant, &id("TECH-A"), &id("phone"));
    let second = hub.subscribe(&world.tenant, &id("TECH-A"), &id("phone"));
    assert_eq!(first.next().await, Signal::Disconnect(sync_core::protocol::ByeCode::Replaced));
    assert_eq!(second.try_next(), None);
    drop(first);
    assert_eq!(hub.connections(), 1);
    drop(second);
    assert!(!hub.is_connected(&world.tenant, &id("TECH-A")));
}

#[tokio::test]
async fn a_slow_subscriber_loses_its_queue_and_nobody_waits() {
    let world = World::new().await;
    let (dispatch, _phone) = world.assigned("SO-1", "TECH-A").await;
    let feed = world.service.hub().subscribe(&world.tenant, &id("TECH-A"), &id("slow"));
    let dora = world.dispatcher();
    for round in 0..70 {
        let priority = if round % 2 == 0 { Priority::High } else { Priority::Low };
        world.service.set_priority(Request::plain(&dora), &dispatch, priority).await.unwrap();
    }
    assert_eq!(feed.next().await, Signal::Lagged);
    assert_eq!(feed.try_next(), None);
}

#[tokio::test]
async fn the_same_call_again_gets_the_same_answer_and_has_one_effect() {
    let world = World::new().await;
    let dora = world.dispatcher();
    let key = IdempotencyKey { key: "k-1", request_hash: "hash-1" };
    let request = Request { idempotency: Some(key), ..Request::plain(&dora) };
    let first = world.service.create_request(request, world.request("SO-1", None)).await.unwrap();
    let again = world.service.create_request(request, world.request("SO-1", None)).await.unwrap();
    assert!(matches!(again, Outcome::Replayed(_)));
    assert_eq!(first.reply(), again.reply());
    assert_eq!(first.reply().status, 201);
    let other =
        Request { idempotency: Some(IdempotencyKey { key: "k-1", request_hash: "hash-2" }), ..Request::plain(&dora) };
    let error = world.service.create_request(other, world.request("SO-2", None)).await.unwrap_err();
    assert_eq!(error, ServiceError::IdempotencyKeyReused);
    let twice = world.service.create_request(Request::plain(&dora), world.request("SO-1", None)).await.unwrap_err();
    assert_eq!(twice.code(), "SERVICE_ORDER_EXISTS");
}

#[tokio::test]
async fn searching_lists_in_the_order_of_the_day() {
    let world = World::new().await;
    for (order, hour) in [("SO-3", 5), ("SO-1", 3), ("SO-2", 4)] {
        world.create(world.request(order, Some(window(hour * HOUR, (hour + 1) * HOUR)))).await;
    }
    let search = DispatchSearch {
        tenant: world.tenant.clone(),
        statuses: vec![VisitStatus::Pending],
        technician: None,
        location: None,
        service_order: None,
        scheduled: None,
        priority_min: None,
        after: None,
        limit: 2,
    };
    let first = world.service.search_dispatches(&world.dispatcher(), search.clone()).await.unwrap();
    let orders: Vec<_> = first.items.iter().map(|view| view.service_order_id.to_string()).collect();
    assert_eq!(orders, ["SO-1", "SO-2"]);
    let rest = DispatchSearch { after: first.next, ..search };
    let rest = world.service.search_dispatches(&world.dispatcher(), rest).await.unwrap();
    assert_eq!((rest.items.len(), rest.next), (1, None));
}

#[tokio::test]
async fn a_moved_visit_moves_in_the_calendar() {
    let world = World::new().await;
    let dora = world.dispatcher();
    let (first, second) = (world.visit("SO-1").await, world.visit("SO-2").await);
    world.assign(&first, "TECH-A").await.unwrap();
    assert_eq!(world.assign(&second, "TECH-A").await.unwrap_err().code(), "ASSIGNMENT_CONFLICT");
    let later = RescheduleInput { scheduled: Some(window(8 * HOUR, 9 * HOUR)), ..Default::default() };
    world.service.reschedule(Request::plain(&dora), &first, later).await.unwrap();
    world.assign(&second, "TECH-A").await.unwrap();
    let back = RescheduleInput { scheduled: Some(window(3 * HOUR, 4 * HOUR)), ..Default::default() };
    let error = world.service.reschedule(Request::plain(&dora), &first, back).await.unwrap_err();
    assert_eq!(error, ServiceError::AssignmentConflict { technician: id("TECH-A"), dispatch: second.clone() });

    world.service.unassign(Request::plain(&dora), &second).await.unwrap();
    let crew = AssignInput { technician_id: id("TECH-B"), crew: vec![id("TECH-C")] };
    let view = world.service.assign(Request::plain(&dora), &second, crew).await.unwrap().into_value().unwrap();
    assert_eq!(view.assignment.unwrap().crew, [id("TECH-C")]);
    let third = world.visit("SO-3").await;
    assert_eq!(world.assign(&third, "TECH-C").await.unwrap_err().code(), "ASSIGNMENT_CONFLICT");
}
