//! The device itself: pure rules, no input or output but randomness from the operating system.
//!
//! [`Device::handle`] takes one frame and gives one frame. Any bytes may come; what comes back is an
//! answer or an error of the device.

mod aes_ccm;
mod algorithm;
mod algorithm_toggle;
mod audit;
mod capability;
mod certificate;
mod commands;
mod content;
mod dispatch;
mod error;
mod firmware;
mod frame;
mod hash;
mod identity;
mod key_agreement;
mod object;
mod private_key;
mod scp03;
mod session;
mod state;
mod store;
mod unsealed;
mod wrapped_object;

use std::time::Duration;

use p256::SecretKey;
use sha2::Sha256;
use zeroize::Zeroizing;

use algorithm_toggle::AlgorithmToggle;
use audit::Audit;
use capability::{Capabilities, Domains};
use content::Content;
use identity::Identity;
use object::{LABEL_LENGTH, ObjectType, Origin, Properties};
use session::Sessions;
use store::Store;

pub use audit::LOG_LIMIT;
pub use commands::asymmetric::EDDSA_MESSAGE_LIMIT;
pub use dispatch::Answer;
pub use error::ErrorCode;
pub use firmware::Firmware;
pub use identity::{EMULATOR_MARK, EMULATOR_SERIALS};
pub use session::{SESSION_COUNT, SESSION_IDLE_LIMIT};
pub use state::State;
pub use store::{OBJECT_LIMIT, PAGE_COUNT, PAGE_LENGTH};

/// Identifier of the authentication key that a new device has.
pub const DEFAULT_KEY_ID: u16 = 1;
/// Password of the authentication key that a new device has.
pub const DEFAULT_PASSWORD: &[u8] = b"password";

/// Label of that key on real devices.
const DEFAULT_KEY_LABEL: &[u8] = b"DEFAULT AUTHKEY CHANGE THIS ASAP";

/// How the vendor's tools make an authentication key from a password.
const PASSWORD_SALT: &[u8] = b"Yubico";
const PASSWORD_ROUNDS: u32 = 10_000;

/// A YubiHSM2, switched on.
pub struct Device {
    identity: Identity,
    /// The device's own key for asymmetric sessions; a reset makes a new one.
    agreement_key: SecretKey,
    firmware: Firmware,
    store: Store,
    audit: Audit,
    algorithms: AlgorithmToggle,
    sessions: Sessions,
    booted: Duration,
    misbehaviour: Option<Misbehaviour>,
}

/// What a device that is not in order does to the commands of its sessions.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Misbehaviour {
    /// Answers with this error, without running the command.
    Refuse(ErrorCode),
    /// Gives signatures that do not verify.
    SpoilSignatures,
}

impl Device {
    /// Makes a new device, as it leaves the factory, and switches it on.
    ///
    /// # Errors
    /// Where the operating system gives no randomness, or `serial` is not in [`EMULATOR_SERIALS`].
    pub fn manufacture(
        serial: u32,
        firmware: Firmware,
        now: Duration,
    ) -> Result<Self, ManufactureError> {
        if !EMULATOR_SERIALS.contains(&serial) {
            return Err(ManufactureError::Serial(serial));
        }
        let identity =
            Identity::manufacture(serial, firmware).map_err(|_| ManufactureError::Randomness)?;
        let mut device = Self {
            identity,
            agreement_key: key_agreement::new_key().map_err(|_| ManufactureError::Randomness)?,
            firmware,
            store: Store::default(),
            audit: Audit::new(firmware),
            algorithms: AlgorithmToggle::default(),
            sessions: Sessions::default(),
            booted: now,
            misbehaviour: None,
        };
        device.reset(now);
        Ok(device)
    }

    /// Switches a device on that has been in use; `None` if no device could be in this state.
    pub fn restore(state: State, firmware: Firmware, now: Duration) -> Option<Self> {
        let (identity, agreement_key, store, audit, algorithms) = state.restore()?;
        let mut device = Self {
            identity,
            agreement_key,
            firmware,
            store,
            audit,
            algorithms,
            sessions: Sessions::default(),
            booted: now,
            misbehaviour: None,
        };
        device.power_cycle(now);
        Some(device)
    }

    /// Serial number.
    pub fn serial(&self) -> u32 {
        self.identity.serial
    }

    /// What outlives a power cycle.
    pub fn state(&self) -> State {
        State::capture(
            &self.identity,
            &self.agreement_key,
            &self.store,
            &self.audit,
            &self.algorithms,
        )
    }

    /// Differs from an earlier value if [`Device::state`] does.
    pub fn revision(&self) -> u64 {
        self.store.revision() + self.audit.revision() + self.algorithms.revision()
    }

    /// Most bytes in a frame, either way.
    pub fn buffer_length(&self) -> usize {
        if self.firmware >= firmware::LARGE_BUFFER {
            3136
        } else {
            2048
        }
    }

    /// Switches the device off and on: sessions are lost, objects are not.
    pub fn power_cycle(&mut self, now: Duration) {
        self.sessions.close_all();
        self.booted = now;
        self.audit.boot();
    }

    /// Drops every session; nothing else changes.
    pub fn lose_sessions(&mut self) {
        self.sessions.close_all();
    }

    /// Sets or clears what is out of order.
    pub fn misbehave(&mut self, misbehaviour: Option<Misbehaviour>) {
        self.misbehaviour = misbehaviour;
    }

    /// Back to how the device left the factory, and on again.
    fn reset(&mut self, now: Duration) {
        self.store.clear();
        self.audit.reset(self.firmware);
        self.algorithms.reset();
        if let Ok(key) = key_agreement::new_key() {
            self.agreement_key = key;
        }
        let mut label = [0; LABEL_LENGTH];
        for (to, from) in label.iter_mut().zip(DEFAULT_KEY_LABEL) {
            *to = *from;
        }
        let properties = Properties {
            id: DEFAULT_KEY_ID,
            label,
            domains: Domains::ALL,
            capabilities: Capabilities::ALL,
            algorithm: algorithm::Algorithm::Aes128Authentication,
            delegated: Capabilities::ALL,
        };
        let mut keys = Zeroizing::new([0; 2 * scp03::KEY_LENGTH]);
        let rounds = PASSWORD_ROUNDS;
        pbkdf2::pbkdf2_hmac::<Sha256>(DEFAULT_PASSWORD, PASSWORD_SALT, rounds, keys.as_mut_slice());
        let kind = ObjectType::AuthenticationKey;
        let inserted = Content::import(kind, properties.algorithm, keys.as_slice())
            .and_then(|content| self.store.insert(properties, Origin::IMPORTED, content));
        debug_assert!(
            inserted.is_ok(),
            "an empty store takes a key of the right length"
        );
        self.power_cycle(now);
    }
}

/// A new device could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ManufactureError {
    /// The serial number could be a real device's.
    #[error(
        "serial number {0} could be a real device's: an emulator's lies between {first} and {last}",
        first = EMULATOR_SERIALS.start(),
        last = EMULATOR_SERIALS.end()
    )]
    Serial(u32),
    /// A key or the factory certificate could not be made.
    #[error("the operating system gives no randomness")]
    Randomness,
}

/// Random bytes from the operating system.
fn random<const N: usize>() -> Result<[u8; N], ErrorCode> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|_| ErrorCode::CommandUnexecuted)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests;
