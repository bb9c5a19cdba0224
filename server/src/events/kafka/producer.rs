//! The producer: many messages under way, each with its place in the journal, and a receipt for each.

use super::client;
use super::encoding::{HEADER_CONTENT_TYPE, HEADER_EVENT_ID, HEADER_EVENT_TYPE, HEADER_TRACEPARENT};
use crate::config::KafkaConfig;
use crate::store::OutboxEvent;
use rdkafka::ClientContext;
use rdkafka::Statistics;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer as _, ProducerContext, PurgeConfig, ThreadedProducer};
use tokio::sync::mpsc;

/// Most bytes that wait in the client.
const QUEUE_KBYTES_MAX: u32 = 65_536;
/// How often the client says how its connections are.
const STATISTICS_EVERY_MS: u32 = 2_000;

/// What the producer tells.
#[derive(Debug)]
pub(super) enum Report {
    /// What became of the message of this position.
    Receipt(u64, Result<(), RDKafkaErrorCode>),
    /// No broker can be reached.
    Down(String),
    /// At least one broker is connected.
    Up,
}

#[derive(Debug)]
pub(super) struct Context(mpsc::UnboundedSender<Report>);

impl Context {
    // Nobody listens any more once the relay has given up on this producer.
    fn tell(&self, report: Report) {
        let _ = self.0.send(report);
    }
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        super::log(level, facility, message);
    }

    fn stats(&self, statistics: Statistics) {
        if statistics.brokers.values().any(|broker| broker.state == "UP") {
            self.tell(Report::Up);
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(target: "librdkafka", %error, reason, "producer");
        let code = error.rdkafka_error_code();
        if let Some(RDKafkaErrorCode::AllBrokersDown | RDKafkaErrorCode::Authentication) = code {
            self.tell(Report::Down(reason.to_owned()));
        }
    }
}

impl ProducerContext for Context {
    type DeliveryOpaque = Box<u64>;

    fn delivery(&self, result: &DeliveryResult<'_>, position: Box<u64>) {
        let outcome = match result {
            Ok(_) => Ok(()),
            Err((error, _)) => Err(error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail)),
        };
        self.tell(Report::Receipt(*position, outcome));
    }
}

/// Why a message was not taken.
#[derive(Debug)]
pub(super) enum SendError {
    /// The queue is full: later.
    Full,
    /// Anything else.
    Failed(RDKafkaErrorCode),
}

pub(super) struct Producer(ThreadedProducer<Context>);

/// The settings that order and loss depend on.
pub(super) fn settings(config: &KafkaConfig) -> ClientConfig {
    let mut settings = client(config);
    settings
        .set("enable.idempotence", "true")
        .set("acks", "all")
        // What cannot be delivered ends the producer, so that nothing of the same partition overtakes it.
        .set("enable.gapless.guarantee", "true")
        // A message never times out: it is tried again, in its place, until the broker answers. The backoff is the client's own,
        // exponential, with jitter.
        .set("message.timeout.ms", "0")
        .set("retry.backoff.ms", "100")
        .set("retry.backoff.max.ms", "1000")
        .set("linger.ms", config.linger_ms.to_string())
        .set("queue.buffering.max.messages", config.in_flight_max.max(1_000).to_string())
        .set("queue.buffering.max.kbytes", QUEUE_KBYTES_MAX.to_string())
        // The partition of a key is the one that Java's clients would choose.
        .set("partitioner", "murmur2_random")
        .set("statistics.interval.ms", STATISTICS_EVERY_MS.to_string());
    settings
}

/// The message of an event: its dispatch is the key.
pub(super) fn record<'a>(
    topic: &'a str,
    content_type: &str,
    waiting: &'a OutboxEvent,
    value: &'a [u8],
) -> BaseRecord<'a, str, [u8], Box<u64>> {
    let event = &waiting.event;
    let header = |key, value| Header { key, value: Some(value) };
    let mut headers = OwnedHeaders::new_with_capacity(4)
        .insert(header(HEADER_EVENT_TYPE, event.payload.event_type()))
        .insert(header(HEADER_EVENT_ID, event.event_id.as_str()))
        .insert(header(HEADER_CONTENT_TYPE, content_type));
    if let Some(trace) = &waiting.traceparent {
        headers = headers.insert(header(HEADER_TRACEPARENT, trace));
    }
    BaseRecord::with_opaque_to(topic, Box::new(waiting.position))
        .key(event.aggregate_id.as_str())
        .payload(value)
        .timestamp(event.timestamp.millis())
        .headers(headers)
}

impl Producer {
    /// Opens one; it connects by itself.
    pub(super) async fn open(config: &KafkaConfig) -> Result<(Self, mpsc::UnboundedReceiver<Report>), String> {
        let settings = settings(config);
        // As many reports as messages under way, and one every few seconds.
        let (sender, reports) = mpsc::unbounded_channel();
        let opened = tokio::task::spawn_blocking(move || settings.create_with_context(Context(sender)));
        match opened.await {
            Ok(Ok(producer)) => Ok((Self(producer), reports)),
            Ok(Err(error)) => Err(error.to_string()),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Hands a message over. Its receipt follows.
    pub(super) fn send(
        &self,
        topic: &str,
        content_type: &str,
        waiting: &OutboxEvent,
        value: &[u8],
    ) -> Result<(), SendError> {
        match self.0.send(record(topic, content_type, waiting, value)) {
            Ok(()) => Ok(()),
            Err((error, _)) => Err(match error.rdkafka_error_code() {
                Some(RDKafkaErrorCode::QueueFull) => SendError::Full,
                Some(code) => SendError::Failed(code),
                None => SendError::Failed(RDKafkaErrorCode::Fail),
            }),
        }
    }

    /// Gives up on what is under way: a report for each follows.
    pub(super) fn give_up(&self) {
        self.0.purge(PurgeConfig::default().queue().inflight());
    }

    /// Ends; waits for the client's threads elsewhere.
    pub(super) fn end(self) {
        tokio::task::spawn_blocking(move || drop(self.0));
    }
}
