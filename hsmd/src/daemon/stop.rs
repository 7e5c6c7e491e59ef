//! A clean stop.

use std::time::SystemTime;

use hsm_proto::v1 as wire;
use hsm_proto::v1::entry::Event;
use tokio::task::JoinHandle;

use super::{Error, GRACE};
use crate::anchor;
use crate::guard::Guard;
use crate::line::Line;

/// The journal's last entries, the last of them the anchor's seal.
pub(super) async fn close(
    line: &Line,
    keeper: Option<JoinHandle<anchor::Keeper>>,
) -> Result<(), Error> {
    line.record_repeated_refusals(true);
    let stopped = Event::DaemonStopped(wire::DaemonStopped {});
    let recorded = line.guard().record_durably(stopped, SystemTime::now());
    let recorded = tokio::time::timeout(GRACE, recorded).await;
    if let Some(keeper) = keeper {
        seal(line.guard(), keeper).await;
    }
    for device in line.keyring().devices() {
        device.worker.stop();
    }
    match recorded {
        Ok(recorded) => recorded?,
        Err(_) => {
            return Err(Error::Socket {
                what: "the journal's last entry".to_owned(),
                error: std::io::ErrorKind::TimedOut.into(),
            });
        }
    }
    Ok(line.guard().close()?)
}

/// Without a seal the next start has to prove by other means that the journal is whole.
async fn seal(guard: &Guard, keeper: JoinHandle<anchor::Keeper>) {
    let sealing = async {
        let mut keeper = keeper.await.map_err(|error| error.to_string())?;
        keeper.seal(guard).await.map_err(|error| error.to_string())
    };
    let sealed = tokio::time::timeout(GRACE, sealing).await;
    if let Err(error) = sealed.unwrap_or_else(|_| Err("it took too long".to_owned())) {
        tracing::error!(error, "the journal was not sealed");
    }
}
