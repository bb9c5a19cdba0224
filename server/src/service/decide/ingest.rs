//! Events of other systems, understood.
//!
//! An envelope as the integration page has it, `{eventType, eventId, timestamp, tenantId, payload}`. Of the payload, what is not
//! listed here is ignored, and null means absent.
//!
//! | event | needs | may have |
//! |---|---|---|
//! | `ServiceOrderScheduledEvent` | `serviceOrderId`; `locationId` of a known location, or `location` with everything about a new one | `scheduleStart` with `scheduleEnd`, and what a dispatch request has: `requiredSkills` (none: anybody can go), `priority`, `slaDeadline`, … |
//! | `ServiceOrderCancelledEvent` | `serviceOrderId` | `reason` |
//! | `SlaBreachedEvent` | `serviceOrderId` | `breachId`; or `slaType`, `deadline`, `breachedAt` |
//! | `StockChangedEvent` | `technicianId`, `partNumber`, `quantity` (there is now) or `delta` (came or went) | `movementId` |

use super::directory;
use super::office::TEXT_BYTES_MAX;
use crate::service::directory::LocationInput;
use crate::service::error::ServiceError;
use crate::service::ingest::EVENT_BYTES_MAX;
use crate::service::model::{Location, Technician};
use crate::service::office::NewRequest;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::fmt::Write;
use sync_core::domain::{EventId, LocationId, PartNumber, ServiceOrderId, TechnicianId, TenantId, Timestamp, Window};

/// A consumed event.
pub(crate) struct Consumed {
    pub(crate) event_id: EventId,
    /// What it is remembered by: the natural key of what it tells, so that the same sent again as another event is known;
    /// its id where what it tells has none.
    pub(crate) key: EventId,
    /// When it happened, where it says so.
    pub(crate) at: Option<Timestamp>,
    pub(crate) effect: Effect,
}

/// What it asks for.
pub(crate) enum Effect {
    /// A visit for a service order, at a site that may come with it.
    Schedule { request: Box<NewRequest>, location: Option<Location> },
    /// Something happened to the service order.
    OnOrder { order: ServiceOrderId, what: OnOrder },
    /// Inventory changed a truck's stock.
    Stock(Stock),
    /// Nothing that dispatch knows of: the stock of a warehouse.
    Nothing,
}

/// What happened to a service order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "SCREAMING_SNAKE_CASE")]
pub(crate) enum OnOrder {
    /// It was cancelled.
    Cancel { reason: String },
    /// Its service level was breached: more urgent.
    Escalate,
}

/// What happened to a service order before it was known, as the audit trail keeps it until the order comes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Ahead {
    /// See [`Consumed::key`].
    pub(crate) key: EventId,
    pub(crate) at: Option<Timestamp>,
    pub(crate) what: OnOrder,
}

impl Ahead {
    /// What it is remembered by while it waits: its own key is for its effect.
    pub(crate) fn waiting_key(&self) -> Result<EventId, ServiceError> {
        natural_key("ahead", &[self.key.as_str()])
    }

    /// The order was scheduled after that: whoever did so knew of it.
    pub(crate) fn is_older_than(&self, scheduled: Option<Timestamp>) -> bool {
        matches!((self.at, scheduled), (Some(at), Some(scheduled)) if at < scheduled)
    }
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
    /// Inventory's own name of the change; without it, a change that is sent again as another event counts again.
    #[serde(default)]
    movement_id: Option<String>,
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
    /// Read leniently: no event is refused for its time.
    #[serde(default)]
    timestamp: Value,
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
struct Cancelled {
    service_order_id: ServiceOrderId,
    #[serde(default)]
    reason: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Breached {
    service_order_id: ServiceOrderId,
    #[serde(default)]
    breach_id: Option<String>,
    #[serde(default)]
    sla_type: Option<String>,
    #[serde(default, alias = "slaDeadline")]
    deadline: Option<Timestamp>,
    #[serde(default)]
    breached_at: Option<Timestamp>,
}

impl Breached {
    /// One breach escalates once. Where nothing tells two breaches of an order apart, they are one.
    fn key(&self) -> Result<EventId, ServiceError> {
        let order = self.service_order_id.as_str();
        let time = |time: Option<Timestamp>| time.map(|time| time.millis().to_string()).unwrap_or_default();
        match (&self.breach_id, &self.sla_type, self.deadline) {
            (Some(id), ..) => natural_key("breach", &[order, "id", id]),
            (None, None, None) => natural_key("breach", &[order, "at", &time(self.breached_at)]),
            (None, kind, deadline) => {
                natural_key("breach", &[order, "sla", kind.as_deref().unwrap_or_default(), &time(deadline)])
            }
        }
    }
}

/// Reads an event. What cannot be understood names its problem.
pub(crate) fn read(tenant: &TenantId, json: &str) -> Result<Consumed, ServiceError> {
    if json.len() > EVENT_BYTES_MAX {
        return Err(poison(None, format!("more than {EVENT_BYTES_MAX} bytes")));
    }
    let mut value: Value = serde_json::from_str(json).map_err(|error| poison(None, error.to_string()))?;
    drop_nulls(&mut value);
    let event = value.get("eventId").and_then(Value::as_str).and_then(|id| EventId::new(id).ok());
    let envelope: Envelope = parse(event.as_ref(), value)?;
    if envelope.tenant_id.as_ref().is_some_and(|other| other != tenant) {
        return Err(poison(event, "it belongs to another tenant"));
    }
    let event = Some(&envelope.event_id);
    let mut key = None;
    let effect = match envelope.event_type.as_str() {
        "ServiceOrderScheduledEvent" => schedule(event, envelope.payload)?,
        "ServiceOrderCancelledEvent" => {
            let Cancelled { service_order_id, reason } = parse(event, envelope.payload)?;
            let mut reason = reason.unwrap_or_else(|| "the service order was cancelled".to_owned());
            // A cancellation counts, however much is said about it.
            reason.truncate(reason.floor_char_boundary(TEXT_BYTES_MAX));
            Effect::OnOrder { order: service_order_id, what: OnOrder::Cancel { reason } }
        }
        "SlaBreachedEvent" => {
            let breached: Breached = parse(event, envelope.payload)?;
            key = Some(breached.key()?);
            Effect::OnOrder { order: breached.service_order_id, what: OnOrder::Escalate }
        }
        "StockChangedEvent" if envelope.payload.is_object() && envelope.payload.get("technicianId").is_none() => {
            Effect::Nothing
        }
        "StockChangedEvent" => {
            let stock: Stock = parse(event, envelope.payload)?;
            if stock.quantity.is_none() && stock.delta.is_none() {
                return Err(poison(event.cloned(), "a stock change needs a quantity or a delta"));
            }
            if let Some(movement) = &stock.movement_id {
                let technician = stock.technician_id.as_str();
                key = Some(natural_key("stock", &[movement, technician, stock.part_number.as_str()])?);
            }
            Effect::Stock(stock)
        }
        other => return Err(ServiceError::UnknownEvent(other.chars().take(100).collect())),
    };
    let at = serde_json::from_value(envelope.timestamp).ok();
    let key = key.unwrap_or_else(|| envelope.event_id.clone());
    Ok(Consumed { event_id: envelope.event_id, key, at, effect })
}

/// An event id made of what an event tells, so that it is known whatever its own id is. It has the length of an id whatever
/// the parts are.
fn natural_key(kind: &str, parts: &[&str]) -> Result<EventId, ServiceError> {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    let mut key = format!("{kind}:");
    for byte in hash.finalize().iter().take(20) {
        // Writing to a string does not fail.
        let _ = write!(key, "{byte:02x}");
    }
    EventId::new(key).map_err(|error| ServiceError::Internal(format!("natural key: {error}")))
}

/// Null means absent, as in the encoding that has no other way to say it.
fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, value| !value.is_null());
            fields.values_mut().for_each(drop_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_nulls),
        _ => {}
    }
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
