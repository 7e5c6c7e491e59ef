//! Callers at once, each with a key and a connection of its own, straight over gRPC: durable signatures beside what the
//! same server does with its guard switched off, and beside the disk's own flush rate, in turns.

use std::net::Ipv4Addr;
use std::path::Path;
use std::time::{Duration, Instant};

use hsm_proto::v1::signer_client::SignerClient;
use hsm_proto::v1::{BlockId, SignCometbftVoteRequest, VoteType};
use hsm_tests::client::channel;
use hsm_tests::http;
use hsm_tests::process::Scratch;
use tokio::runtime::Runtime;
use tonic::transport::Channel;

use crate::driver::Times;
use crate::limits;
use crate::server::{Serve, Server};
use crate::{Stages, TURNS, chain_id};

const LOADS: [usize; 4] = [1, 16, 64, 256];
/// How long each turn is.
const TURN: Duration = Duration::from_secs(2);

pub(crate) fn measure(disk: &Path) {
    let most = LOADS[LOADS.len() - 1];
    let (sockets, state) = (Scratch::new(), Scratch::new_in(disk));
    let (free_sockets, free_state) = (Scratch::new(), Scratch::new_in(disk));
    let guarded = Server::start(sockets.path(), state.path(), most, Duration::ZERO);
    let free = Serve::Unguarded;
    let unguarded = Server::start_as(
        free,
        free_sockets.path(),
        free_state.path(),
        most,
        Duration::ZERO,
        "",
    );
    let [mut ours, mut bound] = [&guarded, &unguarded].map(|server| Callers::connect(server, most));
    for callers in LOADS {
        let [mut signed, mut free, mut flush] = [const { Times::empty() }; 3];
        let (mut flushes, mut processor) = (0.0, [0.0; 2]);
        let before = Stages::read(guarded.metrics_port());
        for _ in 0..TURNS {
            let earlier = flushes_of(&guarded);
            let used = processor_times(&guarded);
            signed.extend(ours.drive(callers, TURN));
            flushes += flushes_of(&guarded) - earlier;
            for (sum, (now, used)) in processor
                .iter_mut()
                .zip(processor_times(&guarded).iter().zip(used))
            {
                *sum += now - used;
            }
            free.extend(bound.drive(callers, TURN));
            flush.extend(limits::flush(state.path(), TURN / 4));
        }
        let load = format!("{callers}_callers");
        signed.print(&format!("hsmd_{load}"));
        free.print(&format!("unguarded_{load}"));
        println!("limit_flush_beside_{load}_rate {:.0} 1/s", flush.rate());
        println!(
            "hsmd_{load}_signatures_per_flush {:.1}",
            signed.count() / flushes
        );
        println!(
            "ratio hsmd_to_unguarded_{load}_rate {:.2}",
            signed.rate() / free.rate()
        );
        for (process, seconds) in ["hsmd", "callers"].iter().zip(processor) {
            println!(
                "hsmd_{load}_processor_{process} {:.4} ms",
                seconds * 1e3 / signed.count()
            );
        }
        Stages::read(guarded.metrics_port()).print_since(&before, &load, &signed);
    }
}

fn flushes_of(server: &Server) -> f64 {
    http::metric(server.metrics_port(), "hsmd_journal_flushes_total").expect("the count of flushes")
}

fn processor_times(server: &Server) -> [f64; 2] {
    [server.id(), std::process::id()].map(limits::processor_time)
}

/// Clients of one server.
struct Callers {
    runtime: Runtime,
    callers: Vec<Caller>,
}

struct Caller {
    signer: SignerClient<Channel>,
    name: String,
    height: i64,
}

impl Callers {
    /// Connects so many, and has each get a first signature.
    fn connect(server: &Server, count: usize) -> Self {
        let runtime = Runtime::new().expect("a runtime");
        let (ca, identity) = (server.ca(), server.sentry_identity());
        let connect = |index| {
            let address = (Ipv4Addr::LOCALHOST, server.port()).into();
            Caller {
                signer: SignerClient::new(channel(address, &ca, Some(&identity))),
                name: chain_id(index),
                height: 0,
            }
        };
        let mut callers: Vec<Caller> = {
            let _within = runtime.enter();
            (0..count).map(connect).collect()
        };
        for caller in &mut callers {
            runtime.block_on(caller.height(&mut Vec::new()));
        }
        Self { runtime, callers }
    }

    /// So many ask for votes for this long, each as soon as it has the last answer.
    fn drive(&mut self, callers: usize, time: Duration) -> Times {
        let begun = Instant::now();
        let tasks: Vec<_> = self
            .callers
            .drain(..callers)
            .map(|mut caller| {
                self.runtime.spawn(async move {
                    let mut times = Vec::new();
                    while begun.elapsed() < time {
                        caller.height(&mut times).await;
                    }
                    (caller, times)
                })
            })
            .collect();
        let mut seconds = Vec::new();
        for (place, task) in tasks.into_iter().enumerate() {
            let (caller, times) = self.runtime.block_on(task).expect("a caller's task");
            self.callers.insert(place, caller);
            seconds.extend(times);
        }
        Times::new(seconds, begun.elapsed())
    }
}

impl Caller {
    /// The two votes of one height.
    async fn height(&mut self, times: &mut Vec<f64>) {
        self.height += 1;
        for kind in [VoteType::Prevote, VoteType::Precommit] {
            let request = SignCometbftVoteRequest {
                key: self.name.clone(),
                chain_id: self.name.clone(),
                r#type: kind.into(),
                height: self.height,
                round: 0,
                block_id: Some(BlockId {
                    hash: vec![1; 32],
                    part_set_total: 1,
                    part_set_hash: vec![1; 32],
                }),
                timestamp: Some(std::time::SystemTime::now().into()),
                extension: None,
                ledger_id: String::new(),
            };
            let begun = Instant::now();
            let answer = self.signer.sign_cometbft_vote(request).await;
            times.push(begun.elapsed().as_secs_f64());
            let signature = answer.expect("a signature").into_inner().signature;
            assert_eq!(signature.len(), 64, "no signature");
        }
    }
}
