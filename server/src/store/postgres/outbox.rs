//! Events on their way out.

use super::PostgresStore;
use super::rows::{fault, get, json, unsigned};
use super::writer::LOCK_SPACE;
use crate::events::Event;
use crate::store::forms::position;
use crate::store::{OUTBOX_COUNTED_MAX, Outbox, OutboxEvent, OutboxLag, RelayTurn, StoreError};
use async_trait::async_trait;
use sqlx::{Connection as _, PgConnection, Row as _};
use std::time::Duration;
use sync_core::domain::Timestamp;

pub(super) const UNPUBLISHED: &str = "SELECT position, json, traceparent FROM events \
     WHERE published_ms IS NULL AND position > $1 ORDER BY position LIMIT $2";
pub(super) const MARK_PUBLISHED: &str = "UPDATE events e SET published_ms = $1 FROM unnest($2::bigint[]) AS n(position) \
     WHERE e.position = n.position AND e.published_ms IS NULL";
pub(super) const WAITING: &str =
    "SELECT count(*) FROM (SELECT 1 FROM events WHERE published_ms IS NULL LIMIT $1) waiting";

/// Whether somebody has an advisory lock of this database.
const TAKEN: &str = "SELECT 1 FROM pg_locks l JOIN pg_database b ON b.oid = l.database \
     WHERE l.locktype = 'advisory' AND l.granted AND l.classid = $1::int4::oid AND l.objid = $2::int4::oid AND l.objsubid = 2 \
     AND b.datname = current_database()";
/// The relay's advisory lock, beside those of the writers' stripes.
const RELAY_LOCK: i32 = 1_000;
/// A connection that does not answer within this time has lost the turn.
const HELD_WITHIN: Duration = Duration::from_secs(5);

/// A connection that has the relay's lock; PostgreSQL takes it back when the connection ends, however that happens.
struct Locked {
    connection: PgConnection,
}

#[async_trait]
impl RelayTurn for Locked {
    async fn is_held(&mut self) -> bool {
        matches!(tokio::time::timeout(HELD_WITHIN, self.connection.ping()).await, Ok(Ok(())))
    }
}

impl PostgresStore {
    /// A turn, if nobody has it. Whoever asks again and again for one that is taken costs one look, not a connection each.
    pub(super) async fn turn(&self, lock: i32) -> Result<Option<Box<dyn RelayTurn>>, StoreError> {
        let taken = self.one(|| sqlx::query(TAKEN).bind(LOCK_SPACE).bind(lock)).await?;
        if taken.is_some() {
            return Ok(None);
        }
        let mut connection = self.target.connect().await.map_err(fault)?;
        let row = sqlx::query("SELECT pg_try_advisory_lock($1, $2)")
            .bind(LOCK_SPACE)
            .bind(lock)
            .fetch_one(&mut connection)
            .await
            .map_err(fault)?;
        let locked: bool = row.try_get(0).map_err(fault)?;
        if locked {
            return Ok(Some(Box::new(Locked { connection })));
        }
        connection.close().await.map_err(fault)?;
        Ok(None)
    }
}

#[async_trait]
impl Outbox for PostgresStore {
    async fn unpublished(&self, after: u64, limit: u32) -> Result<Vec<OutboxEvent>, StoreError> {
        let rows = self.all(|| sqlx::query(UNPUBLISHED).bind(position(after)).bind(i64::from(limit))).await?;
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
        let positions: Vec<i64> = positions.iter().map(|at| position(*at)).collect();
        self.all(|| sqlx::query(MARK_PUBLISHED).bind(at.millis()).bind(&positions)).await?;
        Ok(())
    }

    async fn outbox_lag(&self) -> Result<OutboxLag, StoreError> {
        let waiting = self.one(|| sqlx::query(WAITING).bind(i64::from(OUTBOX_COUNTED_MAX))).await?;
        let oldest = self.one(|| sqlx::query(UNPUBLISHED).bind(0_i64).bind(1_i64)).await?;
        let oldest = oldest.map(|row| json::<Event>(&row, 1, "event")).transpose()?;
        Ok(OutboxLag {
            waiting: waiting.as_ref().map_or(Ok(0), |row| unsigned(row, 0))?,
            oldest: oldest.map(|event| event.timestamp),
        })
    }

    async fn relay_turn(&self) -> Result<Option<Box<dyn RelayTurn>>, StoreError> {
        self.turn(RELAY_LOCK).await
    }

    async fn event_written(&self) {
        self.event_written.notified().await;
    }
}
