//! Networks of four stock CometBFT validators, each with an hsm-sentry of its own, all signing through one
//! hsmd, which is killed twice in the middle; so is one sentry. Promises 1, 2, 7 and 8.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]

use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use hsm_tests::audit::Reservations;
use hsm_tests::authority::uri;
use hsm_tests::binaries::{abci_app, cometbft, needs, softhsm_module};
use hsm_tests::cometbft::{Application, Line, Network, VALIDATORS};
use hsm_tests::commits::{self, Outage};
use hsm_tests::daemon::{ALL_KINDS, Daemon, Hsm, grant};
use hsm_tests::node::Address;
use hsm_tests::process::{PATIENCE, Scratch, free_port, wait_for};
use hsm_tests::sentry::{Chain, Sentry};

const CHAIN: &str = "network-1";
const KEYS: [&str; VALIDATORS] = ["val0", "val1", "val2", "val3"];
/// The validator whose node speaks TCP with its sentry; the others use UNIX sockets.
const OVER_TCP: usize = 3;

/// Two networks at once would be too much for two cores, and a late vote would say nothing about a signer.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

struct Plan {
    line: Line,
    application: Application,
    hsm: Hsm,
    blocks: i64,
}

#[test]
fn a_0_38_network_with_vote_extensions_signs_through_softhsm() {
    if needs("SoftHSM", softhsm_module()).is_some() {
        let application = Application::VoteExtensions;
        run(&Plan {
            line: Line::V0_38,
            application,
            hsm: Hsm::SoftHsm,
            blocks: blocks(100),
        });
    }
}

#[test]
fn a_1_0_network_signs_through_softhsm() {
    if needs("SoftHSM", softhsm_module()).is_some() {
        let application = Application::KvStore;
        run(&Plan {
            line: Line::V1_0,
            application,
            hsm: Hsm::SoftHsm,
            blocks: blocks(100),
        });
    }
}

#[test]
fn a_0_38_network_with_vote_extensions_signs_through_the_mock() {
    let application = Application::VoteExtensions;
    run(&Plan {
        line: Line::V0_38,
        application,
        hsm: Hsm::Mock,
        blocks: 20,
    });
}

/// `make soak` runs longer.
fn blocks(usually: i64) -> i64 {
    if std::env::var_os("HSMD_SOAK").is_some() {
        2_000
    } else {
        usually
    }
}

fn run(plan: &Plan) {
    let _turn = ONE_AT_A_TIME
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    let Some(binary) = needs("CometBFT", cometbft(plan.line)) else {
        return;
    };
    let Some(_app) = needs("the ABCI application", abci_app()) else {
        return;
    };
    let scratch = Scratch::new();
    let directory = scratch.path();
    let mut network = Network::prepare(&binary, directory, CHAIN, plan.application);
    let mut daemon = start_daemon(directory, plan.hsm);
    let mut sentries: Vec<Sentry> = (0..VALIDATORS)
        .map(|index| attach(index, plan.line, directory, &daemon, &mut network))
        .collect();
    network.start();
    let up_to_start = network.height() + 1;
    let quarter = plan.blocks / 4;
    let patience =
        Duration::from_secs(60) + Duration::from_secs(2) * u32::try_from(quarter).unwrap();

    let mut outages = Vec::new();
    network.wait_for_height(up_to_start + quarter, patience);
    outages.push(kill_daemon(&mut daemon, &network, &sentries));
    network.wait_for_height(network.height() + quarter, patience);
    outages.push(kill_sentry(1, &network, &mut sentries));
    network.wait_for_height(network.height() + quarter, patience);
    outages.push(kill_daemon(&mut daemon, &network, &sentries));
    let last = plan.blocks.max(network.height() + 3);
    network.wait_for_height(last + 1, patience);

    let commits = commits::fetch(&network, last);
    let public_keys = network.public_keys();
    let verified = commits::verify(CHAIN, &public_keys, &commits);
    commits::assert_only_missing_in_outages(&verified.missed, up_to_start, &outages);
    if plan.application == Application::VoteExtensions {
        let extensions = commits::verify_extensions(CHAIN, &public_keys, &network.extended_votes());
        let heights: Vec<i64> = extensions
            .into_iter()
            .filter(|(_, count)| *count >= 3)
            .map(|(h, _)| h)
            .collect();
        assert!(
            (1..=last).all(|height| heights.contains(&height)),
            "extensions are missing: {heights:?}"
        );
    }
    let reservations = Reservations::of(&daemon.journal());
    reservations.assert_one_message_a_position();
    for (public_key, sign_bytes) in &verified.signed {
        assert!(
            reservations.contain(public_key, sign_bytes),
            "a signature that the journal does not know"
        );
    }
    println!(
        "{} blocks, {} commit signatures verified, {} positions in the journal, outages {outages:?}, missed {:?}",
        commits.len(),
        verified.signed.len(),
        reservations.positions(),
        verified.missed
    );
}

fn start_daemon(directory: &Path, hsm: Hsm) -> Daemon {
    let grants = (0..VALIDATORS).map(|index| {
        grant(
            &uri("sentry", &sentry_name(index)),
            KEYS[index],
            CHAIN,
            &ALL_KINDS,
        )
    });
    let mut daemon = Daemon::set_up(directory, hsm, &KEYS, &grants.collect::<String>());
    for key in KEYS {
        daemon.init_key(key, CHAIN, 0);
    }
    daemon.start();
    daemon
}

/// Starts a validator's sentry, and makes the node listen for it.
fn attach(
    index: usize,
    line: Line,
    directory: &Path,
    daemon: &Daemon,
    network: &mut Network,
) -> Sentry {
    let node = match index {
        OVER_TCP => Address::Tcp(free_port()),
        _ => Address::Unix(directory.join(format!("privval{index}.sock"))),
    };
    let name = sentry_name(index);
    let chain = Chain {
        chain_id: CHAIN,
        cometbft: line.name(),
        node: &node,
        key: KEYS[index],
        signer: daemon.port(),
    };
    let authority = daemon.authority();
    let mut sentry = Sentry::new(
        directory,
        &name,
        &authority.sentry(&name),
        &authority.certificate(),
        &[chain],
    );
    sentry.start();
    network.set_signer(index, &node, &daemon.public_key(KEYS[index]));
    sentry
}

fn sentry_name(index: usize) -> String {
    format!("sentry{index}")
}

fn kill_daemon(daemon: &mut Daemon, network: &Network, sentries: &[Sentry]) -> Outage {
    let first = network.height();
    daemon.kill();
    daemon.start();
    let last = recovered(network, sentries) + 1;
    Outage {
        validators: (0..VALIDATORS).collect(),
        heights: first..=last,
    }
}

/// The others must be able to go on without it.
fn kill_sentry(index: usize, network: &Network, sentries: &mut [Sentry]) -> Outage {
    let first = network.height();
    sentries[index].kill();
    wait_for("three validators to go on", PATIENCE, || {
        (network.height() >= first + 3).then_some(())
    });
    sentries[index].start();
    let last = recovered(network, sentries) + 1;
    Outage {
        validators: vec![index],
        heights: first..=last,
    }
}

/// An outage is over when every sentry is connected on both sides and every node has what the others have.
/// Returns the height then.
fn recovered(network: &Network, sentries: &[Sentry]) -> i64 {
    wait_for("sentries and nodes to recover", PATIENCE, || {
        let head = network.height();
        let up = sentries.iter().all(Sentry::is_connected);
        let level = (0..VALIDATORS).all(|index| network.height_of(index) >= Some(head));
        (up && level).then(|| network.height())
    })
}
