//! Simulated time: a working day in less than a minute, for server, office and phones alike.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};
use sync_core::domain::{BootId, Timestamp};
use sync_core::store::DeviceNow;

/// A clock that runs faster than the machine's. Clones show the same time.
#[derive(Debug, Clone)]
pub struct DayClock {
    origin: Timestamp,
    started: Instant,
    pace: Arc<RwLock<Pace>>,
}

/// From `since` on, at which `at` was shown, the clock runs `scale` times as fast as real time.
#[derive(Debug, Clone, Copy)]
struct Pace {
    at: Timestamp,
    since: Instant,
    scale: f64,
}

impl Pace {
    fn now(&self) -> Timestamp {
        let elapsed_ms = self.since.elapsed().as_secs_f64() * 1_000.0 * self.scale;
        self.at.plus_millis(elapsed_ms as i64)
    }
}

impl DayClock {
    /// Shows `origin` now, and runs `scale` times as fast as real time from here on.
    #[must_use]
    pub fn starting_at(origin: Timestamp, scale: f64) -> Self {
        let now = Instant::now();
        let pace = Pace { at: origin, since: now, scale: scale.max(0.001) };
        Self { origin, started: now, pace: Arc::new(RwLock::new(pace)) }
    }

    fn pace(&self) -> Pace {
        *self.pace.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many simulated seconds pass in a real one.
    #[must_use]
    pub fn scale(&self) -> f64 {
        self.pace().scale
    }

    /// Goes on from the present time at another pace, as when the demo is over and the server stays.
    pub fn set_scale(&self, scale: f64) {
        let mut pace = self.pace.write().unwrap_or_else(PoisonError::into_inner);
        *pace = Pace { at: pace.now(), since: Instant::now(), scale: scale.max(0.001) };
    }

    /// Simulated time.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.pace().now()
    }

    /// Real time until `at`; zero when it has passed.
    #[must_use]
    pub fn until(&self, at: Timestamp) -> Duration {
        let ahead_ms = at.millis_since(self.now()).max(0);
        Duration::from_secs_f64(ahead_ms as f64 / 1_000.0 / self.scale())
    }

    /// Waits until `at`.
    pub async fn sleep_until(&self, at: Timestamp) {
        tokio::time::sleep(self.until(at)).await;
    }
}

/// A phone's clocks over a [`DayClock`]: its wall time may be wrong, its monotonic one never jumps.
#[derive(Debug, Clone)]
pub struct PhoneClock {
    day: DayClock,
    skew_ms: i64,
    boot: BootId,
}

impl PhoneClock {
    /// `skew_ms` is how far the phone's wall time is ahead (rule 6).
    #[must_use]
    pub fn new(day: DayClock, skew_ms: i64, boot: BootId) -> Self {
        Self { day, skew_ms, boot }
    }

    /// The true time, which the phone does not know.
    #[must_use]
    pub fn true_now(&self) -> Timestamp {
        self.day.now()
    }

    /// How far the phone's wall time is ahead.
    #[must_use]
    pub fn skew_ms(&self) -> i64 {
        self.skew_ms
    }

    /// What the phone's clocks say.
    #[must_use]
    pub fn read(&self) -> DeviceNow {
        let now = self.day.now();
        DeviceNow {
            wall: now.plus_millis(self.skew_ms),
            monotonic_ms: u64::try_from(now.millis_since(self.day.origin)).unwrap_or(0),
            boot: self.boot.clone(),
        }
    }
}

impl sync_core::client::PhoneClock for PhoneClock {
    fn now(&self) -> DeviceNow {
        self.read()
    }

    /// The network is as slow as it really is.
    fn timer_ms(&self) -> u64 {
        u64::try_from(self.day.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_day_passes_in_under_a_minute() {
        let morning: Timestamp = "2026-02-03T05:30:00Z".parse().unwrap();
        let clock = DayClock::starting_at(morning, 720.0);
        let evening = morning.plus_millis(10 * 3_600_000);
        let wait = clock.until(evening);
        assert!(wait <= Duration::from_secs(50), "{wait:?}");
        assert!(wait >= Duration::from_secs(45), "{wait:?}");
        assert_eq!(clock.until(morning), Duration::ZERO, "what has passed is not waited for");
        let shared = clock.clone();
        clock.set_scale(1.0);
        assert!(shared.until(evening) > Duration::from_secs(30_000), "everybody's clock has slowed down");
        assert!(shared.now() >= morning, "and none has jumped");
    }

    #[test]
    fn a_skewed_phone_is_ahead_by_its_skew_and_nothing_else() {
        let day = DayClock::starting_at("2026-02-03T05:30:00Z".parse().unwrap(), 1.0);
        let phone = PhoneClock::new(day.clone(), 7 * 60_000, BootId::new("boot-1").unwrap());
        let before = day.now();
        let read = phone.read();
        let ahead = read.wall.millis_since(before);
        assert!((420_000..421_000).contains(&ahead), "{ahead}");
        assert!(phone.read().monotonic_ms >= read.monotonic_ms);
    }
}
