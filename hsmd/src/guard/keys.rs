//! Making keys known, and raising the height below which they sign nothing.

use std::time::SystemTime;

use hsm_device::{Identity, PublicKey};
use hsm_policy::cometbft::ChainId;
use hsm_policy::conflict::Mark;
use hsm_proto::v1 as wire;
use hsm_proto::v1::entry::Event;

use super::{Error, Guard, State, entry};

impl Guard {
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
        let place = (public_key, chain);
        self.pin_shared(name, place, initial_height, devices, None, now)
            .await
    }

    /// The same, with the row through which the mark is shared from the beginning.
    ///
    /// # Errors
    ///
    /// As [`Self::pin`].
    pub(crate) async fn pin_shared(
        &self,
        name: &str,
        (public_key, chain): (&PublicKey, &ChainId),
        initial_height: i64,
        devices: Vec<(String, Option<Identity>)>,
        ledger: Option<wire::LedgerMark>,
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
            ledger,
        });
        let entry = {
            let mut state = self.lock()?;
            refuse_known(&state, name, public_key, chain)?;
            if state.makes_checkpoints(public_key) {
                return Err(Error::AlreadyKnown(format!(
                    "public key {public_key} makes the journal's checkpoints, and a key that does never \
                     signs for a chain: make another key for {name}"
                )));
            }
            self.append(&mut state, now, event)?
        };
        self.settle(entry).await
    }

    /// Whether a key could be made known: what has to be found out before a ledger is touched for it.
    ///
    /// # Errors
    ///
    /// [`Error::AlreadyKnown`].
    pub(crate) fn refuse_known(
        &self,
        name: &str,
        public_key: &PublicKey,
        chain: &ChainId,
    ) -> Result<(), Error> {
        refuse_known(&*self.lock()?, name, public_key, chain)
    }

    /// Binds a known key to a ledger whose row has this mark. Durable on return. False where the key's own mark,
    /// or its floor, is no longer covered by it; nothing is changed then. Where there is a rollback anchor, the key signs
    /// nothing until that was advanced.
    ///
    /// # Errors
    ///
    /// [`Error::Journal`].
    pub(crate) async fn bind(
        &self,
        (public_key, chain): &(PublicKey, ChainId),
        row: &Mark,
        seen: wire::LedgerMark,
        now: SystemTime,
    ) -> Result<bool, Error> {
        let entry = {
            let mut state = self.lock()?;
            let known = state.mark(public_key, chain);
            if !known.is_some_and(|known| row.covers(&known.shared_mark())) {
                return Ok(false);
            }
            self.append(&mut state, now, Event::LedgerBound(seen))?
        };
        self.settle(entry).await?;
        Ok(true)
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
        let entry = {
            let mut state = self.lock()?;
            let public_key = state.pinned(name);
            let known = public_key
                .as_ref()
                .and_then(|public_key| state.mark(public_key, chain));
            let (Some(public_key), Some(known)) = (public_key, known) else {
                let (key, chain) = (name.to_owned(), chain.to_string());
                return Err(Error::NotInitialised { key, chain });
            };
            if known.ledger.is_some() {
                let (key, chain) = (name.to_owned(), chain.to_string());
                return Err(Error::LedgerFirst { key, chain });
            }
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
            self.append(&mut state, now, event)?
        };
        self.settle(entry).await
    }

    /// The public key that a name was pinned to.
    ///
    /// # Errors
    ///
    /// [`Error::Internal`] after a fault of ours.
    pub fn pinned(&self, name: &str) -> Result<Option<PublicKey>, Error> {
        Ok(self.lock()?.pinned(name))
    }
}

fn refuse_known(
    state: &State,
    name: &str,
    public_key: &PublicKey,
    chain: &ChainId,
) -> Result<(), Error> {
    if let Some(known) = state.pinned(name)
        && known != *public_key
    {
        return Err(Error::AlreadyKnown(format!(
            "key {name} is pinned to public key {known}, and the device shows {public_key}: give the \
             new key a name of its own"
        )));
    }
    if let Some(known) = state.mark(public_key, chain) {
        let names = state.key(public_key).map(|key| key.names.join(", "));
        return Err(Error::AlreadyKnown(format!(
            "public key {public_key} is known for chain {chain} already, as {}, with {}: its mark \
             stays as it is",
            names.unwrap_or_default(),
            known.mark.last.as_ref().map_or_else(
                || format!("nothing signed above height {}", known.mark.initial_height),
                |last| format!("{} reserved last", last.position),
            ),
        )));
    }
    Ok(())
}
