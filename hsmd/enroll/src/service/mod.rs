//! The calls. Each ends in one entry of the register, durable before the answer; refusals leave through one place.

mod admin;
mod admin_socket;
mod nodes;

use std::sync::Arc;
use std::time::SystemTime;

use hsm_policy::identity::Role;
use hsm_proto::v1 as wire;
use hsm_proto::v1::{CertificateKind, Reason};
use rustls_pki_types::CertificateDer;
use sha2::{Digest as _, Sha256};
use tonic::Status;

use crate::Refusal;
use crate::authority::Authority;
use crate::config::Lifetimes;
use crate::contents::Contents;
use crate::listener::Peer;
use crate::metrics::Metrics;
use crate::register::{Grantee, Register, seconds};

pub use admin::AdminService;
pub use admin_socket::{bind, serve};
pub use nodes::NodeService;

/// Certificates begin so long ago, since clocks differ, and less where they are short-lived. Seconds.
const BACKDATED: u64 = 60;

/// What the calls share.
pub struct Server {
    /// Tokens, nodes, revocations.
    pub register: Register,
    /// The CA.
    pub authority: Authority,
    /// How long certificates are valid.
    pub lifetimes: Lifetimes,
    /// What Prometheus sees.
    pub metrics: Metrics,
    /// One revocation at a time.
    pub revoking: tokio::sync::Mutex<()>,
}

/// A certificate that was made and is not recorded yet: it does not leave before it is.
struct Made {
    chain: Vec<CertificateDer<'static>>,
    entry: wire::CertificateIssued,
}

impl Server {
    /// Makes a certificate for a node.
    async fn make(
        &self,
        grantee: &Grantee,
        kind: CertificateKind,
        request: &[u8],
        now: SystemTime,
    ) -> Result<Made, Refusal> {
        let key = crate::request::proven_key(request)?;
        let now = seconds(now);
        let lifetime = match kind {
            CertificateKind::Grant => self.lifetimes.of(Role::Grant),
            _ => self.lifetimes.of(grantee.role),
        };
        let contents = Contents::of_node(
            &self.register.inspect(|state| state.trust_domain().clone()),
            (grantee.role, &grantee.name),
            kind,
            &grantee.names,
            // Never before a revocation, which would revoke it at once.
            (
                now.saturating_sub(BACKDATED.min(lifetime.as_secs() / 10))
                    .max(grantee.not_before),
                now.saturating_add(lifetime.as_secs()),
            ),
        );
        let made = self.authority.issue(contents, &key).await;
        let (contents, chain) = made.map_err(|error| {
            tracing::error!(%error, "no certificate was made");
            self.metrics.authority_failed();
            Refusal::new(
                Reason::DeviceUnavailable,
                "the CA's device made no signature; try again later",
            )
        })?;
        let sha256 = chain.first().map(|leaf| Sha256::digest(leaf).to_vec());
        let entry = wire::CertificateIssued {
            node: grantee.name.clone(),
            kind: kind.into(),
            sha256: sha256.unwrap_or_default(),
            not_before: contents.not_before,
            not_after: contents.not_after,
            ..wire::CertificateIssued::default()
        };
        Ok(Made { chain, entry })
    }

    /// Records a refusal, counts it, and makes the caller's answer of it.
    async fn refuse(&self, call: &str, peer: &Peer, caller: String, refusal: &Refusal) -> Status {
        self.metrics.refused(refusal.reason);
        let address = peer.address().ip().to_string();
        let reason = refusal.reason.name();
        tracing::warn!(call, reason, address, caller, "refused: {refusal}");
        let refused = wire::EnrolmentRefused {
            call: call.to_owned(),
            reason: reason.to_owned(),
            message: refusal.message.clone(),
            address,
            caller,
            more: 0,
        };
        self.register.refused(refused).await;
        refusal.status()
    }
}

impl Made {
    fn issued(self) -> wire::Issued {
        let chain = self.chain.into_iter().map(|der| der.to_vec());
        wire::Issued {
            chain: chain.collect(),
        }
    }
}

/// What all services hold.
pub type Shared = Arc<Server>;
