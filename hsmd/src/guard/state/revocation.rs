//! The list of revocations that was taken last.

use hsm_policy::revocation::Revocations;
use hsm_proto::v1 as wire;

use super::State;

/// The list, and the entry that it came in, which anyone can verify.
#[derive(Clone, Debug)]
pub(in crate::guard) struct Taken {
    list: Revocations,
    entry: wire::RevocationsTaken,
}

impl State {
    /// The list of revocations in force; none before the first.
    #[must_use]
    pub fn revocations(&self) -> Option<&Revocations> {
        self.revocations.as_ref().map(|taken| &taken.list)
    }

    pub(super) fn plan_revocations(
        &self,
        entry: wire::RevocationsTaken,
    ) -> Result<super::change::Change, String> {
        let taken = Taken::from_wire(entry)?;
        if let Some(before) = self.revocations() {
            let refused = before.gives_way_to(&taken.list);
            refused.map_err(|error| error.to_string())?;
        }
        Ok(super::change::Change::Revocations(Box::new(taken)))
    }
}

impl Taken {
    pub(super) fn from_wire(entry: wire::RevocationsTaken) -> Result<Self, String> {
        let list = Revocations::parse(&entry.document).map_err(|error| error.to_string())?;
        Ok(Self { list, entry })
    }

    pub(super) fn to_wire(&self) -> wire::RevocationsTaken {
        self.entry.clone()
    }
}
