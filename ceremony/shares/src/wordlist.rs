//! The standard's 1,024 words: 4 to 8 letters each, no two with the same first four.

use std::sync::OnceLock;

/// How many words there are: a word stands for 10 bits.
pub(crate) const COUNT: usize = 1024;

/// The words, sorted.
fn words() -> &'static [&'static str] {
    static WORDS: OnceLock<Vec<&'static str>> = OnceLock::new();
    WORDS.get_or_init(|| include_str!("wordlist.txt").lines().collect())
}

/// The word with this number.
pub(crate) fn word(number: u16) -> &'static str {
    words()
        .get(usize::from(number))
        .copied()
        .unwrap_or_default()
}

/// The number of a word, written in any case.
pub(crate) fn number(word: &str) -> Option<u16> {
    let found = words().binary_search_by(|known| {
        let written = word.bytes().map(|letter| letter.to_ascii_lowercase());
        known.bytes().cmp(written)
    });
    u16::try_from(found.ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_has_its_number_and_no_two_begin_alike() {
        assert_eq!(words().len(), COUNT);
        for (number, known) in (0..).zip(words()) {
            assert_eq!(self::number(known), Some(number));
            assert_eq!(self::number(&known.to_uppercase()), Some(number));
            assert_eq!(word(number), *known);
        }
        assert!(words().is_sorted());
        assert!(words().windows(2).all(|two| two[0][..4] != two[1][..4]));
    }

    #[test]
    fn nothing_else_is_a_word() {
        for other in ["", "acade", "academi", "academics", "zzz", "écho"] {
            assert_eq!(number(other), None);
        }
    }
}
