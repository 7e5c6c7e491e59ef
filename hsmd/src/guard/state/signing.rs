//! What was reserved, and what was signed for it.

use hsm_policy::conflict::Last;
use hsm_proto::v1 as wire;

use super::change::Change;
use super::{Signatures, State, entry};

impl State {
    pub(super) fn plan_mark(&self, reserved: wire::Reserved) -> Result<Change, String> {
        let (place, known) = self.known(reserved.public_key, &reserved.chain_id)?;
        let position = entry::position_from_wire(reserved.position)?;
        let timestamp = entry::timestamp_from_wire(reserved.timestamp)?;
        let mut signatures = None;
        if let Some(last) = &known.mark.last {
            if position < last.position {
                let last = last.position;
                return Err(format!("a reservation at {position} after one at {last}"));
            }
            if position == last.position {
                if reserved.sign_bytes != last.sign_bytes {
                    return Err(format!("two different reservations at {position}"));
                }
                // An extension signed anew repeats the vote, so the vote's signature still holds.
                let earlier = known
                    .made
                    .as_ref()
                    .and_then(|made| made.signatures.as_ref());
                signatures = earlier.map(|earlier| Signatures {
                    message: earlier.message.clone(),
                    extension: None,
                });
            }
        }
        let last = Last {
            position,
            sign_bytes: reserved.sign_bytes,
            timestamp,
            extension_sign_bytes: reserved.extension_sign_bytes,
        };
        let revision = reserved.ledger_revision;
        Ok(Change::Mark(place, last, signatures, revision))
    }

    pub(super) fn plan_signed(&self, signed: wire::Signed) -> Result<Change, String> {
        let (place, _) = self.known(signed.public_key, &signed.chain_id)?;
        for signature in [&signed.signature, &signed.extension_signature] {
            if !(signature.is_empty() || signature.len() == 64) {
                return Err(format!("a signature of {} bytes", signature.len()));
            }
        }
        if signed.signature.is_empty() {
            return Err("an outcome without a signature".to_owned());
        }
        let signatures = Signatures {
            message: signed.signature,
            extension: Some(signed.extension_signature).filter(|bytes| !bytes.is_empty()),
        };
        Ok(Change::Signed(place, signed.reserved_index, signatures))
    }
}
