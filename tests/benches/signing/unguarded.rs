//! What hsmd's gRPC server does with its guard switched off: the same transport, identity, policy, device thread and
//! verification, and nothing is reserved or journaled. It exists only here, to be compared with.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use hsm_device::{KeyLocator, PublicKey, Worker};
use hsm_policy::cometbft::{BlockId, ChainId, Height, Message, Round, Timestamp, Vote, VoteType};
use hsm_policy::grants::{KeyName, Policy};
use hsm_proto::v1 as wire;
use hsm_proto::v1::signer_server::{Signer, SignerServer};
use hsmd::config::Config;
use hsmd::daemon;
use hsmd::devices;
use hsmd::guard::entry::{timestamp_to_wire, wall_clock};
use hsmd::in_force::InForce;
use hsmd::keyring::Device;
use hsmd::metrics::{self, Metrics};
use hsmd::transport::{Certificates, Listener, Peer};
use tokio::net::TcpListener;
use tokio::time::Instant;
use tonic::transport::Server;
use tonic::{Request, Response, Status};

/// As hsmd's own.
const MAX_REQUESTS: u32 = 256;
const PATIENCE: Duration = Duration::from_secs(3);

/// The policy that a daemon would put in force.
fn loaded_policy(config: &Config) -> Policy {
    let guard = daemon::open_guard(config).expect("the journal opens");
    let in_force = guard.inspect(|state| InForce::loaded(&config.state_dir, state.policy()));
    guard.close().expect("the journal closes");
    in_force.expect("a guard").expect("a good policy").policy
}

/// Serves until killed.
pub(crate) async fn serve(config: &Config, device: Device) {
    let policy = loaded_policy(config);
    let certificates = Certificates::load(&config.listen).expect("good certificates");
    let metrics = Metrics::new(false, certificates.expires());
    let listener = Listener::bind(config.listen.address, certificates, &metrics).await;
    let listener = listener.expect("the port");
    let worker = device.worker.clone();
    let keyring = devices::keyring(config, vec![device]).expect("the advisories");
    let mut keys = HashMap::new();
    for key in keyring.iter() {
        let shown = key.read_public_key(Instant::now() + PATIENCE).await;
        let locator = Arc::new(key.locator().clone());
        keys.insert(
            key.name().to_owned(),
            (locator, shown.expect("a public key")),
        );
    }
    let signer = Unguarded {
        policy,
        keys,
        worker,
    };
    let scraped = TcpListener::bind(config.metrics.expect("a port for metrics")).await;
    tokio::spawn(metrics::serve(
        scraped.expect("the port"),
        metrics,
        std::future::pending(),
    ));
    Server::builder()
        .max_concurrent_streams(MAX_REQUESTS)
        .timeout(PATIENCE)
        .add_service(SignerServer::new(signer))
        .serve_with_incoming(listener.incoming())
        .await
        .expect("the server serves");
}

struct Unguarded {
    policy: Policy,
    keys: HashMap<String, (Arc<KeyLocator>, PublicKey)>,
    worker: Worker,
}

impl Unguarded {
    async fn sign(
        &self,
        request: Request<wire::SignCometbftVoteRequest>,
    ) -> Result<wire::SignCometbftVoteResponse, String> {
        let now = SystemTime::now();
        let peer = request.extensions().get::<Peer>().ok_or("no peer")?;
        let caller = peer.caller_at(now).map_err(text)?.clone();
        let asked = request.into_inner();
        let key = KeyName::new(&asked.key).map_err(text)?;
        let message = message(&asked)?;
        let now = wall_clock(now);
        let now = Timestamp::new(now.seconds, now.nanos).map_err(text)?;
        let _permit = self
            .policy
            .permit(&caller, &key, &message, now)
            .map_err(text)?;
        let (locator, public_key) = self.keys.get(&asked.key).ok_or("no such key")?;
        let bytes = message.sign_bytes();
        let deadline = Instant::now() + PATIENCE;
        let signed = self
            .worker
            .sign(locator.clone(), bytes.as_slice(), deadline)
            .await;
        let signature = signed.map_err(text)?;
        public_key.verify(&bytes, &signature).map_err(text)?;
        Ok(wire::SignCometbftVoteResponse {
            signature: signature.0.to_vec(),
            extension_signature: Vec::new(),
            timestamp: Some(timestamp_to_wire(message.timestamp())),
        })
    }
}

fn message(asked: &wire::SignCometbftVoteRequest) -> Result<Message, String> {
    let kind = match asked.r#type() {
        wire::VoteType::Prevote => VoteType::Prevote,
        _ => VoteType::Precommit,
    };
    let block = asked.block_id.as_ref().ok_or("no block")?;
    let timestamp = asked.timestamp.as_ref().ok_or("no timestamp")?;
    let vote = Vote::new(
        ChainId::new(&asked.chain_id).map_err(text)?,
        kind,
        Height::new(asked.height).map_err(text)?,
        Round::new(asked.round).map_err(text)?,
        Some(BlockId::new(&block.hash, block.part_set_total, &block.part_set_hash).map_err(text)?),
        Timestamp::new(timestamp.seconds, timestamp.nanos).map_err(text)?,
        None,
    );
    vote.map(Message::Vote).map_err(text)
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

#[tonic::async_trait]
impl Signer for Unguarded {
    async fn sign_cometbft_vote(
        &self,
        request: Request<wire::SignCometbftVoteRequest>,
    ) -> Result<Response<wire::SignCometbftVoteResponse>, Status> {
        self.sign(request)
            .await
            .map(Response::new)
            .map_err(Status::internal)
    }

    async fn sign_cometbft_proposal(
        &self,
        _: Request<wire::SignCometbftProposalRequest>,
    ) -> Result<Response<wire::SignCometbftProposalResponse>, Status> {
        Err(Status::unimplemented("only votes are compared"))
    }

    async fn list_keys(
        &self,
        _: Request<wire::ListKeysRequest>,
    ) -> Result<Response<wire::ListKeysResponse>, Status> {
        Err(Status::unimplemented("only votes are compared"))
    }

    async fn get_public_key(
        &self,
        _: Request<wire::GetPublicKeyRequest>,
    ) -> Result<Response<wire::GetPublicKeyResponse>, Status> {
        Err(Status::unimplemented("only votes are compared"))
    }
}
