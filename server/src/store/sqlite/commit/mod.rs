//! Writing one commit inside its savepoint.
//!
//! A statement costs about 20 µs however little it does, so lists go in as one statement each (`json_each`), and
//! statements that need no answer go together. SQL texts are constant: sqlx keeps them prepared.

pub(super) mod device;
pub(super) mod dispatch;
mod feed;
mod journal;

use super::rows::{self, bits, fault, get, unsigned};
use crate::service::commit::{Commit, CommitError, Committed, IdempotencyRecord};
use crate::store::StoreError;
use crate::store::audit::AUDIT_GENESIS;
use serde::Serialize;
use sqlx::SqliteConnection;
use sqlx::sqlite::SqliteRow;
use std::collections::{BTreeMap, BTreeSet};
use sync_core::document::StateTag;
use sync_core::domain::Timestamp;
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

const INSERT_TECHNICIAN: &str = "INSERT INTO technicians (tenant, technician, revision, json) VALUES (?1, ?2, 1, ?3) \
     ON CONFLICT DO NOTHING";

const UPDATE_TECHNICIAN: &str = "UPDATE technicians SET revision = revision + 1, json = ?3 \
     WHERE tenant = ?1 AND technician = ?2 AND revision = ?4";

const INSERT_LOCATION: &str = "INSERT INTO locations (tenant, location_id, revision, json) VALUES (?1, ?2, 1, ?3) \
     ON CONFLICT DO NOTHING";

const UPDATE_LOCATION: &str = "UPDATE locations SET revision = revision + 1, json = ?3 \
     WHERE tenant = ?1 AND location_id = ?2 AND revision = ?4";

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
    if let Some(write) = &commit.dispatch {
        committed.feed = dispatch::write_dispatch(connection, commit, write, &mut ends).await?;
    }
    for write in &commit.devices {
        device::write_device(connection, &commit.tenant, commit.at, write).await?;
    }
    journal::write_journal(connection, commit, &mut ends).await?;
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
