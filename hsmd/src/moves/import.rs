//! `hsmd state import`.

use std::time::SystemTime;

use hsm_device::PublicKey;
use hsm_policy::cometbft::ChainId;
use hsm_policy::conflict::Outcome;
use hsm_policy::state_files::{self, Format, Signed as FileSigned};
use hsm_proto::v1 as wire;
use sha2::{Digest as _, Sha256};

use super::{Error, chain_of, check_signature, nothing, wrong};
use crate::guard::{self, Guard, entry};
use crate::key;

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
    if !check_signature(file, &signed, key, &public_key)? {
        signed.signature.clear();
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
