//! The connection to hsm-enroll: TLS 1.3, and the root pinned: by its fingerprint before the node has it, by its
//! certificate from then on.

use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use sha2::{Digest as _, Sha256};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint, Uri};

use super::folder::{self, Folder};
use super::{Error, Settings};

/// For the connection, and for each call on it.
const PATIENCE: Duration = Duration::from_secs(15);

/// Where hsm-enroll is, and which name its certificate has.
#[derive(Clone, Debug)]
pub struct Server {
    address: String,
    name: ServerName<'static>,
}

impl Server {
    /// `address` is host and port; the certificate has the host's name unless `name` says another.
    ///
    /// # Errors
    /// A sentence for people.
    pub fn new(address: &str, name: Option<&str>) -> Result<Self, String> {
        let parts = address.rsplit_once(':');
        let parts = parts.filter(|(_, port)| port.parse::<u16>().is_ok());
        let (host, _) = parts.ok_or_else(|| {
            format!("{address:?} is no host and port, such as enroll.example.org:26680")
        })?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let name = name.unwrap_or(host).to_owned();
        let text = name.clone();
        let name = ServerName::try_from(name);
        Ok(Self {
            address: address.to_owned(),
            name: name.map_err(|_| format!("{text:?} is no name of a server"))?,
        })
    }

    /// Host and port.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The name in its certificate.
    #[must_use]
    pub fn name(&self) -> String {
        self.name.to_str().into_owned()
    }

    pub(super) fn fault(&self, fault: impl ToString) -> Error {
        Error::Server {
            server: self.address.clone(),
            fault: fault.to_string(),
        }
    }

    /// What an answer that is none means.
    pub(super) fn status(&self, status: &tonic::Status) -> Error {
        use tonic::Code;
        use tonic_types::StatusExt as _;
        let reason = status.get_error_details();
        let reason = reason.error_info().map(|info| info.reason.clone());
        match (reason, status.code()) {
            (Some(reason), code) if code != Code::Unavailable => {
                Error::Refused(format!("{reason}: {}", status.message()))
            }
            _ => self.fault(causes(status)),
        }
    }

    /// A connection, on which the node shows what `tls` says.
    pub(super) async fn connect(&self, tls: ClientConfig) -> Result<Channel, Error> {
        let (address, name, tls) = (self.address.clone(), self.name.clone(), Arc::new(tls));
        let connector = tower::service_fn(move |_: Uri| {
            let (address, name) = (address.clone(), name.clone());
            let connector = TlsConnector::from(tls.clone());
            async move {
                let stream = TcpStream::connect(&address).await?;
                let stream = connector.connect(name, stream).await?;
                Ok::<_, std::io::Error>(TokioIo::new(stream))
            }
        });
        // TLS is the connector's; the scheme only fills a header.
        let endpoint = Endpoint::from_static("http://hsm-enroll")
            .connect_timeout(PATIENCE)
            .timeout(PATIENCE);
        let connected = endpoint.connect_with_connector(connector).await;
        connected.map_err(|error| self.fault(causes(&error)))
    }
}

/// With the granting certificate, to whoever the pinned root vouches for.
pub(super) fn with_grant(folder: &Folder) -> Result<ClientConfig, Error> {
    let mut roots = RootCertStore::empty();
    for certificate in folder.certificates(folder::CA)? {
        let path = folder.path(folder::CA);
        roots
            .add(certificate)
            .map_err(|error| folder::fault(&path)(std::io::Error::other(error)))?;
    }
    let chain = folder.certificates(folder::GRANT)?;
    let key = folder.private_key(folder::GRANT)?;
    let path = folder.path(folder::GRANT);
    let wrong = |error| folder::fault(&path)(std::io::Error::other(error));
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .and_then(|config| {
            config
                .with_root_certificates(roots)
                .with_client_auth_cert(chain, key)
        });
    config.map(h2).map_err(wrong)
}

/// Without a certificate, to whoever the root with this fingerprint vouches for; and where that root will be found.
pub(super) fn pinned(fingerprint: [u8; 32]) -> Result<(ClientConfig, Arc<Pin>), Error> {
    let provider = Arc::new(ring::default_provider());
    let pin = Arc::new(Pin {
        fingerprint,
        provider: provider.clone(),
        found: std::sync::OnceLock::new(),
    });
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| Error::Answer(error.to_string()))?
        .dangerous()
        .with_custom_certificate_verifier(pin.clone())
        .with_no_client_auth();
    Ok((h2(config), pin))
}

fn h2(mut config: ClientConfig) -> ClientConfig {
    config.alpn_protocols = vec![b"h2".to_vec()];
    config
}

/// Trusts the one root whose certificate has this SHA-256, which the server shows at the end of its chain.
#[derive(Debug)]
pub(super) struct Pin {
    fingerprint: [u8; 32],
    provider: Arc<CryptoProvider>,
    found: std::sync::OnceLock<CertificateDer<'static>>,
}

impl Pin {
    /// The root, once a server was verified.
    pub(super) fn root(&self) -> Option<CertificateDer<'static>> {
        self.found.get().cloned()
    }
}

impl ServerCertVerifier for Pin {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let is_pinned = |der: &&CertificateDer<'_>| *Sha256::digest(der) == self.fingerprint;
        let root = intermediates.iter().find(is_pinned).ok_or_else(|| {
            let fault = "the server shows no CA with the pinned fingerprint: it is another server, or the fingerprint \
                         was copied wrongly";
            rustls::Error::General(fault.to_owned())
        })?;
        let mut roots = RootCertStore::empty();
        roots.add(root.clone().into_owned())?;
        let verifier =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), self.provider.clone())
                .build()
                .map_err(|error| rustls::Error::General(error.to_string()))?;
        let verified = verifier.verify_server_cert(leaf, intermediates, name, ocsp, now)?;
        let _ = self.found.set(root.clone().into_owned());
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("TLS 1.2 is not spoken".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

/// The server that a node's settings name.
pub(super) fn of(settings: &Settings) -> Result<Server, Error> {
    Server::new(&settings.server, Some(&settings.server_name)).map_err(Error::Answer)
}

/// An error with its causes.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.ends_with(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}
