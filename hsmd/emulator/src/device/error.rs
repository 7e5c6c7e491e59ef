//! The error codes of the device, as they stand on the wire.

/// Why the device refused a command: the one data byte of an error answer (command code 0x7f).
///
/// Source: the vendor's user guide, "Error codes"; PyPI `yubihsm`, `defs.py`. The `yubihsm` crate numbers
/// the codes from 0x0e on differently, and shows [`ErrorCode::CommandUnexecuted`] as unknown.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[repr(u8)]
pub enum ErrorCode {
    /// The command code is unknown, or not allowed in this place.
    #[error("invalid command")]
    InvalidCommand = 0x01,
    /// A field has a value that the command does not accept.
    #[error("invalid data")]
    InvalidData = 0x02,
    /// There is no such session, it has expired, or it is not in the state that the command needs.
    #[error("invalid session")]
    InvalidSession = 0x03,
    /// A cryptogram, a message authentication code or an encrypted message did not verify.
    #[error("authentication failed")]
    AuthenticationFailed = 0x04,
    /// All 16 sessions are taken.
    #[error("sessions full")]
    SessionsFull = 0x05,
    /// The session could not be created.
    #[error("session failed")]
    SessionFailed = 0x06,
    /// The object store is full.
    #[error("storage failed")]
    StorageFailed = 0x07,
    /// The frame, or a field in it, is shorter or longer than the command wants.
    #[error("wrong length")]
    WrongLength = 0x08,
    /// The session's authentication key, or the object, lacks a capability or a domain.
    #[error("insufficient permissions")]
    InsufficientPermissions = 0x09,
    /// The audit log is full and the device is set to refuse what it cannot log.
    #[error("log full")]
    LogFull = 0x0a,
    /// No object of that type and identifier in the domains of the session.
    #[error("object not found")]
    ObjectNotFound = 0x0b,
    /// The object identifier is reserved, or not the one that the command may name.
    #[error("invalid object identifier")]
    InvalidId = 0x0c,
    /// A constraint of an SSH template was violated.
    #[error("SSH certificate constraint violated")]
    SshConstraintViolation = 0x0e,
    /// A one-time password did not decrypt.
    #[error("invalid OTP")]
    InvalidOtp = 0x0f,
    /// The device is a demonstration model.
    #[error("demo mode")]
    DemoMode = 0x10,
    /// An object of that type and identifier exists; objects cannot be overwritten.
    #[error("object exists")]
    ObjectExists = 0x11,
    /// The algorithm was switched off by an option.
    #[error("algorithm disabled")]
    AlgorithmDisabled = 0x12,
    /// The command was not executed (here: the operating system gave no randomness).
    #[error("command unexecuted")]
    CommandUnexecuted = 0xff,
}

impl ErrorCode {
    const LIST: [Self; 18] = [
        Self::InvalidCommand,
        Self::InvalidData,
        Self::InvalidSession,
        Self::AuthenticationFailed,
        Self::SessionsFull,
        Self::SessionFailed,
        Self::StorageFailed,
        Self::WrongLength,
        Self::InsufficientPermissions,
        Self::LogFull,
        Self::ObjectNotFound,
        Self::InvalidId,
        Self::SshConstraintViolation,
        Self::InvalidOtp,
        Self::DemoMode,
        Self::ObjectExists,
        Self::AlgorithmDisabled,
        Self::CommandUnexecuted,
    ];

    /// The code with this number on the wire; `None` if there is none.
    pub fn from_byte(byte: u8) -> Option<Self> {
        Self::LIST.into_iter().find(|known| known.byte() == byte)
    }

    /// The code on the wire.
    pub fn byte(self) -> u8 {
        self as u8
    }
}
