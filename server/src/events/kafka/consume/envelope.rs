//! What lies in a record: an envelope in JSON, or Avro in the Confluent wire format.

use super::avro;
use apache_avro::Schema;
use async_trait::async_trait;
use lru::LruCache;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};

/// Longest event, bytes, in either encoding.
pub(super) const EVENT_BYTES_MAX: usize = crate::service::ingest::EVENT_BYTES_MAX;
/// Begins the Confluent wire format; no JSON does.
const MAGIC: u8 = 0;
/// Magic byte and schema id.
const HEADER_BYTES: usize = 5;
/// Most schemas kept; one in use is a few.
const SCHEMAS_MAX: NonZeroUsize = NonZeroUsize::new(1_000).unwrap();

/// Where writers' schemas are found: the schema registry.
#[async_trait]
pub trait SchemaSource: Send + Sync {
    /// The Avro schema of this id, as its JSON text.
    async fn schema(&self, id: u32) -> Result<String, SchemaError>;
}

/// There is no schema.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SchemaError {
    /// The registry answered, and has none that could be used.
    #[error("{0}")]
    Unknown(String),
    /// The registry did not answer; it may do so later.
    #[error("the schema registry cannot be reached: {0}")]
    Unreachable(String),
}

/// Why there is no envelope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Unread {
    /// No retry helps.
    Poison {
        /// Stable.
        code: &'static str,
        /// For people.
        message: String,
    },
    /// Later, perhaps.
    NotNow(String),
}

impl Unread {
    pub(super) fn poison(code: &'static str, message: impl Into<String>) -> Self {
        Self::Poison { code, message: message.into() }
    }
}

/// Reads records, and remembers schemas.
pub(super) struct Decoder {
    source: Option<Arc<dyn SchemaSource>>,
    known: Mutex<LruCache<u32, Arc<Schema>>>,
}

impl Decoder {
    pub(super) fn new(source: Option<Arc<dyn SchemaSource>>) -> Self {
        Self { source, known: Mutex::new(LruCache::new(SCHEMAS_MAX)) }
    }

    /// The envelope of a record's value, as JSON text.
    pub(super) async fn envelope(&self, value: Option<&[u8]>) -> Result<String, Unread> {
        let value = value.ok_or_else(|| Unread::poison("EVENT_UNREADABLE", "the record has no value"))?;
        if value.len() > EVENT_BYTES_MAX {
            let message = format!("the event has {} bytes, at most {EVENT_BYTES_MAX} are taken", value.len());
            return Err(Unread::poison("EVENT_OVERSIZE", message));
        }
        if value.first() != Some(&MAGIC) {
            return match std::str::from_utf8(value) {
                Ok(text) => Ok(text.to_owned()),
                Err(error) => Err(Unread::poison("EVENT_UNREADABLE", format!("neither Avro nor text: {error}"))),
            };
        }
        let Some((header, body)) = value.split_first_chunk::<HEADER_BYTES>() else {
            return Err(Unread::poison("EVENT_UNREADABLE", "it begins like Avro and has no schema id"));
        };
        let [_, id @ ..] = *header;
        let id = u32::from_be_bytes(id);
        let schema = self.schema(id).await?;
        let unreadable = |problem| Unread::poison("EVENT_UNREADABLE", format!("Avro of schema {id}: {problem}"));
        avro::envelope(&schema, body).map(|envelope| envelope.to_string()).map_err(unreadable)
    }

    async fn schema(&self, id: u32) -> Result<Arc<Schema>, Unread> {
        if let Some(known) = self.known().get(&id) {
            return Ok(Arc::clone(known));
        }
        let Some(source) = &self.source else {
            let message =
                format!("Avro of schema {id}, and no schema registry is configured: set kafka.schema_registry_url");
            return Err(Unread::poison("SCHEMA_UNKNOWN", message));
        };
        let text = source.schema(id).await.map_err(|error| match error {
            SchemaError::Unknown(problem) => Unread::poison("SCHEMA_UNKNOWN", format!("schema {id}: {problem}")),
            SchemaError::Unreachable(_) => Unread::NotNow(error.to_string()),
        })?;
        let schema = avro::schema(&text)
            .map_err(|problem| Unread::poison("SCHEMA_UNUSABLE", format!("schema {id}: {problem}")))?;
        let schema = Arc::new(schema);
        self.known().put(id, Arc::clone(&schema));
        Ok(schema)
    }

    fn known(&self) -> std::sync::MutexGuard<'_, LruCache<u32, Arc<Schema>>> {
        // A cache is never half-written.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Registry;

    #[async_trait]
    impl SchemaSource for Registry {
        async fn schema(&self, id: u32) -> Result<String, SchemaError> {
            match id {
                7 => Ok(r#"{"type":"record","name":"E","fields":[{"name":"eventId","type":"string"}]}"#.to_owned()),
                8 => Ok("{".to_owned()),
                9 => Err(SchemaError::Unreachable("connection refused".to_owned())),
                _ => Err(SchemaError::Unknown("the registry has no such schema".to_owned())),
            }
        }
    }

    #[tokio::test]
    async fn what_cannot_be_read_says_why_and_whether_to_try_again() {
        let decoder = Decoder::new(Some(Arc::new(Registry)));
        let oversize = vec![b' '; EVENT_BYTES_MAX + 1];
        let cases: [(&[u8], &str, &str); 6] = [
            (&oversize, "EVENT_OVERSIZE", "262145 bytes"),
            (&[0xff, 0xfe], "EVENT_UNREADABLE", "neither Avro nor text"),
            (&[0, 0, 0], "EVENT_UNREADABLE", "no schema id"),
            (&[0, 0, 0, 0, 7, 9], "EVENT_UNREADABLE", "Avro of schema 7"),
            (&[0, 0, 0, 0, 8], "SCHEMA_UNUSABLE", "schema 8"),
            (&[0, 0, 0, 1, 8], "SCHEMA_UNKNOWN", "schema 264: the registry has no such schema"),
        ];
        for (value, expected, problem) in cases {
            match decoder.envelope(Some(value)).await {
                Err(Unread::Poison { code, message }) => {
                    assert_eq!(code, expected);
                    assert!(message.contains(problem), "{message}");
                }
                other => panic!("{other:?}"),
            }
        }
        assert!(matches!(decoder.envelope(None).await, Err(Unread::Poison { .. })), "a tombstone");
        assert!(matches!(decoder.envelope(Some(&[0, 0, 0, 0, 9])).await, Err(Unread::NotNow(_))));
        let read = decoder.envelope(Some(&[0, 0, 0, 0, 7, 4, b'e', b'1'])).await.unwrap();
        assert_eq!(read, r#"{"eventId":"e1","eventType":"E","payload":{}}"#);
        let without = Decoder::new(None).envelope(Some(&[0, 0, 0, 0, 7, 4, b'e', b'1'])).await;
        assert!(matches!(without, Err(Unread::Poison { code: "SCHEMA_UNKNOWN", .. })));
    }
}
