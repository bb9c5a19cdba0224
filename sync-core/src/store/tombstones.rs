//! "Why is my job gone?"

use super::checksum::sum;
use super::{Store, StoreError, Tx};
use crate::domain::time::DAY_MS;
use crate::domain::{DispatchId, Timestamp, Tombstone, TombstoneReason};

/// A visit that has left this phone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TombstoneCard {
    /// Why.
    pub tombstone: Tombstone,
    /// Unsent work on it that is still kept.
    pub unsent: u32,
}

/// Tombstones are removed this long after they were seen.
const SEEN_KEPT_MS: i64 = 30 * DAY_MS;
/// And this long after the visit left, seen or not.
const UNSEEN_KEPT_MS: i64 = 180 * DAY_MS;

impl Store {
    /// Visits that have left and that the technician has not seen leave, newest first.
    ///
    /// # Errors
    /// The database's.
    pub fn tombstones(&self) -> Result<Vec<TombstoneCard>, StoreError> {
        self.read(|conn| {
            let mut statement = conn.prepare_cached(
                "SELECT t.body, t.sum, (SELECT count(*) FROM outbox o WHERE o.dispatch_id = t.dispatch_id AND o.state <> 'acknowledged') \
                 FROM tombstones t WHERE t.seen_at_ms IS NULL ORDER BY t.at_ms DESC, t.dispatch_id",
            )?;
            let mut rows = statement.query([])?;
            let mut cards = Vec::new();
            while let Some(row) = rows.next()? {
                let (body, stored): (Vec<u8>, Vec<u8>) = (row.get(0)?, row.get(1)?);
                // A damaged one says nothing true; the visit is gone all the same.
                if sum(&[&body]) == *stored
                    && let Ok(tombstone) = minicbor_serde::from_slice(&body)
                {
                    let unsent = u32::try_from(row.get::<_, i64>(2)?).unwrap_or(u32::MAX);
                    cards.push(TombstoneCard { tombstone, unsent });
                }
            }
            Ok(cards)
        })
    }

    /// The technician has seen it. True when there was one to see.
    ///
    /// # Errors
    /// The database's.
    pub fn acknowledge_tombstone(&self, dispatch: &DispatchId, now: Timestamp) -> Result<bool, StoreError> {
        self.write(|tx| {
            let seen = tx.sql.execute(
                "UPDATE tombstones SET seen_at_ms = ?2 WHERE dispatch_id = ?1 AND seen_at_ms IS NULL",
                (dispatch.as_str(), tx.phone.office_time(now).millis()),
            )?;
            Ok(seen > 0)
        })
    }
}

impl Tx<'_> {
    /// The same tombstone told twice stays seen. A visit that only left the time window is no news to anybody.
    pub(super) fn put_tombstone(&mut self, tombstone: &Tombstone) -> Result<(), StoreError> {
        if tombstone.reason == TombstoneReason::OutOfWindow {
            return Ok(());
        }
        let body = minicbor_serde::to_vec(tombstone).map_err(|e| StoreError::Database(e.to_string()))?;
        self.sql
            .prepare_cached(
                "INSERT INTO tombstones (dispatch_id, at_ms, body, sum) VALUES (?1, ?2, ?3, ?4) \
                 ON CONFLICT (dispatch_id) DO UPDATE SET \
                 seen_at_ms = CASE WHEN at_ms = excluded.at_ms THEN seen_at_ms END, \
                 at_ms = excluded.at_ms, body = excluded.body, sum = excluded.sum",
            )?
            .execute((tombstone.dispatch_id.as_str(), tombstone.at.millis(), &body, sum(&[&body])))?;
        Ok(())
    }

    /// The visit has come back.
    pub(super) fn remove_tombstone(&mut self, dispatch: &DispatchId) -> Result<(), StoreError> {
        self.sql.prepare_cached("DELETE FROM tombstones WHERE dispatch_id = ?1")?.execute([dispatch.as_str()])?;
        Ok(())
    }

    /// Answers how many were past their time.
    pub(super) fn prune_tombstones(&mut self, now: Timestamp) -> Result<u32, StoreError> {
        let pruned = self.sql.execute(
            "DELETE FROM tombstones WHERE seen_at_ms < ?1 OR at_ms < ?2",
            (now.plus_millis(-SEEN_KEPT_MS).millis(), now.plus_millis(-UNSEEN_KEPT_MS).millis()),
        )?;
        Ok(u32::try_from(pruned).unwrap_or(u32::MAX))
    }
}
