//! The topics: made if they are missing, with their partitions; never changed, never made by accident.

use super::{BROKER_TIMEOUT, client};
use crate::config::KafkaConfig;
use crate::events::TOPICS;
use rdkafka::ClientContext;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use std::collections::HashMap;
use std::sync::Arc;

/// How often the cluster is asked whether it knows the topics that were just made, before it is tried again later.
const LOOKS_MAX: u32 = 20;

/// Why the topics are not as they should be.
#[derive(Debug, thiserror::Error)]
pub enum TopicError {
    /// Worth another try.
    #[error("Kafka at {brokers} does not answer: {reason}; check kafka.brokers and that it runs")]
    Unavailable {
        /// Where.
        brokers: String,
        /// Why.
        reason: String,
    },
    /// The brokers do not make a topic.
    #[error(
        "Kafka does not make the topic {topic}: {reason}; make it with {partitions} partitions, or allow this server to"
    )]
    Refused {
        /// Which.
        topic: String,
        /// Why.
        reason: String,
        /// How many it needs.
        partitions: u16,
    },
    /// Somebody made it too small.
    #[error(
        "the topic {topic} has {found} partitions and needs {needed}: kafka-topics.sh --alter --topic {topic} --partitions \
         {needed}, then restart"
    )]
    TooFewPartitions {
        /// Which.
        topic: String,
        /// What it has.
        found: usize,
        /// What it needs.
        needed: u16,
    },
    /// The settings make no sense to the client.
    #[error("kafka: {0}")]
    Settings(String),
}

/// A client whose holder says what matters.
pub(super) struct Quiet;
impl ClientContext for Quiet {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        super::log(level, facility, message);
    }
    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(target: "librdkafka", %error, reason, "client");
    }
}

type Admin = Arc<AdminClient<Quiet>>;

/// Makes the topics that are missing, and looks at the others.
///
/// # Errors
/// [`TopicError`].
pub async fn ensure(config: &KafkaConfig) -> Result<(), TopicError> {
    let wanted: Vec<(String, u16)> =
        TOPICS.iter().map(|(name, partitions)| (config.topic(name), *partitions)).collect();
    ensure_these(config, &wanted).await
}

/// [`ensure`] for any topics, by their full names.
///
/// # Errors
/// [`TopicError`].
pub async fn ensure_these(config: &KafkaConfig, wanted: &[(String, u16)]) -> Result<(), TopicError> {
    let settings = |error: KafkaError| TopicError::Settings(error.to_string());
    let config = config.clone();
    // Opening the client reads certificates.
    let admin: Admin = {
        let config = config.clone();
        blocking(move || client(&config).create_with_context::<_, AdminClient<Quiet>>(Quiet).map_err(settings))
            .await?
            .into()
    };
    let result = ensure_with(&admin, &config, wanted).await;
    // Ending the client waits for its threads.
    let _ = blocking(move || {
        drop(admin);
        Ok(())
    })
    .await;
    result
}

async fn ensure_with(admin: &Admin, config: &KafkaConfig, wanted: &[(String, u16)]) -> Result<(), TopicError> {
    let mut found = look(admin, config, wanted).await?;
    let missing: Vec<&(String, u16)> = wanted.iter().filter(|(name, _)| !found.contains_key(name)).collect();
    if !missing.is_empty() {
        create(admin, config, &missing).await?;
        let mut looks = 0;
        while missing.iter().any(|(name, _)| !found.contains_key(name)) {
            looks += 1;
            if looks > LOOKS_MAX {
                return Err(unavailable(config, "it does not show the topics that it has just made"));
            }
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            found = look(admin, config, wanted).await?;
        }
    }
    for (topic, needed) in wanted {
        let count = found.get(topic).copied().unwrap_or_default();
        if count < usize::from(*needed) {
            return Err(TopicError::TooFewPartitions { topic: topic.clone(), found: count, needed: *needed });
        }
        if count > usize::from(*needed) {
            tracing::warn!(
                topic,
                found = count,
                needed,
                "the topic has more partitions than agreed; it is used as it is"
            );
        }
    }
    Ok(())
}

/// The partitions of those that are there.
async fn look(
    admin: &Admin,
    config: &KafkaConfig,
    wanted: &[(String, u16)],
) -> Result<HashMap<String, usize>, TopicError> {
    let (admin, config) = (Arc::clone(admin), config.clone());
    let names: Vec<String> = wanted.iter().map(|(name, _)| name.clone()).collect();
    blocking(move || {
        let mut found = HashMap::new();
        for name in names {
            let metadata = admin
                .inner()
                .fetch_metadata(Some(&name), BROKER_TIMEOUT)
                .map_err(|error| unavailable(&config, &code(&error)))?;
            for topic in metadata.topics() {
                // Anything but "unknown" is said again when it matters: on making it.
                if topic.error().is_none() && !topic.partitions().is_empty() {
                    found.insert(topic.name().to_owned(), topic.partitions().len());
                }
            }
        }
        Ok(found)
    })
    .await
}

async fn create(admin: &Admin, config: &KafkaConfig, missing: &[&(String, u16)]) -> Result<(), TopicError> {
    // -1: the cluster's own default.
    let copies = if config.replication_factor == 0 { -1 } else { i32::from(config.replication_factor) };
    let topics: Vec<NewTopic<'_>> = missing
        .iter()
        .map(|(name, partitions)| NewTopic::new(name, i32::from(*partitions), TopicReplication::Fixed(copies)))
        .collect();
    let options = AdminOptions::new().operation_timeout(Some(BROKER_TIMEOUT)).request_timeout(Some(BROKER_TIMEOUT));
    let results = admin.create_topics(&topics, &options).await;
    for result in results.map_err(|error| unavailable(config, &code(&error)))? {
        match result {
            Ok(topic) => tracing::info!(topic, "topic made"),
            // Another node was faster.
            Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((topic, reason)) => {
                let partitions = missing.iter().find(|(name, _)| *name == topic).map_or(0, |(_, count)| *count);
                return Err(TopicError::Refused { topic, reason: reason.to_string(), partitions });
            }
        }
    }
    Ok(())
}

fn unavailable(config: &KafkaConfig, reason: &str) -> TopicError {
    TopicError::Unavailable { brokers: config.brokers.join(","), reason: reason.to_owned() }
}

fn code(error: &KafkaError) -> String {
    error.rdkafka_error_code().map_or_else(|| error.to_string(), |code| code.to_string())
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, TopicError> + Send + 'static,
) -> Result<T, TopicError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(TopicError::Settings(error.to_string())),
    }
}
