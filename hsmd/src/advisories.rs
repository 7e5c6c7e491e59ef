//! Security advisories about devices: `firmware-notes/advisories.toml`, built in.

use std::collections::HashSet;

use hsm_device::{Algorithm, Info};
use serde::Deserialize;

const BUILT_IN: &str = include_str!("../../firmware-notes/advisories.toml");

/// The document of advisories that was built in is wrong.
#[derive(Debug, thiserror::Error)]
#[error("firmware-notes/advisories.toml, which was built in: {0}")]
pub struct Error(String);

/// Advisories, and what is done about them.
#[derive(Debug, Default)]
pub struct Advisories {
    known: Vec<Advisory>,
    rule: Rule,
}

/// `[advisories]` of the configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    /// What an advisory does to a device or key that it covers.
    pub action: Action,
    /// Ids of advisories that are lived with: they neither warn nor refuse.
    pub accept: Vec<String>,
}

/// What an advisory does to a device or key that it covers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Action {
    /// It is named at start and by `hsmd doctor`.
    #[default]
    Warn,
    /// It is named, and the key does not sign there.
    Refuse,
}

/// One advisory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advisory {
    /// Its vendor's name for it, such as `YSA-2024-03`.
    pub id: String,
    /// What goes wrong.
    pub title: String,
    /// The vendor's page.
    pub url: String,
    /// What to do.
    pub remedy: String,
    /// Which devices it covers; none where it is about a program of the host.
    affects: Option<Affects>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Affects {
    /// The beginning of [`Info::model`].
    model: String,
    since: Option<Version>,
    before: Option<Version>,
    /// Empty: whatever the device does.
    schemes: Vec<Scheme>,
}

/// Major, minor, patch.
type Version = [u32; 3];

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Scheme {
    Ed25519,
    Ecdsa,
}

impl From<Algorithm> for Scheme {
    fn from(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::Ed25519 => Self::Ed25519,
            Algorithm::Secp256k1 | Algorithm::P256 => Self::Ecdsa,
        }
    }
}

impl Advisories {
    /// The advisories that were built in, under the configuration's rule.
    ///
    /// # Errors
    ///
    /// Where the document is wrong; a test keeps a release from having such a one.
    pub fn built_in(rule: Rule) -> Result<Self, Error> {
        let known = parse(BUILT_IN)?;
        Ok(Self { known, rule })
    }

    /// Whether there is an advisory with this id.
    #[must_use]
    pub fn knows(&self, id: &str) -> bool {
        self.known.iter().any(|advisory| advisory.id == id)
    }

    /// The ids of all advisories.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.known.iter().map(|advisory| advisory.id.as_str())
    }

    /// The advisories that cover the device as such, whatever its keys are.
    pub fn on_device(&self, device: &Info) -> impl Iterator<Item = &Advisory> {
        self.known.iter().filter(|advisory| {
            advisory
                .affects
                .as_ref()
                .is_some_and(|affects| affects.schemes.is_empty() && affects.device(device))
        })
    }

    /// The advisories that cover a key of this algorithm in the device, and not the device as such.
    pub fn on_key(&self, device: &Info, algorithm: Algorithm) -> impl Iterator<Item = &Advisory> {
        self.known.iter().filter(move |advisory| {
            advisory.affects.as_ref().is_some_and(|affects| {
                affects.schemes.contains(&algorithm.into()) && affects.device(device)
            })
        })
    }

    /// Whether the configuration accepts the advisory.
    #[must_use]
    pub fn accepts(&self, advisory: &Advisory) -> bool {
        self.rule.accept.contains(&advisory.id)
    }

    /// Whether an advisory that is not accepted keeps keys from signing.
    #[must_use]
    pub fn refuse(&self) -> bool {
        self.rule.action == Action::Refuse
    }

    /// The advisory that keeps a key of this algorithm from signing in the device, if one does.
    #[must_use]
    pub fn refusing(&self, device: &Info, algorithm: Algorithm) -> Option<&Advisory> {
        if !self.refuse() {
            return None;
        }
        self.on_device(device)
            .chain(self.on_key(device, algorithm))
            .find(|advisory| !self.accepts(advisory))
    }
}

impl Affects {
    /// A version that cannot be read is taken for an affected one.
    fn device(&self, device: &Info) -> bool {
        if !device.model.starts_with(&self.model) {
            return false;
        }
        let Some(version) = parse_version(&device.firmware) else {
            return true;
        };
        self.since.is_none_or(|since| version >= since)
            && self.before.is_none_or(|before| version < before)
    }
}

fn parse_version(text: &str) -> Option<Version> {
    let mut parts = text.split('.').map(|part| part.parse().ok());
    let version = [parts.next()??, parts.next()??, parts.next()??];
    parts.next().is_none().then_some(version)
}

/// The document as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    advisory: Vec<Written>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    id: String,
    title: String,
    url: String,
    component: String,
    remedy: String,
    model: Option<String>,
    since: Option<String>,
    before: Option<String>,
    #[serde(default)]
    schemes: Vec<Scheme>,
    fixed: Option<String>,
}

fn parse(text: &str) -> Result<Vec<Advisory>, Error> {
    let document: Document = toml::from_str(text).map_err(|error| Error(error.to_string()))?;
    let mut ids = HashSet::new();
    let mut known = Vec::with_capacity(document.advisory.len());
    for written in document.advisory {
        let id = written.id.clone();
        let wrong = |what: &str| Error(format!("{id}: {what}"));
        if !ids.insert(id.clone()) {
            return Err(wrong("stands there twice"));
        }
        if !written.url.starts_with("https://") {
            return Err(wrong("url is no https address"));
        }
        known.push(check(written).map_err(|what| wrong(&what))?);
    }
    Ok(known)
}

fn check(written: Written) -> Result<Advisory, String> {
    let version = |name: &str, text: Option<String>| match text {
        None => Ok(None),
        Some(text) => parse_version(&text)
            .map(Some)
            .ok_or_else(|| format!("{name} = {text:?} is not major.minor.patch")),
    };
    let device = written.component == "device";
    let affects = match (device, written.model) {
        (true, Some(model)) if !model.is_empty() => Some(Affects {
            model,
            since: version("since", written.since)?,
            before: version("before", written.before)?,
            schemes: written.schemes,
        }),
        (true, _) => return Err("a device's advisory needs its model".to_owned()),
        (false, None)
            if written.since.is_none()
                && written.before.is_none()
                && written.schemes.is_empty() =>
        {
            None
        }
        (false, _) => return Err("model, since, before and schemes are for devices".to_owned()),
    };
    if device == written.fixed.is_some() {
        return Err("fixed belongs to programs of the host, and to each".to_owned());
    }
    Ok(Advisory {
        id: written.id,
        title: written.title,
        url: written.url,
        remedy: written.remedy,
        affects,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(model: &str, firmware: &str) -> Info {
        Info {
            model: model.to_owned(),
            serial: "1".to_owned(),
            firmware: firmware.to_owned(),
            certificate: None,
        }
    }

    fn ids<'a>(advisories: impl Iterator<Item = &'a Advisory>) -> Vec<&'a str> {
        advisories.map(|advisory| advisory.id.as_str()).collect()
    }

    #[test]
    fn the_advisories_that_are_built_in_can_be_read_and_name_eucleak() {
        let advisories = Advisories::built_in(Rule::default()).unwrap();
        for id in [
            "YSA-2021-01",
            "YSA-2021-02",
            "YSA-2021-04",
            "YSA-2023-01",
            "YSA-2024-03",
        ] {
            assert!(advisories.knows(id), "{id}");
        }
        let eucleak: &[&str] = &["YSA-2024-03"];
        for (model, firmware, algorithm, expected) in [
            ("YubiHSM 2", "2.3.2", Algorithm::Secp256k1, eucleak),
            ("YubiHSM 2 EMULATOR", "2.0.0", Algorithm::Secp256k1, eucleak),
            ("YubiHSM 2", "unreadable", Algorithm::Secp256k1, eucleak),
            ("YubiHSM 2", "2.4.0", Algorithm::Secp256k1, &[]),
            ("YubiHSM 2", "2.10.0", Algorithm::Secp256k1, &[]),
            ("YubiHSM 2", "2.3.2", Algorithm::Ed25519, &[]),
            (
                "SoftHSM project SoftHSM v2",
                "2.6",
                Algorithm::Secp256k1,
                &[],
            ),
        ] {
            let device = device(model, firmware);
            assert_eq!(
                ids(advisories.on_key(&device, algorithm)),
                expected,
                "{model} {firmware} {algorithm}"
            );
            assert!(ids(advisories.on_device(&device)).is_empty());
        }
    }

    #[test]
    fn an_advisory_refuses_only_where_the_configuration_says_so_and_does_not_accept_it() {
        let old = device("YubiHSM 2", "2.2.0");
        let refusing = |action, accept: &[&str]| {
            let accept = accept.iter().map(|id| (*id).to_owned()).collect();
            let advisories = Advisories::built_in(Rule { action, accept }).unwrap();
            let refusing = advisories.refusing(&old, Algorithm::Secp256k1);
            refusing.map(|advisory| advisory.id.clone())
        };
        assert_eq!(refusing(Action::Warn, &[]), None);
        assert_eq!(
            refusing(Action::Refuse, &["YSA-2021-01"]).as_deref(),
            Some("YSA-2024-03")
        );
        assert_eq!(refusing(Action::Refuse, &["YSA-2024-03"]), None);
    }

    #[test]
    fn a_document_with_a_mistake_is_refused() {
        let good = "[[advisory]]\nid = \"A\"\ntitle = \"t\"\nurl = \"https://a\"\nremedy = \"r\"\n\
                    component = \"device\"\nmodel = \"M\"\n";
        assert_eq!(parse(good).unwrap().len(), 1);
        for (mistake, text) in [
            ("an unknown field", format!("{good}severity = 3\n")),
            ("a bad version", format!("{good}before = \"2.4\"\n")),
            ("an unknown scheme", format!("{good}schemes = [\"rsa\"]\n")),
            ("an id twice", format!("{good}{good}")),
            ("no model", good.replace("model = \"M\"\n", "")),
            ("a program's field", format!("{good}fixed = \"1\"\n")),
            ("a device's field", good.replace("\"device\"", "\"tool\"")),
            ("another url", good.replace("https://", "http://")),
        ] {
            assert!(parse(&text).is_err(), "{mistake}");
        }
    }
}
