//! What replaying the journal yields, and what it says about a call.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use hsm_policy::identity::{Role, TrustDomain, is_name};
use hsm_policy::revocation::Revocations;
use hsm_proto::v1 as wire;
use hsm_proto::v1::register_entry::Event;
use hsm_proto::v1::{CertificateKind, Reason};

use crate::Refusal;
use crate::token::Hash;

/// A token that expired so long ago is forgotten; showing it is refused as before, as unknown. 30 days, in seconds.
const FORGOTTEN_AFTER: u64 = 30 * 24 * 60 * 60;

/// Tokens, nodes and revocations.
#[derive(Clone, Debug, PartialEq)]
pub struct State {
    pub(super) trust_domain: TrustDomain,
    pub(super) tokens: HashMap<Hash, wire::TokenState>,
    pub(super) nodes: BTreeMap<String, Node>,
    pub(super) revocations: Revocations,
    pub(super) signed: wire::SignedRevocations,
    pub(super) revocations_entry: u64,
    pub(super) latest_not_before: u64,
}

/// A node that was, or is to be, admitted.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Its one role.
    pub role: Role,
    /// DNS names and IP addresses of its server certificate.
    pub names: Vec<String>,
    /// The files assigned to it.
    pub files: Vec<wire::NodeFile>,
    /// The entry that assigned them.
    pub files_version: u64,
    /// SHA-256 of the granting certificates that are taken: the newest, and the one that asked for it.
    pub grants: Vec<Hash>,
    /// When it joined, in seconds since 1970; 0 before.
    pub joined: u64,
    /// When it last got a certificate.
    pub renewed: u64,
    /// When the last of them expires.
    pub expires: u64,
}

/// For whom a certificate is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grantee {
    /// The node's name.
    pub name: String,
    /// Its role.
    pub role: Role,
    /// DNS names and IP addresses.
    pub names: Vec<String>,
    /// From when on its certificates count, in seconds since 1970.
    pub not_before: u64,
}

impl State {
    /// The register of a deployment with no node.
    #[must_use]
    pub fn new(trust_domain: TrustDomain) -> Self {
        Self {
            revocations: Revocations::none(trust_domain.clone()),
            trust_domain,
            tokens: HashMap::new(),
            nodes: BTreeMap::new(),
            signed: wire::SignedRevocations::default(),
            revocations_entry: 0,
            latest_not_before: 0,
        }
    }

    /// Whose certificates these are.
    #[must_use]
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// The nodes, by name.
    pub fn nodes(&self) -> impl Iterator<Item = (&String, &Node)> {
        self.nodes.iter()
    }

    /// A node.
    #[must_use]
    pub fn node(&self, name: &str) -> Option<&Node> {
        self.nodes.get(name)
    }

    /// The tokens of a node that can still be used.
    #[must_use]
    pub fn open_tokens(&self, name: &str, now: u64) -> usize {
        let open = |token: &&wire::TokenState| {
            token.created.as_ref().is_some_and(|created| {
                created.node == name && created.expires > now && !token.spent && !token.revoked
            })
        };
        self.tokens.values().filter(open).count()
    }

    /// What is revoked.
    #[must_use]
    pub fn revocations(&self) -> &Revocations {
        &self.revocations
    }

    /// The same as it was signed; empty where nothing was revoked yet.
    #[must_use]
    pub fn signed_revocations(&self) -> &wire::SignedRevocations {
        &self.signed
    }

    /// The entry that put it into force: the list leaves once that is durable.
    #[must_use]
    pub fn revocations_entry(&self) -> u64 {
        self.revocations_entry
    }

    /// The moment from which certificates count that are made after a revocation now: later than the beginning of
    /// every certificate made so far, and than every revocation, so that it concerns the tokens made since the last.
    #[must_use]
    pub fn revocation_moment(&self, now: u64) -> u64 {
        let latest = self.latest_not_before.max(self.revocations.latest());
        now.max(latest.saturating_add(1))
    }

    /// Whom the token admits, if it does so now, from this address.
    ///
    /// # Errors
    /// A refusal with the reason; nothing is spent by it.
    pub fn admits(
        &self,
        token: &Hash,
        name: &str,
        address: IpAddr,
        now: u64,
    ) -> Result<Grantee, Refusal> {
        let state = self.tokens.get(token);
        let created = state.and_then(|state| state.created.as_ref());
        let (Some(state), Some(created)) = (state, created) else {
            let message = "no such admission token was made; make one with `hsm-enroll token`";
            return Err(Refusal::new(Reason::TokenUnknown, message));
        };
        if created.node != name {
            let message = "the admission token is for another node; it stays good for that one";
            return Err(Refusal::new(Reason::TokenNode, message));
        }
        if !created.address.is_empty() && created.address.parse() != Ok(address) {
            let message = format!(
                "the admission token of node {name} is for another address than {address}; it stays good for its own"
            );
            return Err(Refusal::new(Reason::TokenAddress, message));
        }
        if state.spent {
            let message = format!(
                "the admission token of node {name} was used: if that was not you, revoke the node; else make another"
            );
            return Err(Refusal::new(Reason::TokenSpent, message));
        }
        if now >= created.expires {
            let message = format!("the admission token of node {name} has expired; make another");
            return Err(Refusal::new(Reason::TokenExpired, message));
        }
        if state.revoked {
            let message = format!(
                "node {name} was revoked after its admission token was made; make another to admit it again"
            );
            return Err(Refusal::new(Reason::TokenRevoked, message));
        }
        self.grantee(name)
    }

    /// The node whose granting certificate this is.
    ///
    /// # Errors
    /// A refusal with the reason.
    pub fn holder(
        &self,
        name: &str,
        certificate: &Hash,
        not_before: u64,
    ) -> Result<Grantee, Refusal> {
        let grantee = self.grantee(name)?;
        if not_before < grantee.not_before {
            return Err(revoked(name));
        }
        let node = self.nodes.get(name);
        if !node.is_some_and(|node| node.grants.contains(certificate)) {
            let message = format!(
                "node {name} has a newer granting certificate than this: if it renews from one place only, a copy of \
                 its key is in use, so revoke it; else join again"
            );
            return Err(Refusal::new(Reason::GrantSuperseded, message));
        }
        Ok(grantee)
    }

    /// A registered node.
    ///
    /// # Errors
    /// [`Reason::CallerUnrecognised`].
    pub fn grantee(&self, name: &str) -> Result<Grantee, Refusal> {
        let node = self.nodes.get(name).ok_or_else(|| {
            let message = format!("there is no node {name:?} in the register");
            Refusal::new(Reason::CallerUnrecognised, message)
        })?;
        Ok(Grantee {
            name: name.to_owned(),
            role: node.role,
            names: node.names.clone(),
            not_before: self.revocations.not_before(node.role, name),
        })
    }

    /// Whether an event follows from what came before.
    ///
    /// # Errors
    /// A sentence for people.
    pub fn check(&self, event: &Event) -> Result<(), String> {
        match event {
            Event::Created(_) | Event::Started(_) | Event::Stopped(_) | Event::Refused(_) => Ok(()),
            Event::TokenCreated(created) => self.check_token(created),
            Event::NodeJoined(joined) => {
                let token = hash(&joined.token_sha256)?;
                let token = self.tokens.get(&token).ok_or("an unknown token was used")?;
                let grant = joined
                    .grant
                    .as_ref()
                    .ok_or("a join without a certificate")?;
                let for_node = token.created.as_ref().map(|created| &created.node);
                if token.spent || for_node != Some(&grant.node) {
                    return Err(format!("node {} joined with a used token", grant.node));
                }
                self.check_issued(grant)
            }
            Event::CertificateIssued(issued) => self.check_issued(issued),
            Event::FilesAssigned(assigned) => self.known(&assigned.node),
            Event::NodesRevoked(revoked) => {
                let next = list(revoked.revocations.as_ref())?;
                let refused = self.revocations.gives_way_to(&next);
                refused.map_err(|error| error.to_string())
            }
        }
    }

    fn check_token(&self, created: &wire::TokenCreated) -> Result<(), String> {
        let role: Role = created.role.parse()?;
        if self.tokens.contains_key(&hash(&created.token_sha256)?) {
            return Err("a token made twice".to_owned());
        }
        if !is_name(&created.node) {
            return Err(format!("{:?} is no name of a node", created.node));
        }
        match self.nodes.get(&created.node) {
            Some(node) if node.role != role => {
                Err(format!("node {} has role {}", created.node, node.role))
            }
            _ => Ok(()),
        }
    }

    fn check_issued(&self, issued: &wire::CertificateIssued) -> Result<(), String> {
        hash(&issued.sha256)?;
        self.known(&issued.node)
    }

    fn known(&self, name: &str) -> Result<(), String> {
        match self.nodes.contains_key(name) {
            true => Ok(()),
            false => Err(format!("there is no node {name:?}")),
        }
    }

    /// Makes the change of an event that [`Self::check`] passed, made at `now` seconds since 1970.
    pub fn commit(&mut self, index: u64, now: u64, event: Event) {
        match event {
            Event::Created(_) | Event::Started(_) | Event::Stopped(_) | Event::Refused(_) => {}
            Event::TokenCreated(created) => self.commit_token(now, created),
            Event::NodeJoined(joined) => {
                let token = hash(&joined.token_sha256).ok();
                if let Some(token) = token.and_then(|token| self.tokens.get_mut(&token)) {
                    token.spent = true;
                }
                if let Some(grant) = joined.grant {
                    if let Some(node) = self.nodes.get_mut(&grant.node) {
                        node.joined = now;
                        // What another machine holds that joined as this node is void.
                        node.grants.clear();
                    }
                    self.commit_issued(now, &grant);
                }
            }
            Event::CertificateIssued(issued) => self.commit_issued(now, &issued),
            Event::FilesAssigned(assigned) => {
                if let Some(node) = self.nodes.get_mut(&assigned.node) {
                    node.files = assigned.files;
                    node.files_version = index;
                }
            }
            Event::NodesRevoked(revoked) => {
                if let Ok(next) = list(revoked.revocations.as_ref()) {
                    self.revoke_tokens(&next);
                    self.revocations = next;
                    self.revocations_entry = index;
                    self.signed = revoked.revocations.unwrap_or_default();
                }
            }
        }
    }

    fn commit_token(&mut self, now: u64, created: wire::TokenCreated) {
        self.tokens.retain(|_, token| {
            let expires = token.created.as_ref().map_or(0, |created| created.expires);
            expires.saturating_add(FORGOTTEN_AFTER) > now
        });
        let (Ok(token), Ok(role)) = (hash(&created.token_sha256), created.role.parse()) else {
            return;
        };
        let node = self.nodes.entry(created.node.clone());
        let node = node.or_insert_with(|| Node::new(role));
        node.names.clone_from(&created.names);
        let state = wire::TokenState {
            created: Some(created),
            ..wire::TokenState::default()
        };
        self.tokens.insert(token, state);
    }

    /// Tokens of those whom `next` revokes admit nobody any more.
    fn revoke_tokens(&mut self, next: &Revocations) {
        let (nodes, old) = (&self.nodes, &self.revocations);
        for token in self.tokens.values_mut() {
            let name = token.created.as_ref().map(|created| &created.node);
            let Some((name, node)) = name.and_then(|name| nodes.get_key_value(name)) else {
                continue;
            };
            token.revoked |= next.not_before(node.role, name) > old.not_before(node.role, name);
        }
    }

    fn commit_issued(&mut self, now: u64, issued: &wire::CertificateIssued) {
        self.latest_not_before = self.latest_not_before.max(issued.not_before);
        let (Some(node), Ok(certificate)) =
            (self.nodes.get_mut(&issued.node), hash(&issued.sha256))
        else {
            return;
        };
        node.renewed = now;
        node.expires = node.expires.max(issued.not_after);
        if issued.kind() == CertificateKind::Grant {
            let asked_by = hash(&issued.asked_by).ok();
            node.grants = std::iter::once(certificate).chain(asked_by).collect();
        }
    }
}

impl Node {
    fn new(role: Role) -> Self {
        Self {
            role,
            names: Vec::new(),
            files: Vec::new(),
            files_version: 0,
            grants: Vec::new(),
            joined: 0,
            renewed: 0,
            expires: 0,
        }
    }
}

/// The refusal of a certificate that was revoked.
fn revoked(name: &str) -> Refusal {
    let message = format!(
        "the certificates of node {name} that were issued before were revoked: it has to join again, with a new token"
    );
    Refusal::new(Reason::CertificateRevoked, message)
}

pub(super) fn list(signed: Option<&wire::SignedRevocations>) -> Result<Revocations, String> {
    let signed = signed.ok_or("a revocation without its list")?;
    Revocations::parse(&signed.document).map_err(|error| error.to_string())
}

pub(super) fn hash(bytes: &[u8]) -> Result<Hash, String> {
    let length = bytes.len();
    let wrong = |_| format!("a digest of {length} bytes");
    bytes.try_into().map_err(wrong)
}
