//! Administration and the journal over mutual TLS: what the administration socket offers, for callers of a role.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use hsm_policy::identity::Role;
use hsm_proto::v1 as wire;
use hsm_proto::v1::admin_server::Admin;
use hsm_proto::v1::journal_reader_server::JournalReader;
use hsm_proto::v1::remote_admin_server::RemoteAdmin;
use tonic::{Request, Response, Status};

use super::AdminService;
use crate::line::Line;
use crate::log;

/// About how many bytes of entries one answer holds.
const ANSWER: usize = 1 << 20;

/// For callers of the role operator.
pub struct RemoteAdminService(Arc<AdminService>);

impl RemoteAdminService {
    /// A service in front of the one on the administration socket.
    #[must_use]
    pub fn new(admin: Arc<AdminService>) -> Self {
        Self(admin)
    }

    /// The service, for this one request of an operator whose certificate is valid at this moment.
    #[allow(clippy::result_large_err, reason = "a status is what tonic wants")]
    fn admit<T>(&self, request: &Request<T>) -> Result<&AdminService, Status> {
        admit(self.0.line(), request, &[Role::Operator])?;
        Ok(&self.0)
    }
}

#[tonic::async_trait]
impl RemoteAdmin for RemoteAdminService {
    async fn get_status(
        &self,
        request: Request<wire::GetStatusRequest>,
    ) -> Result<Response<wire::GetStatusResponse>, Status> {
        self.admit(&request)?.get_status(request).await
    }

    async fn list_key_states(
        &self,
        request: Request<wire::ListKeyStatesRequest>,
    ) -> Result<Response<wire::ListKeyStatesResponse>, Status> {
        self.admit(&request)?.list_key_states(request).await
    }

    async fn diagnose(
        &self,
        request: Request<wire::DiagnoseRequest>,
    ) -> Result<Response<wire::DiagnoseResponse>, Status> {
        self.admit(&request)?.diagnose(request).await
    }

    async fn get_officers(
        &self,
        request: Request<wire::GetOfficersRequest>,
    ) -> Result<Response<wire::GetOfficersResponse>, Status> {
        self.admit(&request)?.get_officers(request).await
    }

    async fn get_policy(
        &self,
        request: Request<wire::GetPolicyRequest>,
    ) -> Result<Response<wire::GetPolicyResponse>, Status> {
        self.admit(&request)?.get_policy(request).await
    }

    async fn freeze(
        &self,
        request: Request<wire::FreezeRequest>,
    ) -> Result<Response<wire::FreezeResponse>, Status> {
        self.admit(&request)?.freeze(request).await
    }

    async fn thaw(
        &self,
        request: Request<wire::ThawRequest>,
    ) -> Result<Response<wire::ThawResponse>, Status> {
        self.admit(&request)?.thaw(request).await
    }

    async fn recover_key(
        &self,
        request: Request<wire::RecoverKeyRequest>,
    ) -> Result<Response<wire::RecoverKeyResponse>, Status> {
        self.admit(&request)?.recover_key(request).await
    }
}

/// For callers of the roles auditor and operator.
pub struct JournalReaderService {
    line: Arc<Line>,
    state_dir: PathBuf,
}

impl JournalReaderService {
    /// A service over the journal in this directory.
    #[must_use]
    pub fn new(line: Arc<Line>, state_dir: PathBuf) -> Self {
        Self { line, state_dir }
    }

    #[allow(clippy::result_large_err, reason = "a status is what tonic wants")]
    fn admit<T>(&self, request: &Request<T>) -> Result<(), Status> {
        admit(&self.line, request, &[Role::Auditor, Role::Operator])
    }
}

#[tonic::async_trait]
impl JournalReader for JournalReaderService {
    async fn read_journal(
        &self,
        request: Request<wire::ReadJournalRequest>,
    ) -> Result<Response<wire::ReadJournalResponse>, Status> {
        self.admit(&request)?;
        let from = request.into_inner().from;
        // What is in the file is not durable yet; nobody is shown what a power cut could take back.
        let durable = self.line.guard().journal().status().entries;
        let directory = self.state_dir.clone();
        let read = tokio::task::spawn_blocking(move || entries(&directory, from, durable)).await;
        let entries = read
            .map_err(|error| Status::internal(error.to_string()))?
            .map_err(|error| Status::unavailable(error.to_string()))?;
        Ok(Response::new(wire::ReadJournalResponse { entries }))
    }

    async fn get_checkpoint(
        &self,
        request: Request<wire::GetCheckpointRequest>,
    ) -> Result<Response<wire::GetCheckpointResponse>, Status> {
        self.admit(&request)?;
        let stored = log::load(&self.state_dir).map_err(Status::unavailable)?;
        let stored = stored.map(|stored| wire::GetCheckpointResponse {
            note: stored.note.to_string(),
            verifier: stored.verifier.to_string(),
        });
        Ok(Response::new(stored.unwrap_or_default()))
    }
}

fn entries(
    directory: &Path,
    from: u64,
    durable: u64,
) -> Result<Vec<wire::JournalEntry>, hsm_journal::Error> {
    let files = hsm_journal::Files::new(directory, None)?;
    let mut entries = Vec::new();
    let mut bytes = 0;
    for entry in hsm_journal::read_from(&files, from)? {
        let hsm_journal::Entry { index, leaf, .. } = entry?;
        if index >= durable || bytes >= ANSWER {
            break;
        }
        if index >= from {
            bytes += leaf.len();
            entries.push(wire::JournalEntry { index, leaf });
        }
    }
    Ok(entries)
}

/// That the caller's certificate is valid at this moment, and of one of these roles; else the refusal was journaled.
#[allow(clippy::result_large_err, reason = "a status is what tonic wants")]
fn admit<T>(line: &Line, request: &Request<T>, roles: &[Role]) -> Result<(), Status> {
    let peer = super::peer(request)?;
    line.admit(peer, roles).map_err(|refusal| refusal.status())
}
