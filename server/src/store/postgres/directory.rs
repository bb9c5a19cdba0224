//! Reading technicians, sites and calendars.

use super::PostgresStore;
use super::rows::{id, json, time, unsigned};
use crate::service::model::{Location, Technician};
use crate::store::{Directory, StoreError};
use async_trait::async_trait;
use sqlx::postgres::PgRow;
use sync_core::domain::{DispatchId, LocationId, TechnicianId, TenantId, Window};

pub(super) const TECHNICIAN: &str = "SELECT revision, json FROM technicians WHERE tenant = $1 AND technician = $2";
pub(super) const TECHNICIANS: &str =
    "SELECT revision, json FROM technicians WHERE tenant = $1 AND technician > $2 ORDER BY technician LIMIT $3";
pub(super) const LOCATION: &str = "SELECT revision, json FROM locations WHERE tenant = $1 AND location_id = $2";
pub(super) const LOCATIONS: &str =
    "SELECT revision, json FROM locations WHERE tenant = $1 AND location_id > $2 ORDER BY location_id LIMIT $3";
/// Bookings do not overlap, so that only the last one that starts before the window can reach into it.
pub(super) const BOOKINGS: &str = "SELECT b.dispatch_id, b.start_ms, b.end_ms, d.location_id FROM bookings b \
     CROSS JOIN LATERAL (SELECT location_id FROM dispatches WHERE tenant = $1 AND dispatch_id = b.dispatch_id OFFSET 0) d \
     WHERE b.tenant = $1 AND b.technician = $2 AND b.start_ms < $4 AND b.end_ms > $3 \
     AND b.start_ms >= coalesce((SELECT max(e.start_ms) FROM bookings e \
       WHERE e.tenant = $1 AND e.technician = $2 AND e.start_ms <= $3), $3) \
     ORDER BY b.start_ms";

fn technician(row: &PgRow) -> Result<Technician, StoreError> {
    Ok(Technician { revision: unsigned(row, 0)?, ..json(row, 1, "technician")? })
}

fn location(row: &PgRow) -> Result<Location, StoreError> {
    Ok(Location { revision: unsigned(row, 0)?, ..json(row, 1, "location")? })
}

#[async_trait]
impl Directory for PostgresStore {
    async fn technician(&self, tenant: &TenantId, id: &TechnicianId) -> Result<Option<Technician>, StoreError> {
        let row = self.one(|| sqlx::query(TECHNICIAN).bind(tenant.as_str()).bind(id.as_str())).await?;
        row.as_ref().map(technician).transpose()
    }

    async fn technicians(
        &self,
        tenant: &TenantId,
        after: Option<&TechnicianId>,
        limit: u32,
    ) -> Result<Vec<Technician>, StoreError> {
        let after = after.map_or("", TechnicianId::as_str);
        let rows =
            self.all(|| sqlx::query(TECHNICIANS).bind(tenant.as_str()).bind(after).bind(i64::from(limit))).await?;
        rows.iter().map(technician).collect()
    }

    async fn location(&self, tenant: &TenantId, id: &LocationId) -> Result<Option<Location>, StoreError> {
        let row = self.one(|| sqlx::query(LOCATION).bind(tenant.as_str()).bind(id.as_str())).await?;
        row.as_ref().map(location).transpose()
    }

    async fn locations(
        &self,
        tenant: &TenantId,
        after: Option<&LocationId>,
        limit: u32,
    ) -> Result<Vec<Location>, StoreError> {
        let after = after.map_or("", LocationId::as_str);
        let rows = self.all(|| sqlx::query(LOCATIONS).bind(tenant.as_str()).bind(after).bind(i64::from(limit))).await?;
        rows.iter().map(location).collect()
    }

    async fn bookings(
        &self,
        tenant: &TenantId,
        technician: &TechnicianId,
        window: Window,
    ) -> Result<Vec<(DispatchId, Window, LocationId)>, StoreError> {
        let rows = self
            .all(|| {
                sqlx::query(BOOKINGS)
                    .bind(tenant.as_str())
                    .bind(technician.as_str())
                    .bind(window.start.millis())
                    .bind(window.end.millis())
            })
            .await?;
        rows.iter()
            .map(|row| Ok((id(row, 0)?, Window { start: time(row, 1)?, end: time(row, 2)? }, id(row, 3)?)))
            .collect()
    }
}
