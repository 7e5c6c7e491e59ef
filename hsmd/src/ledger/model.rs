//! The ledger's protocol as a model: every order of the steps of two or three signers that want different blocks,
//! with crashes, and with an etcd that is restored from a backup. What decides in it is what decides in hsmd:
//! `conflict::judge`, `Binding::judge`, `Binding::reconciled` and the rows; etcd is one compare-and-swap. Promise 2.

use std::hash::{Hash, Hasher};

use hsm_policy::cometbft::{BlockId, ChainId, Height, Message, Round, Timestamp, Vote, VoteType};
use hsm_policy::conflict::{self, Mark, Verdict};
use stateright::{Checker as _, Model, Property};

use crate::guard::ledger::{Binding, Doubt, Id, Row, Seen};

/// What is tried.
#[derive(Clone, Copy)]
struct Protocol {
    signers: u8,
    heights: i64,
    /// How often, in all, a signer may crash.
    crashes: u8,
    restore: Restore,
    /// Whether the row is compared in one step and written in another: the mistake that the ledger must not make.
    is_split: bool,
}

/// When etcd may be restored from a backup.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Restore {
    Never,
    /// When every signer has followed the row. They look at it once a second, and a restore takes longer.
    Followed,
    /// Also when a signer has not seen what another did since the backup.
    Anytime,
}

/// What a signer is about to do.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Task {
    Idle,
    /// It wants this height, and has its row or not.
    Asked(i64),
    /// Only where the protocol is split: the row was compared, and is to be written.
    Compared(i64),
    /// The row holds the message, which is to be reserved in the journal.
    Cleared(i64),
    /// The journal holds the message, which is to be signed.
    Reserved(i64),
}

#[derive(Clone, Debug, PartialEq)]
struct Signer {
    // In its journal.
    mark: Mark,
    binding: Binding,
    // In its memory.
    row: Option<Row>,
    revision: u64,
    task: Task,
}

#[derive(Clone, Debug, PartialEq)]
struct World {
    row: Row,
    revision: u64,
    backup: Option<(Row, u64)>,
    /// How many messages had been signed when it was restored.
    restored: Option<usize>,
    crashes: u8,
    signers: Vec<Signer>,
    /// The sign bytes that left.
    signed: Vec<Vec<u8>>,
}

#[derive(Clone, Debug, PartialEq)]
enum Action {
    Ask(usize, i64),
    Step(usize),
    Follow(usize),
    Crash(usize),
    BackUp,
    Restore {
        is_bumped: bool,
    },
    Reconcile(usize),
    /// The row is merged, and the journal does not hold that yet.
    ReconcileAndCrash(usize),
}

fn id(signer: usize) -> Id {
    Id::new(&[signer as u8; 16]).unwrap()
}

/// Each signer wants a block of its own.
fn message(signer: usize, height: i64) -> Message {
    let block = [signer as u8 + 1; 32];
    let vote = Vote::new(
        ChainId::new("model").unwrap(),
        VoteType::Precommit,
        Height::new(height).unwrap(),
        Round::new(0).unwrap(),
        Some(BlockId::new(&block, 1, &block).unwrap()),
        Timestamp::new(1, 0).unwrap(),
        None,
    );
    Message::Vote(vote.unwrap())
}

impl World {
    fn seen(&self) -> Seen {
        Seen {
            cluster_id: 1,
            revision: self.revision,
            row: Some(self.row.clone()),
        }
    }

    fn write(&mut self, row: Row) {
        self.row = row;
        self.revision += 1;
    }

    /// As `take` in `ledger/mod.rs`. Whether the row may be trusted.
    fn take(&mut self, signer: usize) -> bool {
        let seen = self.seen();
        let it = &mut self.signers[signer];
        it.row = None;
        if it.binding.distrusted.is_some() {
            return false;
        }
        match it.binding.judge(&it.mark, it.revision, &seen) {
            Ok(row) => {
                it.mark = row.mark.clone();
                it.revision = seen.revision;
                it.row = Some(row);
                true
            }
            Err(doubt) => {
                if matches!(doubt, Doubt::WentBack(_)) {
                    it.binding.distrusted = Some("went back".to_owned());
                }
                false
            }
        }
    }

    fn is_followed(&self) -> bool {
        let mut signers = self.signers.iter();
        signers.all(|it| it.mark == self.row.mark && it.task == Task::Idle)
    }

    fn step(&mut self, signer: usize, is_split: bool) {
        let next = match self.signers[signer].task.clone() {
            Task::Idle => Task::Idle,
            Task::Asked(height) => self.ask_row(signer, height, is_split),
            Task::Compared(height) => {
                let row = self.row.with_message(&message(signer, height));
                self.write(row);
                self.signers[signer].row = Some(self.row.clone());
                Task::Cleared(height)
            }
            Task::Cleared(height) => {
                let asked = message(signer, height);
                let it = &mut self.signers[signer];
                match conflict::judge(&it.mark, &asked, 1000) {
                    Ok(Verdict::Sign) => {
                        it.mark = row_of(&it.mark, it).with_message(&asked).mark;
                        it.binding.revision = it.binding.revision.max(it.revision);
                        Task::Reserved(height)
                    }
                    Ok(_) => Task::Reserved(height),
                    Err(_) => Task::Idle,
                }
            }
            Task::Reserved(height) => {
                let bytes = message(signer, height).sign_bytes();
                if !self.signed.contains(&bytes) {
                    self.signed.push(bytes);
                    self.signed.sort();
                }
                Task::Idle
            }
        };
        self.signers[signer].task = next;
    }

    /// As `Ledger::clear`.
    fn ask_row(&mut self, signer: usize, height: i64, is_split: bool) -> Task {
        let asked = message(signer, height);
        let it = &self.signers[signer];
        let Some(row) = it.row.clone() else {
            return if self.take(signer) {
                Task::Asked(height)
            } else {
                Task::Idle
            };
        };
        match conflict::judge(&it.mark, &asked, 1000) {
            Err(_) => return Task::Idle,
            Ok(Verdict::Sign) => {}
            // What is signed again is read again first.
            Ok(_) => {
                let trusted = self.take(signer);
                let judged = conflict::judge(&self.signers[signer].mark, &asked, 1000);
                return match (trusted, judged) {
                    (true, Ok(Verdict::Repeat)) => Task::Cleared(height),
                    _ => Task::Idle,
                };
            }
        }
        if row != self.row {
            return if self.take(signer) {
                Task::Asked(height)
            } else {
                Task::Idle
            };
        }
        if is_split {
            return Task::Compared(height);
        }
        self.write(row.with_message(&asked));
        let seen = self.seen();
        let it = &mut self.signers[signer];
        match it.binding.judge(&it.mark, it.revision, &seen) {
            Ok(row) => {
                it.row = Some(row);
                it.revision = seen.revision;
                Task::Cleared(height)
            }
            Err(_) => {
                it.row = None;
                it.binding.distrusted = Some("went back".to_owned());
                Task::Idle
            }
        }
    }

    fn reconcile(&mut self, signer: usize) -> bool {
        let seen = self.seen();
        let it = &mut self.signers[signer];
        if it.task != Task::Idle {
            return false;
        }
        let judged = it.binding.judge(&it.mark, it.revision, &seen);
        if it.binding.distrusted.is_none() && matches!(judged, Ok(_) | Err(Doubt::Awaited { .. })) {
            return false;
        }
        let merged = it
            .binding
            .reconciled(&it.mark, id(signer), seen.row.as_ref());
        self.write(merged.unwrap());
        true
    }

    fn journal_reconciled(&mut self, signer: usize) {
        let (row, revision) = (self.row.clone(), self.revision);
        let it = &mut self.signers[signer];
        it.mark = row.mark.clone();
        it.binding = Binding {
            revision,
            generation: row.generation,
            members: row.members,
            lost: row.lost,
            frozen: row.frozen,
            distrusted: None,
            ..it.binding.clone()
        };
        it.row = None;
        it.revision = revision;
    }

    fn crash(&mut self, signer: usize) {
        let it = &mut self.signers[signer];
        it.row = None;
        it.revision = 0;
        it.task = Task::Idle;
    }
}

fn row_of(mark: &Mark, signer: &Signer) -> Row {
    Row {
        ledger_id: signer.binding.ledger_id,
        generation: signer.binding.generation,
        members: signer.binding.members.clone(),
        awaited: [].into(),
        lost: [].into(),
        frozen: None,
        mark: mark.clone(),
    }
}

/// Everything that decides; the reason of a distrust does not.
impl Hash for World {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (
            self.row.encode(),
            self.revision,
            self.restored,
            self.crashes,
        )
            .hash(state);
        let backup = self.backup.as_ref();
        backup
            .map(|(row, revision)| (row.encode(), revision))
            .hash(state);
        for it in &self.signers {
            row_of(&it.mark, it).encode().hash(state);
            it.row.as_ref().map(Row::encode).hash(state);
            (it.revision, it.binding.revision).hash(state);
            (it.binding.distrusted.is_some(), &it.task).hash(state);
        }
        self.signed.hash(state);
    }
}

impl Model for Protocol {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        let members = (0..usize::from(self.signers)).map(id).collect();
        let row = Row {
            ledger_id: id(99),
            generation: 1,
            members,
            awaited: [].into(),
            lost: [].into(),
            frozen: None,
            mark: Mark {
                initial_height: 0,
                last: None,
            },
        };
        let signer = Signer {
            mark: row.mark.clone(),
            binding: Binding {
                ledger_id: row.ledger_id,
                cluster_id: 1,
                revision: 1,
                generation: 1,
                members: row.members.clone(),
                lost: [].into(),
                frozen: None,
                bound_at: 0,
                distrusted: None,
            },
            row: None,
            revision: 1,
            task: Task::Idle,
        };
        vec![World {
            row,
            revision: 1,
            backup: None,
            restored: None,
            crashes: self.crashes,
            signers: vec![signer; usize::from(self.signers)],
            signed: Vec::new(),
        }]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        for (signer, it) in world.signers.iter().enumerate() {
            if it.task == Task::Idle {
                // The next height, and the last again.
                let from = it.mark.height().max(1);
                let to = (it.mark.height() + 1).min(self.heights);
                actions.extend((from..=to).map(|height| Action::Ask(signer, height)));
                if self.restore != Restore::Never {
                    actions.push(Action::Follow(signer));
                    actions.push(Action::Reconcile(signer));
                }
            } else {
                actions.push(Action::Step(signer));
            }
            if world.crashes > 0 {
                actions.push(Action::Crash(signer));
                if self.restore != Restore::Never {
                    actions.push(Action::ReconcileAndCrash(signer));
                }
            }
        }
        if self.restore != Restore::Never {
            if world.backup.is_none() {
                actions.push(Action::BackUp);
            } else if world.restored.is_none()
                && (self.restore == Restore::Anytime || world.is_followed())
            {
                actions.push(Action::Restore { is_bumped: false });
                actions.push(Action::Restore { is_bumped: true });
            }
        }
    }

    fn next_state(&self, world: &World, action: Action) -> Option<World> {
        let mut next = world.clone();
        match action {
            Action::Ask(signer, height) => next.signers[signer].task = Task::Asked(height),
            Action::Step(signer) => next.step(signer, self.is_split),
            Action::Follow(signer) => {
                next.take(signer);
            }
            Action::Crash(signer) => {
                next.crashes -= 1;
                next.crash(signer);
            }
            Action::BackUp => next.backup = Some((next.row.clone(), next.revision)),
            Action::Restore { is_bumped } => {
                let (row, revision) = next.backup.clone()?;
                next.row = row;
                next.revision = if is_bumped {
                    next.revision + 1
                } else {
                    revision
                };
                next.restored = Some(next.signed.len());
            }
            Action::Reconcile(signer) => {
                if !next.reconcile(signer) {
                    return None;
                }
                next.journal_reconciled(signer);
            }
            Action::ReconcileAndCrash(signer) => {
                if !next.reconcile(signer) {
                    return None;
                }
                next.crashes -= 1;
                next.crash(signer);
            }
        }
        (next != *world).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("one message a position", |_, world: &World| {
                let heights: Vec<i64> = (0..world.signers.len())
                    .flat_map(|signer| (1..=9).map(move |height| (signer, height)))
                    .filter(|(signer, height)| {
                        world
                            .signed
                            .contains(&message(*signer, *height).sign_bytes())
                    })
                    .map(|(_, height)| height)
                    .collect();
                let different: std::collections::BTreeSet<&i64> = heights.iter().collect();
                different.len() == heights.len()
            }),
            Property::sometimes("all heights are signed", |model: &Self, world: &World| {
                world.signed.len() as i64 == model.heights
            }),
            Property::sometimes("signed after a restore", |model: &Self, world: &World| {
                model.restore == Restore::Never
                    || world
                        .restored
                        .is_some_and(|before| world.signed.len() > before)
            }),
        ]
    }
}

const TWO: Protocol = Protocol {
    signers: 2,
    heights: 3,
    crashes: 2,
    restore: Restore::Never,
    is_split: false,
};

fn states(protocol: Protocol) -> usize {
    let checked = protocol.checker().threads(2).spawn_bfs().join();
    checked.assert_properties();
    checked.unique_state_count()
}

fn finds_two_messages(protocol: Protocol) -> bool {
    let checked = protocol.checker().threads(2).spawn_bfs().join();
    checked.discovery("one message a position").is_some()
}

#[test]
fn two_or_three_signers_that_crash_anywhere_sign_one_message_a_position() {
    let three = Protocol {
        signers: 3,
        heights: 2,
        crashes: 1,
        ..TWO
    };
    println!("states: {}, {}", states(TWO), states(three));
}

#[test]
fn a_ledger_restored_from_a_backup_lets_no_position_be_signed_twice() {
    let restored = Protocol {
        heights: 2,
        crashes: 1,
        restore: Restore::Followed,
        ..TWO
    };
    println!("states: {}", states(restored));
}

#[test]
fn the_model_finds_two_messages_where_check_and_update_are_split() {
    let split = Protocol {
        heights: 1,
        crashes: 0,
        is_split: true,
        ..TWO
    };
    assert!(finds_two_messages(split));
}

/// What SECURITY.md admits: a signer that was away for all that the backup lacks cannot tell, and the operator must
/// reconcile first.
#[test]
fn the_model_finds_what_a_restore_hides_from_a_signer_that_saw_nothing_of_it() {
    let unseen = Protocol {
        heights: 2,
        crashes: 0,
        restore: Restore::Anytime,
        ..TWO
    };
    assert!(finds_two_messages(unseen));
}
