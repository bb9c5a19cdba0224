//! One commit, applied in memory to what was found and to what the commits before it did.

use super::Failure;
use super::look::{Bookings, Found, Key, Ordered};
use crate::events::Event;
use crate::service::commit::{
    Commit, CommitError, Committed, DeviceWrite, DispatchWrite, FactWrite, FeedEntry, FeedNews, IdempotencyRecord,
};
use crate::service::model::{Device, ExceptionRow, Location, SlaRow, Technician};
use crate::store::StoreError;
use crate::store::audit::{AuditLine, audit_hash};
use crate::store::forms::to_json;
use std::collections::{BTreeMap, BTreeSet};
use sync_core::domain::rules::sequence::SequenceLedger;
use sync_core::domain::{EventId, Timestamp};

/// What is to be written.
#[derive(Default)]
pub(super) struct Writes<'a> {
    /// Each dispatch as it is in the end, and whether it is new.
    pub(super) dispatches: Ordered<'a, (bool, &'a DispatchWrite)>,
    /// Every dispatch part: its changes are all kept.
    pub(super) parts: Vec<(&'a Commit, &'a DispatchWrite)>,
    pub(super) facts: Vec<(&'a Commit, &'a DispatchWrite, &'a FactWrite)>,
    /// The calendars' entries of the dispatches where they change.
    pub(super) bookings: Ordered<'a, Bookings>,
    /// Those of them that had entries in the database.
    pub(super) unbooked: BTreeSet<Key<'a>>,
    pub(super) feed: Vec<(&'a Commit, &'a DispatchWrite, FeedEntry)>,
    /// What a technician (second) holds of a dispatch (third) in the end, with the entry that said so; `None`: nothing.
    pub(super) held: BTreeMap<(&'a str, &'a str, &'a str), HeldNow<'a>>,
    pub(super) exceptions: Ordered<'a, &'a ExceptionRow>,
    pub(super) sla: Ordered<'a, &'a SlaRow>,
    pub(super) technicians: Ordered<'a, &'a Technician>,
    pub(super) locations: Ordered<'a, &'a Location>,
    pub(super) devices: BTreeSet<Key<'a>>,
    pub(super) acknowledged: Vec<Acknowledged<'a>>,
    pub(super) events: Vec<(&'a Commit, &'a Event)>,
    pub(super) audit: Vec<AuditRow<'a>>,
    pub(super) chains: BTreeSet<Key<'a>>,
    pub(super) consumed: Vec<(&'a Commit, &'a EventId)>,
    pub(super) answers: Vec<(&'a Commit, &'a IdempotencyRecord)>,
}

/// The feed entry that says so, and the dispatch as it is held.
type HeldNow<'a> = Option<(u64, &'a DispatchWrite)>;

/// A phone has stored its feed beyond `after`, up to `to`.
pub(super) struct Acknowledged<'a> {
    pub(super) tenant: &'a str,
    pub(super) technician: &'a str,
    pub(super) after: u64,
    pub(super) to: u64,
    pub(super) at: Timestamp,
}

/// One line of the audit trail.
pub(super) struct AuditRow<'a> {
    pub(super) tenant: &'a str,
    pub(super) aggregate: &'a str,
    pub(super) seq: u64,
    pub(super) at: Timestamp,
    pub(super) actor: &'a str,
    pub(super) action: &'a str,
    pub(super) detail: String,
    pub(super) previous_hash: [u8; 32],
    pub(super) hash: [u8; 32],
}

/// Applies one commit, or nothing of it. The outer error is no refusal: a value could not be written down.
pub(super) fn apply<'a>(
    commit: &'a Commit,
    found: &mut Found<'a>,
    writes: &mut Writes<'a>,
) -> Result<Result<Committed, CommitError>, Failure> {
    let tenant = commit.tenant.as_str();
    let devices = match check(commit, found) {
        Ok(devices) => devices,
        Err(refusal) => return Ok(Err(refusal)),
    };
    let audit = commit.audit.iter().map(|entry| to_json("audit detail", &entry.detail)).collect::<Result<Vec<_>, _>>();
    let audit = audit.map_err(|error: StoreError| Failure::Unreadable(error))?;

    for (_, technician) in &commit.technicians {
        let key = (tenant, technician.technician_id.as_str());
        *found.technicians.entry(key).or_default() += 1;
        writes.technicians.insert(key, technician);
    }
    for (_, location) in &commit.locations {
        let key = (tenant, location.location_id.as_str());
        *found.locations.entry(key).or_default() += 1;
        writes.locations.insert(key, location);
    }
    let mut committed = Committed::default();
    if let Some(write) = &commit.dispatch {
        committed.feed = apply_dispatch(commit, write, found, writes);
    }
    writes.exceptions.extend(commit.exceptions.iter().map(|row| ((tenant, row.exception_id.as_str()), row)));
    for (write, device) in commit.devices.iter().zip(devices) {
        let key = (tenant, write.device.as_str());
        let after = found.devices.get(&key).map_or(0, |before| before.acknowledged);
        if device.acknowledged > after {
            let (technician, to) = (write.technician.as_str(), device.acknowledged);
            writes.acknowledged.push(Acknowledged { tenant, technician, after, to, at: commit.at });
        }
        found.devices.insert(key, device);
        writes.devices.insert(key);
    }
    writes.events.extend(commit.events.iter().map(|event| (commit, event)));
    for (entry, detail) in commit.audit.iter().zip(audit) {
        let key = (tenant, entry.aggregate.as_str());
        let (last, previous_hash) = found.chain(key);
        let seq = last + 1;
        let hash = audit_hash(&AuditLine {
            tenant: &commit.tenant,
            aggregate: &entry.aggregate,
            seq,
            at: entry.at,
            actor: &entry.actor,
            action: entry.action,
            detail: &entry.detail,
            previous_hash: &previous_hash,
        });
        found.chains.insert(key, (seq, hash));
        writes.chains.insert(key);
        let (aggregate, actor) = (entry.aggregate.as_str(), entry.actor.as_str());
        let row =
            AuditRow { tenant, aggregate, seq, at: entry.at, actor, action: entry.action, detail, previous_hash, hash };
        writes.audit.push(row);
    }
    if let Some(event) = &commit.consumed {
        found.consumed.insert((tenant, event.as_str()));
        writes.consumed.push((commit, event));
    }
    if let Some(record) = &commit.idempotency {
        found.answered.insert((tenant, record.key.as_str()), record.clone());
        writes.answers.push((commit, record));
    }
    Ok(Ok(committed))
}

/// Whether the commit can be written; answers the devices as they are to be.
fn check(commit: &Commit, found: &Found<'_>) -> Result<Vec<Device>, CommitError> {
    let tenant = commit.tenant.as_str();
    // A call that was answered before is answered again, whatever else could be said against it.
    if let Some(record) = &commit.idempotency
        && let Some(answer) = found.answered.get(&(tenant, record.key.as_str()))
    {
        return Err(CommitError::KeyUsed(answer.clone()));
    }
    if let Some(event) = &commit.consumed
        && found.consumed.contains(&(tenant, event.as_str()))
    {
        return Err(CommitError::AlreadyDone("consumed event"));
    }
    if let Some(write) = &commit.dispatch
        && write.expected != found.revisions.get(&(tenant, write.row.dispatch_id.as_str())).copied()
    {
        return Err(CommitError::Conflict("dispatch"));
    }
    for (expected, technician) in &commit.technicians {
        if *expected != found.technicians.get(&(tenant, technician.technician_id.as_str())).copied() {
            return Err(CommitError::Conflict("technician"));
        }
    }
    for (expected, location) in &commit.locations {
        if *expected != found.locations.get(&(tenant, location.location_id.as_str())).copied() {
            return Err(CommitError::Conflict("location"));
        }
    }
    let mut devices: Vec<Device> = Vec::with_capacity(commit.devices.len());
    for write in &commit.devices {
        let earlier = devices.iter().rev().find(|device| device.device == write.device);
        let before = earlier.or_else(|| found.devices.get(&(tenant, write.device.as_str())));
        // What this very commit adds to the feed cannot be in any phone yet, so the feed's end is taken from before it.
        let head = found.feed((tenant, write.technician.as_str())).seq;
        devices.push(device_after(before, write, head, commit.at)?);
    }
    Ok(devices)
}

fn device_after(before: Option<&Device>, write: &DeviceWrite, head: u64, at: Timestamp) -> Result<Device, CommitError> {
    let mut device = before.cloned().unwrap_or_else(|| Device {
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
    if device.technician != write.technician {
        return Err(CommitError::ForeignDevice);
    }
    if write.expected_ledger.is_some_and(|expected| expected != device.ledger_version) {
        return Err(CommitError::Conflict("device"));
    }
    if let Some(app) = &write.app {
        device.app.clone_from(app);
    }
    device.seen_at = write.seen_at.unwrap_or(device.seen_at);
    if let Some(ledger) = &write.ledger {
        device.ledger = ledger.clone();
        device.ledger_version += 1;
    }
    if let Some((pending, oldest)) = write.pending {
        (device.pending, device.oldest_pending) = (pending, oldest);
        if pending == 0 {
            device.complete_at = Some(at);
        }
    }
    // A phone cannot have stored what the feed does not have; and what it has stored, it has stored.
    device.acknowledged = write.acknowledged.unwrap_or(0).min(head).max(device.acknowledged);
    device.revoked_at = write.revoked_at.or(device.revoked_at);
    device.wiped_at = write.wiped_at.or(device.wiped_at);
    device.digest_mismatches += u64::from(write.digest_mismatch);
    Ok(device)
}

fn apply_dispatch<'a>(
    commit: &'a Commit,
    write: &'a DispatchWrite,
    found: &mut Found<'a>,
    writes: &mut Writes<'a>,
) -> Vec<FeedEntry> {
    let (tenant, dispatch) = (commit.tenant.as_str(), write.row.dispatch_id.as_str());
    let key = (tenant, dispatch);
    let is_new = write.expected.is_none() || writes.dispatches.get(&key).is_some_and(|(is_new, _)| *is_new);
    found.revisions.insert(key, write.row.revision);
    writes.dispatches.insert(key, (is_new, write));
    writes.parts.push((commit, write));
    writes.facts.extend(write.facts.iter().map(|fact| (commit, write, fact)));
    if let Some(bookings) = &write.bookings {
        let after: Bookings = bookings
            .iter()
            .map(|booking| (booking.technician.to_string(), booking.span.start.millis(), booking.span.end.millis()))
            .collect();
        let booked = found.bookings.entry(key).or_default();
        if *booked != after {
            // The first commit of a dispatch meets what the database has.
            if !booked.is_empty() && !writes.bookings.contains_key(&key) {
                writes.unbooked.insert(key);
            }
            booked.clone_from(&after);
            writes.bookings.insert(key, after);
        }
    }
    let mut entries = Vec::with_capacity(write.feed.len());
    // Positions are drawn inside the transaction, so whoever reads a feed's end sees every entry up to it.
    for news in &write.feed {
        let technician = news.technician.as_str();
        let mut end = found.feed((tenant, technician));
        end.seq += 1;
        if let Some(tag) = found.held.remove(&(tenant, technician, dispatch)) {
            end.digest = end.digest.toggled(&write.row.dispatch_id, tag);
        }
        let holds = news.news == FeedNews::Held;
        if holds {
            end.digest = end.digest.toggled(&write.row.dispatch_id, write.tag);
            found.held.insert((tenant, technician, dispatch), write.tag);
        }
        found.feeds.insert((tenant, technician), end);
        writes.held.insert((tenant, technician, dispatch), holds.then_some((end.seq, write)));
        let entry = FeedEntry {
            technician: news.technician.clone(),
            seq: end.seq,
            digest: end.digest.0,
            dispatch: write.row.dispatch_id.clone(),
            revision: write.row.revision,
            news: news.news.clone(),
        };
        writes.feed.push((commit, write, entry.clone()));
        entries.push(entry);
    }
    if let Some(sla) = &write.sla {
        writes.sla.insert((tenant, sla.dispatch_id.as_str()), sla);
    }
    entries
}
