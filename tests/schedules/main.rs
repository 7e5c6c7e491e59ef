//! The guard and the journal as they are, from their own sources, with the threads' locks, waits and clock
//! replaced by shuttle's (`sync.rs`): many orders of the threads' steps are tried, each on a simulated disk
//! that fails somewhere and loses power somewhere. An example, so that the sources' own tests stay out;
//! `test.rs` runs it.
//!
//! `schedules NUMBER SEED` tries so many; with a third argument on a disk that only says that it flushes.
#![allow(
    dead_code,
    missing_docs,
    unreachable_pub,
    unused_imports,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::new_without_default,
    reason = "a test, over sources of which it needs a part"
)]

// What these sources call `hsm_journal` and `crate` is this program.
extern crate self as hsm_journal;

#[path = "../../hsmd/journal/src/disk.rs"]
mod disk;
#[path = "../../hsmd/journal/src/error.rs"]
mod error;
#[path = "../../hsmd/journal/src/frame.rs"]
mod frame;
#[path = "../../hsmd/src/guard/mod.rs"]
mod guard;
#[path = "../../hsmd/journal/src/head.rs"]
mod head;
#[path = "../../hsmd/journal/src/journal.rs"]
mod journal;
#[path = "../../hsmd/journal/src/note.rs"]
pub mod note;
#[path = "../../hsmd/journal/src/open.rs"]
mod open;
#[path = "../../hsmd/journal/src/queue.rs"]
mod queue;
#[path = "../../hsmd/journal/src/reader.rs"]
mod reader;
#[path = "../../hsmd/journal/src/scan.rs"]
mod scan;
#[path = "../../hsmd/journal/src/segment.rs"]
mod segment;
#[path = "../../hsmd/journal/src/simulation/mod.rs"]
pub mod simulation;
#[path = "../../hsmd/journal/src/snapshot.rs"]
mod snapshot;
#[path = "../../hsmd/journal/src/spare.rs"]
mod spare;
#[path = "../../hsmd/journal/src/state.rs"]
mod state;
mod sync;
#[path = "../../hsmd/journal/src/tree.rs"]
mod tree;
#[path = "../../hsmd/journal/src/writer.rs"]
mod writer;

pub use error::{Error, Fault};
pub use journal::{Journal, Status, Ticket};
pub use open::{Opened, Options, Tail, create, open, open_if};
pub use reader::{Beginning, Entry, Reader, leaf_at, read};
pub use snapshot::{Cut, is_snapshot_leaf};
pub use state::{MAX_LEAF, State};
pub use tree::{Hash, Tree, leaf_hash};
pub use writer::{Flush, Observer};

mod story;

use shuttle::scheduler::{PctScheduler, RandomScheduler, Scheduler};
use shuttle::{Config, Runner};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (number, seed): (usize, u64) = match arguments.as_slice() {
        [number, seed, ..] => (number.parse().unwrap(), seed.parse().unwrap()),
        _ => panic!("usage: schedules NUMBER SEED [unflushed]"),
    };
    let stage = story::Stage::prepare(arguments.len() == 2);
    // Half of them with every step by chance, half with few changes of thread at bad moments.
    explore(RandomScheduler::new_from_seed(seed, number / 2), &stage);
    explore(PctScheduler::new_from_seed(seed, 4, number / 2), &stage);
    println!("{}", stage.seen());
}

fn explore(scheduler: impl Scheduler + 'static, stage: &story::Stage) {
    let stage = stage.clone();
    Runner::new(scheduler, config()).run(move || stage.play());
}

fn config() -> Config {
    let mut config = Config::new();
    config.stack_size = 1 << 20;
    // It says that it does not model weaker orderings than SeqCst, of which the one flag here has no need.
    config.silence_warnings = true;
    config
}
