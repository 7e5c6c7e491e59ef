//! `hsmd state export`.

use hsm_journal::State as _;
use hsm_policy::conflict::Mark;
use hsm_policy::state_files::{self, ExportedKey, Format, Signed as FileSigned};

use crate::guard::{self, Guard, State};

/// Everything that the journal yields, as an encoded `hsm.v1.Snapshot`.
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
