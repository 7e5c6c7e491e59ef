use std::os::unix::fs::MetadataExt;
use std::path::Path;

use hsm_policy::grants::Policy;

use super::{Error, MARK, Wanted, prepare};

fn wanted(directory: &Path) -> Wanted {
    Wanted {
        directory: directory.to_path_buf(),
        chain_id: None,
        key: None,
        listen: None,
    }
}

fn files(directory: &Path) -> Vec<(String, Vec<u8>)> {
    let entries = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap());
    let mut files: Vec<_> = entries
        .map(|entry| {
            let name = entry.file_name().into_string().unwrap();
            (name, std::fs::read(entry.path()).unwrap())
        })
        .collect();
    files.sort();
    files
}

#[test]
fn a_set_up_is_complete_closed_to_others_and_grants_its_sentry_its_key() {
    let parent = tempfile::tempdir().unwrap();
    let directory = parent.path().join("dev");
    let prepared = prepare(&Wanted {
        chain_id: Some("hub \"1\"".to_owned()),
        key: Some("hub".to_owned()),
        ..wanted(&directory)
    })
    .unwrap();
    assert_eq!((&*prepared.chain_id, &*prepared.key), ("hub \"1\"", "hub"));
    assert!(prepared.config.has_mock());
    let metrics = prepared.config.metrics.unwrap();
    assert!(prepared.config.listen.address.port() != 0 && metrics.port() != 0);
    let policy =
        Policy::parse(&std::fs::read_to_string(prepared.config.policy.as_ref().unwrap()).unwrap())
            .unwrap();
    let grant = policy.grants().next().unwrap();
    assert_eq!(
        grant.callers()[0].to_string(),
        "spiffe://development.invalid/sentry/dev"
    );
    assert_eq!(
        (grant.chain_id().as_str(), grant.key().as_str()),
        ("hub \"1\"", "hub")
    );
    assert_eq!(std::fs::metadata(&directory).unwrap().mode() & 0o777, 0o700);
    for (name, _) in files(&directory) {
        let mode = std::fs::metadata(directory.join(&name)).unwrap().mode();
        assert_eq!(mode & 0o077, 0, "{name}: {mode:o}");
    }
    let sentry: toml::Table = std::fs::read_to_string(&prepared.sentry_config)
        .unwrap()
        .parse()
        .unwrap();
    let address = sentry["chain"][0]["signer"][0]["address"].as_str();
    assert_eq!(address, Some(&*prepared.config.listen.address.to_string()));
    assert!(!directory.join("mock-hsm.json").exists());
    prepared.put_key().unwrap();
    assert!(directory.join("mock-hsm.json").exists());
}

#[test]
fn preparing_again_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    prepare(&wanted(directory.path())).unwrap();
    let before = files(directory.path());
    assert!(before.iter().any(|(name, _)| name == MARK));
    prepare(&wanted(directory.path())).unwrap();
    assert_eq!(files(directory.path()), before);
}

#[test]
fn a_key_whose_journal_is_gone_is_not_given_a_new_one() {
    let directory = tempfile::tempdir().unwrap();
    let prepared = prepare(&wanted(directory.path())).unwrap();
    std::fs::create_dir(&prepared.config.state_dir).unwrap();
    prepared.put_key().unwrap();
    prepare(&wanted(directory.path())).unwrap();
    std::fs::remove_dir(&prepared.config.state_dir).unwrap();
    let error = prepare(&wanted(directory.path())).unwrap_err();
    assert!(matches!(error, Error::StateGone { .. }), "{error}");
    for word in ["state is not there", "mock-hsm.json", "--directory"] {
        assert!(error.to_string().contains(word), "{error}");
    }
}

#[test]
fn an_interrupted_preparation_is_completed() {
    let directory = tempfile::tempdir().unwrap();
    prepare(&wanted(directory.path())).unwrap();
    for file in ["sentry.pem", "hsmd.toml"] {
        std::fs::remove_file(directory.path().join(file)).unwrap();
        prepare(&wanted(directory.path())).unwrap();
        assert!(directory.path().join(file).exists());
    }
}

#[test]
fn a_directory_with_other_files_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("thesis.txt"), "mine").unwrap();
    let error = prepare(&wanted(directory.path())).unwrap_err();
    assert!(matches!(error, Error::Foreign(_)), "{error}");
    assert_eq!(
        files(directory.path()),
        [("thesis.txt".to_owned(), b"mine".to_vec())]
    );
}

#[test]
fn another_chain_key_or_address_than_the_directorys_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    prepare(&wanted(directory.path())).unwrap();
    let base = wanted(directory.path());
    for (what, other) in [
        (
            "chain",
            Wanted {
                chain_id: Some("other".to_owned()),
                ..base.clone()
            },
        ),
        (
            "key",
            Wanted {
                key: Some("other".to_owned()),
                ..base.clone()
            },
        ),
        (
            "address",
            Wanted {
                listen: Some(([127, 0, 0, 1], 1).into()),
                ..base.clone()
            },
        ),
    ] {
        match prepare(&other) {
            Err(Error::Different { what: found, .. }) => assert_eq!(found, what),
            other => panic!("{what}: {other:?}"),
        }
    }
}

#[test]
fn a_name_that_nothing_can_have_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let bad = Wanted {
        key: Some("a b".to_owned()),
        ..wanted(directory.path())
    };
    assert!(matches!(prepare(&bad), Err(Error::Name(_))));
}
