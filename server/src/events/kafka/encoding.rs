//! Both forms of a message: the envelope in JSON, and the flattened form in Avro with its schema's id before it.
//!
//! In Avro the envelope's `timestamp` is a number of milliseconds; the times in a payload are texts, as in JSON. What is the
//! same for all events of a schema (`eventType`) or said elsewhere (`aggregateId` is the key) is left out.

use super::registry::{Registry, RegistryError};
use crate::config::{Encoding, KafkaConfig};
use crate::events::{Event, Payload, TOPICS};
use apache_avro::Schema;
use apache_avro::types::Value as Avro;
use serde_json::{Map, Value as Json, json};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use sync_core::domain::Timestamp;

/// Names the event's type.
pub const HEADER_EVENT_TYPE: &str = "event-type";
/// The event's id.
pub const HEADER_EVENT_ID: &str = "event-id";
/// [`CONTENT_TYPE_JSON`] or [`CONTENT_TYPE_AVRO`].
pub const HEADER_CONTENT_TYPE: &str = "content-type";
/// The W3C trace of the call that caused the event.
pub const HEADER_TRACEPARENT: &str = "traceparent";
/// The envelope.
pub const CONTENT_TYPE_JSON: &str = "application/json";
/// Confluent's wire format.
pub const CONTENT_TYPE_AVRO: &str = "application/avro";

/// First byte of Confluent's wire format.
const MAGIC: u8 = 0;
/// Most bytes that one Avro value may claim; a hostile length must not allocate more.
const AVRO_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Schemas kept by the decoder; others' topics hold a handful each.
const SCHEMAS_MAX: usize = 1_000;

/// The schemas of the five topics, in the order of [`TOPICS`].
pub const SCHEMAS: [&str; TOPICS.len()] = [
    include_str!("../../../schemas/TechnicianAssignedEvent.avsc"),
    include_str!("../../../schemas/DispatchConfirmedEvent.avsc"),
    include_str!("../../../schemas/DispatchRejectedEvent.avsc"),
    include_str!("../../../schemas/RouteOptimizedEvent.avsc"),
    include_str!("../../../schemas/TechnicianStatusChangedEvent.avsc"),
];

/// Why an event could not be written.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    /// It is no JSON.
    #[error("the event could not be written as JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// It does not fit its schema.
    #[error("the event does not fit its schema: {0}")]
    Avro(String),
}

/// Why a message could not be read.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// No retry helps.
    #[error("{0}")]
    Poison(String),
    /// The registry did not answer; the message may well be fine.
    #[error("{0}")]
    Unavailable(RegistryError),
}

/// Writes events.
#[derive(Debug)]
pub enum Encoder {
    /// The envelope.
    Json,
    /// The flattened form: one schema and its id a topic, in the order of [`TOPICS`].
    Avro(Box<[(u32, Schema); TOPICS.len()]>),
}

impl Encoder {
    /// The configured one. For Avro, all schemas are in the registry afterwards.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub async fn open(config: &KafkaConfig) -> Result<Self, RegistryError> {
        if config.encoding == Encoding::Json {
            return Ok(Self::Json);
        }
        let registry = Registry::new(config)?;
        let mut schemas = [const { (0, Schema::Null) }; TOPICS.len()];
        for (index, (topic, _)) in TOPICS.iter().enumerate() {
            let subject = format!("{}-value", config.topic(topic));
            let text = SCHEMAS[index];
            let schema = parse(text).map_err(|reason| RegistryError::Refused { subject: subject.clone(), reason })?;
            schemas[index] = (registry.register(&subject, text).await?, schema);
        }
        Ok(Self::Avro(Box::new(schemas)))
    }

    /// What the content type header says.
    #[must_use]
    pub fn content_type(&self) -> &'static str {
        match self {
            Self::Json => CONTENT_TYPE_JSON,
            Self::Avro(_) => CONTENT_TYPE_AVRO,
        }
    }

    /// A message's value.
    ///
    /// # Errors
    /// [`EncodeError`].
    pub fn encode(&self, event: &Event) -> Result<Vec<u8>, EncodeError> {
        match self {
            Self::Json => Ok(serde_json::to_vec(event)?),
            Self::Avro(schemas) => {
                let (id, schema) = &schemas[event.payload.topic_index()];
                let mut bytes = Vec::with_capacity(256);
                bytes.push(MAGIC);
                bytes.extend(id.to_be_bytes());
                let datum = apache_avro::to_avro_datum(schema, flatten(event))
                    .map_err(|error| EncodeError::Avro(error.to_string()))?;
                bytes.extend(datum);
                Ok(bytes)
            }
        }
    }
}

/// The flattened form.
fn flatten(event: &Event) -> Avro {
    let text = |text: &dyn std::fmt::Display| Avro::String(text.to_string());
    let mut fields = vec![
        ("eventId".to_owned(), text(&event.event_id)),
        ("timestamp".to_owned(), Avro::TimestampMillis(event.timestamp.millis())),
        ("tenantId".to_owned(), text(&event.tenant_id)),
    ];
    let payload = match &event.payload {
        Payload::TechnicianAssigned { dispatch_id, service_order_id, technician_id, status } => vec![
            ("dispatchId", text(dispatch_id)),
            ("serviceOrderId", text(service_order_id)),
            ("technicianId", text(technician_id)),
            ("status", text(status)),
        ],
        Payload::DispatchConfirmed { dispatch_id, technician_id, eta } => {
            vec![("dispatchId", text(dispatch_id)), ("technicianId", text(technician_id)), ("eta", text(eta))]
        }
        Payload::DispatchRejected { dispatch_id, technician_id, reason } => {
            vec![("dispatchId", text(dispatch_id)), ("technicianId", text(technician_id)), ("reason", text(reason))]
        }
        Payload::RouteOptimized { dispatch_id, route_id, distance_km } => vec![
            ("dispatchId", text(dispatch_id)),
            ("routeId", text(route_id)),
            ("distanceKm", Avro::Double(*distance_km)),
        ],
        Payload::TechnicianStatusChanged { technician_id, dispatch_id, status, occurred_at, recorded_at } => vec![
            ("technicianId", text(technician_id)),
            (
                "dispatchId",
                match dispatch_id {
                    None => Avro::Union(0, Box::new(Avro::Null)),
                    Some(id) => Avro::Union(1, Box::new(text(id))),
                },
            ),
            ("status", text(status)),
            ("occurredAt", text(occurred_at)),
            ("recordedAt", text(recorded_at)),
        ],
    };
    fields.extend(payload.into_iter().map(|(name, value)| (name.to_owned(), value)));
    Avro::Record(fields)
}

/// Reads messages of either form, and of any event.
#[derive(Debug)]
pub struct Decoder {
    registry: Option<Registry>,
    schemas: Mutex<HashMap<u32, Arc<Schema>>>,
}

impl Decoder {
    /// Reads Avro where a registry is configured.
    ///
    /// # Errors
    /// [`RegistryError`] when its settings make no sense.
    pub fn new(config: &KafkaConfig) -> Result<Self, RegistryError> {
        // The library's own limit is half a gigabyte, and can be set once a process.
        apache_avro::util::max_allocation_bytes(AVRO_BYTES_MAX);
        let registry = config.schema_registry_url.as_ref().map(|_| Registry::new(config)).transpose()?;
        Ok(Self { registry, schemas: Mutex::default() })
    }

    /// A message's value as an envelope in JSON, whichever form it has. Fields that the flattened form does not have are
    /// made up for: `eventType` is the schema's name.
    ///
    /// # Errors
    /// [`DecodeError`].
    pub async fn decode(&self, value: &[u8]) -> Result<Json, DecodeError> {
        let poison = |reason: String| DecodeError::Poison(reason);
        let Some((&MAGIC, rest)) = value.split_first() else {
            return serde_json::from_slice(value).map_err(|error| poison(format!("the message is no JSON: {error}")));
        };
        let (id, datum) =
            rest.split_first_chunk::<4>().ok_or_else(|| poison("the message ends within its schema id".to_owned()))?;
        let schema = self.schema(u32::from_be_bytes(*id)).await?;
        let mut datum = datum;
        let decoded = apache_avro::from_avro_datum(&schema, &mut datum, None)
            .map_err(|error| poison(format!("the message does not fit its schema: {error}")))?;
        if !datum.is_empty() {
            return Err(poison(format!("{} bytes follow the message", datum.len())));
        }
        let name = schema.name().map(|name| name.name.clone()).unwrap_or_default();
        match to_json(decoded) {
            Json::Object(fields) => Ok(envelope(&name, fields)),
            other => Err(poison(format!("the message is no record but {other}"))),
        }
    }

    async fn schema(&self, id: u32) -> Result<Arc<Schema>, DecodeError> {
        if let Some(known) = self.lock().get(&id) {
            return Ok(Arc::clone(known));
        }
        let poison = |reason: String| DecodeError::Poison(reason);
        let registry = self.registry.as_ref().ok_or_else(|| {
            poison("the message is Avro, and no registry is configured; set kafka.schema_registry_url".to_owned())
        })?;
        let text = match registry.schema(id).await {
            Ok(text) => text,
            Err(error @ RegistryError::UnknownSchema(_)) => return Err(poison(error.to_string())),
            Err(error) => return Err(DecodeError::Unavailable(error)),
        };
        let schema = Arc::new(parse(&text).map_err(|error| poison(format!("schema {id}: {error}")))?);
        let mut schemas = self.lock();
        if schemas.len() >= SCHEMAS_MAX {
            schemas.clear();
        }
        schemas.insert(id, Arc::clone(&schema));
        Ok(schema)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<u32, Arc<Schema>>> {
        self.schemas.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn parse(text: &str) -> Result<Schema, String> {
    Schema::parse_str(text).map_err(|error| format!("no Avro schema: {error}"))
}

/// The fields of the envelope; whatever else a flattened record has is the payload.
const ENVELOPE: [&str; 5] = ["eventType", "eventId", "timestamp", "aggregateId", "tenantId"];

fn envelope(name: &str, mut fields: Map<String, Json>) -> Json {
    let mut envelope = Map::new();
    for field in ENVELOPE {
        if let Some(value) = fields.remove(field) {
            envelope.insert(field.to_owned(), value);
        }
    }
    envelope.entry("eventType").or_insert_with(|| json!(name));
    // Somebody else's schema may have the envelope's own shape.
    if fields.get("payload").is_some_and(Json::is_object) {
        envelope.append(&mut fields);
    } else {
        envelope.insert("payload".to_owned(), Json::Object(fields));
    }
    Json::Object(envelope)
}

/// As JSON has it: times as texts, missing optional fields left out, bytes in hexadecimal digits.
fn to_json(value: Avro) -> Json {
    let millis = |millis: i64| json!(Timestamp::from_millis(millis).to_string());
    match value {
        Avro::Null => Json::Null,
        Avro::Boolean(value) => json!(value),
        Avro::Int(value) | Avro::Date(value) | Avro::TimeMillis(value) => json!(value),
        Avro::Long(value) | Avro::TimeMicros(value) => json!(value),
        Avro::Float(value) => json!(value),
        Avro::Double(value) => json!(value),
        Avro::String(value) | Avro::Enum(_, value) => Json::String(value),
        Avro::Bytes(bytes) | Avro::Fixed(_, bytes) => json!(hex(&bytes)),
        Avro::Union(_, value) => to_json(*value),
        Avro::Array(values) => values.into_iter().map(to_json).collect(),
        Avro::Map(values) => values.into_iter().map(|(name, value)| (name, to_json(value))).collect(),
        Avro::Record(fields) => {
            let fields = fields.into_iter().map(|(name, value)| (name, to_json(value)));
            fields.filter(|(_, value)| !value.is_null()).collect()
        }
        Avro::TimestampMillis(value) | Avro::LocalTimestampMillis(value) => millis(value),
        Avro::TimestampMicros(value) | Avro::LocalTimestampMicros(value) => millis(value.div_euclid(1_000)),
        Avro::TimestampNanos(value) | Avro::LocalTimestampNanos(value) => millis(value.div_euclid(1_000_000)),
        Avro::Uuid(value) => json!(value.to_string()),
        // Numbers too large for JSON's; no event that is read here has any.
        other @ (Avro::Decimal(_) | Avro::BigDecimal(_) | Avro::Duration(_)) => json!(format!("{other:?}")),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use sync_core::domain::{DispatchId, EventId, RouteId, ServiceOrderId, TechnicianId, TenantId};

    fn event(payload: Payload) -> Event {
        Event {
            event_id: EventId::new("evt-4501").unwrap(),
            timestamp: "2026-02-02T13:05:00Z".parse().unwrap(),
            aggregate_id: "DSP-100".to_owned(),
            tenant_id: TenantId::new("tenant-001").unwrap(),
            payload,
        }
    }

    /// One of each, and the one whose dispatch is optional without it.
    fn every_event() -> [Event; TOPICS.len() + 1] {
        let dispatch_id = DispatchId::new("DSP-100").unwrap();
        let technician_id = TechnicianId::new("TECH-10").unwrap();
        let status = |dispatch_id| Payload::TechnicianStatusChanged {
            technician_id: technician_id.clone(),
            dispatch_id,
            status: "ON_SITE".to_owned(),
            occurred_at: "2026-02-03T09:31:07.250Z".parse().unwrap(),
            recorded_at: "2026-02-03T09:40:00Z".parse().unwrap(),
        };
        [
            event(Payload::TechnicianAssigned {
                dispatch_id: dispatch_id.clone(),
                service_order_id: ServiceOrderId::new("SO-100").unwrap(),
                technician_id: technician_id.clone(),
                status: "ASSIGNED".to_owned(),
            }),
            event(Payload::DispatchConfirmed {
                dispatch_id: dispatch_id.clone(),
                technician_id: technician_id.clone(),
                eta: "2026-02-03T09:30:00Z".parse().unwrap(),
            }),
            event(Payload::DispatchRejected {
                dispatch_id: dispatch_id.clone(),
                technician_id: technician_id.clone(),
                reason: "Grüße aus dem Stau".to_owned(),
            }),
            event(Payload::RouteOptimized {
                dispatch_id: dispatch_id.clone(),
                route_id: RouteId::new("ROUTE-200").unwrap(),
                distance_km: 42.5,
            }),
            event(status(Some(dispatch_id))),
            event(status(None)),
        ]
    }

    fn avro() -> Encoder {
        let mut id = 100;
        Encoder::Avro(Box::new(SCHEMAS.map(|text| {
            id += 1;
            (id, parse(text).unwrap())
        })))
    }

    /// A decoder that has read these schemas before.
    fn decoder(encoder: &Encoder) -> Decoder {
        let Encoder::Avro(schemas) = encoder else { panic!("no schemas") };
        let known = schemas.iter().map(|(id, schema)| (*id, Arc::new(schema.clone())));
        Decoder { registry: None, schemas: Mutex::new(known.collect()) }
    }

    #[test]
    fn the_envelope_is_the_owners() {
        let bytes = Encoder::Json.encode(&every_event()[0]).unwrap();
        let expected = json!({
            "eventType": "TechnicianAssignedEvent",
            "eventId": "evt-4501",
            "timestamp": "2026-02-02T13:05:00Z",
            "aggregateId": "DSP-100",
            "tenantId": "tenant-001",
            "payload": {
                "dispatchId": "DSP-100",
                "serviceOrderId": "SO-100",
                "technicianId": "TECH-10",
                "status": "ASSIGNED"
            }
        });
        assert_eq!(serde_json::from_slice::<Json>(&bytes).unwrap(), expected);
    }

    #[test]
    fn the_owners_two_schemas_are_kept_and_the_logical_type_counts() {
        for (text, name, fields) in [
            (SCHEMAS[0], "TechnicianAssignedEvent", &["dispatchId", "serviceOrderId", "technicianId", "status"][..]),
            (SCHEMAS[1], "DispatchConfirmedEvent", &["dispatchId", "technicianId", "eta"]),
        ] {
            let head = [
                json!({ "name": "eventId", "type": "string" }),
                json!({ "name": "timestamp", "type": { "type": "long", "logicalType": "timestamp-millis" } }),
                json!({ "name": "tenantId", "type": "string" }),
            ];
            let fields = fields.iter().map(|field| json!({ "name": field, "type": "string" }));
            let found: Json = serde_json::from_str(text).unwrap();
            assert_eq!(found["name"], name);
            assert_eq!(found["namespace"], "com.erp.crm.dispatch.events");
            assert_eq!(found["fields"], head.into_iter().chain(fields).collect::<Json>());
        }
        for text in SCHEMAS {
            let Schema::Record(record) = parse(text).unwrap() else { panic!("no record") };
            assert_eq!(record.fields[1].schema, Schema::TimestampMillis, "{}", record.name);
        }
    }

    #[tokio::test]
    async fn what_is_written_in_avro_is_read_as_the_same_envelope() {
        let encoder = avro();
        let decoder = decoder(&encoder);
        for (index, event) in every_event().into_iter().enumerate() {
            let bytes = encoder.encode(&event).unwrap();
            assert_eq!(bytes[..5], [0, 0, 0, 0, 101 + event.payload.topic_index() as u8], "event {index}");
            let mut expected = serde_json::to_value(&event).unwrap();
            // Said by the key.
            expected.as_object_mut().unwrap().remove("aggregateId");
            if expected["payload"]["dispatchId"].is_null() {
                expected["payload"].as_object_mut().unwrap().remove("dispatchId");
            }
            assert_eq!(decoder.decode(&bytes).await.unwrap(), expected);
            let json = Encoder::Json.encode(&event).unwrap();
            assert_eq!(decoder.decode(&json).await.unwrap(), serde_json::to_value(&event).unwrap());
        }
    }

    #[tokio::test]
    async fn what_cannot_be_read_is_poison_with_a_reason() {
        let encoder = avro();
        let decoder = decoder(&encoder);
        let good = encoder.encode(&every_event()[0]).unwrap();
        let mut unknown = good.clone();
        unknown[4] = 99;
        let mut longer = good.clone();
        longer.push(7);
        // A text that claims to be as long as the address space.
        let hostile = [&good[..5], &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]].concat();
        for (bytes, reason) in [
            (&b"{"[..], "no JSON"),
            (b"", "no JSON"),
            (&good[..3], "ends within its schema id"),
            (&good[..20], "does not fit its schema"),
            (&longer, "1 bytes follow"),
            (&unknown, "set kafka.schema_registry_url"),
            (&hostile, "does not fit its schema"),
        ] {
            match decoder.decode(bytes).await {
                Err(DecodeError::Poison(said)) => assert!(said.contains(reason), "{said}"),
                other => panic!("{other:?}"),
            }
        }
    }

    #[tokio::test]
    async fn others_schemas_may_have_the_envelope_or_none_of_it() {
        let nested = r#"{"type":"record","name":"SlaBreachedEvent","namespace":"x","fields":[
            {"name":"eventId","type":"string"},{"name":"eventType","type":"string"},
            {"name":"at","type":{"type":"long","logicalType":"timestamp-micros"}},
            {"name":"payload","type":{"type":"record","name":"P","fields":[
                {"name":"serviceOrderId","type":"string"},{"name":"tags","type":{"type":"map","values":"int"}}]}}]}"#;
        let schema = parse(nested).unwrap();
        let inner = Avro::Record(vec![
            ("serviceOrderId".to_owned(), Avro::String("SO-1".to_owned())),
            ("tags".to_owned(), Avro::Map(HashMap::from([("a".to_owned(), Avro::Int(1))]))),
        ]);
        let value = Avro::Record(vec![
            ("eventId".to_owned(), Avro::String("evt-9".to_owned())),
            ("eventType".to_owned(), Avro::String("SlaBreachedEvent".to_owned())),
            ("at".to_owned(), Avro::TimestampMicros(1_770_000_000_123_999)),
            ("payload".to_owned(), inner),
        ]);
        let mut bytes = vec![0, 0, 0, 0, 7];
        bytes.extend(apache_avro::to_avro_datum(&schema, value).unwrap());
        let decoder = Decoder { registry: None, schemas: Mutex::new(HashMap::from([(7, Arc::new(schema))])) };
        let read = decoder.decode(&bytes).await.unwrap();
        assert_eq!(read["eventType"], "SlaBreachedEvent");
        assert_eq!(read["at"], "2026-02-02T02:40:00.123Z");
        assert_eq!(read["payload"], json!({ "serviceOrderId": "SO-1", "tags": { "a": 1 } }));
    }
}
