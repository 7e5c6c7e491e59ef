use std::time::Duration;

use hsm_policy::identity::Role;
use proptest::prelude::*;

use super::*;

const GOOD: &str = r#"
state_dir = "register"
trust_domain = "example.org"

[listen]
address = "127.0.0.1:26680"
names = ["enroll.example.org", "127.0.0.1"]

[admin]
socket = "admin.sock"

[ca]
certificate = "ca.pem"
label = "ca"

[ca.device]
backend = "pkcs11"
module = "/usr/lib/softhsm/libsofthsm2.so"
token = "enroll"
pin_file = "pin"
"#;

fn load(text: &str) -> Result<Config, Error> {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("hsm-enroll.toml");
    std::fs::write(&file, text).unwrap();
    Config::load(&file, MockDevices::Refused)
}

fn problems(text: &str) -> String {
    load(text)
        .err()
        .map(|error| error.to_string())
        .unwrap_or_default()
}

#[test]
fn certificates_outlast_an_outage_of_a_day_unless_the_file_says_otherwise() {
    let config = load(GOOD).unwrap();
    for role in Role::ALL {
        let third = config.lifetimes.of(role) / 3;
        assert!(third > Duration::from_secs(24 * 60 * 60), "{role}");
    }
    let config = load(&format!("{GOOD}\n[lifetime]\nsentry_s = 60\n")).unwrap();
    assert_eq!(config.lifetimes.of(Role::Sentry), Duration::from_secs(60));
}

#[test]
fn every_wrong_value_is_named_with_its_remedy() {
    for (from, to, expected) in [
        ("state_dir = \"register\"\n", "", "state_dir: missing"),
        ("example.org\"\n", "Example.org\"\n", "trust_domain"),
        ("127.0.0.1:26680", "localhost", "listen.address"),
        ("\"enroll.example.org\"", "\"a b\"", "listen.names"),
        ("label = \"ca\"\n", "", "ca.label: missing"),
        ("label = \"ca\"\n", "id = \"xyz\"\n", "ca.id"),
        ("token = \"enroll\"\n", "", "token"),
        ("\"pkcs11\"", "\"mock\"", "line"),
        ("[admin]\n", "[admin]\nname = \"x\"\n", "unknown field"),
        (
            "\n[ca]",
            "\n[lifetime]\nsentry_s = 1\n[ca]",
            "lifetime.sentry_s",
        ),
        (
            "\n[ca]",
            "\n[metrics]\nlisten = \"10.0.0.1:1\"\n[ca]",
            "metrics.listen",
        ),
    ] {
        let text = GOOD.replacen(from, to, 1);
        assert_ne!(text, GOOD, "{from}");
        let problems = problems(&text);
        assert!(
            problems.contains(expected),
            "{expected:?} is not in {problems}"
        );
    }
    assert!(problems("").contains("ca: missing"));
}

#[cfg(feature = "mock")]
#[test]
fn the_mock_is_taken_only_where_somebody_says_so() {
    let start = GOOD.find("backend").unwrap();
    let text = format!("{}backend = \"mock\"\n", &GOOD[..start]);
    assert!(problems(&text).contains("--mock"));
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in "[a-z_.=\"0-9\\[\\]\n ]{0,200}") {
        let _ = toml::from_str::<raw::Config>(&text)
            .map(|raw| check::config(std::path::Path::new("/x"), raw, MockDevices::Refused).err());
    }
}
