//! RS1024: the checksum of a share's words, a Reed-Solomon code over GF(1024) that notices any three wrong words.

/// Words of the checksum.
pub(crate) const WORDS: usize = 3;

const GENERATOR: [u32; 10] = [
    0x00E0_E040,
    0x01C1_C080,
    0x0383_8100,
    0x0707_0200,
    0x0E0E_0009,
    0x1C0C_2412,
    0x3808_6C24,
    0x3090_FC48,
    0x21B1_F890,
    0x03F3_F120,
];

/// Whether the checksum at the end of these words is right.
pub(crate) fn holds(words: &[u16], extendable: bool) -> bool {
    remainder(words.iter().copied(), extendable) == 1
}

/// The checksum of these words.
pub(crate) fn of(words: &[u16], extendable: bool) -> [u16; WORDS] {
    let padded = words.iter().copied().chain([0; WORDS]);
    let checksum = remainder(padded, extendable) ^ 1;
    [20, 10, 0].map(|shift| u16::try_from(checksum >> shift & 0x3FF).unwrap_or_default())
}

/// The remainder of a polynomial with these coefficients, behind those of the standard's customization string. No
/// branch and no place in memory depends on a word.
fn remainder(words: impl Iterator<Item = u16>, extendable: bool) -> u32 {
    let customization: &[u8] = if extendable {
        b"shamir_extendable"
    } else {
        b"shamir"
    };
    let customization = customization.iter().map(|letter| u16::from(*letter));
    customization.chain(words).fold(1, |sum, word| {
        let high = sum >> 20;
        let low = (sum & 0xF_FFFF) << 10 ^ u32::from(word);
        GENERATOR.iter().enumerate().fold(low, |sum, (bit, part)| {
            sum ^ part & 0_u32.wrapping_sub(high >> bit & 1)
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The code is linear: whether a wrong word is noticed depends on the difference and its place alone, and in the
    /// second word also on whether the customization string changes with it.
    #[test]
    fn every_single_word_error_of_every_length_is_noticed() {
        for length in [20, 23, 26, 27, 30, 33] {
            for (extendable, place) in [false, true]
                .into_iter()
                .flat_map(|e| (0..length).map(move |p| (e, p)))
            {
                let mut words = vec![u16::from(extendable) << 4; length - WORDS];
                words.extend(of(&words, extendable));
                assert!(holds(&words, extendable));
                for difference in 1..1024 {
                    words[place] ^= difference;
                    let read_as = words[1] >> 4 & 1 == 1;
                    assert!(!holds(&words, read_as), "{length} words, word {place}");
                    words[place] ^= difference;
                }
            }
        }
    }
}
