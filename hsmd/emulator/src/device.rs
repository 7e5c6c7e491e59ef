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
mod error;
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
use audit::{Audit, Event, NO_KEY};
use capability::{Authority, Capabilities, Domains};
use commands::Command;
use content::Content;
use frame::{Fields, Frame};
use identity::Identity;
use object::{LABEL_LENGTH, ObjectType, Origin, Properties};
use session::Sessions;
use store::Store;

pub use audit::LOG_LIMIT;
pub use commands::asymmetric::EDDSA_MESSAGE_LIMIT;
pub use error::ErrorCode;
pub use identity::{EMULATOR_MARK, EMULATOR_SERIALS};
pub use session::{SESSION_COUNT, SESSION_IDLE_LIMIT};
pub use state::State;
pub use store::{OBJECT_LIMIT, PAGE_COUNT, PAGE_LENGTH};

/// Version of the firmware: major, minor, patch.
pub type Firmware = (u8, u8, u8);

/// Identifier of the authentication key that a new device has.
pub const DEFAULT_KEY_ID: u16 = 1;
/// Password of the authentication key that a new device has.
pub const DEFAULT_PASSWORD: &[u8] = b"password";

/// Label of that key on real devices.
const DEFAULT_KEY_LABEL: &[u8] = b"DEFAULT AUTHKEY CHANGE THIS ASAP";

/// How the vendor's tools make an authentication key from a password.
const PASSWORD_SALT: &[u8] = b"Yubico";
const PASSWORD_ROUNDS: u32 = 10_000;

/// First firmware with the larger message buffer.
const LARGE_BUFFER_SINCE: Firmware = (2, 4, 0);

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

/// An answer, and which work was done for it.
#[derive(Debug)]
pub struct Answer {
    /// The frame to send back.
    pub frame: Vec<u8>,
    /// Code of the innermost command that was found in the frame.
    pub command: u8,
    /// Length of that command's data in bytes.
    pub length: usize,
}

/// A frame's data and, where it held a session message, the command inside.
struct Outcome {
    result: Result<Vec<u8>, ErrorCode>,
    inner: Option<(u8, usize)>,
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
            audit: Audit::new(),
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
        if self.firmware >= LARGE_BUFFER_SINCE {
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

    /// Runs one command. `now` is a time that does not run backwards, from any beginning.
    pub fn handle(&mut self, now: Duration, bytes: &[u8]) -> Answer {
        self.sessions.expire(now);
        let frame = Frame::parse(bytes).and_then(|frame| {
            if bytes.len() < self.buffer_length() {
                Ok(frame)
            } else {
                Err(ErrorCode::WrongLength)
            }
        });
        let frame = match frame {
            Ok(frame) => frame,
            Err(code) => {
                return Answer {
                    frame: frame::answer(0, &Err(code)),
                    command: 0,
                    length: 0,
                };
            }
        };
        let outcome = self.outer(now, frame);
        self.record(now, frame, NO_KEY, &outcome.result);
        let (command, length) = outcome.inner.unwrap_or((frame.command, frame.data.len()));
        Answer {
            frame: frame::answer(frame.command, &outcome.result),
            command,
            length,
        }
    }

    /// A command outside of any session.
    fn outer(&mut self, now: Duration, frame: Frame<'_>) -> Outcome {
        let fields = Fields::new(frame.data);
        let result = match Command::from_byte(frame.command) {
            Some(Command::SessionMessage) => return self.session_message(now, fields),
            Some(Command::CreateSession) => commands::session::create(self, now, fields),
            Some(Command::AuthenticateSession) => {
                commands::session::authenticate(self, now, fields)
            }
            Some(Command::GetDevicePublicKey) => commands::session::device_public_key(self, fields),
            Some(Command::DeviceInfo) => commands::general::device_info(self, fields),
            Some(Command::Echo) => Ok(frame.data.to_vec()),
            _ => Err(ErrorCode::InvalidCommand),
        };
        Outcome {
            result,
            inner: None,
        }
    }

    fn session_message(&mut self, now: Duration, fields: Fields<'_>) -> Outcome {
        let (session, authority, plaintext) = match self.open(now, fields) {
            Ok(opened) => opened,
            Err(code) => {
                return Outcome {
                    result: Err(code),
                    inner: None,
                };
            }
        };
        let inner = Frame::parse(&plaintext);
        let result = inner.and_then(|frame| self.inner(now, &authority, frame));
        let command = inner.map_or(0, |frame| frame.command);
        let answer = frame::answer(command, &result);

        let outer_code = frame::answer_code(Command::SessionMessage as u8);
        let sealed = self
            .sessions
            .touch(now, session, true)
            .map(|open| open.channel.seal(outer_code, session, &answer));
        if result.is_ok() {
            match Command::from_byte(command) {
                Some(Command::CloseSession) => self.sessions.close(session),
                Some(Command::ResetDevice) => self.reset(now),
                _ => {}
            }
        }
        let inner = inner.ok().map(|frame| (frame.command, frame.data.len()));
        Outcome {
            result: sealed,
            inner,
        }
    }

    /// Verifies and decrypts a session message. A message that fails ends its session.
    fn open(
        &mut self,
        now: Duration,
        mut fields: Fields<'_>,
    ) -> Result<(u8, Authority, Vec<u8>), ErrorCode> {
        let id = fields.u8()?;
        let (body, mac) = fields
            .rest()
            .split_last_chunk::<{ scp03::MAC_LENGTH }>()
            .ok_or(ErrorCode::WrongLength)?;
        let session = self.sessions.touch(now, id, true)?;
        let verified = session
            .channel
            .verify(Command::SessionMessage as u8, id, body, mac);
        let plaintext = if verified {
            session.channel.decrypt(body)
        } else {
            None
        };
        let authority = session.authority;
        if let Some(plaintext) = plaintext {
            Ok((id, authority, plaintext))
        } else {
            self.sessions.close(id);
            Err(ErrorCode::AuthenticationFailed)
        }
    }

    /// A command inside an authenticated session.
    fn inner(
        &mut self,
        now: Duration,
        authority: &Authority,
        frame: Frame<'_>,
    ) -> Result<Vec<u8>, ErrorCode> {
        if let Some(Misbehaviour::Refuse(code)) = self.misbehaviour {
            return Err(code);
        }
        let command = Command::from_byte(frame.command).ok_or(ErrorCode::InvalidCommand)?;
        if self.audit.refuses(frame.command) {
            return Err(ErrorCode::LogFull);
        }
        let mut result = commands::execute(self, authority, command, frame.data);
        if result.as_ref().is_ok_and(|data| !self.can_send(data.len())) {
            result = Err(ErrorCode::WrongLength);
        }
        if command.signs() && self.misbehaviour == Some(Misbehaviour::SpoilSignatures) {
            // The last byte belongs to S, whatever the algorithm.
            if let Some(last) = result
                .as_mut()
                .ok()
                .and_then(|signature| signature.last_mut())
            {
                *last ^= 1;
            }
        }
        self.record(now, frame, authority.key_id, &result);
        result
    }

    fn can_send(&self, length: usize) -> bool {
        let sealed = 1 + scp03::padded_length(frame::HEADER_LENGTH + length) + scp03::MAC_LENGTH;
        frame::HEADER_LENGTH + sealed <= self.buffer_length()
    }

    fn record(
        &mut self,
        now: Duration,
        frame: Frame<'_>,
        session_key: u16,
        result: &Result<Vec<u8>, ErrorCode>,
    ) {
        let (target, second) = Command::from_byte(frame.command)
            .map_or((NO_KEY, NO_KEY), |command| {
                command.logged_keys(frame.data, result)
            });
        self.audit.record(Event {
            command: frame.command,
            length: u16::try_from(frame.data.len()).unwrap_or(u16::MAX),
            session_key,
            target_key: target,
            second_key: second,
            result: match result {
                Ok(_) => frame::answer_code(frame.command),
                Err(code) => code.byte(),
            },
            tick: u32::try_from(now.saturating_sub(self.booted).as_millis()).unwrap_or(u32::MAX),
        });
    }

    /// Back to how the device left the factory, and on again.
    fn reset(&mut self, now: Duration) {
        self.store.clear();
        self.audit.reset();
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
