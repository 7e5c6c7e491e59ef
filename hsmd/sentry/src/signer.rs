//! Asking hsmd, within a deadline.

use std::sync::Arc;
use std::time::Duration;

use hsm_proto::v1::Reason;
use hsm_proto::v1::signer_client::SignerClient;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout_at};
use tonic::{Code, Request, Response, Status};

use crate::backoff::Backoff;
use crate::link::{Connection, Http2, Link};
use crate::refusal::Refusal;

/// One hsmd, as a chain sees it.
#[derive(Clone)]
pub(crate) struct Signer {
    link: watch::Receiver<Link>,
    /// For people.
    address: Arc<str>,
}

/// An answer, and the number of the connection that it came over.
pub(crate) struct Answer<T> {
    pub(crate) message: T,
    pub(crate) connection: u64,
}

impl Signer {
    pub(crate) fn new(address: &str, link: watch::Receiver<Link>) -> Self {
        Self {
            link,
            address: address.into(),
        }
    }

    /// The number of the present connection; `None` where there is none.
    pub(crate) fn connection(&self) -> Option<u64> {
        match &*self.link.borrow() {
            Link::Up(connection) => Some(connection.number),
            Link::Down(_) => None,
        }
    }

    /// Asks until there is an answer, a refusal that will stay, or the deadline. A lost connection and a
    /// passing state of hsmd (gRPC code UNAVAILABLE or RESOURCE_EXHAUSTED) are tried again: the guard gives
    /// the same request the same answer, and a node does not ask a second time after a refusal.
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
        let mut backoff = Backoff::new();
        let mut last = None;
        let attempts = async {
            loop {
                let connection = self.connected().await;
                let mut request = Request::new(message());
                request.set_timeout(until.saturating_duration_since(Instant::now()));
                let status = match call(connection.client.signer, request).await {
                    Ok(response) => {
                        return Ok(Answer {
                            message: response.into_inner(),
                            connection: connection.number,
                        });
                    }
                    Err(status) => status,
                };
                let refusal = Refusal::from_status(&status);
                let passing = is_passing(status.code(), refusal.is_some());
                let refusal = refusal.unwrap_or_else(|| self.foreign(&status));
                if !passing {
                    return Err(refusal);
                }
                tracing::debug!(signer = &*self.address, %refusal, "asking hsmd again");
                last = Some(refusal);
                sleep(backoff.next()).await;
            }
        };
        match timeout_at(until, attempts).await {
            Ok(result) => result,
            Err(_) => Err(self.expired(deadline, last)),
        }
    }

    async fn connected(&self) -> Connection {
        if let Link::Up(connection) = &*self.link.borrow() {
            return connection.clone();
        }
        let mut link = self.link.clone();
        // The link may have come up since it was looked at.
        link.mark_changed();
        while link.changed().await.is_ok() {
            if let Link::Up(connection) = &*link.borrow_and_update() {
                return connection.clone();
            }
        }
        // Nobody keeps the connection up any more: the process is stopping. The deadline ends this.
        std::future::pending().await
    }

    /// A status that hsmd did not make: of the transport, or of something else that listens there.
    fn foreign(&self, status: &Status) -> Refusal {
        let why = format!(
            "{}: {:?}: {}",
            self.address,
            status.code(),
            status.message()
        );
        Refusal::new(Reason::Unspecified, format!("no answer of hsmd at {why}"))
    }

    fn expired(&self, deadline: Duration, last: Option<Refusal>) -> Refusal {
        if let Some(refusal) = last {
            return refusal;
        }
        let why = match &*self.link.borrow() {
            Link::Up(_) => "it did not answer".to_owned(),
            Link::Down(why) => format!("there is no connection: {why}"),
        };
        Refusal::new(
            Reason::DeadlineExceeded,
            format!(
                "hsmd at {} gave no signature within {} ms: {why}",
                self.address,
                deadline.as_millis()
            ),
        )
    }
}

/// Whether the same request may get another answer. Without hsmd's own reason, the codes are those that the
/// transport gives to a connection that broke.
fn is_passing(code: Code, by_hsmd: bool) -> bool {
    match code {
        Code::Unavailable | Code::ResourceExhausted => true,
        Code::Unknown | Code::Internal | Code::Cancelled => !by_hsmd,
        _ => false,
    }
}
