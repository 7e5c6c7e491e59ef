//! What nodes call: joining, fetching certificates and files, and the list of revocations.

use std::time::SystemTime;

use hsm_policy::identity::Role;
use hsm_proto::v1 as wire;
use hsm_proto::v1::admission_server::Admission;
use hsm_proto::v1::enrolment_server::Enrolment;
use hsm_proto::v1::register_entry::Event;
use hsm_proto::v1::{CertificateKind, Reason};
use prost::Message as _;
use tonic::{Request, Response, Status};

use super::Shared;
use crate::Refusal;
use crate::contents;
use crate::listener::{Identity, Peer};
use crate::register::{Grantee, seconds};
use crate::token;

/// The services that are reached over the network. Clones share the server.
#[derive(Clone)]
pub struct NodeService(Shared);

impl NodeService {
    /// Over this server.
    #[must_use]
    pub fn new(server: Shared) -> Self {
        Self(server)
    }

    /// Trades a token for a granting certificate. The certificate is made first and the token spent with its
    /// recording, under one lock: of two that race, one certificate never leaves.
    async fn admit(
        &self,
        peer: &Peer,
        asked: &wire::JoinRequest,
    ) -> Result<wire::JoinResponse, Refusal> {
        let server = &self.0;
        let token = token::hash(&asked.token)?;
        let (now, address) = (SystemTime::now(), peer.address().ip().to_canonical());
        let admitted = |state: &crate::register::State, now| {
            state.admits(&token, &asked.node, address, seconds(now))
        };
        let grantee = server.register.inspect(|state| admitted(state, now))?;
        let request = &asked.certificate_request;
        let mut made = server
            .make(&grantee, CertificateKind::Grant, request, now)
            .await?;
        made.entry.address = address.to_string();
        let recorded = server.register.act(SystemTime::now(), |state| {
            if admitted(state, SystemTime::now())? != grantee {
                return Err(changed());
            }
            Ok(Event::NodeJoined(wire::NodeJoined {
                token_sha256: token.to_vec(),
                address: address.to_string(),
                grant: Some(made.entry.clone()),
            }))
        });
        recorded.await?;
        server.metrics.issued("grant");
        tracing::info!(node = grantee.name, role = %grantee.role, %address, "joined");
        let kinds = contents::kinds(grantee.role).iter();
        let trust_domain = server
            .register
            .inspect(|state| state.trust_domain().clone());
        Ok(wire::JoinResponse {
            grant: Some(made.issued()),
            trust_domain: trust_domain.to_string(),
            role: grantee.role.to_string(),
            kinds: kinds.map(|kind| i32::from(*kind)).collect(),
        })
    }

    async fn certify(
        &self,
        peer: &Peer,
        asked: &wire::IssueRequest,
    ) -> Result<wire::IssueResponse, Refusal> {
        let server = &self.0;
        let now = SystemTime::now();
        let (identity, grantee) = self.holder(peer, now)?;
        let kind = asked.kind();
        if kind != CertificateKind::Grant && !contents::kinds(grantee.role).contains(&kind) {
            let message = format!("a node of role {} has no such certificate", grantee.role);
            return Err(Refusal::new(Reason::KindNotOfRole, message));
        }
        let request = &asked.certificate_request;
        let mut made = server.make(&grantee, kind, request, now).await?;
        made.entry.address = peer.address().ip().to_canonical().to_string();
        made.entry.asked_by = identity.fingerprint.to_vec();
        let recorded = server.register.act(SystemTime::now(), |state| {
            // It may have been revoked, or have joined anew, meanwhile.
            let name = &grantee.name;
            if state.holder(name, &identity.fingerprint, identity.not_before)? != grantee {
                return Err(changed());
            }
            Ok(Event::CertificateIssued(made.entry.clone()))
        });
        recorded.await?;
        let name = match kind {
            CertificateKind::Server => "server",
            CertificateKind::Client => "client",
            _ => "grant",
        };
        server.metrics.issued(name);
        tracing::info!(node = grantee.name, kind = name, "issued a certificate");
        Ok(wire::IssueResponse {
            certificate: Some(made.issued()),
        })
    }

    async fn files(&self, peer: &Peer) -> Result<wire::GetFilesResponse, Refusal> {
        let server = &self.0;
        let (_, grantee) = self.holder(peer, SystemTime::now())?;
        let document = server.register.inspect(|state| wire::NodeFiles {
            trust_domain: state.trust_domain().to_string(),
            node: grantee.name.clone(),
            version: state
                .node(&grantee.name)
                .map_or(0, |node| node.files_version),
            files: state
                .node(&grantee.name)
                .map_or_else(Vec::new, |node| node.files.clone()),
        });
        server.register.durable(document.version).await?;
        let document = document.encode_to_vec();
        let signature = server.authority.sign_files(&document).await;
        let signature = signature.map_err(|error| {
            tracing::error!(%error, "a node's files were not signed");
            server.metrics.authority_failed();
            let message = "the CA's device made no signature; try again later";
            Refusal::new(Reason::DeviceUnavailable, message)
        })?;
        Ok(wire::GetFilesResponse {
            document,
            signature,
        })
    }

    /// The node whose granting certificate is at the other end.
    fn holder(&self, peer: &Peer, now: SystemTime) -> Result<(Identity, Grantee), Refusal> {
        let identity = peer.identity_at(seconds(now))?;
        if identity.caller.role() != Role::Grant {
            let message = format!(
                "{} is no granting certificate: a node fetches its certificates with the one that it got when it joined",
                identity.caller
            );
            return Err(Refusal::new(Reason::WrongRole, message));
        }
        let name = identity.caller.name();
        let grantee = self
            .0
            .register
            .inspect(|state| state.holder(name, &identity.fingerprint, identity.not_before))?;
        Ok((identity, grantee))
    }

    /// Revoked certificates get it too: it tells what is revoked, and nothing that is secret.
    async fn revocations(&self, peer: &Peer) -> Result<wire::SignedRevocations, Refusal> {
        peer.identity_at(seconds(SystemTime::now()))?;
        let register = &self.0.register;
        let (signed, entry) = register.inspect(|state| {
            let signed = state.signed_revocations().clone();
            (signed, state.revocations_entry())
        });
        // One that a crash could take back would leave whoever took it ahead of us.
        register.durable(entry).await?;
        Ok(signed)
    }

    async fn answer<T>(
        &self,
        call: &str,
        peer: &Peer,
        caller: String,
        answer: Result<T, Refusal>,
    ) -> Result<Response<T>, Status> {
        match answer {
            Ok(answer) => Ok(Response::new(answer)),
            Err(refusal) => Err(self.0.refuse(call, peer, caller, &refusal).await),
        }
    }
}

/// Between making a certificate and recording it, the register changed.
fn changed() -> Refusal {
    let message = "the register changed meanwhile; send the request again";
    Refusal::new(Reason::JournalUnavailable, message)
}

/// Where a request came from. The listener puts it there.
fn peer<T>(request: &Request<T>) -> Result<Peer, Status> {
    let peer = request.extensions().get::<Peer>().cloned();
    peer.ok_or_else(|| Status::internal("a request without a connection"))
}

/// A name that a stranger sends, as the register keeps it.
fn kept(name: &str) -> String {
    name.chars().take(64).collect()
}

#[tonic::async_trait]
impl Admission for NodeService {
    async fn join(
        &self,
        request: Request<wire::JoinRequest>,
    ) -> Result<Response<wire::JoinResponse>, Status> {
        let peer = peer(&request)?;
        let asked = request.into_inner();
        let answer = self.admit(&peer, &asked).await;
        self.answer("join", &peer, kept(&asked.node), answer).await
    }
}

#[tonic::async_trait]
impl Enrolment for NodeService {
    async fn issue(
        &self,
        request: Request<wire::IssueRequest>,
    ) -> Result<Response<wire::IssueResponse>, Status> {
        let peer = peer(&request)?;
        let answer = self.certify(&peer, &request.into_inner()).await;
        self.answer("issue", &peer, peer.caller_name(), answer)
            .await
    }

    async fn get_files(
        &self,
        request: Request<wire::GetFilesRequest>,
    ) -> Result<Response<wire::GetFilesResponse>, Status> {
        let peer = peer(&request)?;
        let answer = self.files(&peer).await;
        self.answer("files", &peer, peer.caller_name(), answer)
            .await
    }

    async fn get_revocations(
        &self,
        request: Request<wire::GetRevocationsRequest>,
    ) -> Result<Response<wire::SignedRevocations>, Status> {
        let peer = peer(&request)?;
        let answer = self.revocations(&peer).await;
        self.answer("revocations", &peer, peer.caller_name(), answer)
            .await
    }
}
