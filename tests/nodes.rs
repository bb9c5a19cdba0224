//! Several nodes on one PostgreSQL: real processes, real phones, an office that goes on working, and what an operator or a failure does
//! to them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a story that is not as told shall fail")]

mod support;

use crm_dispatch_server::app::TokenIssuer;
use crm_dispatch_server::config::Config;
use crm_dispatch_server::service::Role;
use rand::{SeedableRng, rngs::StdRng};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Executor as _};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use support::postgres_support::{self, Database, random_name, with_path};
use support::{FixedTokens, Phone, SECRET, TENANT, token_request};
use sync_core::client::{Client, ClientConfig, Phase};
use sync_core::domain::{DispatchId, FactKind, TechnicianId, TenantId, Timestamp, VisitStatus};
use sync_core::store::{NewEdit, OpenOptions, Protection, Store};
use tempfile::TempDir;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};

const BASE: &str = "/api/v1/crm/dispatch";
/// Processes start, phones back off, and the machine may be busy.
const LONG: Duration = Duration::from_secs(60);
const HOUR: i64 = 3_600_000;

/// How nodes look for what they were not told: so rarely that only a hint explains what arrives.
const ONLY_HINTS: u64 = 60_000;

/// A node as an operator runs it: a process.
struct Node {
    child: Child,
    port: u16,
    figures: String,
}

impl Node {
    /// Starts one and waits until it says that it listens. Port 0 takes a free one.
    fn start(database: &str, log: &std::path::Path, port: u16, look_interval_ms: u64) -> Self {
        let log = std::fs::File::options().create(true).append(true).open(log).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_crm-dispatch"))
            .arg("serve")
            .env("CRM_DISPATCH__SERVER__PORT", port.to_string())
            .env("CRM_DISPATCH__SERVER__DRAIN_NOTICE_MS", "1000")
            .env("CRM_DISPATCH__ADMIN__PORT", "0")
            .env("CRM_DISPATCH__DATABASE__URL", database)
            .env("CRM_DISPATCH__SYNC__LOOK_INTERVAL_MS", look_interval_ms.to_string())
            .env("CRM_DISPATCH__AUTH__SECRET", SECRET)
            .env("CRM_DISPATCH__LOG__LEVEL", "info,crm_dispatch_server::http=warn")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::from(log))
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut find = |said: &str| {
            let line = lines.by_ref().map_while(Result::ok).find_map(|line| Some(line.split_once(said)?.1.to_owned()));
            line.expect("the node starts; its log says why it did not")
        };
        let port = find("listening on http://127.0.0.1:").trim().parse().unwrap();
        let figures = find("figures on ");
        // Its output is read on, so that a full pipe never stops it.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, port, figures }
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// What a supervisor sends before it waits.
    fn terminate(&self) {
        let sent = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    async fn ended(mut self) -> ExitStatus {
        let waited = tokio::task::spawn_blocking(move || self.child.wait().unwrap());
        tokio::time::timeout(LONG, waited).await.expect("the node ends").unwrap()
    }

    /// No farewell, no destructor: a pulled plug.
    async fn kill(mut self) {
        self.child.kill().unwrap();
        self.ended().await;
    }

    /// One of its figures; 0 where there is none yet.
    async fn figure(&self, series: &str) -> f64 {
        let text = reqwest::get(self.figures.trim()).await.unwrap().text().await.unwrap();
        text.lines().find_map(|line| line.strip_prefix(series)?.trim().parse().ok()).unwrap_or_default()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What stands in front of the nodes: connections go in turn to those that say they are ready.
struct Balancer {
    port: u16,
}

impl Balancer {
    async fn before(ports: &[u16]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let backends: Arc<Vec<(u16, AtomicBool)>> =
            Arc::new(ports.iter().map(|port| (*port, AtomicBool::new(true))).collect());
        let checked = Arc::clone(&backends);
        tokio::spawn(async move {
            let http = reqwest::Client::builder().timeout(Duration::from_secs(2)).build().unwrap();
            let mut every = tokio::time::interval(Duration::from_millis(50));
            loop {
                every.tick().await;
                for (port, ready) in checked.iter() {
                    let answer = http.get(format!("http://127.0.0.1:{port}/health/ready")).send().await;
                    ready.store(answer.is_ok_and(|answer| answer.status() == StatusCode::OK), Ordering::SeqCst);
                }
            }
        });
        tokio::spawn(async move {
            let mut turn = 0;
            while let Ok((mut client, _)) = listener.accept().await {
                turn += 1;
                let backends = Arc::clone(&backends);
                tokio::spawn(async move {
                    for step in 0..backends.len() {
                        let (port, ready) = &backends[(turn + step) % backends.len()];
                        if !ready.load(Ordering::SeqCst) {
                            continue;
                        }
                        if let Ok(mut server) = TcpStream::connect(("127.0.0.1", *port)).await {
                            let _ = copy_bidirectional(&mut client, &mut server).await;
                            return;
                        }
                    }
                });
            }
        });
        Self { port }
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}

/// A dispatcher whose program tries again, with the same idempotency key, what a restart cut off; anything else is an error.
struct Office {
    url: String,
    http: reqwest::Client,
    token: String,
    keys: AtomicU64,
    most_tries: AtomicU64,
}

impl Office {
    fn at(cluster: &Cluster, url: String) -> Self {
        Self {
            url,
            http: reqwest::Client::new(),
            token: cluster.token("office", &[Role::Dispatcher, Role::Admin, Role::Integration], None),
            keys: AtomicU64::new(0),
            most_tries: AtomicU64::new(0),
        }
    }

    async fn call(&self, method: Method, path: &str, body: Option<Value>) -> Value {
        let key = format!("key-{}-{}", self.url.len(), self.keys.fetch_add(1, Ordering::SeqCst));
        let mut last = String::new();
        for tries in 1..=200 {
            self.most_tries.fetch_max(tries, Ordering::SeqCst);
            let mut request = self
                .http
                .request(method.clone(), format!("{}{BASE}{path}", self.url))
                .bearer_auth(&self.token)
                .header("Idempotency-Key", &key);
            if let Some(body) = &body {
                request = request.json(body);
            }
            match request.send().await {
                Ok(answer) if answer.status() == StatusCode::SERVICE_UNAVAILABLE => last = "503".to_owned(),
                Ok(answer) => {
                    let status = answer.status();
                    let body: Value = answer.json().await.unwrap_or(Value::Null);
                    assert!(status.is_success(), "{method} {path}: {status} {body}");
                    return body;
                }
                Err(cut_off) => last = format!("{cut_off:?}"),
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("{method} {path}: never answered: {last}");
    }

    async fn get(&self, path: &str) -> Value {
        self.call(Method::GET, path, None).await
    }

    async fn post(&self, path: &str, body: Value) -> Value {
        self.call(Method::POST, path, Some(body)).await
    }

    /// A site, and technicians who work every day of this week.
    async fn furnish(&self, technicians: &[&str]) {
        let coordinates = json!({ "latitude": 48.2082, "longitude": 16.3738 });
        let site = json!({ "name": "Site", "address": "Wien", "coordinates": coordinates });
        self.call(Method::PUT, "/locations/LOC-10", Some(site)).await;
        let today = now().millis().div_euclid(24 * HOUR) * 24 * HOUR;
        let day = |day: i64| {
            let (start, end) = (today + day * 24 * HOUR, today + (day + 1) * 24 * HOUR);
            json!({ "start": Timestamp::from_millis(start).to_string(), "end": Timestamp::from_millis(end).to_string() })
        };
        let availability: Vec<_> = (0..7).map(day).collect();
        for technician in technicians {
            let body = json!({
                "name": technician,
                "skills": [{ "code": "HVAC", "level": 3 }],
                "homeBase": coordinates,
                "availability": availability,
            });
            self.call(Method::PUT, &format!("/technicians/{technician}"), Some(body)).await;
        }
    }

    /// A visit of twenty minutes in half-hour slot `slot` from tomorrow on.
    async fn request(&self, order: &str, slot: i64) -> DispatchId {
        // Never over midnight.
        let (day, slot) = (1 + slot / 40, slot % 40);
        let today = now().millis().div_euclid(24 * HOUR) * 24 * HOUR;
        let start = today + day * 24 * HOUR + (1 + slot) * HOUR / 2;
        let end = start + HOUR / 3;
        let body = json!({
            "serviceOrderId": order,
            "locationId": "LOC-10",
            "requiredSkills": ["HVAC"],
            "scheduled": {
                "start": Timestamp::from_millis(start).to_string(),
                "end": Timestamp::from_millis(end).to_string(),
            },
        });
        self.post("/requests", body).await["dispatchId"].as_str().unwrap().parse().unwrap()
    }

    async fn assign(&self, dispatch: &DispatchId, technician: &str) {
        self.post(&format!("/{dispatch}/assign"), json!({ "technicianId": technician })).await;
    }

    async fn assigned(&self, order: &str, slot: i64, technician: &str) -> DispatchId {
        let dispatch = self.request(order, slot).await;
        self.assign(&dispatch, technician).await;
        dispatch
    }
}

fn now() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    Timestamp::from_millis(i64::try_from(since.as_millis()).unwrap())
}

/// Two nodes on a database of their own, whose owner is an ordinary role.
struct Cluster {
    nodes: Vec<Node>,
    dir: TempDir,
    url: String,
    look_interval_ms: u64,
    issuer: TokenIssuer,
    role: String,
    database: Option<Database>,
}

impl Cluster {
    async fn start(look_interval_ms: u64) -> Self {
        let database = Database::create().await;
        let role = random_name("node");
        let mut admin = database.connect().await;
        admin.execute(AssertSqlSafe(format!("CREATE ROLE {role} LOGIN PASSWORD 'nodes-only'"))).await.unwrap();
        let owner = format!("ALTER DATABASE {} OWNER TO {role}", database.name());
        admin.execute(AssertSqlSafe(owner)).await.unwrap();
        let place = database.url().rsplit('@').next().unwrap().to_owned();
        let url = format!("postgres://{role}:nodes-only@{place}");
        let dir = tempfile::tempdir().unwrap();
        let secret = HashMap::from([("CRM_DISPATCH__AUTH__SECRET".to_owned(), SECRET.to_owned())]);
        let issuer = TokenIssuer::new(&Config::load(None, secret).unwrap()).unwrap().unwrap();
        let mut cluster =
            Self { nodes: Vec::new(), dir, url, look_interval_ms, issuer, role, database: Some(database) };
        for _ in 0..2 {
            let node = cluster.node(cluster.nodes.len(), 0);
            cluster.nodes.push(node);
        }
        cluster
    }

    fn node(&self, number: usize, port: u16) -> Node {
        Node::start(&self.url, &self.dir.path().join(format!("node-{number}.log")), port, self.look_interval_ms)
    }

    fn database(&self) -> &Database {
        self.database.as_ref().unwrap()
    }

    fn token(&self, sub: &str, roles: &[Role], technician: Option<&str>) -> String {
        self.issuer.issue_for(&token_request(sub, roles, technician), 3_600).unwrap()
    }

    fn office(&self, node: usize) -> Office {
        Office::at(self, self.nodes[node].url())
    }

    /// A phone that reaches the server through `url`.
    fn phone(&self, technician: &str, url: String) -> Phone {
        let path = self.dir.path().join(format!("{technician}.db"));
        let token = self.token(technician, &[Role::Technician], Some(technician));
        let config = ClientConfig::new(url, Arc::new(FixedTokens::new(vec![token])));
        let mut rng = StdRng::seed_from_u64(technician.bytes().fold(7, |sum, byte| sum * 31 + u64::from(byte)));
        let opened = Store::open(
            &path,
            &OpenOptions { app: "story 1.0".into(), now: now(), protection: Protection::Unencrypted },
            &mut rng,
        )
        .unwrap();
        let tenant: TenantId = TENANT.parse().unwrap();
        opened.store.bind_user(&tenant, &technician.parse::<TechnicianId>().unwrap(), &mut rng).unwrap();
        Phone { client: Client::start(Arc::new(opened.store), config), path }
    }

    /// What the nodes said, when a story went wrong.
    fn logs(&self) -> String {
        let tail = |number: usize| {
            let log = std::fs::read_to_string(self.dir.path().join(format!("node-{number}.log"))).unwrap_or_default();
            let lines: Vec<_> = log.lines().rev().take(30).collect();
            format!("node {number}:\n{}", lines.into_iter().rev().collect::<Vec<_>>().join("\n"))
        };
        format!("{}\n{}", tail(0), tail(1))
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            #[allow(clippy::print_stderr, reason = "a failed story's logs")]
            {
                eprintln!("{}", self.logs());
            }
        }
        self.nodes.clear();
        let server = self.database.take().map(|database| with_path(&database.url(), "postgres"));
        let (Some(server), role) = (server, self.role.clone()) else { return };
        let _ = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let mut admin = postgres_support::connect(&server).await;
                let _ = admin.execute(AssertSqlSafe(format!("DROP ROLE IF EXISTS {role}"))).await;
            });
        })
        .join();
    }
}

/// Waits for something that only asking tells.
async fn until<F: Future<Output = bool>>(what: &str, asked: impl Fn() -> F) {
    let waited = async {
        while !asked().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(LONG, waited).await.unwrap_or_else(|_| panic!("never {what}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_visit_assigned_at_one_node_is_announced_to_the_phone_at_another() {
    let cluster = Cluster::start(ONLY_HINTS).await;
    let office = cluster.office(0);
    office.furnish(&["TECH-10"]).await;
    let phone = cluster.phone("TECH-10", cluster.nodes[1].url());
    phone.caught_up().await;
    let dispatch = office.assigned("SO-1", 0, "TECH-10").await;
    phone.until_holding(&dispatch).await;
    phone.does(&dispatch, FactKind::Accepted { eta: None }).await;
    phone.caught_up().await;
    assert_eq!(office.get(&format!("/{dispatch}")).await["status"], "CONFIRMED");
    assert!(cluster.nodes[1].figure("crm_dispatch_node_hints_total{kind=\"grew\"}").await >= 1.0);
    // The office sees that the phone is connected, whichever node it asks.
    for node in [0, 1] {
        let devices = cluster.office(node).get("/devices").await;
        assert_eq!(devices["items"][0]["connected"], true, "{devices}");
    }

    // Two nodes, one list of remembered answers and one count of revisions.
    let (other, body) = (cluster.office(1), json!({ "reason": "customer called" }));
    let send = |url: &str| {
        let request = office.http.post(format!("{url}{BASE}/{dispatch}/cancel")).bearer_auth(&office.token);
        request.header("Idempotency-Key", "cancel-once").json(&body).send()
    };
    let (one, two) = tokio::join!(send(&office.url), send(&other.url));
    let (one, two) = (one.unwrap(), two.unwrap());
    assert_eq!((one.status(), two.status()), (StatusCode::OK, StatusCode::OK));
    assert_eq!(one.headers()["etag"], two.headers()["etag"]);
    assert_eq!(one.text().await.unwrap(), two.text().await.unwrap());
    phone.until_without(&dispatch).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_phone_revoked_at_one_node_is_emptied_at_another() {
    let cluster = Cluster::start(ONLY_HINTS).await;
    let office = cluster.office(0);
    office.furnish(&["TECH-10"]).await;
    let phone = cluster.phone("TECH-10", cluster.nodes[1].url());
    let dispatch = office.assigned("SO-1", 0, "TECH-10").await;
    phone.until_holding(&dispatch).await;
    phone.caught_up().await;
    let device = phone.store().sync_state().unwrap().device;
    office.post(&format!("/devices/{device}/revoke"), json!({})).await;
    phone.until_phase(Phase::Revoked).await;
    assert!(phone.visits().is_empty());
    until("wiped", async || office.get("/devices").await["items"][0]["wipedAt"].is_string()).await;
}

/// PostgreSQL refuses to notify: nobody is told anything, and a visit is at most one look late.
#[tokio::test(flavor = "multi_thread")]
async fn what_no_node_was_told_is_found_by_looking() {
    let cluster = Cluster::start(500).await;
    let mut admin = cluster.database().connect().await;
    admin.execute("REVOKE EXECUTE ON FUNCTION pg_notify(text, text) FROM PUBLIC").await.unwrap();
    let office = cluster.office(0);
    office.furnish(&["TECH-10"]).await;
    let phone = cluster.phone("TECH-10", cluster.nodes[1].url());
    phone.caught_up().await;
    let dispatch = office.assigned("SO-1", 0, "TECH-10").await;
    phone.until_holding(&dispatch).await;
    assert!(cluster.nodes[1].figure("crm_dispatch_feeds_found_grown_total").await >= 1.0);
    assert_eq!(cluster.nodes[1].figure("crm_dispatch_node_hints_total{kind=\"grew\"}").await, 0.0);
    // A revoked phone learns of it the same way.
    let device = phone.store().sync_state().unwrap().device;
    office.post(&format!("/devices/{device}/revoke"), json!({})).await;
    phone.until_phase(Phase::Revoked).await;
}

/// The connection that listens is cut just before something happens: once it listens again, the node looks for what it has missed.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_could_not_listen_looks_for_what_it_missed() {
    let cluster = Cluster::start(ONLY_HINTS).await;
    let office = cluster.office(0);
    office.furnish(&["TECH-10"]).await;
    let phone = cluster.phone("TECH-10", cluster.nodes[1].url());
    phone.caught_up().await;
    let mut admin = cluster.database().connect().await;
    for round in 0..5 {
        let dispatch = office.request(&format!("SO-{round}"), round).await;
        let cut = sqlx::query(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
             WHERE datname = current_database() AND query LIKE 'LISTEN%'",
        );
        let cut = cut.fetch_all(&mut admin).await.unwrap();
        assert!(round > 0 || cut.len() == 2, "both nodes listen");
        office.assign(&dispatch, "TECH-10").await;
        phone.until_holding(&dispatch).await;
    }
}

/// What an office and its technicians did while something happened to the nodes, as it was acknowledged to them.
struct Work {
    /// Acknowledged by REST: dispatch to technician.
    assigned: BTreeMap<DispatchId, String>,
    /// Durable on a phone, and so promised to its technician.
    accepted: BTreeSet<DispatchId>,
}

const TECHNICIANS: [&str; 4] = ["TECH-10", "TECH-20", "TECH-30", "TECH-40"];

/// The office assigns and the technicians accept, through the balancer, until `happening` is over and some more.
async fn work_through(
    cluster: &mut Cluster,
    happening: impl AsyncFnOnce(&mut Cluster),
) -> (Work, u64, Vec<Arc<Phone>>) {
    let ports: Vec<_> = cluster.nodes.iter().map(|node| node.port).collect();
    let balancer = Balancer::before(&ports).await;
    let office = Arc::new(Office::at(cluster, balancer.url()));
    office.furnish(&TECHNICIANS).await;
    let phones: Vec<_> =
        TECHNICIANS.iter().map(|technician| Arc::new(cluster.phone(technician, balancer.url()))).collect();
    for phone in &phones {
        phone.caught_up().await;
    }
    let over = Arc::new(AtomicBool::new(false));
    let (done, office_over) = (Arc::new(AtomicU64::new(0)), Arc::clone(&over));
    let (working, counted) = (Arc::clone(&office), Arc::clone(&done));
    let assigning = tokio::spawn(async move {
        let mut assigned = BTreeMap::new();
        let mut beat = tokio::time::interval(Duration::from_millis(40));
        let mut number = 0;
        while !office_over.load(Ordering::SeqCst) {
            beat.tick().await;
            let technician = TECHNICIANS[number % TECHNICIANS.len()];
            let slot = i64::try_from(number / TECHNICIANS.len()).unwrap();
            let dispatch = working.assigned(&format!("SO-{number}"), slot, technician).await;
            assigned.insert(dispatch, technician.to_owned());
            number += 1;
            counted.store(number as u64, Ordering::SeqCst);
        }
        assigned
    });
    let accepted = Arc::new(Mutex::new(BTreeSet::new()));
    let acting: Vec<_> = phones
        .iter()
        .map(|phone| {
            let (phone, accepted, over) = (Arc::clone(phone), Arc::clone(&accepted), Arc::clone(&over));
            let mut events = phone.client.events();
            tokio::spawn(async move {
                while !over.load(Ordering::SeqCst) {
                    for card in phone.visits().into_iter().filter(|card| card.status == VisitStatus::Assigned) {
                        let fact = NewEdit::Fact(FactKind::Accepted { eta: None });
                        if phone.client.act(&card.dispatch_id, fact, None).await.is_ok() {
                            accepted.lock().unwrap().insert(card.dispatch_id);
                        }
                    }
                    let _ = tokio::time::timeout(Duration::from_millis(100), events.recv()).await;
                }
            })
        })
        .collect();
    let some_more = async |more: u64| {
        let from = done.load(Ordering::SeqCst);
        until("some more visits", async || done.load(Ordering::SeqCst) >= from + more).await;
    };
    some_more(10).await;
    happening(cluster).await;
    some_more(10).await;
    over.store(true, Ordering::SeqCst);
    let assigned = assigning.await.unwrap();
    for acting in acting {
        acting.await.unwrap();
    }
    let accepted = std::mem::take(&mut *accepted.lock().unwrap());
    (Work { assigned, accepted }, office.most_tries.load(Ordering::SeqCst), phones)
}

/// Everything that was acknowledged is there, on every node, and phones hold what the server says.
async fn check(cluster: &Cluster, work: &Work, phones: &[Arc<Phone>]) {
    assert!(work.assigned.len() >= 20 && work.accepted.len() >= 10, "the story has substance");
    for phone in phones {
        tokio::time::timeout(LONG, phone.client.caught_up()).await.expect("the phone catches up");
    }
    for (node, office) in [cluster.office(0), cluster.office(1)].into_iter().enumerate() {
        for (dispatch, technician) in &work.assigned {
            let seen = office.get(&format!("/{dispatch}")).await;
            assert_eq!(seen["assignment"]["technicianId"], technician.as_str(), "node {node}: {seen}");
            let confirmed = seen["status"] == "CONFIRMED";
            assert_eq!(confirmed, work.accepted.contains(dispatch), "node {node}, {dispatch}: {}", seen["status"]);
        }
    }
    let office = cluster.office(1);
    for dispatch in &work.accepted {
        let report = office.get(&format!("/{dispatch}/report")).await;
        assert_eq!(report["facts"].as_array().unwrap().len(), 1, "{dispatch}: once, and once only");
    }
    for (technician, phone) in TECHNICIANS.iter().zip(phones) {
        let holds: BTreeMap<_, _> =
            phone.visits().into_iter().map(|card| (card.dispatch_id, card.status == VisitStatus::Confirmed)).collect();
        let should: BTreeMap<_, _> = work
            .assigned
            .iter()
            .filter(|(_, assigned)| assigned == technician)
            .map(|(dispatch, _)| (dispatch.clone(), work.accepted.contains(dispatch)))
            .collect();
        assert_eq!(holds, should, "{technician}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn both_nodes_are_restarted_in_turn_and_nobody_loses_anything() {
    let mut cluster = Cluster::start(1_000).await;
    let (work, most_tries, phones) = work_through(&mut cluster, async |cluster| {
        for number in 0..2 {
            let node = cluster.nodes.remove(number);
            let port = node.port;
            node.terminate();
            assert!(node.ended().await.success(), "it ends in good order");
            let again = cluster.node(number, port);
            cluster.nodes.insert(number, again);
            let ready = cluster.nodes[number].url() + "/health/ready";
            until("ready", async || reqwest::get(&ready).await.is_ok_and(|answer| answer.status() == 200)).await;
        }
    })
    .await;
    assert!(most_tries <= 2, "no dispatcher's call needs more than one retry; one needed {most_tries} tries");
    check(&cluster, &work, &phones).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_dies_under_load_and_the_other_goes_on_with_all_that_was_acknowledged() {
    let mut cluster = Cluster::start(1_000).await;
    let (work, _, phones) = work_through(&mut cluster, async |cluster| {
        let node = cluster.nodes.remove(0);
        let port = node.port;
        node.kill().await;
        // All phones are with the other node before this one is back.
        until("with the other", async || cluster.nodes[0].figure("crm_dispatch_phones_connected").await >= 4.0).await;
        cluster.nodes.insert(0, cluster.node(0, port));
    })
    .await;
    check(&cluster, &work, &phones).await;
}
