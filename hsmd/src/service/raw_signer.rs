//! The gRPC service `hsm.v1.RawSigner`: payloads that are no consensus messages.

use std::sync::Arc;

use hsm_proto::v1::raw_signer_server::RawSigner;
use hsm_proto::v1::{SignRawRequest, SignRawResponse};
use tonic::{Request, Response, Status};

use super::signer::{Finished, patience, peer};
use crate::line::Line;

/// For callers of the role operator whom the policy grants it.
pub struct RawSignerService(Arc<Line>);

impl RawSignerService {
    /// A service in front of the line.
    #[must_use]
    pub fn new(line: Arc<Line>) -> Self {
        Self(line)
    }
}

#[tonic::async_trait]
impl RawSigner for RawSignerService {
    async fn sign_raw(
        &self,
        request: Request<SignRawRequest>,
    ) -> Result<Response<SignRawResponse>, Status> {
        let peer = peer(&request)?.clone();
        let patience = patience(&request);
        let sent = request.into_inner();
        let line = self.0.clone();
        let signed = Finished::new(async move { line.sign_raw(&peer, sent, patience).await }).await;
        Ok(Response::new(signed.map_err(|refusal| refusal.status())?))
    }
}
