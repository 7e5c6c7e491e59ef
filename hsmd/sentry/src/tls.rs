//! Who we are to hsmd, and whom we take for hsmd: TLS 1.3 with a client certificate, our own authority only.
//!
//! The files are read again when they change, and the connection to hsmd is then replaced, because hsmd judges
//! a certificate's validity at each request.

use std::fs::{File, Metadata};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::client::Resumption;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, RootCertStore};
use tokio::sync::watch;
use x509_parser::extensions::GeneralName;
use zeroize::{Zeroize, Zeroizing};

use crate::config;
use crate::metrics::Metrics;

/// No PEM file of a key or of a chain of certificates comes near it, in bytes.
const LONGEST_FILE: u64 = 256 * 1024;

/// How often the files are looked at.
const POLL: Duration = Duration::from_secs(2);

/// The files cannot be used. The operator's fault.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file is missing, unreadable, too large or not a regular file.
    #[error("{}: {fault}\n    -> create it, or correct tls.{key}, and let hsm-sentry's user read it", file.display())]
    File {
        /// The key in `[tls]`.
        key: &'static str,
        /// The file.
        file: PathBuf,
        /// What is wrong.
        fault: String,
    },
    /// Others than the file's owner may read the private key.
    #[error("{}: holds a private key, but its mode {mode:04o} opens it to group or others\n    -> chmod 0600 {}", file.display(), file.display())]
    KeyNotPrivate {
        /// The file.
        file: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// A file's content is not what it must be.
    #[error("{}: {fault}\n    -> {remedy}", file.display())]
    Content {
        /// The file.
        file: PathBuf,
        /// What is wrong.
        fault: String,
        /// What to do.
        remedy: &'static str,
    },
}

/// What the TLS files hold.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Ready for connections to hsmd.
    pub(crate) client: Arc<ClientConfig>,
    /// The certificate's one URI: the name by which hsmd knows us.
    pub uri: String,
    /// The certificate's end of validity, in seconds since 1970.
    pub not_after: i64,
}

impl Identity {
    /// Reads and checks the files. An expired certificate is not refused: it may be renewed under our eyes.
    ///
    /// # Errors
    ///
    /// [`Error`] with file, fault and remedy.
    pub fn load(files: &config::Tls) -> Result<Self, Error> {
        let ca = certificates("ca", &files.ca)?;
        let mut roots = RootCertStore::empty();
        for certificate in ca {
            roots.add(certificate).map_err(|error| {
                content(&files.ca, error, "give the certificate of hsmd's authority")
            })?;
        }
        let chain = certificates("certificate", &files.certificate)?;
        let (uri, not_after) = leaf(chain.first().map_or(&[], AsRef::as_ref)).map_err(|fault| {
            content(
                &files.certificate,
                fault,
                "issue a certificate for this sentry",
            )
        })?;
        let certified = CertifiedKey::new(chain, private_key(&files.private_key)?);
        certified.keys_match().map_err(|_| {
            let fault = format!("is not the key of {}", files.certificate.display());
            content(
                &files.private_key,
                fault,
                "give the key that the certificate was issued for",
            )
        })?;
        let mut client = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|error| content(&files.certificate, error, "report this as a fault"))?
            .with_root_certificates(roots)
            .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
        client.alpn_protocols = vec![b"h2".to_vec()];
        // A resumed session would go on with the certificate that it was begun with.
        client.resumption = Resumption::disabled();
        Ok(Self {
            client: Arc::new(client),
            uri,
            not_after,
        })
    }

    /// Whether the certificate's validity has ended.
    #[must_use]
    pub fn is_expired(&self) -> bool {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        now.is_ok_and(|now| i64::try_from(now.as_secs()).is_ok_and(|now| now > self.not_after))
    }
}

/// Looks at the files again and again, and hands on what they hold once they change to something usable. What
/// is unusable, such as a certificate whose key is not written yet, is logged, and the old identity stays.
pub(crate) async fn follow(
    files: config::Tls,
    mut seen: Stamp,
    identity: watch::Sender<Identity>,
    metrics: Arc<Metrics>,
) {
    let mut said = None;
    loop {
        tokio::time::sleep(POLL).await;
        // A disk may hang: not on the thread that serves the chains.
        let (files, before) = (files.clone(), seen.clone());
        let looked = tokio::task::spawn_blocking(move || look(&files, &before)).await;
        let Ok(Some((stamp, loaded))) = looked else {
            continue;
        };
        match loaded {
            Ok(new) => {
                seen = stamp;
                tracing::info!(
                    uri = new.uri,
                    not_after = new.not_after,
                    "certificate files read again"
                );
                metrics.certificate(new.not_after);
                identity.send_replace(new);
            }
            // Tried again at the next look, and said once for each change.
            Err(_) if said.as_ref() == Some(&stamp) => {}
            Err(error) => {
                said = Some(stamp);
                metrics.certificate_unusable();
                tracing::error!(%error, "the certificate files changed and cannot be used; the old ones stay");
            }
        }
    }
}

/// What the files hold, if they are not as they were `before`.
fn look(files: &config::Tls, before: &Stamp) -> Option<(Stamp, Result<Identity, Error>)> {
    // Taken before the files are read: a change in between shows at the next look.
    let stamp = Stamp::of(files);
    (stamp != *before).then(|| (stamp, Identity::load(files)))
}

/// Tells whether any of the files was changed, replaced, or had its permissions changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stamp([Option<(u64, u64, i64, i64)>; 3]);

impl Stamp {
    pub(crate) fn of(files: &config::Tls) -> Self {
        Self(
            [&files.certificate, &files.private_key, &files.ca].map(|file| {
                let data = std::fs::metadata(file).ok()?;
                Some((data.ino(), data.size(), data.ctime(), data.ctime_nsec()))
            }),
        )
    }
}

fn content(file: &Path, fault: impl ToString, remedy: &'static str) -> Error {
    Error::Content {
        file: file.to_path_buf(),
        fault: fault.to_string(),
        remedy,
    }
}

fn certificates(key: &'static str, file: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let (pem, _) = read(key, file)?;
    let remedy = "give PEM: -----BEGIN CERTIFICATE-----";
    let list = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| content(file, error, remedy))?;
    if list.is_empty() {
        return Err(content(file, "holds no certificate", remedy));
    }
    Ok(list)
}

fn private_key(file: &Path) -> Result<Arc<dyn rustls::sign::SigningKey>, Error> {
    let (pem, metadata) = read("private_key", file)?;
    let excess = if is_credential(file) { 0o007 } else { 0o077 };
    if metadata.mode() & excess != 0 {
        return Err(Error::KeyNotPrivate {
            file: file.to_path_buf(),
            mode: metadata.mode() & 0o7777,
        });
    }
    let remedy = "give an unencrypted ECDSA, Ed25519 or RSA key as PEM";
    // The parser's error may quote the file: it is not shown.
    let mut der = PrivateKeyDer::from_pem_slice(&pem)
        .map_err(|_| content(file, "holds no private key", remedy))?;
    let key = ring::sign::any_supported_type(&der);
    der.zeroize();
    key.map_err(|_| content(file, "holds a private key of an unsupported kind", remedy))
}

/// The file's bytes, wiped when dropped, and what the opened file is.
fn read(key: &'static str, path: &Path) -> Result<(Zeroizing<Vec<u8>>, Metadata), Error> {
    let fault = |fault: String| Error::File {
        key,
        file: path.to_path_buf(),
        fault,
    };
    let unreadable = |error: std::io::Error| fault(format!("cannot be read: {error}"));
    // Asked before the file is opened: opening a FIFO waits for its other end.
    let metadata = std::fs::metadata(path).map_err(unreadable)?;
    if !metadata.is_file() {
        return Err(fault("is not a regular file".to_owned()));
    }
    let file = File::open(path).map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    if metadata.len() > LONGEST_FILE {
        return Err(fault(format!("has {} bytes, too many", metadata.len())));
    }
    // Large enough from the start: a buffer that grows leaves copies behind.
    let capacity = usize::try_from(LONGEST_FILE).unwrap_or_default();
    let mut bytes = Zeroizing::new(Vec::with_capacity(capacity));
    file.take(LONGEST_FILE)
        .read_to_end(&mut bytes)
        .map_err(unreadable)?;
    Ok((bytes, metadata))
}

/// systemd gives a credential to the service's user by an access control list, which the mode's group bits
/// then stand for; the directory is closed to everybody else.
fn is_credential(file: &Path) -> bool {
    std::env::var_os("CREDENTIALS_DIRECTORY")
        .is_some_and(|directory| !directory.is_empty() && file.starts_with(directory))
}

/// The one URI and the end of validity.
fn leaf(der: &[u8]) -> Result<(String, i64), String> {
    let (_, certificate) =
        x509_parser::parse_x509_certificate(der).map_err(|error| error.to_string())?;
    let names = certificate
        .subject_alternative_name()
        .map_err(|error| error.to_string())?;
    let uris: Vec<_> = names
        .iter()
        .flat_map(|extension| &extension.value.general_names)
        .filter_map(|name| match name {
            GeneralName::URI(uri) => Some((*uri).to_owned()),
            _ => None,
        })
        .collect();
    match <[String; 1]>::try_from(uris) {
        Ok([uri]) => Ok((uri, certificate.validity().not_after.timestamp())),
        Err(uris) => Err(format!(
            "has {} URI names, where hsmd knows a caller by exactly one",
            uris.len()
        )),
    }
}
