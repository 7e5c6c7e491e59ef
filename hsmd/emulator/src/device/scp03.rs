//! Secure channel: AES-128 session keys, chained AES-CMAC, AES-CBC with a counter.
//!
//! Source: GlobalPlatform GPC_SPE_014 (SCP03) in the form that the vendor's user guide gives it under
//! "Session"; message authentication codes and cryptograms are cut to 8 bytes.

use aes::Aes128;
use cbc::cipher::block_padding::Iso7816;
use cbc::cipher::{BlockCipherEncrypt, BlockModeDecrypt, BlockModeEncrypt, KeyInit, KeyIvInit};
use cmac::{Cmac, Mac};
use zeroize::{Zeroize, ZeroizeOnDrop};

use super::frame::header;

/// Length of a key, of a block and of a chaining value, in bytes.
pub(crate) const KEY_LENGTH: usize = 16;
/// Length of a challenge in bytes.
pub(crate) const CHALLENGE_LENGTH: usize = 8;
/// Length of a truncated message authentication code and of a cryptogram, in bytes.
pub(crate) const MAC_LENGTH: usize = 8;

const CARD_CRYPTOGRAM: u8 = 0x00;
const HOST_CRYPTOGRAM: u8 = 0x01;
const ENCRYPTION_KEY: u8 = 0x04;
const MAC_KEY: u8 = 0x06;
const ANSWER_MAC_KEY: u8 = 0x07;

/// The long-lived keys of an authentication key object.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub(crate) struct StaticKeys {
    /// K-ENC.
    pub(crate) encryption: [u8; KEY_LENGTH],
    /// K-MAC.
    pub(crate) mac: [u8; KEY_LENGTH],
}

/// The short-lived keys of one session.
#[derive(Zeroize, ZeroizeOnDrop)]
pub(crate) struct SessionKeys {
    /// S-ENC.
    pub(crate) encryption: [u8; KEY_LENGTH],
    /// S-MAC, for commands.
    pub(crate) mac: [u8; KEY_LENGTH],
    /// S-RMAC, for answers.
    pub(crate) answer_mac: [u8; KEY_LENGTH],
}

/// What either side shows to prove that it knows the static keys.
pub(crate) struct Cryptograms {
    pub(crate) card: [u8; MAC_LENGTH],
    pub(crate) host: [u8; MAC_LENGTH],
}

/// The device's end of one secure channel.
#[derive(Zeroize, ZeroizeOnDrop)]
pub(crate) struct Channel {
    keys: SessionKeys,
    chain: [u8; KEY_LENGTH],
    counter: u128,
}

impl Channel {
    /// A channel with keys on which both sides agree; `chain` is the first chaining value.
    pub(crate) fn new(keys: SessionKeys, chain: [u8; KEY_LENGTH]) -> Self {
        Self {
            keys,
            chain,
            counter: 1,
        }
    }

    /// Derives the session keys from the static keys and both challenges.
    pub(crate) fn derive(
        keys: &StaticKeys,
        host_challenge: [u8; CHALLENGE_LENGTH],
        card_challenge: [u8; CHALLENGE_LENGTH],
    ) -> (Self, Cryptograms) {
        let mut context = [0; 2 * CHALLENGE_LENGTH];
        for (to, from) in context
            .iter_mut()
            .zip(host_challenge.iter().chain(&card_challenge))
        {
            *to = *from;
        }
        let keys = SessionKeys {
            encryption: derive(&keys.encryption, ENCRYPTION_KEY, &context),
            mac: derive(&keys.mac, MAC_KEY, &context),
            answer_mac: derive(&keys.mac, ANSWER_MAC_KEY, &context),
        };
        let cryptograms = Cryptograms {
            card: derive(&keys.mac, CARD_CRYPTOGRAM, &context),
            host: derive(&keys.mac, HOST_CRYPTOGRAM, &context),
        };
        (Self::new(keys, [0; KEY_LENGTH]), cryptograms)
    }

    /// Checks the code of a command and, if it is right, moves the chain on.
    pub(crate) fn verify(&mut self, command: u8, session: u8, body: &[u8], mac: &[u8]) -> bool {
        let length = 1 + body.len() + MAC_LENGTH;
        let full = cmac(
            &self.keys.mac,
            &[&self.chain, &header(command, length), &[session], body],
        );
        let matches = full
            .first_chunk::<MAC_LENGTH>()
            .is_some_and(|expected| expected == mac);
        if matches {
            self.chain = full;
        }
        matches
    }

    /// Decrypts the body of a verified command. `None` if it is not whole blocks or not padded.
    pub(crate) fn decrypt(&self, ciphertext: &[u8]) -> Option<Vec<u8>> {
        let mut buffer = ciphertext.to_vec();
        let length =
            cbc::Decryptor::<Aes128>::new(&self.keys.encryption.into(), &self.vector().into())
                .decrypt_padded::<Iso7816>(&mut buffer)
                .ok()?
                .len();
        buffer.truncate(length);
        Some(buffer)
    }

    /// Encrypts and authenticates an answer; the result is the data of a frame with `command`.
    pub(crate) fn seal(&mut self, command: u8, session: u8, plaintext: &[u8]) -> Vec<u8> {
        let mut body = plaintext.to_vec();
        body.resize(padded_length(plaintext.len()), 0);
        // The buffer has room for the padding, which is the only thing that can fail here.
        let _ = cbc::Encryptor::<Aes128>::new(&self.keys.encryption.into(), &self.vector().into())
            .encrypt_padded::<Iso7816>(&mut body, plaintext.len());
        self.counter = self.counter.wrapping_add(1);

        let length = 1 + body.len() + MAC_LENGTH;
        let full = cmac(
            &self.keys.answer_mac,
            &[&self.chain, &header(command, length), &[session], &body],
        );
        [
            &[session][..],
            &body,
            full.get(..MAC_LENGTH).unwrap_or_default(),
        ]
        .concat()
    }

    /// Initial vector: the encrypted message counter.
    fn vector(&self) -> [u8; KEY_LENGTH] {
        let mut block = self.counter.to_be_bytes().into();
        Aes128::new(&self.keys.encryption.into()).encrypt_block(&mut block);
        block.into()
    }
}

/// Length of `length` bytes once padded to whole blocks; at least one byte of padding is added.
pub(crate) fn padded_length(length: usize) -> usize {
    (length / KEY_LENGTH + 1) * KEY_LENGTH
}

/// NIST SP 800-108 in counter mode with CMAC, one block, as SCP03 section 4.1.5 fixes its input.
fn derive<const N: usize>(
    key: &[u8; KEY_LENGTH],
    constant: u8,
    context: &[u8; 2 * CHALLENGE_LENGTH],
) -> [u8; N] {
    let bits = u16::try_from(N * 8).unwrap_or(u16::MAX).to_be_bytes();
    let full = cmac(key, &[&[0; 11], &[constant, 0], &bits, &[1], context]);
    full.first_chunk::<N>().copied().unwrap_or([0; N])
}

/// AES-CMAC (NIST SP 800-38B) over all parts.
pub(crate) fn cmac(key: &[u8; KEY_LENGTH], parts: &[&[u8]]) -> [u8; KEY_LENGTH] {
    let mut mac = Cmac::<Aes128>::new(&(*key).into());
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
pub(crate) mod host;
