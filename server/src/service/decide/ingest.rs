//! Events of other systems, understood.

use super::directory;
use crate::service::directory::LocationInput;
use crate::service::error::ServiceError;
use crate::service::model::{Location, Technician};
use crate::service::office::NewRequest;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sync_core::domain::{EventId, LocationId, PartNumber, ServiceOrderId, TechnicianId, TenantId, Timestamp, Window};

/// Longest event, bytes.
const EVENT_BYTES_MAX: usize = 256 * 1024;

/// A consumed event.
pub(crate) struct Consumed {
    pub(crate) event_id: EventId,
    pub(crate) effect: Effect,
}

/// What it asks for.
pub(crate) enum Effect {
    /// A visit for a service order, at a site that may come with it.
    Schedule { request: Box<NewRequest>, location: Option<Location> },
    /// The service order was cancelled.
    Cancel { order: ServiceOrderId, reason: String },
    /// The service level was breached: more urgent.
    Escalate { order: ServiceOrderId },
    /// Inventory changed a truck's stock.
    Stock(Stock),
}

/// A change of a truck's stock: what there is now, or what came and went.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Stock {
    pub(crate) technician_id: TechnicianId,
    #[serde(alias = "part")]
    part_number: PartNumber,
    #[serde(default)]
    quantity: Option<i64>,
    #[serde(default)]
    delta: Option<i64>,
}

impl Stock {
    pub(crate) fn applied_to(&self, mut row: Technician) -> Technician {
        let stock = row.van_stock.entry(self.part_number.clone()).or_insert(0);
        *stock = self.quantity.unwrap_or(*stock).saturating_add(self.delta.unwrap_or(0));
        row.revision += 1;
        row
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Envelope {
    event_type: String,
    event_id: EventId,
    #[serde(default)]
    tenant_id: Option<TenantId>,
    payload: Value,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Scheduled {
    #[serde(default)]
    schedule_start: Option<Timestamp>,
    #[serde(default)]
    schedule_end: Option<Timestamp>,
    #[serde(default)]
    location_id: Option<LocationId>,
    #[serde(default)]
    location: Option<SiteForm>,
}

/// A site in an event: its id and what a location has.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SiteForm {
    location_id: LocationId,
    #[serde(flatten)]
    site: LocationInput,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct OfOrder {
    service_order_id: ServiceOrderId,
    #[serde(default)]
    reason: Option<String>,
}

/// Reads an event. What cannot be understood names its problem.
pub(crate) fn read(tenant: &TenantId, json: &str) -> Result<Consumed, ServiceError> {
    if json.len() > EVENT_BYTES_MAX {
        return Err(poison(None, format!("more than {EVENT_BYTES_MAX} bytes")));
    }
    let value: Value = serde_json::from_str(json).map_err(|error| poison(None, error.to_string()))?;
    let event = value.get("eventId").and_then(Value::as_str).and_then(|id| EventId::new(id).ok());
    let envelope: Envelope = parse(event.as_ref(), value)?;
    if envelope.tenant_id.as_ref().is_some_and(|other| other != tenant) {
        return Err(poison(event, "it belongs to another tenant"));
    }
    let event = Some(&envelope.event_id);
    let effect = match envelope.event_type.as_str() {
        "ServiceOrderScheduledEvent" => schedule(event, envelope.payload)?,
        "ServiceOrderCancelledEvent" => {
            let OfOrder { service_order_id, reason } = parse(event, envelope.payload)?;
            let reason = reason.unwrap_or_else(|| "the service order was cancelled".to_owned());
            Effect::Cancel { order: service_order_id, reason }
        }
        "SlaBreachedEvent" => {
            let OfOrder { service_order_id, .. } = parse(event, envelope.payload)?;
            Effect::Escalate { order: service_order_id }
        }
        "StockChangedEvent" => {
            let stock: Stock = parse(event, envelope.payload)?;
            if stock.quantity.is_none() && stock.delta.is_none() {
                return Err(poison(event.cloned(), "a stock change needs a quantity or a delta"));
            }
            Effect::Stock(stock)
        }
        other => return Err(ServiceError::UnknownEvent(other.chars().take(100).collect())),
    };
    Ok(Consumed { event_id: envelope.event_id, effect })
}

fn schedule(event: Option<&EventId>, mut payload: Value) -> Result<Effect, ServiceError> {
    let scheduled: Scheduled = parse(event, payload.clone())?;
    let window = match (scheduled.schedule_start, scheduled.schedule_end) {
        (Some(start), Some(end)) => Some(Window { start, end }),
        (None, None) => None,
        _ => return Err(poison(event.cloned(), "scheduleStart and scheduleEnd come together")),
    };
    let location = scheduled.location;
    let location_id = scheduled.location_id.or_else(|| location.as_ref().map(|form| form.location_id.clone()));
    let location_id =
        location_id.ok_or_else(|| poison(event.cloned(), "it names no location: locationId, or location"))?;
    if let Some(fields) = payload.as_object_mut() {
        fields.insert("locationId".to_owned(), Value::from(location_id.as_str()));
    }
    let mut request: NewRequest = parse(event, payload)?;
    request.scheduled = window.or(request.scheduled);
    let location = match location {
        None => None,
        Some(form) if form.location_id != location_id => {
            return Err(poison(event.cloned(), "locationId and location name different sites"));
        }
        Some(SiteForm { location_id, site }) => {
            directory::location(&site).map_err(|error| poison(event.cloned(), error.to_string()))?;
            Some(Location {
                location_id,
                revision: 1,
                name: site.name,
                address: site.address,
                coordinates: site.coordinates,
                access_notes: site.access_notes,
            })
        }
    };
    Ok(Effect::Schedule { request: Box::new(request), location })
}

fn parse<T: DeserializeOwned>(event: Option<&EventId>, value: Value) -> Result<T, ServiceError> {
    serde_json::from_value(value).map_err(|error| poison(event.cloned(), error.to_string()))
}

fn poison(event: Option<EventId>, problem: impl Into<String>) -> ServiceError {
    ServiceError::PoisonEvent { event, problem: problem.into() }
}
