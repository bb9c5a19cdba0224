//! Latencies as they are met, in real time.

use hdrhistogram::Histogram;
use std::time::Duration;

/// A latency's distribution, microseconds inside.
#[derive(Debug, Clone)]
pub struct Latency(Histogram<u64>);

impl Default for Latency {
    fn default() -> Self {
        // Invariant: a precision of 3 is in the histogram's range of 0 to 5, so the fallback is never reached.
        Self(Histogram::new(3).unwrap_or_else(|_| unreachable!("a valid precision")))
    }
}

impl Latency {
    /// One more.
    pub fn record(&mut self, taken: Duration) {
        // The histogram grows by itself; only a year-long latency does not fit, and is not worth a word.
        let _ = self.0.record(u64::try_from(taken.as_micros()).unwrap_or(u64::MAX).max(1));
    }

    /// How many.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// Milliseconds that this share (0 to 1) stays under.
    #[must_use]
    pub fn quantile_ms(&self, share: f64) -> f64 {
        self.0.value_at_quantile(share) as f64 / 1_000.0
    }

    /// The longest, milliseconds.
    #[must_use]
    pub fn max_ms(&self) -> f64 {
        self.0.max() as f64 / 1_000.0
    }

    /// The mean, milliseconds.
    #[must_use]
    pub fn mean_ms(&self) -> f64 {
        self.0.mean() / 1_000.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_in_milliseconds() {
        let mut latency = Latency::default();
        (1..=100).for_each(|ms| latency.record(Duration::from_millis(ms)));
        assert_eq!(latency.count(), 100);
        assert!((latency.quantile_ms(0.5) - 50.0).abs() < 0.2);
        assert!((latency.quantile_ms(0.95) - 95.0).abs() < 0.2);
        assert!((latency.max_ms() - 100.0).abs() < 0.2);
        assert!((latency.mean_ms() - 50.5).abs() < 0.2);
    }
}
