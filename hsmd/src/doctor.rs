//! What is in order and what is not: for `hsmd doctor`, and for the log at start.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use hsm_device::{Backend, Info, State, Status};
use hsm_proto::v1 as wire;
use hsm_proto::v1::Severity;
use tokio::time::Instant;

use crate::advisories::{Advisories, Advisory};
use crate::anchor;
use crate::audit::Report;
use crate::guard::{self, AuditMark, Guard};
use crate::in_force::InForce;
use crate::keyring::{Device, Key, Keyring};
use crate::line::Line;

/// How long a device may take to show its options.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long before its end a certificate is warned about.
const RENEW: Duration = Duration::from_secs(7 * 24 * 3600);

/// Looks at everything.
///
/// # Errors
///
/// After a fault of the guard.
pub async fn findings(
    line: &Line,
    anchor: &str,
    anchor_state: Option<&anchor::State>,
    certificate_expires: SystemTime,
) -> Result<Vec<wire::Finding>, guard::Error> {
    let mut findings = Vec::new();
    for device in line.keyring().devices() {
        let mut about = About::new("device", &device.name, &mut findings);
        of_device(&mut about, device, line).await?;
    }
    let mut keys: Vec<&Key> = line.keyring().iter().collect();
    keys.sort_by_key(|key| key.name());
    for key in keys {
        of_key(&mut About::new("key", key.name(), &mut findings), key, line)?;
    }
    for ledger in line.ledger().states(line.guard()).await {
        of_ledger(
            &mut About::new("ledger", &ledger.key, &mut findings),
            &ledger,
        );
    }
    of_journal(&mut About::new("journal", "", &mut findings), line);
    let mut about = About::new("anchor", "", &mut findings);
    of_anchor(&mut about, anchor, anchor_state);
    let doubted = line.guard().inspect(|state| {
        let doubted = state.doubted();
        doubted
            .map(|(key, chain, floor)| format!("{key} on {chain} up to {floor}"))
            .collect::<Vec<_>>()
    })?;
    if !doubted.is_empty() {
        about.warn(
            "tail",
            format!(
                "nothing proves that the journal holds all that was signed before an unclean end, so nothing is signed \
                 by {}; it passes when the chains are above",
                doubted.join(", ")
            ),
        );
    }
    of_policy(&mut About::new("policy", "", &mut findings), &line.policy());
    let freezes = line.guard().inspect(|state| {
        let freezes = state.freezes();
        freezes
            .map(|(frozen, freeze)| (frozen.name().to_owned(), freeze.by.clone()))
            .collect::<Vec<_>>()
    })?;
    for (key, by) in &freezes {
        About::new("key", key, &mut findings).warn(
            "frozen",
            format!("{by} froze it: nothing is signed until officers sign for `hsmd thaw`"),
        );
    }
    let mut about = About::new("certificate", "", &mut findings);
    of_certificate(&mut about, certificate_expires, SystemTime::now());
    Ok(findings)
}

fn of_policy(about: &mut About<'_>, in_force: &InForce) {
    const CHECK: &str = "in_force";
    let version = in_force.version();
    if in_force.is_unsigned() {
        about.warn(CHECK, "nobody signed it: for development only");
    } else if version == 0 {
        about.problem(
            CHECK,
            "none was loaded, so that nothing is signed: `hsmd policy load`",
        );
    } else if in_force.is_old(SystemTime::now()) {
        about.problem(
            CHECK,
            format!(
                "version {version} is old: the last moment at which it could be loaded has passed. It stays in force; \
                 have officers sign a newer one: `hsmd policy sign-request`"
            ),
        );
    } else {
        about.ok(CHECK, format!("version {version}"));
    }
}

/// The advisories that cover a device and the configuration's keys in it.
#[must_use]
pub fn advisories(keyring: &Keyring, device: &Device, info: &Info) -> Vec<wire::Finding> {
    let mut findings = Vec::new();
    let known = keyring.advisories();
    let mut about = About::new("device", &device.name, &mut findings);
    about.advisories(known, known.on_device(info));
    for key in keyring.iter() {
        let holds = key
            .devices()
            .iter()
            .any(|holder| holder.name == device.name);
        if holds {
            let mut about = About::new("key", key.name(), &mut findings);
            about.advisories(known, known.on_key(info, key.locator().algorithm));
        }
    }
    findings
}

/// Findings about one thing.
struct About<'a> {
    subject: &'static str,
    name: &'a str,
    findings: &'a mut Vec<wire::Finding>,
}

impl<'a> About<'a> {
    fn new(subject: &'static str, name: &'a str, findings: &'a mut Vec<wire::Finding>) -> Self {
        Self {
            subject,
            name,
            findings,
        }
    }

    fn add(&mut self, severity: Severity, check: &str, message: impl Into<String>) {
        self.findings.push(wire::Finding {
            severity: severity.into(),
            subject: self.subject.to_owned(),
            name: self.name.to_owned(),
            check: check.to_owned(),
            message: message.into(),
        });
    }

    fn ok(&mut self, check: &str, message: impl Into<String>) {
        self.add(Severity::Ok, check, message);
    }

    fn warn(&mut self, check: &str, message: impl Into<String>) {
        self.add(Severity::Warning, check, message);
    }

    fn problem(&mut self, check: &str, message: impl Into<String>) {
        self.add(Severity::Problem, check, message);
    }

    fn advisories<'b>(&mut self, known: &Advisories, covering: impl Iterator<Item = &'b Advisory>) {
        for advisory in covering {
            let (id, title) = (&advisory.id, &advisory.title);
            let (url, remedy) = (&advisory.url, &advisory.remedy);
            if known.accepts(advisory) {
                self.ok(
                    "advisory",
                    format!("under {id}, which is accepted: {title}"),
                );
            } else if known.refuse() {
                let message = format!("refused under {id}: {title}: {remedy} ({url})");
                self.problem("advisory", message);
            } else {
                self.warn("advisory", format!("under {id}: {title}: {remedy} ({url})"));
            }
        }
    }
}

fn of_ledger(about: &mut About<'_>, ledger: &wire::LedgerState) {
    let (chain, id) = (&ledger.chain_id, &ledger.ledger_id);
    if ledger.fault.is_empty() {
        let signers = ledger.members.len();
        about.ok(
            "ledger",
            format!("{chain}: shared by {signers} signers through {id}"),
        );
    } else {
        about.problem("ledger", format!("{chain}, ledger {id}: {}", ledger.fault));
    }
}

async fn of_device(
    about: &mut About<'_>,
    device: &Device,
    line: &Line,
) -> Result<(), guard::Error> {
    let status = device.worker.status();
    reachable(about, &status);
    if let Some(info) = &status.info {
        let known = line.keyring().advisories();
        about.advisories(known, known.on_device(info));
        identity(about, &status, info, device);
    }
    let mark = line
        .guard()
        .inspect(|state| state.audit(&device.name).cloned())?;
    audit_log(about, &device.name, &device.audit.report(), mark.as_ref());
    if status.state == State::Ready {
        audit_options(about, device).await;
    }
    Ok(())
}

fn reachable(about: &mut About<'_>, status: &Status) {
    let fault = status.last_fault.as_ref().map(ToString::to_string);
    match (&status.info, status.state) {
        (Some(info), State::Ready) => {
            let Info {
                model,
                serial,
                firmware,
                ..
            } = info;
            about.ok(
                "reachable",
                format!("{model} {serial}, firmware {firmware}"),
            );
            if status.backend == Backend::Mock {
                about.warn("mock", "is the mock: the keys are protected by nothing");
            }
        }
        (_, state) => {
            let fault = fault.unwrap_or_else(|| "it was not reached yet".to_owned());
            about.problem("reachable", format!("{}: {fault}", state.name()));
        }
    }
}

fn identity(about: &mut About<'_>, status: &Status, info: &Info, device: &Device) {
    let certificate = info.certificate.is_some();
    match device.worker.pinned() {
        None => about.warn(
            "identity",
            "is not pinned, so another device in its place would be used: a device is pinned when a key in it is \
             made known (`hsmd key init`)",
        ),
        Some(pinned) if !pinned.admits(&info.identity()) => {
            let shown = info.identity();
            about.problem("identity", format!("expected {pinned}; found {shown}"));
        }
        Some(pinned) if status.backend != Backend::Pkcs11 && pinned.certificate.is_none() => {
            let remedy = match certificate {
                true => "it shows one now, which is pinned with the next key",
                false => "give hsmd's authentication key the capability get-opaque",
            };
            let message = format!("is pinned by its serial number only, without certificate: {remedy}");
            about.warn("identity", message);
        }
        Some(_) => about.ok("identity", "is the one that was pinned"),
    }
}

fn audit_log(about: &mut About<'_>, device: &str, report: &Report, mark: Option<&AuditMark>) {
    let clear =
        format!("once that is explained, `hsmd doctor --acknowledge {device}` ends this alarm");
    const CHECK: &str = "audit_log";
    let unknown = mark.map_or(0, |mark| mark.unknown_signatures);
    if unknown > 0 {
        about.problem(
            "unknown_signatures",
            format!(
                "made {unknown} signatures that hsmd did not ask for: somebody else uses its keys; see \
                 `hsmd journal show` for when, and take the key out of service; {clear}"
            ),
        );
    }
    let (missing, broken, unreadable) = (report.missing, report.broken, report.unreadable);
    if missing + broken + unreadable > 0 {
        about.problem(
            CHECK,
            format!(
                "its audit log is not whole: {missing} entries missing, {broken} links broken, {unreadable} \
                 unreadable, since the start: somebody else frees entries, it ran over, or the device was reset; \
                 {clear}"
            ),
        );
    }
    if report.administrative > 0 {
        about.warn(
            "administration",
            format!(
                "{} administrative commands in its audit log since the start that hsmd did not make",
                report.administrative
            ),
        );
    }
    match (&report.fault, report.read) {
        (Some(fault), _) => about.problem(CHECK, format!("its audit log cannot be read: {fault}")),
        (None, _) if report.none => about.ok(CHECK, "keeps no audit log that can be read"),
        (None, None) => about.warn(CHECK, "its audit log was not read yet"),
        (None, Some(_)) if missing + broken + unreadable + unknown == 0 => {
            about.ok(
                CHECK,
                "its audit log is whole, and shows no signature that hsmd did not ask for",
            );
        }
        (None, Some(_)) => {}
    }
}

async fn audit_options(about: &mut About<'_>, device: &Device) {
    const CHECK: &str = "audit_options";
    let options = device.worker.audit_options(Instant::now() + PATIENCE).await;
    match options {
        Ok(None) => {}
        Err(error) => about.warn(CHECK, format!("what it records is not known: {error}")),
        Ok(Some(options)) => {
            if !options.unrecorded.is_empty() {
                let commands = options.unrecorded.join(", ");
                about.warn(
                    CHECK,
                    format!(
                        "does not record {commands}, so a signature behind hsmd's back would go unnoticed: switch \
                         its option command-audit on for them"
                    ),
                );
            }
            if !options.force {
                about.warn(
                    CHECK,
                    "overwrites old entries of its audit log: switch its option force-audit on; hsmd frees entries \
                     in time",
                );
            }
            if options.force && options.unrecorded.is_empty() {
                about.ok(
                    CHECK,
                    "records every signature, and makes none that it cannot record",
                );
            }
        }
    }
}

fn of_key(about: &mut About<'_>, key: &Key, line: &Line) -> Result<(), guard::Error> {
    let in_force = line.policy();
    let granted: BTreeSet<&str> = in_force
        .policy
        .grants()
        .filter(|grant| grant.key().as_str() == key.name())
        .map(|grant| grant.chain_id().as_str())
        .collect();
    let state = key_state(key, line.guard())?;
    let name = key.name();
    for chain in &state {
        about.ok(
            "known",
            format!("{}: nothing at or below {}", chain.0, chain.1),
        );
    }
    for chain in line.guard().inspect(|known| known.contested_chains(name))? {
        about.problem(
            "contested",
            format!(
                "two different messages were signed at {} on {}, one here and one by a signer whose state was \
                 imported: switch that signer off; nothing more is signed at this position",
                chain.1, chain.0
            ),
        );
    }
    for chain in &granted {
        if !state.iter().any(|(known, _)| known == chain) {
            about.problem(
                "known",
                format!(
                    "is granted for {chain} and was not made known there, so it does not sign: `hsmd key init \
                     {name} --chain {chain} --height H`"
                ),
            );
        }
    }
    if state.is_empty() && granted.is_empty() {
        about.warn("known", "was not made known, and no policy grants it");
    }
    let statuses: Vec<Status> = key.devices().iter().map(|d| d.worker.status()).collect();
    if !statuses.iter().any(|status| status.state == State::Ready) {
        about.problem("devices", "no device that holds it is ready");
    }
    let known = line.keyring().advisories();
    for info in statuses.iter().filter_map(|status| status.info.as_ref()) {
        about.advisories(known, known.on_key(info, key.locator().algorithm));
    }
    Ok(())
}

/// Chains and initial heights.
fn key_state(key: &Key, guard: &Guard) -> Result<Vec<(String, i64)>, guard::Error> {
    guard.inspect(|state| {
        let known = state.pinned(key.name()).and_then(|key| state.key(&key));
        let chains = known.map(|known| known.chains.iter()).into_iter().flatten();
        chains
            .map(|(chain, mark)| (chain.to_string(), mark.mark.initial_height))
            .collect()
    })
}

fn of_journal(about: &mut About<'_>, line: &Line) {
    let journal = line.guard().journal().status();
    let fault = journal
        .stopped
        .or(journal.fault.map(|fault| fault.to_string()));
    match fault {
        Some(fault) => about.problem(
            "durable",
            format!("cannot be written, nothing is signed: {fault}"),
        ),
        None => about.ok("durable", format!("{} entries durable", journal.entries)),
    }
}

fn of_anchor(about: &mut About<'_>, anchor: &str, state: Option<&anchor::State>) {
    const CHECK: &str = "anchor";
    match state {
        None => about.warn(
            CHECK,
            "none: nothing shows that the state was restored from a disk image or backup, after which hsmd signs \
             again what it signed since",
        ),
        Some(anchor::State {
            fault: Some(fault), ..
        }) => about.problem(
            CHECK,
            format!("signing stops at the present ceilings, since it was not advanced: {fault}"),
        ),
        Some(state) => about.ok(CHECK, format!("{anchor}, at {}", state.counter)),
    }
}

fn of_certificate(about: &mut About<'_>, expires: SystemTime, now: SystemTime) {
    const CHECK: &str = "expiry";
    match expires.duration_since(now) {
        Err(_) => about.problem(
            CHECK,
            "has expired: no sentry connects; put a new one in its place",
        ),
        Ok(left) => {
            let hours = left.as_secs() / 3600;
            let message = format!("expires in {} days and {} hours", hours / 24, hours % 24);
            match left < RENEW {
                true => about.warn(CHECK, message),
                false => about.ok(CHECK, message),
            }
        }
    }
}
