//! The rollback anchor: a counter outside the disk that shows whether the state is the newest.
//!
//! `protocol` says what follows from counter and journal; `start` makes a start of it, `keeper` advances the anchor
//! while hsmd runs and seals the journal at its end. `data_object` and `tpm` are where the counter stands.

mod data_object;
mod keeper;
mod protocol;
#[cfg(test)]
mod simulated;
mod start;
#[cfg(test)]
mod tests;
#[cfg(feature = "tpm")]
mod tpm;

use sha2::{Digest as _, Sha256};

pub use keeper::{Keeper, NotAdvanced, State, Status};
pub use protocol::Mismatch;
pub use start::{Failure, Opened, make, open, rebind};

use crate::config;
use crate::keyring::Device;

/// Tells the anchors of deployments apart: SHA-256 over a fixed text and the deployment id.
pub type Tag = [u8; 32];

/// An anchor found in its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// Whose it is.
    pub tag: Tag,
    /// Where its counter stands.
    pub counter: u64,
}

/// Why an anchor could not be read or moved.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The device that holds it does not do as asked.
    #[error("the rollback anchor in device {device}: {error}")]
    Device {
        /// The device's name.
        device: String,
        /// What it said.
        error: hsm_device::Error,
    },
    /// The TPM does not do as asked.
    #[error("the rollback anchor in the TPM ({tcti}): cannot {action}: {cause}")]
    Tpm {
        /// How the TPM is reached.
        tcti: String,
        /// What was tried, as a verb.
        action: &'static str,
        /// What it said, and what to do.
        cause: String,
    },
    /// It is not there any more.
    #[error("the rollback anchor is gone: it stood at {0}")]
    Gone(u64),
    /// It was moved, and not by this process.
    #[error(
        "the rollback anchor stands at {found}, and hsmd left it at {left}: another hsmd advances it, perhaps from a \
         copy of this state; find it and stop it"
    )]
    Moved {
        /// Where hsmd left it.
        left: u64,
        /// Where it stands.
        found: u64,
    },
    /// There is one already where one was to be made.
    #[error("{0}")]
    Taken(String),
}

/// An anchor, wherever it is.
pub struct Anchor {
    kind: &'static str,
    place: Place,
}

enum Place {
    Data(data_object::DataObject),
    #[cfg(feature = "tpm")]
    Tpm(tpm::Tpm),
    #[cfg(test)]
    Simulated(simulated::Simulated),
}

impl Anchor {
    /// The anchor that the configuration names.
    ///
    /// # Errors
    ///
    /// [`Error::Tpm`] where the system gives no thread for it.
    pub fn of(anchored: &config::Anchored, devices: &[Device]) -> Result<Self, Error> {
        let kind = anchored.place.kind();
        let place = match &anchored.place {
            config::Place::Yubihsm { device } => {
                let holder = devices.iter().find(|holder| *holder.name == **device);
                let holder = holder.ok_or_else(|| Error::Device {
                    device: device.clone(),
                    error: hsm_device::Error::Stopped {
                        device: device.clone(),
                    },
                })?;
                Place::Data(data_object::DataObject::new(holder))
            }
            #[cfg(feature = "tpm")]
            config::Place::Tpm { tcti, nv_index } => Place::Tpm(tpm::Tpm::start(tcti, *nv_index)?),
        };
        Ok(Self { kind, place })
    }

    /// "tpm" or "yubihsm".
    #[must_use]
    pub fn kind(&self) -> &'static str {
        self.kind
    }

    /// All anchors in the place, of whatever deployment.
    ///
    /// # Errors
    ///
    /// [`Error::Device`], [`Error::Tpm`].
    pub async fn read(&self) -> Result<Vec<Found>, Error> {
        match &self.place {
            Place::Data(place) => place.read().await,
            #[cfg(feature = "tpm")]
            Place::Tpm(place) => place.read().await,
            #[cfg(test)]
            Place::Simulated(place) => place.read(),
        }
    }

    /// Makes the anchor of a new deployment; returns where its counter stands.
    ///
    /// # Errors
    ///
    /// [`Error::Taken`] where the place holds another deployment's and has room for one only.
    pub async fn make(&self, tag: Tag) -> Result<u64, Error> {
        match &self.place {
            Place::Data(place) => place.make(tag).await,
            #[cfg(feature = "tpm")]
            Place::Tpm(place) => place.make(tag).await,
            #[cfg(test)]
            Place::Simulated(place) => place.make(tag),
        }
    }

    /// Moves the anchor to `counter`, which is the one after where it stands. `again`: an earlier attempt may have
    /// done so.
    ///
    /// # Errors
    ///
    /// [`Error::Moved`] and [`Error::Gone`] where it does not stand where it was left; otherwise it may have been
    /// moved or not.
    pub async fn advance(&self, tag: Tag, counter: u64, again: bool) -> Result<(), Error> {
        let left = counter.saturating_sub(1);
        match of_deployment(&self.read().await?, tag) {
            None => return Err(Error::Gone(left)),
            Some(found) if found == left => {}
            Some(found) if found == counter && again => return Ok(()),
            Some(found) => return Err(Error::Moved { left, found }),
        }
        match &self.place {
            Place::Data(place) => place.advance(tag, counter).await?,
            #[cfg(feature = "tpm")]
            Place::Tpm(place) => place.increment().await?,
            #[cfg(test)]
            Place::Simulated(place) => place.advance(tag, counter)?,
        }
        match of_deployment(&self.read().await?, tag) {
            None => Err(Error::Gone(counter)),
            Some(found) if found == counter => Ok(()),
            Some(found) => Err(Error::Moved {
                left: counter,
                found,
            }),
        }
    }
}

/// The tag of a deployment's anchor.
#[must_use]
pub fn tag(deployment_id: &[u8]) -> Tag {
    let digest = Sha256::new().chain_update(b"hsmd anchor v1\n");
    digest.chain_update(deployment_id).finalize().into()
}

/// Where a deployment's anchor stands: of several, the highest counts.
fn of_deployment(found: &[Found], tag: Tag) -> Option<u64> {
    let ours = found.iter().filter(|found| found.tag == tag);
    ours.map(|found| found.counter).max()
}
