//! What left the guard, held against every journal that may come after it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use hsm_device::PublicKey;
use hsm_policy::cometbft::{
    BlockId, ChainId, Height, Message, Position, Round, Timestamp, Vote, VoteType,
};
use hsm_proto::v1::entry::Event;

use super::super::{Ask, Error, Guard, Reservation, Signatures, Terms, entry};
use super::{KEY, SystemTime, caller, create, public_key_of};

/// The chains on which both keys of these tests sign.
const CHAINS: [&str; 2] = ["test-1", "test-2"];

/// A key on a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) key: usize,
    pub(super) chain: usize,
}

pub(super) const LINES: [Line; 4] = [
    Line { key: 0, chain: 0 },
    Line { key: 0, chain: 1 },
    Line { key: 1, chain: 0 },
    Line { key: 1, chain: 1 },
];

impl Line {
    pub(super) fn chain(self) -> ChainId {
        ChainId::new(CHAINS[self.chain]).unwrap()
    }

    pub(super) fn public_key(self) -> PublicKey {
        public_key_of(self.key)
    }

    fn name(self) -> String {
        format!("{KEY}-{}", self.key)
    }

    /// A vote for the block that `block` stands for, 0 for nil.
    pub(super) fn vote(self, step: VoteType, height: i64, block: u8, seconds: i64) -> Message {
        let block_id = (block > 0).then(|| BlockId::new(&[block; 32], 1, &[block; 32]).unwrap());
        let vote = Vote::new(
            self.chain(),
            step,
            Height::new(height).unwrap(),
            Round::new(0).unwrap(),
            block_id,
            Timestamp::new(seconds, 0).unwrap(),
            None,
        );
        Message::Vote(vote.unwrap())
    }

    pub(super) fn precommit(self, height: i64, block: u8) -> Message {
        self.vote(VoteType::Precommit, height, block, 100)
    }

    fn ask<T>(self, message: &Message, act: impl FnOnce(Ask<'_>) -> T) -> T {
        act(Ask {
            caller: &caller(),
            key: &self.name(),
            public_key: &self.public_key(),
            message,
            max_height_jump: 1000,
            terms: Terms::default(),
        })
    }

    pub(super) async fn reserve(
        self,
        guard: &Guard,
        message: &Message,
    ) -> Result<Reservation, Error> {
        let (caller, key, public_key) = (caller(), self.name(), self.public_key());
        let ask = Ask {
            caller: &caller,
            key: &key,
            public_key: &public_key,
            message,
            max_height_jump: 1000,
            terms: Terms::default(),
        };
        guard.reserve(ask, SystemTime::now()).await
    }

    /// As after the device has signed.
    pub(super) fn record_signed(self, guard: &Guard, message: &Message, reserved: &Reservation) {
        let signatures = Signatures {
            message: vec![7; 64],
            extension: None,
        };
        // Where the journal takes no entry, the signature leaves all the same.
        let _ = self.ask(message, |ask| {
            guard.record_signed(ask, reserved, &signatures, SystemTime::now())
        });
    }
}

/// A journal in which both keys are known on both chains, closed.
pub(super) async fn create_with_lines(directory: &Path) {
    create(directory);
    let guard = super::open(directory);
    for line in LINES {
        let now = SystemTime::now();
        let devices = vec![("hsm".to_owned(), None)];
        guard
            .pin(
                &line.name(),
                &line.public_key(),
                &line.chain(),
                0,
                devices,
                now,
            )
            .await
            .unwrap();
    }
    guard.close().unwrap();
}

type Place = (String, String, Position);

/// What left, over all restarts.
#[derive(Default)]
pub(super) struct Ledger(Mutex<BTreeMap<Place, Vec<u8>>>);

impl Ledger {
    /// A reservation was handed out: from now on these are the only bytes for this position.
    pub(super) fn take(
        &self,
        line: Line,
        message: &Message,
        reserved: &Reservation,
    ) -> Result<(), String> {
        let place = (
            line.public_key().to_string(),
            line.chain().to_string(),
            message.position(),
        );
        let mut left = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes = left
            .entry(place.clone())
            .or_insert_with(|| reserved.sign_bytes.clone());
        (*bytes == reserved.sign_bytes)
            .then_some(())
            .ok_or_else(|| format!("two messages at {place:?}"))
    }

    /// How many positions had a message.
    pub(super) fn positions(&self) -> usize {
        self.0.lock().unwrap().len()
    }

    /// The journal in this directory reserved every message that left, and no two for one position.
    pub(super) fn check(&self, directory: &Path) -> Result<(), String> {
        let mut reserved: BTreeMap<Place, Vec<u8>> = BTreeMap::new();
        let reader = hsm_journal::read(directory).map_err(|error| error.to_string())?;
        for leaf in reader {
            let leaf = leaf.map_err(|error| error.to_string())?.leaf;
            if hsm_journal::is_snapshot_leaf(&leaf) {
                continue;
            }
            let (_, Event::Reserved(event)) = entry::decode(&leaf)? else {
                continue;
            };
            let place = (
                entry::named_public_key(event.public_key)?.to_string(),
                event.chain_id,
                entry::position_from_wire(event.position)?,
            );
            let bytes = reserved
                .entry(place.clone())
                .or_insert_with(|| event.sign_bytes.clone());
            if *bytes != event.sign_bytes {
                return Err(format!("two entries at {place:?}"));
            }
        }
        for (place, bytes) in &*self.0.lock().unwrap() {
            match reserved.get(place) {
                Some(found) if found == bytes => {}
                Some(_) => return Err(format!("another message in the entry of {place:?}")),
                None => return Err(format!("what left at {place:?} has no entry")),
            }
        }
        Ok(())
    }
}
