//! A store in memory that passes the suite every store passes. It is fast and can be copied at any moment, which is how a
//! simulated server comes back from an old backup; the simulator runs a share of its days on the shipped SQLite store as well.

use async_trait::async_trait;
use crm_dispatch_server::events::Event;
use crm_dispatch_server::service::commit::{
    Booking, Commit, CommitError, Committed, DeviceWrite, DispatchWrite, FactWrite, FeedEntry, FeedNews, HeldVisit,
    IdempotencyRecord,
};
use crm_dispatch_server::service::model::{
    AuditRecord, Device, DispatchRow, DispatchSearch, ExceptionRow, Location, SlaRow, StoredDispatch, Technician,
};
use crm_dispatch_server::store::audit::{AUDIT_GENESIS, AuditLine, audit_hash};
use crm_dispatch_server::store::verify::{AuditPlace, StoredAuditHead, StoredAuditLine};
use crm_dispatch_server::store::{
    CommitLog, Devices, Directory, Dispatches, FactKeyQuery, FactKeys, FeedNewsItem, FeedPage, Feeds, Heard, HeldFact,
    HeldPage, Hint, Identity, Journal, NUMBERS_SKIPPED, Nodes, OUTBOX_COUNTED_MAX, Outbox, OutboxEvent, OutboxLag,
    RelayTurn, StoreError,
};
use rand::Rng as _;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use sync_core::document::{ActorKey, ChangeHash, StateTag};
use sync_core::domain::rules::sequence::SequenceLedger;
use sync_core::domain::rules::sla::BreachStatus;
use sync_core::domain::{
    DeviceId, DispatchId, EventId, FactId, LocationId, RulingReason, SerialNumber, ServiceOrderId, TechnicianId,
    TenantId, Timestamp, Verdict, VisitStatus, Window,
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

impl Fact {
    fn reused(&self) -> bool {
        self.write.ruling.as_ref().is_some_and(|ruling| ruling.reason == RulingReason::SequenceReused)
    }

    fn verdict(&self) -> Option<Verdict> {
        self.write.ruling.as_ref().map(|ruling| ruling.verdict)
    }
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

impl Tenant {
    fn stored(&self, dispatch: &Dispatch) -> StoredDispatch {
        let id = &dispatch.row.dispatch_id;
        let undelivered_to = self
            .feeds
            .iter()
            .filter(|(technician, feed)| {
                let latest = feed.entries.iter().rev().find(|(_, entry)| entry.dispatch == *id).map(|(seq, _)| *seq);
                latest.is_some_and(|latest| latest > self.acknowledged(technician, u64::max).unwrap_or(0))
            })
            .map(|(technician, _)| technician.clone())
            .collect();
        StoredDispatch {
            row: dispatch.row.clone(),
            tag: dispatch.tag,
            delivered_epoch: dispatch.delivered_epoch,
            delivered_at: dispatch.delivered_at,
            undelivered_to,
            sla: dispatch.sla.clone(),
            open_exceptions: self
                .exceptions
                .values()
                .filter(|row| row.dispatch_id == *id && row.resolved_at.is_none())
                .count() as u32,
        }
    }

    /// What the technician's phones, the revoked ones left out, have stored of the feed.
    fn acknowledged(&self, technician: &TechnicianId, of: impl Fn(u64, u64) -> u64) -> Option<u64> {
        let phones = self.devices.values().filter(|d| d.technician == *technician && d.revoked_at.is_none());
        phones.map(|device| device.acknowledged).reduce(of)
    }

    /// Everything that stands against a commit is found before anything is written.
    fn refuse(&self, commit: &Commit) -> Result<(), CommitError> {
        if let Some((record, _)) = commit.idempotency.as_ref().and_then(|record| self.keys.get(&record.key)) {
            return Err(CommitError::KeyUsed(record.clone()));
        }
        if commit.consumed.as_ref().is_some_and(|event| self.consumed.contains(event)) {
            return Err(CommitError::AlreadyDone("consumed event"));
        }
        if let Some(write) = &commit.dispatch {
            self.refuse_dispatch(write)?;
        }
        for (expected, technician) in &commit.technicians {
            if self.technicians.get(&technician.technician_id).map(|row| row.revision) != *expected {
                return Err(CommitError::Conflict("technician"));
            }
        }
        for (expected, location) in &commit.locations {
            if self.locations.get(&location.location_id).map(|row| row.revision) != *expected {
                return Err(CommitError::Conflict("location"));
            }
        }
        for write in &commit.devices {
            let known = self.devices.get(&write.device);
            if known.is_some_and(|device| device.technician != write.technician) {
                return Err(CommitError::ForeignDevice);
            }
            let version = known.map_or(0, |device| device.ledger_version);
            if write.expected_ledger.is_some_and(|expected| expected != version) {
                return Err(CommitError::Conflict("device"));
            }
        }
        if commit.events.iter().any(|event| self.events.contains(&event.event_id)) {
            return Err(CommitError::AlreadyDone("event"));
        }
        Ok(())
    }

    fn refuse_dispatch(&self, write: &DispatchWrite) -> Result<(), CommitError> {
        let id = &write.row.dispatch_id;
        let known = self.dispatches.get(id);
        if known.map(|dispatch| dispatch.row.revision) != write.expected {
            return Err(CommitError::Conflict("dispatch"));
        }
        if self.orders.get(&write.row.service_order_id).is_some_and(|other| other != id) {
            return Err(CommitError::AlreadyDone("service order"));
        }
        if known.is_some_and(|dispatch| {
            dispatch.changes.iter().any(|change| write.changes.iter().any(|new| new.hash == change.hash))
        }) {
            return Err(CommitError::AlreadyDone("change"));
        }
        for booking in write.bookings.iter().flatten() {
            if booking.span.start >= booking.span.end {
                return Err(CommitError::Store("a booking ends before it begins".to_owned()));
            }
            let taken = |other: &&Dispatch| {
                other.row.dispatch_id != *id
                    && other.bookings.iter().any(|taken| {
                        taken.technician == booking.technician
                            && taken.span.start < booking.span.end
                            && booking.span.start < taken.span.end
                    })
            };
            if let Some(other) = self.dispatches.values().find(taken) {
                return Err(CommitError::Overlap {
                    technician: booking.technician.clone(),
                    dispatch: other.row.dispatch_id.clone(),
                });
            }
        }
        for fact in &write.facts {
            match self.facts.get(&fact.fact) {
                Some(known) if known.held_since.is_none() || fact.ruling.is_none() => {
                    return Err(CommitError::AlreadyDone("fact"));
                }
                _ => {}
            }
            let new = Fact { dispatch: id.clone(), write: fact.clone(), held_since: None };
            let others = || {
                let given = write.facts.iter().filter(|other| other.fact != fact.fact);
                let given = given.map(|other| Fact { dispatch: id.clone(), write: other.clone(), held_since: None });
                let kept = self.facts.values().filter(|other| {
                    other.write.fact != fact.fact && !write.facts.iter().any(|new| new.fact == other.write.fact)
                });
                kept.cloned().chain(given)
            };
            let same_number =
                |other: &Fact| !other.reused() && other.write.device == fact.device && other.write.seq == fact.seq;
            if !new.reused() && others().any(|other| same_number(&other)) {
                return Err(CommitError::Conflict("device's sequence"));
            }
            let accepted = |fact: &Fact| fact.verdict() == Some(Verdict::Accepted);
            if fact.serial.is_some()
                && accepted(&new)
                && others().any(|other| accepted(&other) && other.write.serial == fact.serial)
            {
                return Err(CommitError::Conflict("serial number"));
            }
        }
        Ok(())
    }

    fn write(&mut self, commit: &Commit, journal: &mut Vec<(TenantId, Event, Option<String>)>) -> Committed {
        let mut committed = Committed::default();
        for (expected, technician) in &commit.technicians {
            let row = Technician { revision: expected.unwrap_or(0) + 1, ..technician.clone() };
            self.technicians.insert(row.technician_id.clone(), row);
        }
        for (expected, location) in &commit.locations {
            let row = Location { revision: expected.unwrap_or(0) + 1, ..location.clone() };
            self.locations.insert(row.location_id.clone(), row);
        }
        if let Some(write) = &commit.dispatch {
            committed.feed = self.write_dispatch(commit, write);
        }
        for exception in &commit.exceptions {
            self.exceptions.insert(exception.exception_id.clone(), exception.clone());
        }
        for write in &commit.devices {
            self.write_device(commit.at, write);
        }
        for event in &commit.events {
            self.events.insert(event.event_id.clone());
            journal.push((commit.tenant.clone(), event.clone(), commit.traceparent.clone()));
        }
        for entry in &commit.audit {
            let chain = self.audit.entry(entry.aggregate.clone()).or_default();
            let previous_hash = chain.last().map_or_else(|| hex(&AUDIT_GENESIS), |line| line.hash.clone());
            let mut previous = AUDIT_GENESIS;
            for (byte, at) in previous.iter_mut().zip((0..64).step_by(2)) {
                *byte = previous_hash.get(at..at + 2).and_then(|pair| u8::from_str_radix(pair, 16).ok()).unwrap_or(0);
            }
            let seq = chain.len() as u64 + 1;
            let hash = audit_hash(&AuditLine {
                tenant: &commit.tenant,
                aggregate: &entry.aggregate,
                seq,
                at: entry.at,
                actor: &entry.actor,
                action: entry.action,
                detail: &entry.detail,
                previous_hash: &previous,
            });
            chain.push(AuditRecord {
                aggregate: entry.aggregate.clone(),
                seq,
                at: entry.at,
                actor: entry.actor.clone(),
                action: entry.action.to_owned(),
                detail: entry.detail.clone(),
                previous_hash,
                hash: hex(&hash),
            });
        }
        self.consumed.extend(commit.consumed.clone());
        if let Some(record) = &commit.idempotency {
            self.keys.insert(record.key.clone(), (record.clone(), commit.at));
        }
        committed
    }

    fn write_dispatch(&mut self, commit: &Commit, write: &DispatchWrite) -> Vec<FeedEntry> {
        let (id, row) = (&write.row.dispatch_id, &write.row);
        let dispatch = self.dispatches.entry(id.clone()).or_insert_with(|| Dispatch {
            row: row.clone(),
            tag: write.tag,
            delivered_epoch: None,
            delivered_at: None,
            document: Vec::new(),
            changes: Vec::new(),
            bookings: Vec::new(),
            sla: None,
        });
        dispatch.row = row.clone();
        dispatch.tag = write.tag;
        dispatch.document.clone_from(&write.document);
        dispatch.changes.extend(write.changes.iter().map(|change| Change {
            revision: row.revision,
            hash: change.hash,
            device: change.device.clone(),
            bytes: change.bytes.clone(),
        }));
        if let Some(bookings) = &write.bookings {
            dispatch.bookings.clone_from(bookings);
        }
        if write.sla.is_some() {
            dispatch.sla.clone_from(&write.sla);
        }
        self.orders.insert(row.service_order_id.clone(), id.clone());
        for fact in &write.facts {
            let held_since = fact.ruling.is_none().then_some(commit.at);
            match self.facts.get_mut(&fact.fact) {
                Some(known) => {
                    known.write.ruling.clone_from(&fact.ruling);
                    known.held_since = held_since;
                }
                None => {
                    let fact_row = Fact { dispatch: id.clone(), write: fact.clone(), held_since };
                    self.facts.insert(fact.fact.clone(), fact_row);
                }
            }
        }
        let until = [row.state.ended.map(|ended| ended.at), row.scheduled.map(|window| window.end)];
        let until = until.into_iter().flatten().min();
        let mut entries = Vec::with_capacity(write.feed.len());
        for news in &write.feed {
            let feed = self.feeds.entry(news.technician.clone()).or_default();
            feed.seq += 1;
            if let Some(held) = feed.held.remove(id) {
                feed.digest = feed.digest.toggled(id, held.tag);
            }
            if news.news == FeedNews::Held {
                feed.digest = feed.digest.toggled(id, write.tag);
                feed.held.insert(id.clone(), Held { tag: write.tag, seq: feed.seq, until });
            }
            let (digest, news, seq) = (feed.digest.0, &news.news, feed.seq);
            feed.entries.insert(
                seq,
                Entry {
                    dispatch: id.clone(),
                    revision: row.revision,
                    epoch: row.epoch,
                    digest,
                    news: news.clone(),
                    at: commit.at,
                },
            );
        }
        for news in &write.feed {
            if let Some(feed) = self.feeds.get(&news.technician)
                && let Some((seq, entry)) =
                    feed.entries.iter().rev().find(|(_, e)| e.dispatch == *id && e.news == news.news)
            {
                entries.push(FeedEntry {
                    technician: news.technician.clone(),
                    seq: *seq,
                    digest: entry.digest,
                    dispatch: id.clone(),
                    revision: row.revision,
                    news: news.news.clone(),
                });
            }
        }
        entries
    }

    fn write_device(&mut self, at: Timestamp, write: &DeviceWrite) {
        let head = self.feeds.get(&write.technician).map_or(0, |feed| feed.seq);
        let device = self.devices.entry(write.device.clone()).or_insert_with(|| Device {
            device: write.device.clone(),
            technician: write.technician.clone(),
            app: String::new(),
            registered_at: at,
            seen_at: at,
            ledger: SequenceLedger::default(),
            ledger_version: 0,
            pending: 0,
            oldest_pending: None,
            complete_at: None,
            acknowledged: 0,
            revoked_at: None,
            wiped_at: None,
            digest_mismatches: 0,
        });
        let before = device.acknowledged;
        device.app = write.app.clone().unwrap_or_else(|| device.app.clone());
        device.seen_at = write.seen_at.unwrap_or(device.seen_at);
        if let Some(ledger) = &write.ledger {
            device.ledger = ledger.clone();
            device.ledger_version += 1;
        }
        if let Some((pending, oldest)) = write.pending {
            (device.pending, device.oldest_pending) = (pending, oldest);
            device.complete_at = if pending == 0 { Some(at) } else { device.complete_at };
        }
        device.acknowledged = write.acknowledged.unwrap_or(0).min(head).max(before);
        device.revoked_at = write.revoked_at.or(device.revoked_at);
        device.wiped_at = write.wiped_at.or(device.wiped_at);
        device.digest_mismatches += u64::from(write.digest_mismatch);
        let after = device.acknowledged;
        let Some(feed) = self.feeds.get(&write.technician).filter(|_| after > before) else { return };
        for entry in feed.entries.range(before + 1..=after).map(|(_, entry)| entry) {
            if let Some(dispatch) = self.dispatches.get_mut(&entry.dispatch)
                && entry.news == FeedNews::Held
                && dispatch.row.epoch == entry.epoch
                && dispatch.row.technician_id.as_ref() == Some(&write.technician)
                && dispatch.delivered_epoch != Some(entry.epoch)
            {
                dispatch.delivered_epoch = Some(entry.epoch);
                dispatch.delivered_at = Some(at);
            }
        }
    }
}

#[async_trait]
impl CommitLog for MemoryStore {
    async fn commit(&self, commits: Vec<Commit>) -> Vec<Result<Committed, CommitError>> {
        if let Err(closed) = self.open() {
            return commits.iter().map(|_| Err(CommitError::Store(closed.to_string()))).collect();
        }
        let mut tables = self.tables();
        let Tables { tenants, events, .. } = &mut *tables;
        let mut results: Vec<Result<Committed, CommitError>> = Vec::with_capacity(commits.len());
        for commit in &commits {
            if commit.follows && results.last().is_some_and(Result::is_err) {
                results.push(Err(CommitError::Conflict("commit before it")));
                continue;
            }
            let tenant = tenants.entry(commit.tenant.clone()).or_default();
            results.push(tenant.refuse(commit).map(|()| tenant.write(commit, events)));
        }
        self.written.notify_one();
        results
    }

    fn identity(&self) -> Identity {
        self.tables().identity
    }

    async fn remembered(&self, tenant: &TenantId, key: &str) -> Result<Option<IdempotencyRecord>, StoreError> {
        Ok(self.with(tenant, |t| t.keys.get(key).map(|(record, _)| record.clone())))
    }

    async fn next_number(&self, tenant: &TenantId, kind: &'static str) -> Result<u64, StoreError> {
        self.open()?;
        let mut tables = self.tables();
        let next = tables.tenants.entry(tenant.clone()).or_default().counters.entry(kind).or_insert(0);
        *next += 1;
        let number = *next;
        Ok(number + tables.skipped)
    }

    async fn renew_identity(&self) -> Result<Identity, StoreError> {
        self.open()?;
        let mut rng = rand::rng();
        let mut actor = [0; 16];
        rng.fill_bytes(&mut actor);
        let identity = Identity { generation: Generation(rng.next_u64()), actor: ActorKey(actor) };
        let mut tables = self.tables();
        tables.identity = identity;
        tables.skipped += NUMBERS_SKIPPED;
        Ok(identity)
    }

    async fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
    }

    async fn prune(&self, before: Timestamp) -> Result<u64, StoreError> {
        self.open()?;
        let mut removed = 0;
        for tenant in self.tables().tenants.values_mut() {
            let keys = tenant.keys.len();
            tenant.keys.retain(|_, (_, at)| *at >= before);
            removed += keys - tenant.keys.len();
            let floors: Vec<_> = tenant
                .feeds
                .iter()
                .map(|(technician, feed)| {
                    let until = tenant.acknowledged(technician, u64::min).unwrap_or(feed.seq);
                    let entries = || feed.entries.range(feed.floor + 1..).filter(|(seq, _)| **seq <= until);
                    let young = entries().find(|(_, entry)| entry.at >= before).map(|(seq, _)| *seq - 1);
                    (technician.clone(), young.or_else(|| entries().next_back().map(|(seq, _)| *seq)))
                })
                .collect();
            for (technician, floor) in floors {
                let (Some(feed), Some(floor)) = (tenant.feeds.get_mut(&technician), floor) else { continue };
                if floor > feed.floor {
                    let entries = feed.entries.len();
                    let held = &feed.held;
                    feed.entries.retain(|seq, entry| {
                        *seq > floor || held.get(&entry.dispatch).is_some_and(|held| held.seq == *seq)
                    });
                    removed += entries - feed.entries.len();
                    feed.floor = floor;
                }
            }
        }
        Ok(removed as u64)
    }
}

#[async_trait]
impl Dispatches for MemoryStore {
    async fn dispatch(&self, tenant: &TenantId, id: &DispatchId) -> Result<Option<StoredDispatch>, StoreError> {
        self.open()?;
        Ok(self.with(tenant, |t| t.dispatches.get(id).map(|dispatch| t.stored(dispatch))))
    }

    async fn documents(
        &self,
        tenant: &TenantId,
        ids: &[DispatchId],
    ) -> Result<Vec<(StoredDispatch, Vec<u8>)>, StoreError> {
        let found = |t: &Tenant| {
            let known = ids.iter().filter_map(|id| t.dispatches.get(id));
            known.map(|dispatch| (t.stored(dispatch), dispatch.document.clone())).collect()
        };
        Ok(self.with(tenant, found))
    }

    async fn by_service_order(
        &self,
        tenant: &TenantId,
        order: &ServiceOrderId,
    ) -> Result<Option<DispatchId>, StoreError> {
        Ok(self.with(tenant, |t| t.orders.get(order).cloned()))
    }

    async fn search(&self, search: &DispatchSearch) -> Result<Vec<StoredDispatch>, StoreError> {
        let wanted = |dispatch: &&Dispatch| {
            let row = &dispatch.row;
            let position = (dispatch.start_ms(), &row.dispatch_id);
            (search.statuses.is_empty() || search.statuses.contains(&dispatch.office_status()))
                && search.technician.as_ref().is_none_or(|technician| row.technician_id.as_ref() == Some(technician))
                && search.location.as_ref().is_none_or(|location| row.location_id == *location)
                && search.service_order.as_ref().is_none_or(|order| row.service_order_id == *order)
                && search.priority_min.is_none_or(|priority| row.priority >= priority)
                && search.after.as_ref().is_none_or(|after| position > (after.start_ms, &after.dispatch_id))
                && search
                    .scheduled
                    .is_none_or(|window| (window.start.millis()..window.end.millis()).contains(&dispatch.start_ms()))
        };
        Ok(self.with(&search.tenant, |t| {
            let mut found: Vec<_> = t.dispatches.values().filter(wanted).collect();
            found.sort_by_key(|dispatch| (dispatch.start_ms(), dispatch.row.dispatch_id.clone()));
            found.into_iter().take(search.limit as usize).map(|dispatch| t.stored(dispatch)).collect()
        }))
    }

    async fn exceptions(
        &self,
        tenant: &TenantId,
        dispatch: Option<&DispatchId>,
        open_only: bool,
        limit: u32,
    ) -> Result<Vec<ExceptionRow>, StoreError> {
        let mut found: Vec<_> = self.with(tenant, |t| t.exceptions.values().cloned().collect());
        found.retain(|row: &ExceptionRow| {
            dispatch.is_none_or(|id| row.dispatch_id == *id) && (!open_only || row.resolved_at.is_none())
        });
        found.sort_by(|a, b| (b.raised_at, &b.exception_id).cmp(&(a.raised_at, &a.exception_id)));
        found.truncate(limit as usize);
        Ok(found)
    }

    async fn due(
        &self,
        now: Timestamp,
        held_before: Timestamp,
        limit: u32,
    ) -> Result<Vec<(TenantId, DispatchId)>, StoreError> {
        let tables = self.tables();
        let (mut passed, mut held, mut provisional) = (Vec::new(), Vec::new(), Vec::new());
        for (tenant, t) in &tables.tenants {
            for (id, dispatch) in &t.dispatches {
                let key = (tenant.clone(), id.clone());
                match (&dispatch.sla, dispatch.watched()) {
                    (None, Some(watch)) if watch < now => passed.push((watch.millis(), key)),
                    (Some(sla), watch) if sla.status == BreachStatus::Provisional => {
                        let reported = t.devices.values().any(|device| {
                            Some(&device.technician) == dispatch.row.technician_id.as_ref()
                                && device.complete_at.is_some_and(|at| at >= sla.deadline)
                        });
                        let decidable = watch.is_none() || dispatch.row.technician_id.is_none() || reported;
                        provisional.push(((!decidable, sla.deadline), key));
                    }
                    _ => {}
                }
            }
            for fact in t.facts.values() {
                if let Some(since) = fact.held_since.filter(|since| *since < held_before) {
                    held.push((since.millis(), (tenant.clone(), fact.dispatch.clone())));
                }
            }
        }
        passed.sort();
        held.sort();
        provisional.sort();
        let keys = passed.into_iter().chain(held).map(|(_, key)| key);
        let keys = keys.chain(provisional.into_iter().map(|(_, key)| key));
        let mut found = Vec::new();
        for key in keys {
            if found.len() < limit as usize && !found.contains(&key) {
                found.push(key);
            }
        }
        Ok(found)
    }

    async fn sla(&self, tenant: &TenantId, window: Window) -> Result<Vec<SlaRow>, StoreError> {
        let mut rows: Vec<_> =
            self.with(tenant, |t| t.dispatches.values().filter_map(|dispatch| dispatch.sla.clone()).collect());
        rows.retain(|row: &SlaRow| row.announced_at >= window.start && row.announced_at < window.end);
        rows.sort_by(|a, b| (a.announced_at, &a.dispatch_id).cmp(&(b.announced_at, &b.dispatch_id)));
        Ok(rows)
    }

    async fn fact_keys(&self, tenant: &TenantId, query: &FactKeyQuery) -> Result<FactKeys, StoreError> {
        Ok(self.with(tenant, |t| {
            let mut keys = FactKeys::default();
            for (id, fact) in &t.facts {
                let number = (fact.write.device.clone(), fact.write.seq);
                if !fact.reused() && query.sequence.contains(&number) {
                    keys.sequence.push((number, id.clone()));
                }
                if let Some(serial) = &fact.write.serial
                    && query.serials.contains(serial)
                    && (fact.verdict() == Some(Verdict::Accepted) || fact.held_since.is_some())
                {
                    keys.serials.push((SerialNumber::clone(serial), id.clone()));
                }
            }
            keys
        }))
    }
}

#[async_trait]
impl Feeds for MemoryStore {
    async fn feed_head(&self, tenant: &TenantId, technician: &TechnicianId) -> Result<(u64, u64), StoreError> {
        Ok(self.with(tenant, |t| t.feeds.get(technician).map_or((0, 0), |feed| (feed.seq, feed.digest.0))))
    }

    async fn feed_page(
        &self,
        tenant: &TenantId,
        technician: &TechnicianId,
        device: &DeviceId,
        after: u64,
        limit: u32,
    ) -> Result<FeedPage, StoreError> {
        Ok(self.with(tenant, |t| {
            let empty = Feed::default();
            let feed = t.feeds.get(technician).unwrap_or(&empty);
            let mut page =
                FeedPage { to: feed.seq, head: feed.seq, digest: feed.digest.0, news: Vec::new(), too_old: false };
            if after >= feed.seq {
                return page;
            }
            if after < feed.floor {
                return FeedPage { to: after, too_old: true, ..page };
            }
            // By a visit's first entry after the cursor; see the SQLite store's argument.
            let mut firsts: Vec<(u64, &DispatchId)> = Vec::new();
            for (seq, entry) in feed.entries.range(after + 1..) {
                if !firsts.iter().any(|(_, id)| **id == entry.dispatch) {
                    firsts.push((*seq, &entry.dispatch));
                }
            }
            let limit = limit.max(1) as usize;
            if firsts.len() > limit {
                page.to = firsts[limit].0 - 1;
                firsts.truncate(limit);
            }
            page.news = firsts.iter().filter_map(|(_, id)| t.news(technician, feed, device, after, id)).collect();
            page
        }))
    }

    async fn held(
        &self,
        tenant: &TenantId,
        technician: &TechnicianId,
        after: Option<&DispatchId>,
        limit: u32,
        bytes: usize,
    ) -> Result<HeldPage, StoreError> {
        Ok(self.with(tenant, |t| {
            let empty = Feed::default();
            let feed = t.feeds.get(technician).unwrap_or(&empty);
            let mut page = HeldPage { visits: Vec::new(), more: false, head: feed.seq, digest: feed.digest.0 };
            let mut size = 0;
            for id in feed.held.keys().filter(|id| after.is_none_or(|after| *id > after)) {
                if page.visits.len() >= limit as usize || (size >= bytes && !page.visits.is_empty()) {
                    page.more = true;
                    break;
                }
                if let Some(dispatch) = t.dispatches.get(id) {
                    size += dispatch.document.len();
                    page.visits.push(dispatch.visit(true));
                }
            }
            page
        }))
    }

    async fn held_some(
        &self,
        tenant: &TenantId,
        technician: &TechnicianId,
        ids: &[DispatchId],
    ) -> Result<Vec<HeldVisit>, StoreError> {
        Ok(self.with(tenant, |t| {
            let Some(feed) = t.feeds.get(technician) else { return Vec::new() };
            let held = feed.held.keys().filter(|id| ids.contains(id));
            held.filter_map(|id| t.dispatches.get(id)).map(|dispatch| dispatch.visit(true)).collect()
        }))
    }

    async fn outside_window(&self, before: Timestamp, limit: u32) -> Result<Vec<(TenantId, DispatchId)>, StoreError> {
        let tables = self.tables();
        let mut found = BTreeSet::new();
        for (tenant, t) in &tables.tenants {
            for (id, held) in t.feeds.values().flat_map(|feed| &feed.held) {
                if let Some(until) = held.until.filter(|until| *until < before) {
                    found.insert((until, tenant.clone(), id.clone()));
                }
            }
        }
        let mut left: Vec<(TenantId, DispatchId)> = Vec::new();
        for (_, tenant, id) in found {
            if left.len() < limit as usize && !left.contains(&(tenant.clone(), id.clone())) {
                left.push((tenant, id));
            }
        }
        Ok(left)
    }

    async fn holders(&self, tenant: &TenantId, dispatch: &DispatchId) -> Result<Vec<TechnicianId>, StoreError> {
        Ok(self.with(tenant, |t| {
            let holds = t.feeds.iter().filter(|(_, feed)| feed.held.contains_key(dispatch));
            holds.map(|(technician, _)| technician.clone()).collect()
        }))
    }
}

impl Tenant {
    /// One visit's news since a cursor.
    fn news(
        &self,
        technician: &TechnicianId,
        feed: &Feed,
        device: &DeviceId,
        after: u64,
        id: &DispatchId,
    ) -> Option<FeedNewsItem> {
        let of_visit = |range: &mut dyn DoubleEndedIterator<Item = (&u64, &Entry)>| {
            range.filter(|(_, entry)| entry.dispatch == *id).map(|(s, e)| (*s, e.clone())).collect::<Vec<_>>()
        };
        let since = of_visit(&mut feed.entries.range(after + 1..));
        let (seq, latest) = since.last()?;
        if let FeedNews::Gone(_) = latest.news {
            return Some(FeedNewsItem::Gone(FeedEntry {
                technician: technician.clone(),
                seq: *seq,
                digest: latest.digest,
                dispatch: id.clone(),
                revision: latest.revision,
                news: latest.news.clone(),
            }));
        }
        let dispatch = self.dispatches.get(id)?;
        let left_between = since.iter().any(|(_, entry)| entry.news != FeedNews::Held);
        let before = of_visit(&mut feed.entries.range(..=after));
        let base = before.last().filter(|(_, entry)| entry.news == FeedNews::Held && !left_between);
        Some(match base {
            None => FeedNewsItem::Whole(dispatch.visit(true)),
            Some((_, base)) => FeedNewsItem::Changes {
                visit: dispatch.visit(false),
                changes: dispatch
                    .changes
                    .iter()
                    .filter(|change| change.revision > base.revision && change.device.as_ref() != Some(device))
                    .map(|change| change.bytes.clone())
                    .collect(),
            },
        })
    }
}

#[async_trait]
impl Directory for MemoryStore {
    async fn technician(&self, tenant: &TenantId, id: &TechnicianId) -> Result<Option<Technician>, StoreError> {
        Ok(self.with(tenant, |t| t.technicians.get(id).cloned()))
    }

    async fn technicians(
        &self,
        tenant: &TenantId,
        after: Option<&TechnicianId>,
        limit: u32,
    ) -> Result<Vec<Technician>, StoreError> {
        Ok(self.with(tenant, |t| {
            let rows = t.technicians.values().filter(|row| after.is_none_or(|after| row.technician_id > *after));
            rows.take(limit as usize).cloned().collect()
        }))
    }

    async fn location(&self, tenant: &TenantId, id: &LocationId) -> Result<Option<Location>, StoreError> {
        Ok(self.with(tenant, |t| t.locations.get(id).cloned()))
    }

    async fn locations(
        &self,
        tenant: &TenantId,
        after: Option<&LocationId>,
        limit: u32,
    ) -> Result<Vec<Location>, StoreError> {
        Ok(self.with(tenant, |t| {
            let rows = t.locations.values().filter(|row| after.is_none_or(|after| row.location_id > *after));
            rows.take(limit as usize).cloned().collect()
        }))
    }

    async fn bookings(
        &self,
        tenant: &TenantId,
        technician: &TechnicianId,
        window: Window,
    ) -> Result<Vec<(DispatchId, Window, LocationId)>, StoreError> {
        Ok(self.with(tenant, |t| {
            let mut found = Vec::new();
            for dispatch in t.dispatches.values() {
                for booking in dispatch.bookings.iter().filter(|booking| booking.technician == *technician) {
                    if booking.span.start < window.end && booking.span.end > window.start {
                        let row = &dispatch.row;
                        found.push((row.dispatch_id.clone(), booking.span, row.location_id.clone()));
                    }
                }
            }
            found.sort_by_key(|(_, span, _)| span.start);
            found
        }))
    }
}

#[async_trait]
impl Devices for MemoryStore {
    async fn device(&self, tenant: &TenantId, device: &DeviceId) -> Result<Option<Device>, StoreError> {
        Ok(self.with(tenant, |t| t.devices.get(device).cloned()))
    }

    async fn devices(&self, tenant: &TenantId, technician: Option<&TechnicianId>) -> Result<Vec<Device>, StoreError> {
        Ok(self.with(tenant, |t| {
            let of = t.devices.values().filter(|device| technician.is_none_or(|wanted| device.technician == *wanted));
            of.cloned().collect()
        }))
    }

    async fn held_facts(
        &self,
        tenant: &TenantId,
        device: Option<&DeviceId>,
        dispatch: Option<&DispatchId>,
    ) -> Result<Vec<HeldFact>, StoreError> {
        let mut held: Vec<HeldFact> = self.with(tenant, |t| {
            let waiting = t.facts.values().filter_map(|fact| Some((fact, fact.held_since?)));
            waiting
                .map(|(fact, since)| HeldFact {
                    dispatch: fact.dispatch.clone(),
                    fact: fact.write.fact.clone(),
                    device: fact.write.device.clone(),
                    seq: fact.write.seq,
                    knew_revision: fact.write.knew_revision,
                    since,
                })
                .filter(|fact| device.is_none_or(|wanted| fact.device == *wanted))
                .filter(|fact| dispatch.is_none_or(|wanted| fact.dispatch == *wanted))
                .collect()
        });
        match (device, dispatch) {
            (None, None) => held.sort_by(|a, b| (&a.device, a.seq).cmp(&(&b.device, b.seq))),
            _ => held.sort_by(|a, b| (a.seq, &a.device).cmp(&(b.seq, &b.device))),
        }
        Ok(held)
    }
}

#[async_trait]
impl Journal for MemoryStore {
    async fn events(
        &self,
        tenant: &TenantId,
        after: u64,
        topic: Option<&str>,
        aggregate: Option<&str>,
        limit: u32,
    ) -> Result<Vec<(u64, Event)>, StoreError> {
        let tables = self.tables();
        let numbered = tables.events.iter().zip(1..);
        let own =
            numbered.filter(|((whose, ..), _)| whose == tenant).map(|((_, event, _), position)| (position, event));
        let wanted = own.filter(|(position, event)| {
            *position > after
                && topic.is_none_or(|topic| event.payload.topic() == topic)
                && aggregate.is_none_or(|aggregate| event.aggregate_id == aggregate)
        });
        Ok(wanted.take(limit as usize).map(|(position, event)| (position, event.clone())).collect())
    }

    async fn audit(
        &self,
        tenant: &TenantId,
        aggregate: &str,
        after: u64,
        limit: u32,
    ) -> Result<Vec<AuditRecord>, StoreError> {
        Ok(self.with(tenant, |t| {
            let chain = t.audit.get(aggregate).map(Vec::as_slice).unwrap_or_default();
            chain.iter().filter(|line| line.seq > after).take(limit as usize).cloned().collect()
        }))
    }

    async fn audit_walk(&self, after: &AuditPlace, limit: u32) -> Result<Vec<StoredAuditLine>, StoreError> {
        let lines = self.stored_audit().into_iter().filter(|line| line.place > *after);
        Ok(lines.take(limit as usize).collect())
    }

    async fn audit_heads(&self, from: &AuditPlace, limit: u32) -> Result<Vec<StoredAuditHead>, StoreError> {
        let ends = self
            .stored_audit()
            .into_iter()
            .filter(|line| line.head.as_ref().is_some_and(|head| head.0 == line.place.seq));
        let heads = ends.filter(|end| (&end.place.tenant, &end.place.aggregate) >= (&from.tenant, &from.aggregate));
        Ok(heads.take(limit as usize).map(|end| StoredAuditHead { place: end.place, has_lines: true }).collect())
    }
}

impl MemoryStore {
    /// Every line in the order of its place.
    fn stored_audit(&self) -> Vec<StoredAuditLine> {
        let bytes = |hex: &str| {
            let digits = hex.as_bytes().chunks_exact(2).map(|pair| {
                pair.iter().fold(0, |byte, digit| byte << 4 | char::from(*digit).to_digit(16).unwrap_or_default())
            });
            digits.filter_map(|byte| u8::try_from(byte).ok()).collect::<Vec<_>>()
        };
        let number = |seq: u64| i64::try_from(seq).unwrap_or(i64::MAX);
        let tables = self.tables();
        let chains = tables.tenants.iter().flat_map(|(tenant, t)| t.audit.iter().map(move |chain| (tenant, chain)));
        chains
            .flat_map(|(tenant, (aggregate, lines))| {
                let head = lines.last().map(|line| (number(line.seq), bytes(&line.hash)));
                lines.iter().map(move |line| StoredAuditLine {
                    place: AuditPlace {
                        tenant: tenant.to_string(),
                        aggregate: aggregate.clone(),
                        seq: number(line.seq),
                    },
                    at_ms: line.at.millis(),
                    actor: line.actor.clone(),
                    action: line.action.clone(),
                    detail: line.detail.to_string(),
                    previous_hash: bytes(&line.previous_hash),
                    hash: bytes(&line.hash),
                    head: head.clone(),
                })
            })
            .collect()
    }

    /// The audit trail's chains.
    #[must_use]
    pub fn chains(&self, tenant: &TenantId) -> Vec<String> {
        self.with(tenant, |t| t.audit.keys().cloned().collect())
    }
}

#[async_trait]
impl Outbox for MemoryStore {
    async fn unpublished(&self, after: u64, limit: u32) -> Result<Vec<OutboxEvent>, StoreError> {
        let tables = self.tables();
        let waiting = tables
            .events
            .iter()
            .zip(1..)
            .filter(|(_, position)| *position > after && !tables.published.contains(position));
        let waiting = waiting.take(limit as usize).map(|((_, event, traceparent), position)| OutboxEvent {
            position,
            event: event.clone(),
            traceparent: traceparent.clone(),
        });
        Ok(waiting.collect())
    }

    async fn mark_published(&self, positions: &[u64], _: Timestamp) -> Result<(), StoreError> {
        self.tables().published.extend(positions);
        Ok(())
    }

    async fn outbox_lag(&self) -> Result<OutboxLag, StoreError> {
        let waiting = self.unpublished(0, OUTBOX_COUNTED_MAX).await?;
        let oldest = waiting.first().map(|waiting| waiting.event.timestamp);
        Ok(OutboxLag { waiting: waiting.len() as u64, oldest })
    }

    async fn relay_turn(&self) -> Result<Option<Box<dyn RelayTurn>>, StoreError> {
        Ok(Turn::take(&self.relay))
    }

    async fn event_written(&self) {
        self.written.notified().await;
    }
}

/// Gives a right back when it is dropped.
struct Turn(Arc<AtomicBool>);

impl Turn {
    fn take(right: &Arc<AtomicBool>) -> Option<Box<dyn RelayTurn>> {
        let taken = right.swap(true, Ordering::SeqCst);
        if taken { None } else { Some(Box::new(Self(Arc::clone(right)))) }
    }
}

#[async_trait]
impl RelayTurn for Turn {
    async fn is_held(&mut self) -> bool {
        true
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.store(false, Ordering::SeqCst);
    }
}

/// Nobody but this process: other nodes are told by whoever simulates them.
#[async_trait]
impl Nodes for MemoryStore {
    fn is_shared(&self) -> bool {
        true
    }

    fn announce(&self, _: Vec<Hint>) {}

    async fn heard(&self) -> Heard {
        std::future::pending().await
    }

    async fn feed_heads(&self, of: &[(TenantId, TechnicianId)]) -> Result<Vec<u64>, StoreError> {
        let end = |(tenant, technician): &(TenantId, TechnicianId)| {
            self.with(tenant, |t| t.feeds.get(technician).map_or(0, |feed| feed.seq))
        };
        Ok(of.iter().map(end).collect())
    }

    async fn revoked(&self, among: &[(TenantId, DeviceId)]) -> Result<Vec<(TenantId, DeviceId)>, StoreError> {
        let is_revoked = |(tenant, device): &&(TenantId, DeviceId)| {
            self.with(tenant, |t| t.devices.get(device).is_some_and(|known| known.revoked_at.is_some()))
        };
        Ok(among.iter().filter(is_revoked).cloned().collect())
    }

    async fn sweep_turn(&self) -> Result<Option<Box<dyn RelayTurn>>, StoreError> {
        Ok(Turn::take(&self.sweeper))
    }
}
