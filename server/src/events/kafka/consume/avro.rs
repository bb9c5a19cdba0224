//! Avro, read with the schema it was written with, into the JSON that the same event has.

use super::envelope::EVENT_BYTES_MAX;
use apache_avro::Schema;
use apache_avro::schema::Name;
use apache_avro::types::Value as Avro;
use serde_json::{Map, Number, Value};
use std::io::Read;

/// Fields that the flattened form has beside the payload's.
const ENVELOPE_FIELDS: [&str; 5] = ["eventType", "eventId", "timestamp", "aggregateId", "tenantId"];

/// Reads a schema, and refuses one that would let a small message cost much.
///
/// # Errors
/// What is wrong with it.
pub(super) fn schema(text: &str) -> Result<Schema, String> {
    // The crate's own limit for lengths that a message claims; it can be set once in a process.
    apache_avro::util::max_allocation_bytes(EVENT_BYTES_MAX);
    let schema = Schema::parse_str(text).map_err(|error| error.to_string())?;
    if !matches!(schema, Schema::Record(_)) {
        return Err("it describes no record".to_owned());
    }
    check(&schema, &mut Vec::new())?;
    Ok(schema)
}

/// Decodes a whole message into an envelope.
///
/// # Errors
/// What is wrong with it.
pub(super) fn envelope(schema: &Schema, bytes: &[u8]) -> Result<Value, String> {
    let mut reader = Whole { rest: bytes, short: false };
    let value = apache_avro::from_avro_datum(schema, &mut reader, None).map_err(|error| error.to_string())?;
    // The crate takes some missing ends for nulls.
    if reader.short {
        return Err("it ends too early".to_owned());
    }
    if !reader.rest.is_empty() {
        return Err(format!("{} bytes follow its end", reader.rest.len()));
    }
    let Value::Object(fields) = json(value)? else { return Err("it is no record".to_owned()) };
    let name = schema.name().map(|name| name.name.clone()).unwrap_or_default();
    Ok(Value::Object(enveloped(fields, name)))
}

/// An envelope as it is, or made of the flattened form; the record's name is the event's, where no field says it.
fn enveloped(mut fields: Map<String, Value>, name: String) -> Map<String, Value> {
    if !matches!(fields.get("payload"), Some(Value::Object(_))) {
        let mut envelope = Map::new();
        for field in ENVELOPE_FIELDS {
            if let Some(value) = fields.remove(field) {
                envelope.insert(field.to_owned(), value);
            }
        }
        envelope.insert("payload".to_owned(), Value::Object(fields));
        fields = envelope;
    }
    fields.entry("eventType").or_insert(Value::String(name));
    fields
}

/// The JSON that the event would have: times as milliseconds, absent fields left out.
fn json(value: Avro) -> Result<Value, String> {
    Ok(match value {
        Avro::Null => Value::Null,
        Avro::Boolean(it) => Value::Bool(it),
        Avro::Int(it) | Avro::Date(it) | Avro::TimeMillis(it) => Value::from(it),
        Avro::Long(it) | Avro::TimeMicros(it) | Avro::TimestampMillis(it) | Avro::LocalTimestampMillis(it) => {
            Value::from(it)
        }
        Avro::TimestampMicros(it) | Avro::LocalTimestampMicros(it) => Value::from(it.div_euclid(1_000)),
        Avro::TimestampNanos(it) | Avro::LocalTimestampNanos(it) => Value::from(it.div_euclid(1_000_000)),
        Avro::Float(it) => number(f64::from(it))?,
        Avro::Double(it) => number(it)?,
        Avro::String(it) | Avro::Enum(_, it) => Value::String(it),
        Avro::Uuid(it) => Value::String(it.to_string()),
        Avro::Union(_, it) => json(*it)?,
        Avro::Array(items) => Value::Array(items.into_iter().map(json).collect::<Result<_, _>>()?),
        Avro::Map(fields) => object(fields)?,
        Avro::Record(fields) => object(fields)?,
        Avro::Bytes(_) | Avro::Fixed(..) | Avro::Decimal(_) | Avro::BigDecimal(_) | Avro::Duration(_) => {
            return Err("it has bytes, a decimal or a duration, which no consumed event has".to_owned());
        }
    })
}

fn object(fields: impl IntoIterator<Item = (String, Avro)>) -> Result<Value, String> {
    let mut object = Map::new();
    for (name, value) in fields {
        match json(value)? {
            Value::Null => {}
            value => {
                object.insert(name, value);
            }
        }
    }
    Ok(Value::Object(object))
}

fn number(value: f64) -> Result<Value, String> {
    Number::from_f64(value).map(Value::Number).ok_or_else(|| format!("{value} is no number for JSON"))
}

/// Refuses what a few bytes could blow up: a type inside itself (its depth would be the stack's), an array of elements that
/// take no bytes, a fixed size beyond an event's.
fn check(schema: &Schema, inside: &mut Vec<Name>) -> Result<(), String> {
    match schema {
        Schema::Record(record) => {
            inside.push(record.name.clone());
            for field in &record.fields {
                check(&field.schema, inside)?;
            }
            inside.pop();
            Ok(())
        }
        Schema::Ref { name } if inside.iter().any(|outer| outer.name == name.name) => {
            Err(format!("the type {} is inside itself", name.name))
        }
        Schema::Array(array) if takes_no_bytes(&array.items) => Err("an array's elements take no bytes".to_owned()),
        Schema::Array(array) => check(&array.items, inside),
        Schema::Map(map) => check(&map.types, inside),
        Schema::Union(union) => union.variants().iter().try_for_each(|variant| check(variant, inside)),
        Schema::Fixed(fixed) if fixed.size > EVENT_BYTES_MAX => Err(format!("a fixed size is {} bytes", fixed.size)),
        _ => Ok(()),
    }
}

fn takes_no_bytes(schema: &Schema) -> bool {
    match schema {
        Schema::Null => true,
        // What the name stands for was not looked up; no event needs an array of a type that was named before.
        Schema::Ref { .. } => true,
        Schema::Fixed(fixed) => fixed.size == 0,
        Schema::Record(record) => record.fields.iter().all(|field| takes_no_bytes(&field.schema)),
        _ => false,
    }
}

/// A reader that remembers being asked for more than there is.
struct Whole<'a> {
    rest: &'a [u8],
    short: bool,
}

impl Read for Whole<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.short |= self.rest.len() < buffer.len();
        self.rest.read(buffer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const CANCELLED: &str = r#"{"type":"record","name":"ServiceOrderCancelledEvent","namespace":"com.erp","fields":[
        {"name":"eventId","type":"string"},
        {"name":"timestamp","type":{"type":"long","logicalType":"timestamp-micros"}},
        {"name":"tenantId","type":"string"},
        {"name":"serviceOrderId","type":"string"},
        {"name":"reason","type":["null","string"],"default":null}]}"#;

    fn encoded(reason: Avro) -> Vec<u8> {
        let value = Avro::Record(vec![
            ("eventId".into(), Avro::String("evt-1".into())),
            ("timestamp".into(), Avro::TimestampMicros(1_770_000_000_123_456)),
            ("tenantId".into(), Avro::String("tenant-001".into())),
            ("serviceOrderId".into(), Avro::String("SO-1".into())),
            ("reason".into(), reason),
        ]);
        apache_avro::to_avro_datum(&schema(CANCELLED).unwrap(), value).unwrap()
    }

    #[test]
    fn the_flattened_form_becomes_the_envelope() {
        let schema = schema(CANCELLED).unwrap();
        let bytes = encoded(Avro::Union(1, Box::new(Avro::String("moved".into()))));
        let expected = json!({
            "eventType": "ServiceOrderCancelledEvent", "eventId": "evt-1", "timestamp": 1_770_000_000_123_i64,
            "tenantId": "tenant-001", "payload": { "serviceOrderId": "SO-1", "reason": "moved" },
        });
        assert_eq!(envelope(&schema, &bytes).unwrap(), expected);
        let silent = envelope(&schema, &encoded(Avro::Union(0, Box::new(Avro::Null)))).unwrap();
        assert_eq!(silent["payload"], json!({ "serviceOrderId": "SO-1" }), "an absent field is absent, not null");
    }

    #[test]
    fn every_cut_and_every_surplus_is_noticed() {
        let schema = schema(CANCELLED).unwrap();
        let mut bytes = encoded(Avro::Union(1, Box::new(Avro::String("moved".into()))));
        for length in 0..bytes.len() {
            assert!(envelope(&schema, &bytes[..length]).is_err(), "{length} bytes");
        }
        bytes.push(0);
        assert!(envelope(&schema, &bytes).unwrap_err().contains("follow its end"));
    }

    #[test]
    fn a_schema_that_makes_small_messages_expensive_is_refused() {
        for (fields, problem) in [
            (r#"{"name":"next","type":["null","E"]}"#, "inside itself"),
            (r#"{"name":"many","type":{"type":"array","items":"null"}}"#, "take no bytes"),
            (
                r#"{"name":"many","type":{"type":"array","items":{"type":"record","name":"Nothing","fields":[]}}}"#,
                "take no bytes",
            ),
            (r#"{"name":"big","type":{"type":"fixed","name":"Big","size":1000000000}}"#, "a fixed size"),
        ] {
            let text = format!(r#"{{"type":"record","name":"E","fields":[{fields}]}}"#);
            let found = schema(&text).unwrap_err();
            assert!(found.contains(problem), "{found}");
        }
        assert!(schema("\"string\"").unwrap_err().contains("no record"));
    }
}
