//! The gRPC service `hsm.v1.Admin`, on the administration socket.

use std::sync::Arc;
use std::time::SystemTime;

use hsm_policy::conflict::Outcome;
use hsm_proto::v1 as wire;
use hsm_proto::v1::admin_server::Admin;
use tonic::transport::server::UdsConnectInfo;
use tonic::{Request, Response, Status};

use crate::anchor;
use crate::audit;
use crate::doctor;
use crate::guard;
use crate::guard::entry::wall_clock;
use crate::key::{self, key_state};
use crate::keyring::Device;
use crate::ledger;
use crate::line::Line;
use crate::moves;
use crate::revocation;
use crate::transport::Certificates;

/// What `GetStatus` reports besides what the line knows.
pub struct About {
    /// When the daemon started.
    pub started: SystemTime,
    /// Whether any device is the mock.
    pub mock: bool,
    /// The policy document's path.
    pub policy_path: String,
    /// SHA-256 of the policy document, 32 bytes.
    pub policy_digest: Vec<u8>,
    /// The journal's directory.
    pub journal_directory: String,
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
    line: Arc<Line>,
    certificates: Certificates,
    about: About,
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

    fn journal_status(&self) -> wire::JournalStatus {
        let journal = self.line.guard().journal().status();
        wire::JournalStatus {
            directory: self.about.journal_directory.clone(),
            durable_entries: journal.entries,
            root: journal.root.to_vec(),
            segment: journal.segment,
            fault: journal
                .stopped
                .or(journal.fault.map(|fault| fault.to_string()))
                .unwrap_or_default(),
        }
    }

    /// Without an anchor there may be a tail in doubt, from the time when there was one.
    fn anchor_status(&self) -> Result<Option<wire::AnchorStatus>, Status> {
        let unproven = self.line.guard().inspect(|state| state.unproven().copied());
        let unproven = unproven.map_err(|error| Status::internal(error.to_string()))?;
        let Some(status) = &self.about.anchor_status else {
            return Ok(unproven.map(|tail| wire::AnchorStatus {
                unproven_size: tail.size,
                unproven_root: tail.root.to_vec(),
                ..wire::AnchorStatus::default()
            }));
        };
        let (now, pace) = (status.now(), status.pace);
        Ok(Some(wire::AnchorStatus {
            counter: now.counter,
            advances: now.advances,
            window: pace.window.unsigned_abs(),
            spare: pace.spare.unsigned_abs(),
            interval_seconds: pace.interval.as_secs(),
            fault: now.fault.unwrap_or_default(),
            unproven_size: unproven.map_or(0, |tail| tail.size),
            unproven_root: unproven.map_or_else(Vec::new, |tail| tail.root.to_vec()),
        }))
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
        Ok(Response::new(wire::GetStatusResponse {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started: Some(wall_clock(self.about.started)),
            mock: self.about.mock,
            policy_path: self.about.policy_path.clone(),
            policy_digest: self.about.policy_digest.clone(),
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
        let by = peer(&request)?;
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
        let signed = request.into_inner().signed.unwrap_or_default();
        let signed = guard::Signed {
            document: signed.document,
            signatures: signed.signatures,
        };
        let accepted = self.line.guard().accept_tail(&signed, SystemTime::now());
        let signers = accepted.await.map_err(status_of_guard)?;
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
        let set = moves::set_officers(self.line.guard(), request.into_inner()).await;
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
        let request = request.into_inner();
        let name = request.key.clone();
        moves::recover(self.line.keyring(), self.line.guard(), request)
            .await
            .map_err(|error| status_of_move(&error))?;
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
}

/// Who is at the other end of the administration socket.
fn peer<T>(request: &Request<T>) -> Result<String, Status> {
    let peer = request.extensions().get::<UdsConnectInfo>();
    let credentials = peer.and_then(|peer| peer.peer_cred);
    let credentials =
        credentials.ok_or_else(|| Status::unauthenticated("a peer without credentials"))?;
    Ok(format!("uid {}", credentials.uid()))
}

fn device_status(device: &Device, unknown_signatures: u64) -> wire::DeviceStatus {
    let status = device.worker.status();
    let info = status.info.as_ref();
    wire::DeviceStatus {
        name: status.name,
        backend: status.backend.name().to_owned(),
        state: status.state.name().to_owned(),
        serial: info.map_or_else(String::new, |info| info.serial.clone()),
        firmware: info.map_or_else(String::new, |info| info.firmware.clone()),
        fault: status
            .last_fault
            .map_or_else(String::new, |fault| fault.to_string()),
        unknown_signatures,
    }
}

fn status_of(error: &key::Error) -> Status {
    let message = error.to_string();
    match error {
        key::Error::Ledger(ledger::Error::Unavailable(_)) => Status::unavailable(message),
        key::Error::Ledger(_) => Status::failed_precondition(message),
        key::Error::UnknownKey { .. }
        | key::Error::UnknownDevice { .. }
        | key::Error::InvalidChain(_)
        | key::Error::NegativeHeight(_) => Status::invalid_argument(message),
        key::Error::Guard(guard::Error::AlreadyKnown(_)) => Status::already_exists(message),
        key::Error::Guard(
            guard::Error::NotInitialised { .. }
            | guard::Error::NotAbove { .. }
            | guard::Error::NoOfficers { .. }
            | guard::Error::Officers(_)
            | guard::Error::Statement(_)
            | guard::Error::NotThatTail { .. },
        ) => Status::failed_precondition(message),
        key::Error::OtherSerial { .. } | key::Error::OtherKey { .. } => {
            Status::failed_precondition(message)
        }
        key::Error::Guard(guard::Error::Journal(_)) => Status::unavailable(message),
        key::Error::Device(_) => Status::unavailable(message),
        key::Error::Guard(_) => Status::internal(message),
    }
}

fn status_of_guard(error: guard::Error) -> Status {
    status_of(&key::Error::Guard(error))
}

fn status_of_move(error: &moves::Error) -> Status {
    match error {
        moves::Error::Key(error) => status_of(error),
        moves::Error::Guard(guard::Error::Journal(_)) | moves::Error::Device(_) => {
            Status::unavailable(error.to_string())
        }
        _ => Status::failed_precondition(error.to_string()),
    }
}
