//! From a frame to its answer: outside of a session, and inside of one.

use std::time::Duration;

use super::audit::{Event, NO_KEY};
use super::capability::Authority;
use super::commands::{self, Command};
use super::error::ErrorCode;
use super::frame::{self, Fields, Frame};
use super::{Device, Misbehaviour, scp03};

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
        let command = Command::of(self.firmware, frame.command);
        if command != Some(Command::SessionMessage) && self.audit.refuses(frame.command) {
            return Outcome {
                result: Err(ErrorCode::LogFull),
                inner: None,
            };
        }
        let result = match command {
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
    pub(super) fn inner(
        &mut self,
        now: Duration,
        authority: &Authority,
        frame: Frame<'_>,
    ) -> Result<Vec<u8>, ErrorCode> {
        if let Some(Misbehaviour::Refuse(code)) = self.misbehaviour {
            return Err(code);
        }
        let command = Command::of(self.firmware, frame.command).ok_or(ErrorCode::InvalidCommand)?;
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
}
