//! The printed pages, read back by tools that we did not write: `pdftotext`, `pdftoppm` and `zbarimg`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use std::fs;
use std::path::Path;
use std::process::Command;

use hsm_ceremony::commitment::Commitment;
use hsm_ceremony::paper::Paper;
use hsm_ceremony::plan::{Plan, Spec};
use hsm_ceremony::sheet::Sheet;
use hsm_ceremony::transcript::ShareId;
use hsm_shares::{Options, Scheme, Secret, Share, split};

/// Whether the tools are there; where they are not and need not be, with a word about it.
fn tools() -> bool {
    let there = |tool: &str| Command::new(tool).arg("--version").output().is_ok();
    if there("pdftoppm") && there("zbarimg") {
        return true;
    }
    assert!(
        std::env::var_os("CI").is_none(),
        "needs pdftoppm and zbarimg: run tests/install.sh test"
    );
    println!("skipped: needs pdftoppm and zbarimg (tests/install.sh test installs them)");
    false
}

fn output(program: &str, arguments: &[&str], folder: &Path) -> String {
    let output = Command::new(program)
        .args(arguments)
        .current_dir(folder)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program}: {said}");
    String::from_utf8(output.stdout).unwrap()
}

fn share(length: usize) -> Share {
    let bytes: Vec<u8> = (0..length).map(|_| fastrand::u8(..)).collect();
    let scheme = Scheme::single(3, 5).unwrap();
    let randomness: Vec<u8> = (0..scheme.randomness(length))
        .map(|_| fastrand::u8(..))
        .collect();
    let secret = Secret::new(bytes.into_boxed_slice().into()).unwrap();
    split(&secret, &scheme, Options::default(), &randomness)
        .unwrap()
        .remove(0)
        .remove(2)
}

fn words(share: &Share) -> Vec<&'static str> {
    share.words().iter().collect()
}

const PLACE: ShareId = ShareId {
    generation: 7,
    group: 1,
    member: 3,
};

fn print(share: &Share, practice: bool, paper: Paper) -> Vec<u8> {
    let sheet = Sheet {
        title: "Cosmos Hub validator, generation 7",
        place: PLACE,
        group: "officers",
        custodian: "Zoë Müller-Lüdenscheidt",
        bags: &["B0005".to_owned(), "B0006".to_owned()],
        commitment: Commitment::new(&PLACE, share, [9; 32]),
        practice,
    };
    sheet.print(paper, share).unwrap().to_vec()
}

#[test]
fn zbarimg_reads_the_share_from_the_printed_page_and_people_read_every_word() {
    if !tools() {
        return;
    }
    for (length, paper) in [(16, Paper::A4), (32, Paper::A4), (32, Paper::Letter)] {
        let folder = tempfile::tempdir().unwrap();
        let share = share(length);
        fs::write(folder.path().join("sheet.pdf"), print(&share, false, paper)).unwrap();
        // As coarse as an office scanner's default.
        output(
            "pdftoppm",
            &["-r", "150", "-png", "-singlefile", "sheet.pdf", "sheet"],
            folder.path(),
        );
        let scanned = output("zbarimg", &["--quiet", "--raw", "sheet.png"], folder.path());
        assert_eq!(words(&Share::parse(&scanned).unwrap()), words(&share));

        let text = output("pdftotext", &["-layout", "sheet.pdf", "-"], folder.path());
        for (number, word) in (1..).zip(words(&share)) {
            assert!(
                text.contains(&format!("{number} {word}")),
                "{number} {word}: {text}"
            );
        }
        for shown in [
            "generation 7, group 1, member 3",
            "Zoë Müller-Lüdenscheidt",
            "B0005, then B0006",
        ] {
            assert!(text.contains(shown), "{shown}: {text}");
        }
        assert!(!text.contains("PRACTICE"));
    }
}

#[test]
fn a_sheet_of_practice_says_so() {
    if !tools() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    fs::write(
        folder.path().join("sheet.pdf"),
        print(&share(32), true, Paper::A4),
    )
    .unwrap();
    let text = output("pdftotext", &["sheet.pdf", "-"], folder.path());
    assert!(text.contains("PRACTICE - NOTHING HERE IS REAL"), "{text}");
}

#[test]
fn the_printed_script_has_every_step_whole() {
    if !tools() {
        return;
    }
    let spec = Spec::parse(include_str!("../example.toml")).unwrap();
    let plan = Plan::new(&spec).unwrap();
    for paper in [Paper::A4, Paper::Letter] {
        let folder = tempfile::tempdir().unwrap();
        fs::write(
            folder.path().join("script.pdf"),
            plan.printed_script(&spec, paper).unwrap(),
        )
        .unwrap();
        // Only what lies on the page.
        let text = output("pdftotext", &["-layout", "script.pdf", "-"], folder.path());
        let printed: Vec<&str> = text.split_whitespace().collect();
        for (number, step) in plan.steps() {
            let title = format!("Step {number}: {step}");
            let title: Vec<&str> = title.split_whitespace().collect();
            assert!(
                printed.windows(title.len()).any(|found| found == title),
                "{title:?}: {text}"
            );
        }
    }
}

#[test]
fn a_commitment_holds_for_its_share_in_its_place_alone() {
    let (share, other) = (self::share(32), self::share(32));
    let commitment = Commitment::new(&PLACE, &share, [1; 32]);
    assert!(commitment.holds(&PLACE, &share));
    assert!(!commitment.holds(&PLACE, &other));
    for elsewhere in [
        ShareId {
            generation: 8,
            ..PLACE
        },
        ShareId { group: 2, ..PLACE },
        ShareId { member: 2, ..PLACE },
    ] {
        assert!(!commitment.holds(&elsewhere, &share));
    }
    assert_ne!(
        commitment.digest,
        Commitment::new(&PLACE, &share, [2; 32]).digest
    );
}
