//! How long to wait before trying again.

use std::time::Duration;

/// A node waits 3 s for its signer when it starts, so the first tries follow each other quickly.
const FIRST: Duration = Duration::from_millis(50);
const LONGEST: Duration = Duration::from_secs(1);

/// Waits that double from 50 ms to 1 s, each shortened by up to a half at random, so that many sentries do not
/// come back to a restarted hsmd at the same instant.
#[derive(Debug)]
pub(crate) struct Backoff(Duration);

impl Backoff {
    /// The next wait is a short one.
    pub(crate) fn new() -> Self {
        Self(FIRST)
    }

    /// The next wait.
    pub(crate) fn next(&mut self) -> Duration {
        let longest = self.0;
        self.0 = (longest * 2).min(LONGEST);
        // Without randomness the waits still work, they only are not spread.
        let share = getrandom::u32().map_or(1.0, |random| f64::from(random) / f64::from(u32::MAX));
        longest.mul_f64(0.5 + share / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_begin_at_50_ms_and_never_exceed_a_second() {
        let mut backoff = Backoff::new();
        assert!(backoff.next() <= FIRST);
        for _ in 0..20 {
            let wait = backoff.next();
            assert!(wait >= FIRST && wait <= LONGEST, "{wait:?}");
        }
        assert!(backoff.next() >= LONGEST / 2);
    }
}
