//! The file that `hsmd state export` writes: JSON, every key and mark of a deployment.

use serde::{Deserialize, Serialize};

use super::{Error, MAX_FILE, Signed, checked};
use crate::cometbft::{ChainId, Height, Position, Round, Step};
use crate::conflict::Imported;

/// The value of the field `format`.
const FORMAT: &str = "hsmd state v1";

/// A key and its marks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportedKey {
    /// Raw.
    pub public_key: Vec<u8>,
    /// The names that it had.
    pub names: Vec<String>,
    /// One a chain.
    pub marks: Vec<ExportedMark>,
}

/// The mark of a key on a chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportedMark {
    /// The chain.
    pub chain_id: ChainId,
    /// What was signed on it last.
    pub signed: Signed,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    format: String,
    /// Which deployment wrote it, in hex; for people.
    deployment: String,
    keys: Vec<Key>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Key {
    public_key: String,
    names: Vec<String>,
    chains: Vec<Chain>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Chain {
    chain_id: String,
    initial_height: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    last: Option<LastSigned>,
}

/// Binary fields in hex, left out where nothing is known.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct LastSigned {
    height: i64,
    round: i32,
    step: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    sign_bytes: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    signature: String,
}

/// The file for these keys of a deployment.
#[must_use]
pub fn write(deployment_id: &[u8], keys: &[ExportedKey]) -> String {
    let keys = keys.iter().map(|key| Key {
        public_key: hex::encode(&key.public_key),
        names: key.names.clone(),
        chains: key.marks.iter().map(chain).collect(),
    });
    let file = File {
        format: FORMAT.to_owned(),
        deployment: hex::encode(deployment_id),
        keys: keys.collect(),
    };
    // A struct of strings, numbers and lists has nothing that JSON cannot say.
    let text = serde_json::to_string_pretty(&file).unwrap_or_default();
    text + "\n"
}

/// Reads a file that an hsmd wrote.
///
/// # Errors
///
/// See [`Error`].
pub fn read(bytes: &[u8]) -> Result<Vec<ExportedKey>, Error> {
    if bytes.len() > MAX_FILE {
        return Err(Error::TooLong(bytes.len()));
    }
    let file: File = serde_json::from_slice(bytes).map_err(shape)?;
    if file.format != FORMAT {
        return Err(shape(format!(
            "its format is {}",
            crate::quoted(&file.format)
        )));
    }
    let keys = file.keys.into_iter().map(|key| {
        let marks = key.chains.into_iter().map(mark);
        Ok(ExportedKey {
            public_key: hex::decode(&key.public_key).map_err(shape)?,
            names: key.names,
            marks: marks.collect::<Result<_, Error>>()?,
        })
    });
    keys.collect()
}

fn chain(mark: &ExportedMark) -> Chain {
    let imported = &mark.signed.imported;
    Chain {
        chain_id: mark.chain_id.to_string(),
        initial_height: imported.initial_height,
        last: imported.last.as_ref().map(|last| LastSigned {
            height: last.position.height.get(),
            round: last.position.round.get(),
            step: last.position.step.to_string(),
            sign_bytes: hex::encode(&last.sign_bytes),
            signature: hex::encode(&mark.signed.signature),
        }),
    }
}

fn mark(chain: Chain) -> Result<ExportedMark, Error> {
    let chain_id = ChainId::new(&chain.chain_id).map_err(shape)?;
    if chain.initial_height < 0 {
        return Err(Error::Field {
            field: "initial_height",
            value: chain.initial_height.to_string(),
            rule: "at least 0",
        });
    }
    let (last, signature) = match chain.last {
        None => (None, Vec::new()),
        Some(last) => {
            let position = Position {
                height: Height::new(last.height).map_err(shape)?,
                round: Round::new(last.round).map_err(shape)?,
                step: step(&last.step)?,
            };
            let sign_bytes = hex::decode(&last.sign_bytes).map_err(shape)?;
            let signature = hex::decode(&last.signature).map_err(shape)?;
            let last = checked(position, sign_bytes, &chain_id)?;
            (Some(last), signature)
        }
    };
    Ok(ExportedMark {
        chain_id,
        signed: Signed {
            imported: Imported {
                initial_height: chain.initial_height,
                last,
            },
            signature,
        },
    })
}

fn step(name: &str) -> Result<Step, Error> {
    [Step::Proposal, Step::Prevote, Step::Precommit]
        .into_iter()
        .find(|step| step.to_string() == name)
        .ok_or_else(|| Error::Field {
            field: "step",
            value: crate::quoted(name),
            rule: "proposal, prevote or precommit",
        })
}

fn shape(reason: impl ToString) -> Error {
    Error::Shape {
        format: "hsmd",
        reason: reason.to_string(),
    }
}
