//! Events of Service Orders and Inventory.

use crate::world::{HOUR, World, caller, id, window};
use crm_dispatch_server::service::ingest::IngestEffect;
use crm_dispatch_server::service::{Role, ServiceError};
use serde_json::{Value, json};
use sync_core::domain::VisitStatus;
use sync_core::domain::plan::Priority;

fn event(name: &str, number: u32, payload: Value) -> String {
    json!({
        "eventType": name,
        "eventId": format!("evt-{number}"),
        "timestamp": "2026-02-03T06:00:00Z",
        "aggregateId": "SO-1",
        "tenantId": "tenant-1",
        "payload": payload,
    })
    .to_string()
}

#[tokio::test]
async fn a_service_order_is_scheduled_breached_and_cancelled() {
    let world = World::new().await;
    let erp = caller("tenant-1", "erp", Role::Integration);
    let planned = window(3 * HOUR, 4 * HOUR);
    let scheduled = event(
        "ServiceOrderScheduledEvent",
        1,
        json!({
            "serviceOrderId": "SO-1",
            "scheduleStart": planned.start,
            "scheduleEnd": planned.end,
            "requiredSkills": ["HVAC"],
            "priority": "LOW",
            "location": {
                "locationId": "LOC-77",
                "name": "Bakery",
                "address": "Gasse 7",
                "coordinates": { "latitude": 48.2, "longitude": 16.37 },
            },
        }),
    );
    let first = world.service.ingest(&erp, &scheduled).await.unwrap();
    assert_eq!(first.effect, IngestEffect::Applied);
    let dispatch = first.dispatch_id.unwrap();
    let view = world.see(&dispatch).await;
    assert_eq!((view.scheduled, view.priority), (Some(planned), Priority::Low));
    assert_eq!(view.site.unwrap().name, "Bakery");

    let again = world.service.ingest(&erp, &scheduled).await.unwrap();
    assert_eq!((again.effect, again.dispatch_id), (IngestEffect::Duplicate, Some(dispatch.clone())));
    let renamed = scheduled.replace("evt-1", "evt-2");
    let again = world.service.ingest(&erp, &renamed).await.unwrap();
    assert_eq!(again.effect, IngestEffect::Duplicate, "another event for the same order");

    let breached = event("SlaBreachedEvent", 3, json!({ "serviceOrderId": "SO-1" }));
    assert_eq!(world.service.ingest(&erp, &breached).await.unwrap().effect, IngestEffect::Applied);
    assert_eq!(world.service.ingest(&erp, &breached).await.unwrap().effect, IngestEffect::Duplicate);
    assert_eq!(world.see(&dispatch).await.priority, Priority::Normal, "one step, once");

    let cancelled = event("ServiceOrderCancelledEvent", 4, json!({ "serviceOrderId": "SO-1", "reason": "moved away" }));
    assert_eq!(world.service.ingest(&erp, &cancelled).await.unwrap().effect, IngestEffect::Applied);
    let view = world.see(&dispatch).await;
    assert_eq!((view.status, view.cancellation.unwrap().reason.as_str()), (VisitStatus::Cancelled, "moved away"));
    let late = event("ServiceOrderCancelledEvent", 5, json!({ "serviceOrderId": "SO-1" }));
    assert_eq!(world.service.ingest(&erp, &late).await.unwrap().effect, IngestEffect::NoEffect);
    assert_eq!(world.service.ingest(&erp, &late).await.unwrap().effect, IngestEffect::Duplicate);
}

#[tokio::test]
async fn inventory_restocks_a_truck_once() {
    let world = World::new().await;
    let erp = caller("tenant-1", "erp", Role::Integration);
    let restock =
        event("StockChangedEvent", 1, json!({ "technicianId": "TECH-A", "partNumber": "FILTER", "delta": 5 }));
    assert_eq!(world.service.ingest(&erp, &restock).await.unwrap().effect, IngestEffect::Applied);
    assert_eq!(world.service.ingest(&erp, &restock).await.unwrap().effect, IngestEffect::Duplicate);
    let technician = world.service.technician(&world.dispatcher(), &id("TECH-A")).await.unwrap();
    assert_eq!(technician.van_stock[&id("FILTER")], 7);
}

#[tokio::test]
async fn poison_names_its_problem() {
    let world = World::new().await;
    let erp = caller("tenant-1", "erp", Role::Integration);
    for (text, problem) in [
        ("{".to_owned(), "EOF"),
        (event("ServiceOrderScheduledEvent", 1, json!({ "serviceOrderId": "SO-1" })), "names no location"),
        (event("ServiceOrderScheduledEvent", 2, json!({ "locationId": "LOC-1" })), "serviceOrderId"),
        (event("SlaBreachedEvent", 3, json!(7)), "invalid type"),
        (event("StockChangedEvent", 4, json!({ "technicianId": "TECH-A", "partNumber": "X" })), "needs a quantity"),
        (event("SlaBreachedEvent", 5, json!({})).replace("tenant-1", "tenant-2"), "another tenant"),
    ] {
        match world.service.ingest(&erp, &text).await.unwrap_err() {
            ServiceError::PoisonEvent { problem: found, .. } => assert!(found.contains(problem), "{found}"),
            other => panic!("{other:?}"),
        }
    }
    let unknown = event("CustomerRenamedEvent", 9, json!({}));
    let error = world.service.ingest(&erp, &unknown).await.unwrap_err();
    assert_eq!(error, ServiceError::UnknownEvent("CustomerRenamedEvent".into()));
}

#[tokio::test]
async fn a_breach_escalates_once_however_often_it_is_told() {
    let world = World::new().await;
    let erp = caller("tenant-1", "erp", Role::Integration);
    let scheduled = event(
        "ServiceOrderScheduledEvent",
        1,
        json!({ "serviceOrderId": "SO-1", "locationId": "LOC-1", "priority": "LOW" }),
    );
    let dispatch = world.service.ingest(&erp, &scheduled).await.unwrap().dispatch_id.unwrap();
    let arrival = json!({ "serviceOrderId": "SO-1", "slaType": "ARRIVAL", "deadline": "2026-02-03T09:00:00Z" });
    for (number, effect) in [(2, IngestEffect::Applied), (2, IngestEffect::Duplicate), (3, IngestEffect::Duplicate)] {
        let told = event("SlaBreachedEvent", number, arrival.clone());
        assert_eq!(world.service.ingest(&erp, &told).await.unwrap().effect, effect, "told as evt-{number}");
    }
    assert_eq!(world.see(&dispatch).await.priority, Priority::Normal, "one step");
    let repair = json!({ "serviceOrderId": "SO-1", "slaType": "REPAIR", "deadline": "2026-02-03T12:00:00Z" });
    world.service.ingest(&erp, &event("SlaBreachedEvent", 4, repair)).await.unwrap();
    assert_eq!(world.see(&dispatch).await.priority, Priority::High, "another breach of the same order");
}

#[tokio::test]
async fn what_happens_to_an_order_before_it_is_known_takes_effect_when_it_comes() {
    let world = World::new().await;
    let erp = caller("tenant-1", "erp", Role::Integration);
    let told = |name, number, at: &str, payload| event(name, number, payload).replace("2026-02-03T06:00:00Z", at);
    let cancelled = told(
        "ServiceOrderCancelledEvent",
        1,
        "2026-02-03T07:00:00Z",
        json!({ "serviceOrderId": "SO-1", "reason": "moved" }),
    );
    for _ in 0..2 {
        let early = world.service.ingest(&erp, &cancelled).await.unwrap();
        assert_eq!((early.effect, early.dispatch_id), (IngestEffect::Waiting, None));
    }
    let scheduled = told(
        "ServiceOrderScheduledEvent",
        2,
        "2026-02-03T06:00:00Z",
        json!({ "serviceOrderId": "SO-1", "locationId": "LOC-1" }),
    );
    let made = world.service.ingest(&erp, &scheduled).await.unwrap();
    assert_eq!(made.effect, IngestEffect::Applied);
    let view = world.see(&made.dispatch_id.unwrap()).await;
    assert_eq!((view.status, view.cancellation.unwrap().reason.as_str()), (VisitStatus::Cancelled, "moved"));
    let again = world.service.ingest(&erp, &cancelled).await.unwrap();
    assert_eq!(again.effect, IngestEffect::Duplicate, "it has had its effect");

    // A cancellation from before the order was scheduled anew is history.
    let cancelled = told("ServiceOrderCancelledEvent", 3, "2026-02-03T05:00:00Z", json!({ "serviceOrderId": "SO-2" }));
    assert_eq!(world.service.ingest(&erp, &cancelled).await.unwrap().effect, IngestEffect::Waiting);
    let scheduled = told(
        "ServiceOrderScheduledEvent",
        4,
        "2026-02-03T06:00:00Z",
        json!({ "serviceOrderId": "SO-2", "locationId": "LOC-1" }),
    );
    let made = world.service.ingest(&erp, &scheduled).await.unwrap();
    assert_eq!(world.see(&made.dispatch_id.unwrap()).await.status, VisitStatus::Pending);
}

#[tokio::test]
async fn nodes_that_consume_the_same_order_at_once_make_one_dispatch_and_lose_no_cancellation() {
    let world = World::new().await;
    let erp = caller("tenant-1", "erp", Role::Integration);
    for number in 0..25 {
        let order = format!("SO-{number}");
        let scheduled =
            |id| event("ServiceOrderScheduledEvent", id, json!({ "serviceOrderId": order, "locationId": "LOC-1" }));
        let cancelled = event("ServiceOrderCancelledEvent", number * 10 + 3, json!({ "serviceOrderId": order }));
        let (one, other) = (scheduled(number * 10 + 1), scheduled(number * 10 + 2));
        let (one, other, cancelled) = tokio::join!(
            world.service.ingest(&erp, &one),
            world.service.ingest(&erp, &other),
            world.service.ingest(&erp, &cancelled),
        );
        let (one, other) = (one.unwrap(), other.unwrap());
        cancelled.unwrap();
        assert_eq!(one.dispatch_id, other.dispatch_id);
        let applied = [one.effect, other.effect].iter().filter(|effect| **effect == IngestEffect::Applied).count();
        assert_eq!(applied, 1, "{order}");
        assert_eq!(world.see(&one.dispatch_id.unwrap()).await.status, VisitStatus::Cancelled, "{order}");
    }
}

#[tokio::test]
async fn what_says_too_much_or_too_little_is_taken_as_far_as_it_goes() {
    let world = World::new().await;
    let erp = caller("tenant-1", "erp", Role::Integration);
    let bare = json!({ "serviceOrderId": "SO-1", "locationId": "LOC-1", "title": null, "requiredSkills": null, "priority": null });
    let made = world.service.ingest(&erp, &event("ServiceOrderScheduledEvent", 1, bare)).await.unwrap();
    let dispatch = made.dispatch_id.unwrap();
    assert!(world.see(&dispatch).await.required_skills.is_empty(), "null is absent, and no skills: anybody can go");
    let chatty =
        event("ServiceOrderCancelledEvent", 2, json!({ "serviceOrderId": "SO-1", "reason": "ä".repeat(9_000) }));
    assert_eq!(world.service.ingest(&erp, &chatty).await.unwrap().effect, IngestEffect::Applied);
    assert_eq!(world.see(&dispatch).await.cancellation.unwrap().reason.len(), 8_000);
    let warehouse = json!({ "warehouseId": "WH-1", "partNumber": "FILTER", "quantity": 3 });
    let effect = world.service.ingest(&erp, &event("StockChangedEvent", 3, warehouse)).await.unwrap().effect;
    assert_eq!(effect, IngestEffect::NoEffect, "a warehouse's stock is Inventory's own");
    let moved = json!({ "technicianId": "TECH-A", "partNumber": "FILTER", "delta": 5, "movementId": "MV-7" });
    for (number, effect) in [(4, IngestEffect::Applied), (5, IngestEffect::Duplicate)] {
        let event = event("StockChangedEvent", number, moved.clone());
        assert_eq!(world.service.ingest(&erp, &event).await.unwrap().effect, effect, "the same movement");
    }
}
