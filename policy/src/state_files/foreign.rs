//! The files of CometBFT, tmkms and horcrux.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};

use super::{Error, Signed, checked, unknown};
use crate::cometbft::{ChainId, Height, Message, Position, Round, Step};
use crate::conflict::{Imported, Mark};
use crate::quoted;

/// CometBFT `FilePVLastSignState`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Cometbft {
    #[serde(deserialize_with = "number")]
    height: i64,
    #[serde(deserialize_with = "number")]
    round: i64,
    #[serde(deserialize_with = "number")]
    step: i64,
    signature: Option<String>,
    signbytes: Option<String>,
}

/// tendermint-rs `consensus::State`. The block id is always there, if only as null, by which the file is told
/// from CometBFT's.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Tmkms {
    #[serde(deserialize_with = "number")]
    height: i64,
    #[serde(deserialize_with = "number")]
    round: i64,
    #[serde(deserialize_with = "number")]
    step: i64,
    #[serde(deserialize_with = "present", rename = "block_id")]
    _block_id: Value,
}

/// horcrux `SignState`. Its fields differ from release to release, so unknown ones are passed over; one of
/// these tells it from tmkms's.
#[derive(Deserialize)]
struct Horcrux {
    #[serde(deserialize_with = "number")]
    height: i64,
    #[serde(deserialize_with = "number")]
    round: i64,
    #[serde(deserialize_with = "number")]
    step: i64,
    signature: Option<String>,
    signbytes: Option<String>,
    #[serde(default, deserialize_with = "present_or_not")]
    nonce_public: bool,
    #[serde(default, deserialize_with = "present_or_not")]
    ephemeral_public: bool,
}

pub(super) fn cometbft(bytes: &[u8], chain: &ChainId) -> Result<Signed, Error> {
    let file: Cometbft = shaped("cometbft", bytes)?;
    let position = position(file.height, file.round, file.step)?;
    let sign_bytes = file.signbytes.as_deref().unwrap_or_default();
    let sign_bytes = hex::decode(sign_bytes).map_err(|error| shape("cometbft", error))?;
    let signature = file.signature.as_deref().unwrap_or_default();
    let signature = STANDARD
        .decode(signature)
        .map_err(|error| shape("cometbft", error))?;
    signed(position, sign_bytes, signature, chain)
}

pub(super) fn tmkms(bytes: &[u8]) -> Result<Signed, Error> {
    let file: Tmkms = shaped("tmkms", bytes)?;
    if !(0..=2).contains(&file.step) {
        return Err(Error::Field {
            field: "step",
            value: file.step.to_string(),
            rule: "0 (proposal), 1 (prevote) or 2 (precommit), as tmkms counts",
        });
    }
    // A chain that never signed has height 0; it has no step then, whatever the field says.
    let step = if file.height == 0 { 0 } else { file.step + 1 };
    let last = position(file.height, file.round, step)?.map(unknown);
    Ok(Signed {
        imported: Imported {
            initial_height: 0,
            last,
        },
        signature: Vec::new(),
    })
}

pub(super) fn horcrux(bytes: &[u8], chain: &ChainId) -> Result<Signed, Error> {
    let file: Horcrux = shaped("horcrux", bytes)?;
    let told = file.nonce_public || file.ephemeral_public;
    if !told && file.signature.is_none() && file.signbytes.is_none() {
        return Err(shape(
            "horcrux",
            "it has neither nonce_public, ephemeral_public, signature nor signbytes",
        ));
    }
    let position = position(file.height, file.round, file.step)?;
    let text = file.signbytes.as_deref().unwrap_or_default();
    // Hex in most releases, base64 in some; what is read has to be a vote or a proposal.
    let decoded = [hex::decode(text).ok(), STANDARD.decode(text).ok()];
    let mut readable = decoded.into_iter().flatten();
    let sign_bytes = match text {
        "" => Vec::new(),
        _ => readable
            .find(|bytes| Message::from_sign_bytes(bytes).is_some())
            .ok_or(Error::SignBytes)?,
    };
    // In a cosigner's file it is a share of the signature.
    let signature = STANDARD.decode(file.signature.as_deref().unwrap_or_default());
    let signature = signature.map_err(|error| shape("horcrux", error))?;
    signed(position, sign_bytes, signature, chain)
}

pub(super) fn to_cometbft(mark: &Mark, signature: Option<&[u8]>) -> String {
    let mut file = to_horcrux_and_cometbft(mark, signature);
    // Rounds are 32 bits there, and numbers.
    if let (Some(round), Some(field)) = (round_of(&file), file.get_mut("round")) {
        *field = round.into();
    }
    text(&file)
}

pub(super) fn to_horcrux(mark: &Mark, signature: Option<&[u8]>) -> String {
    let mut file = to_horcrux_and_cometbft(mark, signature);
    if let Some(fields) = file.as_object_mut() {
        fields.insert("nonce_public".to_owned(), Value::Null);
    }
    text(&file)
}

pub(super) fn to_tmkms(mark: &Mark) -> String {
    let (position, known) = exported(mark);
    let message = known.and_then(Message::from_sign_bytes);
    // tmkms compares block ids only: where ours is not known, the position after it is given, at which
    // nothing was signed.
    let (height, round, step) = match (position, &message) {
        (None, _) => (0, 0, 0),
        (Some(at), Some(_)) => (at.height.get(), at.round.get(), at.step as i32 - 1),
        (Some(at), None) => after(at),
    };
    let block_id = message.as_ref().and_then(Message::block_id).map(|id| {
        json!({
            "hash": hex::encode_upper(id.hash()),
            "parts": { "total": id.part_set_total(), "hash": hex::encode_upper(id.part_set_hash()) },
        })
    });
    text(&json!({
        "height": height.to_string(),
        "round": round.to_string(),
        "step": step,
        "block_id": block_id,
    }))
}

/// In tmkms's numbering.
fn after(at: Position) -> (i64, i32, i32) {
    let (height, round) = (at.height.get(), at.round.get());
    match (at.step, round.checked_add(1)) {
        (Step::Proposal, _) => (height, round, 1),
        (Step::Prevote, _) => (height, round, 2),
        (Step::Precommit, Some(next)) => (height, next, 0),
        (Step::Precommit, None) => match height.checked_add(1) {
            Some(next) => (next, 0, 0),
            None => (height, round, 2),
        },
    }
}

fn to_horcrux_and_cometbft(mark: &Mark, signature: Option<&[u8]>) -> Value {
    let (position, known) = exported(mark);
    let (height, round, step) = position.map_or((0, 0, 0), |at| {
        (at.height.get(), at.round.get(), at.step as i32)
    });
    let mut file = json!({
        "height": height.to_string(),
        "round": round.to_string(),
        "step": step,
    });
    // Sign bytes without a signature make CometBFT panic; without both it refuses the position.
    if let (Some(bytes), Some(signature), Some(fields)) = (known, signature, file.as_object_mut()) {
        fields.insert("signature".to_owned(), STANDARD.encode(signature).into());
        fields.insert("signbytes".to_owned(), hex::encode_upper(bytes).into());
    }
    file
}

/// The greatest position that the mark forbids, and its sign bytes where they are known.
fn exported(mark: &Mark) -> (Option<Position>, Option<&[u8]>) {
    let last = mark.last.as_ref();
    let last = last.filter(|last| last.position.height.get() > mark.initial_height);
    if let Some(last) = last {
        let known = Some(last.sign_bytes.as_slice()).filter(|bytes| !bytes.is_empty());
        return (Some(last.position), known);
    }
    let whole_height = match (Height::new(mark.initial_height), Round::new(i32::MAX)) {
        (Ok(height), Ok(round)) => Some(Position {
            height,
            round,
            step: Step::Precommit,
        }),
        _ => None,
    };
    (whole_height, None)
}

fn round_of(file: &Value) -> Option<i64> {
    file.get("round")?.as_str()?.parse().ok()
}

fn text(file: &Value) -> String {
    format!("{file:#}\n")
}

fn signed(
    position: Option<Position>,
    sign_bytes: Vec<u8>,
    signature: Vec<u8>,
    chain: &ChainId,
) -> Result<Signed, Error> {
    let last = match position {
        Some(position) => Some(checked(position, sign_bytes, chain)?),
        None if sign_bytes.is_empty() => None,
        None => return Err(Error::SignBytes),
    };
    let has_bytes = last
        .as_ref()
        .is_some_and(|last| !last.sign_bytes.is_empty());
    Ok(Signed {
        imported: Imported {
            initial_height: 0,
            last,
        },
        signature: if has_bytes { signature } else { Vec::new() },
    })
}

/// In CometBFT's numbering. `None` at height 0, where nothing was signed. Step 0 at a height stands for the
/// whole round: somebody wrote it by hand, to forbid what lies before.
fn position(height: i64, round: i64, step: i64) -> Result<Option<Position>, Error> {
    let wrong = |field, value: i64, rule| Error::Field {
        field,
        value: value.to_string(),
        rule,
    };
    if height < 0 {
        return Err(wrong("height", height, "at least 0"));
    }
    let at = i32::try_from(round)
        .ok()
        .and_then(|round| Round::new(round).ok())
        .ok_or_else(|| wrong("round", round, "0 to 2147483647"))?;
    let rule = "0 (none), 1 (proposal), 2 (prevote) or 3 (precommit), as CometBFT counts";
    let step = match step {
        0 => Step::Precommit,
        1..=3 => Step::try_from(i32::try_from(step).unwrap_or_default())
            .map_err(|_| wrong("step", step, rule))?,
        _ => return Err(wrong("step", step, rule)),
    };
    Ok(Height::new(height).ok().map(|height| Position {
        height,
        round: at,
        step,
    }))
}

fn shaped<'de, T: Deserialize<'de>>(format: &'static str, bytes: &'de [u8]) -> Result<T, Error> {
    serde_json::from_slice(bytes).map_err(|error| shape(format, error))
}

fn shape(format: &'static str, reason: impl ToString) -> Error {
    let reason = reason.to_string();
    Error::Shape { format, reason }
}

/// Go and tendermint-rs write 64-bit numbers as strings, and smaller ones as either.
fn number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
    use serde::de::Error as _;
    let read = match Value::deserialize(deserializer)? {
        Value::Number(number) => number.as_i64(),
        Value::String(text) => text.parse().ok(),
        _ => None,
    };
    read.ok_or_else(|| D::Error::custom(format_args!("a field is {}", quoted("no whole number"))))
}

fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Value, D::Error> {
    Value::deserialize(deserializer)
}

fn present_or_not<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    serde::de::IgnoredAny::deserialize(deserializer).map(|_| true)
}
