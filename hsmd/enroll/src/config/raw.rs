//! The file as it is written. Every field is optional here, so that the check can name all that are missing at once.

use serde::Deserialize;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Config {
    pub(super) state_dir: Option<String>,
    pub(super) trust_domain: Option<String>,
    pub(super) listen: Option<Listen>,
    pub(super) admin: Option<Admin>,
    pub(super) metrics: Option<Metrics>,
    pub(super) log: Option<Log>,
    pub(super) ca: Option<Ca>,
    #[serde(default)]
    pub(super) lifetime: Lifetime,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Listen {
    pub(super) address: Option<String>,
    #[serde(default)]
    pub(super) names: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Admin {
    pub(super) socket: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Metrics {
    pub(super) listen: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Log {
    pub(super) format: Option<String>,
    pub(super) level: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Ca {
    pub(super) certificate: Option<String>,
    pub(super) root: Option<String>,
    pub(super) label: Option<String>,
    pub(super) id: Option<String>,
    pub(super) device: Option<Device>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Lifetime {
    pub(super) grant_s: Option<u64>,
    pub(super) sentry_s: Option<u64>,
    pub(super) operator_s: Option<u64>,
    pub(super) auditor_s: Option<u64>,
    pub(super) signer_s: Option<u64>,
}

/// One of the three; its fields are its own.
#[derive(Deserialize)]
#[serde(tag = "backend", rename_all = "lowercase", deny_unknown_fields)]
pub(super) enum Device {
    Pkcs11 {
        module: String,
        token: String,
        pin_file: String,
    },
    Yubihsm {
        connector: Option<String>,
        usb_serial: Option<String>,
        authentication_key: u16,
        password_file: String,
    },
    Mock {
        state_file: Option<String>,
    },
}
