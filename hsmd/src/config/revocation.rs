//! The checks of `[revocation]`.

use std::path::PathBuf;
use std::time::Duration;

use rustls_pki_types::ServerName;

use super::check::Checker;
use super::{LedgerFiles, raw};

/// Where the list of revoked certificates comes from: hsm-enroll.
#[derive(Clone, Debug)]
pub struct Revocation {
    /// Host and port.
    pub server: String,
    /// The name in its certificate.
    pub server_name: ServerName<'static>,
    /// What the connection needs.
    pub files: LedgerFiles,
    /// The certificate whose key signs the list, PEM: the CA's that issues.
    pub signer: PathBuf,
    /// Time between two looks: `interval_ms`, 100 ms to 1 minute, 1 s if not given.
    pub interval: Duration,
    /// Without a look for so long an alarm is raised: `alarm_after_ms`, 1 s to 1 day, 30 s if not given.
    pub alarm_after: Duration,
}

pub(super) fn check(checker: &mut Checker, raw: raw::Revocation) -> Option<Revocation> {
    let remedy = "write host and port of hsm-enroll, such as \"enroll.example.org:26680\"";
    let server = checker
        .problems
        .required("revocation.server", raw.server, remedy);
    let host = server.as_ref().and_then(|server| {
        let parts = server.rsplit_once(':');
        let host = parts.filter(|(_, port)| port.parse::<u16>().is_ok_and(|port| port > 0));
        if host.is_none() {
            let fault = "is no host and port";
            checker
                .problems
                .value("revocation.server", server, fault, remedy);
        }
        host.map(|(host, _)| host.trim_matches(['[', ']']).to_owned())
    });
    let name = raw.server_name.or(host);
    let server_name = name.and_then(|name| match ServerName::try_from(name.clone()) {
        Ok(checked) => Some(checked),
        Err(_) => {
            let remedy = "write the host name or IP address in hsm-enroll's certificate";
            let fault = "is no name of a server";
            checker
                .problems
                .value("revocation.server_name", name, fault, remedy);
            None
        }
    });
    let signer = raw.signer.or_else(|| raw.ca.clone());
    let ca = checker.readable("revocation.ca", raw.ca);
    let certificate = checker.readable("revocation.certificate", raw.certificate);
    let private_key = checker.private("revocation.private_key", raw.private_key);
    let signer = checker.readable("revocation.signer", signer);
    let interval = checker.range(
        "revocation.interval_ms",
        raw.interval_ms,
        1_000,
        100,
        60_000,
    );
    let alarm_after = checker.range(
        "revocation.alarm_after_ms",
        raw.alarm_after_ms,
        30_000,
        1_000,
        86_400_000,
    );
    Some(Revocation {
        server: server?,
        server_name: server_name?,
        files: LedgerFiles {
            ca: ca?,
            certificate: certificate?,
            private_key: private_key?,
        },
        signer: signer?,
        interval: Duration::from_millis(interval?),
        alarm_after: Duration::from_millis(alarm_after?),
    })
}
