//! There is one server on a file. Another process may write to it now and then (`crm-dispatch ingest`); what that changes is found
//! by looking.

use super::SqliteStore;
use super::rows::{fault, unsigned};
use crate::store::{Heard, Hint, Nodes, RelayTurn, StoreError};
use async_trait::async_trait;
use sqlx::Row as _;
use sync_core::domain::{DeviceId, TechnicianId, TenantId};

/// The pairs come as one JSON array and are numbered by their place in it.
pub(super) const FEED_HEADS: &str = "SELECT coalesce(h.seq, 0) FROM json_each(?1) asked \
     LEFT JOIN feed_heads h ON h.tenant = asked.value ->> 0 AND h.technician = asked.value ->> 1 ORDER BY asked.key";
pub(super) const REVOKED: &str = "SELECT asked.key FROM json_each(?1) asked \
     JOIN devices v ON v.tenant = asked.value ->> 0 AND v.device = asked.value ->> 1 WHERE v.revoked_ms IS NOT NULL \
     ORDER BY asked.key";

#[async_trait]
impl Nodes for SqliteStore {
    fn is_shared(&self) -> bool {
        false
    }

    fn announce(&self, _: Vec<Hint>) {}

    async fn heard(&self) -> Heard {
        std::future::pending().await
    }

    async fn feed_heads(&self, of: &[(TenantId, TechnicianId)]) -> Result<Vec<u64>, StoreError> {
        if of.is_empty() {
            return Ok(Vec::new());
        }
        let asked = serde_json::json!(of).to_string();
        let rows = sqlx::query(FEED_HEADS).bind(asked).fetch_all(&self.readers).await.map_err(fault)?;
        rows.iter().map(|row| unsigned(row, 0)).collect()
    }

    async fn revoked(&self, among: &[(TenantId, DeviceId)]) -> Result<Vec<(TenantId, DeviceId)>, StoreError> {
        if among.is_empty() {
            return Ok(Vec::new());
        }
        let asked = serde_json::json!(among).to_string();
        let rows = sqlx::query(REVOKED).bind(asked).fetch_all(&self.readers).await.map_err(fault)?;
        let mut revoked = Vec::with_capacity(rows.len());
        for row in &rows {
            let key: i64 = row.try_get(0).map_err(fault)?;
            revoked.extend(usize::try_from(key).ok().and_then(|key| among.get(key)).cloned());
        }
        Ok(revoked)
    }

    async fn sweep_turn(&self) -> Result<Option<Box<dyn RelayTurn>>, StoreError> {
        super::outbox::turn(&self.sweep_lock)
    }
}
