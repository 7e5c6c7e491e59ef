//! The row of a ledger, and the ids in it.

use std::collections::BTreeSet;
use std::fmt;

use hsm_policy::cometbft::Message;
use hsm_policy::conflict::{Last, Mark};
use hsm_proto::v1 as wire;
use prost::Message as _;

use crate::guard::entry;

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
    /// Those whose journals officers stated to be lost: never awaited, and never let in again.
    pub lost: BTreeSet<Id>,
    /// Why no signer signs; `None` while the key is not frozen.
    pub frozen: Option<String>,
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

    pub(in crate::guard) fn from_wire(row: wire::LedgerRow) -> Result<Self, String> {
        if row.format != FORMAT {
            let format = row.format;
            return Err(format!(
                "a row of format {format}, and this version knows {FORMAT}: another version of hsmd wrote it"
            ));
        }
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
            members: ids_from_wire(&row.members)?,
            awaited: ids_from_wire(&row.awaited)?,
            lost: ids_from_wire(&row.lost)?,
            frozen: Some(row.frozen).filter(|reason| !reason.is_empty()),
            mark: Mark {
                initial_height: row.initial_height,
                last,
            },
        })
    }

    pub(crate) fn to_wire(&self) -> wire::LedgerRow {
        let mut row = wire::LedgerRow {
            format: FORMAT,
            ledger_id: self.ledger_id.to_vec(),
            generation: self.generation,
            members: ids_to_wire(&self.members),
            awaited: ids_to_wire(&self.awaited),
            lost: ids_to_wire(&self.lost),
            frozen: self.frozen.clone().unwrap_or_default(),
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

    /// What this row and another one of the ledger say together; the generation and who is awaited are this one's.
    pub(super) fn joined(&self, other: &Self) -> Self {
        Self {
            members: self.members.union(&other.members).copied().collect(),
            lost: self.lost.union(&other.lost).copied().collect(),
            frozen: self.frozen.clone().or_else(|| other.frozen.clone()),
            mark: self.mark.merged(&other.mark),
            ..self.clone()
        }
    }

    fn with_last(&self, last: Last) -> Self {
        let mut row = self.clone();
        row.mark.last = Some(last);
        row
    }
}

pub(super) fn ids_to_wire(ids: &BTreeSet<Id>) -> Vec<Vec<u8>> {
    ids.iter().map(|id| id.to_vec()).collect()
}

pub(super) fn ids_from_wire(ids: &[Vec<u8>]) -> Result<BTreeSet<Id>, String> {
    ids.iter().map(|id| Id::new(id)).collect()
}
