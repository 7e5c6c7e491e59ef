//! The keys of the configuration and the devices that hold them.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use hsm_device::{Identity, KeyLocator, PublicKey, Signature, State, VerifyingKey, Worker};
use tokio::time::Instant;

use crate::advisories::Advisories;
use crate::audit;

/// All keys of the configuration, by name.
#[derive(Default)]
pub struct Keyring {
    keys: HashMap<String, Key>,
    devices: Vec<Device>,
    advisories: Arc<Advisories>,
}

/// A running device and its name in the configuration.
#[derive(Clone)]
pub struct Device {
    /// The name.
    pub name: Arc<str>,
    /// Its thread.
    pub worker: Worker,
    /// Whether it has made a signature that does not verify. It is asked last then, until a restart.
    pub suspect: Arc<AtomicBool>,
    /// Its own audit log.
    pub audit: Arc<audit::Shared>,
}

/// One key and where it lives.
pub struct Key {
    name: String,
    locator: Arc<KeyLocator>,
    devices: Vec<Device>,
    advisories: Arc<Advisories>,
    /// Whether a device has shown the pinned public key since the start.
    confirmed: AtomicBool,
    /// The pinned public key, once it has verified; none where it is no point of its curve. Boxed, since
    /// most of many keys may never be asked to sign.
    verifying: OnceLock<Option<Box<VerifyingKey>>>,
}

/// Why no device made a signature that may leave.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No device answered as it should.
    #[error("device {device}: {error}")]
    Device {
        /// The device's name.
        device: String,
        /// What it said.
        error: hsm_device::Error,
    },
    /// The configuration names no device for the key.
    #[error("no device holds key {key}: name one in its `devices`")]
    Nowhere {
        /// The key's name.
        key: String,
    },
    /// A device shows another public key than the pinned one.
    #[error(
        "device {device} shows public key {shown} for key {key}, and {pinned} is pinned: \
         the device or its key was replaced"
    )]
    Mismatch {
        /// The key's name.
        key: String,
        /// The device's name.
        device: String,
        /// What `hsmd key init` pinned.
        pinned: PublicKey,
        /// What the device shows.
        shown: PublicKey,
    },
    /// An advisory covers every device that could sign, and the configuration refuses that.
    #[error(
        "device {device} is under advisory {advisory} ({url}) for key {key}, and advisories.action is \
         \"refuse\": {remedy}; or name the advisory in advisories.accept"
    )]
    Advisory {
        /// The key's name.
        key: String,
        /// The device's name.
        device: String,
        /// The advisory's id.
        advisory: String,
        /// The vendor's page.
        url: String,
        /// What to do.
        remedy: String,
    },
    /// A signature does not verify, though the device shows the right public key. It goes nowhere: a
    /// faulty Ed25519 signature can give the private key away.
    #[error(
        "device {device} made a signature for key {key} that does not verify: take the device out \
         of service"
    )]
    BadSignature {
        /// The key's name.
        key: String,
        /// The device's name.
        device: String,
    },
}

impl Keyring {
    /// A keyring over running device workers.
    #[must_use]
    pub fn new(devices: Vec<Device>, advisories: Advisories) -> Self {
        Self {
            keys: HashMap::new(),
            devices,
            advisories: Arc::new(advisories),
        }
    }

    /// Adds a key that lives in the named devices; names that no device has are passed over.
    pub fn add(&mut self, name: &str, locator: KeyLocator, devices: &[String]) {
        let key = self.apart(name, locator, devices);
        self.keys.insert(name.to_owned(), key);
    }

    /// A key in these devices that is not of the keyring: no caller can have it sign.
    #[must_use]
    pub fn apart(&self, name: &str, locator: KeyLocator, devices: &[String]) -> Key {
        let holders = devices
            .iter()
            .filter_map(|name| self.devices.iter().find(|device| *device.name == **name))
            .cloned()
            .collect();
        Key {
            name: name.to_owned(),
            locator: Arc::new(locator),
            devices: holders,
            advisories: self.advisories.clone(),
            confirmed: AtomicBool::new(false),
            verifying: OnceLock::new(),
        }
    }

    /// The key of that name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Key> {
        self.keys.get(name)
    }

    /// All keys, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &Key> {
        self.keys.values()
    }

    /// What is known against devices.
    #[must_use]
    pub fn advisories(&self) -> &Advisories {
        &self.advisories
    }

    /// All devices.
    #[must_use]
    pub fn devices(&self) -> &[Device] {
        &self.devices
    }
}

impl Key {
    /// The key's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How devices find it.
    #[must_use]
    pub fn locator(&self) -> &KeyLocator {
        &self.locator
    }

    /// The names of the devices that hold it.
    #[must_use]
    pub fn device_names(&self) -> Vec<String> {
        let names = self.devices.iter().map(|device| device.name.to_string());
        names.collect()
    }

    /// The devices that hold it.
    #[must_use]
    pub fn devices(&self) -> &[Device] {
        &self.devices
    }

    /// The longest message, in bytes, that every device holding the key can sign; `None` without a limit.
    #[must_use]
    pub fn message_limit(&self) -> Option<usize> {
        self.devices
            .iter()
            .filter_map(|device| device.worker.message_limit(self.locator.algorithm))
            .min()
    }

    /// Reads the public key from every device that is to hold it.
    ///
    /// # Errors
    ///
    /// [`Error::Device`] where one of them does not answer or has no such key, [`Error::Mismatch`] where
    /// they show different ones.
    pub async fn read_public_key(&self, deadline: Instant) -> Result<PublicKey, Error> {
        let mut first = None;
        for device in &self.devices {
            let shown = self.shown_by(device, deadline).await?;
            match first {
                None => first = Some(shown),
                Some(pinned) if pinned == shown => {}
                Some(pinned) => return Err(self.mismatch(device, pinned, shown)),
            }
        }
        first.ok_or_else(|| self.nowhere())
    }

    /// Makes sure, once after each start, that a device shows the pinned public key and may be used. `failed`
    /// hears of every device that does not: its name, and the kind of its error.
    ///
    /// # Errors
    ///
    /// [`Error::Mismatch`] where it shows another one, [`Error::Advisory`] where none may be used, [`Error::Device`] where none answers.
    pub async fn confirm(
        &self,
        pinned: &PublicKey,
        deadline: Instant,
        failed: impl Fn(&str, &'static str),
    ) -> Result<(), Error> {
        if self.confirmed.load(Ordering::Acquire) {
            return Ok(());
        }
        let mut failure = None;
        for device in &self.devices {
            match self.shown_by(device, deadline).await {
                Ok(shown) if shown == *pinned => match self.permitted(device) {
                    Ok(()) => {
                        self.confirmed.store(true, Ordering::Release);
                        return Ok(());
                    }
                    Err(error) => failure = failure.or(Some(error)),
                },
                Ok(shown) => {
                    failed(&device.name, "mismatch");
                    return Err(self.mismatch(device, *pinned, shown));
                }
                Err(error) => {
                    if let Error::Device { error, .. } = &error {
                        failed(&device.name, error.name());
                    }
                    failure = failure.or(Some(error));
                }
            }
        }
        failure.map_or(Ok(()), Err)
    }

    /// Signs on the first device that can, and verifies the signature against the pinned public key.
    /// `failed` hears of every device that did not: its name, and the kind of its error.
    ///
    /// # Errors
    ///
    /// See [`Error`]. A device that fails in a way that another one may not is passed over.
    pub(crate) async fn sign(
        &self,
        pinned: &PublicKey,
        message: &[u8],
        deadline: Instant,
        failed: impl Fn(&str, &'static str),
    ) -> Result<Signature, Error> {
        let mut failure = None;
        for device in self.by_readiness() {
            if let Err(error) = self.permitted(device) {
                failure = failure.or(Some(error));
                continue;
            }
            let signed = self.sign_on(device, message, deadline).await;
            match signed {
                Ok(signature) if self.verifies(pinned, message, &signature) => {
                    return Ok(signature);
                }
                Ok(_) => {
                    failed(&device.name, "bad_signature");
                    device.suspect.store(true, Ordering::Relaxed);
                    let error = self.explain_bad_signature(device, pinned, deadline).await;
                    tracing::error!(%error, "a signature is withheld");
                    failure = Some(error);
                }
                Err(error) => {
                    failed(&device.name, error.name());
                    let device = device.name.to_string();
                    tracing::warn!(device, key = self.name, %error, "a device did not sign");
                    failure = Some(Error::Device { device, error });
                }
            }
        }
        Err(failure.unwrap_or_else(|| self.nowhere()))
    }

    /// A device whose audit log is full signs once hsmd has read it and freed its entries.
    async fn sign_on(
        &self,
        device: &Device,
        message: &[u8],
        deadline: Instant,
    ) -> Result<Signature, hsm_device::Error> {
        loop {
            device.audit.wait.called();
            let locator = self.locator.clone();
            let signed = device.worker.sign(locator, message, deadline).await;
            match signed {
                Err(hsm_device::Error::AuditLogFull { .. })
                    if device.audit.wait.until_freed(deadline).await => {}
                signed => return signed,
            }
        }
    }

    /// Who the devices that hold it are, where they were reached.
    #[must_use]
    pub fn identities(&self) -> Vec<(String, Option<Identity>)> {
        let identities = self.devices.iter().map(|device| {
            let info = device.worker.status().info;
            (device.name.to_string(), info.map(|info| info.identity()))
        });
        identities.collect()
    }

    /// Whether no advisory that the configuration refuses covers this key in the device. What was never reached
    /// cannot be judged.
    fn permitted(&self, device: &Device) -> Result<(), Error> {
        if !self.advisories.refuse() {
            return Ok(());
        }
        let name = device.name.to_string();
        let Some(info) = device.worker.status().info else {
            let error = hsm_device::Error::Unreachable {
                device: name.clone(),
                cause: "it was not reached since the start".to_owned(),
            };
            return Err(Error::Device {
                device: name,
                error,
            });
        };
        match self.advisories.refusing(&info, self.locator.algorithm) {
            None => Ok(()),
            Some(advisory) => Err(Error::Advisory {
                key: self.name.clone(),
                device: name,
                advisory: advisory.id.clone(),
                url: advisory.url.clone(),
                remedy: advisory.remedy.clone(),
            }),
        }
    }

    /// A name is pinned to one public key for good, so its point is computed once; no other key passes.
    fn verifies(&self, pinned: &PublicKey, message: &[u8], signature: &Signature) -> bool {
        let parse = || pinned.verifying_key().ok().map(Box::new);
        let key = self.verifying.get_or_init(parse).as_ref();
        key.filter(|key| key.public_key() == *pinned)
            .is_some_and(|key| key.verify(message, signature).is_ok())
    }

    /// Ready devices first, otherwise as configured.
    fn by_readiness(&self) -> Vec<&Device> {
        let mut devices: Vec<&Device> = self.devices.iter().collect();
        if devices.len() > 1 {
            devices.sort_by_key(|device| {
                let suspect = device.suspect.load(Ordering::Relaxed);
                (suspect, device.worker.status().state != State::Ready)
            });
        }
        devices
    }

    async fn explain_bad_signature(
        &self,
        device: &Device,
        pinned: &PublicKey,
        deadline: Instant,
    ) -> Error {
        self.confirmed.store(false, Ordering::Release);
        match self.shown_by(device, deadline).await {
            Ok(shown) if shown != *pinned => self.mismatch(device, *pinned, shown),
            _ => Error::BadSignature {
                key: self.name.clone(),
                device: device.name.to_string(),
            },
        }
    }

    /// Reads the public key from one of the devices.
    ///
    /// # Errors
    ///
    /// [`Error::Device`] where it does not answer or has no such key. A device that was replaced may need a moment to
    /// be reached again.
    pub async fn public_key_in(
        &self,
        device: &Device,
        deadline: Instant,
    ) -> Result<PublicKey, Error> {
        loop {
            match self.shown_by(device, deadline).await {
                Err(Error::Device {
                    error: hsm_device::Error::Replaced { .. },
                    ..
                }) if Instant::now() < deadline => {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                shown => return shown,
            }
        }
    }

    async fn shown_by(&self, device: &Device, deadline: Instant) -> Result<PublicKey, Error> {
        let shown = device
            .worker
            .public_key(self.locator.clone(), deadline)
            .await;
        shown.map_err(|error| Error::Device {
            device: device.name.to_string(),
            error,
        })
    }

    fn nowhere(&self) -> Error {
        Error::Nowhere {
            key: self.name.clone(),
        }
    }

    fn mismatch(&self, device: &Device, pinned: PublicKey, shown: PublicKey) -> Error {
        Error::Mismatch {
            key: self.name.clone(),
            device: device.name.to_string(),
            pinned,
            shown,
        }
    }
}

#[cfg(test)]
mod tests {
    use hsm_device::Algorithm;

    use super::*;

    #[test]
    fn a_signature_verifies_against_the_pinned_key_only() {
        // RFC 8032 section 7.1, tests 1 and 2.
        let key = |hex: &str| {
            let bytes = hex::decode(hex).unwrap();
            PublicKey::from_parts(Algorithm::Ed25519, &bytes).unwrap()
        };
        let pinned = key("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a");
        let other = key("3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c");
        let signature = hex::decode(
            "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
        );
        let signature = Signature(signature.unwrap().try_into().unwrap());
        let locator = KeyLocator {
            label: None,
            id: None,
            algorithm: Algorithm::Ed25519,
        };
        let mut keyring = Keyring::default();
        keyring.add("key", locator, &[]);
        let key = keyring.get("key").unwrap();
        for _ in 0..2 {
            assert!(key.verifies(&pinned, b"", &signature));
            assert!(!key.verifies(&pinned, b"another", &signature));
            assert!(!key.verifies(&other, b"", &signature));
        }
    }
}
