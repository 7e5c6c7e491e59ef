//! From the configuration to running devices and the keys in them.

use std::sync::Arc;

use hsm_device::{KeyLocator, Opener, Worker, WorkerOptions};

use crate::advisories::{self, Advisories};
use crate::config::Config;
use crate::guard::{self, Guard};
use crate::keyring::{Device, Keyring};

/// The system gives no thread for a device. One that merely does not answer shows in `hsmd status`.
#[derive(Debug, thiserror::Error)]
#[error("device {device}: {error}")]
pub struct Error {
    device: String,
    error: std::io::Error,
}

/// Starts every device of the configuration; each opens its session by itself.
///
/// # Errors
///
/// See [`Error`].
pub fn start(config: &Config) -> Result<Vec<Device>, Error> {
    let started = config.devices.iter().map(|device| {
        let options = WorkerOptions {
            queue: device.queue,
            ..WorkerOptions::default()
        };
        start_one(&device.name, device.backend.opener(), options)
    });
    started.collect()
}

/// Starts one device.
///
/// # Errors
///
/// See [`Error`].
pub fn start_one(name: &str, opener: Opener, options: WorkerOptions) -> Result<Device, Error> {
    let worker = Worker::start(name, opener, options).map_err(|error| Error {
        device: name.to_owned(),
        error,
    })?;
    Ok(Device {
        name: name.into(),
        worker,
        suspect: Arc::default(),
        audit: Arc::default(),
    })
}

/// Pins every device that the journal knows to who it was when a key in it was made known.
///
/// # Errors
///
/// After a fault of the guard.
pub fn pin(devices: &[Device], guard: &Guard) -> Result<(), guard::Error> {
    for device in devices {
        if let Some(identity) = guard.inspect(|state| state.device(&device.name).cloned())? {
            device.worker.pin(identity);
        }
    }
    Ok(())
}

/// The configuration's keys over running devices. No device is asked before a key is first used.
///
/// # Errors
///
/// Where the advisories that were built in cannot be read.
pub fn keyring(config: &Config, devices: Vec<Device>) -> Result<Keyring, advisories::Error> {
    let advisories = Advisories::built_in(config.advisories.clone())?;
    let mut keyring = Keyring::new(devices, advisories);
    for key in &config.keys {
        let locator = KeyLocator {
            label: key.label.clone(),
            id: key.id.clone(),
            algorithm: key.algorithm,
        };
        keyring.add(&key.name, locator, &key.devices);
    }
    Ok(keyring)
}

#[cfg(test)]
#[cfg(feature = "mock")]
mod tests {
    use std::time::Duration;

    use hsm_device::mock::{Mock, Settings};
    use hsm_device::{Algorithm, Signature};
    use hsm_proto::v1::Reason;
    use tokio::time::Instant;

    use super::*;
    use crate::advisories::{Action, Rule};
    use crate::keyring::Error;
    use crate::line::Refusal;

    /// An emulator with this firmware, and a key of each algorithm in it.
    fn keyring(firmware: (u8, u8, u8), action: Action, accept: &[&str]) -> (Mock, Keyring) {
        let settings = Settings {
            firmware,
            ..Settings::default()
        };
        let mock = Mock::start(settings).unwrap();
        let device = start_one("mock", mock.opener(), WorkerOptions::default()).unwrap();
        let accept = accept.iter().map(|id| (*id).to_owned()).collect();
        let advisories = Advisories::built_in(Rule { action, accept }).unwrap();
        let mut keyring = Keyring::new(vec![device], advisories);
        for algorithm in [Algorithm::Ed25519, Algorithm::Secp256k1] {
            mock.ensure_key(algorithm.name(), algorithm).unwrap();
            let locator = KeyLocator {
                label: Some(algorithm.name().to_owned()),
                id: None,
                algorithm,
            };
            keyring.add(algorithm.name(), locator, &["mock".to_owned()]);
        }
        (mock, keyring)
    }

    async fn confirm_and_sign(keyring: &Keyring, key: &str) -> Result<Signature, Error> {
        let deadline = Instant::now() + Duration::from_secs(10);
        let key = keyring.get(key).unwrap();
        let pinned = key.read_public_key(deadline).await?;
        key.confirm(&pinned, deadline, |_, _| {}).await?;
        key.sign(&pinned, b"message", deadline, |_, _| {}).await
    }

    #[tokio::test]
    async fn an_ecdsa_key_in_firmware_under_eucleak_does_not_sign_where_the_configuration_refuses()
    {
        for (firmware, action, accept, refused) in [
            ((2, 3, 2), Action::Refuse, &[][..], true),
            ((2, 3, 2), Action::Refuse, &["YSA-2024-03"][..], false),
            ((2, 3, 2), Action::Warn, &[][..], false),
            ((2, 4, 0), Action::Refuse, &[][..], false),
        ] {
            let (_mock, keyring) = keyring(firmware, action, accept);
            let signed = confirm_and_sign(&keyring, "secp256k1").await;
            match (refused, signed) {
                (true, Err(error @ Error::Advisory { .. })) => {
                    let refusal = Refusal::from(error);
                    assert_eq!(refusal.reason, Reason::DeviceUnderAdvisory);
                    let advisory = [("advisory", "YSA-2024-03".to_owned())];
                    assert_eq!(refusal.metadata, advisory);
                    let code = refusal.status().code();
                    assert_eq!(code, tonic::Code::FailedPrecondition);
                }
                (false, Ok(_)) => {}
                (_, other) => panic!("{firmware:?} {action:?} {accept:?}: {other:?}"),
            }
            confirm_and_sign(&keyring, "ed25519").await.unwrap();
        }
    }
}
