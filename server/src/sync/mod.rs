//! Phones on the wire: a thin adapter between a WebSocket, [`sync_core::session::ServerSession`] and the service.
//!
//! One task a connection; it owns its socket and its place in the feed and nothing else, so a phone that is slow or floods
//! hurts only itself: news waits in a short queue of the hub (and is pulled again when that overflows), frames wait in the
//! socket, and a send that is not taken ends the connection.

mod connection;

use crate::auth::Principal;
use crate::service::Service;
use crate::telemetry::metrics::{PHONE_CONNECTIONS, PHONES};
use axum::extract::ws::WebSocketUpgrade;
use axum::response::Response;
use rand::RngExt;
use std::sync::Arc;
use std::time::Instant;
use sync_core::domain::TechnicianId;
use sync_core::protocol::limits::{FRAME_BYTES_MAX, SUBPROTOCOL};
use tokio::sync::{Semaphore, watch};

/// Read and write buffers of one socket. The default of 128 kB is more than everything else an idle phone costs.
const BUFFER_BYTES: usize = 4 * 1024;

/// What all connections share.
#[derive(Debug)]
pub struct SyncGate {
    service: Service,
    places: Arc<Semaphore>,
    places_max: usize,
    drain: watch::Sender<Option<Drain>>,
    started: Instant,
}

/// A shutdown, as told to phones.
#[derive(Debug, Clone, Copy)]
struct Drain {
    /// Each phone is told a time between this and twice this, so that they do not all come back at once.
    retry_after_ms: u32,
}

/// Why a connection was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotTaken {
    /// The token names no technician.
    #[error("sync is for technicians; this token names none")]
    NoTechnician,
    /// As many phones are connected as may be.
    #[error("too many phones are connected to this node")]
    Full,
    /// The server is shutting down.
    #[error("the server is restarting")]
    Draining,
}

impl SyncGate {
    /// A gate for at most `places_max` phones at a time.
    #[must_use]
    pub fn new(service: Service, places_max: usize) -> Arc<Self> {
        Arc::new(Self {
            service,
            places: Arc::new(Semaphore::new(places_max.min(Semaphore::MAX_PERMITS))),
            places_max,
            drain: watch::Sender::new(None),
            started: Instant::now(),
        })
    }

    /// Phones connected now.
    #[must_use]
    pub fn connected(&self) -> usize {
        self.places_max.saturating_sub(self.places.available_permits())
    }

    /// Tells every phone goodbye and takes no new one. Returns when the last is gone; put it under a deadline.
    pub async fn drain(&self, retry_after_ms: u32) {
        self.drain.send_replace(Some(Drain { retry_after_ms }));
        let all = u32::try_from(self.places_max.min(Semaphore::MAX_PERMITS)).unwrap_or(u32::MAX);
        // The semaphore is never closed; an error would only mean that there is nobody to wait for.
        let _ = self.places.acquire_many(all).await;
    }

    /// Takes an authenticated upgrade.
    ///
    /// # Errors
    /// [`NotTaken`]; the caller answers with an HTTP error.
    pub fn accept(self: &Arc<Self>, principal: Principal, upgrade: WebSocketUpgrade) -> Result<Response, NotTaken> {
        let technician: TechnicianId = principal.caller.technician.clone().ok_or(NotTaken::NoTechnician)?;
        let taken = |result| metrics::counter!(PHONE_CONNECTIONS, "result" => result).increment(1);
        if self.drain.borrow().is_some() {
            taken("draining");
            return Err(NotTaken::Draining);
        }
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(|_| {
            taken("full");
            NotTaken::Full
        })?;
        taken("taken");
        let gate = Arc::clone(self);
        Ok(upgrade
            .protocols([SUBPROTOCOL])
            .max_message_size(FRAME_BYTES_MAX)
            .max_frame_size(FRAME_BYTES_MAX)
            .read_buffer_size(BUFFER_BYTES)
            .write_buffer_size(BUFFER_BYTES)
            .on_upgrade(move |socket| async move {
                let connected = Connected::new();
                connection::run(gate, socket, principal, technician).await;
                drop(connected);
                drop(place);
            }))
    }

    fn monotonic_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// Counts a connection as long as it lives.
struct Connected;

impl Connected {
    fn new() -> Self {
        metrics::gauge!(PHONES).increment(1);
        Self
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        metrics::gauge!(PHONES).decrement(1);
    }
}

impl Drain {
    fn retry_after_ms(self) -> u32 {
        let spread = rand::rng().random_range(0..=self.retry_after_ms);
        self.retry_after_ms.saturating_add(spread)
    }
}
