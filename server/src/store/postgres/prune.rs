//! Forgetting what is past its time. Each step is one statement and stands alone, so several nodes may do it at once, beside
//! the writers, and never hold two rows that another waits for.

use super::PostgresStore;
use super::rows::{fault, get};
use crate::store::StoreError;
use sync_core::domain::Timestamp;

/// Most rows that one statement removes, so that it is short.
const ROWS_MAX: i64 = 2_000;

pub(super) const KEYS: &str = "DELETE FROM idempotency_keys k USING (SELECT tenant, key FROM idempotency_keys \
       WHERE at_ms < $1 ORDER BY at_ms LIMIT $2 FOR UPDATE SKIP LOCKED) old \
     WHERE k.tenant = old.tenant AND k.key = old.key";
/// The technicians' feeds, and up to where every phone of theirs has stored them. A revoked phone counts no more.
pub(super) const PRUNABLE_FEEDS: &str = "SELECT tenant, technician, floor, until FROM (SELECT h.tenant, h.technician, h.floor, \
       coalesce((SELECT min(v.acknowledged) FROM devices v WHERE v.tenant = h.tenant AND v.technician = h.technician \
         AND v.revoked_ms IS NULL), h.seq) AS until FROM feed_heads h) f WHERE until > floor";
/// The new floor lies before the first entry that is too young, within what one statement removes. The entry that says what a
/// technician holds now stays: a phone's next changes build upon it. Those that stayed before and say no longer what is held go
/// now.
pub(super) const FEED: &str = "WITH new AS MATERIALIZED ( \
       SELECT coalesce(min(CASE WHEN at_ms >= $5 THEN seq - 1 END), max(seq), $3) AS floor FROM \
       (SELECT seq, at_ms FROM feed WHERE tenant = $1 AND technician = $2 AND seq > $3 AND seq <= $4 ORDER BY seq LIMIT $6) f), \
     gone AS (DELETE FROM feed USING new WHERE tenant = $1 AND technician = $2 AND seq <= new.floor AND new.floor > $3 \
       AND NOT EXISTS (SELECT 1 FROM held h WHERE h.tenant = $1 AND h.technician = $2 \
         AND h.dispatch_id = feed.dispatch_id AND h.seq = feed.seq) RETURNING 1), \
     moved AS (UPDATE feed_heads h SET floor = new.floor FROM new \
       WHERE h.tenant = $1 AND h.technician = $2 AND h.floor < new.floor RETURNING 1) \
     SELECT (SELECT count(*) FROM gone)";

impl PostgresStore {
    pub(super) async fn prune_all(&self, before: Timestamp) -> Result<u64, StoreError> {
        let mut removed = 0;
        loop {
            let keys = self
                .again(|| async {
                    let query = sqlx::query(KEYS).bind(before.millis()).bind(ROWS_MAX);
                    Ok(query.execute(&self.pool).await.map_err(fault)?.rows_affected())
                })
                .await?;
            removed += keys;
            if keys < ROWS_MAX.cast_unsigned() {
                break;
            }
        }
        for feed in self.all(|| sqlx::query(PRUNABLE_FEEDS)).await? {
            let (tenant, technician): (String, String) = (get(&feed, 0)?, get(&feed, 1)?);
            let (floor, until): (i64, i64) = (get(&feed, 2)?, get(&feed, 3)?);
            let row = self
                .one(|| {
                    sqlx::query(FEED)
                        .bind(&tenant)
                        .bind(&technician)
                        .bind(floor)
                        .bind(until)
                        .bind(before.millis())
                        .bind(ROWS_MAX)
                })
                .await?;
            let gone: i64 = row.as_ref().map_or(Ok(0), |row| get(row, 0))?;
            removed += gone.cast_unsigned();
        }
        Ok(removed)
    }
}
