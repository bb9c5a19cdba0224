//! Commits: what stands against one, and what it writes.

use super::{Change, Dispatch, Entry, Fact, Held, MemoryStore, Tables, Tenant, hex, reused, verdict};
use async_trait::async_trait;
use crm_dispatch_server::events::Event;
use crm_dispatch_server::service::commit::{
    Commit, CommitError, Committed, DeviceWrite, DispatchWrite, FactWrite, FeedEntry, FeedNews, IdempotencyRecord,
};
use crm_dispatch_server::service::model::{AuditRecord, Device, Location, Standing, StoredDispatch, Technician};
use crm_dispatch_server::store::audit::{AUDIT_GENESIS, AuditLine, audit_hash};
use crm_dispatch_server::store::{CommitLog, Identity, NUMBERS_SKIPPED, StoreError};
use rand::Rng as _;
use std::sync::atomic::Ordering;
use sync_core::document::ActorKey;
use sync_core::domain::rules::sequence::SequenceLedger;
use sync_core::domain::{TechnicianId, TenantId, Timestamp, Verdict};
use sync_core::protocol::Generation;

impl Tenant {
    pub(super) fn stored(&self, dispatch: &Dispatch) -> StoredDispatch {
        StoredDispatch::new(dispatch.row.clone(), dispatch.tag, self.standing(dispatch))
    }

    pub(super) fn standing(&self, dispatch: &Dispatch) -> Standing {
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
        Standing {
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
    pub(super) fn acknowledged(&self, technician: &TechnicianId, of: impl Fn(u64, u64) -> u64) -> Option<u64> {
        let phones = self.devices.values().filter(|d| d.technician == *technician && d.revoked_at.is_none());
        phones.map(|device| device.acknowledged).reduce(of)
    }

    /// Everything that stands against a commit is found before anything is written.
    pub(super) fn refuse(&self, commit: &Commit) -> Result<(), CommitError> {
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

    pub(super) fn refuse_dispatch(&self, write: &DispatchWrite) -> Result<(), CommitError> {
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
            let others = || {
                let given = write.facts.iter().filter(|other| other.fact != fact.fact);
                let kept =
                    self.facts.values().map(|other| &other.write).filter(|other| {
                        other.fact != fact.fact && !write.facts.iter().any(|new| new.fact == other.fact)
                    });
                kept.chain(given)
            };
            let same_number = |other: &FactWrite| other.device == fact.device && other.seq == fact.seq;
            if !reused(fact) && others().any(|other| same_number(other) && !reused(other)) {
                return Err(CommitError::Conflict("device's sequence"));
            }
            let accepted = |fact: &FactWrite| verdict(fact) == Some(Verdict::Accepted);
            if fact.serial.is_some()
                && accepted(fact)
                && others().any(|other| accepted(other) && other.serial == fact.serial)
            {
                return Err(CommitError::Conflict("serial number"));
            }
        }
        Ok(())
    }

    pub(super) fn write(&mut self, commit: &Commit, journal: &mut Vec<(TenantId, Event, Option<String>)>) -> Committed {
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

    pub(super) fn write_dispatch(&mut self, commit: &Commit, write: &DispatchWrite) -> Vec<FeedEntry> {
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

    pub(super) fn write_device(&mut self, at: Timestamp, write: &DeviceWrite) {
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
