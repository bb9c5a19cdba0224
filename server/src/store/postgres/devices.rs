//! Reading devices, and the facts that wait for a device's earlier ones.

use super::PostgresStore;
use super::rows::{self, device_columns, id, time, unsigned};
use crate::service::model::Device;
use crate::store::{Devices, HeldFact, StoreError};
use async_trait::async_trait;
use sync_core::domain::{DeviceId, DispatchId, TechnicianId, TenantId};

pub(super) const DEVICE: &str =
    concat!("SELECT ", device_columns!(), " FROM devices v WHERE v.tenant = $1 AND v.device = $2");
pub(super) const DEVICES: &str =
    concat!("SELECT ", device_columns!(), " FROM devices v WHERE v.tenant = $1 ORDER BY v.device");
pub(super) const DEVICES_OF_TECHNICIAN: &str = concat!(
    "SELECT ",
    device_columns!(),
    " FROM devices v WHERE v.tenant = $1 AND v.technician = $2 ORDER BY v.device"
);

macro_rules! held_columns {
    () => {
        "SELECT dispatch_id, fact_id, device, seq, knew_revision, held_since_ms FROM facts \
         WHERE tenant = $1 AND held_since_ms IS NOT NULL "
    };
}
pub(super) const HELD_OF_DEVICE: &str =
    concat!(held_columns!(), "AND device = $2 AND ($3::text IS NULL OR dispatch_id = $3) ORDER BY seq");
pub(super) const HELD_OF_DISPATCH: &str = concat!(held_columns!(), "AND dispatch_id = $2 ORDER BY seq, device");
pub(super) const HELD_OF_TENANT: &str = concat!(held_columns!(), "ORDER BY device, seq");

#[async_trait]
impl Devices for PostgresStore {
    async fn device(&self, tenant: &TenantId, device: &DeviceId) -> Result<Option<Device>, StoreError> {
        let row = self.one(|| sqlx::query(DEVICE).bind(tenant.as_str()).bind(device.as_str())).await?;
        row.as_ref().map(rows::device).transpose()
    }

    async fn devices(&self, tenant: &TenantId, technician: Option<&TechnicianId>) -> Result<Vec<Device>, StoreError> {
        let found = self
            .all(|| match technician {
                Some(technician) => sqlx::query(DEVICES_OF_TECHNICIAN).bind(tenant.as_str()).bind(technician.as_str()),
                None => sqlx::query(DEVICES).bind(tenant.as_str()),
            })
            .await?;
        found.iter().map(rows::device).collect()
    }

    async fn held_facts(
        &self,
        tenant: &TenantId,
        device: Option<&DeviceId>,
        dispatch: Option<&DispatchId>,
    ) -> Result<Vec<HeldFact>, StoreError> {
        let found = self
            .all(|| match (device, dispatch) {
                (Some(device), dispatch) => sqlx::query(HELD_OF_DEVICE)
                    .bind(tenant.as_str())
                    .bind(device.as_str())
                    .bind(dispatch.map(DispatchId::as_str)),
                (None, Some(dispatch)) => sqlx::query(HELD_OF_DISPATCH).bind(tenant.as_str()).bind(dispatch.as_str()),
                (None, None) => sqlx::query(HELD_OF_TENANT).bind(tenant.as_str()),
            })
            .await?;
        found
            .iter()
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
