//! Height, round and step, each checked when it is made, and their order.

use std::fmt;

use super::Error;

/// A block height, at least 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Height(i64);

impl Height {
    /// [`Error::Field`] below 1.
    pub fn new(height: i64) -> Result<Self, Error> {
        if height >= 1 {
            return Ok(Height(height));
        }
        Err(Error::field("height", height, "at least 1"))
    }

    /// The number.
    pub fn get(self) -> i64 {
        self.0
    }
}

/// A round within a height, at least 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Round(i32);

impl Round {
    /// [`Error::Field`] below 0.
    pub fn new(round: i32) -> Result<Self, Error> {
        if round >= 0 {
            return Ok(Round(round));
        }
        Err(Error::field("round", round, "at least 0"))
    }

    /// The number.
    pub fn get(self) -> i32 {
        self.0
    }
}

/// A step within a round, in CometBFT's order and with the numbers of its `privval/file.go`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Step {
    /// The proposer's message.
    Proposal = 1,
    /// The first vote.
    Prevote = 2,
    /// The second vote.
    Precommit = 3,
}

impl TryFrom<i32> for Step {
    type Error = Error;

    fn try_from(number: i32) -> Result<Self, Error> {
        match number {
            1 => Ok(Step::Proposal),
            2 => Ok(Step::Prevote),
            3 => Ok(Step::Precommit),
            _ => Err(Error::field(
                "step",
                number,
                "1 (proposal), 2 (prevote) or 3 (precommit)",
            )),
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Step::Proposal => "proposal",
            Step::Prevote => "prevote",
            Step::Precommit => "precommit",
        })
    }
}

/// Where in a chain's life a message belongs. Ordered by height, then round, then step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// The block height.
    pub height: Height,
    /// The round within it.
    pub round: Round,
    /// The step within that.
    pub step: Step,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Position {
            height,
            round,
            step,
        } = self;
        write!(f, "height {}, round {}, {step}", height.0, round.0)
    }
}

/// Which of a round's two votes, with CometBFT's numbers (SignedMsgType).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum VoteType {
    /// The first vote.
    Prevote = 1,
    /// The second vote.
    Precommit = 2,
}

impl TryFrom<i32> for VoteType {
    type Error = Error;

    fn try_from(number: i32) -> Result<Self, Error> {
        match number {
            1 => Ok(VoteType::Prevote),
            2 => Ok(VoteType::Precommit),
            _ => Err(Error::field("type", number, "1 (prevote) or 2 (precommit)")),
        }
    }
}

impl From<VoteType> for Step {
    fn from(vote_type: VoteType) -> Self {
        match vote_type {
            VoteType::Prevote => Step::Prevote,
            VoteType::Precommit => Step::Precommit,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused_field<T>(result: Result<T, Error>) -> Option<&'static str> {
        match result {
            Err(Error::Field { field, .. }) => Some(field),
            _ => None,
        }
    }

    #[test]
    fn numbers_out_of_range_are_refused_by_name() {
        assert_eq!(refused_field(Height::new(0)), Some("height"));
        assert_eq!(refused_field(Height::new(i64::MIN)), Some("height"));
        assert_eq!(refused_field(Round::new(-1)), Some("round"));
        assert_eq!(refused_field(VoteType::try_from(0)), Some("type"));
        assert_eq!(refused_field(VoteType::try_from(32)), Some("type"));
        assert_eq!(refused_field(Step::try_from(0)), Some("step"));
        assert_eq!(refused_field(Step::try_from(4)), Some("step"));
    }

    #[test]
    fn positions_are_ordered_by_height_then_round_then_step() {
        let at = |height, round, step| Position {
            height: Height::new(height).unwrap(),
            round: Round::new(round).unwrap(),
            step,
        };
        let ascending = [
            at(1, 0, Step::Proposal),
            at(1, 0, Step::Prevote),
            at(1, 0, Step::Precommit),
            at(1, 1, Step::Proposal),
            at(2, 0, Step::Proposal),
        ];
        assert!(ascending.is_sorted_by(|a, b| a < b));
    }
}
