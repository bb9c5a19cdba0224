//! The server's time and its randomness, both injected: a test or a demo brings its own.

use rand::{Rng, RngExt, SeedableRng, rngs::StdRng};
use std::sync::{Mutex, PoisonError};
use sync_core::domain::{EventId, FactId, Timestamp};

/// Tells the time.
pub trait Clock: Send + Sync + 'static {
    /// The server's time.
    fn now(&self) -> Timestamp;
}

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[allow(clippy::disallowed_methods, reason = "this is the clock that everybody else asks")]
    fn now(&self) -> Timestamp {
        let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Timestamp::from_millis(i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX))
    }
}

/// Where ids come from. One seed gives one sequence.
#[derive(Debug)]
pub struct IdSource(Mutex<StdRng>);

impl IdSource {
    /// The same seed gives the same ids.
    #[must_use]
    pub fn seeded(seed: u64) -> Self {
        Self(Mutex::new(StdRng::seed_from_u64(seed)))
    }

    /// Seeded by the operating system.
    #[must_use]
    pub fn random() -> Self {
        Self(Mutex::new(rand::make_rng()))
    }

    /// A source of its own for one decision, so that the decision is a pure function of it.
    #[must_use]
    pub fn fork(&self) -> Ids {
        let mut parent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Ids(StdRng::from_rng(&mut *parent))
    }
}

/// The ids of one decision.
#[derive(Debug)]
pub struct Ids(StdRng);

impl Ids {
    /// 128 random bits in hexadecimal.
    fn hex(&mut self) -> String {
        format!("{:016x}{:016x}", self.0.random::<u64>(), self.0.random::<u64>())
    }

    /// A fresh event id.
    #[must_use]
    pub fn event(&mut self) -> EventId {
        id(format!("evt-{}", self.hex()))
    }

    /// A fresh id for a fact that is stated through REST.
    #[must_use]
    pub fn fact(&mut self) -> FactId {
        id(format!("rest-{}", self.hex()))
    }

    /// Sixteen random bytes: an Automerge actor.
    #[must_use]
    pub fn actor(&mut self) -> [u8; 16] {
        let mut bytes = [0; 16];
        self.0.fill_bytes(&mut bytes);
        bytes
    }
}

/// Prefix and hexadecimal digits always make an id.
fn id<T: TryFrom<String>>(text: String) -> T {
    match T::try_from(text) {
        Ok(id) => id,
        Err(_) => unreachable!("letters, digits and a hyphen make an id"),
    }
}
