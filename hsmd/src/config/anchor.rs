//! The check of `state.anchor`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::check::Checker;
use super::raw;

/// What outside the disk protects the state against a rollback.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Anchor {
    /// Nothing does. If the disk is restored from an image or a backup, hsmd cannot see that it was, and
    /// signs again what it signed after that image was taken: a double sign, which is slashed. Whoever
    /// writes `anchor = "none"` undertakes never to start hsmd on restored state. It has no default, so
    /// that this is always a decision that somebody made.
    None,
    /// `[state.anchor]`: a counter does.
    In(Anchored),
}

/// `[state.anchor]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Anchored {
    /// Where the counter stands.
    pub place: Place,
    /// How often it is advanced.
    pub pace: Pace,
    /// The file that tells a crash from a restored disk, on a tmpfs: `last_entry`; beside the administration socket
    /// if not given.
    pub last_entry: PathBuf,
}

/// Where an anchor's counter stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// `kind = "tpm"`: an NV counter of a TPM 2.0.
    #[cfg(feature = "tpm")]
    Tpm {
        /// How tpm2-tss reaches it: `tcti`, "device:/dev/tpmrm0" if not given.
        tcti: String,
        /// The NV index, of those that belong to the owner: `nv_index`, 0x01804853 if not given.
        nv_index: u32,
    },
    /// `kind = "yubihsm"`: an opaque object in a YubiHSM2, or in its emulator.
    Yubihsm {
        /// The device's name: `device`.
        device: String,
    },
}

impl Place {
    /// The kind's name.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            #[cfg(feature = "tpm")]
            Self::Tpm { .. } => "tpm",
            Self::Yubihsm { .. } => "yubihsm",
        }
    }
}

/// How often an anchor is advanced. Each advance is a write to memory that wears, and opens the next heights of every
/// key and chain at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Heights that an advance opens: `window`, 10 to 1,000,000, 500 if not given. After an end that nothing proves
    /// to be complete, such as a power cut, a key is silent for at most so many heights.
    pub window: i64,
    /// How many of them are left when the next advance is begun: `spare`, a fifth of the window if not given. So long
    /// the anchor may fail to answer before signing stops.
    pub spare: i64,
    /// In the long run at least so long between advances: `interval_s`, 0 to 86,400, 60 s if not given. Ten may follow
    /// each other at once.
    pub interval: Duration,
}

impl Anchor {
    /// Its name in the configuration and in `hsmd status`.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::None => "none",
            Self::In(anchored) => anchored.place.kind(),
        }
    }
}

/// `devices` are the names and backends of the configuration's devices.
pub(super) fn check(
    checker: &mut Checker,
    raw: Option<raw::Anchor>,
    admin_socket: Option<&Path>,
    devices: &[(String, String)],
) -> Option<Anchor> {
    const KEY: &str = "state.anchor";
    let remedy = "write a table [state.anchor] with kind = \"tpm\" or \"yubihsm\"; or write anchor = \"none\", knowing \
                  that nothing then detects state restored from a disk image or backup, after which hsmd would sign \
                  twice";
    match checker.problems.required(KEY, raw, remedy)? {
        raw::Anchor::Word(word) if word == "none" => Some(Anchor::None),
        raw::Anchor::Word(word) => {
            checker.problems.value(KEY, word, "is not known", remedy);
            None
        }
        raw::Anchor::Table(table) => anchored(checker, *table, admin_socket, devices),
    }
}

fn anchored(
    checker: &mut Checker,
    raw: raw::AnchorTable,
    admin_socket: Option<&Path>,
    devices: &[(String, String)],
) -> Option<Anchor> {
    let window = checker.range("state.anchor.window", raw.window, 500, 10, 1_000_000);
    let most = window.unwrap_or(10).saturating_sub(1);
    let spare = checker.range("state.anchor.spare", raw.spare, most / 5 + 1, 1, most);
    let interval = checker.range("state.anchor.interval_s", raw.interval_s, 60, 0, 86_400);
    let beside = admin_socket.map(|socket| socket.with_file_name("last-entry"));
    let last_entry = match raw.last_entry.clone() {
        None => beside,
        given => checker.path("state.anchor.last_entry", given, "name a file below /run"),
    };
    let place = place(checker, &raw, devices);
    Some(Anchor::In(Anchored {
        place: place?,
        pace: Pace {
            window: i64::try_from(window?).ok()?,
            spare: i64::try_from(spare?).ok()?,
            interval: Duration::from_secs(interval?),
        },
        last_entry: last_entry?,
    }))
}

fn place(
    checker: &mut Checker,
    raw: &raw::AnchorTable,
    devices: &[(String, String)],
) -> Option<Place> {
    const KEY: &str = "state.anchor.kind";
    let remedy = "write \"tpm\" or \"yubihsm\"";
    let kind = checker.problems.required(KEY, raw.kind.clone(), remedy)?;
    let kind = checker.choice(KEY, &kind, &[("tpm", "tpm"), ("yubihsm", "yubihsm")])?;
    let others = [
        ("tpm", "tcti", raw.tcti.clone()),
        (
            "tpm",
            "nv_index",
            raw.nv_index.map(|index| index.to_string()),
        ),
        ("yubihsm", "device", raw.device.clone()),
    ];
    for (of, field, value) in others {
        if let Some(value) = value.filter(|_| of != kind) {
            let fault = format!("is a setting of kind = \"{of}\"");
            let key = format!("state.anchor.{field}");
            checker.problems.value(&key, value, fault, "remove it");
        }
    }
    match kind {
        "tpm" => tpm(checker, raw),
        _ => yubihsm(checker, raw, devices),
    }
}

#[cfg(feature = "tpm")]
fn tpm(checker: &mut Checker, raw: &raw::AnchorTable) -> Option<Place> {
    let tcti = raw.tcti.clone();
    let index = checker.range(
        "state.anchor.nv_index",
        raw.nv_index,
        0x0180_4853,
        0x0180_0000,
        0x01bf_ffff,
    );
    Some(Place::Tpm {
        tcti: tcti.unwrap_or_else(|| "device:/dev/tpmrm0".to_owned()),
        nv_index: u32::try_from(index?).ok()?,
    })
}

#[cfg(not(feature = "tpm"))]
fn tpm(checker: &mut Checker, _raw: &raw::AnchorTable) -> Option<Place> {
    let fault = "is not supported by this hsmd, which was built without the feature tpm";
    let remedy = "take a build that has it, or write \"yubihsm\"";
    checker
        .problems
        .value("state.anchor.kind", "tpm", fault, remedy);
    None
}

fn yubihsm(
    checker: &mut Checker,
    raw: &raw::AnchorTable,
    devices: &[(String, String)],
) -> Option<Place> {
    const KEY: &str = "state.anchor.device";
    let remedy = "name a [[device]] whose backend is yubihsm";
    let device = checker.problems.required(KEY, raw.device.clone(), remedy)?;
    let backend = devices.iter().find(|(name, _)| *name == device);
    match backend.map(|(_, backend)| backend.as_str()) {
        Some("yubihsm" | "mock") => Some(Place::Yubihsm { device }),
        Some(_) => {
            let fault = "is a device that keeps no data";
            checker.problems.value(KEY, device, fault, remedy);
            None
        }
        None => {
            checker
                .problems
                .value(KEY, device, "is no [[device]]", remedy);
            None
        }
    }
}
