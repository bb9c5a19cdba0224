//! The real router on a real SQLite file with a little of everything in it, without a socket.

#![allow(dead_code, reason = "each target uses its share")]

use crate::signer::{NAME, SECRET};
use axum::Router;
use axum::body::Body;
use axum::http::{Method, Request, StatusCode};
use crm_dispatch_server::auth::{Authenticator, Secret, TokenRequest, issue_token};
use crm_dispatch_server::config::Config;
use crm_dispatch_server::http::{AppState, PREFIX, router};
use crm_dispatch_server::service::{Clock, IdSource, Role, Service, ServiceConfig};
use crm_dispatch_server::store::sqlite::SqliteStore;
use crm_dispatch_server::store::{CommitLog as _, Store};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use sync_core::domain::Timestamp;
use tokio::runtime::Runtime;
use tower::ServiceExt as _;

/// The visit of the documentation's examples.
pub const VISIT: &str = "DSP-100";
/// 2026-02-02T10:00:00Z, a Monday.
const NOW_MS: i64 = crate::signer::NOW * 1_000;

struct StandingClock;

impl Clock for StandingClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(NOW_MS)
    }
}

/// A request in words: whose token, method and path on the first line, then headers, an empty line, and the body.
pub struct Asked {
    pub caller: u8,
    pub method: Method,
    pub path: String,
    pub headers: Vec<(String, Vec<u8>)>,
    pub body: Vec<u8>,
}

impl Asked {
    /// `None` for what no client library would let out.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let (caller, bytes) = bytes.split_first()?;
        let (head, body) = match bytes.windows(2).position(|pair| pair == b"\n\n") {
            Some(at) => (&bytes[..at], &bytes[at + 2..]),
            None => (bytes, &b""[..]),
        };
        let mut lines = head.split(|byte| *byte == b'\n');
        let first = std::str::from_utf8(lines.next()?).ok()?;
        let (method, path) = first.trim_start().split_once(' ')?;
        let headers = lines
            .take(8)
            .filter_map(|line| {
                let at = line.iter().position(|byte| *byte == b':')?;
                Some((String::from_utf8(line[..at].to_vec()).ok()?, line[at + 1..].trim_ascii().to_vec()))
            })
            .collect();
        let method = Method::from_bytes(method.as_bytes()).ok()?;
        Some(Self { caller: *caller, method, path: path.to_owned(), headers, body: body.to_vec() })
    }
}

pub struct Office {
    runtime: Runtime,
    folder: tempfile::TempDir,
    furnished: PathBuf,
    open: Option<(Router, Arc<SqliteStore>)>,
    opened: u32,
    tokens: Vec<(u8, String)>,
    /// The id of the first visit, which requests call [`VISIT`].
    visit: Option<String>,
}

impl Office {
    /// With two technicians, two sites, visits in some states, and an exception.
    pub fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        // In memory where there is such a place: thousands of databases a minute would wear a disk.
        let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let token = |user: &str, roles: &[Role], technician: Option<&str>| {
            let request = TokenRequest {
                sub: user.parse().unwrap(),
                tenant: "tenant-001".parse().unwrap(),
                roles: roles.to_vec(),
                technician: technician.map(|id| id.parse().unwrap()),
                device: None,
            };
            issue_token(&Secret::new(SECRET).unwrap(), NAME, NAME, NOW_MS / 1_000, 3_600, &request).unwrap()
        };
        let tokens = vec![
            (b'*', token("root", &[Role::Admin, Role::Dispatcher, Role::Integration], None)),
            (b'd', token("anna", &[Role::Dispatcher], None)),
            (b't', token("TECH-10", &[Role::Technician], Some("TECH-10"))),
        ];
        let furnished = folder.path().join("furnished.db");
        let mut office = Self { runtime, folder, furnished, open: None, opened: 0, tokens, visit: None };
        office.furnish();
        office
    }

    fn furnish(&mut self) {
        for (method, path, body) in furniture() {
            let body = serde_json::to_vec(&body).unwrap();
            let asked = Asked { caller: b'*', method, path: path.to_owned(), headers: Vec::new(), body };
            let (status, answer) = self.ask(&asked).unwrap();
            assert!(status.is_success(), "{path}: {status} {}", String::from_utf8_lossy(&answer));
            if let (None, "/requests") = (&self.visit, path) {
                let created: Value = serde_json::from_slice(&answer).unwrap();
                self.visit = created["dispatchId"].as_str().map(str::to_owned);
            }
        }
        let (_, store) = self.open.take().unwrap();
        self.runtime.block_on(store.close());
        std::fs::rename(self.current(), &self.furnished).unwrap();
    }

    fn current(&self) -> PathBuf {
        self.folder.path().join(format!("office-{}.db", self.opened))
    }

    /// Throws the database away; the next request meets the furnished one.
    pub fn start_over(&mut self) {
        if let Some((_, store)) = self.open.take() {
            self.runtime.block_on(store.close());
            for suffix in ["", "-wal", "-shm"] {
                let _ = std::fs::remove_file(format!("{}{suffix}", self.current().display()));
            }
        }
    }

    fn router(&mut self) -> Router {
        if let Some((router, _)) = &self.open {
            return router.clone();
        }
        self.opened += 1;
        if self.furnished.exists() {
            std::fs::copy(&self.furnished, self.current()).unwrap();
        }
        let store = self.runtime.block_on(SqliteStore::open(&self.current())).unwrap();
        let settings = HashMap::from([("CRM_DISPATCH__AUTH__SECRET".to_owned(), SECRET.to_owned())]);
        let config = Arc::new(Config::load(None, settings).unwrap());
        let secrets = [Secret::new(SECRET).unwrap()];
        let auth = Authenticator::new(NAME, NAME, 30, &secrets, None, Arc::new(|| NOW_MS / 1_000));
        let kept: Arc<dyn Store> = store.clone();
        let service = Service::new(kept, Arc::new(StandingClock), IdSource::seeded(7), ServiceConfig::default());
        let router = router(AppState::new(service, Arc::new(auth), config));
        self.open = Some((router.clone(), store));
        router
    }

    /// `None` when the request cannot even be put together.
    pub fn ask(&mut self, asked: &Asked) -> Option<(StatusCode, Vec<u8>)> {
        let visit = self.visit.as_deref().unwrap_or(VISIT);
        let path = match asked.path.strip_prefix("//") {
            Some(root) => format!("/{root}"),
            None => format!("{PREFIX}{}", asked.path.replace(VISIT, visit)),
        };
        // Where it is no text it names no visit either.
        let body = match std::str::from_utf8(&asked.body) {
            Ok(text) => text.replace(VISIT, visit).into_bytes(),
            Err(_) => asked.body.clone(),
        };
        let mut request = Request::builder().method(asked.method.clone()).uri(path);
        if let Some((_, token)) = self.tokens.iter().find(|(caller, _)| *caller == asked.caller) {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        if !asked.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-type")) {
            request = request.header("content-type", "application/json");
        }
        for (name, value) in &asked.headers {
            request = request.header(name.as_str(), value.as_slice());
        }
        let request = request.body(Body::from(body)).ok()?;
        let router = self.router();
        self.runtime.block_on(async {
            let answer = router.oneshot(request).await.unwrap();
            let (parts, body) = answer.into_parts();
            Some((parts.status, body.collect().await.unwrap().to_bytes().to_vec()))
        })
    }
}

/// Calls that furnish the office; each is also a seed.
pub fn furniture() -> Vec<(Method, &'static str, Value)> {
    let site = json!({ "name": "Cafe Central", "address": "Herrengasse 14, 1010 Wien",
        "coordinates": { "latitude": 48.2105, "longitude": 16.3655 } });
    let technician = json!({ "name": "Maria Huber", "skills": [{ "code": "HVAC", "level": 2 }],
        "homeBase": { "latitude": 48.22, "longitude": 16.37 }, "vanStock": { "PART-1": 5 },
        "availability": [{ "start": "2026-02-02T06:00:00Z", "end": "2026-02-09T18:00:00Z" }] });
    let visit = |order: &str, start: &str, end: &str| {
        json!({ "serviceOrderId": order, "locationId": "LOC-10", "requiredSkills": ["HVAC"], "title": "Boiler",
            "scheduled": { "start": start, "end": end }, "requiredParts": [{ "part": "PART-1", "quantity": 1 }],
            "checklist": [{ "id": "pressure", "label": "Pressure in bar?", "required": true }] })
    };
    vec![
        (Method::PUT, "/locations/LOC-10", site),
        (Method::PUT, "/technicians/TECH-10", technician.clone()),
        (Method::PUT, "/technicians/TECH-11", technician),
        (Method::POST, "/technicians/TECH-10/status", json!({ "status": "AVAILABLE" })),
        (Method::POST, "/requests", visit("SO-1", "2026-02-03T08:00:00Z", "2026-02-03T09:00:00Z")),
        (Method::POST, "/requests", visit("SO-2", "2026-02-03T10:00:00Z", "2026-02-03T11:00:00Z")),
        (Method::POST, "/DSP-100/assign", json!({ "technicianId": "TECH-10" })),
        (
            Method::POST,
            "/technicians/TECH-11/absences",
            json!({ "reason": "ill",
            "window": { "start": "2026-02-05T08:00:00Z", "end": "2026-02-06T08:00:00Z" } }),
        ),
    ]
}
