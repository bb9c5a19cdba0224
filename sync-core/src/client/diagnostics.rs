//! What a support engineer may see: versions, counts, the last errors. No token, no key, no id or word of a customer's.

use super::{Engine, EngineError};
use crate::domain::fact::FACT_SCHEMA;
use crate::protocol::limits::PROTOCOL_VERSION;
use crate::store::{ParkedItem, SCHEMA_VERSION, StoreCounts};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Longest text of an error that goes out, in characters.
const ERROR_CHARS_MAX: usize = 200;

impl Engine {
    /// A report for support, as JSON. It may leave the phone: it names no customer, and holds no token and no key.
    ///
    /// # Errors
    /// The store's.
    pub async fn diagnostics(&self) -> Result<String, EngineError> {
        let (state, counts, parked) = self
            .client()
            .shared
            .with_store(|store, _| Ok((store.sync_state()?, store.counts()?, store.parked()?)))
            .await?;
        let now = self.client().shared.config.clock.now();
        let status = self.status().borrow().clone();
        let opened = self.report();
        let StoreCounts { visits, receipts, sealed, tombstones, quarantined, database_bytes, log_bytes, encrypted } =
            counts;
        let incidents: Vec<Value> = self
            .client()
            .incidents()
            .into_iter()
            .map(|incident| json!({ "at": incident.at.to_string(), "error": shortened(&incident.error.to_string()) }))
            .collect();
        let report = json!({
            "library": env!("CARGO_PKG_VERSION"),
            "protocol": PROTOCOL_VERSION,
            "schema": SCHEMA_VERSION,
            "factSchema": FACT_SCHEMA,
            "app": state.app,
            "device": state.device,
            "signedIn": state.user.is_some(),
            "clock": { "wall": now.wall.to_string(), "monotonicMs": now.monotonic_ms },
            "connection": {
                "phase": format!("{:?}", status.phase),
                "caughtUp": status.caught_up,
                "lastSync": state.last_sync.map(|at| at.to_string()),
                "cursor": state.cursor.0,
                "visitsToFetch": state.needs_fetch.len(),
                "incidents": incidents,
            },
            "outbox": {
                "pending": state.outbox.pending,
                "oldest": state.outbox.oldest.map(|at| at.to_string()),
                "highWater": state.outbox.high_water,
                "parked": state.parked,
                "parkedByCode": by_code(&parked),
                "sealed": sealed,
                "receipts": receipts,
            },
            "store": {
                "encrypted": encrypted,
                "visits": visits,
                "tombstones": tombstones,
                "rowsQuarantined": quarantined,
                "databaseBytes": database_bytes,
                "logBytes": log_bytes,
            },
            "opening": {
                "created": opened.created,
                "restored": opened.restored,
                "migratedFrom": opened.migrated_from,
                "setAside": opened.set_aside.is_some(),
            },
        });
        Ok(report.to_string())
    }
}

/// How many were refused of each kind and for which code.
fn by_code(parked: &[ParkedItem]) -> BTreeMap<String, u32> {
    let mut counts = BTreeMap::new();
    for item in parked {
        *counts.entry(format!("{} {}", item.edit.name(), item.code)).or_default() += 1;
    }
    counts
}

fn shortened(text: &str) -> String {
    text.chars().take(ERROR_CHARS_MAX).collect()
}
