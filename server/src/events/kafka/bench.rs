//! What the relay is measured against: a producer with the same settings and the same messages, and nothing around it.

use super::encoding::Encoder;
use super::producer::{Producer, Report, SendError};
use crate::config::KafkaConfig;
use crate::events::TOPICS;
use crate::store::OutboxEvent;
use std::time::Duration;
use tokio::time::Instant;

/// Sends the events and waits for all receipts; answers how long that took. The connection is made before.
///
/// # Errors
/// What went wrong, in words.
pub async fn bare_producer(config: &KafkaConfig, events: &[OutboxEvent]) -> Result<Duration, String> {
    super::topics::ensure(config).await.map_err(|error| error.to_string())?;
    let encoder = Encoder::open(config).await.map_err(|error| error.to_string())?;
    let topics = TOPICS.map(|(name, _)| config.topic(name));
    let (producer, mut reports) = Producer::open(config).await?;
    // Connected, and every partition's leader known.
    let warm = events.len().min(1_000);
    send_all(&producer, &mut reports, &encoder, &topics, &events[..warm]).await?;
    let began = Instant::now();
    send_all(&producer, &mut reports, &encoder, &topics, events).await?;
    let took = began.elapsed();
    producer.end();
    Ok(took)
}

async fn send_all(
    producer: &Producer,
    reports: &mut tokio::sync::mpsc::UnboundedReceiver<Report>,
    encoder: &Encoder,
    topics: &[String],
    events: &[OutboxEvent],
) -> Result<(), String> {
    let mut receipts = 0;
    let mut count = |report: Option<Report>| match report {
        Some(Report::Receipt(_, Ok(()))) => {
            receipts += 1;
            Ok(receipts)
        }
        Some(Report::Receipt(_, Err(code))) => Err(code.to_string()),
        Some(Report::Down(reason)) => Err(reason),
        Some(Report::Up) => Ok(receipts),
        None => Err("the client ended".to_owned()),
    };
    for waiting in events {
        let value = encoder.encode(&waiting.event).map_err(|error| error.to_string())?;
        let topic = &topics[waiting.event.payload.topic_index()];
        loop {
            match producer.send(topic, encoder.content_type(), waiting, &value) {
                Ok(()) => break,
                Err(SendError::Full) => {
                    count(reports.recv().await)?;
                }
                Err(SendError::Failed(code)) => return Err(code.to_string()),
            }
        }
    }
    while count(reports.recv().await)? < events.len() {}
    Ok(())
}
