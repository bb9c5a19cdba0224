//! What every handler needs; cheap to clone.

use crate::auth::Authenticator;
use crate::config::Config;
use crate::events::RelayStatus;
use crate::service::Service;
use crate::sync::SyncGate;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::watch;

/// What every handler needs; cheap to clone.
#[derive(Debug, Clone)]
pub struct AppState {
    /// Decides.
    pub service: Service,
    /// Checks tokens.
    pub auth: Arc<Authenticator>,
    /// As it was set.
    pub config: Arc<Config>,
    /// Takes phones.
    pub sync: Arc<SyncGate>,
    draining: Arc<AtomicBool>,
    relay: watch::Receiver<RelayStatus>,
}

impl AppState {
    /// Of its parts.
    #[must_use]
    pub fn new(service: Service, auth: Arc<Authenticator>, config: Arc<Config>) -> Self {
        let sync = SyncGate::new(service.clone(), config.sync.connections_max);
        // A receiver without a sender keeps its value: events stay in the journal.
        let relay = watch::channel(RelayStatus::Journal).1;
        Self { service, auth, config, sync, draining: Arc::default(), relay }
    }

    /// With a relay that says how it is.
    #[must_use]
    pub fn with_relay(self, relay: watch::Receiver<RelayStatus>) -> Self {
        Self { relay, ..self }
    }

    /// How publishing is going.
    #[must_use]
    pub fn relay_status(&self) -> RelayStatus {
        self.relay.borrow().clone()
    }

    /// From now on the server is not ready: a load balancer sends its requests elsewhere while those under way finish.
    /// Phones are told by [`SyncGate::drain`].
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// True after [`Self::drain`].
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }
}
