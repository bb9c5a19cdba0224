//! Events and health.

use serde::Deserialize;
use utoipa::ToSchema;

/// A published event in its envelope.
#[derive(Debug, Clone, PartialEq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Event {
    /// `TechnicianAssignedEvent`, ….
    #[schema(example = "TechnicianAssignedEvent")]
    pub event_type: String,
    /// Stable: a consumer that remembers ids sees each event once.
    #[schema(example = "evt-4501")]
    pub event_id: String,
    /// When it was decided.
    #[schema(format = DateTime)]
    pub timestamp: String,
    /// The dispatch, or the technician where none is concerned; the key.
    #[schema(example = "DSP-100")]
    pub aggregate_id: String,
    /// Whose.
    #[schema(example = "tenant-001")]
    pub tenant_id: String,
    /// By type.
    #[schema(value_type = Object)]
    pub payload: serde_json::Value,
}

/// One entry of the journal.
#[derive(Debug, Clone, PartialEq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct JournalEntry {
    /// Its position; grows.
    pub position: u64,
    /// Its topic.
    #[schema(example = "crm.dispatch.assignment.created")]
    pub topic: String,
    /// The event.
    pub event: Event,
}

/// A page of the journal, oldest first.
#[derive(Debug, Clone, PartialEq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct JournalPage {
    /// The entries.
    pub items: Vec<JournalEntry>,
    /// Where to read on: always given, so that a follower asks again with it; null in an empty journal.
    pub next_cursor: Option<String>,
}

/// What became of one consumed event.
#[derive(Debug, Clone, PartialEq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct IngestLine {
    /// Its id, where it could be read.
    #[schema(example = "evt-77")]
    pub event_id: Option<String>,
    /// The dispatch concerned, if any.
    #[schema(example = "DSP-100")]
    pub dispatch_id: Option<String>,
    /// `APPLIED`, `DUPLICATE`, `NO_EFFECT`, `WAITING` (for its service order); null when it failed.
    #[schema(example = "APPLIED")]
    pub effect: Option<String>,
    /// Why it failed; send it again only where the code is `BUSY` or `INTERNAL`.
    pub error: Option<IngestFailure>,
}

/// Why a consumed event had no effect.
#[derive(Debug, Clone, PartialEq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct IngestFailure {
    /// A stable code, as in an error body.
    #[schema(example = "EVENT_UNREADABLE")]
    pub code: String,
    /// For people.
    pub message: String,
}

/// What became of the consumed events, in their order.
#[derive(Debug, Clone, PartialEq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct IngestResult {
    /// One line an event.
    pub items: Vec<IngestLine>,
}

/// How the server is.
#[derive(Debug, Clone, PartialEq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Health {
    /// `UP`; `DEGRADED` while events wait for Kafka.
    #[schema(example = "UP")]
    pub status: String,
    /// How publishing goes: `JOURNAL` (no Kafka is configured), `STANDBY`, `PUBLISHING`, `WAITING`, `STOPPED`.
    #[schema(example = "PUBLISHING")]
    pub events: Option<String>,
}
