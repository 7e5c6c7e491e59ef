//! Follows hsm-enroll's list of revoked certificates: looks once a second, verifies, enforces, journals.
//!
//! A new list counts at once, before its entry is durable: what revokes must not wait for a disk. Where it cannot be
//! had, or is refused, the last one stays in force, across restarts too, and an alarm is raised.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use hsm_device::{Algorithm, PublicKey, Signature};
use hsm_policy::identity::TrustDomain;
use hsm_policy::revocation::{Error as ListError, MAX_DOCUMENT, Revocations};
use hsm_proto::v1 as wire;
use hsm_proto::v1::enrolment_client::EnrolmentClient;
use hsm_proto::v1::entry::Event;
use hyper_util::rt::TokioIo;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use tokio::net::TcpStream;
use tokio::time::MissedTickBehavior;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint, Uri};

use crate::config::Revocation;
use crate::guard::entry::wall_clock;
use crate::guard::{self, Guard};
use crate::ledger::client_config;
use crate::metrics::Metrics;
use crate::transport::Revoked;

/// For a connection, and for each look.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why a list was not taken.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// hsm-enroll does not answer, or refuses.
    #[error("{0}")]
    Unreachable(String),
    /// The certificate of `revocation.signer` cannot be used.
    #[error("revocation.signer: {0}")]
    Signer(String),
    /// The signature is not the signer's.
    #[error("a list of revocations that the key of revocation.signer did not sign")]
    Signature,
    /// The list itself.
    #[error(transparent)]
    List(#[from] ListError),
    /// It is enforced, and is not recorded yet.
    #[error("the list is enforced, but not recorded: {0}")]
    Guard(#[from] guard::Error),
}

/// How the following goes, for `hsmd status`. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Status(Arc<Mutex<Seen>>);

#[derive(Debug, Default)]
struct Seen {
    checked: Option<SystemTime>,
    fault: String,
    alarm: bool,
}

impl Status {
    /// As `hsmd status` shows it.
    #[must_use]
    pub fn to_wire(&self, revoked: &Revoked) -> wire::RevocationStatus {
        let seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        wire::RevocationStatus {
            sequence: revoked.sequence(),
            checked: seen.checked.map(wall_clock),
            alarm: seen.alarm,
            fault: seen.fault.clone(),
        }
    }

    /// Notes how a look went; says whether the alarm began or ended.
    fn note(&self, looked: &Result<(), Error>, overdue: bool) -> Option<bool> {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = seen.alarm;
        match looked {
            Ok(()) => {
                seen.checked = Some(SystemTime::now());
                seen.fault.clear();
                seen.alarm = false;
            }
            Err(error) => {
                seen.fault = error.to_string();
                // What was shown and is refused is no outage, and does not get better by waiting.
                seen.alarm |= overdue || !matches!(error, Error::Unreachable(_));
            }
        }
        (seen.alarm != before).then_some(seen.alarm)
    }
}

/// Follows the list until it is dropped.
pub async fn follow(
    config: Revocation,
    trust_domain: TrustDomain,
    guard: &Guard,
    metrics: &Metrics,
    revoked: Revoked,
    status: Status,
) {
    let client = client(&config);
    let mut look = tokio::time::interval(config.interval);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last = Instant::now();
    loop {
        look.tick().await;
        let looked = async {
            let shown = ask(client.clone()).await?;
            take(&config, &trust_domain, guard, &revoked, &shown).await
        };
        let looked = looked.await;
        if looked.is_ok() {
            last = Instant::now();
        }
        // Without any list nothing is revoked, so that nothing is put off.
        let overdue = last.elapsed() >= config.alarm_after || revoked.sequence() == 0;
        match (status.note(&looked, overdue), &looked) {
            (Some(true), Err(error)) => tracing::error!(
                %error, server = config.server, sequence = revoked.sequence(),
                "ALARM: the list of revoked certificates cannot be had; the last one stays in force"
            ),
            (Some(false), _) => tracing::info!("the list of revoked certificates can be had again"),
            _ => {}
        }
        let alarm = status.to_wire(&revoked).alarm;
        metrics.revocations(revoked.sequence(), alarm);
    }
}

/// Takes what hsm-enroll shows: verified, newer than the last, and giving nothing back.
async fn take(
    config: &Revocation,
    trust_domain: &TrustDomain,
    guard: &Guard,
    revoked: &Revoked,
    shown: &wire::SignedRevocations,
) -> Result<(), Error> {
    let signer = signer(config)?;
    let list = verified(&signer, trust_domain, shown)?;
    let before = revoked.sequence();
    revoked.put(&list)?;
    if list.sequence() > before {
        let sequence = list.sequence();
        tracing::warn!(sequence, "a new list of revoked certificates is in force");
    }
    let recorded = guard.inspect(|state| state.revocations().map(Revocations::sequence))?;
    if recorded >= Some(list.sequence()) {
        return Ok(());
    }
    let taken = Event::RevocationsTaken(wire::RevocationsTaken {
        document: shown.document.clone(),
        signature: shown.signature.clone(),
        signer: signer.as_bytes().to_vec(),
    });
    Ok(guard.record_durably(taken, SystemTime::now()).await?)
}

/// The list, if the signer signed it for this trust domain.
fn verified(
    signer: &PublicKey,
    trust_domain: &TrustDomain,
    shown: &wire::SignedRevocations,
) -> Result<Revocations, Error> {
    let signature = shown.signature.as_slice().try_into().map(Signature);
    let signature = signature.map_err(|_| Error::Signature)?;
    let message = Revocations::signed_bytes(&shown.document);
    signer
        .verify(&message, &signature)
        .map_err(|_| Error::Signature)?;
    let list = Revocations::parse(&shown.document)?;
    if list.trust_domain() != trust_domain {
        return Err(Error::List(ListError::TrustDomain {
            found: list.trust_domain().clone(),
            expected: trust_domain.clone(),
        }));
    }
    Ok(list)
}

/// Read at each look: the file may be replaced.
fn signer(config: &Revocation) -> Result<PublicKey, Error> {
    let wrong = |fault: String| Error::Signer(format!("{}: {fault}", config.signer.display()));
    let der = CertificateDer::from_pem_file(&config.signer);
    let der = der.map_err(|error| wrong(error.to_string()))?;
    let parsed = x509_parser::parse_x509_certificate(&der);
    let (_, certificate) = parsed.map_err(|error| wrong(error.to_string()))?;
    let usage = certificate.key_usage().ok().flatten();
    if !(certificate.is_ca() && usage.is_some_and(|usage| usage.value.key_cert_sign())) {
        return Err(wrong("is not the certificate of a CA".to_owned()));
    }
    let root = CertificateDer::from_pem_file(&config.files.ca);
    let root = root.map_err(|error| wrong(format!("{}: {error}", config.files.ca.display())))?;
    let parsed = x509_parser::parse_x509_certificate(&root);
    let (_, root) = parsed.map_err(|error| wrong(error.to_string()))?;
    if certificate
        .verify_signature(Some(root.public_key()))
        .is_err()
    {
        let ca = config.files.ca.display();
        return Err(wrong(format!("is not a certificate of the CA in {ca}")));
    }
    let point = &certificate.public_key().subject_public_key.data;
    PublicKey::from_parts(Algorithm::P256, point)
        .map_err(|_| wrong("is not the certificate of a P-256 key".to_owned()))
}

async fn ask(mut client: EnrolmentClient<Channel>) -> Result<wire::SignedRevocations, Error> {
    let asked = client.get_revocations(wire::GetRevocationsRequest {});
    let answer = tokio::time::timeout(PATIENCE, asked).await;
    let answer = answer.map_err(|_| Error::Unreachable("no answer in time".to_owned()))?;
    let answer = answer.map_err(|status| {
        use std::error::Error as _;
        let cause = status.source().and_then(|source| source.source());
        let cause = cause.map_or_else(String::new, |cause| format!(": {cause}"));
        Error::Unreachable(format!("{}{cause}", status.message()))
    })?;
    Ok(answer.into_inner())
}

/// Connects with the first look; the certificate files are read again at each connection.
fn client(config: &Revocation) -> EnrolmentClient<Channel> {
    let config = config.clone();
    let connector = tower::service_fn(move |_: Uri| {
        let config = config.clone();
        async move {
            let tls = client_config(&config.files).map_err(std::io::Error::other)?;
            let stream = TcpStream::connect(&config.server).await?;
            let tls = TlsConnector::from(Arc::new(tls));
            let stream = tls.connect(config.server_name.clone(), stream).await?;
            Ok::<_, std::io::Error>(TokioIo::new(stream))
        }
    });
    // TLS is the connector's; the scheme only fills a header.
    let channel = Endpoint::from_static("http://hsm-enroll")
        .connect_timeout(PATIENCE)
        .connect_with_connector_lazy(connector);
    EnrolmentClient::new(channel).max_decoding_message_size(2 * MAX_DOCUMENT)
}

#[cfg(test)]
mod tests {
    use hsm_journal::State as _;
    use hsm_policy::identity::Role;
    use hsm_policy::revocation::Scope;
    use rcgen::{
        BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, KeyUsagePurpose,
        SigningKey as _,
    };

    use super::*;
    use crate::config::LedgerFiles;
    use crate::guard::{State, entry};

    /// What signs lists, and hsmd's side of it.
    struct Followed {
        directory: tempfile::TempDir,
        key: KeyPair,
        config: Revocation,
        revoked: Revoked,
        guard: Guard,
    }

    fn trust_domain() -> TrustDomain {
        "example.org".parse().unwrap()
    }

    fn open(directory: &std::path::Path) -> Guard {
        let opened = hsm_journal::open::<State>(&directory.join("state"), Default::default());
        let opened = opened.unwrap();
        Guard::new(opened.state, opened.journal)
    }

    impl Followed {
        fn start() -> Self {
            let directory = tempfile::tempdir().unwrap();
            let key = KeyPair::generate().unwrap();
            let mut params = CertificateParams::default();
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
            let certificate = params.self_signed(&key).unwrap();
            let signer = directory.path().join("signer.pem");
            std::fs::write(&signer, certificate.pem()).unwrap();
            let files = LedgerFiles {
                ca: signer.clone(),
                certificate: signer.clone(),
                private_key: signer.clone(),
            };
            let config = Revocation {
                server: "127.0.0.1:1".to_owned(),
                server_name: "localhost".try_into().unwrap(),
                files,
                signer,
                interval: Duration::from_secs(1),
                alarm_after: Duration::from_secs(1),
            };
            let first = Event::StateCreated(wire::StateCreated::default());
            let first = entry::encode(SystemTime::now(), first);
            let snapshot = State::new(vec![7; 16]).snapshot();
            hsm_journal::create(&directory.path().join("state"), &snapshot, &first).unwrap();
            Self {
                guard: open(directory.path()),
                directory,
                key,
                config,
                revoked: Revoked::default(),
            }
        }

        fn signed(&self, list: &Revocations, key: &KeyPair) -> wire::SignedRevocations {
            let document = list.to_document().into_bytes();
            let der = key.sign(&Revocations::signed_bytes(&document)).unwrap();
            let signature = Signature::from_p256_der(&der).unwrap().0.to_vec();
            wire::SignedRevocations {
                document,
                signature,
            }
        }

        async fn take(&self, shown: &wire::SignedRevocations) -> Result<(), Error> {
            let trust_domain = trust_domain();
            take(
                &self.config,
                &trust_domain,
                &self.guard,
                &self.revoked,
                shown,
            )
            .await
        }
    }

    #[tokio::test]
    async fn a_list_counts_at_once_is_journaled_once_and_holds_across_a_restart() {
        let followed = Followed::start();
        let list = Revocations::none(trust_domain());
        let list = list.and(&Scope::Role(Role::Sentry), 100).unwrap();
        let shown = followed.signed(&list, &followed.key);
        for _ in 0..2 {
            followed.take(&shown).await.unwrap();
        }
        let caller = "spiffe://example.org/sentry/a".parse().unwrap();
        assert!(followed.revoked.revokes(&caller, 99));
        followed.guard.close().unwrap();
        let state = followed.directory.path().join("state");
        let taken = hsm_journal::read(&state).unwrap().filter(|entry| {
            let leaf = &entry.as_ref().unwrap().leaf;
            matches!(entry::decode(leaf), Ok((_, Event::RevocationsTaken(_))))
        });
        assert_eq!(taken.count(), 1);
        // Twice, so that the second start reads a snapshot.
        for _ in 0..2 {
            let guard = open(followed.directory.path());
            let in_force = guard.inspect(|state| state.revocations().cloned()).unwrap();
            assert_eq!(in_force.as_ref(), Some(&list));
            guard.close().unwrap();
        }
    }

    #[tokio::test]
    async fn a_list_that_is_older_of_another_signer_changed_or_elsewhere_is_refused() {
        let followed = Followed::start();
        let first = Revocations::none(trust_domain());
        let first = first.and(&Scope::Node("a".to_owned()), 100).unwrap();
        let second = first.and(&Scope::All, 200).unwrap();
        let old = followed.signed(&first, &followed.key);
        let new = followed.signed(&second, &followed.key);
        followed.take(&old).await.unwrap();
        followed.take(&new).await.unwrap();
        let refused = followed.take(&old).await;
        assert!(matches!(refused, Err(Error::List(ListError::Older { .. }))));
        assert_eq!(followed.revoked.sequence(), second.sequence());

        let third = second.and(&Scope::All, 300).unwrap();
        let stranger = followed.signed(&third, &KeyPair::generate().unwrap());
        let mut changed = followed.signed(&third, &followed.key);
        changed.document.push(b'\n');
        let mut short = followed.signed(&third, &followed.key);
        short.signature.pop();
        for wrong in [stranger, changed, short, wire::SignedRevocations::default()] {
            let refused = followed.take(&wrong).await;
            assert!(matches!(refused, Err(Error::Signature)), "{refused:?}");
        }
        let elsewhere = Revocations::none("example.com".parse().unwrap());
        let elsewhere = elsewhere.and(&Scope::All, 400).unwrap();
        let refused = followed
            .take(&followed.signed(&elsewhere, &followed.key))
            .await;
        assert!(matches!(refused, Err(Error::List(_))), "{refused:?}");
        assert_eq!(followed.revoked.sequence(), second.sequence());
    }

    /// Whoever copied the key of a node, or of the keyserver's own certificate, signs no lists.
    #[tokio::test]
    async fn a_list_whose_signer_is_no_ca_or_another_ones_is_refused() {
        let followed = Followed::start();
        let mut ca = CertificateParams::default();
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        ca.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let leaf_key = KeyPair::generate().unwrap();
        let issuer = Issuer::from_params(&ca, &followed.key);
        let leaf = CertificateParams::default();
        let leaf = leaf.signed_by(&leaf_key, &issuer).unwrap();
        let other_key = KeyPair::generate().unwrap();
        let other = ca.self_signed(&other_key).unwrap();
        let list = Revocations::none(trust_domain());
        let list = list.and(&Scope::All, 100).unwrap();
        for (certificate, key) in [(leaf, leaf_key), (other, other_key)] {
            let file = followed.directory.path().join("not-the-signer.pem");
            std::fs::write(&file, certificate.pem()).unwrap();
            let config = Revocation {
                signer: file,
                ..followed.config.clone()
            };
            let shown = followed.signed(&list, &key);
            let trust_domain = trust_domain();
            let taken = take(
                &config,
                &trust_domain,
                &followed.guard,
                &followed.revoked,
                &shown,
            );
            let refused = taken.await;
            assert!(matches!(refused, Err(Error::Signer(_))), "{refused:?}");
        }
        assert_eq!(followed.revoked.sequence(), 0);
    }

    #[test]
    fn what_is_refused_raises_the_alarm_at_once_and_an_outage_after_its_time() {
        let status = Status::default();
        let outage = || Err(Error::Unreachable("gone".to_owned()));
        assert_eq!(status.note(&outage(), false), None);
        assert_eq!(status.note(&outage(), true), Some(true));
        assert_eq!(status.note(&outage(), true), None);
        assert_eq!(status.note(&Ok(()), false), Some(false));
        assert_eq!(status.note(&Err(Error::Signature), false), Some(true));
    }
}
