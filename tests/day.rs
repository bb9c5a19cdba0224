//! A technician's day, end to end, over the real server and the real phone.

mod support;

use reqwest::{Method, StatusCode};
use serde_json::json;
use support::{HOUR, MINUTE, World};
use sync_core::domain::{FactKind, VisitStatus, fold};
use sync_core::store::NewEdit;

#[tokio::test(flavor = "multi_thread")]
async fn a_visit_goes_from_request_to_completion_and_everyone_hears_of_it() {
    let world = World::start().await;
    let phone = world.phone("TECH-10", "maria");
    let dispatch = world.assigned("SO-100", 1, "TECH-10").await;
    phone.until_holding(&dispatch).await;
    world.until_status(&dispatch, "DISPATCHED").await;

    phone.starts_work(&dispatch).await;
    let part = FactKind::PartUsed { part: "PART-1".parse().unwrap(), quantity: 2, serial: None };
    phone.does(&dispatch, part).await;
    let answer = NewEdit::Answer { item: "pressure".parse().unwrap(), value: "1.8".into() };
    phone.client.act(&dispatch, answer, None).await.unwrap();
    let note = NewEdit::Note { at: 0, delete: 0, insert: "Valve replaced, tightness checked.".into() };
    phone.client.act(&dispatch, note, None).await.unwrap();
    phone.does(&dispatch, FactKind::Completed).await;
    phone.caught_up().await;

    assert_eq!(phone.status(&dispatch), VisitStatus::Completed);
    assert_eq!(world.status(&dispatch).await, "COMPLETED");
    let report = world.get(&format!("/{dispatch}/report")).await;
    assert_eq!(report["notes"], "Valve replaced, tightness checked.");
    assert_eq!(report["checklist"][0]["answers"][0]["value"], "1.8");
    assert_eq!(world.get("/technicians/TECH-10").await["vanStock"]["PART-1"], 3);

    let events = world.events(&dispatch).await;
    let names: Vec<&str> = events.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(
        names,
        [
            "TechnicianAssignedEvent",
            "DispatchConfirmedEvent",
            "TechnicianStatusChangedEvent",
            "TechnicianStatusChangedEvent",
            "TechnicianStatusChangedEvent"
        ]
    );
    let statuses: Vec<_> = events[2..].iter().map(|(_, payload)| payload["status"].clone()).collect();
    assert_eq!(statuses, ["ON_ROUTE", "ON_SITE", "AVAILABLE"]);
    assert_eq!(
        events[0].1,
        json!({
            "dispatchId": dispatch.as_str(),
            "serviceOrderId": "SO-100",
            "technicianId": "TECH-10",
            "status": "ASSIGNED"
        })
    );
    let audit = world.get(&format!("/{dispatch}/audit")).await;
    assert!(audit["items"].as_array().unwrap().len() >= 3, "{audit}");
}

/// The heart of the product: a day without a network, and nothing is lost, nothing doubled, and both sides agree.
#[tokio::test(flavor = "multi_thread")]
async fn a_whole_day_without_a_network_and_nothing_is_lost() {
    let mut world = World::start().await;
    let mut visits = Vec::new();
    for hour in 1..7 {
        visits.push(world.assigned(&format!("SO-{hour}"), 2 * hour - 2, "TECH-10").await);
    }
    let phone = world.phone("TECH-10", "maria");
    for dispatch in &visits {
        phone.until_holding(dispatch).await;
    }
    phone.caught_up().await;
    phone.go_offline();

    let mut made = 0;
    for dispatch in &visits {
        phone.starts_work(dispatch).await;
        world.clock.advance(40 * MINUTE);
        phone.does(dispatch, FactKind::TimeEntry { category: "labour".into(), minutes: 40 }).await;
        phone.does(dispatch, FactKind::Completed).await;
        made += 6;
    }
    assert_eq!(phone.client.status().borrow().pending, made);
    // The server restarts meanwhile; the phone does not care.
    world.stop_server().await;
    world.start_server().await;
    phone.go_online();
    phone.caught_up().await;

    let mut arrived = 0;
    for dispatch in &visits {
        assert_eq!(world.status(dispatch).await, "COMPLETED");
        let facts = world.facts(dispatch).await;
        assert!(facts.iter().all(|fact| fact["verdict"] == "accepted"), "{facts:?}");
        arrived += facts.len();
        let detail = phone.store().visit(dispatch).unwrap();
        assert_eq!(detail.state.pending_facts, 0);
        assert_eq!(detail.state.status, VisitStatus::Completed);
    }
    assert_eq!(arrived, usize::try_from(made).unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_phone_and_the_office_compute_the_same_state() {
    let world = World::start().await;
    let phone = world.phone("TECH-10", "maria");
    let dispatch = world.assigned("SO-1", 1, "TECH-10").await;
    phone.until_holding(&dispatch).await;
    phone.starts_work(&dispatch).await;
    phone.does(&dispatch, FactKind::Paused { reason: Some("waiting for a part".into()) }).await;
    phone.caught_up().await;
    let stored = world.server().service().store().clone();
    let tenant = support::TENANT.parse().unwrap();
    let (row, document) = stored.documents(&tenant, std::slice::from_ref(&dispatch)).await.unwrap().remove(0);
    let office = sync_core::document::VisitDoc::load(&document).unwrap();
    let detail = phone.store().visit(&dispatch).unwrap();
    assert_eq!(detail.state, fold(&office.view()));
    assert_eq!(row.row.state, fold(&office.view()), "the projection is the fold");
    assert_eq!(row.row.status, VisitStatus::Paused);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_technician_confirms_and_rejects_through_rest_as_well() {
    let world = World::start().await;
    let token = world.token("TECH-10");
    let kept = world.assigned("SO-1", 1, "TECH-10").await;
    let refused = world.assigned("SO-2", 3, "TECH-10").await;
    let (status, body) = world.call_as(&token, Method::POST, &format!("/{kept}/confirm"), None).await;
    assert!(status.is_success(), "{body}");
    assert_eq!(world.status(&kept).await, "CONFIRMED");
    let reason = Some(json!({ "reason": "no ladder" }));
    let (status, body) = world.call_as(&token, Method::POST, &format!("/{refused}/reject"), reason).await;
    assert!(status.is_success(), "{body}");
    assert_eq!(world.status(&refused).await, "PENDING");
    let events = world.events(&refused).await;
    assert_eq!(events[1].0, "DispatchRejectedEvent");
    assert_eq!(events[1].1["reason"], "no ladder");
    let other = world.token("TECH-20");
    let (status, _) = world.call_as(&other, Method::POST, &format!("/{kept}/confirm"), None).await;
    assert_eq!(status, StatusCode::NOT_FOUND, "another technician's visit is none of theirs");
}

/// A visit far away in the day must not keep a technician from one that fits.
#[tokio::test(flavor = "multi_thread")]
async fn two_visits_at_the_same_hour_cannot_both_be_had() {
    let world = World::start().await;
    let _first = world.assigned("SO-1", 1, "TECH-10").await;
    let second = world.request("SO-2", 1).await;
    let body = Some(json!({ "technicianId": "TECH-10" }));
    let (status, answer) = world.call(Method::POST, &format!("/{second}/assign"), body).await;
    assert_eq!((status, answer["error"].as_str()), (StatusCode::CONFLICT, Some("ASSIGNMENT_CONFLICT")), "{answer}");
    world.assign(&second, "TECH-20").await;
    let third = world.request("SO-3", 4).await;
    world.clock.advance(HOUR);
    world.assign(&third, "TECH-10").await;
}
