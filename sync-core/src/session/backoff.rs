//! When to try again (invariant 10): exponential, with full jitter, and never earlier than the server asked.

use crate::protocol::limits::{BACKOFF_MAX_MS, BACKOFF_MIN_MS, RETRY_AFTER_MAX_MS};
use rand::Rng;

/// Counts failures; a success resets it.
#[derive(Debug, Clone, Default)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The connection was good: the next failure starts over.
    pub fn succeeded(&mut self) {
        self.failures = 0;
    }

    /// Milliseconds to wait after one more failure. Full jitter spreads a storm of phones evenly over the interval; a
    /// server's `retry_after_ms` is waited for first, up to [`RETRY_AFTER_MAX_MS`].
    #[must_use]
    pub fn next_delay_ms(&mut self, retry_after_ms: Option<i64>, rng: &mut dyn Rng) -> i64 {
        let ceiling = BACKOFF_MIN_MS.saturating_mul(1 << self.failures.min(16)).min(BACKOFF_MAX_MS);
        self.failures = self.failures.saturating_add(1);
        let jitter = i64::try_from(rng.next_u64() % u64::try_from(ceiling + 1).unwrap_or(1)).unwrap_or(0);
        retry_after_ms.unwrap_or(0).clamp(0, RETRY_AFTER_MAX_MS) + jitter
    }
}

#[cfg(test)]
mod tests {
    use super::Backoff;
    use crate::protocol::limits::{BACKOFF_MAX_MS, RETRY_AFTER_MAX_MS};
    use rand::{SeedableRng, rngs::SmallRng};

    #[test]
    fn delays_grow_are_bounded_spread_out_and_start_over() {
        let mut rng = SmallRng::seed_from_u64(1);
        let mut backoff = Backoff::default();
        let delays: Vec<_> = (0..40).map(|_| backoff.next_delay_ms(None, &mut rng)).collect();
        assert!(delays.iter().all(|delay| (0..=BACKOFF_MAX_MS).contains(delay)));
        assert!(delays[0] <= 500);
        assert!(delays[20..].iter().any(|delay| *delay > BACKOFF_MAX_MS / 2));
        assert!(delays[20..].iter().collect::<std::collections::BTreeSet<_>>().len() > 15);
        backoff.succeeded();
        assert!(backoff.next_delay_ms(None, &mut rng) <= 500);
    }

    #[test]
    fn a_server_that_asks_for_time_gets_it_within_reason() {
        let mut rng = SmallRng::seed_from_u64(2);
        assert!(Backoff::default().next_delay_ms(Some(3_000), &mut rng) >= 3_000);
        assert!(Backoff::default().next_delay_ms(Some(i64::MAX), &mut rng) <= RETRY_AFTER_MAX_MS + 500);
        assert!(Backoff::default().next_delay_ms(Some(-5), &mut rng) >= 0);
    }
}
