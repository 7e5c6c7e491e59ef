//! The ledger: marks that several signers of one key share, one row for a (public key, chain id) in etcd.
//!
//! The row is changed to a message, by compare-and-swap over its whole value, before the message is reserved in
//! the journal; the loser of a race takes the winner's row into its journal, and the guard judges by that. Per row
//! one request is under way in this process at a time, so that the order in etcd is the journal's. The guard's
//! own lock is never held while etcd is waited for.

mod asking;
mod etcd;
mod freeze;
mod member;
#[cfg(test)]
mod model;
mod reconcile;
mod replace;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use hsm_device::PublicKey;
use hsm_policy::cometbft::ChainId;
use hsm_policy::conflict::{self, Conflict, Mark, Verdict};
use hsm_proto::v1 as wire;
use hsm_proto::v1::entry::Event;
use tokio::time::Instant;

pub(crate) use etcd::client_config;
pub use etcd::{Answer, Etcd, Swapped, Unavailable};
pub use freeze::freeze_reason;

use crate::config;
use crate::guard::entry::public_key_to_wire;
use crate::guard::ledger::{Binding, Cleared, Doubt, Id, Row, Seen};
use crate::guard::{self, Ask, ChainMark, Guard, Reservation};
use crate::metrics::Metrics;

/// How often rows that others may have changed are looked at.
const FOLLOW: Duration = Duration::from_secs(1);
/// How long a look, or what an operator asks for, may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why the ledger gave no way.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The guard or the journal refuses.
    #[error(transparent)]
    Guard(#[from] guard::Error),
    /// No quorum, no connection, or no time.
    #[error("the ledger cannot be asked: {0}")]
    Unavailable(#[from] Unavailable),
    /// The key is bound to a ledger, or is to be, and there is no way to it.
    #[error("the configuration has no [ledger]: write the endpoints of etcd, and restart hsmd")]
    NotConfigured,
    /// It is not signed by.
    #[error("{0}")]
    Doubt(#[from] Doubt),
    /// A ledger is to be made, joined or changed where that cannot be.
    #[error("{0}")]
    Refused(String),
}

/// A key on a chain.
type Place = (PublicKey, ChainId);

/// The way to the ledgers of all keys.
pub struct Ledger {
    etcd: Option<Etcd>,
    signer: Id,
    metrics: Option<Metrics>,
    slots: Mutex<HashMap<Place, Arc<tokio::sync::Mutex<Slot>>>>,
    /// See [`Ledger::freezing`].
    freezing: tokio::sync::Mutex<()>,
}

/// What this process knows of a row. Whoever holds it is alone with the row in this process.
#[derive(Default)]
struct Slot {
    /// The row as it was last seen or written; `None` where that is not known.
    value: Option<Vec<u8>>,
    /// The highest revision seen.
    revision: u64,
}

impl Ledger {
    /// The way to the ledgers, in the name of the deployment whose journal `guard` keeps. Connects to nothing yet.
    /// An answer may take until `patience` is over.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] where a file of the configuration cannot be used, [`Error::Guard`] after a fault of ours.
    pub fn new(
        config: Option<&config::Ledger>,
        guard: &Guard,
        patience: Duration,
    ) -> Result<Self, Error> {
        let connect = |config: &config::Ledger| {
            Etcd::new(&config.endpoints, &config.files, patience)
                .map_err(|fault| Error::Refused(format!("[ledger]: {fault}")))
        };
        let signer = guard.inspect(|state| Id::new(state.deployment_id()))?;
        Ok(Self {
            etcd: config.map(connect).transpose()?,
            signer: signer.map_err(guard::Error::Internal)?,
            metrics: None,
            slots: Mutex::default(),
            freezing: tokio::sync::Mutex::default(),
        })
    }

    /// Has these metrics tell how etcd answers.
    #[must_use]
    pub fn with_metrics(mut self, metrics: &Metrics) -> Self {
        self.metrics = Some(metrics.clone());
        self
    }

    /// As [`Guard::reserve`]. For a key that is bound to a ledger, the row there holds the message first; what was
    /// given before and needs no device is given again without asking.
    ///
    /// # Errors
    ///
    /// See [`Error`]. After [`Error::Unavailable`] the same request may be sent again.
    pub(crate) async fn reserve(
        &self,
        guard: &Guard,
        ask: Ask<'_>,
        now: SystemTime,
        deadline: Instant,
    ) -> Result<Reservation, Error> {
        let place = (*ask.public_key, ask.message.chain_id().clone());
        match guard.reserve(ask, now).await {
            Err(guard::Error::LedgerFirst { .. }) => {}
            // Another signer may be further.
            Err(guard::Error::Conflict {
                conflict: Conflict::HeightJump { .. },
                ..
            }) if guard.inspect(|state| state.is_in_ledger(&place))? => {}
            decided => return Ok(decided?),
        }
        // Before the caller's own time is over, so that it is told what is missing.
        let left = deadline.saturating_duration_since(Instant::now());
        let deadline = deadline - left / 8;
        let slot = self.slot(&place);
        let mut slot = lock(&slot, deadline).await?;
        let cleared = self
            .clear(guard, &place, &mut slot, (ask, now), deadline)
            .await?;
        Ok(guard.reserve_cleared(ask, cleared, now).await?)
    }

    /// Returns when the row holds the message, or when this journal holds what the guard refuses it by: no proof then.
    async fn clear(
        &self,
        guard: &Guard,
        place: &Place,
        slot: &mut Slot,
        (ask, now): (Ask<'_>, SystemTime),
        deadline: Instant,
    ) -> Result<Option<Cleared>, Error> {
        let key = row_key(place);
        let mut fresh = false;
        loop {
            let Some(value) = slot.value.clone() else {
                let answer = self.read(&key, deadline).await?;
                take(guard, place, slot, answer).await?;
                fresh = true;
                continue;
            };
            let (mark, binding) = bound(guard, place)?;
            if binding.frozen.is_some() {
                // The guard refuses by it.
                return Ok(None);
            }
            let row = Row::decode(&value).map_err(guard::Error::Internal)?;
            if row.mark != mark {
                // The row was changed in our name, and the journal took no entry then.
                slot.value = None;
                continue;
            }
            let cleared = |slot: &Slot| {
                Some(Cleared {
                    generation: binding.generation,
                    revision: slot.revision,
                })
            };
            let next = match conflict::judge(&mark, ask.message, ask.max_height_jump) {
                Ok(Verdict::Sign) => row.with_message(ask.message),
                Ok(Verdict::ExtensionAnew) => row.with_extension(ask.message),
                // What is signed again stands in the row at this moment; and another signer may be further.
                Ok(Verdict::Repeat) | Err(Conflict::HeightJump { .. }) if !fresh => {
                    slot.value = None;
                    continue;
                }
                Ok(Verdict::Repeat) => return Ok(cleared(slot)),
                // The guard comes to the same conflict.
                Err(_) => return Ok(None),
            };
            // What is refused here for another reason than the ledger's never stands in the row: it would raise the mark
            // of all signers, and be charged to nobody.
            let decided = guard.reserve(ask, now).await;
            if !matches!(decided, Err(guard::Error::LedgerFirst { .. })) {
                return Ok(None);
            }
            match self
                .swap(&key, Some(&value), next.encode(), deadline)
                .await?
            {
                Swapped::Done(answer) => {
                    let (seen, value) = seen(answer)?;
                    doubted(
                        guard,
                        place,
                        slot,
                        binding.judge(&mark, slot.revision, &seen),
                    )
                    .await?;
                    slot.value = value;
                    slot.revision = seen.revision;
                    return Ok(cleared(slot));
                }
                Swapped::Not(answer) => {
                    take(guard, place, slot, answer).await?;
                    fresh = true;
                }
            }
        }
    }

    /// Looks at the rows of all bound keys once a second, until `done`: what another signer reserved is journaled
    /// here before this one is asked, so that a ledger that goes back is found out.
    pub async fn follow(&self, guard: &Guard, done: impl Future<Output = ()>) {
        let mut done = std::pin::pin!(done);
        let mut tick = tokio::time::interval(FOLLOW);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        // Whether what was said of a ledger last is that it is doubted, or only that it does not answer.
        let mut faults: HashMap<Place, bool> = HashMap::new();
        loop {
            tokio::select! {
                () = &mut done => return,
                _ = tick.tick() => {}
            }
            for place in places(guard) {
                let looked = tokio::select! {
                    () = &mut done => return,
                    looked = self.look(guard, &place) => looked,
                };
                let (key, chain) = (&place.0, &place.1);
                match looked {
                    Some(Ok(())) if faults.remove(&place).is_some() => {
                        tracing::info!(%key, %chain, "the ledger is in order again");
                    }
                    None | Some(Ok(())) => {}
                    Some(Err(error)) => {
                        let is_doubted = matches!(error, Error::Doubt(_));
                        if faults.insert(place.clone(), is_doubted) != Some(is_doubted) {
                            tracing::error!(%key, %chain, %error, "the ledger is not in order");
                        }
                    }
                }
            }
        }
    }

    /// `None` where somebody else is at the row, who looks at it himself.
    async fn look(&self, guard: &Guard, place: &Place) -> Option<Result<(), Error>> {
        let slot = self.slot(place);
        let mut slot = slot.try_lock().ok()?;
        let looked = self.refresh(guard, place, &mut slot).await;
        self.looked(guard, place, looked.as_ref().err());
        Some(looked)
    }

    async fn refresh(&self, guard: &Guard, place: &Place, slot: &mut Slot) -> Result<(), Error> {
        let deadline = Instant::now() + PATIENCE;
        let answer = self.read(&row_key(place), deadline).await?;
        take(guard, place, slot, answer).await
    }

    fn etcd(&self) -> Result<&Etcd, Error> {
        self.etcd.as_ref().ok_or(Error::NotConfigured)
    }

    fn slot(&self, place: &Place) -> Arc<tokio::sync::Mutex<Slot>> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        slots.entry(place.clone()).or_default().clone()
    }
}

async fn lock(
    slot: &tokio::sync::Mutex<Slot>,
    deadline: Instant,
) -> Result<tokio::sync::MutexGuard<'_, Slot>, Unavailable> {
    let locked = tokio::time::timeout_at(deadline, slot.lock()).await;
    locked.map_err(|_| Unavailable("another request for the key waits for it".to_owned()))
}

/// Takes in what etcd answered: journaled, durably, where it is news; refused where it is not to be trusted.
async fn take(guard: &Guard, place: &Place, slot: &mut Slot, answer: Answer) -> Result<(), Error> {
    slot.value = None;
    let (mark, binding) = bound(guard, place)?;
    let (seen, value) = seen(answer)?;
    let judged = binding.judge(&mark, slot.revision, &seen);
    let row = doubted(guard, place, slot, judged).await?;
    let signer = guard.inspect(|state| Id::new(state.deployment_id()))?;
    let signer = signer.map_err(guard::Error::Internal)?;
    if row.lost.contains(&signer) {
        return Err(Doubt::Lost { signer }.into());
    }
    if binding.is_news(&mark, &row) {
        let event = Event::LedgerSeen(ledger_mark(place, &row, &seen));
        guard.record_durably(event, SystemTime::now()).await?;
    }
    slot.value = value;
    slot.revision = seen.revision;
    Ok(())
}

/// A ledger that went back is not trusted again because it has caught up: that stands in the journal.
async fn doubted(
    guard: &Guard,
    place: &Place,
    slot: &mut Slot,
    judged: Result<Row, Doubt>,
) -> Result<Row, Error> {
    let doubt = match judged {
        Ok(row) => return Ok(row),
        Err(doubt) => doubt,
    };
    slot.value = None;
    if let Doubt::WentBack(reason) = &doubt {
        let event = Event::LedgerDistrusted(wire::LedgerDistrusted {
            public_key: Some(public_key_to_wire(&place.0)),
            chain_id: place.1.to_string(),
            reason: reason.clone(),
        });
        guard.record_durably(event, SystemTime::now()).await?;
    }
    Err(doubt.into())
}

/// The mark in the journal, and the ledger that it is bound to and that is trusted.
fn bound(guard: &Guard, place: &Place) -> Result<(Mark, Binding), Error> {
    let (mark, binding) = known(guard, place)?
        .and_then(|(mark, binding)| Some((mark, binding?)))
        .ok_or_else(|| guard::Error::Internal("a key without a ledger".to_owned()))?;
    match binding.distrusted {
        Some(reason) => Err(Doubt::WentBack(reason).into()),
        None => Ok((mark, binding)),
    }
}

/// The mark that a key is bound at.
fn shared(guard: &Guard, (key, chain): &Place) -> Result<Option<Mark>, Error> {
    let mark = guard.inspect(|state| state.mark(key, chain).map(ChainMark::shared_mark))?;
    Ok(mark)
}

fn known(guard: &Guard, (key, chain): &Place) -> Result<Option<(Mark, Option<Binding>)>, Error> {
    let known = guard.inspect(|state| {
        let known = state.mark(key, chain)?;
        Some((known.mark.clone(), known.ledger.as_deref().cloned()))
    })?;
    Ok(known)
}

/// All keys that are bound to a ledger.
fn places(guard: &Guard) -> Vec<Place> {
    guard.inspect(guard::State::in_ledgers).unwrap_or_default()
}

fn seen(answer: Answer) -> Result<(Seen, Option<Vec<u8>>), Doubt> {
    let row = answer.value.as_deref().map(Row::decode).transpose();
    let seen = Seen {
        cluster_id: answer.cluster_id,
        revision: answer.revision,
        row: row.map_err(Doubt::Another)?,
    };
    Ok((seen, answer.value))
}

fn ledger_mark((key, chain): &Place, row: &Row, seen: &Seen) -> wire::LedgerMark {
    wire::LedgerMark {
        public_key: Some(public_key_to_wire(key)),
        chain_id: chain.to_string(),
        row: Some(row.to_wire()),
        cluster_id: seen.cluster_id,
        revision: seen.revision,
    }
}

/// As `hsm/v1/ledger.proto` has it.
fn row_key((key, chain): &Place) -> Vec<u8> {
    let (algorithm, bytes) = (key.algorithm(), hex::encode(key.as_bytes()));
    format!("hsmd/v1/{algorithm}/{bytes}/{chain}").into_bytes()
}
