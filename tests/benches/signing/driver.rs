//! Plays nodes that ask for a prevote and a precommit at every height, each as soon as it has the last answer.

use std::path::Path;
use std::time::{Duration, Instant};

use hsm_tests::node::{Address, Connection, Node, block, vote};
use hsm_tests::sign_bytes;
use tendermint_proto::v0_38::types::SignedMsgType::{Precommit, Prevote};

use crate::{chain_id, socket};

/// Nodes of as many chains, each with a UNIX socket.
pub(crate) struct Nodes {
    listeners: Vec<Node>,
    connected: Vec<Connected>,
}

struct Connected {
    chain_id: String,
    connection: Connection,
    height: i64,
}

impl Nodes {
    /// Listens.
    pub(crate) fn listen(directory: &Path, name: &str, count: usize) -> Self {
        let listen =
            |index| Node::listen(Address::Unix(socket(directory, name, index))).expect("a socket");
        Self {
            listeners: (0..count).map(listen).collect(),
            connected: Vec::new(),
        }
    }

    /// Where each node listens.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = &Address> {
        self.listeners.iter().map(Node::address)
    }

    /// Waits for the signer to connect to every node, and verifies a first vote on each chain.
    pub(crate) fn accept(&mut self) {
        for (index, listener) in self.listeners.iter().enumerate() {
            let connection = listener.accept().expect("the signer connects");
            let mut connected = Connected {
                chain_id: chain_id(index),
                connection,
                height: 1,
            };
            connected.verify_one();
            self.connected.push(connected);
        }
    }

    /// Asks on `chains` chains at once for this long.
    pub(crate) fn drive(&mut self, chains: usize, time: Duration) -> Times {
        let begun = Instant::now();
        let seconds = std::thread::scope(|scope| {
            let threads: Vec<_> = self.connected[..chains]
                .iter_mut()
                .map(|node| {
                    scope.spawn(move || {
                        let mut times = Vec::new();
                        while begun.elapsed() < time {
                            node.height(&mut times);
                        }
                        times
                    })
                })
                .collect();
            threads
                .into_iter()
                .flat_map(|thread| thread.join().expect("a node's thread"))
                .collect()
        });
        Times::new(seconds, begun.elapsed())
    }

    /// Asks on the first chain for the votes of one height.
    pub(crate) fn drive_height(&mut self) -> Times {
        let begun = Instant::now();
        let mut times = Vec::new();
        self.connected[0].height(&mut times);
        Times::new(times, begun.elapsed())
    }
}

impl Connected {
    /// The two votes of one height.
    fn height(&mut self, times: &mut Vec<f64>) {
        self.height += 1;
        for kind in [Prevote, Precommit] {
            let vote = vote(kind, self.height, 0, Some(block(1)));
            let begun = Instant::now();
            let signed = self
                .connection
                .sign_vote(&self.chain_id, &vote)
                .expect("a signature");
            times.push(begun.elapsed().as_secs_f64());
            assert_eq!(signed.signature.len(), 64, "no signature");
        }
    }

    fn verify_one(&mut self) {
        let public_key = self
            .connection
            .public_key(&self.chain_id)
            .expect("a public key");
        let asked = vote(Prevote, self.height, 0, Some(block(1)));
        let signed = self
            .connection
            .sign_vote(&self.chain_id, &asked)
            .expect("a signature");
        let bytes = sign_bytes::vote(&self.chain_id, &signed);
        assert!(
            sign_bytes::verifies(&public_key, &bytes, &signed.signature),
            "a bad signature"
        );
    }
}

/// How long each of some operations took.
pub(crate) struct Times {
    /// Seconds, ascending.
    seconds: Vec<f64>,
    /// How long all of them took together, side by side.
    elapsed: Duration,
}

impl Times {
    pub(crate) fn new(mut seconds: Vec<f64>, elapsed: Duration) -> Self {
        seconds.sort_by(f64::total_cmp);
        Self { seconds, elapsed }
    }

    /// None yet.
    pub(crate) const fn empty() -> Self {
        Self {
            seconds: Vec::new(),
            elapsed: Duration::ZERO,
        }
    }

    /// Adds another turn.
    pub(crate) fn extend(&mut self, other: Self) {
        self.seconds.extend(other.seconds);
        self.seconds.sort_by(f64::total_cmp);
        self.elapsed += other.elapsed;
    }

    /// How many operations there were.
    #[allow(clippy::cast_precision_loss, reason = "far below 2^52 operations")]
    pub(crate) fn count(&self) -> f64 {
        self.seconds.len() as f64
    }

    /// Operations a second.
    pub(crate) fn rate(&self) -> f64 {
        self.count() / self.elapsed.as_secs_f64()
    }

    /// Milliseconds.
    pub(crate) fn mean(&self) -> f64 {
        self.seconds.iter().sum::<f64>() / self.count() * 1e3
    }

    /// Milliseconds.
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "an index into what fits into memory"
    )]
    pub(crate) fn quantile(&self, quantile: f64) -> f64 {
        let index = (self.count() * quantile) as usize;
        self.seconds[index.min(self.seconds.len() - 1)] * 1e3
    }

    pub(crate) fn print(&self, name: &str) {
        println!("{name}_rate {:.0} 1/s", self.rate());
        println!("{name}_p50 {:.3} ms", self.quantile(0.5));
        println!("{name}_p99 {:.3} ms", self.quantile(0.99));
    }
}
