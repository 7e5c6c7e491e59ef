//! A key is a consensus key or makes checkpoints, never both (promise 5), and each request for a checkpoint counts as
//! a signature asked of the device.

use super::*;

fn begin(guard: &Guard, key: usize) -> impl Future<Output = Result<(u64, String), Error>> {
    let marks = |state: &State| format!("{} keys", state.keys().count());
    let key = public_key_of(key);
    async move {
        guard
            .begin_checkpoint("example.org/log", &key, marks, SystemTime::now())
            .await
    }
}

#[tokio::test]
async fn a_consensus_key_is_asked_for_no_checkpoint() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state");
    let guard = pinned(&path, 0).await;
    let entries = guard.journal().status().entries;
    let error = begin(&guard, 0).await.unwrap_err();
    assert!(
        matches!(&error, Error::CheckpointKey { names, .. } if names == KEY),
        "{error}"
    );
    assert_eq!(guard.journal().status().entries, entries);
}

#[tokio::test]
async fn a_key_that_makes_checkpoints_is_never_pinned_across_restarts_and_snapshots() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state");
    let mut guard = pinned(&path, 0).await;
    let asked = guard.inspect(State::asked).unwrap();
    let (index, marks) = begin(&guard, 1).await.unwrap();
    assert_eq!(marks, "1 keys");
    assert!(index < guard.journal().status().entries);
    for _ in 0..3 {
        let chain = ChainId::new(CHAIN).unwrap();
        let devices = vec![("hsm".to_owned(), None)];
        let key = public_key_of(1);
        let pin = guard.pin("other", &key, &chain, 0, devices, SystemTime::now());
        let error = pin.await.unwrap_err();
        assert!(matches!(error, Error::AlreadyKnown(_)), "{error}");
        assert_eq!(guard.inspect(State::asked).unwrap(), asked + 1);
        drop(guard);
        guard = open(&path);
    }
}

#[tokio::test]
async fn a_journal_in_which_a_key_is_both_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let guard = pinned(&directory.path().join("state"), 0).await;
    let begun = |key| {
        Event::CheckpointBegun(wire::CheckpointBegun {
            origin: "log".to_owned(),
            public_key: Some(entry::public_key_to_wire(&public_key_of(key))),
            marks_sha256: vec![0; 32],
        })
    };
    let refused = guard.record(begun(0), SystemTime::now()).unwrap_err();
    assert!(
        refused.to_string().contains("asked for a checkpoint"),
        "{refused}"
    );
    guard.record(begun(1), SystemTime::now()).unwrap();
}
