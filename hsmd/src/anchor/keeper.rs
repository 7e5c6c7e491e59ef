//! Advances the anchor ahead of need, and seals the journal at a clean stop.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use hsm_journal::Ticket;

use super::{Anchor, Error, Tag};
use crate::config::Pace;
use crate::guard::{self, Guard, Purpose};

/// How often it is looked whether an advance is due.
const LOOK: Duration = Duration::from_secs(1);
/// Least time between attempts after one that failed.
const AGAIN: Duration = Duration::from_secs(1);
/// Advances that may follow each other without a pause.
const BURST: u32 = 10;

/// How the anchor is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// Where its counter stands, as far as the journal knows.
    pub counter: u64,
    /// How often it was moved since the start.
    pub advances: u64,
    /// Why it was not the last time.
    pub fault: Option<String>,
    /// Another process moves it: nothing heals that.
    pub moved: bool,
}

/// What the keeper shares with those who look.
#[derive(Clone)]
pub struct Status {
    /// How often the anchor is advanced.
    pub pace: Pace,
    state: Arc<Mutex<State>>,
}

impl Status {
    /// How the anchor is at present.
    #[must_use]
    pub fn now(&self) -> State {
        self.lock().clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The one who advances the anchor.
pub struct Keeper {
    anchor: Anchor,
    tag: Tag,
    status: Status,
    /// An advance that the journal holds and that was not made yet.
    pending: Option<Pending>,
    failed: Option<Instant>,
    budget: Budget,
}

struct Pending {
    counter: u64,
    /// Where its entry stands; none where it is known to be durable.
    entry: Option<Ticket>,
    /// An attempt to make it may have succeeded.
    attempted: bool,
}

/// Why an advance did not come about.
#[derive(Debug, thiserror::Error)]
pub enum NotAdvanced {
    /// The anchor.
    #[error(transparent)]
    Anchor(#[from] Error),
    /// The journal, or a fault of ours.
    #[error(transparent)]
    Guard(#[from] guard::Error),
    /// The anchor wears: it was advanced too often.
    #[error(
        "it was advanced {BURST} times within {} s, and wears: the next advance is in {} s at the latest. Somebody \
         pushes heights upwards, or state.anchor.window is too small for the chain",
        since.as_secs(),
        left.as_secs() + 1
    )]
    TooOften {
        /// The time in which.
        since: Duration,
        /// When the next may follow.
        left: Duration,
    },
}

impl Keeper {
    /// A keeper of an anchor that stands where the journal says.
    pub(super) fn new(anchor: Anchor, tag: Tag, counter: u64, pace: Pace) -> Self {
        let state = State {
            counter,
            ..State::default()
        };
        Self {
            anchor,
            tag,
            status: Status {
                pace,
                state: Arc::new(Mutex::new(state)),
            },
            pending: None,
            failed: None,
            budget: Budget::new(pace.interval),
        }
    }

    /// The anchor's kind, as in the configuration.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        self.anchor.kind()
    }

    /// How it goes.
    #[must_use]
    pub fn status(&self) -> Status {
        self.status.clone()
    }

    /// Advances the anchor whenever that is due, until `done`.
    pub async fn run(mut self, guard: &Guard, done: impl Future<Output = ()>) -> Self {
        let mut done = std::pin::pin!(done);
        let mut look = tokio::time::interval(LOOK);
        loop {
            let wanted = tokio::select! {
                () = &mut done => break,
                () = guard.advance_wanted() => true,
                _ = look.tick() => false,
            };
            if self.status.lock().moved {
                guard.advance_ended(self.status.now().fault);
                continue;
            }
            let outcome = self.advance_if_due(guard).await;
            if let Some(outcome) = outcome {
                self.report(&outcome);
                guard.advance_ended(outcome.err().map(|failure| failure.to_string()));
            } else if wanted {
                guard.advance_ended(self.status.now().fault);
            }
        }
        guard.advance_ended(Some("hsmd is stopping".to_owned()));
        self
    }

    /// Advances once, where that is due and no attempt has failed just now.
    pub(super) async fn advance_if_due(
        &mut self,
        guard: &Guard,
    ) -> Option<Result<(), NotAdvanced>> {
        if self.failed.is_some_and(|failed| failed.elapsed() < AGAIN) {
            return None;
        }
        let due = match guard.advance_is_due(self.status.pace.spare) {
            Ok(due) => due,
            Err(error) => return Some(Err(error.into())),
        };
        if !due && self.pending.is_none() {
            return None;
        }
        Some(
            self.advance(guard, Purpose::Open(self.status.pace.window))
                .await,
        )
    }

    /// A clean stop: nothing is signed any more, and a journal without this entry will not be taken.
    ///
    /// # Errors
    ///
    /// [`NotAdvanced`]: the stop is not a clean one then.
    pub async fn seal(&mut self, guard: &Guard) -> Result<(), NotAdvanced> {
        if self.pending.is_some() {
            self.make(guard).await?;
        }
        let sealed = guard.inspect(|state| state.anchor().is_some_and(|anchor| anchor.sealed))?;
        if sealed {
            // Nothing was signed since the last seal.
            return Ok(());
        }
        self.budget = Budget::new(Duration::ZERO);
        let outcome = self.advance(guard, Purpose::Seal).await;
        self.report(&outcome);
        outcome
    }

    async fn advance(&mut self, guard: &Guard, purpose: Purpose) -> Result<(), NotAdvanced> {
        if self.pending.is_none() {
            self.budget.take()?;
            let (counter, entry) = guard.begin_advance(purpose, SystemTime::now())?;
            self.pending = Some(Pending {
                counter,
                entry: Some(entry),
                attempted: false,
            });
        }
        self.make(guard).await
    }

    /// Makes the advance that the journal holds, once it is durable there.
    async fn make(&mut self, guard: &Guard) -> Result<(), NotAdvanced> {
        let Some(pending) = &mut self.pending else {
            return Ok(());
        };
        if let Some(entry) = pending.entry {
            let durable = guard.journal().durable(entry).await;
            durable.map_err(guard::Error::from)?;
            pending.entry = None;
        }
        let again = std::mem::replace(&mut pending.attempted, true);
        let counter = pending.counter;
        self.anchor.advance(self.tag, counter, again).await?;
        self.pending = None;
        guard.finish_advance(counter)?;
        let mut state = self.status.lock();
        state.counter = counter;
        state.advances += 1;
        Ok(())
    }

    fn report(&mut self, outcome: &Result<(), NotAdvanced>) {
        let mut state = self.status.lock();
        let fault = outcome.as_ref().err().map(ToString::to_string);
        match &fault {
            Some(fault) if state.fault.as_ref() != Some(fault) => {
                tracing::error!(fault, "the rollback anchor was not advanced");
            }
            Some(_) => {}
            None => tracing::info!(counter = state.counter, "the rollback anchor was advanced"),
        }
        state.fault = fault;
        state.moved |= matches!(outcome, Err(NotAdvanced::Anchor(Error::Moved { .. })));
        self.failed = outcome.as_ref().err().map(|_| Instant::now());
    }
}

/// At most [`BURST`] advances at once, and one more for each interval.
struct Budget {
    interval: Duration,
    left: u32,
    since: Instant,
}

impl Budget {
    fn new(interval: Duration) -> Self {
        Self {
            interval,
            left: BURST,
            since: Instant::now(),
        }
    }

    fn take(&mut self) -> Result<(), NotAdvanced> {
        while self.left < BURST && self.since.elapsed() >= self.interval {
            self.left += 1;
            self.since += self.interval;
        }
        if self.left == BURST {
            self.since = Instant::now();
        }
        if self.left == 0 {
            return Err(NotAdvanced::TooOften {
                since: self.interval.saturating_mul(BURST),
                left: self.interval.saturating_sub(self.since.elapsed()),
            });
        }
        self.left -= 1;
        Ok(())
    }
}
