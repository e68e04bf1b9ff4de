use std::time::{Duration, Instant};

/// How fast a pump may take bytes: a token bucket, which a quarter of a second fills.
///
/// It may be in debt: a message is not cut, and what was read ahead of the input is passed on at once.
#[derive(Debug)]
pub(crate) struct Rate {
    per_second: u64,
    tokens: i64,
    filled_at: Instant,
}

impl Rate {
    /// A full bucket.
    pub fn new(per_second: u64) -> Self {
        // More than that is as good as no bound, and the sums below stay small.
        let per_second = per_second.clamp(1, 1 << 50);
        let mut rate = Self { per_second, tokens: 0, filled_at: Instant::now() };
        rate.tokens = rate.burst();
        rate
    }

    /// Looks whether anything may be taken now, or else when. Nobody has to come back for a few bytes at a time.
    pub fn refill(&mut self, now: Instant) -> Result<(), Instant> {
        self.fill(now);
        let missing = self.quantum() - self.tokens;
        if missing > 0 { Err(self.filled_at + self.time_for(missing)) } else { Ok(()) }
    }

    /// How much may be taken.
    pub fn allowed(&self) -> u64 {
        self.tokens.max(0) as u64
    }

    /// So much was taken.
    pub fn take(&mut self, bytes: u64) {
        self.tokens = self.tokens.saturating_sub_unsigned(bytes);
    }

    fn fill(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.filled_at);
        let earned = elapsed.as_nanos() * u128::from(self.per_second) / NANOS;
        let earned = i64::try_from(earned).unwrap_or(i64::MAX);
        self.tokens = self.tokens.saturating_add(earned);
        // What has not yet earned a byte counts the next time.
        self.filled_at += self.time_for(earned).min(elapsed);
        self.tokens = self.tokens.min(self.burst());
    }

    fn burst(&self) -> i64 {
        (self.per_second / 4).max(1) as i64
    }

    fn quantum(&self) -> i64 {
        (self.burst() / 4).clamp(1, 256 << 10)
    }

    /// How long it takes to earn so many bytes.
    fn time_for(&self, bytes: i64) -> Duration {
        let nanos = (u128::from(bytes.unsigned_abs()) * NANOS).div_ceil(u128::from(self.per_second));
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

const NANOS: u128 = 1_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    /// How much is taken in so many seconds by one who always takes all that is allowed.
    fn taken(per_second: u64, seconds: u64) -> u64 {
        let mut rate = Rate::new(per_second);
        let mut now = rate.filled_at;
        let end = now + Duration::from_secs(seconds);
        let mut taken = 0;
        while now < end {
            match rate.refill(now) {
                Ok(()) => {
                    taken += rate.allowed();
                    rate.take(rate.allowed());
                }
                Err(later) => {
                    assert!(later > now);
                    now = later;
                }
            }
        }
        taken
    }

    #[test]
    fn over_any_time_it_is_the_rate_and_one_burst() {
        for per_second in [1, 3, 100, 12_345, 1_000_000, 10_000_000_000] {
            let taken = taken(per_second, 10);
            let least = per_second * 10 - per_second / 4;
            assert!((least..=per_second * 10 + per_second / 4 + 1).contains(&taken), "{per_second}: {taken}");
        }
    }

    #[test]
    fn a_debt_is_paid_first() {
        let mut rate = Rate::new(1000);
        rate.take(2250);
        let later = rate.refill(rate.filled_at).unwrap_err();
        assert!((2050..2100).contains(&later.duration_since(rate.filled_at).as_millis()));
    }
}
