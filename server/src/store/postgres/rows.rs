//! Reading rows: from columns to the service's records. Failures: which ones heal by themselves.

use crate::service::model::{Device, DispatchRow, SlaRow, Standing, StoredDispatch};
use crate::store::{StandingOf, StoreError, forms};
use serde::de::DeserializeOwned;
use sqlx::postgres::PgRow;
use sqlx::{Decode, Postgres, Row as _, Type};
use sync_core::document::StateTag;
use sync_core::domain::{IdError, Timestamp, Window};

/// Any error of the database itself.
pub(super) fn fault(error: sqlx::Error) -> StoreError {
    if is_passing(&error) {
        StoreError::Unreachable(error.to_string())
    } else {
        StoreError::Database(error.to_string())
    }
}

/// The connection is gone, or PostgreSQL is not ready, or this is a standby since a fail-over: another connection, a
/// little later, may do better.
pub(super) fn is_passing(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_) | sqlx::Error::Protocol(_) | sqlx::Error::PoolTimedOut | sqlx::Error::WorkerCrashed => true,
        sqlx::Error::Database(error) => error.code().is_some_and(|code| {
            // Class 08: the connection. 57P01 to 57P05: shut down, crashed, starting, dropped, idle too long. 25P03: idle in a
            // transaction. 25006: read-only. 53300: too many connections.
            code.starts_with("08") || code.starts_with("57P") || matches!(&*code, "25P03" | "25006" | "53300")
        }),
        _ => false,
    }
}

/// One column.
pub(super) fn get<'r, T: Decode<'r, Postgres> + Type<Postgres>>(
    row: &'r PgRow,
    column: usize,
) -> Result<T, StoreError> {
    row.try_get(column).map_err(fault)
}

/// A counter. Stored as what PostgreSQL has: a signed number.
pub(super) fn unsigned(row: &PgRow, column: usize) -> Result<u64, StoreError> {
    forms::counter(get(row, column)?)
}

/// A hash of 64 bits, stored as the signed number of the same bits.
pub(super) fn bits(row: &PgRow, column: usize) -> Result<u64, StoreError> {
    Ok(get::<i64>(row, column)?.cast_unsigned())
}

/// A point in time.
pub(super) fn time(row: &PgRow, column: usize) -> Result<Timestamp, StoreError> {
    Ok(Timestamp::from_millis(get(row, column)?))
}

/// A point in time that may be missing.
pub(super) fn time_maybe(row: &PgRow, column: usize) -> Result<Option<Timestamp>, StoreError> {
    Ok(get::<Option<i64>>(row, column)?.map(Timestamp::from_millis))
}

/// An id.
pub(super) fn id<T: TryFrom<String, Error = IdError>>(row: &PgRow, column: usize) -> Result<T, StoreError> {
    T::try_from(get(row, column)?).map_err(|error| forms::corrupt("id")(error.to_string()))
}

/// An id that may be missing.
pub(super) fn id_maybe<T: TryFrom<String, Error = IdError>>(
    row: &PgRow,
    column: usize,
) -> Result<Option<T>, StoreError> {
    let text: Option<String> = get(row, column)?;
    text.map(|text| T::try_from(text).map_err(|error| forms::corrupt("id")(error.to_string()))).transpose()
}

/// A JSON column.
pub(super) fn json<T: DeserializeOwned>(row: &PgRow, column: usize, what: &'static str) -> Result<T, StoreError> {
    forms::from_json(what, get(row, column)?)
}

/// A CBOR column.
pub(super) fn cbor<T: DeserializeOwned>(row: &PgRow, column: usize, what: &'static str) -> Result<T, StoreError> {
    forms::from_cbor(what, get(row, column)?)
}

/// A hash of 32 bytes.
pub(super) fn hash(row: &PgRow, column: usize) -> Result<[u8; 32], StoreError> {
    let bytes: &[u8] = get(row, column)?;
    bytes.try_into().map_err(|_| forms::corrupt("hash")(format!("{} bytes", bytes.len())))
}

/// Columns of [`StandingOf`], from `dispatches d LEFT JOIN sla s`; [`standing`] reads them.
///
/// `undelivered_to`: the latest entry about the visit in a technician's feed lies beyond what any of their phones has
/// stored.
macro_rules! standing_columns {
    () => {
        "d.delivered_epoch, d.delivered_ms, \
         ARRAY(SELECT f.technician FROM \
            (SELECT technician, max(seq) AS latest FROM feed \
             WHERE tenant = d.tenant AND dispatch_id = d.dispatch_id GROUP BY technician) f \
          WHERE f.latest > coalesce((SELECT max(v.acknowledged) FROM devices v \
             WHERE v.tenant = d.tenant AND v.technician = f.technician AND v.revoked_ms IS NULL), 0) \
          ORDER BY f.technician), \
         (SELECT count(*) FROM exceptions x \
          WHERE x.tenant = d.tenant AND x.dispatch_id = d.dispatch_id AND x.resolved_ms IS NULL), \
         s.deadline_ms, s.status, s.announced_ms, s.decided_ms, s.arrived_ms"
    };
}
pub(super) use standing_columns;

/// A dispatch's columns, likewise; [`stored_dispatch`] reads them.
macro_rules! stored_columns {
    () => {
        concat!(
            "d.dispatch_id, d.service_order_id, d.location_id, d.revision, d.status, d.priority, d.technician, d.epoch, \
             d.start_ms, d.end_ms, d.sla_deadline_ms, d.created_ms, d.updated_ms, d.plan, d.state, d.card, d.tag, ",
            crate::store::postgres::rows::standing_columns!()
        )
    };
}
pub(super) use stored_columns;

/// How many columns [`stored_columns`] has.
pub(super) const STORED_COLUMNS: usize = 26;

/// Reads [`stored_columns`].
pub(super) fn stored_dispatch(row: &PgRow) -> Result<StoredDispatch, StoreError> {
    let start: i64 = get(row, 8)?;
    let scheduled = match (start, time_maybe(row, 9)?) {
        (forms::UNSCHEDULED_MS, _) | (_, None) => None,
        (start, Some(end)) => Some(Window { start: Timestamp::from_millis(start), end }),
    };
    let dispatch_row = DispatchRow {
        dispatch_id: id(row, 0)?,
        service_order_id: id(row, 1)?,
        location_id: id(row, 2)?,
        revision: unsigned(row, 3)?,
        status: forms::status(get(row, 4)?)?,
        priority: forms::priority(get(row, 5)?)?,
        technician_id: id_maybe(row, 6)?,
        epoch: unsigned(row, 7)?,
        scheduled,
        sla_deadline: time_maybe(row, 10)?,
        created_at: time(row, 11)?,
        updated_at: time(row, 12)?,
        plan: json(row, 13, "plan")?,
        state: json(row, 14, "visit state")?,
        card: cbor(row, 15, "visit card")?,
    };
    Ok(StoredDispatch::new(dispatch_row, StateTag(bits(row, 16)?), standing(row, 17)?))
}

/// Where a dispatch stands: its id, revision and tag in the first columns, the rest is [`standing_columns`].
pub(super) fn standing_of(row: &PgRow) -> Result<StandingOf, StoreError> {
    Ok(StandingOf {
        dispatch: id(row, 0)?,
        revision: unsigned(row, 1)?,
        tag: StateTag(bits(row, 2)?),
        standing: standing(row, 3)?,
    })
}

/// Reads [`standing_columns`] from `first` on; the dispatch's id is in column 0.
fn standing(row: &PgRow, first: usize) -> Result<Standing, StoreError> {
    let delivered_epoch: Option<i64> = get(row, first)?;
    let undelivered: Vec<String> = get(row, first + 2)?;
    let sla = match time_maybe(row, first + 4)? {
        None => None,
        Some(_) => Some(sla_row(row, 0, first + 4)?),
    };
    Ok(Standing {
        delivered_epoch: delivered_epoch.map(i64::cast_unsigned),
        delivered_at: time_maybe(row, first + 1)?,
        undelivered_to: undelivered
            .into_iter()
            .map(|id| id.try_into().map_err(|error: IdError| forms::corrupt("id")(error.to_string())))
            .collect::<Result<_, _>>()?,
        sla,
        open_exceptions: u32::try_from(get::<i64>(row, first + 3)?).unwrap_or(u32::MAX),
    })
}

/// Reads a service-level record: the dispatch's id in one column, the rest from `first` on.
pub(super) fn sla_row(row: &PgRow, dispatch: usize, first: usize) -> Result<SlaRow, StoreError> {
    Ok(SlaRow {
        dispatch_id: id(row, dispatch)?,
        deadline: time(row, first)?,
        status: forms::breach(get(row, first + 1)?)?,
        announced_at: time(row, first + 2)?,
        decided_at: time_maybe(row, first + 3)?,
        arrived_at: time_maybe(row, first + 4)?,
    })
}

/// A device's columns; [`device`] reads them.
macro_rules! device_columns {
    () => {
        "v.device, v.technician, v.app, v.registered_ms, v.seen_ms, v.ledger, v.ledger_version, v.pending, \
         v.oldest_pending_ms, v.complete_ms, v.acknowledged, v.revoked_ms, v.wiped_ms, v.digest_mismatches"
    };
}
pub(super) use device_columns;

/// How many columns [`device_columns`] has.
pub(super) const DEVICE_COLUMNS: usize = 14;

/// Reads [`device_columns`].
pub(super) fn device(row: &PgRow) -> Result<Device, StoreError> {
    Ok(Device {
        device: id(row, 0)?,
        technician: id(row, 1)?,
        app: get(row, 2)?,
        registered_at: time(row, 3)?,
        seen_at: time(row, 4)?,
        ledger: json(row, 5, "sequence ledger")?,
        ledger_version: unsigned(row, 6)?,
        pending: u32::try_from(get::<i64>(row, 7)?).unwrap_or(u32::MAX),
        oldest_pending: time_maybe(row, 8)?,
        complete_at: time_maybe(row, 9)?,
        acknowledged: unsigned(row, 10)?,
        revoked_at: time_maybe(row, 11)?,
        wiped_at: time_maybe(row, 12)?,
        digest_mismatches: unsigned(row, 13)?,
    })
}
