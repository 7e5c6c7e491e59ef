//! `hsmd key init|advance|device|list|show`.

mod recover;

use clap::{Args, Subcommand, ValueEnum};
use hsm_device::{Algorithm, PublicKey};
use hsm_proto::v1 as wire;
use serde_json::json;

use super::ledger::Use;
use super::{Configured, Error, Printed, admin, block_on, out, show};
use crate::config::Config;
use crate::ledger::Ledger;
use crate::{daemon, devices, hardening, key};

#[derive(Subcommand)]
pub(super) enum Command {
    /// Pin a key's public key and make it known for one chain. Works with and without a running daemon.
    Init(Init),
    /// Raise the height at or below which a key signs nothing on a chain, after a gap that the policy's
    /// max_height_jump does not allow. A mark is never lowered.
    Advance(Advance),
    /// The devices of a key.
    #[command(subcommand)]
    Device(Device),
    /// The keys of the configuration.
    List(Printed),
    /// One key.
    Show(Show),
}

#[derive(Args)]
pub(super) struct Init {
    /// The key's name in the configuration.
    name: String,
    /// The chain id it signs for.
    #[arg(long, value_name = "ID")]
    chain: String,
    /// Nothing at or below this height is signed. 0 for a chain that has not started; for one that has,
    /// a height that the key's earlier signer surely did not pass.
    #[arg(
        long,
        value_name = "H",
        required_unless_present = "recovered",
        conflicts_with = "recovered"
    )]
    height: Option<i64>,
    #[command(flatten)]
    recovered: recover::Recovered,
    /// Share the key's mark on this chain with other signers of the key, through etcd: `create` on the first of
    /// them, `join` on every other.
    #[arg(long, value_enum)]
    ledger: Option<Use>,
    #[command(flatten)]
    configured: Configured,
    /// Run as root, where no daemon runs. Files that are made then belong to root.
    #[arg(long)]
    allow_root: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
pub(super) struct Advance {
    /// The key's name in the configuration.
    name: String,
    /// The chain id.
    #[arg(long, value_name = "ID")]
    chain: String,
    /// Nothing at or below this height is signed from then on.
    #[arg(long, value_name = "H")]
    height: i64,
    #[command(flatten)]
    configured: Configured,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Subcommand)]
pub(super) enum Device {
    /// Pin a further device that the configuration names for a key, or one that replaced another under the same name.
    /// It has to show the key's public key; the marks stay as they are.
    Add(AddDevice),
}

#[derive(Args)]
pub(super) struct AddDevice {
    /// The key's name in the configuration.
    name: String,
    /// The device's name in the configuration.
    #[arg(long, value_name = "NAME")]
    device: String,
    /// The serial number of the device that is meant.
    #[arg(long, value_name = "NUMBER")]
    serial: String,
    #[command(flatten)]
    configured: Configured,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
pub(super) struct Show {
    /// The key's name in the configuration.
    name: String,
    /// What to print.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// Print JSON: the same as --format json.
    #[arg(long, conflicts_with = "format")]
    json: bool,
    #[command(flatten)]
    configured: Configured,
}

#[derive(Clone, Copy, ValueEnum)]
enum Format {
    /// For people.
    Text,
    /// All that is known of it.
    Json,
    /// The pubkey of a create-validator transaction of the Cosmos SDK.
    Cosmos,
    /// The pub_key of a validator in CometBFT's genesis file.
    Cometbft,
    /// SubjectPublicKeyInfo, PEM.
    Pem,
}

pub(super) fn run(command: &Command) -> Result<(), Error> {
    match command {
        Command::Init(init) => {
            let state = block_on(init_key(init))?;
            if init.json {
                say!("{:#}", show::key_json(&state));
                return Ok(());
            }
            let public_key = hex::encode(&state.public_key);
            say!("key {} is known; public key {public_key}", state.key);
            for chain in &state.chains {
                say!("  {}", show::chain_line(chain));
            }
            Ok(())
        }
        Command::Advance(advance) => advance_key(advance),
        Command::Device(Device::Add(add)) => add_device(add),
        Command::List(printed) => list(printed),
        Command::Show(show) => show_key(show),
    }
}

/// Through the running daemon, or else on the journal itself: its lock keeps the two apart.
async fn init_key(init: &Init) -> Result<wire::KeyState, Error> {
    let Some(height) = init.height else {
        let (name, chain) = (&init.name, &init.chain);
        return recover::run(
            &init.recovered,
            name,
            chain,
            &init.configured,
            init.allow_root,
        )
        .await;
    };
    init.recovered.refuse_files()?;
    let config = init.configured.load_to_look()?;
    let request = wire::InitKeyRequest {
        key: init.name.clone(),
        chain_id: init.chain.clone(),
        height,
        ledger: init.ledger.map_or(0, |how| how.to_wire().into()),
    };
    if let Some(mut client) = admin::find(&config.admin_socket).await? {
        let answer = client.init_key(request).await;
        let answer = answer
            .map_err(|status| admin::sentence(&status))?
            .into_inner();
        return Ok(answer.key.unwrap_or_default());
    }
    hardening::refuse_root(init.allow_root)?;
    hardening::harden()?;
    init_without_daemon(&init.configured.load()?, &request).await
}

fn advance_key(advance: &Advance) -> Result<(), Error> {
    let state = block_on(async {
        let config = advance.configured.load_to_look()?;
        let mut client = admin::connect(&config.admin_socket).await?;
        let request = wire::AdvanceKeyRequest {
            key: advance.name.clone(),
            chain_id: advance.chain.clone(),
            height: advance.height,
        };
        let answer = client.advance_key(request).await;
        Ok(answer
            .map_err(|status| admin::sentence(&status))?
            .into_inner())
    })?;
    let key = state.key.unwrap_or_default();
    if advance.json {
        say!("{:#}", show::key_json(&key));
        return Ok(());
    }
    for chain in &key.chains {
        say!("{}", show::chain_line(chain));
    }
    Ok(())
}

fn add_device(add: &AddDevice) -> Result<(), Error> {
    let answer = block_on(async {
        let config = add.configured.load_to_look()?;
        let mut client = admin::connect(&config.admin_socket).await?;
        let request = wire::AddDeviceRequest {
            key: add.name.clone(),
            device: add.device.clone(),
            serial: add.serial.clone(),
        };
        let answer = client.add_device(request).await;
        Ok(answer
            .map_err(|status| admin::sentence(&status))?
            .into_inner())
    })?;
    let key = answer.key.unwrap_or_default();
    if add.json {
        say!("{:#}", show::key_json(&key));
        return Ok(());
    }
    let (device, serial) = (&add.device, &add.serial);
    say!(
        "device {device} with serial number {serial} is pinned for key {}",
        key.key
    );
    Ok(())
}

/// Makes a key known while no daemon runs.
pub(super) async fn init_without_daemon(
    config: &Config,
    request: &wire::InitKeyRequest,
) -> Result<wire::KeyState, Error> {
    let guard = daemon::open_guard(config)?;
    let keyring = devices::keyring(config, devices::start(config)?)?;
    devices::pin(keyring.devices(), &guard)?;
    let ledger = Ledger::new(config.ledger.as_ref(), &guard, config.deadline)?;
    let made = key::init(&keyring, &guard, &ledger, request).await;
    let key = keyring.get(&request.key);
    let state = key.map(|key| key::key_state(key, &guard)).transpose();
    for device in keyring.devices() {
        device.worker.stop();
    }
    guard.close()?;
    made?;
    Ok(state?.unwrap_or_default())
}

async fn fetch(configured: &Configured) -> Result<Vec<wire::KeyState>, Error> {
    let config = configured.load_to_look()?;
    let mut client = admin::connect(&config.admin_socket).await?;
    let answer = client.list_key_states(wire::ListKeyStatesRequest {}).await;
    Ok(answer
        .map_err(|status| admin::sentence(&status))?
        .into_inner()
        .keys)
}

fn list(printed: &Printed) -> Result<(), Error> {
    let keys = block_on(fetch(&printed.configured))?;
    if printed.json {
        let keys: Vec<_> = keys.iter().map(show::key_json).collect();
        say!("{:#}", json!({ "keys": keys }));
        return Ok(());
    }
    for key in keys {
        let public_key = match key.public_key.as_slice() {
            [] => "not made known".to_owned(),
            bytes => hex::encode(bytes),
        };
        let algorithm = show::algorithm(key.algorithm);
        say!(
            "{}  {algorithm}  {public_key}  in {}",
            key.key,
            key.devices.join(", ")
        );
    }
    Ok(())
}

fn show_key(show: &Show) -> Result<(), Error> {
    let keys = block_on(fetch(&show.configured))?;
    let key = keys
        .iter()
        .find(|key| key.key == show.name)
        .ok_or_else(|| {
            format!(
                "the configuration has no [[key]] named {:?}: see `hsmd key list`",
                show.name
            )
        })?;
    if show.json || matches!(show.format, Format::Json) {
        say!("{:#}", show::key_json(key));
        return Ok(());
    }
    if key.public_key.is_empty() {
        let name = &key.key;
        let hint = format!("make it known with `hsmd key init {name} --chain ID --height H`");
        return Err(format!("key {name} has no pinned public key: {hint}").into());
    }
    match show.format {
        Format::Json => {}
        Format::Cosmos => {
            say!("{}", show::cosmos(key));
        }
        Format::Cometbft => {
            say!("{:#}", show::cometbft(key));
        }
        Format::Pem => out::whole(format_args!("{}", public_key(key)?.spki_pem()?))?,
        Format::Text => {
            say!("key         {}", key.key);
            say!("algorithm   {}", show::algorithm(key.algorithm));
            say!("public key  {}", hex::encode(&key.public_key));
            say!("devices     {}", key.devices.join(", "));
            for chain in &key.chains {
                say!("chain       {}", show::chain_line(chain));
            }
        }
    }
    Ok(())
}

fn public_key(key: &wire::KeyState) -> Result<PublicKey, Error> {
    let algorithm = match key.algorithm() {
        wire::KeyAlgorithm::Secp256k1 => Algorithm::Secp256k1,
        wire::KeyAlgorithm::P256 => Algorithm::P256,
        _ => Algorithm::Ed25519,
    };
    Ok(PublicKey::from_parts(algorithm, &key.public_key)?)
}
