//! A token bucket: how often something may happen on average, and at once.

/// Milliseconds in, tokens out. Starts full.
#[derive(Debug, Clone, Copy)]
pub struct TokenBucket {
    per_second: u32,
    burst: u32,
    /// Thousandths of a token, so that integer time loses nothing.
    millitokens: u64,
    filled_at_ms: u64,
}

impl TokenBucket {
    /// A full bucket.
    #[must_use]
    pub fn new(per_second: u32, burst: u32, now_ms: u64) -> Self {
        Self { per_second, burst, millitokens: u64::from(burst) * 1000, filled_at_ms: now_ms }
    }

    /// Takes one token; false when there is none.
    #[must_use]
    pub fn take(&mut self, now_ms: u64) -> bool {
        let elapsed_ms = now_ms.saturating_sub(self.filled_at_ms);
        self.filled_at_ms = self.filled_at_ms.max(now_ms);
        let refill = elapsed_ms.saturating_mul(u64::from(self.per_second));
        self.millitokens = self.millitokens.saturating_add(refill).min(u64::from(self.burst) * 1000);
        if self.millitokens < 1000 {
            return false;
        }
        self.millitokens -= 1000;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::TokenBucket;

    #[test]
    fn a_burst_is_let_through_then_the_average_rules() {
        let mut bucket = TokenBucket::new(2, 3, 0);
        assert_eq!((0..5).filter(|_| bucket.take(0)).count(), 3);
        assert!(!bucket.take(499));
        assert!(bucket.take(500));
        assert_eq!((0..9).filter(|_| bucket.take(60_000)).count(), 3);
    }

    #[test]
    fn a_clock_that_steps_back_gives_nothing_away() {
        let mut bucket = TokenBucket::new(1, 1, 10_000);
        assert!(bucket.take(10_000));
        assert!(!bucket.take(0));
        assert!(!bucket.take(10_999));
        assert!(bucket.take(11_000));
    }
}
