//! Reading dispatches.

use super::rows::{
    STORED_COLUMNS, UNSCHEDULED_MS, fault, get, id, json, priority_rank, sla_row, standing_columns, stored_columns,
};
use super::{SqliteStore, rows};
use crate::service::model::{DispatchSearch, ExceptionRow, SlaRow, StoredDispatch};
use crate::store::forms::to_json;
use crate::store::{Dispatches, FactKeyQuery, FactKeys, StandingOf, StoreError};
use async_trait::async_trait;
use sqlx::sqlite::SqliteRow;
use std::collections::HashSet;
use sync_core::domain::{DispatchId, ServiceOrderId, TenantId, Timestamp, Window};

pub(super) const ONE: &str = concat!(
    "SELECT ",
    stored_columns!(),
    " FROM dispatches d LEFT JOIN sla s ON s.tenant = d.tenant AND s.dispatch_id = d.dispatch_id \
     WHERE d.tenant = ?1 AND d.dispatch_id = ?2"
);

pub(super) const STANDINGS: &str = concat!(
    "SELECT d.dispatch_id, d.revision, d.tag, ",
    standing_columns!(),
    " FROM json_each(?2) j CROSS JOIN dispatches d ON d.tenant = ?1 AND d.dispatch_id = j.value \
     LEFT JOIN sla s ON s.tenant = d.tenant AND s.dispatch_id = d.dispatch_id"
);

pub(super) const DOCUMENTS: &str = concat!(
    "SELECT ",
    stored_columns!(),
    ", o.document FROM json_each(?2) j \
     CROSS JOIN dispatches d ON d.tenant = ?1 AND d.dispatch_id = j.value \
     CROSS JOIN documents o ON o.tenant = ?1 AND o.dispatch_id = j.value \
     LEFT JOIN sla s ON s.tenant = d.tenant AND s.dispatch_id = d.dispatch_id"
);

pub(super) const BY_SERVICE_ORDER: &str =
    "SELECT dispatch_id FROM dispatches WHERE tenant = ?1 AND service_order_id = ?2";

/// One search, by the index that narrows most. Every one has the same parameters: 1 tenant, 2 the index's column,
/// 3 and 4 the position to go on from, 5 the last start, 6 technician, 7 location, 8 order, 9 lowest priority,
/// 10 statuses, 11 limit.
macro_rules! search {
    ($index:literal, $narrowed:literal) => {
        concat!(
            "SELECT ",
            stored_columns!(),
            " FROM dispatches d INDEXED BY ",
            $index,
            " LEFT JOIN sla s ON s.tenant = d.tenant AND s.dispatch_id = d.dispatch_id \
             WHERE d.tenant = ?1 AND ",
            $narrowed,
            " AND (d.start_ms, d.dispatch_id) > (?3, ?4) AND d.start_ms <= ?5 \
             AND (?6 IS NULL OR d.technician = ?6) AND (?7 IS NULL OR d.location_id = ?7) \
             AND (?8 IS NULL OR d.service_order_id = ?8) AND d.priority >= ?9 \
             AND (?10 IS NULL OR d.office_status IN (SELECT value FROM json_each(?10))) \
             ORDER BY d.start_ms, d.dispatch_id LIMIT ?11"
        )
    };
}

pub(super) const SEARCH_BY_TECHNICIAN: &str = search!("dispatches_by_technician", "d.technician = ?2");
pub(super) const SEARCH_BY_LOCATION: &str = search!("dispatches_by_location", "d.location_id = ?2");
pub(super) const SEARCH_BY_STATUS: &str = search!("dispatches_by_status", "d.office_status = ?2");
pub(super) const SEARCH_BY_START: &str = search!("dispatches_by_start", "?2 IS NULL");
pub(super) const SEARCH_BY_ORDER: &str = concat!(
    "SELECT ",
    stored_columns!(),
    " FROM dispatches d LEFT JOIN sla s ON s.tenant = d.tenant AND s.dispatch_id = d.dispatch_id \
     WHERE d.tenant = ?1 AND d.service_order_id = ?2 \
     AND (d.start_ms, d.dispatch_id) > (?3, ?4) AND d.start_ms <= ?5 \
     AND (?6 IS NULL OR d.technician = ?6) AND (?7 IS NULL OR d.location_id = ?7) \
     AND (?8 IS NULL OR d.service_order_id = ?8) AND d.priority >= ?9 \
     AND (?10 IS NULL OR d.office_status IN (SELECT value FROM json_each(?10))) LIMIT ?11"
);

pub(super) const EXCEPTIONS_OPEN: &str = "SELECT json FROM exceptions INDEXED BY exceptions_open \
     WHERE tenant = ?1 AND resolved_ms IS NULL ORDER BY raised_ms DESC, exception_id DESC LIMIT ?2";
pub(super) const EXCEPTIONS_ALL: &str = "SELECT json FROM exceptions INDEXED BY exceptions_by_time \
     WHERE tenant = ?1 ORDER BY raised_ms DESC, exception_id DESC LIMIT ?2";
pub(super) const EXCEPTIONS_OF_DISPATCH: &str = "SELECT json FROM exceptions INDEXED BY exceptions_by_dispatch \
     WHERE tenant = ?1 AND dispatch_id = ?3 AND (?4 = 0 OR resolved_ms IS NULL) \
     ORDER BY raised_ms DESC, exception_id DESC LIMIT ?2";

/// Deadline passed, not arrived, not ended, and no breach announced yet.
pub(super) const DUE_DEADLINE: &str = "SELECT d.tenant, d.dispatch_id FROM dispatches d \
     INDEXED BY dispatches_watched WHERE d.watch_ms < ?1 AND NOT EXISTS \
     (SELECT 1 FROM sla s WHERE s.tenant = d.tenant AND s.dispatch_id = d.dispatch_id) ORDER BY d.watch_ms LIMIT ?2";
pub(super) const DUE_HELD: &str = "SELECT DISTINCT tenant, dispatch_id FROM facts INDEXED BY facts_held \
     WHERE held_since_ms < ?1 ORDER BY held_since_ms LIMIT ?2";
/// Provisional breaches; those first whose lead has nobody to wait for or whose phone has reported since the deadline,
/// so that many silent phones do not keep them from being decided.
pub(super) const DUE_PROVISIONAL: &str = "SELECT s.tenant, s.dispatch_id FROM sla s INDEXED BY sla_provisional \
     CROSS JOIN dispatches d ON d.tenant = s.tenant AND d.dispatch_id = s.dispatch_id \
     WHERE s.status = 'PROVISIONAL' ORDER BY (d.watch_ms IS NULL OR d.technician IS NULL OR EXISTS \
       (SELECT 1 FROM devices v INDEXED BY devices_by_technician WHERE v.tenant = s.tenant AND v.technician = d.technician \
        AND v.complete_ms >= s.deadline_ms)) DESC, s.deadline_ms LIMIT ?1";

pub(super) const SLA: &str = "SELECT dispatch_id, deadline_ms, status, announced_ms, decided_ms, arrived_ms \
     FROM sla INDEXED BY sla_by_time WHERE tenant = ?1 AND announced_ms >= ?2 AND announced_ms < ?3 \
     ORDER BY announced_ms, dispatch_id";

pub(super) const FACTS_BY_SEQUENCE: &str = "SELECT f.device, f.seq, f.fact_id FROM json_each(?2) j \
     CROSS JOIN facts f ON f.tenant = ?1 AND f.device = j.value ->> 0 AND f.seq = j.value ->> 1 \
     WHERE f.seq_reused = 0";
pub(super) const FACTS_BY_SERIAL: &str = "SELECT f.serial, f.fact_id FROM json_each(?2) j \
     CROSS JOIN facts f INDEXED BY facts_serial ON f.tenant = ?1 AND f.serial = j.value \
     WHERE f.serial IS NOT NULL AND (f.verdict = 'accepted' OR f.held_since_ms IS NOT NULL) ORDER BY f.fact_id";

/// A JSON list for `json_each`.
pub(super) fn json_list<T: serde::Serialize>(items: &[T]) -> Result<String, StoreError> {
    to_json("list", items)
}

#[async_trait]
impl Dispatches for SqliteStore {
    async fn dispatch(&self, tenant: &TenantId, dispatch: &DispatchId) -> Result<Option<StoredDispatch>, StoreError> {
        let row = sqlx::query(ONE)
            .bind(tenant.as_str())
            .bind(dispatch.as_str())
            .fetch_optional(&self.readers)
            .await
            .map_err(fault)?;
        row.as_ref().map(rows::stored_dispatch).transpose()
    }

    async fn standings(&self, tenant: &TenantId, ids: &[DispatchId]) -> Result<Vec<StandingOf>, StoreError> {
        sqlx::query(STANDINGS)
            .bind(tenant.as_str())
            .bind(json_list(ids)?)
            .fetch_all(&self.readers)
            .await
            .map_err(fault)?
            .iter()
            .map(rows::standing_of)
            .collect()
    }

    async fn documents(
        &self,
        tenant: &TenantId,
        ids: &[DispatchId],
    ) -> Result<Vec<(StoredDispatch, Vec<u8>)>, StoreError> {
        sqlx::query(DOCUMENTS)
            .bind(tenant.as_str())
            .bind(json_list(ids)?)
            .fetch_all(&self.readers)
            .await
            .map_err(fault)?
            .iter()
            .map(|row| Ok((rows::stored_dispatch(row)?, get(row, STORED_COLUMNS)?)))
            .collect()
    }

    async fn by_service_order(
        &self,
        tenant: &TenantId,
        order: &ServiceOrderId,
    ) -> Result<Option<DispatchId>, StoreError> {
        let row = sqlx::query(BY_SERVICE_ORDER)
            .bind(tenant.as_str())
            .bind(order.as_str())
            .fetch_optional(&self.readers)
            .await
            .map_err(fault)?;
        row.as_ref().map(|row| id(row, 0)).transpose()
    }

    async fn search(&self, search: &DispatchSearch) -> Result<Vec<StoredDispatch>, StoreError> {
        if let Some(order) = &search.service_order {
            return self.search_by(SEARCH_BY_ORDER, Some(order.as_str()), search).await;
        }
        if let Some(technician) = &search.technician {
            return self.search_by(SEARCH_BY_TECHNICIAN, Some(technician.as_str()), search).await;
        }
        if let Some(location) = &search.location {
            return self.search_by(SEARCH_BY_LOCATION, Some(location.as_str()), search).await;
        }
        if search.statuses.is_empty() {
            return self.search_by(SEARCH_BY_START, None, search).await;
        }
        // One look a status, each by the index and in page order; merged, they are the page.
        let mut page = Vec::new();
        let statuses: HashSet<_> = search.statuses.iter().collect();
        for status in statuses {
            page.extend(self.search_by(SEARCH_BY_STATUS, Some(status.name()), search).await?);
        }
        page.sort_by(|a, b| (start_ms(a), &a.row.dispatch_id).cmp(&(start_ms(b), &b.row.dispatch_id)));
        // A dispatch whose status changed between two looks may be in both.
        page.dedup_by(|a, b| a.row.dispatch_id == b.row.dispatch_id);
        page.truncate(search.limit as usize);
        Ok(page)
    }

    async fn exceptions(
        &self,
        tenant: &TenantId,
        dispatch: Option<&DispatchId>,
        open_only: bool,
        limit: u32,
    ) -> Result<Vec<ExceptionRow>, StoreError> {
        let sql = match (dispatch, open_only) {
            (Some(_), _) => EXCEPTIONS_OF_DISPATCH,
            (None, true) => EXCEPTIONS_OPEN,
            (None, false) => EXCEPTIONS_ALL,
        };
        let mut query = sqlx::query(sql).bind(tenant.as_str()).bind(limit);
        if let Some(dispatch) = dispatch {
            query = query.bind(dispatch.as_str()).bind(open_only);
        }
        let found = query.fetch_all(&self.readers).await.map_err(fault)?;
        found.iter().map(|row| json(row, 0, "exception")).collect()
    }

    async fn due(
        &self,
        now: Timestamp,
        held_before: Timestamp,
        limit: u32,
    ) -> Result<Vec<(TenantId, DispatchId)>, StoreError> {
        let passed = sqlx::query(DUE_DEADLINE).bind(now.millis()).bind(limit);
        let held = sqlx::query(DUE_HELD).bind(held_before.millis()).bind(limit);
        let provisional = sqlx::query(DUE_PROVISIONAL).bind(limit);
        let mut found = Vec::new();
        let mut seen = HashSet::new();
        // What a look settles for good comes first; a provisional breach may have to wait for its phone.
        for query in [passed, held, provisional] {
            for row in query.fetch_all(&self.readers).await.map_err(fault)? {
                let key: (TenantId, DispatchId) = (id(&row, 0)?, id(&row, 1)?);
                if found.len() < limit as usize && seen.insert(key.clone()) {
                    found.push(key);
                }
            }
        }
        Ok(found)
    }

    async fn sla(&self, tenant: &TenantId, window: Window) -> Result<Vec<SlaRow>, StoreError> {
        sqlx::query(SLA)
            .bind(tenant.as_str())
            .bind(window.start.millis())
            .bind(window.end.millis())
            .fetch_all(&self.readers)
            .await
            .map_err(fault)?
            .iter()
            .map(|row| sla_row(row, 0, 1))
            .collect()
    }

    async fn fact_keys(&self, tenant: &TenantId, query: &FactKeyQuery) -> Result<FactKeys, StoreError> {
        let mut keys = FactKeys::default();
        if !query.sequence.is_empty() {
            for row in self.list(FACTS_BY_SEQUENCE, tenant, &query.sequence).await? {
                keys.sequence.push(((id(&row, 0)?, rows::unsigned(&row, 1)?), id(&row, 2)?));
            }
        }
        if !query.serials.is_empty() {
            for row in self.list(FACTS_BY_SERIAL, tenant, &query.serials).await? {
                keys.serials.push((id(&row, 0)?, id(&row, 1)?));
            }
        }
        Ok(keys)
    }
}

fn start_ms(dispatch: &StoredDispatch) -> i64 {
    dispatch.row.scheduled.map_or(UNSCHEDULED_MS, |window| window.start.millis())
}

impl SqliteStore {
    async fn search_by(
        &self,
        sql: &'static str,
        narrowed: Option<&str>,
        search: &DispatchSearch,
    ) -> Result<Vec<StoredDispatch>, StoreError> {
        // Everything is after (lowest, ""): an id is never empty.
        let mut after = (i64::MIN, "");
        if let Some(window) = search.scheduled {
            after.0 = window.start.millis();
        }
        if let Some(position) = &search.after {
            after = after.max((position.start_ms, position.dispatch_id.as_str()));
        }
        let last_start = search.scheduled.map_or(i64::MAX, |window| window.end.millis() - 1);
        let statuses: Vec<_> = search.statuses.iter().map(|status| status.name()).collect();
        let statuses = if statuses.is_empty() { None } else { Some(json_list(&statuses)?) };
        sqlx::query(sql)
            .bind(search.tenant.as_str())
            .bind(narrowed)
            .bind(after.0)
            .bind(after.1)
            .bind(last_start)
            .bind(search.technician.as_ref().map(AsRef::<str>::as_ref))
            .bind(search.location.as_ref().map(AsRef::<str>::as_ref))
            .bind(search.service_order.as_ref().map(AsRef::<str>::as_ref))
            .bind(search.priority_min.map_or(0, priority_rank))
            .bind(statuses)
            .bind(search.limit)
            .fetch_all(&self.readers)
            .await
            .map_err(fault)?
            .iter()
            .map(rows::stored_dispatch)
            .collect()
    }

    /// A query whose second parameter is a list.
    pub(super) async fn list<T: serde::Serialize>(
        &self,
        sql: &'static str,
        tenant: &TenantId,
        items: &[T],
    ) -> Result<Vec<SqliteRow>, StoreError> {
        sqlx::query(sql).bind(tenant.as_str()).bind(json_list(items)?).fetch_all(&self.readers).await.map_err(fault)
    }
}
