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
    let early = event("SlaBreachedEvent", 10, json!({ "serviceOrderId": "SO-404" }));
    let error = world.service.ingest(&erp, &early).await.unwrap_err();
    assert_eq!(error, ServiceError::ServiceOrderNotFound(id("SO-404")));
}
