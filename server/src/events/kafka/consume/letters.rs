//! The dead letters, read: for a person who looks, and to try them again once their cause is gone.

use super::SchemaSource;
use super::dead_letter::{
    ERROR_CODE, ERROR_MESSAGE, OMITTED_BYTES, ORIGINAL_OFFSET, ORIGINAL_PARTITION, ORIGINAL_TOPIC,
};
use super::envelope::{Decoder, Unread};
use super::work::Effects;
use crate::config::ConsumeConfig;
use crate::service::Service;
use crate::service::ingest::IngestEffect;
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Headers as _, Message as _};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// How long a broker may take for an answer.
const TIMEOUT: Duration = Duration::from_secs(10);

/// A dead letter.
#[derive(Debug, Clone)]
pub struct DeadLetter {
    /// Where it lies in the dead-letter topic: partition and offset.
    pub place: (i32, i64),
    /// When it was written, milliseconds since the Unix epoch.
    pub at_ms: Option<i64>,
    /// Why, for machines.
    pub code: String,
    /// Why, for people.
    pub message: String,
    /// Where the event lay: topic, partition and offset.
    pub origin: (String, String, String),
    /// The event's key.
    pub key: Option<String>,
    /// The event, unless it was too large for the dead-letter topic.
    pub value: Option<Vec<u8>>,
    /// False where the value was too large to be kept.
    pub is_whole: bool,
}

/// The letters from the oldest to the newest there is now, partition by partition.
pub struct DeadLetters {
    reader: BaseConsumer,
    /// Where reading of a partition ends.
    ends: BTreeMap<i32, i64>,
}

impl DeadLetters {
    /// Looks at the topic. A topic that was never made has no letters.
    ///
    /// # Errors
    /// A broker that does not answer. It blocks meanwhile.
    pub fn open(config: &ConsumeConfig, client: &ClientConfig) -> Result<Self, KafkaError> {
        let mut settings = client.clone();
        // Partitions are chosen by hand: no group is joined, no offset is kept.
        settings.set("group.id", format!("{}.dead-letters", config.group)).set("enable.auto.commit", "false");
        let reader: BaseConsumer = settings.create()?;
        let topic = config.dead_letter_topic.as_str();
        let metadata = reader.fetch_metadata(Some(topic), TIMEOUT)?;
        let (mut list, mut ends) = (TopicPartitionList::new(), BTreeMap::new());
        for partition in metadata.topics().iter().flat_map(|topic| topic.partitions()) {
            let (low, high) = reader.fetch_watermarks(topic, partition.id(), TIMEOUT)?;
            if low < high {
                list.add_partition_offset(topic, partition.id(), Offset::Offset(low))?;
                ends.insert(partition.id(), high);
            }
        }
        reader.assign(&list)?;
        Ok(Self { reader, ends })
    }
}

impl Iterator for DeadLetters {
    type Item = Result<DeadLetter, KafkaError>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.ends.is_empty() {
            match self.reader.poll(TIMEOUT) {
                None => return Some(Err(KafkaError::MessageConsumption(RDKafkaErrorCode::OperationTimedOut))),
                Some(Err(error)) => return Some(Err(error)),
                Some(Ok(message)) => {
                    let (partition, offset) = (message.partition(), message.offset());
                    let Some(end) = self.ends.get(&partition).copied() else { continue };
                    if offset + 1 >= end {
                        self.ends.remove(&partition);
                    }
                    // What was written after the look is for the next one.
                    if offset < end {
                        return Some(Ok(letter(&message)));
                    }
                }
            }
        }
        None
    }
}

fn letter(message: &BorrowedMessage<'_>) -> DeadLetter {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let headers = || message.headers().into_iter().flat_map(|headers| headers.iter());
    let header = |name: &str| headers().find(|header| header.key == name)?.value.map(text);
    DeadLetter {
        place: (message.partition(), message.offset()),
        at_ms: message.timestamp().to_millis(),
        code: header(ERROR_CODE).unwrap_or_default(),
        message: header(ERROR_MESSAGE).unwrap_or_default(),
        origin: (
            header(ORIGINAL_TOPIC).unwrap_or_default(),
            header(ORIGINAL_PARTITION).unwrap_or_default(),
            header(ORIGINAL_OFFSET).unwrap_or_default(),
        ),
        key: message.key().map(text),
        value: message.payload().map(<[u8]>::to_vec),
        is_whole: header(OMITTED_BYTES).is_none(),
    }
}

/// Tries letters again, without Kafka: the effect alone. Idempotent, as consuming is.
pub struct Retry(Effects);

impl Retry {
    /// With the same rules as the consumers.
    #[must_use]
    pub fn new(config: &ConsumeConfig, schemas: Option<Arc<dyn SchemaSource>>, service: Service) -> Self {
        Self(Effects::new(config, service, Decoder::new(schemas)))
    }

    /// What became of it.
    ///
    /// # Errors
    /// Why it is still a dead letter, code and reason.
    pub async fn again(&self, letter: &DeadLetter) -> Result<IngestEffect, (&'static str, String)> {
        if !letter.is_whole {
            return Err(("EVENT_OVERSIZE", "its value was too large to be kept; it lies at its origin".to_owned()));
        }
        self.0.of(&letter.origin.0, letter.value.as_deref()).await.map_err(|unread| match unread {
            Unread::Poison { code, message } => (code, message),
            Unread::NotNow(reason) => ("BUSY", reason),
        })
    }
}
