//! Writing one commit inside its savepoint.
//!
//! A round trip to the connection's thread costs about 20 µs however little it does. So everything is looked at in one, the
//! dispatch is written in one, the journal in one; lists go in as one statement each (`json_each`). SQL texts are constant:
//! sqlx keeps them prepared. A text of several statements has plain `?` for its parameters, in order: numbered ones would
//! be counted by statement.

pub(super) mod device;
pub(super) mod dispatch;
mod feed;
mod journal;

use super::rows::{self, bits, fault, get, unsigned};
use crate::service::commit::{Commit, CommitError, Committed, IdempotencyRecord};
use crate::store::StoreError;
use crate::store::audit::AUDIT_GENESIS;
use crate::store::forms::to_json;
use sqlx::SqliteConnection;
use sqlx::sqlite::SqliteRow;
use std::collections::{BTreeMap, BTreeSet};
use sync_core::document::StateTag;
use sync_core::domain::EventId;
use sync_core::protocol::Digest;

/// Everything that decides whether and how a commit is written, in one go. Nobody else writes between this look and the
/// writes. The first column says what a row is:
/// 1 a feed's end and the tag held of the dispatch, 2 an audit chain's end, 3 a booking of the dispatch, 4 the dispatch's
/// revision, 5 the consumed event (known already), 6 the answer given under the idempotency key.
pub(super) const LOOK: &str = "SAVEPOINT one_commit; \
     SELECT 1, t.value, h.seq, h.digest, v.tag FROM json_each(?) t \
       LEFT JOIN feed_heads h ON h.tenant = ? AND h.technician = t.value \
       LEFT JOIN held v ON v.tenant = ? AND v.technician = t.value AND v.dispatch_id = ?; \
     SELECT 2, a.value, h.seq, h.hash FROM json_each(?) a \
       LEFT JOIN audit_heads h ON h.tenant = ? AND h.aggregate = a.value; \
     SELECT 3, technician, start_ms, end_ms FROM bookings WHERE tenant = ? AND dispatch_id = ?; \
     SELECT 4, dispatch_id, revision FROM dispatches WHERE tenant = ? AND dispatch_id = ?; \
     SELECT 5, event_id FROM consumed_events WHERE tenant = ? AND event_id = ?; \
     SELECT 6, key, request_hash, status, etag, body FROM idempotency_keys WHERE tenant = ? AND key = ?";

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

/// A statement with its parameters so far.
type Statement = sqlx::query::Query<'static, sqlx::Sqlite, sqlx::sqlite::SqliteArguments>;

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

/// What [`LOOK`] found.
#[derive(Default)]
struct Found {
    feeds: BTreeMap<String, FeedEnd>,
    chains: BTreeMap<String, (u64, [u8; 32])>,
    bookings: BTreeSet<(String, i64, i64)>,
    revision: Option<u64>,
    event_is_known: bool,
    answered: Option<IdempotencyRecord>,
}

#[derive(Clone, Copy, Default)]
struct FeedEnd {
    seq: u64,
    digest: Digest,
    held: Option<StateTag>,
}

/// Writes one commit inside a savepoint of its own, which it leaves open when it fails: the caller rolls back.
pub(super) async fn write(connection: &mut SqliteConnection, commit: &Commit) -> Result<Committed, Failure> {
    let mut found = look(connection, commit).await?;
    // A call that was answered before is answered again, whatever else could be said against it.
    if let Some(record) = found.answered.take() {
        return Err(CommitError::KeyUsed(record).into());
    }
    if found.event_is_known {
        return Err(CommitError::AlreadyDone("consumed event").into());
    }
    if commit.dispatch.as_ref().is_some_and(|write| write.expected != found.revision) {
        return Err(CommitError::Conflict("dispatch").into());
    }
    let tenant = commit.tenant.as_str();
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
        committed.feed = dispatch::write_dispatch(connection, commit, write, &mut found).await?;
    }
    if !commit.exceptions.is_empty() {
        dispatch::write_exceptions(connection, &commit.tenant, &commit.exceptions).await?;
    }
    for write in &commit.devices {
        device::write_device(connection, &commit.tenant, commit.at, write).await?;
    }
    journal::write_journal(connection, commit, &mut found.chains).await?;
    Ok(committed)
}

async fn look(connection: &mut SqliteConnection, commit: &Commit) -> Result<Found, Failure> {
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
        .bind(tenant)
        .bind(dispatch_id)
        .bind(tenant)
        .bind(commit.consumed.as_ref().map(EventId::as_str))
        .bind(tenant)
        .bind(commit.idempotency.as_ref().map(|record| record.key.as_str()))
        .fetch_all(connection)
        .await?;
    let mut found = Found::default();
    for row in &rows {
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
                found.feeds.insert(get(row, 1)?, end);
            }
            2 => {
                let end = match get::<Option<i64>>(row, 2)? {
                    None => (0, AUDIT_GENESIS),
                    Some(_) => (unsigned(row, 2)?, hash_of(row, 3)?),
                };
                found.chains.insert(get(row, 1)?, end);
            }
            3 => {
                found.bookings.insert((get(row, 1)?, get(row, 2)?, get(row, 3)?));
            }
            4 => found.revision = Some(unsigned(row, 2)?),
            5 => found.event_is_known = true,
            _ => found.answered = Some(remembered(row, 1)?),
        }
    }
    Ok(found)
}

fn hash_of(row: &SqliteRow, column: usize) -> Result<[u8; 32], StoreError> {
    let bytes: &[u8] = get(row, column)?;
    bytes.try_into().map_err(|_| rows::corrupt("audit hash")(format!("{} bytes", bytes.len())))
}

/// Reads the columns of [`REMEMBERED`], from `first` on.
pub(super) fn remembered(row: &SqliteRow, first: usize) -> Result<IdempotencyRecord, StoreError> {
    Ok(IdempotencyRecord {
        key: get(row, first)?,
        request_hash: get(row, first + 1)?,
        status: get(row, first + 2)?,
        etag: get(row, first + 3)?,
        body: get(row, first + 4)?,
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
