//! The files that the register assigns to the node.

use std::path::Path;

use hsm_device::{Algorithm, PublicKey, Signature};
use hsm_proto::v1::{GetFilesResponse, NodeFiles};
use prost::Message as _;
use serde::{Deserialize, Serialize};

use super::folder::{self, Folder};
use super::{Error, Settings, is_file_name};
use crate::authority::FILES_CONTEXT;

pub(super) const ASSIGNED: &str = "assigned.toml";

/// Which files are here.
#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Assigned {
    version: u64,
    files: Vec<String>,
}

/// Verifies what hsm-enroll sent and writes it, if it is new. Returns the names of the files that changed.
///
/// # Errors
/// [`Error::Answer`] where it is not signed by the issuer, is another node's, or is older than what is here.
pub(super) fn take(
    folder: &Folder,
    settings: &Settings,
    sent: &GetFilesResponse,
) -> Result<Vec<String>, Error> {
    let files = verified(folder, settings, sent)?;
    let path = folder.path(ASSIGNED);
    let here = read(&path)?;
    if files.version < here.version {
        return Err(Error::Answer(format!(
            "files of version {}, and those here have {}: a keyserver restored from a backup? assign the files anew",
            files.version, here.version
        )));
    }
    let mut changed = Vec::new();
    for file in &files.files {
        if std::fs::read(folder.path(&file.name)).ok().as_ref() != Some(&file.content) {
            folder.replace(&file.name, &file.content)?;
            changed.push(file.name.clone());
        }
    }
    let names: Vec<String> = files.files.into_iter().map(|file| file.name).collect();
    for gone in here.files.iter().filter(|name| !names.contains(name)) {
        if is_file_name(gone) {
            folder.remove(gone)?;
            changed.push(gone.clone());
        }
    }
    let now = Assigned {
        version: files.version,
        files: names,
    };
    let text = toml::to_string(&now).map_err(|error| Error::Answer(error.to_string()))?;
    folder.replace(ASSIGNED, text.as_bytes())?;
    Ok(changed)
}

/// Removes the files that were assigned to whoever joined from this folder before, and what is known of their version.
pub(super) fn forget(folder: &Folder) -> Result<(), Error> {
    let here = read(&folder.path(ASSIGNED))?;
    for name in here.files.iter().filter(|name| is_file_name(name)) {
        folder.remove(name)?;
    }
    folder.remove(ASSIGNED)
}

fn verified(
    folder: &Folder,
    settings: &Settings,
    sent: &GetFilesResponse,
) -> Result<NodeFiles, Error> {
    let wrong = |fault: &str| Error::Answer(format!("files {fault}"));
    let issuer = folder.certificates(folder::ISSUER)?;
    let issuer = issuer.first().map(AsRef::as_ref).unwrap_or_default();
    let (_, issuer) = x509_parser::parse_x509_certificate(issuer)
        .map_err(|_| wrong("whose signer's certificate cannot be parsed"))?;
    let point = &issuer.public_key().subject_public_key.data;
    let key = PublicKey::from_parts(Algorithm::P256, point);
    let key = key.map_err(|error| Error::Answer(error.to_string()))?;
    let signature = sent.signature.as_slice().try_into().map(Signature);
    let signature = signature.map_err(|_| wrong("with a signature that is not 64 bytes long"))?;
    let message = [FILES_CONTEXT, &sent.document].concat();
    key.verify(&message, &signature)
        .map_err(|_| wrong("that hsm-enroll did not sign"))?;
    let files = NodeFiles::decode(sent.document.as_slice())
        .map_err(|error| Error::Answer(error.to_string()))?;
    if files.node != settings.node || files.trust_domain != settings.trust_domain {
        return Err(wrong("of another node"));
    }
    if let Some(file) = files.files.iter().find(|file| !is_file_name(&file.name)) {
        return Err(Error::Answer(format!("a file named {:?}", file.name)));
    }
    Ok(files)
}

fn read(path: &Path) -> Result<Assigned, Error> {
    match std::fs::read_to_string(path) {
        Ok(text) => toml::from_str(&text).map_err(|mut error| {
            error.set_input(None);
            folder::fault(path)(std::io::Error::other(error.to_string()))
        }),
        // A node that has just joined has none.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Assigned::default()),
        Err(error) => Err(folder::fault(path)(error)),
    }
}

#[cfg(test)]
mod tests {
    use hsm_proto::v1::NodeFile;
    use rcgen::{CertificateParams, KeyPair, SigningKey as _};

    use super::*;

    struct Node {
        _kept: tempfile::TempDir,
        folder: Folder,
        settings: Settings,
        key: KeyPair,
    }

    impl Node {
        fn new() -> Self {
            let kept = tempfile::tempdir().unwrap();
            let folder = Folder::create(kept.path()).unwrap();
            let key = KeyPair::generate().unwrap();
            let issuer = CertificateParams::default().self_signed(&key).unwrap();
            folder
                .replace(folder::ISSUER, issuer.pem().as_bytes())
                .unwrap();
            let settings = Settings {
                node: "a".to_owned(),
                role: "sentry".to_owned(),
                trust_domain: "example.org".to_owned(),
                server: "127.0.0.1:1".to_owned(),
                server_name: "localhost".to_owned(),
                certificates: Vec::new(),
            };
            Self {
                _kept: kept,
                folder,
                settings,
                key,
            }
        }

        fn take(&self, files: &NodeFiles, key: &KeyPair) -> Result<Vec<String>, Error> {
            let document = files.encode_to_vec();
            let der = key.sign(&[FILES_CONTEXT, &document].concat()).unwrap();
            let signature = Signature::from_p256_der(&der).unwrap().0.to_vec();
            let sent = GetFilesResponse {
                document,
                signature,
            };
            take(&self.folder, &self.settings, &sent)
        }
    }

    fn files(version: u64, names: &[&str]) -> NodeFiles {
        let file = |name: &&str| NodeFile {
            name: (*name).to_owned(),
            content: b"content".to_vec(),
        };
        NodeFiles {
            trust_domain: "example.org".to_owned(),
            node: "a".to_owned(),
            version,
            files: names.iter().map(file).collect(),
        }
    }

    #[test]
    fn files_that_are_older_of_another_node_or_signer_or_not_in_the_folder_are_refused() {
        let node = Node::new();
        let good = files(5, &["hsm-sentry.toml"]);
        assert_eq!(node.take(&good, &node.key).unwrap(), ["hsm-sentry.toml"]);
        let other_node = NodeFiles {
            node: "b".to_owned(),
            ..files(6, &[])
        };
        let elsewhere = NodeFiles {
            trust_domain: "example.com".to_owned(),
            ..files(6, &[])
        };
        for wrong in [files(4, &[]), other_node, elsewhere] {
            assert!(node.take(&wrong, &node.key).is_err(), "{wrong:?}");
        }
        for name in ["../x", "/x", "", ".x", "client.pem", "issuer.pem", "a/b"] {
            assert!(
                node.take(&files(6, &[name]), &node.key).is_err(),
                "{name:?}"
            );
        }
        let stranger = KeyPair::generate().unwrap();
        assert!(node.take(&files(6, &[]), &stranger).is_err());
        assert!(node.folder.path("hsm-sentry.toml").exists());
    }

    #[test]
    fn a_folder_in_which_another_node_was_takes_the_files_of_the_new_one() {
        let node = Node::new();
        node.take(&files(12, &["old.toml"]), &node.key).unwrap();
        forget(&node.folder).unwrap();
        assert!(!node.folder.path("old.toml").exists());
        let changed = node.take(&files(0, &["new.toml"]), &node.key);
        assert_eq!(changed.unwrap(), ["new.toml"]);
    }
}
