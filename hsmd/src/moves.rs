//! Marks that come from elsewhere, and go elsewhere: other signers' state, keys restored from a backup, and
//! the officers who decide about them.

use std::time::{Duration, SystemTime};

use hsm_device::{PublicKey, Signature};
use hsm_journal::State as _;
use hsm_policy::cometbft::ChainId;
use hsm_policy::conflict::{Mark, Outcome};
use hsm_policy::officers::RecoverKey;
use hsm_policy::state_files::{self, ExportedKey, Format, Signed as FileSigned};
use hsm_proto::v1 as wire;
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;

use crate::guard::{self, Guard, Signed, State, entry};
use crate::keyring::{self, Key, Keyring};
use crate::{devices, key};

/// How long a device may take to show a public key.
const DEVICE_PATIENCE: Duration = Duration::from_secs(15);

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

/// Everything that the journal yields, as an encoded [`wire::Snapshot`].
///
/// # Errors
///
/// [`guard::Error::Internal`] after a fault of ours.
pub fn export(guard: &Guard) -> Result<Vec<u8>, guard::Error> {
    guard.inspect(State::snapshot)
}

/// An exported state as a file: of hsmd's own with every key, or with the one that is named, or of another signer
/// with the mark of one key on one chain.
///
/// # Errors
///
/// A sentence for people.
pub fn exported(
    snapshot: &[u8],
    format: Format,
    key: Option<&str>,
    chain: Option<&str>,
) -> Result<String, String> {
    let state = State::restore(snapshot)?;
    let marks = state.exported();
    let wanted = |name: &String| key.is_none_or(|key| key == name);
    let mut keys: Vec<ExportedKey> = marks
        .into_iter()
        .filter(|exported| exported.names.iter().any(wanted))
        .collect();
    for exported in &mut keys {
        exported
            .marks
            .retain(|mark| chain.is_none_or(|chain| chain == mark.chain_id.as_str()));
    }
    if format == Format::Hsmd {
        return Ok(state_files::write(state.deployment_id(), &keys));
    }
    if key.is_none() || chain.is_none() {
        return Err(format!(
            "a file for {format} has one key and chain: name them with --key and --chain"
        ));
    }
    let mut marks = keys.into_iter().flat_map(|key| key.marks);
    let FileSigned {
        imported,
        signature,
    } = marks
        .next()
        .ok_or("this key has no mark on this chain: see `hsmd state show`")?
        .signed;
    let mark = Mark {
        initial_height: imported.initial_height,
        last: imported.last,
    };
    let signature = Some(signature.as_slice()).filter(|signature| !signature.is_empty());
    state_files::write_foreign(format, &mark, signature).map_err(|error| error.to_string())
}

/// The greatest height that a file shows for a key on a chain.
///
/// # Errors
///
/// Where the file is refused, or shows nothing of it.
pub fn evidence_height(
    file: &wire::StateFile,
    chain: &str,
    public_key: &[u8],
) -> Result<i64, Error> {
    let chain = chain_of(chain)?;
    let shown = evidence_of(file, &chain)?;
    let mark = shown.mark_of(public_key, &chain);
    let mark =
        mark.ok_or_else(|| nothing(file, format!("nothing of this key on chain {chain}")))?;
    Ok(mark.height())
}

/// Raises marks to what a file says of them. The whole file is checked before anything is changed. Durable on
/// return.
///
/// # Errors
///
/// See [`Error`].
pub async fn import(
    guard: &Guard,
    request: wire::ImportStateRequest,
) -> Result<Vec<(wire::StateImported, Outcome)>, Error> {
    let file = request.file.unwrap_or_default();
    let format: Format = file.format.parse().map_err(wrong(&file))?;
    let planned = match format {
        Format::Hsmd => from_ours(guard, &file, &request.key, &request.chain_id)?,
        _ => vec![from_foreign(
            guard,
            &file,
            format,
            &request.key,
            &request.chain_id,
        )?],
    };
    let mut done = Vec::with_capacity(planned.len());
    for imported in planned {
        let outcome = guard.import(imported.clone(), SystemTime::now()).await?;
        if let Outcome::Contested(position) = outcome {
            let (key, chain) = (&imported.key, &imported.chain_id);
            tracing::error!(
                key,
                chain,
                source = file.source,
                "two different messages were signed at {position}, one here and one by the signer whose state was \
                 imported: find the other signer and switch it off"
            );
        }
        done.push((imported, outcome));
    }
    Ok(done)
}

/// What became of the marks, and how they are now.
///
/// # Errors
///
/// [`guard::Error::Internal`] after a fault of ours.
pub fn imported_marks(
    guard: &Guard,
    imported: Vec<(wire::StateImported, Outcome)>,
) -> Result<Vec<wire::ImportedMark>, guard::Error> {
    let marks = imported.into_iter().map(|(imported, outcome)| {
        let state = guard.inspect(|state| {
            let key = state.pinned(&imported.key)?;
            let chain = ChainId::new(&imported.chain_id).ok()?;
            Some(key::chain_state(&chain, state.mark(&key, &chain)?))
        })?;
        let outcome = match outcome {
            Outcome::Unchanged => "unchanged",
            Outcome::Raised => "raised",
            Outcome::Dropped(_) => "bytes dropped",
            Outcome::Contested(_) => "contested",
        };
        Ok(wire::ImportedMark {
            key: imported.key,
            chain_id: imported.chain_id,
            outcome: outcome.to_owned(),
            state,
        })
    });
    marks.collect()
}

/// Makes a key known that was restored from a backup: above the evidence and a margin, as officers signed.
/// Durable on return.
///
/// # Errors
///
/// See [`Error`]; nothing is changed then, save that after [`guard::Error::Journal`] the key may be known.
pub async fn recover(
    keyring: &Keyring,
    guard: &Guard,
    request: wire::RecoverKeyRequest,
) -> Result<(), Error> {
    let key = key::named(keyring, &request.key)?;
    let chain = chain_of(&request.chain_id)?;
    let evidence = request.evidence.as_ref();
    let shown = evidence.map(|file| evidence_of(file, &chain)).transpose()?;
    let public_key = key
        .read_public_key(Instant::now() + DEVICE_PATIENCE)
        .await
        .map_err(Box::new)?;
    if let (Some(file), Some(shown)) = (evidence, &shown) {
        let mark = shown.mark_of(public_key.as_bytes(), &chain);
        let mark =
            mark.ok_or_else(|| nothing(file, format!("nothing of this key on chain {chain}")))?;
        check_signature(file, mark, key.name(), &public_key)?;
    }
    let recovery = Recovery {
        key,
        chain: &chain,
        public_key,
        file: evidence,
        height: shown.and_then(|shown| {
            shown
                .mark_of(public_key.as_bytes(), &chain)
                .map(FileSigned::height)
        }),
    };
    let check = |statement| recovery.check(statement).map_err(guard::Error::Statement);
    guard
        .recover(&signed(request.signed), check, SystemTime::now())
        .await?;
    devices::pin(key.devices(), guard)?;
    Ok(())
}

/// A file of evidence, read.
struct Shown {
    /// The public key that a file of our own names; none where the format names none.
    marks: Vec<(Option<Vec<u8>>, ChainId, FileSigned)>,
}

impl Shown {
    fn mark_of(&self, key: &[u8], chain: &ChainId) -> Option<&FileSigned> {
        let found = self.marks.iter().find(|(public_key, of, _)| {
            of == chain && public_key.as_ref().is_none_or(|named| named == key)
        });
        found.map(|(_, _, signed)| signed)
    }
}

fn evidence_of(file: &wire::StateFile, chain: &ChainId) -> Result<Shown, Error> {
    let format: Format = file.format.parse().map_err(wrong(file))?;
    let marks = match format {
        Format::Hsmd => state_files::read(&file.content)
            .map_err(wrong(file))?
            .into_iter()
            .flat_map(|key| {
                let public_key = key.public_key;
                key.marks
                    .into_iter()
                    .map(move |mark| (Some(public_key.clone()), mark.chain_id, mark.signed))
            })
            .collect(),
        _ => {
            let signed =
                state_files::read_foreign(format, &file.content, chain).map_err(wrong(file))?;
            vec![(None, chain.clone(), signed)]
        }
    };
    Ok(Shown { marks })
}

/// What is recovered, to be held against what the officers signed.
struct Recovery<'a> {
    key: &'a Key,
    chain: &'a ChainId,
    public_key: PublicKey,
    file: Option<&'a wire::StateFile>,
    /// What the file shows.
    height: Option<i64>,
}

impl Recovery<'_> {
    fn check(&self, statement: RecoverKey) -> Result<wire::KeyRecovered, String> {
        let (key, chain) = (self.key.name(), self.chain.to_string());
        let public_key = hex::encode(self.public_key.as_bytes());
        let same = |what: &str, signed: &str, ours: &str| match signed == ours {
            true => Ok(()),
            false => Err(format!(
                "the officers signed for {what} {signed}, and this is {ours}"
            )),
        };
        same("key", &statement.key, key)?;
        same("chain", &statement.chain_id, &chain)?;
        same("public key", &statement.public_key, &public_key)?;
        let sha256 = self.file.map(|file| Sha256::digest(&file.content).to_vec());
        let given = hex::encode(sha256.clone().unwrap_or_default());
        same("evidence with SHA-256", &statement.evidence_sha256, &given)?;
        if statement.old_device_is_off.trim().is_empty() {
            return Err(
                "old_device_is_off is empty: the officers say there what was switched off"
                    .to_owned(),
            );
        }
        let (shown, margin) = (statement.evidence_height, statement.margin);
        if let Some(height) = self.height.filter(|height| *height > shown) {
            return Err(format!(
                "the file shows height {height}, and the officers signed for {shown}"
            ));
        }
        let initial_height = shown
            .checked_add(margin)
            .filter(|_| shown >= 0 && margin >= 1)
            .ok_or_else(|| {
                format!("evidence_height {shown} and margin {margin}: at least 0, and at least 1")
            })?;
        let identities = self.key.identities();
        let shown_by = identities.iter().filter_map(|(device, identity)| {
            Some(entry::identity_to_wire(device, identity.as_ref()?))
        });
        let format = self.file.map_or("chain-height", |file| &file.format);
        Ok(wire::KeyRecovered {
            pinned: Some(wire::KeyPinned {
                key: key.to_owned(),
                public_key: Some(entry::public_key_to_wire(&self.public_key)),
                chain_id: chain,
                initial_height,
                devices: self.key.device_names(),
                device_identities: shown_by.collect(),
                ledger: None,
            }),
            evidence: Some(wire::Evidence {
                format: format.to_owned(),
                source: self
                    .file
                    .map_or_else(String::new, |file| file.source.clone()),
                sha256: sha256.unwrap_or_default(),
            }),
            evidence_height: shown,
            margin,
            authorisation: None,
        })
    }
}

fn from_foreign(
    guard: &Guard,
    file: &wire::StateFile,
    format: Format,
    key: &str,
    chain: &str,
) -> Result<wire::StateImported, Error> {
    let chain = chain_of(chain)?;
    let public_key = guard.inspect(|state| {
        let pinned = state.pinned(key);
        pinned.filter(|pinned| state.mark(pinned, &chain).is_some())
    })?;
    let public_key = public_key.ok_or_else(|| guard::Error::NotInitialised {
        key: key.to_owned(),
        chain: chain.to_string(),
    })?;
    let mut signed =
        state_files::read_foreign(format, &file.content, &chain).map_err(wrong(file))?;
    if check_signature(file, &signed, key, &public_key).is_err() {
        match format {
            // A cosigner's file has a share of the signature, which is nobody's.
            Format::Horcrux => signed.signature.clear(),
            _ => check_signature(file, &signed, key, &public_key)?,
        }
    }
    Ok(imported(file, key, &public_key, &chain, signed))
}

fn from_ours(
    guard: &Guard,
    file: &wire::StateFile,
    key: &str,
    chain: &str,
) -> Result<Vec<wire::StateImported>, Error> {
    let wanted = if key.is_empty() {
        None
    } else {
        Some(guard.pinned(key)?)
    };
    let mut planned = Vec::new();
    for exported in state_files::read(&file.content).map_err(wrong(file))? {
        let of = exported.public_key.as_slice();
        if let Some(wanted) = &wanted
            && wanted.is_none_or(|wanted| wanted.as_bytes() != of)
        {
            continue;
        }
        for mark in exported.marks {
            if !chain.is_empty() && mark.chain_id.as_str() != chain {
                continue;
            }
            let known = guard.inspect(|state| state.known_as(of, &mark.chain_id))?;
            let (name, public_key) = known.ok_or_else(|| guard::Error::NotInitialised {
                key: exported
                    .names
                    .first()
                    .cloned()
                    .unwrap_or_else(|| hex::encode(of)),
                chain: mark.chain_id.to_string(),
            })?;
            check_signature(file, &mark.signed, &name, &public_key)?;
            planned.push(imported(
                file,
                &name,
                &public_key,
                &mark.chain_id,
                mark.signed,
            ));
        }
    }
    if planned.is_empty() {
        let what = format!("nothing in it of key {key:?} on chain {chain:?}");
        return Err(nothing(file, what));
    }
    Ok(planned)
}

fn imported(
    file: &wire::StateFile,
    key: &str,
    public_key: &PublicKey,
    chain: &ChainId,
    signed: FileSigned,
) -> wire::StateImported {
    let last = signed.imported.last;
    wire::StateImported {
        key: key.to_owned(),
        public_key: Some(entry::public_key_to_wire(public_key)),
        chain_id: chain.to_string(),
        evidence: Some(wire::Evidence {
            format: file.format.clone(),
            source: file.source.clone(),
            sha256: Sha256::digest(&file.content).to_vec(),
        }),
        initial_height: signed.imported.initial_height,
        position: last
            .as_ref()
            .map(|last| entry::position_to_wire(last.position)),
        timestamp: last
            .as_ref()
            .map(|last| entry::timestamp_to_wire(last.timestamp)),
        sign_bytes: last.map_or_else(Vec::new, |last| last.sign_bytes),
        signature: signed.signature,
    }
}

/// Whether the signature in the file, where there is one, is the key's: else it is another key's file.
fn check_signature(
    file: &wire::StateFile,
    signed: &FileSigned,
    key: &str,
    public_key: &PublicKey,
) -> Result<(), Error> {
    let Some(last) = signed
        .imported
        .last
        .as_ref()
        .filter(|_| !signed.signature.is_empty())
    else {
        return Ok(());
    };
    let signature = signed.signature.as_slice().try_into().map(Signature);
    let verified =
        signature.is_ok_and(|signature| public_key.verify(&last.sign_bytes, &signature).is_ok());
    match verified {
        true => Ok(()),
        false => Err(Error::OtherKey {
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
