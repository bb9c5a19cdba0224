//! A server that dies between an event's effect and the commit of its offset: a real process, killed with SIGKILL.

#![cfg(feature = "kafka")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a story that is not as told shall fail")]

use serde_json::{Value, json};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(90);
const TENANT: &str = "tenant-001";
const ORDERS: usize = 30;

fn service(variable: &str) -> String {
    std::env::var(variable)
        .unwrap_or_else(|_| panic!("{variable} is not set; start the test services: eval \"$(scripts/services up)\""))
}

/// Another system's client: publishes, makes topics, tells what the group has not committed.
fn python(records: &[Value]) -> String {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/server/tests/kafka_consume/produce.py");
    let mut command = Command::new(service("TEST_PYTHON"));
    let command = command.arg(script).arg(service("TEST_KAFKA_BROKERS"));
    let mut python = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let lines: Vec<String> = records.iter().map(|record| format!("{record}\n")).collect();
    let written = python.stdin.take().unwrap().write_all(lines.concat().as_bytes());
    let output = python.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    written.unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// The program as an operator starts it.
struct Node {
    process: Child,
    url: String,
}

fn command(directory: &Path, prefix: &str, commit_every_ms: u32) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_crm-dispatch"));
    command
        .env("CRM_DISPATCH__DATABASE__URL", format!("sqlite://{}", directory.join("dispatch.db").display()))
        .env("CRM_DISPATCH__AUTH__SECRET", "a shared secret for tests only, long enough to be one")
        .env("CRM_DISPATCH__LOG__LEVEL", "warn")
        .env("CRM_DISPATCH__KAFKA__BROKERS", service("TEST_KAFKA_BROKERS"))
        .env("CRM_DISPATCH__KAFKA__TOPIC_PREFIX", prefix)
        .env("CRM_DISPATCH__KAFKA__CONSUME__ENABLED", "true")
        .env("CRM_DISPATCH__KAFKA__CONSUME__TENANTS", TENANT)
        .env("CRM_DISPATCH__KAFKA__CONSUME__SESSION_TIMEOUT_MS", "6000")
        .env("CRM_DISPATCH__KAFKA__CONSUME__COMMIT_EVERY_MS", commit_every_ms.to_string());
    command
}

impl Node {
    fn start(directory: &Path, prefix: &str, commit_every_ms: u32) -> Self {
        let mut command = command(directory, prefix, commit_every_ms);
        let mut process = command.args(["serve", "--port", "0"]).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let said = lines.find_map(|line| line.unwrap().strip_prefix("listening on ").map(str::to_owned));
        Self { process, url: said.expect("the server says where it listens") }
    }

    fn kill(mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

struct Office {
    http: reqwest::Client,
    token: String,
}

impl Office {
    fn new(directory: &Path, prefix: &str) -> Self {
        let mut command = command(directory, prefix, 1_000);
        let roles = ["token", "--role", "dispatcher", "--role", "admin", "--tenant", TENANT];
        let output = command.args(roles).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Self { http: reqwest::Client::new(), token: String::from_utf8(output.stdout).unwrap().trim().to_owned() }
    }

    async fn get(&self, node: &Node, path: &str) -> Value {
        let url = format!("{}/api/v1/crm/dispatch/{path}", node.url);
        let answer = self.http.get(url).bearer_auth(&self.token).send().await.unwrap();
        assert!(answer.status().is_success(), "{path}: {}", answer.status());
        serde_json::from_str(&answer.text().await.unwrap()).unwrap()
    }

    async fn put(&self, node: &Node, path: &str, body: Value) {
        let url = format!("{}/api/v1/crm/dispatch/{path}", node.url);
        let request = self.http.put(url).bearer_auth(&self.token).header("content-type", "application/json");
        let answer = request.body(body.to_string()).send().await.unwrap();
        assert!(answer.status().is_success(), "{path}: {}", answer.text().await.unwrap());
    }

    /// The dispatches, and how many filters lie in the truck.
    async fn seen(&self, node: &Node) -> (usize, i64) {
        let dispatches = self.get(node, "requests?limit=200").await;
        let technician = self.get(node, "technicians/TECH-10").await;
        (dispatches["items"].as_array().unwrap().len(), technician["vanStock"]["FILTER"].as_i64().unwrap_or_default())
    }
}

async fn until<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let began = Instant::now();
    while !holds().await {
        assert!(began.elapsed() < PATIENCE, "never {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_killed_after_the_effect_and_before_the_offset_consumes_again_and_the_effect_stays_one() {
    let directory = tempfile::tempdir().unwrap();
    let prefix = format!("test-{:08x}.", rand::random::<u32>());
    let topics = ["crm.serviceorders.scheduled", "crm.serviceorders.cancelled", "crm.serviceorders.sla.breached"];
    let topics: Vec<String> =
        topics.iter().chain(&["inventory.stock.changed"]).map(|name| format!("{prefix}{name}")).collect();
    let event = |topic: usize, name: &str, id: String, key: &str, payload: Value| {
        json!({ "topic": topics[topic], "key": key, "json": {
            "eventType": name, "eventId": id, "timestamp": "2026-02-02T13:05:00Z", "tenantId": TENANT, "payload": payload,
        }})
    };
    python(&topics.iter().map(|topic| json!({ "make": topic, "partitions": 2 })).collect::<Vec<_>>());
    let mut records = Vec::new();
    for n in 0..ORDERS {
        let order = format!("SO-{n}");
        let scheduled = json!({ "serviceOrderId": order, "locationId": "LOC-10" });
        records.push(event(0, "ServiceOrderScheduledEvent", format!("evt-s{n}"), &order, scheduled));
        // A delta without a movement: nothing but the event's id can tell that it was counted.
        let stock = json!({ "technicianId": "TECH-10", "partNumber": "FILTER", "delta": 1 });
        records.push(event(3, "StockChangedEvent", format!("evt-d{n}"), "TECH-10", stock));
    }
    let group = format!("{prefix}crm-dispatch-cg");
    let behind = || python(&[json!({ "behind": group, "topics": topics })]).parse::<usize>().unwrap();

    // Offsets are committed once an hour: the effects are there long before.
    let node = Node::start(directory.path(), &prefix, 3_600_000);
    let office = Office::new(directory.path(), &prefix);
    let site =
        json!({ "name": "Bakery", "address": "Ring 1", "coordinates": { "latitude": 48.2, "longitude": 16.37 } });
    office.put(&node, "locations/LOC-10", site).await;
    office.put(&node, "technicians/TECH-10", json!({ "name": "Anna" })).await;
    python(&records);
    until("all effects are there", || async { office.seen(&node).await == (ORDERS, 30) }).await;
    assert_eq!(behind(), 2 * ORDERS, "no offset is committed");
    node.kill();

    let node = Node::start(directory.path(), &prefix, 100);
    until("all offsets are committed", || async { behind() == 0 }).await;
    assert_eq!(office.seen(&node).await, (ORDERS, 30), "consumed twice, in effect once");
    // It goes on as if nothing had been.
    let last = json!({ "serviceOrderId": "SO-LAST", "locationId": "LOC-10" });
    python(&[event(0, "ServiceOrderScheduledEvent", "evt-last".to_owned(), "SO-LAST", last)]);
    until("the next one is there", || async { office.seen(&node).await.0 == ORDERS + 1 }).await;
    node.kill();
}
