//! Starting the relay, in builds that have one.

use super::RelayStatus;
use crate::config::{ConfigError, KafkaConfig};
use crate::service::Clock;
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
