//! Starting what talks to Kafka, in builds that have it.

use super::RelayStatus;
use crate::config::{ConfigError, KafkaConfig};
use crate::service::{Clock, Service};
use crate::store::Store;
use std::sync::Arc;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// A build without Kafka must not look as if it published.
pub(crate) fn can_start_relay(config: &KafkaConfig) -> Result<(), ConfigError> {
    if config.is_enabled() && !cfg!(feature = "kafka") {
        return Err(ConfigError(
            "kafka.brokers is set and this build has no Kafka; build it with `cargo build --release --features kafka`, or \
             leave it empty"
                .to_owned(),
        ));
    }
    Ok(())
}

/// Starts the relay where Kafka is configured, and answers how it is.
pub(crate) fn start_relay(
    config: &KafkaConfig,
    store: Arc<dyn Store>,
    clock: &Arc<dyn Clock>,
    stop: watch::Receiver<bool>,
) -> (Option<JoinHandle<()>>, watch::Receiver<RelayStatus>) {
    let (says, status) = watch::channel(RelayStatus::Journal);
    #[cfg(feature = "kafka")]
    let relay = config.is_enabled().then(|| {
        let relay = super::kafka::relay::Relay::new(store, Arc::clone(clock), config.clone(), says, stop);
        tokio::spawn(relay.run())
    });
    #[cfg(not(feature = "kafka"))]
    let relay = {
        let _ = (config, store, clock, stop, says);
        None
    };
    (relay, status)
}

/// Starts consuming where that is configured; the task ends after `stop`, when the group is left.
///
/// # Errors
/// A setting that Kafka's client refuses.
pub(crate) fn start_consumers(
    config: &KafkaConfig,
    service: &Service,
    stop: watch::Receiver<bool>,
) -> Result<Option<JoinHandle<()>>, ConfigError> {
    #[cfg(feature = "kafka")]
    let consumers = if config.consume.enabled {
        let consumers = super::kafka::start_consumers(config, service.clone()).map_err(ConfigError)?;
        Some(tokio::spawn(async move {
            let mut stop = stop;
            // A sender that is gone means the same.
            let _ = stop.wait_for(|stop| *stop).await;
            consumers.stop().await;
        }))
    } else {
        None
    };
    #[cfg(not(feature = "kafka"))]
    let consumers = {
        let _ = (config, service, stop);
        None
    };
    Ok(consumers)
}
