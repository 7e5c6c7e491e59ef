//! What has to hold in a spec beyond its form.

use std::collections::BTreeSet;

use hsm_shares::{Group as SchemeGroup, Scheme};

use super::{AuthenticationKey, Device, Error, Purpose, Raw, Use, Wrap};
use crate::plan::capabilities;

/// The longest label of an object in a YubiHSM2, in bytes.
const LONGEST_LABEL: usize = 40;

pub(super) fn check(raw: &Raw) -> Result<Scheme, Error> {
    text("title", &raw.title)?;
    roles(raw)?;
    devices(&raw.device)?;
    keys(raw)?;
    for key in &raw.authentication_key {
        authentication_key(raw, key)?;
    }
    if !raw
        .authentication_key
        .iter()
        .any(|key| key.purpose == Purpose::Administer)
    {
        return wrong(
            "authentication_key",
            "none has the purpose \"administer\": once the factory's key is removed, nobody could administer the devices",
        );
    }
    ids(raw)?;
    wrap(raw)
}

fn wrong<T>(place: impl Into<String>, problem: impl Into<String>) -> Result<T, Error> {
    Err(Error::Value {
        place: place.into(),
        problem: problem.into(),
    })
}

/// What is printed and read aloud: one line of letters that a person can tell apart from no letters.
fn text(place: &str, text: &str) -> Result<(), Error> {
    const LONGEST: usize = 80;
    if text.trim() != text
        || text.is_empty()
        || text.chars().count() > LONGEST
        || text.chars().any(char::is_control)
    {
        return wrong(
            place,
            format!(
                "{text:?} is not one line of 1 to {LONGEST} characters without blanks around it"
            ),
        );
    }
    if let Some(letter) = text.chars().find(|letter| u32::from(*letter) > 0xFF) {
        return wrong(
            place,
            format!("{text:?}: {letter:?} cannot be printed, only Latin-1 can"),
        );
    }
    Ok(())
}

fn label(place: &str, label: &str) -> Result<(), Error> {
    text(place, label)?;
    if label.len() > LONGEST_LABEL || !label.is_ascii() {
        return wrong(
            place,
            format!("{label:?}: a label has 1 to {LONGEST_LABEL} bytes of ASCII"),
        );
    }
    Ok(())
}

/// Refuses the second of two that are alike.
fn unique<'a>(place: &str, names: impl Iterator<Item = &'a str>) -> Result<(), Error> {
    let mut seen = BTreeSet::new();
    for name in names {
        if !seen.insert(name) {
            return wrong(place, format!("{name:?} is there twice"));
        }
    }
    Ok(())
}

fn roles(raw: &Raw) -> Result<(), Error> {
    if raw.role.len() < 2 {
        return wrong("role", "there are at least two, who watch each other");
    }
    for role in &raw.role {
        text("role.name", &role.name)?;
        text("role.person", &role.person)?;
        let letters = role
            .initials
            .chars()
            .all(|letter| letter.is_ascii_alphabetic());
        if !(2..=4).contains(&role.initials.len()) || !letters {
            return wrong(
                "role.initials",
                format!("{:?}: they are 2 to 4 letters", role.initials),
            );
        }
    }
    unique("role.name", raw.role.iter().map(|role| role.name.as_str()))?;
    unique(
        "role.person",
        raw.role.iter().map(|role| role.person.as_str()),
    )?;
    unique(
        "role.initials",
        raw.role.iter().map(|role| role.initials.as_str()),
    )
}

fn devices(devices: &[Device]) -> Result<(), Error> {
    for device in devices {
        text("device.name", &device.name)?;
        if device.serial.len() != 10 || !device.serial.bytes().all(|digit| digit.is_ascii_digit()) {
            return wrong(
                "device.serial",
                format!("{:?}: it is the ten digits on the device", device.serial),
            );
        }
        let port = device
            .connector
            .strip_prefix("http://127.0.0.1:")
            .map(str::parse::<u16>);
        if !matches!(port, Some(Ok(1..))) {
            let problem = format!(
                "{:?}: it is http://127.0.0.1:PORT. The laptop has no other network",
                device.connector
            );
            return wrong("device.connector", problem);
        }
    }
    unique(
        "device.name",
        devices.iter().map(|device| device.name.as_str()),
    )?;
    unique(
        "device.serial",
        devices.iter().map(|device| device.serial.as_str()),
    )?;
    unique(
        "device.connector",
        devices.iter().map(|device| device.connector.as_str()),
    )?;
    let generating = devices
        .iter()
        .filter(|device| device.used_as == Use::Generate)
        .count();
    if generating != 1 {
        return wrong(
            "device.use",
            format!("{generating} devices are there to generate: it is one"),
        );
    }
    if generating == devices.len() {
        return wrong(
            "device.use",
            "no device is there to restore into: a backup that was never restored is none",
        );
    }
    Ok(())
}

fn domains(place: &str, domains: &[u8]) -> Result<(), Error> {
    if domains.is_empty() || domains.iter().any(|domain| !(1..=16).contains(domain)) {
        return wrong(
            place,
            format!("{domains:?}: they are one or more of 1 to 16"),
        );
    }
    let distinct: BTreeSet<&u8> = domains.iter().collect();
    if distinct.len() != domains.len() {
        return wrong(place, format!("{domains:?}: one is there twice"));
    }
    Ok(())
}

fn keys(raw: &Raw) -> Result<(), Error> {
    if raw.key.is_empty() {
        return wrong("key", "there is none to generate");
    }
    for key in &raw.key {
        label("key.label", &key.label)?;
        let place = format!("key {}", key.label);
        domains(&place, &key.domains)?;
        if let Some(outside) = key
            .domains
            .iter()
            .find(|domain| !raw.wrap.domains.contains(domain))
        {
            return wrong(
                place,
                format!(
                    "domain {outside} is not among the wrap key's: the key could not be exported"
                ),
            );
        }
        unique(&place, key.capabilities.iter().map(String::as_str))?;
        let needed = capabilities::of_key(key.algorithm);
        if let Some(missing) = needed
            .iter()
            .find(|needed| !key.capabilities.iter().any(|has| has == *needed))
        {
            return wrong(place, format!("it lacks the capability {missing}"));
        }
        if let Some(more) = key
            .capabilities
            .iter()
            .find(|has| !needed.contains(&has.as_str()))
        {
            let problem = format!(
                "an {} key does not need the capability {more:?}: leave it out",
                key.algorithm
            );
            return wrong(place, problem);
        }
    }
    unique("key.label", raw.key.iter().map(|key| key.label.as_str()))
}

fn authentication_key(raw: &Raw, key: &AuthenticationKey) -> Result<(), Error> {
    label("authentication_key.label", &key.label)?;
    let place = format!("authentication key {}", key.label);
    domains(&place, &key.domains)?;
    unique(&place, key.capabilities.iter().map(String::as_str))?;
    let signing: Vec<&str> = raw
        .key
        .iter()
        .map(|key| capabilities::signing(key.algorithm))
        .collect();
    let own = |capability: &str| {
        let signs = key.purpose == Purpose::Sign && signing.contains(&capability);
        signs || capabilities::of_purpose(key.purpose).contains(&capability)
    };
    if let Some(more) = key.capabilities.iter().find(|has| !own(has)) {
        let problem = format!(
            "to {}, no key of this spec needs the capability {more:?}: leave it out",
            key.purpose
        );
        return wrong(place, problem);
    }
    if key.capabilities.is_empty() {
        return wrong(place, "it has no capability");
    }
    let delegable = |capability: &str| {
        signing.contains(&capability)
            || ["exportable-under-wrap", "export-wrapped", "import-wrapped"].contains(&capability)
            || [Purpose::Sign, Purpose::Audit, Purpose::Administer]
                .iter()
                .any(|purpose| capabilities::of_purpose(*purpose).contains(&capability))
    };
    let administers = key.purpose == Purpose::Administer;
    match key
        .delegated_capabilities
        .iter()
        .find(|has| !administers || !delegable(has))
    {
        Some(more) => wrong(
            place,
            format!(
                "it makes no object that needs {more:?}: leave it out of delegated_capabilities"
            ),
        ),
        None => Ok(()),
    }
}

/// Object ids: 1 is the factory's authentication key, 0 and 65535 are the device's own.
fn ids(raw: &Raw) -> Result<(), Error> {
    let authentication = raw
        .authentication_key
        .iter()
        .map(|key| (key.label.as_str(), key.id));
    let keys = raw.key.iter().map(|key| (key.label.as_str(), key.id));
    let mut seen = BTreeSet::new();
    for (label, id) in authentication
        .chain(keys)
        .chain([("the wrap key", raw.wrap.id)])
    {
        if id < 2 || id == u16::MAX {
            return wrong(label, format!("object id {id}: it is 2 to 65534"));
        }
        if !seen.insert(id) {
            return wrong(label, format!("object id {id} is there twice"));
        }
    }
    unique(
        "authentication_key.label",
        raw.authentication_key.iter().map(|key| key.label.as_str()),
    )
}

fn wrap(raw: &Raw) -> Result<Scheme, Error> {
    let Wrap {
        generation,
        domains: wrap_domains,
        group_threshold,
        groups,
        ..
    } = &raw.wrap;
    if *generation == 0 {
        return wrong("wrap.generation", "0: generations count from 1");
    }
    domains("wrap.domains", wrap_domains)?;
    let custodians = || groups.iter().flat_map(|group| &group.custodians);
    for group in groups {
        text("wrap.group.name", &group.name)?;
    }
    for custodian in custodians() {
        let place = format!("custodian {:?}", custodian.name);
        text("custodian.name", &custodian.name)?;
        if custodian.bags.is_empty() && custodian.recipient.is_none() {
            return wrong(
                place,
                "the share goes nowhere: give the bags of a sheet, or the recipient of a file, or both",
            );
        }
        for bag in &custodian.bags {
            text("custodian.bags", bag)?;
        }
        if custodian
            .recipient
            .as_ref()
            .is_some_and(|recipient| !recipient.starts_with("age1"))
        {
            return wrong(
                place,
                "its recipient is none of age, which begins with age1",
            );
        }
    }
    unique(
        "wrap.group.name",
        groups.iter().map(|group| group.name.as_str()),
    )?;
    unique(
        "custodian.name",
        custodians().map(|custodian| custodian.name.as_str()),
    )?;
    unique(
        "custodian.bags",
        custodians()
            .flat_map(|custodian| &custodian.bags)
            .map(String::as_str),
    )?;
    let scheme_groups: Vec<SchemeGroup> = groups
        .iter()
        .map(|group| SchemeGroup {
            threshold: group.threshold,
            members: u8::try_from(group.custodians.len()).unwrap_or(u8::MAX),
        })
        .collect();
    let scheme = Scheme::new(*group_threshold, &scheme_groups)?;
    if scheme.fewest() < 2 {
        return wrong(
            "wrap",
            "one custodian alone could rebuild the wrap key: it takes at least two",
        );
    }
    Ok(scheme)
}
