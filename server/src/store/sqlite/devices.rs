//! Reading devices, and the facts that wait for a device's earlier ones.

use super::SqliteStore;
use super::rows::{self, device_columns, fault, id, time, unsigned};
use crate::service::model::Device;
use crate::store::{Devices, HeldFact, StoreError};
use async_trait::async_trait;
use sync_core::domain::{DeviceId, DispatchId, TechnicianId, TenantId};

pub(super) const DEVICE: &str =
    concat!("SELECT ", device_columns!(), " FROM devices v WHERE v.tenant = ?1 AND v.device = ?2");
pub(super) const DEVICES: &str =
    concat!("SELECT ", device_columns!(), " FROM devices v WHERE v.tenant = ?1 ORDER BY v.device");
pub(super) const DEVICES_OF_TECHNICIAN: &str = concat!(
    "SELECT ",
    device_columns!(),
    " FROM devices v INDEXED BY devices_by_technician WHERE v.tenant = ?1 AND v.technician = ?2 ORDER BY v.device"
);

macro_rules! held_columns {
    () => {
        "SELECT dispatch_id, fact_id, device, seq, knew_revision, held_since_ms FROM facts "
    };
}
pub(super) const HELD_OF_DEVICE: &str = concat!(
    held_columns!(),
    "INDEXED BY facts_held_by_device WHERE tenant = ?1 AND held_since_ms IS NOT NULL AND device = ?2 \
     AND (?3 IS NULL OR dispatch_id = ?3) ORDER BY seq"
);
pub(super) const HELD_OF_DISPATCH: &str = concat!(
    held_columns!(),
    "INDEXED BY facts_held_by_dispatch WHERE tenant = ?1 AND held_since_ms IS NOT NULL AND dispatch_id = ?2 \
     ORDER BY seq, device"
);
pub(super) const HELD_OF_TENANT: &str = concat!(
    held_columns!(),
    "INDEXED BY facts_held_by_device WHERE tenant = ?1 AND held_since_ms IS NOT NULL ORDER BY device, seq"
);

#[async_trait]
impl Devices for SqliteStore {
    async fn device(&self, tenant: &TenantId, device: &DeviceId) -> Result<Option<Device>, StoreError> {
        let row = sqlx::query(DEVICE)
            .bind(tenant.as_str())
            .bind(device.as_str())
            .fetch_optional(&self.readers)
            .await
            .map_err(fault)?;
        row.as_ref().map(rows::device).transpose()
    }

    async fn devices(&self, tenant: &TenantId, technician: Option<&TechnicianId>) -> Result<Vec<Device>, StoreError> {
        let query = match technician {
            Some(technician) => sqlx::query(DEVICES_OF_TECHNICIAN).bind(tenant.as_str()).bind(technician.as_str()),
            None => sqlx::query(DEVICES).bind(tenant.as_str()),
        };
        query.fetch_all(&self.readers).await.map_err(fault)?.iter().map(rows::device).collect()
    }

    async fn held_facts(
        &self,
        tenant: &TenantId,
        device: Option<&DeviceId>,
        dispatch: Option<&DispatchId>,
    ) -> Result<Vec<HeldFact>, StoreError> {
        let query = match (device, dispatch) {
            (Some(device), dispatch) => sqlx::query(HELD_OF_DEVICE)
                .bind(tenant.as_str())
                .bind(device.as_str())
                .bind(dispatch.map(DispatchId::as_str)),
            (None, Some(dispatch)) => sqlx::query(HELD_OF_DISPATCH).bind(tenant.as_str()).bind(dispatch.as_str()),
            (None, None) => sqlx::query(HELD_OF_TENANT).bind(tenant.as_str()),
        };
        let rows = query.fetch_all(&self.readers).await.map_err(fault)?;
        rows.iter()
            .map(|row| {
                Ok(HeldFact {
                    dispatch: id(row, 0)?,
                    fact: id(row, 1)?,
                    device: id(row, 2)?,
                    seq: unsigned(row, 3)?,
                    knew_revision: unsigned(row, 4)?,
                    since: time(row, 5)?,
                })
            })
            .collect()
    }
}
