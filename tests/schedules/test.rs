//! Runs `main.rs`. Promises 1 and 2.
#![allow(missing_docs, clippy::expect_used, reason = "tests fail by panicking")]

use std::process::Command;

use hsm_tests::binaries::binary;

/// Tries schedules; returns whether all was well, and what was said.
fn explore(number: u64, flaw: Option<&str>) -> (bool, String) {
    let given = std::env::var("HSMD_SEED");
    let seed = given.unwrap_or_else(|_| fastrand::u64(..).to_string());
    println!("HSMD_SEED={seed}");
    let mut command = Command::new(binary("examples/schedules"));
    command.args([number.to_string(), seed]).args(flaw);
    let output = command.output().expect("the example runs");
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    (output.status.success(), said)
}

#[test]
fn in_every_order_of_steps_that_is_tried_one_message_leaves_and_only_after_it_is_durable() {
    let number = match std::env::var_os("HSMD_SOAK") {
        Some(_) => 200_000,
        None => 3_000,
    };
    let (well, said) = explore(number, None);
    assert!(
        well && said.contains(&format!("{number} schedules")),
        "{said}"
    );
    println!("{said}");
}

/// The method is worth something: it finds a program that does not flush.
#[test]
fn a_journal_that_does_not_flush_is_found_out() {
    let (well, said) = explore(1_000, Some("unflushed"));
    assert!(!well && said.contains("what left has no entry"), "{said}");
}
