//! A real server's days on a real Kafka, read by somebody else's client.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a story that is not as told shall fail")]

mod kafka_support;
mod support;

use crm_dispatch_server::events::{Event, TOPICS};
use crm_dispatch_server::service::commit::Commit;
use crm_dispatch_server::store::conformance::fixture::{blank, commit, event, tech, visit};
use crm_dispatch_server::store::sqlite::SqliteStore;
use crm_dispatch_server::store::{CommitLog as _, Journal as _};
use kafka_support::broker::Broker;
use kafka_support::read_by_another_client;
use kafka_support::registry::TestRegistry;
use kafka_support::services::{own_prefix, shared_broker};
use serde_json::{Value, json};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use support::World;
use sync_core::domain::{DispatchId, FactKind};

/// Generous: only a failure takes as long.
const PATIENCE: Duration = Duration::from_secs(120);

/// The journal's envelopes with their topics, by REST.
async fn journal(world: &World) -> Vec<Value> {
    let mut told = Vec::new();
    let mut page = world.get("/events?limit=200").await;
    while !page["items"].as_array().unwrap().is_empty() {
        told.extend(page["items"].as_array().unwrap().iter().cloned());
        page = world.get(&format!("/events?limit=200&cursor={}", page["nextCursor"].as_str().unwrap())).await;
    }
    told
}

/// Visits are assigned, confirmed, refused, travelled to, done; a technician goes home.
async fn a_day(world: &World) {
    let maria = world.phone("TECH-10", "maria");
    let done = world.assigned("SO-1", 1, "TECH-10").await;
    maria.until_holding(&done).await;
    maria.starts_work(&done).await;
    let answer = sync_core::store::NewEdit::Answer { item: "pressure".parse().unwrap(), value: "1.8".into() };
    maria.client.act(&done, answer, None).await.unwrap();
    maria.does(&done, FactKind::Completed).await;
    maria.caught_up().await;
    world.until_status(&done, "COMPLETED").await;

    let refused = world.assigned("SO-2", 3, "TECH-20").await;
    let as_technician = world.token("TECH-20");
    let say = async |dispatch: &DispatchId, word: &str, body: Value| {
        let path = format!("/{dispatch}/{word}");
        let (status, answer) = world.call_as(&as_technician, reqwest::Method::POST, &path, Some(body)).await;
        assert!(status.is_success(), "{path}: {status} {answer}");
    };
    say(&refused, "reject", json!({ "reason": "Straße gesperrt" })).await;
    world.assign(&refused, "TECH-20").await;
    say(&refused, "confirm", json!({})).await;
    world.post("/technicians/TECH-20/status", json!({ "status": "ON_BREAK" })).await;
    world.post("/technicians/TECH-20/status", json!({ "status": "AVAILABLE" })).await;
}

/// What a day comes to; a day in which little happened proves little.
fn assert_everything_happened(told: &[Value]) {
    for (topic, _) in TOPICS.iter().filter(|(topic, _)| *topic != "crm.dispatch.route.optimized") {
        assert!(told.iter().any(|entry| entry["topic"] == *topic), "nothing on {topic}: {told:?}");
    }
    let status = |name: &str| told.iter().any(|entry| entry["event"]["payload"]["status"] == name);
    assert!(["ASSIGNED", "ON_ROUTE", "ON_SITE", "ON_BREAK"].into_iter().all(status), "{told:?}");
}

async fn until_published(world: &World) {
    let deadline = Instant::now() + PATIENCE;
    let store = world.server().service().store();
    while store.outbox_lag().await.unwrap().waiting > 0 {
        assert!(Instant::now() < deadline, "{:?}", world.server().relay_status().borrow());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_systems_client_reads_the_day_in_json() {
    let broker = Broker::start().await;
    let world = World::with(&[("KAFKA__BROKERS", &broker.address())]).await;
    a_day(&world).await;
    until_published(&world).await;
    let told = journal(&world).await;
    assert_everything_happened(&told);
    read_by_another_client(&broker.address(), "", None, told, true).await;
    let health = world.http.get(format!("{}/health/ready", world.url())).send().await.unwrap();
    assert_eq!(health.json::<Value>().await.unwrap(), json!({ "status": "UP", "events": "PUBLISHING" }));
}

#[tokio::test(flavor = "multi_thread")]
async fn another_systems_client_reads_the_day_in_avro() {
    let (registry, prefix) = (TestRegistry::start().await, own_prefix());
    let world = World::with(&[
        ("KAFKA__BROKERS", &shared_broker()),
        ("KAFKA__TOPIC_PREFIX", &prefix),
        ("KAFKA__ENCODING", "avro"),
        ("KAFKA__SCHEMA_REGISTRY_URL", registry.url()),
    ])
    .await;
    a_day(&world).await;
    until_published(&world).await;
    let told = journal(&world).await;
    assert_everything_happened(&told);
    read_by_another_client(&shared_broker(), &prefix, Some(registry.url()), told, true).await;
}

/// A server of its own process, killed at once when dropped.
struct Process(Child);

impl Process {
    fn start(database: &Path, prefix: &str) -> Self {
        let child = Command::new(env!("CARGO_BIN_EXE_crm-dispatch"))
            .arg("serve")
            .env("CRM_DISPATCH__SERVER__PORT", "0")
            .env("CRM_DISPATCH__DATABASE__URL", format!("sqlite://{}", database.display()))
            .env("CRM_DISPATCH__KAFKA__BROKERS", shared_broker())
            .env("CRM_DISPATCH__KAFKA__TOPIC_PREFIX", prefix)
            .env("CRM_DISPATCH__KAFKA__IN_FLIGHT_MAX", "500")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self(child)
    }

    /// SIGKILL.
    fn kill(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It has ended already where the story killed it.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn until_waiting(database: &Path, at_most: i64) {
    let deadline = Instant::now() + PATIENCE;
    let reader = rusqlite::Connection::open_with_flags(database, rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    let count = || -> i64 {
        reader.query_row("SELECT count(*) FROM events WHERE published_ms IS NULL", [], |row| row.get(0)).unwrap()
    };
    while count() > at_most {
        assert!(Instant::now() < deadline, "{} wait, not {at_most}", count());
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_killed_between_sending_and_marking_sends_again_under_the_same_ids() {
    const EVENTS: usize = 20_000;
    let dir = tempfile::tempdir().unwrap();
    let database = dir.path().join("server.db");
    let prefix = own_prefix();
    let store = SqliteStore::open(&database).await.unwrap();
    for hundred in (0..EVENTS).collect::<Vec<_>>().chunks(100) {
        let events =
            hundred.iter().map(|n| event(&format!("evt-{n:07}"), &visit(&format!("DSP-{}", n % 60)), &tech("TECH-10")));
        commit(&*store, Commit { events: events.collect(), ..blank(0) }).await;
    }
    let mut told = Vec::new();
    let mut after = 0;
    loop {
        let page: Vec<(u64, Event)> = store.events(&blank(0).tenant, after, None, None, 1_000).await.unwrap();
        let Some((last, _)) = page.last() else { break };
        after = *last;
        told.extend(page.iter().map(|(_, event)| json!({ "topic": event.payload.topic(), "event": event })));
    }
    store.close().await;

    for left in [18_000, 13_000, 8_000, 3_000] {
        let server = Process::start(&database, &prefix);
        until_waiting(&database, left).await;
        server.kill();
    }
    let server = Process::start(&database, &prefix);
    until_waiting(&database, 0).await;
    server.kill();
    read_by_another_client(&shared_broker(), &prefix, None, told, false).await;
}
