//! Making keys known, and showing what is known of them.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use hsm_device::PublicKey;
use hsm_policy::cometbft::ChainId;
use hsm_policy::conflict::Mark;
use hsm_proto::v1 as wire;
use tokio::time::Instant;

use crate::devices;
use crate::guard::entry::{algorithm_to_wire, position_to_wire};
use crate::guard::{self, ChainMark, Guard, State};
use crate::keyring::{self, Key, Keyring};
use crate::ledger::{self, Ledger};

/// How long a device may take to show a public key.
const DEVICE_PATIENCE: Duration = Duration::from_secs(15);

/// Why a key was not made known.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration has no such key.
    #[error("the configuration has no [[key]] named {name:?}: it has {known}")]
    UnknownKey {
        /// The name asked for.
        name: String,
        /// The names it has.
        known: String,
    },
    /// The chain id is malformed.
    #[error(transparent)]
    InvalidChain(hsm_policy::cometbft::Error),
    /// The height is below 0.
    #[error("--height {0}: the height at or below which nothing is signed is at least 0")]
    NegativeHeight(i64),
    /// The device does not show the key.
    #[error(transparent)]
    Device(#[from] keyring::Error),
    /// The configuration names no such device for the key.
    #[error("the configuration names no device {device:?} for key {key}: it names {known}")]
    UnknownDevice {
        /// The key's name.
        key: String,
        /// The device asked for.
        device: String,
        /// The devices that it names.
        known: String,
    },
    /// Another device than the one that is meant.
    #[error(
        "device {device} shows serial number {shown:?}, and {asked:?} is meant: plug that one in"
    )]
    OtherSerial {
        /// The device's name.
        device: String,
        /// What it shows; empty where it was not reached.
        shown: String,
        /// What was asked for.
        asked: String,
    },
    /// The device holds another key.
    #[error(
        "device {device} shows public key {shown} for key {key}, and {pinned} is pinned: restore the right key into it"
    )]
    OtherKey {
        /// The key's name.
        key: String,
        /// The device's name.
        device: String,
        /// What is pinned.
        pinned: PublicKey,
        /// What the device shows.
        shown: PublicKey,
    },
    /// The guard or the journal refuses.
    #[error(transparent)]
    Guard(#[from] guard::Error),
    /// The ledger refuses.
    #[error(transparent)]
    Ledger(#[from] ledger::Error),
}

/// Reads the key's public key from every device that is to hold it, pins it and the devices, and makes the key known for
/// one chain. Durable on return.
///
/// # Errors
///
/// See [`Error`]; nothing is changed then, save that after [`guard::Error::Journal`] the key may be known.
pub async fn init(
    keyring: &Keyring,
    guard: &Guard,
    ledger: &Ledger,
    request: &wire::InitKeyRequest,
) -> Result<(), Error> {
    let key = named(keyring, &request.key).map_err(|error| *error)?;
    let chain = ChainId::new(&request.chain_id).map_err(Error::InvalidChain)?;
    if request.height < 0 {
        return Err(Error::NegativeHeight(request.height));
    }
    let public_key = key
        .read_public_key(Instant::now() + DEVICE_PATIENCE)
        .await?;
    let mut row = None;
    let place = (public_key, chain);
    if request.ledger() != wire::LedgerUse::None {
        guard.refuse_known(key.name(), &place.0, &place.1)?;
        let mark = Mark {
            initial_height: request.height,
            last: None,
        };
        // Nothing is signed with it before it is pinned, so that no signer has to be waited for.
        let entered = ledger.enter(&place, request.ledger(), &mark, [].into());
        row = Some(entered.await?.1);
    }
    guard
        .pin_shared(
            key.name(),
            (&place.0, &place.1),
            request.height,
            key.identities(),
            row,
            SystemTime::now(),
        )
        .await?;
    devices::pin(key.devices(), guard)?;
    Ok(())
}

/// The key of this name in the configuration.
///
/// # Errors
///
/// [`Error::UnknownKey`].
pub fn named<'a>(keyring: &'a Keyring, name: &str) -> Result<&'a Key, Box<Error>> {
    keyring.get(name).ok_or_else(|| {
        Box::new(Error::UnknownKey {
            name: name.to_owned(),
            known: some_names(keyring),
        })
    })
}

/// Raises the height at or below which the key signs nothing on a chain. Durable on return.
///
/// # Errors
///
/// See [`Error`].
pub async fn advance(
    guard: &Guard,
    ledger: &Ledger,
    request: &wire::AdvanceKeyRequest,
) -> Result<(), Error> {
    let chain = ChainId::new(&request.chain_id).map_err(Error::InvalidChain)?;
    let (name, height) = (&request.key, request.height);
    match guard.advance(name, &chain, height, SystemTime::now()).await {
        Err(guard::Error::LedgerFirst { .. }) => {
            let place = (pinned(guard, name, &chain)?, chain);
            Ok(ledger.advance(guard, name, &place, height).await?)
        }
        advanced => Ok(advanced?),
    }
}

/// Has a known key share its mark on a chain through a ledger. Durable on return.
///
/// # Errors
///
/// See [`Error`].
pub async fn bind(
    guard: &Guard,
    ledger: &Ledger,
    request: &wire::BindLedgerRequest,
) -> Result<(), Error> {
    let chain = ChainId::new(&request.chain_id).map_err(Error::InvalidChain)?;
    let place = (pinned(guard, &request.key, &chain)?, chain);
    Ok(ledger.bind(guard, &place, request.r#use()).await?)
}

fn pinned(guard: &Guard, name: &str, chain: &ChainId) -> Result<PublicKey, guard::Error> {
    let not_known = || guard::Error::NotInitialised {
        key: name.to_owned(),
        chain: chain.to_string(),
    };
    guard.pinned(name)?.ok_or_else(not_known)
}

/// Pins a further device of a key, or another one under a name that is known: it shows the pinned public key, and has
/// the serial number that was asked for. Marks stay as they are. Durable on return.
///
/// # Errors
///
/// See [`Error`]; nothing is changed then.
pub async fn add_device(
    keyring: &Keyring,
    guard: &Guard,
    request: &wire::AddDeviceRequest,
) -> Result<(), Error> {
    let key = keyring.get(&request.key).ok_or_else(|| Error::UnknownKey {
        name: request.key.clone(),
        known: some_names(keyring),
    })?;
    let device = key
        .devices()
        .iter()
        .find(|device| *device.name == *request.device);
    let device = device.ok_or_else(|| Error::UnknownDevice {
        key: request.key.clone(),
        device: request.device.clone(),
        known: key.device_names().join(", "),
    })?;
    let pinned = guard.pinned(key.name())?.ok_or_else(|| {
        let (key, chain) = (key.name().to_owned(), "ID".to_owned());
        guard::Error::NotInitialised { key, chain }
    })?;
    let before = device.worker.pinned();
    let shown = device.worker.shown();
    let Some(shown) = shown.filter(|shown| shown.serial == request.serial) else {
        return Err(Error::OtherSerial {
            device: request.device.clone(),
            shown: device
                .worker
                .shown()
                .map_or_else(String::new, |shown| shown.serial),
            asked: request.serial.clone(),
        });
    };
    // The worker talks to no other device meanwhile.
    device.worker.pin(shown.clone());
    let added = async {
        let found = key
            .public_key_in(device, Instant::now() + DEVICE_PATIENCE)
            .await?;
        if found != pinned {
            return Err(Error::OtherKey {
                key: key.name().to_owned(),
                device: request.device.clone(),
                pinned,
                shown: found,
            });
        }
        let now = SystemTime::now();
        let added = guard.add_device(key.name(), &pinned, &device.name, &shown, now);
        Ok(added.await?)
    };
    let added = added.await;
    if let (Err(_), Some(before)) = (&added, before) {
        device.worker.pin(before);
    }
    added
}

/// The states of all keys of the configuration, by name.
///
/// # Errors
///
/// [`guard::Error::Internal`] after a fault of ours.
pub fn all_states(keyring: &Keyring, guard: &Guard) -> Result<Vec<wire::KeyState>, guard::Error> {
    let mut keys: Vec<&Key> = keyring.iter().collect();
    keys.sort_by_key(|key| key.name());
    // Signing waits while the guard is looked at, so nothing is made ready for the wire meanwhile.
    let known: Vec<_> = guard.inspect(|state| {
        let known = keys.iter().map(|key| Known::of(key, state));
        known.collect()
    })?;
    let states = keys.into_iter().zip(known);
    Ok(states.map(|(key, known)| known.state_of(key)).collect())
}

/// What the configuration and the journal say of one key.
///
/// # Errors
///
/// [`guard::Error::Internal`] after a fault of ours.
pub fn key_state(key: &Key, guard: &Guard) -> Result<wire::KeyState, guard::Error> {
    let known = guard.inspect(|state| Known::of(key, state))?;
    Ok(known.state_of(key))
}

/// A copy of what the guard knows of a key.
struct Known {
    public_key: Option<PublicKey>,
    chains: BTreeMap<ChainId, Box<ChainMark>>,
}

impl Known {
    fn of(key: &Key, state: &State) -> Self {
        let public_key = state.pinned(key.name());
        let known = public_key.as_ref().and_then(|pinned| state.key(pinned));
        Self {
            chains: known.map_or_else(BTreeMap::new, |known| known.chains.clone()),
            public_key,
        }
    }

    fn state_of(&self, key: &Key) -> wire::KeyState {
        let chains = self.chains.iter();
        wire::KeyState {
            key: key.name().to_owned(),
            devices: key.device_names(),
            algorithm: algorithm_to_wire(key.locator().algorithm).into(),
            public_key: self
                .public_key
                .map_or_else(Vec::new, |public_key| public_key.as_bytes().to_vec()),
            chains: chains
                .map(|(chain, mark)| chain_state(chain, mark))
                .collect(),
        }
    }
}

/// A mark for the wire.
#[must_use]
pub fn chain_state(chain: &ChainId, known: &ChainMark) -> wire::ChainState {
    let last = known.mark.last.as_ref();
    wire::ChainState {
        chain_id: chain.to_string(),
        initial_height: known.mark.initial_height,
        last: last.map(|last| position_to_wire(last.position)),
        sign_bytes: last.map_or_else(Vec::new, |last| last.sign_bytes.clone()),
        reserved: known.made.as_ref().map(|made| made.time),
        ledger_id: known
            .ledger
            .as_ref()
            .map_or_else(String::new, |binding| binding.ledger_id.to_string()),
        ceiling: known.bounds.in_force(),
        floor: known.bounds.floor,
    }
}

fn some_names(keyring: &Keyring) -> String {
    let mut names: Vec<&str> = keyring.iter().map(Key::name).collect();
    names.sort_unstable();
    let more = names.len().saturating_sub(10);
    names.truncate(10);
    let listed = names.join(", ");
    match (listed.is_empty(), more) {
        (true, _) => "none".to_owned(),
        (false, 0) => listed,
        (false, more) => format!("{listed} and {more} more"),
    }
}
