//! What another signer's state does to a mark.

use hsm_device::PublicKey;
use hsm_policy::cometbft::{ChainId, Position};
use hsm_policy::conflict::{Imported, Last, Mark, Outcome, merge};
use hsm_policy::state_files::{ExportedKey, ExportedMark, Signed as FileSigned};
use hsm_proto::v1 as wire;

use super::change::Change;
use super::{ChainMark, Made, Place, Signatures, State};
use crate::guard::entry;

/// A checked [`wire::StateImported`].
pub(in crate::guard) struct Import {
    imported: Imported,
    signatures: Option<Signatures>,
}

impl State {
    /// What importing would do to the mark.
    ///
    /// # Errors
    ///
    /// A sentence for people.
    pub(in crate::guard) fn import_outcome(
        &self,
        imported: &wire::StateImported,
    ) -> Result<Outcome, String> {
        let (_, known) = self.known(imported.public_key.clone(), &imported.chain_id)?;
        Ok(merge(&known.mark, import(imported)?.imported).1)
    }

    /// Every key and its marks, for a file.
    #[must_use]
    pub fn exported(&self) -> Vec<ExportedKey> {
        let mut keys: Vec<ExportedKey> = self
            .keys
            .iter()
            .map(|(public_key, key)| ExportedKey {
                public_key: public_key.as_bytes().to_vec(),
                names: key.names.clone(),
                marks: key
                    .chains
                    .iter()
                    .map(|(chain, known)| exported(chain, known))
                    .collect(),
            })
            .collect();
        keys.sort_by(|a, b| a.names.cmp(&b.names));
        keys
    }

    /// The names and chains of the marks at which an imported state knew another message.
    #[must_use]
    pub fn contested(&self) -> Vec<(String, String)> {
        let keys = self.keys.values();
        let marks = keys.flat_map(|key| {
            let contested = key
                .chains
                .iter()
                .filter(|(_, mark)| mark.contested.is_some());
            contested.map(|(chain, _)| (key.names.join(", "), chain.to_string()))
        });
        marks.collect()
    }

    /// The chains and positions at which an imported state knew another message of this key.
    #[must_use]
    pub fn contested_chains(&self, name: &str) -> Vec<(ChainId, Position)> {
        let key = self.pinned(name).and_then(|key| self.keys.get(&key));
        let chains = key.into_iter().flat_map(|key| &key.chains);
        chains
            .filter_map(|(chain, mark)| Some((chain.clone(), mark.contested?)))
            .collect()
    }

    /// A name and the key itself, where a public key with these raw bytes has a mark on the chain.
    #[must_use]
    pub fn known_as(&self, public_key: &[u8], chain: &ChainId) -> Option<(String, PublicKey)> {
        let mut keys = self.keys.iter();
        let (key, known) = keys.find(|(key, known)| {
            key.as_bytes() == public_key && known.chains.contains_key(chain)
        })?;
        Some((known.names.first()?.clone(), *key))
    }

    pub(super) fn plan_import(&self, imported: &wire::StateImported) -> Result<Change, String> {
        let (place, _) = self.known(imported.public_key.clone(), &imported.chain_id)?;
        Ok(Change::Import(place, Box::new(import(imported)?)))
    }

    pub(super) fn commit_import(
        &mut self,
        index: u64,
        time: &prost_types::Timestamp,
        place: &Place,
        import: Import,
    ) {
        let Some(known) = self.at(place) else {
            return;
        };
        let before = known.mark.last.as_ref().map(|last| last.position);
        let (mark, outcome) = merge(&known.mark, import.imported);
        let after = mark.last.as_ref().map(|last| last.position);
        known.mark = mark;
        if after > before {
            known.made = Some(Box::new(Made {
                index,
                time: *time,
                signatures: import.signatures,
                leaf: None,
                imported: true,
            }));
        }
        if let Outcome::Dropped(position) | Outcome::Contested(position) = outcome {
            if let Some(made) = known.made.as_mut() {
                made.signatures = None;
            }
            if outcome == Outcome::Contested(position) {
                known.contested = Some(position);
            }
        }
    }
}

fn import(imported: &wire::StateImported) -> Result<Import, String> {
    if imported.initial_height < 0 {
        return Err(format!("an initial height of {}", imported.initial_height));
    }
    let last = match imported.position {
        None => None,
        Some(position) => Some(Last {
            position: entry::position_from_wire(Some(position))?,
            sign_bytes: imported.sign_bytes.clone(),
            timestamp: entry::timestamp_from_wire(Some(imported.timestamp.unwrap_or_default()))?,
            extension_sign_bytes: None,
        }),
    };
    let signatures = match imported.signature.len() {
        0 => None,
        64 => Some(Signatures {
            message: imported.signature.clone(),
            extension: None,
        }),
        length => return Err(format!("a signature of {length} bytes")),
    };
    let imported = Imported {
        initial_height: imported.initial_height,
        last,
    };
    Ok(Import {
        imported,
        signatures,
    })
}

fn exported(chain: &ChainId, known: &ChainMark) -> ExportedMark {
    let made = known.made.as_ref();
    let signatures = made.and_then(|made| made.signatures.as_ref());
    let Mark {
        initial_height,
        last,
    } = known.shared_mark();
    ExportedMark {
        chain_id: chain.clone(),
        signed: FileSigned {
            imported: Imported {
                initial_height,
                last,
            },
            signature: signatures.map_or_else(Vec::new, |made| made.message.clone()),
        },
    }
}
