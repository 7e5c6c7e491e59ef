//! Splitting a secret.

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::cipher::{self, Passphrase, Setting};
use crate::field::{self, Value};
use crate::scheme::Scheme;
use crate::secret::Secret;
use crate::share::{Header, Share};

/// Where the polynomials have the secret.
pub(crate) const SECRET_AT: u8 = 255;

/// Where they have the digest.
pub(crate) const DIGEST_AT: u8 = 254;

/// Bytes of the digest; what follows it in its value is random.
pub(crate) const DIGEST_BYTES: usize = 4;

/// What the standard leaves open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Options {
    /// Whether the encryption of the secret is independent of the identifier. Tools made before 2024 do not read such
    /// shares.
    pub extendable: bool,
    /// The encryption takes 10,000 * 2^e iterations of PBKDF2; 0 to 15. Without a passphrase it only costs time.
    pub iteration_exponent: u8,
}

impl Scheme {
    /// How many random bytes it takes to split a secret of so many bytes by this scheme.
    pub fn randomness(&self, secret_bytes: usize) -> usize {
        let groups = u8::try_from(self.groups().len()).unwrap_or(u8::MAX);
        let levels = self
            .groups()
            .iter()
            .map(|group| (group.threshold, group.members));
        let levels = levels.chain([(self.group_threshold(), groups)]);
        levels.fold(IDENTIFIER_BYTES, |sum, (threshold, _)| {
            sum + level_randomness(threshold, secret_bytes)
        })
    }
}

const IDENTIFIER_BYTES: usize = 2;

/// Splits a secret: the shares of each group, in order.
///
/// `randomness` is as many bytes as [`Scheme::randomness`] says, uniform, and used for nothing else: who knows them
/// and a share knows more than the share.
///
/// # Errors
/// Where there are fewer or more random bytes, or the options are out of their range.
pub fn split(
    secret: &Secret,
    scheme: &Scheme,
    options: Options,
    randomness: &[u8],
) -> Result<Vec<Vec<Share>>, Error> {
    split_with_passphrase(secret, scheme, options, randomness, &Passphrase::empty())
}

/// As [`split`], with a passphrase. See [`Passphrase`] why not to use one.
///
/// # Errors
/// As [`split`].
pub fn split_with_passphrase(
    secret: &Secret,
    scheme: &Scheme,
    options: Options,
    randomness: &[u8],
    passphrase: &Passphrase,
) -> Result<Vec<Vec<Share>>, Error> {
    let wanted = scheme.randomness(secret.byte_len());
    let wrong = Error::Randomness {
        given: randomness.len(),
        wanted,
    };
    if randomness.len() != wanted {
        return Err(wrong);
    }
    if options.iteration_exponent > 15 {
        return Err(Error::IterationExponent(options.iteration_exponent));
    }
    let (identifier, mut randomness) = randomness.split_first_chunk().ok_or(wrong)?;
    let setting = Setting {
        identifier: u16::from_be_bytes(*identifier) & 0x7FFF,
        extendable: options.extendable,
        iteration_exponent: options.iteration_exponent,
    };
    let encrypted = cipher::encrypt(secret.expose(), passphrase, setting);
    let group_count = u8::try_from(scheme.groups().len()).map_err(|_| wrong)?;
    let threshold = scheme.group_threshold();
    let values = split_value(&encrypted, threshold, group_count, &mut randomness).ok_or(wrong)?;
    let mut groups = Vec::with_capacity(values.len());
    for (group_index, (value, group)) in (0..).zip(values.iter().zip(scheme.groups())) {
        let members =
            split_value(value, group.threshold, group.members, &mut randomness).ok_or(wrong)?;
        let shares = (0..).zip(members).map(|(member_index, value)| {
            let header = Header {
                identifier: setting.identifier,
                extendable: setting.extendable,
                iteration_exponent: setting.iteration_exponent,
                group_index,
                group_threshold: threshold,
                group_count,
                member_index,
                member_threshold: group.threshold,
            };
            Share::new(header, value)
        });
        groups.push(shares.collect());
    }
    Ok(groups)
}

/// Splits a value into `count` values, any `threshold` of which give it again. Takes what it needs from the front of
/// the randomness; `None` where that is too little.
fn split_value(
    value: &[u8],
    threshold: u8,
    count: u8,
    randomness: &mut &[u8],
) -> Option<Vec<Value>> {
    if threshold == 1 {
        return Some((0..count).map(|_| Zeroizing::new(value.into())).collect());
    }
    let mut draw = |bytes: usize| {
        let (drawn, rest) = randomness.split_at_checked(bytes)?;
        *randomness = rest;
        Some(drawn)
    };
    let padding = draw(value.len().checked_sub(DIGEST_BYTES)?)?;
    let digest = digest_value(value, padding)?;
    let free = threshold.checked_sub(2)?;
    let mut points: Vec<(u8, &[u8])> = Vec::with_capacity(usize::from(threshold));
    for place in 0..free {
        points.push((place, draw(value.len())?));
    }
    points.push((DIGEST_AT, &digest));
    points.push((SECRET_AT, value));
    (0..count)
        .map(|place| field::interpolate(&points, place))
        .collect()
}

/// The random bytes that [`split_value`] takes.
fn level_randomness(threshold: u8, value_bytes: usize) -> usize {
    match usize::from(threshold).checked_sub(2) {
        None => 0,
        Some(free) => free * value_bytes + value_bytes.saturating_sub(DIGEST_BYTES),
    }
}

/// The digest of a value, keyed with the random bytes that stand behind it.
fn digest_value(value: &[u8], padding: &[u8]) -> Option<Value> {
    let mac = Hmac::<Sha256>::new_from_slice(padding).ok()?;
    let digest = mac.chain_update(value).finalize().into_bytes();
    let mut placed = field::zeroes(value.len());
    for (byte, from) in placed
        .iter_mut()
        .zip(digest.iter().take(DIGEST_BYTES).chain(padding))
    {
        *byte = *from;
    }
    Some(placed)
}

/// Why nothing was split.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Too few or too many random bytes.
    #[error("{given} random bytes were given, and it takes {wanted}")]
    Randomness {
        /// Bytes given.
        given: usize,
        /// Bytes wanted.
        wanted: usize,
    },
    /// Not in the standard's range.
    #[error("the iteration exponent {0} is over 15, the highest there is")]
    IterationExponent(u8),
}

#[cfg(test)]
mod tests {
    use fastrand::Rng;

    use super::*;

    /// Of two values as different as can be, M - 1 parts have the same distribution: each byte of each is uniform
    /// (chi-squared over 256 values), and so is the XOR of two of them. Seeded, so that it always says the same.
    #[test]
    fn one_part_fewer_has_the_same_distribution_whatever_the_value_is() {
        const SPLITS: usize = 16_384;
        // 255 degrees of freedom: a uniform byte is above this about once in ten million tries.
        const LIMIT: f64 = 390.0;
        let mut random = Rng::with_seed(1979);
        for value in [[0x00; 16], [0xFF; 16]] {
            let mut counts = vec![[0_u32; 256]; 3 * 16];
            for _ in 0..SPLITS {
                let drawn: Vec<u8> = (0..level_randomness(3, 16))
                    .map(|_| random.u8(..))
                    .collect();
                let parts = split_value(&value, 3, 5, &mut &*drawn).unwrap();
                for (place, (one, other)) in parts[1].iter().zip(parts[4].iter()).enumerate() {
                    counts[place][usize::from(*one)] += 1;
                    counts[16 + place][usize::from(*other)] += 1;
                    counts[32 + place][usize::from(one ^ other)] += 1;
                }
            }
            let expected = SPLITS as f64 / 256.0;
            for count in counts {
                let squares = count
                    .iter()
                    .map(|count| (f64::from(*count) - expected).powi(2));
                let square = squares.sum::<f64>() / expected;
                assert!(square < LIMIT, "chi-squared {square}");
            }
        }
    }
}
