//! A moment in UTC, to the second.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use toml::value::{Date, Datetime, Offset, Time};

const DAY: i64 = 24 * 3600;

/// A moment in UTC, to the second, of the years 1970 to 9999. Written as RFC 3339 has it: `2026-11-25T20:00:00Z`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Moment(i64);

impl Moment {
    /// From seconds since 1970-01-01T00:00:00Z; `None` before then, and after the year 9999.
    pub fn from_unix(seconds: i64) -> Option<Self> {
        let last = days_since_1970(9999, 12, 31) * DAY + DAY - 1;
        (0..=last).contains(&seconds).then_some(Self(seconds))
    }

    /// What the clock says. A laptop's clock is no evidence; the officers compare it with a watch.
    ///
    /// `None` where it stands before 1970.
    pub fn now() -> Option<Self> {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
        Self::from_unix(i64::try_from(since.as_secs()).ok()?)
    }

    /// Seconds since 1970-01-01T00:00:00Z.
    pub fn unix(self) -> i64 {
        self.0
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day) = date(self.0.div_euclid(DAY));
        let second = self.0.rem_euclid(DAY);
        let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
        write!(
            f,
            "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z"
        )
    }
}

impl std::str::FromStr for Moment {
    type Err = Malformed;

    /// Reads exactly what is displayed.
    fn from_str(text: &str) -> Result<Self, Malformed> {
        let malformed = || Malformed(text.chars().take(32).collect());
        let read: Datetime = text.parse().map_err(|_| malformed())?;
        let (Some(date), Some(time), Some(Offset::Z)) = (read.date, read.time, read.offset) else {
            return Err(malformed());
        };
        let moment = Self::from_parts(date, time).ok_or_else(malformed)?;
        if moment.to_string() == text {
            Ok(moment)
        } else {
            Err(malformed())
        }
    }
}

impl Moment {
    fn from_parts(date: Date, time: Time) -> Option<Self> {
        let days = days_since_1970(date.year.into(), date.month.into(), date.day.into());
        let (hour, minute) = (i64::from(time.hour), i64::from(time.minute));
        Self::from_unix(((days * 24 + hour) * 60 + minute) * 60 + i64::from(time.second?))
    }
}

impl From<Moment> for String {
    fn from(moment: Moment) -> Self {
        moment.to_string()
    }
}

impl TryFrom<String> for Moment {
    type Error = Malformed;

    fn try_from(text: String) -> Result<Self, Malformed> {
        text.parse()
    }
}

/// No moment.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no moment in UTC, such as 2026-11-25T20:00:00Z")]
pub struct Malformed(String);

const FROM_YEAR_0_MARCH_TO_1970: i64 = 719_468;
const DAYS_OF_400_YEARS: i64 = 146_097;

/// In the Gregorian calendar; the year counted from March, so that the leap day is its last.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    year * 365 + leap_days + day_of_year - FROM_YEAR_0_MARCH_TO_1970
}

/// Year, month and day of a day counted from 1970-01-01.
fn date(days: i64) -> (i64, i64, i64) {
    let days = days + FROM_YEAR_0_MARCH_TO_1970;
    let (era, day) = (
        days.div_euclid(DAYS_OF_400_YEARS),
        days.rem_euclid(DAYS_OF_400_YEARS),
    );
    // Leap days come after 4, not after 100, and after 400 years.
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, next_year) = if month < 10 {
        (month + 3, 0)
    } else {
        (month - 9, 1)
    };
    (era * 400 + year + next_year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_written_as_date_writes_them_and_read_back() {
        // Made with `date -u -d @SECONDS +%FT%TZ`.
        for (seconds, written) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_709_164_800, "2024-02-29T00:00:00Z"),
            (1_795_636_800, "2026-11-25T20:00:00Z"),
            (4_107_542_399, "2100-02-28T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
            (253_402_300_799, "9999-12-31T23:59:59Z"),
        ] {
            let moment = Moment::from_unix(seconds).unwrap();
            assert_eq!(moment.to_string(), written);
            assert_eq!(written.parse(), Ok(moment));
        }
    }

    #[test]
    fn every_day_of_eight_centuries_is_the_one_after_the_last() {
        for day in 0..2 * DAYS_OF_400_YEARS {
            let (year, month, of_month) = date(day);
            assert_eq!(days_since_1970(year, month, of_month), day);
            assert!((1..=12).contains(&month) && (1..=31).contains(&of_month));
        }
    }

    #[test]
    fn what_is_no_moment_in_utc_is_refused() {
        for wrong in [
            "",
            "2026-11-25",
            "2026-11-25T20:00:00",
            "2026-11-25T20:00:00+01:00",
            "2026-11-25 20:00:00Z",
            "2026-02-30T20:00:00Z",
            "1969-12-31T23:59:59Z",
            "2026-11-25T20:00:00.5Z",
        ] {
            assert!(wrong.parse::<Moment>().is_err(), "{wrong}");
        }
        assert!(Moment::from_unix(-1).is_none());
        assert!(Moment::from_unix(253_402_300_800).is_none());
    }
}
