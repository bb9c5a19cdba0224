//! The four events, in both encodings, and what is away for a while.

use crate::postgres_support::{Database, Server};
use crate::registry::TestRegistry;
use crate::world::{EVENTS, World, metric, schema_text, until};
use serde_json::{Value, json};
use sqlx::Connection as _;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use std::sync::atomic::Ordering;
use sync_core::domain::VisitStatus;
use sync_core::domain::plan::Priority;

/// The four events about orders and a technician of their own; `make` chooses the encoding.
fn day(make: &dyn Fn(&str, &str, Value) -> Value, mark: &str, round: &str) -> Vec<Value> {
    let (kept, cancelled) = (format!("SO-{mark}-1"), format!("SO-{mark}-2"));
    let scheduled = |order: &str| {
        json!({
            "serviceOrderId": order,
            "scheduleStart": 1_770_110_000_000_i64,
            "scheduleEnd": 1_770_113_600_000_i64,
            "priority": "LOW",
            "requiredSkills": [{ "code": "HVAC", "level": 2 }],
            "location": {
                "locationId": format!("LOC-{mark}"), "name": "Mill", "address": "Gasse 7",
                "coordinates": { "latitude": 48.2, "longitude": 16.37 },
            },
        })
    };
    let event = |name: &str, about: &str, payload: Value| make(name, &format!("evt-{mark}-{about}-{round}"), payload);
    vec![
        event("ServiceOrderScheduledEvent", "s1", scheduled(&kept)),
        event("ServiceOrderScheduledEvent", "s2", scheduled(&cancelled)),
        event("ServiceOrderCancelledEvent", "c2", json!({ "serviceOrderId": cancelled, "reason": "moved away" })),
        event("SlaBreachedEvent", "b1", json!({ "serviceOrderId": kept, "breachId": "BR-1" })),
        event(
            "StockChangedEvent",
            "st",
            json!({ "technicianId": "TECH-1", "partNumber": format!("P-{mark}"), "delta": 5, "movementId": format!("MV-{mark}") }),
        ),
    ]
}

/// Every event, delivered twice under its id and once more under another, in every codec a producer may choose.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_event_has_its_effect_once_in_both_encodings() {
    let world = World::new(2).await;
    let member = world.member();
    let json = |name: &str, event: &str, payload: Value| world.event(name, event, payload);
    let avro = |name: &str, event: &str, payload: Value| world.avro(name, event, payload);
    let mut published = Vec::new();
    for (round, codec) in [("1", "none"), ("1", "zstd"), ("2", "lz4"), ("2", "snappy"), ("3", "gzip")] {
        let mut records = day(&json, "json", round);
        records.extend(day(&avro, "avro", round));
        for record in &mut records {
            record["codec"] = json!(codec);
        }
        published.extend(records);
    }
    world.publish(&published);
    world.caught_up().await;

    for mark in ["json", "avro"] {
        let kept = world.dispatch_of(&format!("SO-{mark}-1")).await.unwrap();
        assert_eq!(kept.row.plan.scheduled.unwrap().start.millis(), 1_770_110_000_000, "{mark}");
        assert_eq!(kept.row.plan.required_skills[0].level, 2, "{mark}");
        assert_eq!(kept.row.plan.site.as_ref().unwrap().name, "Mill", "{mark}");
        assert_eq!(kept.row.priority, Priority::Normal, "{mark}: one step up, once");
        let cancelled = world.dispatch_of(&format!("SO-{mark}-2")).await.unwrap();
        assert_eq!(cancelled.row.status, VisitStatus::Cancelled, "{mark}");
        let cancellation = cancelled.row.plan.cancellation.unwrap();
        assert_eq!((cancellation.reason.as_str(), cancellation.by.as_str()), ("moved away", "service-orders"));
        assert_eq!(world.stock("TECH-1", &format!("P-{mark}")).await, 5, "{mark}: the movement counts once");
        let chain = world.audit(&format!("dispatch:{}", cancelled.row.dispatch_id)).await;
        let actions: Vec<&str> = chain.iter().map(|record| record.action.as_str()).collect();
        assert_eq!(actions, ["DISPATCH_REQUESTED", "DISPATCH_CANCELLED"], "{mark}");
    }
    assert_eq!(world.dispatches().await, 4);
    assert!(world.dead_letters(0).is_empty());
    let told = ["applied", "duplicate", "no_effect", "waiting"].map(|outcome| world.consumed(outcome));
    assert_eq!(told.iter().sum::<f64>(), 50.0, "each delivery is counted: {told:?}");
    until("the lag is told", || async {
        metric("crm_dispatch_consumer_lag", &[&world.config.topics.stock_changed]) == 0.0
            && metric("crm_dispatch_consumer_rebalances_total", &["assigned"]) > 0.0
    })
    .await;
    member.stop().await;
}

/// Writes to the database fail while somebody else holds it.
async fn take_the_database(world: &World) -> SqliteConnection {
    let mut thief =
        SqliteConnection::connect_with(&SqliteConnectOptions::new().filename(&world.database)).await.unwrap();
    sqlx::query("BEGIN IMMEDIATE").execute(&mut thief).await.unwrap();
    thief
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_member_has_committed_what_it_did_and_the_next_goes_on_from_there() {
    let mut world = World::new(2).await;
    // Offsets are committed at the stop, or not at all.
    world.config.commit_every_ms = 3_600_000;
    let orders = |range: std::ops::Range<u32>| -> Vec<Value> {
        let scheduled = |n| {
            let payload = json!({ "serviceOrderId": format!("SO-{n}"), "locationId": "LOC-1" });
            world.event("ServiceOrderScheduledEvent", &format!("evt-{n}"), payload)
        };
        range.map(scheduled).collect()
    };
    world.publish(&orders(0..50));
    let member = world.member();
    until("all are there", || async { world.dispatches().await == 50 }).await;
    assert_eq!(world.behind(), 50, "nothing is committed yet");
    member.stop().await;
    assert_eq!(world.behind(), 0, "and all of it at the stop");
    world.publish(&orders(50..80));
    let member = world.member();
    until("the others too", || async { world.dispatches().await == 80 }).await;
    member.stop().await;
    assert_eq!((world.consumed("applied"), world.consumed("duplicate")), (80.0, 0.0), "none was consumed again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_registry_that_is_away_holds_up_its_own_partition_only_and_nothing_is_lost() {
    let mut world = World::new(2).await;
    // So few that fetching has to pause, and to go on afterwards.
    world.config.queue_events_max = 20;
    world.schemas.away.store(true, Ordering::SeqCst);
    let stock = |n: i64| {
        let payload = json!({ "technicianId": "TECH-2", "partNumber": "FILTER", "quantity": n });
        let mut record = match n {
            1 => world.avro("StockChangedEvent", "evt-1", payload),
            n => world.event("StockChangedEvent", &format!("evt-{n}"), payload),
        };
        record["partition"] = json!(0);
        record
    };
    let other = |n: i64| {
        let payload = json!({ "technicianId": "TECH-3", "partNumber": "FILTER", "quantity": n });
        let mut record = world.event("StockChangedEvent", &format!("evt-other-{n}"), payload);
        record["partition"] = json!(1);
        record
    };
    let mut records: Vec<Value> = (1..=300).map(stock).collect();
    records.extend((1..=300).map(other));
    world.publish(&records);
    let member = world.member();
    until("the other partition is done", || async { world.stock("TECH-3", "FILTER").await == 300 }).await;
    let topic = &world.config.topics.stock_changed;
    until("the held-up one is told", || async { metric("crm_dispatch_consumer_blocked", &[topic]) == 1.0 }).await;
    assert_eq!(world.stock("TECH-2", "FILTER").await, 0, "nobody overtakes the event that cannot be read yet");
    assert!(metric("crm_dispatch_consumer_retries_total", &[topic]) > 0.0);

    world.schemas.away.store(false, Ordering::SeqCst);
    world.caught_up().await;
    let quantities = |technician: &'static str| {
        let world = &world;
        async move {
            let chain = world.audit(&format!("technician:{technician}")).await;
            let stock = chain.into_iter().filter(|record| record.action == "STOCK_CHANGED");
            stock.map(|record| record.detail["quantity"].as_i64().unwrap()).collect::<Vec<_>>()
        }
    };
    let all: Vec<i64> = (1..=300).collect();
    assert_eq!(quantities("TECH-2").await, all, "each once, in order");
    assert_eq!(quantities("TECH-3").await, all, "each once, in order");
    assert_eq!(metric("crm_dispatch_consumer_blocked", &[topic]), 0.0);
    assert!(world.dead_letters(0).is_empty(), "what is away is no poison");
    member.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_wait_for_a_database_that_is_taken_and_then_have_their_effect() {
    let world = World::new(2).await;
    let thief = take_the_database(&world).await;
    let orders: Vec<Value> = (0..20)
        .map(|n| {
            let payload = json!({ "serviceOrderId": format!("SO-{n}"), "locationId": "LOC-1" });
            world.event("ServiceOrderScheduledEvent", &format!("evt-{n}"), payload)
        })
        .collect();
    world.publish(&orders);
    let member = world.member();
    until("they are tried", || async {
        metric("crm_dispatch_consumer_lag", &[&world.config.topics.service_order_scheduled]) == 20.0
    })
    .await;
    assert_eq!(world.behind(), 20, "no offset without an effect");
    thief.close().await.unwrap();
    world.caught_up().await;
    assert_eq!(world.dispatches().await, 20);
    assert!(world.dead_letters(0).is_empty());
    member.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_wait_while_postgresql_is_away_and_then_have_their_effect() {
    let server = Server::start();
    let database = Database::create_on(&server.url()).await;
    let world = World::on_postgres(2, database.url()).await;
    let orders = |range: std::ops::Range<u32>| -> Vec<Value> {
        let scheduled = |n| {
            let payload = json!({ "serviceOrderId": format!("SO-{n}"), "locationId": "LOC-1" });
            world.event("ServiceOrderScheduledEvent", &format!("evt-{n}"), payload)
        };
        range.map(scheduled).collect()
    };
    let member = world.member();
    world.publish(&orders(0..20));
    world.caught_up().await;
    server.run("kill");
    world.publish(&orders(20..60));
    let topic = &world.config.topics.service_order_scheduled;
    until("both partitions wait", || async { metric("crm_dispatch_consumer_blocked", &[topic]) == 2.0 }).await;
    assert_eq!(world.behind(), 40, "no offset without an effect");
    server.run("start");
    world.caught_up().await;
    assert_eq!(world.dispatches().await, 60);
    assert_eq!(world.consumed("applied"), 60.0);
    // A character that PostgreSQL keeps in no text holds up nobody.
    let odd = json!({ "serviceOrderId": "SO-0", "reason": "moved\u{0}away" });
    world.publish(&[world.event("ServiceOrderCancelledEvent", "evt-odd", odd)]);
    world.caught_up().await;
    assert_eq!(world.dispatch_of("SO-0").await.unwrap().row.status, VisitStatus::Cancelled);
    assert!(world.dead_letters(0).is_empty(), "a database that is away is no poison");
    member.stop().await;
    world.service.store().close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn avro_of_confluents_own_serializer_is_read_with_the_registrys_schema() {
    let world = World::new(1).await;
    let registry = TestRegistry::start().await;
    let member = world.member_with(registry.url());
    let schema: Value = serde_json::from_str(&schema_text(EVENTS[0])).unwrap();
    let scheduled = |n: u32| {
        json!({
            "topic": world.topic(EVENTS[0]),
            "key": format!("SO-{n}"),
            "registered": { "url": registry.url(), "schema": schema, "record": {
                "eventId": format!("evt-{n}"),
                "timestamp": 1_770_098_400_000_i64,
                "tenantId": "tenant-001",
                "serviceOrderId": format!("SO-{n}"),
                "locationId": "LOC-1",
                "requiredSkills": [{ "code": "HVAC", "level": 1 }],
            }},
        })
    };
    let records: Vec<Value> = (0..10).map(scheduled).collect();
    tokio::task::block_in_place(|| world.publish(&records));
    world.caught_up().await;
    assert_eq!(world.dispatches().await, 10);
    let asked = registry.calls().into_iter().filter(|call| call.starts_with("GET /schemas/ids/")).count();
    assert_eq!(asked, 1, "a schema is fetched once: {:?}", registry.calls());
    member.stop().await;
}
