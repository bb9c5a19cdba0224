//! Two nodes on one PostgreSQL as an operator runs them: processes, a balancer, an office whose program tries again, real phones, and
//! the work that goes on while something happens to all that.

#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "shared by several story files; a test fails by panicking"
)]

pub mod work;

use crate::support::postgres_support::{self, Database, random_name, with_path};
use crate::support::{FixedTokens, Phone, SECRET, TENANT, token_request};
use crm_dispatch_server::app::TokenIssuer;
use crm_dispatch_server::config::Config;
use crm_dispatch_server::service::Role;
use rand::{SeedableRng, rngs::StdRng};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Executor as _};
use std::collections::HashMap;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};
use std::time::Duration;
use sync_core::client::{Client, ClientConfig};
use sync_core::domain::{DispatchId, TechnicianId, TenantId, Timestamp};
use sync_core::store::{OpenOptions, Protection, Store};
use tempfile::TempDir;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};

pub const BASE: &str = "/api/v1/crm/dispatch";
/// Processes start, phones back off, and the machine may be busy.
pub const LONG: Duration = Duration::from_secs(60);
pub const HOUR: i64 = 3_600_000;

/// A node as an operator runs it: a process.
pub struct Node {
    pub child: Child,
    pub port: u16,
    pub figures: String,
}

impl Node {
    /// Starts one and waits until it says that it listens. Port 0 takes a free one.
    pub fn start(database: &str, log: &Path, port: u16, settings: &[(String, String)]) -> Self {
        let mut child = Self::command(database, log, port, settings).stdout(Stdio::piped()).spawn().unwrap();
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

    /// How one is started.
    pub fn command(database: &str, log: &Path, port: u16, settings: &[(String, String)]) -> Command {
        let log = std::fs::File::options().create(true).append(true).open(log).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_crm-dispatch"));
        command
            .arg("serve")
            .env("CRM_DISPATCH__SERVER__PORT", port.to_string())
            .env("CRM_DISPATCH__SERVER__DRAIN_NOTICE_MS", "1000")
            .env("CRM_DISPATCH__ADMIN__PORT", "0")
            .env("CRM_DISPATCH__DATABASE__URL", database)
            .env("CRM_DISPATCH__AUTH__SECRET", SECRET)
            .env("CRM_DISPATCH__LOG__LEVEL", "info,crm_dispatch_server::http=warn")
            .envs(settings.iter().map(|(name, value)| (format!("CRM_DISPATCH__{name}"), value)))
            .stdin(Stdio::null())
            .stderr(Stdio::from(log));
        command
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// What a supervisor sends before it waits.
    pub fn terminate(&self) {
        let sent = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    pub async fn ended(mut self) -> ExitStatus {
        let waited = tokio::task::spawn_blocking(move || self.child.wait().unwrap());
        tokio::time::timeout(LONG, waited).await.expect("the node ends").unwrap()
    }

    /// No farewell, no destructor: a pulled plug.
    pub async fn kill(mut self) {
        self.child.kill().unwrap();
        self.ended().await;
    }

    /// One of its figures; 0 where there is none yet.
    pub async fn figure(&self, series: &str) -> f64 {
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
pub struct Balancer {
    pub port: u16,
    backends: Arc<Vec<Backend>>,
}

struct Backend {
    port: AtomicU16,
    ready: AtomicBool,
}

impl Balancer {
    pub async fn before(ports: &[u16]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let backend = |port: &u16| Backend { port: AtomicU16::new(*port), ready: AtomicBool::new(*port != 0) };
        let backends: Arc<Vec<Backend>> = Arc::new(ports.iter().map(backend).collect());
        let (checked, known) = (Arc::clone(&backends), Arc::clone(&backends));
        tokio::spawn(async move {
            let http = reqwest::Client::builder().timeout(Duration::from_secs(2)).build().unwrap();
            let mut every = tokio::time::interval(Duration::from_millis(50));
            loop {
                every.tick().await;
                for Backend { port, ready } in checked.iter() {
                    let port = port.load(Ordering::SeqCst);
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
                        let Backend { port, ready } = &backends[(turn + step) % backends.len()];
                        if !ready.load(Ordering::SeqCst) {
                            continue;
                        }
                        if let Ok(mut server) = TcpStream::connect(("127.0.0.1", port.load(Ordering::SeqCst))).await {
                            let _ = copy_bidirectional(&mut client, &mut server).await;
                            return;
                        }
                    }
                });
            }
        });
        Self { port, backends: known }
    }

    /// A node was started on another port.
    pub fn moved(&self, node: usize, port: u16) {
        self.backends[node].port.store(port, Ordering::SeqCst);
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}

/// A dispatcher whose program tries again, with the same idempotency key, what a restart cut off; anything else is an error.
pub struct Office {
    pub url: String,
    pub http: reqwest::Client,
    pub token: String,
    pub keys: AtomicU64,
    pub most_tries: AtomicU64,
}

impl Office {
    pub fn at(cluster: &Cluster, url: String) -> Self {
        Self {
            url,
            http: reqwest::Client::new(),
            token: cluster.token("office", &[Role::Dispatcher, Role::Admin, Role::Integration], None),
            keys: AtomicU64::new(0),
            most_tries: AtomicU64::new(0),
        }
    }

    pub async fn call(&self, method: Method, path: &str, body: Option<Value>) -> Value {
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

    /// How often the call that was repeated most had to be made.
    pub fn most_tries(&self) -> u64 {
        self.most_tries.load(Ordering::SeqCst)
    }

    pub async fn get(&self, path: &str) -> Value {
        self.call(Method::GET, path, None).await
    }

    pub async fn post(&self, path: &str, body: Value) -> Value {
        self.call(Method::POST, path, Some(body)).await
    }

    /// A site, and technicians who work day and night for three months.
    pub async fn furnish(&self, technicians: &[&str]) {
        let coordinates = json!({ "latitude": 48.2082, "longitude": 16.3738 });
        let site = json!({ "name": "Site", "address": "Wien", "coordinates": coordinates });
        self.call(Method::PUT, "/locations/LOC-10", Some(site)).await;
        let today = now().millis().div_euclid(24 * HOUR) * 24 * HOUR;
        // The load takes as many slots as there is time for while something fails.
        let until = Timestamp::from_millis(today + 90 * 24 * HOUR);
        let availability = [json!({ "start": Timestamp::from_millis(today).to_string(), "end": until.to_string() })];
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
    pub async fn request(&self, order: &str, slot: i64) -> DispatchId {
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

    pub async fn assign(&self, dispatch: &DispatchId, technician: &str) {
        self.post(&format!("/{dispatch}/assign"), json!({ "technicianId": technician })).await;
    }

    pub async fn assigned(&self, order: &str, slot: i64, technician: &str) -> DispatchId {
        let dispatch = self.request(order, slot).await;
        self.assign(&dispatch, technician).await;
        dispatch
    }
}

pub fn now() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    Timestamp::from_millis(i64::try_from(since.as_millis()).unwrap())
}

/// Two nodes on a database of their own, whose owner is an ordinary role.
pub struct Cluster {
    pub nodes: Vec<Node>,
    pub dir: TempDir,
    pub url: String,
    pub settings: Vec<(String, String)>,
    pub issuer: TokenIssuer,
    pub role: String,
    pub database: Option<Database>,
}

impl Cluster {
    /// On the running PostgreSQL.
    pub async fn start(look_interval_ms: u64) -> Self {
        let look = look_interval_ms.to_string();
        Self::on(Database::create().await, &[("SYNC__LOOK_INTERVAL_MS", &look)]).await
    }

    /// On this database, with further settings: `("KAFKA__BROKERS", …)`.
    pub async fn on(database: Database, settings: &[(&str, &str)]) -> Self {
        let mut cluster = Self::without_nodes(database, settings).await;
        for _ in 0..2 {
            let node = cluster.node(cluster.nodes.len(), 0);
            cluster.nodes.push(node);
        }
        cluster
    }

    pub async fn without_nodes(database: Database, settings: &[(&str, &str)]) -> Self {
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
        let settings = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Self { nodes: Vec::new(), dir, url, settings, issuer, role, database: Some(database) }
    }

    pub fn node(&self, number: usize, port: u16) -> Node {
        Node::start(&self.url, &self.log(number), port, &self.settings)
    }

    /// What a node says to its operator, over all its starts.
    pub fn log(&self, number: usize) -> PathBuf {
        self.dir.path().join(format!("node-{number}.log"))
    }

    pub fn database(&self) -> &Database {
        self.database.as_ref().unwrap()
    }

    pub fn token(&self, sub: &str, roles: &[Role], technician: Option<&str>) -> String {
        self.issuer.issue_for(&token_request(sub, roles, technician), 3_600).unwrap()
    }

    pub fn office(&self, node: usize) -> Office {
        Office::at(self, self.nodes[node].url())
    }

    /// A phone that reaches the server through `url`.
    pub fn phone(&self, technician: &str, url: String) -> Phone {
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
    pub fn logs(&self) -> String {
        let tail = |number: usize| {
            let log = std::fs::read_to_string(self.log(number)).unwrap_or_default();
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
pub async fn until<F: Future<Output = bool>>(what: &str, asked: impl Fn() -> F) {
    let waited = async {
        while !asked().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(LONG, waited).await.unwrap_or_else(|_| panic!("never {what}"));
}
