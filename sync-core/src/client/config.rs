//! What an app gives the client.

use crate::store::{DeviceNow, Store, StoreError};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

/// A boxed future, so that a token provider can be a trait object.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Destroys a phone's store for good.
pub type Eraser = dyn Fn(&Store) -> Result<(), StoreError> + Send + Sync;

/// How to reach the server, and what the phone provides.
#[derive(Clone)]
pub struct ClientConfig {
    /// The server's base URL, `ws://` or `wss://` (or `http://`, `https://`), without a path.
    pub url: String,
    /// For `wss://`; the web's roots when `None`.
    pub tls: Option<Arc<rustls::ClientConfig>>,
    /// The phone's clocks.
    pub clock: Arc<dyn PhoneClock>,
    /// Where tokens come from.
    pub tokens: Arc<dyn TokenProvider>,
    /// Seeds jitter and actors, for tests and simulations; the operating system does when `None`.
    pub seed: Option<u64>,
    /// False when the phone starts without a network; see [`super::Client::set_network`].
    pub network_at_start: bool,
    /// Destroys the store, and its key, of a revoked phone that holds nothing unsent; the emptied file stays where `None`.
    pub erase: Option<Arc<Eraser>>,
}

impl ClientConfig {
    /// With the system's clock and a network.
    #[must_use]
    pub fn new(url: impl Into<String>, tokens: Arc<dyn TokenProvider>) -> Self {
        Self {
            url: url.into(),
            tls: None,
            clock: Arc::new(SystemPhoneClock::new()),
            tokens,
            seed: None,
            network_at_start: true,
            erase: None,
        }
    }
}

/// The phone's clocks.
pub trait PhoneClock: Send + Sync {
    /// Wall time, monotonic time and boot.
    fn now(&self) -> DeviceNow;

    /// Milliseconds that the connection's timers run on: the monotonic time, but where a simulation runs the day faster
    /// than its network.
    fn timer_ms(&self) -> u64 {
        self.now().monotonic_ms
    }
}

/// The operating system's clocks. The monotonic one counts while the phone sleeps, where the system has such a clock: one
/// that stood still would make each sleep look as if somebody had set the wall clock forward (rule 6).
#[derive(Debug)]
pub struct SystemPhoneClock {
    started: std::time::Instant,
    boot: crate::domain::BootId,
}

/// The boot's name, where apps may read it.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn system_boot() -> Option<crate::domain::BootId> {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    crate::domain::BootId::new(id.trim()).ok()
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn system_boot() -> Option<crate::domain::BootId> {
    None
}

/// Time since the boot, sleep included.
#[cfg(any(target_os = "linux", target_os = "android", target_vendor = "apple"))]
fn since_boot(_: std::time::Instant) -> std::time::Duration {
    #[cfg(target_vendor = "apple")]
    const AWAKE_AND_ASLEEP: rustix::time::ClockId = rustix::time::ClockId::Monotonic;
    #[cfg(not(target_vendor = "apple"))]
    const AWAKE_AND_ASLEEP: rustix::time::ClockId = rustix::time::ClockId::Boottime;
    std::time::Duration::try_from(rustix::time::clock_gettime(AWAKE_AND_ASLEEP)).unwrap_or_default()
}

#[cfg(not(any(target_os = "linux", target_os = "android", target_vendor = "apple")))]
fn since_boot(started: std::time::Instant) -> std::time::Duration {
    started.elapsed()
}

impl SystemPhoneClock {
    /// The system's clocks. Where the system's boot has no name that an app may read, this process's start stands for it.
    #[must_use]
    pub fn new() -> Self {
        let boot = system_boot().unwrap_or_else(|| {
            let name = format!("boot-{:016x}", rand::random::<u64>());
            // Invariant: 5 letters and 16 hex digits make a valid id, so the fallback is never reached.
            crate::domain::BootId::new(name).unwrap_or_else(|_| unreachable!("a valid id"))
        });
        Self { started: std::time::Instant::now(), boot }
    }
}

impl Default for SystemPhoneClock {
    fn default() -> Self {
        Self::new()
    }
}

impl PhoneClock for SystemPhoneClock {
    fn now(&self) -> DeviceNow {
        let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let millis = |duration: std::time::Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        DeviceNow {
            wall: crate::domain::Timestamp::from_millis(i64::try_from(millis(since_epoch)).unwrap_or(i64::MAX)),
            monotonic_ms: millis(since_boot(self.started)),
            boot: self.boot.clone(),
        }
    }
}

/// Why a token is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenNeed {
    /// For a connection; a cached one will do.
    Connect,
    /// The server refused the last one: a cached one will not do.
    Rejected,
}

/// Why there is no token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// No network, or the identity provider is away: try again later.
    #[error("no token for now: {0}")]
    Unavailable(String),
    /// The technician must sign in again.
    #[error("sign in again: {0}")]
    SignInNeeded(String),
}

/// Where tokens come from: the app's own sign-in.
pub trait TokenProvider: Send + Sync {
    /// A bearer token.
    fn token(&self, need: TokenNeed) -> BoxFuture<'_, Result<String, TokenError>>;
}
