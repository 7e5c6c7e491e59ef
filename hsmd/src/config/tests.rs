use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use hsm_device::yubihsm::Connector;

use super::{Backend, Config, LogFormat, MockDevices};

/// A whole configuration; each test spoils one thing of it.
const GOOD: &str = r#"
state_dir = "state"
policy = "policy.toml"
[listen]
address = "127.0.0.1:0"
certificate = "server.pem"
private_key = "server.key"
client_ca = "ca.pem"
trust_domain = "example.org"
[admin]
socket = "/run/hsmd/admin.sock"
[metrics]
listen = "127.0.0.1:9469"
[log]
format = "json"
[state]
anchor = "none"
[[device]]
name = "soft"
backend = "pkcs11"
module = "module.so"
token = "validator"
pin_file = "pin"
[[device]]
name = "yubi"
backend = "yubihsm"
connector = "http://127.0.0.1:12345"
authentication_key = 2
password_file = "password"
queue = 8
[[key]]
name = "cosmoshub"
devices = ["soft"]
algorithm = "ed25519"
label = "cosmoshub"
[[key]]
name = "evm"
devices = ["yubi"]
algorithm = "secp256k1"
id = "0x0102"
"#;

/// A directory with the files that [`GOOD`] names.
fn directory() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    for file in [
        "policy.toml",
        "server.pem",
        "server.key",
        "ca.pem",
        "module.so",
        "pin",
        "password",
    ] {
        write(&directory.path().join(file), "", 0o600);
    }
    directory
}

fn write(path: &Path, text: &str, mode: u32) {
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

fn load(directory: &Path, text: &str, mock: MockDevices) -> Result<Config, super::Error> {
    let file = directory.join("hsmd.toml");
    std::fs::write(&file, text).unwrap();
    Config::load(&file, mock)
}

#[test]
fn a_whole_configuration_is_read_with_its_defaults_and_absolute_paths() {
    let directory = directory();
    let config = load(directory.path(), GOOD, MockDevices::Refused).unwrap();
    assert_eq!(config.state_dir, directory.path().join("state"));
    assert_eq!(config.deadline.as_millis(), 3000);
    assert_eq!(config.audit_interval.as_secs(), 10);
    assert_eq!(config.advisories, crate::advisories::Rule::default());
    assert_eq!(
        config.listen.private_key,
        directory.path().join("server.key")
    );
    assert_eq!(config.log.format, LogFormat::Json);
    assert_eq!(config.log.level, tracing::Level::INFO);
    assert_eq!(config.state.segment_bytes, 16 * 1024 * 1024);
    assert_eq!(
        config.devices.iter().map(|d| d.queue).collect::<Vec<_>>(),
        [64, 8]
    );
    let Backend::Yubihsm(settings) = &config.devices[1].backend else {
        panic!("{:?}", config.devices[1].backend);
    };
    let connector = Connector::Http {
        host: "127.0.0.1".to_owned(),
        port: 12345,
    };
    assert_eq!(
        (&settings.connector, settings.authentication_key),
        (&connector, 2)
    );
    assert_eq!(config.keys[0].label.as_deref(), Some("cosmoshub"));
    assert_eq!(config.keys[1].id.as_deref(), Some(&[1, 2][..]));
    assert!(!config.has_mock());
}

#[test]
fn each_bad_value_is_refused_with_file_key_value_and_remedy() {
    // What stands in the good file, what stands there instead, the key at fault, a part of the remedy.
    #[rustfmt::skip]
    let cases = [
        ("127.0.0.1:0", "localhost:1", "listen.address = \"localhost:1\"", "numeric address"),
        ("127.0.0.1:9469", "0.0.0.0:9469", "metrics.listen = \"0.0.0.0:9469\"", "127.0.0.1"),
        ("127.0.0.1:0", "127.0.0.1:9469", "metrics.listen = \"127.0.0.1:9469\"", "port of its own"),
        ("127.0.0.1:0", "0.0.0.0:9469", "metrics.listen = \"127.0.0.1:9469\"", "port of its own"),
        ("anchor = \"none\"", "", "state.anchor: missing", "anchor = \"none\""),
        ("anchor = \"none\"", "anchor = \"tpm\"", "state.anchor = \"tpm\"", "\"none\""),
        ("[state]", "[state]\nsegment_bytes = 4096", "state.segment_bytes = 4096", "1048576"),
        ("state_dir =", "deadline_ms = 5\nstate_dir =", "deadline_ms = 5", "from 100 to 10000"),
        ("state_dir =", "audit_interval_ms = 5\nstate_dir =", "audit_interval_ms = 5", "from 100 to 3600000"),
        ("[state]", "[advisories]\naction = \"ignore\"\n[state]", "advisories.action = \"ignore\"", "\"warn\" or \"refuse\""),
        ("[state]", "[advisories]\naccept = [\"YSA-1\"]\n[state]", "advisories.accept = \"YSA-1\"", "YSA-2024-03"),
        ("format = \"json\"", "format = \"xml\"", "log.format = \"xml\"", "\"text\" or \"json\""),
        ("[log]", "[log]\nlevel = \"loud\"", "log.level = \"loud\"", "\"info\""),
        ("\"ca.pem\"", "\"none.pem\"", "listen.client_ca", "create it"),
        ("\"ca.pem\"", "\"/dev/null\"", "listen.client_ca = \"/dev/null\"", "name a file"),
        ("client_ca = \"ca.pem\"", "", "listen.client_ca: missing", "name the file"),
        ("\"example.org\"", "\"not a domain\"", "listen.trust_domain = \"not a domain\"", "write"),
        ("\"/run/hsmd/admin.sock\"", "\"\"", "admin.socket = \"\"", "such as"),
        ("\"soft\"", "\"so ft\"", "device[so ft].name = \"so ft\"", "a-z 0-9"),
        ("backend = \"pkcs11\"", "backend = \"tpm\"", "device[soft].backend = \"tpm\"", "pkcs11"),
        ("backend = \"pkcs11\"", "backend = \"mock\"", "device[soft].backend = \"mock\"", "mock"),
        ("token = \"validator\"", "", "device[soft].token: missing", "label"),
        ("token =", "connector = \"x\"\ntoken =", "device[soft].connector = \"x\"", "remove it"),
        ("http://127.0.0.1:12345", "https://h:1", "device[yubi].connector", "http://"),
        ("queue = 8", "usb_serial = \"0012345678\"", "device[yubi].connector", "either"),
        ("connector =", "usb_serial =", "device[yubi].usb_serial", "ten digits"),
        ("queue = 8", "queue = 0", "device[yubi].queue = 0", "from 1 to 4096"),
        ("authentication_key = 2", "authentication_key = 0", "authentication_key = 0", "65535"),
        ("name = \"yubi\"", "name = \"soft\"", "device[soft].name = \"soft\"", "of its own"),
        ("[\"soft\"]", "[\"other\"]", "key[cosmoshub].devices = \"other\"", "[[device]]"),
        ("[\"soft\"]", "[]", "key[cosmoshub].devices: missing", "at least one"),
        ("[\"soft\"]", "[\"soft\", \"soft\"]", "key[cosmoshub].devices = \"soft\"", "once"),
        ("\"secp256k1\"", "\"rsa\"", "key[evm].algorithm = \"rsa\"", "ed25519"),
        ("id = \"0x0102\"", "", "key[evm].label: missing", "or both"),
        ("0x0102", "0x010203", "key[evm].id = \"0x010203\"", "four hexadecimal digits"),
        ("\"evm\"", "\"cosmoshub\"", "key[cosmoshub].name = \"cosmoshub\"", "of its own"),
        ("label = \"cosmoshub\"", "label = \"\"", "key[cosmoshub].label = \"\"", "1 to 128"),
    ];
    let directory = directory();
    for (good, bad, key, remedy) in cases {
        assert!(GOOD.contains(good), "{good}");
        let text = GOOD.replacen(good, bad, 1);
        let error = load(directory.path(), &text, MockDevices::Refused)
            .unwrap_err()
            .to_string();
        for part in [
            directory.path().join("hsmd.toml").to_str().unwrap(),
            key,
            remedy,
        ] {
            assert!(error.contains(part), "{bad}: {part:?} is not in {error}");
        }
    }
}

#[test]
fn a_secret_file_open_to_group_or_others_is_refused() {
    let directory = directory();
    for (file, key) in [
        ("server.key", "listen.private_key"),
        ("pin", "device[soft].pin_file"),
        ("password", "device[yubi].password_file"),
    ] {
        for mode in [0o640, 0o604, 0o660] {
            write(&directory.path().join(file), "", mode);
            let error = load(directory.path(), GOOD, MockDevices::Refused).unwrap_err();
            assert_eq!(error.problems.len(), 1, "{error}");
            assert_eq!(error.problems[0].key, key);
            assert!(
                error.problems[0].remedy.starts_with("chmod 0600"),
                "{error}"
            );
        }
        write(&directory.path().join(file), "", 0o400);
    }
    load(directory.path(), GOOD, MockDevices::Refused).unwrap();
}

#[test]
fn a_command_that_only_looks_needs_none_of_the_files() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("hsmd.toml");
    std::fs::write(&file, GOOD).unwrap();
    let config = Config::load_to_look(&file).unwrap();
    assert_eq!(config.admin_socket, Path::new("/run/hsmd/admin.sock"));
    std::fs::write(&file, GOOD.replace("anchor = \"none\"", "")).unwrap();
    Config::load_to_look(&file).unwrap_err();
}

#[test]
fn a_systemd_credential_is_not_looked_for_outside_its_service() {
    let directory = directory();
    let credential = "pin_file = \"/run/credentials/hsmd.service/pin\"";
    let text = GOOD.replace("pin_file = \"pin\"", credential);
    load(directory.path(), &text, MockDevices::Refused).unwrap();
}

#[test]
fn two_keys_at_one_place_are_refused() {
    let directory = directory();
    let key = "[[key]]\nname = \"second\"\ndevices = [\"yubi\"]\nalgorithm = \"secp256k1\"\n";
    let text = format!("{GOOD}{key}id = \"0x0102\"\n");
    let error = load(directory.path(), &text, MockDevices::Refused)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("key[second].devices") && error.contains("\"evm\""),
        "{error}"
    );
    load(
        directory.path(),
        &format!("{GOOD}{key}id = \"0x0103\"\n"),
        MockDevices::Refused,
    )
    .unwrap();
}

#[test]
fn all_problems_of_a_file_are_reported_at_once() {
    let directory = directory();
    let error = load(
        directory.path(),
        "[log]\nlevel = \"loud\"",
        MockDevices::Refused,
    )
    .unwrap_err();
    let keys: Vec<_> = error
        .problems
        .iter()
        .map(|problem| problem.key.as_str())
        .collect();
    assert_eq!(
        keys,
        [
            "state_dir",
            "listen.address",
            "listen.certificate",
            "listen.private_key",
            "listen.client_ca",
            "listen.trust_domain",
            "admin.socket",
            "log.level",
            "state.anchor",
            "device",
        ]
    );
}

#[test]
fn a_key_is_not_at_fault_because_its_device_is() {
    let directory = directory();
    let text = GOOD.replace("pin_file = \"pin\"", "pin_file = \"gone\"");
    let error = load(directory.path(), &text, MockDevices::Refused).unwrap_err();
    assert_eq!(error.problems.len(), 1, "{error}");
}

#[test]
fn an_unknown_field_is_refused_by_name_and_line_without_showing_its_value() {
    let directory = directory();
    let text = GOOD.replace("pin_file = \"pin\"", "pin = \"1234-secret\"");
    let error = load(directory.path(), &text, MockDevices::Refused)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("line 23") && error.contains("unknown field `pin`"),
        "{error}"
    );
    assert!(!error.contains("secret"), "{error}");
}

#[test]
fn a_missing_file_or_one_that_is_not_toml_is_refused() {
    let directory = directory();
    let missing = Config::load(&directory.path().join("gone.toml"), MockDevices::Refused);
    assert!(missing.unwrap_err().to_string().contains("--config"));
    let error = load(directory.path(), "[listen\n", MockDevices::Refused)
        .unwrap_err()
        .to_string();
    assert!(error.contains("line 1"), "{error}");
}

#[cfg(feature = "mock")]
#[test]
fn a_mock_device_needs_mock_on_the_command_line_as_well() {
    let directory = directory();
    let mock = "[[device]]\nname = \"mock\"\nbackend = \"mock\"\nstate_file = \"mock.json\"\n";
    let text =
        format!("{GOOD}{mock}latency = \"vendor\"\nfirmware = \"2.3.2\"\nserial = 4200000007\n");
    let error = load(directory.path(), &text, MockDevices::Refused)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("device[mock].backend") && error.contains("--mock"),
        "{error}"
    );
    let config = load(directory.path(), &text, MockDevices::Allowed).unwrap();
    assert!(config.has_mock());
    let Backend::Mock(settings) = &config.devices[2].backend else {
        panic!("{:?}", config.devices[2].backend);
    };
    assert_eq!(
        settings.state_file.as_deref(),
        Some(&*directory.path().join("mock.json"))
    );
    assert_eq!(settings.latency, hsm_device::mock::Latency::Vendor);
    assert_eq!(
        (settings.firmware, settings.serial),
        ((2, 3, 2), 4_200_000_007)
    );
}

#[cfg(feature = "mock")]
#[test]
fn what_a_mock_device_is_told_to_be_is_checked() {
    let directory = directory();
    let with = |fields: &str| {
        let text = format!("{GOOD}[[device]]\nname = \"mock\"\nbackend = \"mock\"\n{fields}\n");
        load(directory.path(), &text, MockDevices::Allowed)
    };
    let good = "serial = 4200000007\nfirmware = \"2.3.1\"\nlatency = \"0x6a=100,*=3\"\n\
                control = \"control.sock\"";
    let config = with(good).unwrap();
    let Backend::Mock(settings) = &config.devices[2].backend else {
        panic!("{:?}", config.devices[2].backend);
    };
    assert_eq!(settings.serial, 4_200_000_007);
    assert_eq!(settings.firmware, (2, 3, 1));
    assert_eq!(
        settings.control.as_deref(),
        Some(&*directory.path().join("control.sock"))
    );
    for (field, value) in [
        ("firmware", "\"2.4\""),
        ("firmware", "\"2.4.256\""),
        ("latency", "\"slow\""),
        ("control", "\"\""),
    ] {
        let error = with(&format!("{field} = {value}")).unwrap_err().to_string();
        assert!(error.contains(&format!("device[mock].{field}")), "{error}");
    }
}

#[cfg(not(feature = "mock"))]
#[test]
fn a_build_without_the_mock_refuses_it_even_with_mock_on_the_command_line() {
    let directory = directory();
    let text = format!("{GOOD}[[device]]\nname = \"mock\"\nbackend = \"mock\"\n");
    let error = load(directory.path(), &text, MockDevices::Allowed)
        .unwrap_err()
        .to_string();
    assert!(error.contains("not part of this build"), "{error}");
}

#[test]
fn ten_thousand_keys_are_read_quickly() {
    let directory = directory();
    let mut text = GOOD.to_owned();
    for number in 0..10_000 {
        text.push_str(&format!(
            "[[key]]\nname = \"k{number}\"\ndevices = [\"soft\"]\nalgorithm = \"ed25519\"\nlabel = \"k{number}\"\n"
        ));
    }
    let started = std::time::Instant::now();
    let config = load(directory.path(), &text, MockDevices::Refused).unwrap();
    assert_eq!(config.keys.len(), 10_002);
    // An optimised build takes a tenth of this; the bound only catches what grows with the square.
    assert!(started.elapsed().as_secs() < 5, "{:?}", started.elapsed());
}

/// A whole `[checkpoint]`; the witness's key is one of torchwood's litewitness.
const CHECKPOINT: &str = r#"
[checkpoint]
origin = "example.org/hsmd/hub"
devices = ["soft"]
label = "log"
[[checkpoint.witness]]
url = "http://127.0.0.1:7380"
key = "witness.example/w1+WITNESS"
"#;

fn with_checkpoint() -> String {
    use hsm_journal::note::{Algorithm, Verifier};
    // The public key of RFC 8032, section 7.1, test 1.
    let key = hex::decode("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a");
    let key = key.unwrap().try_into().unwrap();
    let key = Verifier::new("witness.example/w1", Algorithm::Cosignature, &key).unwrap();
    GOOD.to_owned() + &CHECKPOINT.replace("witness.example/w1+WITNESS", &key.to_string())
}

#[test]
fn a_log_is_signed_by_a_key_of_its_own_and_asks_all_its_witnesses() {
    let directory = directory();
    let config = load(directory.path(), &with_checkpoint(), MockDevices::Refused).unwrap();
    let checkpoint = config.checkpoint.unwrap();
    assert_eq!(checkpoint.origin, "example.org/hsmd/hub");
    assert_eq!(checkpoint.interval.as_secs(), 60);
    assert_eq!((checkpoint.witnesses.len(), checkpoint.quorum), (1, 1));
    #[rustfmt::skip]
    let cases = [
        ("label = \"log\"", "label = \"cosmoshub\"", "checkpoint.label = \"cosmoshub\"", "another Ed25519 key"),
        ("label = \"log\"", "", "checkpoint.label: missing", "or both"),
        ("example.org/hsmd/hub", "with space", "checkpoint.origin = \"with space\"", "of your own domain"),
        ("[checkpoint]", "[checkpoint]\ninterval_ms = 5", "checkpoint.interval_ms = 5", "from 100 to"),
        ("[checkpoint]", "[checkpoint]\nquorum = 2", "checkpoint.quorum = 2", "from 1 to 1"),
        ("http://127.0.0.1:7380", "https://witness.example", "checkpoint.witness[#1].url", "TLS proxy"),
        ("witness.example/w1+", "witness.example/w2+", "checkpoint.witness[#1].key", "mistyped"),
        ("devices = [\"soft\"]\nlabel = \"log\"", "devices = [\"none\"]\nlabel = \"log\"", "checkpoint.devices = \"none\"", "[[device]]"),
    ];
    for (good, bad, key, part) in cases {
        let text = with_checkpoint();
        assert!(text.contains(good), "{good}");
        let error = load(
            directory.path(),
            &text.replacen(good, bad, 1),
            MockDevices::Refused,
        );
        let error = error.unwrap_err().to_string();
        assert!(
            error.contains(key) && error.contains(part),
            "{bad}: {error}"
        );
    }
}
