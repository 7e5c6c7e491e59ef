//! Our certificate, its key and the clients' CA: files that are re-read when they change.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use hsm_policy::identity::TrustDomain;
use rustls::RootCertStore;
use rustls::crypto::ring;
use rustls::server::{NoServerSessionStorage, ServerConfig, WebPkiClientVerifier};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use zeroize::Zeroizing;

use super::peer::{Utc, system_time};
use super::{Error, Revoked};
use crate::config::{self, Listen};

const CERTIFICATE: &str = "listen.certificate";
const PRIVATE_KEY: &str = "listen.private_key";
const CLIENT_CA: &str = "listen.client_ca";

/// What a handshake needs. Clones share it, and all of them see new files at their next handshake.
#[derive(Clone)]
pub struct Certificates(Arc<Shared>);

struct Shared {
    certificate: PathBuf,
    private_key: PathBuf,
    client_ca: PathBuf,
    trust_domain: TrustDomain,
    revoked: Revoked,
    loaded: RwLock<Loaded>,
    watch: Mutex<Watch>,
}

#[derive(Clone)]
struct Loaded {
    server: Arc<ServerConfig>,
    expires: SystemTime,
}

/// What the files looked like; contents are read only when that changes.
struct Watch {
    /// Of the files in use.
    loaded: [Stamp; 3],
    /// At the last look. A change is acted on once it has stood for one look: a certificate and its key
    /// are not replaced at the same instant.
    last: [Stamp; 3],
    /// Of files that could not be used; said once.
    failed: Option<[Stamp; 3]>,
}

/// Device, inode, size, time of last change to contents and to the inode, in seconds and nanoseconds. None
/// where there is no such file.
type Stamp = Option<(u64, u64, u64, (i64, i64), (i64, i64))>;

/// What a look at the files found.
pub(super) enum Look {
    /// Nothing new.
    Unchanged,
    /// Changed files are in use.
    Reloaded,
    /// Changed files cannot be used; the old ones stay in use.
    Failed(Error),
}

impl Certificates {
    /// Reads the three files.
    ///
    /// # Errors
    /// [`Error::File`] where one cannot be read, holds no certificate or key, where the key is not the
    /// certificate's or is open to group or others, or where the certificate is not valid at present.
    pub fn load(listen: &Listen) -> Result<Self, Error> {
        let paths = [&listen.certificate, &listen.private_key, &listen.client_ca];
        let stamps = paths.map(|path| stamp(path));
        let loaded = read(paths, SystemTime::now())?;
        Ok(Self(Arc::new(Shared {
            certificate: listen.certificate.clone(),
            private_key: listen.private_key.clone(),
            client_ca: listen.client_ca.clone(),
            trust_domain: listen.trust_domain.clone(),
            revoked: Revoked::default(),
            loaded: RwLock::new(loaded),
            watch: Mutex::new(Watch {
                loaded: stamps,
                last: stamps,
                failed: None,
            }),
        })))
    }

    /// Checks the certificate and the clients' CA of a configuration whose private key cannot be seen by
    /// this process.
    ///
    /// # Errors
    /// [`Error::File`] as [`Certificates::load`], except for what concerns the key.
    pub fn check_without_key(listen: &Listen) -> Result<(), Error> {
        let chain = read_certificates(CERTIFICATE, &listen.certificate)?;
        validity(&chain, SystemTime::now())
            .map_err(|fault| file_error(CERTIFICATE, &listen.certificate, fault))?;
        read_roots(&listen.client_ca).map(drop)
    }

    /// When our certificate expires: the first of its chain that does.
    #[must_use]
    pub fn expires(&self) -> SystemTime {
        self.loaded().expires
    }

    /// The trust domain that callers must lie in.
    #[must_use]
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.0.trust_domain
    }

    /// Which certificates are revoked.
    #[must_use]
    pub fn revoked(&self) -> &Revoked {
        &self.0.revoked
    }

    /// The configuration for the next handshake.
    pub(super) fn server(&self) -> Arc<ServerConfig> {
        self.loaded().server
    }

    /// Looks whether the files have changed, and takes them into use if they have and are at rest. Open
    /// connections stay; new handshakes use what was read.
    pub(super) fn look(&self) -> Look {
        let stamps = self.paths().map(|path| stamp(path));
        let mut watch = self.watch();
        let at_rest = stamps == std::mem::replace(&mut watch.last, stamps);
        if stamps == watch.loaded || !at_rest {
            return Look::Unchanged;
        }
        match self.read_again(&mut watch, stamps) {
            Ok(()) => Look::Reloaded,
            Err(_) if watch.failed.replace(stamps) == Some(stamps) => Look::Unchanged,
            Err(error) => Look::Failed(error),
        }
    }

    fn read_again(&self, watch: &mut Watch, stamps: [Stamp; 3]) -> Result<(), Error> {
        let loaded = read(self.paths(), SystemTime::now())?;
        *self
            .0
            .loaded
            .write()
            .unwrap_or_else(PoisonError::into_inner) = loaded;
        *watch = Watch {
            loaded: stamps,
            last: stamps,
            failed: None,
        };
        Ok(())
    }

    fn paths(&self) -> [&PathBuf; 3] {
        [&self.0.certificate, &self.0.private_key, &self.0.client_ca]
    }

    fn loaded(&self) -> Loaded {
        self.0
            .loaded
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn watch(&self) -> MutexGuard<'_, Watch> {
        self.0.watch.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn stamp(path: &Path) -> Stamp {
    let of = |file: Metadata| {
        let contents = (file.mtime(), file.mtime_nsec());
        (
            file.dev(),
            file.ino(),
            file.len(),
            contents,
            (file.ctime(), file.ctime_nsec()),
        )
    };
    std::fs::metadata(path).ok().map(of)
}

fn read(paths: [&PathBuf; 3], now: SystemTime) -> Result<Loaded, Error> {
    let [certificate, private_key, client_ca] = paths;
    let chain = read_certificates(CERTIFICATE, certificate)?;
    let expires =
        validity(&chain, now).map_err(|fault| file_error(CERTIFICATE, certificate, fault))?;
    let key = read_key(private_key)?;
    let server = server_config(chain, key, read_roots(client_ca)?).map_err(|error| {
        let fault = format!("{error}; is {PRIVATE_KEY} its key?");
        file_error(CERTIFICATE, certificate, fault)
    })?;
    Ok(Loaded {
        server: Arc::new(server),
        expires,
    })
}

fn server_config(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    roots: RootCertStore,
) -> Result<ServerConfig, rustls::Error> {
    let provider = Arc::new(ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .build()
        .map_err(|error| rustls::Error::General(error.to_string()))?;
    let mut server = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)?;
    server.alpn_protocols = vec![b"h2".to_vec()];
    // A resumed session would skip the check of the client's certificate against the CA in use.
    server.session_storage = Arc::new(NoServerSessionStorage {});
    server.send_tls13_tickets = 0;
    Ok(server)
}

fn read_certificates(
    key: &'static str,
    path: &Path,
) -> Result<Vec<CertificateDer<'static>>, Error> {
    let certificates: Vec<_> = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(|error| file_error(key, path, error.to_string()))?;
    if certificates.is_empty() {
        let fault = "holds no certificate; write PEM, \"-----BEGIN CERTIFICATE-----\"";
        return Err(file_error(key, path, fault.to_owned()));
    }
    Ok(certificates)
}

fn read_roots(path: &Path) -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore::empty();
    for certificate in read_certificates(CLIENT_CA, path)? {
        roots
            .add(certificate)
            .map_err(|error| file_error(CLIENT_CA, path, error.to_string()))?;
    }
    Ok(roots)
}

fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>, Error> {
    config::private(path).map_err(|config::FileFault { fault, remedy }| {
        file_error(PRIVATE_KEY, path, format!("{fault}; {remedy}"))
    })?;
    let pem = std::fs::read(path).map(Zeroizing::new);
    let pem = pem.map_err(|error| file_error(PRIVATE_KEY, path, error.to_string()))?;
    // The error's own text may quote the file.
    PrivateKeyDer::from_pem_slice(&pem).map_err(|_| {
        let fault = "holds no private key; write PEM: PKCS#8, SEC1 or PKCS#1, not encrypted";
        file_error(PRIVATE_KEY, path, fault.to_owned())
    })
}

/// When the first certificate of the chain expires; an error if the leaf is not valid now.
fn validity(chain: &[CertificateDer<'_>], now: SystemTime) -> Result<SystemTime, String> {
    let mut expires = None;
    for certificate in chain {
        let (_, parsed) = x509_parser::parse_x509_certificate(certificate)
            .map_err(|_| "holds a certificate that cannot be parsed".to_owned())?;
        let not_before = system_time(parsed.validity().not_before)?;
        let not_after = system_time(parsed.validity().not_after)?;
        if now < not_before {
            return Err(format!(
                "is not valid before {}: compare the clocks",
                Utc(not_before)
            ));
        }
        if now >= not_after + Duration::from_secs(1) {
            return Err(format!("expired at {}: renew it", Utc(not_after)));
        }
        expires = Some(expires.map_or(not_after, |first: SystemTime| first.min(not_after)));
    }
    expires.ok_or_else(|| "holds no certificate".to_owned())
}

fn file_error(key: &'static str, path: &Path, fault: String) -> Error {
    Error::File {
        key,
        path: path.to_path_buf(),
        fault,
    }
}
