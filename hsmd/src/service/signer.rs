//! The gRPC service `hsm.v1.Signer`: from the wire to the line and back.

use std::sync::Arc;

use hsm_proto::v1::signer_server::Signer;
use hsm_proto::v1::{
    GetPublicKeyRequest, GetPublicKeyResponse, ListKeysRequest, ListKeysResponse,
    SignCometbftProposalRequest, SignCometbftProposalResponse, SignCometbftVoteRequest,
    SignCometbftVoteResponse,
};
use tonic::{Request, Response, Status};

use crate::guard::entry::timestamp_to_wire;
use crate::line::{Line, Wire};
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
        let peer = peer(&request)?.clone();
        let signed = self
            .line
            .sign(&peer, Wire::Vote(request.into_inner()))
            .await;
        let signed = signed.map_err(|refusal| refusal.status())?;
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
        let peer = peer(&request)?.clone();
        let sent = Wire::Proposal(request.into_inner());
        let signed = self.line.sign(&peer, sent).await;
        let signed = signed.map_err(|refusal| refusal.status())?;
        Ok(Response::new(SignCometbftProposalResponse {
            signature: signed.signature,
            timestamp: Some(timestamp_to_wire(signed.timestamp)),
        }))
    }
}

/// Who is at the other end: the transport puts it beside every request of a connection.
fn peer<T>(request: &Request<T>) -> Result<&Peer, Status> {
    request
        .extensions()
        .get::<Peer>()
        .ok_or_else(|| Status::internal("a request without a connection"))
}
