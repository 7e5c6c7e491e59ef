//! The gRPC service `hsm.v1.Signer`: from the wire to the line and back.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hsm_proto::v1::signer_server::Signer;
use hsm_proto::v1::{
    GetPublicKeyRequest, GetPublicKeyResponse, ListKeysRequest, ListKeysResponse,
    SignCometbftProposalRequest, SignCometbftProposalResponse, SignCometbftVoteRequest,
    SignCometbftVoteResponse,
};
use tonic::{Request, Response, Status};

use crate::guard::entry::timestamp_to_wire;
use crate::line::{Line, Signed, Wire};
use crate::transport::Peer;

/// The service that sentries call.
pub struct SignerService {
    line: Arc<Line>,
}

impl SignerService {
    /// A service in front of the line.
    #[must_use]
    pub fn new(line: Arc<Line>) -> Self {
        Self { line }
    }

    async fn sign<T>(&self, request: Request<T>, wrap: fn(T) -> Wire) -> Result<Signed, Status> {
        let peer = peer(&request)?.clone();
        let patience = patience(&request);
        let sent = wrap(request.into_inner());
        let line = self.line.clone();
        let signed = Finished::new(async move { line.sign(&peer, sent, patience).await }).await;
        signed.map_err(|refusal| refusal.status())
    }
}

#[tonic::async_trait]
impl Signer for SignerService {
    async fn list_keys(
        &self,
        request: Request<ListKeysRequest>,
    ) -> Result<Response<ListKeysResponse>, Status> {
        let keys = self.line.list_keys(peer(&request)?);
        let keys = keys.map_err(|refusal| refusal.status())?;
        Ok(Response::new(ListKeysResponse { keys }))
    }

    async fn get_public_key(
        &self,
        request: Request<GetPublicKeyRequest>,
    ) -> Result<Response<GetPublicKeyResponse>, Status> {
        let answer = self
            .line
            .public_key(peer(&request)?, &request.get_ref().key);
        Ok(Response::new(answer.map_err(|refusal| refusal.status())?))
    }

    async fn sign_cometbft_vote(
        &self,
        request: Request<SignCometbftVoteRequest>,
    ) -> Result<Response<SignCometbftVoteResponse>, Status> {
        let signed = self.sign(request, Wire::Vote).await?;
        Ok(Response::new(SignCometbftVoteResponse {
            signature: signed.signature,
            extension_signature: signed.extension_signature.unwrap_or_default(),
            timestamp: Some(timestamp_to_wire(signed.timestamp)),
        }))
    }

    async fn sign_cometbft_proposal(
        &self,
        request: Request<SignCometbftProposalRequest>,
    ) -> Result<Response<SignCometbftProposalResponse>, Status> {
        let signed = self.sign(request, Wire::Proposal).await?;
        Ok(Response::new(SignCometbftProposalResponse {
            signature: signed.signature,
            timestamp: Some(timestamp_to_wire(signed.timestamp)),
        }))
    }
}

/// A future that runs to its end also when the one who awaits it goes away, so that no caller can keep
/// the outcome of a request, a refusal included, from being journaled: the rest becomes a task.
pub(super) struct Finished<F: Future<Output: Send> + Send + 'static>(Option<Pin<Box<F>>>);

impl<F: Future<Output: Send> + Send + 'static> Finished<F> {
    pub(super) fn new(future: F) -> Self {
        Self(Some(Box::pin(future)))
    }
}

impl<F: Future<Output: Send> + Send + 'static> Future for Finished<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let Some(future) = self.0.as_mut() else {
            return Poll::Pending;
        };
        let outcome = future.as_mut().poll(context);
        if outcome.is_ready() {
            self.0 = None;
        }
        outcome
    }
}

impl<F: Future<Output: Send> + Send + 'static> Drop for Finished<F> {
    fn drop(&mut self) {
        // A future that panicked must not be polled again.
        if let Some(rest) = self.0.take()
            && !std::thread::panicking()
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            runtime.spawn(rest);
        }
    }
}

/// How long the caller waits, less what the answer's way back may take: gRPC's `grpc-timeout` header,
/// up to eight digits and a unit (gRPC over HTTP/2, Requests).
pub(super) fn patience<T>(request: &Request<T>) -> Option<Duration> {
    let header = request.metadata().get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = header.split_at_checked(header.len().checked_sub(1)?)?;
    let amount: u64 = digits.parse().ok()?;
    let patience = match unit {
        "H" => Duration::from_secs(amount.checked_mul(3600)?),
        "M" => Duration::from_secs(amount.checked_mul(60)?),
        "S" => Duration::from_secs(amount),
        "m" => Duration::from_millis(amount),
        "u" => Duration::from_micros(amount),
        "n" => Duration::from_nanos(amount),
        _ => return None,
    };
    let way_back = (patience / 10).min(Duration::from_millis(50));
    Some(patience.saturating_sub(way_back))
}

/// Who is at the other end: the transport puts it beside every request of a connection.
#[allow(clippy::result_large_err, reason = "a status is what tonic wants")]
pub(crate) fn peer<T>(request: &Request<T>) -> Result<&Peer, Status> {
    request
        .extensions()
        .get::<Peer>()
        .ok_or_else(|| Status::internal("a request without a connection"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_callers_patience_is_read_and_leaves_time_for_the_way_back() {
        let of = |header: &str| {
            let mut request = Request::new(());
            let header = header.parse().ok()?;
            request.metadata_mut().insert("grpc-timeout", header);
            patience(&request)
        };
        assert_eq!(of("3S"), Some(Duration::from_millis(2950)));
        assert_eq!(of("100m"), Some(Duration::from_millis(90)));
        assert_eq!(of("2999000u"), Some(Duration::from_millis(2949)));
        let hour = Duration::from_secs(3600);
        assert_eq!(of("1H"), Some(hour - Duration::from_millis(50)));
        for header in ["", "S", "3", "3x", "-1S", "99999999999999999999S"] {
            assert_eq!(of(header), None, "{header:?}");
        }
        assert_eq!(patience(&Request::new(())), None);
    }
}
