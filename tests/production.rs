//! PostgreSQL, Kafka, a schema registry and two nodes together, as processes: what fails, fails in turn and under load, and another
//! system's client reads what came of it.

#![cfg(feature = "kafka")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a story that is not as told shall fail")]

mod cluster_support;
mod kafka_support;
mod support;

use cluster_support::work::{check, work_through};
use cluster_support::{Cluster, Node, Office, until};
use kafka_support::broker::Broker;
use kafka_support::registry::TestRegistry;
use kafka_support::{another_system, read_by_another_client};
use serde_json::{Value, json};
use sqlx::Row as _;
use std::sync::Arc;
use support::TENANT;
use support::postgres_support::{Database, Server};

const SCHEDULED: &str = "crm.serviceorders.scheduled";
const STOCK: &str = "inventory.stock.changed";
const CONSUMED: [&str; 4] = [SCHEDULED, "crm.serviceorders.cancelled", "crm.serviceorders.sla.breached", STOCK];
/// Service orders and parts that other systems tell of after each failure.
const TOLD_EACH_TIME: usize = 20;

/// The journal's envelopes with their topics, by REST.
async fn journal(office: &Office) -> Vec<Value> {
    let mut told = Vec::new();
    let mut page = office.get("/events?limit=200").await;
    while !page["items"].as_array().unwrap().is_empty() {
        told.extend(page["items"].as_array().unwrap().iter().cloned());
        page = office.get(&format!("/events?limit=200&cursor={}", page["nextCursor"].as_str().unwrap())).await;
    }
    told
}

/// How many events wait, as the database says.
async fn waiting(cluster: &Cluster) -> i64 {
    let mut connection = cluster.database().connect().await;
    let waiting = "SELECT count(*) FROM events WHERE published_ms IS NULL";
    sqlx::query(waiting).fetch_one(&mut connection).await.unwrap().get(0)
}

/// Service orders, and filters for a truck, one at a time. Each is published twice, as a producer does that did not hear its receipt.
async fn others_publish(brokers: &str, from: usize) {
    let event = |topic: &str, name: &str, id: String, key: &str, payload: Value| {
        json!({ "topic": topic, "key": key, "json": {
            "eventType": name, "eventId": id, "timestamp": "2026-02-02T13:05:00Z", "tenantId": TENANT, "payload": payload,
        }})
    };
    let mut records = Vec::new();
    for n in from..from + TOLD_EACH_TIME {
        let order = format!("SO-OF-OTHERS-{n}");
        let scheduled = json!({ "serviceOrderId": order, "locationId": "LOC-10" });
        records.push(event(SCHEDULED, "ServiceOrderScheduledEvent", format!("evt-s{n}"), &order, scheduled));
        // A delta without a movement: nothing but the event's id can tell that it was counted.
        let stock = json!({ "technicianId": "TECH-10", "partNumber": "FILTER", "delta": 1 });
        records.push(event(STOCK, "StockChangedEvent", format!("evt-d{n}"), "TECH-10", stock));
    }
    records.extend(records.clone());
    another_system(brokers, &records).await;
}

async fn restart(cluster: &mut Cluster, number: usize) {
    let node = cluster.nodes.remove(number);
    let port = node.port;
    node.kill().await;
    let node = cluster.node(number, port);
    cluster.nodes.insert(number, node);
}

#[tokio::test(flavor = "multi_thread")]
async fn database_broker_and_nodes_fail_in_turn_under_load_and_nothing_is_lost_doubled_or_swapped() {
    let (broker, server, registry) = (Broker::start().await, Arc::new(Server::start()), TestRegistry::start().await);
    let brokers = broker.address();
    another_system(&brokers, &CONSUMED.map(|topic| json!({ "make": topic, "partitions": 3 }))).await;
    let settings = [
        ("DATABASE__RETRY_MS", "9000"),
        ("KAFKA__BROKERS", brokers.as_str()),
        ("KAFKA__ENCODING", "avro"),
        ("KAFKA__SCHEMA_REGISTRY_URL", registry.url()),
        ("KAFKA__BACKOFF_MAX_MS", "500"),
        ("KAFKA__CONSUME__ENABLED", "true"),
        ("KAFKA__CONSUME__TENANTS", TENANT),
        ("KAFKA__CONSUME__SESSION_TIMEOUT_MS", "6000"),
        ("KAFKA__CONSUME__RETRY_DELAY_MS_MAX", "500"),
    ];
    let mut cluster = Cluster::on(Database::create_on(&server.url()).await, &settings).await;
    let mut told = 0;
    let (work, _, phones) = work_through(&mut cluster, async |cluster| {
        for failure in ["postgresql restarts", "broker", "node 0", "postgresql crashes", "node 1", "broker"] {
            others_publish(&brokers, told).await;
            told += TOLD_EACH_TIME;
            match failure {
                "broker" => {
                    broker.kill().await;
                    broker.again().await;
                }
                "node 0" => restart(cluster, 0).await,
                "node 1" => restart(cluster, 1).await,
                postgresql => {
                    let (server, crashes) = (Arc::clone(&server), postgresql == "postgresql crashes");
                    let again = move || match crashes {
                        true => {
                            server.run("kill");
                            server.run("start");
                        }
                        false => server.run("restart"),
                    };
                    tokio::task::spawn_blocking(again).await.unwrap();
                }
            }
        }
        others_publish(&brokers, told).await;
        told += TOLD_EACH_TIME;
    })
    .await;
    check(&cluster, &work, &phones).await;

    // What other systems published twice has had its effect once.
    let behind = json!({ "behind": "crm-dispatch-cg", "topics": CONSUMED });
    until("all offsets are committed", async || another_system(&brokers, std::slice::from_ref(&behind)).await == "0")
        .await;
    let office = cluster.office(0);
    let technician = office.get("/technicians/TECH-10").await;
    assert_eq!(technician["vanStock"]["FILTER"], told, "{technician}");
    let mut connection = cluster.database().connect().await;
    let orders = "SELECT count(*) FROM dispatches d JOIN audit a ON a.tenant = d.tenant \
        AND a.aggregate = 'dispatch:' || d.dispatch_id AND a.action = 'DISPATCH_REQUESTED' WHERE service_order_id LIKE 'SO-OF-OTHERS-%'";
    let orders: i64 = sqlx::query(orders).fetch_one(&mut connection).await.unwrap().get(0);
    assert_eq!(usize::try_from(orders).unwrap(), told, "each order has one dispatch, requested once");

    // And what happened here is on the topics: every event, each dispatch's in their order.
    until("everything is published", async || waiting(&cluster).await == 0).await;
    let journal = journal(&office).await;
    assert!(journal.len() >= work.assigned.len() + work.accepted.len(), "{} events", journal.len());
    read_by_another_client(&brokers, "", Some(registry.url()), journal, false).await;
}

/// True while this node's relay publishes.
async fn publishes(node: &Node) -> bool {
    node.figure("crm_dispatch_relay_active").await >= 1.0
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_hangs_holds_up_no_dispatcher_and_the_figures_say_how_much_waits_and_how_long() {
    const VISITS: usize = 60;
    let broker = Broker::start().await;
    // So few under way that nearly everything waits outside the client.
    let settings = [("KAFKA__BROKERS", broker.address()), ("KAFKA__IN_FLIGHT_MAX", "10".to_owned())];
    let settings = settings.each_ref().map(|(name, value)| (*name, value.as_str()));
    let cluster = Cluster::on(Database::create().await, &settings).await;
    let office = cluster.office(0);
    office.furnish(&["TECH-10"]).await;
    office.assigned("SO-0", 0, "TECH-10").await;
    until("published", async || waiting(&cluster).await == 0).await;
    let (first, second) = (&cluster.nodes[0], &cluster.nodes[1]);
    until("one of them publishes", async || publishes(first).await != publishes(second).await).await;
    let active = if publishes(first).await { first } else { second };

    // Whatever failed before, say while the broker started, proves nothing.
    let failures = async || active.figure("crm_dispatch_events_publish_failures_total").await;
    let failed_before = failures().await;
    broker.hang().await;
    for n in 1..=VISITS {
        office.assigned(&format!("SO-{n}"), i64::try_from(n).unwrap(), "TECH-10").await;
    }
    assert_eq!(office.most_tries(), 1, "every call was answered at once");
    assert_eq!(waiting(&cluster).await, 60, "nothing is marked without a receipt");
    for node in [first, second] {
        until("the figures say how much", async || node.figure("crm_dispatch_outbox_waiting").await == 60.0).await;
        let age = async || node.figure("crm_dispatch_outbox_oldest_age_seconds").await;
        until("and how long", async || age().await > 0.0).await;
        let before = age().await;
        until("ever longer", async || age().await > before).await;
    }
    let ready = format!("{}/health/ready", active.url());
    let degraded = json!({ "status": "DEGRADED", "events": "WAITING" });
    until("health says so", async || {
        let answer = reqwest::get(&ready).await.unwrap();
        assert_eq!(answer.status(), 200, "dispatching does not depend on Kafka");
        answer.json::<Value>().await.unwrap() == degraded
    })
    .await;

    // The client may be stuck in the hanging broker for ever: it is given up.
    until("another client was tried", async || failures().await > failed_before).await;

    broker.go_on().await;
    until("everything is published", async || waiting(&cluster).await == 0).await;
    until("and the figures say so", async || {
        active.figure("crm_dispatch_outbox_waiting").await == 0.0
            && active.figure("crm_dispatch_outbox_oldest_age_seconds").await == 0.0
    })
    .await;
    read_by_another_client(&broker.address(), "", None, journal(&office).await, false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_cannot_be_reached_at_the_start_is_one_line_with_the_remedy() {
    // Nothing listens on a port that was free a moment ago.
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let mut cluster = Cluster::on(Database::create().await, &[("KAFKA__BROKERS", &nobody)]).await;
    let office = cluster.office(1);
    office.furnish(&["TECH-10"]).await;
    for n in 0..20 {
        office.assigned(&format!("SO-{n}"), n, "TECH-10").await;
    }
    for number in 0..2 {
        let ready = format!("{}/health/ready", cluster.nodes[number].url());
        let waits = json!({ "status": "DEGRADED", "events": "WAITING" });
        // They take turns in trying; each has tried more than once by now.
        let failures = async || cluster.nodes[number].figure("crm_dispatch_events_publish_failures_total").await;
        until("tried again", async || failures().await >= 2.0).await;
        until("it says so", async || reqwest::get(&ready).await.unwrap().json::<Value>().await.unwrap() == waits).await;
    }
    assert_eq!(waiting(&cluster).await, 20, "events wait in the database");
    for (number, node) in std::mem::take(&mut cluster.nodes).into_iter().enumerate() {
        node.terminate();
        assert!(node.ended().await.success(), "and it ends in good order");
        let log = std::fs::read_to_string(cluster.log(number)).unwrap();
        let said: Vec<_> = log.lines().filter(|line| line.contains(&nobody) || line.contains(" WARN ")).collect();
        assert_eq!(said.len(), 1, "one line: {said:#?}");
        assert!(said[0].contains(&nobody) && said[0].contains("check kafka.brokers and that it runs"), "{said:?}");
    }
}
