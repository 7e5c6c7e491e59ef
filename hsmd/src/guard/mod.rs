//! The guard: at most one message a key, chain and position.
//!
//! Check and update happen under one lock, and the order in which that lock was held is the order of the
//! journal's entries. A reservation is handed out once its entry is durable, and not before.

pub mod entry;
mod moves;
mod refusals;
mod reservation;
mod state;
#[cfg(test)]
mod tests;

use std::time::SystemTime;

use hsm_device::{Identity, PublicKey};
use hsm_journal::{Journal, Ticket, Urgency};
use hsm_policy::cometbft::{ChainId, Message};
use hsm_policy::conflict::{self, Conflict, Verdict};
use hsm_policy::identity::Caller;
use hsm_proto::v1 as wire;
use hsm_proto::v1::entry::Event;

use crate::sync::{Mutex, MutexGuard};

pub use refusals::Refusals;
pub use reservation::Reservation;
pub use state::{
    AuditMark, ChainMark, Made, PinnedKey, Signatures, Signed, State, officers_to_wire,
};

/// Why the guard did not reserve.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The key was never made known for this chain.
    #[error(
        "key {key} was not made known for chain {chain}, so it does not sign there: an operator \
         makes it known with `hsmd key init {key} --chain {chain} --height H`"
    )]
    NotInitialised {
        /// The key's name.
        key: String,
        /// The chain id.
        chain: String,
    },
    /// The request contradicts what was reserved before.
    #[error("{conflict}")]
    Conflict {
        /// What stands against it.
        conflict: Conflict,
        /// The sign bytes that were asked for.
        sign_bytes: Vec<u8>,
    },
    /// A key is made known that is known already.
    #[error("{0}")]
    AlreadyKnown(String),
    /// A mark can only be raised.
    #[error(
        "height {asked} is not above {mark}, where the mark of key {key} on chain {chain} stands: a \
         mark is only ever raised"
    )]
    NotAbove {
        /// The key's name.
        key: String,
        /// The chain id.
        chain: String,
        /// The height asked for.
        asked: i64,
        /// The greater of the last height signed and the initial one.
        mark: i64,
    },
    /// Something that only officers may decide, and there are none.
    #[error(
        "{kind} needs officers, and this deployment has none: they are named while the state is new, with \
         `hsmd state init --officers FILE --threshold M`; to have some, create new state so, make the keys \
         known there, and bring their marks over with `hsmd state export` and `hsmd state import`"
    )]
    NoOfficers {
        /// The kind of document.
        kind: &'static str,
    },
    /// What officers signed is refused.
    #[error(transparent)]
    Officers(#[from] hsm_policy::officers::Error),
    /// A statement of the officers that does not fit what it is used for.
    #[error("{0}")]
    Statement(String),
    /// The journal took no entry, or could not make it durable.
    #[error(transparent)]
    Journal(#[from] hsm_journal::Error),
    /// A fault of ours; nothing was reserved.
    #[error("a fault of the guard: {0}; if it lasts, restart hsmd, which replays the journal")]
    Internal(String),
}

/// What a caller wants to have signed.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// Who asks.
    pub caller: &'a Caller,
    /// The key's name.
    pub key: &'a str,
    /// The public key that the name is pinned to.
    pub public_key: &'a PublicKey,
    /// The message.
    pub message: &'a Message,
    /// How far above the last signed height it may lie.
    pub max_height_jump: u64,
}

/// The marks in memory and the journal behind them.
pub struct Guard {
    state: Mutex<State>,
    journal: Journal,
}

impl Guard {
    /// A guard over an opened journal and the state that its replay yielded.
    #[must_use]
    pub fn new(state: State, journal: Journal) -> Self {
        Self {
            state: Mutex::new(state),
            journal,
        }
    }

    /// Reserves the message's position, and returns when the entry that says so is durable.
    ///
    /// A request that repeats an earlier one waits for the entry that it repeats.
    ///
    /// # Errors
    ///
    /// See [`Error`]. After [`Error::Journal`] the position stays bound to this message, and the same
    /// request may be sent again.
    pub(crate) async fn reserve(
        &self,
        ask: Ask<'_>,
        now: SystemTime,
    ) -> Result<Reservation, Error> {
        let (reservation, ticket) = self.decide(ask, now)?;
        self.journal.durable(ticket).await?;
        Ok(reservation)
    }

    fn decide(&self, ask: Ask<'_>, now: SystemTime) -> Result<(Reservation, Ticket), Error> {
        let mut state = self.lock()?;
        let known = state
            .mark(ask.public_key, ask.message.chain_id())
            .ok_or_else(|| Error::NotInitialised {
                key: ask.key.to_owned(),
                chain: ask.message.chain_id().to_string(),
            })?;
        let verdict =
            conflict::judge(&known.mark, ask.message, ask.max_height_jump).map_err(|conflict| {
                Error::Conflict {
                    conflict,
                    sign_bytes: ask.message.sign_bytes(),
                }
            })?;
        let earlier = known.mark.last.as_ref().zip(known.made.as_ref());
        let (mut reservation, repeated) = match (verdict, earlier) {
            (Verdict::Sign, _) => (Reservation::first(ask.message), None),
            // What another signer reserved gets an entry of ours before our device is asked.
            (Verdict::Repeat, Some((last, made))) if made.imported && made.signatures.is_none() => {
                (Reservation::repeat(ask.message, last, made), None)
            }
            (Verdict::Repeat, Some((last, made))) => (
                Reservation::repeat(ask.message, last, made),
                Some(made.index),
            ),
            (Verdict::ExtensionAnew, Some((last, made))) => {
                (Reservation::extension_anew(ask.message, last, made), None)
            }
            (Verdict::Repeat | Verdict::ExtensionAnew, None) => {
                return Err(Error::Internal("a repetition of nothing".to_owned()));
            }
        };
        let ticket = match repeated {
            Some(index) => Ticket::of(index),
            None => {
                let event = Event::Reserved(reservation.event(ask));
                self.append(&mut state, now, event, Urgency::Now)?
            }
        };
        reservation.index = ticket.index();
        Ok((reservation, ticket))
    }

    /// Records what left for a reservation, without waiting for the disk.
    ///
    /// # Errors
    ///
    /// [`Error::Journal`] where the journal takes no entry; the answer may leave all the same, since the
    /// reservation is durable.
    pub(crate) fn record_signed(
        &self,
        ask: Ask<'_>,
        reservation: &Reservation,
        signatures: &Signatures,
        now: SystemTime,
    ) -> Result<(), Error> {
        let event = Event::Signed(wire::Signed {
            reserved_index: reservation.index,
            key: ask.key.to_owned(),
            public_key: Some(entry::public_key_to_wire(ask.public_key)),
            chain_id: ask.message.chain_id().to_string(),
            signature: signatures.message.clone(),
            extension_signature: signatures.extension.clone().unwrap_or_default(),
        });
        let mut state = self.lock()?;
        self.append(&mut state, now, event, Urgency::WithNext)?;
        Ok(())
    }

    /// Records an event that no one waits for.
    ///
    /// # Errors
    ///
    /// [`Error::Journal`] where the journal takes no entry.
    pub fn record(&self, event: Event, now: SystemTime) -> Result<(), Error> {
        let mut state = self.lock()?;
        self.append(&mut state, now, event, Urgency::WithNext)?;
        Ok(())
    }

    /// Records an event, and returns when it is durable.
    ///
    /// # Errors
    ///
    /// [`Error::Journal`] where it could not be made so.
    pub async fn record_durably(&self, event: Event, now: SystemTime) -> Result<(), Error> {
        let ticket = {
            let mut state = self.lock()?;
            self.append(&mut state, now, event, Urgency::Now)?
        };
        Ok(self.journal.durable(ticket).await?)
    }

    /// Makes a public key known under a name for one chain: nothing at or below `initial_height` is
    /// signed there. `devices` showed it, and are pinned to who they are. Returns when that is durable.
    ///
    /// # Errors
    ///
    /// [`Error::AlreadyKnown`] where the name stands for another public key, or where the public key has
    /// a mark for this chain: a mark is never made twice.
    pub async fn pin(
        &self,
        name: &str,
        public_key: &PublicKey,
        chain: &ChainId,
        initial_height: i64,
        devices: Vec<(String, Option<Identity>)>,
        now: SystemTime,
    ) -> Result<(), Error> {
        let identities = devices.iter().filter_map(|(device, identity)| {
            let identity = identity.as_ref()?;
            Some(entry::identity_to_wire(device, identity))
        });
        let event = Event::KeyPinned(wire::KeyPinned {
            device_identities: identities.collect(),
            key: name.to_owned(),
            public_key: Some(entry::public_key_to_wire(public_key)),
            chain_id: chain.to_string(),
            initial_height,
            devices: devices.into_iter().map(|(device, _)| device).collect(),
        });
        let ticket = {
            let mut state = self.lock()?;
            if let Some(known) = state.pinned(name)
                && known != *public_key
            {
                return Err(Error::AlreadyKnown(format!(
                    "key {name} is pinned to public key {known}, and the device shows {public_key}: \
                     give the new key a name of its own"
                )));
            }
            if let Some(known) = state.mark(public_key, chain) {
                let names = state.key(public_key).map(|key| key.names.join(", "));
                return Err(Error::AlreadyKnown(format!(
                    "public key {public_key} is known for chain {chain} already, as {}, with {}: \
                     its mark stays as it is",
                    names.unwrap_or_default(),
                    known.mark.last.as_ref().map_or_else(
                        || format!("nothing signed above height {}", known.mark.initial_height),
                        |last| format!("{} reserved last", last.position),
                    ),
                )));
            }
            self.append(&mut state, now, event, Urgency::Now)?
        };
        Ok(self.journal.durable(ticket).await?)
    }

    /// Raises the height at or below which a key signs nothing on a chain. Durable on return.
    ///
    /// # Errors
    ///
    /// [`Error::NotInitialised`] and [`Error::NotAbove`]; nothing is changed then.
    pub async fn advance(
        &self,
        name: &str,
        chain: &ChainId,
        height: i64,
        now: SystemTime,
    ) -> Result<(), Error> {
        let ticket = {
            let mut state = self.lock()?;
            let public_key = state.pinned(name);
            let known = public_key
                .as_ref()
                .and_then(|public_key| state.mark(public_key, chain));
            let (Some(public_key), Some(known)) = (public_key, known) else {
                let (key, chain) = (name.to_owned(), chain.to_string());
                return Err(Error::NotInitialised { key, chain });
            };
            if height <= known.mark.height() {
                return Err(Error::NotAbove {
                    key: name.to_owned(),
                    chain: chain.to_string(),
                    asked: height,
                    mark: known.mark.height(),
                });
            }
            let event = Event::KeyAdvanced(wire::KeyAdvanced {
                key: name.to_owned(),
                public_key: Some(entry::public_key_to_wire(&public_key)),
                chain_id: chain.to_string(),
                initial_height: height,
            });
            self.append(&mut state, now, event, Urgency::Now)?
        };
        Ok(self.journal.durable(ticket).await?)
    }

    /// The public key that a name was pinned to.
    ///
    /// # Errors
    ///
    /// [`Error::Internal`] after a fault of ours.
    pub fn pinned(&self, name: &str) -> Result<Option<PublicKey>, Error> {
        Ok(self.lock()?.pinned(name))
    }

    /// Looks at the state as it stands: every reservation in it binds, durable or not.
    ///
    /// # Errors
    ///
    /// [`Error::Internal`] after a fault of ours.
    pub fn inspect<T>(&self, look: impl FnOnce(&State) -> T) -> Result<T, Error> {
        Ok(look(&*self.lock()?))
    }

    /// How the journal is.
    #[must_use]
    pub fn journal(&self) -> &Journal {
        &self.journal
    }

    /// Ends the journal: what waits is flushed first.
    ///
    /// # Errors
    ///
    /// [`Error::Journal`] where the last entries could not be made durable.
    pub fn close(&self) -> Result<(), Error> {
        Ok(self.journal.close()?)
    }

    /// Hands an event to the journal and takes it into the state, under the caller's lock, so that the
    /// order of entries is the order of decisions.
    fn append(
        &self,
        state: &mut State,
        now: SystemTime,
        event: Event,
        urgency: Urgency,
    ) -> Result<Ticket, Error> {
        let leaf = entry::encode(now, event.clone());
        let change = state.plan(event).map_err(Error::Internal)?;
        let ticket = self.journal.append(leaf, urgency)?;
        state.commit(ticket.index(), &entry::wall_clock(now), change);
        Ok(ticket)
    }

    fn lock(&self) -> Result<MutexGuard<'_, State>, Error> {
        self.state
            .lock()
            .map_err(|_| Error::Internal("a thread panicked while it held the marks".to_owned()))
    }
}
