//! The guard's part in the rollback anchor: ceilings are checked, journaled and put in force under its one lock.
//!
//! An advance has two halves. [`Guard::begin_advance`] journals the next counter and the ceilings; once the anchor
//! was moved, [`Guard::finish_advance`] puts them in force. Until then the ceilings before hold.

use std::time::SystemTime;

use hsm_device::{Identity, PublicKey};
use hsm_journal::Ticket;
use hsm_policy::cometbft::ChainId;
use hsm_policy::officers::{AcceptTail, RebindAnchor};
use hsm_proto::v1 as wire;
use hsm_proto::v1::entry::Event;
use tokio::sync::{Notify, watch};

use super::state::{ChainMark, State};
use super::{Error, Guard, LastEntry, Signed, Tail, entry};

/// How the guard asks for an advance, and hears how it went.
pub(super) struct Advances {
    wanted: Notify,
    ended: watch::Sender<Option<String>>,
}

impl Default for Advances {
    fn default() -> Self {
        Self {
            wanted: Notify::new(),
            ended: watch::Sender::new(None),
        }
    }
}

impl Advances {
    pub(super) fn subscribe(&self) -> watch::Receiver<Option<String>> {
        self.ended.subscribe()
    }

    /// Waits for the end of the next advance.
    pub(super) async fn next(
        &self,
        mut ended: watch::Receiver<Option<String>>,
    ) -> Result<(), Error> {
        self.wanted.notify_one();
        // The sender lives as long as the guard.
        let _ = ended.changed().await;
        match ended.borrow().clone() {
            Some(fault) => Err(Error::Anchor(fault)),
            None => Ok(()),
        }
    }
}

/// How an advance ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Signing goes on, up to this many heights above each mark.
    Open(i64),
    /// Nothing is signed any more.
    Seal,
}

/// Why a height may not be signed at present.
pub(super) enum Outside {
    Floor(i64),
    Ceiling(Option<i64>),
}

impl State {
    /// Whether a key may sign at a height on a chain, as far as the anchor is concerned.
    pub(super) fn within_bounds(&self, known: &ChainMark, height: i64) -> Result<(), Outside> {
        let bounds = &known.bounds;
        if height <= bounds.floor {
            return Err(Outside::Floor(bounds.floor));
        }
        match bounds.in_force {
            _ if self.anchor().is_none() => Ok(()),
            Some(ceiling) if height <= ceiling => Ok(()),
            ceiling => Err(Outside::Ceiling(ceiling)),
        }
    }

    /// Whether some mark has fewer than `spare` heights left.
    fn runs_short(&self, spare: i64) -> bool {
        let short = |known: &ChainMark| {
            let left = |ceiling: i64| ceiling.saturating_sub(reached(known));
            !waits(known)
                && known
                    .bounds
                    .in_force
                    .is_none_or(|ceiling| left(ceiling) < spare)
        };
        self.anchor().is_some() && self.places().any(|(_, known)| short(known))
    }

    fn ceilings(&self, window: i64) -> Vec<wire::Ceiling> {
        let ceilings = self.places().map(|((key, chain), known)| {
            let opened = match waits(known) {
                true => 0,
                false => reached(known).saturating_add(window),
            };
            wire::Ceiling {
                public_key: Some(entry::public_key_to_wire(&key)),
                chain_id: chain.to_string(),
                height: opened.max(known.bounds.ceiling),
            }
        });
        ceilings.collect()
    }
}

/// The height from which on a key may sign, if not above it.
fn reached(known: &ChainMark) -> i64 {
    let bounds = &known.bounds;
    known.mark.height().max(bounds.floor).max(bounds.wanted)
}

/// After an end that is not proven, a key's next heights are opened when they are asked for: a computer that starts
/// over and over neither wears the anchor nor moves the floor.
fn waits(known: &ChainMark) -> bool {
    let bounds = &known.bounds;
    let doubted = bounds.floor > 0 && bounds.ceiling <= bounds.floor;
    doubted && bounds.wanted == 0 && known.mark.height() <= bounds.floor
}

impl Guard {
    /// Writes the last entry that a reply relies on into this file before each reply.
    #[must_use]
    pub fn with_last_entry(mut self, last: LastEntry) -> Self {
        self.last_entry = Some(last);
        self
    }

    /// Whether an advance is due: some mark has fewer than `spare` heights left.
    ///
    /// # Errors
    ///
    /// [`Error::Internal`] after a fault of ours.
    pub fn advance_is_due(&self, spare: i64) -> Result<bool, Error> {
        Ok(self.lock()?.runs_short(spare))
    }

    /// Returns when a request waits for an advance.
    pub async fn advance_wanted(&self) {
        self.advances.wanted.notified().await;
    }

    /// Tells the requests that wait how an advance ended.
    pub fn advance_ended(&self, fault: Option<String>) {
        self.advances.ended.send_replace(fault);
    }

    /// Journals the next advance; returns its counter, and where its entry stands, which must be durable before the
    /// anchor is moved. After [`Purpose::Seal`] nothing is reserved any more.
    ///
    /// # Errors
    ///
    /// [`Error::Journal`] where the journal takes no entry.
    pub fn begin_advance(&self, purpose: Purpose, now: SystemTime) -> Result<(u64, Ticket), Error> {
        let mut state = self.lock()?;
        let anchor = state.anchor();
        let anchor = anchor.ok_or_else(|| Error::Internal("an advance of no anchor".to_owned()))?;
        let counter = anchor.counter.saturating_add(1);
        let (sealed, ceilings) = match purpose {
            Purpose::Open(window) => (false, state.ceilings(window)),
            Purpose::Seal => (true, Vec::new()),
        };
        let event = Event::AnchorAdvanced(wire::AnchorAdvanced {
            counter,
            sealed,
            ceilings,
        });
        let entry = self.append(&mut state, now, event)?;
        Ok((counter, entry.ticket))
    }

    /// The anchor has been moved to `counter`: what the journal says of that advance is in force.
    ///
    /// # Errors
    ///
    /// [`Error::Internal`] after a fault of ours.
    pub fn finish_advance(&self, counter: u64) -> Result<(), Error> {
        let mut state = self.lock()?;
        let in_step = state
            .anchor()
            .is_some_and(|anchor| anchor.counter == counter && !anchor.sealed);
        if in_step {
            state.put_in_force(counter);
        }
        Ok(())
    }

    /// Takes every ceiling for signed, since nothing proves that the journal, which is `tail`, holds all that was.
    /// Durable on return.
    ///
    /// # Errors
    ///
    /// [`Error::Journal`] where that could not be made durable.
    pub async fn doubt(&self, tail: &Tail, now: SystemTime) -> Result<(), Error> {
        let event = Event::TailUnproven(wire::TailUnproven {
            size: tail.size,
            root: tail.root.to_vec(),
        });
        self.record_durably(event, now).await
    }

    /// Takes the floors back that [`Self::doubt`] raised, where officers signed that the tail which was found then is
    /// whole; tells who signed. Durable on return.
    ///
    /// # Errors
    ///
    /// [`Error::NoOfficers`], [`Error::Officers`]; [`Error::NotThatTail`] where another tail or none is in doubt.
    pub async fn accept_tail(
        &self,
        signed: &Signed,
        now: SystemTime,
    ) -> Result<Vec<String>, Error> {
        let (entry, signers) = {
            let mut state = self.lock()?;
            let (statement, authorisation) = state.authorise::<AcceptTail>(signed, now)?;
            let found = state.unproven();
            let tail = found.filter(|tail| {
                tail.size == statement.size && hex::encode(tail.root) == statement.root
            });
            let tail = tail.ok_or_else(|| Error::NotThatTail {
                asked: statement.size,
                found: found.map(|tail| tail.size),
            })?;
            let signers = authorisation.officers.clone();
            let event = Event::TailAccepted(wire::TailAccepted {
                size: tail.size,
                root: tail.root.to_vec(),
                authorisation: Some(authorisation),
            });
            let entry = self.append(&mut state, now, event)?;
            (entry, signers)
        };
        self.settle(entry).await?;
        Ok(signers)
    }

    /// Binds the journal to another anchor of this kind, whose counter stands at `counter`, or to "none", where
    /// officers signed for that; tells who signed. Durable on return.
    ///
    /// # Errors
    ///
    /// [`Error::NoOfficers`], [`Error::Officers`]; [`Error::Statement`] where they signed for something else.
    pub async fn bind_anchor(
        &self,
        kind: &str,
        counter: u64,
        signed: &Signed,
        now: SystemTime,
    ) -> Result<Vec<String>, Error> {
        let (entry, signers) = {
            let mut state = self.lock()?;
            let authorisation = Self::allow_binding(&state, kind, signed, now)?;
            let signers = authorisation.officers.clone();
            let event = Event::AnchorBound(wire::AnchorBound {
                kind: kind.to_owned(),
                counter,
                authorisation: Some(authorisation),
            });
            let entry = self.append(&mut state, now, event)?;
            (entry, signers)
        };
        self.settle(entry).await?;
        Ok(signers)
    }

    /// Whether officers signed for binding the journal as it is to an anchor of this kind.
    ///
    /// # Errors
    ///
    /// As [`Self::bind_anchor`].
    pub fn may_bind_anchor(
        &self,
        kind: &str,
        signed: &Signed,
        now: SystemTime,
    ) -> Result<(), Error> {
        Self::allow_binding(&*self.lock()?, kind, signed, now).map(drop)
    }

    fn allow_binding(
        state: &State,
        kind: &str,
        signed: &Signed,
        now: SystemTime,
    ) -> Result<wire::Authorisation, Error> {
        let (statement, authorisation) = state.authorise::<RebindAnchor>(signed, now)?;
        let (from, counter) = state
            .anchor()
            .map_or(("none", 0), |anchor| (anchor.kind.as_str(), anchor.counter));
        if (
            statement.from.as_str(),
            statement.counter,
            statement.to.as_str(),
        ) != (from, counter, kind)
        {
            return Err(Error::Statement(format!(
                "officers signed for binding from {} at {} to {}, and it is from {from} at {counter} to {kind}: \
                 request a document here, with `hsmd state request rebind-anchor`",
                statement.from, statement.counter, statement.to
            )));
        }
        Ok(authorisation)
    }

    /// Makes a further device known that shows the key's public key, or another one under a name that is known.
    /// Durable on return.
    ///
    /// # Errors
    ///
    /// [`Error::NotInitialised`] where the key is not known.
    pub async fn add_device(
        &self,
        key: &str,
        public_key: &PublicKey,
        device: &str,
        identity: &Identity,
        now: SystemTime,
    ) -> Result<(), Error> {
        let event = Event::DeviceAdded(wire::DeviceAdded {
            key: key.to_owned(),
            public_key: Some(entry::public_key_to_wire(public_key)),
            device: Some(entry::identity_to_wire(device, identity)),
        });
        self.record_durably(event, now).await
    }

    /// Notes that a height was asked for above the ceiling, so that the next advance opens it.
    pub(super) fn want(state: &mut State, key: &PublicKey, chain: &ChainId, height: i64) {
        if let Some(known) = state.at(&(*key, chain.clone())) {
            known.bounds.wanted = known.bounds.wanted.max(height);
        }
    }
}
