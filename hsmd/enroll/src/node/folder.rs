//! The folder of a node: files that are replaced whole, and are nobody else's.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use hsm_device::{Algorithm, PublicKey};
use hsm_proto::v1 as wire;
use hsm_proto::v1::CertificateKind;
use rcgen::{CertificateParams, KeyPair, PublicKeyData as _};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::Error;

pub(super) const SETTINGS: &str = "node.toml";
pub(super) const CA: &str = "ca.pem";
pub(super) const ISSUER: &str = "issuer.pem";
pub(super) const GRANT: &str = "grant.pem";
pub(super) const CLIENT: &str = "client.pem";
pub(super) const SERVER: &str = "server.pem";

/// Who the node is, and where hsm-enroll is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Its name.
    pub node: String,
    /// Its role.
    pub role: String,
    /// Of all certificates.
    pub trust_domain: String,
    /// Host and port of hsm-enroll.
    pub server: String,
    /// The name in hsm-enroll's certificate.
    pub server_name: String,
    /// Which certificates it fetches: "client", "server".
    pub certificates: Vec<String>,
}

/// A folder, whose files belong to one user.
#[derive(Clone, Debug)]
pub struct Folder(PathBuf);

/// When a certificate is valid, in seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    pub(super) not_before: u64,
    pub(super) not_after: u64,
}

impl Folder {
    /// Makes the folder where it is not there.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn create(path: &Path) -> Result<Self, Error> {
        let made = std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path);
        made.map_err(fault(path))?;
        Ok(Self(path.to_path_buf()))
    }

    /// An existing one.
    #[must_use]
    pub fn open(path: &Path) -> Self {
        Self(path.to_path_buf())
    }

    /// Where a file is.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// What `join` wrote.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn settings(&self) -> Result<Settings, Error> {
        let path = self.path(SETTINGS);
        let text = std::fs::read_to_string(&path);
        let text = text.map_err(|error| Error::File {
            path: path.clone(),
            fault: format!("{error}; has this node joined? `hsm-enroll join` writes it"),
        })?;
        let settings: Settings = toml::from_str(&text).map_err(|mut error| {
            error.set_input(None);
            fault(&path)(io::Error::other(error.to_string()))
        })?;
        let known = |name: &String| kind(name).is_some();
        match settings.certificates.iter().all(known) {
            true => Ok(settings),
            false => Err(fault(&path)(io::Error::other(
                "certificates: write \"client\" and \"server\"",
            ))),
        }
    }

    /// Replaces a file at once: temporary file, flush, rename, flush of the folder. Only its owner can read it.
    ///
    /// # Errors
    /// [`Error::File`]; the old one is there then, or the new one, whole.
    pub fn replace(&self, name: &str, content: &[u8]) -> Result<(), Error> {
        let (path, beside) = (self.path(name), self.path(&format!(".{name}.new")));
        let write = || {
            // One that a crash left behind.
            match std::fs::remove_file(&beside) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let mut file = OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&beside)?;
            file.write_all(content)?;
            file.sync_all()?;
            std::fs::rename(&beside, &path)?;
            File::open(&self.0)?.sync_all()
        };
        write().map_err(fault(&path))
    }

    /// Deletes a file, if it is there.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn remove(&self, name: &str) -> Result<(), Error> {
        let path = self.path(name);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(fault(&path)(error)),
            _ => Ok(()),
        }
    }

    /// The certificates of a file, its own first.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn certificates(&self, name: &str) -> Result<Vec<CertificateDer<'static>>, Error> {
        let path = self.path(name);
        let found: Result<Vec<_>, _> =
            CertificateDer::pem_file_iter(&path).and_then(Iterator::collect);
        match found {
            Ok(found) if !found.is_empty() => Ok(found),
            Ok(_) => Err(fault(&path)(io::Error::other("holds no certificate"))),
            Err(error) => Err(fault(&path)(io::Error::other(error.to_string()))),
        }
    }

    /// The private key of a file.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn private_key(&self, name: &str) -> Result<PrivateKeyDer<'static>, Error> {
        let path = self.path(name);
        let pem = std::fs::read(&path)
            .map(Zeroizing::new)
            .map_err(fault(&path))?;
        // The error's own text may quote the file.
        PrivateKeyDer::from_pem_slice(&pem)
            .map_err(|_| fault(&path)(io::Error::other("holds no private key")))
    }

    /// When the certificate of a file is valid; `None` where there is no such file.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn validity(&self, name: &str) -> Result<Option<Validity>, Error> {
        if !self.path(name).exists() {
            return Ok(None);
        }
        let chain = self.certificates(name)?;
        let leaf = chain.first().map(AsRef::as_ref).unwrap_or_default();
        validity(leaf)
            .map(Some)
            .map_err(|error| fault(&self.path(name))(io::Error::other(error)))
    }
}

/// A key that was made here, and the request for its certificate.
pub(super) struct Fresh {
    key: KeyPair,
    pub(super) request: Vec<u8>,
}

impl Fresh {
    pub(super) fn generate() -> Result<Self, Error> {
        let key = KeyPair::generate()?;
        let request = CertificateParams::default().serialize_request(&key)?;
        let request = request.der().to_vec();
        Ok(Self { key, request })
    }

    /// The key and its certificate as one file, once the chain was found to lead to the root, and to be for this key.
    pub(super) fn with(
        &self,
        issued: Option<wire::Issued>,
        root: &CertificateDer<'_>,
    ) -> Result<(Zeroizing<String>, CertificateDer<'static>), Error> {
        let wrong = |fault: &str| Error::Answer(format!("a certificate that {fault}"));
        let chain: Vec<CertificateDer<'static>> = issued
            .unwrap_or_default()
            .chain
            .into_iter()
            .map(CertificateDer::from)
            .collect();
        let mut parsed = Vec::new();
        for der in &chain {
            let (_, certificate) =
                x509_parser::parse_x509_certificate(der).map_err(|_| wrong("cannot be parsed"))?;
            parsed.push(certificate);
        }
        let (Some(leaf), Some(issuer)) = (parsed.first(), chain.get(1)) else {
            return Err(wrong("came without its issuer"));
        };
        if chain.last() != Some(root) {
            return Err(wrong("does not end with the pinned root"));
        }
        if chain.len() > LONGEST_CHAIN || !parsed.iter().skip(1).all(is_authority) {
            return Err(wrong("was issued by what is no CA"));
        }
        let own = PublicKey::from_parts(Algorithm::P256, self.key.der_bytes());
        let certified =
            PublicKey::from_parts(Algorithm::P256, &leaf.public_key().subject_public_key.data);
        if !matches!((own, certified), (Ok(own), Ok(certified)) if own == certified) {
            return Err(wrong("is for another key"));
        }
        for pair in parsed.windows(2) {
            let [certificate, by] = pair else { continue };
            if certificate.verify_signature(Some(by.public_key())).is_err() {
                return Err(wrong("its issuer did not sign"));
            }
        }
        let mut text = Zeroizing::new(self.key.serialize_pem());
        // The root is known to whoever verifies.
        for der in chain.iter().take(chain.len().saturating_sub(1)) {
            text.push_str(&pem(der));
        }
        Ok((text, issuer.clone()))
    }
}

/// The node's own, the issuer's, and the root.
const LONGEST_CHAIN: usize = 3;

/// Whether it may issue certificates (RFC 5280 section 4.2.1): a node's or a server's, of the same root, may not.
fn is_authority(certificate: &x509_parser::certificate::X509Certificate<'_>) -> bool {
    let usage = certificate.key_usage().ok().flatten();
    certificate.is_ca() && usage.is_some_and(|usage| usage.value.key_cert_sign())
}

/// A certificate in PEM (RFC 7468).
pub(super) fn pem(der: &CertificateDer<'_>) -> String {
    use base64::Engine as _;
    let body = base64::engine::general_purpose::STANDARD.encode(der);
    let mut text = String::from("-----BEGIN CERTIFICATE-----\n");
    let mut rest = body.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(64));
        text.push_str(line);
        text.push('\n');
        rest = after;
    }
    text.push_str("-----END CERTIFICATE-----\n");
    text
}

pub(super) fn validity(leaf: &[u8]) -> Result<Validity, String> {
    let (_, certificate) =
        x509_parser::parse_x509_certificate(leaf).map_err(|error| error.to_string())?;
    let second = |time: x509_parser::time::ASN1Time| u64::try_from(time.timestamp());
    let validity = certificate.validity();
    let (not_before, not_after) = (second(validity.not_before), second(validity.not_after));
    let out = |_| "its validity begins before 1970".to_owned();
    Ok(Validity {
        not_before: not_before.map_err(out)?,
        not_after: not_after.map_err(out)?,
    })
}

/// The kind of certificate with this name, and its file.
pub(super) fn kind(name: &str) -> Option<(CertificateKind, &'static str)> {
    match name {
        "client" => Some((CertificateKind::Client, CLIENT)),
        "server" => Some((CertificateKind::Server, SERVER)),
        _ => None,
    }
}

pub(super) fn fault(path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_path_buf();
    move |error| Error::File {
        path,
        fault: error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, IsCa, Issuer, KeyUsagePurpose};

    use super::*;

    /// Whoever copied the key of a certificate under the same root issues none.
    #[test]
    fn a_certificate_that_no_ca_issued_is_refused() {
        let mut ca = CertificateParams::default();
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        ca.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let keys: [KeyPair; 2] = std::array::from_fn(|_| KeyPair::generate().unwrap());
        let root = ca.self_signed(&keys[0]).unwrap();
        let by_root = Issuer::from_params(&ca, &keys[0]);
        let intermediate = ca.signed_by(&keys[1], &by_root).unwrap();
        let server = CertificateParams::default();
        let server = server.signed_by(&keys[1], &by_root).unwrap();
        let by_second = Issuer::from_params(&ca, &keys[1]);
        let fresh = Fresh::generate().unwrap();
        let own = CertificateParams::default();
        let own = own.signed_by(&fresh.key, &by_second).unwrap();
        let with = |issuer: &rcgen::Certificate| {
            let chain = [&own, issuer, &root].map(|certificate| certificate.der().to_vec());
            let issued = wire::Issued {
                chain: chain.to_vec(),
            };
            fresh.with(Some(issued), root.der())
        };
        with(&intermediate).unwrap();
        let refused = with(&server).err().unwrap().to_string();
        assert!(refused.contains("no CA"), "{refused}");
    }
}
