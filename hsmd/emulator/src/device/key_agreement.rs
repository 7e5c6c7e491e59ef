//! Asymmetric sessions: both sides agree on session keys with one static and one ephemeral P-256 key each.
//!
//! Source: GlobalPlatform GPC_SPE_136 (SCP11a) in the form that PyPI `yubihsm` has in `core.py`: the shared
//! secrets go through the key derivation of ANSI X9.63 with SHA-256.

use getrandom::SysRng;
use p256::ecdh::diffie_hellman;
use p256::elliptic_curve::Generate as _;
use p256::elliptic_curve::sec1::ToSec1Point as _;
use p256::{PublicKey, SecretKey};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::error::ErrorCode;
use super::scp03::{Channel, KEY_LENGTH, SessionKeys, cmac};

/// Length of an uncompressed point in bytes.
pub(crate) const POINT_LENGTH: usize = 65;

/// What the keys are for: usage, type AES and length of 16 bytes, as SCP11 encodes them.
const SHARED_INFORMATION: [u8; 3] = [0x3c, 0x88, 0x10];

/// A channel, and what the host needs to come to the same.
pub(crate) struct Agreement {
    pub(crate) channel: Channel,
    /// The device's ephemeral public key.
    pub(crate) ephemeral: [u8; POINT_LENGTH],
    /// Proves to the host that the device knows its private key.
    pub(crate) receipt: [u8; KEY_LENGTH],
}

impl Agreement {
    /// Agrees with the host that holds `host_key`.
    ///
    /// Fails with [`ErrorCode::InvalidData`] if `host_ephemeral` is no point of the curve.
    pub(crate) fn reach(
        device_key: &SecretKey,
        host_key: &PublicKey,
        host_ephemeral: &[u8; POINT_LENGTH],
    ) -> Result<Self, ErrorCode> {
        let host_point =
            PublicKey::from_sec1_bytes(host_ephemeral).map_err(|_| ErrorCode::InvalidData)?;
        let ephemeral_key = new_key()?;
        let secrets = [
            agree(&ephemeral_key, &host_point),
            agree(device_key, host_key),
        ];
        let point = ephemeral_key.public_key().to_sec1_point(false);
        let ephemeral: [u8; POINT_LENGTH] = point
            .as_bytes()
            .try_into()
            .map_err(|_| ErrorCode::CommandUnexecuted)?;

        let (receipt_key, keys) = derive(&secrets);
        let receipt = cmac(&receipt_key, &[&ephemeral, host_ephemeral]);
        Ok(Self {
            channel: Channel::new(keys, receipt),
            ephemeral,
            receipt,
        })
    }
}

/// A new P-256 key.
pub(crate) fn new_key() -> Result<SecretKey, ErrorCode> {
    SecretKey::try_generate_from_rng(&mut SysRng).map_err(|_| ErrorCode::CommandUnexecuted)
}

/// The horizontal coordinate of the shared point.
pub(crate) fn agree(secret: &SecretKey, public: &PublicKey) -> Zeroizing<[u8; 32]> {
    let shared = diffie_hellman(secret.to_nonzero_scalar(), public.as_affine());
    Zeroizing::new((*shared.raw_secret_bytes()).into())
}

/// The key of the receipt and the session keys, from the ephemeral and the static shared secret.
pub(crate) fn derive(
    secrets: &[Zeroizing<[u8; 32]>; 2],
) -> (Zeroizing<[u8; KEY_LENGTH]>, SessionKeys) {
    let [ephemeral, fixed] = secrets;
    let block = |counter: u32| -> Zeroizing<[u8; 32]> {
        let digest = Sha256::new()
            .chain_update(ephemeral)
            .chain_update(fixed)
            .chain_update(counter.to_be_bytes())
            .chain_update(SHARED_INFORMATION)
            .finalize();
        Zeroizing::new(digest.into())
    };
    let (first, second) = (block(1), block(2));
    let (receipt, encryption) = halves(&first);
    let (mac, answer_mac) = halves(&second);
    let keys = SessionKeys {
        encryption,
        mac,
        answer_mac,
    };
    (Zeroizing::new(receipt), keys)
}

fn halves(block: &[u8; 32]) -> ([u8; KEY_LENGTH], [u8; KEY_LENGTH]) {
    let mut halves = ([0; KEY_LENGTH], [0; KEY_LENGTH]);
    let (first, second) = block.split_at(KEY_LENGTH);
    halves.0.copy_from_slice(first);
    halves.1.copy_from_slice(second);
    halves
}
