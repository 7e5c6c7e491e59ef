//! Renewing: each certificate when a third of its life is left, and on failure again and again till the end.

use std::time::{Duration, SystemTime};

use hsm_proto::v1::enrolment_client::EnrolmentClient;
use hsm_proto::v1::{CertificateKind, GetFilesRequest, IssueRequest};
use tonic::transport::Channel;

use super::folder::{self, Folder, Fresh, Validity};
use super::{Error, Server, Settings, files, link};
use crate::register::seconds;

/// Between two looks, where nothing is due: files may have been assigned.
const LONGEST_SLEEP: Duration = Duration::from_secs(15 * 60);
/// After a failure: doubled up to the longest.
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LONGEST_RETRY: Duration = Duration::from_secs(5 * 60);

/// What a renewal did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// The files that were replaced.
    pub replaced: Vec<String>,
}

/// Renews what is due, and fetches the assigned files.
///
/// # Errors
/// [`Error`]; what was renewed before it stays.
pub async fn renew(folder: &Folder) -> Result<Outcome, Error> {
    let settings = folder.settings()?;
    let now = seconds(SystemTime::now());
    let mut due = Vec::new();
    for (kind, name) in kinds(&settings) {
        let moment = folder.validity(name)?.map(|validity| renewal(validity, 0));
        if moment.is_none_or(|moment| moment <= now) {
            due.push((kind, name));
        }
    }
    fetch(folder, &settings, &due).await
}

/// Fetches everything but the granting certificate anew, for a node that has just joined.
pub(super) async fn everything(folder: &Folder, settings: &Settings) -> Result<Outcome, Error> {
    let all: Vec<_> = kinds(settings).skip(1).collect();
    fetch(folder, settings, &all).await
}

async fn fetch(
    folder: &Folder,
    settings: &Settings,
    due: &[(CertificateKind, &'static str)],
) -> Result<Outcome, Error> {
    let server = link::of(settings)?;
    let mut outcome = Outcome::default();
    let channel = server.connect(link::with_grant(folder)?).await?;
    let mut client = EnrolmentClient::new(channel);
    // The granting certificate first: the others are asked for with the old one all the same, which stays good.
    for (kind, name) in due {
        certificate(folder, &server, &mut client, *kind, name).await?;
        outcome.replaced.push((*name).to_owned());
    }
    let sent = client.get_files(GetFilesRequest {}).await;
    let sent = sent.map_err(|status| server.status(&status))?.into_inner();
    outcome
        .replaced
        .extend(files::take(folder, settings, &sent)?);
    Ok(outcome)
}

async fn certificate(
    folder: &Folder,
    server: &Server,
    client: &mut EnrolmentClient<Channel>,
    kind: CertificateKind,
    name: &str,
) -> Result<(), Error> {
    let fresh = Fresh::generate()?;
    let request = IssueRequest {
        kind: kind.into(),
        certificate_request: fresh.request.clone(),
    };
    let issued = client.issue(request).await;
    let issued = issued.map_err(|status| server.status(&status))?;
    let root = folder.certificates(folder::CA)?;
    let root = root
        .first()
        .ok_or_else(|| Error::Answer("no root is pinned".to_owned()))?;
    let (file, issuer) = fresh.with(issued.into_inner().certificate, root)?;
    // Its key may have changed, under the same root.
    let issuer = folder::pem(&issuer);
    if std::fs::read(folder.path(folder::ISSUER)).ok().as_deref() != Some(issuer.as_bytes()) {
        folder.replace(folder::ISSUER, issuer.as_bytes())?;
    }
    folder.replace(name, file.as_bytes())
}

fn kinds(settings: &Settings) -> impl Iterator<Item = (CertificateKind, &'static str)> + '_ {
    let grant = std::iter::once((CertificateKind::Grant, folder::GRANT));
    grant.chain(
        settings
            .certificates
            .iter()
            .filter_map(|name| folder::kind(name)),
    )
}

/// When a certificate is to be renewed: when a third of its life is left, and later by up to a tenth of that third, so
/// that nodes that joined together do not come together. `chance` of 65,536.
fn renewal(validity: Validity, chance: u16) -> u64 {
    let life = validity.not_after.saturating_sub(validity.not_before);
    let third = life / 3;
    let jitter = (third / 10).saturating_mul(u64::from(chance)) >> 16;
    validity.not_after.saturating_sub(third) + jitter
}

/// Renews until `shutdown` is ready. Failures are logged and tried again, till the end and after it: a certificate that
/// has expired can be fetched as long as the granting one has not, and that one's file may be replaced by a new `join`.
pub async fn run(folder: &Folder, shutdown: impl Future<Output = ()>) -> Result<(), Error> {
    let settings = folder.settings()?;
    let mut shutdown = std::pin::pin!(shutdown);
    let mut retry = FIRST_RETRY;
    loop {
        let renewed = renew(folder).await;
        let renewed = renewed.and_then(|outcome| Ok((outcome, until_next(folder, &settings)?)));
        let wait = match renewed {
            Ok((outcome, wait)) => {
                retry = FIRST_RETRY;
                if !outcome.replaced.is_empty() {
                    tracing::info!(files = outcome.replaced.join(", "), "replaced");
                }
                wait
            }
            Err(error) => {
                let wait = retry;
                retry = (retry * 2).min(LONGEST_RETRY);
                let left = left(folder, &settings);
                tracing::error!(%error, left_s = left, retry_s = wait.as_secs(), "not renewed");
                wait
            }
        };
        tokio::select! {
            () = &mut shutdown => return Ok(()),
            () = tokio::time::sleep(wait) => {}
        }
    }
}

fn until_next(folder: &Folder, settings: &Settings) -> Result<Duration, Error> {
    let now = seconds(SystemTime::now());
    let mut wait = LONGEST_SLEEP;
    for (_, name) in kinds(settings) {
        if let Some(validity) = folder.validity(name)? {
            let mut chance = [0; 2];
            // Without randomness there is no jitter, and nothing worse.
            let _ = getrandom::fill(&mut chance);
            let due = renewal(validity, u16::from_be_bytes(chance));
            wait = wait.min(Duration::from_secs(due.saturating_sub(now)));
        }
    }
    Ok(wait.max(FIRST_RETRY))
}

/// Seconds until the first certificate ends.
fn left(folder: &Folder, settings: &Settings) -> u64 {
    let ends = kinds(settings).filter_map(|(_, name)| folder.validity(name).ok().flatten());
    let first = ends.map(|validity| validity.not_after).min();
    first
        .unwrap_or_default()
        .saturating_sub(seconds(SystemTime::now()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_renewal_begins_when_a_third_is_left_and_not_much_later(
            not_before in 0_u64..1 << 40, life in 0_u64..1 << 30, chance: u16
        ) {
            let not_after = not_before + life;
            let due = renewal(Validity { not_before, not_after }, chance);
            let left = not_after - due;
            prop_assert!(left <= life / 3);
            prop_assert!(left >= life / 3 - life / 30);
        }
    }
}
