//! Reading dispatches.

use super::rows::{STORED_COLUMNS, get, id, json, sla_row, standing_columns, stored_columns};
use super::{PostgresStore, rows};
use crate::service::model::{DispatchSearch, ExceptionRow, SlaRow, StoredDispatch};
use crate::store::forms::{UNSCHEDULED_MS, position, priority_rank};
use crate::store::{Dispatches, FactKeyQuery, FactKeys, StandingOf, StoreError};
use async_trait::async_trait;
use std::collections::HashSet;
use sync_core::domain::{DispatchId, ServiceOrderId, TenantId, Timestamp, Window};

pub(super) const ONE: &str = concat!(
    "SELECT ",
    stored_columns!(),
    " FROM dispatches d LEFT JOIN sla s ON s.tenant = $1 AND s.dispatch_id = d.dispatch_id \
     WHERE d.tenant = $1 AND d.dispatch_id = $2"
);

// `OFFSET 0`, here and elsewhere: looked up one by one, also while PostgreSQL has no statistics yet. Then it takes every table for
// tiny, and would read all rows of the tenant, again and again.
pub(super) const STANDINGS: &str = concat!(
    "SELECT d.dispatch_id, d.revision, d.tag, ",
    standing_columns!(),
    " FROM unnest($2::text[]) j(id) \
     CROSS JOIN LATERAL (SELECT tenant, dispatch_id, revision, tag, delivered_epoch, delivered_ms FROM dispatches \
       WHERE tenant = $1 AND dispatch_id = j.id COLLATE \"C\" OFFSET 0) d \
     LEFT JOIN sla s ON s.tenant = $1 AND s.dispatch_id = d.dispatch_id"
);

pub(super) const DOCUMENTS: &str = concat!(
    "SELECT ",
    stored_columns!(),
    ", o.document FROM unnest($2::text[]) j(id) \
     CROSS JOIN LATERAL (SELECT * FROM dispatches WHERE tenant = $1 AND dispatch_id = j.id COLLATE \"C\" OFFSET 0) d \
     CROSS JOIN LATERAL (SELECT document FROM documents WHERE tenant = $1 AND dispatch_id = d.dispatch_id OFFSET 0) o \
     LEFT JOIN sla s ON s.tenant = $1 AND s.dispatch_id = d.dispatch_id"
);

pub(super) const BY_SERVICE_ORDER: &str =
    "SELECT dispatch_id FROM dispatches WHERE tenant = $1 AND service_order_id = $2";

/// One search; `narrowed` names the column of the index that narrows most. Every one has the same parameters: 1 tenant, 2 the
/// index's column, 3 and 4 the position to go on from, 5 the last start, 6 technician, 7 location, 8 order, 9 lowest priority,
/// 10 statuses, 11 limit.
macro_rules! search {
    ($narrowed:literal) => {
        concat!(
            "SELECT ",
            stored_columns!(),
            " FROM dispatches d LEFT JOIN sla s ON s.tenant = $1 AND s.dispatch_id = d.dispatch_id \
             WHERE d.tenant = $1 AND ",
            $narrowed,
            " AND (d.start_ms, d.dispatch_id) > ($3, $4::text COLLATE \"C\") AND d.start_ms <= $5 \
             AND ($6::text IS NULL OR d.technician = $6) AND ($7::text IS NULL OR d.location_id = $7) \
             AND ($8::text IS NULL OR d.service_order_id = $8) AND d.priority >= $9 \
             AND ($10::text[] IS NULL OR d.office_status = ANY($10)) \
             ORDER BY d.start_ms, d.dispatch_id LIMIT $11"
        )
    };
}

pub(super) const SEARCH_BY_TECHNICIAN: &str = search!("d.technician = $2");
pub(super) const SEARCH_BY_LOCATION: &str = search!("d.location_id = $2");
pub(super) const SEARCH_BY_STATUS: &str = search!("d.office_status = $2");
pub(super) const SEARCH_BY_START: &str = search!("$2::text IS NULL");
pub(super) const SEARCH_BY_ORDER: &str = search!("d.service_order_id = $2");

pub(super) const EXCEPTIONS_OPEN: &str = "SELECT json FROM exceptions \
     WHERE tenant = $1 AND resolved_ms IS NULL ORDER BY raised_ms DESC, exception_id DESC LIMIT $2";
pub(super) const EXCEPTIONS_ALL: &str = "SELECT json FROM exceptions \
     WHERE tenant = $1 ORDER BY raised_ms DESC, exception_id DESC LIMIT $2";
pub(super) const EXCEPTIONS_OF_DISPATCH: &str = "SELECT json FROM exceptions \
     WHERE tenant = $1 AND dispatch_id = $3 AND (NOT $4 OR resolved_ms IS NULL) \
     ORDER BY raised_ms DESC, exception_id DESC LIMIT $2";

/// Deadline passed, not arrived, not ended, and no breach announced yet.
pub(super) const DUE_DEADLINE: &str = "SELECT d.tenant, d.dispatch_id FROM dispatches d \
     WHERE d.watch_ms < $1 AND NOT EXISTS \
     (SELECT 1 FROM sla s WHERE s.tenant = d.tenant AND s.dispatch_id = d.dispatch_id) ORDER BY d.watch_ms LIMIT $2";
pub(super) const DUE_HELD: &str = "SELECT tenant, dispatch_id FROM facts \
     WHERE held_since_ms < $1 GROUP BY tenant, dispatch_id ORDER BY min(held_since_ms) LIMIT $2";
/// Provisional breaches; those first whose lead has nobody to wait for or whose phone has reported since the deadline,
/// so that many silent phones do not keep them from being decided.
pub(super) const DUE_PROVISIONAL: &str = "SELECT s.tenant, s.dispatch_id FROM sla s \
     JOIN dispatches d ON d.tenant = s.tenant AND d.dispatch_id = s.dispatch_id \
     WHERE s.status = 'PROVISIONAL' ORDER BY (d.watch_ms IS NULL OR d.technician IS NULL OR EXISTS \
       (SELECT 1 FROM devices v WHERE v.tenant = s.tenant AND v.technician = d.technician \
        AND v.complete_ms >= s.deadline_ms)) DESC, s.deadline_ms LIMIT $1";

pub(super) const SLA: &str = "SELECT dispatch_id, deadline_ms, status, announced_ms, decided_ms, arrived_ms \
     FROM sla WHERE tenant = $1 AND announced_ms >= $2 AND announced_ms < $3 ORDER BY announced_ms, dispatch_id";

pub(super) const FACTS_BY_SEQUENCE: &str = "SELECT f.device, f.seq, f.fact_id \
     FROM unnest($2::text[], $3::bigint[]) j(device, seq) \
     CROSS JOIN LATERAL (SELECT device, seq, fact_id FROM facts \
       WHERE tenant = $1 AND device = j.device COLLATE \"C\" AND seq = j.seq AND seq_reused = 0 OFFSET 0) f";
pub(super) const FACTS_BY_SERIAL: &str = "SELECT f.serial, f.fact_id FROM unnest($2::text[]) j(serial) \
     CROSS JOIN LATERAL (SELECT serial, fact_id FROM facts WHERE tenant = $1 AND serial = j.serial COLLATE \"C\" \
       AND serial IS NOT NULL AND (verdict = 'accepted' OR held_since_ms IS NOT NULL) OFFSET 0) f ORDER BY f.fact_id";

#[async_trait]
impl Dispatches for PostgresStore {
    async fn dispatch(&self, tenant: &TenantId, dispatch: &DispatchId) -> Result<Option<StoredDispatch>, StoreError> {
        let row = self.one(|| sqlx::query(ONE).bind(tenant.as_str()).bind(dispatch.as_str())).await?;
        row.as_ref().map(rows::stored_dispatch).transpose()
    }

    async fn standings(&self, tenant: &TenantId, ids: &[DispatchId]) -> Result<Vec<StandingOf>, StoreError> {
        let ids: Vec<&str> = ids.iter().map(DispatchId::as_str).collect();
        let rows = self.all(|| sqlx::query(STANDINGS).bind(tenant.as_str()).bind(&ids)).await?;
        rows.iter().map(rows::standing_of).collect()
    }

    async fn documents(
        &self,
        tenant: &TenantId,
        ids: &[DispatchId],
    ) -> Result<Vec<(StoredDispatch, Vec<u8>)>, StoreError> {
        let ids: Vec<&str> = ids.iter().map(DispatchId::as_str).collect();
        self.all(|| sqlx::query(DOCUMENTS).bind(tenant.as_str()).bind(&ids))
            .await?
            .iter()
            .map(|row| Ok((rows::stored_dispatch(row)?, get(row, STORED_COLUMNS)?)))
            .collect()
    }

    async fn by_service_order(
        &self,
        tenant: &TenantId,
        order: &ServiceOrderId,
    ) -> Result<Option<DispatchId>, StoreError> {
        let row = self.one(|| sqlx::query(BY_SERVICE_ORDER).bind(tenant.as_str()).bind(order.as_str())).await?;
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
        let found = self
            .all(|| {
                let query = sqlx::query(sql).bind(tenant.as_str()).bind(i64::from(limit));
                match dispatch {
                    Some(dispatch) => query.bind(dispatch.as_str()).bind(open_only),
                    None => query,
                }
            })
            .await?;
        found.iter().map(|row| json(row, 0, "exception")).collect()
    }

    async fn due(
        &self,
        now: Timestamp,
        held_before: Timestamp,
        limit: u32,
    ) -> Result<Vec<(TenantId, DispatchId)>, StoreError> {
        let most = i64::from(limit);
        let passed = self.all(|| sqlx::query(DUE_DEADLINE).bind(now.millis()).bind(most)).await?;
        let held = self.all(|| sqlx::query(DUE_HELD).bind(held_before.millis()).bind(most)).await?;
        let provisional = self.all(|| sqlx::query(DUE_PROVISIONAL).bind(most)).await?;
        let mut found = Vec::new();
        let mut seen = HashSet::new();
        // What a look settles for good comes first; a provisional breach may have to wait for its phone.
        for row in passed.iter().chain(&held).chain(&provisional) {
            let key: (TenantId, DispatchId) = (id(row, 0)?, id(row, 1)?);
            if found.len() < limit as usize && seen.insert(key.clone()) {
                found.push(key);
            }
        }
        Ok(found)
    }

    async fn sla(&self, tenant: &TenantId, window: Window) -> Result<Vec<SlaRow>, StoreError> {
        let (from, to) = (window.start.millis(), window.end.millis());
        let rows = self.all(|| sqlx::query(SLA).bind(tenant.as_str()).bind(from).bind(to)).await?;
        rows.iter().map(|row| sla_row(row, 0, 1)).collect()
    }

    async fn fact_keys(&self, tenant: &TenantId, query: &FactKeyQuery) -> Result<FactKeys, StoreError> {
        let mut keys = FactKeys::default();
        if !query.sequence.is_empty() {
            let devices: Vec<&str> = query.sequence.iter().map(|(device, _)| device.as_str()).collect();
            let numbers: Vec<i64> = query.sequence.iter().map(|(_, seq)| position(*seq)).collect();
            let rows =
                self.all(|| sqlx::query(FACTS_BY_SEQUENCE).bind(tenant.as_str()).bind(&devices).bind(&numbers)).await?;
            for row in &rows {
                keys.sequence.push(((id(row, 0)?, rows::unsigned(row, 1)?), id(row, 2)?));
            }
        }
        if !query.serials.is_empty() {
            let serials: Vec<&str> = query.serials.iter().map(AsRef::as_ref).collect();
            for row in self.all(|| sqlx::query(FACTS_BY_SERIAL).bind(tenant.as_str()).bind(&serials)).await? {
                keys.serials.push((id(&row, 0)?, id(&row, 1)?));
            }
        }
        Ok(keys)
    }
}

fn start_ms(dispatch: &StoredDispatch) -> i64 {
    dispatch.row.scheduled.map_or(UNSCHEDULED_MS, |window| window.start.millis())
}

impl PostgresStore {
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
        let statuses = Some(statuses).filter(|statuses| !statuses.is_empty());
        let found = self
            .all(|| {
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
                    .bind(statuses.as_deref())
                    .bind(i64::from(search.limit))
            })
            .await?;
        found.iter().map(rows::stored_dispatch).collect()
    }
}
