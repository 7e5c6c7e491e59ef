//! What is played in every order: three callers who want different blocks at one position, a fault of the
//! disk, and a look at what a power cut would leave.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::SystemTime;

use hsm_device::{Algorithm, PublicKey};
use hsm_policy::cometbft::{BlockId, ChainId, Height, Message, Round, Timestamp, Vote, VoteType};
use hsm_policy::identity::Caller;
use hsm_proto::v1 as wire;
use hsm_proto::v1::entry::Event;
use shuttle::rand::Rng as _;
use shuttle::scheduler::RandomScheduler;
use shuttle::{future, thread};
use tempfile::TempDir;

use crate::guard::{self, Ask, Guard, entry};
use crate::simulation::{INPUT_OUTPUT, Injection, MODES, Operation, Simulation};
use crate::{Options, State as _};

const KEY: &str = "validator";

/// What all schedules begin with, and what they saw.
#[derive(Clone)]
pub struct Stage {
    directory: Arc<TempDir>,
    seen: Arc<Seen>,
    /// Whether the disk flushes, or only says so.
    flushes: bool,
}

#[derive(Default)]
struct Seen {
    played: AtomicUsize,
    faults: AtomicUsize,
    refused: AtomicUsize,
    cuts_after_an_answer: AtomicUsize,
}

/// The messages that were handed out. Not a lock of shuttle's: it is never held over a step.
type Released = Arc<std::sync::Mutex<BTreeSet<Vec<u8>>>>;

impl Stage {
    /// A journal in which the key is known.
    pub fn prepare(flushes: bool) -> Self {
        let memory = Path::new("/dev/shm");
        let parent = if memory.is_dir() {
            memory.to_owned()
        } else {
            std::env::temp_dir()
        };
        let stage = Self {
            directory: Arc::new(tempfile::tempdir_in(parent).unwrap()),
            seen: Arc::default(),
            flushes,
        };
        let path = stage.directory.path().join("first");
        let created = Event::StateCreated(wire::StateCreated {
            deployment_id: vec![1; 16],
            anchor: None,
        });
        let first = entry::encode(SystemTime::now(), created);
        shuttle::Runner::new(RandomScheduler::new(1), crate::config()).run(move || {
            crate::create(&path, &guard::State::default().snapshot(), &first).unwrap();
            let guard = open(&Simulation::over(&path), &path).unwrap();
            let chain = chain();
            let key = public_key();
            let pinned = guard.pin(KEY, &key, &chain, 0, Vec::new(), SystemTime::now());
            future::block_on(pinned).unwrap();
            guard.close().unwrap();
        });
        stage
    }

    pub fn seen(&self) -> String {
        let Seen {
            played,
            faults,
            refused,
            cuts_after_an_answer,
        } = &*self.seen;
        format!(
            "{played:?} schedules, {faults:?} with a fault, {refused:?} refusals, {cuts_after_an_answer:?} cuts after an answer"
        )
    }

    /// One schedule.
    pub fn play(&self) {
        let played = self.seen.played.fetch_add(1, Ordering::Relaxed);
        let path = self.directory.path().join(format!("journal-{played}"));
        copy(&self.directory.path().join("first"), &path);
        let disk = Simulation::over(&path);
        let mut random = shuttle::rand::thread_rng();
        if self.flushes && random.gen_range(0..4) > 0 {
            disk.inject(Injection {
                operation: None,
                nth: random.gen_range(8..20),
                times: random.gen_range(1..4),
                mode: MODES[random.gen_range(0..MODES.len())],
                error: INPUT_OUTPUT,
            });
        }
        // A start may meet the fault; another one heals.
        let guard = loop {
            match open(&disk, &path) {
                Ok(guard) => break guard,
                Err(error) => assert!(matches!(error, crate::Error::Disk(_)), "{error}"),
            }
        };
        disk.ignore(Operation::Flush, !self.flushes);
        self.race(Arc::new(guard), &disk);
        self.seen
            .faults
            .fetch_add(usize::from(disk.failed() > 0), Ordering::Relaxed);
        fs::remove_dir_all(path).unwrap();
    }

    fn race(&self, guard: Arc<Guard>, disk: &Simulation) {
        let released = Released::default();
        let mut threads: Vec<_> = (1..=3)
            .map(|block| {
                let (stage, guard, released) = (self.clone(), guard.clone(), released.clone());
                thread::spawn(move || stage.caller(&guard, block, &released))
            })
            .collect();
        let (stage, cut, seen) = (self.clone(), disk.clone(), released.clone());
        threads.push(thread::spawn(move || {
            thread::yield_now();
            stage.cut_power(&cut, &seen);
        }));
        for thread in threads {
            thread.join().unwrap();
        }
        // Whatever was answered above was answered before this cut.
        self.cut_power(disk, &released);
        assert!(
            released.lock().unwrap().len() <= 1,
            "two messages for one position"
        );
        let _ = guard.close();
    }

    /// Asks, and asks again where the disk failed.
    fn caller(&self, guard: &Guard, block: u8, released: &Released) {
        let message = precommit(block);
        for _ in 0..2 {
            match future::block_on(reserve(guard, &message)) {
                Ok(reserved) => {
                    released.lock().unwrap().insert(reserved.sign_bytes);
                    return;
                }
                Err(guard::Error::Conflict { .. }) => {
                    self.seen.refused.fetch_add(1, Ordering::Relaxed);
                    return;
                }
                Err(guard::Error::Journal(crate::Error::NotDurable(_))) => {}
                Err(other) => panic!("{other}"),
            }
        }
    }

    /// What was handed out before the power is cut is in what is left.
    fn cut_power(&self, disk: &Simulation, released: &Released) {
        let before = released.lock().unwrap().clone();
        let left = tempfile::tempdir_in(self.directory.path()).unwrap();
        disk.cut_power(left.path(), |n| shuttle::rand::thread_rng().gen_range(0..n));
        let reserved = reserved(left.path());
        assert!(reserved.len() <= 1, "two entries for one position");
        assert!(before.is_subset(&reserved), "what left has no entry");
        self.seen
            .cuts_after_an_answer
            .fetch_add(usize::from(!before.is_empty()), Ordering::Relaxed);
    }
}

fn open(disk: &Simulation, path: &Path) -> Result<Guard, crate::Error> {
    let options = Options {
        segment_bytes: 2048,
        ..Options::default()
    };
    let opened = disk.open::<guard::State>(path, options)?;
    Ok(Guard::new(opened.state, opened.journal))
}

fn copy(from: &Path, to: &PathBuf) {
    fs::create_dir(to).unwrap();
    for file in fs::read_dir(from).unwrap().map(Result::unwrap) {
        fs::copy(file.path(), to.join(file.file_name())).unwrap();
    }
}

/// The sign bytes of all reservations in a journal.
fn reserved(directory: &Path) -> BTreeSet<Vec<u8>> {
    let leaves = crate::read(directory)
        .unwrap()
        .map(|entry| entry.unwrap().leaf);
    leaves
        .filter(|leaf| !crate::is_snapshot_leaf(leaf))
        .filter_map(|leaf| match entry::decode(&leaf).unwrap().1 {
            Event::Reserved(reserved) => Some(reserved.sign_bytes),
            _ => None,
        })
        .collect()
}

async fn reserve(guard: &Guard, message: &Message) -> Result<guard::Reservation, guard::Error> {
    let caller: Caller = "spiffe://test.example/sentry/a".parse().unwrap();
    let public_key = public_key();
    let ask = Ask {
        caller: &caller,
        key: KEY,
        public_key: &public_key,
        message,
        max_height_jump: 1000,
        terms: guard::Terms::default(),
    };
    guard.reserve(ask, SystemTime::now()).await
}

fn chain() -> ChainId {
    ChainId::new("test-1").unwrap()
}

/// The public key of RFC 8032 §7.1, test 1.
fn public_key() -> PublicKey {
    let hex = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
    PublicKey::from_parts(Algorithm::Ed25519, &hex::decode(hex).unwrap()).unwrap()
}

fn precommit(block: u8) -> Message {
    let vote = Vote::new(
        chain(),
        VoteType::Precommit,
        Height::new(1).unwrap(),
        Round::new(0).unwrap(),
        Some(BlockId::new(&[block; 32], 1, &[block; 32]).unwrap()),
        Timestamp::new(100, 0).unwrap(),
        None,
    );
    Message::Vote(vote.unwrap())
}
