//! What a journal knows of the ledger through which a key's mark is shared, and whether a row of it may be trusted.
//! Pure: the network is in `crate::ledger`.

use std::collections::BTreeSet;
use std::fmt;

use hsm_policy::cometbft::Message;
use hsm_policy::conflict::{Last, Mark};
use hsm_proto::v1 as wire;
use prost::Message as _;

use super::entry;

/// The only format of a row.
const FORMAT: u32 = 1;

/// 16 bytes that tell one ledger, or one signer, from every other. Shown as 32 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id([u8; 16]);

impl Id {
    /// An id from its bytes.
    ///
    /// # Errors
    ///
    /// A sentence for people, where there are not 16.
    pub fn new(bytes: &[u8]) -> Result<Self, String> {
        let length = bytes.len();
        let id = bytes.try_into().map(Self);
        id.map_err(|_| format!("an id of {length} bytes, where 16 are wanted"))
    }

    /// Its bytes.
    #[must_use]
    pub fn to_vec(self) -> Vec<u8> {
        self.0.to_vec()
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The row of a ledger: `hsm/v1/ledger.proto`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Which ledger.
    pub ledger_id: Id,
    /// How often its journals were merged.
    pub generation: u64,
    /// Every signer that was ever bound to it.
    pub members: BTreeSet<Id>,
    /// Those whose journals this generation still lacks: while there are any, nothing is signed.
    pub awaited: BTreeSet<Id>,
    /// The mark that all share.
    pub mark: Mark,
}

impl Row {
    /// From etcd.
    ///
    /// # Errors
    ///
    /// A sentence for people, where it is no row that this version knows.
    pub fn decode(value: &[u8]) -> Result<Self, String> {
        let row = wire::LedgerRow::decode(value).map_err(|error| format!("not a row: {error}"))?;
        Self::from_wire(row)
    }

    /// For etcd. One row has one encoding.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        self.to_wire().encode_to_vec()
    }

    pub(super) fn from_wire(row: wire::LedgerRow) -> Result<Self, String> {
        if row.format != FORMAT {
            let format = row.format;
            return Err(format!(
                "a row of format {format}, and this version knows {FORMAT}: another version of hsmd wrote it"
            ));
        }
        let ids = |ids: &[Vec<u8>]| ids.iter().map(|id| Id::new(id)).collect::<Result<_, _>>();
        let last = match row.position {
            None => None,
            position => Some(Last {
                position: entry::position_from_wire(position)?,
                sign_bytes: row.sign_bytes,
                timestamp: entry::timestamp_from_wire(row.timestamp)?,
                extension_sign_bytes: row.extension_sign_bytes,
            }),
        };
        Ok(Self {
            ledger_id: Id::new(&row.ledger_id)?,
            generation: row.generation,
            members: ids(&row.members)?,
            awaited: ids(&row.awaited)?,
            mark: Mark {
                initial_height: row.initial_height,
                last,
            },
        })
    }

    pub(crate) fn to_wire(&self) -> wire::LedgerRow {
        let ids = |ids: &BTreeSet<Id>| ids.iter().map(|id| id.to_vec()).collect();
        let mut row = wire::LedgerRow {
            format: FORMAT,
            ledger_id: self.ledger_id.to_vec(),
            generation: self.generation,
            members: ids(&self.members),
            awaited: ids(&self.awaited),
            initial_height: self.mark.initial_height,
            ..wire::LedgerRow::default()
        };
        if let Some(last) = &self.mark.last {
            row.position = Some(entry::position_to_wire(last.position));
            row.sign_bytes.clone_from(&last.sign_bytes);
            row.timestamp = Some(entry::timestamp_to_wire(last.timestamp));
            row.extension_sign_bytes
                .clone_from(&last.extension_sign_bytes);
        }
        row
    }

    /// The row once `message`, at a later position, is reserved.
    #[must_use]
    pub fn with_message(&self, message: &Message) -> Self {
        let last = Last {
            position: message.position(),
            sign_bytes: message.sign_bytes(),
            timestamp: message.timestamp(),
            extension_sign_bytes: message.extension_sign_bytes(),
        };
        self.with_last(last)
    }

    /// The row once the last message's extension is signed anew.
    #[must_use]
    pub fn with_extension(&self, message: &Message) -> Self {
        let mut row = self.clone();
        if let Some(last) = &mut row.mark.last {
            last.extension_sign_bytes = message.extension_sign_bytes();
        }
        row
    }

    fn with_last(&self, last: Last) -> Self {
        let mut row = self.clone();
        row.mark.last = Some(last);
        row
    }
}

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
}

impl Binding {
    pub(super) fn of(row: &Row, cluster_id: u64, revision: u64) -> Self {
        Self {
            ledger_id: row.ledger_id,
            cluster_id,
            revision,
            generation: row.generation,
            members: row.members.clone(),
            distrusted: None,
        }
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
        if row.generation < self.generation || !row.members.is_superset(&self.members) {
            return went_back(format!(
                "the row is of generation {} with {} members, and {} with {} were seen",
                row.generation,
                row.members.len(),
                self.generation,
                self.members.len()
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
    /// A sentence for people, where the row is of another ledger.
    pub fn reconciled(&self, mark: &Mark, signer: Id, seen: Option<&Row>) -> Result<Row, String> {
        let mut members = self.members.clone();
        members.insert(signer);
        let Some(row) = seen else {
            return Ok(Row {
                ledger_id: self.ledger_id,
                generation: self.generation.saturating_add(1),
                awaited: without(&members, signer),
                members,
                mark: mark.clone(),
            });
        };
        if row.ledger_id != self.ledger_id {
            return Err(format!(
                "the row in etcd is of ledger {}, and the key is bound to {}: correct [ledger].endpoints, or \
                 remove that row after you have made sure that no signer uses it",
                row.ledger_id, self.ledger_id
            ));
        }
        let mark = row.mark.merged(mark);
        if row.generation > self.generation {
            // Another signer began. Who it did not know of is awaited as well.
            let strangers = members.difference(&row.members).copied();
            let awaited: BTreeSet<Id> = row.awaited.iter().copied().chain(strangers).collect();
            return Ok(Row {
                awaited: without(&awaited, signer),
                members: row.members.union(&members).copied().collect(),
                mark,
                ..row.clone()
            });
        }
        let members: BTreeSet<Id> = row.members.union(&members).copied().collect();
        Ok(Row {
            generation: self.generation.saturating_add(1),
            awaited: without(&members, signer),
            members,
            mark,
            ..row.clone()
        })
    }

    pub(super) fn to_wire(&self) -> wire::LedgerBinding {
        wire::LedgerBinding {
            ledger_id: self.ledger_id.to_vec(),
            cluster_id: self.cluster_id,
            revision: self.revision,
            generation: self.generation,
            members: self.members.iter().map(|id| id.to_vec()).collect(),
            distrusted: self.distrusted.clone().unwrap_or_default(),
        }
    }

    pub(super) fn from_wire(binding: wire::LedgerBinding) -> Result<Self, String> {
        let members = binding.members.iter().map(|id| Id::new(id));
        Ok(Self {
            ledger_id: Id::new(&binding.ledger_id)?,
            cluster_id: binding.cluster_id,
            revision: binding.revision,
            generation: binding.generation,
            members: members.collect::<Result<_, _>>()?,
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

fn without(ids: &BTreeSet<Id>, one: Id) -> BTreeSet<Id> {
    ids.iter().copied().filter(|id| *id != one).collect()
}

fn place(mark: &Mark) -> String {
    match &mark.last {
        None => format!("height {}, with nothing signed above", mark.initial_height),
        Some(last) => last.position.to_string(),
    }
}
