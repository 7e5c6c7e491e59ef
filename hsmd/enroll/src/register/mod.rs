//! The register: tokens, nodes and revocations. It is what replaying the journal yields, and one lock stands over
//! check and update; an act is answered once its entry is durable.

mod snapshot;
mod state;
#[cfg(test)]
mod tests;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use hsm_journal::{Journal, Ticket};
use hsm_policy::identity::TrustDomain;
use hsm_proto::v1 as wire;
use hsm_proto::v1::Reason;
use hsm_proto::v1::register_entry::Event;
use prost::Message as _;

use crate::Refusal;
pub use snapshot::to_wire;
pub use state::{Grantee, Node, State};

/// Refusals that are recorded one by one in [`REFUSALS_WITHIN`]; what is more is counted, so that strangers fill the disk
/// slowly, and whoever watches sees it.
const MOST_REFUSALS: u32 = 100;
const REFUSALS_WITHIN: Duration = Duration::from_secs(60);

/// The tokens, nodes and revocations, and the journal behind them.
pub struct Register {
    state: Mutex<State>,
    journal: Journal,
    refusals: Mutex<Recorded>,
}

/// How many refusals were recorded since when, and how many were not.
struct Recorded {
    since: Instant,
    recorded: u32,
    more: u64,
}

/// The entries and the state of a new register.
#[must_use]
pub fn creation(trust_domain: &TrustDomain) -> (Vec<u8>, Vec<u8>) {
    use hsm_journal::State as _;
    let created = wire::RegisterCreated {
        trust_domain: trust_domain.to_string(),
    };
    let snapshot = State::new(trust_domain.clone()).snapshot();
    (snapshot, encode(SystemTime::now(), Event::Created(created)))
}

impl Register {
    /// A register over an opened journal and what its replay yielded.
    #[must_use]
    pub fn new(opened: hsm_journal::Opened<State>) -> Self {
        Self {
            state: Mutex::new(opened.state),
            journal: opened.journal,
            refusals: Mutex::new(Recorded {
                since: Instant::now(),
                recorded: 0,
                more: 0,
            }),
        }
    }

    /// Looks at the state.
    pub fn inspect<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.lock())
    }

    /// Has `decide` look at the state and say what happens, makes it happen under the same lock, and returns the
    /// entry's index once it is durable.
    ///
    /// # Errors
    /// What `decide` says; [`Reason::JournalUnavailable`], where the act may still become durable, and is in force.
    pub async fn act(
        &self,
        now: SystemTime,
        decide: impl FnOnce(&State) -> Result<Event, Refusal>,
    ) -> Result<u64, Refusal> {
        let ticket = self.append(now, decide)?;
        self.journal.durable(ticket).await?;
        Ok(ticket.index())
    }

    /// Returns when the entry with this index is durable.
    ///
    /// # Errors
    /// [`Reason::JournalUnavailable`].
    pub async fn durable(&self, index: u64) -> Result<(), Refusal> {
        Ok(self.journal.durable(Ticket::of(index)).await?)
    }

    fn append(
        &self,
        now: SystemTime,
        decide: impl FnOnce(&State) -> Result<Event, Refusal>,
    ) -> Result<Ticket, Refusal> {
        let mut state = self.lock();
        let event = decide(&state)?;
        let contradiction = |fault: String| {
            tracing::error!(fault, "an event contradicts the register");
            Refusal::new(Reason::Internal, "a fault of hsm-enroll; its log has it")
        };
        state.check(&event).map_err(contradiction)?;
        let ticket = self.journal.append(encode(now, event.clone()))?;
        state.commit(ticket.index(), seconds(now), event);
        Ok(ticket)
    }

    /// Records a refusal, and returns when it is durable or cannot be made so; where there are many, their number.
    pub async fn refused(&self, mut refused: wire::EnrolmentRefused) {
        {
            let mut recorded = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
            if recorded.since.elapsed() > REFUSALS_WITHIN {
                recorded.since = Instant::now();
                recorded.recorded = 0;
            }
            if recorded.recorded >= MOST_REFUSALS {
                recorded.more = recorded.more.saturating_add(1);
                return;
            }
            recorded.recorded += 1;
            refused.more = std::mem::take(&mut recorded.more);
        }
        let recorded = self.act(SystemTime::now(), |_| Ok(Event::Refused(refused)));
        if let Err(error) = recorded.await {
            tracing::error!(%error, "a refusal was not recorded");
        }
    }

    /// Records how many refusals were only counted, when their time is over, or at the end.
    pub async fn record_counted(&self, ends: bool) {
        let more = {
            let mut recorded = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
            if recorded.more == 0 || !(ends || recorded.since.elapsed() > REFUSALS_WITHIN) {
                return;
            }
            std::mem::take(&mut recorded.more)
        };
        let counted = wire::EnrolmentRefused {
            message: "refused before this, and counted only".to_owned(),
            more,
            ..wire::EnrolmentRefused::default()
        };
        let recorded = self.act(SystemTime::now(), |_| Ok(Event::Refused(counted)));
        if let Err(error) = recorded.await {
            tracing::error!(%error, more, "refusals were not recorded");
        }
    }

    /// How the journal stands.
    #[must_use]
    pub fn status(&self) -> hsm_journal::Status {
        self.journal.status()
    }

    /// Makes all entries durable, and ends.
    ///
    /// # Errors
    /// The journal's.
    pub fn close(&self) -> Result<(), hsm_journal::Error> {
        self.journal.close()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic under the lock happens before the state is changed, if at all.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An entry's bytes, as they become a leaf of the journal.
fn encode(time: SystemTime, event: Event) -> Vec<u8> {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let entry = wire::RegisterEntry {
        time: Some(prost_types::Timestamp {
            seconds: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
            nanos: i32::try_from(since.subsec_nanos()).unwrap_or_default(),
        }),
        event: Some(event),
    };
    entry.encode_to_vec()
}

/// An entry from a leaf of the journal.
///
/// # Errors
/// A sentence for people, where the bytes are no entry that this version knows.
pub fn decode(leaf: &[u8]) -> Result<(prost_types::Timestamp, Event), String> {
    let entry =
        wire::RegisterEntry::decode(leaf).map_err(|error| format!("not an entry: {error}"))?;
    let event = entry
        .event
        .ok_or("an entry of a kind that this version does not know")?;
    Ok((entry.time.unwrap_or_default(), event))
}

/// A moment in seconds since 1970.
#[must_use]
pub fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs()
}
