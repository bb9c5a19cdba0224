//! Server processes are killed in the middle of their work, on one PostgreSQL database: what was answered is there, what was not is
//! there as a whole or not at all, and whoever asks again gets the answer that was lost.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a story that is not as told shall fail")]

#[path = "../server/tests/postgres_support/mod.rs"]
mod postgres_support;

use crm_dispatch_server::app::TokenIssuer;
use crm_dispatch_server::auth::TokenRequest;
use crm_dispatch_server::config::Config;
use crm_dispatch_server::service::Role;
use crm_dispatch_server::store::audit::verify_chain;
use crm_dispatch_server::store::postgres::{PostgresOptions, PostgresStore};
use crm_dispatch_server::store::{CommitLog as _, Dispatches as _, Journal as _};
use postgres_support::Database;
use rand::RngExt as _;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use sqlx::Row as _;
use std::collections::{BTreeMap, HashMap};
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};
use std::time::Duration;
use sync_core::domain::{DispatchId, TenantId};

const SECRET: &str = "a shared secret for tests only, long enough to be one";
const TENANT: &str = "tenant-001";
const NODES: usize = 2;
const OFFICES: usize = 6;
/// How often a node is killed.
const KILLS: usize = 10;
const ORDERS_PER_OFFICE: usize = 400;

fn environment(url: &str) -> HashMap<String, String> {
    HashMap::from([
        ("CRM_DISPATCH__SERVER__PORT".to_owned(), "0".to_owned()),
        ("CRM_DISPATCH__ADMIN__PORT".to_owned(), "0".to_owned()),
        ("CRM_DISPATCH__AUTH__SECRET".to_owned(), SECRET.to_owned()),
        ("CRM_DISPATCH__LOG__LEVEL".to_owned(), "error".to_owned()),
        ("DATABASE_URL".to_owned(), url.to_owned()),
    ])
}

/// One server process; killed when dropped.
struct Node(Child);

impl Node {
    /// Starts one, and answers with its port once it listens.
    fn start(url: &str) -> (Self, u16) {
        let mut child = Command::new(env!("CARGO_BIN_EXE_crm-dispatch"))
            .arg("serve")
            .envs(environment(url))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let port = lines
            .by_ref()
            .find_map(|line| line.unwrap().strip_prefix("listening on http://127.0.0.1:")?.parse().ok())
            .expect("the server says where it listens");
        std::thread::spawn(move || lines.for_each(drop));
        (Self(child), port)
    }
}

impl Drop for Node {
    /// SIGKILL: nothing of the process runs after it.
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// The ports on which the nodes listen now.
type Ports = Arc<[AtomicU16; NODES]>;

/// One dispatcher: asks a node, and the next one when it does not answer, with the same key.
struct Office {
    http: reqwest::Client,
    token: String,
    ports: Ports,
    lost_answers: Arc<AtomicUsize>,
}

impl Office {
    async fn call(&self, method: Method, path: &str, key: &str, body: &Value) -> (StatusCode, Value) {
        let first: usize = rand::random_range(0..NODES);
        for attempt in first.. {
            let port = self.ports[attempt % NODES].load(Ordering::SeqCst);
            let url = format!("http://127.0.0.1:{port}/api/v1/crm/dispatch{path}");
            let request =
                self.http.request(method.clone(), url).bearer_auth(&self.token).header("Idempotency-Key", key);
            if let Ok(answer) = request.json(body).send().await
                && !answer.status().is_server_error()
            {
                let status = answer.status();
                if let Ok(body) = answer.json().await {
                    return (status, body);
                }
            }
            self.lost_answers.fetch_add(1, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        unreachable!("it asks for ever")
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_was_answered_before_a_process_was_killed_is_there_and_nothing_is_there_by_halves() {
    let database = Database::create().await;
    let url = database.url();
    let config = Config::load(None, environment(&url)).unwrap();
    let token = TokenIssuer::new(&config)
        .unwrap()
        .unwrap()
        .issue(&TokenRequest {
            sub: "office".parse().unwrap(),
            tenant: TENANT.parse().unwrap(),
            roles: vec![Role::Dispatcher, Role::Admin],
            technician: None,
            device: None,
        })
        .unwrap();
    let ports: Ports = Arc::new([AtomicU16::new(0), AtomicU16::new(0)]);
    let mut nodes = Vec::new();
    for port in ports.iter() {
        let (node, at) = Node::start(&url);
        port.store(at, Ordering::SeqCst);
        nodes.push(node);
    }
    let lost_answers = Arc::new(AtomicUsize::new(0));
    let answered = Arc::new(AtomicUsize::new(0));
    let office = || Office {
        http: reqwest::Client::builder().timeout(Duration::from_secs(20)).build().unwrap(),
        token: token.clone(),
        ports: Arc::clone(&ports),
        lost_answers: Arc::clone(&lost_answers),
    };
    let site = json!({ "name": "Site", "address": "Wien", "coordinates": { "latitude": 48.21, "longitude": 16.36 } });
    office().call(Method::PUT, "/locations/LOC-10", "site", &site).await;
    for number in 0..OFFICES {
        let technician = json!({ "name": "Anna", "skills": [], "homeBase": { "latitude": 48.2, "longitude": 16.3 },
            "availability": [{ "start": "2020-01-01T00:00:00Z", "end": "2040-01-01T00:00:00Z" }], "vanStock": {} });
        let (status, body) = office()
            .call(Method::PUT, &format!("/technicians/TECH-{number}"), &format!("anna-{number}"), &technician)
            .await;
        assert!(status.is_success(), "{status} {body}");
    }

    let stop = Arc::new(tokio::sync::watch::Sender::new(false));
    let offices: Vec<_> = (0..OFFICES)
        .map(|number| {
            let (office, answered, stop) = (office(), Arc::clone(&answered), stop.subscribe());
            tokio::spawn(async move {
                let mut told = BTreeMap::new();
                for order in 0..ORDERS_PER_OFFICE {
                    if *stop.borrow() {
                        break;
                    }
                    let request = json!({ "serviceOrderId": format!("SO-{number}-{order}"), "locationId": "LOC-10" });
                    let key = format!("create-{number}-{order}");
                    let (status, body) = office.call(Method::POST, "/requests", &key, &request).await;
                    assert_eq!(status, StatusCode::CREATED, "{body}");
                    let id = body["dispatchId"].as_str().unwrap().to_owned();
                    answered.fetch_add(1, Ordering::SeqCst);
                    let assign = json!({ "technicianId": format!("TECH-{number}") });
                    let key = format!("assign-{number}-{order}");
                    let (status, body) = office.call(Method::POST, &format!("/{id}/assign"), &key, &assign).await;
                    assert_eq!(status, StatusCode::OK, "{body}");
                    assert_eq!(body["revision"], 2, "the assignment was made once: {body}");
                    answered.fetch_add(1, Ordering::SeqCst);
                    told.insert(id, (order, body));
                }
                (office, told)
            })
        })
        .collect();

    // Kills go by answers, not by time, so that each one meets work under way.
    for kill in 0..KILLS {
        let until = answered.load(Ordering::SeqCst) + rand::rng().random_range(5..25);
        while answered.load(Ordering::SeqCst) < until && !offices.iter().all(tokio::task::JoinHandle::is_finished) {
            tokio::time::sleep(Duration::from_millis(rand::rng().random_range(1..5))).await;
        }
        let victim = kill % NODES;
        let url = url.clone();
        drop(nodes.remove(victim));
        let (node, port) = tokio::task::spawn_blocking(move || Node::start(&url)).await.unwrap();
        nodes.insert(victim, node);
        ports[victim].store(port, Ordering::SeqCst);
    }
    stop.send_replace(true);

    // Everything that was answered is there, and is answered again as it was.
    let tenant = TenantId::new(TENANT).unwrap();
    let store = PostgresStore::open(&PostgresOptions::new(url.clone())).await.unwrap();
    let mut dispatches = 0;
    for (number, office) in offices.into_iter().enumerate() {
        let (office, told) = office.await.unwrap();
        dispatches += told.len();
        for (id, (order, body)) in told {
            let assign = json!({ "technicianId": format!("TECH-{number}") });
            let key = format!("assign-{number}-{order}");
            let (_, again) = office.call(Method::POST, &format!("/{id}/assign"), &key, &assign).await;
            assert_eq!(again, body, "the same answer under the same key");
            let stored = store.dispatch(&tenant, &DispatchId::new(&*id).unwrap()).await.unwrap().unwrap();
            assert_eq!(stored.row.technician_id.unwrap().as_str(), format!("TECH-{number}"));
            assert_eq!(stored.row.service_order_id.as_str(), format!("SO-{number}-{order}"));
            let events = store.events(&tenant, 0, None, Some(&id), 100).await.unwrap();
            assert_eq!(events.len(), 1, "one assignment, one event: {events:?}");
            let lines = store.audit(&tenant, &format!("dispatch:{id}"), 0, 100).await.unwrap();
            assert_eq!(verify_chain(&tenant, &lines), Ok(()));
        }
    }
    assert!(dispatches > KILLS, "{dispatches} dispatches");
    assert!(lost_answers.load(Ordering::SeqCst) > 0, "no kill met a request");
    drop(nodes);
    store.close().await;

    // Nothing is there by halves: what one transaction writes to several tables agrees.
    let mut connection = database.connect().await;
    for (what, sql) in [
        (
            "a dispatch without its document",
            "SELECT count(*) FROM dispatches d FULL JOIN documents o USING (tenant, dispatch_id) \
            WHERE d.tenant IS NULL OR o.tenant IS NULL",
        ),
        (
            "a revision without its changes",
            "SELECT count(*) FROM dispatches d WHERE d.revision <> \
            (SELECT max(revision) FROM changes c WHERE c.tenant = d.tenant AND c.dispatch_id = d.dispatch_id)",
        ),
        (
            "a feed with a gap",
            "SELECT count(*) FROM feed_heads h WHERE h.seq <> \
            (SELECT count(*) FROM feed f WHERE f.tenant = h.tenant AND f.technician = h.technician)",
        ),
        (
            "a technician who holds what the feed did not say",
            "SELECT count(*) FROM held h LEFT JOIN feed f \
            ON f.tenant = h.tenant AND f.technician = h.technician AND f.seq = h.seq WHERE f.revision IS DISTINCT FROM h.revision",
        ),
        (
            "an assignment that nobody holds",
            "SELECT count(*) FROM dispatches d WHERE d.technician IS NOT NULL AND NOT EXISTS \
            (SELECT 1 FROM held h WHERE h.tenant = d.tenant AND h.dispatch_id = d.dispatch_id AND h.tag = d.tag)",
        ),
        (
            "an assignment without its event",
            "SELECT count(*) FROM dispatches d WHERE d.technician IS NOT NULL AND NOT EXISTS \
            (SELECT 1 FROM events e WHERE e.tenant = d.tenant AND e.aggregate_id = d.dispatch_id)",
        ),
        (
            "an answer without its effect",
            "SELECT count(*) FROM idempotency_keys k WHERE k.key LIKE 'create-%' AND NOT EXISTS \
            (SELECT 1 FROM dispatches d WHERE d.tenant = k.tenant AND 'create-' || substr(d.service_order_id, 4) = k.key)",
        ),
        (
            "an effect without its answer",
            "SELECT count(*) FROM dispatches d WHERE NOT EXISTS (SELECT 1 FROM idempotency_keys k \
            WHERE k.tenant = d.tenant AND k.key = 'create-' || substr(d.service_order_id, 4))",
        ),
        (
            "an audit trail that ends elsewhere",
            "SELECT count(*) FROM audit_heads h WHERE h.seq <> \
            (SELECT count(*) FROM audit a WHERE a.tenant = h.tenant AND a.aggregate = h.aggregate)",
        ),
    ] {
        let row = sqlx::query(sqlx::AssertSqlSafe(sql)).fetch_one(&mut connection).await.unwrap();
        assert_eq!(row.get::<i64, _>(0), 0, "{what}");
    }
}
