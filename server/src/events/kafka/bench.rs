//! What the relay is measured against: rdkafka's own producer with the same settings and the same messages, and nothing around it.

use super::encoding::Encoder;
use super::producer::{record, settings};
use crate::config::KafkaConfig;
use crate::events::TOPICS;
use crate::store::OutboxEvent;
use rdkafka::ClientContext;
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{Producer as _, ProducerContext, ThreadedProducer};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Nothing here should take longer.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(120);
/// A full queue is looked at again after this time.
const FULL_PAUSE: Duration = Duration::from_micros(100);

/// Counts receipts.
#[derive(Debug, Default)]
struct Receipts {
    taken: AtomicUsize,
    refused: AtomicUsize,
}

impl ClientContext for Receipts {}

impl ProducerContext for Receipts {
    type DeliveryOpaque = Box<u64>;

    fn delivery(&self, result: &DeliveryResult<'_>, _: Box<u64>) {
        let count = if result.is_ok() { &self.taken } else { &self.refused };
        count.fetch_add(1, Ordering::Relaxed);
    }
}

/// Sends the events and waits for all receipts; answers how long that took. Connecting and encoding come before.
///
/// # Errors
/// What went wrong, in words.
pub async fn bare_producer(config: &KafkaConfig, events: &[OutboxEvent]) -> Result<Duration, String> {
    super::topics::ensure(config).await.map_err(|error| error.to_string())?;
    let encoder = Encoder::open(config).await.map_err(|error| error.to_string())?;
    let topics = TOPICS.map(|(name, _)| config.topic(name));
    let mut messages = Vec::with_capacity(events.len());
    for waiting in events {
        messages.push((waiting.clone(), encoder.encode(&waiting.event).map_err(|error| error.to_string())?));
    }
    let settings = settings(config);
    let content_type = encoder.content_type();
    let sent = tokio::task::spawn_blocking(move || {
        let opened = settings.create_with_context(Receipts::default());
        let producer: ThreadedProducer<Receipts> = opened.map_err(|error| error.to_string())?;
        // Connected, and every partition's leader known.
        send_all(&producer, content_type, &topics, &messages[..messages.len().min(1_000)])?;
        let began = Instant::now();
        send_all(&producer, content_type, &topics, &messages)?;
        Ok(began.elapsed())
    });
    sent.await.map_err(|lost| lost.to_string())?
}

#[allow(clippy::disallowed_methods, reason = "the thread is its own")]
fn send_all(
    producer: &ThreadedProducer<Receipts>,
    content_type: &str,
    topics: &[String],
    messages: &[(OutboxEvent, Vec<u8>)],
) -> Result<(), String> {
    let receipts = producer.context();
    let before = receipts.taken.load(Ordering::Relaxed);
    for (waiting, value) in messages {
        let mut record = record(&topics[waiting.event.payload.topic_index()], content_type, waiting, value);
        while let Err((error, back)) = producer.send(record) {
            if error.rdkafka_error_code() != Some(RDKafkaErrorCode::QueueFull) {
                return Err(error.to_string());
            }
            std::thread::sleep(FULL_PAUSE);
            record = back;
        }
    }
    producer.flush(FLUSH_TIMEOUT).map_err(|error| error.to_string())?;
    let taken = receipts.taken.load(Ordering::Relaxed) - before;
    match receipts.refused.load(Ordering::Relaxed) {
        0 if taken == messages.len() => Ok(()),
        refused => Err(format!("{taken} of {} messages were taken, {refused} refused", messages.len())),
    }
}
