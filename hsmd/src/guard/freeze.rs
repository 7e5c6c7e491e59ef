//! Keys that sign nothing until officers say so. Whoever operates freezes, at once and alone.
//!
//! A freeze here holds in this deployment; `crate::moves` has it written into the row of a ledger, for the other signers.

use std::time::SystemTime;

use hsm_policy::officers::Thaw;
use hsm_proto::v1 as wire;
use hsm_proto::v1::entry::Event;

use super::state::{Freeze, Frozen};
use super::{Ask, Error, Guard, Signed, State};

impl Guard {
    /// From the moment of this call on no further signature is reserved, nor given again. Durable on return.
    ///
    /// # Errors
    ///
    /// [`Error::Journal`]; until the next start it is frozen all the same.
    pub async fn freeze(
        &self,
        frozen: &Frozen,
        freeze: Freeze,
        now: SystemTime,
    ) -> Result<(), Error> {
        let event = Event::Frozen(wire::Frozen {
            key: frozen.name().to_owned(),
            by: freeze.by,
            reason: freeze.reason,
        });
        self.record_durably(event, now).await
    }

    /// Ends the freeze that officers signed for; tells what it was and who signed. Durable on return.
    ///
    /// # Errors
    ///
    /// [`Error::NoOfficers`], [`Error::Officers`], [`Error::Statement`] where it is not frozen, [`Error::Journal`].
    pub async fn thaw(
        &self,
        signed: &Signed,
        now: SystemTime,
    ) -> Result<(Frozen, Vec<String>), Error> {
        let (entry, frozen, signers) = {
            let mut state = self.lock()?;
            let (statement, authorisation) = state.authorise::<Thaw>(signed, now)?;
            let frozen = Frozen::named(&statement.key);
            if !state.freezes().any(|(known, _)| *known == frozen) {
                return Err(Error::Statement(match &frozen {
                    Frozen::All => "not all keys are frozen: see `hsmd status`".to_owned(),
                    Frozen::Key(key) => format!(
                        "key {key} is not frozen here: see `hsmd status`. Where another signer of its ledger froze it, \
                         thaw it there, or freeze it here first"
                    ),
                }));
            }
            let signers = authorisation.officers.clone();
            let event = Event::Thawed(wire::Thawed {
                key: statement.key,
                authorisation: Some(authorisation),
            });
            let entry = self.append(&mut state, now, event)?;
            (entry, frozen, signers)
        };
        self.settle(entry).await?;
        Ok((frozen, signers))
    }
}

/// Under the lock under which it would be reserved.
pub(super) fn refuse_frozen(state: &State, ask: Ask<'_>) -> Result<(), Error> {
    match state.frozen(ask.key, ask.public_key) {
        None => Ok(()),
        Some(freeze) => Err(Error::Frozen {
            key: ask.key.to_owned(),
            by: freeze.by.clone(),
        }),
    }
}
