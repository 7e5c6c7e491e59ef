//! Several sentries that ask one hsmd with several keys and chains for signatures, by gRPC over mutual TLS,
//! with no hsm-sentry between that would keep them from asking for too much.

use hsm_proto::v1::signer_client::SignerClient;
use hsm_proto::v1::{self as wire, SignCometbftProposalRequest, SignCometbftVoteRequest};
use tendermint_proto::google::protobuf::Timestamp;
use tendermint_proto::v0_38::types::SignedMsgType::{Precommit, Prevote};
use tendermint_proto::v0_38::types::{Proposal, Vote};
use tonic::Status;
use tonic::transport::Channel;

use crate::audit::{Place, Received, Reservations};
use crate::authority::{Identity, uri};
use crate::client::Client;
use crate::daemon::{ALL_KINDS, Daemon, Hsm, grant};
use crate::node::{block, proposal, vote};
use crate::process::Scratch;
use crate::sign_bytes;

/// Keys, and the chains that they sign for.
const LINES: [(&str, &str); 4] = [
    ("val0", "chain-a"),
    ("val0", "chain-b"),
    ("val1", "chain-a"),
    ("val2", "chain-c"),
];

/// A key on a chain.
#[derive(Clone, Debug)]
pub struct Line {
    key: &'static str,
    chain: &'static str,
    public_key: Vec<u8>,
    ledger_id: String,
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A proposal.
    Proposal,
    /// A prevote.
    Prevote,
    /// A precommit, with an extension where its block is not nil.
    Precommit,
}

/// One message.
#[derive(Clone, Copy, Debug)]
pub struct Ask {
    /// Of which kind.
    pub step: Step,
    /// At this height.
    pub height: i64,
    /// In this round.
    pub round: i32,
    /// For the block that this stands for; 0 for nil, which a proposal cannot be for.
    pub block: u8,
    /// How much the timestamp differs from others, in seconds.
    pub seconds: i64,
}

/// hsmd and the sentries.
pub struct Fleet {
    /// hsmd.
    pub daemon: Daemon,
    /// The keys and chains.
    pub lines: [Line; 4],
    /// What they got.
    pub received: Received,
    sentries: Vec<Identity>,
    _scratch: Scratch,
}

impl Fleet {
    /// Starts hsmd, and makes this many sentries, each of which may use every line.
    #[must_use]
    pub fn start(sentries: usize) -> Self {
        let scratch = Scratch::new();
        let names: Vec<String> = (0..sentries).map(|number| format!("s{number}")).collect();
        let grants = names.iter().flat_map(|name| {
            LINES.map(|(key, chain)| grant(&uri("sentry", name), key, chain, &ALL_KINDS))
        });
        let policy: String = grants.collect();
        let keys = ["val0", "val1", "val2"];
        let mut daemon = Daemon::set_up(scratch.path(), Hsm::Mock, &keys, &policy);
        for (key, chain) in LINES {
            daemon.init_key(key, chain, 0);
        }
        daemon.start();
        let line = |(key, chain)| Line {
            key,
            chain,
            public_key: daemon.public_key(key),
            ledger_id: String::new(),
        };
        let lines = LINES.map(line);
        let issue = |name: &String| daemon.authority().sentry(name);
        let sentries = names.iter().map(issue).collect();
        Self {
            daemon,
            lines,
            received: Received::default(),
            sentries,
            _scratch: scratch,
        }
    }

    /// A connection of each sentry.
    #[must_use]
    pub fn clients(&self) -> Vec<Client> {
        let ca = self.daemon.authority().certificate();
        let client = |identity| Client::new(self.daemon.port(), &ca, Some(identity));
        self.sentries.iter().map(client).collect()
    }

    /// Holds the journal against what the sentries got; returns how many positions it reserved.
    ///
    /// # Panics
    ///
    /// If a position has two messages, or a signature no entry.
    pub fn check(&self) -> usize {
        let journal = self.daemon.journal();
        let reservations = Reservations::of(&journal);
        if self.received.positions() > 0 {
            reservations.assert_one_message_a_position();
        }
        self.received.assert_reserved_in(&reservations);
        reservations.positions()
    }
}

/// Asks, and takes in what comes back.
///
/// # Errors
///
/// The status that came back.
///
/// # Panics
///
/// If a signature does not verify, or is the second for its position.
pub async fn ask(
    signer: &mut SignerClient<Channel>,
    line: &Line,
    ask: Ask,
    received: &Received,
) -> Result<(), Status> {
    match ask.step {
        Step::Proposal => ask_proposal(signer, line, ask, received).await,
        Step::Prevote | Step::Precommit => ask_vote(signer, line, ask, received).await,
    }
}

async fn ask_vote(
    signer: &mut SignerClient<Channel>,
    line: &Line,
    ask: Ask,
    received: &Received,
) -> Result<(), Status> {
    let (kind, name) = match ask.step {
        Step::Precommit => (Precommit, "precommit"),
        _ => (Prevote, "prevote"),
    };
    let id = (ask.block > 0).then(|| block(ask.block));
    let asked = vote(kind, ask.height, ask.round, id);
    let extension = (kind == Precommit && ask.block > 0).then(|| vec![ask.block; 8]);
    let request = SignCometbftVoteRequest {
        key: line.key.to_owned(),
        chain_id: line.chain.to_owned(),
        r#type: asked.r#type,
        height: ask.height,
        round: ask.round,
        block_id: (ask.block > 0).then(|| wire_block(ask.block)),
        timestamp: Some(ask.timestamp()),
        extension: extension.clone(),
        ledger_id: line.ledger_id.clone(),
    };
    let signed = signer.sign_cometbft_vote(request).await?.into_inner();
    let asked = Vote {
        timestamp: signed.timestamp.map(from_wire),
        ..asked
    };
    let bytes = sign_bytes::vote(line.chain, &asked);
    line.take(received, ask, name, &bytes, &signed.signature);
    if let Some(extension) = extension {
        let bytes = sign_bytes::extension(line.chain, ask.height, ask.round, &extension);
        let signature = &signed.extension_signature;
        assert!(
            sign_bytes::verifies(&line.public_key, &bytes, signature),
            "the extension's signature does not verify: {ask:?}"
        );
    }
    Ok(())
}

async fn ask_proposal(
    signer: &mut SignerClient<Channel>,
    line: &Line,
    ask: Ask,
    received: &Received,
) -> Result<(), Status> {
    let asked = proposal(ask.height, ask.round, block(ask.block));
    let request = SignCometbftProposalRequest {
        key: line.key.to_owned(),
        chain_id: line.chain.to_owned(),
        height: ask.height,
        round: ask.round,
        pol_round: asked.pol_round,
        block_id: Some(wire_block(ask.block)),
        timestamp: Some(ask.timestamp()),
        ledger_id: line.ledger_id.clone(),
    };
    let signed = signer.sign_cometbft_proposal(request).await?.into_inner();
    let asked = Proposal {
        timestamp: signed.timestamp.map(from_wire),
        ..asked
    };
    let bytes = sign_bytes::proposal(line.chain, &asked);
    line.take(received, ask, "proposal", &bytes, &signed.signature);
    Ok(())
}

impl Line {
    /// A key of any hsmd, with its raw public key.
    #[must_use]
    pub fn new(key: &'static str, chain: &'static str, public_key: Vec<u8>) -> Self {
        Self {
            key,
            chain,
            public_key,
            ledger_id: String::new(),
        }
    }

    /// The same, whose requests want its mark shared through this ledger.
    #[must_use]
    pub fn in_ledger(mut self, id: &str) -> Self {
        id.clone_into(&mut self.ledger_id);
        self
    }

    fn take(&self, received: &Received, ask: Ask, step: &str, bytes: &[u8], signature: &[u8]) {
        assert!(
            sign_bytes::verifies(&self.public_key, bytes, signature),
            "the signature does not verify: {ask:?}"
        );
        let (key, chain) = (hex::encode(&self.public_key), self.chain.to_owned());
        let round = i64::from(ask.round);
        let place: Place = (key, chain, ask.height, round, step.to_owned());
        received.take(place, bytes);
    }
}

impl Ask {
    fn timestamp(self) -> prost_types::Timestamp {
        let mut now = prost_types::Timestamp::from(std::time::SystemTime::now());
        now.seconds += self.seconds;
        now
    }
}

fn from_wire(timestamp: prost_types::Timestamp) -> Timestamp {
    Timestamp {
        seconds: timestamp.seconds,
        nanos: timestamp.nanos,
    }
}

fn wire_block(byte: u8) -> wire::BlockId {
    let id = block(byte);
    let parts = id.part_set_header.expect("a block has parts");
    wire::BlockId {
        hash: id.hash,
        part_set_total: parts.total,
        part_set_hash: parts.hash,
    }
}
