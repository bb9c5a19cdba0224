//! A dispatcher's day through REST: ask for visits, assign, change one's mind, repeat calls, and look everything up.
//! Every answer is read with its documented, strict schema.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod http_support;

use crm_dispatch_server::http::schema;
use http_support::{Answer, MONDAY_10_MS, Office, TENANT, visit_request};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// The answer as it is documented: a field that is not fails here.
#[track_caller]
fn read<T: DeserializeOwned>(answer: &Answer, status: u16) -> T {
    answer.ok(status);
    serde_json::from_slice(&answer.bytes).unwrap_or_else(|error| panic!("{error}: {}", answer.json()))
}

async fn assign(office: &Office, dispatch: &str, technician: &str) -> Answer {
    let body = json!({ "technicianId": technician });
    office.post(&format!("/{dispatch}/assign")).token(&office.dispatcher()).json(&body).send().await
}

async fn dispatch(office: &Office, id: &str) -> schema::Dispatch {
    read(&office.get(&format!("/{id}")).token(&office.dispatcher()).send().await, 200)
}

#[tokio::test]
async fn a_visit_from_the_request_to_the_technicians_word() {
    let office = Office::open().await;
    office.furnish().await;
    let token = office.dispatcher();
    let request = json!({ "serviceOrderId": "SO-100", "locationId": "LOC-10",
        "requiredSkills": ["HVAC", { "code": "HVAC-GAS", "level": 1 }], "title": "Boiler is out", "priority": "HIGH",
        "instructions": "Ring twice.", "scheduled": { "start": "2026-02-03T08:00:00Z", "end": "2026-02-03T09:00:00Z" },
        "arrivalWindow": { "start": "2026-02-03T07:30:00Z", "end": "2026-02-03T08:30:00Z" }, "customerConfirmed": true,
        "slaDeadline": "2026-02-03T12:00:00Z", "requiredParts": [{ "part": "PART-55", "quantity": 2 }],
        "checklist": [{ "id": "pressure", "label": "Pressure in bar?", "required": true }],
        "contact": { "name": "Herr Novak", "phone": "+43 1 5330" }, "attributes": { "contract": "gold" } });
    let created = office.post("/requests").token(&token).json(&request).send().await;
    let visit: schema::Dispatch = read(&created, 201);
    let id = visit.dispatch_id.clone();
    assert_eq!(created.header("location"), format!("{}/{id}", http_support::API));
    assert_eq!(created.header("etag"), "\"1\"");
    assert_eq!((visit.status, visit.priority), (schema::DispatchStatus::Pending, schema::Priority::High));
    assert_eq!(visit.site.unwrap().name, "Cafe Central");
    assert_eq!(visit.confirmed_window, visit.arrival_window);

    // Nobody has the gas licence yet.
    let refused = assign(&office, &id, "TECH-10").await.error(409, "TECHNICIAN_NOT_AVAILABLE");
    assert_eq!(refused["details"]["reasons"][0]["reason"], "SKILL_MISSING", "{refused}");
    let skills = json!({ "skills": [{ "code": "HVAC", "level": 2 },
        { "code": "HVAC-GAS", "level": 1, "expiresAt": "2027-01-01T00:00:00Z" }] });
    let put = office.put("/technicians/TECH-10/skills").token(&token).json(&skills).send().await;
    assert_eq!(read::<schema::Technician>(&put, 200).skills.len(), 2);

    let path = "/technicians/available?locationId=LOC-10&from=2026-02-03T08:00:00Z&to=2026-02-03T09:00:00Z\
        &skills=HVAC,HVAC-GAS:1&includeUnavailable=true";
    let candidates: schema::CandidateList = read(&office.get(path).token(&token).send().await, 200);
    let named: Vec<_> = candidates.items.iter().map(|one| (one.technician_id.as_str(), one.available)).collect();
    assert_eq!(named, [("TECH-10", true), ("TECH-11", false)]);

    let visit: schema::Dispatch = read(&assign(&office, &id, "TECH-10").await, 200);
    assert_eq!(visit.status, schema::DispatchStatus::Assigned);
    assert_eq!(visit.assignment.unwrap().technician_id, "TECH-10");

    // Only the one who has it can take or refuse it.
    let confirm = format!("/{id}/confirm");
    office.post(&confirm).token(&office.technician("TECH-11")).send().await.error(404, "DISPATCH_NOT_FOUND");
    let eta = json!({ "eta": "2026-02-03T07:55:00Z" });
    let confirmed = office.post(&confirm).token(&office.technician("TECH-10")).json(&eta).send().await;
    let visit: schema::Dispatch = read(&confirmed, 200);
    assert_eq!((visit.status, visit.eta.as_deref()), (schema::DispatchStatus::Confirmed, Some("2026-02-03T07:55:00Z")));

    let report = office.get(&format!("/{id}/report")).token(&token).send().await;
    let report: schema::Report = read(&report, 200);
    assert_eq!(report.facts.len(), 1);
    assert_eq!((report.facts[0].kind.as_str(), report.facts[0].verdict), ("accepted", Some(schema::Verdict::Accepted)));
    assert_eq!(report.checklist[0].label.as_deref(), Some("Pressure in bar?"));

    let journal: schema::JournalPage = read(&office.get("/events").token(&office.integration()).send().await, 200);
    let types: Vec<_> = journal.items.iter().map(|entry| entry.event.event_type.as_str()).collect();
    assert!(types.contains(&"TechnicianAssignedEvent") && types.contains(&"DispatchConfirmedEvent"), "{types:?}");
    assert!(journal.items.iter().all(|entry| entry.event.tenant_id == TENANT));

    let audit: schema::AuditPage = read(&office.get(&format!("/{id}/audit")).token(&token).send().await, 200);
    assert!(audit.items.len() >= 3, "{audit:?}");
    for pair in audit.items.windows(2) {
        assert_eq!(pair[1].previous_hash, pair[0].hash, "each line holds the hash of the one before");
    }
}

#[tokio::test]
async fn a_rejected_visit_is_pending_again_and_goes_to_somebody_else() {
    let office = Office::open().await;
    office.furnish().await;
    let id = office.request_visit("SO-100").await;
    assign(&office, &id, "TECH-10").await.ok(200);
    let reject = |reason: &str| {
        let call = office.post(&format!("/{id}/reject")).token(&office.technician("TECH-10"));
        call.json(&json!({ "reason": reason })).send()
    };
    reject(" ").await.error(422, "VALIDATION_FAILED");
    let visit: schema::Dispatch = read(&reject("my van is at the garage").await, 200);
    assert_eq!(
        (visit.status, visit.reason.as_deref()),
        (schema::DispatchStatus::Pending, Some("my van is at the garage"))
    );
    let body = json!({ "technicianId": "TECH-11" });
    let again = office.post(&format!("/{id}/reassign")).token(&office.dispatcher()).json(&body).send().await;
    let visit: schema::Dispatch = read(&again, 200);
    assert_eq!(visit.assignment.as_ref().unwrap().technician_id, "TECH-11");
    assert_eq!(visit.former_assignments[0].technician_id, "TECH-10");
    assert!(visit.assignment.unwrap().epoch > visit.former_assignments[0].epoch);
    let back = office.post(&format!("/{id}/unassign")).token(&office.dispatcher()).send().await;
    assert!(read::<schema::Dispatch>(&back, 200).assignment.is_none());
    let nobody = office.post(&format!("/{id}/unassign")).token(&office.dispatcher()).send().await;
    nobody.error(409, "ILLEGAL_TRANSITION");
}

#[tokio::test]
async fn what_has_ended_cannot_be_changed() {
    let office = Office::open().await;
    office.furnish().await;
    let token = office.dispatcher();
    let id = office.request_visit("SO-100").await;
    let cancel =
        || office.post(&format!("/{id}/cancel")).token(&token).json(&json!({ "reason": "customer called" })).send();
    let visit: schema::Dispatch = read(&cancel().await, 200);
    assert_eq!(visit.status, schema::DispatchStatus::Cancelled);
    assert_eq!(visit.cancellation.unwrap().reason, "customer called");
    let body = cancel().await.error(409, "ILLEGAL_TRANSITION");
    assert_eq!(body["details"]["status"], "CANCELLED");
    assign(&office, &id, "TECH-10").await.error(409, "ILLEGAL_TRANSITION");
    let moved = json!({ "scheduled": { "start": "2026-02-04T08:00:00Z", "end": "2026-02-04T09:00:00Z" } });
    let answer = office.post(&format!("/{id}/reschedule")).token(&token).json(&moved).send().await;
    answer.error(409, "ILLEGAL_TRANSITION");
    let urgent =
        office.post(&format!("/{id}/priority")).token(&token).json(&json!({ "priority": "EMERGENCY" })).send().await;
    urgent.error(409, "ILLEGAL_TRANSITION");
}

#[tokio::test]
async fn a_technician_is_not_in_two_places_at_once() {
    let office = Office::open().await;
    office.furnish().await;
    let (first, second) = (office.request_visit("SO-100").await, office.request_visit("SO-101").await);
    assign(&office, &first, "TECH-10").await.ok(200);
    let refused = assign(&office, &second, "TECH-10").await;
    assert_eq!(refused.status.as_u16(), 409);
    assert!(["TECHNICIAN_NOT_AVAILABLE", "ASSIGNMENT_CONFLICT"].contains(&refused.json()["error"].as_str().unwrap()));
    let token = office.dispatcher();
    let moved = json!({ "scheduled": { "start": "2026-02-04T08:00:00Z", "end": "2026-02-04T09:00:00Z" } });
    office.post(&format!("/{second}/reschedule")).token(&token).json(&moved).send().await.ok(200);
    assign(&office, &second, "TECH-10").await.ok(200);
}

#[tokio::test]
async fn what_nobody_knows_is_not_found() {
    let office = Office::open().await;
    office.furnish().await;
    let token = office.admin();
    let reason = json!({ "reason": "test" });
    let id = office.request_visit("SO-100").await;
    let get = |path: &'static str| office.get(path).token(&token).send();
    get("/DSP-999").await.error(404, "DISPATCH_NOT_FOUND");
    get("/DSP-999/report").await.error(404, "DISPATCH_NOT_FOUND");
    get("/DSP-999/audit").await.error(404, "DISPATCH_NOT_FOUND");
    get("/technicians/TECH-99").await.error(404, "TECHNICIAN_NOT_FOUND");
    get("/locations/LOC-99").await.error(404, "LOCATION_NOT_FOUND");
    get("/technicians/available?locationId=LOC-99").await.error(404, "LOCATION_NOT_FOUND");
    office.post("/DSP-999/cancel").token(&token).json(&reason).send().await.error(404, "DISPATCH_NOT_FOUND");
    office.post("/devices/PHONE-9/revoke").token(&token).send().await.error(404, "DEVICE_NOT_FOUND");
    assign(&office, &id, "TECH-99").await.error(404, "TECHNICIAN_NOT_FOUND");
    let skills = json!({ "skills": [] });
    let answer = office.put("/technicians/TECH-99/skills").token(&token).json(&skills).send().await;
    answer.error(404, "TECHNICIAN_NOT_FOUND");
    let resolve = json!({ "dispatchId": id, "resolution": "done" });
    let answer = office.post("/exceptions/none/resolve").token(&token).json(&resolve).send().await;
    answer.error(404, "EXCEPTION_NOT_FOUND");
    let elsewhere = json!({ "serviceOrderId": "SO-1", "locationId": "LOC-99" });
    office.post("/requests").token(&token).json(&elsewhere).send().await.error(404, "LOCATION_NOT_FOUND");
}

#[tokio::test]
async fn a_call_that_is_repeated_does_nothing_twice() {
    let office = Office::open().await;
    office.furnish().await;
    let token = office.dispatcher();
    let request = visit_request("SO-100", "2026-02-03T08:00:00Z", "2026-02-03T09:00:00Z");
    let create = |key: &'static str, body: &Value| {
        office.post("/requests").token(&token).header("idempotency-key", key).json(body).send()
    };
    let first = create("key-1", &request).await;
    let again = create("key-1", &request).await;
    first.ok(201);
    assert_eq!((again.status, &again.bytes), (first.status, &first.bytes), "byte for byte");
    for name in ["etag", "location", "content-type"] {
        assert_eq!(again.header(name), first.header(name), "{name}");
    }
    assert_eq!((first.header("idempotent-replay"), again.header("idempotent-replay")), ("", "true"));

    let other = visit_request("SO-101", "2026-02-03T08:00:00Z", "2026-02-03T09:00:00Z");
    create("key-1", &other).await.error(422, "IDEMPOTENCY_KEY_REUSED");
    let id = first.json()["dispatchId"].as_str().unwrap().to_owned();
    let cancel = office.post(&format!("/{id}/cancel")).token(&token).header("idempotency-key", "key-1");
    cancel.json(&json!({ "reason": "test" })).send().await.error(422, "IDEMPOTENCY_KEY_REUSED");
    // Without the key it is another wish, and the order has its dispatch already.
    let twice = office.post("/requests").token(&token).json(&request).send().await.error(409, "SERVICE_ORDER_EXISTS");
    assert_eq!(twice["details"]["dispatchId"], id.as_str());

    // What failed is not remembered: the key is good for another try.
    let assign = || {
        let call = office.post(&format!("/{id}/assign")).token(&token).header("idempotency-key", "key-2");
        call.json(&json!({ "technicianId": "TECH-12" })).send()
    };
    assign().await.error(404, "TECHNICIAN_NOT_FOUND");
    let new = json!({ "name": "Eva Maier", "skills": [{ "code": "HVAC" }],
        "availability": [{ "start": "2026-02-02T06:00:00Z", "end": "2026-02-09T18:00:00Z" }] });
    office.put("/technicians/TECH-12").token(&office.admin()).json(&new).send().await.ok(201);
    let assigned = assign().await;
    assigned.ok(200);
    // Later changes do not change what was answered.
    office.post(&format!("/{id}/unassign")).token(&token).send().await.ok(200);
    let replay = assign().await;
    assert_eq!((replay.bytes, replay.headers.contains_key("idempotent-replay")), (assigned.bytes, true));
    let journal: schema::JournalPage = read(&office.get("/events").token(&office.integration()).send().await, 200);
    let assignments = journal.items.iter().filter(|entry| entry.event.event_type == "TechnicianAssignedEvent");
    assert_eq!(assignments.count(), 1);
}

#[tokio::test]
async fn of_two_dispatchers_who_saw_the_same_only_one_decides() {
    let office = Office::open().await;
    office.furnish().await;
    let id = office.request_visit("SO-100").await;
    let token = office.dispatcher();
    let seen = office.get(&format!("/{id}")).token(&token).send().await;
    let decide = |technician: &'static str, etag: &str| {
        let call = office.post(&format!("/{id}/assign")).token(&token).header("if-match", etag);
        call.json(&json!({ "technicianId": technician })).send()
    };
    let won = decide("TECH-10", seen.header("etag")).await;
    won.ok(200);
    assert_ne!(won.header("etag"), seen.header("etag"));
    let lost = decide("TECH-11", seen.header("etag")).await.error(412, "REVISION_MISMATCH");
    assert_eq!(lost["details"], json!({ "expected": 1, "actual": dispatch(&office, &id).await.revision }));
    assert_eq!(dispatch(&office, &id).await.assignment.unwrap().technician_id, "TECH-10");
    decide("TECH-11", won.header("etag")).await.ok(200);
    decide("TECH-10", "*").await.ok(200);

    let path = "/technicians/TECH-10";
    let rename = |etag: &str, name: &str| {
        office.put(path).token(&token).header("if-match", etag).json(&json!({ "name": name })).send()
    };
    let known = office.get(path).token(&token).send().await;
    let renamed = rename(known.header("etag"), "Maria Huber-Novak").await;
    assert_eq!(read::<schema::Technician>(&renamed, 200).skills.len(), 1, "what was not named stays");
    rename(known.header("etag"), "Somebody").await.error(412, "REVISION_MISMATCH");
}

#[tokio::test]
async fn what_the_caller_has_already_is_not_sent_again() {
    let office = Office::open().await;
    office.furnish().await;
    let token = office.dispatcher();
    for path in ["/technicians/TECH-10", "/locations/LOC-10"] {
        let first = office.get(path).token(&token).send().await;
        let etag = first.header("etag").to_owned();
        let again = office.get(path).token(&token).header("if-none-match", &etag).send().await;
        assert_eq!((again.status.as_u16(), again.bytes.len(), again.header("etag")), (304, 0, etag.as_str()));
        let other = office.get(path).token(&token).header("if-none-match", "\"999\"").send().await;
        assert_eq!(other.status.as_u16(), 200);
    }
}

#[tokio::test]
async fn a_search_goes_page_by_page_and_misses_nobody() {
    let office = Office::open().await;
    office.furnish().await;
    let token = office.dispatcher();
    for number in 0..7_u32 {
        let (start, end) =
            (format!("2026-02-03T{:02}:00:00Z", 6 + number), format!("2026-02-03T{:02}:30:00Z", 6 + number));
        let request = visit_request(&format!("SO-{number}"), &start, &end);
        office.post("/requests").token(&token).json(&request).send().await.ok(201);
    }
    office
        .post("/requests")
        .token(&token)
        .json(&json!({ "serviceOrderId": "SO-X", "locationId": "LOC-10" }))
        .send()
        .await
        .ok(201);
    let mut orders = Vec::new();
    let mut path = "/requests?limit=3".to_owned();
    loop {
        let page: schema::DispatchPage = read(&office.get(&path).token(&token).send().await, 200);
        assert!(page.items.len() <= 3);
        orders.extend(page.items.into_iter().map(|visit| visit.service_order_id));
        let Some(cursor) = page.next_cursor else { break };
        path = format!("/requests?limit=3&cursor={cursor}");
    }
    assert_eq!(orders, ["SO-0", "SO-1", "SO-2", "SO-3", "SO-4", "SO-5", "SO-6", "SO-X"], "unscheduled ones last");
    let count = |path: &'static str| async {
        let page: schema::DispatchPage = read(&office.get(path).token(&token).send().await, 200);
        page.items.len()
    };
    assert_eq!(count("/requests?serviceOrderId=SO-3").await, 1);
    assert_eq!(count("/requests?scheduledFrom=2026-02-03T08:00:00Z&scheduledTo=2026-02-03T10:00:00Z").await, 2);
    assert_eq!(count("/requests?status=ASSIGNED,CONFIRMED").await, 0);
    assert_eq!(count("/requests?status=PENDING&locationId=LOC-10").await, 8);
    assert_eq!(count("/requests?priorityMin=HIGH").await, 0);
    let mut found = Vec::new();
    let mut path = "/technicians?limit=1".to_owned();
    loop {
        let page: schema::TechnicianPage = read(&office.get(&path).token(&token).send().await, 200);
        found.extend(page.items.into_iter().map(|technician| technician.technician_id));
        let Some(cursor) = page.next_cursor else { break };
        path = format!("/technicians?limit=1&cursor={cursor}");
    }
    assert_eq!(found, ["TECH-10", "TECH-11"]);
}

#[tokio::test]
async fn events_of_other_systems_come_in_once_each_and_a_poisoned_one_fails_alone() {
    let office = Office::open().await;
    office.furnish().await;
    let scheduled = |event: &str, order: &str| {
        json!({ "eventType": "ServiceOrderScheduledEvent", "eventId": event, "timestamp": "2026-02-02T09:00:00Z",
            "aggregateId": order, "tenantId": TENANT, "payload": { "serviceOrderId": order, "locationId": "LOC-10",
            "requiredSkills": ["HVAC"], "scheduleStart": "2026-02-03T08:00:00Z", "scheduleEnd": "2026-02-03T09:00:00Z" } })
    };
    let send = |body: Value| {
        let call = office.post("/events").token(&office.integration());
        call.json(&body).send()
    };
    let one: schema::IngestResult = read(&send(scheduled("evt-1", "SO-100")).await, 200);
    assert_eq!(one.items[0].effect.as_deref(), Some("APPLIED"));
    assert!(one.items[0].dispatch_id.is_some());
    let batch = json!([scheduled("evt-1", "SO-100"), { "eventType": "Nonsense", "eventId": "evt-2" }, 7, scheduled("evt-3", "SO-101")]);
    let many: schema::IngestResult = read(&send(batch).await, 200);
    let effects: Vec<_> = many.items.iter().map(|line| line.effect.as_deref()).collect();
    assert_eq!(effects, [Some("DUPLICATE"), None, None, Some("APPLIED")]);
    let failure = many.items[1].error.as_ref().unwrap();
    assert!(["EVENT_UNKNOWN", "EVENT_UNREADABLE"].contains(&failure.code.as_str()), "{failure:?}");
    assert_eq!(many.items[1].event_id.as_deref(), Some("evt-2"));
    let page: schema::DispatchPage = read(&office.get("/requests").token(&office.dispatcher()).send().await, 200);
    assert_eq!(page.items.len(), 2);
    send(json!(vec![scheduled("evt-1", "SO-100"); 501])).await.error(422, "VALIDATION_FAILED");
}

#[tokio::test]
async fn the_journal_is_followed_with_its_cursor() {
    let office = Office::open().await;
    office.furnish().await;
    let token = office.integration();
    let page = async |path: String| {
        read::<schema::JournalPage>(&office.get(&path).token(&office.integration()).send().await, 200)
    };
    let id = office.request_visit("SO-100").await;
    assign(&office, &id, "TECH-10").await.ok(200);
    let start = page("/events".to_owned()).await;
    let cursor = start.next_cursor.unwrap();
    let quiet = page(format!("/events?cursor={cursor}")).await;
    assert!(quiet.items.is_empty());
    assert_eq!(quiet.next_cursor.as_deref(), Some(cursor.as_str()), "asked again, it goes on from here");
    let reason = json!({ "reason": "no time" });
    office.post(&format!("/{id}/reject")).token(&office.technician("TECH-10")).json(&reason).send().await.ok(200);
    let news = page(format!("/events?cursor={cursor}")).await;
    assert_eq!(news.items[0].event.event_type, "DispatchRejectedEvent");
    assert_eq!(news.items[0].topic, "crm.dispatch.assignment.rejected");
    assert_eq!(
        news.items[0].event.payload,
        json!({ "dispatchId": id, "technicianId": "TECH-10", "reason": "no time" })
    );
    let topic = page("/events?topic=crm.dispatch.assignment.created".to_owned()).await;
    assert!(topic.items.iter().all(|entry| entry.topic == "crm.dispatch.assignment.created") && topic.items.len() == 1);
    office.get("/events?cursor=0").token(&token).send().await.error(422, "VALIDATION_FAILED");
}

#[tokio::test]
async fn the_lists_of_the_office_are_as_documented() {
    let office = Office::open().await;
    office.furnish().await;
    let token = office.admin();
    let get = |path: &'static str| office.get(path).token(&token).send();
    let skills: schema::SkillList = read(&get("/skills").await, 200);
    assert_eq!(
        (skills.items[0].code.as_str(), skills.items[0].technicians, skills.items[0].highest_level),
        ("HVAC", 2, 2)
    );
    let sites: schema::LocationPage = read(&get("/locations").await, 200);
    assert_eq!(sites.items[0].name, "Cafe Central");
    let devices: schema::DeviceList = read(&get("/devices").await, 200);
    assert!(devices.items.is_empty());
    let exceptions: schema::ExceptionList = read(&get("/exceptions").await, 200);
    assert!(exceptions.items.is_empty());
    let sla: schema::SlaReport = read(&get("/reports/sla").await, 200);
    assert_eq!((sla.provisional, sla.confirmed, sla.retracted), (0, 0, 0));
    let audit: schema::AuditPage = read(&get("/audit?aggregate=technician:TECH-10&limit=1").await, 200);
    assert_eq!(audit.items.len(), 1);
    assert!(audit.next_cursor.is_some(), "the status came after the entry");

    let absence =
        json!({ "window": { "start": "2026-02-03T00:00:00Z", "end": "2026-02-04T00:00:00Z" }, "reason": "vacation" });
    let away = office.post("/technicians/TECH-10/absences").token(&token).json(&absence).send().await;
    assert_eq!(read::<schema::Technician>(&away, 200).absences[0].reason, "vacation");
    let availability = json!({ "availability": [] });
    let never = office.put("/technicians/TECH-10/availability").token(&token).json(&availability).send().await;
    assert!(read::<schema::Technician>(&never, 200).availability.is_empty());
    let id = office.request_visit("SO-100").await;
    let refused = assign(&office, &id, "TECH-10").await.error(409, "TECHNICIAN_NOT_AVAILABLE");
    let reasons: Vec<_> =
        refused["details"]["reasons"].as_array().unwrap().iter().map(|why| why["reason"].clone()).collect();
    assert!(reasons.contains(&json!("ABSENT")) && reasons.contains(&json!("OUTSIDE_AVAILABILITY")), "{reasons:?}");
}

#[tokio::test]
async fn a_deadline_that_passes_shows_in_the_report() {
    let office = Office::open().await;
    office.furnish().await;
    let token = office.dispatcher();
    let mut request = visit_request("SO-100", "2026-02-02T11:00:00Z", "2026-02-02T12:00:00Z");
    request["slaDeadline"] = json!("2026-02-02T11:30:00Z");
    let created = office.post("/requests").token(&token).json(&request).send().await.ok(201);
    office.clock.advance(2 * 60 * 60 * 1000);
    office.app.service.sweep().await.unwrap();
    let report: schema::SlaReport = read(&office.get("/reports/sla").token(&office.dispatcher()).send().await, 200);
    assert_eq!(report.breaches.len(), 1, "{report:?}");
    assert_eq!(report.breaches[0].dispatch_id, created["dispatchId"].as_str().unwrap());
    assert_eq!(dispatch(&office, &report.breaches[0].dispatch_id).await.sla.unwrap().status, report.breaches[0].status);
    assert_eq!(office.clock.seconds(), MONDAY_10_MS / 1000 + 7_200);
}
