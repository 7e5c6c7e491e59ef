//! What `hsm-sentry check` finds when it asks every signer of the configuration.

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::future::join_all;

use crate::config::{Config, SignerAddress};
use crate::link;
use crate::pin::{Listing, Pin};
use crate::tls::Identity;

/// Whether a signer would be asked for a chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It would.
    Usable,
    /// It answers, and would not be used: why.
    NotUsed(String),
    /// It does not answer at present: why.
    Unreached(String),
}

/// Connects once to every signer, within 2 s, and asks what it grants: a standing for each signer of each chain, in
/// the configuration's order. Nothing is signed.
pub async fn survey(config: &Config, identity: &Identity) -> Vec<Vec<Standing>> {
    let mut asked: HashMap<&SignerAddress, Result<Listing, String>> = HashMap::new();
    for address in config.chains.iter().flat_map(|chain| &chain.signers) {
        asked.insert(address, Err(String::new()));
    }
    join_all(asked.iter_mut().map(async |(address, answer)| {
        *answer = link::list_once(address, Arc::clone(&identity.client)).await;
    }))
    .await;
    let chains = config.chains.iter().map(|chain| {
        let pin = Pin::new(chain);
        let signers = chain.signers.iter();
        signers
            .map(|address| match asked.get(address) {
                Some(Ok(Err(refusal))) => Standing::NotUsed(refusal.to_string()),
                Some(Ok(listing)) => match pin.judge(listing) {
                    Ok(()) => Standing::Usable,
                    Err(why) => Standing::NotUsed(why),
                },
                Some(Err(why)) => Standing::Unreached(why.clone()),
                None => Standing::Unreached("it was not asked".to_owned()),
            })
            .collect()
    });
    chains.collect()
}
