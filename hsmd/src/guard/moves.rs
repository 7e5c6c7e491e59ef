//! What people bring from outside: officers, other signers' state, recovered keys.

use std::time::SystemTime;

use hsm_policy::cometbft::ChainId;
use hsm_policy::conflict::Outcome;
use hsm_policy::officers::{Officers, RecoverKey, ReplaceJournal, SetOfficers};
use hsm_proto::v1 as wire;
use hsm_proto::v1::entry::Event;

use super::{Error, Guard, Signed, State, entry, officers_to_wire};

impl Guard {
    /// Makes these the deployment's first officers, while it has neither officers nor keys. Durable on
    /// return.
    ///
    /// # Errors
    ///
    /// [`Error::Internal`] where there are some, [`Error::Journal`].
    pub async fn name_officers(&self, officers: &Officers, now: SystemTime) -> Result<(), Error> {
        let set = wire::OfficersSet {
            officers: Some(officers_to_wire(officers)),
            authorisation: None,
        };
        self.record_durably(Event::OfficersSet(set), now).await
    }

    /// Replaces the officers by those that the old ones signed for; tells who signed. Durable on return.
    ///
    /// # Errors
    ///
    /// [`Error::NoOfficers`], [`Error::Officers`], [`Error::Journal`].
    pub async fn set_officers(
        &self,
        signed: &Signed,
        now: SystemTime,
    ) -> Result<Vec<String>, Error> {
        let (entry, signers) = {
            let mut state = self.lock()?;
            let (statement, authorisation) = state.authorise::<SetOfficers>(signed, now)?;
            let signers = authorisation.officers.clone();
            let set = wire::OfficersSet {
                officers: Some(officers_to_wire(&statement.officers()?)),
                authorisation: Some(authorisation),
            };
            let entry = self.append(&mut state, now, Event::OfficersSet(set))?;
            (entry, signers)
        };
        self.settle(entry).await?;
        Ok(signers)
    }

    /// Raises a mark to what another signer's state says, and tells what became of it. Durable on return.
    ///
    /// # Errors
    ///
    /// [`Error::Internal`] where the key is not known on the chain, [`Error::Journal`].
    pub async fn import(
        &self,
        imported: wire::StateImported,
        now: SystemTime,
    ) -> Result<Outcome, Error> {
        let (entry, outcome) = {
            let mut state = self.lock()?;
            not_shared(&state, &imported)?;
            let outcome = state.import_outcome(&imported).map_err(Error::Internal)?;
            let event = Event::StateImported(imported);
            let entry = self.append(&mut state, now, event)?;
            (entry, outcome)
        };
        self.settle(entry).await?;
        Ok(outcome)
    }

    /// Makes a key known that was restored from a backup, at the height that the officers signed for. `check`
    /// holds their statement against what is recovered. Durable on return.
    ///
    /// # Errors
    ///
    /// [`Error::AlreadyKnown`] where the key has a mark, [`Error::NoOfficers`], [`Error::Officers`],
    /// [`Error::Statement`], [`Error::Journal`].
    pub async fn recover(
        &self,
        signed: &Signed,
        check: impl FnOnce(RecoverKey) -> Result<wire::KeyRecovered, Error>,
        now: SystemTime,
    ) -> Result<(), Error> {
        let entry = {
            let mut state = self.lock()?;
            let (statement, authorisation) = state.authorise::<RecoverKey>(signed, now)?;
            let mut recovered = check(statement)?;
            recovered.authorisation = Some(authorisation);
            if let Some(pinned) = &recovered.pinned {
                not_known(&state, pinned)?;
            }
            let event = Event::KeyRecovered(recovered);
            self.append(&mut state, now, event)?
        };
        self.settle(entry).await
    }

    /// Records that a ledger's row waits no more for a signer, as officers signed; tells who did. Durable on return.
    ///
    /// # Errors
    ///
    /// [`Error::NoOfficers`], [`Error::Officers`], [`Error::Journal`].
    pub(crate) async fn replace_journal(
        &self,
        signed: &Signed,
        mut replaced: wire::LedgerJournalReplaced,
        now: SystemTime,
    ) -> Result<Vec<String>, Error> {
        let (entry, signers) = {
            let mut state = self.lock()?;
            let (_, authorisation) = state.authorise::<ReplaceJournal>(signed, now)?;
            let signers = authorisation.officers.clone();
            replaced.authorisation = Some(authorisation);
            let event = Event::LedgerJournalReplaced(replaced);
            let entry = self.append(&mut state, now, event)?;
            (entry, signers)
        };
        self.settle(entry).await?;
        Ok(signers)
    }
}

/// A mark that other signers share is raised in their ledger, and not here alone: it would lie above the row.
fn not_shared(state: &State, imported: &wire::StateImported) -> Result<(), Error> {
    let public_key =
        entry::named_public_key(imported.public_key.clone()).map_err(Error::Internal)?;
    let chain =
        ChainId::new(&imported.chain_id).map_err(|error| Error::Internal(error.to_string()))?;
    if !state.is_in_ledger(&(public_key, chain)) {
        return Ok(());
    }
    Err(Error::Statement(format!(
        "public key {public_key} shares its mark on chain {} through a ledger, where nothing is imported: raise \
         the mark above the file's height with `hsmd key advance`",
        imported.chain_id
    )))
}

/// A recovered key has no journal: where it has a mark, nothing has to be recovered.
fn not_known(state: &State, pinned: &wire::KeyPinned) -> Result<(), Error> {
    let public_key = entry::named_public_key(pinned.public_key.clone()).map_err(Error::Internal)?;
    let (name, chain) = (&pinned.key, &pinned.chain_id);
    if state.makes_checkpoints(&public_key) {
        return Err(Error::AlreadyKnown(format!(
            "public key {public_key} makes the journal's checkpoints, and a key that does never signs for a chain"
        )));
    }
    if state.pinned(name).is_some_and(|known| known != public_key) {
        return Err(Error::AlreadyKnown(format!(
            "key {name} is pinned to another public key: give the recovered one a name of its own"
        )));
    }
    let known = ChainId::new(chain).is_ok_and(|chain| state.mark(&public_key, &chain).is_some());
    match known {
        true => Err(Error::AlreadyKnown(format!(
            "public key {public_key} is known for chain {chain} already: its mark stays as it is, and there is \
             nothing to recover; `hsmd key advance` raises it"
        ))),
        false => Ok(()),
    }
}
