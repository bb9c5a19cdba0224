//! Events of other systems: Service Orders and Inventory.

use crate::service::{Caller, Service, ServiceError};
use serde::{Deserialize, Serialize};
use sync_core::domain::{DispatchId, EventId};

/// What a consumed event did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ingested {
    /// The event.
    pub event_id: EventId,
    /// The dispatch concerned, if any.
    pub dispatch_id: Option<DispatchId>,
    /// What it came to.
    pub effect: IngestEffect,
}

/// What a consumed event came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum IngestEffect {
    /// It changed something.
    Applied,
    /// It had been consumed before, or its natural key had (rule 18).
    Duplicate,
    /// It came too late to change anything: the visit had ended.
    NoEffect,
}

impl Service {
    /// Consumes one event, an envelope in JSON. Idempotent for ever by event id and natural key (rule 18). Roles:
    /// integration, admin.
    ///
    /// # Errors
    /// [`ServiceError::PoisonEvent`] and [`ServiceError::UnknownEvent`] for what no retry helps: a dead letter; the
    /// effect's own errors otherwise.
    pub async fn ingest(&self, caller: &Caller, json: &str) -> Result<Ingested, ServiceError> {
        let _ = (caller, json);
        unimplemented!()
    }
}
