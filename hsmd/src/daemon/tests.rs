use std::future::pending;

use hsm_journal::State as _;

use super::*;
use crate::development::{Wanted, prepare};

/// A development set-up with an empty journal.
fn set_up(directory: &tempfile::TempDir) -> Config {
    let prepared = prepare(&Wanted {
        directory: directory.path().to_owned(),
        chain_id: None,
        key: None,
        listen: None,
    })
    .unwrap();
    let first = Event::StateCreated(wire::StateCreated {
        deployment_id: vec![7; 16],
        ..Default::default()
    });
    let first = guard::entry::encode(SystemTime::now(), first);
    let empty = guard::State::default().snapshot();
    hsm_journal::create(&prepared.config.state_dir, &empty, &first).unwrap();
    prepared.config
}

async fn open(config: &Config) -> Result<Daemon, Error> {
    Daemon::open(config, devices::start(config).unwrap()).await
}

#[tokio::test]
async fn a_start_that_finds_its_socket_taken_leaves_the_journal_as_it_was() {
    let directory = tempfile::tempdir().unwrap();
    let config = set_up(&directory);
    let files = || {
        let entries = std::fs::read_dir(&config.state_dir).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    let before = files();
    let _taken = admin_socket::bind(&config.admin_socket).unwrap();
    let refused = open(&config).await.err().unwrap();
    assert!(refused.to_string().contains("running hsmd"), "{refused}");
    assert_eq!(files(), before);
}

#[tokio::test]
async fn a_start_without_a_journal_leaves_no_socket() {
    let directory = tempfile::tempdir().unwrap();
    let config = set_up(&directory);
    std::fs::remove_dir_all(&config.state_dir).unwrap();
    open(&config).await.err().unwrap();
    assert!(!config.admin_socket.exists());
}

type Break = fn(Arc<Line>);

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_can_sign_nothing_until_it_is_started_again_ends_with_an_error() {
    let panicked: Break = |line| {
        let holder = std::thread::spawn(move || {
            let _ = line.guard().inspect(|_| panic!("while it holds the marks"));
        });
        holder.join().unwrap_err();
    };
    let ended: Break = |line| line.guard().close().unwrap();
    for (break_it, expected) in [(panicked, "panicked"), (ended, "the journal ended")] {
        let directory = tempfile::tempdir().unwrap();
        let daemon = open(&set_up(&directory)).await.unwrap();
        break_it(daemon.line.clone());
        let served = tokio::time::timeout(GRACE * 4, daemon.serve(pending())).await;
        match served.expect("an end") {
            Err(Error::Broken(reason)) => assert!(reason.contains(expected), "{reason}"),
            other => panic!("{other:?}"),
        }
    }
}
