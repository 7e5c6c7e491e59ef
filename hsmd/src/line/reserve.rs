//! The fourth stage: a durable entry that forbids every conflicting message.

use std::time::SystemTime;

use tokio::time::Instant;

use super::permit::Permitted;
use super::refusal::Refusal;
use crate::guard::{Ask, Guard, Reservation};
use crate::ledger::Ledger;
use crate::metrics::Metrics;

/// Proof that the position is bound to this message, durably.
pub struct Reserved<'a> {
    pub(super) permitted: Permitted<'a>,
    pub(super) reservation: Reservation,
}

/// Reserves, after the key's device has shown once that it holds the pinned public key.
///
/// # Errors
///
/// A refusal by the guard, or the ledger's, the journal's or the device's present state.
pub(super) async fn reserve<'a>(
    guard: &Guard,
    ledger: &Ledger,
    permitted: Permitted<'a>,
    now: SystemTime,
    deadline: Instant,
    metrics: &Metrics,
) -> Result<Reserved<'a>, Refusal> {
    let failed = |device: &str, kind| metrics.device_error(device, kind);
    permitted
        .key
        .confirm(&permitted.public_key, deadline, failed)
        .await?;
    let reservation = ledger.reserve(guard, permitted.ask(), now, deadline);
    let reservation = reservation.await?;
    Ok(Reserved {
        permitted,
        reservation,
    })
}

impl Permitted<'_> {
    pub(super) fn ask(&self) -> Ask<'_> {
        Ask {
            caller: &self.request.caller,
            key: self.key.name(),
            public_key: &self.public_key,
            message: &self.request.message,
            max_height_jump: self.permit.max_height_jump(),
        }
    }
}
