//! The real server on a free port, the real client on a real file, and a dispatcher's hands.
//!
//! Helpers of tests panic when the world is not as the story needs it; that is what makes the story fail.

#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "shared by several story files"
)]

#[path = "../../server/tests/postgres_support/mod.rs"]
pub mod postgres_support;

use crm_dispatch_server::app::{Parts, Server, open_store};
use crm_dispatch_server::auth::TokenRequest;
use crm_dispatch_server::config::Config;
use crm_dispatch_server::service::{Clock, IdSource, Role};
use postgres_support::Database;
use rand::{SeedableRng, rngs::StdRng};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use sync_core::client::{BoxFuture, Client, ClientConfig, PhoneClock, TokenError, TokenNeed, TokenProvider};
use sync_core::domain::{BootId, DispatchId, FactKind, TechnicianId, TenantId, Timestamp, VisitCard, VisitStatus};
use sync_core::store::{Acted, DeviceNow, NewEdit, OpenOptions, Protection, Store, VisitQuery};
use tempfile::TempDir;

pub const SECRET: &str = "a shared secret for tests only, long enough to be one";
pub const TENANT: &str = "tenant-001";
/// 2026-02-03T08:00:00Z: the morning on which every story begins.
pub const MORNING: i64 = 1_770_105_600_000;
pub const MINUTE: i64 = 60_000;
pub const HOUR: i64 = 60 * MINUTE;
/// Long enough for a loaded machine; a story that waits this long has failed.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Time that a test moves by hand.
#[derive(Debug, Clone)]
pub struct TestClock(Arc<AtomicI64>);

impl TestClock {
    pub fn at_morning() -> Self {
        Self(Arc::new(AtomicI64::new(MORNING)))
    }
    pub fn advance(&self, millis: i64) {
        self.0.fetch_add(millis, Ordering::SeqCst);
    }
}

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.0.load(Ordering::SeqCst))
    }
}

/// A phone's clock: the world's, off by so much.
struct TestPhoneClock {
    world: TestClock,
    off_by: i64,
    started: Instant,
}

impl PhoneClock for TestPhoneClock {
    fn now(&self) -> DeviceNow {
        DeviceNow {
            wall: self.world.now().plus_millis(self.off_by),
            // Moves with the world, so that a day that is told in a second is no clock that jumps.
            monotonic_ms: u64::try_from(self.started.elapsed().as_millis()).unwrap()
                + u64::try_from(self.world.now().millis() - MORNING).unwrap(),
            boot: BootId::new("boot-1").unwrap(),
        }
    }
}

/// The server, its directory, and a dispatcher with every right.
pub struct World {
    pub dir: TempDir,
    pub clock: TestClock,
    pub server: Option<Server>,
    settings: Vec<(String, String)>,
    pub http: reqwest::Client,
    pub port: u16,
    pub place: Place,
    office_token: String,
    keys: AtomicU64,
}

/// Where a story's server keeps everything.
pub enum Place {
    /// A file beside the phones'.
    File(PathBuf),
    /// A database on PostgreSQL: in the stories that `postgres_stories.rs` tells again.
    Postgres(Database),
}

impl Place {
    async fn fresh(dir: &Path) -> Self {
        if module_path!().starts_with("postgres_") {
            Self::Postgres(Database::create().await)
        } else {
            Self::File(dir.join("server.db"))
        }
    }

    pub fn url(&self) -> String {
        match self {
            Self::File(path) => format!("sqlite://{}", path.display()),
            Self::Postgres(database) => database.url(),
        }
    }
}

pub fn config(dir: &Path, port: u16) -> Config {
    config_with(&format!("sqlite://{}", dir.join("server.db").display()), port, &[])
}

/// With further settings: `KAFKA__BROKERS` for `kafka.brokers`.
fn config_with(database: &str, port: u16, more: &[(String, String)]) -> Config {
    let mut environment = HashMap::from([
        ("CRM_DISPATCH__SERVER__PORT".to_owned(), port.to_string()),
        ("CRM_DISPATCH__ADMIN__PORT".to_owned(), "0".to_owned()),
        ("CRM_DISPATCH__DATABASE__URL".to_owned(), database.to_owned()),
        ("CRM_DISPATCH__AUTH__SECRET".to_owned(), SECRET.to_owned()),
    ]);
    environment.extend(more.iter().map(|(name, value)| (format!("CRM_DISPATCH__{name}"), value.clone())));
    Config::load(None, environment).unwrap()
}

impl World {
    pub async fn start() -> Self {
        Self::with(&[]).await
    }

    /// With further settings: `("KAFKA__BROKERS", …)`.
    pub async fn with(settings: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let place = Place::fresh(dir.path()).await;
        Self::at(dir, place, settings).await
    }

    /// On a database of the story's choice.
    pub async fn at(dir: TempDir, place: Place, settings: &[(&str, &str)]) -> Self {
        let world = Self::on(dir, place, settings).await;
        world.add_location("LOC-10", 48.2105, 16.3655).await;
        world.add_location("LOC-20", 48.2186, 16.3905).await;
        world.add_technician("TECH-10").await;
        world.add_technician("TECH-20").await;
        world
    }

    /// On a database that has been worked with.
    pub async fn on(dir: TempDir, place: Place, settings: &[(&str, &str)]) -> Self {
        let settings: Vec<_> = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let clock = TestClock::at_morning();
        let parts = Parts { clock: Arc::new(clock.clone()), ids: IdSource::seeded(7) };
        let server = Server::start(config_with(&place.url(), 0, &settings), parts).await.unwrap();
        let request = token_request("office", &[Role::Dispatcher, Role::Admin, Role::Integration], None);
        let office_token = server.issuer().unwrap().issue(&request).unwrap();
        let port = server.address().port();
        Self {
            dir,
            clock,
            server: Some(server),
            settings,
            http: reqwest::Client::new(),
            port,
            place,
            office_token,
            // Not those of whoever worked with the database before.
            keys: AtomicU64::new(rand::random::<u32>().into()),
        }
    }

    pub fn server(&self) -> &Server {
        self.server.as_ref().expect("the server runs")
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// As its server reads it, for those who open the database themselves.
    pub fn config(&self) -> Config {
        config_with(&self.place.url(), 0, &self.settings)
    }

    /// Stops the server in good order.
    pub async fn stop_server(&mut self) {
        self.server.take().expect("the server runs").shutdown().await;
    }

    /// Starts it again on the same database and port.
    pub async fn start_server(&mut self) {
        let parts = Parts { clock: Arc::new(self.clock.clone()), ids: IdSource::random() };
        let config = config_with(&self.place.url(), self.port, &self.settings);
        self.server = Some(Server::start(config, parts).await.unwrap());
    }

    /// Copies the database of a server that is stopped.
    pub fn back_up(&self) {
        let copy = self.dir.path().join("backup");
        match &self.place {
            Place::File(path) => drop(std::fs::copy(path, copy).unwrap()),
            Place::Postgres(database) => database.dump(&copy),
        }
    }

    /// Puts the copy in the database's place, and tells it so, as `crm-dispatch restored` does.
    pub async fn restore(&self) {
        let copy = self.dir.path().join("backup");
        match &self.place {
            Place::File(path) => drop(std::fs::copy(copy, path).unwrap()),
            Place::Postgres(database) => database.restore(&copy).await,
        }
        let (store, _) = open_store(&config_with(&self.place.url(), 0, &self.settings)).await.unwrap();
        store.renew_identity().await.unwrap();
        store.close().await;
    }

    pub fn token(&self, technician: &str) -> String {
        self.token_for(technician, 3600)
    }

    pub fn token_for(&self, technician: &str, lifetime_seconds: i64) -> String {
        let request = token_request(technician, &[Role::Technician], Some(technician));
        self.server().issuer().unwrap().issue_for(&request, lifetime_seconds).unwrap()
    }

    pub async fn call(&self, method: Method, path: &str, body: Option<Value>) -> (StatusCode, Value) {
        self.call_as(&self.office_token, method, path, body).await
    }

    pub async fn call_as(&self, token: &str, method: Method, path: &str, body: Option<Value>) -> (StatusCode, Value) {
        let key = format!("key-{}", self.keys.fetch_add(1, Ordering::Relaxed));
        let url = format!("{}/api/v1/crm/dispatch{path}", self.url());
        let mut request = self.http.request(method, url).bearer_auth(token).header("Idempotency-Key", key);
        if let Some(body) = body {
            request = request.json(&body);
        }
        let answer = request.send().await.unwrap();
        (answer.status(), answer.json().await.unwrap_or(Value::Null))
    }

    pub async fn get(&self, path: &str) -> Value {
        let (status, body) = self.call(Method::GET, path, None).await;
        assert_eq!(status, StatusCode::OK, "GET {path}: {body}");
        body
    }

    pub async fn post(&self, path: &str, body: Value) -> Value {
        let (status, answer) = self.call(Method::POST, path, Some(body)).await;
        assert!(status.is_success(), "POST {path}: {status} {answer}");
        answer
    }

    pub async fn put(&self, path: &str, body: Value) -> Value {
        let (status, answer) = self.call(Method::PUT, path, Some(body)).await;
        assert!(status.is_success(), "PUT {path}: {status} {answer}");
        answer
    }

    pub async fn add_location(&self, id: &str, latitude: f64, longitude: f64) {
        let coordinates = json!({ "latitude": latitude, "longitude": longitude });
        let body = json!({ "name": format!("Site {id}"), "address": "Wien", "coordinates": coordinates });
        self.put(&format!("/locations/{id}"), body).await;
    }

    pub async fn add_technician(&self, id: &str) {
        let availability = json!([{ "start": at(-8 * HOUR), "end": at(16 * HOUR) }]);
        let body = json!({
            "name": format!("Technician {id}"),
            "skills": [{ "code": "HVAC", "level": 3 }],
            "homeBase": { "latitude": 48.2082, "longitude": 16.3738 },
            "availability": availability,
            "vanStock": { "PART-1": 5 },
        });
        self.put(&format!("/technicians/{id}"), body).await;
    }

    /// A visit of an hour, `hour` hours from the morning, at LOC-10.
    pub async fn request(&self, order: &str, hour: i64) -> DispatchId {
        let body = json!({
            "serviceOrderId": order,
            "locationId": "LOC-10",
            "requiredSkills": ["HVAC"],
            "title": format!("Boiler of {order}"),
            "scheduled": { "start": at(hour * HOUR), "end": at((hour + 1) * HOUR) },
            "checklist": [{ "id": "pressure", "label": "Pressure in bar?", "required": true }],
        });
        let answer = self.post("/requests", body).await;
        answer["dispatchId"].as_str().unwrap().parse().unwrap()
    }

    pub async fn assign(&self, dispatch: &DispatchId, technician: &str) {
        self.post(&format!("/{dispatch}/assign"), json!({ "technicianId": technician })).await;
    }

    /// A visit that `technician` has.
    pub async fn assigned(&self, order: &str, hour: i64, technician: &str) -> DispatchId {
        let dispatch = self.request(order, hour).await;
        self.assign(&dispatch, technician).await;
        dispatch
    }

    pub async fn dispatch(&self, dispatch: &DispatchId) -> Value {
        self.get(&format!("/{dispatch}")).await
    }

    pub async fn status(&self, dispatch: &DispatchId) -> String {
        self.dispatch(dispatch).await["status"].as_str().unwrap().to_owned()
    }

    /// All facts of a visit, as the office reads them.
    pub async fn facts(&self, dispatch: &DispatchId) -> Vec<Value> {
        self.get(&format!("/{dispatch}/report")).await["facts"].as_array().unwrap().clone()
    }

    /// Events of one dispatch, oldest first: `(eventType, payload)`.
    pub async fn events(&self, dispatch: &DispatchId) -> Vec<(String, Value)> {
        let page = self.get("/events?limit=200").await;
        let of_this = |entry: &&Value| entry["event"]["aggregateId"] == dispatch.as_str();
        let items = page["items"].as_array().unwrap();
        let pair = |entry: &Value| {
            (entry["event"]["eventType"].as_str().unwrap().to_owned(), entry["event"]["payload"].clone())
        };
        items.iter().filter(of_this).map(pair).collect()
    }

    /// Waits until the office sees that status. Asks again and again, because the office has no other way.
    pub async fn until_status(&self, dispatch: &DispatchId, wanted: &str) {
        let asked = async {
            while self.status(dispatch).await != wanted {
                tokio::task::yield_now().await;
            }
        };
        if tokio::time::timeout(PATIENCE, asked).await.is_err() {
            panic!("{dispatch} is {}, not {wanted}", self.status(dispatch).await);
        }
    }

    /// A phone of `technician` whose file is `name`, online.
    pub fn phone(&self, technician: &str, name: &str) -> Phone {
        self.phone_with(technician, name, PhoneSetup::default())
    }

    pub fn phone_with(&self, technician: &str, name: &str, setup: PhoneSetup) -> Phone {
        let path = self.phone_file(name);
        let seed = setup.seed ^ name.bytes().fold(17, |sum, byte| sum * 31 + u64::from(byte));
        let config = self.client_config(technician, setup);
        let mut rng = StdRng::seed_from_u64(seed);
        let options =
            OpenOptions { app: "story 1.0".into(), now: config.clock.now().wall, protection: Protection::Unencrypted };
        let opened = Store::open(&path, &options, &mut rng).unwrap();
        let tenant: TenantId = TENANT.parse().unwrap();
        opened.store.bind_user(&tenant, &technician.parse::<TechnicianId>().unwrap(), &mut rng).unwrap();
        let client = Client::start(Arc::new(opened.store), config);
        Phone { client, path }
    }

    pub fn phone_file(&self, name: &str) -> PathBuf {
        self.dir.path().join(format!("{name}.db"))
    }

    /// How a phone of `technician` reaches this server.
    pub fn client_config(&self, technician: &str, setup: PhoneSetup) -> ClientConfig {
        let tokens = setup.tokens.unwrap_or_else(|| Arc::new(FixedTokens::new(vec![self.token(technician)])));
        let clock =
            Arc::new(TestPhoneClock { world: self.clock.clone(), off_by: setup.off_by, started: Instant::now() });
        let mut config = ClientConfig::new(setup.url.unwrap_or_else(|| self.url()), tokens);
        config.clock = clock;
        config.seed = Some(setup.seed);
        config.network_at_start = setup.online;
        config.tls = setup.tls;
        config
    }
}

pub struct PhoneSetup {
    pub off_by: i64,
    pub seed: u64,
    pub online: bool,
    pub url: Option<String>,
    pub tokens: Option<Arc<dyn TokenProvider>>,
    pub tls: Option<Arc<rustls::ClientConfig>>,
}

impl Default for PhoneSetup {
    fn default() -> Self {
        Self { off_by: 0, seed: 1, online: true, url: None, tokens: None, tls: None }
    }
}

/// A phone in a technician's hand.
pub struct Phone {
    pub client: Client,
    pub path: PathBuf,
}

impl Phone {
    pub fn store(&self) -> &Arc<Store> {
        self.client.store()
    }

    /// Waits until everything is exchanged.
    pub async fn caught_up(&self) {
        if tokio::time::timeout(PATIENCE, self.client.caught_up()).await.is_err() {
            panic!("{} is not caught up: {:?}", self.path.display(), self.client.status().borrow());
        }
    }

    /// Waits until the phone's list says so.
    pub async fn until(&self, what: &str, holds: impl Fn(&[VisitCard]) -> bool) {
        let mut events = self.client.events();
        let waited = async {
            while !holds(&self.visits()) {
                // An observer that missed some lists anew, as an app does.
                let _ = events.recv().await;
            }
        };
        if tokio::time::timeout(PATIENCE, waited).await.is_err() {
            panic!("never {what}: {:?}; {:?}", self.visits(), self.client.status().borrow());
        }
    }

    pub async fn until_holding(&self, dispatch: &DispatchId) {
        self.until("holding", |visits| visits.iter().any(|card| card.dispatch_id == *dispatch)).await;
    }

    pub async fn until_without(&self, dispatch: &DispatchId) {
        self.until("without", |visits| visits.iter().all(|card| card.dispatch_id != *dispatch)).await;
    }

    pub fn visits(&self) -> Vec<VisitCard> {
        self.store().visits(&VisitQuery::default()).unwrap()
    }

    pub fn status(&self, dispatch: &DispatchId) -> VisitStatus {
        self.visits().iter().find(|card| card.dispatch_id == *dispatch).expect("the phone holds it").status
    }

    pub fn go_offline(&self) {
        self.client.set_network(false);
    }

    pub fn go_online(&self) {
        self.client.set_network(true);
    }

    pub async fn does(&self, dispatch: &DispatchId, kind: FactKind) -> Acted {
        self.client.act(dispatch, NewEdit::Fact(kind), None).await.unwrap()
    }

    /// Accepts, travels, arrives, works.
    pub async fn starts_work(&self, dispatch: &DispatchId) {
        for kind in [
            FactKind::Accepted { eta: None },
            FactKind::TravelStarted { eta: None },
            FactKind::Arrived,
            FactKind::WorkStarted,
        ] {
            self.does(dispatch, kind).await;
        }
    }

    /// Waits until the connection is in that phase.
    pub async fn until_phase(&self, wanted: sync_core::client::Phase) {
        let mut status = self.client.status();
        let waited = tokio::time::timeout(PATIENCE, status.wait_for(|status| status.phase == wanted)).await;
        if waited.is_err() {
            panic!("never {wanted:?}: {:?}", self.client.status().borrow());
        }
    }
}

/// Hands out these tokens, one a refusal; the last for ever.
pub struct FixedTokens {
    tokens: Mutex<Vec<String>>,
    pub asked: AtomicU64,
    pub rejected: AtomicU64,
}

impl FixedTokens {
    pub fn new(tokens: Vec<String>) -> Self {
        Self { tokens: Mutex::new(tokens), asked: AtomicU64::new(0), rejected: AtomicU64::new(0) }
    }
}

impl TokenProvider for FixedTokens {
    fn token(&self, need: TokenNeed) -> BoxFuture<'_, Result<String, TokenError>> {
        Box::pin(async move {
            self.asked.fetch_add(1, Ordering::SeqCst);
            let mut tokens = self.tokens.lock().unwrap();
            if need == TokenNeed::Rejected {
                self.rejected.fetch_add(1, Ordering::SeqCst);
                if tokens.len() > 1 {
                    tokens.remove(0);
                }
            }
            Ok(tokens[0].clone())
        })
    }
}

pub fn token_request(sub: &str, roles: &[Role], technician: Option<&str>) -> TokenRequest {
    TokenRequest {
        sub: sub.parse().unwrap(),
        tenant: TENANT.parse().unwrap(),
        roles: roles.to_vec(),
        technician: technician.map(|id| id.parse().unwrap()),
        device: None,
    }
}

/// A time of the story's day, as REST wants it.
pub fn at(millis_from_morning: i64) -> String {
    Timestamp::from_millis(MORNING + millis_from_morning).to_string()
}
