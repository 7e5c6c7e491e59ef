use std::future::pending;

use hsm_journal::State as _;

use super::*;
use crate::development::{Wanted, prepare};

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
        let prepared = prepare(&Wanted {
            directory: directory.path().to_owned(),
            chain_id: None,
            key: None,
            listen: None,
        })
        .unwrap();
        let first = Event::StateCreated(wire::StateCreated::default());
        let first = guard::entry::encode(SystemTime::now(), first);
        let empty = guard::State::default().snapshot();
        hsm_journal::create(&prepared.config.state_dir, &empty, &first).unwrap();
        let devices = devices::start(&prepared.config).unwrap();
        let daemon = Daemon::open(&prepared.config, devices).await.unwrap();
        break_it(daemon.line.clone());
        let served = tokio::time::timeout(GRACE * 4, daemon.serve(pending())).await;
        match served.expect("an end") {
            Err(Error::Broken(reason)) => assert!(reason.contains(expected), "{reason}"),
            other => panic!("{other:?}"),
        }
    }
}
