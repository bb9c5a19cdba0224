//! Events to and from Apache Kafka: the one room that names rdkafka and apache-avro.
//!
//! [`client`] is what every connection starts from, [`Codec`](encoding) what every message is written and read by,
//! [`topics`] makes what is missing, [`relay`] publishes.

pub mod bench;
pub mod consume;
pub mod encoding;
mod producer;
pub mod registry;
pub mod relay;
pub mod topics;

use crate::config::KafkaConfig;
use crate::service::Service;
use consume::SchemaSource;
use rdkafka::ClientConfig;
use registry::{Registry, RegistryError};
use std::sync::Arc;

/// How long a broker may take to answer a question about the cluster.
pub(crate) const BROKER_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(10);

/// What producer, consumer and administrator have in common.
#[must_use]
pub fn client(config: &KafkaConfig) -> ClientConfig {
    let mut client = ClientConfig::new();
    client
        .set("bootstrap.servers", config.brokers.join(","))
        .set("client.id", &config.client_id)
        .set("security.protocol", config.security_protocol.name())
        // A topic is made on purpose, with its partitions, or not at all.
        .set("allow.auto.create.topics", "false")
        .set("reconnect.backoff.ms", "100")
        .set("reconnect.backoff.max.ms", config.backoff_max_ms.to_string())
        // Idle connections end; that is no news.
        .set("log.connection.close", "false");
    if config.security_protocol.signs_in() {
        client.set("sasl.mechanism", config.sasl_mechanism.name());
        if let Some(user) = &config.sasl_username {
            client.set("sasl.username", user);
        }
        if let Some(password) = &config.sasl_password {
            client.set("sasl.password", password.expose_text());
        }
    }
    if let Some(path) = &config.ssl_ca_location {
        client.set("ssl.ca.location", path.display().to_string());
    }
    client
}

/// librdkafka's own words, for who looks for them; what matters is said by whoever holds the client, once.
pub(crate) fn log(level: rdkafka::config::RDKafkaLogLevel, facility: &str, message: &str) {
    tracing::debug!(target: "librdkafka", ?level, facility, "{message}");
}

/// Starts consuming as configured.
///
/// # Errors
/// Which setting cannot be used, and why.
pub(crate) fn start_consumers(config: &KafkaConfig, service: Service) -> Result<consume::Consumers, String> {
    let schemas = schemas(config).map_err(|error| error.to_string())?;
    let consumers = consume::Consumers::start(&config.consuming(), &client(config), schemas, service);
    consumers.map_err(|error| error.to_string())
}

/// Where consumed Avro finds its schemas; `None` where no registry is configured.
///
/// # Errors
/// A setting that makes no sense.
pub fn schemas(config: &KafkaConfig) -> Result<Option<Arc<dyn SchemaSource>>, RegistryError> {
    Ok(match config.schema_registry_url {
        Some(_) => Some(Arc::new(Registry::new(config)?)),
        None => None,
    })
}
