//! The life of a sign request: identity, request, permit, reserve, device, reply.
//!
//! Each stage takes the proof that the one before it made, and no stage's proof can be made elsewhere.
//! Refusals leave through one place, which journals them, counts them and tells the caller.

mod attempt;
mod permit;
mod refusal;
mod request;
mod reserve;
mod sign;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant, SystemTime};

use hsm_policy::grants::{KeyName, Meters};
use hsm_policy::identity::{Caller, Role};
use hsm_proto::v1 as wire;
use hsm_proto::v1::Reason;
use hsm_proto::v1::entry::Event;

pub use permit::Permitted;
pub use refusal::Refusal;
pub use request::{Request, Wire};
pub use reserve::{Outcome, Reserved};
pub use sign::Signed;

use attempt::Attempt;

use crate::guard::{Guard, Refusals};
use crate::in_force::InForce;
use crate::keyring::Keyring;
use crate::ledger::Ledger;
use crate::metrics::{Metrics, Stage};
use crate::transport::Peer;

/// All that a request meets on its way.
pub struct Line {
    in_force: RwLock<Arc<InForce>>,
    /// What each caller asked for lately, where that is limited.
    requests: Mutex<Meters>,
    started: Instant,
    keyring: Keyring,
    guard: Guard,
    ledger: Ledger,
    refusals: Refusals,
    metrics: Metrics,
    deadline: Duration,
    stopping: AtomicBool,
}

impl Line {
    /// A line whose requests are answered within `deadline`.
    #[must_use]
    pub fn new(
        in_force: InForce,
        keyring: Keyring,
        guard: Guard,
        ledger: Ledger,
        metrics: Metrics,
        deadline: Duration,
    ) -> Self {
        Self {
            in_force: RwLock::new(Arc::new(in_force)),
            requests: Mutex::new(Meters::default()),
            started: Instant::now(),
            keyring,
            guard,
            ledger,
            refusals: Refusals::default(),
            metrics,
            deadline,
            stopping: AtomicBool::new(false),
        }
    }

    /// Signs, or says why not, within the line's deadline and the caller's `patience`.
    ///
    /// # Errors
    ///
    /// The refusal, after it was journaled and counted.
    pub async fn sign(
        &self,
        peer: &Peer,
        sent: Wire,
        patience: Option<Duration>,
    ) -> Result<Signed, Refusal> {
        let attempt = Attempt::of(peer, &sent);
        let allowed = patience.map_or(self.deadline, |patience| patience.min(self.deadline));
        let deadline = tokio::time::Instant::now() + allowed;
        let outcome = tokio::time::timeout_at(deadline, self.walk(peer, sent, deadline)).await;
        match outcome.unwrap_or_else(|_| Err(too_late(allowed))) {
            Ok(signed) => {
                self.metrics.signed(
                    &attempt.chain_id,
                    attempt.kind,
                    &attempt.key,
                    attempt.height(),
                );
                Ok(signed)
            }
            Err(refusal) => Err(self.refuse(attempt, refusal)),
        }
    }

    async fn walk(
        &self,
        peer: &Peer,
        sent: Wire,
        deadline: tokio::time::Instant,
    ) -> Result<Signed, Refusal> {
        if self.stopping.load(Ordering::Acquire) {
            let message = "hsmd is stopping; send the request again when it is back";
            return Err(Refusal::new(Reason::ShuttingDown, message));
        }
        let now = SystemTime::now();
        let mut watch = Stopwatch::start(&self.metrics);
        let caller = identify(peer, &[Role::Sentry], now)?;
        watch.end(Stage::Identity);
        let request = Request::new(caller, sent)?;
        watch.end(Stage::Request);
        let mut permitted = self.permit(request, now)?;
        watch.end(Stage::Permit);
        let reserved = loop {
            match self.reserve(permitted, now, deadline).await? {
                Outcome::Reserved(reserved) => break reserved,
                // A new policy was put in force in between: what counts is what that one says.
                Outcome::PolicyChanged(request) => permitted = self.permit(request, now)?,
            }
        };
        watch.end(Stage::Reserve);
        let at_work = self.guard.journal().at_work();
        let signed = sign::sign(reserved, deadline, &self.metrics).await?;
        drop(at_work);
        watch.end(Stage::Device);
        let signed = self.reply(signed);
        watch.end(Stage::Reply);
        Ok(signed)
    }

    fn permit(&self, request: Request, now: SystemTime) -> Result<Permitted<'_>, Refusal> {
        let in_force = self.policy();
        let rules = permit::Rules {
            in_force: &in_force,
            requests: &self.requests,
            keyring: &self.keyring,
            guard: &self.guard,
        };
        permit::permit(rules, request, now, self.started.elapsed())
    }

    async fn reserve<'a>(
        &'a self,
        permitted: Permitted<'a>,
        now: SystemTime,
        deadline: tokio::time::Instant,
    ) -> Result<Outcome<'a>, Refusal> {
        let (guard, ledger) = (&self.guard, &self.ledger);
        reserve::reserve(guard, ledger, permitted, now, deadline, &self.metrics).await
    }

    /// Hands the outcome to the journal without waiting for the disk.
    fn reply(&self, signed: sign::Fresh<'_>) -> Signed {
        if let Err(error) = signed.record(&self.guard, SystemTime::now()) {
            tracing::error!(%error, "a signature left whose outcome the journal does not hold");
        }
        signed.into_answer()
    }

    /// The keys that the caller may use, and for what.
    ///
    /// # Errors
    ///
    /// The refusal, after it was journaled and counted.
    pub fn list_keys(&self, peer: &Peer) -> Result<Vec<wire::KeyGrant>, Refusal> {
        self.granted(peer)
            .map_err(|refusal| self.refuse(Attempt::to_look(peer, ""), refusal))
    }

    fn granted(&self, peer: &Peer) -> Result<Vec<wire::KeyGrant>, Refusal> {
        let caller = identify(peer, &[Role::Sentry], SystemTime::now())?;
        let mut keys = Vec::new();
        for grant in self.policy().policy.grants_of(&caller) {
            if let Some(public_key) = self.guard.pinned(grant.key().as_str())? {
                keys.push(wire::KeyGrant {
                    key: grant.key().to_string(),
                    chain_id: grant.chain_id().to_string(),
                    algorithm: crate::guard::entry::algorithm_to_wire(public_key.algorithm())
                        .into(),
                    public_key: public_key.as_bytes().to_vec(),
                    kinds: grant.kinds().iter().map(|kind| kind.to_string()).collect(),
                    ledger_id: self
                        .guard
                        .inspect(|state| state.ledger_id(&public_key, grant.chain_id()))?,
                });
            }
        }
        Ok(keys)
    }

    /// The pinned public key of a key that the caller may use.
    ///
    /// # Errors
    ///
    /// The refusal, after it was journaled and counted.
    pub fn public_key(
        &self,
        peer: &Peer,
        key: &str,
    ) -> Result<wire::GetPublicKeyResponse, Refusal> {
        self.granted_public_key(peer, key)
            .map_err(|refusal| self.refuse(Attempt::to_look(peer, key), refusal))
    }

    fn granted_public_key(
        &self,
        peer: &Peer,
        key: &str,
    ) -> Result<wire::GetPublicKeyResponse, Refusal> {
        let caller = identify(peer, &[Role::Sentry], SystemTime::now())?;
        let name = KeyName::new(key)
            .map_err(|error| Refusal::new(Reason::KeyNotGranted, error.to_string()))?;
        let in_force = self.policy();
        let mut grants = in_force.policy.grants_with(&caller, &name)?;
        let public_key = self.guard.pinned(key)?.ok_or_else(|| {
            let chain = grants.next().map(|grant| grant.chain_id().to_string());
            crate::guard::Error::NotInitialised {
                key: key.to_owned(),
                chain: chain.unwrap_or_default(),
            }
        })?;
        Ok(wire::GetPublicKeyResponse {
            algorithm: crate::guard::entry::algorithm_to_wire(public_key.algorithm()).into(),
            public_key: public_key.as_bytes().to_vec(),
            spki_der: public_key.spki_der()?,
            spki_pem: public_key.spki_pem()?,
        })
    }

    /// The one way out for a refusal: journaled, counted, logged.
    fn refuse(&self, attempt: Attempt, refusal: Refusal) -> Refusal {
        let in_force = self.policy();
        let chain = in_force.chains.get(&attempt.chain_id);
        let chain = chain.map_or("", String::as_str);
        self.metrics.refused(chain, attempt.kind, refusal.reason);
        let refused = wire::Refused {
            caller: attempt.caller.clone(),
            reason: refusal.reason.name().to_owned(),
            message: refusal.message.clone(),
            key: attempt.key.clone(),
            chain_id: attempt.chain_id.clone(),
            position: attempt.position,
            sign_bytes: refusal.sign_bytes.clone(),
            count: 1,
        };
        let granted = attempt.is_granted(&in_force);
        if let Some(first) = self.refusals.take(refused, granted, Instant::now()) {
            self.record_refusal(first);
        }
        tracing::warn!(
            caller = attempt.caller,
            key = attempt.key,
            chain = attempt.chain_id,
            kind = attempt.kind,
            height = attempt.height(),
            reason = refusal.reason.name(),
            "refused: {}",
            refusal.message
        );
        refusal
    }

    /// That a caller's certificate is valid at this moment, and of one of these roles.
    ///
    /// # Errors
    ///
    /// The refusal, after it was journaled and counted.
    pub(crate) fn admit(&self, peer: &Peer, roles: &[Role]) -> Result<(), Refusal> {
        identify(peer, roles, SystemTime::now())
            .map(drop)
            .map_err(|refusal| self.refuse(Attempt::to_look(peer, ""), refusal))
    }

    /// From now on, nothing more is signed.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
    }

    /// How long an answer may take.
    #[must_use]
    pub fn deadline(&self) -> Duration {
        self.deadline
    }

    /// Writes the counts of refusals whose window has ended; with `all`, of every window.
    pub fn record_repeated_refusals(&self, all: bool) {
        for refused in self.refusals.due(Instant::now(), all) {
            self.record_refusal(refused);
        }
    }

    fn record_refusal(&self, refused: wire::Refused) {
        if let Err(error) = self
            .guard
            .record(Event::Refused(refused), SystemTime::now())
        {
            tracing::error!(%error, "a refusal is missing from the journal");
        }
    }

    /// What the sentry's calls, the administration and the metrics look at.
    #[must_use]
    pub fn guard(&self) -> &Guard {
        &self.guard
    }

    /// The ledgers through which marks are shared.
    #[must_use]
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// The keys and devices.
    #[must_use]
    pub fn keyring(&self) -> &Keyring {
        &self.keyring
    }

    /// Who may have what signed, at this moment.
    #[must_use]
    pub fn policy(&self) -> Arc<InForce> {
        let in_force = self.in_force.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&in_force)
    }

    /// Puts another policy in force. The guard's state has to say that it counts, under the lock that is held.
    pub(crate) fn put_in_force(&self, policy: InForce) {
        let mut in_force = self
            .in_force
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        *in_force = Arc::new(policy);
    }

    /// The metrics.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }
}

/// The first stage: the caller is the certificate's one URI SAN, its role may make this call, and the
/// certificate is valid at this moment.
fn identify(peer: &Peer, roles: &[Role], now: SystemTime) -> Result<Caller, Refusal> {
    let caller = peer.caller_at(now)?;
    if !roles.contains(&caller.role()) {
        let names: Vec<&str> = roles.iter().map(|role| role.name()).collect();
        return Err(Refusal::new(
            Reason::WrongRole,
            format!(
                "{caller} has role {}: this call is for role {}",
                caller.role(),
                names.join(" or ")
            ),
        ));
    }
    Ok(caller.clone())
}

fn too_late(allowed: Duration) -> Refusal {
    Refusal::new(
        Reason::DeadlineExceeded,
        format!(
            "no answer within {} ms; what was reserved stays reserved, and the same request may be \
             sent again",
            allowed.as_millis()
        ),
    )
}

/// Measures the stages one after the other.
struct Stopwatch<'a> {
    metrics: &'a Metrics,
    since: Instant,
}

impl<'a> Stopwatch<'a> {
    fn start(metrics: &'a Metrics) -> Self {
        let since = Instant::now();
        Self { metrics, since }
    }

    fn end(&mut self, stage: Stage) {
        let now = Instant::now();
        self.metrics.stage(stage, now.duration_since(self.since));
        self.since = now;
    }
}
