//! The fourth stage: a durable entry that forbids every conflicting message.

use std::time::SystemTime;

use tokio::time::Instant;

use super::permit::Permitted;
use super::refusal::Refusal;
use super::request::Request;
use crate::guard::{self, Ask, Guard, Reservation};
use crate::ledger::{self, Ledger};
use crate::metrics::Metrics;

/// Proof that the position is bound to this message, durably.
pub struct Reserved<'a> {
    pub(super) permitted: Permitted<'a>,
    pub(super) reservation: Reservation,
}

/// What came of it.
#[allow(clippy::large_enum_variant, reason = "it is taken apart at once")]
pub enum Outcome<'a> {
    /// Durable.
    Reserved(Reserved<'a>),
    /// Nothing: the policy that permitted the request is not in force any more.
    PolicyChanged(Request),
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
) -> Result<Outcome<'a>, Refusal> {
    let failed = |device: &str, kind| metrics.device_error(device, kind);
    permitted
        .key
        .confirm(&permitted.public_key, deadline, failed)
        .await?;
    let reservation = ledger.reserve(guard, permitted.ask(), now, deadline);
    match reservation.await {
        Ok(reservation) => Ok(Outcome::Reserved(Reserved {
            permitted,
            reservation,
        })),
        Err(ledger::Error::Guard(guard::Error::PolicyChanged)) => {
            Ok(Outcome::PolicyChanged(permitted.request))
        }
        Err(error) => Err(error.into()),
    }
}

impl Permitted<'_> {
    pub(super) fn ask(&self) -> Ask<'_> {
        Ask {
            caller: &self.request.caller,
            key: self.key.name(),
            public_key: &self.public_key,
            message: &self.request.message,
            max_height_jump: self.permit.max_height_jump(),
            terms: self.terms(),
        }
    }
}
