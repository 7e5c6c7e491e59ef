//! `hsmd check`: the configuration, the certificates, the policy, and who may have what signed.

use clap::Args;
use hsm_policy::grants::Grant;
use serde_json::{Value, json};

use super::{Error, Printed};
use crate::config;
use crate::daemon;
use crate::transport::Certificates;

#[derive(Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    printed: Printed,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Error> {
    let config = arguments.printed.configured.load()?;
    let unseen_key = config::is_elsewhere(&config.listen.private_key);
    match unseen_key {
        true => Certificates::check_without_key(&config.listen)?,
        false => Certificates::load(&config.listen).map(drop)?,
    }
    let (policy, digest) = daemon::read_policy(&config)?;
    if arguments.printed.json {
        let grants: Vec<_> = policy.grants().map(grant_json).collect();
        say!(
            "{:#}",
            json!({
                "config": config.file.display().to_string(),
                "policy": { "path": config.policy.display().to_string(), "sha256": hex::encode(digest) },
                "private_key_checked": !unseen_key,
                "mock": config.has_mock(),
                "grants": grants,
            })
        );
        return Ok(());
    }
    say!("{}: good", config.file.display());
    say!(
        "{}: good, sha256 {}",
        config.policy.display(),
        hex::encode(digest)
    );
    if unseen_key {
        say!(
            "{}: not checked: a credential of the service, which alone sees it",
            config.listen.private_key.display()
        );
    }
    if config.has_mock() {
        say!("MOCK HSM: the keys are protected by nothing");
    }
    say!("\nWho may have what signed; everything else is denied:\n");
    let rows: Vec<[String; 5]> = policy.grants().flat_map(rows).collect();
    print_table(["caller", "key", "chain", "kinds", "limits"], &rows)
}

fn rows(grant: &Grant) -> impl Iterator<Item = [String; 5]> {
    grant.callers().iter().map(move |caller| {
        [
            caller.to_string(),
            grant.key().to_string(),
            grant.chain_id().to_string(),
            kinds(grant).join(" "),
            limits(grant),
        ]
    })
}

fn kinds(grant: &Grant) -> Vec<String> {
    grant.kinds().iter().map(|kind| kind.to_string()).collect()
}

fn limits(grant: &Grant) -> String {
    let skew = grant
        .max_clock_skew()
        .map(|skew| format!(", clock skew {} s", skew.as_secs()));
    format!(
        "height jump {}, round {}{}",
        grant.max_height_jump(),
        grant.max_round(),
        skew.unwrap_or_default()
    )
}

fn grant_json(grant: &Grant) -> Value {
    json!({
        "callers": grant.callers().iter().map(ToString::to_string).collect::<Vec<_>>(),
        "key": grant.key().as_str(),
        "chain_id": grant.chain_id().as_str(),
        "kinds": kinds(grant),
        "max_height_jump": grant.max_height_jump(),
        "max_round": grant.max_round(),
        "max_clock_skew_seconds": grant.max_clock_skew().map(|skew| skew.as_secs()),
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
