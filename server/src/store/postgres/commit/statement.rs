//! The one statement that writes an outcome. Each kind of rows has a share in it, common table expressions of its own; a statement
//! is made of the shares that there is something for, once a process. So a commit costs one round trip to write, whatever it
//! writes, and no time for what it does not.

use std::sync::OnceLock;

/// One kind of rows: common table expressions with names of their own, whose parameters are columns and count from 1.
struct Sql {
    expressions: &'static str,
    parameters: usize,
}

/// The shares, in the order in which a statement has them.
#[derive(Debug, Clone, Copy)]
pub(super) enum Share {
    Dispatches,
    Feeds,
    Bookings,
    Facts,
    Devices,
    Journal,
}

const SHARES: [Sql; 6] = [DISPATCHES, FEEDS, BOOKINGS, FACTS, DEVICES, JOURNAL];

/// The rows, the documents, and the changes that led to them.
const DISPATCHES: Sql = Sql {
    expressions: "d AS MATERIALIZED (SELECT * FROM \
       unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::bigint[], $6::text[], $7::bigint[], $8::text[], $9::bigint[], \
         $10::bigint[], $11::bigint[], $12::bigint[], $13::bigint[], $14::bigint[], $15::bigint[], $16::bigint[], $17::bytea[], \
         $18::text[], $19::text[], $20::bytea[], $21::bool[]) \
       AS n(tenant, dispatch_id, service_order_id, location_id, revision, status, priority, technician, epoch, start_ms, end_ms, \
         sla_deadline_ms, created_ms, updated_ms, watch_ms, tag, card, plan, state, document, is_new)), \
     d_new AS (INSERT INTO dispatches (tenant, dispatch_id, service_order_id, location_id, revision, status, priority, technician, \
         epoch, start_ms, end_ms, sla_deadline_ms, created_ms, updated_ms, watch_ms, tag, card, plan, state) \
       SELECT tenant, dispatch_id, service_order_id, location_id, revision, status, priority, technician, \
         epoch, start_ms, end_ms, sla_deadline_ms, created_ms, updated_ms, watch_ms, tag, card, plan, state FROM d WHERE is_new), \
     d_again AS (UPDATE dispatches o SET service_order_id = n.service_order_id, location_id = n.location_id, revision = n.revision, \
         status = n.status, priority = n.priority, technician = n.technician, epoch = n.epoch, start_ms = n.start_ms, \
         end_ms = n.end_ms, sla_deadline_ms = n.sla_deadline_ms, created_ms = n.created_ms, updated_ms = n.updated_ms, \
         watch_ms = n.watch_ms, tag = n.tag, card = n.card, plan = n.plan, state = n.state \
       FROM d n WHERE NOT n.is_new AND o.tenant = n.tenant AND o.dispatch_id = n.dispatch_id), \
     d_document AS (INSERT INTO documents (tenant, dispatch_id, document) SELECT tenant, dispatch_id, document FROM d WHERE is_new), \
     d_document_again AS (UPDATE documents o SET document = n.document FROM d n \
       WHERE NOT n.is_new AND o.tenant = n.tenant AND o.dispatch_id = n.dispatch_id), \
     d_change AS (INSERT INTO changes (tenant, dispatch_id, revision, idx, hash, actor, device, bytes) SELECT * FROM \
       unnest($22::text[], $23::text[], $24::bigint[], $25::bigint[], $26::bytea[], $27::bytea[], $28::text[], $29::bytea[]))",
    parameters: 29,
};

/// The entries, the feeds' ends, and what is held in the end.
const FEEDS: Sql = Sql {
    expressions: "f_entry AS (INSERT INTO feed \
         (tenant, technician, seq, dispatch_id, revision, epoch, kind, digest, tombstone, at_ms) \
       SELECT tenant, technician, seq, dispatch_id, revision, epoch, CASE WHEN tombstone IS NULL THEN 'held' ELSE 'gone' END, \
         digest, tombstone, at_ms \
       FROM unnest($1::text[], $2::text[], $3::bigint[], $4::text[], $5::bigint[], $6::bigint[], $7::bigint[], $8::text[], $9::bigint[]) \
         AS n(tenant, technician, seq, dispatch_id, revision, epoch, digest, tombstone, at_ms)), \
     f_head AS (INSERT INTO feed_heads (tenant, technician, seq, digest) \
       SELECT * FROM unnest($10::text[], $11::text[], $12::bigint[], $13::bigint[]) \
       ON CONFLICT (tenant, technician) DO UPDATE SET seq = excluded.seq, digest = excluded.digest), \
     f_held AS (INSERT INTO held (tenant, technician, dispatch_id, revision, tag, seq, until_ms) \
       SELECT * FROM unnest($14::text[], $15::text[], $16::text[], $17::bigint[], $18::bigint[], $19::bigint[], $20::bigint[]) \
       ON CONFLICT (tenant, technician, dispatch_id) DO UPDATE SET revision = excluded.revision, tag = excluded.tag, \
         seq = excluded.seq, until_ms = excluded.until_ms), \
     f_gone AS (DELETE FROM held g USING unnest($21::text[], $22::text[], $23::text[]) AS n(tenant, technician, dispatch_id) \
       WHERE g.tenant = n.tenant AND g.technician = n.technician AND g.dispatch_id = n.dispatch_id)",
    parameters: 23,
};

const BOOKINGS: Sql = Sql {
    expressions: "b AS (INSERT INTO bookings (tenant, dispatch_id, technician, start_ms, end_ms) \
     SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::bigint[]))",
    parameters: 5,
};

/// A fact that is known is written again only to be ruled on (it has no verdict while it is held). Any other one is given to the
/// primary key, which refuses it.
const FACTS: Sql = Sql {
    expressions: "t AS MATERIALIZED (SELECT * FROM \
       unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::bigint[], $6::bigint[], $7::bigint[], $8::text[], $9::bigint[], \
         $10::text[], $11::text[], $12::text[], $13::bigint[], $14::bigint[]) \
       AS n(tenant, fact_id, dispatch_id, device, seq, seq_reused, knew_revision, kind, occurred_ms, serial, verdict, reason, \
         recorded_ms, held_since_ms)), \
     t_ruled AS (UPDATE facts f SET seq_reused = n.seq_reused, verdict = n.verdict, reason = n.reason, recorded_ms = n.recorded_ms, \
         held_since_ms = NULL \
       FROM t n WHERE f.tenant = n.tenant AND f.fact_id = n.fact_id AND f.verdict IS NULL AND n.verdict IS NOT NULL \
       RETURNING f.tenant, f.fact_id), \
     t_new AS (INSERT INTO facts (tenant, fact_id, dispatch_id, device, seq, seq_reused, knew_revision, kind, occurred_ms, serial, verdict, \
         reason, recorded_ms, held_since_ms) \
       SELECT * FROM t n WHERE NOT EXISTS (SELECT 1 FROM t_ruled r WHERE r.tenant = n.tenant AND r.fact_id = n.fact_id))",
    parameters: 14,
};

const DEVICES: Sql = Sql {
    expressions: "v AS (INSERT INTO devices (tenant, device, technician, app, registered_ms, seen_ms, ledger, \
       ledger_version, pending, oldest_pending_ms, complete_ms, acknowledged, revoked_ms, wiped_ms, digest_mismatches) \
     SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::bigint[], $6::bigint[], $7::text[], $8::bigint[], \
       $9::bigint[], $10::bigint[], $11::bigint[], $12::bigint[], $13::bigint[], $14::bigint[], $15::bigint[]) \
     ON CONFLICT (tenant, device) DO UPDATE SET app = excluded.app, seen_ms = excluded.seen_ms, \
       ledger = excluded.ledger, ledger_version = excluded.ledger_version, pending = excluded.pending, \
       oldest_pending_ms = excluded.oldest_pending_ms, complete_ms = excluded.complete_ms, \
       acknowledged = excluded.acknowledged, revoked_ms = excluded.revoked_ms, wiped_ms = excluded.wiped_ms, \
       digest_mismatches = excluded.digest_mismatches)",
    parameters: 15,
};

/// Events in their order, audit lines, and what is remembered: consumed events and given answers.
const JOURNAL: Sql = Sql {
    expressions: "j_event AS (INSERT INTO events (tenant, event_id, topic, aggregate_id, json, \
         traceparent) \
       SELECT tenant, event_id, topic, aggregate_id, json, traceparent \
       FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[]) \
         WITH ORDINALITY AS n(tenant, event_id, topic, aggregate_id, json, traceparent, i) ORDER BY i), \
     j_head AS (INSERT INTO audit_heads (tenant, aggregate, seq, hash) \
       SELECT * FROM unnest($7::text[], $8::text[], $9::bigint[], $10::bytea[]) \
       ON CONFLICT (tenant, aggregate) DO UPDATE SET seq = excluded.seq, hash = excluded.hash), \
     j_consumed AS (INSERT INTO consumed_events (tenant, event_id, at_ms) SELECT * FROM unnest($11::text[], $12::text[], $13::bigint[])), \
     j_key AS (INSERT INTO idempotency_keys (tenant, key, request_hash, status, etag, body, at_ms) \
       SELECT * FROM unnest($14::text[], $15::text[], $16::text[], $17::bigint[], $18::text[], $19::text[], $20::bigint[])), \
     j_audit AS (INSERT INTO audit (tenant, aggregate, seq, at_ms, actor, action, detail, previous_hash, hash) SELECT * FROM \
       unnest($21::text[], $22::text[], $23::bigint[], $24::bigint[], $25::text[], $26::text[], $27::text[], $28::bytea[], $29::bytea[]))",
    parameters: 29,
};

/// The statement with these shares; their parameters follow each other in the shares' order.
pub(super) fn statement(shares: &[Share]) -> &'static str {
    static STATEMENTS: [OnceLock<String>; 1 << SHARES.len()] = [const { OnceLock::new() }; 1 << SHARES.len()];
    let number = shares.iter().fold(0, |number, share| number | 1 << *share as usize);
    STATEMENTS[number].get_or_init(|| compose(number))
}

/// The statement with every share: what it reads, any of them reads.
#[cfg(test)]
pub(in crate::store::postgres) fn whole() -> String {
    compose((1 << SHARES.len()) - 1)
}

fn compose(number: usize) -> String {
    let mut before = 0;
    let mut expressions = Vec::new();
    for (index, share) in SHARES.iter().enumerate() {
        if number & 1 << index != 0 {
            expressions.push(renumbered(share.expressions, before));
            before += share.parameters;
        }
    }
    format!("WITH {} SELECT 1", expressions.join(", "))
}

/// `$1` becomes `$31` after thirty others.
fn renumbered(sql: &str, before: usize) -> String {
    let mut parts = sql.split('$');
    let mut renumbered = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let end = part.find(|c: char| !c.is_ascii_digit()).unwrap_or(part.len());
        let (number, rest) = part.split_at(end);
        renumbered.push_str(&format!("${}{rest}", number.parse::<usize>().unwrap_or_default() + before));
    }
    renumbered
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_share_says_how_many_parameters_it_has() {
        for share in SHARES {
            let has = |number: usize| renumbered(share.expressions, 0).contains(&format!("${number}::"));
            assert!((1..=share.parameters).all(has), "{}", share.expressions);
            assert!(!has(share.parameters + 1), "{}", share.expressions);
        }
    }

    #[test]
    fn parameters_count_on_from_share_to_share() {
        assert_eq!(
            renumbered("unnest($1::text[], $2::bigint[]) AS n(a, b)", 29),
            "unnest($30::text[], $31::bigint[]) AS n(a, b)"
        );
        let statement = statement(&[Share::Bookings, Share::Devices]);
        assert!(statement.starts_with("WITH b AS (INSERT INTO bookings"), "{statement}");
        assert!(statement.contains("$5::bigint[])), v AS (INSERT INTO devices"), "{statement}");
        assert!(statement.contains("$20::bigint[]") && !statement.contains("$21"), "{statement}");
    }
}
