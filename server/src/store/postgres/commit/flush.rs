//! Writing the outcome: each table once, however many commits there were. Parameters are columns: one array each.

use super::Failure;
use super::apply::Writes;
use super::look::Found;
use super::statement::{Share, statement};
use crate::service::commit::{Booking, Commit, FactWrite, FeedNews};
use crate::service::model::Device;
use crate::store::StoreError;
use crate::store::forms::{
    UNSCHEDULED_MS, breach_name, corrupt, position, priority_rank, reuses_sequence, to_json, verdict_name,
};
use crate::store::postgres::Statement;
use sqlx::PgConnection;
use sqlx::postgres::PgRow;
use sync_core::domain::{DeviceId, SerialNumber, TechnicianId, Timestamp};

pub(in crate::store::postgres) const BOOKINGS_GONE: &str = "DELETE FROM bookings b USING unnest($1::text[], $2::text[]) AS n(tenant, dispatch_id) \
     WHERE b.tenant = n.tenant AND b.dispatch_id = n.dispatch_id";
pub(in crate::store::postgres) const BOOKED_BY: &str = "SELECT b.technician, b.dispatch_id \
     FROM unnest($3::text[], $4::bigint[], $5::bigint[]) WITH ORDINALITY AS n(technician, start_ms, end_ms, i) \
     CROSS JOIN LATERAL (SELECT * FROM bookings b WHERE b.tenant = $1 AND b.technician = n.technician \
       AND b.start_ms < n.end_ms AND b.end_ms > n.start_ms AND b.dispatch_id <> $2 ORDER BY b.start_ms LIMIT 1) b \
     ORDER BY n.i LIMIT 1";

/// What a fact that was ruled on before breaks.
pub(super) const FACT_KNOWN: &str = "facts_pkey";
const EXCEPTIONS: &str = "INSERT INTO exceptions (tenant, exception_id, dispatch_id, raised_ms, resolved_ms, json) \
     SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::bigint[], $6::text[]) \
     ON CONFLICT (tenant, exception_id) DO UPDATE SET dispatch_id = excluded.dispatch_id, \
       raised_ms = excluded.raised_ms, resolved_ms = excluded.resolved_ms, json = excluded.json";

const SLA: &str = "INSERT INTO sla (tenant, dispatch_id, deadline_ms, status, announced_ms, decided_ms, arrived_ms) \
     SELECT * FROM unnest($1::text[], $2::text[], $3::bigint[], $4::text[], $5::bigint[], $6::bigint[], $7::bigint[]) \
     ON CONFLICT (tenant, dispatch_id) DO UPDATE SET deadline_ms = excluded.deadline_ms, status = excluded.status, \
       announced_ms = excluded.announced_ms, decided_ms = excluded.decided_ms, arrived_ms = excluded.arrived_ms";

const TECHNICIANS: &str = "INSERT INTO technicians (tenant, technician, revision, json) \
     SELECT * FROM unnest($1::text[], $2::text[], $3::bigint[], $4::text[]) \
     ON CONFLICT (tenant, technician) DO UPDATE SET revision = excluded.revision, json = excluded.json";

const LOCATIONS: &str = "INSERT INTO locations (tenant, location_id, revision, json) \
     SELECT * FROM unnest($1::text[], $2::text[], $3::bigint[], $4::text[]) \
     ON CONFLICT (tenant, location_id) DO UPDATE SET revision = excluded.revision, json = excluded.json";

/// The lead's phone has stored the assignment: the entries that it acknowledged just now, where the epoch still holds.
pub(in crate::store::postgres) const MARK_DELIVERED: &str = "UPDATE dispatches d SET delivered_epoch = d.epoch, delivered_ms = f.at_ms FROM \
       (SELECT e.tenant, e.technician, e.dispatch_id, e.epoch, min(n.at_ms) AS at_ms \
        FROM unnest($1::text[], $2::text[], $3::bigint[], $4::bigint[], $5::bigint[]) AS n(tenant, technician, after, until, at_ms) \
        JOIN feed e ON e.tenant = n.tenant AND e.technician = n.technician AND e.seq > n.after AND e.seq <= n.until \
        WHERE e.kind = 'held' GROUP BY e.tenant, e.technician, e.dispatch_id, e.epoch) f \
     WHERE d.tenant = f.tenant AND d.dispatch_id = f.dispatch_id AND d.epoch = f.epoch AND d.technician = f.technician \
     AND (d.delivered_epoch IS NULL OR d.delivered_epoch <> d.epoch)";

/// One column: something of each item.
fn column<'i, I: 'i, T>(items: impl IntoIterator<Item = &'i I>, part: impl Fn(&'i I) -> T) -> Vec<T> {
    items.into_iter().map(part).collect()
}

/// A column whose values may fail to be written down.
fn written<'i, I: 'i, T>(
    items: impl IntoIterator<Item = &'i I>,
    part: impl Fn(&'i I) -> Result<T, StoreError>,
) -> Result<Vec<T>, StoreError> {
    items.into_iter().map(part).collect()
}

/// Writes everything: what depends on nothing else in one statement, after what makes room for it.
pub(super) async fn flush(
    connection: &mut PgConnection,
    found: &Found<'_>,
    writes: &Writes<'_>,
) -> Result<(), Failure> {
    let mut before = Vec::new();
    if !writes.unbooked.is_empty() {
        before.push(bookings_gone(writes));
    }
    before.extend(rare(writes)?);
    before.extend(directory(found, writes)?);
    for statement in before {
        statement.execute(&mut *connection).await?;
    }
    if let Some(statement) = outcome(found, writes)? {
        statement.execute(&mut *connection).await?;
    }
    // Of the dispatches as they are then.
    if !writes.acknowledged.is_empty() {
        mark_delivered(writes).execute(&mut *connection).await?;
    }
    Ok(())
}

/// The statement of what most commits write; none when there is nothing.
fn outcome(found: &Found<'_>, writes: &Writes<'_>) -> Result<Option<Statement>, StoreError> {
    let remembers = !writes.consumed.is_empty() || !writes.answers.is_empty();
    let shares: Vec<_> = [
        (Share::Dispatches, !writes.dispatches.is_empty()),
        (Share::Feeds, !writes.feed.is_empty()),
        (Share::Bookings, writes.bookings.values().any(|bookings| !bookings.is_empty())),
        (Share::Facts, !writes.facts.is_empty()),
        (Share::Devices, !writes.devices.is_empty()),
        (Share::Journal, !writes.events.is_empty() || !writes.audit.is_empty() || remembers),
    ]
    .into_iter()
    .filter_map(|(share, wanted)| wanted.then_some(share))
    .collect();
    if shares.is_empty() {
        return Ok(None);
    }
    let mut statement = sqlx::query(statement(&shares));
    for share in shares {
        statement = match share {
            Share::Dispatches => dispatches(statement, writes)?,
            Share::Feeds => feeds(statement, found, writes)?,
            Share::Bookings => bookings(statement, writes),
            Share::Facts => facts(statement, writes)?,
            Share::Devices => devices(statement, found, writes)?,
            Share::Journal => journal(statement, found, writes)?,
        };
    }
    Ok(Some(statement))
}

fn dispatches(statement: Statement, writes: &Writes<'_>) -> Result<Statement, StoreError> {
    let all: Vec<_> = writes.dispatches.iter().map(|(key, (is_new, write))| (key.0, *is_new, *write)).collect();
    let watch = |write: &crate::service::commit::DispatchWrite| {
        let row = &write.row;
        let watched = !row.status.is_final() && row.state.arrived.is_none();
        row.sla_deadline.filter(|_| watched).map(Timestamp::millis)
    };
    let card = |card| minicbor_serde::to_vec(card).map_err(|error| corrupt("visit card")(error.to_string()));
    let changes: Vec<_> = writes
        .parts
        .iter()
        .flat_map(|(commit, write)| {
            write.changes.iter().zip(0_i64..).map(move |(change, index)| {
                (commit.tenant.as_str(), write.row.dispatch_id.as_str(), write.row.revision, index, change)
            })
        })
        .collect();
    Ok(statement
        .bind(column(&all, |(tenant, ..)| *tenant))
        .bind(column(&all, |(.., write)| write.row.dispatch_id.as_str()))
        .bind(column(&all, |(.., write)| write.row.service_order_id.as_str()))
        .bind(column(&all, |(.., write)| write.row.location_id.as_str()))
        .bind(column(&all, |(.., write)| write.row.revision.cast_signed()))
        .bind(column(&all, |(.., write)| write.row.status.name()))
        .bind(column(&all, |(.., write)| priority_rank(write.row.priority)))
        .bind(column(&all, |(.., write)| write.row.technician_id.as_ref().map(TechnicianId::as_str)))
        .bind(column(&all, |(.., write)| write.row.epoch.cast_signed()))
        .bind(column(&all, |(.., write)| write.row.scheduled.map_or(UNSCHEDULED_MS, |window| window.start.millis())))
        .bind(column(&all, |(.., write)| write.row.scheduled.map(|window| window.end.millis())))
        .bind(column(&all, |(.., write)| write.row.sla_deadline.map(Timestamp::millis)))
        .bind(column(&all, |(.., write)| write.row.created_at.millis()))
        .bind(column(&all, |(.., write)| write.row.updated_at.millis()))
        .bind(column(&all, |(.., write)| watch(write)))
        .bind(column(&all, |(.., write)| write.tag.0.cast_signed()))
        .bind(written(&all, |(.., write)| card(&write.row.card))?)
        .bind(written(&all, |(.., write)| to_json("plan", &write.row.plan))?)
        .bind(written(&all, |(.., write)| to_json("visit state", &write.row.state))?)
        .bind(column(&all, |(.., write)| write.document.as_slice()))
        .bind(column(&all, |(_, is_new, _)| *is_new))
        .bind(column(&changes, |(tenant, ..)| *tenant))
        .bind(column(&changes, |(_, dispatch, ..)| *dispatch))
        .bind(column(&changes, |(_, _, revision, ..)| revision.cast_signed()))
        .bind(column(&changes, |(.., index, _)| *index))
        .bind(column(&changes, |(.., change)| change.hash.0.as_slice()))
        .bind(column(&changes, |(.., change)| change.actor.0.as_slice()))
        .bind(column(&changes, |(.., change)| change.device.as_ref().map(DeviceId::as_str)))
        .bind(column(&changes, |(.., change)| change.bytes.as_slice())))
}

fn feeds(statement: Statement, found: &Found<'_>, writes: &Writes<'_>) -> Result<Statement, StoreError> {
    let feed = &writes.feed;
    let mut heads: Vec<_> =
        feed.iter().map(|(commit, _, entry)| (commit.tenant.as_str(), entry.technician.as_str())).collect();
    heads.sort_unstable();
    heads.dedup();
    let heads: Vec<_> = heads.into_iter().map(|key| (key, found.feed(key))).collect();
    let held: Vec<_> =
        writes.held.iter().filter_map(|(key, held)| held.map(|(seq, write)| (*key, seq, write))).collect();
    let gone: Vec<_> = writes.held.iter().filter(|(_, held)| held.is_none()).map(|(key, _)| *key).collect();
    let until = |write: &crate::service::commit::DispatchWrite| {
        let row = &write.row;
        let ends = [row.state.ended.map(|ended| ended.at), row.scheduled.map(|window| window.end)];
        ends.into_iter().flatten().min().map(Timestamp::millis)
    };
    Ok(statement
        .bind(column(feed, |(commit, ..)| commit.tenant.as_str()))
        .bind(column(feed, |(.., entry)| entry.technician.as_str()))
        .bind(column(feed, |(.., entry)| position(entry.seq)))
        .bind(column(feed, |(.., entry)| entry.dispatch.as_str()))
        .bind(column(feed, |(.., entry)| entry.revision.cast_signed()))
        .bind(column(feed, |(_, write, _)| write.row.epoch.cast_signed()))
        .bind(column(feed, |(.., entry)| entry.digest.cast_signed()))
        .bind(written(feed, |(.., entry)| match &entry.news {
            FeedNews::Held => Ok(None),
            FeedNews::Gone(tombstone) => to_json("tombstone", tombstone).map(Some),
        })?)
        .bind(column(feed, |(commit, ..)| commit.at.millis()))
        .bind(column(&heads, |((tenant, _), _)| *tenant))
        .bind(column(&heads, |((_, technician), _)| *technician))
        .bind(column(&heads, |(_, end)| position(end.seq)))
        .bind(column(&heads, |(_, end)| end.digest.0.cast_signed()))
        .bind(column(&held, |((tenant, ..), ..)| *tenant))
        .bind(column(&held, |((_, technician, _), ..)| *technician))
        .bind(column(&held, |((.., dispatch), ..)| *dispatch))
        .bind(column(&held, |(.., write)| write.row.revision.cast_signed()))
        .bind(column(&held, |(.., write)| write.tag.0.cast_signed()))
        .bind(column(&held, |(_, seq, _)| position(*seq)))
        .bind(column(&held, |(.., write)| until(write)))
        .bind(column(&gone, |(tenant, ..)| *tenant))
        .bind(column(&gone, |(_, technician, _)| *technician))
        .bind(column(&gone, |(.., dispatch)| *dispatch)))
}

fn bookings_gone(writes: &Writes<'_>) -> Statement {
    sqlx::query(BOOKINGS_GONE)
        .bind(column(&writes.unbooked, |(tenant, _)| *tenant))
        .bind(column(&writes.unbooked, |(_, dispatch)| *dispatch))
}

fn bookings(statement: Statement, writes: &Writes<'_>) -> Statement {
    let all: Vec<_> =
        writes.bookings.iter().flat_map(|(key, bookings)| bookings.iter().map(move |booking| (key, booking))).collect();
    statement
        .bind(column(&all, |((tenant, _), _)| *tenant))
        .bind(column(&all, |((_, dispatch), _)| *dispatch))
        .bind(column(&all, |(_, (technician, ..))| technician.as_str()))
        .bind(column(&all, |(_, (_, start, _))| *start))
        .bind(column(&all, |(_, (.., end))| *end))
}

/// Whose booking stands in the way of the commit's.
pub(super) async fn booked_by(connection: &mut PgConnection, commit: &Commit) -> Result<Option<PgRow>, sqlx::Error> {
    let Some(write) = &commit.dispatch else { return Ok(None) };
    let bookings: &[Booking] = write.bookings.as_deref().unwrap_or_default();
    sqlx::query(BOOKED_BY)
        .bind(commit.tenant.as_str())
        .bind(write.row.dispatch_id.as_str())
        .bind(column(bookings, |booking| booking.technician.as_str()))
        .bind(column(bookings, |booking| booking.span.start.millis()))
        .bind(column(bookings, |booking| booking.span.end.millis()))
        .fetch_optional(connection)
        .await
}

fn facts(statement: Statement, writes: &Writes<'_>) -> Result<Statement, StoreError> {
    let all = &writes.facts;
    let reason = |fact: &FactWrite| {
        let Some(ruling) = &fact.ruling else { return Ok(None) };
        let name =
            serde_json::to_value(ruling.reason).map_err(|error| corrupt("ruling's reason")(error.to_string()))?;
        Ok(name.as_str().map(str::to_owned))
    };
    Ok(statement
        .bind(column(all, |(commit, ..)| commit.tenant.as_str()))
        .bind(column(all, |(.., fact)| fact.fact.as_str()))
        .bind(column(all, |(_, write, _)| write.row.dispatch_id.as_str()))
        .bind(column(all, |(.., fact)| fact.device.as_str()))
        .bind(column(all, |(.., fact)| position(fact.seq)))
        .bind(column(all, |(.., fact)| i64::from(reuses_sequence(fact.ruling.as_ref()))))
        .bind(column(all, |(.., fact)| fact.knew_revision.cast_signed()))
        .bind(column(all, |(.., fact)| fact.kind))
        .bind(column(all, |(.., fact)| fact.occurred_at.millis()))
        .bind(column(all, |(.., fact)| fact.serial.as_ref().map(SerialNumber::as_str)))
        .bind(column(all, |(.., fact)| fact.ruling.as_ref().map(verdict_name)))
        .bind(written(all, |(.., fact)| reason(fact))?)
        .bind(column(all, |(.., fact)| fact.ruling.as_ref().map(|ruling| ruling.recorded_at.millis())))
        .bind(column(all, |(commit, _, fact)| fact.ruling.is_none().then_some(commit.at.millis()))))
}

/// Exceptions and service levels: most commits have none.
fn rare(writes: &Writes<'_>) -> Result<Vec<Statement>, StoreError> {
    let mut statements = Vec::new();
    if !writes.exceptions.is_empty() {
        let all: Vec<_> = writes.exceptions.iter().collect();
        statements.push(
            sqlx::query(EXCEPTIONS)
                .bind(column(&all, |((tenant, _), _)| *tenant))
                .bind(column(&all, |((_, id), _)| *id))
                .bind(column(&all, |(_, row)| row.dispatch_id.as_str()))
                .bind(column(&all, |(_, row)| row.raised_at.millis()))
                .bind(column(&all, |(_, row)| row.resolved_at.map(Timestamp::millis)))
                .bind(written(&all, |(_, row)| to_json("exception", row))?),
        );
    }
    if !writes.sla.is_empty() {
        let all: Vec<_> = writes.sla.iter().collect();
        statements.push(
            sqlx::query(SLA)
                .bind(column(&all, |((tenant, _), _)| *tenant))
                .bind(column(&all, |((_, dispatch), _)| *dispatch))
                .bind(column(&all, |(_, row)| row.deadline.millis()))
                .bind(column(&all, |(_, row)| breach_name(row.status)))
                .bind(column(&all, |(_, row)| row.announced_at.millis()))
                .bind(column(&all, |(_, row)| row.decided_at.map(Timestamp::millis)))
                .bind(column(&all, |(_, row)| row.arrived_at.map(Timestamp::millis))),
        );
    }
    Ok(statements)
}

/// Technicians and sites, with the revisions that the commits led to.
fn directory(found: &Found<'_>, writes: &Writes<'_>) -> Result<Vec<Statement>, StoreError> {
    let mut statements = Vec::new();
    if !writes.technicians.is_empty() {
        let all: Vec<_> = writes.technicians.iter().collect();
        let revision = |key| found.technicians.get(key).copied().unwrap_or(1);
        statements.push(
            sqlx::query(TECHNICIANS)
                .bind(column(&all, |((tenant, _), _)| *tenant))
                .bind(column(&all, |((_, id), _)| *id))
                .bind(column(&all, |(key, _)| position(revision(*key))))
                .bind(written(&all, |(_, row)| to_json("technician", row))?),
        );
    }
    if !writes.locations.is_empty() {
        let all: Vec<_> = writes.locations.iter().collect();
        let revision = |key| found.locations.get(key).copied().unwrap_or(1);
        statements.push(
            sqlx::query(LOCATIONS)
                .bind(column(&all, |((tenant, _), _)| *tenant))
                .bind(column(&all, |((_, id), _)| *id))
                .bind(column(&all, |(key, _)| position(revision(*key))))
                .bind(written(&all, |(_, row)| to_json("location", row))?),
        );
    }
    Ok(statements)
}

fn devices(statement: Statement, found: &Found<'_>, writes: &Writes<'_>) -> Result<Statement, StoreError> {
    let all: Vec<(&str, &Device)> =
        writes.devices.iter().filter_map(|key| Some((key.0, found.devices.get(key)?))).collect();
    let millis = |time: Option<Timestamp>| time.map(Timestamp::millis);
    Ok(statement
        .bind(column(&all, |(tenant, _)| *tenant))
        .bind(column(&all, |(_, device)| device.device.as_str()))
        .bind(column(&all, |(_, device)| device.technician.as_str()))
        .bind(column(&all, |(_, device)| device.app.as_str()))
        .bind(column(&all, |(_, device)| device.registered_at.millis()))
        .bind(column(&all, |(_, device)| device.seen_at.millis()))
        .bind(written(&all, |(_, device)| to_json("sequence ledger", &device.ledger))?)
        .bind(column(&all, |(_, device)| position(device.ledger_version)))
        .bind(column(&all, |(_, device)| i64::from(device.pending)))
        .bind(column(&all, |(_, device)| millis(device.oldest_pending)))
        .bind(column(&all, |(_, device)| millis(device.complete_at)))
        .bind(column(&all, |(_, device)| position(device.acknowledged)))
        .bind(column(&all, |(_, device)| millis(device.revoked_at)))
        .bind(column(&all, |(_, device)| millis(device.wiped_at)))
        .bind(column(&all, |(_, device)| position(device.digest_mismatches))))
}

fn mark_delivered(writes: &Writes<'_>) -> Statement {
    let all = &writes.acknowledged;
    sqlx::query(MARK_DELIVERED)
        .bind(column(all, |ack| ack.tenant))
        .bind(column(all, |ack| ack.technician))
        .bind(column(all, |ack| position(ack.after)))
        .bind(column(all, |ack| position(ack.to)))
        .bind(column(all, |ack| ack.at.millis()))
}

fn journal(statement: Statement, found: &Found<'_>, writes: &Writes<'_>) -> Result<Statement, StoreError> {
    let (events, audit, consumed, answers) = (&writes.events, &writes.audit, &writes.consumed, &writes.answers);
    let chains: Vec<_> = writes.chains.iter().map(|key| (*key, found.chain(*key))).collect();
    Ok(statement
        .bind(column(events, |(commit, _)| commit.tenant.as_str()))
        .bind(column(events, |(_, event)| event.event_id.as_str()))
        .bind(column(events, |(_, event)| event.payload.topic()))
        .bind(column(events, |(_, event)| event.aggregate_id.as_str()))
        .bind(written(events, |(_, event)| to_json("event", event))?)
        .bind(column(events, |(commit, _)| commit.traceparent.as_deref()))
        .bind(column(&chains, |((tenant, _), _)| *tenant))
        .bind(column(&chains, |((_, aggregate), _)| *aggregate))
        .bind(column(&chains, |(_, (seq, _))| position(*seq)))
        .bind(column(&chains, |(_, (_, hash))| hash.as_slice()))
        .bind(column(consumed, |(commit, _)| commit.tenant.as_str()))
        .bind(column(consumed, |(_, event)| event.as_str()))
        .bind(column(consumed, |(commit, _)| commit.at.millis()))
        .bind(column(answers, |(commit, _)| commit.tenant.as_str()))
        .bind(column(answers, |(_, answer)| answer.key.as_str()))
        .bind(column(answers, |(_, answer)| answer.request_hash.as_str()))
        .bind(column(answers, |(_, answer)| i64::from(answer.status)))
        .bind(column(answers, |(_, answer)| answer.etag.as_deref()))
        .bind(column(answers, |(_, answer)| answer.body.as_str()))
        .bind(column(answers, |(commit, _)| commit.at.millis()))
        .bind(column(audit, |line| line.tenant))
        .bind(column(audit, |line| line.aggregate))
        .bind(column(audit, |line| position(line.seq)))
        .bind(column(audit, |line| line.at.millis()))
        .bind(column(audit, |line| line.actor))
        .bind(column(audit, |line| line.action))
        .bind(column(audit, |line| line.detail.as_str()))
        .bind(column(audit, |line| line.previous_hash.as_slice()))
        .bind(column(audit, |line| line.hash.as_slice())))
}
