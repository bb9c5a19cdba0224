//! Reading the event journal and the audit trail.
//!
//! A reader with a cursor never skips an event that was in flight when it read: whoever writes for a tenant holds the
//! tenant's writing lock until its transaction is durable (`writer`), so a tenant's positions become visible in their order.

use super::PostgresStore;
use super::rows::{get, hash, json, time, unsigned};
use crate::events::Event;
use crate::service::model::AuditRecord;
use crate::store::audit::to_hex;
use crate::store::forms::position;
use crate::store::verify::{AuditPlace, StoredAuditHead, StoredAuditLine};
use crate::store::{Journal, StoreError};
use async_trait::async_trait;
use sqlx::postgres::PgRow;
use sync_core::domain::TenantId;

pub(super) const EVENTS: &str =
    "SELECT position, json FROM events WHERE tenant = $1 AND position > $2 ORDER BY position LIMIT $3";
pub(super) const EVENTS_OF_TOPIC: &str =
    "SELECT position, json FROM events WHERE tenant = $1 AND topic = $4 AND position > $2 ORDER BY position LIMIT $3";
pub(super) const EVENTS_OF_AGGREGATE: &str = "SELECT position, json FROM events \
     WHERE tenant = $1 AND aggregate_id = $4 AND position > $2 AND ($5::text IS NULL OR topic = $5) \
     ORDER BY position LIMIT $3";
pub(super) const AUDIT: &str = "SELECT seq, at_ms, actor, action, detail, previous_hash, hash FROM audit \
     WHERE tenant = $1 AND aggregate = $2 AND seq > $3 ORDER BY seq LIMIT $4";
pub(super) const AUDIT_WALK: &str = "SELECT a.tenant, a.aggregate, a.seq, a.at_ms, a.actor, a.action, a.detail, \
       a.previous_hash, a.hash, h.seq, h.hash \
     FROM audit a LEFT JOIN audit_heads h ON h.tenant = a.tenant AND h.aggregate = a.aggregate \
     WHERE (a.tenant, a.aggregate, a.seq) > ($1, $2, $3) ORDER BY a.tenant, a.aggregate, a.seq LIMIT $4";
pub(super) const AUDIT_HEADS: &str = "SELECT h.tenant, h.aggregate, h.seq, \
       EXISTS (SELECT 1 FROM audit a WHERE a.tenant = h.tenant AND a.aggregate = h.aggregate) \
     FROM audit_heads h WHERE (h.tenant, h.aggregate) >= ($1, $2) ORDER BY h.tenant, h.aggregate LIMIT $3";

/// A text that PostgreSQL cannot hold is in no row.
fn is_nowhere(text: Option<&str>) -> bool {
    text.is_some_and(|text| text.contains('\0'))
}

#[async_trait]
impl Journal for PostgresStore {
    async fn events(
        &self,
        tenant: &TenantId,
        after: u64,
        topic: Option<&str>,
        aggregate: Option<&str>,
        limit: u32,
    ) -> Result<Vec<(u64, Event)>, StoreError> {
        if is_nowhere(topic) || is_nowhere(aggregate) {
            return Ok(Vec::new());
        }
        let sql = match (topic, aggregate) {
            (_, Some(_)) => EVENTS_OF_AGGREGATE,
            (Some(_), None) => EVENTS_OF_TOPIC,
            (None, None) => EVENTS,
        };
        let rows = self
            .all(|| {
                let query = sqlx::query(sql).bind(tenant.as_str()).bind(position(after)).bind(i64::from(limit));
                match (topic, aggregate) {
                    (topic, Some(aggregate)) => query.bind(aggregate).bind(topic),
                    (Some(topic), None) => query.bind(topic),
                    (None, None) => query,
                }
            })
            .await?;
        rows.iter().map(|row| Ok((unsigned(row, 0)?, json(row, 1, "event")?))).collect()
    }

    async fn audit(
        &self,
        tenant: &TenantId,
        aggregate: &str,
        after: u64,
        limit: u32,
    ) -> Result<Vec<AuditRecord>, StoreError> {
        if is_nowhere(Some(aggregate)) {
            return Ok(Vec::new());
        }
        let rows = self
            .all(|| {
                sqlx::query(AUDIT).bind(tenant.as_str()).bind(aggregate).bind(position(after)).bind(i64::from(limit))
            })
            .await?;
        rows.iter()
            .map(|row| {
                Ok(AuditRecord {
                    aggregate: aggregate.to_owned(),
                    seq: unsigned(row, 0)?,
                    at: time(row, 1)?,
                    actor: get(row, 2)?,
                    action: get(row, 3)?,
                    detail: json(row, 4, "audit detail")?,
                    previous_hash: to_hex(&hash(row, 5)?),
                    hash: to_hex(&hash(row, 6)?),
                })
            })
            .collect()
    }

    async fn audit_walk(&self, after: &AuditPlace, limit: u32) -> Result<Vec<StoredAuditLine>, StoreError> {
        if is_nowhere(Some(&after.aggregate)) {
            return Ok(Vec::new());
        }
        let (tenant, aggregate, seq) = (after.tenant.as_str(), after.aggregate.as_str(), after.seq);
        let rows = self
            .all(|| {
                let query = sqlx::query(AUDIT_WALK).bind(tenant).bind(aggregate);
                query.bind(seq).bind(i64::from(limit))
            })
            .await?;
        rows.iter()
            .map(|row| {
                let head: Option<i64> = get(row, 9)?;
                Ok(StoredAuditLine {
                    place: place(row)?,
                    at_ms: get(row, 3)?,
                    actor: get(row, 4)?,
                    action: get(row, 5)?,
                    detail: get(row, 6)?,
                    previous_hash: get(row, 7)?,
                    hash: get(row, 8)?,
                    head: head.map(|seq| Ok::<_, StoreError>((seq, get(row, 10)?))).transpose()?,
                })
            })
            .collect()
    }

    async fn audit_heads(&self, from: &AuditPlace, limit: u32) -> Result<Vec<StoredAuditHead>, StoreError> {
        if is_nowhere(Some(&from.aggregate)) {
            return Ok(Vec::new());
        }
        let (tenant, aggregate) = (from.tenant.as_str(), from.aggregate.as_str());
        let rows = self
            .all(|| {
                let query = sqlx::query(AUDIT_HEADS).bind(tenant).bind(aggregate);
                query.bind(i64::from(limit))
            })
            .await?;
        rows.iter().map(|row| Ok(StoredAuditHead { place: place(row)?, has_lines: get(row, 3)? })).collect()
    }
}

fn place(row: &PgRow) -> Result<AuditPlace, StoreError> {
    Ok(AuditPlace { tenant: get(row, 0)?, aggregate: get(row, 1)?, seq: get(row, 2)? })
}
