//! From the file as written to a checked configuration.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hsm_device::{Algorithm, KeyLocator};

use super::{Ca, Config, Error, Lifetimes, Log, MockDevices, Problem, device, raw};
use crate::contents::is_host;

/// Four days: a renewal begins when a third is left, which is more than a day's outage of the keyserver.
const LIFETIME_S: u64 = 4 * DAY;
/// A node that was off for so long joins again.
const GRANT_S: u64 = 30 * DAY;
const DAY: u64 = 24 * 60 * 60;
/// Tests renew within seconds.
const SHORTEST_S: u64 = 5;
const LONGEST_S: u64 = 90 * DAY;

/// Collects what is wrong.
pub(super) struct Problems {
    directory: PathBuf,
    found: Vec<Problem>,
}

impl Problems {
    pub(super) fn add(&mut self, key: &str, fault: impl Into<String>, remedy: &str) {
        self.found.push(Problem {
            key: key.to_owned(),
            fault: fault.into(),
            remedy: remedy.to_owned(),
        });
    }

    /// Relative paths begin at the file's folder.
    pub(super) fn path(&self, path: &str) -> PathBuf {
        self.directory.join(path)
    }

    fn required<T>(&mut self, key: &str, value: Option<T>, remedy: &str) -> Option<T> {
        if value.is_none() {
            self.add(key, "missing", remedy);
        }
        value
    }

    fn required_path(&mut self, key: &str, value: Option<String>, remedy: &str) -> Option<PathBuf> {
        let path = self.required(key, value, remedy)?;
        Some(self.path(&path))
    }

    fn address(&mut self, key: &str, value: &str) -> Option<SocketAddr> {
        let address = value.parse().ok();
        if address.is_none() {
            let remedy = "write an IP address and a port, such as \"10.0.0.3:26680\"";
            self.add(key, format!("{value:?} is no address"), remedy);
        }
        address
    }

    fn lifetime(&mut self, key: &str, value: Option<u64>, default: u64) -> Duration {
        let seconds = value.unwrap_or(default);
        if !(SHORTEST_S..=LONGEST_S).contains(&seconds) {
            let fault = format!("{seconds} is not between {SHORTEST_S} and {LONGEST_S}");
            self.add(
                key,
                fault,
                "write seconds; the default outlasts an outage of a day",
            );
        }
        Duration::from_secs(seconds)
    }
}

pub(super) fn config(file: &Path, raw: raw::Config, mock: MockDevices) -> Result<Config, Error> {
    let mut problems = Problems {
        directory: file.parent().unwrap_or(Path::new("/")).to_path_buf(),
        found: Vec::new(),
    };
    let checked = checked(file, &mut problems, raw, mock);
    match checked {
        Some(config) if problems.found.is_empty() => Ok(config),
        _ => Err(Error {
            file: file.to_path_buf(),
            problems: problems.found,
        }),
    }
}

fn checked(
    file: &Path,
    problems: &mut Problems,
    raw: raw::Config,
    mock: MockDevices,
) -> Option<Config> {
    let remedy = "name the register's directory, such as \"/var/lib/hsm-enroll/register\"";
    let state_dir = problems.required_path("state_dir", raw.state_dir, remedy);
    let remedy = "write the trust domain of all certificates, such as \"example.org\"";
    let trust_domain = problems.required("trust_domain", raw.trust_domain, remedy);
    let trust_domain = trust_domain.and_then(|name| match name.parse() {
        Ok(trust_domain) => Some(trust_domain),
        Err(error) => {
            problems.add("trust_domain", format!("{error}"), remedy);
            None
        }
    });
    let listen = listen(problems, raw.listen);
    let remedy = "write [admin] and socket = \"/run/hsm-enroll/admin.sock\"";
    let socket = raw.admin.and_then(|admin| admin.socket);
    let admin_socket = problems.required_path("admin.socket", socket, remedy);
    let metrics = raw.metrics.and_then(|metrics| metrics.listen);
    let metrics = metrics.and_then(|address| problems.address("metrics.listen", &address));
    if metrics.is_some_and(|address| !address.ip().is_loopback()) {
        let remedy = "write 127.0.0.1 or [::1]: metrics are not authenticated";
        problems.add("metrics.listen", "is not on loopback", remedy);
    }
    let log = log(problems, raw.log);
    let remedy = "write [ca] with certificate, label or id, and [ca.device]";
    let ca = problems.required("ca", raw.ca, remedy);
    let ca = ca.and_then(|raw| ca_section(problems, raw, mock));
    let lifetimes = lifetimes(problems, &raw.lifetime);
    let (address, names) = listen?;
    Some(Config {
        file: file.to_path_buf(),
        state_dir: state_dir?,
        trust_domain: trust_domain?,
        address,
        names,
        admin_socket: admin_socket?,
        metrics,
        log: log?,
        ca: ca?,
        lifetimes,
    })
}

fn listen(problems: &mut Problems, raw: Option<raw::Listen>) -> Option<(SocketAddr, Vec<String>)> {
    let remedy = "write [listen] with address and names";
    let raw = problems.required("listen", raw, remedy)?;
    let address = problems.required("listen.address", raw.address, remedy);
    let address = address.and_then(|address| problems.address("listen.address", &address));
    let remedy = "write the host names or IP addresses that nodes connect to";
    if raw.names.is_empty() {
        problems.add("listen.names", "missing", remedy);
    }
    for name in raw.names.iter().filter(|name| !is_host(name)) {
        problems.add(
            "listen.names",
            format!("{name:?} is no name of a host"),
            remedy,
        );
    }
    Some((address?, raw.names))
}

fn log(problems: &mut Problems, raw: Option<raw::Log>) -> Option<Log> {
    let (format, level) = raw.map_or((None, None), |log| (log.format, log.level));
    let json = match format.as_deref() {
        None | Some("text") => Some(false),
        Some("json") => Some(true),
        Some(other) => {
            let fault = format!("{other:?} is no format");
            problems.add("log.format", fault, "write \"text\" or \"json\"");
            None
        }
    };
    let level = level.unwrap_or_else(|| "info".to_owned());
    if !["error", "warn", "info", "debug", "trace"].contains(&level.as_str()) {
        let remedy = "write error, warn, info, debug or trace";
        problems.add("log.level", format!("{level:?} is no level"), remedy);
    }
    Some(Log { json: json?, level })
}

fn ca_section(problems: &mut Problems, raw: raw::Ca, mock: MockDevices) -> Option<Ca> {
    let remedy = "name the certificate of the CA's key, which `hsm-enroll init` makes";
    let certificate = problems.required_path("ca.certificate", raw.certificate, remedy);
    let id = raw.id.map(|id| match hex::decode(&id) {
        Ok(bytes) if !bytes.is_empty() => bytes,
        _ => {
            let fault = format!("{id:?} is no hexadecimal id");
            problems.add("ca.id", fault, "write it like \"0a01\"");
            Vec::new()
        }
    });
    if raw.label.is_none() && id.is_none() {
        problems.add(
            "ca.label",
            "missing",
            "name the key by its label, its id, or both",
        );
    }
    let remedy = "write [ca.device] with backend = \"yubihsm\" or \"pkcs11\"";
    let device = problems.required("ca.device", raw.device, remedy);
    let device = device.and_then(|raw| device::device(problems, raw, mock));
    Some(Ca {
        certificate: certificate?,
        root: raw.root.map(|root| problems.path(&root)),
        key: KeyLocator {
            label: raw.label,
            id,
            algorithm: Algorithm::P256,
        },
        device: device?,
    })
}

fn lifetimes(problems: &mut Problems, raw: &raw::Lifetime) -> Lifetimes {
    Lifetimes {
        grant: problems.lifetime("lifetime.grant_s", raw.grant_s, GRANT_S),
        sentry: problems.lifetime("lifetime.sentry_s", raw.sentry_s, LIFETIME_S),
        operator: problems.lifetime("lifetime.operator_s", raw.operator_s, LIFETIME_S),
        auditor: problems.lifetime("lifetime.auditor_s", raw.auditor_s, LIFETIME_S),
        signer: problems.lifetime("lifetime.signer_s", raw.signer_s, LIFETIME_S),
    }
}
