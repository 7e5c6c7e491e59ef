//! The checks of `[checkpoint]`.

use std::str::FromStr as _;
use std::time::Duration;

use hsm_device::{Algorithm, KeyLocator};
use hsm_journal::note::{self, Verifier};
use hsm_journal::witness::Witness;

use super::check::Checker;
use super::{Checkpoint, Device, Key, keys, raw};

/// Origins of logs are names such as `example.org/hsmd/cosmos-1`.
const ORIGIN_BYTES: usize = 128;

pub(super) fn check(
    checker: &mut Checker,
    raw: raw::Checkpoint,
    devices: &[Device],
    keys: &[Key],
) -> Option<Checkpoint> {
    let origin = origin(checker, raw.origin);
    let interval = checker.range(
        "checkpoint.interval_ms",
        raw.interval_ms,
        60_000,
        100,
        86_400_000,
    );
    let place = keys::place(
        checker,
        "checkpoint",
        raw.devices,
        raw.label,
        raw.id,
        devices,
    );
    let witnesses = raw.witness.into_iter().enumerate();
    let witnesses: Vec<_> = witnesses
        .filter_map(|(index, raw)| witness(checker, index, raw))
        .collect();
    let quorum = quorum(checker, raw.quorum, witnesses.len());
    let place = place?;
    for key in keys {
        let shared = key
            .devices
            .iter()
            .any(|device| place.devices.contains(device));
        let same_label = place.label.is_some() && key.label == place.label;
        let same_id = place.id.is_some() && key.id == place.id;
        if shared && (same_label || same_id) {
            let fault = format!(
                "is key \"{}\", and a consensus key signs nothing else",
                key.name
            );
            let remedy = "make another Ed25519 key in the device, for checkpoints alone";
            let shown = place.label.clone().unwrap_or_else(|| "its id".to_owned());
            checker
                .problems
                .value("checkpoint.label", shown, fault, remedy);
            return None;
        }
    }
    Some(Checkpoint {
        origin: origin?,
        interval: Duration::from_millis(interval?),
        devices: place.devices,
        locator: KeyLocator {
            label: place.label,
            id: place.id,
            algorithm: Algorithm::Ed25519,
        },
        witnesses,
        quorum: quorum?,
    })
}

fn origin(checker: &mut Checker, origin: Option<String>) -> Option<String> {
    let key = "checkpoint.origin";
    let remedy = "write a name that no other log has, of your own domain and without spaces or +, such as \
                  \"example.org/hsmd/cosmos-1\"";
    let origin = checker.problems.required(key, origin, remedy)?;
    if note::is_name(&origin) && origin.len() <= ORIGIN_BYTES {
        return Some(origin);
    }
    checker
        .problems
        .value(key, origin, "is not an origin", remedy);
    None
}

fn witness(checker: &mut Checker, index: usize, raw: raw::Witness) -> Option<Witness> {
    let path = format!("checkpoint.witness[#{}]", index + 1);
    let url = checker.problems.required(
        &format!("{path}.url"),
        raw.url,
        "write the witness's submission prefix, such as \"http://127.0.0.1:7380\"",
    );
    let remedy = "write the witness's verifier key, as its operator publishes it";
    let key = checker
        .problems
        .required(&format!("{path}.key"), raw.key, remedy);
    let (url, key) = (url?, key?);
    let made = Verifier::from_str(&key)
        .map_err(|error| (format!("{path}.key"), error.to_string()))
        .and_then(|verifier| {
            Witness::new(&url, verifier).map_err(|error| (format!("{path}.url"), error.to_string()))
        });
    match made {
        Ok(witness) => Some(witness),
        Err((path, fault)) => {
            checker.problems.value(&path, url, fault, remedy);
            None
        }
    }
}

fn quorum(checker: &mut Checker, quorum: Option<u64>, witnesses: usize) -> Option<usize> {
    let all = witnesses as u64;
    let quorum = checker.range("checkpoint.quorum", quorum, all, all.min(1), all)?;
    usize::try_from(quorum).ok()
}
