//! The officers and the nonces of what they signed, as the journal yields them.

use std::collections::BTreeMap;
use std::time::SystemTime;

use hsm_policy::officers::{Authorised, Context, Nonce, Officer, Officers, Statement};
use hsm_proto::v1 as wire;

use super::State;
use crate::guard::{Error, entry};

/// Who decides what no single person may, and what they decided already.
#[derive(Clone, Debug, Default)]
pub(super) struct Authority {
    pub(super) officers: Option<Officers>,
    /// Nonces that were used, and when their documents expire.
    pub(super) used: BTreeMap<Nonce, i64>,
    /// Documents that expired up to here are not accepted, whatever the clock says: their nonces are
    /// forgotten. Seconds since 1970.
    pub(super) forgotten_until: i64,
}

/// A document and the signatures that came with it.
#[derive(Clone, Debug, Default)]
pub struct Signed {
    /// TOML, byte for byte.
    pub document: Vec<u8>,
    /// Armored.
    pub signatures: Vec<String>,
}

impl State {
    /// The officers, where the deployment has any.
    #[must_use]
    pub fn officers(&self) -> Option<&Officers> {
        self.authority.officers.as_ref()
    }

    /// The moment that documents are judged at: never one whose nonces are forgotten.
    #[must_use]
    pub fn not_before(&self, now: i64) -> i64 {
        now.max(self.authority.forgotten_until)
    }

    /// Takes in a document that officers signed. What it allows is recorded together with the
    /// authorisation, in one event, under the lock under which this is asked: a nonce counts once.
    ///
    /// # Errors
    ///
    /// [`Error::NoOfficers`], [`Error::Officers`].
    pub fn authorise<S: Statement + Clone>(
        &self,
        signed: &Signed,
        now: SystemTime,
    ) -> Result<(S, wire::Authorisation), Error> {
        let officers = self.officers().ok_or(Error::NoOfficers { kind: S::KIND })?;
        let now = entry::wall_clock(now).seconds;
        let context = Context {
            deployment_id: &self.deployment_id,
            now: self.not_before(now),
            used: &self.authority.used,
        };
        let authorised: Authorised<S> =
            officers.authorise(&signed.document, &signed.signatures, &context)?;
        let authorisation = wire::Authorisation {
            kind: S::KIND.to_owned(),
            nonce: authorised.nonce().0.to_vec(),
            expires: Some(moment(authorised.expires())),
            officers: authorised.signers().to_vec(),
            document: signed.document.clone(),
            signatures: signed.signatures.clone(),
        };
        Ok((authorised.statement().clone(), authorisation))
    }

    /// What an event's authorisation uses up. Only a nonce that was not used before passes.
    pub(super) fn plan_authorisation(
        &self,
        authorisation: Option<&wire::Authorisation>,
    ) -> Result<(Nonce, i64), String> {
        let authorisation =
            authorisation.ok_or("an event that needs officers has no authorisation")?;
        if self.authority.officers.is_none() {
            return Err("an authorisation, and no officers".to_owned());
        }
        let (nonce, expires) = used_nonce(&authorisation.nonce, authorisation.expires)?;
        if self.authority.used.contains_key(&nonce) {
            return Err(format!("nonce {nonce} used twice"));
        }
        Ok((nonce, expires))
    }

    pub(super) fn commit_authorisation(&mut self, now: i64, (nonce, expires): (Nonce, i64)) {
        let authority = &mut self.authority;
        authority.forgotten_until = authority.forgotten_until.max(now);
        let until = authority.forgotten_until;
        authority.used.retain(|_, expires| *expires > until);
        authority.used.insert(nonce, expires);
    }

    pub(super) fn plan_officers(
        &self,
        set: wire::OfficersSet,
    ) -> Result<(Officers, Option<(Nonce, i64)>), String> {
        let officers = officers_from_wire(&set.officers.unwrap_or_default())?;
        if set.authorisation.is_none() && self.is_new() {
            return Ok((officers, None));
        }
        let used = self.plan_authorisation(set.authorisation.as_ref())?;
        Ok((officers, Some(used)))
    }

    /// Whether there are neither officers nor keys yet.
    fn is_new(&self) -> bool {
        self.authority.officers.is_none() && self.keys.is_empty()
    }
}

impl Authority {
    pub(super) fn restore(snapshot: &wire::Snapshot) -> Result<Self, String> {
        let officers = snapshot.officers.as_ref().map(officers_from_wire);
        let used = snapshot.used_nonces.iter();
        let used = used.map(|used| used_nonce(&used.nonce, used.expires));
        Ok(Self {
            officers: officers.transpose()?,
            used: used.collect::<Result<_, _>>()?,
            forgotten_until: snapshot.nonces_forgotten_until,
        })
    }

    pub(super) fn save(&self, snapshot: &mut wire::Snapshot) {
        snapshot.officers = self.officers.as_ref().map(officers_to_wire);
        let used = self.used.iter().map(|(nonce, expires)| wire::UsedNonce {
            nonce: nonce.0.to_vec(),
            expires: Some(moment(*expires)),
        });
        snapshot.used_nonces = used.collect();
        snapshot.nonces_forgotten_until = self.forgotten_until;
    }
}

/// Officers to the wire.
#[must_use]
pub fn officers_to_wire(officers: &Officers) -> wire::Officers {
    wire::Officers {
        threshold: u32::try_from(officers.threshold()).unwrap_or(u32::MAX),
        members: officers.members().iter().map(Officer::to_string).collect(),
    }
}

fn officers_from_wire(officers: &wire::Officers) -> Result<Officers, String> {
    let threshold = usize::try_from(officers.threshold).unwrap_or(usize::MAX);
    let members = officers.members.iter().map(|line| Officer::parse(line));
    let members: Result<Vec<_>, _> = members.collect();
    members
        .and_then(|members| Officers::new(members, threshold))
        .map_err(|error| error.to_string())
}

fn used_nonce(
    nonce: &[u8],
    expires: Option<prost_types::Timestamp>,
) -> Result<(Nonce, i64), String> {
    let length = nonce.len();
    let nonce = nonce
        .try_into()
        .map_err(|_| format!("a nonce of {length} bytes"))?;
    Ok((Nonce(nonce), expires.unwrap_or_default().seconds))
}

fn moment(seconds: i64) -> prost_types::Timestamp {
    prost_types::Timestamp { seconds, nanos: 0 }
}
