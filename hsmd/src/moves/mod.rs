//! Marks that come from elsewhere, and go elsewhere: other signers' state, keys restored from a backup, freezes, and
//! the officers who decide about them.

mod export;
mod freezes;
mod import;
mod recovery;

use std::time::SystemTime;

use hsm_device::{PublicKey, Signature};
use hsm_policy::cometbft::ChainId;
use hsm_policy::state_files::{self, Format, Signed as FileSigned};
use hsm_proto::v1 as wire;

use crate::guard::{self, Guard, Signed};
use crate::{key, keyring};

pub use export::{export, exported};
pub use freezes::{FreezeError, freeze, thaw};
pub use import::{import, imported_marks};
pub use recovery::{CHECKPOINT, LEDGER_ROW, evidence_height, recover};

/// Why nothing was moved.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration has no such key, or the chain id is malformed.
    #[error(transparent)]
    Key(#[from] Box<key::Error>),
    /// The file is refused.
    #[error("{source_name}: {error}")]
    File {
        /// The file's name.
        source_name: String,
        /// What is wrong.
        error: state_files::Error,
    },
    /// A file of another key.
    #[error(
        "{source_name}: the signature in it is not one of key {key} over the sign bytes in it: it is the state of \
         another key, or damaged"
    )]
    OtherKey {
        /// The file's name.
        source_name: String,
        /// The key's name.
        key: String,
    },
    /// The file has nothing that was asked for.
    #[error("{source_name}: {reason}")]
    Nothing {
        /// The file's name.
        source_name: String,
        /// What was looked for.
        reason: String,
    },
    /// The device does not show the key.
    #[error(transparent)]
    Device(#[from] Box<keyring::Error>),
    /// The guard or the journal refuses.
    #[error(transparent)]
    Guard(#[from] guard::Error),
}

/// Who the deployment's officers are.
///
/// # Errors
///
/// [`guard::Error::Internal`] after a fault of ours.
pub fn officers(guard: &Guard) -> Result<wire::GetOfficersResponse, guard::Error> {
    guard.inspect(|state| {
        let officers = state.officers().map(guard::officers_to_wire);
        let officers = officers.unwrap_or_default();
        wire::GetOfficersResponse {
            deployment_id: state.deployment_id().to_vec(),
            threshold: officers.threshold,
            officers: officers.members,
        }
    })
}

/// Replaces the officers; tells who signed. Durable on return.
///
/// # Errors
///
/// As [`Guard::set_officers`].
pub async fn set_officers(
    guard: &Guard,
    request: wire::SetOfficersRequest,
) -> Result<wire::SetOfficersResponse, guard::Error> {
    let signed = signed(request.signed);
    let signers = guard.set_officers(&signed, SystemTime::now()).await?;
    Ok(wire::SetOfficersResponse { signers })
}

/// Whether the file has a signature, and it is the key's. One that is not tells another key's file.
fn check_signature(
    file: &wire::StateFile,
    signed: &FileSigned,
    key: &str,
    public_key: &PublicKey,
) -> Result<bool, Error> {
    let last = signed.imported.last.as_ref();
    let Some(last) = last.filter(|_| !signed.signature.is_empty()) else {
        return Ok(false);
    };
    let signature = signed.signature.as_slice().try_into().map(Signature);
    match signature {
        Ok(signature) if public_key.verify(&last.sign_bytes, &signature).is_ok() => Ok(true),
        // A cosigner's file has a share of the signature, which nobody can verify.
        _ if file.format == Format::Horcrux.name() => Ok(false),
        _ => Err(Error::OtherKey {
            source_name: file.source.clone(),
            key: key.to_owned(),
        }),
    }
}

fn signed(signed: Option<wire::SignedDocument>) -> Signed {
    let signed = signed.unwrap_or_default();
    Signed {
        document: signed.document,
        signatures: signed.signatures,
    }
}

fn chain_of(chain: &str) -> Result<ChainId, Error> {
    ChainId::new(chain).map_err(|error| Error::Key(Box::new(key::Error::InvalidChain(error))))
}

fn wrong(file: &wire::StateFile) -> impl Fn(state_files::Error) -> Error + '_ {
    |error| Error::File {
        source_name: file.source.clone(),
        error,
    }
}

fn nothing(file: &wire::StateFile, reason: String) -> Error {
    Error::Nothing {
        source_name: file.source.clone(),
        reason,
    }
}
