//! Which signers a chain may use: where a ledger is pinned, those alone that share the key's marks through it.

use std::sync::{Arc, OnceLock};

use hsm_proto::v1::{GetPublicKeyResponse, KeyGrant};

use crate::config;
use crate::metrics::SignerMetrics;
use crate::refusal::Refusal;

/// What hsmd said when it was asked for the keys that it grants us.
pub(crate) type Listing = Result<Arc<[KeyGrant]>, Refusal>;

/// What a chain demands of each of its signers.
pub(crate) struct Pin {
    chain_id: String,
    key: String,
    ledger_id: Option<String>,
    /// As the first signer showed it that may be used; it stays until the sentry ends.
    shown: OnceLock<Arc<GetPublicKeyResponse>>,
}

impl Pin {
    pub(crate) fn new(chain: &config::Chain) -> Self {
        Self {
            chain_id: chain.chain_id.clone(),
            key: chain.key.clone(),
            ledger_id: chain.ledger_id.clone(),
            shown: OnceLock::new(),
        }
    }

    /// The chain's public key, once a signer that may be used has shown it. None where no ledger is pinned.
    pub(crate) fn shown(&self) -> Option<&Arc<GetPublicKeyResponse>> {
        self.shown.get()
    }

    /// Whether a signer that listed this may be used. Without a pinned ledger any may.
    ///
    /// # Errors
    ///
    /// Why not, for people.
    pub(crate) fn judge(&self, listing: &Listing) -> Result<(), String> {
        let Some(pinned) = &self.ledger_id else {
            return Ok(());
        };
        let keys = listing
            .as_ref()
            .map_err(|refusal| format!("it does not list its keys: {refusal}"))?;
        let mut listed = false;
        for grant in keys.iter() {
            if grant.key == self.key && grant.chain_id == self.chain_id {
                self.judge_grant(pinned, grant)?;
                listed = true;
            }
        }
        if listed {
            return Ok(());
        }
        Err(format!(
            "it lists no key {:?} for {:?}",
            self.key, self.chain_id
        ))
    }

    fn judge_grant(&self, pinned: &str, grant: &KeyGrant) -> Result<(), String> {
        let reported = grant.ledger_id.as_str();
        if reported != pinned {
            return Err(match reported {
                "" => {
                    format!("it shares the key's marks through no ledger, and not through {pinned}")
                }
                _ if is_ledger_id(reported) => {
                    format!("it shares the key's marks through ledger {reported}, not {pinned}")
                }
                _ => format!("it reports what is no ledger id, and not {pinned}"),
            });
        }
        let first = self.shown.get_or_init(|| {
            Arc::new(GetPublicKeyResponse {
                algorithm: grant.algorithm,
                public_key: grant.public_key.clone(),
                ..GetPublicKeyResponse::default()
            })
        });
        if first.algorithm == grant.algorithm && first.public_key == grant.public_key {
            return Ok(());
        }
        Err("it shows another public key than the first signer did: one of them holds the wrong key; if that \
             was the first, restart hsm-sentry once it is mended"
            .to_owned())
    }
}

/// 32 lower-case hexadecimal digits.
pub(crate) fn is_ledger_id(id: &str) -> bool {
    id.len() == 32 && id.bytes().all(|it| matches!(it, b'0'..=b'9' | b'a'..=b'f'))
}

/// The pins that one hsmd is held against, one for each chain that names it.
pub(crate) struct Pins {
    signer: String,
    pins: Vec<Held>,
}

struct Held {
    pin: Arc<Pin>,
    metrics: SignerMetrics,
    /// What people were told last.
    said: Option<Result<(), String>>,
}

impl Pins {
    pub(crate) fn new(signer: &str) -> Self {
        Self {
            signer: signer.to_owned(),
            pins: Vec::new(),
        }
    }

    pub(crate) fn add(&mut self, pin: Arc<Pin>, metrics: SignerMetrics) {
        self.pins.push(Held {
            pin,
            metrics,
            said: None,
        });
    }

    /// Whether any chain pins a ledger, so that the listing matters.
    pub(crate) fn any(&self) -> bool {
        self.pins.iter().any(|held| held.pin.ledger_id.is_some())
    }

    /// Says in log and metrics which chains may use the signer that listed this; in the log, what changed.
    pub(crate) fn judge(&mut self, listing: &Listing) {
        for held in &mut self.pins {
            let verdict = held.pin.judge(listing);
            held.metrics.usable.set(verdict.is_ok().into());
            let chain = &held.pin.chain_id;
            if held.said.as_ref() == Some(&verdict) || held.pin.ledger_id.is_none() {
                continue;
            }
            match &verdict {
                Ok(()) => tracing::info!(
                    chain,
                    signer = self.signer,
                    "the signer reports the pinned ledger and may be used"
                ),
                Err(why) => {
                    tracing::error!(chain, signer = self.signer, why, "the signer is not used");
                }
            }
            held.said = Some(verdict);
        }
    }

    /// The signer is not connected.
    pub(crate) fn lost(&self) {
        for held in &self.pins {
            held.metrics.usable.set(0);
        }
    }
}
