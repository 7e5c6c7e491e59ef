//! Every subset of M recovers, every subset of M - 1 fails; what does not belong together is named.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use fastrand::Rng;
use hsm_shares::{
    CombineError, Group, Options, Scheme, SchemeError, Secret, Share, SplitError, combine, split,
};
use proptest::prelude::*;

fn secret(bytes: &[u8]) -> Secret {
    Secret::new(Box::<[u8]>::from(bytes).into()).unwrap()
}

/// Splits by a seeded generator.
fn split_seeded(bytes: &[u8], scheme: &Scheme, random: &mut Rng) -> Vec<Vec<Share>> {
    let length = scheme.randomness(bytes.len());
    let randomness: Vec<u8> = (0..length).map(|_| random.u8(..)).collect();
    split(&secret(bytes), scheme, Options::default(), &randomness).unwrap()
}

fn line(share: &Share) -> String {
    share.words().iter().collect::<Vec<_>>().join(" ")
}

/// These shares, read from their words.
fn given<'a>(shares: impl IntoIterator<Item = &'a Share>) -> Vec<Share> {
    let read = |share| Share::parse(&line(share)).unwrap();
    shares.into_iter().map(read).collect()
}

fn recovered(shares: &[Share]) -> Vec<u8> {
    let secret = combine(shares).map_err(|error| error.to_string());
    secret.unwrap().expose().to_vec()
}

fn refused(shares: &[Share]) -> CombineError {
    combine(shares).err().unwrap()
}

/// All choices of so many members, as bits.
fn choices(members: u8, chosen: u8) -> impl Iterator<Item = usize> {
    (0_usize..1 << members).filter(move |bits| bits.count_ones() == chosen.into())
}

fn chosen(shares: &[Share], bits: usize) -> impl Iterator<Item = &Share> {
    let numbered = shares.iter().enumerate();
    numbered
        .filter(move |(index, _)| bits >> index & 1 == 1)
        .map(|(_, share)| share)
}

#[test]
fn every_subset_of_m_recovers_and_every_subset_of_one_fewer_or_more_does_not() {
    let mut random = Rng::with_seed(39);
    for (threshold, members) in [(1, 1), (2, 2), (2, 3), (3, 5), (5, 5), (4, 6)] {
        let bytes: Vec<u8> = (0..32).map(|_| random.u8(..)).collect();
        let scheme = Scheme::single(threshold, members).unwrap();
        let shares = split_seeded(&bytes, &scheme, &mut random).remove(0);
        for bits in choices(members, threshold) {
            assert_eq!(recovered(&given(chosen(&shares, bits))), bytes);
        }
        for bits in choices(members, threshold - 1) {
            let expected = match threshold - 1 {
                0 => CombineError::None,
                few => CombineError::TooFewMembers {
                    group: 1,
                    needed: threshold,
                    given: few.into(),
                },
            };
            assert_eq!(refused(&given(chosen(&shares, bits))), expected);
        }
        for bits in choices(members, threshold + 1) {
            let more = refused(&given(chosen(&shares, bits)));
            assert!(matches!(
                more,
                CombineError::TooManyMembers { group: 1, .. }
            ));
        }
    }
}

/// The officers, any 2 of 3, and the third party, both groups needed.
#[test]
fn with_groups_every_quorum_of_each_is_needed() {
    let mut random = Rng::with_seed(7);
    let officers = Group {
        threshold: 2,
        members: 3,
    };
    let third_party = Group {
        threshold: 1,
        members: 1,
    };
    let scheme = Scheme::new(2, &[officers, third_party]).unwrap();
    let bytes = [0xA5; 32];
    let shares = split_seeded(&bytes, &scheme, &mut random);
    for bits in choices(3, 2) {
        let officers: Vec<&Share> = chosen(&shares[0], bits).collect();
        let both = given(officers.iter().copied().chain(&shares[1]));
        assert_eq!(recovered(&both), bytes);
        let no_third_party = CombineError::TooFewGroups {
            needed: 2,
            given: 1,
        };
        assert_eq!(refused(&given(officers.iter().copied())), no_third_party);
        let one_officer = given(officers[..1].iter().copied().chain(&shares[1]));
        let too_few = CombineError::TooFewMembers {
            group: 1,
            needed: 2,
            given: 1,
        };
        assert_eq!(refused(&one_officer), too_few);
    }
    let alone = CombineError::TooFewGroups {
        needed: 2,
        given: 1,
    };
    assert_eq!(refused(&given(&shares[1])), alone);
}

#[test]
fn shares_that_do_not_belong_together_are_named() {
    let mut random = Rng::with_seed(8);
    let scheme = Scheme::single(3, 5).unwrap();
    let ours = split_seeded(&[1; 16], &scheme, &mut random).remove(0);
    let older = split_seeded(&[1; 16], &scheme, &mut random).remove(0);
    let other = refused(&given([&ours[0], &ours[1], &older[2]]));
    assert!(matches!(other, CombineError::OtherSplit { share: 3, .. }));
    let twice = refused(&given([&ours[0], &ours[4], &ours[0]]));
    assert_eq!(twice, CombineError::Twice { shares: (1, 3) });
}

/// A share that passes every check of its own, with another value: only the digest sees it.
#[test]
fn a_share_with_a_valid_checksum_and_wrong_data_is_noticed() {
    let scheme = Scheme::single(2, 3).unwrap();
    // The same identifier, and other secrets.
    let randomness = vec![0x42; scheme.randomness(16)];
    let [ours, forged] = [[1; 16], [2; 16]].map(|bytes| {
        let shares = split(&secret(&bytes), &scheme, Options::default(), &randomness);
        shares.unwrap().remove(0)
    });
    let forged_member = refused(&given([&ours[0], &forged[1]]));
    assert!(matches!(forged_member, CombineError::Digest(_)));
    let same_place = refused(&given([&ours[0], &forged[0]]));
    assert_eq!(same_place, CombineError::SamePlace { shares: (1, 2) });
}

#[test]
fn a_scheme_that_the_standard_lacks_is_refused() {
    let one = Group {
        threshold: 1,
        members: 1,
    };
    let new = |threshold, groups: &[Group]| Scheme::new(threshold, groups).unwrap_err();
    let single = |threshold, members| Scheme::single(threshold, members).unwrap_err();
    assert_eq!(new(1, &[]), SchemeError::Groups(0));
    assert_eq!(new(1, &[one; 17]), SchemeError::Groups(17));
    assert!(matches!(new(0, &[one]), SchemeError::GroupThreshold { .. }));
    assert!(matches!(new(2, &[one]), SchemeError::GroupThreshold { .. }));
    assert!(matches!(single(1, 0), SchemeError::Members { .. }));
    assert!(matches!(single(2, 17), SchemeError::Members { .. }));
    assert!(matches!(single(4, 3), SchemeError::MemberThreshold { .. }));
    assert!(matches!(single(1, 3), SchemeError::Copies { .. }));
}

#[test]
fn the_wrong_amount_of_randomness_or_of_secret_is_refused() {
    let scheme = Scheme::single(3, 5).unwrap();
    let wanted = scheme.randomness(16);
    assert_eq!(wanted, 2 + 16 + 12);
    for given in [0, wanted - 1, wanted + 1] {
        let random = vec![0; given];
        let split = split(&secret(&[1; 16]), &scheme, Options::default(), &random);
        assert_eq!(
            split.err().unwrap(),
            SplitError::Randomness { given, wanted }
        );
    }
    for length in [0, 14, 15, 17, 33, 34] {
        assert!(Secret::new(vec![0; length].into_boxed_slice().into()).is_err());
    }
}

fn any_scheme() -> impl Strategy<Value = Scheme> {
    let group = (1_u8..=5).prop_flat_map(|members| {
        let least = if members == 1 { 1 } else { 2 };
        (least..=members).prop_map(move |threshold| Group { threshold, members })
    });
    proptest::collection::vec(group, 1..=4).prop_flat_map(|groups| {
        let most = u8::try_from(groups.len()).unwrap();
        (1..=most).prop_map(move |threshold| Scheme::new(threshold, &groups).unwrap())
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn any_quorum_of_any_scheme_recovers(
        scheme in any_scheme(),
        half in proptest::collection::vec(any::<u8>(), 8..=16),
        seed in any::<u64>(),
    ) {
        let bytes = [&half[..], &half[..]].concat();
        let mut random = Rng::with_seed(seed);
        let mut groups = split_seeded(&bytes, &scheme, &mut random);
        random.shuffle(&mut groups);
        groups.truncate(scheme.group_threshold().into());
        let mut quorum = Vec::new();
        for mut members in groups {
            random.shuffle(&mut members);
            members.truncate(members[0].header().member_threshold.into());
            quorum.extend(members);
        }
        random.shuffle(&mut quorum);
        prop_assert_eq!(recovered(&given(&quorum)), bytes);
        quorum.pop();
        prop_assert!(combine(&quorum).is_err());
    }
}
