use std::time::{Duration, Instant};

/// How often the caller is told while bytes move slowly.
const INTERVAL: Duration = Duration::from_millis(100);

/// What the caller was last told of how far a copy is, and when.
#[derive(Debug)]
pub(crate) struct Report {
    told: u64,
    told_at: Instant,
}

impl Report {
    pub fn new() -> Self {
        Self { told: 0, told_at: Instant::now() }
    }

    /// Whether the caller is to be told now: `portion` bytes have moved since the last time, or some have and the interval is
    /// over. Then it counts as told.
    pub fn is_due(&mut self, delivered: u64, portion: u64) -> bool {
        let moved = delivered - self.told;
        let due = moved > 0 && (moved >= portion || self.told_at.elapsed() >= INTERVAL);
        if due {
            (self.told, self.told_at) = (delivered, Instant::now());
        }
        due
    }

    /// When the caller is to be told of what has moved, if nothing else does.
    pub fn at(&self, delivered: u64) -> Option<Instant> {
        (delivered > self.told).then(|| self.told_at + INTERVAL)
    }
}
