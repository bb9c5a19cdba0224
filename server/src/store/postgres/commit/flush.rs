//! Writing the outcome: each table once, however many commits there were. Parameters are columns: one array each.

use super::Failure;
use super::apply::Writes;
use super::look::Found;
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

/// The rows, the documents, and the changes that led to them.
pub(in crate::store::postgres) const DISPATCHES: &str = "WITH n AS MATERIALIZED (SELECT * FROM \
       unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::bigint[], $6::text[], $7::bigint[], $8::text[], $9::bigint[], \
         $10::bigint[], $11::bigint[], $12::bigint[], $13::bigint[], $14::bigint[], $15::bigint[], $16::bigint[], $17::bytea[], \
         $18::text[], $19::text[], $20::bytea[], $21::bool[]) \
       AS n(tenant, dispatch_id, service_order_id, location_id, revision, status, priority, technician, epoch, start_ms, end_ms, \
         sla_deadline_ms, created_ms, updated_ms, watch_ms, tag, card, plan, state, document, is_new)), \
     i AS (INSERT INTO dispatches (tenant, dispatch_id, service_order_id, location_id, revision, status, priority, technician, \
         epoch, start_ms, end_ms, sla_deadline_ms, created_ms, updated_ms, watch_ms, tag, card, plan, state) \
       SELECT tenant, dispatch_id, service_order_id, location_id, revision, status, priority, technician, \
         epoch, start_ms, end_ms, sla_deadline_ms, created_ms, updated_ms, watch_ms, tag, card, plan, state FROM n WHERE is_new), \
     u AS (UPDATE dispatches d SET service_order_id = n.service_order_id, location_id = n.location_id, revision = n.revision, \
         status = n.status, priority = n.priority, technician = n.technician, epoch = n.epoch, start_ms = n.start_ms, \
         end_ms = n.end_ms, sla_deadline_ms = n.sla_deadline_ms, created_ms = n.created_ms, updated_ms = n.updated_ms, \
         watch_ms = n.watch_ms, tag = n.tag, card = n.card, plan = n.plan, state = n.state \
       FROM n WHERE NOT n.is_new AND d.tenant = n.tenant AND d.dispatch_id = n.dispatch_id), \
     di AS (INSERT INTO documents (tenant, dispatch_id, document) SELECT tenant, dispatch_id, document FROM n WHERE is_new), \
     du AS (UPDATE documents o SET document = n.document FROM n \
       WHERE NOT n.is_new AND o.tenant = n.tenant AND o.dispatch_id = n.dispatch_id) \
     INSERT INTO changes (tenant, dispatch_id, revision, idx, hash, actor, device, bytes) SELECT * FROM \
       unnest($22::text[], $23::text[], $24::bigint[], $25::bigint[], $26::bytea[], $27::bytea[], $28::text[], $29::bytea[])";

/// The entries, the feeds' ends, and what is held in the end.
pub(in crate::store::postgres) const FEEDS: &str = "WITH e AS (INSERT INTO feed \
         (tenant, technician, seq, dispatch_id, revision, epoch, kind, digest, tombstone, at_ms) \
       SELECT tenant, technician, seq, dispatch_id, revision, epoch, CASE WHEN tombstone IS NULL THEN 'held' ELSE 'gone' END, \
         digest, tombstone, at_ms \
       FROM unnest($1::text[], $2::text[], $3::bigint[], $4::text[], $5::bigint[], $6::bigint[], $7::bigint[], $8::text[], $9::bigint[]) \
         AS n(tenant, technician, seq, dispatch_id, revision, epoch, digest, tombstone, at_ms)), \
     h AS (INSERT INTO feed_heads (tenant, technician, seq, digest) \
       SELECT * FROM unnest($10::text[], $11::text[], $12::bigint[], $13::bigint[]) \
       ON CONFLICT (tenant, technician) DO UPDATE SET seq = excluded.seq, digest = excluded.digest), \
     v AS (INSERT INTO held (tenant, technician, dispatch_id, revision, tag, seq, until_ms) \
       SELECT * FROM unnest($14::text[], $15::text[], $16::text[], $17::bigint[], $18::bigint[], $19::bigint[], $20::bigint[]) \
       ON CONFLICT (tenant, technician, dispatch_id) DO UPDATE SET revision = excluded.revision, tag = excluded.tag, \
         seq = excluded.seq, until_ms = excluded.until_ms) \
     DELETE FROM held g USING unnest($21::text[], $22::text[], $23::text[]) AS n(tenant, technician, dispatch_id) \
       WHERE g.tenant = n.tenant AND g.technician = n.technician AND g.dispatch_id = n.dispatch_id";

pub(in crate::store::postgres) const BOOKINGS_GONE: &str = "DELETE FROM bookings b USING unnest($1::text[], $2::text[]) AS n(tenant, dispatch_id) \
     WHERE b.tenant = n.tenant AND b.dispatch_id = n.dispatch_id";
const BOOKINGS: &str = "INSERT INTO bookings (tenant, dispatch_id, technician, start_ms, end_ms) \
     SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::bigint[])";
pub(in crate::store::postgres) const BOOKED_BY: &str = "SELECT b.technician, b.dispatch_id \
     FROM unnest($3::text[], $4::bigint[], $5::bigint[]) WITH ORDINALITY AS n(technician, start_ms, end_ms, i) \
     CROSS JOIN LATERAL (SELECT * FROM bookings b WHERE b.tenant = $1 AND b.technician = n.technician \
       AND b.start_ms < n.end_ms AND b.end_ms > n.start_ms AND b.dispatch_id <> $2 ORDER BY b.start_ms LIMIT 1) b \
     ORDER BY n.i LIMIT 1";

/// What a fact that was ruled on before breaks.
pub(super) const FACT_KNOWN: &str = "facts_pkey";
/// A fact that is known is written again only to be ruled on (it has no verdict while it is held). Any other one is given to the
/// primary key, which refuses it.
pub(in crate::store::postgres) const FACTS: &str = "WITH n AS MATERIALIZED (SELECT * FROM \
       unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::bigint[], $6::bigint[], $7::bigint[], $8::text[], $9::bigint[], \
         $10::text[], $11::text[], $12::text[], $13::bigint[], $14::bigint[]) \
       AS n(tenant, fact_id, dispatch_id, device, seq, seq_reused, knew_revision, kind, occurred_ms, serial, verdict, reason, \
         recorded_ms, held_since_ms)), \
     ruled AS (UPDATE facts f SET seq_reused = n.seq_reused, verdict = n.verdict, reason = n.reason, recorded_ms = n.recorded_ms, \
         held_since_ms = NULL \
       FROM n WHERE f.tenant = n.tenant AND f.fact_id = n.fact_id AND f.verdict IS NULL AND n.verdict IS NOT NULL \
       RETURNING f.tenant, f.fact_id) \
     INSERT INTO facts (tenant, fact_id, dispatch_id, device, seq, seq_reused, knew_revision, kind, occurred_ms, serial, verdict, \
         reason, recorded_ms, held_since_ms) \
       SELECT * FROM n WHERE NOT EXISTS (SELECT 1 FROM ruled r WHERE r.tenant = n.tenant AND r.fact_id = n.fact_id)";

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

const DEVICES: &str = "INSERT INTO devices (tenant, device, technician, app, registered_ms, seen_ms, ledger, \
       ledger_version, pending, oldest_pending_ms, complete_ms, acknowledged, revoked_ms, wiped_ms, digest_mismatches) \
     SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::bigint[], $6::bigint[], $7::text[], $8::bigint[], \
       $9::bigint[], $10::bigint[], $11::bigint[], $12::bigint[], $13::bigint[], $14::bigint[], $15::bigint[]) \
     ON CONFLICT (tenant, device) DO UPDATE SET app = excluded.app, seen_ms = excluded.seen_ms, \
       ledger = excluded.ledger, ledger_version = excluded.ledger_version, pending = excluded.pending, \
       oldest_pending_ms = excluded.oldest_pending_ms, complete_ms = excluded.complete_ms, \
       acknowledged = excluded.acknowledged, revoked_ms = excluded.revoked_ms, wiped_ms = excluded.wiped_ms, \
       digest_mismatches = excluded.digest_mismatches";

/// The lead's phone has stored the assignment: the entries that it acknowledged just now, where the epoch still holds.
pub(in crate::store::postgres) const MARK_DELIVERED: &str = "UPDATE dispatches d SET delivered_epoch = d.epoch, delivered_ms = f.at_ms FROM \
       (SELECT e.tenant, e.technician, e.dispatch_id, e.epoch, min(n.at_ms) AS at_ms \
        FROM unnest($1::text[], $2::text[], $3::bigint[], $4::bigint[], $5::bigint[]) AS n(tenant, technician, after, until, at_ms) \
        JOIN feed e ON e.tenant = n.tenant AND e.technician = n.technician AND e.seq > n.after AND e.seq <= n.until \
        WHERE e.kind = 'held' GROUP BY e.tenant, e.technician, e.dispatch_id, e.epoch) f \
     WHERE d.tenant = f.tenant AND d.dispatch_id = f.dispatch_id AND d.epoch = f.epoch AND d.technician = f.technician \
     AND (d.delivered_epoch IS NULL OR d.delivered_epoch <> d.epoch)";

/// Events in their order, audit lines, and what is remembered: consumed events and given answers.
pub(in crate::store::postgres) const JOURNAL: &str = "WITH e AS (INSERT INTO events (tenant, event_id, topic, aggregate_id, json, \
         traceparent) \
       SELECT tenant, event_id, topic, aggregate_id, json, traceparent \
       FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[]) \
         WITH ORDINALITY AS n(tenant, event_id, topic, aggregate_id, json, traceparent, i) ORDER BY i), \
     h AS (INSERT INTO audit_heads (tenant, aggregate, seq, hash) \
       SELECT * FROM unnest($7::text[], $8::text[], $9::bigint[], $10::bytea[]) \
       ON CONFLICT (tenant, aggregate) DO UPDATE SET seq = excluded.seq, hash = excluded.hash), \
     c AS (INSERT INTO consumed_events (tenant, event_id, at_ms) SELECT * FROM unnest($11::text[], $12::text[], $13::bigint[])), \
     k AS (INSERT INTO idempotency_keys (tenant, key, request_hash, status, etag, body, at_ms) \
       SELECT * FROM unnest($14::text[], $15::text[], $16::text[], $17::bigint[], $18::text[], $19::text[], $20::bigint[])) \
     INSERT INTO audit (tenant, aggregate, seq, at_ms, actor, action, detail, previous_hash, hash) SELECT * FROM \
       unnest($21::text[], $22::text[], $23::bigint[], $24::bigint[], $25::text[], $26::text[], $27::text[], $28::bytea[], $29::bytea[])";

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

/// Writes everything.
pub(super) async fn flush(
    connection: &mut PgConnection,
    found: &Found<'_>,
    writes: &Writes<'_>,
) -> Result<(), Failure> {
    let mut statements = Vec::new();
    if !writes.dispatches.is_empty() {
        statements.push(dispatches(writes)?);
    }
    if !writes.feed.is_empty() {
        statements.push(feeds(found, writes)?);
    }
    if !writes.bookings.is_empty() {
        statements.push(bookings_gone(writes));
        statements.push(bookings(writes));
    }
    if !writes.facts.is_empty() {
        statements.push(facts(writes)?);
    }
    statements.extend(rare(writes)?);
    statements.extend(directory(found, writes)?);
    if !writes.devices.is_empty() {
        statements.push(devices(found, writes)?);
    }
    if !writes.acknowledged.is_empty() {
        statements.push(mark_delivered(writes));
    }
    let remembers = !writes.consumed.is_empty() || !writes.answers.is_empty();
    if !writes.events.is_empty() || !writes.audit.is_empty() || remembers {
        statements.push(journal(found, writes)?);
    }
    for statement in statements {
        statement.execute(&mut *connection).await?;
    }
    Ok(())
}

fn dispatches(writes: &Writes<'_>) -> Result<Statement, StoreError> {
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
    Ok(sqlx::query(DISPATCHES)
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

fn feeds(found: &Found<'_>, writes: &Writes<'_>) -> Result<Statement, StoreError> {
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
    Ok(sqlx::query(FEEDS)
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
        .bind(column(writes.bookings.keys(), |(tenant, _)| *tenant))
        .bind(column(writes.bookings.keys(), |(_, dispatch)| *dispatch))
}

fn bookings(writes: &Writes<'_>) -> Statement {
    let all: Vec<_> =
        writes.bookings.iter().flat_map(|(key, bookings)| bookings.iter().map(move |booking| (key, booking))).collect();
    sqlx::query(BOOKINGS)
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

fn facts(writes: &Writes<'_>) -> Result<Statement, StoreError> {
    let all = &writes.facts;
    let reason = |fact: &FactWrite| {
        let Some(ruling) = &fact.ruling else { return Ok(None) };
        let name =
            serde_json::to_value(ruling.reason).map_err(|error| corrupt("ruling's reason")(error.to_string()))?;
        Ok(name.as_str().map(str::to_owned))
    };
    Ok(sqlx::query(FACTS)
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

fn devices(found: &Found<'_>, writes: &Writes<'_>) -> Result<Statement, StoreError> {
    let all: Vec<(&str, &Device)> =
        writes.devices.iter().filter_map(|key| Some((key.0, found.devices.get(key)?))).collect();
    let millis = |time: Option<Timestamp>| time.map(Timestamp::millis);
    Ok(sqlx::query(DEVICES)
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

fn journal(found: &Found<'_>, writes: &Writes<'_>) -> Result<Statement, StoreError> {
    let (events, audit, consumed, answers) = (&writes.events, &writes.audit, &writes.consumed, &writes.answers);
    let chains: Vec<_> = writes.chains.iter().map(|key| (*key, found.chain(*key))).collect();
    Ok(sqlx::query(JOURNAL)
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
