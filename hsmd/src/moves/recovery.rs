//! `hsmd key init --recovered`.

use std::time::{Duration, SystemTime};

use hsm_device::PublicKey;
use hsm_policy::cometbft::{ChainId, Message, Position, Timestamp};
use hsm_policy::conflict::{Imported, Last};
use hsm_policy::officers::RecoverKey;
use hsm_policy::state_files::{self, Format, Signed as FileSigned};
use hsm_proto::v1 as wire;
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;

use super::{Error, chain_of, check_signature, nothing, signed, wrong};
use crate::guard::ledger::Row;
use crate::guard::{self, Guard, entry};
use crate::keyring::{Key, Keyring};
use crate::log::marks;
use crate::{devices, key};

/// What a file of evidence is, besides another signer's state.
pub const CHECKPOINT: &str = "checkpoint";
/// The value of a ledger's row.
pub const LEDGER_ROW: &str = "ledger-row";

/// How long a device may take to show a public key.
const DEVICE_PATIENCE: Duration = Duration::from_secs(15);

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
    match file.format.as_str() {
        CHECKPOINT => return checkpoint(file),
        LEDGER_ROW => return ledger_row(file, chain),
        _ => {}
    }
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

/// A witnessed checkpoint, with its marks.
fn checkpoint(file: &wire::StateFile) -> Result<Shown, Error> {
    let refused = |error: &dyn std::fmt::Display| nothing(file, error.to_string());
    let text = std::str::from_utf8(&file.content).map_err(|error| refused(&error))?;
    let proven = marks::evidence(text).map_err(|error| refused(&error))?;
    let marks = proven.marks.into_iter().map(|mark| {
        let last = mark.last.map(unknown);
        let key = mark.public_key.as_bytes().to_vec();
        (Some(key), mark.chain, shown(mark.initial_height, last))
    });
    Ok(Shown {
        marks: marks.collect(),
    })
}

/// The value of the row in etcd, as `etcdctl get KEY --print-value-only` prints it. It names neither key nor chain; where
/// there is a message in it, that is of the chain.
fn ledger_row(file: &wire::StateFile, chain: &ChainId) -> Result<Shown, Error> {
    let value = file.content.as_slice();
    let row = Row::decode(value).or_else(|error| {
        // The line feed is etcdctl's.
        let line = value.strip_suffix(b"\n").ok_or(error)?;
        Row::decode(line)
    });
    let row = row.map_err(|reason| nothing(file, reason))?;
    if !row.awaited.is_empty() {
        let reason = "the ledger was being reconciled, and this row lacks what some signers know: it is no evidence";
        return Err(nothing(file, reason.to_owned()));
    }
    let last = row.mark.last;
    let other = last.as_ref().is_some_and(|last| {
        let message = Message::from_sign_bytes(&last.sign_bytes);
        let of_chain = message.is_some_and(|message| message.chain_id() == chain);
        !last.sign_bytes.is_empty() && !of_chain
    });
    if other {
        return Err(nothing(
            file,
            format!("the message in it is none of chain {chain}"),
        ));
    }
    let marks = vec![(None, chain.clone(), shown(row.mark.initial_height, last))];
    Ok(Shown { marks })
}

fn shown(initial_height: i64, last: Option<Last>) -> FileSigned {
    FileSigned {
        imported: Imported {
            initial_height,
            last,
        },
        signature: Vec::new(),
    }
}

/// Something was signed there, and the marks do not say what.
fn unknown(position: Position) -> Last {
    Last {
        position,
        sign_bytes: Vec::new(),
        timestamp: Timestamp::EPOCH,
        extension_sign_bytes: None,
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guard::ledger::Id;
    use hsm_policy::cometbft::{Height, Round, Vote, VoteType};
    use hsm_policy::conflict::Mark;

    #[test]
    fn a_ledgers_row_is_evidence_of_its_height_for_its_chain_only() {
        let chain = ChainId::new("chain-a").unwrap();
        let vote = Vote::new(
            chain.clone(),
            VoteType::Precommit,
            Height::new(700).unwrap(),
            Round::new(0).unwrap(),
            None,
            Timestamp::new(1, 0).unwrap(),
            None,
        );
        let mark = Mark {
            initial_height: 10,
            last: None,
        };
        let row = Row {
            ledger_id: Id::new(&[1; 16]).unwrap(),
            generation: 1,
            members: [].into(),
            awaited: [].into(),
            lost: [].into(),
            frozen: None,
            mark,
        };
        let row = row.with_message(&Message::Vote(vote.unwrap()));
        let file = |content| wire::StateFile {
            format: LEDGER_ROW.to_owned(),
            source: "row".to_owned(),
            content,
        };
        for content in [row.encode(), [row.encode(), b"\n".to_vec()].concat()] {
            let height = evidence_height(&file(content.clone()), "chain-a", &[7; 32]);
            assert_eq!(height.unwrap(), 700);
            assert!(evidence_height(&file(content), "chain-b", &[7; 32]).is_err());
        }
        assert!(evidence_height(&file(b"{}".to_vec()), "chain-a", &[7; 32]).is_err());
        let reconciling = Row {
            awaited: [Id::new(&[2; 16]).unwrap()].into(),
            ..row
        };
        let refused = evidence_height(&file(reconciling.encode()), "chain-a", &[7; 32]);
        let refused = refused.unwrap_err().to_string();
        assert!(refused.contains("being reconciled"), "{refused}");
    }
}
