//! One hsmd, asked once.

use std::sync::Arc;

use hsm_proto::v1::Reason;
use hsm_proto::v1::signer_client::SignerClient;
use tokio::sync::watch;
use tokio::time::Instant;
use tonic::{Code, Request, Response, Status};

use crate::link::{Connection, Http2, Link};
use crate::metrics::SignerMetrics;
use crate::pin::Pin;
use crate::refusal::Refusal;

/// One hsmd, as a chain sees it.
pub(crate) struct Signer {
    link: watch::Receiver<Link>,
    pin: Arc<Pin>,
    /// For people.
    pub(crate) address: Arc<str>,
    pub(crate) metrics: SignerMetrics,
}

/// An answer, and the number of the connection that it came over.
pub(crate) struct Answer<T> {
    pub(crate) message: T,
    pub(crate) connection: u64,
}

/// No answer.
pub(crate) enum Failure {
    /// A lost connection, or a passing state: the same hsmd, or another, may answer the same request.
    Passing(Refusal),
    /// This hsmd will not answer it, for reasons of its own; another may.
    Elsewhere(Refusal),
    /// hsmd judged the request: no other one is asked.
    Final(Refusal),
}

impl Signer {
    pub(crate) fn new(
        address: &str,
        link: watch::Receiver<Link>,
        pin: Arc<Pin>,
        metrics: SignerMetrics,
    ) -> Self {
        Self {
            link,
            pin,
            address: address.into(),
            metrics,
        }
    }

    /// The number of the present connection; `None` where there is none that may be used.
    pub(crate) fn connection(&self) -> Option<u64> {
        match &*self.link.borrow() {
            Link::Up(connection) if self.pin.judge(&connection.listing).is_ok() => {
                Some(connection.number)
            }
            _ => None,
        }
    }

    /// Waits for a connection that may be used.
    pub(crate) async fn connected(&self) -> Connection {
        if let Some(connection) = self.usable(&self.link.borrow()) {
            return connection;
        }
        let mut link = self.link.clone();
        // The link may have come up since it was looked at.
        link.mark_changed();
        while link.changed().await.is_ok() {
            if let Some(connection) = self.usable(&link.borrow_and_update()) {
                return connection;
            }
        }
        // Nobody keeps the connection up any more: the process is stopping. The deadline ends this.
        std::future::pending().await
    }

    fn usable(&self, link: &Link) -> Option<Connection> {
        match link {
            Link::Up(connection) if self.pin.judge(&connection.listing).is_ok() => {
                Some(connection.clone())
            }
            _ => None,
        }
    }

    /// Puts the request to hsmd as soon as there is a connection that may be used.
    pub(crate) async fn ask<M, T, F>(
        &self,
        until: Instant,
        message: &impl Fn() -> M,
        call: &impl Fn(SignerClient<Http2>, Request<M>) -> F,
    ) -> Result<Answer<T>, Failure>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let connection = self.connected().await;
        let mut request = Request::new(message());
        request.set_timeout(until.saturating_duration_since(Instant::now()));
        self.metrics.requests.inc();
        match call(connection.client.signer, request).await {
            Ok(response) => Ok(Answer {
                message: response.into_inner(),
                connection: connection.number,
            }),
            Err(status) => Err(self.failure(&status)),
        }
    }

    fn failure(&self, status: &Status) -> Failure {
        let (code, refusal) = (status.code(), Refusal::from_status(status));
        let is_passing = match code {
            Code::Unavailable | Code::ResourceExhausted => true,
            // The codes that the transport gives to a connection that broke.
            Code::Unknown | Code::Internal | Code::Cancelled => refusal.is_none(),
            _ => false,
        };
        let is_elsewhere = code == Code::DeadlineExceeded
            || refusal.as_ref().is_none_or(|it| is_of_signer(it.reason));
        let refusal = refusal.unwrap_or_else(|| self.foreign(status));
        if is_passing {
            Failure::Passing(refusal)
        } else if is_elsewhere {
            Failure::Elsewhere(refusal)
        } else {
            Failure::Final(refusal)
        }
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

    /// Why it has not answered, for people.
    pub(crate) fn silence(&self) -> String {
        let why = match &*self.link.borrow() {
            Link::Up(connection) => match self.pin.judge(&connection.listing) {
                Ok(()) => "it did not answer".to_owned(),
                Err(why) => format!("it is not used: {why}"),
            },
            Link::Down(why) => format!("there is no connection: {why}"),
        };
        format!("hsmd at {}: {why}", self.address)
    }
}

/// The refusals that say nothing about the request, only that this hsmd's device or ledger is not as it should
/// be. LEDGER_BEHIND is not among them: the ledger is every signer's, and one that did not see it go back might
/// sign what was signed.
fn is_of_signer(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::LedgerMismatch
            | Reason::DeviceFault
            | Reason::DeviceMisconfigured
            | Reason::DeviceUnderAdvisory
            | Reason::PublicKeyMismatch
    )
}
