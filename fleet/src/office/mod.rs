//! The simulated office: the back office's REST client.

mod calls;
mod model;

pub use model::{
    AnswerView, AssignmentSummary, AuditLine, Available, CancellationSummary, ChecklistView, DeviceHealth,
    DispatchSummary, Exception, FactLine, IngestLine, JournalEntry, JournalEvent, Page, ReportView, SlaSummary,
};

use rand::{Rng, RngExt, SeedableRng, rngs::SmallRng};
use reqwest::{Method, StatusCode};
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use sync_core::domain::TechnicianId;

/// Where all calls lie under.
pub const BASE_PATH: &str = "/api/v1/crm/dispatch";
/// How often a call is made before its failure is believed.
const ATTEMPTS_MAX: u32 = 8;
/// Wait before the second attempt; doubles.
const RETRY_DELAY_MS: u64 = 20;
/// Pages followed before a search is taken to be endless.
const PAGES_MAX: usize = 10_000;

/// Who speaks.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Caller {
    /// A person in the office.
    Dispatcher,
    /// Service Orders.
    Integration,
    /// Sets the tenant up.
    Admin,
    /// A technician's phone.
    Technician(TechnicianId),
}

/// Makes a token for a caller. Called again whenever a fresh one is wanted.
pub type TokenIssuer = Arc<dyn Fn(&Caller) -> String + Send + Sync>;

/// Why a call failed for good.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OfficeError {
    /// No answer.
    #[error("{what}: no answer: {detail}")]
    Unreachable {
        /// Method and path.
        what: String,
        /// Why.
        detail: String,
    },
    /// The server said no.
    #[error("{what}: {status} {code}: {message}")]
    Refused {
        /// Method and path.
        what: String,
        /// HTTP status.
        status: u16,
        /// The error body's `error`.
        code: String,
        /// The error body's `message`.
        message: String,
    },
    /// The answer is not what it should be.
    #[error("{what}: the answer makes no sense: {detail}")]
    Malformed {
        /// Method and path.
        what: String,
        /// Why.
        detail: String,
    },
}

impl OfficeError {
    /// The error body's `error`, if the server said no.
    #[must_use]
    pub fn code(&self) -> Option<&str> {
        match self {
            Self::Refused { code, .. } => Some(code),
            Self::Unreachable { .. } | Self::Malformed { .. } => None,
        }
    }
}

/// The back office's view of one server. Clones share connections.
#[derive(Clone)]
pub struct Office {
    http: reqwest::Client,
    base: String,
    tokens: TokenIssuer,
    rng: Arc<Mutex<SmallRng>>,
}

impl std::fmt::Debug for Office {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Office").field("base", &self.base).finish_non_exhaustive()
    }
}

/// An answer with its `ETag`.
#[derive(Debug, Clone, PartialEq)]
pub struct Tagged<T> {
    /// The body.
    pub value: T,
    /// The `ETag` header.
    pub etag: Option<String>,
}

impl Office {
    /// Speaks to the server at `base_url` (`http://127.0.0.1:9405`).
    ///
    /// # Errors
    /// [`OfficeError::Unreachable`] when no HTTP client can be made.
    pub fn new(base_url: &str, tokens: TokenIssuer, seed: u64) -> Result<Self, OfficeError> {
        let http = reqwest::Client::builder()
            .timeout(Duration::from_secs(30))
            .tcp_nodelay(true)
            .build()
            .map_err(|error| OfficeError::Unreachable { what: "client".to_owned(), detail: error.to_string() })?;
        let base = format!("{}{BASE_PATH}", base_url.trim_end_matches('/'));
        Ok(Self { http, base, tokens, rng: Arc::new(Mutex::new(SmallRng::seed_from_u64(seed))) })
    }

    /// The base URL with its path.
    #[must_use]
    pub fn base(&self) -> &str {
        &self.base
    }

    fn fresh_key(&self) -> String {
        let mut rng = self.rng.lock().unwrap_or_else(PoisonError::into_inner);
        format!("fleet-{:016x}{:016x}", rng.random::<u64>(), rng.next_u64())
    }

    /// One call, made again on a passing fault. A POST has one `Idempotency-Key` over all its attempts, so that a lost
    /// answer never doubles its effect.
    async fn call<T: DeserializeOwned>(
        &self,
        caller: &Caller,
        method: Method,
        path: &str,
        body: Option<&Value>,
        if_match: Option<&str>,
    ) -> Result<Tagged<T>, OfficeError> {
        let what = format!("{method} {path}");
        let key = (method == Method::POST).then(|| self.fresh_key());
        let mut delay_ms = RETRY_DELAY_MS;
        let mut attempt = 1;
        loop {
            let mut request =
                self.http.request(method.clone(), format!("{}{path}", self.base)).bearer_auth((self.tokens)(caller));
            if let Some(key) = &key {
                request = request.header("idempotency-key", key);
            }
            if let Some(tag) = if_match {
                request = request.header("if-match", tag);
            }
            if let Some(body) = body {
                request = request.json(body);
            }
            let failure = match request.send().await {
                Ok(response) => match read(&what, response).await {
                    Ok(answer) => return Ok(answer),
                    Err(failure) => failure,
                },
                Err(error) => OfficeError::Unreachable { what: what.clone(), detail: causes(&error) },
            };
            if attempt >= ATTEMPTS_MAX || !is_passing(&failure) {
                return Err(failure);
            }
            attempt += 1;
            tokio::time::sleep(Duration::from_millis(delay_ms)).await;
            delay_ms *= 2;
        }
    }

    /// Follows cursor pages to the end. A journal names a cursor for ever; there the end is a page that leads nowhere.
    async fn all_pages<T: DeserializeOwned>(&self, caller: &Caller, path: &str) -> Result<Vec<T>, OfficeError> {
        let separator = if path.contains('?') { '&' } else { '?' };
        let mut items = Vec::new();
        let mut cursor: Option<String> = None;
        for _ in 0..PAGES_MAX {
            let mut page_path = path.to_owned();
            if let Some(cursor) = &cursor {
                let _ = write!(page_path, "{separator}cursor={}", percent_encoded(cursor));
            }
            let page: Page<T> = self.call(caller, Method::GET, &page_path, None, None).await?.value;
            items.extend(page.items);
            match page.next_cursor {
                Some(next) if cursor.as_ref() != Some(&next) => cursor = Some(next),
                _ => return Ok(items),
            }
        }
        Err(OfficeError::Malformed { what: format!("GET {path}"), detail: "the pages have no end".to_owned() })
    }
}

/// A fault that may be gone at the next attempt: the server is busy, somebody else changed the row meanwhile, the same
/// call is still under way, or there was no answer.
fn is_passing(failure: &OfficeError) -> bool {
    match failure {
        OfficeError::Unreachable { .. } => true,
        OfficeError::Malformed { .. } => false,
        OfficeError::Refused { status, code, .. } => {
            matches!(status, 429 | 502 | 503 | 504)
                || matches!(code.as_str(), "BUSY" | "CONFLICT" | "VERSION_CONFLICT" | "IDEMPOTENCY_IN_PROGRESS")
        }
    }
}

async fn read<T: DeserializeOwned>(what: &str, response: reqwest::Response) -> Result<Tagged<T>, OfficeError> {
    let status = response.status();
    let etag = response.headers().get("etag").and_then(|tag| tag.to_str().ok()).map(str::to_owned);
    let body = response
        .bytes()
        .await
        .map_err(|error| OfficeError::Unreachable { what: what.to_owned(), detail: causes(&error) })?;
    if !status.is_success() {
        return Err(refusal(what, status, &body));
    }
    // An answer without a body reads as null, which `()` and `Value` accept.
    let text: &[u8] = if body.is_empty() { b"null" } else { &body };
    serde_json::from_slice(text)
        .map(|value| Tagged { value, etag })
        .map_err(|error| OfficeError::Malformed { what: what.to_owned(), detail: error.to_string() })
}

fn refusal(what: &str, status: StatusCode, body: &[u8]) -> OfficeError {
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    let text = |name: &str| body.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    OfficeError::Refused {
        what: what.to_owned(),
        status: status.as_u16(),
        code: text("error"),
        message: text("message"),
    }
}

/// The error and everything under it, on one line.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let _ = write!(text, ": {cause}");
        source = cause.source();
    }
    text
}

/// For a query value.
fn percent_encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') {
            encoded.push(char::from(byte));
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn refused(status: u16, code: &str) -> OfficeError {
        let body = serde_json::json!({ "error": code, "message": "m" }).to_string();
        refusal("POST /x", StatusCode::from_u16(status).unwrap(), body.as_bytes())
    }

    #[test]
    fn only_passing_faults_are_tried_again() {
        assert!(is_passing(&refused(503, "BUSY")));
        assert!(is_passing(&refused(409, "CONFLICT")));
        assert!(!is_passing(&refused(409, "ASSIGNMENT_CONFLICT")), "a booked technician stays booked");
        assert!(!is_passing(&refused(404, "DISPATCH_NOT_FOUND")));
        assert!(!is_passing(&refused(422, "ILLEGAL_TRANSITION")));
    }

    #[test]
    fn a_refusal_without_a_body_still_says_where_it_came_from() {
        let error = refusal("GET /devices", StatusCode::BAD_GATEWAY, b"<html>");
        assert!(error.to_string().starts_with("GET /devices: 502"), "{error}");
    }

    #[test]
    fn a_cursor_survives_the_query_string() {
        assert_eq!(percent_encoded("a+b/c=="), "a%2Bb%2Fc%3D%3D");
    }
}
