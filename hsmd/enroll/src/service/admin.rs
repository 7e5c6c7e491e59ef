//! Administration, on the UNIX socket.

use std::collections::HashSet;
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use hsm_policy::identity::{Role, is_name};
use hsm_policy::revocation::Scope;
use hsm_proto::v1 as wire;
use hsm_proto::v1::Reason;
use hsm_proto::v1::enrol_admin_server::EnrolAdmin;
use hsm_proto::v1::register_entry::Event;
use hsm_proto::v1::revoke_request;
use secrecy::ExposeSecret as _;
use tonic::transport::server::UdsConnectInfo;
use tonic::{Request, Response, Status};

use super::Shared;
use crate::Refusal;
use crate::contents::{is_host, is_same_host};
use crate::node::is_file_name;
use crate::register::seconds;
use crate::token;

/// A token is carried by hand, and not for long.
const LONGEST_VALID: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// What is assigned to one node fits into one entry of the journal.
const MOST_BYTES: usize = 48 << 10;
const MOST_NAMES: usize = 16;

/// The service of the administration socket.
pub struct AdminService {
    server: Shared,
    /// The names that this server itself is known by: no signer gets one.
    own_names: Vec<String>,
}

impl AdminService {
    /// Over this server.
    #[must_use]
    pub fn new(server: Shared, own_names: Vec<String>) -> Self {
        Self { server, own_names }
    }

    async fn token(
        &self,
        asked: wire::CreateTokenRequest,
        by_user: u32,
    ) -> Result<wire::CreateTokenResponse, Refusal> {
        let server = &self.server;
        self.check(&asked)?;
        let now = SystemTime::now();
        let expires = seconds(now).saturating_add(asked.valid_s);
        let (text, hash) = token::generate().map_err(|error| {
            tracing::error!(%error, "no token was made");
            Refusal::new(Reason::Internal, "the system gives no randomness")
        })?;
        let recorded = server.register.act(now, |state| {
            if let Some(node) = state.node(&asked.node)
                && node.role.name() != asked.role
            {
                let message = format!(
                    "node {} is registered with role {}: give it another name",
                    asked.node, node.role
                );
                return Err(invalid(message));
            }
            Ok(Event::TokenCreated(wire::TokenCreated {
                token_sha256: hash.to_vec(),
                node: asked.node.clone(),
                role: asked.role.clone(),
                address: asked.address.clone(),
                expires,
                names: asked.names.clone(),
                by_user,
            }))
        });
        let entry = recorded.await?;
        Ok(wire::CreateTokenResponse {
            token: text.expose_secret().to_owned(),
            expires: crate::register::to_wire(expires),
            ca_fingerprint: hex::encode(server.authority.fingerprint()),
            entry,
        })
    }

    fn check(&self, asked: &wire::CreateTokenRequest) -> Result<(), Refusal> {
        if !is_name(&asked.node) || asked.node.len() > 64 {
            let message = "a node's name is of 1 to 64 characters a-z A-Z 0-9 . _ -";
            return Err(invalid(message));
        }
        let role: Role = asked.role.parse().map_err(invalid)?;
        if role == Role::Grant {
            return Err(invalid(
                "a node's role is sentry, operator, auditor or signer",
            ));
        }
        if !asked.address.is_empty() && asked.address.parse::<IpAddr>().is_err() {
            return Err(invalid(format!("{:?} is no IP address", asked.address)));
        }
        if !(1..=LONGEST_VALID.as_secs()).contains(&asked.valid_s) {
            return Err(invalid("a token is valid for 1 s to 7 days"));
        }
        if role != Role::Signer && !asked.names.is_empty() {
            return Err(invalid(
                "only a signer is known by DNS names and IP addresses",
            ));
        }
        if role == Role::Signer && asked.names.is_empty() {
            return Err(invalid(
                "a signer needs the name that its callers know it by: --name",
            ));
        }
        if asked.names.len() > MOST_NAMES {
            return Err(invalid(format!("more than {MOST_NAMES} names")));
        }
        for name in &asked.names {
            if !is_host(name) {
                return Err(invalid(format!(
                    "{name:?} is neither a host name nor an IP address"
                )));
            }
            if self.own_names.iter().any(|own| is_same_host(own, name)) {
                return Err(invalid(format!("{name} is this server's own name")));
            }
        }
        Ok(())
    }

    async fn assign(
        &self,
        asked: wire::AssignFilesRequest,
        by_user: u32,
    ) -> Result<wire::AssignFilesResponse, Refusal> {
        let mut names = HashSet::new();
        let mut bytes = 0;
        for file in &asked.files {
            if !is_file_name(&file.name) || !names.insert(&file.name) {
                let message = format!(
                    "{:?} is no file name that can be assigned, or is there twice: a-z A-Z 0-9 . _ -, none of the \
                     node's own files",
                    file.name
                );
                return Err(invalid(message));
            }
            bytes += file.name.len() + file.content.len();
        }
        if bytes > MOST_BYTES {
            let message = format!("{bytes} bytes of files; a node has at most {MOST_BYTES}");
            return Err(invalid(message));
        }
        let node = asked.node.clone();
        let recorded = self.server.register.act(SystemTime::now(), |state| {
            state.grantee(&node)?;
            Ok(Event::FilesAssigned(wire::FilesAssigned {
                node: asked.node,
                files: asked.files,
                by_user,
            }))
        });
        Ok(wire::AssignFilesResponse {
            entry: recorded.await?,
        })
    }

    /// The list is signed before it is recorded; a certificate that is issued meanwhile makes a later moment needed.
    async fn revoke(&self, scope: &Scope, by_user: u32) -> Result<wire::RevokeResponse, Refusal> {
        const ATTEMPTS: usize = 10;
        let server = &self.server;
        let _one_at_a_time = server.revoking.lock().await;
        if let Scope::Node(name) = scope {
            server.register.inspect(|state| state.grantee(name))?;
        }
        for _ in 0..ATTEMPTS {
            let now = SystemTime::now();
            let (list, moment) = server.register.inspect(|state| {
                let moment = state.revocation_moment(seconds(now));
                (state.revocations().and(scope, moment), moment)
            });
            let list = list?;
            let signed = server.authority.sign_revocations(&list).await;
            let signed = signed.map_err(|error| {
                tracing::error!(%error, "the list of revocations was not signed");
                server.metrics.authority_failed();
                let message = format!("nothing was revoked: {error}");
                Refusal::new(Reason::DeviceUnavailable, message)
            })?;
            let recorded = server.register.act(now, |state| {
                if state.revocation_moment(0) > moment {
                    return Err(Refusal::new(Reason::Internal, AGAIN));
                }
                Ok(Event::NodesRevoked(wire::NodesRevoked {
                    revocations: Some(signed),
                    scope: said(scope),
                    by_user,
                }))
            });
            match recorded.await {
                Err(refusal) if refusal.message == AGAIN => {}
                recorded => {
                    let entry = recorded?;
                    server.metrics.revocations(list.sequence());
                    tracing::warn!(scope = said(scope), sequence = list.sequence(), "revoked");
                    return Ok(wire::RevokeResponse {
                        sequence: list.sequence(),
                        not_before: moment,
                        entry,
                    });
                }
            }
        }
        let message =
            "nothing was revoked, since certificates were issued all the while; try again";
        Err(Refusal::new(Reason::Internal, message))
    }

    fn nodes(&self) -> wire::ListNodesResponse {
        let now = seconds(SystemTime::now());
        let nodes = self.server.register.inspect(|state| {
            let nodes = state.nodes().map(|(name, node)| wire::NodeState {
                name: name.clone(),
                role: node.role.to_string(),
                names: node.names.clone(),
                joined: crate::register::to_wire(node.joined),
                renewed: crate::register::to_wire(node.renewed),
                expires: crate::register::to_wire(node.expires),
                not_before: state.revocations().not_before(node.role, name),
                files: node.files.iter().map(|file| file.name.clone()).collect(),
                open_tokens: u32::try_from(state.open_tokens(name, now)).unwrap_or(u32::MAX),
            });
            (nodes.collect(), state.signed_revocations().clone())
        });
        wire::ListNodesResponse {
            nodes: nodes.0,
            revocations: Some(nodes.1),
            ca_fingerprint: hex::encode(self.server.authority.fingerprint()),
        }
    }
}

/// Never a caller's: the loop takes it.
const AGAIN: &str = "a certificate was issued meanwhile";

fn invalid(message: impl Into<String>) -> Refusal {
    Refusal::new(Reason::InvalidField, message)
}

fn said(scope: &Scope) -> String {
    match scope {
        Scope::All => "all".to_owned(),
        Scope::Role(role) => format!("role {role}"),
        Scope::Node(name) => format!("node {name}"),
    }
}

fn scope(asked: wire::RevokeRequest) -> Result<Scope, Refusal> {
    match asked.scope {
        Some(revoke_request::Scope::Node(name)) => Ok(Scope::Node(name)),
        Some(revoke_request::Scope::Role(role)) => match role.parse().map_err(invalid)? {
            // A node's granting certificate goes with its role.
            Role::Grant => Err(invalid(
                "write sentry, operator, auditor or signer, or revoke all",
            )),
            role => Ok(Scope::Role(role)),
        },
        Some(revoke_request::Scope::All(true)) => Ok(Scope::All),
        _ => Err(invalid("say whom to revoke: a node, a role or all")),
    }
}

fn user<T>(request: &Request<T>) -> u32 {
    let peer = request.extensions().get::<UdsConnectInfo>();
    let credentials = peer.and_then(|peer| peer.peer_cred);
    credentials.map_or(u32::MAX, |credentials| credentials.uid())
}

fn answer<T>(answer: Result<T, Refusal>) -> Result<Response<T>, Status> {
    answer
        .map(Response::new)
        .map_err(|refusal| refusal.status())
}

#[tonic::async_trait]
impl EnrolAdmin for AdminService {
    async fn create_token(
        &self,
        request: Request<wire::CreateTokenRequest>,
    ) -> Result<Response<wire::CreateTokenResponse>, Status> {
        let user = user(&request);
        answer(self.token(request.into_inner(), user).await)
    }

    async fn list_nodes(
        &self,
        _: Request<wire::ListNodesRequest>,
    ) -> Result<Response<wire::ListNodesResponse>, Status> {
        Ok(Response::new(self.nodes()))
    }

    async fn assign_files(
        &self,
        request: Request<wire::AssignFilesRequest>,
    ) -> Result<Response<wire::AssignFilesResponse>, Status> {
        let user = user(&request);
        answer(self.assign(request.into_inner(), user).await)
    }

    async fn revoke(
        &self,
        request: Request<wire::RevokeRequest>,
    ) -> Result<Response<wire::RevokeResponse>, Status> {
        let user = user(&request);
        match scope(request.into_inner()) {
            Ok(scope) => answer(AdminService::revoke(self, &scope, user).await),
            Err(refusal) => Err(refusal.status()),
        }
    }
}
