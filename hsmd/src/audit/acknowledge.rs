//! The end of an alarm: somebody looked into what a device's audit log showed, and the journal says who.

use std::time::SystemTime;

use hsm_proto::v1 as wire;
use hsm_proto::v1::entry::Event;

use crate::guard::{self, Guard};
use crate::keyring::Device;

/// Why an alarm was not acknowledged.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nothing is wrong.
    #[error("device {0} shows no alarm: there is nothing to acknowledge")]
    NoAlarm(String),
    /// The journal did not take the entry; the alarm stays.
    #[error(transparent)]
    Guard(#[from] guard::Error),
}

/// Acknowledges all that the device's audit log showed until now, in the name of `by`. Durable on return; what
/// the log shows later is an alarm anew.
///
/// # Errors
///
/// See [`Error`].
pub async fn acknowledge(
    device: &Device,
    guard: &Guard,
    by: String,
    now: SystemTime,
) -> Result<wire::AlarmAcknowledged, Error> {
    let report = device.audit.report();
    let seen = wire::AlarmAcknowledged {
        device: device.name.to_string(),
        by,
        unknown_signatures: unknown_signatures(device, guard)?,
        missing_entries: report.missing,
        broken_links: report.broken,
        unreadable_entries: report.unreadable,
        administrative_commands: report.administrative,
    };
    let counts = [
        seen.unknown_signatures,
        seen.missing_entries,
        seen.broken_links,
        seen.unreadable_entries,
        seen.administrative_commands,
    ];
    if counts == [0; 5] {
        return Err(Error::NoAlarm(seen.device));
    }
    let event = Event::AlarmAcknowledged(seen.clone());
    guard.record_durably(event, now).await?;
    device.audit.forget(&seen);
    Ok(seen)
}

/// Signatures in the device's audit log that hsmd did not ask for, and that nobody acknowledged.
///
/// # Errors
///
/// [`guard::Error::Internal`] after a fault of ours.
pub fn unknown_signatures(device: &Device, guard: &Guard) -> Result<u64, guard::Error> {
    guard.inspect(|state| {
        let mark = state.audit(&device.name);
        mark.map_or(0, |mark| mark.unknown_signatures)
    })
}
