//! The dispatch's own part: projection, document, changes, facts, calendars, exceptions, service level.

use super::feed::{self, write_feed};
use super::{Failure, Found, Statement, to_json};
use crate::service::commit::{Booking, Commit, CommitError, DispatchWrite, FactWrite, FeedEntry};
use crate::service::model::{ExceptionRow, SlaRow};
use crate::store::forms::{reuses_sequence, verdict_name};
use crate::store::sqlite::dispatches::json_list;
use crate::store::sqlite::rows::{self, UNSCHEDULED_MS, breach_name, id, priority_rank};
use sqlx::SqliteConnection;
use std::collections::BTreeSet;
use sync_core::domain::{TechnicianId, TenantId, Timestamp};

/// What follows the row: the document, its changes, the calendars, the feeds. The changes' bytes come packed into one blob
/// (hash, actor, chunk), the list says where each lies.
macro_rules! write_rest {
    () => {
        concat!(
            "INSERT INTO documents (tenant, dispatch_id, document) VALUES (?, ?, ?) \
               ON CONFLICT (tenant, dispatch_id) DO UPDATE SET document = excluded.document; \
             INSERT INTO changes (tenant, dispatch_id, revision, idx, device, hash, actor, bytes) \
               SELECT given.tenant, given.dispatch, given.revision, j.key, j.value ->> 2, substr(given.packed, j.value ->> 0, 32), \
                 substr(given.packed, (j.value ->> 0) + 32, 16), substr(given.packed, (j.value ->> 0) + 48, j.value ->> 1) \
               FROM (SELECT ? AS tenant, ? AS dispatch, ? AS revision, ? AS packed) given CROSS JOIN json_each(?) j; \
             DELETE FROM bookings WHERE tenant = ? AND dispatch_id = ?; \
             INSERT INTO bookings (tenant, dispatch_id, technician, start_ms, end_ms) \
               SELECT ?, ?, j.value ->> 0, j.value ->> 1, j.value ->> 2 FROM json_each(?) j; ",
            write_feed!()
        )
    };
}

const INSERT: &str = concat!(
    "INSERT INTO dispatches (tenant, dispatch_id, service_order_id, location_id, revision, status, priority, technician, \
       epoch, start_ms, end_ms, sla_deadline_ms, created_ms, updated_ms, watch_ms, tag, card, plan, state) \
     VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?); ",
    write_rest!()
);
pub(in crate::store::sqlite) const UPDATE: &str = concat!(
    "UPDATE dispatches SET service_order_id = ?, location_id = ?, revision = ?, status = ?, priority = ?, \
       technician = ?, epoch = ?, start_ms = ?, end_ms = ?, sla_deadline_ms = ?, created_ms = ?, updated_ms = ?, \
       watch_ms = ?, tag = ?, card = ?, plan = ?, state = ? WHERE tenant = ? AND dispatch_id = ?; ",
    write_rest!()
);

const WRITE_FACTS: &str = "INSERT INTO facts (tenant, fact_id, dispatch_id, device, seq, seq_reused, knew_revision, kind, \
       occurred_ms, serial, verdict, reason, recorded_ms, held_since_ms) \
     SELECT ?1, j.value ->> 0, ?2, j.value ->> 1, j.value ->> 2, j.value ->> 3, j.value ->> 4, j.value ->> 5, \
       j.value ->> 6, j.value ->> 7, j.value ->> 8, j.value ->> 9, j.value ->> 10, j.value ->> 11 \
     FROM json_each(?3) j WHERE true \
     ON CONFLICT (tenant, fact_id) DO UPDATE SET seq_reused = excluded.seq_reused, verdict = excluded.verdict, \
       reason = excluded.reason, recorded_ms = excluded.recorded_ms, held_since_ms = NULL \
     WHERE facts.held_since_ms IS NOT NULL AND excluded.held_since_ms IS NULL";

pub(in crate::store::sqlite) const BOOKED_BY: &str = "SELECT b.technician, b.dispatch_id FROM json_each(?3) j \
     CROSS JOIN bookings b INDEXED BY bookings_by_technician ON b.tenant = ?1 AND b.technician = j.value ->> 0 \
       AND b.start_ms < j.value ->> 2 AND b.end_ms > j.value ->> 1 \
     WHERE b.dispatch_id <> ?2 ORDER BY j.key, b.start_ms LIMIT 1";

const WRITE_EXCEPTIONS: &str = "INSERT INTO exceptions (tenant, exception_id, dispatch_id, raised_ms, resolved_ms, json) \
     SELECT ?1, j.value ->> 0, j.value ->> 1, j.value ->> 2, j.value ->> 3, j.value ->> 4 FROM json_each(?2) j WHERE true \
     ON CONFLICT (tenant, exception_id) DO UPDATE SET dispatch_id = excluded.dispatch_id, \
       raised_ms = excluded.raised_ms, resolved_ms = excluded.resolved_ms, json = excluded.json";

const WRITE_SLA: &str = "INSERT INTO sla (tenant, dispatch_id, deadline_ms, status, announced_ms, decided_ms, arrived_ms) \
     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT (tenant, dispatch_id) DO UPDATE SET \
       deadline_ms = excluded.deadline_ms, status = excluded.status, announced_ms = excluded.announced_ms, \
       decided_ms = excluded.decided_ms, arrived_ms = excluded.arrived_ms";

/// Writes a dispatch whose revision was found to be the expected one.
pub(super) async fn write_dispatch(
    connection: &mut SqliteConnection,
    commit: &Commit,
    write: &DispatchWrite,
    found: &mut Found,
) -> Result<Vec<FeedEntry>, Failure> {
    let (tenant, dispatch) = (commit.tenant.as_str(), write.row.dispatch_id.as_str());
    let bookings = changed_bookings(write, &found.bookings);
    let list = json_list(bookings.as_deref().unwrap_or_default())?;
    let entries = feed::entries(write, &mut found.feeds);
    let query = bind_row(tenant, write)?;
    let query = bind_content(query, tenant, write)?
        .bind(tenant)
        // No dispatch has no id: calendars that stay as they are are not touched.
        .bind(bookings.as_ref().map(|_| dispatch))
        .bind(tenant)
        .bind(dispatch)
        .bind(&list);
    let query = feed::bind(query, commit, write, &entries, &found.feeds)?;
    match query.execute(&mut *connection).await {
        Ok(_) => {}
        Err(error) if error.as_database_error().is_some_and(|error| error.message() == "booking overlap") => {
            let row = sqlx::query(BOOKED_BY).bind(tenant).bind(dispatch).bind(&list).fetch_one(connection).await?;
            return Err(CommitError::Overlap { technician: id(&row, 0)?, dispatch: id(&row, 1)? }.into());
        }
        Err(error) => return Err(error.into()),
    }
    if !write.facts.is_empty() {
        write_facts(connection, commit, write).await?;
    }
    if let Some(sla) = &write.sla {
        write_sla(connection, &commit.tenant, sla).await?;
    }
    Ok(entries)
}

fn bind_row(tenant: &str, write: &DispatchWrite) -> Result<Statement, Failure> {
    let row = &write.row;
    let watched = !row.status.is_final() && row.state.arrived.is_none();
    let watch = row.sla_deadline.filter(|_| watched).map(Timestamp::millis);
    let card = minicbor_serde::to_vec(&row.card).map_err(|error| rows::corrupt("visit card")(error.to_string()))?;
    let inserts = write.expected.is_none();
    let query = match inserts {
        true => sqlx::query(INSERT).bind(tenant).bind(row.dispatch_id.as_str()),
        false => sqlx::query(UPDATE),
    };
    let query = query
        .bind(row.service_order_id.as_str())
        .bind(row.location_id.as_str())
        .bind(row.revision.cast_signed())
        .bind(row.status.name())
        .bind(priority_rank(row.priority))
        .bind(row.technician_id.as_ref().map(TechnicianId::as_str))
        .bind(row.epoch.cast_signed())
        .bind(row.scheduled.map_or(UNSCHEDULED_MS, |window| window.start.millis()))
        .bind(row.scheduled.map(|window| window.end.millis()))
        .bind(row.sla_deadline.map(Timestamp::millis))
        .bind(row.created_at.millis())
        .bind(row.updated_at.millis())
        .bind(watch)
        .bind(write.tag.0.cast_signed())
        .bind(card)
        .bind(to_json("plan", &row.plan)?)
        .bind(to_json("visit state", &row.state)?);
    Ok(if inserts { query } else { query.bind(tenant).bind(row.dispatch_id.as_str()) })
}

fn bind_content(query: Statement, tenant: &str, write: &DispatchWrite) -> Result<Statement, Failure> {
    let mut packed = Vec::with_capacity(write.changes.iter().map(|change| change.bytes.len() + 48).sum());
    let mut places = Vec::with_capacity(write.changes.len());
    for change in &write.changes {
        // SQL counts bytes from 1.
        places.push((packed.len() + 1, change.bytes.len(), &change.device));
        packed.extend_from_slice(&change.hash.0);
        packed.extend_from_slice(&change.actor.0);
        packed.extend_from_slice(&change.bytes);
    }
    let dispatch = write.row.dispatch_id.as_str();
    Ok(query
        .bind(tenant)
        .bind(dispatch)
        .bind(write.document.as_slice())
        .bind(tenant)
        .bind(dispatch)
        .bind(write.row.revision.cast_signed())
        .bind(packed)
        .bind(json_list(&places)?))
}

/// The bookings to write; `None` where they stay as they are.
fn changed_bookings(write: &DispatchWrite, before: &BTreeSet<(String, i64, i64)>) -> Option<Vec<(String, i64, i64)>> {
    let row =
        |booking: &Booking| (booking.technician.to_string(), booking.span.start.millis(), booking.span.end.millis());
    let bookings: BTreeSet<_> = write.bookings.as_ref()?.iter().map(row).collect();
    (bookings != *before).then(|| bookings.into_iter().collect())
}

async fn write_facts(connection: &mut SqliteConnection, commit: &Commit, write: &DispatchWrite) -> Result<(), Failure> {
    let at = commit.at;
    let row = |fact: &FactWrite| {
        let ruling = fact.ruling.as_ref();
        let verdict = ruling.map(verdict_name);
        let reused = reuses_sequence(ruling);
        let reason = ruling.map(|ruling| ruling.reason);
        let recorded = ruling.map(|ruling| ruling.recorded_at.millis());
        let held_since = if ruling.is_none() { Some(at.millis()) } else { None };
        serde_json::json!([
            fact.fact,
            fact.device,
            fact.seq,
            i32::from(reused),
            fact.knew_revision,
            fact.kind,
            fact.occurred_at.millis(),
            fact.serial,
            verdict,
            reason,
            recorded,
            held_since
        ])
    };
    let facts: Vec<_> = write.facts.iter().map(row).collect();
    let written = sqlx::query(WRITE_FACTS)
        .bind(commit.tenant.as_str())
        .bind(write.row.dispatch_id.as_str())
        .bind(json_list(&facts)?)
        .execute(connection)
        .await?;
    if written.rows_affected() == facts.len() as u64 { Ok(()) } else { Err(CommitError::AlreadyDone("fact").into()) }
}

/// Raised or resolved exceptions.
pub(super) async fn write_exceptions(
    connection: &mut SqliteConnection,
    tenant: &TenantId,
    exceptions: &[ExceptionRow],
) -> Result<(), Failure> {
    let mut list = Vec::with_capacity(exceptions.len());
    for exception in exceptions {
        list.push((
            &exception.exception_id,
            &exception.dispatch_id,
            exception.raised_at.millis(),
            exception.resolved_at.map(Timestamp::millis),
            to_json("exception", exception)?,
        ));
    }
    sqlx::query(WRITE_EXCEPTIONS).bind(tenant.as_str()).bind(json_list(&list)?).execute(connection).await?;
    Ok(())
}

async fn write_sla(connection: &mut SqliteConnection, tenant: &TenantId, sla: &SlaRow) -> Result<(), Failure> {
    sqlx::query(WRITE_SLA)
        .bind(tenant.as_str())
        .bind(sla.dispatch_id.as_str())
        .bind(sla.deadline.millis())
        .bind(breach_name(sla.status))
        .bind(sla.announced_at.millis())
        .bind(sla.decided_at.map(Timestamp::millis))
        .bind(sla.arrived_at.map(Timestamp::millis))
        .execute(connection)
        .await?;
    Ok(())
}
