//! The names of keys.

use std::fmt;
use std::sync::Arc;

use serde::Deserialize;

use super::Error;
use crate::quoted;

/// The name of a key in hsmd's configuration: 1 to 64 bytes of `a-z 0-9 . _ -`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(try_from = "String")]
pub struct KeyName(Arc<str>);

impl KeyName {
    /// Checks length and characters. [`Error::KeyName`] where they are not as [`KeyName`] says.
    pub fn new(name: &str) -> Result<Self, Error> {
        let allowed = |c: char| matches!(c, 'a'..='z' | '0'..='9' | '.' | '_' | '-');
        if (1..=64).contains(&name.len()) && name.chars().all(allowed) {
            return Ok(KeyName(name.into()));
        }
        Err(Error::KeyName(quoted(name)))
    }

    /// The name itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for KeyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for KeyName {
    type Error = Error;

    fn try_from(name: String) -> Result<Self, Error> {
        KeyName::new(&name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_name_is_1_to_64_bytes_of_lower_case_digits_and_a_few_marks() {
        let longest = "a".repeat(64);
        for good in ["a", "cosmoshub", "osmo-1_b.c", &longest] {
            assert_eq!(KeyName::new(good).unwrap().as_str(), good);
        }
        let too_long = "a".repeat(65);
        for bad in ["", "A", "a b", "a/b", "ä", "a\n", &too_long] {
            assert!(
                matches!(KeyName::new(bad), Err(Error::KeyName(_))),
                "{bad:?}"
            );
        }
    }
}
