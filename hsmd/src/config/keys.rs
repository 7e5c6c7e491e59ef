//! The checks of `[[key]]`.

use std::collections::{HashMap, HashSet};

use hsm_device::Algorithm;

use super::check::Checker;
use super::raw;
use super::{Backend, Device, Key};

/// A PKCS#11 CKA_ID has no bound of its own; this one is beyond any in use.
const ID_BYTES: usize = 64;
/// A YubiHSM2's labels are 40 bytes; PKCS#11 has no bound.
const LABEL_BYTES: usize = 128;

/// `declared` has the names of all devices of the file, `devices` those without a problem: a key is not
/// at fault because its device is.
pub(super) fn check(
    checker: &mut Checker,
    raw: Vec<raw::Key>,
    devices: &[Device],
    declared: &HashSet<String>,
) -> Vec<Key> {
    let mut known: HashMap<_, _> = declared.iter().map(|name| (&**name, None)).collect();
    known.extend(devices.iter().map(|device| (&*device.name, Some(device))));
    let mut keys = Vec::with_capacity(raw.len());
    for (index, raw) in raw.into_iter().enumerate() {
        let path = match &raw.name {
            Some(name) => format!("key[{name}]"),
            None => format!("key[#{}]", index + 1),
        };
        keys.extend(key(checker, &path, raw, &known));
    }
    refuse_duplicates(checker, &keys);
    keys
}

fn key(
    checker: &mut Checker,
    path: &str,
    raw: raw::Key,
    devices: &HashMap<&str, Option<&Device>>,
) -> Option<Key> {
    let name = checker.name(&format!("{path}.name"), raw.name);
    let algorithm_path = format!("{path}.algorithm");
    let remedy = "write \"ed25519\" or \"secp256k1\"";
    let algorithm = checker
        .problems
        .required(&algorithm_path, raw.algorithm, remedy);
    let algorithms = [
        ("ed25519", Algorithm::Ed25519),
        ("secp256k1", Algorithm::Secp256k1),
    ];
    let algorithm = algorithm.and_then(|name| checker.choice(&algorithm_path, &name, &algorithms));
    let holders = key_devices(checker, path, raw.devices, devices);
    let label = raw.label.map(|label| check_label(checker, path, label));
    let yubihsm = holders.iter().flatten().any(|device| is_yubihsm(device));
    let id = raw.id.map(|id| check_id(checker, path, id, yubihsm));
    if label.is_none() && id.is_none() {
        let remedy = "write the label or the id that the key has in the device, or both";
        checker.problems.missing(&format!("{path}.label"), remedy);
        return None;
    }
    Some(Key {
        name: name?,
        devices: holders?.iter().map(|device| device.name.clone()).collect(),
        algorithm: algorithm?,
        label: label.flatten(),
        id: id.flatten(),
    })
}

/// Where a key is: its devices, and what it is called there.
pub(super) struct Place {
    pub(super) devices: Vec<String>,
    pub(super) label: Option<String>,
    pub(super) id: Option<Vec<u8>>,
}

/// The place of a key that is not a `[[key]]`.
pub(super) fn place(
    checker: &mut Checker,
    path: &str,
    devices: Vec<String>,
    label: Option<String>,
    id: Option<String>,
    known: &[Device],
) -> Option<Place> {
    let known = known.iter().map(|device| (&*device.name, Some(device)));
    let known: HashMap<_, _> = known.collect();
    let holders = key_devices(checker, path, devices, &known);
    let label = label.map(|label| check_label(checker, path, label));
    let yubihsm = holders.iter().flatten().any(|device| is_yubihsm(device));
    let id = id.map(|id| check_id(checker, path, id, yubihsm));
    if label.is_none() && id.is_none() {
        let remedy = "write the label or the id that the key has in the device, or both";
        checker.problems.missing(&format!("{path}.label"), remedy);
        return None;
    }
    Some(Place {
        devices: holders?.iter().map(|device| device.name.clone()).collect(),
        label: label.flatten(),
        id: id.flatten(),
    })
}

fn is_yubihsm(device: &Device) -> bool {
    !matches!(device.backend, Backend::Pkcs11(_))
}

fn key_devices<'a>(
    checker: &mut Checker,
    path: &str,
    names: Vec<String>,
    devices: &HashMap<&str, Option<&'a Device>>,
) -> Option<Vec<&'a Device>> {
    let path = format!("{path}.devices");
    if names.is_empty() {
        checker
            .problems
            .missing(&path, "name at least one device that holds the key");
        return None;
    }
    let mut seen = HashSet::new();
    let mut holders = Vec::with_capacity(names.len());
    for name in &names {
        if !seen.insert(name) {
            checker
                .problems
                .value(&path, name, "is named twice", "name each device once");
        }
        match devices.get(&**name) {
            Some(device) => holders.extend(*device),
            None => {
                let remedy = "name a device by the name of its [[device]]";
                checker
                    .problems
                    .value(&path, name, "is not a device of this file", remedy);
            }
        }
    }
    (holders.len() == names.len()).then_some(holders)
}

fn check_label(checker: &mut Checker, path: &str, label: String) -> Option<String> {
    if (1..=LABEL_BYTES).contains(&label.len()) {
        return Some(label);
    }
    let remedy = format!("write 1 to {LABEL_BYTES} bytes");
    checker
        .problems
        .value(&format!("{path}.label"), label, "is not a label", remedy);
    None
}

fn check_id(checker: &mut Checker, path: &str, text: String, yubihsm: bool) -> Option<Vec<u8>> {
    let id = text
        .strip_prefix("0x")
        .and_then(|digits| hex::decode(digits).ok());
    let fits = |id: &Vec<u8>| match yubihsm {
        true => id.len() == 2,
        false => (1..=ID_BYTES).contains(&id.len()),
    };
    let id = id.filter(fits);
    if id.is_none() {
        let remedy = match yubihsm {
            true => "write the object id as four hexadecimal digits, such as \"0x0001\"",
            false => "write the CKA_ID as pairs of hexadecimal digits, such as \"0x01\"",
        };
        checker
            .problems
            .value(&format!("{path}.id"), text, "is not an id", remedy);
    }
    id
}

fn refuse_duplicates(checker: &mut Checker, keys: &[Key]) {
    let mut names = HashSet::with_capacity(keys.len());
    let mut places = HashMap::with_capacity(keys.len());
    for key in keys {
        if !names.insert(&key.name) {
            let path = format!("key[{}].name", key.name);
            let remedy = "give each key a name of its own";
            checker
                .problems
                .value(&path, &key.name, "is the name of two keys", remedy);
        }
        for device in &key.devices {
            if let Some(other) = places.insert((device, &key.label, &key.id), &key.name) {
                checker.problems.value(
                    &format!("key[{}].devices", key.name),
                    device,
                    format!("holds key \"{other}\" under the same label and id"),
                    "remove one of the two: a key has one name",
                );
            }
        }
    }
}
