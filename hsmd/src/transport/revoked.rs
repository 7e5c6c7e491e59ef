//! Which certificates are revoked, as every connection and the follower of the list share it.

use std::sync::{Arc, PoisonError, RwLock};

use hsm_policy::identity::Caller;
use hsm_policy::revocation::{Error, Revocations};

/// The list in force; clones share it. It is asked at each request, so that what it says counts on open connections.
#[derive(Clone, Debug, Default)]
pub struct Revoked(Arc<RwLock<Option<Revocations>>>);

impl Revoked {
    /// Puts a list into force that was verified, unless it already is.
    ///
    /// # Errors
    /// Where it is older than the one in force, or gives something back.
    pub fn put(&self, list: &Revocations) -> Result<(), Error> {
        let mut in_force = self.0.write().unwrap_or_else(PoisonError::into_inner);
        match in_force.as_ref() {
            Some(before) if before == list => return Ok(()),
            Some(before) => before.gives_way_to(list)?,
            None => {}
        }
        *in_force = Some(list.clone());
        Ok(())
    }

    /// Whether the caller's certificate, valid from `not_before` on (seconds since 1970), is revoked.
    #[must_use]
    pub fn revokes(&self, caller: &Caller, not_before: u64) -> bool {
        let list = self.0.read().unwrap_or_else(PoisonError::into_inner);
        list.as_ref()
            .is_some_and(|list| list.revokes(caller, not_before))
    }

    /// The sequence of the list in force; 0 where there is none.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        let list = self.0.read().unwrap_or_else(PoisonError::into_inner);
        list.as_ref().map_or(0, Revocations::sequence)
    }
}
