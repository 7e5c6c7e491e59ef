//! Digests as words to be read aloud: the PGP word list (Juola and Zimmermann, 1995). Bytes at even places have words
//! of two syllables, those at odd places of three, so that a word that is left out, doubled or swapped is heard.

/// One word a byte.
pub fn words(bytes: &[u8]) -> Vec<&'static str> {
    let list: Vec<&str> = include_str!("pgp_words.txt").lines().collect();
    let word = |(place, byte): (usize, &u8)| {
        let (even, odd) = list.get(usize::from(*byte))?.split_once(' ')?;
        Some(if place % 2 == 0 { even } else { odd })
    };
    bytes.iter().enumerate().filter_map(word).collect()
}

/// As lines of eight words, each behind its hexadecimal digits, fit for reading aloud and for comparing.
pub fn lines(bytes: &[u8]) -> Vec<String> {
    let eights = bytes.chunks(8);
    eights
        .map(|eight| format!("{}  {}", hex::encode(eight), words(eight).join(" ")))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_has_a_word_of_its_own_in_both_places() {
        let all: Vec<u8> = (0..=255).flat_map(|byte| [byte, byte]).collect();
        let mut words = words(&all);
        assert_eq!(words.len(), 512);
        words.sort_unstable();
        words.dedup();
        assert_eq!(words.len(), 512);
    }

    /// The example that the list's authors published.
    #[test]
    fn the_published_fingerprint_reads_as_published() {
        let fingerprint = hex::decode("E58294F2E9A227486E8B061B31CC528FD7FA3F19").unwrap();
        let published = "topmost Istanbul Pluto vagabond treadmill Pacific brackish dictator goldfish Medusa afflict \
            bravado chatter revolver Dupont midsummer stopwatch whimsical cowbell bottomless";
        assert_eq!(words(&fingerprint).join(" "), published);
        assert_eq!(lines(&fingerprint).len(), 3);
    }
}
