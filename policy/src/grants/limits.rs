//! What a grant allows of each kind, and how much of it in a time.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Deserializer};

use super::KeyName;
use crate::cometbft::ChainId;
use crate::identity::Caller;

/// The limits of one grant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// How far a height may lie above the last one signed; at least 1.
    pub max_height_jump: u64,
    /// The highest round.
    pub max_round: u32,
    /// The highest height, for a planned halt.
    pub max_height: Option<u64>,
    /// How far a message's timestamp may lie from our clock, either way; None for any distance.
    pub max_clock_skew: Option<Duration>,
    /// How many heights the mark may rise in the long run; [`Limits::max_height_jump`] of them at once.
    pub max_heights_per_second: Option<Rate>,
    /// How many requests are taken in the long run; those of [`Rate::BURST`] at once.
    pub max_requests_per_second: Option<Rate>,
}

impl Limits {
    /// Of how many heights each caller may raise the mark.
    pub fn heights(&self) -> Option<Allowance> {
        let rate = self.max_heights_per_second?;
        Some(Allowance {
            rate,
            at_once: units(self.max_height_jump),
        })
    }

    /// How many requests of each caller are taken.
    pub fn requests(&self) -> Option<Allowance> {
        const LEAST: u64 = 10;
        let rate = self.max_requests_per_second?;
        let at_once = rate.0.saturating_mul(Rate::BURST.as_secs());
        Some(Allowance {
            rate,
            at_once: at_once.max(units(LEAST)),
        })
    }
}

/// As people read it.
impl fmt::Display for Limits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "height jump {}, round {}",
            self.max_height_jump, self.max_round
        )?;
        if let Some(height) = self.max_height {
            write!(f, ", up to height {height}")?;
        }
        if let Some(skew) = self.max_clock_skew {
            write!(f, ", clock skew {} s", skew.as_secs())?;
        }
        if let Some(rate) = self.max_heights_per_second {
            write!(f, ", {rate} heights/s")?;
        }
        if let Some(rate) = self.max_requests_per_second {
            write!(f, ", {rate} requests/s")?;
        }
        Ok(())
    }
}

/// So many a second, in millionths; above 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rate(u64);

impl Rate {
    /// The time whose requests may come at once; 10 requests always may.
    pub const BURST: Duration = Duration::from_secs(10);
    const MOST: f64 = 1e9;

    /// From a number of at least 0.000001 and at most a thousand million.
    pub fn per_second(number: f64) -> Option<Self> {
        let millionths = number * UNIT as f64;
        // NaN is in no range.
        (1.0..=Self::MOST * UNIT as f64)
            .contains(&millionths)
            .then_some(Self(millionths as u64))
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, rest) = (self.0 / UNIT, self.0 % UNIT);
        if rest == 0 {
            return write!(f, "{whole}");
        }
        let digits = format!("{rest:06}");
        write!(f, "{whole}.{}", digits.trim_end_matches('0'))
    }
}

impl<'de> Deserialize<'de> for Rate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = f64::deserialize(deserializer)?;
        Self::per_second(number).ok_or_else(|| {
            serde::de::Error::custom(format_args!(
                "{number} a second: it must be a number from 0.000001 to 1000000000"
            ))
        })
    }
}

/// So much in the long run, and so much at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allowance {
    rate: Rate,
    /// In millionths.
    at_once: u64,
}

impl Allowance {
    /// In the long run.
    pub fn rate(&self) -> Rate {
        self.rate
    }
}

/// Whose use of which key on which chain is measured.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Subject {
    /// Who asks.
    pub caller: Caller,
    /// The key that is used.
    pub key: KeyName,
    /// The chain that it is used on.
    pub chain_id: ChainId,
}

/// What was used lately, of one kind of allowance. Nothing is kept for a subject before its first use, and what is
/// kept is the same size however much was used.
#[derive(Debug, Clone, Default)]
pub struct Meters(BTreeMap<Subject, Meter>);

#[derive(Debug, Clone, Copy, Default)]
struct Meter {
    /// In millionths: what was used and has not grown back.
    used: u64,
    at: Duration,
}

impl Meters {
    /// Whether `count` more are within the allowance. `now` is the time since any moment that stays the same.
    pub fn admits(
        &self,
        subject: &Subject,
        allowance: Allowance,
        count: u64,
        now: Duration,
    ) -> bool {
        let used = self
            .0
            .get(subject)
            .map_or(0, |meter| meter.left(allowance, now));
        used.saturating_add(units(count)) <= allowance.at_once
    }

    /// Counts `count` as used, whether or not they were within the allowance.
    pub fn count(&mut self, subject: &Subject, allowance: Allowance, count: u64, now: Duration) {
        let meter = match self.0.get_mut(subject) {
            Some(meter) => meter,
            None => self.0.entry(subject.clone()).or_default(),
        };
        meter.used = meter.left(allowance, now).saturating_add(units(count));
        meter.at = meter.at.max(now);
    }

    /// For how many subjects something is kept.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nothing was used yet.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Meter {
    /// A clock that goes back gives nothing back.
    fn left(self, allowance: Allowance, now: Duration) -> u64 {
        let passed = now.saturating_sub(self.at).as_micros();
        let grown = passed.saturating_mul(allowance.rate.0.into()) / 1_000_000;
        self.used
            .saturating_sub(u64::try_from(grown).unwrap_or(u64::MAX))
    }
}

/// What one stands as in a meter.
const UNIT: u64 = 1_000_000;

fn units(count: u64) -> u64 {
    count.saturating_mul(UNIT)
}
