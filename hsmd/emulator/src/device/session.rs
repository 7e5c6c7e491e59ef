//! The device's 16 sessions: who opened them, how long they have been idle.

use std::time::Duration;

use super::capability::Authority;
use super::error::ErrorCode;
use super::scp03::{Channel, MAC_LENGTH};

/// How many sessions the device holds, authenticated or not.
pub const SESSION_COUNT: usize = 16;

/// A session that was idle for longer is dropped.
pub const SESSION_IDLE_LIMIT: Duration = Duration::from_secs(30);

/// One session.
pub(crate) struct Session {
    /// What the authentication key that opened it allows, as it stood when the session was created.
    pub(crate) authority: Authority,
    /// The secure channel.
    pub(crate) channel: Channel,
    /// What the host has yet to show before it may use the session.
    pub(crate) awaited: Option<[u8; MAC_LENGTH]>,
    last_used: Duration,
}

/// All sessions; the session identifier is the index.
#[derive(Default)]
pub(crate) struct Sessions([Option<Session>; SESSION_COUNT]);

impl Sessions {
    /// Drops what was idle for too long at `now`.
    pub(crate) fn expire(&mut self, now: Duration) {
        for slot in &mut self.0 {
            let idle = |s: &Session| now.saturating_sub(s.last_used) > SESSION_IDLE_LIMIT;
            if slot.as_ref().is_some_and(idle) {
                *slot = None;
            }
        }
    }

    /// Takes a free session. It is authenticated at once unless a cryptogram is `awaited`.
    pub(crate) fn open(
        &mut self,
        now: Duration,
        authority: Authority,
        channel: Channel,
        awaited: Option<[u8; MAC_LENGTH]>,
    ) -> Result<u8, ErrorCode> {
        let free = (0u8..).zip(&mut self.0).find(|(_, slot)| slot.is_none());
        let (id, slot) = free.ok_or(ErrorCode::SessionsFull)?;
        *slot = Some(Session {
            authority,
            channel,
            awaited,
            last_used: now,
        });
        Ok(id)
    }

    /// The session, provided that it is authenticated or not as asked; it counts as used.
    pub(crate) fn touch(
        &mut self,
        now: Duration,
        id: u8,
        authenticated: bool,
    ) -> Result<&mut Session, ErrorCode> {
        let slot = self.0.get_mut(usize::from(id)).and_then(Option::as_mut);
        let session = slot.ok_or(ErrorCode::InvalidSession)?;
        if session.awaited.is_none() != authenticated {
            return Err(ErrorCode::InvalidSession);
        }
        session.last_used = now;
        Ok(session)
    }

    /// Frees one session.
    pub(crate) fn close(&mut self, id: u8) {
        if let Some(slot) = self.0.get_mut(usize::from(id)) {
            *slot = None;
        }
    }

    /// Frees all sessions, as a power cycle does.
    pub(crate) fn close_all(&mut self) {
        *self = Self::default();
    }
}
