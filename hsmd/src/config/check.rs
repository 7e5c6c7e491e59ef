//! From the file as written to the checked configuration.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use hsm_policy::grants::KeyName;
use hsm_policy::identity::TrustDomain;

use super::error::Problems;
use super::{
    Config, Error, FileFault, Listen, Log, LogFormat, MockDevices, State, anchor, checkpoint,
    devices, files, keys, ledger, raw,
};
use crate::advisories::{Action, Advisories, Rule};

/// `sun_path` of sockaddr_un is 108 bytes with its final NUL (unix(7)).
const SOCKET_PATH_BYTES: usize = 107;
const MIB: u64 = 1024 * 1024;

/// What the configuration is read for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// To serve: the files that it names must be there.
    Serve,
    /// To look at the daemon from outside.
    Look,
}

/// Collects problems and makes paths absolute.
pub(super) struct Checker {
    base: PathBuf,
    purpose: Purpose,
    pub(super) problems: Problems,
}

pub(super) fn check(
    file: PathBuf,
    raw: raw::Config,
    mock: MockDevices,
    purpose: Purpose,
) -> Result<Config, Error> {
    let base = file.parent().unwrap_or(Path::new("/")).to_path_buf();
    let mut checker = Checker {
        base,
        purpose,
        problems: Problems::default(),
    };
    let state_dir = checker.path("state_dir", raw.state_dir, "name a directory of hsmd's own");
    let policy = raw
        .policy
        .and_then(|path| checker.readable("policy", Some(path)));
    let deadline = checker.range("deadline_ms", raw.deadline_ms, 3000, 100, 10_000);
    let audit_interval = checker.range(
        "audit_interval_ms",
        raw.audit_interval_ms,
        10_000,
        100,
        3_600_000,
    );
    let listen = checker.listen(raw.listen.unwrap_or_default());
    let admin_socket = checker.admin(raw.admin);
    let metrics = raw.metrics.and_then(|metrics| checker.metrics(metrics));
    checker.apart(listen.as_ref(), metrics);
    let log = checker.log(raw.log.unwrap_or_default());
    let advisories = checker.advisories(raw.advisories.unwrap_or_default());
    let ledger = raw.ledger.map(|raw| ledger::check(&mut checker, raw));
    let declared = raw
        .device
        .iter()
        .filter_map(|device| device.name.clone())
        .collect();
    let backends: Vec<(String, String)> = raw
        .device
        .iter()
        .filter_map(|device| Some((device.name.clone()?, device.backend.clone()?)))
        .collect();
    let state = checker.state(
        raw.state.unwrap_or_default(),
        admin_socket.as_deref(),
        &backends,
    );
    let devices = devices::check(&mut checker, raw.device, mock);
    let keys = keys::check(&mut checker, raw.key, &devices, &declared);
    let checkpoint = raw
        .checkpoint
        .and_then(|raw| checkpoint::check(&mut checker, raw, &devices, &keys));
    let problems = checker.problems.0;
    match (
        state_dir,
        deadline,
        audit_interval,
        listen,
        admin_socket,
        log,
        state,
        advisories,
    ) {
        (
            Some(state_dir),
            Some(deadline),
            Some(audit_interval),
            Some(listen),
            Some(admin_socket),
            Some(log),
            Some(state),
            Some(advisories),
        ) if problems.is_empty() => Ok(Config {
            file,
            state_dir,
            policy,
            deadline: Duration::from_millis(deadline),
            audit_interval: Duration::from_millis(audit_interval),
            listen,
            admin_socket,
            metrics,
            log,
            state,
            checkpoint,
            advisories,
            ledger: ledger.flatten(),
            devices,
            keys,
        }),
        _ => Err(Error { file, problems }),
    }
}

impl Checker {
    fn listen(&mut self, raw: raw::Listen) -> Option<Listen> {
        let address = self.address("listen.address", raw.address, "127.0.0.1:26690");
        let certificate = self.readable("listen.certificate", raw.certificate);
        let private_key = self.private("listen.private_key", raw.private_key);
        let client_ca = self.readable("listen.client_ca", raw.client_ca);
        let trust_domain = self.problems.required(
            "listen.trust_domain",
            raw.trust_domain,
            "write the trust domain of your certificates, such as \"example.org\"",
        );
        let trust_domain = trust_domain.and_then(|text| match TrustDomain::from_str(&text) {
            Ok(domain) => Some(domain),
            Err(error) => {
                let remedy = "write the trust domain that your certificates' URI SANs begin with";
                self.problems
                    .value("listen.trust_domain", text, error.to_string(), remedy);
                None
            }
        });
        Some(Listen {
            address: address?,
            certificate: certificate?,
            private_key: private_key?,
            client_ca: client_ca?,
            trust_domain: trust_domain?,
            reflection: raw.reflection.unwrap_or(false),
        })
    }

    fn admin(&mut self, raw: Option<raw::Admin>) -> Option<PathBuf> {
        let key = "admin.socket";
        let socket = self.path(
            key,
            raw.and_then(|admin| admin.socket),
            "write where the socket shall be, such as \"/run/hsmd/admin.sock\"",
        )?;
        let length = socket.as_os_str().len();
        if length > SOCKET_PATH_BYTES {
            let fault = format!(
                "is {length} bytes long; a UNIX socket's path has at most {SOCKET_PATH_BYTES}"
            );
            self.problems
                .value(key, socket, fault, "choose a shorter path");
            return None;
        }
        Some(socket)
    }

    fn metrics(&mut self, raw: raw::Metrics) -> Option<SocketAddr> {
        let address = self.address("metrics.listen", raw.listen, "127.0.0.1:9469")?;
        if !address.ip().is_loopback() {
            self.problems.value(
                "metrics.listen",
                address.to_string(),
                "is not a loopback address; metrics are neither encrypted nor authorised",
                "listen on 127.0.0.1 or [::1], and let a local agent or a tunnel carry them",
            );
            return None;
        }
        Some(address)
    }

    /// Two listeners cannot share a port of one address.
    fn apart(&mut self, listen: Option<&Listen>, metrics: Option<SocketAddr>) {
        if let Some((listen, metrics)) = listen.zip(metrics)
            && (listen.address.ip() == metrics.ip() || listen.address.ip().is_unspecified())
            && listen.address.port() == metrics.port()
            && metrics.port() != 0
        {
            self.problems.value(
                "metrics.listen",
                metrics.to_string(),
                format!(
                    "is where sentries connect to: listen.address is {}",
                    listen.address
                ),
                "give it a port of its own, such as 127.0.0.1:9469",
            );
        }
    }

    fn log(&mut self, raw: raw::Log) -> Option<Log> {
        let formats = [("text", LogFormat::Text), ("json", LogFormat::Json)];
        let format = self.choice(
            "log.format",
            raw.format.as_deref().unwrap_or("text"),
            &formats,
        );
        let levels = [
            ("error", tracing::Level::ERROR),
            ("warn", tracing::Level::WARN),
            ("info", tracing::Level::INFO),
            ("debug", tracing::Level::DEBUG),
            ("trace", tracing::Level::TRACE),
        ];
        let level = self.choice("log.level", raw.level.as_deref().unwrap_or("info"), &levels);
        Some(Log {
            format: format?,
            level: level?,
        })
    }

    fn state(
        &mut self,
        raw: raw::State,
        admin_socket: Option<&Path>,
        devices: &[(String, String)],
    ) -> Option<State> {
        let anchor = anchor::check(self, raw.anchor, admin_socket, devices);
        let segment_bytes = self.range(
            "state.segment_bytes",
            raw.segment_bytes,
            16 * MIB,
            MIB,
            1024 * MIB,
        );
        Some(State {
            anchor: anchor?,
            segment_bytes: segment_bytes?,
        })
    }

    fn advisories(&mut self, raw: raw::Advisories) -> Option<Rule> {
        let actions = [("warn", Action::Warn), ("refuse", Action::Refuse)];
        let action = raw.action.as_deref().unwrap_or("warn");
        let action = self.choice("advisories.action", action, &actions);
        // A document that cannot be read keeps the daemon from starting, with the cause.
        let known = Advisories::built_in(Rule::default()).unwrap_or_default();
        for id in &raw.accept {
            if !known.knows(id) {
                let ids: Vec<_> = known.ids().collect();
                let remedy = format!("write ids that hsmd knows: {}", ids.join(", "));
                let fault = "is no advisory that hsmd knows";
                self.problems.value("advisories.accept", id, fault, remedy);
            }
        }
        Some(Rule {
            action: action?,
            accept: raw.accept,
        })
    }

    fn address(&mut self, key: &str, value: Option<String>, example: &str) -> Option<SocketAddr> {
        let remedy = format!("write a numeric address and a port, such as \"{example}\"");
        let text = self.problems.required(key, value, &remedy)?;
        match text.parse() {
            Ok(address) => Some(address),
            Err(_) => {
                self.problems
                    .value(key, text, "is not an IP address and port", remedy);
                None
            }
        }
    }

    /// A number between two bounds, both included, or its default.
    pub(super) fn range(
        &mut self,
        key: &str,
        value: Option<u64>,
        default: u64,
        least: u64,
        most: u64,
    ) -> Option<u64> {
        let value = value.unwrap_or(default);
        if (least..=most).contains(&value) {
            return Some(value);
        }
        let remedy =
            format!("write a number from {least} to {most}; without it, {default} is taken");
        self.problems.value(key, value, "is out of range", remedy);
        None
    }

    /// One of the words that a key accepts.
    pub(super) fn choice<T: Copy>(
        &mut self,
        key: &str,
        value: &str,
        choices: &[(&str, T)],
    ) -> Option<T> {
        let found = choices.iter().find(|(word, _)| *word == value);
        if found.is_none() {
            let words: Vec<_> = choices
                .iter()
                .map(|(word, _)| format!("\"{word}\""))
                .collect();
            let remedy = format!("write {}", words.join(" or "));
            self.problems.value(key, value, "is not known", remedy);
        }
        found.map(|(_, choice)| *choice)
    }

    /// A name of a device or key; devices keep to the rule of keys.
    pub(super) fn name(&mut self, key: &str, name: Option<String>) -> Option<String> {
        let remedy = "write 1 to 64 of the characters a-z 0-9 . _ -";
        let name = self.problems.required(key, name, remedy)?;
        if KeyName::new(&name).is_ok() {
            return Some(name);
        }
        self.problems.value(key, name, "is not a name", remedy);
        None
    }

    /// An absolute path; whether anything is there is not asked.
    pub(super) fn path(
        &mut self,
        key: &str,
        value: Option<String>,
        remedy: &str,
    ) -> Option<PathBuf> {
        let value = self.problems.required(key, value, remedy)?;
        if value.is_empty() || value.contains('\0') {
            self.problems.value(key, value, "is not a path", remedy);
            return None;
        }
        Some(self.base.join(value))
    }

    /// A file that can be read.
    pub(super) fn readable(&mut self, key: &str, value: Option<String>) -> Option<PathBuf> {
        self.file(key, value, files::readable)
    }

    /// A file that can be read by its owner and root alone.
    pub(super) fn private(&mut self, key: &str, value: Option<String>) -> Option<PathBuf> {
        self.file(key, value, files::private)
    }

    fn file(
        &mut self,
        key: &str,
        value: Option<String>,
        usable: fn(&Path) -> Result<(), FileFault>,
    ) -> Option<PathBuf> {
        let path = self.path(key, value, "name the file")?;
        if self.purpose == Purpose::Look || files::is_elsewhere(&path) {
            return Some(path);
        }
        match usable(&path) {
            Ok(()) => Some(path),
            Err(FileFault { fault, remedy }) => {
                self.problems.value(key, path, fault, remedy);
                None
            }
        }
    }
}
