//! One node's requests, one after the other, as the node sends them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use cometbft_p2p::IdentitySecret;
use hsm_proto::privval::message::Sum;
use hsm_proto::privval::{Message, Proposal, Vote};
use hsm_proto::v1::{GetPublicKeyRequest, GetPublicKeyResponse, Reason};
use tokio::sync::watch;
use tokio::time::sleep;

use crate::backoff::Backoff;
use crate::config;
use crate::failover::Signers;
use crate::metrics::ChainMetrics;
use crate::node::{Error, Node};
use crate::pin::Pin;
use crate::privval::{self, Kind};
use crate::refusal::Refusal;

/// A chain's node, its key at hsmd, and what is known of that key.
pub(crate) struct Chain {
    config: config::Chain,
    signers: Signers,
    pin: Arc<Pin>,
    metrics: ChainMetrics,
    /// Without a pinned ledger: the key that hsmd showed first, and the connection on which it was last seen to be the same.
    known: Option<(Arc<GetPublicKeyResponse>, u64)>,
}

impl Chain {
    pub(crate) fn new(
        config: config::Chain,
        signers: Signers,
        pin: Arc<Pin>,
        metrics: ChainMetrics,
    ) -> Self {
        Self {
            config,
            signers,
            pin,
            metrics,
            known: None,
        }
    }

    /// Serves the node until `stop` is true, and dials it anew whenever the connection is lost. A request
    /// that was read is answered before this ends.
    pub(crate) async fn run(mut self, identity: IdentitySecret, mut stop: watch::Receiver<bool>) {
        let mut backoff = Backoff::new();
        let mut told = String::new();
        while !*stop.borrow() {
            let dialled = tokio::select! {
                dialled = Node::dial(&self.config.node, &identity) => dialled,
                _ = stop.changed() => break,
            };
            let ended = match dialled {
                Ok(node) => {
                    tracing::info!(chain = self.config.chain_id, node = %self.config.node, "connected to the node");
                    told.clear();
                    self.metrics.node_connected(true);
                    let (ended, answered) = self.serve(node, &mut stop).await;
                    self.metrics.node_connected(false);
                    if answered {
                        backoff = Backoff::new();
                    }
                    ended
                }
                Err(error) => Err(error),
            };
            self.tell(ended, &mut told);
            tokio::select! {
                () = sleep(backoff.next()) => {}
                _ = stop.changed() => break,
            }
        }
    }

    /// Logs why the connection ended, once for the same cause.
    fn tell(&self, ended: Result<(), Error>, told: &mut String) {
        let why = match ended {
            Ok(()) => "the node closed the connection".to_owned(),
            Err(error) => error.to_string(),
        };
        if why != *told {
            tracing::warn!(chain = self.config.chain_id, node = %self.config.node, why, "no connection to the node; dialling");
            *told = why;
        }
    }

    /// Answers until the connection ends or `stop` is true. Also tells whether anything was answered.
    async fn serve(
        &mut self,
        mut node: Node,
        stop: &mut watch::Receiver<bool>,
    ) -> (Result<(), Error>, bool) {
        let mut answered = false;
        loop {
            let request = tokio::select! {
                biased;
                _ = stop.changed() => return (Ok(()), answered),
                request = node.read() => request,
            };
            let request = match request {
                Ok(Some(request)) => request,
                Ok(None) => return (Ok(()), answered),
                Err(error) => return (Err(error), answered),
            };
            let answer = self.answer(request).await;
            if let Err(error) = node.write(answer).await {
                return (Err(error), answered);
            }
            answered = true;
        }
    }

    /// The answer to any message, for there always is one: a signature, a refusal in a form that the node
    /// decodes, or an empty message.
    async fn answer(&mut self, request: Message) -> Message {
        let begun = Instant::now();
        let kind = Kind::of(&request);
        let answer = match request.sum {
            Some(Sum::PingRequest(_)) => Ok(privval::pong()),
            Some(Sum::PubKeyRequest(request)) => self.public_key(&request.chain_id).await,
            Some(Sum::SignVoteRequest(request)) => {
                let skip = request.skip_extension_signing;
                self.vote(&request.chain_id, request.vote, skip).await
            }
            Some(Sum::SignProposalRequest(request)) => {
                self.proposal(&request.chain_id, request.proposal).await
            }
            Some(Sum::SignBytesRequest(_)) => Err(Refusal::new(
                Reason::KindNotGranted,
                "bytes of the node's making are never signed: they could be a vote",
            )),
            _ => Err(Refusal::new(
                Reason::KindNotGranted,
                "no request that hsm-sentry knows",
            )),
        };
        let result = answer.as_ref().map_or_else(|r| r.reason.name(), |_| "ok");
        self.metrics.answered(kind, result, begun.elapsed());
        answer.unwrap_or_else(|refusal| {
            tracing::warn!(chain = self.config.chain_id, kind = kind.name(), %refusal, "refused");
            kind.refused(&refusal)
        })
    }

    async fn public_key(&mut self, chain_id: &str) -> Result<Message, Refusal> {
        self.own(chain_id)?;
        let key = match self.config.ledger_id {
            Some(_) => self.pinned_key().await?,
            None => self.lone_key().await?,
        };
        let response = privval::public_key(self.config.line, &key)?;
        Ok(privval::wrap(Sum::PubKeyResponse(response)))
    }

    /// The key that every signer shows, or is not used.
    async fn pinned_key(&self) -> Result<Arc<GetPublicKeyResponse>, Refusal> {
        // A node may start while all signers are away.
        if self.pin.shown().is_none() {
            self.signers.usable(self.config.deadline).await?;
        }
        self.pin
            .shown()
            .cloned()
            .ok_or_else(|| Refusal::new(Reason::Internal, "a signer is used that showed no key"))
    }

    async fn lone_key(&mut self) -> Result<Arc<GetPublicKeyResponse>, Refusal> {
        match (&self.known, self.signers.connection()) {
            (Some((key, seen)), Some(connection)) if *seen == connection => Ok(Arc::clone(key)),
            // A node may start while hsmd is away.
            (Some((key, _)), None) => Ok(Arc::clone(key)),
            _ => self.look_up(self.config.deadline).await,
        }
    }

    async fn vote(
        &mut self,
        chain_id: &str,
        vote: Option<Vote>,
        skip: bool,
    ) -> Result<Message, Refusal> {
        self.own(chain_id)?;
        let vote = present(vote)?;
        let extension = privval::extension(self.config.line, &vote, skip)?;
        let begun = Instant::now();
        let (key, chain) = (&self.config.key, &self.config.chain_id);
        let ledger = self.config.ledger_id.as_deref().unwrap_or_default();
        let answer = self
            .signers
            .ask(
                self.config.deadline,
                || privval::vote_request(key, chain, ledger, &vote, extension),
                |mut client, request| async move { client.sign_cometbft_vote(request).await },
            )
            .await?;
        let signed = &answer.message;
        privval::complete(
            &signed.signature,
            &signed.extension_signature,
            extension.is_some(),
            signed.timestamp.as_ref(),
        )?;
        self.same_key(answer.connection, begun).await?;
        Ok(privval::signed_vote(vote, answer.message))
    }

    async fn proposal(
        &mut self,
        chain_id: &str,
        proposal: Option<Proposal>,
    ) -> Result<Message, Refusal> {
        self.own(chain_id)?;
        let proposal = present(proposal)?;
        let (key, chain) = (&self.config.key, &self.config.chain_id);
        let ledger = self.config.ledger_id.as_deref().unwrap_or_default();
        let message = privval::proposal_request(key, chain, ledger, &proposal)?;
        let begun = Instant::now();
        let answer = self
            .signers
            .ask(
                self.config.deadline,
                || message.clone(),
                |mut client, request| async move { client.sign_cometbft_proposal(request).await },
            )
            .await?;
        let signed = &answer.message;
        privval::complete(&signed.signature, &[], false, signed.timestamp.as_ref())?;
        self.same_key(answer.connection, begun).await?;
        Ok(privval::signed_proposal(proposal, answer.message))
    }

    /// The node's chain is the configured one.
    fn own(&self, chain_id: &str) -> Result<(), Refusal> {
        if chain_id == self.config.chain_id {
            return Ok(());
        }
        Err(Refusal::new(
            Reason::InvalidField,
            format!(
                "the node asks for chain {chain_id:?}, but hsm-sentry is configured for {:?} here",
                self.config.chain_id
            ),
        ))
    }

    /// No signature that came over `connection` reaches the node before hsmd showed, on that connection or a
    /// later one, the key that it showed first. Where a ledger is pinned, that was seen before it was asked.
    async fn same_key(&mut self, connection: u64, begun: Instant) -> Result<(), Refusal> {
        if self.config.ledger_id.is_some() {
            return Ok(());
        }
        if self
            .known
            .as_ref()
            .is_some_and(|(_, seen)| *seen >= connection)
        {
            return Ok(());
        }
        let rest = self.config.deadline.saturating_sub(begun.elapsed());
        self.look_up(rest).await.map(drop)
    }

    /// Asks hsmd for the key, and refuses one that differs from the first.
    async fn look_up(&mut self, deadline: Duration) -> Result<Arc<GetPublicKeyResponse>, Refusal> {
        let key = &self.config.key;
        let answer = self
            .signers
            .ask(
                deadline,
                || GetPublicKeyRequest { key: key.clone() },
                |mut client, request| async move { client.get_public_key(request).await },
            )
            .await?;
        let first = match &self.known {
            None => Arc::new(answer.message),
            Some((first, _)) if same(first, &answer.message) => Arc::clone(first),
            Some(_) => {
                tracing::error!(
                    chain = self.config.chain_id,
                    key,
                    "hsmd shows another public key than before; nothing is signed until it shows the first \
                     one again, or until hsm-sentry is restarted"
                );
                return Err(Refusal::new(
                    Reason::PublicKeyMismatch,
                    format!("hsmd shows another public key for {key:?} than it did at first"),
                ));
            }
        };
        self.known = Some((Arc::clone(&first), answer.connection));
        Ok(first)
    }
}

fn same(one: &GetPublicKeyResponse, other: &GetPublicKeyResponse) -> bool {
    one.algorithm == other.algorithm && one.public_key == other.public_key
}

fn present<T>(message: Option<T>) -> Result<T, Refusal> {
    message.ok_or_else(|| {
        Refusal::new(
            Reason::InvalidField,
            "the request holds nothing that could be signed",
        )
    })
}
