//! The audit log that a device keeps by itself.
//!
//! Source: the vendor's user guide of the YubiHSM 2, "Logs" and GET LOG ENTRIES.

use sha2::{Digest as _, Sha256};

/// What a device's audit log holds that was not acknowledged yet, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuditLog {
    /// The entries, up to the first that cannot be read.
    pub entries: Vec<AuditEntry>,
    /// How many further entries there are, which this version cannot read.
    pub unreadable: u16,
    /// How often the device was switched on while the log was full.
    pub unlogged_boots: u16,
    /// How many sessions were opened while the log was full.
    pub unlogged_authentications: u16,
}

/// One entry of a device's audit log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuditEntry {
    /// The entry as the device hashes it: number, command, length, session key, target key, second key, result,
    /// tick; 16 bytes, big endian.
    pub bytes: [u8; 16],
    /// The first 16 bytes of SHA-256 over `bytes` and the digest of the entry before.
    pub digest: [u8; 16],
}

/// The commands that make a signature which a caller composed: PKCS#1, PSS, ECDSA, EdDSA.
const SIGN_COMMANDS: [u8; 4] = [0x47, 0x55, 0x56, 0x6a];

/// Commands that change what is in the device or how it behaves: reset; put, generate, delete, export and import of
/// objects; options; change of an authentication key. hsmd makes those of [`DATA_COMMANDS`] only, for its rollback anchor.
const ADMINISTRATIVE_COMMANDS: [u8; 19] = [
    0x08, 0x42, 0x44, 0x45, 0x46, 0x4a, 0x4b, 0x4c, 0x4f, 0x52, 0x58, 0x5a, 0x5b, 0x5e, 0x61, 0x65,
    0x66, 0x6c, 0xff,
];

/// PUT OPAQUE and DELETE OBJECT.
const DATA_COMMANDS: [u8; 2] = [0x42, 0x58];

impl AuditEntry {
    /// The entry's number: from 1 after a reset, and 0 follows 65,535.
    pub fn number(&self) -> u16 {
        let [high, low, ..] = self.bytes;
        u16::from_be_bytes([high, low])
    }

    /// The command's code.
    pub fn command(&self) -> u8 {
        let [_, _, command, ..] = self.bytes;
        command
    }

    /// The object that the command used; 0xffff for none.
    pub fn target(&self) -> u16 {
        let [_, _, _, _, _, _, _, high, low, ..] = self.bytes;
        u16::from_be_bytes([high, low])
    }

    /// Whether the device made a signature.
    pub fn signed(&self) -> bool {
        SIGN_COMMANDS.contains(&self.command()) && self.succeeded()
    }

    /// Whether the device was administered.
    pub fn administered(&self) -> bool {
        ADMINISTRATIVE_COMMANDS.contains(&self.command()) && self.succeeded()
    }

    /// Whether a data object was put, or some object deleted.
    pub fn changed_data(&self) -> bool {
        DATA_COMMANDS.contains(&self.command()) && self.succeeded()
    }

    /// Whether this entry follows one with that number and digest.
    pub fn follows(&self, number: u16, digest: &[u8; 16]) -> bool {
        let full = Sha256::new()
            .chain_update(self.bytes)
            .chain_update(digest)
            .finalize();
        self.number() == number.wrapping_add(1) && full.starts_with(&self.digest)
    }

    /// A successful answer carries the command's code with its highest bit set.
    fn succeeded(&self) -> bool {
        let [_, _, command, _, _, _, _, _, _, _, _, result, ..] = self.bytes;
        result == command | 0x80
    }
}

/// What the device is told to record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditOptions {
    /// Whether a full log stops commands that are to be recorded.
    pub force: bool,
    /// Names of the sign commands that are not recorded.
    pub unrecorded: Vec<&'static str>,
}
