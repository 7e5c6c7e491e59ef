//! The file as it is written. Every field is optional here, so that the check can name all that are
//! missing at once; unknown fields are refused by serde.

use std::fmt;

use serde::de::value::MapAccessDeserializer;
use serde::de::{self, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Config {
    pub(super) state_dir: Option<String>,
    pub(super) policy: Option<String>,
    pub(super) deadline_ms: Option<u64>,
    pub(super) audit_interval_ms: Option<u64>,
    pub(super) listen: Option<Listen>,
    pub(super) admin: Option<Admin>,
    pub(super) metrics: Option<Metrics>,
    pub(super) log: Option<Log>,
    pub(super) state: Option<State>,
    pub(super) checkpoint: Option<Checkpoint>,
    pub(super) advisories: Option<Advisories>,
    pub(super) ledger: Option<Ledger>,
    pub(super) revocation: Option<Revocation>,
    #[serde(default)]
    pub(super) device: Vec<Device>,
    #[serde(default)]
    pub(super) key: Vec<Key>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Listen {
    pub(super) address: Option<String>,
    pub(super) certificate: Option<String>,
    pub(super) private_key: Option<String>,
    pub(super) client_ca: Option<String>,
    pub(super) trust_domain: Option<String>,
    pub(super) reflection: Option<bool>,
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

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Log {
    pub(super) format: Option<String>,
    pub(super) level: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct State {
    pub(super) anchor: Option<Anchor>,
    pub(super) segment_bytes: Option<u64>,
}

/// `anchor = "none"`, or a table `[state.anchor]`.
pub(super) enum Anchor {
    Word(String),
    Table(Box<AnchorTable>),
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AnchorTable {
    pub(super) kind: Option<String>,
    pub(super) window: Option<u64>,
    pub(super) spare: Option<u64>,
    pub(super) interval_s: Option<u64>,
    pub(super) last_entry: Option<String>,
    // tpm
    pub(super) tcti: Option<String>,
    pub(super) nv_index: Option<u64>,
    // yubihsm
    pub(super) device: Option<String>,
}

impl<'de> Deserialize<'de> for Anchor {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Anchor;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("\"none\" or a table")
            }

            fn visit_str<E: de::Error>(self, word: &str) -> Result<Anchor, E> {
                Ok(Anchor::Word(word.to_owned()))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Anchor, A::Error> {
                let table = AnchorTable::deserialize(MapAccessDeserializer::new(map))?;
                Ok(Anchor::Table(Box::new(table)))
            }
        }
        deserializer.deserialize_any(Either)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Checkpoint {
    pub(super) origin: Option<String>,
    pub(super) interval_ms: Option<u64>,
    #[serde(default)]
    pub(super) devices: Vec<String>,
    pub(super) label: Option<String>,
    pub(super) id: Option<String>,
    #[serde(default)]
    pub(super) witness: Vec<Witness>,
    pub(super) quorum: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Witness {
    pub(super) url: Option<String>,
    pub(super) key: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Advisories {
    pub(super) action: Option<String>,
    #[serde(default)]
    pub(super) accept: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Ledger {
    #[serde(default)]
    pub(super) endpoints: Vec<String>,
    pub(super) ca: Option<String>,
    pub(super) certificate: Option<String>,
    pub(super) private_key: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Revocation {
    pub(super) server: Option<String>,
    pub(super) server_name: Option<String>,
    pub(super) ca: Option<String>,
    pub(super) certificate: Option<String>,
    pub(super) private_key: Option<String>,
    pub(super) signer: Option<String>,
    pub(super) interval_ms: Option<u64>,
    pub(super) alarm_after_ms: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Device {
    pub(super) name: Option<String>,
    pub(super) backend: Option<String>,
    pub(super) queue: Option<u64>,
    // pkcs11
    pub(super) module: Option<String>,
    pub(super) token: Option<String>,
    pub(super) pin_file: Option<String>,
    // yubihsm
    pub(super) connector: Option<String>,
    pub(super) usb_serial: Option<String>,
    pub(super) authentication_key: Option<u64>,
    pub(super) password_file: Option<String>,
    // mock
    pub(super) state_file: Option<String>,
    pub(super) latency: Option<String>,
    pub(super) serial: Option<u32>,
    pub(super) firmware: Option<String>,
    pub(super) control: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Key {
    pub(super) name: Option<String>,
    #[serde(default)]
    pub(super) devices: Vec<String>,
    pub(super) algorithm: Option<String>,
    pub(super) label: Option<String>,
    pub(super) id: Option<String>,
}
