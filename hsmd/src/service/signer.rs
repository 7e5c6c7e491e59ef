//! The gRPC service `hsm.v1.Signer`: from the wire to the line and back.

use std::sync::Arc;
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

    /// On a task of its own, so that a caller who goes away does not keep the outcome, a refusal
    /// included, from being journaled.
    async fn sign<T>(&self, request: Request<T>, wrap: fn(T) -> Wire) -> Result<Signed, Status> {
        let peer = peer(&request)?.clone();
        let patience = patience(&request);
        let sent = wrap(request.into_inner());
        let line = self.line.clone();
        let signed = tokio::spawn(async move { line.sign(&peer, sent, patience).await });
        let signed = signed.await.map_err(|error| {
            tracing::error!(%error, "a sign request ended by a fault of hsmd");
            Status::internal("a fault of hsmd; its log has the details")
        })?;
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

/// How long the caller waits, less what the answer's way back may take: gRPC's `grpc-timeout` header,
/// up to eight digits and a unit (gRPC over HTTP/2, Requests).
fn patience<T>(request: &Request<T>) -> Option<Duration> {
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
fn peer<T>(request: &Request<T>) -> Result<&Peer, Status> {
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
