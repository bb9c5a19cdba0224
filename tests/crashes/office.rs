//! Dispatchers whose program asks until it is answered, and who write down every answer.

use crate::cluster_support::{BASE, HOUR, LONG, now};
use crate::{OFFICES, TECHNICIANS};
use rand::RngExt as _;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use sync_core::domain::{DispatchId, Timestamp};
use tokio::sync::watch;

/// An office is not faster than this.
const PACE: Duration = Duration::from_millis(25);

/// One question, and the answer that came in the end.
#[derive(Debug, Clone)]
pub(crate) struct Answered {
    pub(crate) key: String,
    pub(crate) path: String,
    pub(crate) body: Value,
    pub(crate) status: StatusCode,
    pub(crate) answer: Value,
}

impl Answered {
    /// What was asked: `requests`, `assign`, `cancel`, ….
    pub(crate) fn what(&self) -> &str {
        self.path.rsplit('/').next().unwrap()
    }

    pub(crate) fn dispatch(&self) -> DispatchId {
        self.answer["dispatchId"].as_str().unwrap().parse().unwrap()
    }
}

pub(crate) struct Desk {
    number: usize,
    url: String,
    token: String,
    http: reqwest::Client,
    asked: u64,
    observed: Arc<AtomicU64>,
}

impl Desk {
    pub(crate) fn new(number: usize, url: String, token: String, observed: Arc<AtomicU64>) -> Self {
        let http = reqwest::Client::builder().timeout(Duration::from_secs(20)).build().unwrap();
        Self { number, url, token, http, asked: 0, observed }
    }

    /// Asks until there is an answer: with the same key, so that it has its effect once.
    pub(crate) async fn ask(&self, method: Method, path: &str, key: &str, body: &Value) -> (StatusCode, Value) {
        let mut last = String::new();
        let asked = async {
            loop {
                let request = self.http.request(method.clone(), format!("{}{BASE}{path}", self.url));
                let request = request.bearer_auth(&self.token).header("Idempotency-Key", key).json(body);
                match request.send().await {
                    // The server stops, or its database is away.
                    Ok(answer) if answer.status().is_server_error() => {
                        let status = answer.status();
                        last = format!("{status} {}", answer.text().await.unwrap_or_default());
                        let known = [StatusCode::SERVICE_UNAVAILABLE, StatusCode::GATEWAY_TIMEOUT];
                        assert!(known.contains(&status), "{method} {path}: {last}");
                    }
                    Ok(answer) => {
                        let status = answer.status();
                        // The answer may be cut off in the middle.
                        match answer.json().await {
                            Ok(body) => return (status, body),
                            Err(cut_off) => last = format!("{cut_off:?}"),
                        }
                    }
                    Err(cut_off) => last = format!("{cut_off:?}"),
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let answer = tokio::time::timeout(LONG, asked).await;
        answer.unwrap_or_else(|_| panic!("{method} {path} is never answered: {last}"))
    }

    pub(crate) async fn put(&self, path: &str, body: Value) {
        let (status, answer) = self.ask(Method::PUT, path, &format!("put-{path}"), &body).await;
        assert!(status.is_success(), "PUT {path}: {status} {answer}");
    }

    async fn post(&mut self, path: String, body: Value, answered: &mut Vec<Answered>) -> bool {
        self.asked += 1;
        let key = format!("office-{}-{}", self.number, self.asked);
        let (status, answer) = self.ask(Method::POST, &path, &key, &body).await;
        self.observed.fetch_add(1, Ordering::SeqCst);
        answered.push(Answered { key, path, body, status, answer });
        status.is_success()
    }

    /// Plans, and changes its mind, until it is over. No two offices speak of the same visit, so that each one's last word holds.
    pub(crate) async fn work(mut self, mut rng: StdRng, over: watch::Receiver<bool>) -> Vec<Answered> {
        let mut pace = tokio::time::interval(PACE);
        let (mut answered, mut visits): (Vec<Answered>, Vec<DispatchId>) = (Vec::new(), Vec::new());
        let mut slots = 0;
        while !*over.borrow() {
            pace.tick().await;
            let technician = TECHNICIANS[rng.random_range(0..TECHNICIANS.len())];
            let visit = visits.choose(&mut rng).cloned();
            match (rng.random_range(0..100), visit) {
                (60..72, Some(visit)) => {
                    let body = json!({ "technicianId": technician });
                    self.post(format!("/{visit}/reassign"), body, &mut answered).await;
                }
                (72..80, Some(visit)) => {
                    let body = json!({ "reason": "the customer called" });
                    self.post(format!("/{visit}/cancel"), body, &mut answered).await;
                }
                (80..84, Some(visit)) => {
                    self.post(format!("/{visit}/reinstate"), json!({}), &mut answered).await;
                }
                (84..94, Some(visit)) => {
                    slots += 1;
                    let body = json!({ "scheduled": self.slot(slots) });
                    self.post(format!("/{visit}/reschedule"), body, &mut answered).await;
                }
                (94.., Some(visit)) => {
                    let priority = *["LOW", "NORMAL", "HIGH"].choose(&mut rng).unwrap();
                    self.post(format!("/{visit}/priority"), json!({ "priority": priority }), &mut answered).await;
                }
                _ => {
                    slots += 1;
                    let body = json!({
                        "serviceOrderId": format!("SO-{}-{slots}", self.number),
                        "locationId": "LOC-10",
                        "requiredSkills": ["HVAC"],
                        "scheduled": self.slot(slots),
                        "checklist": [{ "id": "pressure", "label": "Pressure in bar?", "required": false }],
                    });
                    assert!(self.post("/requests".to_owned(), body, &mut answered).await, "{:?}", answered.last());
                    let visit = answered.last().unwrap().dispatch();
                    let mut body = json!({ "technicianId": technician });
                    if rng.random_bool(0.2) {
                        let other = TECHNICIANS.iter().find(|other| **other != technician).unwrap();
                        body["crew"] = json!([other]);
                    }
                    self.post(format!("/{visit}/assign"), body, &mut answered).await;
                    visits.push(visit);
                }
            }
        }
        answered
    }

    /// Twenty minutes of some day from tomorrow on that nobody else gets.
    fn slot(&self, slot: i64) -> Value {
        let slot = i64::try_from(OFFICES).unwrap() * slot + i64::try_from(self.number).unwrap();
        let (day, slot) = (1 + slot / 40, slot % 40);
        let today = now().millis().div_euclid(24 * HOUR) * 24 * HOUR;
        let start = today + day * 24 * HOUR + (1 + slot) * HOUR / 2;
        json!({
            "start": Timestamp::from_millis(start).to_string(),
            "end": Timestamp::from_millis(start + HOUR / 3).to_string(),
        })
    }
}
