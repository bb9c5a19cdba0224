//! What the server's own stories about Kafka use too, and other systems' clients.

#![allow(dead_code, unreachable_pub, missing_docs, clippy::unwrap_used, reason = "shared by several story files")]

#[path = "../../server/tests/kafka_support/broker.rs"]
pub mod broker;
#[path = "../../server/tests/kafka_support/registry.rs"]
pub mod registry;
#[path = "../../server/tests/kafka_support/services.rs"]
pub mod services;

use crm_dispatch_server::events::TOPICS;
use serde_json::{Value, json};
use services::service;
use std::io::Write as _;
use std::process::{Command, Stdio};

/// Has confluent-kafka and fastavro compare what is on the topics with what the journal says.
pub async fn read_by_another_client(
    brokers: &str,
    prefix: &str,
    registry: Option<&str>,
    told: Vec<Value>,
    each_once: bool,
) {
    let topics: Value = TOPICS.iter().map(|(name, partitions)| ((*name).to_owned(), json!(partitions))).collect();
    let expected = json!({ "brokers": brokers, "prefix": prefix, "registry": registry, "topics": topics, "told": told,
        "eachOnce": each_once });
    let python = service("TEST_PYTHON");
    let output = tokio::task::spawn_blocking(move || {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/python/read_topics.py");
        let mut reader = Command::new(python)
            .arg(script)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        reader.stdin.take().unwrap().write_all(expected.to_string().as_bytes()).unwrap();
        reader.wait_with_output().unwrap()
    });
    let output = output.await.unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("as the journal says"), "{said}");
}

/// Runs another system's client with these lines: it publishes, makes topics, tells what a group has not committed.
pub async fn another_system(brokers: &str, records: &[Value]) -> String {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/server/tests/kafka_consume/produce.py");
    let (python, brokers) = (service("TEST_PYTHON"), brokers.to_owned());
    let lines: String = records.iter().map(|record| format!("{record}\n")).collect();
    let output = tokio::task::spawn_blocking(move || {
        let mut command = Command::new(python);
        let command = command.arg(script).arg(brokers);
        let mut python = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        python.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
        python.wait_with_output().unwrap()
    });
    let output = output.await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}
