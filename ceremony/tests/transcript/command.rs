//! The command, with signatures made by the real ssh-keygen.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::{Digest, Event, Transcript, at, closed, custody, file};

fn ceremony(arguments: &[&str], folder: &Path) -> (bool, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_hsm-ceremony"))
        .args(arguments)
        .current_dir(folder)
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(said).unwrap())
}

fn ssh_keygen(arguments: &[&str], folder: &Path) -> bool {
    let status = Command::new("ssh-keygen")
        .args(arguments)
        .current_dir(folder)
        .output();
    status.expect("ssh-keygen runs").status.success()
}

/// Keys of these roles, and their list; every role's signature over the transcript.
fn sign(folder: &Path, names: &[&str]) {
    let mut roles = String::new();
    for name in names {
        assert!(ssh_keygen(
            &["-q", "-t", "ed25519", "-N", "", "-f", name],
            folder
        ));
        roles += &format!(
            "{name} {}",
            fs::read_to_string(folder.join(name).with_extension("pub")).unwrap()
        );
        let namespace = "transcript@hsm-ceremony";
        assert!(ssh_keygen(
            &[
                "-q",
                "-Y",
                "sign",
                "-n",
                namespace,
                "-f",
                name,
                "transcript.jsonl"
            ],
            folder
        ));
        fs::rename(
            file(folder).with_extension("jsonl.sig"),
            folder.join(name).with_extension("sig"),
        )
        .unwrap();
    }
    fs::write(folder.join("roles"), roles).unwrap();
}

const VERIFY: [&str; 5] = [
    "transcript",
    "verify",
    "transcript.jsonl",
    "--roles",
    "roles",
];

#[test]
fn a_transcript_is_signed_by_every_role_and_ssh_keygen_agrees() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    drop(closed(folder));
    sign(folder, &["ada", "grace"]);
    let both = [
        &VERIFY[..],
        &["--signature", "ada.sig", "--signature", "grace.sig"],
    ]
    .concat();
    let (good, said) = ceremony(&both, folder);
    assert!(
        good && said.contains("signed by every role: ada, grace"),
        "{said}"
    );

    let namespace = "transcript@hsm-ceremony";
    let check = [
        "-Y", "verify", "-f", "roles", "-I", "ada", "-n", namespace, "-s", "ada.sig",
    ];
    let checked = Command::new("ssh-keygen")
        .args(check)
        .current_dir(folder)
        .stdin(fs::File::open(file(folder)).unwrap())
        .status();
    assert!(checked.unwrap().success());

    let one = [&VERIFY[..], &["--signature", "ada.sig"]].concat();
    let twice = [&one[..], &["--signature", "ada.sig"]].concat();
    for too_few in [one, twice] {
        let (good, said) = ceremony(&too_few, folder);
        assert!(!good, "{said}");
    }

    // The last line, changed so that it still reads well.
    let changed = fs::read_to_string(file(folder))
        .unwrap()
        .replace("\"steps\":3", "\"steps\":4");
    fs::write(file(folder), changed).unwrap();
    let (good, said) = ceremony(&both, folder);
    assert!(!good && said.contains("ada"), "{said}");
}

#[test]
fn an_open_transcript_is_not_verified_and_an_unsigned_one_only_where_that_is_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    drop(custody(folder));
    sign(folder, &["ada"]);
    let unsigned = [&VERIFY[..3], &["--unsigned"]].concat();
    let signed = [&VERIFY[..], &["--signature", "ada.sig"]].concat();
    for asked in [&unsigned, &signed] {
        let (good, said) = ceremony(asked, folder);
        assert!(!good && said.contains("NOT CLOSED"), "{said}");
    }
    let (good, said) = ceremony(&VERIFY[..3], folder);
    assert!(!good && said.contains("--roles"), "{said}");

    let finished = tempfile::tempdir().unwrap();
    drop(closed(finished.path()));
    let (good, said) = ceremony(&unsigned, finished.path());
    assert!(good && said.contains("UNSIGNED: nobody vouches"), "{said}");
    // Cut at a line's end, every line that is left is in its place.
    let whole = fs::read_to_string(file(finished.path())).unwrap();
    let cut = whole.lines().count() - 1;
    let cut: String = whole.split_inclusive('\n').take(cut).collect();
    fs::write(file(finished.path()), cut).unwrap();
    let (good, said) = ceremony(&unsigned, finished.path());
    assert!(!good && said.contains("NOT CLOSED"), "{said}");
}

#[test]
fn lineage_and_show_are_read_by_people() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    drop(custody(folder));
    let moment = at(30).to_string();
    let asked = [
        "transcript",
        "lineage",
        "transcript.jsonl",
        "--generation",
        "1",
        "--at",
        &moment,
    ];
    let (good, said) = ceremony(&asked, folder);
    assert!(good, "{said}");
    assert_eq!(
        said,
        "transcript.jsonl: NOT CLOSED: the ceremony is not finished, or the file was cut\n\
         generation 1 at 2026-11-25T20:00:30Z: valid: it protected the keys\n\
         it takes 2 of 2 groups:\n\
         \x20 officers, any 2; shares were with: Ada, Bea, Cleo\n\
         \x20 third party, any 1; shares were with: Escrow\n\
         the fewest who could have rebuilt it: 3 (Ada, Bea, Escrow)\n"
    );
    // Without a moment all of it counts, whatever the clock says today.
    let (good, said) = ceremony(&asked[..5], folder);
    assert!(
        good && said.contains("generation 1 at 2026-11-25T20:01:00Z: rotated"),
        "{said}"
    );
    let (good, said) = ceremony(&["transcript", "show", "transcript.jsonl"], folder);
    assert!(
        good && said.contains("share 1.1.2 handed to Bea in B12"),
        "{said}"
    );
}

#[test]
fn what_was_practised_is_counted_with_nothing_that_is_real() {
    let [real, practised] = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    drop(custody(real.path()));
    let practice = Event::Opened {
        title: "Validator".to_owned(),
        plan: Digest::of(b"plan"),
        software: Digest::of(b"software"),
        practice: true,
    };
    let mut transcript = Transcript::create(practised.path(), at(120), practice).unwrap();
    let end = Event::Closed { steps: 0 };
    transcript.append(at(121), end).unwrap();
    drop(transcript);
    let files = [&real, &practised].map(|folder| file(folder.path()).display().to_string());
    let asked = |files: &[&String]| {
        let files = files.iter().map(|file| file.as_str());
        let asked: Vec<&str> = ["transcript", "lineage", "--generation", "1"]
            .into_iter()
            .chain(files)
            .collect();
        ceremony(&asked, real.path())
    };
    let (good, said) = asked(&[&files[0], &files[1]]);
    assert!(!good && said.contains("practice"), "{said}");
    let (good, said) = asked(&[&files[1]]);
    assert!(good && said.starts_with("PRACTICE: "), "{said}");
    // Given in the wrong order, or written by a clock that was wrong.
    let (good, said) = asked(&[&files[0], &files[0]]);
    assert!(
        good && said.contains("is earlier than the one before"),
        "{said}"
    );
}

#[test]
fn a_plan_and_its_script_are_written_once() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    fs::write(folder.join("spec.toml"), include_str!("../../example.toml")).unwrap();
    let (good, said) = ceremony(&["plan", "spec.toml", "--to", "."], folder);
    assert!(good && said.contains("31 steps"), "{said}");
    assert!(
        fs::read_to_string(folder.join("script.txt"))
            .unwrap()
            .contains("Step 31: Close the transcript")
    );
    let (good, said) = ceremony(&["plan", "spec.toml", "--to", "."], folder);
    assert!(!good && said.contains("plan.json"), "{said}");
}
