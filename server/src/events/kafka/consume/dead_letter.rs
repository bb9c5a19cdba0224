//! The dead-letter topic: what no retry helps, kept whole, with the reason beside it.

use crate::config::ConsumeConfig;
use crate::events::kafka::topics::Quiet;
use crate::telemetry::metrics as figures;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, Headers, Message, OwnedHeaders, OwnedMessage};
use rdkafka::producer::{FutureProducer, FutureRecord};
use std::time::Duration;
use tokio::sync::OnceCell;

/// Partitions of the topic when it is made here.
const PARTITIONS: i32 = 3;
/// How long it keeps letters when it is made here: a person must have time to look.
const RETENTION_MS: &str = "2592000000";
/// Largest letter when it is made here, and in any case the largest that is handed to the broker.
const LETTER_BYTES_MAX: &str = "10485760";
/// Longest reason, bytes.
const MESSAGE_BYTES_MAX: usize = 1_000;
/// How long the broker may take over the topic, or a receipt, before it counts as away.
const BROKER_TIMEOUT: Duration = Duration::from_secs(30);

/// Headers that a letter has beside the original's. Those of an earlier letter, where one was sent in again, are replaced.
pub(super) const ERROR_CODE: &str = "x-error-code";
pub(super) const ERROR_MESSAGE: &str = "x-error-message";
pub(super) const ORIGINAL_TOPIC: &str = "x-original-topic";
pub(super) const ORIGINAL_PARTITION: &str = "x-original-partition";
pub(super) const ORIGINAL_OFFSET: &str = "x-original-offset";
const ORIGINAL_TIMESTAMP: &str = "x-original-timestamp";
const CONSUMER_GROUP: &str = "x-consumer-group";
/// Only where the broker refused the value as too large: its length. The original still lies where the letter says.
pub(super) const OMITTED_BYTES: &str = "x-original-value-bytes";
/// All headers that a letter may have beside the original's.
pub const DEAD_LETTER_HEADERS: [&str; 8] = [
    ERROR_CODE,
    ERROR_MESSAGE,
    ORIGINAL_TOPIC,
    ORIGINAL_PARTITION,
    ORIGINAL_OFFSET,
    ORIGINAL_TIMESTAMP,
    CONSUMER_GROUP,
    OMITTED_BYTES,
];

/// Writes dead letters.
pub(super) struct DeadLetters {
    topic: String,
    copies: i32,
    group: String,
    client: ClientConfig,
    /// Opened with the first letter, when the topic is seen or made: most nodes never have one.
    producer: OnceCell<FutureProducer<Quiet>>,
}

impl DeadLetters {
    pub(super) fn new(config: &ConsumeConfig, client: &ClientConfig) -> Self {
        Self {
            topic: config.dead_letter_topic.clone(),
            // -1: the cluster's own default.
            copies: if config.dead_letter_copies == 0 { -1 } else { i32::from(config.dead_letter_copies) },
            group: config.group.clone(),
            client: client.clone(),
            producer: OnceCell::new(),
        }
    }

    async fn open(&self) -> Result<FutureProducer<Quiet>, KafkaError> {
        self.make_topic().await?;
        let mut writer = self.client.clone();
        writer
            .set("enable.idempotence", "true")
            .set("acks", "all")
            // Each receipt is awaited, so there is nothing to wait for company for.
            .set("linger.ms", "0")
            // As the other topics: a key's letters lie where Java's clients would look for them.
            .set("partitioner", "murmur2_random")
            .set("message.max.bytes", LETTER_BYTES_MAX)
            .set("message.timeout.ms", BROKER_TIMEOUT.as_millis().to_string());
        writer.create_with_context(Quiet)
    }

    /// Writes a letter and waits for the broker's receipt.
    ///
    /// # Errors
    /// Why it is not there; it may work later.
    pub(super) async fn write(&self, message: &OwnedMessage, code: &str, reason: &str) -> Result<(), KafkaError> {
        let producer = self.producer.get_or_try_init(|| self.open()).await?;
        let sent = match self.send(producer, message, message.payload(), self.headers(message, code, reason)).await {
            Err(KafkaError::MessageProduction(RDKafkaErrorCode::MessageSizeTooLarge)) => {
                let bytes = message.payload().map_or(0, <[u8]>::len).to_string();
                let headers = insert(self.headers(message, code, reason), OMITTED_BYTES, &bytes);
                self.send(producer, message, None, headers).await
            }
            sent => sent,
        };
        sent?;
        metrics::counter!(figures::DEAD_LETTERS, "topic" => message.topic().to_owned(), "reason" => code.to_owned())
            .increment(1);
        Ok(())
    }

    async fn send(
        &self,
        producer: &FutureProducer<Quiet>,
        message: &OwnedMessage,
        value: Option<&[u8]>,
        headers: OwnedHeaders,
    ) -> Result<(), KafkaError> {
        let mut record = FutureRecord::<[u8], [u8]>::to(&self.topic).headers(headers);
        record.key = message.key();
        record.payload = value;
        producer.send(record, BROKER_TIMEOUT).await.map(|_| ()).map_err(|(error, _)| error)
    }

    fn headers(&self, message: &OwnedMessage, code: &str, reason: &str) -> OwnedHeaders {
        let mut headers = OwnedHeaders::new();
        for header in message.headers().into_iter().flat_map(Headers::iter) {
            if !DEAD_LETTER_HEADERS.contains(&header.key) {
                headers = headers.insert(header);
            }
        }
        let reason = &reason[..reason.floor_char_boundary(MESSAGE_BYTES_MAX)];
        headers = insert(headers, ERROR_CODE, code);
        headers = insert(headers, ERROR_MESSAGE, reason);
        headers = insert(headers, ORIGINAL_TOPIC, message.topic());
        headers = insert(headers, ORIGINAL_PARTITION, &message.partition().to_string());
        headers = insert(headers, ORIGINAL_OFFSET, &message.offset().to_string());
        if let Some(millis) = message.timestamp().to_millis() {
            headers = insert(headers, ORIGINAL_TIMESTAMP, &millis.to_string());
        }
        insert(headers, CONSUMER_GROUP, &self.group)
    }

    /// Makes the topic unless it is there.
    async fn make_topic(&self) -> Result<(), KafkaError> {
        let topic = NewTopic::new(&self.topic, PARTITIONS, TopicReplication::Fixed(self.copies))
            .set("retention.ms", RETENTION_MS)
            .set("max.message.bytes", LETTER_BYTES_MAX);
        let options = AdminOptions::new().request_timeout(Some(BROKER_TIMEOUT));
        let admin: AdminClient<Quiet> = self.client.create_with_context(Quiet)?;
        for result in admin.create_topics([&topic], &options).await? {
            match result {
                Ok(_) => tracing::info!(topic = self.topic, "made the dead-letter topic"),
                Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                // Who may not make topics may still write to one that an administrator made.
                Err((_, code)) => tracing::warn!(topic = self.topic, %code, "the dead-letter topic was not made"),
            }
        }
        Ok(())
    }
}

fn insert(headers: OwnedHeaders, key: &str, value: &str) -> OwnedHeaders {
    headers.insert(Header { key, value: Some(value) })
}
