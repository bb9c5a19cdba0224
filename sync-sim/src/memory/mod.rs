//! A store in memory that passes the suite every store passes. It is fast and can be copied at any moment, which is how a
//! simulated server comes back from an old backup; the simulator runs a share of its days on the shipped SQLite store as well.

mod commit;
mod feeds;
mod journal;
mod records;

use crm_dispatch_server::events::Event;
use crm_dispatch_server::service::commit::{Booking, FactWrite, FeedNews, HeldVisit, IdempotencyRecord};
use crm_dispatch_server::service::model::{
    AuditRecord, Device, DispatchRow, ExceptionRow, Location, SlaRow, StoredDispatch, Technician,
};
use crm_dispatch_server::store::{Identity, NUMBERS_SKIPPED, StoreError};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use sync_core::document::{ActorKey, ChangeHash, StateTag};
use sync_core::domain::{
    DeviceId, DispatchId, EventId, FactId, LocationId, RulingReason, ServiceOrderId, TechnicianId, TenantId, Timestamp,
    Verdict, VisitStatus,
};
use sync_core::protocol::{Digest, Generation};
use tokio::sync::Notify;

/// One database in memory.
#[derive(Debug)]
pub struct MemoryStore {
    tables: Mutex<Tables>,
    /// Somebody has the right to publish; to sweep.
    relay: Arc<AtomicBool>,
    sweeper: Arc<AtomicBool>,
    written: Notify,
    closed: AtomicBool,
}

/// Everything that is stored; a copy of it is a backup.
#[derive(Debug, Clone)]
pub struct Tables {
    identity: Identity,
    tenants: BTreeMap<TenantId, Tenant>,
    /// In whose database part each was written, and the trace of the call behind it; positions count from 1.
    events: Vec<(TenantId, Event, Option<String>)>,
    published: BTreeSet<u64>,
    /// What restores have left out of every count.
    skipped: u64,
}

#[derive(Debug, Clone, Default)]
struct Tenant {
    dispatches: BTreeMap<DispatchId, Dispatch>,
    orders: BTreeMap<ServiceOrderId, DispatchId>,
    facts: BTreeMap<FactId, Fact>,
    exceptions: BTreeMap<String, ExceptionRow>,
    technicians: BTreeMap<TechnicianId, Technician>,
    locations: BTreeMap<LocationId, Location>,
    devices: BTreeMap<DeviceId, Device>,
    feeds: BTreeMap<TechnicianId, Feed>,
    keys: BTreeMap<String, (IdempotencyRecord, Timestamp)>,
    consumed: BTreeSet<EventId>,
    events: BTreeSet<EventId>,
    counters: BTreeMap<&'static str, u64>,
    audit: BTreeMap<String, Vec<AuditRecord>>,
}

#[derive(Debug, Clone)]
struct Dispatch {
    row: DispatchRow,
    tag: StateTag,
    delivered_epoch: Option<u64>,
    delivered_at: Option<Timestamp>,
    document: Vec<u8>,
    changes: Vec<Change>,
    bookings: Vec<Booking>,
    sla: Option<SlaRow>,
}

#[derive(Debug, Clone)]
struct Change {
    revision: u64,
    hash: ChangeHash,
    device: Option<DeviceId>,
    bytes: Vec<u8>,
}

#[derive(Debug, Clone)]
struct Fact {
    dispatch: DispatchId,
    write: FactWrite,
    held_since: Option<Timestamp>,
}

fn reused(fact: &FactWrite) -> bool {
    fact.ruling.as_ref().is_some_and(|ruling| ruling.reason == RulingReason::SequenceReused)
}

fn verdict(fact: &FactWrite) -> Option<Verdict> {
    fact.ruling.as_ref().map(|ruling| ruling.verdict)
}

#[derive(Debug, Clone, Default)]
struct Feed {
    seq: u64,
    digest: Digest,
    floor: u64,
    entries: BTreeMap<u64, Entry>,
    held: BTreeMap<DispatchId, Held>,
}

#[derive(Debug, Clone)]
struct Entry {
    dispatch: DispatchId,
    revision: u64,
    epoch: u64,
    digest: u64,
    news: FeedNews,
    at: Timestamp,
}

#[derive(Debug, Clone)]
struct Held {
    tag: StateTag,
    seq: u64,
    until: Option<Timestamp>,
}

impl Dispatch {
    fn start_ms(&self) -> i64 {
        self.row.scheduled.map_or(i64::MAX, |window| window.start.millis())
    }

    fn office_status(&self) -> VisitStatus {
        if self.row.status == VisitStatus::Assigned && self.delivered_epoch == Some(self.row.epoch) {
            VisitStatus::Dispatched
        } else {
            self.row.status
        }
    }

    /// The deadline, while the visit has neither ended nor been arrived at.
    fn watched(&self) -> Option<Timestamp> {
        self.row.sla_deadline.filter(|_| !self.row.status.is_final() && self.row.state.arrived.is_none())
    }

    fn visit(&self, whole: bool) -> HeldVisit {
        HeldVisit {
            dispatch: self.row.dispatch_id.clone(),
            document: if whole { self.document.clone() } else { Vec::new() },
            card: self.row.card.clone(),
            tag: self.tag,
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

impl MemoryStore {
    /// An empty database of that identity.
    #[must_use]
    pub fn new(generation: Generation, actor: ActorKey) -> Self {
        let identity = Identity { generation, actor };
        let tables =
            Tables { identity, tenants: BTreeMap::new(), events: Vec::new(), published: BTreeSet::new(), skipped: 0 };
        Self {
            tables: Mutex::new(tables),
            relay: Arc::default(),
            sweeper: Arc::default(),
            written: Notify::new(),
            closed: AtomicBool::new(false),
        }
    }

    fn open(&self) -> Result<(), StoreError> {
        if self.closed.load(Ordering::Relaxed) {
            return Err(StoreError::Database("the store is closed".to_owned()));
        }
        Ok(())
    }

    fn tables(&self) -> MutexGuard<'_, Tables> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with<T>(&self, tenant: &TenantId, look: impl FnOnce(&Tenant) -> T) -> T {
        let tables = self.tables();
        match tables.tenants.get(tenant) {
            Some(tenant) => look(tenant),
            None => look(&Tenant::default()),
        }
    }

    /// A backup.
    #[must_use]
    pub fn copy(&self) -> Tables {
        self.tables().clone()
    }

    /// Goes on from exactly this copy, as if nothing had happened since: what a search over all that can happen forks from.
    pub fn rewind(&self, tables: Tables) {
        *self.tables() = tables;
    }

    /// Comes back from a backup, as `crm-dispatch restored` leaves it: with a fresh identity.
    pub fn restore(&self, backup: Tables, generation: Generation, actor: ActorKey) {
        let identity = Identity { generation, actor };
        *self.tables() = Tables { identity, skipped: backup.skipped + NUMBERS_SKIPPED, ..backup };
    }

    /// Every dispatch with its saved document, and whether the changes that are kept make the same one.
    #[must_use]
    pub fn all_dispatches(&self, tenant: &TenantId) -> Vec<(StoredDispatch, Vec<u8>, Vec<Vec<u8>>)> {
        self.with(tenant, |t| {
            t.dispatches
                .values()
                .map(|dispatch| {
                    let changes = dispatch.changes.iter().map(|change| change.bytes.clone()).collect();
                    (t.stored(dispatch), dispatch.document.clone(), changes)
                })
                .collect()
        })
    }
}
