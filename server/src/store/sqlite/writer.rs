//! The one writer: a task that owns the only connection that writes, so that nothing ever waits for a lock.
//!
//! Calls that arrive while a transaction is being made durable are written together in the next one (group commit): one
//! `fsync` for all of them, and no delay for one that comes alone.

use super::commit::{self, Failure};
use super::outbox;
use super::rows::fault;
use crate::service::commit::{Commit, CommitError, Committed};
use crate::store::{BEFORE_IT, Identity, NUMBERS_SKIPPED, StoreError};
use sqlx::{Connection as _, Row as _, SqliteConnection};
use std::sync::Arc;
use std::time::Duration;
use sync_core::domain::{TenantId, Timestamp};
use tokio::sync::{mpsc, oneshot};

/// Most commits in one transaction, so that its caller does not wait for too many others.
const GROUP_COMMITS_MAX: usize = 256;
/// Most bytes in one transaction, [`COMMIT_OVERHEAD_BYTES`] counted; the call that goes beyond it is the last one.
const GROUP_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Most calls waiting for the writer; more wait before they are queued.
pub(super) const QUEUE_CALLS_MAX: usize = 1_024;
/// Bytes written after which the log is copied into the database file.
const CHECKPOINT_BYTES: usize = 16 * 1024 * 1024;
/// What a commit costs in the log beside its document and changes: about 25 pages.
const COMMIT_OVERHEAD_BYTES: usize = 25 * 4096;
/// What marking an event as published costs in the log, about: many lie on a page.
const MARK_BYTES: usize = 512;
/// Log length, in pages, beyond which it is cut (64 MiB). Under steady load a passive checkpoint never catches up with the
/// writer, so the log is not begun anew by itself; right after one there is little left to copy, and commits wait for that
/// little only.
const LOG_PAGES_MAX: i64 = 16_384;
/// How long cutting the log may wait for readers.
const TRUNCATE_WAIT: Duration = Duration::from_millis(50);
/// Numbers taken out of the database at once.
pub(super) const NUMBER_BLOCK: u64 = 100;
/// Most rows that one pruning transaction removes of each kind, so that commits get in between.
const PRUNE_ROWS_MAX: u32 = 2_000;

type Results = Vec<Result<Committed, CommitError>>;

/// What the writer is asked for.
pub(super) enum Job {
    Commit { commits: Vec<Commit>, answer: oneshot::Sender<Results> },
    Numbers { tenant: TenantId, kind: &'static str, answer: oneshot::Sender<Result<u64, StoreError>> },
    Prune { before: Timestamp, answer: oneshot::Sender<Result<u64, StoreError>> },
    MarkPublished { positions: Vec<u64>, at: Timestamp, answer: oneshot::Sender<Result<(), StoreError>> },
    RenewIdentity { answer: oneshot::Sender<Result<Identity, StoreError>> },
    Close { answer: oneshot::Sender<()> },
}

/// Held while writing, and while cutting the log: SQLite's own way to wait for a lock is to look again after ever longer
/// naps, up to a tenth of a second each.
pub(super) type Turn = Arc<tokio::sync::Mutex<()>>;

/// What the checkpointer is asked for.
pub(super) enum Checkpoint {
    Now,
    Close { answer: oneshot::Sender<()> },
}

/// Runs until the store is closed or dropped.
pub(super) async fn run(
    mut connection: SqliteConnection,
    mut jobs: mpsc::Receiver<Job>,
    checkpoints: mpsc::Sender<Checkpoint>,
    turn: Turn,
) {
    let mut left_over = None;
    let mut written = 0;
    loop {
        let job = match left_over.take() {
            Some(job) => job,
            None => match jobs.recv().await {
                Some(job) => job,
                None => break,
            },
        };
        let my_turn = turn.lock().await;
        match job {
            Job::Commit { commits, answer } => {
                let mut group = vec![(commits, answer)];
                left_over = gather(&mut group, &mut jobs);
                written += group.iter().map(|(commits, _)| bytes(commits)).sum::<usize>();
                write_group(&mut connection, group).await;
            }
            // Whoever asked may have gone away; then nobody needs the answer.
            Job::Numbers { tenant, kind, answer } => {
                let _ = answer.send(numbers(&mut connection, &tenant, kind).await);
            }
            Job::Prune { before, answer } => {
                let _ = answer.send(prune(&mut connection, before).await);
            }
            Job::MarkPublished { positions, at, answer } => {
                written += positions.len() * MARK_BYTES;
                let _ = answer.send(mark_published(&mut connection, &positions, at).await);
            }
            Job::RenewIdentity { answer } => {
                let _ = answer.send(renew_identity(&mut connection).await);
            }
            Job::Close { answer } => {
                if let Err(error) = connection.close().await {
                    tracing::warn!(%error, "the writing connection was not closed cleanly");
                }
                let _ = answer.send(());
                return;
            }
        }
        drop(my_turn);
        if written >= CHECKPOINT_BYTES {
            written = 0;
            // One that is already asked for does.
            let _ = checkpoints.try_send(Checkpoint::Now);
        }
    }
}

/// Copies the log into the database beside the writer, so that no commit waits for it.
pub(super) async fn run_checkpoints(
    mut connection: SqliteConnection,
    mut requests: mpsc::Receiver<Checkpoint>,
    turn: Turn,
) {
    while let Some(request) = requests.recv().await {
        match request {
            Checkpoint::Now => {
                let log_pages = checkpoint(&mut connection, "PRAGMA wal_checkpoint(PASSIVE)").await;
                if log_pages > LOG_PAGES_MAX {
                    let _my_turn = turn.lock().await;
                    checkpoint(&mut connection, "PRAGMA wal_checkpoint(TRUNCATE)").await;
                }
            }
            Checkpoint::Close { answer } => {
                checkpoint(&mut connection, "PRAGMA wal_checkpoint(TRUNCATE)").await;
                if let Err(error) = connection.close().await {
                    tracing::warn!(%error, "the checkpointing connection was not closed cleanly");
                }
                let _ = answer.send(());
                return;
            }
        }
    }
}

/// How long the checkpointer may wait; short, because cutting the log keeps the writer out.
pub(super) const CHECKPOINT_BUSY: Duration = TRUNCATE_WAIT;

/// The log's length in pages; 0 when the checkpoint could not run, which the next one makes up for.
async fn checkpoint(connection: &mut SqliteConnection, sql: &'static str) -> i64 {
    let row = sqlx::query(sql).fetch_one(connection).await;
    row.and_then(|row| row.try_get(1)).unwrap_or_else(|error| {
        tracing::debug!(%error, "the log was not checkpointed this time");
        0
    })
}

fn bytes(commits: &[Commit]) -> usize {
    commits
        .iter()
        .map(|commit| {
            let content = commit.dispatch.as_ref().map_or(0, |dispatch| {
                dispatch.document.len() + dispatch.changes.iter().map(|change| change.bytes.len()).sum::<usize>()
            });
            content + COMMIT_OVERHEAD_BYTES
        })
        .sum()
}

/// Takes what waits and fits; gives back a job that ends the group.
fn gather(group: &mut Vec<(Vec<Commit>, oneshot::Sender<Results>)>, jobs: &mut mpsc::Receiver<Job>) -> Option<Job> {
    let mut count = group.iter().map(|(commits, _)| commits.len()).sum::<usize>();
    let mut size = group.iter().map(|(commits, _)| bytes(commits)).sum::<usize>();
    while count < GROUP_COMMITS_MAX && size < GROUP_BYTES_MAX {
        match jobs.try_recv().ok()? {
            Job::Commit { commits, answer } => {
                count += commits.len();
                size += bytes(&commits);
                group.push((commits, answer));
            }
            other => return Some(other),
        }
    }
    None
}

async fn write_group(connection: &mut SqliteConnection, group: Vec<(Vec<Commit>, oneshot::Sender<Results>)>) {
    let commits = group.iter().flat_map(|(commits, _)| commits);
    // Answers leave only after the transaction is durable, refusals too: what they were refused for may lie in it.
    let mut results = match write_all(connection, commits).await {
        Ok(results) => results,
        Err(error) => {
            tracing::error!(%error, "a group of commits was not written");
            // Nothing is left open: either this rolls back, or the database has already.
            let _ = sqlx::query("ROLLBACK").execute(connection).await;
            let count = group.iter().map(|(commits, _)| commits.len()).sum();
            std::iter::repeat_with(|| Err(CommitError::Store(error.to_string()))).take(count).collect()
        }
    }
    .into_iter();
    for (commits, answer) in group {
        let _ = answer.send(results.by_ref().take(commits.len()).collect());
    }
}

/// An error means that nothing was written.
async fn write_all(
    connection: &mut SqliteConnection,
    commits: impl Iterator<Item = &Commit>,
) -> Result<Results, StoreError> {
    sqlx::query("BEGIN IMMEDIATE").execute(&mut *connection).await.map_err(fault)?;
    let mut results: Results = Vec::new();
    for commit in commits {
        if commit.follows && results.last().is_some_and(Result::is_err) {
            results.push(Err(CommitError::Conflict(BEFORE_IT)));
            continue;
        }
        let result = match commit::write(connection, commit).await {
            Ok(committed) => Ok(committed),
            Err(failure) => {
                // Fails when the database gave up the whole transaction (a full disk, say): then all of it is lost.
                sqlx::query("ROLLBACK TO one_commit; RELEASE one_commit").execute(&mut *connection).await.map_err(
                    |error| match &failure {
                        Failure::Fault(cause) => StoreError::Database(format!("{cause}; {error}")),
                        Failure::Refused(_) => fault(error),
                    },
                )?;
                Err(match failure {
                    Failure::Refused(refusal) => refusal,
                    Failure::Fault(error) => CommitError::Store(error.to_string()),
                })
            }
        };
        results.push(result);
    }
    sqlx::query("COMMIT").execute(connection).await.map_err(fault)?;
    Ok(results)
}

/// Takes a block of numbers; answers its first.
async fn numbers(connection: &mut SqliteConnection, tenant: &TenantId, kind: &'static str) -> Result<u64, StoreError> {
    let row = sqlx::query(
        "INSERT INTO counters (tenant, kind, next) \
           VALUES (?1, ?2, 1 + ?3 + coalesce((SELECT next FROM counters WHERE tenant = '' AND kind = ''), 0)) \
         ON CONFLICT (tenant, kind) DO UPDATE SET next = next + ?3 RETURNING next - ?3",
    )
    .bind(tenant.as_str())
    .bind(kind)
    .bind(NUMBER_BLOCK.cast_signed())
    .fetch_one(connection)
    .await
    .map_err(fault)?;
    super::rows::unsigned(&row, 0)
}

/// One transaction: the statement's own.
async fn mark_published(connection: &mut SqliteConnection, positions: &[u64], at: Timestamp) -> Result<(), StoreError> {
    let positions = serde_json::to_string(positions).map_err(|error| StoreError::Database(error.to_string()))?;
    sqlx::query(outbox::MARK_PUBLISHED).bind(at.millis()).bind(positions).execute(connection).await.map_err(fault)?;
    Ok(())
}

/// The technicians' feeds, and up to where every phone of theirs has stored them. A revoked phone counts no more.
pub(super) const PRUNABLE_FEEDS: &str = "SELECT h.tenant, h.technician, h.floor, coalesce((SELECT min(v.acknowledged) \
       FROM devices v INDEXED BY devices_by_technician WHERE v.tenant = h.tenant AND v.technician = h.technician AND v.revoked_ms IS NULL), h.seq) AS until \
     FROM feed_heads h WHERE until > h.floor";
/// The new floor: before the first entry that is too young, within what one transaction removes.
pub(super) const NEW_FLOOR: &str = "SELECT coalesce(min(CASE WHEN at_ms >= ?5 THEN seq - 1 END), max(seq), ?3) FROM \
     (SELECT seq, at_ms FROM feed WHERE tenant = ?1 AND technician = ?2 AND seq > ?3 AND seq <= ?4 ORDER BY seq LIMIT ?6)";
/// The entry that says what a technician holds now stays: a phone's next changes build upon it. Those that stayed before
/// and say no longer what is held go now.
pub(super) const PRUNE_FEED: &str = "DELETE FROM feed WHERE tenant = ?1 AND technician = ?2 AND seq <= ?3 \
     AND NOT EXISTS (SELECT 1 FROM held h WHERE h.tenant = ?1 AND h.technician = ?2 \
       AND h.dispatch_id = feed.dispatch_id AND h.seq = feed.seq)";
pub(super) const PRUNE_KEYS: &str = "DELETE FROM idempotency_keys WHERE rowid IN \
     (SELECT rowid FROM idempotency_keys WHERE at_ms < ?1 ORDER BY at_ms LIMIT ?2)";

/// One round of pruning in one transaction; 0 when there is nothing left.
async fn prune(connection: &mut SqliteConnection, before: Timestamp) -> Result<u64, StoreError> {
    let mut transaction = connection.begin().await.map_err(fault)?;
    let mut removed = sqlx::query(PRUNE_KEYS)
        .bind(before.millis())
        .bind(PRUNE_ROWS_MAX)
        .execute(&mut *transaction)
        .await
        .map_err(fault)?
        .rows_affected();
    let feeds = sqlx::query(PRUNABLE_FEEDS).fetch_all(&mut *transaction).await.map_err(fault)?;
    for feed in &feeds {
        if removed >= u64::from(PRUNE_ROWS_MAX) {
            break;
        }
        removed += prune_feed(&mut transaction, feed, before).await.map_err(fault)?;
    }
    transaction.commit().await.map_err(fault)?;
    Ok(removed)
}

async fn prune_feed(
    connection: &mut SqliteConnection,
    feed: &sqlx::sqlite::SqliteRow,
    before: Timestamp,
) -> Result<u64, sqlx::Error> {
    let (tenant, technician): (String, String) = (feed.try_get(0)?, feed.try_get(1)?);
    let (floor, until): (i64, i64) = (feed.try_get(2)?, feed.try_get(3)?);
    let row = sqlx::query(NEW_FLOOR)
        .bind(&tenant)
        .bind(&technician)
        .bind(floor)
        .bind(until)
        .bind(before.millis())
        .bind(PRUNE_ROWS_MAX)
        .fetch_one(&mut *connection)
        .await?;
    let new_floor: i64 = row.try_get(0)?;
    if new_floor <= floor {
        return Ok(0);
    }
    let removed = sqlx::query(PRUNE_FEED)
        .bind(&tenant)
        .bind(&technician)
        .bind(new_floor)
        .execute(&mut *connection)
        .await?
        .rows_affected();
    sqlx::query("UPDATE feed_heads SET floor = ?3 WHERE tenant = ?1 AND technician = ?2")
        .bind(&tenant)
        .bind(&technician)
        .bind(new_floor)
        .execute(connection)
        .await?;
    Ok(removed)
}

/// Draws the database's identity anew, and leaves out numbers: those of the counts that there are, and by a row without a
/// tenant those of the counts that will begin.
pub(super) async fn renew_identity(connection: &mut SqliteConnection) -> Result<Identity, StoreError> {
    let mut transaction = connection.begin().await.map_err(fault)?;
    sqlx::query(
        "INSERT INTO counters (tenant, kind, next) VALUES ('', '', 0) ON CONFLICT DO NOTHING; \
         UPDATE counters SET next = next + ?1",
    )
    .bind(NUMBERS_SKIPPED.cast_signed())
    .execute(&mut *transaction)
    .await
    .map_err(fault)?;
    let identity = write_identity(&mut transaction).await?;
    transaction.commit().await.map_err(fault)?;
    Ok(identity)
}

/// Draws an identity.
pub(super) async fn write_identity(connection: &mut SqliteConnection) -> Result<Identity, StoreError> {
    let identity = Identity::draw();
    sqlx::query(
        "INSERT INTO meta (singleton, generation, actor) VALUES (1, ?1, ?2) \
         ON CONFLICT (singleton) DO UPDATE SET generation = excluded.generation, actor = excluded.actor",
    )
    .bind(identity.generation.0.cast_signed())
    .bind(identity.actor.0.as_slice())
    .execute(connection)
    .await
    .map_err(fault)?;
    Ok(identity)
}
