//! Every single-word error in a share is noticed, its place is named, and nothing is corrected.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use fastrand::Rng;
use hsm_shares::{Fault, Options, Scheme, Secret, Share, Suspect, split};
use proptest::prelude::*;

const WORDS: &str = include_str!("../src/wordlist.txt");

/// The words of a share of a secret of so many bytes.
fn words(random: &mut Rng, length: usize) -> Vec<&'static str> {
    let mut bytes = |length| (0..length).map(|_| random.u8(..)).collect::<Vec<u8>>();
    let scheme = Scheme::single(2, 2).unwrap();
    let secret = Secret::new(bytes(length).into_boxed_slice().into()).unwrap();
    let randomness = bytes(scheme.randomness(length));
    let groups = split(&secret, &scheme, Options::default(), &randomness).unwrap();
    groups[0][0].words().iter().collect()
}

fn fault(words: &[&str]) -> Fault {
    Share::parse(&words.join(" ")).err().unwrap()
}

/// Finding the place takes a while: every place is tried with some words here. That every word is noticed, all 31,713
/// wrong ones of a share, is held beside the checksum.
#[test]
fn a_wrong_word_is_noticed_and_its_place_is_named() {
    let list: Vec<&str> = WORDS.lines().collect();
    let mut random = Rng::with_seed(33);
    for length in [16, 32] {
        let right = words(&mut random, length);
        for place in 0..right.len() {
            for _ in 0..4 {
                let mut words = right.clone();
                words[place] = list[random.usize(..list.len())];
                if words != right {
                    assert_eq!(fault(&words), Fault::Checksum(Suspect::Word(place + 1)));
                }
            }
        }
    }
}

#[test]
fn swapped_words_are_noticed_and_named() {
    let right = words(&mut Rng::with_seed(12), 16);
    for place in 0..right.len() - 1 {
        let mut words = right.clone();
        words.swap(place, place + 1);
        if words != right {
            let swapped = Suspect::Swapped(place + 1, place + 2);
            assert_eq!(fault(&words), Fault::Checksum(swapped));
        }
    }
}

#[test]
fn several_wrong_words_are_noticed_and_no_place_is_guessed() {
    let mut words = words(&mut Rng::with_seed(13), 32);
    (words[5], words[15], words[25]) = ("academic", "acid", "acne");
    assert_eq!(fault(&words), Fault::Checksum(Suspect::Several));
}

#[test]
fn words_that_are_none_are_named_all_at_once_and_never_repeated() {
    let mut words = words(&mut Rng::with_seed(5), 16);
    (words[2], words[18]) = ("acadmeic", "zeroo");
    let fault = fault(&words);
    assert_eq!(
        fault,
        Fault::UnknownWords {
            places: vec![3, 19]
        }
    );
    let said = "words 3, 19 are not in the list of words: read the sheet again there";
    assert_eq!(fault.to_string(), said);
}

#[test]
fn a_missing_or_doubled_word_is_noticed() {
    let words = words(&mut Rng::with_seed(6), 32);
    assert_eq!(fault(&words[..32]), Fault::Count { words: 32 });
    let doubled = [&words[..], &words[32..]].concat();
    assert_eq!(fault(&doubled), Fault::Count { words: 34 });
    assert_eq!(fault(&[]), Fault::Count { words: 0 });
}

/// What a fault says of a word is its place alone.
#[test]
fn no_fault_repeats_a_word_of_the_share() {
    let right = words(&mut Rng::with_seed(21), 32);
    let list: Vec<&str> = WORDS.lines().collect();
    for place in 0..right.len() {
        let mut words = right.clone();
        words[place] = list[(list.binary_search(&right[place]).unwrap() + 1) % list.len()];
        let said = fault(&words).to_string();
        let mut said = said.split(|letter: char| !letter.is_ascii_alphabetic());
        assert!(said.all(|said| said != right[place] && said != words[place]));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Whatever is typed, it is refused or read, and what is read is written the same.
    #[test]
    fn any_words_are_refused_or_written_as_they_were_read(
        numbers in proptest::collection::vec(0_usize..1024, 0..40),
    ) {
        let list: Vec<&str> = WORDS.lines().collect();
        let text: Vec<&str> = numbers.iter().map(|number| list[*number]).collect();
        if let Ok(share) = Share::parse(&text.join("\t")) {
            prop_assert_eq!(share.words().iter().collect::<Vec<_>>(), text);
        }
    }
}
