//! The CA: its key in a device, its certificate, and what it signs.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use hsm_device::{Algorithm, KeyLocator, PublicKey, Signature, Worker};
use hsm_policy::identity::TrustDomain;
use hsm_policy::revocation::Revocations;
use hsm_proto::v1 as wire;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyUsagePurpose,
    PublicKeyData, SigningKey,
};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;
use x509_parser::certificate::X509Certificate;

use crate::contents::{Contents, moment};
use crate::register::seconds;

/// How long the device may take for one signature.
const PATIENCE: Duration = Duration::from_secs(10);
/// What stands before a node's files in the bytes that are signed.
pub const FILES_CONTEXT: &[u8] = b"hsm-enroll files v1\n";
/// How long a root that [`Key::root`] makes is valid: ten years.
const ROOT_LIFETIME: u64 = 3652 * 24 * 60 * 60;

/// Why the CA cannot be used, or did not sign.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The device's.
    #[error("the CA's key: {0}")]
    Device(#[from] hsm_device::Error),
    /// A certificate file that does not fit.
    #[error("{file}: {fault}")]
    File {
        /// The file.
        file: String,
        /// What is wrong, and what to do.
        fault: String,
    },
    /// A certificate could not be made.
    #[error("no certificate was made: {0}")]
    Certificate(String),
}

/// The CA's key: P-256, in a device.
#[derive(Clone)]
pub struct Key {
    worker: Worker,
    locator: Arc<KeyLocator>,
    public: PublicKey,
}

impl Key {
    /// Reads the public key from the device.
    ///
    /// # Errors
    /// [`Error::Device`].
    pub async fn find(worker: Worker, locator: KeyLocator) -> Result<Self, Error> {
        let locator = Arc::new(locator);
        let deadline = Instant::now() + PATIENCE;
        let public = worker.public_key(locator.clone(), deadline).await?;
        Ok(Self {
            worker,
            locator,
            public,
        })
    }

    /// A signature over `message`, verified before it is given.
    ///
    /// # Errors
    /// [`Error::Device`].
    pub async fn sign(&self, message: &[u8]) -> Result<Signature, Error> {
        let deadline = Instant::now() + PATIENCE;
        let signing = self.worker.sign(self.locator.clone(), message, deadline);
        let signature = signing.await?;
        self.public.verify(message, &signature)?;
        Ok(signature)
    }

    /// A self-signed root certificate for this key, PEM.
    ///
    /// # Errors
    /// [`Error::Device`], [`Error::Certificate`].
    pub async fn root(&self, trust_domain: &TrustDomain) -> Result<String, Error> {
        let mut params = ca_params(trust_domain)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        self.certify(move |key| params.self_signed(key).map(|made| made.pem()))
            .await
    }

    /// A request for an intermediate certificate for this key, PEM.
    ///
    /// # Errors
    /// As [`Self::root`].
    pub async fn request(&self, trust_domain: &TrustDomain) -> Result<String, Error> {
        let params = ca_params(trust_domain)?;
        self.certify(move |key| params.serialize_request(key)?.pem())
            .await
    }

    /// Runs rcgen, which waits for the device, on a thread that may block.
    async fn certify<T: Send + 'static>(
        &self,
        make: impl FnOnce(&Remote) -> Result<T, rcgen::Error> + Send + 'static,
    ) -> Result<T, Error> {
        let remote = Remote::new(self.clone())?;
        let made = tokio::task::spawn_blocking(move || {
            let made = make(&remote);
            made.map_err(|error| remote.cause(error))
        });
        made.await
            .map_err(|error| Error::Certificate(error.to_string()))?
    }
}

fn ca_params(trust_domain: &TrustDomain) -> Result<CertificateParams, Error> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, format!("hsm-enroll CA {trust_domain}"));
    params.key_usages = vec![
        KeyUsagePurpose::KeyCertSign,
        KeyUsagePurpose::CrlSign,
        // Lists of revocations and nodes' files.
        KeyUsagePurpose::DigitalSignature,
    ];
    let now = seconds(SystemTime::now());
    params.not_before = moment(now).map_err(Error::Certificate)?;
    params.not_after = moment(now + ROOT_LIFETIME).map_err(Error::Certificate)?;
    Ok(params)
}

/// The device's key as rcgen asks it, from a thread that may block.
struct Remote {
    key: Key,
    /// The uncompressed point.
    point: Vec<u8>,
    runtime: tokio::runtime::Handle,
    /// Why the device did not sign: rcgen's error has no room for it.
    failed: Mutex<Option<Error>>,
}

impl Remote {
    fn new(key: Key) -> Result<Self, Error> {
        /// The uncompressed point stands at the end of the SubjectPublicKeyInfo.
        const POINT: usize = 65;
        let spki = key.public.spki_der()?;
        let point = spki.get(spki.len().saturating_sub(POINT)..);
        Ok(Self {
            point: point.unwrap_or_default().to_vec(),
            key,
            runtime: tokio::runtime::Handle::current(),
            failed: Mutex::new(None),
        })
    }

    fn cause(&self, error: rcgen::Error) -> Error {
        let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        failed
            .take()
            .unwrap_or_else(|| Error::Certificate(error.to_string()))
    }
}

impl PublicKeyData for Remote {
    fn der_bytes(&self) -> &[u8] {
        &self.point
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        &rcgen::PKCS_ECDSA_P256_SHA256
    }
}

impl SigningKey for Remote {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        let signed = self.runtime.block_on(self.key.sign(message));
        let der = signed.and_then(|signature| Ok(signature.to_p256_der()?));
        der.map_err(|error| {
            *self.failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
            rcgen::Error::RemoteKeyError
        })
    }
}

/// A node's public key as rcgen certifies it.
struct Subject {
    point: Vec<u8>,
}

impl PublicKeyData for Subject {
    fn der_bytes(&self) -> &[u8] {
        &self.point
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        &rcgen::PKCS_ECDSA_P256_SHA256
    }
}

/// The CA, ready to issue.
pub struct Authority {
    key: Key,
    /// Of the key; then, where that is an intermediate, the root.
    chain: Vec<CertificateDer<'static>>,
    /// The last second of the first of them to end, since 1970.
    not_after: u64,
}

impl Authority {
    /// Takes the certificate of the key, and the root where that is another.
    ///
    /// # Errors
    /// [`Error::File`] where a certificate is not the key's, no CA's, not valid, or not the root's.
    pub fn new(key: Key, certificate: &Path, root: Option<&Path>) -> Result<Self, Error> {
        let mut chain = vec![read(certificate)?];
        chain.extend(root.map(read).transpose()?);
        let mut authority = Self {
            key,
            chain,
            not_after: u64::MAX,
        };
        authority.check(&certificate.display().to_string())?;
        Ok(authority)
    }

    fn check(&mut self, file: &str) -> Result<(), Error> {
        let file_error = |fault: &str| Error::File {
            file: file.to_owned(),
            fault: fault.to_owned(),
        };
        let now = seconds(SystemTime::now());
        let parsed: Result<Vec<_>, Error> = self.chain.iter().map(|der| parse(file, der)).collect();
        let parsed = parsed?;
        let spki = self.key.public.spki_der()?;
        let (Some(own), Some(root)) = (parsed.first(), parsed.last()) else {
            return Err(file_error("holds no certificate"));
        };
        if own.public_key().raw != spki {
            return Err(file_error(
                "is not the certificate of the key in the device: correct ca.certificate, or [ca.key]",
            ));
        }
        for certificate in &parsed {
            let usage = certificate.key_usage().ok().flatten();
            if !certificate.is_ca() || !usage.is_some_and(|usage| usage.value.key_cert_sign()) {
                return Err(file_error("is no CA's certificate"));
            }
            let validity = certificate.validity();
            let ends = u64::try_from(validity.not_after.timestamp()).unwrap_or_default();
            let begins = u64::try_from(validity.not_before.timestamp()).unwrap_or_default();
            if now < begins || now > ends {
                return Err(file_error("is not valid at present: compare the clocks"));
            }
            self.not_after = self.not_after.min(ends);
        }
        if own.verify_signature(Some(root.public_key())).is_err() {
            return Err(file_error("is not signed by ca.root, or not by itself"));
        }
        Ok(())
    }

    /// A certificate for the public key, which ends when the CA's does at the latest; with its chain, DER, the root
    /// last.
    ///
    /// # Errors
    /// [`Error::Device`], [`Error::Certificate`].
    pub async fn issue(
        &self,
        mut contents: Contents,
        key: &PublicKey,
    ) -> Result<(Contents, Vec<CertificateDer<'static>>), Error> {
        contents.not_after = contents.not_after.min(self.not_after);
        if contents.not_before >= contents.not_after {
            let fault = "the CA's own certificate ends, or the certificate's lifetime is too short";
            return Err(Error::Certificate(fault.to_owned()));
        }
        let params = contents.params().map_err(Error::Certificate)?;
        let spki = key.spki_der()?;
        let point = spki.get(spki.len().saturating_sub(65)..);
        let subject = Subject {
            point: point.unwrap_or_default().to_vec(),
        };
        let own = self.own();
        let certificate = self.key.certify(move |remote| {
            let issuer = Issuer::from_ca_cert_der(&own, remote)?;
            params.signed_by(&subject, &issuer)
        });
        let leaf = certificate.await?.der().clone();
        let chain = std::iter::once(leaf).chain(self.chain.iter().cloned());
        Ok((contents, chain.collect()))
    }

    /// Signs a list of revocations.
    ///
    /// # Errors
    /// [`Error::Device`].
    pub async fn sign_revocations(
        &self,
        list: &Revocations,
    ) -> Result<wire::SignedRevocations, Error> {
        let document = list.to_document().into_bytes();
        let signature = self.key.sign(&Revocations::signed_bytes(&document)).await?;
        Ok(wire::SignedRevocations {
            document,
            signature: signature.0.to_vec(),
        })
    }

    /// Signs a node's files.
    ///
    /// # Errors
    /// [`Error::Device`].
    pub async fn sign_files(&self, document: &[u8]) -> Result<Vec<u8>, Error> {
        let message = [FILES_CONTEXT, document].concat();
        Ok(self.key.sign(&message).await?.0.to_vec())
    }

    /// The certificate that nodes pin.
    #[must_use]
    pub fn root(&self) -> CertificateDer<'static> {
        self.chain.last().cloned().unwrap_or_else(|| self.own())
    }

    fn own(&self) -> CertificateDer<'static> {
        let own = self.chain.first().cloned();
        own.unwrap_or_else(|| CertificateDer::from(Vec::new()))
    }

    /// SHA-256 of the root's certificate.
    #[must_use]
    pub fn fingerprint(&self) -> [u8; 32] {
        Sha256::digest(self.root()).into()
    }
}

/// The only certificate of a PEM file.
fn read(path: &Path) -> Result<CertificateDer<'static>, Error> {
    let fault = |fault: String| Error::File {
        file: path.display().to_string(),
        fault,
    };
    let certificates: Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
    let certificates = certificates.map_err(|error| fault(error.to_string()))?;
    match <[CertificateDer<'static>; 1]>::try_from(certificates) {
        Ok([certificate]) => Ok(certificate),
        Err(found) => Err(fault(format!(
            "holds {} certificates, where one is wanted in PEM",
            found.len()
        ))),
    }
}

fn parse<'a>(file: &str, der: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, Error> {
    let parsed = x509_parser::parse_x509_certificate(der);
    let (_, certificate) = parsed.map_err(|error| Error::File {
        file: file.to_owned(),
        fault: error.to_string(),
    })?;
    Ok(certificate)
}

/// Where a CA's key is looked for.
#[must_use]
pub fn locator(label: Option<String>, id: Option<Vec<u8>>) -> KeyLocator {
    KeyLocator {
        label,
        id,
        algorithm: Algorithm::P256,
    }
}
