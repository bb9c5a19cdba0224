//! What only a person can mend is said once, in one line, and nothing is touched.

use super::*;
use crm_dispatch_server::app::{Parts, Server};
use crm_dispatch_server::config::Config;
use crm_dispatch_server::events::TOPICS;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use std::collections::HashMap;
use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, Once};
use support::reader::partitions;
use support::registry::TestRegistry;
use support::{kafka, own_prefix, shared_broker};

fn reason(status: RelayStatus) -> String {
    match status {
        RelayStatus::Stopped(reason) => reason,
        other => panic!("{other:?}"),
    }
}

async fn make_topic(name: &str, partitions: i32) {
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", shared_broker()).create().unwrap();
    let topic = NewTopic::new(name, partitions, TopicReplication::Fixed(1));
    admin.create_topics([&topic], &AdminOptions::new()).await.unwrap().remove(0).unwrap();
    until("the topic is known", async || !support::reader::partitions(&shared_broker(), name).await.is_empty()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_with_too_few_partitions_stops_the_relay_and_stays_as_it_is() {
    let prefix = own_prefix();
    let topic = format!("{prefix}crm.dispatch.assignment.created");
    make_topic(&topic, 3).await;
    let node = Node::start(&kafka(&shared_broker(), &prefix, &[])).await;
    write(&node.store, 0, 10, 5).await;
    node.until_status("STOPPED").await;
    let reason = reason(node.status());
    assert!(reason.contains(&topic) && reason.contains("has 3 partitions and needs 6"), "{reason}");
    assert!(reason.contains("--alter"), "it names the remedy: {reason}");
    assert_eq!(partitions(&shared_broker(), &topic).await, BTreeMap::from([(topic.clone(), 3)]));
    assert_eq!(node.waiting().await, 10);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_with_more_partitions_is_used_as_it_is() {
    let prefix = own_prefix();
    let topic = format!("{prefix}crm.dispatch.assignment.created");
    make_topic(&topic, 12).await;
    let node = Node::start(&kafka(&shared_broker(), &prefix, &[])).await;
    write(&node.store, 0, 10, 5).await;
    node.until_published().await;
    assert_eq!(partitions(&shared_broker(), &topic).await, BTreeMap::from([(topic.clone(), 12)]));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_schema_that_the_registry_refuses_stops_the_relay_at_once() {
    let prefix = own_prefix();
    let registry = TestRegistry::start().await;
    let subject = format!("{prefix}{}-value", TOPICS[1].0);
    // Somebody's idea of the event, in which the dispatch is a number.
    let theirs = r#"{"type":"record","name":"DispatchConfirmedEvent","namespace":"com.erp.crm.dispatch.events",
        "fields":[{"name":"dispatchId","type":"long"}]}"#;
    registry.put(&subject, theirs);
    let settings = [("encoding", "avro"), ("schema_registry_url", registry.url())];
    let node = Node::start(&kafka(&shared_broker(), &prefix, &settings)).await;
    write(&node.store, 0, 10, 5).await;
    node.until_status("STOPPED").await;

    let reason = reason(node.status());
    assert!(reason.contains(&subject) && reason.contains("not compatible"), "{reason}");
    assert!(!reason.contains('\n'), "one line: {reason}");
    assert_eq!(node.waiting().await, 10, "events wait");
    let calls = registry.calls();
    assert!(calls.len() < 20, "no storm: {calls:?}");
    assert!(registry.subjects().contains(&(subject, 1)), "the subject is as it was");
    node.stop().await;
    assert_eq!(registry.calls(), calls, "it was not tried again");
}

/// What everybody in this process says to the log, one line each.
fn log() -> &'static Mutex<Vec<u8>> {
    static LINES: Mutex<Vec<u8>> = Mutex::new(Vec::new());
    static ONCE: Once = Once::new();
    struct Lines;
    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            LINES.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    ONCE.call_once(|| tracing_subscriber::fmt().with_writer(|| Lines).with_ansi(false).init());
    &LINES
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_hangs_up_again_and_again_is_said_once_and_called_ever_more_rarely() {
    let lines = log();
    // Takes calls and hangs up, and counts them.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let broker = listener.local_addr().unwrap().to_string();
    let calls = Arc::new(AtomicUsize::new(0));
    tokio::spawn({
        let calls = Arc::clone(&calls);
        async move {
            while let Ok((call, _)) = listener.accept().await {
                drop(call);
                calls.fetch_add(1, Ordering::SeqCst);
            }
        }
    });
    let node = Node::start(&kafka(&broker, "", &[("backoff_max_ms", "10000")])).await;
    write(&node.store, 0, 10, 5).await;
    node.until_status("WAITING").await;
    until("it was tried again", async || calls.load(Ordering::SeqCst) >= 8).await;
    node.stop().await;
    let text = String::from_utf8(lines.lock().unwrap().clone()).unwrap();
    let said: Vec<_> = text.lines().filter(|line| line.contains(&broker)).collect();
    assert_eq!(said.len(), 1, "one line a change: {said:?}");
    assert!(said[0].contains("WARN") && said[0].contains("events wait in the database"), "{said:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_cannot_be_reached_at_the_start_holds_up_no_dispatcher() {
    // Nothing listens on a port that was free a moment ago.
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let settings = HashMap::from([
        ("CRM_DISPATCH__SERVER__PORT".to_owned(), "0".to_owned()),
        ("CRM_DISPATCH__DATABASE__URL".to_owned(), format!("sqlite://{}", dir.path().join("server.db").display())),
        ("CRM_DISPATCH__KAFKA__BROKERS".to_owned(), nobody.to_string()),
    ]);
    let server = Server::start(Config::load(None, settings).unwrap(), Parts::default()).await.unwrap();
    let mut status = server.relay_status();
    let said = tokio::time::timeout(support::PATIENCE, status.wait_for(RelayStatus::is_degraded)).await.unwrap();
    let RelayStatus::Waiting(reason) = said.unwrap().clone() else { panic!("it is tried again") };
    assert!(reason.contains(&nobody.to_string()) && reason.contains("kafka.brokers"), "{reason}");

    let http = reqwest::Client::new();
    let ready = http.get(format!("{}/health/ready", server.url())).send().await.unwrap();
    assert_eq!(ready.status(), 200, "dispatching does not depend on Kafka");
    let health: serde_json::Value = ready.json().await.unwrap();
    assert_eq!(health, serde_json::json!({ "status": "DEGRADED", "events": "WAITING" }));
    server.shutdown().await;
}
