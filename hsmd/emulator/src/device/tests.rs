//! The device's rules, through frames; no HTTP.

mod arbitrary;
mod asymmetric_session;
mod attestation;
mod authority;
mod firmware;
mod keys;
mod objects;
mod protocol;
mod wrap;
mod wrap_rsa;

use std::sync::LazyLock;
use std::time::Duration;

use super::scp03::host::{Host, plain, static_keys};
use super::*;

const START: Duration = Duration::ZERO;
const PASSWORD: &[u8] = b"test";
const ED25519: u8 = 46;
const SIGN_EDDSA_CAPABILITY: u64 = 1 << 8;

/// A fresh device. Made once: key derivation and the certificate take time.
fn device() -> Device {
    static FRESH: LazyLock<String> = LazyLock::new(|| json(&manufactured((2, 4, 1))));
    Device::restore(serde_json::from_str(&FRESH).unwrap(), (2, 4, 1), START).unwrap()
}

fn manufactured(firmware: Firmware) -> Device {
    Device::manufacture(*EMULATOR_SERIALS.start(), firmware, START).unwrap()
}

fn admin(device: &mut Device) -> Host {
    Host::open(device, START, DEFAULT_KEY_ID, DEFAULT_PASSWORD).unwrap()
}

/// Identifier, label, domains, capabilities and algorithm, as every command that makes an object has them.
fn properties(id: u16, domains: u16, capabilities: u64, algorithm: u8) -> Vec<u8> {
    let (id, domains) = (id.to_be_bytes(), domains.to_be_bytes());
    [
        &id[..],
        &[b'x'; 40],
        &domains,
        &capabilities.to_be_bytes(),
        &[algorithm],
    ]
    .concat()
}

/// A further authentication key, and a session opened with it.
fn session_with(device: &mut Device, domains: u16, capabilities: u64, delegated: u64) -> Host {
    let mut data = properties(100, domains, capabilities, 38);
    data.extend(delegated.to_be_bytes());
    data.extend(static_keys(PASSWORD));
    admin(device)
        .send(device, START, 0x44, &data)
        .unwrap()
        .unwrap();
    Host::open(device, START, 100, PASSWORD).unwrap()
}

fn code(error: ErrorCode) -> Result<Vec<u8>, u8> {
    Err(error.byte())
}

fn json(device: &Device) -> String {
    serde_json::to_string(&device.state()).unwrap()
}
