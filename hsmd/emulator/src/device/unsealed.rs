//! Commands of a session without its secure channel, so that a fuzzer reaches what lies behind it.

use std::time::Duration;

use super::Device;
use super::capability::{Authority, Domains};
use super::commands::Command;
use super::frame::{self, Frame};
use super::object::ObjectType;

impl Device {
    /// Runs the command in `bytes`, a frame, as if it had come in a session that authentication key `key_id`
    /// opened. Returns the frame of the answer before it would be sealed; `None` if there is no such key.
    pub fn handle_unsealed(&mut self, now: Duration, key_id: u16, bytes: &[u8]) -> Option<Vec<u8>> {
        let key = self
            .store
            .get((ObjectType::AuthenticationKey, key_id), Domains::ALL)
            .ok()?;
        let authority = Authority::of(key);
        let parsed = Frame::parse(bytes);
        let result = parsed.and_then(|frame| self.inner(now, &authority, frame));
        let command = parsed.map_or(0, |frame| frame.command);
        if result.is_ok() && command == Command::ResetDevice as u8 {
            self.reset(now);
        }
        Some(frame::answer(command, &result))
    }
}
