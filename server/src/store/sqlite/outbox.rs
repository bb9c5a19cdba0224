//! Events on their way out.

use super::SqliteStore;
use super::journal::position;
use super::rows::{fault, get, json, unsigned};
use super::writer::Job;
use crate::events::Event;
use crate::store::{OUTBOX_COUNTED_MAX, Outbox, OutboxEvent, OutboxLag, RelayTurn, StoreError};
use async_trait::async_trait;
use std::fs::{File, TryLockError};
use std::path::Path;
use sync_core::domain::Timestamp;

pub(super) const UNPUBLISHED: &str = "SELECT position, json, traceparent FROM events INDEXED BY events_unpublished \
     WHERE published_ms IS NULL AND position > ?1 ORDER BY position LIMIT ?2";
pub(super) const MARK_PUBLISHED: &str = "UPDATE events SET published_ms = ?1 \
     WHERE position IN (SELECT value FROM json_each(?2)) AND published_ms IS NULL";
pub(super) const WAITING: &str = "SELECT count(*) FROM (SELECT 1 FROM events INDEXED BY events_unpublished \
     WHERE published_ms IS NULL LIMIT ?1)";

/// A turn, if nobody has it: the file's lock.
pub(super) fn turn(path: &Path) -> Result<Option<Box<dyn RelayTurn>>, StoreError> {
    let refused = |error: std::io::Error| StoreError::Database(format!("the lock {}: {error}", path.display()));
    let mut options = File::options();
    options.create(true).truncate(false).write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let file = options.open(path).map_err(refused)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(Box::new(Locked(file)))),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(refused(error)),
    }
}

/// The file's lock; the system takes it back with the process, however that ends.
struct Locked(#[expect(dead_code, reason = "dropped with the turn, which unlocks")] File);

#[async_trait]
impl RelayTurn for Locked {
    async fn is_held(&mut self) -> bool {
        true
    }
}

#[async_trait]
impl Outbox for SqliteStore {
    async fn unpublished(&self, after: u64, limit: u32) -> Result<Vec<OutboxEvent>, StoreError> {
        let rows =
            sqlx::query(UNPUBLISHED).bind(position(after)).bind(limit).fetch_all(&self.readers).await.map_err(fault)?;
        rows.iter()
            .map(|row| {
                Ok(OutboxEvent {
                    position: unsigned(row, 0)?,
                    event: json(row, 1, "event")?,
                    traceparent: get(row, 2)?,
                })
            })
            .collect()
    }

    async fn mark_published(&self, positions: &[u64], at: Timestamp) -> Result<(), StoreError> {
        if positions.is_empty() {
            return Ok(());
        }
        let positions = positions.to_vec();
        self.ask(|answer| Job::MarkPublished { positions, at, answer }).await?
    }

    async fn outbox_lag(&self) -> Result<OutboxLag, StoreError> {
        let waiting = sqlx::query(WAITING).bind(OUTBOX_COUNTED_MAX).fetch_one(&self.readers).await.map_err(fault)?;
        let oldest = sqlx::query(UNPUBLISHED).bind(0).bind(1).fetch_optional(&self.readers).await.map_err(fault)?;
        let oldest = oldest.map(|row| json::<Event>(&row, 1, "event")).transpose()?;
        Ok(OutboxLag { waiting: unsigned(&waiting, 0)?, oldest: oldest.map(|event| event.timestamp) })
    }

    async fn relay_turn(&self) -> Result<Option<Box<dyn RelayTurn>>, StoreError> {
        turn(&self.relay_lock)
    }

    async fn event_written(&self) {
        self.event_written.notified().await;
    }
}
