use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::cometbft::{BlockId, Height, Round, Step, Timestamp, Vote, VoteType};
use crate::conflict::{judge, merge};

fn chain() -> ChainId {
    ChainId::new("chain-1").unwrap()
}

fn position((height, round, step): (i64, i32, i32)) -> Position {
    Position {
        height: Height::new(height).unwrap(),
        round: Round::new(round).unwrap(),
        step: Step::try_from(step).unwrap(),
    }
}

fn prevote(height: i64, round: i32, block: Option<u8>) -> Message {
    let block = block.map(|byte| BlockId::new(&[byte; 32], 1, &[byte; 32]).unwrap());
    let (height, round) = (Height::new(height).unwrap(), Round::new(round).unwrap());
    let time = Timestamp::new(1_700_000_000, 5).unwrap();
    let vote = Vote::new(chain(), VoteType::Prevote, height, round, block, time, None);
    vote.unwrap().into()
}

fn read_json(format: Format, file: &Value) -> Result<Signed, Error> {
    read_foreign(format, file.to_string().as_bytes(), &chain())
}

fn read_position(format: Format, file: &Value) -> Result<Option<Position>, Error> {
    let signed = read_json(format, file)?;
    Ok(signed.imported.last.map(|last| last.position))
}

#[test]
fn steps_are_translated_from_each_signers_numbering() {
    for (format, steps) in [
        (Format::Cometbft, [1, 2, 3]),
        (Format::Horcrux, [1, 2, 3]),
        (Format::Tmkms, [0, 1, 2]),
    ] {
        for (step, ours) in steps.into_iter().zip(1..) {
            let mut file = json!({ "height": "7", "round": "2", "step": step });
            match format {
                Format::Tmkms => file["block_id"] = Value::Null,
                Format::Horcrux => file["nonce_public"] = Value::Null,
                _ => file["round"] = 2.into(),
            }
            let read = read_position(format, &file).unwrap();
            assert_eq!(read, Some(position((7, 2, ours))), "{format} {step}");
        }
    }
}

#[test]
fn a_signer_that_never_signed_has_no_position() {
    let cometbft = json!({ "height": "0", "round": 0, "step": 0 });
    assert_eq!(read_position(Format::Cometbft, &cometbft), Ok(None));
    let tmkms = json!({ "height": "0", "round": "0", "step": 0, "block_id": null });
    assert_eq!(read_position(Format::Tmkms, &tmkms), Ok(None));
    let horcrux = json!({ "height": "0", "round": "0", "step": 0, "nonce_public": null });
    assert_eq!(read_position(Format::Horcrux, &horcrux), Ok(None));
}

#[test]
fn a_height_without_a_step_stands_for_its_whole_round() {
    let file = json!({ "height": "7", "round": 1, "step": 0 });
    assert_eq!(
        read_position(Format::Cometbft, &file),
        Ok(Some(position((7, 1, 3))))
    );
}

#[test]
fn one_signers_file_is_not_taken_for_anothers() {
    let sign_bytes = prevote(7, 0, Some(1)).sign_bytes();
    let signature = STANDARD.encode([9; 64]);
    let cometbft = json!({
        "height": "7", "round": 0, "step": 2, "signature": signature, "signbytes": hex::encode_upper(&sign_bytes),
    });
    let tmkms = json!({ "height": "7", "round": "0", "step": 1, "block_id": null });
    let horcrux = json!({
        "height": "7", "round": "0", "step": 2, "nonce_public": "AA==", "signature": signature,
        "signbytes": STANDARD.encode(&sign_bytes),
    });
    for (format, good) in [
        (Format::Cometbft, &cometbft),
        (Format::Tmkms, &tmkms),
        (Format::Horcrux, &horcrux),
    ] {
        assert!(read_json(format, good).is_ok(), "{format}");
    }
    for (format, other) in [
        (Format::Cometbft, &tmkms),
        (Format::Cometbft, &horcrux),
        (Format::Tmkms, &cometbft),
        (Format::Tmkms, &horcrux),
        (Format::Horcrux, &tmkms),
    ] {
        let refused = read_json(format, other);
        assert!(
            matches!(refused, Err(Error::Shape { .. })),
            "{format}: {refused:?}"
        );
    }
    let without_step = json!({ "height": "7", "round": "0" });
    assert!(matches!(
        read_json(Format::Cometbft, &without_step),
        Err(Error::Shape { .. })
    ));
}

#[test]
fn sign_bytes_that_contradict_the_files_own_fields_are_refused() {
    let file = |height: &str, round, step, bytes: &[u8]| {
        json!({
            "height": height, "round": round, "step": step, "signature": STANDARD.encode([9; 64]),
            "signbytes": hex::encode_upper(bytes),
        })
    };
    let bytes = prevote(7, 1, Some(1)).sign_bytes();
    let good = read_json(Format::Cometbft, &file("7", 1, 2, &bytes)).unwrap();
    let last = good.imported.last.unwrap();
    assert_eq!(
        (last.sign_bytes, last.timestamp),
        (bytes.clone(), Timestamp::new(1_700_000_000, 5).unwrap())
    );
    assert_eq!(good.signature, [9; 64]);
    for wrong in [
        file("6", 1, 2, &bytes),
        file("8", 1, 2, &bytes),
        file("7", 0, 2, &bytes),
        file("7", 1, 1, &bytes),
        file("7", 1, 3, &bytes),
    ] {
        let refused = read_json(Format::Cometbft, &wrong);
        assert!(
            matches!(refused, Err(Error::Position { .. })),
            "{refused:?}"
        );
    }
    let cut = read_json(Format::Cometbft, &file("7", 1, 2, &bytes[..20]));
    assert_eq!(cut, Err(Error::SignBytes));
    let nothing_signed = read_json(Format::Cometbft, &file("0", 0, 0, &bytes));
    assert_eq!(nothing_signed, Err(Error::SignBytes));
    let elsewhere = ChainId::new("chain-2").unwrap();
    let text = file("7", 1, 2, &bytes).to_string();
    let refused = read_foreign(Format::Cometbft, text.as_bytes(), &elsewhere);
    assert!(matches!(refused, Err(Error::Chain { .. })), "{refused:?}");
}

#[test]
fn numbers_out_of_range_are_refused_by_name() {
    for (height, round, step, named) in [
        ("-1", 0, 1, "height"),
        ("7", -1, 1, "round"),
        ("7", 1 << 31, 1, "round"),
        ("7", 0, 4, "step"),
        ("7", 0, -1, "step"),
        ("9223372036854775808", 0, 1, "whole number"),
    ] {
        let file = json!({ "height": height, "round": round, "step": step });
        let refused = read_json(Format::Cometbft, &file).unwrap_err().to_string();
        assert!(refused.contains(named), "{named}: {refused}");
    }
    let six = json!({ "height": "5", "round": "1", "step": 6, "block_id": null });
    assert!(matches!(
        read_json(Format::Tmkms, &six),
        Err(Error::Field { field: "step", .. })
    ));
}

#[test]
fn tmkms_is_given_the_block_that_was_voted_for_or_the_position_after() {
    let mark = |sign_bytes: Vec<u8>| Mark {
        initial_height: 3,
        last: Some(Last {
            position: position((7, 1, 2)),
            sign_bytes,
            timestamp: Timestamp::EPOCH,
            extension_sign_bytes: None,
        }),
    };
    let written = |mark: &Mark| -> Value {
        serde_json::from_str(&write_foreign(Format::Tmkms, mark, None).unwrap()).unwrap()
    };
    let known = written(&mark(prevote(7, 1, Some(0xab)).sign_bytes()));
    assert_eq!(
        (&known["height"], &known["round"], &known["step"]),
        (&"7".into(), &"1".into(), &1.into())
    );
    assert_eq!(known["block_id"]["hash"], "AB".repeat(32));
    let nil = written(&mark(prevote(7, 1, None).sign_bytes()));
    assert_eq!((&nil["step"], &nil["block_id"]), (&1.into(), &Value::Null));
    let unknown = written(&mark(Vec::new()));
    assert_eq!(
        (&unknown["step"], &unknown["block_id"]),
        (&2.into(), &Value::Null)
    );
}

fn any_mark() -> impl Strategy<Value = Mark> {
    let last = (1..5i64, 0..3i32, 0..3u8);
    (0..5i64, proptest::option::of(last)).prop_map(|(initial_height, last)| Mark {
        initial_height,
        last: last.map(|(height, round, block)| {
            let message = prevote(height, round, Some(block));
            Last {
                position: message.position(),
                sign_bytes: if block == 0 {
                    Vec::new()
                } else {
                    message.sign_bytes()
                },
                timestamp: message.timestamp(),
                extension_sign_bytes: None,
            }
        }),
    })
}

proptest! {
    #[test]
    fn what_a_mark_forbids_its_export_forbids_after_import(
        mark in any_mark(), height in 1..6i64, round in 0..4i32, block in 0..3u8,
    ) {
        let asked = prevote(height, round, Some(block));
        let fresh = Mark { initial_height: 0, last: None };
        for format in [Format::Cometbft, Format::Tmkms, Format::Horcrux] {
            let text = write_foreign(format, &mark, Some(&[9; 64])).unwrap();
            let read = read_foreign(format, text.as_bytes(), &chain()).unwrap();
            let (again, _) = merge(&fresh, read.imported);
            let permitted = judge(&again, &asked, u64::MAX).is_ok();
            prop_assert!(!permitted || judge(&mark, &asked, u64::MAX).is_ok(), "{}", text);
        }
        let exported = ExportedMark {
            chain_id: chain(),
            signed: Signed {
                imported: Imported { initial_height: mark.initial_height, last: mark.last.clone() },
                signature: Vec::new(),
            },
        };
        let keys = [ExportedKey { public_key: vec![1; 32], names: vec!["hub".to_owned()], marks: vec![exported] }];
        let text = write(&[7; 16], &keys);
        let read = read(text.as_bytes()).unwrap();
        let (again, _) = merge(&fresh, read[0].marks[0].signed.imported.clone());
        for asked in [asked, prevote(height, round, None)] {
            prop_assert_eq!(
                judge(&again, &asked, u64::MAX).is_ok(),
                judge(&mark, &asked, u64::MAX).is_ok(),
            );
        }
    }

    #[test]
    fn any_bytes_are_read_without_a_panic(bytes: Vec<u8>, height: String, round: i64, step: i64, text: String) {
        let file = json!({
            "height": height, "round": round, "step": step, "signbytes": text, "signature": text, "block_id": null,
        });
        for format in [Format::Cometbft, Format::Tmkms, Format::Horcrux] {
            prop_assert!(read_foreign(format, &bytes, &chain()).is_err());
            let _ = read_json(format, &file);
        }
        prop_assert!(read(&bytes).is_err());
    }
}
