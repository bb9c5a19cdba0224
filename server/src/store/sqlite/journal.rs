//! Reading the event journal and the audit trail.

use super::SqliteStore;
use super::rows::{fault, get, json, time, unsigned};
use crate::events::Event;
use crate::service::model::AuditRecord;
use crate::store::audit::to_hex;
pub(super) use crate::store::forms::position;
use crate::store::verify::{AuditPlace, StoredAuditHead, StoredAuditLine};
use crate::store::{Journal, StoreError};
use async_trait::async_trait;
use sqlx::sqlite::SqliteRow;
use sync_core::domain::TenantId;

pub(super) const EVENTS: &str = "SELECT position, json FROM events INDEXED BY events_by_tenant \
     WHERE tenant = ?1 AND position > ?2 ORDER BY position LIMIT ?3";
pub(super) const EVENTS_OF_TOPIC: &str = "SELECT position, json FROM events INDEXED BY events_by_topic \
     WHERE tenant = ?1 AND topic = ?4 AND position > ?2 ORDER BY position LIMIT ?3";
pub(super) const EVENTS_OF_AGGREGATE: &str = "SELECT position, json FROM events INDEXED BY events_by_aggregate \
     WHERE tenant = ?1 AND aggregate_id = ?4 AND position > ?2 AND (?5 IS NULL OR topic = ?5) \
     ORDER BY position LIMIT ?3";
pub(super) const AUDIT: &str = "SELECT seq, at_ms, actor, action, detail, previous_hash, hash FROM audit \
     WHERE tenant = ?1 AND aggregate = ?2 AND seq > ?3 ORDER BY seq LIMIT ?4";
/// Texts as bytes: one that was changed into something that is no text has to be found, not to fail the walk.
pub(super) const AUDIT_WALK: &str = "SELECT a.tenant, a.aggregate, a.seq, a.at_ms, CAST(a.actor AS BLOB), \
       CAST(a.action AS BLOB), CAST(a.detail AS BLOB), a.previous_hash, a.hash, h.seq, h.hash \
     FROM audit a LEFT JOIN audit_heads h ON h.tenant = a.tenant AND h.aggregate = a.aggregate \
     WHERE (a.tenant, a.aggregate, a.seq) > (?1, ?2, ?3) ORDER BY a.tenant, a.aggregate, a.seq LIMIT ?4";
pub(super) const AUDIT_HEADS: &str = "SELECT h.tenant, h.aggregate, h.seq, \
       EXISTS (SELECT 1 FROM audit a WHERE a.tenant = h.tenant AND a.aggregate = h.aggregate) \
     FROM audit_heads h WHERE (h.tenant, h.aggregate) >= (?1, ?2) ORDER BY h.tenant, h.aggregate LIMIT ?3";

#[async_trait]
impl Journal for SqliteStore {
    async fn events(
        &self,
        tenant: &TenantId,
        after: u64,
        topic: Option<&str>,
        aggregate: Option<&str>,
        limit: u32,
    ) -> Result<Vec<(u64, Event)>, StoreError> {
        let sql = match (topic, aggregate) {
            (_, Some(_)) => EVENTS_OF_AGGREGATE,
            (Some(_), None) => EVENTS_OF_TOPIC,
            (None, None) => EVENTS,
        };
        let mut query = sqlx::query(sql).bind(tenant.as_str()).bind(position(after)).bind(limit);
        if let Some(aggregate) = aggregate {
            query = query.bind(aggregate).bind(topic);
        } else if let Some(topic) = topic {
            query = query.bind(topic);
        }
        let rows = query.fetch_all(&self.readers).await.map_err(fault)?;
        rows.iter().map(|row| Ok((unsigned(row, 0)?, json(row, 1, "event")?))).collect()
    }

    async fn audit(
        &self,
        tenant: &TenantId,
        aggregate: &str,
        after: u64,
        limit: u32,
    ) -> Result<Vec<AuditRecord>, StoreError> {
        let rows = sqlx::query(AUDIT)
            .bind(tenant.as_str())
            .bind(aggregate)
            .bind(position(after))
            .bind(limit)
            .fetch_all(&self.readers)
            .await
            .map_err(fault)?;
        rows.iter()
            .map(|row| {
                Ok(AuditRecord {
                    aggregate: aggregate.to_owned(),
                    seq: unsigned(row, 0)?,
                    at: time(row, 1)?,
                    actor: get(row, 2)?,
                    action: get(row, 3)?,
                    detail: json(row, 4, "audit detail")?,
                    previous_hash: to_hex(get(row, 5)?),
                    hash: to_hex(get(row, 6)?),
                })
            })
            .collect()
    }

    async fn audit_walk(&self, after: &AuditPlace, limit: u32) -> Result<Vec<StoredAuditLine>, StoreError> {
        let rows = sqlx::query(AUDIT_WALK)
            .bind(&after.tenant)
            .bind(&after.aggregate)
            .bind(after.seq)
            .bind(limit)
            .fetch_all(&self.readers)
            .await
            .map_err(fault)?;
        rows.iter()
            .map(|row| {
                let text = |column| Ok::<_, StoreError>(String::from_utf8_lossy(get(row, column)?).into_owned());
                let head: Option<i64> = get(row, 9)?;
                Ok(StoredAuditLine {
                    place: place(row)?,
                    at_ms: get(row, 3)?,
                    actor: text(4)?,
                    action: text(5)?,
                    detail: text(6)?,
                    previous_hash: get(row, 7)?,
                    hash: get(row, 8)?,
                    head: head.map(|seq| Ok::<_, StoreError>((seq, get(row, 10)?))).transpose()?,
                })
            })
            .collect()
    }

    async fn audit_heads(&self, from: &AuditPlace, limit: u32) -> Result<Vec<StoredAuditHead>, StoreError> {
        let rows = sqlx::query(AUDIT_HEADS)
            .bind(&from.tenant)
            .bind(&from.aggregate)
            .bind(limit)
            .fetch_all(&self.readers)
            .await
            .map_err(fault)?;
        rows.iter().map(|row| Ok(StoredAuditHead { place: place(row)?, has_lines: get(row, 3)? })).collect()
    }
}

fn place(row: &SqliteRow) -> Result<AuditPlace, StoreError> {
    Ok(AuditPlace { tenant: get(row, 0)?, aggregate: get(row, 1)?, seq: get(row, 2)? })
}
