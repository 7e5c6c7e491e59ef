//! The protocol on the real guard and journal, with a simulated anchor: images are taken and put back at any moment,
//! hsmd is ended in every way, advances fail before and after they were made. Promises 2 and 3.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use fastrand::Rng;
use hsm_device::{Algorithm, PublicKey};
use hsm_journal::State as _;
use hsm_policy::cometbft::{BlockId, ChainId, Height, Message, Round, Timestamp, Vote, VoteType};
use hsm_proto::v1 as wire;
use hsm_proto::v1::entry::Event;

use super::simulated::{Fail, Simulated};
use super::start::resume;
use super::*;
use crate::config::Pace;
use crate::guard::{Ask, Error as Refused, Guard, LastEntry, State as Marks, entry};

const KEY: &str = "validator";
const PACE: Pace = Pace {
    window: 6,
    spare: 2,
    interval: Duration::ZERO,
};

/// What is wrong with the program under test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flaw {
    None,
    /// It takes the anchor to be where the journal says.
    BlindToTheAnchor,
    /// It takes every journal for whole.
    BlindToTheEnd,
}

/// How a life ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Clean,
    Killed,
}

/// A deployment on a computer whose disk is imaged and restored.
struct World {
    directory: tempfile::TempDir,
    copies: usize,
    /// The state directory in use.
    state: PathBuf,
    images: Vec<PathBuf>,
    anchor: Simulated,
    last: File,
    boot: u32,
    signed: BTreeMap<i64, Vec<u8>>,
    random: Rng,
    refused: usize,
    silent: usize,
}

fn public_key() -> PublicKey {
    // RFC 8032 section 7.1, test 1.
    let bytes = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
    PublicKey::from_parts(Algorithm::Ed25519, &hex::decode(bytes).unwrap()).unwrap()
}

fn chain() -> ChainId {
    ChainId::new("test-1").unwrap()
}

fn vote(height: i64, block: u8) -> Message {
    let vote = Vote::new(
        chain(),
        VoteType::Precommit,
        Height::new(height).unwrap(),
        Round::new(0).unwrap(),
        Some(BlockId::new(&[block; 32], 1, &[block; 32]).unwrap()),
        Timestamp::new(100, 0).unwrap(),
        None,
    );
    Message::Vote(vote.unwrap())
}

async fn reserve(
    guard: &Guard,
    keeper: &mut Keeper,
    height: i64,
    block: u8,
) -> Result<Vec<u8>, Refused> {
    let caller = "spiffe://test.example/sentry/a".parse().unwrap();
    let (public_key, message) = (public_key(), vote(height, block));
    let ask = Ask {
        caller: &caller,
        key: KEY,
        public_key: &public_key,
        message: &message,
        max_height_jump: 1000,
        terms: crate::guard::Terms::default(),
    };
    let keeping = async {
        loop {
            guard.advance_wanted().await;
            let ended = keeper.advance_if_due(guard).await;
            let fault = ended.and_then(Result::err).map(|fault| fault.to_string());
            guard.advance_ended(fault);
        }
    };
    tokio::select! {
        reserved = guard.reserve(ask, SystemTime::now()) => reserved.map(|made| made.sign_bytes),
        () = keeping => unreachable!(),
    }
}

impl World {
    async fn begin(seed: u64) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let state = directory.path().join("0");
        let anchor = Simulated::default();
        let deployment_id = vec![7; 16];
        let counter = anchor.make(tag(&deployment_id)).unwrap();
        let created = wire::StateCreated {
            deployment_id,
            anchor: Some(wire::AnchorBound {
                kind: "tpm".to_owned(),
                counter,
                authorisation: None,
            }),
        };
        let first = entry::encode(SystemTime::now(), Event::StateCreated(created));
        hsm_journal::create(&state, &Marks::default().snapshot(), &first).unwrap();
        let mut world = Self {
            last: File::options()
                .read(true)
                .write(true)
                .create_new(true)
                .open(directory.path().join("last"))
                .unwrap(),
            directory,
            copies: 0,
            state,
            images: Vec::new(),
            anchor,
            boot: 0,
            signed: BTreeMap::new(),
            random: Rng::with_seed(seed),
            refused: 0,
            silent: 0,
        };
        let opened = world.start(Flaw::None).await.unwrap();
        let devices = vec![("hsm".to_owned(), None)];
        let (guard, now) = (&opened.guard, SystemTime::now());
        guard
            .pin(KEY, &public_key(), &chain(), 0, devices, now)
            .await
            .unwrap();
        world.end(opened, End::Clean).await;
        world
    }

    fn last(&self) -> LastEntry {
        LastEntry::new(self.last.try_clone().unwrap(), self.boot.to_string())
    }

    async fn start(&mut self, flaw: Flaw) -> Result<Opened, Failure> {
        match flaw {
            Flaw::None => {}
            Flaw::BlindToTheAnchor => self.move_the_anchor_to_the_journal(),
            Flaw::BlindToTheEnd => {
                let first = hsm_journal::leaf_at(&self.state, 0).unwrap().unwrap();
                self.last()
                    .write(0, &hsm_journal::leaf_hash(&first))
                    .unwrap();
            }
        }
        let (directory, anchor, last) = (self.state.clone(), self.anchor.anchor(), self.last());
        let opened = resume(anchor, last, PACE, &directory, |admit| {
            let opened =
                hsm_journal::open_if::<Marks>(&directory, hsm_journal::Options::default(), admit)?;
            Ok(Guard::new(opened.state, opened.journal))
        })
        .await?;
        let started = Event::DaemonStarted(wire::DaemonStarted::default());
        opened
            .guard
            .record_durably(started, SystemTime::now())
            .await?;
        Ok(opened)
    }

    fn move_the_anchor_to_the_journal(&self) {
        let opened =
            hsm_journal::open::<Marks>(&self.state, hsm_journal::Options::default()).unwrap();
        let counter = opened.state.anchor().unwrap().counter;
        let tag = tag(opened.state.deployment_id());
        self.anchor.set(vec![Found { tag, counter }]);
    }

    /// A copy of the state directory as it is on the disk.
    fn copy(&mut self) -> PathBuf {
        self.copies += 1;
        let to = self.directory.path().join(self.copies.to_string());
        copy(&self.state, &to);
        to
    }

    async fn end(&mut self, opened: Opened, end: End) {
        let Opened { guard, keeper, .. } = opened;
        if end == End::Clean {
            // It fails where the anchor does: then the end is no clean one.
            let _ = keeper.unwrap().seal(&guard).await;
            guard.close().unwrap();
            return;
        }
        // Dropping the guard writes what waits, which a killed process does not.
        self.state = self.copy();
    }

    /// From a start to an end.
    async fn live(&mut self, flaw: Flaw) -> Result<(), String> {
        let mut opened = match self.start(flaw).await {
            Ok(opened) => opened,
            Err(refused) => {
                let text = refused.to_string();
                assert!(
                    text.contains("rolled back") || text.contains("injected"),
                    "{text}"
                );
                self.refused += 1;
                return Ok(());
            }
        };
        for _ in 0..self.random.usize(..25) {
            if self.random.usize(..8) == 0 {
                let image = self.copy();
                self.images.push(image);
            }
            if self.random.usize(..10) == 0 {
                let fail = [Fail::Before, Fail::After][self.random.usize(..2)];
                self.anchor.fail_next(Some(fail));
            }
            self.ask(&mut opened).await?;
        }
        let end = [End::Clean, End::Killed][self.random.usize(..2)];
        self.end(opened, end).await;
        self.anchor.fail_next(None);
        Ok(())
    }

    async fn ask(&mut self, opened: &mut Opened) -> Result<(), String> {
        let (guard, keeper) = (&opened.guard, opened.keeper.as_mut().unwrap());
        let mark =
            guard.inspect(|state| state.mark(&public_key(), &chain()).unwrap().mark.height());
        let mark = mark.unwrap();
        let top = self.signed.keys().last().copied().unwrap_or(0);
        let height = match self.random.usize(..3) {
            0 => top + 1,
            1 => self.random.i64(mark..=top.max(mark) + 1).max(1),
            _ => mark + 1,
        };
        let block = self.random.u8(1..4);
        match reserve(guard, keeper, height, block).await {
            Ok(bytes) => {
                let before = self.signed.entry(height).or_insert_with(|| bytes.clone());
                if *before != bytes {
                    return Err(format!("two messages at height {height}"));
                }
            }
            Err(Refused::Unproven { .. }) => self.silent += 1,
            Err(Refused::Conflict { .. } | Refused::Anchor(_)) => {}
            Err(other) => return Err(other.to_string()),
        }
        Ok(())
    }

    /// What operators do between two lives.
    fn interfere(&mut self) {
        if self.random.usize(..3) == 0 {
            self.boot += 1;
        }
        if !self.images.is_empty() && self.random.usize(..2) == 0 {
            let newest = self.copy();
            self.images.push(newest);
            let image = self.images[self.random.usize(..self.images.len())].clone();
            self.copies += 1;
            self.state = self.directory.path().join(self.copies.to_string());
            copy(&image, &self.state);
        }
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for file in std::fs::read_dir(from).unwrap() {
        let path = file.unwrap().path();
        let name = path.file_name().unwrap();
        // Others come and go while hsmd prepares its next segment.
        if name == "head" || name.to_str().unwrap().starts_with("segment-") {
            std::fs::copy(&path, to.join(name)).unwrap();
        }
    }
}

fn history(seed: u64, lives: usize, flaw: Flaw) -> Result<(usize, usize, usize), String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut world = World::begin(seed).await;
        for _ in 0..lives {
            world.live(flaw).await?;
            world.interfere();
        }
        Ok((world.signed.len(), world.refused, world.silent))
    })
}

/// The seed of a test: from `HSMD_SEED`, or by chance. A failing test prints it.
fn seed() -> u64 {
    let given = std::env::var("HSMD_SEED").ok();
    let seed = given.map_or_else(|| fastrand::u64(..), |seed| seed.parse().unwrap());
    println!("HSMD_SEED={seed}");
    seed
}

#[test]
fn whatever_image_is_put_back_no_height_gets_two_messages() {
    let rounds = if std::env::var_os("HSMD_SOAK").is_some() {
        1000
    } else {
        20
    };
    let seed = seed();
    let mut seen = (0, 0, 0);
    for round in 0..rounds {
        let (signed, refused, silent) = history(seed.wrapping_add(round), 15, Flaw::None)
            .unwrap_or_else(|found| panic!("{found}, in round {round} of HSMD_SEED={seed}"));
        seen = (seen.0 + signed, seen.1 + refused, seen.2 + silent);
    }
    println!("heights signed, starts refused, requests below a floor: {seen:?}");
    assert!(seen.0 > 200 && seen.1 > 20 && seen.2 > 20, "{seen:?}");
}

/// The method is worth something: it finds programs that do not look.
#[test]
fn a_start_that_looks_at_neither_anchor_nor_end_is_found_out() {
    let seed = seed();
    for flaw in [Flaw::BlindToTheAnchor, Flaw::BlindToTheEnd] {
        let found = (0..200).find_map(|round| history(seed.wrapping_add(round), 15, flaw).err());
        let found = found.unwrap_or_else(|| panic!("{flaw:?} was not found"));
        assert!(found.contains("two messages"), "{flaw:?}: {found}");
    }
}

#[tokio::test]
async fn an_advance_that_was_journaled_and_not_made_is_completed_at_start() {
    for fail in [Fail::Before, Fail::After] {
        let mut world = World::begin(1).await;
        let mut opened = world.start(Flaw::None).await.unwrap();
        world.anchor.fail_next(Some(fail));
        let keeper = opened.keeper.as_mut().unwrap();
        let failed = reserve(&opened.guard, keeper, 1, 1).await;
        assert!(matches!(failed, Err(Refused::Anchor(_))), "{failed:?}");
        world.end(opened, End::Killed).await;
        let mut opened = world.start(Flaw::None).await.unwrap();
        let keeper = opened.keeper.as_mut().unwrap();
        reserve(&opened.guard, keeper, 1, 1).await.unwrap();
    }
}

#[tokio::test]
async fn an_advance_whose_answer_was_lost_is_not_made_twice() {
    let mut world = World::begin(1).await;
    let mut opened = world.start(Flaw::None).await.unwrap();
    let moved = world.anchor.moved();
    world.anchor.fail_next(Some(Fail::After));
    let keeper = opened.keeper.as_mut().unwrap();
    reserve(&opened.guard, keeper, 1, 1).await.unwrap_err();
    reserve(&opened.guard, keeper, 1, 1).await.unwrap();
    assert_eq!(world.anchor.moved(), moved + 1);
}

#[tokio::test]
async fn an_anchor_that_somebody_else_moves_ends_the_signing_above_the_ceiling() {
    let mut world = World::begin(1).await;
    let mut opened = world.start(Flaw::None).await.unwrap();
    let keeper = opened.keeper.as_mut().unwrap();
    reserve(&opened.guard, keeper, 1, 1).await.unwrap();
    let found = world.anchor.read().unwrap()[0];
    let counter = found.counter + 1;
    world.anchor.set(vec![Found { counter, ..found }]);
    let refused = reserve(&opened.guard, keeper, 100, 1).await.unwrap_err();
    assert!(refused.to_string().contains("another hsmd"), "{refused}");
}

#[tokio::test]
async fn a_start_that_signs_nothing_neither_wears_the_anchor_nor_moves_a_floor() {
    let mut world = World::begin(1).await;
    let mut opened = world.start(Flaw::None).await.unwrap();
    let keeper = opened.keeper.as_mut().unwrap();
    reserve(&opened.guard, keeper, 1, 1).await.unwrap();
    world.end(opened, End::Killed).await;
    let moved = world.anchor.moved();
    let mut floors = Vec::new();
    for _ in 0..5 {
        world.boot += 1;
        let mut opened = world.start(Flaw::None).await.unwrap();
        assert!(opened.doubted);
        assert!(
            opened
                .keeper
                .as_mut()
                .unwrap()
                .advance_if_due(&opened.guard)
                .await
                .is_none()
        );
        let floor = opened.guard.inspect(|state| {
            (
                state.mark(&public_key(), &chain()).unwrap().bounds.floor,
                *state.unproven().unwrap(),
            )
        });
        floors.push(floor.unwrap());
        world.end(opened, End::Killed).await;
    }
    assert_eq!(world.anchor.moved(), moved);
    assert!(
        floors.windows(2).all(|pair| pair[0] == pair[1]),
        "{floors:?}"
    );
}

#[tokio::test]
async fn ten_advances_may_follow_each_other_and_then_one_an_interval() {
    let mut world = World::begin(1).await;
    let opened = world.start(Flaw::None).await.unwrap();
    let tag = opened
        .guard
        .inspect(|state| tag(state.deployment_id()))
        .unwrap();
    let counter = world.anchor.read().unwrap()[0].counter;
    let pace = Pace {
        interval: Duration::from_secs(3600),
        ..PACE
    };
    let mut keeper = Keeper::new(world.anchor.anchor(), tag, counter, pace);
    for height in 1..=10 {
        reserve(&opened.guard, &mut keeper, height * 100, 1)
            .await
            .unwrap();
    }
    let refused = reserve(&opened.guard, &mut keeper, 1100, 1)
        .await
        .unwrap_err();
    assert!(refused.to_string().contains("wears"), "{refused}");
}
