//! What no retry helps.

use crate::world::{TENANT, World, header, metric};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use crm_dispatch_server::events::kafka::consume::letters::{DeadLetter, DeadLetters, Retry};
use crm_dispatch_server::service::ingest::IngestEffect;
use rdkafka::message::{Headers, Message, OwnedMessage};
use serde_json::{Value, json};
use std::collections::BTreeMap;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn poison_among_good_events_goes_whole_to_the_dead_letters_and_the_partition_goes_on() {
    let world = World::new(1).await;
    let good = |n: u32| {
        let payload = json!({ "serviceOrderId": format!("SO-{n}"), "locationId": "LOC-1" });
        world.event("ServiceOrderScheduledEvent", &format!("evt-{n}"), payload)
    };
    let topic = world.topic("ServiceOrderScheduledEvent").to_owned();
    let bytes =
        |key: &str, value: &[u8]| json!({ "topic": topic, "key": key, "base64": BASE64_STANDARD.encode(value) });
    let event = |key: &str, change: &dyn Fn(&mut Value)| {
        let payload = json!({ "serviceOrderId": key, "locationId": "LOC-1" });
        let mut record = world.event("ServiceOrderScheduledEvent", &format!("evt-{key}"), payload);
        change(&mut record["json"]);
        record
    };
    let avro = |key: &str, id: u32| {
        let mut record = world.avro("ServiceOrderScheduledEvent", "evt-a", json!({ "serviceOrderId": key }));
        record["avro"]["id"] = json!(id);
        record
    };
    let oversize = vec![b'x'; 600_000];
    let poison: Vec<(&str, &str, Value)> = vec![
        ("no-json", "EVENT_UNREADABLE", bytes("no-json", b"{\"eventType\":")),
        ("no-text", "EVENT_UNREADABLE", bytes("no-text", &[0xff, 0xfe, 0x00])),
        ("empty", "EVENT_UNREADABLE", json!({ "topic": topic, "key": "empty" })),
        ("oversize", "EVENT_OVERSIZE", bytes("oversize", &oversize)),
        ("no-schema", "SCHEMA_UNKNOWN", avro("no-schema", 999)),
        ("wrong-schema", "EVENT_UNREADABLE", bytes("wrong-schema", &[0, 0, 0, 0, 101, 2, b'x'])),
        ("unknown", "EVENT_UNKNOWN", event("unknown", &|json| json["eventType"] = json!("CustomerRenamedEvent"))),
        ("no-tenant", "TENANT_UNKNOWN", event("no-tenant", &|json| json["tenantId"] = Value::Null)),
        ("foreign", "TENANT_UNKNOWN", event("foreign", &|json| json["tenantId"] = json!("tenant-666"))),
        ("no-id", "EVENT_UNREADABLE", event("no-id", &|json| json["eventId"] = json!("has a space"))),
        ("nowhere", "LOCATION_NOT_FOUND", event("nowhere", &|json| json["payload"]["locationId"] = json!("LOC-404"))),
        ("no-place", "EVENT_UNREADABLE", event("no-place", &|json| json["payload"]["locationId"] = Value::Null)),
        (
            "backwards",
            "VALIDATION_FAILED",
            event("backwards", &|json| {
                json["payload"]["scheduleStart"] = json!("2026-02-03T10:00:00Z");
                json["payload"]["scheduleEnd"] = json!("2026-02-03T09:00:00Z");
            }),
        ),
    ];
    let mut records = Vec::new();
    for (n, (_, _, record)) in (0..).zip(&poison) {
        records.push(good(n));
        let mut record = record.clone();
        record["headers"] =
            json!([["traceparent", "00-1-2-01"], ["x-error-code", "OF_ANOTHER_TIME"], ["nothing", null]]);
        records.push(record);
    }
    records.push(good(99));
    world.publish(&records);
    let member = world.member();
    world.caught_up().await;
    assert_eq!(world.dispatches().await, poison.len() + 1, "every good one");

    let letters = world.dead_letters(poison.len());
    assert_eq!(letters.len(), poison.len());
    let by_key: BTreeMap<String, &OwnedMessage> =
        letters.iter().map(|letter| (String::from_utf8_lossy(letter.key().unwrap()).into_owned(), letter)).collect();
    for (place, (key, code, record)) in (0..).zip(&poison) {
        let letter = by_key[*key];
        let value = letter.payload();
        match (&record["json"], &record["base64"]) {
            (Value::Null, Value::Null) if record["avro"].is_null() => assert_eq!(value, None, "{key}"),
            (Value::Null, Value::Null) => assert_eq!(value.unwrap()[..5], [0, 0, 0, 3, 231], "{key}"),
            (Value::Null, bytes) => {
                assert_eq!(value.unwrap(), BASE64_STANDARD.decode(bytes.as_str().unwrap()).unwrap(), "{key}");
            }
            (json, _) => assert_eq!(serde_json::from_slice::<Value>(value.unwrap()).unwrap(), *json, "{key}"),
        }
        let head = |name: &str| header(letter, name).unwrap_or_else(|| panic!("{key} has no {name}"));
        assert_eq!(head("x-error-code"), *code, "{key}: {}", head("x-error-message"));
        assert!(!head("x-error-message").is_empty(), "{key}");
        assert_eq!((head("x-original-topic"), head("x-original-partition")), (topic.clone(), "0".to_owned()), "{key}");
        assert_eq!(head("x-original-offset"), (place * 2 + 1).to_string(), "{key}");
        assert!(head("x-original-timestamp").parse::<i64>().unwrap() > 1_700_000_000_000, "{key}");
        assert_eq!(head("x-consumer-group"), world.config.group, "{key}");
        assert_eq!(head("traceparent"), "00-1-2-01", "{key}: its own headers are kept");
        let names: Vec<&str> = letter.headers().unwrap().iter().map(|header| header.key).collect();
        assert!(names.contains(&"nothing"), "{key}: one without a value too");
        assert_eq!(
            names.iter().filter(|name| **name == "x-error-code").count(),
            1,
            "{key}: an older reason is replaced"
        );
    }
    let counted = metric("crm_dispatch_consumer_dead_letters_total", &[&topic, "reason=\"TENANT_UNKNOWN\""]);
    assert_eq!(counted, 2.0);
    assert_eq!(world.consumed("dead_letter"), 13.0);
    assert!(
        world
            .service
            .store()
            .by_service_order(&"tenant-666".parse().unwrap(), &"foreign".parse().unwrap())
            .await
            .unwrap()
            .is_none()
    );
    assert_ne!(TENANT, "tenant-666");

    // Tried again once the site is known, that one has its effect.
    let admin = world.caller(crm_dispatch_server::service::Role::Admin);
    let site = serde_json::from_value(json!({
        "name": "Late", "address": "Gasse 9", "coordinates": { "latitude": 48.2, "longitude": 16.4 },
    }));
    let request = crm_dispatch_server::service::Request::plain(&admin);
    world.service.put_location(request, &"LOC-404".parse().unwrap(), site.unwrap()).await.unwrap();
    let retry = Retry::new(&world.config, None, world.service.clone());
    let letters: Vec<DeadLetter> =
        DeadLetters::open(&world.config, &world.client()).unwrap().map(Result::unwrap).collect();
    assert_eq!(letters.len(), poison.len());
    for letter in &letters {
        let done = retry.again(letter).await;
        match letter.key.as_deref() {
            Some("nowhere") => assert_eq!(done, Ok(IngestEffect::Applied)),
            key => assert!(done.is_err(), "{key:?}"),
        }
    }
    assert!(world.dispatch_of("nowhere").await.is_some());
    member.stop().await;
}
