//! What is looked at once a second, and the health that follows from it.

use std::collections::HashSet;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use hsm_device::State;
use hsm_proto::v1 as wire;
use hsm_proto::v1::signer_server::SignerServer;
use tonic::server::NamedService as _;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use super::Error;
use crate::anchor;
use crate::doctor;
use crate::line::Line;
use crate::service::SignerService;
use crate::transport::Certificates;

/// What a health check may ask for: the whole server, and the one service that it is there for.
const HEALTH_NAMES: [&str; 2] = ["", SignerServer::<SignerService>::NAME];

/// What is looked at once a second: counts of repeated refusals, the gauges of devices, journal and
/// certificate, and from these the health that is served. An error: nothing heals it but a new start.
pub(super) async fn tick(
    line: Arc<Line>,
    certificates: Certificates,
    mut health: HealthReporter,
    anchor: Option<anchor::Status>,
    done: impl Future<Output = ()>,
) -> Result<(), Error> {
    let mut second = tokio::time::interval(Duration::from_secs(1));
    let mut done = std::pin::pin!(done);
    let mut judged = HashSet::new();
    let mut known_old = 0;
    loop {
        tokio::select! {
            () = &mut done => break,
            _ = second.tick() => {}
        }
        line.guard()
            .inspect(|_| ())
            .map_err(|error| Error::Broken(error.to_string()))?;
        line.record_repeated_refusals(false);
        let metrics = line.metrics();
        look_at_policy(&line, &mut known_old);
        let mut device_ready = false;
        name_advisories(&line, &mut judged);
        for device in line.keyring().devices() {
            let status = device.worker.status();
            device_ready |= status.state == State::Ready;
            metrics.device(&status);
        }
        let journal = line.guard().journal().status();
        metrics.journal(&journal);
        if let Some(reason) = journal.stopped {
            return Err(Error::Broken(format!("the journal ended: {reason}")));
        }
        if let Some(anchor) = anchor.as_ref().map(anchor::Status::now) {
            metrics.anchor(&anchor);
            if let (true, Some(fault)) = (anchor.moved, anchor.fault) {
                return Err(Error::Broken(fault));
            }
        }
        let serves = match device_ready && journal.fault.is_none() {
            true => ServingStatus::Serving,
            false => ServingStatus::NotServing,
        };
        for name in HEALTH_NAMES {
            health.set_service_status(name, serves).await;
        }
        metrics.certificate_expiry(certificates.expires());
    }
    for name in HEALTH_NAMES {
        let stopping = ServingStatus::NotServing;
        health.set_service_status(name, stopping).await;
        // Ends the streams of those who watch it, which would delay the stop.
        health.clear_service_status(name).await;
    }
    Ok(())
}

/// A policy that is old stays in force; whoever is responsible is told once. `known` is the version of which it is.
fn look_at_policy(line: &Line, known: &mut u64) {
    let in_force = line.policy();
    let old = in_force.is_old(SystemTime::now());
    line.metrics().policy(in_force.mark.as_ref(), old);
    if old && *known != in_force.version() {
        *known = in_force.version();
        tracing::error!(
            version = *known,
            "the policy in force is old: the last moment at which it could be loaded has passed. It stays in force; have \
             officers sign a newer one"
        );
    }
}

/// Logs the advisories that cover a device and its keys, when it is first reached.
fn name_advisories(line: &Line, judged: &mut HashSet<String>) {
    for device in line.keyring().devices() {
        if let Some(info) = device.worker.status().info
            && judged.insert(device.name.to_string())
        {
            for finding in doctor::advisories(line.keyring(), device, &info) {
                if finding.severity() != wire::Severity::Ok {
                    let (subject, name) = (finding.subject, finding.name);
                    tracing::warn!(subject, name, "{}", finding.message);
                }
            }
        }
    }
}
