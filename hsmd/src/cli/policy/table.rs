//! A policy as a table, and as JSON.

use hsm_policy::grants::{Grant, Policy};
use serde_json::{Value, json};

use super::super::Error;

/// Who may have what signed.
pub(in crate::cli) fn print(policy: &Policy) -> Result<(), Error> {
    say!("\nWho may have what signed; everything else is denied:\n");
    let rows: Vec<[String; 5]> = policy.grants().flat_map(rows).collect();
    print_table(["caller", "key", "chain", "kinds", "limits"], &rows)?;
    for freeze in policy.freezes() {
        say!("  FROZEN: {}", freeze.key());
    }
    Ok(())
}

/// The same for programs.
pub(in crate::cli) fn as_json(policy: &Policy) -> Value {
    let grants: Vec<_> = policy.grants().map(grant_json).collect();
    let frozen = policy.freezes().iter().map(|freeze| freeze.key().as_str());
    json!({ "grants": grants, "frozen_keys": frozen.collect::<Vec<_>>() })
}

fn rows(grant: &Grant) -> impl Iterator<Item = [String; 5]> {
    grant.callers().iter().map(move |caller| {
        [
            caller.to_string(),
            grant.key().to_string(),
            grant.chain_id().to_string(),
            kinds(grant).join(" "),
            grant.limits().to_string(),
        ]
    })
}

fn kinds(grant: &Grant) -> Vec<String> {
    grant.kinds().iter().map(|kind| kind.to_string()).collect()
}

fn grant_json(grant: &Grant) -> Value {
    let limits = grant.limits();
    json!({
        "callers": grant.callers().iter().map(ToString::to_string).collect::<Vec<_>>(),
        "key": grant.key().as_str(),
        "chain_id": grant.chain_id().as_str(),
        "kinds": kinds(grant),
        "max_height_jump": limits.max_height_jump,
        "max_round": limits.max_round,
        "max_height": limits.max_height,
        "max_clock_skew_seconds": limits.max_clock_skew.map(|skew| skew.as_secs()),
        "max_heights_per_second": limits.max_heights_per_second.map(|rate| rate.to_string()),
        "max_requests_per_second": limits.max_requests_per_second.map(|rate| rate.to_string()),
        "line": grant.line(),
    })
}

fn print_table<const N: usize>(head: [&str; N], rows: &[[String; N]]) -> Result<(), Error> {
    let mut widths = head.map(str::len);
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.len());
        }
    }
    let line = |cells: &[&str]| -> Result<(), Error> {
        let padded = cells
            .iter()
            .zip(&widths)
            .map(|(cell, &width)| format!("{cell:width$}"));
        say!("  {}", padded.collect::<Vec<_>>().join("  ").trim_end());
        Ok(())
    };
    line(&head)?;
    rows.iter()
        .try_for_each(|row| line(&row.each_ref().map(String::as_str)))
}
