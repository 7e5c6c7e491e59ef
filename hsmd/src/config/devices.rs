//! The checks of `[[device]]`.

use std::collections::HashSet;

use hsm_device::{pkcs11, yubihsm};

use super::check::Checker;
use super::raw;
use super::{Backend, Device, MockDevices};

/// Fields that only one backend has.
const BACKEND_FIELDS: [(&str, &[&str]); 3] = [
    ("pkcs11", &["module", "token", "pin_file"]),
    (
        "yubihsm",
        &[
            "connector",
            "usb_serial",
            "authentication_key",
            "password_file",
        ],
    ),
    (
        "mock",
        &["state_file", "latency", "serial", "firmware", "control"],
    ),
];

pub(super) fn check(
    checker: &mut Checker,
    raw: Vec<raw::Device>,
    mock: MockDevices,
) -> Vec<Device> {
    if raw.is_empty() {
        checker
            .problems
            .missing("device", "write at least one [[device]]");
    }
    let mut names = HashSet::new();
    let mut devices = Vec::with_capacity(raw.len());
    for (index, raw) in raw.into_iter().enumerate() {
        let key = match &raw.name {
            Some(name) => format!("device[{name}]"),
            None => format!("device[#{}]", index + 1),
        };
        if let Some(device) = device(checker, &key, raw, mock) {
            if !names.insert(device.name.clone()) {
                let remedy = "give each device a name of its own";
                let fault = "is the name of two devices";
                checker
                    .problems
                    .value(&format!("{key}.name"), &device.name, fault, remedy);
            }
            devices.push(device);
        }
    }
    devices
}

fn device(checker: &mut Checker, key: &str, raw: raw::Device, mock: MockDevices) -> Option<Device> {
    let name = checker.name(&format!("{key}.name"), raw.name.clone());
    let queue = checker.range(&format!("{key}.queue"), raw.queue, 64, 1, 4096);
    let backend_key = format!("{key}.backend");
    let remedy = "write \"pkcs11\" or \"yubihsm\"";
    let backend = checker
        .problems
        .required(&backend_key, raw.backend.clone(), remedy)?;
    let backends = BACKEND_FIELDS.map(|(backend, _)| (backend, backend));
    let backend = checker.choice(&backend_key, &backend, &backends)?;
    refuse_fields_of_others(checker, key, &raw, backend);
    let backend = match backend {
        "pkcs11" => pkcs11_device(checker, key, raw),
        "yubihsm" => yubihsm_device(checker, key, raw),
        _ => mock_device(checker, key, raw, mock),
    };
    Some(Device {
        name: name?,
        backend: backend?,
        queue: usize::try_from(queue?).ok()?,
    })
}

fn refuse_fields_of_others(checker: &mut Checker, key: &str, raw: &raw::Device, backend: &str) {
    let present = [
        ("module", raw.module.clone()),
        ("token", raw.token.clone()),
        ("pin_file", raw.pin_file.clone()),
        ("connector", raw.connector.clone()),
        ("usb_serial", raw.usb_serial.clone()),
        (
            "authentication_key",
            raw.authentication_key.map(|id| id.to_string()),
        ),
        ("password_file", raw.password_file.clone()),
        ("state_file", raw.state_file.clone()),
        ("latency", raw.latency.clone()),
        ("serial", raw.serial.map(|serial| serial.to_string())),
        ("firmware", raw.firmware.clone()),
        ("control", raw.control.clone()),
    ];
    for (field, value) in present {
        let owner = BACKEND_FIELDS
            .iter()
            .find(|(_, fields)| fields.contains(&field));
        let owner = owner
            .map(|(owner, _)| *owner)
            .filter(|owner| *owner != backend);
        if let (Some(value), Some(owner)) = (value, owner) {
            let fault =
                format!("belongs to backend \"{owner}\", but this device's is \"{backend}\"");
            let remedy = "remove it, or correct the backend";
            checker
                .problems
                .value(&format!("{key}.{field}"), value, fault, remedy);
        }
    }
}

fn pkcs11_device(checker: &mut Checker, key: &str, raw: raw::Device) -> Option<Backend> {
    let module = checker.readable(&format!("{key}.module"), raw.module);
    let token_key = format!("{key}.token");
    let remedy = "write the token's label, 1 to 32 bytes, as `pkcs11-tool --list-slots` prints it";
    let token = checker.problems.required(&token_key, raw.token, remedy);
    let token = token.filter(|token| {
        let fits = (1..=32).contains(&token.len());
        if !fits {
            checker
                .problems
                .value(&token_key, token, "is not a token's label", remedy);
        }
        fits
    });
    let pin_file = checker.private(&format!("{key}.pin_file"), raw.pin_file);
    Some(Backend::Pkcs11(pkcs11::Settings {
        module: module?,
        token: token?,
        pin_file: pin_file?,
    }))
}

fn yubihsm_device(checker: &mut Checker, key: &str, raw: raw::Device) -> Option<Backend> {
    let connection = connection(checker, key, raw.connector, raw.usb_serial);
    let id_key = format!("{key}.authentication_key");
    let remedy = "write the object id of the authentication key, 1 to 65535";
    let id = checker
        .problems
        .required(&id_key, raw.authentication_key, remedy);
    let id = id.and_then(|id| match u16::try_from(id) {
        Ok(id) if id > 0 => Some(id),
        _ => {
            checker
                .problems
                .value(&id_key, id, "is not an object id", remedy);
            None
        }
    });
    let password_file = checker.private(&format!("{key}.password_file"), raw.password_file);
    Some(Backend::Yubihsm(yubihsm::Settings {
        connector: connection?,
        authentication_key: id?,
        password_file: password_file?,
    }))
}

fn connection(
    checker: &mut Checker,
    key: &str,
    connector: Option<String>,
    serial: Option<String>,
) -> Option<yubihsm::Connector> {
    let one = "write either connector = \"http://127.0.0.1:12345\" or usb_serial = \"0012345678\"";
    match (connector, serial) {
        (Some(url), None) => parse_connector(&url).or_else(|| {
            let remedy = "write it like \"http://127.0.0.1:12345\"";
            let fault = "is not the URL of a connector: http, a host and a port";
            checker
                .problems
                .value(&format!("{key}.connector"), url, fault, remedy);
            None
        }),
        (None, Some(serial)) => {
            if serial.len() == 10 && serial.bytes().all(|b| b.is_ascii_digit()) {
                return Some(yubihsm::Connector::Usb {
                    serial: Some(serial),
                });
            }
            let remedy = "write ten digits, with leading zeros";
            let fault = "is not a YubiHSM2's serial number";
            checker
                .problems
                .value(&format!("{key}.usb_serial"), serial, fault, remedy);
            None
        }
        (Some(url), Some(_)) => {
            let fault = "contradicts usb_serial, which is there too";
            checker
                .problems
                .value(&format!("{key}.connector"), url, fault, one);
            None
        }
        (None, None) => {
            checker.problems.missing(&format!("{key}.connector"), one);
            None
        }
    }
}

fn parse_connector(url: &str) -> Option<yubihsm::Connector> {
    let authority = url.strip_prefix("http://")?;
    let authority = authority.strip_suffix('/').unwrap_or(authority);
    let (host, port) = authority.rsplit_once(':')?;
    let bracketed = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    let valid = match bracketed {
        Some(host) => host.parse::<std::net::Ipv6Addr>().is_ok(),
        None => {
            !host.is_empty()
                && host
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b".-".contains(&b))
        }
    };
    let port = port.parse().ok().filter(|port| *port > 0 && valid)?;
    Some(yubihsm::Connector::Http {
        host: bracketed.unwrap_or(host).to_owned(),
        port,
    })
}

#[cfg(feature = "mock")]
fn mock_device(
    checker: &mut Checker,
    key: &str,
    raw: raw::Device,
    mock: MockDevices,
) -> Option<Backend> {
    use hsm_device::mock::{Settings, parse_firmware};

    if mock == MockDevices::Refused {
        checker.problems.value(
            &format!("{key}.backend"),
            "mock",
            "is no HSM: its keys lie in a file, and anyone who reads it can sign",
            "for a development chain, start with --mock; else write \"pkcs11\" or \"yubihsm\"",
        );
        return None;
    }
    let mut path = |field: &str, path: Option<String>| match path {
        Some(path) => checker
            .path(&format!("{key}.{field}"), Some(path), "name a file")
            .map(Some),
        None => Some(None),
    };
    let state_file = path("state_file", raw.state_file)?;
    let control = path("control", raw.control)?;
    let mut settings = Settings {
        state_file,
        control,
        ..Settings::default()
    };
    let remedy = "yubihsm-emulator --help says what can be written here";
    if let Some(text) = raw.latency {
        match text.parse() {
            Ok(latency) => settings.latency = latency,
            Err(fault) => {
                let field = format!("{key}.latency");
                checker
                    .problems
                    .value(&field, text, fault.to_string(), remedy);
            }
        }
    }
    if let Some(text) = raw.firmware {
        match parse_firmware(&text) {
            Some(firmware) => settings.firmware = firmware,
            None => {
                let field = format!("{key}.firmware");
                checker
                    .problems
                    .value(&field, text, "is no version such as 2.4.1", remedy);
            }
        }
    }
    if let Some(serial) = raw.serial {
        settings.serial = serial;
    }
    Some(Backend::Mock(settings))
}

#[cfg(not(feature = "mock"))]
fn mock_device(
    checker: &mut Checker,
    key: &str,
    _raw: raw::Device,
    _mock: MockDevices,
) -> Option<Backend> {
    checker.problems.value(
        &format!("{key}.backend"),
        "mock",
        "is not part of this build of hsmd",
        "write \"pkcs11\" or \"yubihsm\"; for development, build with --features mock",
    );
    None
}
