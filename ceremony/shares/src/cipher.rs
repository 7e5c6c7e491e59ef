//! The standard's encryption of the secret under a passphrase: four rounds of a Feistel network over
//! PBKDF2-HMAC-SHA256. With the empty passphrase, the only one of a ceremony, it hides nothing; it is there because
//! other implementations expect it.

use pbkdf2::pbkdf2_hmac;
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::field::{Value, zeroes};
use crate::share::Header;

/// PBKDF2 iterations of one round, for the iteration exponent 0.
const ITERATIONS: u32 = 2_500;

/// A passphrase of printable ASCII.
///
/// A ceremony never uses one: with a wrong passphrase shares combine to another secret, without any error. It is here
/// for the standard's published vectors, and for secrets that were split elsewhere.
pub struct Passphrase(Zeroizing<Box<[u8]>>);

impl Passphrase {
    /// Takes a passphrase; `None` where a character is not printable ASCII, as the standard wants it.
    pub fn new(passphrase: &str) -> Option<Self> {
        let printable = passphrase.bytes().all(|byte| (32..127).contains(&byte));
        printable.then(|| Self(Zeroizing::new(passphrase.as_bytes().into())))
    }

    pub(crate) fn empty() -> Self {
        Self(zeroes(0))
    }
}

/// Of a share's header, what the encryption depends on.
#[derive(Clone, Copy)]
pub(crate) struct Setting {
    pub(crate) identifier: u16,
    pub(crate) extendable: bool,
    pub(crate) iteration_exponent: u8,
}

impl From<&Header> for Setting {
    fn from(header: &Header) -> Self {
        Self {
            identifier: header.identifier,
            extendable: header.extendable,
            iteration_exponent: header.iteration_exponent,
        }
    }
}

/// Encrypts a secret, of an even number of bytes.
pub(crate) fn encrypt(secret: &[u8], passphrase: &Passphrase, setting: Setting) -> Value {
    feistel(secret, passphrase, setting, [0, 1, 2, 3])
}

/// Undoes [`encrypt`].
pub(crate) fn decrypt(encrypted: &[u8], passphrase: &Passphrase, setting: Setting) -> Value {
    feistel(encrypted, passphrase, setting, [3, 2, 1, 0])
}

fn feistel(input: &[u8], passphrase: &Passphrase, setting: Setting, rounds: [u8; 4]) -> Value {
    let (left, right) = input.split_at(input.len() / 2);
    let mut left: Value = Zeroizing::new(left.into());
    let mut right: Value = Zeroizing::new(right.into());
    for round in rounds {
        let mut mixed = round_function(round, &right, passphrase, setting);
        for (byte, with) in mixed.iter_mut().zip(left.iter()) {
            *byte ^= with;
        }
        left = std::mem::replace(&mut right, mixed);
    }
    let mut output = zeroes(input.len());
    for (byte, from) in output.iter_mut().zip(right.iter().chain(left.iter())) {
        *byte = *from;
    }
    output
}

fn round_function(round: u8, half: &[u8], passphrase: &Passphrase, setting: Setting) -> Value {
    let mut password = zeroes(1 + passphrase.0.len());
    for (byte, from) in password
        .iter_mut()
        .zip([round].iter().chain(passphrase.0.iter()))
    {
        *byte = *from;
    }
    let [high, low] = setting.identifier.to_be_bytes();
    let prefix: &[u8] = &[b's', b'h', b'a', b'm', b'i', b'r', high, low];
    let prefix = if setting.extendable { &[] } else { prefix };
    let mut salt = zeroes(prefix.len() + half.len());
    for (byte, from) in salt.iter_mut().zip(prefix.iter().chain(half)) {
        *byte = *from;
    }
    let mut output = zeroes(half.len());
    let iterations = ITERATIONS << setting.iteration_exponent;
    pbkdf2_hmac::<Sha256>(&password, &salt, iterations, &mut output);
    output
}
