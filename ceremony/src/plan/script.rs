//! The script that the room reads: each step with its number, who acts, what to do, what to see, and room for
//! initials.

use std::fmt::Write as _;

use super::Plan;
use super::spec::Spec;
use super::step::Step;
use crate::paper::{MARGIN, Page, Paper, Weight};
use crate::pgp_words;

/// Letters of a line: as many as fit on a page in a size that is read at arm's length.
const WIDTH: usize = 78;

/// What stands in the script for a step.
struct Instruction {
    act: String,
    see: String,
}

pub(super) fn text(plan: &Plan, spec: &Spec) -> String {
    let rule = format!("\n{}\n", "-".repeat(WIDTH));
    blocks(plan, spec).join(&rule)
}

/// The script's pages.
pub(super) fn pages(plan: &Plan, spec: &Spec, paper: Paper) -> Vec<Page> {
    const SIZE: f32 = 10.5;
    const LEADING: f32 = 14.0;
    let (width, height) = paper.size();
    let bottom = MARGIN + 2.0 * LEADING;
    let mut pages = Vec::new();
    let mut page = Page::new();
    let mut y = height - MARGIN - LEADING;
    for block in blocks(plan, spec) {
        let lines = u16::try_from(block.lines().count()).unwrap_or(u16::MAX);
        // A step stands on one page, where it fits on one.
        let fits = y - f32::from(lines) * LEADING >= bottom;
        if !fits && y < height - MARGIN - 2.0 * LEADING {
            pages.push(std::mem::take(&mut page));
            y = height - MARGIN - LEADING;
        }
        for (index, line) in block.lines().enumerate() {
            if y < bottom {
                pages.push(std::mem::take(&mut page));
                y = height - MARGIN - LEADING;
            }
            let weight = if index == 0 {
                Weight::Bold
            } else {
                Weight::Regular
            };
            page.text(MARGIN, y, SIZE, weight, line);
            y -= LEADING;
        }
        page.rule(MARGIN, y + LEADING / 2.0, width - 2.0 * MARGIN);
        y -= LEADING;
    }
    pages.push(page);
    let count = pages.len();
    for (number, page) in (1..).zip(&mut pages) {
        let foot = format!(
            "spec {:.16}   page {number} of {count}",
            plan.spec().to_string()
        );
        page.text(MARGIN, MARGIN, SIZE, Weight::Regular, &foot);
    }
    pages
}

/// What stands before the steps, and each step.
fn blocks(plan: &Plan, spec: &Spec) -> Vec<String> {
    let mut head = String::new();
    paragraph(&mut head, "", plan.title());
    head.push_str("\nSpec, SHA-256:\n");
    for line in pgp_words::lines(&plan.spec().0) {
        paragraph(&mut head, "", &line);
    }
    head.push_str("\nPresent:\n");
    for role in spec.roles() {
        paragraph(&mut head, "", &format!("{}: {}", role.name, role.person));
        let _ = writeln!(
            head,
            "  initials {:<6} signature ______________________________\n",
            role.initials
        );
    }
    let mut blocks = vec![head];
    let blanks: Vec<String> = spec
        .roles()
        .iter()
        .map(|role| format!("{} ______", role.initials))
        .collect();
    let blanks = format!("time (UTC) ________ {}", blanks.join(" "));
    for (number, step) in plan.steps() {
        let mut block = String::new();
        let _ = writeln!(block, "Step {number}: {step}");
        let Instruction { act, see } = instruction(step, spec);
        paragraph(&mut block, "do", &act);
        paragraph(&mut block, "see", &see);
        if plan.in_block(number) {
            paragraph(
                &mut block,
                "",
                "Secrets are in memory: a crash here voids the wrap key and its shares.",
            );
        }
        paragraph(&mut block, "", &blanks);
        blocks.push(block);
    }
    blocks
}

/// Broken between words, behind its name where it has one.
fn paragraph(out: &mut String, name: &str, text: &str) {
    let mut line = if name.is_empty() {
        "  ".to_owned()
    } else {
        format!("  {name:<5}")
    };
    let indent = line.len();
    for word in text.split_whitespace() {
        if line.len() + 1 + word.len() > WIDTH && line.len() > indent {
            let _ = writeln!(out, "{}", line.trim_end());
            line = " ".repeat(indent);
        }
        line.push_str(word);
        line.push(' ');
    }
    let _ = writeln!(out, "{}", line.trim_end());
}

fn instruction(step: &Step, spec: &Spec) -> Instruction {
    let device = |name: &str| spec.devices().iter().find(|device| device.name == name);
    let key = |label: &str| spec.keys().iter().find(|key| key.label == label);
    let serial = |name: &str| {
        device(name)
            .map_or("", |device| device.serial.as_str())
            .to_owned()
    };
    let wrap = spec.wrap();
    let (act, see) = match step {
        Step::Assemble => (
            "Everyone shows an identity card to everyone. Compare the laptop's clock with a watch, in UTC.".to_owned(),
            "Each person of the list above is there, and nobody else.".to_owned(),
        ),
        Step::ShowSoftware => (
            "Read the digest of the program aloud, word by word.".to_owned(),
            "It is the one that was published, on a printout that was not made on this laptop.".to_owned(),
        ),
        Step::Reset { device } => (
            format!("Plug in device {device} and touch it for ten seconds until it blinks."),
            format!("Serial number {} on the device and on the screen.", serial(device)),
        ),
        Step::Verify { device } => (
            format!("Compare device {device} with this page."),
            format!(
                "Serial number {}; no object but the factory's authentication key; firmware without an advisory for \
                 the keys of this plan.",
                serial(device)
            ),
        ),
        Step::AddAuthenticationKeys { device } => {
            let keys = spec.authentication_keys().iter();
            let keys: Vec<String> = keys.map(|key| format!("{} (id {}, to {})", key.label, key.id, key.purpose)).collect();
            (
                "Those who will use a password type it twice, seen by nobody.".to_owned(),
                format!("Device {device} has: {}.", keys.join("; ")),
            )
        }
        Step::RemoveDefaultKey { device } => (
            "Nothing is to be done.".to_owned(),
            format!("Device {device} refuses authentication key 1."),
        ),
        Step::SetAudit { device } => (
            "Nothing is to be done.".to_owned(),
            format!("Device {device} records every command, and stops when its log is full."),
        ),
        Step::MakeWrapKey => (
            "Throw the dice 100 times, in turn, and type what they show. From here to the wiping of the wrap key nobody \
             leaves the room."
                .to_owned(),
            format!("Generation {}: 256 bits, made of the device's randomness, the system's and the dice.", wrap.generation),
        ),
        Step::PutWrapKey { device } => (
            "Nothing is to be done.".to_owned(),
            format!("Device {device} has the wrap key as object {}.", wrap.id),
        ),
        Step::GenerateKey { key: label, .. } => {
            let described = key(label).map(|key| {
                format!("object {}, {}, capabilities {}, domains {:?}", key.id, key.algorithm, key.capabilities.join(" and "), key.domains)
            });
            (
                "Read the public key aloud, word by word.".to_owned(),
                format!("Key {label}: {}.", described.unwrap_or_default()),
            )
        }
        Step::Attest { key, .. } => (
            "Nothing is to be done.".to_owned(),
            format!("The device's certificate says that key {key} was generated in it."),
        ),
        Step::Export { key, .. } => (
            "Read the digest of the backup aloud.".to_owned(),
            format!("Key {key} was exported, and only as ciphertext."),
        ),
        Step::SplitWrapKey => {
            let groups = wrap.groups.iter();
            let groups: Vec<String> = groups
                .map(|group| format!("{} of {} of {}", group.threshold, group.custodians.len(), group.name))
                .collect();
            (
                "Nothing is to be done.".to_owned(),
                format!("{} of {} groups: {}.", wrap.group_threshold, groups.len(), groups.join("; ")),
            )
        }
        Step::HandOut(share) => (
            format!(
                "{} takes the share{}. Nobody else looks at it.",
                share.custodian,
                bags(spec, &share.custodian)
            ),
            "The commitment on the sheet is the one on the screen.".to_owned(),
        ),
        Step::ReadBack(share) => (
            format!("{} types or scans the share, alone at the screen, and seals the bag.", share.custodian),
            "The share is the one that was split.".to_owned(),
        ),
        Step::Rehearse => (
            "Nothing is to be done.".to_owned(),
            "Every quorum of the shares that were read back gives the wrap key; no smaller one gives anything.".to_owned(),
        ),
        Step::Restore { device } => (
            format!("Unplug the first device. Plug in device {device}."),
            format!("Serial number {}; each backup was imported.", serial(device)),
        ),
        Step::Compare { device } => (
            "Read each public key aloud, word by word.".to_owned(),
            format!("Each key in device {device} is the same as before, and signs."),
        ),
        Step::WipeWrapKey => (
            "Nothing is to be done. From here on people may leave.".to_owned(),
            "The wrap key and the shares are not in the laptop's memory any more.".to_owned(),
        ),
        Step::Close => (
            "Read the transcript's digest aloud. Each role signs the transcript.".to_owned(),
            "The digest is the same on the screen and in each signature's check.".to_owned(),
        ),
    };
    Instruction { act, see }
}

fn bags(spec: &Spec, name: &str) -> String {
    let custodians = spec
        .wrap()
        .groups
        .iter()
        .flat_map(|group| &group.custodians);
    match custodians
        .into_iter()
        .find(|custodian| custodian.name == name)
    {
        Some(custodian) if !custodian.bags.is_empty() => {
            format!(
                ", on paper, and puts it into bag {}",
                custodian.bags.join(", then ")
            )
        }
        _ => " as an encrypted file".to_owned(),
    }
}
