//! A key whose mark is shared through a real etcd of three members, beside what that cannot be faster than: the bare
//! transaction, by the same client, and one local flush. All take turns.

use std::path::Path;
use std::time::Duration;

use hsm_tests::etcd::Etcd;
use hsm_tests::process::Scratch;
use hsmd::config::{Config, MockDevices};
use hsmd::ledger::{self, Swapped};

use crate::driver::{Nodes, Times};
use crate::limits::{Flusher, time};
use crate::server::{Serve, Server};

/// Heights, of two votes each.
const HEIGHTS: usize = 500;
/// About the size of a row, in bytes.
const ROW: usize = 256;

pub(crate) fn measure(disk: &Path) {
    let (sockets, state) = (Scratch::new(), Scratch::new_in(disk));
    let members = Etcd::start(state.path());
    let shared = members.configuration();
    let ours = Server::start_as(
        Serve::Whole,
        sockets.path(),
        state.path(),
        1,
        Duration::ZERO,
        &shared,
    );
    let mut nodes = Nodes::listen(sockets.path(), "ledger", 1);
    let _sentry = ours.start_sentry(sockets.path(), &nodes);
    nodes.accept();
    let mut bare = Bare::new(&state.path().join("hsmd.toml"));
    let mut flusher = Flusher::new(state.path(), "flush");
    let [mut votes, mut transaction, mut flush] = [const { Times::empty() }; 3];
    for _ in 0..HEIGHTS {
        votes.extend(nodes.drive_height());
        for _ in 0..2 {
            transaction.extend(time(|| bare.swap()));
            flush.extend(time(|| flusher.flush()));
        }
    }
    votes.print("hsmd_ledger");
    transaction.print("limit_etcd_transaction");
    flush.print("limit_flush_beside_etcd");
    for (name, quantile) in [("p50", 0.5), ("p99", 0.99)] {
        let limit = transaction.quantile(quantile) + flush.quantile(quantile);
        let ratio = votes.quantile(quantile) / limit;
        println!("ratio hsmd_ledger_to_transaction_and_flush_{name} {ratio:.2}");
    }
}

/// One row of nobody's, changed again and again.
struct Bare {
    runtime: tokio::runtime::Runtime,
    etcd: ledger::Etcd,
    value: Option<Vec<u8>>,
    count: u64,
}

impl Bare {
    fn new(config: &Path) -> Self {
        let config = Config::load(config, MockDevices::Refused).expect("a good configuration");
        let ledger = config.ledger.expect("a ledger");
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        let etcd = runtime.block_on(async {
            ledger::Etcd::new(&ledger.endpoints, &ledger.files, config.deadline)
        });
        Self {
            runtime,
            etcd: etcd.expect("a client"),
            value: None,
            count: 0,
        }
    }

    fn swap(&mut self) {
        self.count += 1;
        let mut new = vec![0; ROW];
        new[..8].copy_from_slice(&self.count.to_be_bytes());
        let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
        let swap = self
            .etcd
            .swap(b"tests/bench", self.value.as_deref(), new, deadline);
        match self.runtime.block_on(swap).expect("an answer") {
            Swapped::Done(answer) => self.value = answer.value,
            Swapped::Not(_) => panic!("somebody else changed the row"),
        }
    }
}
