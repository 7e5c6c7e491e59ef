//! What tells one device from every other.

use std::fmt;

use crate::Info;

/// Who a device is, as it was pinned or as it shows itself now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// As [`Info::model`].
    pub model: String,
    /// As [`Info::serial`].
    pub serial: String,
    /// As [`Info::certificate`].
    pub certificate: Option<[u8; 32]>,
}

impl Identity {
    /// Whether the device that shows itself so may be the one that was pinned so. Where no certificate was pinned,
    /// none is compared; where one was, it must be shown.
    pub fn admits(&self, shown: &Self) -> bool {
        let certificate = self.certificate.is_none() || self.certificate == shown.certificate;
        self.model == shown.model && self.serial == shown.serial && certificate
    }
}

impl Info {
    /// Who the device is.
    pub fn identity(&self) -> Identity {
        Identity {
            model: self.model.clone(),
            serial: self.serial.clone(),
            certificate: self.certificate,
        }
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.model, self.serial)?;
        match &self.certificate {
            Some(digest) => write!(f, ", certificate {}", hex::encode(digest)),
            None => write!(f, ", no certificate"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pinned_device_is_known_again_and_another_one_is_not() {
        let identity = |serial: &str, certificate: Option<u8>| Identity {
            model: "YubiHSM 2".into(),
            serial: serial.into(),
            certificate: certificate.map(|byte| [byte; 32]),
        };
        for (pinned, shown, admitted) in [
            (("1", Some(7)), ("1", Some(7)), true),
            (("1", Some(7)), ("1", Some(8)), false),
            (("1", Some(7)), ("2", Some(7)), false),
            (("1", Some(7)), ("1", None), false),
            (("1", None), ("1", Some(7)), true),
            (("1", None), ("2", None), false),
        ] {
            let (pinned, shown) = (identity(pinned.0, pinned.1), identity(shown.0, shown.1));
            assert_eq!(pinned.admits(&shown), admitted, "{pinned} {shown}");
        }
    }
}
