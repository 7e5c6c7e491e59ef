//! What becomes of a row when journals are merged into it, and one of them is lost.

use std::collections::BTreeSet;

use hsm_policy::conflict::Mark;

use crate::guard::ledger::{Binding, Doubt, Id, Row, Seen};

fn id(byte: u8) -> Id {
    Id::new(&[byte; 16]).unwrap()
}

fn ids(bytes: &[u8]) -> BTreeSet<Id> {
    bytes.iter().map(|byte| id(*byte)).collect()
}

fn mark(initial_height: i64) -> Mark {
    Mark {
        initial_height,
        last: None,
    }
}

/// What each of the signers 1, 2 and 3 knows.
fn binding() -> Binding {
    Binding {
        ledger_id: id(9),
        cluster_id: 1,
        revision: 5,
        generation: 1,
        members: ids(&[1, 2, 3]),
        lost: ids(&[]),
        frozen: None,
        bound_at: 0,
        distrusted: Some("it went back".to_owned()),
    }
}

fn merged(binding: &Binding, signer: u8, row: Option<&Row>) -> Result<Row, String> {
    binding.reconciled(&mark(10), id(signer), row)
}

#[test]
fn a_journal_that_was_stated_to_be_lost_is_never_awaited_and_never_let_in_again() {
    let mut row = merged(&binding(), 1, None).unwrap();
    assert_eq!(row.awaited, ids(&[2, 3]));
    row.awaited.remove(&id(3));
    row.lost.insert(id(3));
    let back = merged(&binding(), 3, Some(&row)).unwrap_err();
    assert!(back.contains("is lost"), "{back}");
    let row = merged(&binding(), 2, Some(&row)).unwrap();
    assert_eq!(
        (row.awaited.clone(), row.lost.clone()),
        (ids(&[]), ids(&[3]))
    );

    // It is remembered by those who saw it, when the row is lost again.
    let knowing = Binding {
        generation: row.generation,
        lost: row.lost.clone(),
        ..binding()
    };
    let anew = merged(&knowing, 2, None).unwrap();
    assert_eq!((anew.awaited, anew.lost), (ids(&[1]), ids(&[3])));
    let forgotten = Row {
        lost: ids(&[]),
        ..row.clone()
    };
    let trusting = Binding {
        distrusted: None,
        ..knowing
    };
    let seen = |row: Row| Seen {
        cluster_id: 1,
        revision: 9,
        row: Some(row),
    };
    assert!(trusting.judge(&mark(10), 5, &seen(row)).is_ok());
    let doubt = trusting.judge(&mark(10), 5, &seen(forgotten));
    assert!(matches!(doubt, Err(Doubt::WentBack(_))), "{doubt:?}");
}

#[test]
fn a_freeze_outlives_a_row_that_lacks_it() {
    let row = merged(&binding(), 1, None).unwrap();
    let frozen = Binding {
        frozen: Some("suspect".to_owned()),
        ..binding()
    };
    for row in [None, Some(&row)] {
        let merged = merged(&frozen, 2, row).unwrap();
        assert_eq!(merged.frozen.as_deref(), Some("suspect"));
    }
}
