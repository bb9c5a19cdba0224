//! Kafka: where it is, how to sign in there, and in which form events are told.

use super::consume::ConsumeConfig;
use super::validate::{error, range};
use super::{ConfigError, list};
use crate::auth::Secret;
use serde::Deserialize;
use std::path::PathBuf;
use std::time::Duration;

/// Longest prefix of topic names; Kafka's limit for a whole name is 249.
const TOPIC_PREFIX_BYTES_MAX: usize = 100;

/// Kafka.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KafkaConfig {
    /// `HOST:PORT` of some brokers; none: events stay in the journal.
    #[serde(deserialize_with = "list")]
    pub brokers: Vec<String>,
    /// Put before every topic's name and the consumers' group, where a cluster is shared.
    pub topic_prefix: String,
    /// What the brokers' logs and quotas know this server as.
    pub client_id: String,
    /// Whether connections are encrypted and signed in.
    pub security_protocol: SecurityProtocol,
    /// How to sign in.
    pub sasl_mechanism: SaslMechanism,
    /// As whom.
    #[serde(default)]
    pub sasl_username: Option<String>,
    /// With what.
    #[serde(default)]
    pub sasl_password: Option<Secret>,
    /// The certificate authorities that brokers' certificates are checked against, PEM; the system's where it is missing.
    #[serde(default)]
    pub ssl_ca_location: Option<PathBuf>,
    /// The form of published events.
    pub encoding: Encoding,
    /// The schema registry's REST API; needed for Avro.
    #[serde(default)]
    pub schema_registry_url: Option<String>,
    /// Basic authentication there.
    #[serde(default)]
    pub schema_registry_username: Option<String>,
    /// Its password.
    #[serde(default)]
    pub schema_registry_password: Option<Secret>,
    /// The certificate authorities that the registry's certificate is checked against, PEM; the well-known ones where it is
    /// missing.
    #[serde(default)]
    pub schema_registry_ca_location: Option<PathBuf>,
    /// Copies of each partition of a topic that this server makes; 0 leaves it to the cluster.
    pub replication_factor: u16,
    /// How long a message may wait for others to travel with.
    pub linger_ms: u32,
    /// Most events that are under way at the same time.
    pub in_flight_max: u32,
    /// How often the relay looks for events that other nodes committed.
    pub poll_interval_ms: u32,
    /// Longest pause between attempts while Kafka or the registry does not answer.
    pub backoff_max_ms: u32,
    /// What is consumed, and how. Names without the prefix: see [`Self::consuming`].
    pub consume: ConsumeConfig,
}

/// Whether connections to brokers are encrypted and signed in; Kafka's `security.protocol`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SecurityProtocol {
    /// Neither.
    Plaintext,
    /// Encrypted.
    Ssl,
    /// Signed in.
    SaslPlaintext,
    /// Both.
    SaslSsl,
}

impl SecurityProtocol {
    /// Kafka's name for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Plaintext => "plaintext",
            Self::Ssl => "ssl",
            Self::SaslPlaintext => "sasl_plaintext",
            Self::SaslSsl => "sasl_ssl",
        }
    }

    /// True when a user and a password are needed.
    #[must_use]
    pub fn signs_in(self) -> bool {
        matches!(self, Self::SaslPlaintext | Self::SaslSsl)
    }
}

/// Kafka's `sasl.mechanism`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum SaslMechanism {
    /// The password itself, for encrypted connections only.
    #[serde(rename = "PLAIN")]
    Plain,
    /// A proof of the password.
    #[serde(rename = "SCRAM-SHA-256")]
    ScramSha256,
    /// A proof of the password.
    #[serde(rename = "SCRAM-SHA-512")]
    ScramSha512,
}

impl SaslMechanism {
    /// Kafka's name for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::ScramSha512 => "SCRAM-SHA-512",
        }
    }
}

/// The form of events on Kafka.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Encoding {
    /// The envelope, in JSON.
    Json,
    /// The flattened form in Avro, with the schema's id before it (Confluent's wire format).
    Avro,
}

impl KafkaConfig {
    /// True when events go to Kafka.
    #[must_use]
    pub fn is_enabled(&self) -> bool {
        !self.brokers.is_empty()
    }

    /// A topic's name on this cluster.
    #[must_use]
    pub fn topic(&self, name: &str) -> String {
        format!("{}{name}", self.topic_prefix)
    }

    /// How to consume on this cluster: topics and group with the prefix.
    #[must_use]
    pub fn consuming(&self) -> ConsumeConfig {
        self.consume.on_cluster(&self.topic_prefix, self.replication_factor)
    }

    /// How often the relay looks for events that other nodes committed.
    #[must_use]
    pub fn poll_interval(&self) -> Duration {
        Duration::from_millis(self.poll_interval_ms.into())
    }

    /// Longest pause between attempts.
    #[must_use]
    pub fn backoff_max(&self) -> Duration {
        Duration::from_millis(self.backoff_max_ms.into())
    }

    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        for broker in &self.brokers {
            let port = broker.rsplit_once(':').filter(|(host, _)| !host.is_empty()).map(|(_, port)| port);
            if !port.is_some_and(|port| port.parse::<u16>().is_ok_and(|port| port > 0)) {
                return Err(error("kafka.brokers", &format!("has {broker:?}; use HOST:PORT")));
            }
        }
        let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        if self.topic_prefix.len() > TOPIC_PREFIX_BYTES_MAX || !self.topic_prefix.bytes().all(legal) {
            return Err(error(
                "kafka.topic_prefix",
                "is no part of a topic's name; use up to 100 of A-Z a-z 0-9 . _ -",
            ));
        }
        if self.client_id.trim().is_empty() {
            return Err(error("kafka.client_id", "is empty; name this server"));
        }
        range("kafka.replication_factor", self.replication_factor.into(), 0, 100)?;
        range("kafka.linger_ms", self.linger_ms.into(), 0, 1_000)?;
        range("kafka.in_flight_max", self.in_flight_max.into(), 1, 100_000)?;
        range("kafka.poll_interval_ms", self.poll_interval_ms.into(), 10, 60_000)?;
        range("kafka.backoff_max_ms", self.backoff_max_ms.into(), 100, 600_000)?;
        self.validate_sign_in()?;
        if self.consume.enabled && !self.is_enabled() {
            return Err(error("kafka.consume.enabled", "needs kafka.brokers; set it, or leave consuming off"));
        }
        self.consume.validate()
    }

    fn validate_sign_in(&self) -> Result<(), ConfigError> {
        let both = self.sasl_username.is_some() && self.sasl_password.is_some();
        if self.security_protocol.signs_in() && !both {
            return Err(error(
                "kafka.security_protocol",
                "needs kafka.sasl_username and kafka.sasl_password (CRM_DISPATCH__KAFKA__SASL_PASSWORD)",
            ));
        }
        if self.security_protocol == SecurityProtocol::SaslPlaintext && self.sasl_mechanism == SaslMechanism::Plain {
            return Err(error(
                "kafka.sasl_mechanism",
                "is PLAIN on an open connection, which shows the password; use SCRAM-SHA-512, or security_protocol = \"sasl_ssl\"",
            ));
        }
        match &self.schema_registry_url {
            None if self.is_enabled() && self.encoding == Encoding::Avro => {
                return Err(error(
                    "kafka.encoding",
                    "is avro, which needs kafka.schema_registry_url; set it, or use json",
                ));
            }
            // Not repeated: it may hold a password.
            Some(url) if !(url.starts_with("http://") || url.starts_with("https://")) || url.contains('@') => {
                return Err(error(
                    "kafka.schema_registry_url",
                    "is no http:// or https:// address without user and password; those have settings of their own",
                ));
            }
            _ => {}
        }
        if self.schema_registry_username.is_some() != self.schema_registry_password.is_some() {
            return Err(error("kafka.schema_registry_username", "and kafka.schema_registry_password go together"));
        }
        Ok(())
    }
}
