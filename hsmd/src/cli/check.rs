//! `hsmd check`: the configuration, the certificates, the policy in force, and who may have what signed.

use clap::Args;
use serde_json::json;

use super::policy::{self, source, table};
use super::{Error, Printed};
use crate::config::{self, Config};
use crate::in_force::{self, InForce};
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
    let found = of(&config)?;
    if arguments.printed.json {
        let mut all = match &found {
            Some(found) => table::as_json(&found.policy),
            None => json!({}),
        };
        if let Some(all) = all.as_object_mut() {
            all.insert(
                "config".to_owned(),
                json!(config.file.display().to_string()),
            );
            all.insert("private_key_checked".to_owned(), json!(!unseen_key));
            all.insert("mock".to_owned(), json!(config.has_mock()));
            let version = found.as_ref().map(|found| found.status.version);
            all.insert("policy_version".to_owned(), json!(version));
        }
        say!("{all:#}");
        return Ok(());
    }
    say!("{}: good", config.file.display());
    if unseen_key {
        say!(
            "{}: not checked: a credential of the service, which alone sees it",
            config.listen.private_key.display()
        );
    }
    if config.has_mock() {
        say!("MOCK HSM: the keys are protected by nothing");
    }
    match &found {
        Some(found) => {
            policy::describe(&found.status)?;
            table::print(&found.policy)
        }
        None => {
            say!("policy: there is no state yet: `hsmd state init`, then `hsmd policy load`");
            Ok(())
        }
    }
}

/// None where there is no state yet.
fn of(config: &Config) -> Result<Option<source::Found>, Error> {
    let found = match &config.policy {
        Some(path) => {
            let in_force = InForce::unsigned(path)?;
            source::Found {
                status: in_force.status(std::time::SystemTime::now()),
                policy: in_force.policy,
                deployment_id: Vec::new(),
            }
        }
        None if !config.state_dir.join("lock").exists() => return Ok(None),
        None => source::in_force(config)?,
    };
    let has_key = |name: &str| config.keys.iter().any(|key| key.name == name);
    in_force::names_known_keys(&found.policy, has_key)
        .map_err(|reason| format!("the policy in force, {reason}"))?;
    Ok(Some(found))
}
