//! Freezes: here at once, and for a key whose mark is shared through a ledger for every signer.

use std::time::SystemTime;

use hsm_device::PublicKey;
use hsm_policy::cometbft::ChainId;
use hsm_policy::officers::Thaw;
use hsm_proto::v1 as wire;

use crate::guard::{self, Freeze, Frozen, Guard, Signed};
use crate::ledger::{self, Ledger};

/// What is kept of a freeze's reason, in characters.
const LONGEST_REASON: usize = 1000;

/// Why a freeze was not made or ended, or not for every signer.
#[derive(Debug, thiserror::Error)]
pub enum FreezeError {
    /// The guard or the journal refuses.
    #[error(transparent)]
    Guard(#[from] guard::Error),
    /// It is frozen here, durably.
    #[error(
        "frozen here, and for the other signers not everything is: the ledger's row of public key {key} on chain \
         {chain} could not be changed: {error}. Freeze it again when the ledger is in order, or freeze it on each of them"
    )]
    HereOnly {
        /// The first key of which it is so; others may be frozen or not.
        key: PublicKey,
        /// Its chain.
        chain: ChainId,
        /// Why.
        error: ledger::Error,
    },
    /// It is as it was here.
    #[error(
        "still frozen here, because the ledger's row could not be changed: {0}. Nothing was used up: thaw it again"
    )]
    StillFrozen(ledger::Error),
}

/// Freezes a key, or every key, in the name of `by`. Durable on return, and for a key that shares its mark in the
/// ledger's row, too.
///
/// # Errors
///
/// [`guard::Error::Statement`] where neither the configuration nor the journal knows the key, [`guard::Error::Journal`];
/// [`FreezeError::HereOnly`].
pub async fn freeze(
    guard: &Guard,
    ledger: &Ledger,
    request: wire::FreezeRequest,
    by: String,
    has_key: impl Fn(&str) -> bool,
) -> Result<(), FreezeError> {
    let wire::FreezeRequest { key, all, reason } = request;
    let frozen = match (key.as_str(), all) {
        ("", true) => Frozen::All,
        (name, false) if has_key(name) || guard.pinned(name)?.is_some() => Frozen::Key(key),
        (_, true) => {
            return Err(FreezeError::Guard(guard::Error::Statement(
                "either one key is frozen, or all of them".to_owned(),
            )));
        }
        (name, false) => {
            return Err(FreezeError::Guard(guard::Error::Statement(format!(
                "neither the configuration nor the journal has a key {name:?}: to be sure, `hsmd freeze --all`"
            ))));
        }
    };
    let reason: String = reason.chars().take(LONGEST_REASON).collect();
    let for_others = ledger::freeze_reason(&by, &reason);
    let freeze = Freeze { by, reason };
    guard
        .freeze(&frozen, freeze.clone(), SystemTime::now())
        .await?;
    let _alone = ledger.freezing().await;
    // A thaw that was under way ended it.
    if !guard.inspect(|state| state.freezes().any(|(known, _)| *known == frozen))? {
        guard.freeze(&frozen, freeze, SystemTime::now()).await?;
    }
    // One row that cannot be changed keeps no other from being frozen.
    let mut failed = Ok(());
    for place in guard.inspect(|state| state.shared_under(&frozen))? {
        if let Err(error) = ledger.freeze(guard, &place, &for_others).await {
            let (key, chain) = place;
            failed = failed.and(Err(FreezeError::HereOnly { key, chain, error }));
        }
    }
    failed
}

/// Ends a freeze that officers signed for. Durable on return. The ledger's rows come first: should one not be changed,
/// the freeze stays and the document may be used again.
///
/// # Errors
///
/// As [`Guard::thaw`]; [`FreezeError::StillFrozen`].
pub async fn thaw(
    guard: &Guard,
    ledger: &Ledger,
    signed: &Signed,
) -> Result<wire::ThawResponse, FreezeError> {
    let _alone = ledger.freezing().await;
    let now = SystemTime::now();
    let (statement, _) = guard.inspect(|state| state.authorise::<Thaw>(signed, now))??;
    let frozen = Frozen::named(&statement.key);
    for place in guard.inspect(|state| state.shared_and_only_under(&frozen))? {
        let thawed = ledger.thaw(guard, &place).await;
        thawed.map_err(FreezeError::StillFrozen)?;
    }
    let (frozen, signers) = guard.thaw(signed, now).await?;
    let key = frozen.name().to_owned();
    Ok(wire::ThawResponse { key, signers })
}
