//! What stories about Kafka need: brokers, a reader of topics that knows nothing of the server, a schema registry.

#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "shared by several story files; a test fails by panicking"
)]

pub mod broker;
pub mod reader;
pub mod registry;
pub mod services;

pub use services::{own_prefix, service, shared_broker};

use crm_dispatch_server::config::{Config, KafkaConfig};
use std::collections::HashMap;
use std::time::Duration;
use tokio::time::Instant;

/// Long enough for a loaded machine; a story that waits this long has failed.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// Kafka's settings, as the environment would give them.
pub fn kafka(brokers: &str, prefix: &str, more: &[(&str, &str)]) -> KafkaConfig {
    let mut settings = HashMap::from([
        ("CRM_DISPATCH__KAFKA__BROKERS".to_owned(), brokers.to_owned()),
        ("CRM_DISPATCH__KAFKA__TOPIC_PREFIX".to_owned(), prefix.to_owned()),
        // A story does not wait for long pauses.
        ("CRM_DISPATCH__KAFKA__BACKOFF_MAX_MS".to_owned(), "500".to_owned()),
    ]);
    for (name, value) in more {
        settings.insert(format!("CRM_DISPATCH__KAFKA__{}", name.to_uppercase()), (*value).to_owned());
    }
    Config::load(None, settings).unwrap().kafka
}

/// Waits until it is true.
pub async fn until(what: &str, mut true_now: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !true_now().await {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
