//! The audit log and the options that steer it.
//!
//! Source: the vendor's user guide, "Logs", "Options" and GET LOG ENTRIES.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::commands::Command;
use super::error::ErrorCode;
use super::firmware::{Firmware, SILENT_LOG};

/// Most entries in the log.
pub const LOG_LIMIT: usize = 62;

/// Length of an entry's digest in bytes.
const DIGEST_LENGTH: usize = 16;

/// Stands for "no key" in an entry.
pub(crate) const NO_KEY: u16 = 0xffff;

/// Every command code that the log can be told to record, in the order in which the device lists them.
/// More of them than there are commands here: the vendor's tools set all.
pub(crate) const LOGGED_COMMANDS: [u8; 65] = [
    0x01, 0x03, 0x04, 0x05, 0x06, 0x07, 0x08, 0x09, 0x40, 0x41, 0x42, 0x43, 0x44, 0x45, 0x46, 0x47,
    0x55, 0x56, 0x48, 0x49, 0x57, 0x4a, 0x4b, 0x4c, 0x4d, 0x67, 0x4e, 0x4f, 0x50, 0x51, 0x52, 0x53,
    0x54, 0x58, 0x59, 0x5a, 0x5b, 0x5c, 0x5d, 0x5e, 0x5f, 0x60, 0x61, 0x62, 0x63, 0x64, 0x65, 0x66,
    0x68, 0x69, 0x6a, 0x6b, 0x6c, 0x0a, 0x6d, 0x6e, 0x6f, 0x70, 0x71, 0x72, 0x73, 0x74, 0x75, 0x76,
    0x77,
];

/// What firmware that records commands by itself leaves out: ECHO, SESSION MESSAGE, DEVICE INFO and GET LOG
/// ENTRIES.
///
/// Source: PyPI `yubihsm`, tests/device/test_logs.py, which sets newer firmware to the same.
const NOT_LOGGED_AT_FIRST: [u8; 4] = [0x01, 0x05, 0x06, 0x4d];

/// Value of an option.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub(crate) enum Switch {
    #[default]
    Off = 0x00,
    On = 0x01,
    /// On until the next reset.
    Fixed = 0x02,
}

impl Switch {
    pub(crate) fn from_byte(byte: u8) -> Result<Self, ErrorCode> {
        [Self::Off, Self::On, Self::Fixed]
            .into_iter()
            .find(|known| *known as u8 == byte)
            .ok_or(ErrorCode::InvalidData)
    }

    fn is_on(self) -> bool {
        self != Self::Off
    }
}

/// What is recorded of one command.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Event {
    pub(crate) command: u8,
    pub(crate) length: u16,
    pub(crate) session_key: u16,
    pub(crate) target_key: u16,
    pub(crate) second_key: u16,
    /// Command code of the answer, or the error code.
    pub(crate) result: u8,
    /// Milliseconds since the device was switched on.
    pub(crate) tick: u32,
}

impl Event {
    /// First entry after a reset.
    const INITIALISED: Self = Self {
        command: 0xff,
        length: 0xffff,
        session_key: NO_KEY,
        target_key: NO_KEY,
        second_key: NO_KEY,
        result: 0xff,
        tick: u32::MAX,
    };

    /// The device was switched on.
    const BOOTED: Self = Self {
        command: 0x00,
        length: 0,
        session_key: NO_KEY,
        target_key: 0,
        second_key: 0,
        result: 0,
        tick: 0,
    };
}

#[derive(Clone, Serialize, Deserialize)]
struct Entry {
    number: u16,
    event: Event,
    digest: [u8; DIGEST_LENGTH],
}

impl Entry {
    fn bytes(&self) -> Vec<u8> {
        let e = &self.event;
        [
            &self.number.to_be_bytes()[..],
            &[e.command],
            &e.length.to_be_bytes(),
            &e.session_key.to_be_bytes(),
            &e.target_key.to_be_bytes(),
            &e.second_key.to_be_bytes(),
            &[e.result],
            &e.tick.to_be_bytes(),
        ]
        .concat()
    }
}

/// The log and its options. All of it outlives a power cycle.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Audit {
    force: Switch,
    commands: BTreeMap<u8, Switch>,
    entries: VecDeque<Entry>,
    last_number: u16,
    last_digest: [u8; DIGEST_LENGTH],
    unlogged_boots: u16,
    unlogged_authentications: u16,
    #[serde(skip)]
    revision: u64,
}

impl Audit {
    /// As after a reset: with newer firmware nothing is recorded but that the device was initialised.
    pub(crate) fn new(firmware: Firmware) -> Self {
        let by_itself = |code: &u8| {
            firmware < SILENT_LOG
                && !NOT_LOGGED_AT_FIRST.contains(code)
                && !Command::is_newer_than(firmware, *code)
        };
        let recorded = LOGGED_COMMANDS.into_iter().filter(by_itself);
        let mut audit = Self {
            force: Switch::Off,
            commands: recorded.map(|code| (code, Switch::On)).collect(),
            entries: VecDeque::new(),
            last_number: 0,
            last_digest: [0; DIGEST_LENGTH],
            unlogged_boots: 0,
            unlogged_authentications: 0,
            revision: 0,
        };
        audit.append(Event::INITIALISED);
        audit
    }

    /// Back to [`Audit::new`].
    pub(crate) fn reset(&mut self, firmware: Firmware) {
        *self = Self {
            revision: self.revision + 1,
            ..Self::new(firmware)
        };
    }

    /// Records that the device was switched on.
    pub(crate) fn boot(&mut self) {
        self.revision += 1;
        if self.must_not_overwrite() {
            self.unlogged_boots = self.unlogged_boots.saturating_add(1);
        } else {
            self.append(Event::BOOTED);
        }
    }

    /// Whether `command` must be refused because it would have to be recorded and cannot be.
    pub(crate) fn refuses(&self, command: u8) -> bool {
        // The log could not be emptied otherwise.
        let always = [
            Command::CreateSession as u8,
            Command::AuthenticateSession as u8,
            Command::GetLogEntries as u8,
            Command::SetLogIndex as u8,
        ];
        self.must_not_overwrite() && self.records(command) && !always.contains(&command)
    }

    /// Records a command, if the options say so and there is room.
    pub(crate) fn record(&mut self, event: Event) {
        if !self.records(event.command) {
            return;
        }
        self.revision += 1;
        let opens = [
            Command::CreateSession as u8,
            Command::AuthenticateSession as u8,
        ];
        if !self.must_not_overwrite() {
            self.append(event);
        } else if opens.contains(&event.command) {
            self.unlogged_authentications = self.unlogged_authentications.saturating_add(1);
        }
    }

    /// The answer to GET LOG ENTRIES.
    pub(crate) fn read(&self) -> Vec<u8> {
        let mut answer = Vec::with_capacity(5 + self.entries.len() * 32);
        answer.extend(self.unlogged_boots.to_be_bytes());
        answer.extend(self.unlogged_authentications.to_be_bytes());
        answer.push(self.used());
        for entry in &self.entries {
            answer.extend(entry.bytes());
            answer.extend(entry.digest);
        }
        answer
    }

    /// Frees every entry up to and with `number`.
    pub(crate) fn forget(&mut self, number: u16) -> Result<(), ErrorCode> {
        let position = self.entries.iter().position(|entry| entry.number == number);
        let position = position.ok_or(ErrorCode::InvalidData)?;
        self.entries.drain(..=position);
        self.unlogged_boots = 0;
        self.unlogged_authentications = 0;
        self.revision += 1;
        Ok(())
    }

    /// Whether a device can have written this.
    pub(crate) fn is_possible(&self) -> bool {
        self.entries.len() <= LOG_LIMIT
    }

    /// How many entries there are.
    pub(crate) fn used(&self) -> u8 {
        u8::try_from(self.entries.len()).unwrap_or(u8::MAX)
    }

    /// Value of "force audit".
    pub(crate) fn force(&self) -> Switch {
        self.force
    }

    pub(crate) fn set_force(&mut self, value: Switch) -> Result<(), ErrorCode> {
        if self.force == Switch::Fixed && value != Switch::Fixed {
            return Err(ErrorCode::InvalidData);
        }
        self.force = value;
        self.revision += 1;
        Ok(())
    }

    /// Value of "command audit": pairs of command code and value.
    pub(crate) fn command_switches(&self, firmware: Firmware) -> Vec<u8> {
        LOGGED_COMMANDS
            .into_iter()
            .filter(|code| !Command::is_newer_than(firmware, *code))
            .flat_map(|code| [code, self.switch(code) as u8])
            .collect()
    }

    /// Changes "command audit" for the commands given; all or none.
    pub(crate) fn set_command_switches(
        &mut self,
        pairs: &[(u8, Switch)],
        firmware: Firmware,
    ) -> Result<(), ErrorCode> {
        let allowed = |(code, value): &(u8, Switch)| {
            let stays = self.switch(*code) != Switch::Fixed || *value == Switch::Fixed;
            LOGGED_COMMANDS.contains(code) && !Command::is_newer_than(firmware, *code) && stays
        };
        if !pairs.iter().all(allowed) {
            return Err(ErrorCode::InvalidData);
        }
        self.commands.extend(pairs.iter().copied());
        self.revision += 1;
        Ok(())
    }

    /// Rises with every change.
    pub(crate) fn revision(&self) -> u64 {
        self.revision
    }

    fn switch(&self, command: u8) -> Switch {
        self.commands.get(&command).copied().unwrap_or_default()
    }

    fn records(&self, command: u8) -> bool {
        self.switch(command).is_on()
    }

    fn must_not_overwrite(&self) -> bool {
        self.force.is_on() && self.entries.len() >= LOG_LIMIT
    }

    fn append(&mut self, event: Event) {
        let number = self.last_number.wrapping_add(1);
        let mut entry = Entry {
            number,
            event,
            digest: [0; DIGEST_LENGTH],
        };
        let full = Sha256::new()
            .chain_update(entry.bytes())
            .chain_update(self.last_digest);
        if let Some(digest) = full.finalize().first_chunk() {
            entry.digest = *digest;
        }
        self.last_number = number;
        self.last_digest = entry.digest;
        if self.entries.len() >= LOG_LIMIT {
            self.entries.pop_front();
        }
        self.entries.push_back(entry);
    }
}
