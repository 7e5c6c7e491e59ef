//! The anchor as a data object in a YubiHSM2.
//!
//! The device has no counter, and an object cannot be overwritten; its sequence number has 8 bits and wraps. So the
//! counter stands in the object's content: 32 bytes of tag and 8 of counter, big endian. The next object is put
//! before the last one is deleted, and of several the highest counts. Whoever may delete objects may set it back.

use std::sync::Arc;
use std::time::Duration;

use hsm_device::Worker;
use tokio::time::Instant;

use super::{Error, Found, Tag, of_deployment};
use crate::keyring::Device;

/// The label of every such object.
const LABEL: &str = "hsmd-anchor";
/// How long the device may take for each command.
const PATIENCE: Duration = Duration::from_secs(5);

/// The place for such objects.
pub(super) struct DataObject {
    device: Arc<str>,
    worker: Worker,
}

impl DataObject {
    pub(super) fn new(device: &Device) -> Self {
        Self {
            device: device.name.clone(),
            worker: device.worker.clone(),
        }
    }

    pub(super) async fn read(&self) -> Result<Vec<Found>, Error> {
        let objects = self.objects().await?;
        Ok(objects.into_iter().map(|(_, found)| found).collect())
    }

    /// Makes one, or finds that of an attempt before.
    pub(super) async fn make(&self, tag: Tag) -> Result<u64, Error> {
        if let Some(counter) = of_deployment(&self.read().await?, tag) {
            return Ok(counter);
        }
        self.put(Found { tag, counter: 1 }).await?;
        Ok(1)
    }

    pub(super) async fn advance(&self, tag: Tag, counter: u64) -> Result<(), Error> {
        self.put(Found { tag, counter }).await?;
        for (number, found) in self.objects().await? {
            if found.tag == tag && found.counter < counter {
                let deleted = self.worker.delete_data(number, deadline()).await;
                deleted.map_err(|error| self.failed(error))?;
            }
        }
        Ok(())
    }

    async fn objects(&self) -> Result<Vec<(u16, Found)>, Error> {
        let objects = self.worker.data(LABEL, deadline()).await;
        let objects = objects.map_err(|error| self.failed(error))?;
        let ours = objects.into_iter().filter_map(|object| {
            let (tag, counter) = object.content.split_first_chunk::<32>()?;
            let counter = u64::from_be_bytes(counter.try_into().ok()?);
            Some((object.number, Found { tag: *tag, counter }))
        });
        Ok(ours.collect())
    }

    async fn put(&self, found: Found) -> Result<(), Error> {
        let content = [found.tag.as_slice(), &found.counter.to_be_bytes()].concat();
        let put = self.worker.put_data(LABEL, content, deadline()).await;
        put.map_err(|error| self.failed(error))
    }

    fn failed(&self, error: hsm_device::Error) -> Error {
        Error::Device {
            device: self.device.to_string(),
            error,
        }
    }
}

fn deadline() -> Instant {
    Instant::now() + PATIENCE
}
