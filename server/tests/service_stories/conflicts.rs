//! Office and technician disagree, because one of them did not know (the conflict rules on the wire).

use crate::world::{HOUR, MINUTE, Phone, World, id, window};
use crm_dispatch_server::service::office::RescheduleInput;
use crm_dispatch_server::service::{Request, Signal};
use sync_core::domain::plan::CancellationEffect;
use sync_core::domain::rules::sla::BreachStatus;
use sync_core::domain::{FactKind, RulingReason, TombstoneReason, Verdict, VisitStatus};

#[tokio::test]
async fn a_visit_completed_before_it_was_cancelled_stands() {
    let world = World::new().await;
    let (dispatch, mut phone) = world.assigned("SO-1", "TECH-A").await;
    // In a cellar without reception.
    phone.act(&dispatch, FactKind::Arrived, world.now().plus_millis(10 * MINUTE));
    phone.act(&dispatch, FactKind::Completed, world.now().plus_millis(30 * MINUTE));
    world.pass(HOUR);
    let cancelled = world.cancel(&dispatch, "no longer needed").await;
    assert_eq!(cancelled.status, VisitStatus::Cancelled);
    assert!(!cancelled.cancellation.unwrap().delivered);

    let outcome = phone.push(&world).await;
    let reasons: Vec<_> = outcome.ack.lanes[0].verdicts.iter().map(|verdict| verdict.reason).collect();
    assert_eq!(
        reasons,
        [RulingReason::OnSiteBeforeCancellation, RulingReason::CompletedBeforeCancellation],
        "the technician is told how it was decided"
    );
    let view = world.see(&dispatch).await;
    assert_eq!(view.status, VisitStatus::Completed);
    assert_eq!(view.cancellation.unwrap().effect, CancellationEffect::Void);
    assert!(!view.billing_hold);
    assert_eq!(view.open_exceptions, 0);
    phone.prime(&world).await;
    assert!(phone.documents.contains_key(&dispatch), "the visit is back on the phone");
}

#[tokio::test]
async fn a_visit_completed_after_it_was_cancelled_waits_for_a_person() {
    let world = World::new().await;
    let (dispatch, mut phone) = world.assigned("SO-1", "TECH-A").await;
    world.pass(HOUR);
    world.cancel(&dispatch, "no longer needed").await;
    phone.act(&dispatch, FactKind::Completed, world.now().plus_millis(30 * MINUTE));
    world.pass(HOUR);
    let outcome = phone.push(&world).await;
    assert_eq!(outcome.ack.lanes[0].verdicts[0].reason, RulingReason::CompletedAfterCancellation);
    assert_eq!(outcome.ack.lanes[0].verdicts[0].verdict, Verdict::Exception);
    assert_eq!(outcome.ack.lanes[0].update, None, "the phone does not hold the visit any more");
    let view = world.see(&dispatch).await;
    assert_eq!((view.status, view.billing_hold, view.open_exceptions), (VisitStatus::Cancelled, true, 1));

    let dora = world.dispatcher();
    let open = world.service.exceptions(&dora, Some(&dispatch), true, 10).await.unwrap();
    assert_eq!((open.len(), open[0].rule), (1, Some(2)));
    assert_eq!(open[0].detail["fact"]["kind"], "completed", "the whole fact is there to decide by");
    let resolved = world
        .service
        .resolve_exception(Request::plain(&dora), &dispatch, &open[0].exception_id, "billed half")
        .await
        .unwrap();
    assert_eq!(resolved.into_value().unwrap().resolved_by.as_deref(), Some("dora"));
    assert_eq!(world.see(&dispatch).await.open_exceptions, 0);
    // The office lets the completion stand.
    let back = world.service.reinstate(Request::plain(&dora), &dispatch).await.unwrap().into_value().unwrap();
    assert_eq!((back.status, back.billing_hold), (VisitStatus::Completed, false));
}

#[tokio::test]
async fn who_had_started_keeps_the_visit() {
    let world = World::new().await;
    let (dispatch, mut anna) = world.assigned("SO-1", "TECH-A").await;
    anna.act(&dispatch, FactKind::Arrived, world.now().plus_millis(5 * MINUTE));
    world.pass(HOUR);
    world.assign(&dispatch, "TECH-B").await.unwrap();
    let mut berta = Phone::new(&world, "TECH-B", 1);
    berta.prime(&world).await;
    let feed_b = world.service.hub().subscribe(&world.tenant, &id("TECH-B"), &berta.session.device);

    let outcome = anna.push(&world).await;
    assert_eq!(outcome.ack.lanes[0].verdicts[0].reason, RulingReason::KeepsVisit);
    let view = world.see(&dispatch).await;
    assert_eq!((view.status, view.assignment.as_ref().unwrap().epoch), (VisitStatus::Arrived, 3));
    assert_eq!(view.assignment.unwrap().technician_id, id("TECH-A"));
    assert_eq!(world.told(&dispatch).await, ["assigned TECH-A", "assigned TECH-B", "assigned TECH-A", "ON_SITE"]);
    let Signal::Notice(notice) = feed_b.next().await else { panic!("a notice") };
    berta.take(notice.items.to_vec());
    assert_eq!(berta.gone[0].reason, TombstoneReason::Withdrawn);
    // The calendars follow: B is free at that hour, A is not.
    let other = world.visit("SO-2").await;
    assert_eq!(world.assign(&other, "TECH-A").await.unwrap_err().code(), "ASSIGNMENT_CONFLICT");
    world.assign(&other, "TECH-B").await.unwrap();

    // A late rejection by B is history.
    berta.documents.insert(dispatch.clone(), anna.documents[&dispatch].clone());
    berta.act(&dispatch, FactKind::Rejected { reason: "too far".into() }, world.now());
    let outcome = berta.push(&world).await;
    assert_eq!(outcome.ack.lanes[0].verdicts[0].reason, RulingReason::FormerEpoch);
    assert_eq!(world.see(&dispatch).await.status, VisitStatus::Arrived);
}

#[tokio::test]
async fn a_kept_visit_counts_even_where_the_calendar_collides() {
    let world = World::new().await;
    let (dispatch, mut anna) = world.assigned("SO-1", "TECH-A").await;
    anna.act(&dispatch, FactKind::Arrived, world.now().plus_millis(5 * MINUTE));
    world.pass(HOUR);
    world.assign(&dispatch, "TECH-B").await.unwrap();
    // Meanwhile A's hour is given to another visit.
    let other = world.visit("SO-2").await;
    world.assign(&other, "TECH-A").await.unwrap();
    let outcome = anna.push(&world).await;
    assert_eq!(outcome.ack.lanes[0].verdicts[0].reason, RulingReason::KeepsVisit);
    assert_eq!(world.see(&dispatch).await.status, VisitStatus::Arrived, "what happened is never refused");
    assert!(world.audit(&format!("dispatch:{dispatch}")).await.contains(&"CALENDAR_COLLISION".to_owned()));
}

#[tokio::test]
async fn a_window_moved_while_travelling_waits_for_the_technician() {
    let world = World::new().await;
    let (dispatch, mut phone) = world.assigned("SO-1", "TECH-A").await;
    phone.act(&dispatch, FactKind::TravelStarted { eta: None }, world.now());
    phone.push(&world).await;
    let dora = world.dispatcher();
    let moved = RescheduleInput {
        arrival_window: Some(window(5 * HOUR, 6 * HOUR)),
        customer_confirmed: true,
        ..RescheduleInput::default()
    };
    let view = world.service.reschedule(Request::plain(&dora), &dispatch, moved).await.unwrap().into_value().unwrap();
    assert_eq!(view.proposed_window, Some(window(5 * HOUR, 6 * HOUR)));
    assert_eq!(view.confirmed_window, Some(window(3 * HOUR, 4 * HOUR)));
    phone.prime(&world).await;
    phone.act(&dispatch, FactKind::WindowAcknowledged { window_revision: 1 }, world.now());
    phone.push(&world).await;
    let view = world.see(&dispatch).await;
    assert_eq!((view.proposed_window, view.confirmed_window), (None, Some(window(5 * HOUR, 6 * HOUR))));
}

#[tokio::test]
async fn stopping_work_ends_in_cannot_complete_with_the_labour_recorded() {
    let world = World::new().await;
    let (dispatch, mut phone) = world.assigned("SO-1", "TECH-A").await;
    phone.act(&dispatch, FactKind::Arrived, world.now());
    phone.push(&world).await;
    let view = world.cancel(&dispatch, "order withdrawn").await;
    assert_eq!((view.status, view.stop_work), (VisitStatus::Arrived, true));
    phone.prime(&world).await;
    assert!(phone.documents.contains_key(&dispatch), "the technician is there and has to see the request");
    phone.act(&dispatch, FactKind::TimeEntry { category: "labour".into(), minutes: 25 }, world.now());
    phone.act(&dispatch, FactKind::CannotComplete { reason: "stopped by the office".into() }, world.now());
    let outcome = phone.push(&world).await;
    assert!(outcome.ack.lanes[0].verdicts.is_empty());
    assert_eq!(world.see(&dispatch).await.status, VisitStatus::CannotComplete);
    let view = phone.documents[&dispatch].view();
    assert_eq!(sync_core::domain::fold(&view).time[0].minutes, 25);
}

#[tokio::test]
async fn an_announced_breach_is_retracted_when_the_arrival_was_in_time() {
    let world = World::new().await;
    let mut request = world.request("SO-1", Some(window(3 * HOUR, 4 * HOUR)));
    let deadline = world.now().plus_millis(2 * HOUR);
    request.sla_deadline = Some(deadline);
    let dispatch = world.create(request).await.dispatch_id;
    world.assign(&dispatch, "TECH-A").await.unwrap();
    let mut phone = Phone::new(&world, "TECH-A", 1);
    phone.prime(&world).await;
    let arrived_at = world.now().plus_millis(HOUR);
    phone.act(&dispatch, FactKind::Arrived, arrived_at);

    world.pass(2 * HOUR + MINUTE);
    assert_eq!(world.service.sweep().await.unwrap().breaches, 1);
    let sla = world.see(&dispatch).await.sla.unwrap();
    assert_eq!((sla.status, sla.announced_at), (BreachStatus::Provisional, world.now()));
    assert_eq!(world.service.sweep().await.unwrap().breaches, 0, "announced once");

    world.pass(HOUR);
    phone.push(&world).await;
    let sla = world.see(&dispatch).await.sla.unwrap();
    assert_eq!((sla.status, sla.arrived_at), (BreachStatus::Retracted, Some(arrived_at)));
    assert_eq!(sla.announced_at, deadline.plus_millis(MINUTE), "both facts are kept");
    let report = world.service.sla_report(&world.dispatcher(), window(0, 24 * HOUR)).await.unwrap();
    assert_eq!((report.retracted, report.confirmed, report.provisional), (1, 0, 0));
}

#[tokio::test]
async fn a_breach_is_confirmed_once_the_phone_has_reported() {
    let world = World::new().await;
    let mut request = world.request("SO-1", Some(window(3 * HOUR, 4 * HOUR)));
    request.sla_deadline = Some(world.now().plus_millis(HOUR));
    let dispatch = world.create(request).await.dispatch_id;
    world.assign(&dispatch, "TECH-A").await.unwrap();
    let mut phone = Phone::new(&world, "TECH-A", 1);
    phone.prime(&world).await;
    world.pass(2 * HOUR);
    world.service.sweep().await.unwrap();
    assert_eq!(world.see(&dispatch).await.sla.unwrap().status, BreachStatus::Provisional);
    world.service.heard(&phone.session, &phone.mark()).await.unwrap();
    assert_eq!(world.service.sweep().await.unwrap().breaches, 1);
    assert_eq!(world.see(&dispatch).await.sla.unwrap().status, BreachStatus::Confirmed);
}

#[tokio::test]
async fn parts_come_off_the_truck_and_discrepancies_are_raised() {
    let world = World::new().await;
    let (dispatch, mut phone) = world.assigned("SO-1", "TECH-A").await;
    let filter =
        |serial: Option<&str>, quantity| FactKind::PartUsed { part: id("FILTER"), quantity, serial: serial.map(id) };
    phone.act(&dispatch, filter(Some("SN-1"), 1), world.now());
    phone.act(&dispatch, filter(Some("SN-1"), 1), world.now());
    phone.act(&dispatch, filter(None, 3), world.now());
    let outcome = phone.push(&world).await;
    let reasons: Vec<_> = outcome.ack.lanes[0].verdicts.iter().map(|verdict| verdict.reason).collect();
    assert_eq!(reasons, [RulingReason::SerialUsedTwice, RulingReason::StockNegative]);
    let technician = world.service.technician(&world.dispatcher(), &id("TECH-A")).await.unwrap();
    assert_eq!(
        technician.van_stock[&id("FILTER")],
        -2,
        "two on board, one and three used; the doubled one does not count"
    );
    assert_eq!(world.see(&dispatch).await.open_exceptions, 2);
}
