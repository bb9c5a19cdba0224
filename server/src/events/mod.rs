//! Published events: names, envelope, topics, payloads exactly as the integration page fixes them.
//!
//! Every event is in the journal, which REST reads; with Kafka configured, the relay publishes them from there.

#[cfg(feature = "kafka")]
pub mod kafka;
mod start;
mod status;

pub(crate) use start::{can_start_relay, start_consumers, start_relay};
pub use status::RelayStatus;

use serde::{Deserialize, Serialize};
use sync_core::domain::{DispatchId, EventId, RouteId, ServiceOrderId, TechnicianId, TenantId, Timestamp};

/// An event in its envelope.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    /// Stable: a consumer that remembers ids sees each event once.
    pub event_id: EventId,
    /// When it was decided.
    pub timestamp: Timestamp,
    /// The dispatch, or the technician where no dispatch is concerned; the Kafka key.
    pub aggregate_id: String,
    /// Whose.
    pub tenant_id: TenantId,
    /// Tagged `eventType` / `payload`.
    #[serde(flatten)]
    pub payload: Payload,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "eventType", content = "payload", rename_all_fields = "camelCase")]
pub enum Payload {
    /// Technician assigned to a dispatch.
    #[serde(rename = "TechnicianAssignedEvent")]
    TechnicianAssigned {
        /// Which.
        dispatch_id: DispatchId,
        /// The order behind it.
        service_order_id: ServiceOrderId,
        /// Who.
        technician_id: TechnicianId,
        /// `ASSIGNED`.
        status: String,
    },
    /// Technician confirmed dispatch.
    #[serde(rename = "DispatchConfirmedEvent")]
    DispatchConfirmed {
        /// Which.
        dispatch_id: DispatchId,
        /// Who.
        technician_id: TechnicianId,
        /// Expected arrival.
        eta: Timestamp,
    },
    /// Technician rejected dispatch.
    #[serde(rename = "DispatchRejectedEvent")]
    DispatchRejected {
        /// Which.
        dispatch_id: DispatchId,
        /// Who.
        technician_id: TechnicianId,
        /// In their words.
        reason: String,
    },
    /// Route optimization completed.
    #[serde(rename = "RouteOptimizedEvent")]
    RouteOptimized {
        /// Which.
        dispatch_id: DispatchId,
        /// The route.
        route_id: RouteId,
        /// Its length.
        distance_km: f64,
    },
    /// Departures, arrivals, completions, and status changes without a dispatch.
    #[serde(rename = "TechnicianStatusChangedEvent")]
    TechnicianStatusChanged {
        /// Who.
        technician_id: TechnicianId,
        /// Which, if any.
        dispatch_id: Option<DispatchId>,
        /// The technician's status, as in REST.
        status: String,
        /// Corrected device time, or the server's where the office set it.
        occurred_at: Timestamp,
        /// The server's time.
        recorded_at: Timestamp,
    },
}

/// The topics and their partitions.
pub const TOPICS: [(&str, u16); 5] = [
    ("crm.dispatch.assignment.created", 6),
    ("crm.dispatch.assignment.confirmed", 6),
    ("crm.dispatch.assignment.rejected", 3),
    ("crm.dispatch.route.optimized", 3),
    ("crm.dispatch.technician.status", 6),
];

impl Payload {
    /// The event's topic.
    #[must_use]
    pub fn topic(&self) -> &'static str {
        TOPICS[self.topic_index()].0
    }

    /// Its place in [`TOPICS`].
    #[must_use]
    pub fn topic_index(&self) -> usize {
        match self {
            Self::TechnicianAssigned { .. } => 0,
            Self::DispatchConfirmed { .. } => 1,
            Self::DispatchRejected { .. } => 2,
            Self::RouteOptimized { .. } => 3,
            Self::TechnicianStatusChanged { .. } => 4,
        }
    }

    /// The event's name.
    #[must_use]
    pub fn event_type(&self) -> &'static str {
        match self {
            Self::TechnicianAssigned { .. } => "TechnicianAssignedEvent",
            Self::DispatchConfirmed { .. } => "DispatchConfirmedEvent",
            Self::DispatchRejected { .. } => "DispatchRejectedEvent",
            Self::RouteOptimized { .. } => "RouteOptimizedEvent",
            Self::TechnicianStatusChanged { .. } => "TechnicianStatusChangedEvent",
        }
    }
}
