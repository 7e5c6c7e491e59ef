//! The policy that officers signed, and what is held against it under the guard's lock.

use std::time::{Duration, SystemTime};

use hsm_policy::cometbft::Message;
use hsm_policy::grants::{self, Allowance, Denial, Policy, Subject};
use hsm_policy::officers::Officers;
use hsm_proto::v1 as wire;
use hsm_proto::v1::entry::Event;
use sha2::{Digest as _, Sha256};

use super::state::{PolicyMark, policy_to_wire};
use super::{ChainMark, Error, Guard, Signed, entry};

/// On what terms the policy permits what is asked for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Terms<'a> {
    /// The version of the policy that permits it; 0 for one that was not loaded.
    pub version: u64,
    /// Where the policy limits by how many heights the caller raises the mark.
    pub heights: Option<(&'a Subject, Allowance)>,
    /// The time since a moment that stays the same.
    pub elapsed: Duration,
}

/// What a policy is loaded under.
struct Fixed {
    officers: Officers,
    deployment_id: Vec<u8>,
    loaded: u64,
    /// Documents that expired before are refused, whatever the clock says.
    now: i64,
}

impl Guard {
    /// Puts a policy in force that enough officers signed. `keep` makes its document durable, or says why it is not
    /// taken; `put` puts it in force, in the moment from which on no other is judged by. Durable on return; tells who
    /// signed.
    ///
    /// # Errors
    ///
    /// [`Error::NoOfficers`], [`Error::Policy`], [`Error::Statement`], [`Error::Journal`]. After the last one the new
    /// policy may be in force, here and after a restart.
    pub async fn load_policy(
        &self,
        signed: &Signed,
        keep: impl FnOnce(&Policy, &PolicyMark) -> Result<(), String>,
        put: impl FnOnce(Policy, &PolicyMark),
        now: SystemTime,
    ) -> Result<(PolicyMark, Vec<String>), Error> {
        let fixed = self.fixed(now)?;
        let context = grants::Context {
            deployment_id: &fixed.deployment_id,
            now: fixed.now,
            loaded: fixed.loaded,
        };
        let loaded = grants::authorise(
            &fixed.officers,
            &signed.document,
            &signed.signatures,
            &context,
        )?;
        let mark = PolicyMark {
            version: loaded.header().version(),
            sha256: Sha256::digest(&signed.document).into(),
            expires: loaded.header().expires_unix(),
        };
        keep(loaded.policy(), &mark).map_err(Error::Statement)?;
        let signers = loaded.signers().to_vec();
        let event = Event::PolicyLoaded(wire::PolicyLoaded {
            policy: Some(policy_to_wire(&mark)),
            officers: signers.clone(),
            signatures: signed.signatures.clone(),
        });
        let entry = {
            let mut state = self.lock()?;
            // The signatures were checked without the lock, so that nobody waited for it.
            if state.officers() != Some(&fixed.officers) || state.policy_version() != fixed.loaded {
                return Err(Error::Statement(
                    "officers or policy changed in the meantime: load it again".to_owned(),
                ));
            }
            let entry = self.append(&mut state, now, event)?;
            put(loaded.into_policy(), &mark);
            entry
        };
        self.settle(entry).await?;
        Ok((mark, signers))
    }

    fn fixed(&self, now: SystemTime) -> Result<Fixed, Error> {
        let state = self.lock()?;
        let none = || Error::NoOfficers { kind: grants::KIND };
        Ok(Fixed {
            officers: state.officers().ok_or_else(none)?.clone(),
            deployment_id: state.deployment_id().to_vec(),
            loaded: state.policy_version(),
            now: state.not_before(entry::wall_clock(now).seconds),
        })
    }

    /// Whether the mark may rise by so many heights.
    pub(super) fn may_rise(&self, terms: &Terms<'_>, heights: u64) -> Result<(), Error> {
        let Some((subject, allowance)) = terms.heights.filter(|_| heights > 0) else {
            return Ok(());
        };
        let meters = self.meters()?;
        match meters.admits(subject, allowance, heights, terms.elapsed) {
            true => Ok(()),
            false => Err(Error::Denied(Denial::HeightRate {
                heights,
                rate: allowance.rate(),
            })),
        }
    }

    /// Counts that it did.
    pub(super) fn rises(&self, terms: &Terms<'_>, heights: u64) -> Result<(), Error> {
        if let Some((subject, allowance)) = terms.heights.filter(|_| heights > 0) {
            let mut meters = self.meters()?;
            meters.count(subject, allowance, heights, terms.elapsed);
        }
        Ok(())
    }
}

/// By how many heights the message raises the mark. What a floor counts as signed is no rise; the row of a ledger is
/// judged by others, too, who know no floor.
pub(super) fn rise(known: &ChainMark, message: &Message) -> u64 {
    let floor = match known.ledger {
        None => known.bounds.floor,
        Some(_) => 0,
    };
    let height = message.position().height.get();
    let from = known.mark.height().max(floor);
    height.saturating_sub(from).max(0).unsigned_abs()
}
