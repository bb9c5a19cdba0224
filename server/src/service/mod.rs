//! The dispatch service: loads, decides by the pure rules, commits, then tells.
//!
//! Every command of the office and every change of a phone takes the same way:
//!
//! 1. the caller's right is checked ([`actor`]: one table);
//! 2. what the decision needs is loaded (documents through a small cache, `cache`);
//! 3. a **pure** function in `decide` answers a [`commit::Commit`], or a [`ServiceError`];
//! 4. the store writes it in one transaction, with the answer that an idempotency key remembers;
//! 5. a conflict loads and decides again, a bounded number of times; then the caller is told to try again;
//! 6. only then the phones are told ([`hub`]).
//!
//! **Architecture invariant:** `decide` awaits nothing and knows no store; nothing else here decides.

pub mod actor;
mod cache;
pub mod clock;
pub mod commit;
mod decide;
pub mod directory;
pub mod error;
pub mod fit;
pub mod hub;
pub mod ingest;
mod lanes;
pub mod model;
pub mod nodes;
pub mod office;
pub mod push;
pub mod reads;
pub mod report;
mod shell;
pub mod sweep;
pub mod view;

pub use actor::{Action, Caller, PhoneSession, Role};
pub use clock::{Clock, IdSource, SystemClock};
pub use error::{Fault, ServiceError};
pub use hub::{FeedNotice, Hub, Signal, Subscription};

use crate::service::commit::IdempotencyRecord;
use crate::store::Store;
use serde::Serialize;
use std::sync::Arc;
use sync_core::domain::Timestamp;

/// What can be set.
#[derive(Debug, Clone)]
pub struct ServiceConfig {
    /// A phone holds a visit until this long after it ended, or was scheduled to end (partial sync).
    pub held_after_end_ms: i64,
    /// Opened documents kept; about 25 kB each.
    pub documents_cached_max: usize,
    /// Idempotency keys and acknowledged feed entries are kept for this long.
    pub remembered_ms: i64,
}

impl Default for ServiceConfig {
    fn default() -> Self {
        use sync_core::domain::time::DAY_MS;
        Self { held_after_end_ms: 7 * DAY_MS, documents_cached_max: 512, remembered_ms: 14 * DAY_MS }
    }
}

/// The service; cheap to clone.
#[derive(Clone)]
pub struct Service(Arc<Inner>);

struct Inner {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    ids: IdSource,
    hub: Arc<Hub>,
    documents: cache::Documents,
    config: ServiceConfig,
}

impl std::fmt::Debug for Service {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Service").field("config", &self.0.config).finish_non_exhaustive()
    }
}

impl Service {
    /// A service over a store, a clock and a source of ids.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, clock: Arc<dyn Clock>, ids: IdSource, config: ServiceConfig) -> Self {
        let documents = cache::Documents::new(config.documents_cached_max);
        Self(Arc::new(Inner { store, clock, ids, hub: Arc::default(), documents, config }))
    }

    /// Where connections subscribe.
    #[must_use]
    pub fn hub(&self) -> &Arc<Hub> {
        &self.0.hub
    }

    /// The store, for what needs no decision (health checks, the relay).
    #[must_use]
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.0.store
    }

    /// The server's time.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.0.clock.now()
    }
}

/// A command's envelope.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// Who.
    pub caller: &'a Caller,
    /// `If-Match`: the revision the caller has seen.
    pub expected_revision: Option<u64>,
    /// `Idempotency-Key`.
    pub idempotency: Option<IdempotencyKey<'a>>,
    /// The W3C trace of the call; it goes on in the events.
    pub traceparent: Option<&'a str>,
}

/// A caller's idempotency key.
#[derive(Debug, Clone, Copy)]
pub struct IdempotencyKey<'a> {
    /// The key.
    pub key: &'a str,
    /// Hash of caller, method, path and body: the same key with another request is
    /// [`ServiceError::IdempotencyKeyReused`].
    pub request_hash: &'a str,
}

impl<'a> Request<'a> {
    /// Without `If-Match`, `Idempotency-Key` and trace.
    #[must_use]
    pub fn plain(caller: &'a Caller) -> Self {
        Self { caller, expected_revision: None, idempotency: None, traceparent: None }
    }
}

/// What a command did. HTTP answers with [`Self::reply`] in either case; what was stored under the idempotency key, in
/// the effect's own transaction, is byte for byte that reply.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome<T> {
    /// It was done now.
    Done {
        /// What there is now.
        value: T,
        /// Its revision, the `ETag`.
        revision: u64,
        /// True when it did not exist before (201).
        created: bool,
    },
    /// It was done before under the same idempotency key.
    Replayed(IdempotencyRecord),
}

/// An answer as HTTP gives it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// 200 or 201.
    pub status: u16,
    /// The `ETag`, quoted.
    pub etag: Option<String>,
    /// JSON.
    pub body: String,
}

impl<T: Serialize> Outcome<T> {
    /// The answer.
    #[must_use]
    pub fn reply(&self) -> Reply {
        match self {
            Self::Done { value, revision, created } => Reply {
                status: if *created { 201 } else { 200 },
                etag: Some(format!("\"{revision}\"")),
                body: serde_json::to_string(value).unwrap_or_default(),
            },
            Self::Replayed(record) => {
                Reply { status: record.status, etag: record.etag.clone(), body: record.body.clone() }
            }
        }
    }
}

impl<T> Outcome<T> {
    /// What there is now; `None` for a replay.
    pub fn into_value(self) -> Option<T> {
        match self {
            Self::Done { value, .. } => Some(value),
            Self::Replayed(_) => None,
        }
    }
}
