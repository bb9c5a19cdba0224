//! Writing one commit inside its savepoint.
//!
//! A statement costs about 20 µs however little it does, so lists go in as one statement each (`json_each`), and
//! statements that need no answer go together. SQL texts are constant: sqlx keeps them prepared.

use super::dispatches::json_list;
use super::rows::{self, UNSCHEDULED_MS, bits, breach_name, device_columns, fault, get, id, priority_rank, unsigned};
use crate::service::commit::{
    Booking, Commit, CommitError, Committed, DeviceWrite, DispatchWrite, FactWrite, FeedEntry, FeedNews,
    IdempotencyRecord,
};
use crate::service::model::{AuditEntry, Device, ExceptionRow, SlaRow};
use crate::store::StoreError;
use crate::store::audit::{AUDIT_GENESIS, AuditLine, audit_hash, to_hex};
use serde::Serialize;
use sqlx::sqlite::SqliteRow;
use sqlx::{Row as _, SqliteConnection};
use std::collections::{BTreeMap, BTreeSet};
use sync_core::document::StateTag;
use sync_core::domain::rules::sequence::SequenceLedger;
use sync_core::domain::{RulingReason, TechnicianId, TenantId, Timestamp, Verdict};
use sync_core::protocol::Digest;

/// What the writes build upon, in one go: per technician the feed's end and the held tag, per audit chain its end, and the
/// dispatch's bookings. The first column says which.
pub(super) const LOOK: &str = "SAVEPOINT one_commit; \
     SELECT 1, t.value, h.seq, h.digest, v.tag FROM json_each(?) t \
       LEFT JOIN feed_heads h ON h.tenant = ? AND h.technician = t.value \
       LEFT JOIN held v ON v.tenant = ? AND v.technician = t.value AND v.dispatch_id = ?; \
     SELECT 2, a.value, h.seq, h.hash FROM json_each(?) a \
       LEFT JOIN audit_heads h ON h.tenant = ? AND h.aggregate = a.value; \
     SELECT 3, technician, start_ms, end_ms FROM bookings WHERE tenant = ? AND dispatch_id = ?";

const REMEMBER_EVENT: &str =
    "INSERT INTO consumed_events (tenant, event_id, at_ms) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING";
const REMEMBER_ANSWER: &str = "INSERT INTO idempotency_keys (tenant, key, request_hash, status, etag, body, at_ms) \
     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT DO NOTHING";
pub(super) const REMEMBERED: &str =
    "SELECT key, request_hash, status, etag, body FROM idempotency_keys WHERE tenant = ?1 AND key = ?2";

const INSERT_DISPATCH: &str = "INSERT INTO dispatches (tenant, dispatch_id, service_order_id, location_id, revision, \
       status, priority, technician, epoch, start_ms, end_ms, sla_deadline_ms, created_ms, updated_ms, watch_ms, tag, \
       card, plan, state) \
     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19)";
pub(super) const UPDATE_DISPATCH: &str = "UPDATE dispatches SET service_order_id = ?3, location_id = ?4, revision = ?5, \
       status = ?6, priority = ?7, technician = ?8, epoch = ?9, start_ms = ?10, end_ms = ?11, sla_deadline_ms = ?12, \
       created_ms = ?13, updated_ms = ?14, watch_ms = ?15, tag = ?16, card = ?17, plan = ?18, state = ?19 \
     WHERE tenant = ?1 AND dispatch_id = ?2 AND revision = ?20";

/// The document and its changes. The changes' bytes come packed into one blob (hash, actor, chunk), the list says where
/// each lies.
const WRITE_CONTENT: &str = "INSERT INTO documents (tenant, dispatch_id, document) VALUES (?, ?, ?) \
       ON CONFLICT (tenant, dispatch_id) DO UPDATE SET document = excluded.document; \
     INSERT INTO changes (tenant, dispatch_id, revision, idx, device, hash, actor, bytes) \
       SELECT c.tenant, c.dispatch, c.revision, j.key, j.value ->> 2, substr(c.packed, j.value ->> 0, 32), \
         substr(c.packed, (j.value ->> 0) + 32, 16), substr(c.packed, (j.value ->> 0) + 48, j.value ->> 1) \
       FROM (SELECT ? AS tenant, ? AS dispatch, ? AS revision, ? AS packed) c CROSS JOIN json_each(?) j";
const WRITE_FACTS: &str = "INSERT INTO facts (tenant, fact_id, dispatch_id, device, seq, seq_reused, knew_revision, kind, \
       occurred_ms, serial, verdict, reason, recorded_ms, held_since_ms) \
     SELECT ?1, j.value ->> 0, ?2, j.value ->> 1, j.value ->> 2, j.value ->> 3, j.value ->> 4, j.value ->> 5, \
       j.value ->> 6, j.value ->> 7, j.value ->> 8, j.value ->> 9, j.value ->> 10, j.value ->> 11 \
     FROM json_each(?3) j WHERE true \
     ON CONFLICT (tenant, fact_id) DO UPDATE SET seq_reused = excluded.seq_reused, verdict = excluded.verdict, \
       reason = excluded.reason, recorded_ms = excluded.recorded_ms, held_since_ms = NULL \
     WHERE facts.held_since_ms IS NOT NULL AND excluded.held_since_ms IS NULL";

const WRITE_BOOKINGS: &str = "DELETE FROM bookings WHERE tenant = ? AND dispatch_id = ?; \
     INSERT INTO bookings (tenant, dispatch_id, technician, start_ms, end_ms) \
       SELECT ?, ?, j.value ->> 0, j.value ->> 1, j.value ->> 2 FROM json_each(?) j";
pub(super) const BOOKED_BY: &str = "SELECT b.technician, b.dispatch_id FROM json_each(?3) j \
     CROSS JOIN bookings b INDEXED BY bookings_by_technician ON b.tenant = ?1 AND b.technician = j.value ->> 0 \
       AND b.start_ms < j.value ->> 2 AND b.end_ms > j.value ->> 1 \
     WHERE b.dispatch_id <> ?2 ORDER BY j.key, b.start_ms LIMIT 1";

const WRITE_FEED: &str = "INSERT INTO feed (tenant, technician, seq, dispatch_id, revision, epoch, kind, digest, \
         tombstone, at_ms) \
       SELECT c.tenant, j.value ->> 0, j.value ->> 1, c.dispatch, c.revision, c.epoch, \
         CASE WHEN j.value ->> 3 IS NULL THEN 'held' ELSE 'gone' END, j.value ->> 2, j.value ->> 3, c.at \
       FROM (SELECT ? AS tenant, ? AS dispatch, ? AS revision, ? AS epoch, ? AS at) c CROSS JOIN json_each(?) j; \
     INSERT INTO feed_heads (tenant, technician, seq, digest) \
       SELECT ?, j.value ->> 0, j.value ->> 1, j.value ->> 2 FROM json_each(?) j WHERE true \
       ON CONFLICT (tenant, technician) DO UPDATE SET seq = excluded.seq, digest = excluded.digest; \
     INSERT INTO held (tenant, technician, dispatch_id, revision, tag, seq, until_ms) \
       SELECT c.tenant, j.value ->> 0, c.dispatch, c.revision, c.tag, j.value ->> 1, c.until \
       FROM (SELECT ? AS tenant, ? AS dispatch, ? AS revision, ? AS tag, ? AS until) c CROSS JOIN json_each(?) j \
       WHERE true \
       ON CONFLICT (tenant, technician, dispatch_id) DO UPDATE SET revision = excluded.revision, tag = excluded.tag, \
         seq = excluded.seq, until_ms = excluded.until_ms; \
     DELETE FROM held WHERE tenant = ? AND dispatch_id = ? AND technician IN (SELECT value FROM json_each(?))";

const WRITE_EXCEPTIONS: &str = "INSERT INTO exceptions (tenant, exception_id, dispatch_id, raised_ms, resolved_ms, json) \
     SELECT ?1, j.value ->> 0, j.value ->> 1, j.value ->> 2, j.value ->> 3, j.value ->> 4 FROM json_each(?2) j WHERE true \
     ON CONFLICT (tenant, exception_id) DO UPDATE SET dispatch_id = excluded.dispatch_id, \
       raised_ms = excluded.raised_ms, resolved_ms = excluded.resolved_ms, json = excluded.json";
const WRITE_SLA: &str = "INSERT INTO sla (tenant, dispatch_id, deadline_ms, status, announced_ms, decided_ms, arrived_ms) \
     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT (tenant, dispatch_id) DO UPDATE SET \
       deadline_ms = excluded.deadline_ms, status = excluded.status, announced_ms = excluded.announced_ms, \
       decided_ms = excluded.decided_ms, arrived_ms = excluded.arrived_ms";

const INSERT_TECHNICIAN: &str = "INSERT INTO technicians (tenant, technician, revision, json) VALUES (?1, ?2, 1, ?3) \
     ON CONFLICT DO NOTHING";
const UPDATE_TECHNICIAN: &str = "UPDATE technicians SET revision = revision + 1, json = ?3 \
     WHERE tenant = ?1 AND technician = ?2 AND revision = ?4";
const INSERT_LOCATION: &str = "INSERT INTO locations (tenant, location_id, revision, json) VALUES (?1, ?2, 1, ?3) \
     ON CONFLICT DO NOTHING";
const UPDATE_LOCATION: &str = "UPDATE locations SET revision = revision + 1, json = ?3 \
     WHERE tenant = ?1 AND location_id = ?2 AND revision = ?4";

pub(super) const LOOK_AT_DEVICE: &str = concat!(
    "SELECT ",
    device_columns!(),
    ", coalesce((SELECT seq FROM feed_heads h WHERE h.tenant = ?1 AND h.technician = ?3), 0) \
     FROM (SELECT 1) LEFT JOIN devices v ON v.tenant = ?1 AND v.device = ?2"
);
const WRITE_DEVICE: &str = "INSERT INTO devices (tenant, device, technician, app, registered_ms, seen_ms, ledger, \
       ledger_version, pending, oldest_pending_ms, complete_ms, acknowledged, revoked_ms, wiped_ms, digest_mismatches) \
     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15) \
     ON CONFLICT (tenant, device) DO UPDATE SET app = excluded.app, seen_ms = excluded.seen_ms, \
       ledger = excluded.ledger, ledger_version = excluded.ledger_version, pending = excluded.pending, \
       oldest_pending_ms = excluded.oldest_pending_ms, complete_ms = excluded.complete_ms, \
       acknowledged = excluded.acknowledged, revoked_ms = excluded.revoked_ms, wiped_ms = excluded.wiped_ms, \
       digest_mismatches = excluded.digest_mismatches";
/// The lead's phone has stored the assignment: the entries that it acknowledged just now, where the epoch still holds.
pub(super) const MARK_DELIVERED: &str = "UPDATE dispatches AS d SET delivered_epoch = d.epoch, delivered_ms = ?5 \
     FROM (SELECT DISTINCT dispatch_id, epoch FROM feed WHERE tenant = ?1 AND technician = ?2 \
       AND seq > ?3 AND seq <= ?4 AND kind = 'held') f \
     WHERE d.tenant = ?1 AND d.dispatch_id = f.dispatch_id AND d.epoch = f.epoch AND +d.technician = ?2 \
     AND (d.delivered_epoch IS NULL OR d.delivered_epoch <> d.epoch)";

const WRITE_JOURNAL: &str = "INSERT INTO events (tenant, event_id, topic, aggregate_id, json) \
       SELECT ?, j.value ->> 0, j.value ->> 1, j.value ->> 2, j.value ->> 3 FROM json_each(?) j ORDER BY j.key; \
     INSERT INTO audit (tenant, aggregate, seq, at_ms, actor, action, detail, previous_hash, hash) \
       SELECT ?, j.value ->> 0, j.value ->> 1, j.value ->> 2, j.value ->> 3, j.value ->> 4, j.value ->> 5, \
         unhex(j.value ->> 6), unhex(j.value ->> 7) FROM json_each(?) j; \
     INSERT INTO audit_heads (tenant, aggregate, seq, hash) \
       SELECT ?, j.value ->> 0, j.value ->> 1, unhex(j.value ->> 2) FROM json_each(?) j WHERE true \
       ON CONFLICT (tenant, aggregate) DO UPDATE SET seq = excluded.seq, hash = excluded.hash";

/// Why a commit was not written.
#[derive(Debug)]
pub(super) enum Failure {
    /// The commit cannot be written as it is; the others of its group can.
    Refused(CommitError),
    /// The database's fault.
    Fault(StoreError),
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Fault(error)
    }
}

impl From<CommitError> for Failure {
    fn from(error: CommitError) -> Self {
        Self::Refused(error)
    }
}

impl From<sqlx::Error> for Failure {
    /// A broken uniqueness means that somebody was faster, or that it was done before.
    fn from(error: sqlx::Error) -> Self {
        let refusal = error.as_database_error().filter(|error| error.is_unique_violation()).and_then(|error| {
            let columns = error.message().rsplit(": ").next().unwrap_or_default();
            Some(match columns {
                "dispatches.tenant, dispatches.dispatch_id" => CommitError::Conflict("dispatch"),
                "dispatches.tenant, dispatches.service_order_id" => CommitError::AlreadyDone("service order"),
                "changes.tenant, changes.dispatch_id, changes.hash" => CommitError::AlreadyDone("change"),
                "facts.tenant, facts.device, facts.seq" => CommitError::Conflict("device's sequence"),
                "facts.tenant, facts.serial" => CommitError::Conflict("serial number"),
                "events.tenant, events.event_id" => CommitError::AlreadyDone("event"),
                _ => return None,
            })
        });
        refusal.map_or_else(|| Self::Fault(fault(error)), Self::Refused)
    }
}

/// The ends that a commit's entries are appended to.
#[derive(Default)]
struct Ends {
    feeds: BTreeMap<String, FeedEnd>,
    chains: BTreeMap<String, (u64, [u8; 32])>,
    bookings: BTreeSet<(String, i64, i64)>,
}

#[derive(Clone, Copy, Default)]
struct FeedEnd {
    seq: u64,
    digest: Digest,
    held: Option<StateTag>,
}

/// Writes one commit inside a savepoint of its own, which it leaves open when it fails: the caller rolls back.
pub(super) async fn write(connection: &mut SqliteConnection, commit: &Commit) -> Result<Committed, Failure> {
    let mut ends = look(connection, commit).await?;
    let tenant = commit.tenant.as_str();
    if let Some(record) = &commit.idempotency {
        remember_answer(connection, tenant, record, commit.at).await?;
    }
    if let Some(event) = &commit.consumed {
        let query = sqlx::query(REMEMBER_EVENT).bind(tenant).bind(event.as_str()).bind(commit.at.millis());
        if query.execute(&mut *connection).await?.rows_affected() == 0 {
            return Err(CommitError::AlreadyDone("consumed event").into());
        }
    }
    for (expected, technician) in &commit.technicians {
        let key = technician.technician_id.as_str();
        let json = to_json("technician", technician)?;
        let sql = (INSERT_TECHNICIAN, UPDATE_TECHNICIAN);
        write_versioned(connection, sql, tenant, key, json, *expected, "technician").await?;
    }
    for (expected, location) in &commit.locations {
        let key = location.location_id.as_str();
        let json = to_json("location", location)?;
        write_versioned(connection, (INSERT_LOCATION, UPDATE_LOCATION), tenant, key, json, *expected, "location")
            .await?;
    }
    let mut committed = Committed::default();
    if let Some(dispatch) = &commit.dispatch {
        committed.feed = write_dispatch(connection, commit, dispatch, &mut ends).await?;
    }
    for device in &commit.devices {
        write_device(connection, &commit.tenant, commit.at, device).await?;
    }
    write_journal(connection, commit, &mut ends).await?;
    sqlx::query("RELEASE one_commit").execute(connection).await?;
    Ok(committed)
}

async fn look(connection: &mut SqliteConnection, commit: &Commit) -> Result<Ends, Failure> {
    let tenant = commit.tenant.as_str();
    let dispatch = commit.dispatch.as_ref();
    let feeds: BTreeSet<&str> =
        dispatch.iter().flat_map(|dispatch| &dispatch.feed).map(|write| write.technician.as_str()).collect();
    let chains: BTreeSet<&str> = commit.audit.iter().map(|entry| entry.aggregate.as_str()).collect();
    let dispatch_id = dispatch.map_or("", |dispatch| dispatch.row.dispatch_id.as_str());
    let rows = sqlx::query(LOOK)
        .bind(to_json("list", &feeds)?)
        .bind(tenant)
        .bind(tenant)
        .bind(dispatch_id)
        .bind(to_json("list", &chains)?)
        .bind(tenant)
        .bind(tenant)
        .bind(dispatch_id)
        .fetch_all(connection)
        .await?;
    let mut ends = Ends::default();
    for row in &rows {
        let key: String = get(row, 1)?;
        match get::<i64>(row, 0)? {
            1 => {
                let end = match get::<Option<i64>>(row, 2)? {
                    None => FeedEnd::default(),
                    Some(_) => FeedEnd {
                        seq: unsigned(row, 2)?,
                        digest: Digest(bits(row, 3)?),
                        held: get::<Option<i64>>(row, 4)?.map(|tag| StateTag(tag.cast_unsigned())),
                    },
                };
                ends.feeds.insert(key, end);
            }
            2 => {
                let end = match get::<Option<i64>>(row, 2)? {
                    None => (0, AUDIT_GENESIS),
                    Some(_) => (unsigned(row, 2)?, hash_of(row, 3)?),
                };
                ends.chains.insert(key, end);
            }
            _ => {
                ends.bookings.insert((key, get(row, 2)?, get(row, 3)?));
            }
        }
    }
    Ok(ends)
}

fn hash_of(row: &SqliteRow, column: usize) -> Result<[u8; 32], StoreError> {
    let bytes: &[u8] = get(row, column)?;
    bytes.try_into().map_err(|_| rows::corrupt("audit hash")(format!("{} bytes", bytes.len())))
}

fn to_json<T: Serialize>(what: &'static str, value: &T) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|error| rows::corrupt(what)(error.to_string()))
}

async fn remember_answer(
    connection: &mut SqliteConnection,
    tenant: &str,
    record: &IdempotencyRecord,
    at: Timestamp,
) -> Result<(), Failure> {
    let written = sqlx::query(REMEMBER_ANSWER)
        .bind(tenant)
        .bind(&record.key)
        .bind(&record.request_hash)
        .bind(record.status)
        .bind(record.etag.as_deref())
        .bind(&record.body)
        .bind(at.millis())
        .execute(&mut *connection)
        .await?;
    if written.rows_affected() == 1 {
        return Ok(());
    }
    let row = sqlx::query(REMEMBERED).bind(tenant).bind(&record.key).fetch_one(connection).await?;
    Err(CommitError::KeyUsed(remembered(&row)?).into())
}

/// Reads [`REMEMBERED`].
pub(super) fn remembered(row: &SqliteRow) -> Result<IdempotencyRecord, StoreError> {
    Ok(IdempotencyRecord {
        key: get(row, 0)?,
        request_hash: get(row, 1)?,
        status: get(row, 2)?,
        etag: get(row, 3)?,
        body: get(row, 4)?,
    })
}

async fn write_versioned(
    connection: &mut SqliteConnection,
    (insert, update): (&'static str, &'static str),
    tenant: &str,
    key: &str,
    json: String,
    expected: Option<u64>,
    what: &'static str,
) -> Result<(), Failure> {
    let query = match expected {
        None => sqlx::query(insert).bind(tenant).bind(key).bind(json),
        Some(revision) => sqlx::query(update).bind(tenant).bind(key).bind(json).bind(revision.cast_signed()),
    };
    match query.execute(connection).await?.rows_affected() {
        0 => Err(CommitError::Conflict(what).into()),
        _ => Ok(()),
    }
}

async fn write_dispatch(
    connection: &mut SqliteConnection,
    commit: &Commit,
    write: &DispatchWrite,
    ends: &mut Ends,
) -> Result<Vec<FeedEntry>, Failure> {
    write_row(connection, &commit.tenant, write).await?;
    write_content(connection, &commit.tenant, write).await?;
    if !write.facts.is_empty() {
        write_facts(connection, commit, write).await?;
    }
    if let Some(bookings) = &write.bookings {
        write_bookings(connection, &commit.tenant, write, bookings, &ends.bookings).await?;
    }
    if !write.exceptions.is_empty() {
        write_exceptions(connection, &commit.tenant, &write.exceptions).await?;
    }
    if let Some(sla) = &write.sla {
        write_sla(connection, &commit.tenant, sla).await?;
    }
    write_feed(connection, commit, write, &mut ends.feeds).await
}

async fn write_row(connection: &mut SqliteConnection, tenant: &TenantId, write: &DispatchWrite) -> Result<(), Failure> {
    let row = &write.row;
    let watched = !row.status.is_final() && row.state.arrived.is_none();
    let watch = row.sla_deadline.filter(|_| watched).map(Timestamp::millis);
    let card = minicbor_serde::to_vec(&row.card).map_err(|error| rows::corrupt("visit card")(error.to_string()))?;
    let mut query = sqlx::query(if write.expected.is_some() { UPDATE_DISPATCH } else { INSERT_DISPATCH })
        .bind(tenant.as_str())
        .bind(row.dispatch_id.as_str())
        .bind(row.service_order_id.as_str())
        .bind(row.location_id.as_str())
        .bind(row.revision.cast_signed())
        .bind(row.status.name())
        .bind(priority_rank(row.priority))
        .bind(row.technician_id.as_ref().map(TechnicianId::as_str))
        .bind(row.epoch.cast_signed())
        .bind(row.scheduled.map_or(UNSCHEDULED_MS, |window| window.start.millis()))
        .bind(row.scheduled.map(|window| window.end.millis()))
        .bind(row.sla_deadline.map(Timestamp::millis))
        .bind(row.created_at.millis())
        .bind(row.updated_at.millis())
        .bind(watch)
        .bind(write.tag.0.cast_signed())
        .bind(card)
        .bind(to_json("plan", &row.plan)?)
        .bind(to_json("visit state", &row.state)?);
    if let Some(expected) = write.expected {
        query = query.bind(expected.cast_signed());
    }
    match query.execute(connection).await?.rows_affected() {
        0 => Err(CommitError::Conflict("dispatch").into()),
        _ => Ok(()),
    }
}

async fn write_content(
    connection: &mut SqliteConnection,
    tenant: &TenantId,
    write: &DispatchWrite,
) -> Result<(), Failure> {
    let mut packed = Vec::with_capacity(write.changes.iter().map(|change| change.bytes.len() + 48).sum());
    let mut places = Vec::with_capacity(write.changes.len());
    for change in &write.changes {
        // SQL counts bytes from 1.
        places.push((packed.len() + 1, change.bytes.len(), &change.device));
        packed.extend_from_slice(&change.hash.0);
        packed.extend_from_slice(&change.actor.0);
        packed.extend_from_slice(&change.bytes);
    }
    let dispatch = write.row.dispatch_id.as_str();
    sqlx::query(WRITE_CONTENT)
        .bind(tenant.as_str())
        .bind(dispatch)
        .bind(write.document.as_slice())
        .bind(tenant.as_str())
        .bind(dispatch)
        .bind(write.row.revision.cast_signed())
        .bind(packed)
        .bind(json_list(&places)?)
        .execute(connection)
        .await?;
    Ok(())
}

async fn write_facts(connection: &mut SqliteConnection, commit: &Commit, write: &DispatchWrite) -> Result<(), Failure> {
    let at = commit.at;
    let row = |fact: &FactWrite| {
        let ruling = fact.ruling.as_ref();
        let verdict = ruling.map(|ruling| match ruling.verdict {
            Verdict::Accepted => "accepted",
            Verdict::Stale => "stale",
            Verdict::Exception => "exception",
        });
        let reused = ruling.is_some_and(|ruling| ruling.reason == RulingReason::SequenceReused);
        let reason = ruling.map(|ruling| ruling.reason);
        let recorded = ruling.map(|ruling| ruling.recorded_at.millis());
        let held_since = if ruling.is_none() { Some(at.millis()) } else { None };
        serde_json::json!([
            fact.fact,
            fact.device,
            fact.seq,
            i32::from(reused),
            fact.knew_revision,
            fact.kind,
            fact.occurred_at.millis(),
            fact.serial,
            verdict,
            reason,
            recorded,
            held_since
        ])
    };
    let facts: Vec<_> = write.facts.iter().map(row).collect();
    let written = sqlx::query(WRITE_FACTS)
        .bind(commit.tenant.as_str())
        .bind(write.row.dispatch_id.as_str())
        .bind(json_list(&facts)?)
        .execute(connection)
        .await?;
    if written.rows_affected() == facts.len() as u64 { Ok(()) } else { Err(CommitError::AlreadyDone("fact").into()) }
}

async fn write_bookings(
    connection: &mut SqliteConnection,
    tenant: &TenantId,
    write: &DispatchWrite,
    bookings: &[Booking],
    before: &BTreeSet<(String, i64, i64)>,
) -> Result<(), Failure> {
    let row =
        |booking: &Booking| (booking.technician.to_string(), booking.span.start.millis(), booking.span.end.millis());
    let bookings: BTreeSet<_> = bookings.iter().map(row).collect();
    if bookings == *before {
        return Ok(());
    }
    let (tenant, dispatch) = (tenant.as_str(), write.row.dispatch_id.as_str());
    let list = to_json("list", &bookings)?;
    let written = sqlx::query(WRITE_BOOKINGS)
        .bind(tenant)
        .bind(dispatch)
        .bind(tenant)
        .bind(dispatch)
        .bind(&list)
        .execute(&mut *connection)
        .await;
    match written {
        Ok(_) => Ok(()),
        Err(error) if error.as_database_error().is_some_and(|error| error.message() == "booking overlap") => {
            let row = sqlx::query(BOOKED_BY).bind(tenant).bind(dispatch).bind(&list).fetch_one(connection).await?;
            Err(CommitError::Overlap { technician: id(&row, 0)?, dispatch: id(&row, 1)? }.into())
        }
        Err(error) => Err(error.into()),
    }
}

async fn write_exceptions(
    connection: &mut SqliteConnection,
    tenant: &TenantId,
    exceptions: &[ExceptionRow],
) -> Result<(), Failure> {
    let mut list = Vec::with_capacity(exceptions.len());
    for exception in exceptions {
        list.push((
            &exception.exception_id,
            &exception.dispatch_id,
            exception.raised_at.millis(),
            exception.resolved_at.map(Timestamp::millis),
            to_json("exception", exception)?,
        ));
    }
    sqlx::query(WRITE_EXCEPTIONS).bind(tenant.as_str()).bind(json_list(&list)?).execute(connection).await?;
    Ok(())
}

async fn write_sla(connection: &mut SqliteConnection, tenant: &TenantId, sla: &SlaRow) -> Result<(), Failure> {
    sqlx::query(WRITE_SLA)
        .bind(tenant.as_str())
        .bind(sla.dispatch_id.as_str())
        .bind(sla.deadline.millis())
        .bind(breach_name(sla.status))
        .bind(sla.announced_at.millis())
        .bind(sla.decided_at.map(Timestamp::millis))
        .bind(sla.arrived_at.map(Timestamp::millis))
        .execute(connection)
        .await?;
    Ok(())
}

/// Gives every entry the next position of its feed. The positions are drawn inside the transaction, so whoever reads a
/// feed's end sees every entry up to it.
async fn write_feed(
    connection: &mut SqliteConnection,
    commit: &Commit,
    write: &DispatchWrite,
    ends: &mut BTreeMap<String, FeedEnd>,
) -> Result<Vec<FeedEntry>, Failure> {
    if write.feed.is_empty() {
        return Ok(Vec::new());
    }
    let row = &write.row;
    let mut entries = Vec::with_capacity(write.feed.len());
    let mut lines = Vec::with_capacity(write.feed.len());
    for news in &write.feed {
        let end = ends.entry(news.technician.to_string()).or_default();
        end.seq += 1;
        if let Some(tag) = end.held.take() {
            end.digest = end.digest.toggled(&row.dispatch_id, tag);
        }
        let tombstone = match &news.news {
            FeedNews::Held => {
                end.digest = end.digest.toggled(&row.dispatch_id, write.tag);
                end.held = Some(write.tag);
                None
            }
            FeedNews::Gone(tombstone) => Some(to_json("tombstone", tombstone)?),
        };
        lines.push((&news.technician, end.seq, end.digest.0.cast_signed(), tombstone));
        entries.push(FeedEntry {
            technician: news.technician.clone(),
            seq: end.seq,
            digest: end.digest.0,
            dispatch: row.dispatch_id.clone(),
            revision: row.revision,
            news: news.news.clone(),
        });
    }
    let heads: Vec<_> =
        ends.iter().map(|(technician, end)| (technician, end.seq, end.digest.0.cast_signed())).collect();
    let (held, gone): (Vec<_>, Vec<_>) = ends.iter().partition(|(_, end)| end.held.is_some());
    let held: Vec<_> = held.into_iter().map(|(technician, end)| (technician, end.seq)).collect();
    let gone: Vec<_> = gone.into_iter().map(|(technician, _)| technician).collect();
    let until = [row.state.ended.map(|ended| ended.at), row.scheduled.map(|window| window.end)];
    let until = until.into_iter().flatten().min().map(Timestamp::millis);

    let (tenant, dispatch) = (commit.tenant.as_str(), row.dispatch_id.as_str());
    sqlx::query(WRITE_FEED)
        .bind(tenant)
        .bind(dispatch)
        .bind(row.revision.cast_signed())
        .bind(row.epoch.cast_signed())
        .bind(commit.at.millis())
        .bind(json_list(&lines)?)
        .bind(tenant)
        .bind(json_list(&heads)?)
        .bind(tenant)
        .bind(dispatch)
        .bind(row.revision.cast_signed())
        .bind(write.tag.0.cast_signed())
        .bind(until)
        .bind(json_list(&held)?)
        .bind(tenant)
        .bind(dispatch)
        .bind(json_list(&gone)?)
        .execute(connection)
        .await?;
    Ok(entries)
}

async fn write_device(
    connection: &mut SqliteConnection,
    tenant: &TenantId,
    at: Timestamp,
    write: &DeviceWrite,
) -> Result<(), Failure> {
    let found = sqlx::query(LOOK_AT_DEVICE)
        .bind(tenant.as_str())
        .bind(write.device.as_str())
        .bind(write.technician.as_str())
        .fetch_one(&mut *connection)
        .await?;
    let head = unsigned(&found, 14)?;
    let known = found.try_get::<Option<&str>, _>(0)?.is_some();
    let before = if known {
        rows::device(&found)?
    } else {
        Device {
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
        }
    };
    if before.technician != write.technician {
        return Err(CommitError::ForeignDevice.into());
    }
    if write.expected_ledger.is_some_and(|expected| expected != before.ledger_version) {
        return Err(CommitError::Conflict("device").into());
    }
    let (pending, oldest_pending) = write.pending.unwrap_or((before.pending, before.oldest_pending));
    let complete_at =
        if write.pending.is_some_and(|(pending, _)| pending == 0) { Some(at) } else { before.complete_at };
    // A phone cannot have stored what the feed does not have; and what it has stored, it has stored.
    let acknowledged = write.acknowledged.unwrap_or(0).min(head).max(before.acknowledged);
    sqlx::query(WRITE_DEVICE)
        .bind(tenant.as_str())
        .bind(write.device.as_str())
        .bind(write.technician.as_str())
        .bind(write.app.as_deref().unwrap_or(&before.app))
        .bind(before.registered_at.millis())
        .bind(write.seen_at.unwrap_or(before.seen_at).millis())
        .bind(to_json("sequence ledger", write.ledger.as_ref().unwrap_or(&before.ledger))?)
        .bind((before.ledger_version + u64::from(write.ledger.is_some())).cast_signed())
        .bind(pending)
        .bind(oldest_pending.map(Timestamp::millis))
        .bind(complete_at.map(Timestamp::millis))
        .bind(acknowledged.cast_signed())
        .bind(write.revoked_at.or(before.revoked_at).map(Timestamp::millis))
        .bind(write.wiped_at.or(before.wiped_at).map(Timestamp::millis))
        .bind((before.digest_mismatches + u64::from(write.digest_mismatch)).cast_signed())
        .execute(&mut *connection)
        .await?;
    if acknowledged > before.acknowledged {
        sqlx::query(MARK_DELIVERED)
            .bind(tenant.as_str())
            .bind(write.technician.as_str())
            .bind(before.acknowledged.cast_signed())
            .bind(acknowledged.cast_signed())
            .bind(at.millis())
            .execute(connection)
            .await?;
    }
    Ok(())
}

async fn write_journal(connection: &mut SqliteConnection, commit: &Commit, ends: &mut Ends) -> Result<(), Failure> {
    if commit.events.is_empty() && commit.audit.is_empty() {
        return Ok(());
    }
    let mut events = Vec::with_capacity(commit.events.len());
    for event in &commit.events {
        events.push((&event.event_id, event.payload.topic(), &event.aggregate_id, to_json("event", event)?));
    }
    let mut lines = Vec::with_capacity(commit.audit.len());
    for entry in &commit.audit {
        lines.push(chain(&commit.tenant, entry, &mut ends.chains)?);
    }
    let heads: Vec<_> = ends.chains.iter().map(|(aggregate, (seq, hash))| (aggregate, seq, to_hex(hash))).collect();
    let tenant = commit.tenant.as_str();
    sqlx::query(WRITE_JOURNAL)
        .bind(tenant)
        .bind(json_list(&events)?)
        .bind(tenant)
        .bind(json_list(&lines)?)
        .bind(tenant)
        .bind(json_list(&heads)?)
        .execute(connection)
        .await?;
    Ok(())
}

/// One line of the audit table.
type ChainedLine<'a> = (&'a str, u64, i64, &'a str, &'a str, String, String, String);

/// Appends an entry to its chain.
fn chain<'a>(
    tenant: &TenantId,
    entry: &'a AuditEntry,
    chains: &mut BTreeMap<String, (u64, [u8; 32])>,
) -> Result<ChainedLine<'a>, StoreError> {
    let end = chains.entry(entry.aggregate.clone()).or_insert((0, AUDIT_GENESIS));
    let previous_hash = end.1;
    end.0 += 1;
    end.1 = audit_hash(&AuditLine {
        tenant,
        aggregate: &entry.aggregate,
        seq: end.0,
        at: entry.at,
        actor: &entry.actor,
        action: entry.action,
        detail: &entry.detail,
        previous_hash: &previous_hash,
    });
    Ok((
        &entry.aggregate,
        end.0,
        entry.at.millis(),
        &entry.actor,
        entry.action,
        to_json("audit detail", &entry.detail)?,
        to_hex(&previous_hash),
        to_hex(&end.1),
    ))
}
