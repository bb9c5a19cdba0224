//! A phone's row, and what its acknowledgement says of deliveries.

use super::{Failure, to_json};
use crate::service::commit::{CommitError, DeviceWrite};
use crate::service::model::Device;
use crate::store::sqlite::rows::{self, device_columns, unsigned};
use sqlx::{Row as _, SqliteConnection};
use sync_core::domain::rules::sequence::SequenceLedger;
use sync_core::domain::{TenantId, Timestamp};

pub(in crate::store::sqlite) const LOOK_AT_DEVICE: &str = concat!(
    "SELECT ",
    device_columns!(),
    ", coalesce((SELECT seq FROM feed_heads h WHERE h.tenant = ?1 AND h.technician = ?3), 0) \
     FROM (SELECT 1) LEFT JOIN devices v ON v.tenant = ?1 AND v.device = ?2"
);

const WRITE_DEVICE: &str = "INSERT INTO devices (tenant, device, technician, app, registered_ms, seen_ms, ledger, \
       ledger_version, pending, oldest_pending_ms, complete_ms, acknowledged, revoked_ms, wiped_ms, digest_mismatches) \
     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15) \
     ON CONFLICT (tenant, device) DO UPDATE SET app = excluded.app, seen_ms = excluded.seen_ms, \
       ledger = excluded.ledger, ledger_version = excluded.ledger_version, pending = excluded.pending, \
       oldest_pending_ms = excluded.oldest_pending_ms, complete_ms = excluded.complete_ms, \
       acknowledged = excluded.acknowledged, revoked_ms = excluded.revoked_ms, wiped_ms = excluded.wiped_ms, \
       digest_mismatches = excluded.digest_mismatches";

/// The lead's phone has stored the assignment: the entries that it acknowledged just now, where the epoch still holds.
pub(in crate::store::sqlite) const MARK_DELIVERED: &str = "UPDATE dispatches AS d SET delivered_epoch = d.epoch, delivered_ms = ?5 \
     FROM (SELECT DISTINCT dispatch_id, epoch FROM feed WHERE tenant = ?1 AND technician = ?2 \
       AND seq > ?3 AND seq <= ?4 AND kind = 'held') f \
     WHERE d.tenant = ?1 AND d.dispatch_id = f.dispatch_id AND d.epoch = f.epoch AND +d.technician = ?2 \
     AND (d.delivered_epoch IS NULL OR d.delivered_epoch <> d.epoch)";

pub(super) async fn write_device(
    connection: &mut SqliteConnection,
    tenant: &TenantId,
    at: Timestamp,
    write: &DeviceWrite,
) -> Result<(), Failure> {
    let found = sqlx::query(LOOK_AT_DEVICE)
        .bind(tenant.as_str())
        .bind(write.device.as_str())
        .bind(write.technician.as_str())
        .fetch_one(&mut *connection)
        .await?;
    let head = unsigned(&found, 14)?;
    let known = found.try_get::<Option<&str>, _>(0)?.is_some();
    let before = if known {
        rows::device(&found)?
    } else {
        Device {
            device: write.device.clone(),
            technician: write.technician.clone(),
            app: String::new(),
            registered_at: at,
            seen_at: at,
            ledger: SequenceLedger::default(),
            ledger_version: 0,
            pending: 0,
            oldest_pending: None,
            complete_at: None,
            acknowledged: 0,
            revoked_at: None,
            wiped_at: None,
            digest_mismatches: 0,
        }
    };
    if before.technician != write.technician {
        return Err(CommitError::ForeignDevice.into());
    }
    if write.expected_ledger.is_some_and(|expected| expected != before.ledger_version) {
        return Err(CommitError::Conflict("device").into());
    }
    let (pending, oldest_pending) = write.pending.unwrap_or((before.pending, before.oldest_pending));
    let complete_at =
        if write.pending.is_some_and(|(pending, _)| pending == 0) { Some(at) } else { before.complete_at };
    // A phone cannot have stored what the feed does not have; and what it has stored, it has stored.
    let acknowledged = write.acknowledged.unwrap_or(0).min(head).max(before.acknowledged);
    sqlx::query(WRITE_DEVICE)
        .bind(tenant.as_str())
        .bind(write.device.as_str())
        .bind(write.technician.as_str())
        .bind(write.app.as_deref().unwrap_or(&before.app))
        .bind(before.registered_at.millis())
        .bind(write.seen_at.unwrap_or(before.seen_at).millis())
        .bind(to_json("sequence ledger", write.ledger.as_ref().unwrap_or(&before.ledger))?)
        .bind((before.ledger_version + u64::from(write.ledger.is_some())).cast_signed())
        .bind(pending)
        .bind(oldest_pending.map(Timestamp::millis))
        .bind(complete_at.map(Timestamp::millis))
        .bind(acknowledged.cast_signed())
        .bind(write.revoked_at.or(before.revoked_at).map(Timestamp::millis))
        .bind(write.wiped_at.or(before.wiped_at).map(Timestamp::millis))
        .bind((before.digest_mismatches + u64::from(write.digest_mismatch)).cast_signed())
        .execute(&mut *connection)
        .await?;
    if acknowledged > before.acknowledged {
        sqlx::query(MARK_DELIVERED)
            .bind(tenant.as_str())
            .bind(write.technician.as_str())
            .bind(before.acknowledged.cast_signed())
            .bind(acknowledged.cast_signed())
            .bind(at.millis())
            .execute(connection)
            .await?;
    }
    Ok(())
}
