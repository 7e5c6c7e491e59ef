//! What the guard hands out: proof that a position is bound to one message.

use hsm_policy::cometbft::{Message, Timestamp};
use hsm_policy::conflict::Last;
use hsm_proto::v1 as wire;

use super::{Ask, Made, entry};

/// Proof that a durable entry forbids every message that conflicts with this one.
#[derive(Debug)]
pub struct Reservation {
    /// The entry's index in the journal.
    pub(crate) index: u64,
    /// What may be signed: the request's own sign bytes or, where only the timestamp differs from what
    /// was reserved before, those.
    pub(crate) sign_bytes: Vec<u8>,
    /// The timestamp in them.
    pub(crate) timestamp: Timestamp,
    /// The extension's sign bytes, where the request has an extension.
    pub(crate) extension_sign_bytes: Option<Vec<u8>>,
    /// The signature over the sign bytes, where it was made before.
    pub(crate) signature: Option<Vec<u8>>,
    /// The signature over the extension's sign bytes, where it was made before.
    pub(crate) extension_signature: Option<Vec<u8>>,
}

impl Reservation {
    pub(super) fn first(message: &Message) -> Self {
        Self {
            index: 0,
            sign_bytes: message.sign_bytes(),
            timestamp: message.timestamp(),
            extension_sign_bytes: message.extension_sign_bytes(),
            signature: None,
            extension_signature: None,
        }
    }

    pub(super) fn extension_anew(message: &Message, last: &Last, made: &Made) -> Self {
        Self {
            index: made.index,
            sign_bytes: last.sign_bytes.clone(),
            timestamp: last.timestamp,
            extension_sign_bytes: message.extension_sign_bytes(),
            signature: made.signatures.as_ref().map(|made| made.message.clone()),
            extension_signature: None,
        }
    }

    pub(super) fn repeat(message: &Message, last: &Last, made: &Made) -> Self {
        let mut again = Self::extension_anew(message, last, made);
        if again.extension_sign_bytes.is_some() {
            again.extension_signature = made
                .signatures
                .as_ref()
                .and_then(|made| made.extension.clone());
        }
        again
    }

    /// Whether nothing has to be asked of a device any more.
    pub(super) fn is_complete(&self) -> bool {
        let extension = self.extension_sign_bytes.is_none() || self.extension_signature.is_some();
        self.signature.is_some() && extension
    }

    pub(super) fn event(&self, ask: Ask<'_>, ledger_revision: u64) -> wire::Reserved {
        wire::Reserved {
            caller: ask.caller.to_string(),
            key: ask.key.to_owned(),
            public_key: Some(entry::public_key_to_wire(ask.public_key)),
            chain_id: ask.message.chain_id().to_string(),
            position: Some(entry::position_to_wire(ask.message.position())),
            sign_bytes: self.sign_bytes.clone(),
            timestamp: Some(entry::timestamp_to_wire(self.timestamp)),
            extension_sign_bytes: self.extension_sign_bytes.clone(),
            ledger_revision,
        }
    }
}
