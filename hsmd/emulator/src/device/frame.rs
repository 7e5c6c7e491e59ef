//! Frames: one byte of command code, two bytes of length (big endian), data.
//!
//! The same form is used outside (host to device) and inside a session message.

use super::error::ErrorCode;

/// Length of a frame's header in bytes.
pub(crate) const HEADER_LENGTH: usize = 3;

/// Added to the command code in an answer that is not an error.
const ANSWER_BIT: u8 = 0x80;

/// Command code of an answer that is an error.
const ERROR_ANSWER: u8 = 0x7f;

/// A frame that is as long as its header says.
#[derive(Clone, Copy)]
pub(crate) struct Frame<'a> {
    /// Command code, known or not.
    pub(crate) command: u8,
    /// What follows the header.
    pub(crate) data: &'a [u8],
}

impl<'a> Frame<'a> {
    /// Splits `bytes`, which must hold exactly one frame.
    pub(crate) fn parse(bytes: &'a [u8]) -> Result<Self, ErrorCode> {
        let (&[command, high, low], data) = bytes
            .split_first_chunk::<HEADER_LENGTH>()
            .ok_or(ErrorCode::WrongLength)?;
        if data.len() != usize::from(u16::from_be_bytes([high, low])) {
            return Err(ErrorCode::WrongLength);
        }
        Ok(Self { command, data })
    }
}

/// Header of a frame with `length` bytes of data.
pub(crate) fn header(command: u8, length: usize) -> [u8; HEADER_LENGTH] {
    // No frame is longer than the device's buffer, which is far below 65,536 bytes.
    let [high, low] = u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes();
    [command, high, low]
}

/// The frame that answers `command`.
pub(crate) fn answer(command: u8, result: &Result<Vec<u8>, ErrorCode>) -> Vec<u8> {
    match result {
        Ok(data) => [&header(answer_code(command), data.len())[..], data].concat(),
        Err(code) => [&header(ERROR_ANSWER, 1)[..], &[code.byte()]].concat(),
    }
}

/// Command code of a successful answer to `command`.
pub(crate) fn answer_code(command: u8) -> u8 {
    command | ANSWER_BIT
}

/// Reads the fields of a command from front to back. Every method fails with
/// [`ErrorCode::WrongLength`] when too few bytes are left.
#[derive(Clone, Copy)]
pub(crate) struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    pub(crate) fn new(data: &'a [u8]) -> Self {
        Self(data)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], ErrorCode> {
        let (field, rest) = self
            .0
            .split_first_chunk::<N>()
            .ok_or(ErrorCode::WrongLength)?;
        self.0 = rest;
        Ok(*field)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, ErrorCode> {
        self.array().map(u8::from_be_bytes)
    }

    pub(crate) fn u16(&mut self) -> Result<u16, ErrorCode> {
        self.array().map(u16::from_be_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, ErrorCode> {
        self.array().map(u64::from_be_bytes)
    }

    /// All that is left.
    pub(crate) fn rest(self) -> &'a [u8] {
        self.0
    }

    /// Whether nothing is left.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Fails if anything is left.
    pub(crate) fn end(self) -> Result<(), ErrorCode> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(ErrorCode::WrongLength)
        }
    }
}
