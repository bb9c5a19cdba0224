//! A server without a socket: the real router over a real SQLite file, with a clock that the test sets.

#![allow(dead_code, reason = "each test file uses its part")]

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Method, Request, StatusCode};
use crm_dispatch_server::auth::{Authenticator, JwksFile, Secret, SystemClock, TokenRequest, issue_token};
use crm_dispatch_server::config::Config;
use crm_dispatch_server::http::{AppState, router_with};
use crm_dispatch_server::service::{Clock, IdSource, Role, Service, ServiceConfig};
use crm_dispatch_server::store::sqlite::SqliteStore;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use sync_core::domain::Timestamp;
use tower::ServiceExt as _;

pub(crate) const API: &str = "/api/v1/crm/dispatch";
pub(crate) const ISSUER: &str = "crm-dispatch";
pub(crate) const AUDIENCE: &str = "crm-dispatch";
pub(crate) const SECRET: &str = "the office's shared secret, long enough";
pub(crate) const PREVIOUS_SECRET: &str = "the secret before it, long enough as well";
pub(crate) const TENANT: &str = "tenant-001";
/// 2026-02-02T10:00:00Z, a Monday.
pub(crate) const MONDAY_10_MS: i64 = 1_770_026_400_000;

/// Time that passes when the test says so: for the domain, and in seconds for tokens.
#[derive(Debug, Clone)]
pub(crate) struct TestClock(Arc<AtomicI64>);

impl TestClock {
    pub(crate) fn advance(&self, millis: i64) {
        self.0.fetch_add(millis, Ordering::SeqCst);
    }
    pub(crate) fn seconds(&self) -> i64 {
        self.0.load(Ordering::SeqCst) / 1000
    }
    pub(crate) fn for_tokens(&self) -> SystemClock {
        let clock = self.clone();
        Arc::new(move || clock.seconds())
    }
}

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.0.load(Ordering::SeqCst))
    }
}

/// What a test may change about the server.
#[derive(Default)]
pub(crate) struct Setup {
    pub(crate) settings: Vec<(&'static str, String)>,
    pub(crate) jwks: Option<PathBuf>,
    pub(crate) more: Router<AppState>,
}

/// A server and what belongs to it.
pub(crate) struct Office {
    pub(crate) router: Router,
    pub(crate) app: AppState,
    pub(crate) clock: TestClock,
    _folder: tempfile::TempDir,
}

/// An answer, read.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) bytes: Vec<u8>,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&self.bytes)))
    }
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
    /// Checks the error body: exactly its five fields, each of its form.
    #[track_caller]
    pub(crate) fn error(&self, status: u16, code: &str) -> Value {
        let text = String::from_utf8_lossy(&self.bytes);
        assert_eq!(self.status.as_u16(), status, "{text}");
        assert_eq!(self.header("content-type"), "application/json", "{text}");
        let body = self.json();
        let mut fields: Vec<_> = body.as_object().unwrap().keys().map(String::as_str).collect();
        fields.sort_unstable();
        assert_eq!(fields, ["details", "error", "message", "timestamp", "traceId"]);
        assert_eq!(body["error"], code, "{text}");
        assert!(!body["message"].as_str().unwrap().is_empty());
        assert!(body["details"].is_object());
        body["timestamp"].as_str().unwrap().parse::<Timestamp>().unwrap();
        let trace = body["traceId"].as_str().unwrap();
        assert!(trace.len() == 32 && trace.bytes().all(|b| b.is_ascii_hexdigit()), "{trace}");
        body
    }
    /// Checks success.
    #[track_caller]
    pub(crate) fn ok(&self, status: u16) -> Value {
        assert_eq!(self.status.as_u16(), status, "{}", String::from_utf8_lossy(&self.bytes));
        self.json()
    }
}

/// A request in the making.
pub(crate) struct Call<'a> {
    office: &'a Office,
    request: axum::http::request::Builder,
    body: Body,
}

impl Call<'_> {
    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.request = self.request.header(name, value);
        self
    }
    pub(crate) fn token(self, token: &str) -> Self {
        self.header("authorization", &format!("Bearer {token}"))
    }
    pub(crate) fn json(self, body: &Value) -> Self {
        self.text(&body.to_string())
    }
    /// A body that calls itself JSON.
    pub(crate) fn text(self, body: &str) -> Self {
        self.raw("application/json", body)
    }
    pub(crate) fn raw(self, content_type: &str, body: &str) -> Self {
        let mut call = self.header("content-type", content_type).header("content-length", &body.len().to_string());
        call.body = Body::from(body.to_owned());
        call
    }
    pub(crate) fn stream(self, body: Body) -> Self {
        let mut call = self.header("content-type", "application/json");
        call.body = body;
        call
    }
    pub(crate) async fn send(self) -> Answer {
        let request: Request<Body> = self.request.body(self.body).unwrap();
        let response = self.office.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes().to_vec();
        Answer { status: parts.status, headers: parts.headers, bytes }
    }
}

impl Office {
    pub(crate) async fn open() -> Self {
        Self::with(Setup::default()).await
    }

    pub(crate) async fn with(setup: Setup) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let clock = TestClock(Arc::new(AtomicI64::new(MONDAY_10_MS)));
        let mut settings: HashMap<String, String> =
            setup.settings.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        settings.entry("CRM_DISPATCH__AUTH__SECRET".to_owned()).or_insert_with(|| SECRET.to_owned());
        let config = Config::load(None, settings).unwrap();
        let store = SqliteStore::open(&folder.path().join("office.db")).await.unwrap();
        let service = Service::new(store, Arc::new(clock.clone()), IdSource::seeded(7), ServiceConfig::default());
        let secrets = [Secret::new(SECRET).unwrap(), Secret::new(PREVIOUS_SECRET).unwrap()];
        let jwks = setup.jwks.map(|path| JwksFile::open(&path, 5, clock.for_tokens()).unwrap());
        let leeway = i64::from(config.auth.leeway_seconds);
        let auth = Authenticator::new(ISSUER, AUDIENCE, leeway, &secrets, jwks, clock.for_tokens());
        let app = AppState::new(service, Arc::new(auth), Arc::new(config));
        Self { router: router_with(app.clone(), setup.more), app, clock, _folder: folder }
    }

    pub(crate) fn call(&self, method: Method, path: &str) -> Call<'_> {
        let path = if path.starts_with("//") { path[1..].to_owned() } else { format!("{API}{path}") };
        Call { office: self, request: Request::builder().method(method).uri(path), body: Body::empty() }
    }
    /// A path under the API; one that starts with `//` is taken from the root.
    pub(crate) fn get(&self, path: &str) -> Call<'_> {
        self.call(Method::GET, path)
    }
    pub(crate) fn post(&self, path: &str) -> Call<'_> {
        self.call(Method::POST, path)
    }
    pub(crate) fn put(&self, path: &str) -> Call<'_> {
        self.call(Method::PUT, path)
    }

    pub(crate) fn token(&self, tenant: &str, user: &str, roles: &[Role], technician: Option<&str>) -> String {
        let request = TokenRequest {
            sub: user.parse().unwrap(),
            tenant: tenant.parse().unwrap(),
            roles: roles.to_vec(),
            technician: technician.map(|id| id.parse().unwrap()),
            device: None,
        };
        issue_token(&Secret::new(SECRET).unwrap(), ISSUER, AUDIENCE, self.clock.seconds(), 3_600, &request).unwrap()
    }
    pub(crate) fn dispatcher(&self) -> String {
        self.token(TENANT, "anna", &[Role::Dispatcher], None)
    }
    pub(crate) fn admin(&self) -> String {
        self.token(TENANT, "root", &[Role::Admin], None)
    }
    pub(crate) fn integration(&self) -> String {
        self.token(TENANT, "service-orders", &[Role::Integration], None)
    }
    pub(crate) fn technician(&self, id: &str) -> String {
        self.token(TENANT, id, &[Role::Technician], Some(id))
    }

    /// A site in Vienna, and two heating technicians who work all week.
    pub(crate) async fn furnish(&self) {
        let token = self.admin();
        let site = json!({ "name": "Cafe Central", "address": "Herrengasse 14, 1010 Wien",
            "coordinates": { "latitude": 48.2105, "longitude": 16.3655 } });
        self.put("/locations/LOC-10").token(&token).json(&site).send().await.ok(201);
        for (id, name) in [("TECH-10", "Maria Huber"), ("TECH-11", "Josef Gruber")] {
            let technician = json!({ "name": name, "skills": [{ "code": "HVAC", "level": 2 }],
                "homeBase": { "latitude": 48.2200, "longitude": 16.3700 },
                "availability": [{ "start": "2026-02-02T06:00:00Z", "end": "2026-02-09T18:00:00Z" }] });
            self.put(&format!("/technicians/{id}")).token(&token).json(&technician).send().await.ok(201);
            let status = json!({ "status": "AVAILABLE" });
            self.post(&format!("/technicians/{id}/status")).token(&token).json(&status).send().await.ok(200);
        }
    }

    /// A heating visit tomorrow morning; answers its id.
    pub(crate) async fn request_visit(&self, order: &str) -> String {
        let request = visit_request(order, "2026-02-03T08:00:00Z", "2026-02-03T09:00:00Z");
        let created = self.post("/requests").token(&self.dispatcher()).json(&request).send().await.ok(201);
        created["dispatchId"].as_str().unwrap().to_owned()
    }
}

/// A heating visit at the cafe.
pub(crate) fn visit_request(order: &str, start: &str, end: &str) -> Value {
    json!({ "serviceOrderId": order, "locationId": "LOC-10", "requiredSkills": ["HVAC"],
        "scheduled": { "start": start, "end": end } })
}
