//! From the configuration to running devices and the keys in them.

use std::sync::Arc;

use hsm_device::{KeyLocator, Opener, Worker, WorkerOptions};

use crate::advisories::{self, Advisories};
use crate::config::Config;
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
    })
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
