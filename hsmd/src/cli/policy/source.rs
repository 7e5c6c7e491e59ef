//! Policies, from files and from whoever holds the state.

use std::path::Path;

use hsm_policy::grants::Policy;
use hsm_proto::v1 as wire;

use super::super::{Configured, Error, admin, block_on};
use crate::config::Config;
use crate::guard::State;
use crate::in_force::InForce;

/// The policy in force, and the deployment that it is in force in.
pub(in crate::cli) struct Found {
    pub(in crate::cli) policy: Policy,
    pub(in crate::cli) status: wire::PolicyStatus,
    /// 16 bytes.
    pub(in crate::cli) deployment_id: Vec<u8>,
}

/// From the running daemon or, where none runs, from the state's files, which are only read.
pub(in crate::cli) fn in_force(config: &Config) -> Result<Found, Error> {
    let told = block_on(async {
        let Some(mut client) = admin::find(&config.admin_socket).await? else {
            return Ok(None);
        };
        let answer = client.get_policy(wire::GetPolicyRequest {}).await;
        Ok(Some(
            answer
                .map_err(|status| admin::sentence(&status))?
                .into_inner(),
        ))
    })?;
    match told {
        Some(told) => Ok(Found {
            policy: Policy::parse(std::str::from_utf8(&told.document)?)?,
            status: told.policy.unwrap_or_default(),
            deployment_id: told.deployment_id,
        }),
        None => {
            let state: State = hsm_journal::look(&config.state_dir)?;
            let in_force = InForce::loaded(&config.state_dir, state.policy())?;
            Ok(Found {
                status: in_force.status(std::time::SystemTime::now()),
                policy: in_force.policy,
                deployment_id: state.deployment_id().to_vec(),
            })
        }
    }
}

/// From a file or, where none is named, the one in force.
pub(super) fn of(file: Option<&Path>, configured: &Configured) -> Result<Policy, Error> {
    match file {
        Some(file) => read(file).map(|(_, policy)| policy),
        None => Ok(in_force(&configured.load_to_look()?)?.policy),
    }
}

/// The text of a file, and the policy that it is.
pub(super) fn read(file: &Path) -> Result<(String, Policy), Error> {
    let at = |error: &dyn std::fmt::Display| format!("{}: {error}", file.display());
    let text = std::fs::read_to_string(file).map_err(|error| at(&error))?;
    let policy = Policy::parse(&text).map_err(|error| at(&error))?;
    Ok((text, policy))
}
