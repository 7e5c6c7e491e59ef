//! Whether a device is hardware or the emulator.

use crate::{Backend, Error};

/// The emulator's serial numbers. Known here also where the emulator itself is not built in.
const EMULATOR_SERIALS: std::ops::RangeInclusive<u32> = 4_200_000_000..=4_200_999_999;

/// What the emulator's factory certificate contains and no vendor's does.
const EMULATOR_MARK: &[u8] = b"EMULATOR";

/// Refuses an emulator where hardware was configured, and hardware where the mock was.
pub(super) fn check_identity(
    expected: Backend,
    serial: &str,
    factory_certificate: Option<&[u8]>,
) -> Result<(), Error> {
    let marked = factory_certificate.is_some_and(|certificate| {
        certificate
            .windows(EMULATOR_MARK.len())
            .any(|w| w == EMULATOR_MARK)
    });
    let numbered = serial
        .parse()
        .is_ok_and(|serial| EMULATOR_SERIALS.contains(&serial));
    match (expected, marked || numbered) {
        (Backend::Mock, true) | (Backend::Yubihsm | Backend::Pkcs11, false) => Ok(()),
        (Backend::Yubihsm | Backend::Pkcs11, true) => Err(Error::Identity(format!(
            "the device with serial number {serial} is the YubiHSM emulator, which protects no key; configure \
             hardware, or for tests the mock device, which needs --mock"
        ))),
        (Backend::Mock, false) => Err(Error::Identity(format!(
            "the device with serial number {serial} is no emulator: the mock device is for tests only and takes no \
             hardware; configure it as yubihsm"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_emulator_is_not_taken_for_hardware_nor_hardware_for_an_emulator() {
        let hardware = "0012345678";
        let emulator = EMULATOR_SERIALS.start().to_string();
        let vendor: &[u8] = b"0\x82 Yubico YubiHSM Attestation";
        let marked: &[u8] = b"0\x82 CN=YubiHSM EMULATOR";
        let cases = [
            // expected, serial, certificate, accepted
            (Backend::Yubihsm, hardware, Some(vendor), true),
            (Backend::Yubihsm, hardware, None, true),
            (Backend::Yubihsm, hardware, Some(marked), false),
            (Backend::Yubihsm, emulator.as_str(), Some(vendor), false),
            (Backend::Yubihsm, emulator.as_str(), None, false),
            (Backend::Mock, hardware, Some(vendor), false),
            (Backend::Mock, hardware, None, false),
            (Backend::Mock, hardware, Some(marked), true),
            (Backend::Mock, emulator.as_str(), Some(marked), true),
            (Backend::Mock, emulator.as_str(), None, true),
        ];
        for (expected, serial, certificate, accepted) in cases {
            let checked = check_identity(expected, serial, certificate);
            assert_eq!(
                checked.is_ok(),
                accepted,
                "{expected} {serial} {certificate:?}"
            );
            if let (Backend::Yubihsm, Err(error)) = (expected, checked) {
                assert!(error.to_string().contains("--mock"), "{error}");
            }
        }
    }

    #[cfg(feature = "mock")]
    #[test]
    fn the_emulator_has_the_identity_that_is_looked_for() {
        assert_eq!(EMULATOR_SERIALS, yubihsm_emulator::EMULATOR_SERIALS);
        assert_eq!(EMULATOR_MARK, yubihsm_emulator::EMULATOR_MARK.as_bytes());
    }
}
