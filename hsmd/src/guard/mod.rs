//! The guard: at most one message a key, chain and position.
//!
//! Check and update happen under one lock, and the order in which that lock was held is the order of the
//! journal's entries. A reservation is handed out once its entry is durable, and not before.

mod anchor;
pub mod entry;
mod error;
mod freeze;
mod keys;
mod last_entry;
pub mod ledger;
mod moves;
mod policy;
mod refusals;
mod reservation;
mod state;
#[cfg(test)]
mod tests;

use std::time::SystemTime;

use hsm_device::PublicKey;
use hsm_journal::{Journal, Ticket};
use hsm_policy::cometbft::Message;
use hsm_policy::conflict::{self, Conflict, Verdict};
use hsm_policy::grants::Meters;
use hsm_policy::identity::Caller;
use hsm_proto::v1 as wire;
use hsm_proto::v1::entry::Event;
use sha2::{Digest as _, Sha256};

use crate::sync::{Mutex, MutexGuard};
use ledger::Cleared;

pub use anchor::Purpose;
pub use error::Error;
pub use last_entry::LastEntry;
pub use policy::Terms;
pub use refusals::Refusals;
pub use reservation::Reservation;
pub use state::{
    AnchorMark, AuditMark, Bounds, ChainMark, Freeze, Frozen, Made, PinnedKey, PolicyMark,
    Signatures, Signed, State, Tail, officers_to_wire,
};

use anchor::{Advances, Outside};

/// A reservation, and the entry that it waits for.
type Decided = (Reservation, Appended);

/// Where an entry stands.
struct Appended {
    ticket: Ticket,
    /// The leaf's RFC 6962 hash. None for what was reserved before the start, or where nothing is written down.
    leaf: Option<hsm_journal::Hash>,
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
    /// What else the policy's permit says.
    pub terms: Terms<'a>,
}

/// The marks in memory and the journal behind them.
pub struct Guard {
    state: Mutex<State>,
    journal: Journal,
    advances: Advances,
    last_entry: Option<LastEntry>,
    /// By how many heights each caller raised marks lately. Locked while the state is.
    rises: Mutex<Meters>,
}

impl Guard {
    /// A guard over an opened journal and the state that its replay yielded.
    #[must_use]
    pub fn new(state: State, journal: Journal) -> Self {
        Self {
            state: Mutex::new(state),
            journal,
            advances: Advances::default(),
            last_entry: None,
            rises: Mutex::new(Meters::default()),
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
        self.reserve_cleared(ask, None, now).await
    }

    /// The same for a key whose ledger was asked: without `cleared`, such a key only gives again what it gave.
    ///
    /// # Errors
    ///
    /// As [`Self::reserve`], and [`Error::LedgerFirst`].
    pub(crate) async fn reserve_cleared(
        &self,
        ask: Ask<'_>,
        cleared: Option<Cleared>,
        now: SystemTime,
    ) -> Result<Reservation, Error> {
        let (reservation, entry) = loop {
            let advance = self.advances.subscribe();
            match self.decide(ask, cleared, now) {
                // Above the ceiling: the anchor is advanced first.
                Err(Error::Ceiling { .. }) => self.advances.next(advance).await?,
                decided => break decided?,
            }
        };
        self.settle(entry).await?;
        Ok(reservation)
    }

    fn decide(
        &self,
        ask: Ask<'_>,
        cleared: Option<Cleared>,
        now: SystemTime,
    ) -> Result<Decided, Error> {
        let mut state = self.lock()?;
        if ask.terms.version != state.policy_version() {
            return Err(Error::PolicyChanged);
        }
        freeze::refuse_frozen(&state, ask)?;
        let known = state
            .mark(ask.public_key, ask.message.chain_id())
            .ok_or_else(|| Error::NotInitialised {
                key: ask.key.to_owned(),
                chain: ask.message.chain_id().to_string(),
            })?;
        if let Some(reason) = known.ledger.as_ref().and_then(|it| it.frozen.clone()) {
            let (key, chain) = (ask.key.to_owned(), ask.message.chain_id().to_string());
            return Err(Error::FrozenInLedger { key, chain, reason });
        }
        let verdict = match conflict::judge(&known.mark, ask.message, ask.max_height_jump) {
            Ok(verdict) => verdict,
            // What may have been signed up to the floor counts as signed; but not in a ledger's row, which others
            // judge by, too: there the mark itself has to be advanced.
            Err(Conflict::HeightJump { height, .. })
                if known.ledger.is_none()
                    && height.saturating_sub(known.bounds.floor).unsigned_abs()
                        <= ask.max_height_jump =>
            {
                Verdict::Sign
            }
            Err(conflict) => {
                let sign_bytes = ask.message.sign_bytes();
                return Err(Error::Conflict {
                    conflict,
                    sign_bytes,
                });
            }
        };
        // A repetition asks for nothing new.
        if verdict != Verdict::Repeat {
            let height = ask.message.position().height.get();
            if let Err(outside) = state.within_bounds(known, height) {
                return Err(Self::outside(&mut state, ask, height, outside));
            }
        }
        let rise = match verdict {
            Verdict::Sign => policy::rise(known, ask.message),
            Verdict::Repeat | Verdict::ExtensionAnew => 0,
        };
        self.may_rise(&ask.terms, rise)?;
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
        let repeated = match &known.ledger {
            None => repeated,
            // Nothing is asked of a device.
            Some(_) if reservation.is_complete() => repeated,
            Some(binding) => {
                if !cleared.is_some_and(|cleared| binding.admits(cleared)) {
                    let (key, chain) = (ask.key.to_owned(), ask.message.chain_id().to_string());
                    return Err(Error::LedgerFirst { key, chain });
                }
                // Another signer may have reserved it: what is asked of a device here has an entry here.
                None
            }
        };
        let entry = match repeated {
            Some(index) => Appended {
                ticket: Ticket::of(index),
                leaf: earlier.and_then(|(_, made)| made.leaf),
            },
            None => {
                let revision = cleared.map_or(0, |cleared| cleared.revision);
                let event = Event::Reserved(reservation.event(ask, revision));
                let entry = self.append(&mut state, now, event)?;
                self.rises(&ask.terms, rise)?;
                entry
            }
        };
        reservation.index = entry.ticket.index();
        Ok((reservation, entry))
    }

    fn outside(state: &mut State, ask: Ask<'_>, height: i64, outside: Outside) -> Error {
        let chain = ask.message.chain_id();
        let (key, chain_id) = (ask.key.to_owned(), chain.to_string());
        match outside {
            Outside::Floor(floor) => Error::Unproven {
                key,
                chain: chain_id,
                height,
                floor,
            },
            Outside::Ceiling(ceiling) => {
                Self::want(state, ask.public_key, chain, height);
                Error::Ceiling {
                    key,
                    chain: chain_id,
                    height,
                    ceiling,
                }
            }
        }
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
        self.append(&mut state, now, event)?;
        Ok(())
    }

    /// Records an event that no one waits for.
    ///
    /// # Errors
    ///
    /// [`Error::Journal`] where the journal takes no entry.
    pub fn record(&self, event: Event, now: SystemTime) -> Result<(), Error> {
        let mut state = self.lock()?;
        self.append(&mut state, now, event)?;
        Ok(())
    }

    /// Records an event, and returns when it is durable.
    ///
    /// # Errors
    ///
    /// [`Error::Journal`] where it could not be made so.
    pub async fn record_durably(&self, event: Event, now: SystemTime) -> Result<(), Error> {
        let entry = {
            let mut state = self.lock()?;
            self.append(&mut state, now, event)?
        };
        self.settle(entry).await
    }

    /// Records that a checkpoint will be asked of this public key, with the digest of what `marks` makes of
    /// the state before it. Durable on return: the entry's index, and what `marks` made.
    ///
    /// # Errors
    ///
    /// [`Error::CheckpointKey`] where it is a consensus key; nothing may be asked of it then.
    pub async fn begin_checkpoint(
        &self,
        origin: &str,
        public_key: &PublicKey,
        marks: impl FnOnce(&State) -> String,
        now: SystemTime,
    ) -> Result<(u64, String), Error> {
        let (entry, document) = {
            let mut state = self.lock()?;
            if let Some(known) = state.key(public_key) {
                return Err(Error::CheckpointKey {
                    public_key: *public_key,
                    names: known.names.join(", "),
                });
            }
            let document = marks(&state);
            let event = Event::CheckpointBegun(wire::CheckpointBegun {
                origin: origin.to_owned(),
                public_key: Some(entry::public_key_to_wire(public_key)),
                marks_sha256: Sha256::digest(&document).to_vec(),
            });
            let entry = self.append(&mut state, now, event)?;
            (entry, document)
        };
        let index = entry.ticket.index();
        self.settle(entry).await?;
        Ok((index, document))
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

    /// Waits until an entry is durable, and writes it down where a restored disk would lack it: nothing that was
    /// promised since the image was taken is forgotten then.
    async fn settle(&self, entry: Appended) -> Result<(), Error> {
        self.journal.durable(entry.ticket).await?;
        // What was reserved before the start lies before the entry that was written down then.
        if let (Some(last), Some(leaf)) = (&self.last_entry, entry.leaf) {
            last.write(entry.ticket.index(), &leaf)
                .map_err(Error::LastEntry)?;
        }
        Ok(())
    }

    /// Hands an event to the journal and takes it into the state, under the caller's lock, so that the
    /// order of entries is the order of decisions.
    fn append(&self, state: &mut State, now: SystemTime, event: Event) -> Result<Appended, Error> {
        let leaf = entry::encode(now, event.clone());
        let hash = self
            .last_entry
            .as_ref()
            .map(|_| hsm_journal::leaf_hash(&leaf));
        let change = state.plan(event).map_err(Error::Internal)?;
        let ticket = self.journal.append(leaf)?;
        state.commit(ticket.index(), &entry::wall_clock(now), hash, change);
        Ok(Appended { ticket, leaf: hash })
    }

    fn meters(&self) -> Result<MutexGuard<'_, Meters>, Error> {
        self.rises
            .lock()
            .map_err(|_| Error::Internal("a thread panicked while it held the meters".to_owned()))
    }

    fn lock(&self) -> Result<MutexGuard<'_, State>, Error> {
        self.state
            .lock()
            .map_err(|_| Error::Internal("a thread panicked while it held the marks".to_owned()))
    }
}
