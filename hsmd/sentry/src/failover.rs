//! A chain's signers, asked in order within a deadline.
//!
//! Several signers share their marks through one ledger, so that the same request put to two of them, one after
//! the other or at the same time, is one message: whoever comes second gives the answer of the first. That is why
//! a silent signer's request is left to run while the next one is asked.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use hsm_proto::v1::Reason;
use hsm_proto::v1::signer_client::SignerClient;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};
use tonic::{Request, Response, Status};

use crate::backoff::Backoff;
use crate::link::Http2;
use crate::refusal::Refusal;
use crate::signer::{Answer, Failure, Signer};

/// How long a signer that was silent for too long is asked last. A new connection ends it.
const REST: Duration = Duration::from_secs(10);

/// The signers of one chain, in the configuration's order; at least one.
pub(crate) struct Signers {
    seats: Vec<Seat>,
    /// The address of the one that answered last.
    answered: Option<Arc<str>>,
}

struct Seat {
    signer: Signer,
    rest: Option<Rest>,
}

struct Rest {
    connection: Option<u64>,
    until: Instant,
}

impl Signers {
    pub(crate) fn new(signers: Vec<Signer>) -> Self {
        let seats = signers
            .into_iter()
            .map(|signer| Seat { signer, rest: None });
        Self {
            seats: seats.collect(),
            answered: None,
        }
    }

    /// The number of a lone signer's present connection; `None` where there is none.
    pub(crate) fn connection(&self) -> Option<u64> {
        self.seats.first()?.signer.connection()
    }

    /// Waits until any signer may be used.
    pub(crate) async fn usable(&self, deadline: Duration) -> Result<(), Refusal> {
        let until = Instant::now() + deadline;
        let mut links: FuturesUnordered<_> =
            self.seats.iter().map(|it| it.signer.connected()).collect();
        match timeout_at(until, links.next()).await {
            Ok(_) => Ok(()),
            Err(_) => Err(self.expired(deadline)),
        }
    }

    /// Asks until there is an answer, a refusal that will stay, or the deadline.
    ///
    /// The first signer that may be used is asked; the next one, where it fails, or stays silent for its share:
    /// half of the deadline is divided among the signers, so that even the last has the other half. A lost
    /// connection and a passing state of hsmd (gRPC code UNAVAILABLE or RESOURCE_EXHAUSTED) are tried again too:
    /// the guard gives the same request the same answer, and a node does not ask a second time after a refusal.
    pub(crate) async fn ask<M, T, F>(
        &mut self,
        deadline: Duration,
        message: impl Fn() -> M,
        call: impl Fn(SignerClient<Http2>, Request<M>) -> F,
    ) -> Result<Answer<T>, Refusal>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let until = Instant::now() + deadline;
        let share = deadline / (2 * u32::try_from(self.seats.len()).unwrap_or(u32::MAX / 2)).max(1);
        let mut last = None;
        let mut line = line(&mut self.seats);
        let attempts = async {
            let mut asked = FuturesUnordered::new();
            let mut newest = advance(&mut line, |it| {
                asked.push(attempt(it, None, until, &message, &call))
            });
            let mut patience = Instant::now() + share;
            loop {
                let (failed, refusal) = tokio::select! {
                    biased;
                    Some((signer, backoff, result)) = asked.next() => match result {
                        Ok(answer) => return Some(Ok((Arc::clone(&signer.address), answer))),
                        Err(Failure::Final(refusal)) => return Some(Err(refusal)),
                        Err(Failure::Elsewhere(refusal)) => (signer, refusal),
                        Err(Failure::Passing(refusal)) => {
                            asked.push(attempt(signer, Some(backoff), until, &message, &call));
                            (signer, refusal)
                        }
                    },
                    () = sleep_until(patience), if !line.is_empty() => {
                        let (signer, rest) = newest.as_mut()?;
                        **rest = Some(Rest { connection: signer.connection(), until: Instant::now() + REST });
                        let silent = format!("{} within {} ms", signer.silence(), share.as_millis());
                        (*signer, Refusal::new(Reason::DeadlineExceeded, silent))
                    }
                    // Nobody is left to ask.
                    else => return last.take().map(Err),
                };
                tracing::debug!(signer = &*failed.address, %refusal, "no answer yet");
                last = Some(refusal);
                let is_newest = newest
                    .as_ref()
                    .is_some_and(|(it, _)| std::ptr::eq(*it, failed));
                if is_newest && !line.is_empty() {
                    failed.metrics.failovers.inc();
                    newest = advance(&mut line, |it| {
                        asked.push(attempt(it, None, until, &message, &call))
                    });
                    patience = Instant::now() + share;
                }
            }
        };
        match timeout_at(until, attempts).await {
            Ok(Some(Ok((address, answer)))) => {
                self.note(address);
                Ok(answer)
            }
            Ok(Some(Err(refusal))) => Err(refusal),
            Ok(None) | Err(_) => Err(last.unwrap_or_else(|| self.expired(deadline))),
        }
    }

    /// Tells people when another signer answers than before.
    fn note(&mut self, address: Arc<str>) {
        match &self.answered {
            Some(before) if Arc::ptr_eq(before, &address) => return,
            Some(before) => {
                tracing::warn!(
                    before = &**before,
                    now = &*address,
                    "another signer answers now"
                );
            }
            None => {}
        }
        self.answered = Some(address);
    }

    fn expired(&self, deadline: Duration) -> Refusal {
        let silences: Vec<_> = self.seats.iter().map(|it| it.signer.silence()).collect();
        Refusal::new(
            Reason::DeadlineExceeded,
            format!(
                "no signature within {} ms: {}",
                deadline.as_millis(),
                silences.join("; ")
            ),
        )
    }
}

type Line<'a> = VecDeque<(&'a Signer, &'a mut Option<Rest>)>;

/// Who is asked after whom: those that may be used, then those that rest, then those that may come up.
fn line(seats: &mut [Seat]) -> Line<'_> {
    let now = Instant::now();
    let (mut first, mut resting, mut away) = (Line::new(), Line::new(), Line::new());
    for Seat { signer, rest } in seats {
        let connection = signer.connection();
        if rest
            .as_ref()
            .is_some_and(|it| it.until <= now || it.connection != connection)
        {
            *rest = None;
        }
        let part = match (connection, &*rest) {
            (None, _) => &mut away,
            (Some(_), Some(_)) => &mut resting,
            (Some(_), None) => &mut first,
        };
        part.push_back((&*signer, rest));
    }
    first.append(&mut resting);
    first.append(&mut away);
    first
}

/// Asks the next in line, and with one that is away those after it, which are away too: the first to come up is
/// asked. Gives the one asked last.
fn advance<'a>(
    line: &mut Line<'a>,
    mut ask: impl FnMut(&'a Signer),
) -> Option<(&'a Signer, &'a mut Option<Rest>)> {
    loop {
        let (signer, rest) = line.pop_front()?;
        ask(signer);
        if line.is_empty() || signer.connection().is_some() {
            return Some((signer, rest));
        }
    }
}

/// One request to one signer, after a wait where it failed before.
async fn attempt<'a, M, T, F>(
    signer: &'a Signer,
    tried: Option<Backoff>,
    until: Instant,
    message: &impl Fn() -> M,
    call: &impl Fn(SignerClient<Http2>, Request<M>) -> F,
) -> (&'a Signer, Backoff, Result<Answer<T>, Failure>)
where
    F: Future<Output = Result<Response<T>, Status>>,
{
    let backoff = match tried {
        None => Backoff::new(),
        Some(mut backoff) => {
            sleep(backoff.next()).await;
            backoff
        }
    };
    (signer, backoff, signer.ask(until, message, call).await)
}
