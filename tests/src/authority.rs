//! A certificate authority and the certificates that tests need, good and bad.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, SanType,
};

/// The trust domain of every URI SAN made here.
pub const TRUST_DOMAIN: &str = "test.example";

/// A certificate authority that lives as long as the test.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    directory: PathBuf,
}

/// The files of one certificate, PEM. The key's mode is 0600.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The certificate.
    pub certificate: PathBuf,
    /// Its private key, PKCS#8.
    pub private_key: PathBuf,
}

/// What a certificate says.
pub struct Contents {
    /// URI SANs; a good one has exactly one.
    pub uris: Vec<String>,
    /// DNS SANs.
    pub hosts: Vec<String>,
    /// When its validity ends, with the second named; in the year 4096 where nothing is said.
    pub not_after: Option<SystemTime>,
    /// What it may be used for.
    pub usage: ExtendedKeyUsagePurpose,
}

impl Contents {
    /// A client's certificate with the one URI SAN `spiffe://test.example/ROLE/NAME`.
    #[must_use]
    pub fn client(role: &str, name: &str) -> Self {
        Self {
            uris: vec![uri(role, name)],
            hosts: Vec::new(),
            not_after: None,
            usage: ExtendedKeyUsagePurpose::ClientAuth,
        }
    }
}

/// `spiffe://test.example/ROLE/NAME`.
#[must_use]
pub fn uri(role: &str, name: &str) -> String {
    format!("spiffe://{TRUST_DOMAIN}/{role}/{name}")
}

impl Authority {
    /// Makes an authority whose files, `ca.pem` among them, go into a new folder `directory/NAME`.
    #[must_use]
    pub fn new(directory: &Path, name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().expect("a key");
        let issuer = CertifiedIssuer::self_signed(params, key).expect("a self-signed certificate");
        let directory = directory.join(name);
        std::fs::create_dir_all(&directory).expect("the authority's directory");
        let authority = Self { issuer, directory };
        write_private(&authority.certificate(), &authority.issuer.pem());
        authority
    }

    /// The authority's own certificate, PEM.
    #[must_use]
    pub fn certificate(&self) -> PathBuf {
        self.directory.join("ca.pem")
    }

    /// The certificate of a sentry.
    #[must_use]
    pub fn sentry(&self, name: &str) -> Identity {
        self.issue(name, Contents::client("sentry", name))
    }

    /// The certificate of a server on `localhost`.
    #[must_use]
    pub fn signer(&self, name: &str) -> Identity {
        let contents = Contents {
            uris: vec![uri("signer", name)],
            hosts: vec!["localhost".to_owned()],
            not_after: None,
            usage: ExtendedKeyUsagePurpose::ServerAuth,
        };
        self.issue(name, contents)
    }

    /// Any certificate, in files that begin with `name`. Issuing a name again replaces its files.
    #[must_use]
    pub fn issue(&self, name: &str, contents: Contents) -> Identity {
        let mut params = CertificateParams::new(contents.hosts).expect("host names");
        params.distinguished_name.push(DnType::CommonName, name);
        let uris = contents
            .uris
            .into_iter()
            .map(|uri| SanType::URI(uri.try_into().expect("ASCII")));
        params.subject_alt_names.extend(uris);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![contents.usage];
        params.use_authority_key_identifier_extension = true;
        if let Some(not_after) = contents.not_after {
            params.not_after = not_after.into();
        }
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        let identity = Identity {
            certificate: self.directory.join(format!("{name}.pem")),
            private_key: self.directory.join(format!("{name}.key")),
        };
        write_private(&identity.certificate, &certificate.pem());
        write_private(&identity.private_key, &key.serialize_pem());
        identity
    }
}

/// Replaces a file at once, readable by its owner only, as a renewal would.
pub(crate) fn write_private(path: &Path, text: &str) {
    let new = path.with_extension("new");
    let mut file = std::fs::OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .open(&new)
        .expect("a file for a certificate");
    file.write_all(text.as_bytes())
        .expect("the certificate written");
    std::fs::rename(&new, path).expect("the certificate in place");
}
