//! Logs as a device would keep them, signatures asked for or not.

use hsm_device::{Asked, AuditLog};
use sha2::{Digest as _, Sha256};

use super::*;

const SIGN: u8 = 0x6a;
const DELETE: u8 = 0x58;
const KEY: u16 = 7;
const CALLS: u64 = 15;

/// A device's log, and what was asked of the device.
#[derive(Default)]
struct Device {
    number: u16,
    digest: [u8; 16],
    log: AuditLog,
    asked: Asked,
}

impl Device {
    /// After this many entries that were freed.
    fn after(number: u16) -> Self {
        Self {
            number,
            ..Self::default()
        }
    }

    fn record(&mut self, command: u8, target: u16) {
        self.number = self.number.wrapping_add(1);
        let mut bytes = [0; 16];
        bytes[..2].copy_from_slice(&self.number.to_be_bytes());
        bytes[2] = command;
        bytes[7..9].copy_from_slice(&target.to_be_bytes());
        bytes[11] = command | 0x80;
        let full = Sha256::new().chain_update(bytes).chain_update(self.digest);
        self.digest = *full.finalize().first_chunk().unwrap();
        let digest = self.digest;
        self.log.entries.push(AuditEntry { bytes, digest });
    }

    fn sign(&mut self, count: u64) {
        for _ in 0..count {
            self.record(SIGN, KEY);
        }
    }

    fn answer(&mut self, count: u64) {
        *self.asked.answered.entry(KEY).or_default() += count;
    }

    fn reading(&self) -> AuditReading {
        AuditReading {
            log: self.log.clone(),
            asked: self.asked.clone(),
        }
    }

    fn free(&mut self) {
        self.log.entries.clear();
    }
}

/// A ledger that has made its first checkpoint.
fn begun(device: &mut Device) -> Ledger {
    device.record(0, 0);
    let mut ledger = Ledger::new(None, 0, false, CALLS, 0);
    assert_eq!(ledger.read(&device.reading()).unknown(), 0);
    assert!(ledger.checkpoint("hsm", 1).is_some_and(|made| made.first));
    ledger.saved();
    device.free();
    ledger
}

#[test]
fn signatures_that_were_asked_for_are_known_and_one_more_is_an_alarm() {
    let mut device = Device::default();
    let mut ledger = begun(&mut device);
    device.sign(5);
    device.answer(5);
    let found = ledger.read(&device.reading());
    assert_eq!((found.unknown(), found.missing, found.broken), (0, 0, 0));
    device.sign(1);
    assert_eq!(ledger.read(&device.reading()).unknown(), 1);
    assert_eq!(ledger.read(&device.reading()), Counts::default());
    device.record(SIGN, KEY + 1);
    assert_eq!(ledger.read(&device.reading()).unknown(), 1, "another key");
    let made = ledger.checkpoint("hsm", 7).unwrap();
    let unknown: u64 = made.signatures.iter().map(|made| made.unknown).sum();
    assert_eq!((made.entries, unknown), (7, 2));
}

#[test]
fn a_call_without_an_answer_accounts_for_one_signature_now_or_later() {
    let mut device = Device::default();
    let mut ledger = begun(&mut device);
    device.asked.failed.insert(1, KEY);
    device.asked.in_flight.insert(2, KEY);
    assert_eq!(ledger.read(&device.reading()).unknown(), 0);
    device.sign(3);
    assert_eq!(ledger.read(&device.reading()).unknown(), 1);
    device.sign(1);
    assert_eq!(ledger.read(&device.reading()).unknown(), 1, "used up");
}

#[test]
fn a_signature_that_was_answered_long_ago_does_not_hide_one_that_was_not_asked_for() {
    let mut device = Device::default();
    let mut ledger = begun(&mut device);
    // The device did not record these.
    device.answer(10);
    assert_eq!(ledger.read(&device.reading()).unknown(), 0);
    device.sign(1);
    assert_eq!(ledger.read(&device.reading()).unknown(), 1);
}

#[test]
fn entries_that_are_missing_changed_or_unreadable_are_alarms() {
    let mut device = Device::default();
    let mut ledger = begun(&mut device);
    device.record(1, 0);
    device.record(1, 0);
    device.log.entries.remove(0);
    device.record(1, 0);
    let found = ledger.read(&device.reading());
    assert_eq!((found.missing, found.broken), (1, 0));

    device.record(1, 0);
    device.log.entries.last_mut().unwrap().bytes[15] ^= 1;
    assert_eq!(ledger.read(&device.reading()).broken, 1);

    device.log.unreadable = 2;
    let found = ledger.read(&device.reading());
    assert_eq!(found.unreadable, 2);
    let made = ledger.checkpoint("hsm", 5).unwrap();
    assert_eq!(made.last_number, u32::from(device.number) + 2);
    assert!(made.last_digest.is_empty());
    ledger.saved();
    let mut later = Device::after(device.number + 2);
    later.record(1, 0);
    let found = ledger.read(&later.reading());
    assert_eq!((found.missing, found.broken, found.unreadable), (0, 0, 0));

    let mut reset = Device::default();
    reset.record(0xff, 0xffff);
    let found = ledger.read(&reset.reading());
    assert_eq!(
        (found.missing, found.broken, found.administrative),
        (0, 1, 1)
    );
}

#[test]
fn numbers_go_on_after_the_last_one() {
    let mut device = Device::after(u16::MAX - 3);
    let mut ledger = begun(&mut device);
    device.sign(6);
    device.answer(6);
    let found = ledger.read(&device.reading());
    assert_eq!((found.unknown(), found.missing, found.broken), (0, 0, 0));
    assert_eq!(ledger.checkpoint("hsm", 6).unwrap().last_number, 3);
}

#[test]
fn administration_by_somebody_else_is_counted_and_housekeeping_is_not_worth_a_checkpoint() {
    let mut device = Device::default();
    let mut ledger = begun(&mut device);
    device.record(1, 0);
    ledger.read(&device.reading());
    assert_eq!(ledger.checkpoint("hsm", 1), None);
    assert!(ledger.checkpoint("hsm", MANY_ENTRIES).is_some());
    assert_eq!(ledger.free_up_to(&device.log.entries), None);
    device.record(DELETE, KEY);
    assert_eq!(ledger.read(&device.reading()).administrative, 1);
    assert!(ledger.checkpoint("hsm", 2).is_some());
    ledger.saved();
    let number = Some(device.number);
    assert_eq!(ledger.free_up_to(&device.log.entries), number);
    assert_eq!(ledger.checkpoint("hsm", MANY_ENTRIES), None);
}

#[test]
fn after_a_clean_stop_nothing_is_tolerated_and_after_a_kill_what_the_journal_allows_once() {
    for (asked, stopped, made, unknown) in [
        (10, true, 1, 1),
        (10, true, 0, 0),
        (10, false, CALLS + 1, 0),
        (10, false, CALLS + 2, 1),
        (13, false, 6 + CALLS + 1, 0),
        (13, false, 6 + CALLS + 2, 1),
        (13, true, 6 + CALLS + 1, 0),
    ] {
        let mut device = Device::default();
        device.record(1, 0);
        let mark = AuditMark {
            number: device.number,
            digest: Some(device.digest),
            asked: 10,
            unknown_signatures: 0,
        };
        device.free();
        device.sign(made);
        let mut ledger = Ledger::new(Some(&mark), asked, stopped, CALLS, 0);
        let found = ledger.read(&device.reading());
        assert_eq!(found.unknown(), unknown, "{asked} {stopped} {made}");
        device.sign(1);
        assert_eq!(ledger.read(&device.reading()).unknown(), 1, "only once");
    }
}
