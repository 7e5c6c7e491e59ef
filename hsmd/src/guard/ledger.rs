//! What a journal knows of the ledger through which a key's mark is shared, and whether a row of it may be trusted.
//! Pure: the network is in `crate::ledger`.

mod row;

use std::collections::BTreeSet;

use hsm_policy::conflict::Mark;
use hsm_proto::v1 as wire;

pub use row::{Id, Row};

/// What etcd answered: the whole of what trust in it rests on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// etcd's id of its cluster.
    pub cluster_id: u64,
    /// etcd's revision at the answer.
    pub revision: u64,
    /// The row; `None` where there is none.
    pub row: Option<Row>,
}

/// What a journal knows of the ledger that a key's mark is shared through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binding {
    /// Which ledger.
    pub ledger_id: Id,
    /// The etcd cluster that it is in.
    pub cluster_id: u64,
    /// The highest revision that is journaled.
    pub revision: u64,
    /// Into which generation this journal was merged.
    pub generation: u64,
    /// Every signer that was seen to be bound to it.
    pub members: BTreeSet<Id>,
    /// Those whose journals officers stated to be lost: they never come back.
    pub lost: BTreeSet<Id>,
    /// Why no signer signs, where the key is frozen for all of them.
    pub frozen: Option<String>,
    /// Where the rollback anchor's counter stood when the key was bound; 0 where it was bound from the beginning. Until it
    /// is further nothing is signed: an older image, in which the key is not bound, could be taken for this state.
    pub bound_at: u64,
    /// Why nothing is signed until `hsmd ledger reconcile`; `None` while the ledger is trusted.
    pub distrusted: Option<String>,
}

/// Why a ledger is not signed by.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Doubt {
    /// It showed less than was seen in it, so that it may lack what another signer signed. Every journal has to be
    /// merged into it.
    #[error("{0}")]
    WentBack(String),
    /// It may be in order, and is not the one that this journal knows. Nothing is lost where the way there is
    /// corrected.
    #[error("{0}")]
    Another(String),
    /// Journals are being merged, and not all of them are.
    #[error(
        "the ledger is being reconciled: run `hsmd ledger reconcile` on the signers {awaited} too; until then \
         no signer signs"
    )]
    Awaited {
        /// Their ids, separated by commas.
        awaited: String,
    },
    /// Officers stated that this signer's journal is lost.
    #[error(
        "officers stated that the journal of this signer, {signer}, is lost, and the others went on without it: it \
         never signs through this ledger again. Make new state, and the key known there with `hsmd key init --ledger \
         join`"
    )]
    Lost {
        /// Its id.
        signer: Id,
    },
}

impl Binding {
    pub(super) fn of(row: &Row, cluster_id: u64, revision: u64) -> Self {
        Self {
            ledger_id: row.ledger_id,
            cluster_id,
            revision,
            generation: row.generation,
            members: row.members.clone(),
            lost: row.lost.clone(),
            frozen: row.frozen.clone(),
            bound_at: 0,
            distrusted: None,
        }
    }

    /// Whether a row says anything that is not known by now; `mark` is the key's in the journal.
    pub(crate) fn is_news(&self, mark: &Mark, row: &Row) -> bool {
        let known = (mark, &self.members, &self.lost, &self.frozen);
        (&row.mark, &row.members, &row.lost, &row.frozen) != known
    }

    /// Whether the proof holds for what this journal knows by now.
    pub(super) fn admits(&self, cleared: Cleared) -> bool {
        self.distrusted.is_none()
            && cleared.generation == self.generation
            && cleared.revision >= self.revision
    }

    /// Whether what was seen is at or above everything that was seen before: `mark` is the key's in the journal,
    /// `revision` the highest of this process.
    ///
    /// # Errors
    ///
    /// The [`Doubt`].
    pub fn judge(&self, mark: &Mark, revision: u64, seen: &Seen) -> Result<Row, Doubt> {
        const REMEDY: &str = "if etcd was restored from a backup or made anew, run `hsmd ledger reconcile` on \
                              every signer of the key";
        if seen.cluster_id != self.cluster_id {
            return Err(Doubt::Another(format!(
                "etcd's cluster is {:016x}, and the ledger was in {:016x}: correct [ledger].endpoints or, {REMEDY}",
                seen.cluster_id, self.cluster_id
            )));
        }
        let went_back = |what: String| Err(Doubt::WentBack(format!("{what}: {REMEDY}")));
        let known = self.revision.max(revision);
        if seen.revision < known {
            return went_back(format!(
                "etcd is at revision {}, and was seen at {known}",
                seen.revision
            ));
        }
        let Some(row) = &seen.row else {
            return went_back("the ledger's row is missing".to_owned());
        };
        if row.ledger_id != self.ledger_id {
            return went_back(format!(
                "the row is of ledger {}, and the key is bound to {}",
                row.ledger_id, self.ledger_id
            ));
        }
        if row.generation > self.generation {
            return Err(Doubt::Another(format!(
                "another signer began to reconcile the ledger, as generation {}, and this journal was merged into \
                 {}: run `hsmd ledger reconcile` here too",
                row.generation, self.generation
            )));
        }
        if row.generation < self.generation
            || !row.members.is_superset(&self.members)
            || !row.lost.is_superset(&self.lost)
        {
            return went_back(format!(
                "the row is of generation {} with {} members, {} of them lost, and {} with {} and {} were seen",
                row.generation,
                row.members.len(),
                row.lost.len(),
                self.generation,
                self.members.len(),
                self.lost.len()
            ));
        }
        if !row.mark.covers(mark) {
            return went_back(format!(
                "the row stands at {}, and {} was seen",
                place(&row.mark),
                place(mark)
            ));
        }
        if !row.awaited.is_empty() {
            let awaited: Vec<_> = row.awaited.iter().map(ToString::to_string).collect();
            return Err(Doubt::Awaited {
                awaited: awaited.join(", "),
            });
        }
        Ok(row.clone())
    }

    /// The row to write where this journal is merged into a ledger that is not trusted; `signer` is this one.
    ///
    /// # Errors
    ///
    /// A sentence for people, where the row is of another ledger, or this journal was stated to be lost.
    pub fn reconciled(&self, mark: &Mark, signer: Id, seen: Option<&Row>) -> Result<Row, String> {
        if let Some(row) = seen.filter(|row| row.ledger_id != self.ledger_id) {
            return Err(format!(
                "the row in etcd is of ledger {}, and the key is bound to {}: correct [ledger].endpoints, or \
                 remove that row after you have made sure that no signer uses it",
                row.ledger_id, self.ledger_id
            ));
        }
        let known = self.known(mark);
        let mut row = seen.map_or_else(|| known.clone(), |row| row.joined(&known));
        if row.lost.contains(&signer) {
            return Err(Doubt::Lost { signer }.to_string());
        }
        row.members.insert(signer);
        if row.generation > self.generation {
            // Another signer began. Who it did not know of is awaited as well.
            let strangers = row
                .members
                .iter()
                .filter(|id| !seen.is_some_and(|seen| seen.members.contains(id)));
            row.awaited.extend(strangers.copied().collect::<Vec<_>>());
        } else {
            row.generation = self.generation.saturating_add(1);
            row.awaited = row.members.clone();
        }
        row.awaited.remove(&signer);
        row.awaited.retain(|id| !row.lost.contains(id));
        Ok(row)
    }

    /// The row that this journal alone knows of.
    fn known(&self, mark: &Mark) -> Row {
        Row {
            ledger_id: self.ledger_id,
            generation: self.generation,
            members: self.members.clone(),
            awaited: BTreeSet::new(),
            lost: self.lost.clone(),
            frozen: self.frozen.clone(),
            mark: mark.clone(),
        }
    }

    pub(super) fn to_wire(&self) -> wire::LedgerBinding {
        wire::LedgerBinding {
            ledger_id: self.ledger_id.to_vec(),
            cluster_id: self.cluster_id,
            revision: self.revision,
            generation: self.generation,
            members: row::ids_to_wire(&self.members),
            distrusted: self.distrusted.clone().unwrap_or_default(),
            lost: row::ids_to_wire(&self.lost),
            frozen: self.frozen.clone().unwrap_or_default(),
            bound_at: self.bound_at,
        }
    }

    pub(super) fn from_wire(binding: wire::LedgerBinding) -> Result<Self, String> {
        Ok(Self {
            ledger_id: Id::new(&binding.ledger_id)?,
            cluster_id: binding.cluster_id,
            revision: binding.revision,
            generation: binding.generation,
            members: row::ids_from_wire(&binding.members)?,
            lost: row::ids_from_wire(&binding.lost)?,
            frozen: Some(binding.frozen).filter(|reason| !reason.is_empty()),
            bound_at: binding.bound_at,
            distrusted: Some(binding.distrusted).filter(|reason| !reason.is_empty()),
        })
    }
}

/// Proof that the ledger's row was changed to a message, or found to hold it, and that it could be trusted.
/// Made by `crate::ledger` alone.
#[derive(Clone, Copy, Debug)]
pub struct Cleared {
    pub(crate) generation: u64,
    pub(crate) revision: u64,
}

fn place(mark: &Mark) -> String {
    match &mark.last {
        None => format!("height {}, with nothing signed above", mark.initial_height),
        Some(last) => last.position.to_string(),
    }
}
