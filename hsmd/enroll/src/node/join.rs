//! Joining: the token for a granting certificate, and with that everything else.

use hsm_proto::v1::admission_client::AdmissionClient;
use hsm_proto::v1::{CertificateKind, JoinRequest};
use secrecy::{ExposeSecret as _, SecretString};

use super::folder::{self, Folder, Fresh};
use super::{Error, Outcome, Server, Settings, files, link};

/// What an operator carries to the node.
pub struct Invitation {
    /// Where hsm-enroll is.
    pub server: Server,
    /// SHA-256 of the root's certificate.
    pub ca_fingerprint: [u8; 32],
    /// The node's name.
    pub node: String,
    /// Good once.
    pub token: SecretString,
}

/// Joins, fetches the role's certificates and the assigned files, and writes all of it into the folder.
///
/// # Errors
/// [`Error`]. After one that is not a refusal the token may be spent.
pub async fn join(invitation: &Invitation, folder: &Folder) -> Result<(Settings, Outcome), Error> {
    let server = &invitation.server;
    let (tls, pin) = link::pinned(invitation.ca_fingerprint)?;
    let channel = server.connect(tls).await?;
    let fresh = Fresh::generate()?;
    let request = JoinRequest {
        token: invitation.token.expose_secret().to_owned(),
        node: invitation.node.clone(),
        certificate_request: fresh.request.clone(),
    };
    let joined = AdmissionClient::new(channel).join(request).await;
    let joined = joined
        .map_err(|status| server.status(&status))?
        .into_inner();
    let root = pin.root();
    let root = root.ok_or_else(|| Error::Answer("no certificate of its CA".to_owned()))?;
    let names = joined.kinds().filter_map(|kind| match kind {
        CertificateKind::Client => Some("client".to_owned()),
        CertificateKind::Server => Some("server".to_owned()),
        CertificateKind::Grant | CertificateKind::Unspecified => None,
    });
    let settings = Settings {
        node: invitation.node.clone(),
        role: joined.role.clone(),
        trust_domain: joined.trust_domain.clone(),
        server: server.address().to_owned(),
        server_name: server.name(),
        certificates: names.collect(),
    };
    let (grant, issuer) = fresh.with(joined.grant, &root)?;
    folder.replace(folder::GRANT, grant.as_bytes())?;
    folder.replace(folder::CA, folder::pem(&root).as_bytes())?;
    folder.replace(folder::ISSUER, folder::pem(&issuer).as_bytes())?;
    let text = toml::to_string(&settings).map_err(|error| Error::Answer(error.to_string()))?;
    folder.replace(folder::SETTINGS, text.as_bytes())?;
    files::forget(folder)?;
    let outcome = super::renew::everything(folder, &settings).await?;
    Ok((settings, outcome))
}
