//! Conflicts between an office and phones without a network, decided by the rules, end to end. The rules themselves are told
//! one by one in `sync-core/tests/conflict_rules`; here is what people see of them.

#![allow(clippy::unwrap_used, reason = "a story that is not as told shall fail")]

mod support;

use serde_json::json;
use support::{MINUTE, PhoneSetup, World};
use sync_core::client::Event;
use sync_core::domain::{FactKind, RulingReason, TombstoneReason, Verdict};
use sync_core::store::NewEdit;

/// Rule 1.
#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_visit_leaves_a_card_that_says_why() {
    let world = World::start().await;
    let phone = world.phone("TECH-10", "maria");
    let dispatch = world.assigned("SO-1", 2, "TECH-10").await;
    phone.until_holding(&dispatch).await;
    phone.caught_up().await;
    phone.go_offline();
    world.post(&format!("/{dispatch}/cancel"), json!({ "reason": "customer called it off" })).await;
    let seen = world.dispatch(&dispatch).await;
    assert_eq!(seen["status"], "CANCELLED");
    assert_eq!(seen["undeliveredTo"], json!(["TECH-10"]), "cancelled, not yet delivered");

    phone.go_online();
    phone.until_without(&dispatch).await;
    phone.caught_up().await;
    let cards = phone.store().tombstones().unwrap();
    assert_eq!(cards.len(), 1);
    assert_eq!(cards[0].tombstone.reason, TombstoneReason::Cancelled);
    assert_eq!(cards[0].tombstone.note.as_deref(), Some("customer called it off"));
    phone
        .store()
        .acknowledge_tombstone(&dispatch, sync_core::domain::Timestamp::from_millis(support::MORNING))
        .unwrap();
    assert!(phone.store().tombstones().unwrap().is_empty());
    let delivered = async {
        while world.dispatch(&dispatch).await["undeliveredTo"] != json!([]) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(support::PATIENCE, delivered).await.unwrap();
}

/// Rule 2, first half.
#[tokio::test(flavor = "multi_thread")]
async fn work_done_after_a_cancellation_is_kept_and_held_from_billing() {
    let world = World::start().await;
    let phone = world.phone("TECH-10", "maria");
    let dispatch = world.assigned("SO-1", 2, "TECH-10").await;
    phone.until_holding(&dispatch).await;
    phone.caught_up().await;
    phone.go_offline();
    world.clock.advance(10 * MINUTE);
    world.post(&format!("/{dispatch}/cancel"), json!({ "reason": "no longer needed" })).await;
    world.clock.advance(30 * MINUTE);
    let mut events = phone.client.events();
    phone.starts_work(&dispatch).await;
    phone.does(&dispatch, FactKind::TimeEntry { category: "labour".into(), minutes: 30 }).await;
    phone.does(&dispatch, FactKind::Completed).await;
    phone.go_online();
    phone.caught_up().await;

    let seen = world.dispatch(&dispatch).await;
    assert_eq!((seen["status"].as_str(), seen["billingHold"].as_bool()), (Some("CANCELLED"), Some(true)), "{seen}");
    assert_eq!(world.facts(&dispatch).await.len(), 6, "nothing is dropped");
    let exceptions = world.get("/exceptions").await;
    let open = exceptions["items"].as_array().unwrap();
    assert!(open.iter().any(|e| e["reason"] == "COMPLETED_AFTER_CANCELLATION" && e["rule"] == 2), "{exceptions}");
    let mut told = false;
    while let Ok(event) = events.try_recv() {
        if let Event::Ruled { verdict, .. } = event {
            told |= verdict.verdict == Verdict::Exception && verdict.reason == RulingReason::CompletedAfterCancellation;
        }
    }
    assert!(told, "the technician hears of it");
    let id = open.iter().find(|e| e["rule"] == 2).unwrap()["exceptionId"].as_str().unwrap().to_owned();
    let resolution = json!({ "dispatchId": dispatch.as_str(), "resolution": "billed after a call" });
    world.post(&format!("/exceptions/{id}/resolve"), resolution).await;
    // The customer pays after all: the completion in dispute stands.
    let seen = world.post(&format!("/{dispatch}/reinstate"), json!({})).await;
    assert_eq!((seen["status"].as_str(), seen["billingHold"].as_bool()), (Some("COMPLETED"), Some(false)), "{seen}");
}

/// Rule 2, second half.
#[tokio::test(flavor = "multi_thread")]
async fn work_done_before_a_cancellation_stands() {
    let world = World::start().await;
    let phone = world.phone("TECH-10", "maria");
    let dispatch = world.assigned("SO-1", 2, "TECH-10").await;
    phone.until_holding(&dispatch).await;
    phone.caught_up().await;
    phone.go_offline();
    phone.starts_work(&dispatch).await;
    world.clock.advance(30 * MINUTE);
    phone.does(&dispatch, FactKind::Completed).await;
    world.clock.advance(60 * MINUTE);
    world.post(&format!("/{dispatch}/cancel"), json!({ "reason": "nobody came" })).await;
    phone.go_online();
    phone.caught_up().await;
    let seen = world.dispatch(&dispatch).await;
    assert_eq!((seen["status"].as_str(), seen["billingHold"].as_bool()), (Some("COMPLETED"), Some(false)), "{seen}");
    assert_eq!(seen["cancellation"]["effect"], "void", "{seen}");
}

/// Rule 3: not started.
#[tokio::test(flavor = "multi_thread")]
async fn a_visit_given_to_somebody_else_moves_and_the_former_phone_is_told() {
    let world = World::start().await;
    let (maria, jonas) = (world.phone("TECH-10", "maria"), world.phone("TECH-20", "jonas"));
    let dispatch = world.assigned("SO-1", 2, "TECH-10").await;
    maria.until_holding(&dispatch).await;
    maria.caught_up().await;
    maria.go_offline();
    maria.does(&dispatch, FactKind::Accepted { eta: None }).await;
    world.clock.advance(MINUTE);
    world.post(&format!("/{dispatch}/reassign"), json!({ "technicianId": "TECH-20" })).await;
    jonas.until_holding(&dispatch).await;
    maria.go_online();
    maria.until_without(&dispatch).await;
    maria.caught_up().await;
    assert_eq!(maria.store().tombstones().unwrap()[0].tombstone.reason, TombstoneReason::Reassigned);
    let facts = world.facts(&dispatch).await;
    assert_eq!((facts[0]["verdict"].as_str(), facts[0]["rule"].as_u64()), (Some("stale"), Some(4)), "{facts:?}");
    assert_eq!(world.dispatch(&dispatch).await["assignment"]["technicianId"], "TECH-20");
}

/// Rule 3: had already started.
#[tokio::test(flavor = "multi_thread")]
async fn who_was_on_site_already_keeps_the_visit() {
    let world = World::start().await;
    let (maria, jonas) = (world.phone("TECH-10", "maria"), world.phone("TECH-20", "jonas"));
    let dispatch = world.assigned("SO-1", 2, "TECH-10").await;
    maria.until_holding(&dispatch).await;
    maria.caught_up().await;
    maria.go_offline();
    maria.starts_work(&dispatch).await;
    world.clock.advance(20 * MINUTE);
    world.post(&format!("/{dispatch}/reassign"), json!({ "technicianId": "TECH-20" })).await;
    jonas.until_holding(&dispatch).await;
    maria.go_online();
    maria.caught_up().await;
    jonas.until_without(&dispatch).await;
    let seen = world.dispatch(&dispatch).await;
    assert_eq!(
        (seen["status"].as_str(), seen["assignment"]["technicianId"].as_str()),
        (Some("IN_PROGRESS"), Some("TECH-10"))
    );
    assert_eq!(seen["assignment"]["epoch"], 3, "a new epoch fences both former ones: {seen}");
    assert_eq!(jonas.store().tombstones().unwrap()[0].tombstone.reason, TombstoneReason::Withdrawn);
    maria.until_holding(&dispatch).await;
    maria.does(&dispatch, FactKind::Completed).await;
    maria.caught_up().await;
    assert_eq!(world.status(&dispatch).await, "COMPLETED");
}

/// Rule 5.
#[tokio::test(flavor = "multi_thread")]
async fn a_crew_answers_differently_and_both_answers_are_shown() {
    let world = World::start().await;
    let (maria, jonas) = (world.phone("TECH-10", "maria"), world.phone("TECH-20", "jonas"));
    let dispatch = world.request("SO-1", 2).await;
    world.post(&format!("/{dispatch}/assign"), json!({ "technicianId": "TECH-10", "crew": ["TECH-20"] })).await;
    maria.until_holding(&dispatch).await;
    jonas.until_holding(&dispatch).await;
    maria.caught_up().await;
    jonas.caught_up().await;
    maria.go_offline();
    jonas.go_offline();
    let answer = |value: &str| NewEdit::Answer { item: "pressure".parse().unwrap(), value: value.into() };
    let note = |text: &str| NewEdit::Note { at: 0, delete: 0, insert: text.into() };
    maria.client.act(&dispatch, answer("1.8"), None).await.unwrap();
    jonas.client.act(&dispatch, answer("0.4"), None).await.unwrap();
    maria.client.act(&dispatch, note("Valve worn. "), None).await.unwrap();
    jonas.client.act(&dispatch, note("Pump noisy. "), None).await.unwrap();
    let refused = jonas.client.act(&dispatch, NewEdit::Fact(FactKind::Completed), None).await;
    assert!(refused.is_err(), "only the lead completes");
    for phone in [&maria, &jonas] {
        phone.go_online();
        phone.caught_up().await;
    }
    let report = world.get(&format!("/{dispatch}/report")).await;
    let answers = report["checklist"][0]["answers"].as_array().unwrap().clone();
    assert_eq!(answers.len(), 2, "{report}");
    let notes = report["notes"].as_str().unwrap();
    assert!(notes.contains("Valve worn.") && notes.contains("Pump noisy."), "{notes}");
    maria
        .until("both answers", |_| {
            maria.store().visit(&dispatch).unwrap().report.answers.values().any(|a| a.len() == 2)
        })
        .await;
    maria.client.act(&dispatch, answer("1.8"), None).await.unwrap();
    maria.caught_up().await;
    let report = world.get(&format!("/{dispatch}/report")).await;
    assert_eq!(report["checklist"][0]["answers"].as_array().unwrap().len(), 1, "the lead has settled it: {report}");
}

/// Rule 6.
#[tokio::test(flavor = "multi_thread")]
async fn a_phone_whose_clock_is_wrong_is_corrected_and_flagged() {
    let world = World::start().await;
    let dispatch = world.assigned("SO-1", 2, "TECH-10").await;
    let phone = world.phone_with("TECH-10", "maria", PhoneSetup { off_by: 47 * MINUTE, ..PhoneSetup::default() });
    phone.until_holding(&dispatch).await;
    phone.caught_up().await;
    phone.go_offline();
    phone.starts_work(&dispatch).await;
    phone.go_online();
    phone.caught_up().await;
    let facts = world.facts(&dispatch).await;
    assert_eq!(facts.len(), 4);
    for fact in &facts {
        assert_eq!((fact["verdict"].as_str(), fact["clockFlagged"].as_bool()), (Some("accepted"), Some(true)));
        let occurred: sync_core::domain::Timestamp = fact["occurredAt"].as_str().unwrap().parse().unwrap();
        assert!(occurred.millis_since(sync_core::domain::Timestamp::from_millis(support::MORNING)).abs() < MINUTE);
    }
}

/// Rule 7.
#[tokio::test(flavor = "multi_thread")]
async fn stock_may_go_negative_and_says_so_and_a_serial_number_is_used_once() {
    let world = World::start().await;
    let phone = world.phone("TECH-10", "maria");
    let dispatch = world.assigned("SO-1", 2, "TECH-10").await;
    phone.until_holding(&dispatch).await;
    phone.starts_work(&dispatch).await;
    let used = |quantity, serial: Option<&str>| FactKind::PartUsed {
        part: "PART-1".parse().unwrap(),
        quantity,
        serial: serial.map(|serial| serial.parse().unwrap()),
    };
    phone.does(&dispatch, used(7, None)).await;
    phone.does(&dispatch, used(1, Some("SN-1"))).await;
    phone.does(&dispatch, used(1, Some("SN-1"))).await;
    phone.caught_up().await;
    assert!(world.get("/technicians/TECH-10").await["vanStock"]["PART-1"].as_i64().unwrap() < 0);
    let exceptions = world.get("/exceptions").await["items"].clone();
    let reasons: Vec<_> = exceptions.as_array().unwrap().iter().map(|e| e["reason"].clone()).collect();
    assert!(reasons.contains(&json!("STOCK_NEGATIVE")), "{exceptions}");
    assert!(reasons.contains(&json!("SERIAL_USED_TWICE")), "{exceptions}");
}

/// Rules 12: a breach is provisional while the phone is silent, and retracted when it turns out to have been in time.
#[tokio::test(flavor = "multi_thread")]
async fn a_breach_is_provisional_while_the_phone_is_silent_and_retracted_when_it_speaks() {
    let world = World::start().await;
    let phone = world.phone("TECH-10", "maria");
    let body = json!({
        "serviceOrderId": "SO-1",
        "locationId": "LOC-10",
        "scheduled": { "start": support::at(0), "end": support::at(60 * MINUTE) },
        "slaDeadline": support::at(90 * MINUTE),
    });
    let answer = world.post("/requests", body).await;
    let dispatch: sync_core::domain::DispatchId = answer["dispatchId"].as_str().unwrap().parse().unwrap();
    world.assign(&dispatch, "TECH-10").await;
    phone.until_holding(&dispatch).await;
    phone.caught_up().await;
    phone.go_offline();
    world.clock.advance(30 * MINUTE);
    phone.starts_work(&dispatch).await;
    world.clock.advance(70 * MINUTE);
    let until = |wanted: &'static str| {
        let (world, dispatch) = (&world, &dispatch);
        async move {
            let asked = async {
                while world.dispatch(dispatch).await["sla"]["status"] != wanted {
                    tokio::task::yield_now().await;
                }
            };
            if tokio::time::timeout(support::PATIENCE, asked).await.is_err() {
                assert_eq!(world.dispatch(dispatch).await["sla"], wanted);
            }
        }
    };
    until("PROVISIONAL").await;
    phone.go_online();
    phone.caught_up().await;
    until("RETRACTED").await;
}

/// Rule 13.
#[tokio::test(flavor = "multi_thread")]
async fn a_window_moved_on_the_way_is_a_proposal_until_the_technician_has_seen_it() {
    let world = World::start().await;
    let phone = world.phone("TECH-10", "maria");
    let dispatch = world.assigned("SO-1", 2, "TECH-10").await;
    phone.until_holding(&dispatch).await;
    phone.does(&dispatch, FactKind::Accepted { eta: None }).await;
    phone.does(&dispatch, FactKind::TravelStarted { eta: None }).await;
    phone.caught_up().await;
    let window = json!({ "start": support::at(180 * MINUTE), "end": support::at(240 * MINUTE) });
    world.post(&format!("/{dispatch}/reschedule"), json!({ "arrivalWindow": window, "customerConfirmed": true })).await;
    let seen = world.dispatch(&dispatch).await;
    assert_eq!(seen["proposedWindow"]["start"], window["start"], "{seen}");
    phone.until("proposed", |visits| visits.iter().any(|card| card.window_proposed)).await;
    let revision = phone.store().visit(&dispatch).unwrap().view.plan.window_revision;
    phone.does(&dispatch, FactKind::WindowAcknowledged { window_revision: revision }).await;
    phone.caught_up().await;
    let seen = world.dispatch(&dispatch).await;
    assert_eq!(
        (seen["arrivalWindow"]["start"].clone(), seen["proposedWindow"].is_null()),
        (window["start"].clone(), true)
    );
    assert_eq!(seen["confirmedWindow"]["start"], window["start"], "{seen}");
}

/// Rule 17.
#[tokio::test(flavor = "multi_thread")]
async fn an_order_cancelled_after_arrival_is_a_request_to_stop_and_the_labour_is_recorded() {
    let world = World::start().await;
    let phone = world.phone("TECH-10", "maria");
    let dispatch = world.assigned("SO-1", 2, "TECH-10").await;
    phone.until_holding(&dispatch).await;
    phone.starts_work(&dispatch).await;
    phone.caught_up().await;
    world.post(&format!("/{dispatch}/cancel"), json!({ "reason": "wrong building" })).await;
    phone.until("asked to stop", |visits| visits.iter().any(|card| card.stop_work)).await;
    phone.does(&dispatch, FactKind::TimeEntry { category: "labour".into(), minutes: 15 }).await;
    phone.does(&dispatch, FactKind::CannotComplete { reason: "the office asked to stop".into() }).await;
    phone.caught_up().await;
    assert_eq!(world.status(&dispatch).await, "CANNOT_COMPLETE");
    assert_eq!(world.get(&format!("/{dispatch}/report")).await["time"][0]["minutes"], 15);
}

/// Rule 17, when nobody answers.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_to_stop_that_nobody_answers_is_ended_by_the_office() {
    let world = World::start().await;
    let phone = world.phone("TECH-10", "maria");
    let dispatch = world.assigned("SO-1", 2, "TECH-10").await;
    phone.until_holding(&dispatch).await;
    phone.starts_work(&dispatch).await;
    phone.caught_up().await;
    phone.go_offline();
    world.post(&format!("/{dispatch}/cancel"), json!({ "reason": "wrong building" })).await;
    let seen = world.post(&format!("/{dispatch}/end-stop-work"), json!({})).await;
    assert_eq!(seen["status"], "CANCELLED", "{seen}");
    phone.go_online();
    phone.until_without(&dispatch).await;
}

/// Rule 18: a consumed event comes twice.
#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_comes_twice_makes_one_dispatch() {
    let world = World::start().await;
    let event = |id: &str| {
        json!({
            "eventType": "ServiceOrderScheduledEvent",
            "eventId": id,
            "timestamp": support::at(0),
            "aggregateId": "SO-77",
            "tenantId": support::TENANT,
            "payload": {
                "serviceOrderId": "SO-77",
                "locationId": "LOC-10",
                "scheduleStart": support::at(60 * MINUTE),
                "scheduleEnd": support::at(120 * MINUTE),
            },
        })
    };
    for id in ["evt-1", "evt-1", "evt-2"] {
        world.post("/events", event(id)).await;
    }
    let found = world.get("/requests?serviceOrderId=SO-77").await;
    assert_eq!(found["items"].as_array().unwrap().len(), 1, "{found}");
}
