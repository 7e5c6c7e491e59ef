//! What officers sign.

use std::fmt;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use toml::value::{Datetime, Offset};

use super::Error;
use crate::quoted;

/// The longest document that is read, in bytes.
pub const MAX_DOCUMENT: usize = 16 << 10;

/// What one kind of document says: its table `[statement]`.
pub trait Statement: Serialize + DeserializeOwned {
    /// What the document's field `kind` says, such as `set-officers`.
    const KIND: &'static str;

    /// What `ssh-keygen -Y sign` is given with `-n`.
    fn namespace() -> String {
        format!("{}@hsmd", Self::KIND)
    }
}

/// 16 random bytes by which one document is told from every other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Nonce(pub [u8; 16]);

impl fmt::Display for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

/// A document: a statement, and the deployment, nonce and expiry that it is bound to.
///
/// ```toml
/// kind = "set-officers"
/// deployment = "000102030405060708090a0b0c0d0e0f"
/// nonce = "f0e0d0c0b0a090807060504030201000"
/// expires = 2026-11-26T12:00:00Z
///
/// [statement]
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Document<S> {
    /// The deployment's id, in hex.
    pub deployment: String,
    /// Its own.
    pub nonce: Nonce,
    /// From this moment on it is not accepted.
    pub expires: Datetime,
    /// What it says.
    pub statement: S,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw<S> {
    kind: String,
    deployment: String,
    nonce: String,
    expires: Datetime,
    statement: S,
}

/// Read first, so that a document about something else is named as such.
#[derive(Deserialize)]
struct KindOnly {
    kind: String,
}

impl<S: Statement> Document<S> {
    /// A document for the deployment with this id.
    pub fn new(deployment_id: &[u8], nonce: Nonce, expires: Datetime, statement: S) -> Self {
        Self {
            deployment: hex(deployment_id),
            nonce,
            expires,
            statement,
        }
    }

    /// The text that is signed.
    ///
    /// # Errors
    ///
    /// [`Error::Document`] where the statement is none that TOML can say.
    pub fn to_text(&self) -> Result<String, Error>
    where
        S: Clone,
    {
        let raw = Raw {
            kind: S::KIND.to_owned(),
            deployment: self.deployment.clone(),
            nonce: self.nonce.to_string(),
            expires: self.expires,
            statement: self.statement.clone(),
        };
        toml::to_string(&raw).map_err(|error| Error::Document(error.to_string()))
    }

    /// Reads a document. Unknown fields are refused.
    ///
    /// # Errors
    ///
    /// [`Error::TooLong`], [`Error::Kind`], [`Error::Document`].
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        if bytes.len() > MAX_DOCUMENT {
            return Err(Error::TooLong(bytes.len()));
        }
        let wrong = |error: String| Error::Document(error);
        let text = std::str::from_utf8(bytes).map_err(|error| wrong(error.to_string()))?;
        let KindOnly { kind } = toml::from_str(text).map_err(|error| wrong(error.to_string()))?;
        if kind != S::KIND {
            return Err(Error::Kind {
                found: quoted(&kind),
                expected: S::KIND,
            });
        }
        let raw: Raw<S> = toml::from_str(text).map_err(|error| wrong(error.to_string()))?;
        let nonce = unhex(&raw.nonce).ok_or_else(|| {
            wrong(format!(
                "nonce {}: it is 32 digits of 0-9 a-f",
                quoted(&raw.nonce)
            ))
        })?;
        let document = Self {
            deployment: raw.deployment,
            nonce: Nonce(nonce),
            expires: raw.expires,
            statement: raw.statement,
        };
        document.expires_unix()?;
        Ok(document)
    }

    /// The expiry in seconds since 1970-01-01T00:00:00Z.
    ///
    /// # Errors
    ///
    /// [`Error::Document`] where it is no whole moment in UTC.
    pub fn expires_unix(&self) -> Result<i64, Error> {
        unix(&self.expires)
    }
}

/// A document's expiry in seconds since 1970-01-01T00:00:00Z.
///
/// # Errors
///
/// [`Error::Document`] where it is no whole moment in UTC.
pub(crate) fn unix(expires: &Datetime) -> Result<i64, Error> {
    match (expires.date, expires.time, expires.offset) {
        (Some(date), Some(time), Some(Offset::Z)) => {
            let days = days_since_1970(date.year.into(), date.month.into(), date.day.into());
            let (hour, minute) = (i64::from(time.hour), i64::from(time.minute));
            let second = i64::from(time.second.unwrap_or_default());
            Ok(((days * 24 + hour) * 60 + minute) * 60 + second)
        }
        _ => Err(Error::Document(format!(
            "expires = {expires}: it is a moment in UTC, such as 2026-11-26T12:00:00Z"
        ))),
    }
}

/// In the Gregorian calendar, continued into the past (ISO 8601); the year counted from March, so that the
/// leap day is its last.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let months_since_march = (month + 9) % 12;
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    let day_of_year = (153 * months_since_march + 2) / 5 + day - 1;
    const FROM_YEAR_0_MARCH_TO_1970: i64 = 719_468;
    year * 365 + leap_days + day_of_year - FROM_YEAR_0_MARCH_TO_1970
}

/// Lower-case.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// 16 bytes from lower-case hex.
fn unhex(text: &str) -> Option<[u8; 16]> {
    let mut bytes = [0; 16];
    let lower = |c: u8| matches!(c, b'0'..=b'9' | b'a'..=b'f');
    if text.len() != 32 || !text.bytes().all(lower) {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::days_since_1970;

    #[test]
    fn days_are_counted_through_leap_years() {
        for (date, days) in [
            ((1970, 1, 1), 0),
            ((1970, 3, 1), 59),
            ((1972, 2, 29), 789),
            ((2000, 2, 29), 11_016),
            ((2000, 3, 1), 11_017),
            ((2026, 11, 25), 20_782),
            ((2100, 3, 1), 47_541),
            ((1969, 12, 31), -1),
        ] {
            assert_eq!(days_since_1970(date.0, date.1, date.2), days, "{date:?}");
        }
    }
}
