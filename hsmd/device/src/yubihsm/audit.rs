//! The audit log as the YubiHSM client library gives it, back to the bytes that the device hashes.

use ::yubihsm::audit::AuditOption;
use ::yubihsm::{command, response};

use super::Session;
use crate::{AuditEntry, AuditLog, AuditOptions, Error};

/// The sign commands, as the vendor's tools name them.
const SIGN_COMMANDS: [(command::Code, &str); 4] = [
    (command::Code::SignPkcs1, "sign-pkcs1"),
    (command::Code::SignPss, "sign-pss"),
    (command::Code::SignEcdsa, "sign-ecdsa"),
    (command::Code::SignEddsa, "sign-eddsa"),
];

impl Session {
    pub(super) fn read_audit_log(&self) -> Result<AuditLog, Error> {
        let log = self.client.get_log_entries();
        let log = log.map_err(|e| self.fault("show its audit log", &e))?;
        let entries = log.entries.iter().map(|entry| {
            let mut bytes = [0; 16];
            let parts = [
                &entry.item.to_be_bytes()[..],
                &[entry.cmd.to_u8()],
                &entry.length.to_be_bytes(),
                &entry.session_key.to_be_bytes(),
                &entry.target_key.to_be_bytes(),
                &entry.second_key.to_be_bytes(),
                &[result_byte(entry.result)],
                &entry.tick.to_be_bytes(),
            ];
            for (to, from) in bytes.iter_mut().zip(parts.into_iter().flatten()) {
                *to = *from;
            }
            AuditEntry {
                bytes,
                digest: entry.digest.0,
            }
        });
        let entries: Vec<AuditEntry> = entries.collect();
        // The library stops without a word at a command that it does not know.
        let read = u16::try_from(entries.len()).unwrap_or(u16::MAX);
        Ok(AuditLog {
            unreadable: u16::from(log.num_entries).saturating_sub(read),
            entries,
            unlogged_boots: log.unlogged_boot_events,
            unlogged_authentications: log.unlogged_auth_events,
        })
    }

    /// Has the device record signatures, and stop when its log is full.
    #[cfg(feature = "mock")]
    pub(crate) fn force_audit(&self) -> Result<(), Error> {
        let fault = |e| self.fault("change its audit options", &e);
        for (code, _) in SIGN_COMMANDS {
            let set = self.client.set_command_audit_option(code, AuditOption::On);
            set.map_err(fault)?;
        }
        let set = self.client.set_force_audit_option(AuditOption::On);
        set.map_err(fault)
    }

    pub(super) fn read_audit_options(&self) -> Result<AuditOptions, Error> {
        let fault = |e| self.fault("show its audit options", &e);
        let force = self.client.get_force_audit_option().map_err(fault)?;
        let commands = self.client.get_commands_audit_options().map_err(fault)?;
        let recorded = |code| {
            commands.iter().any(|option| {
                option.command_type() == code && option.audit_option() != AuditOption::Off
            })
        };
        let unrecorded = SIGN_COMMANDS.iter().filter(|(code, _)| !recorded(*code));
        Ok(AuditOptions {
            force: force != AuditOption::Off,
            unrecorded: unrecorded.map(|(_, name)| *name).collect(),
        })
    }
}

/// The result as it stood in the entry: a command's code with its highest bit set, or the device's error code, which
/// the library counts downwards from that of success.
fn result_byte(result: response::Code) -> u8 {
    match result {
        response::Code::Success(command) => command.to_u8() | 0x80,
        error => response::Code::DeviceOk.to_u8().wrapping_sub(error.to_u8()),
    }
}
