//! tmp control
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]
use hsm_tests::cometbft::{Application, Network};
use hsm_tests::process::Scratch;
use hsm_tests::{binaries, commits};
use std::time::Duration;

fn run(bin: std::path::PathBuf, app: Application) {
    let scratch = Scratch::new();
    let mut network = Network::prepare(&bin, scratch.path(), "test-chain", app);
    let start = std::time::Instant::now();
    network.start();
    let up = network.height() + 1;
    println!("started {:?} at {up}", start.elapsed());
    network.wait_for_height(up + 40, Duration::from_secs(120));
    println!("done {:?}", start.elapsed());
    let commits = commits::fetch(&network, up + 39);
    let missed = commits::verify("test-chain", &network.public_keys(), &commits);
    println!(
        "{missed:?} rounds {:?}",
        commits
            .iter()
            .filter(|c| c.round > 0)
            .map(|c| c.height)
            .collect::<Vec<_>>()
    );
    if app == Application::VoteExtensions {
        let n = commits::verify_extensions(
            "test-chain",
            &network.public_keys(),
            &network.extended_votes(),
        );
        println!("{n:?}");
    }
    commits::assert_only_missing_in_outages(&missed, up, &[]);
}
#[test]
fn control_038() {
    run(
        binaries::tests_folder().join("cometbft/bin/v0.38.26/cometbft"),
        Application::VoteExtensions,
    );
}
#[test]
fn control_10() {
    run(
        binaries::tests_folder().join("cometbft/bin/v1.0.1/cometbft"),
        Application::KvStore,
    );
}
