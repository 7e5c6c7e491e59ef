//! Which policy is in force at a start.

use std::sync::{Mutex, PoisonError};

use crate::config::Config;
use crate::guard;
use crate::in_force::{self, InForce, Read};

/// Finds the document of the policy that was loaded last, which may have been read before, unless there is one that
/// nobody signed. Before anything is written: without it hsmd does not start.
pub(super) fn find(
    config: &Config,
    state: &guard::State,
    read: &Mutex<Option<Read>>,
    in_force: &Mutex<Option<InForce>>,
) -> Result<(), in_force::Error> {
    let read = read.lock().unwrap_or_else(PoisonError::into_inner).take();
    let mut in_force = in_force.lock().unwrap_or_else(PoisonError::into_inner);
    if in_force.is_none() {
        *in_force = Some(InForce::loaded_from(
            read,
            &config.state_dir,
            state.policy(),
        )?);
    } else if let Some(mark) = state.policy() {
        return Err(in_force::Error::Signed(mark.version));
    }
    Ok(())
}

/// What somebody should know of the policy at a start.
pub(super) fn tell_of(in_force: &InForce, config: &Config) {
    let has_key = |name: &str| config.keys.iter().any(|key| key.name == name);
    if in_force.is_unsigned() {
        tracing::warn!("the policy in force is one that nobody signed: for development only");
    } else if in_force.mark.is_none() {
        tracing::warn!("no policy was loaded, so that nothing is signed: `hsmd policy load`");
    }
    if let Err(reason) = in_force::names_known_keys(&in_force.policy, has_key) {
        tracing::warn!("the policy in force, {reason}");
    }
}
