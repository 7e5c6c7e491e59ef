//! `hsmd policy explain`: what would be decided, and by which line.

use std::path::PathBuf;
use std::time::SystemTime;

use clap::Args;
use hsm_policy::cometbft::{
    BlockId, ChainId, Height, Kind, Message, Proposal, Round, Timestamp, Vote, VoteType,
};
use hsm_policy::grants::{self, KeyName};
use hsm_policy::identity::Caller;
use serde_json::json;

use super::super::{Error, Printed};
use super::source;
use crate::guard::entry;

#[derive(Args)]
pub(in crate::cli) struct Arguments {
    /// Who asks: the URI in the certificate.
    #[arg(long, value_name = "URI")]
    caller: String,
    /// The key's name.
    #[arg(long, value_name = "NAME")]
    key: String,
    /// The chain id.
    #[arg(long, value_name = "ID")]
    chain: String,
    /// proposal, prevote, precommit or extension.
    #[arg(long, value_name = "KIND")]
    kind: String,
    /// The message's height.
    #[arg(long, value_name = "H")]
    height: i64,
    /// The message's round.
    #[arg(long, value_name = "R", default_value_t = 0)]
    round: i32,
    /// The message's timestamp lies so many seconds from hsmd's clock.
    #[arg(
        long,
        value_name = "SECONDS",
        default_value_t = 0,
        allow_negative_numbers = true
    )]
    skew: i64,
    /// The policy to ask; the one in force where none is named.
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    #[command(flatten)]
    printed: Printed,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Error> {
    let policy = source::of(arguments.policy.as_deref(), &arguments.printed.configured)?;
    let caller: Caller = arguments.caller.parse()?;
    let key = KeyName::new(&arguments.key)?;
    let now = entry::wall_clock(SystemTime::now());
    let message = message(arguments, now.seconds.saturating_add(arguments.skew))?;
    let now = Timestamp::new(now.seconds, 0)?;
    let explanation = grants::explain(&policy, &caller, &key, &message, now);
    if arguments.printed.json {
        let all = json!({
            "permitted": explanation.denial.is_none(),
            "line": explanation.line,
            "reason": explanation.denial.as_ref().map(ToString::to_string),
            "conditions": explanation.conditions,
        });
        say!("{all:#}");
        return Ok(());
    }
    say!("{explanation}");
    Ok(())
}

/// A message of the kind: the policy looks at neither block nor extension.
fn message(arguments: &Arguments, seconds: i64) -> Result<Message, Error> {
    let chain_id = ChainId::new(&arguments.chain)?;
    let height = Height::new(arguments.height)?;
    let round = Round::new(arguments.round)?;
    let at = Timestamp::new(seconds, 0)?;
    let block = BlockId::new(&[1; 32], 1, &[1; 32])?;
    let vote = |vote_type, extension| {
        let (chain_id, block) = (chain_id.clone(), Some(block.clone()));
        Vote::new(chain_id, vote_type, height, round, block, at, extension).map(Message::from)
    };
    Ok(match arguments.kind.parse()? {
        Kind::Proposal => Proposal::new(chain_id, height, round, -1, block, at)?.into(),
        Kind::Prevote => vote(VoteType::Prevote, None)?,
        Kind::Precommit => vote(VoteType::Precommit, None)?,
        Kind::Extension => vote(VoteType::Precommit, Some(Vec::new()))?,
    })
}
