//! The gRPC service `hsm.v1.Admin`, on the administration socket.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use hsm_policy::conflict::Outcome;
use hsm_policy::grants;
use hsm_policy::officers::{
    AcceptTail, RecoverKey, ReplaceJournal, SetOfficers, Statement as _, Thaw,
};
use hsm_proto::v1 as wire;
use hsm_proto::v1::admin_server::Admin;
use sha2::{Digest as _, Sha256};
use tonic::{Request, Response, Status};

use crate::anchor;
use crate::audit;
use crate::doctor;
use crate::guard::entry::wall_clock;
use crate::in_force;
use crate::key::{self, key_state};
use crate::ledger;
use crate::line::Line;
use crate::moves::{self, FreezeError};
use crate::revocation;
use crate::transport::Certificates;

use super::documents;
use super::failure::{by, status_of, status_of_freeze, status_of_guard, status_of_move};
use super::signer::Finished;
use super::status::{device_status, shown};

/// What `GetStatus` reports besides what the line knows.
pub struct About {
    /// When the daemon started.
    pub started: SystemTime,
    /// Whether any device is the mock.
    pub mock: bool,
    /// The directory of the journal, and of the policy beside it.
    pub state_dir: PathBuf,
    /// The rollback anchor's kind.
    pub anchor: String,
    /// How that is; none where there is none.
    pub anchor_status: Option<anchor::Status>,
    /// How the list of revoked certificates is; none where none is followed.
    pub revocation: Option<revocation::Status>,
    /// The address that sentries connect to.
    pub address: std::net::SocketAddr,
}

/// The service that `hsmd status`, `hsmd key` and `hsmd state` call.
pub struct AdminService {
    pub(super) line: Arc<Line>,
    pub(super) certificates: Certificates,
    pub(super) about: About,
}

impl AdminService {
    /// A service over the running daemon's parts.
    #[must_use]
    pub fn new(line: Arc<Line>, certificates: Certificates, about: About) -> Self {
        Self {
            line,
            certificates,
            about,
        }
    }

    /// The directory of the journal.
    pub(crate) fn state_dir(&self) -> &Path {
        &self.about.state_dir
    }

    pub(super) fn line(&self) -> &Arc<Line> {
        &self.line
    }

    fn state_of(&self, name: &str) -> Result<Option<wire::KeyState>, Status> {
        let key = self.line.keyring().get(name);
        let state = key.map(|key| key_state(key, self.line.guard()));
        state
            .transpose()
            .map_err(|error| status_of(&key::Error::Guard(error)))
    }
}

#[tonic::async_trait]
impl Admin for AdminService {
    async fn get_status(
        &self,
        _request: Request<wire::GetStatusRequest>,
    ) -> Result<Response<wire::GetStatusResponse>, Status> {
        let mut devices = Vec::new();
        for device in self.line.keyring().devices() {
            let unknown = audit::unknown_signatures(device, self.line.guard())
                .map_err(|error| Status::internal(error.to_string()))?;
            devices.push(device_status(device, unknown));
        }
        let in_force = self.line.policy();
        Ok(Response::new(wire::GetStatusResponse {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started: Some(wall_clock(self.about.started)),
            mock: self.about.mock,
            policy_path: shown(in_force.path.as_deref()),
            policy_digest: in_force.sha256.clone(),
            policy: Some(in_force.status(SystemTime::now())),
            freezes: self.freezes()?,
            journal: Some(self.journal_status()),
            devices,
            anchor: self.about.anchor.clone(),
            anchor_status: self.anchor_status()?,
            certificate_expires: Some(wall_clock(self.certificates.expires())),
            address: self.about.address.to_string(),
            revocation: self
                .about
                .revocation
                .as_ref()
                .map(|status| status.to_wire(self.certificates.revoked())),
        }))
    }

    async fn list_key_states(
        &self,
        _request: Request<wire::ListKeyStatesRequest>,
    ) -> Result<Response<wire::ListKeyStatesResponse>, Status> {
        let keys = key::all_states(self.line.keyring(), self.line.guard())
            .map_err(|error| status_of(&key::Error::Guard(error)))?;
        Ok(Response::new(wire::ListKeyStatesResponse { keys }))
    }

    async fn init_key(
        &self,
        request: Request<wire::InitKeyRequest>,
    ) -> Result<Response<wire::InitKeyResponse>, Status> {
        let request = request.into_inner();
        let line = &self.line;
        key::init(line.keyring(), line.guard(), line.ledger(), &request)
            .await
            .map_err(|error| status_of(&error))?;
        let key = self.state_of(&request.key)?;
        Ok(Response::new(wire::InitKeyResponse { key }))
    }

    async fn diagnose(
        &self,
        _request: Request<wire::DiagnoseRequest>,
    ) -> Result<Response<wire::DiagnoseResponse>, Status> {
        let expires = self.certificates.expires();
        let anchor = self.about.anchor_status.as_ref().map(anchor::Status::now);
        let findings = doctor::findings(&self.line, &self.about.anchor, anchor.as_ref(), expires)
            .await
            .map_err(|error| Status::internal(error.to_string()))?;
        Ok(Response::new(wire::DiagnoseResponse { findings }))
    }

    async fn acknowledge_alarm(
        &self,
        request: Request<wire::AcknowledgeAlarmRequest>,
    ) -> Result<Response<wire::AcknowledgeAlarmResponse>, Status> {
        let by = by(&request)?;
        let name = request.into_inner().device;
        let devices = self.line.keyring().devices();
        let device = devices.iter().find(|device| *device.name == *name);
        let device = device.ok_or_else(|| {
            Status::invalid_argument(format!("the configuration has no device {name:?}"))
        })?;
        let seen = audit::acknowledge(device, self.line.guard(), by, SystemTime::now())
            .await
            .map_err(|error| match error {
                audit::NotAcknowledged::NoAlarm(_) => {
                    Status::failed_precondition(error.to_string())
                }
                audit::NotAcknowledged::Guard(error) => status_of(&key::Error::Guard(error)),
            })?;
        Ok(Response::new(wire::AcknowledgeAlarmResponse {
            unknown_signatures: seen.unknown_signatures,
            missing_entries: seen.missing_entries,
            broken_links: seen.broken_links,
            unreadable_entries: seen.unreadable_entries,
            administrative_commands: seen.administrative_commands,
        }))
    }

    async fn add_device(
        &self,
        request: Request<wire::AddDeviceRequest>,
    ) -> Result<Response<wire::AddDeviceResponse>, Status> {
        let request = request.into_inner();
        key::add_device(self.line.keyring(), self.line.guard(), &request)
            .await
            .map_err(|error| status_of(&error))?;
        let key = self.state_of(&request.key)?;
        Ok(Response::new(wire::AddDeviceResponse { key }))
    }

    async fn accept_tail(
        &self,
        request: Request<wire::AcceptTailRequest>,
    ) -> Result<Response<wire::AcceptTailResponse>, Status> {
        let by = by(&request)?;
        let signed = documents::signed(request.into_inner().signed);
        let guard = self.line.guard();
        let accepted = guard.accept_tail(&signed, SystemTime::now()).await;
        let error = accepted.as_ref().err();
        documents::journal(guard, AcceptTail::KIND, &by, &signed, error).await;
        let signers = accepted.map_err(status_of_guard)?;
        Ok(Response::new(wire::AcceptTailResponse { signers }))
    }

    async fn get_officers(
        &self,
        _request: Request<wire::GetOfficersRequest>,
    ) -> Result<Response<wire::GetOfficersResponse>, Status> {
        let officers = moves::officers(self.line.guard()).map_err(status_of_guard)?;
        Ok(Response::new(officers))
    }

    async fn set_officers(
        &self,
        request: Request<wire::SetOfficersRequest>,
    ) -> Result<Response<wire::SetOfficersResponse>, Status> {
        let by = by(&request)?;
        let request = request.into_inner();
        let signed = documents::signed(request.signed.clone());
        let guard = self.line.guard();
        let set = moves::set_officers(guard, request).await;
        let error = set.as_ref().err();
        documents::journal(guard, SetOfficers::KIND, &by, &signed, error).await;
        Ok(Response::new(set.map_err(status_of_guard)?))
    }

    async fn export_state(
        &self,
        _request: Request<wire::ExportStateRequest>,
    ) -> Result<Response<wire::ExportStateResponse>, Status> {
        let snapshot = moves::export(self.line.guard()).map_err(status_of_guard)?;
        Ok(Response::new(wire::ExportStateResponse { snapshot }))
    }

    async fn import_state(
        &self,
        request: Request<wire::ImportStateRequest>,
    ) -> Result<Response<wire::ImportStateResponse>, Status> {
        let imported = moves::import(self.line.guard(), request.into_inner()).await;
        for (mark, outcome) in imported.as_ref().into_iter().flatten() {
            if matches!(outcome, Outcome::Contested(_)) {
                let metrics = self.line.metrics();
                metrics.contested(&mark.key, &mark.chain_id);
            }
        }
        let imported = imported.map_err(|error| status_of_move(&error))?;
        let marks = moves::imported_marks(self.line.guard(), imported).map_err(status_of_guard)?;
        Ok(Response::new(wire::ImportStateResponse { marks }))
    }

    async fn recover_key(
        &self,
        request: Request<wire::RecoverKeyRequest>,
    ) -> Result<Response<wire::RecoverKeyResponse>, Status> {
        let by = by(&request)?;
        let request = request.into_inner();
        let name = request.key.clone();
        let signed = documents::signed(request.signed.clone());
        let (keyring, guard) = (self.line.keyring(), self.line.guard());
        let recovered = moves::recover(keyring, guard, request).await;
        if let Err(moves::Error::Guard(error)) = &recovered {
            documents::journal(guard, RecoverKey::KIND, &by, &signed, Some(error)).await;
        }
        recovered.map_err(|error| status_of_move(&error))?;
        let key = self.state_of(&name)?;
        Ok(Response::new(wire::RecoverKeyResponse { key }))
    }

    async fn advance_key(
        &self,
        request: Request<wire::AdvanceKeyRequest>,
    ) -> Result<Response<wire::AdvanceKeyResponse>, Status> {
        let request = request.into_inner();
        key::advance(self.line.guard(), self.line.ledger(), &request)
            .await
            .map_err(|error| status_of(&error))?;
        let key = self.state_of(&request.key)?;
        Ok(Response::new(wire::AdvanceKeyResponse { key }))
    }

    async fn bind_ledger(
        &self,
        request: Request<wire::BindLedgerRequest>,
    ) -> Result<Response<wire::BindLedgerResponse>, Status> {
        let request = request.into_inner();
        key::bind(self.line.guard(), self.line.ledger(), &request)
            .await
            .map_err(|error| status_of(&error))?;
        let key = self.state_of(&request.key)?;
        Ok(Response::new(wire::BindLedgerResponse { key }))
    }

    async fn reconcile_ledgers(
        &self,
        _request: Request<wire::ReconcileLedgersRequest>,
    ) -> Result<Response<wire::ReconcileLedgersResponse>, Status> {
        let ledgers = self.line.ledger().reconcile(self.line.guard()).await;
        Ok(Response::new(wire::ReconcileLedgersResponse { ledgers }))
    }

    async fn replace_journal(
        &self,
        request: Request<wire::ReplaceJournalRequest>,
    ) -> Result<Response<wire::ReplaceJournalResponse>, Status> {
        let by = by(&request)?;
        let signed = documents::signed(request.into_inner().signed);
        let (ledger, guard) = (self.line.ledger(), self.line.guard());
        let replaced = ledger.replace_journal(guard, &signed, SystemTime::now());
        let replaced = replaced.await;
        if let Err(ledger::Error::Guard(error)) = &replaced {
            documents::journal(guard, ReplaceJournal::KIND, &by, &signed, Some(error)).await;
        }
        let signers = replaced.map_err(|error| match error {
            ledger::Error::Guard(error) => status_of_guard(error),
            error => status_of(&key::Error::Ledger(error)),
        })?;
        Ok(Response::new(wire::ReplaceJournalResponse { signers }))
    }

    async fn get_ledger_status(
        &self,
        _request: Request<wire::GetLedgerStatusRequest>,
    ) -> Result<Response<wire::GetLedgerStatusResponse>, Status> {
        let (signer_id, endpoints) = self.line.ledger().about();
        let ledgers = self.line.ledger().states(self.line.guard()).await;
        Ok(Response::new(wire::GetLedgerStatusResponse {
            signer_id,
            endpoints,
            ledgers,
        }))
    }

    async fn load_policy(
        &self,
        request: Request<wire::LoadPolicyRequest>,
    ) -> Result<Response<wire::LoadPolicyResponse>, Status> {
        let by = by(&request)?;
        let signed = documents::signed(request.into_inner().signed);
        let line = &self.line;
        let loaded = in_force::load(
            line.guard(),
            &self.about.state_dir,
            &signed,
            |name| line.keyring().get(name).is_some(),
            |policy| line.put_in_force(policy),
        );
        let loaded = loaded.await;
        let error = loaded.as_ref().err();
        documents::journal(line.guard(), grants::KIND, &by, &signed, error).await;
        let (mark, signers) = loaded.map_err(status_of_guard)?;
        tracing::info!(version = mark.version, "a policy was put in force");
        Ok(Response::new(wire::LoadPolicyResponse {
            version: mark.version,
            signers,
        }))
    }

    async fn freeze(
        &self,
        request: Request<wire::FreezeRequest>,
    ) -> Result<Response<wire::FreezeResponse>, Status> {
        let by = by(&request)?;
        let line = self.line.clone();
        let request = request.into_inner();
        // Also where the caller goes away: no row is left out.
        let freezing = Finished::new(async move {
            let has_key = |name: &str| line.keyring().get(name).is_some();
            moves::freeze(line.guard(), line.ledger(), request, by, has_key).await
        });
        freezing.await.map_err(status_of_freeze)?;
        Ok(Response::new(wire::FreezeResponse {}))
    }

    async fn thaw(
        &self,
        request: Request<wire::ThawRequest>,
    ) -> Result<Response<wire::ThawResponse>, Status> {
        let by = by(&request)?;
        let signed = documents::signed(request.into_inner().signed);
        let line = self.line.clone();
        let thawing = Finished::new(async move {
            let thawed = moves::thaw(line.guard(), line.ledger(), &signed).await;
            if let Err(FreezeError::Guard(error)) = &thawed {
                documents::journal(line.guard(), Thaw::KIND, &by, &signed, Some(error)).await;
            }
            thawed
        });
        Ok(Response::new(thawing.await.map_err(status_of_freeze)?))
    }

    async fn get_policy(
        &self,
        _request: Request<wire::GetPolicyRequest>,
    ) -> Result<Response<wire::GetPolicyResponse>, Status> {
        let in_force = self.line.policy();
        let deployment_id = self
            .line
            .guard()
            .inspect(|state| state.deployment_id().to_vec())
            .map_err(status_of_guard)?;
        let document = in_force.path.as_deref().map(std::fs::read).transpose();
        let document = document.map_err(|error| {
            let path = shown(in_force.path.as_deref());
            Status::internal(format!("{path}: {error}"))
        })?;
        if document
            .as_ref()
            .is_some_and(|document| Sha256::digest(document)[..] != in_force.sha256[..])
        {
            let path = shown(in_force.path.as_deref());
            return Err(Status::failed_precondition(format!(
                "{path} was changed, and is not the policy in force any more: put it back"
            )));
        }
        Ok(Response::new(wire::GetPolicyResponse {
            policy: Some(in_force.status(SystemTime::now())),
            document: document.unwrap_or_default(),
            deployment_id,
        }))
    }
}
