//! Events, audit lines, and what is remembered: consumed events and given answers.

use super::{Failure, to_json};
use crate::service::commit::Commit;
use crate::service::model::AuditEntry;
use crate::store::StoreError;
use crate::store::audit::{AUDIT_GENESIS, AuditLine, audit_hash, to_hex};
use crate::store::sqlite::dispatches::json_list;
use sqlx::SqliteConnection;
use std::collections::BTreeMap;
use sync_core::domain::TenantId;

const WRITE_JOURNAL: &str = "INSERT INTO events (tenant, traceparent, event_id, topic, aggregate_id, json) \
       SELECT ?, ?, j.value ->> 0, j.value ->> 1, j.value ->> 2, j.value ->> 3 FROM json_each(?) j ORDER BY j.key; \
     INSERT INTO audit (tenant, aggregate, seq, at_ms, actor, action, detail, previous_hash, hash) \
       SELECT ?, j.value ->> 0, j.value ->> 1, j.value ->> 2, j.value ->> 3, j.value ->> 4, j.value ->> 5, \
         unhex(j.value ->> 6), unhex(j.value ->> 7) FROM json_each(?) j; \
     INSERT INTO audit_heads (tenant, aggregate, seq, hash) \
       SELECT ?, j.value ->> 0, j.value ->> 1, unhex(j.value ->> 2) FROM json_each(?) j WHERE true \
       ON CONFLICT (tenant, aggregate) DO UPDATE SET seq = excluded.seq, hash = excluded.hash; \
     INSERT INTO consumed_events (tenant, event_id, at_ms) SELECT ?, j.value, ? FROM json_each(?) j; \
     INSERT INTO idempotency_keys (tenant, key, request_hash, status, etag, body, at_ms) \
       SELECT ?, j.value ->> 0, j.value ->> 1, j.value ->> 2, j.value ->> 3, j.value ->> 4, ? FROM json_each(?) j; \
     RELEASE one_commit";

/// Writes what is told and remembered of the commit, and ends its savepoint.
pub(super) async fn write_journal(
    connection: &mut SqliteConnection,
    commit: &Commit,
    chains: &mut BTreeMap<String, (u64, [u8; 32])>,
) -> Result<(), Failure> {
    let remembers = commit.consumed.is_some() || commit.idempotency.is_some();
    if commit.events.is_empty() && commit.audit.is_empty() && !remembers {
        sqlx::query("RELEASE one_commit").execute(connection).await?;
        return Ok(());
    }
    let mut events = Vec::with_capacity(commit.events.len());
    for event in &commit.events {
        events.push((&event.event_id, event.payload.topic(), &event.aggregate_id, to_json("event", event)?));
    }
    let mut lines = Vec::with_capacity(commit.audit.len());
    for entry in &commit.audit {
        lines.push(chain(&commit.tenant, entry, chains)?);
    }
    let heads: Vec<_> = chains.iter().map(|(aggregate, (seq, hash))| (aggregate, seq, to_hex(hash))).collect();
    let answers: Vec<_> = commit
        .idempotency
        .iter()
        .map(|record| (&record.key, &record.request_hash, record.status, &record.etag, &record.body))
        .collect();
    let (tenant, at) = (commit.tenant.as_str(), commit.at.millis());
    sqlx::query(WRITE_JOURNAL)
        .bind(tenant)
        .bind(&commit.traceparent)
        .bind(json_list(&events)?)
        .bind(tenant)
        .bind(json_list(&lines)?)
        .bind(tenant)
        .bind(json_list(&heads)?)
        .bind(tenant)
        .bind(at)
        .bind(json_list(commit.consumed.as_slice())?)
        .bind(tenant)
        .bind(at)
        .bind(json_list(&answers)?)
        .execute(connection)
        .await?;
    Ok(())
}

/// One line of the audit table.
type ChainedLine<'a> = (&'a str, u64, i64, &'a str, &'a str, String, String, String);

/// Appends an entry to its chain.
fn chain<'a>(
    tenant: &TenantId,
    entry: &'a AuditEntry,
    chains: &mut BTreeMap<String, (u64, [u8; 32])>,
) -> Result<ChainedLine<'a>, StoreError> {
    let end = chains.entry(entry.aggregate.clone()).or_insert((0, AUDIT_GENESIS));
    let previous_hash = end.1;
    end.0 += 1;
    end.1 = audit_hash(&AuditLine {
        tenant,
        aggregate: &entry.aggregate,
        seq: end.0,
        at: entry.at,
        actor: &entry.actor,
        action: entry.action,
        detail: &entry.detail,
        previous_hash: &previous_hash,
    });
    Ok((
        &entry.aggregate,
        end.0,
        entry.at.millis(),
        &entry.actor,
        entry.action,
        to_json("audit detail", &entry.detail)?,
        to_hex(&previous_hash),
        to_hex(&end.1),
    ))
}
