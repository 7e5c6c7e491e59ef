//! A share, and the words that it is written in.

use std::fmt;

use zeroize::Zeroizing;

use crate::field::{Value, zeroes};
use crate::{checksum, wordlist};

/// Words of the header.
const HEADER_WORDS: usize = 4;

/// Words around the value.
const OTHER_WORDS: usize = HEADER_WORDS + checksum::WORDS;

/// How many words a share of 16 bytes has, and one of 32.
const WORDS: std::ops::RangeInclusive<usize> = 20..=33;

/// One share of a secret, wiped when it is dropped.
pub struct Share {
    header: Header,
    value: Value,
}

/// What a share says of itself; nothing of it is secret. Indices count from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// 15 random bits that all shares of one split have in common.
    pub identifier: u16,
    /// Whether the secret's encryption is independent of the identifier.
    pub extendable: bool,
    /// The encryption takes 10,000 * 2^e iterations of PBKDF2; 0 to 15.
    pub iteration_exponent: u8,
    /// The group that the share belongs to.
    pub group_index: u8,
    /// How many groups are needed, 1 to 16.
    pub group_threshold: u8,
    /// How many groups there are, 1 to 16.
    pub group_count: u8,
    /// The share's place in its group.
    pub member_index: u8,
    /// How many members of its group are needed, 1 to 16.
    pub member_threshold: u8,
}

impl Share {
    pub(crate) fn new(header: Header, value: Value) -> Self {
        Self { header, value }
    }

    /// Reads a share from its words, in any case, between white space of any kind.
    ///
    /// # Errors
    /// [`Fault`]: what is wrong, and where. Nothing is corrected.
    pub fn parse(text: &str) -> Result<Self, Fault> {
        let mut words = Zeroizing::new(Vec::with_capacity(text.split_whitespace().count()));
        let mut unknown = Vec::new();
        for (place, word) in (1..).zip(text.split_whitespace()) {
            match wordlist::number(word) {
                Some(number) => words.push(number),
                None => unknown.push(place),
            }
        }
        if !unknown.is_empty() {
            return Err(Fault::UnknownWords { places: unknown });
        }
        let length = value_length(words.len()).ok_or(Fault::Count { words: words.len() })?;
        let header = Header::from_words(&words).ok_or(Fault::Count { words: words.len() })?;
        if !checksum::holds(&words, header.extendable) {
            return Err(Fault::Checksum(suspect(&words)));
        }
        if header.group_threshold > header.group_count {
            return Err(Fault::GroupThreshold {
                threshold: header.group_threshold,
                groups: header.group_count,
            });
        }
        let value = words.get(HEADER_WORDS..words.len() - checksum::WORDS);
        let value = value_from_words(value.unwrap_or_default(), length).ok_or(Fault::Padding)?;
        Ok(Self { header, value })
    }

    /// What it says of itself.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The words that it is written in.
    pub fn words(&self) -> Words {
        let mut words = Zeroizing::new(Vec::with_capacity(*WORDS.end()));
        words.extend(self.header.words());
        value_to_words(&self.value, &mut words);
        let checksum = checksum::of(&words, self.header.extendable);
        words.extend(checksum);
        Words(words)
    }

    pub(crate) fn value(&self) -> &[u8] {
        &self.value
    }
}

/// A share's words, wiped when they are dropped.
pub struct Words(Zeroizing<Vec<u16>>);

impl Words {
    /// The words, in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &'static str> {
        self.0.iter().map(|number| wordlist::word(*number))
    }
}

impl Header {
    /// The header's four words, and why it cannot be from fewer. Fields as the standard packs them, each threshold and
    /// count less one.
    fn from_words(words: &[u16]) -> Option<Self> {
        let packed = words.get(..HEADER_WORDS)?;
        let packed = packed
            .iter()
            .fold(0_u64, |packed, word| packed << 10 | u64::from(*word));
        let nibble = |shift: u32| (packed >> shift & 0xF) as u8;
        Some(Self {
            identifier: (packed >> 25) as u16,
            extendable: packed >> 24 & 1 == 1,
            iteration_exponent: nibble(20),
            group_index: nibble(16),
            group_threshold: nibble(12) + 1,
            group_count: nibble(8) + 1,
            member_index: nibble(4),
            member_threshold: nibble(0) + 1,
        })
    }

    fn words(&self) -> [u16; HEADER_WORDS] {
        let nibbles = [
            self.iteration_exponent,
            self.group_index,
            self.group_threshold.wrapping_sub(1),
            self.group_count.wrapping_sub(1),
            self.member_index,
            self.member_threshold.wrapping_sub(1),
        ];
        let start = u64::from(self.identifier & 0x7FFF) << 1 | u64::from(self.extendable);
        let packed = nibbles.iter().fold(start, |packed, nibble| {
            packed << 4 | u64::from(nibble & 0xF)
        });
        [30, 20, 10, 0].map(|shift| (packed >> shift & 0x3FF) as u16)
    }
}

/// What is wrong with the words of a share, and where. Words count from 1; none of them is repeated here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Words that are not in the standard's list.
    UnknownWords {
        /// Their places.
        places: Vec<usize>,
    },
    /// No share has so many words.
    Count {
        /// How many there are.
        words: usize,
    },
    /// The checksum does not hold.
    Checksum(Suspect),
    /// More groups are said to be needed than there are. No implementation of the standard makes such a share.
    GroupThreshold {
        /// Groups needed.
        threshold: u8,
        /// Groups there are.
        groups: u8,
    },
    /// The checksum holds, and the value has bits where there are none. No implementation of the standard makes such a
    /// share.
    Padding,
}

/// Where the checksum says that the mistake is. It is a pointer to where to look, not more: several mistakes together
/// can look like one elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Suspect {
    /// Another word in this place alone would make it hold.
    Word(usize),
    /// It would hold with these two words the other way round.
    Swapped(usize, usize),
    /// More than one word is wrong.
    Several,
}

impl std::error::Error for Fault {}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownWords { places } => {
                let places: Vec<String> = places.iter().map(usize::to_string).collect();
                let (word, are) = if places.len() == 1 { ("word", "is") } else { ("words", "are") };
                let places = places.join(", ");
                write!(f, "{word} {places} {are} not in the list of words: read the sheet again there")
            }
            Self::Count { words } => write!(
                f,
                "{words} words: a share of 128 bits has 20, one of 256 bits 33. Count the words on the sheet; one is \
                 missing, doubled, or run together with the next"
            ),
            Self::Checksum(suspect) => write!(f, "the checksum does not hold: {suspect}"),
            Self::GroupThreshold { threshold, groups } => write!(
                f,
                "it says that {threshold} of {groups} groups are needed: no tool writes that. It is not a SLIP-39 share"
            ),
            Self::Padding => f.write_str(
                "the checksum holds, but its value has bits in the padding: no tool writes that. It is not a SLIP-39 \
                 share",
            ),
        }
    }
}

impl fmt::Display for Suspect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Word(place) => {
                let (from, to) = (place.saturating_sub(1).max(1), place + 1);
                write!(f, "if one word is wrong, it is word {place}. Compare words {from} to {to} with the sheet")
            }
            Self::Swapped(one, other) => {
                write!(f, "it looks as if words {one} and {other} were swapped. Compare both with the sheet")
            }
            Self::Several => {
                f.write_str("more than one word is wrong. Compare every word with the sheet, and which sheet it is")
            }
        }
    }
}

/// Where the mistake is, found by trying; the right word is thrown away with each try.
fn suspect(words: &[u16]) -> Suspect {
    let mut tried = Zeroizing::new(words.to_vec());
    let holds = |tried: &[u16]| {
        Header::from_words(tried).is_some_and(|header| checksum::holds(tried, header.extendable))
    };
    for (index, word) in words.iter().enumerate() {
        for other in (0..).take(wordlist::COUNT) {
            if let Some(place) = tried.get_mut(index) {
                *place = other;
            }
            if holds(&tried) {
                return Suspect::Word(index + 1);
            }
        }
        if let Some(place) = tried.get_mut(index) {
            *place = *word;
        }
    }
    // Neighbours first: they are the likely ones.
    for distance in 1..words.len() {
        for one in 0..words.len() - distance {
            tried.swap(one, one + distance);
            if holds(&tried) {
                return Suspect::Swapped(one + 1, one + distance + 1);
            }
            tried.swap(one, one + distance);
        }
    }
    Suspect::Several
}

/// The length in bytes of the value of a share of so many words.
fn value_length(words: usize) -> Option<usize> {
    let bits = words.checked_sub(OTHER_WORDS)? * 10;
    let padding = bits % 16;
    (WORDS.contains(&words) && padding <= 8).then_some((bits - padding) / 8)
}

/// Ten bits a word, the padding of zeroes first.
fn value_to_words(value: &[u8], words: &mut Vec<u16>) {
    let bits = value.len() * 8;
    let (mut pending, mut pending_bits) = (Zeroizing::new(0_u32), bits.div_ceil(10) * 10 - bits);
    for byte in value {
        *pending = (*pending << 8 | u32::from(*byte)) & 0x3_FFFF;
        pending_bits += 8;
        if pending_bits >= 10 {
            pending_bits -= 10;
            words.push((*pending >> pending_bits & 0x3FF) as u16);
        }
    }
}

/// Undoes [`value_to_words`]; `None` where the padding is not zero.
fn value_from_words(words: &[u16], length: usize) -> Option<Value> {
    let padding = (words.len() * 10).checked_sub(length * 8)?;
    let first = words.first()?;
    if first >> (10 - padding) != 0 {
        return None;
    }
    let mut value = zeroes(length);
    let mut bytes = value.iter_mut();
    let (mut pending, mut pending_bits) = (Zeroizing::new(u32::from(*first)), 10 - padding);
    for word in words.get(1..)?.iter().map(Some).chain([None]) {
        while pending_bits >= 8 {
            pending_bits -= 8;
            *bytes.next()? = (*pending >> pending_bits & 0xFF) as u8;
        }
        if let Some(word) = word {
            *pending = (*pending << 10 | u32::from(*word)) & 0x3_FFFF;
            pending_bits += 10;
        }
    }
    Some(value)
}
