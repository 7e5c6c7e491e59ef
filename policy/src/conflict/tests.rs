use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;

use super::Verdict::{ExtensionAnew, Repeat, Sign};
use super::*;
use crate::cometbft::{BlockId, ChainId, Height, Proposal, Round, Step, Vote, VoteType};

/// A message in short, written as `10/2 precommit A @51 +x`: height 10, round 2, for block A, its
/// timestamp 51 (else 50), with extension "x". A proposal may say `pol=1`.
#[derive(Debug, Clone, PartialEq)]
struct Short {
    height: i64,
    round: i32,
    step: Step,
    /// None is nil.
    block: Option<char>,
    pol_round: i32,
    seconds: i64,
    extension: Option<String>,
}

impl Short {
    fn read(text: &str) -> Short {
        let words: Vec<&str> = text.split(' ').collect();
        let (height, round) = words[0].split_once('/').unwrap();
        let step = [Step::Proposal, Step::Prevote, Step::Precommit];
        let option = |prefix| words[3..].iter().find_map(|word| word.strip_prefix(prefix));
        Short {
            height: height.parse().unwrap(),
            round: round.parse().unwrap(),
            step: step
                .into_iter()
                .find(|step| step.to_string() == words[1])
                .unwrap(),
            block: words[2].chars().next().filter(|_| words[2] != "nil"),
            pol_round: option("pol=").map_or(-1, |round| round.parse().unwrap()),
            seconds: option("@").map_or(50, |seconds| seconds.parse().unwrap()),
            extension: option("+").map(str::to_owned),
        }
    }

    fn message(&self) -> Message {
        let chain = ChainId::new("chain").unwrap();
        let height = Height::new(self.height).unwrap();
        let round = Round::new(self.round).unwrap();
        let time = Timestamp::new(self.seconds, 0).unwrap();
        let block = self
            .block
            .map(|letter| BlockId::new(&[letter as u8; 32], 1, &[1; 32]).unwrap());
        let vote_type = match self.step {
            Step::Proposal => {
                let proposal =
                    Proposal::new(chain, height, round, self.pol_round, block.unwrap(), time);
                return proposal.unwrap().into();
            }
            Step::Prevote => VoteType::Prevote,
            Step::Precommit => VoteType::Precommit,
        };
        let extension = self.extension.clone().map(String::into_bytes);
        Vote::new(chain, vote_type, height, round, block, time, extension)
            .unwrap()
            .into()
    }
}

/// A message for block `A` or a later letter.
pub(super) fn message_at(position: Position, block: u8) -> Message {
    let short = Short {
        height: position.height.get(),
        round: position.round.get(),
        step: position.step,
        block: Some(char::from(b'A' + block)),
        pol_round: -1,
        seconds: 50,
        extension: None,
    };
    short.message()
}

fn message(short: &str) -> Message {
    Short::read(short).message()
}

fn position(short: &str) -> Position {
    message(short).position()
}

fn last_of(message: &Message) -> Last {
    Last {
        position: message.position(),
        sign_bytes: message.sign_bytes(),
        timestamp: message.timestamp(),
        extension_sign_bytes: message.extension_sign_bytes(),
    }
}

/// A mark at which `last` was signed.
fn signed(last: &str) -> Mark {
    Mark {
        initial_height: 0,
        last: Some(last_of(&message(last))),
    }
}

/// What was signed last | what is asked | the judgement | the case.
const TABLE: &str = "
10/2 precommit A          | 11/0 proposal B @9         | sign           | a later height
10/2 precommit A          | 10/3 prevote B             | sign           | a later round
10/2 proposal A           | 10/2 prevote A             | sign           | a later step
10/2 proposal A           | 10/2 precommit A           | sign           | a step skipped
10/2 prevote A            | 10/2 precommit B           | sign           | precommit for another block than this round's prevote
10/2 prevote A            | 10/2 precommit nil         | sign           | nil precommit after a prevote for a block
10/2 prevote nil          | 10/2 precommit A +x        | sign           | precommit for a block after a nil prevote
10/2 proposal A pol=1     | 10/2 proposal A pol=1      | repeat         | the same proposal
10/2 prevote A            | 10/2 prevote A             | repeat         | the same prevote
10/2 prevote nil          | 10/2 prevote nil           | repeat         | the same nil prevote
10/2 precommit A +x       | 10/2 precommit A +x        | repeat         | the same precommit and extension
10/2 proposal A           | 10/2 proposal A @51        | repeat         | only the timestamp differs: later
10/2 prevote A            | 10/2 prevote A @-49        | repeat         | only the timestamp differs: earlier
10/2 precommit nil        | 10/2 precommit nil @0      | repeat         | only the timestamp differs: zero
10/2 precommit A +x       | 10/2 precommit A @51 +x    | repeat         | only the timestamp differs: with an extension
10/2 precommit A +x       | 10/2 precommit A           | repeat         | the extension is not asked for again
10/2 precommit A +x       | 10/2 precommit A +y        | extension anew | another extension
10/2 precommit A +x       | 10/2 precommit A +         | extension anew | an empty extension after another
10/2 precommit A          | 10/2 precommit A +x        | extension anew | an extension where none was signed
10/2 precommit A +x       | 10/2 precommit A @51 +y    | extension anew | another extension, another timestamp
10/2 proposal A           | 10/2 proposal B            | double sign    | proposal for another block
10/2 proposal A pol=1     | 10/2 proposal A pol=0      | double sign    | proposal with another proof of lock
10/2 proposal A pol=1     | 10/2 proposal A            | double sign    | proposal with its proof of lock gone
10/2 prevote A            | 10/2 prevote B             | double sign    | prevote for another block
10/2 prevote A            | 10/2 prevote nil           | double sign    | nil prevote after one for a block
10/2 prevote nil          | 10/2 prevote A             | double sign    | prevote for a block after a nil one
10/2 precommit A          | 10/2 precommit B           | double sign    | precommit for another block
10/2 precommit A +x       | 10/2 precommit nil         | double sign    | nil precommit after one for a block
10/2 precommit nil        | 10/2 precommit A +x        | double sign    | precommit for a block after a nil one
10/2 prevote A            | 10/2 prevote B @51         | double sign    | another block under another timestamp
10/2 precommit A +x       | 10/2 precommit B +x        | double sign    | another block with the same extension
10/2 prevote A            | 9/7 precommit A            | regression     | an earlier height
10/2 prevote A            | 10/1 precommit A           | regression     | an earlier round
10/2 prevote A            | 10/2 proposal A            | regression     | an earlier step
10/2 precommit A          | 10/2 prevote A             | regression     | the prevote after its precommit
10/2 prevote A            | 20/0 proposal A            | sign           | a height at the jump limit
10/2 prevote A            | 21/0 proposal A            | height jump    | a height above the jump limit
";

#[test]
fn every_row_of_the_table_is_judged_as_it_says() {
    for row in TABLE.trim().lines() {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let [last, asked, expected, case] = cells[..] else {
            panic!("{row}")
        };
        let judgement = match judge(&signed(last), &message(asked), 10) {
            Ok(Verdict::Sign) => "sign",
            Ok(Verdict::Repeat) => "repeat",
            Ok(Verdict::ExtensionAnew) => "extension anew",
            Err(Conflict::DoubleSign { .. }) => "double sign",
            Err(Conflict::Regression { .. }) => "regression",
            Err(Conflict::AtOrBelowInitial { .. }) => "at or below initial",
            Err(Conflict::HeightJump { .. }) => "height jump",
        };
        assert_eq!(judgement, expected, "{case}");
    }
}

#[test]
fn a_refusal_names_the_positions_and_the_remedy() {
    let refusal = |asked| {
        judge(&signed("10/2 prevote A"), &message(asked), 10)
            .unwrap_err()
            .to_string()
    };
    let double_sign = refusal("10/2 prevote B");
    assert!(
        double_sign.contains("height 10, round 2, prevote"),
        "{double_sign}"
    );
    assert!(double_sign.contains("stop one"), "{double_sign}");
    let regression = refusal("9/3 precommit A");
    assert!(regression.contains("height 9, round 3, precommit lies before height 10, round 2"));
    assert!(regression.contains("Let the node catch up"), "{regression}");
}

#[test]
fn a_message_of_another_chain_is_a_double_sign() {
    let (height, round) = (Height::new(10).unwrap(), Round::new(2).unwrap());
    let (other, time) = (
        ChainId::new("other").unwrap(),
        Timestamp::new(50, 0).unwrap(),
    );
    let vote = Vote::new(other, VoteType::Prevote, height, round, None, time, None);
    let judged = judge(&signed("10/2 prevote nil"), &vote.unwrap().into(), 10);
    assert_eq!(
        judged,
        Err(Conflict::DoubleSign {
            position: position("10/2 prevote nil")
        })
    );
}

#[test]
fn nothing_is_signed_at_a_position_whose_sign_bytes_are_not_known() {
    let known = last_of(&message("10/2 prevote A"));
    let last = Some(Last {
        sign_bytes: vec![],
        ..known
    });
    let mark = Mark {
        initial_height: 0,
        last,
    };
    let refused = Err(Conflict::DoubleSign {
        position: position("10/2 prevote A"),
    });
    assert_eq!(judge(&mark, &message("10/2 prevote A"), 10), refused);
    assert_eq!(judge(&mark, &message("10/2 precommit A"), 10), Ok(Sign));
}

#[test]
fn nothing_is_signed_at_or_below_the_initial_height() {
    let fresh = Mark {
        initial_height: 100,
        last: None,
    };
    let raised = Mark {
        initial_height: 100,
        ..signed("10/2 prevote A")
    };
    for height in [1, 10, 99, 100] {
        let conflict = Conflict::AtOrBelowInitial {
            height,
            initial_height: 100,
        };
        let asked = message(&format!("{height}/2 prevote A"));
        assert_eq!(judge(&fresh, &asked, 1000), Err(conflict.clone()));
        assert_eq!(judge(&raised, &asked, 1000), Err(conflict));
    }
    assert_eq!(judge(&fresh, &message("101/0 proposal A"), 1), Ok(Sign));
    assert_eq!(judge(&raised, &message("101/0 proposal A"), 1), Ok(Sign));
    let from_the_start = Mark {
        initial_height: 0,
        last: None,
    };
    assert_eq!(
        judge(&from_the_start, &message("1/0 proposal A"), 1),
        Ok(Sign)
    );
}

#[test]
fn a_height_beyond_the_jump_limit_is_refused_and_names_key_advance() {
    let fresh = Mark {
        initial_height: 100,
        last: None,
    };
    let raised = Mark {
        initial_height: 100,
        ..signed("10/2 prevote A")
    };
    for (mark, from) in [(signed("10/2 prevote A"), 10), (fresh, 100), (raised, 100)] {
        let ask = |jump| judge(&mark, &message(&format!("{}/0 prevote A", from + jump)), 5);
        assert_eq!(ask(5), Ok(Sign));
        let refused = Conflict::HeightJump {
            height: from + 6,
            from,
            jump: 6,
            max_height_jump: 5,
        };
        assert_eq!(ask(6), Err(refused));
    }
    let highest = message(&format!("{}/0 prevote A", i64::MAX));
    let text = judge(&signed("10/2 prevote A"), &highest, 5)
        .unwrap_err()
        .to_string();
    assert!(text.contains("lies 9223372036854775797 above 10"), "{text}");
    assert!(text.contains("`hsmd key advance`"), "{text}");
    assert_eq!(
        judge(&signed("10/2 prevote A"), &highest, u64::MAX),
        Ok(Sign)
    );
}

/// Few heights, rounds, blocks, timestamps and extensions, so that they often meet.
fn short() -> impl Strategy<Value = Short> {
    let step = proptest::sample::select(vec![Step::Proposal, Step::Prevote, Step::Precommit]);
    let block = proptest::sample::select(vec![None, Some('A'), Some('B')]);
    let extension = proptest::option::of("[xy]?");
    (
        1..4_i64,
        0..3_i32,
        step,
        block,
        -1..2_i32,
        0..3_i64,
        extension,
    )
        .prop_map(
            |(height, round, step, block, pol_round, seconds, extension)| {
                let block = if step == Step::Proposal {
                    block.or(Some('A'))
                } else {
                    block
                };
                let extension = extension.filter(|_| step == Step::Precommit && block.is_some());
                let pol_round = if step == Step::Proposal {
                    pol_round.min(round - 1)
                } else {
                    -1
                };
                Short {
                    height,
                    round,
                    step,
                    block,
                    pol_round,
                    seconds,
                    extension,
                }
            },
        )
}

proptest! {
    /// Promise 2, of the decision alone.
    #[test]
    fn whatever_is_asked_one_message_leaves_per_position_and_positions_never_fall(
        requests in vec(short(), 1..60),
        initial_height in 0..2_i64,
        max_height_jump in 1..3_u64,
    ) {
        let mut mark = Mark { initial_height, last: None };
        let mut left_at = BTreeMap::<Position, (Short, Vec<u8>)>::new();
        for short in requests {
            let message = short.message();
            let Ok(verdict) = judge(&mark, &message, max_height_jump) else { continue };
            let before = mark.last.as_ref().map(|last| last.position);
            match (verdict, &mut mark.last) {
                (Sign, last) => *last = Some(last_of(&message)),
                (ExtensionAnew, Some(last)) => {
                    last.extension_sign_bytes = message.extension_sign_bytes();
                }
                (Repeat, Some(_)) => {}
                (_, None) => prop_assert!(false, "{verdict:?} with nothing signed"),
            }
            let position = message.position();
            prop_assert!(before <= Some(position) && position.height.get() > initial_height);
            let leaving = mark.last.as_ref().map(|last| (last.position, &last.sign_bytes));
            // The message apart from what may differ, compared without our encoding of it.
            let bare = Short { seconds: 0, extension: None, ..short };
            let first = left_at
                .entry(position)
                .or_insert_with(|| (bare.clone(), message.sign_bytes()));
            prop_assert_eq!(&first.0, &bare);
            prop_assert_eq!(leaving, Some((position, &first.1)));
        }
    }
}
