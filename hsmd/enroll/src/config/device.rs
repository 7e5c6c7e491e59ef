//! The device that holds the CA's key.

use hsm_device::{Opener, pkcs11, yubihsm};

use super::check::Problems;
use super::{MockDevices, raw};

/// A device, as it is opened.
#[derive(Clone)]
pub enum Device {
    /// Any PKCS#11 module.
    Pkcs11(pkcs11::Settings),
    /// A YubiHSM2.
    Yubihsm(yubihsm::Settings),
    /// The emulator, in this process. Protects nothing.
    #[cfg(feature = "mock")]
    Mock(hsm_device::mock::Settings),
}

impl Device {
    /// Whether it is the mock.
    #[must_use]
    pub fn is_mock(&self) -> bool {
        match self {
            Self::Pkcs11(_) | Self::Yubihsm(_) => false,
            #[cfg(feature = "mock")]
            Self::Mock(_) => true,
        }
    }

    pub(super) fn opener(&self) -> Opener {
        match self {
            Self::Pkcs11(settings) => settings.clone().opener(),
            Self::Yubihsm(settings) => settings.clone().opener(),
            #[cfg(feature = "mock")]
            Self::Mock(settings) => mock_opener(settings.clone()),
        }
    }
}

/// The mock starts when its first session is opened, and runs for as long as the opener is kept.
#[cfg(feature = "mock")]
fn mock_opener(settings: hsm_device::mock::Settings) -> Opener {
    use hsm_device::mock::Mock;
    use std::sync::{Mutex, PoisonError};

    let running: Mutex<Option<Mock>> = Mutex::new(None);
    Opener::new(hsm_device::Backend::Mock, move || {
        let mut running = running.lock().unwrap_or_else(PoisonError::into_inner);
        let mock = match &*running {
            Some(mock) => mock.clone(),
            None => {
                Mock::start(settings.clone()).map_err(|error| hsm_device::Error::Unreachable {
                    device: "the mock".to_owned(),
                    cause: error.to_string(),
                })?
            }
        };
        *running = Some(mock.clone());
        mock.opener().open()
    })
}

pub(super) fn device(
    problems: &mut Problems,
    raw: raw::Device,
    mock: MockDevices,
) -> Option<Device> {
    match raw {
        raw::Device::Pkcs11 {
            module,
            token,
            pin_file,
        } => Some(Device::Pkcs11(pkcs11::Settings {
            module: problems.path(&module),
            token,
            pin_file: problems.path(&pin_file),
        })),
        raw::Device::Yubihsm {
            connector,
            usb_serial,
            authentication_key,
            password_file,
        } => Some(Device::Yubihsm(yubihsm::Settings {
            connector: connection(problems, connector, usb_serial)?,
            authentication_key,
            password_file: problems.path(&password_file),
        })),
        raw::Device::Mock { state_file } => mock_device(problems, state_file, mock),
    }
}

fn connection(
    problems: &mut Problems,
    connector: Option<String>,
    usb_serial: Option<String>,
) -> Option<yubihsm::Connector> {
    let (key, remedy) = (
        "ca.device.connector",
        "write either connector = \"http://127.0.0.1:12345\" or usb_serial = \"0012345678\"",
    );
    match (connector, usb_serial) {
        (Some(url), None) => {
            let authority = url.strip_prefix("http://").unwrap_or_default();
            let parts = authority.trim_end_matches('/').rsplit_once(':');
            let parsed = parts.and_then(|(host, port)| {
                let host = host.trim_start_matches('[').trim_end_matches(']');
                let port: u16 = port.parse().ok().filter(|port| *port > 0)?;
                crate::contents::is_host(host).then(|| yubihsm::Connector::Http {
                    host: host.to_owned(),
                    port,
                })
            });
            if parsed.is_none() {
                problems.add(key, format!("{url:?} is no connector's URL"), remedy);
            }
            parsed
        }
        (None, Some(serial))
            if serial.len() == 10 && serial.bytes().all(|byte| byte.is_ascii_digit()) =>
        {
            Some(yubihsm::Connector::Usb {
                serial: Some(serial),
            })
        }
        _ => {
            problems.add(key, "not one way to the device is named", remedy);
            None
        }
    }
}

#[cfg(feature = "mock")]
fn mock_device(
    problems: &mut Problems,
    state_file: Option<String>,
    mock: MockDevices,
) -> Option<Device> {
    if mock == MockDevices::Refused {
        problems.add(
            "ca.device.backend",
            "the mock is no HSM: the CA's key lies in a file, in the clear",
            "for a test, start with --mock; else write \"pkcs11\" or \"yubihsm\"",
        );
        return None;
    }
    Some(Device::Mock(hsm_device::mock::Settings {
        state_file: state_file.map(|file| problems.path(&file)),
        ..hsm_device::mock::Settings::default()
    }))
}

#[cfg(not(feature = "mock"))]
fn mock_device(
    problems: &mut Problems,
    _state_file: Option<String>,
    _mock: MockDevices,
) -> Option<Device> {
    let fault = "the mock is not part of this build";
    problems.add(
        "ca.device.backend",
        fault,
        "write \"pkcs11\" or \"yubihsm\"",
    );
    None
}
