//! One validator, set up and connected: hsmd on the mock, an hsm-sentry, and a node that the test plays.

use ed25519_dalek::VerifyingKey;
use hsm_device::Algorithm;
use hsm_proto::v1::Reason;
use tendermint_proto::v0_38::privval::PingRequest;
use tendermint_proto::v0_38::privval::message::Sum;

use crate::authority::uri;
use crate::daemon::{ALL_KINDS, Daemon, grant};
use crate::node::{Address, Connection, Error, Node};
use crate::process::{Scratch, free_port};
use crate::sentry::{Chain, Sentry};

/// The chain that the validator signs for.
pub const CHAIN: &str = "test-chain";
/// The key's name.
pub const KEY: &str = "val0";
/// The sentry's name.
pub const SENTRY: &str = "s0";

/// What lies between the node and its sentry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// A UNIX socket.
    Unix,
    /// TCP with SecretConnection.
    Tcp,
}

/// How the set-up differs from a good one.
pub struct Setup<'a> {
    /// The transport.
    pub transport: Transport,
    /// What the key is.
    pub algorithm: Algorithm,
    /// What the policy grants.
    pub kinds: &'a [&'a str],
    /// For which chain.
    pub granted_chain: &'a str,
    /// To which sentry.
    pub granted_sentry: &'a str,
    /// Under which name the sentry asks for its key.
    pub asked_key: &'a str,
    /// The height given to `hsmd key init`; without one the key is not made known.
    pub initial_height: Option<i64>,
}

impl Setup<'_> {
    /// A good one.
    #[must_use]
    pub fn new(transport: Transport) -> Self {
        Self {
            transport,
            algorithm: Algorithm::Ed25519,
            kinds: &ALL_KINDS,
            granted_chain: CHAIN,
            granted_sentry: SENTRY,
            asked_key: KEY,
            initial_height: Some(0),
        }
    }
}

/// Everything is stopped, and its directory removed, when this is dropped: in this order.
pub struct Validator {
    /// The connection from the sentry.
    pub connection: Connection,
    /// Where the sentry connects again.
    pub node: Node,
    /// The sentry.
    pub sentry: Sentry,
    /// hsmd.
    pub daemon: Daemon,
    scratch: Scratch,
}

impl Validator {
    /// Starts a good one.
    #[must_use]
    pub fn start(transport: Transport) -> Self {
        Self::start_with(&Setup::new(transport))
    }

    /// Starts one.
    ///
    /// # Panics
    ///
    /// If the sentry does not connect.
    #[must_use]
    pub fn start_with(setup: &Setup<'_>) -> Self {
        let scratch = Scratch::new();
        let directory = scratch.path();
        let policy = grant(
            &uri("sentry", setup.granted_sentry),
            KEY,
            setup.granted_chain,
            setup.kinds,
        );
        let mut daemon = Daemon::set_up_mock(directory, &[KEY], setup.algorithm, &policy);
        if let Some(height) = setup.initial_height {
            daemon.init_key(KEY, CHAIN, height);
        }
        daemon.start();
        let address = match setup.transport {
            Transport::Unix => Address::Unix(directory.join("privval.sock")),
            Transport::Tcp => Address::Tcp(free_port()),
        };
        let node = Node::listen(address).expect("the node listens");
        let chain = Chain {
            chain_id: CHAIN,
            cometbft: "0.38",
            node: node.address(),
            key: setup.asked_key,
            signer: daemon.port(),
        };
        let authority = daemon.authority();
        let identity = authority.sentry(SENTRY);
        let mut sentry = Sentry::new(
            directory,
            SENTRY,
            &identity,
            &authority.certificate(),
            &[chain],
        );
        sentry.start();
        let connection = node.accept().expect("the sentry connects");
        Self {
            connection,
            node,
            sentry,
            daemon,
            scratch,
        }
    }

    /// The directory of all files.
    #[must_use]
    pub fn directory(&self) -> &std::path::Path {
        self.scratch.path()
    }

    /// The public key that the node is shown.
    #[must_use]
    pub fn public_key(&mut self) -> VerifyingKey {
        let bytes = self.connection.public_key(CHAIN).expect("a public key");
        VerifyingKey::from_bytes(bytes.as_slice().try_into().expect("32 bytes"))
            .expect("an Ed25519 key")
    }

    /// Checks that a request is refused with this reason, that the refusal changed no mark, and that the
    /// connection stays up. Returns the refusal's text.
    ///
    /// # Panics
    ///
    /// If it is not so.
    #[track_caller]
    pub fn assert_refused<T: std::fmt::Debug>(
        &mut self,
        reason: Reason,
        request: impl FnOnce(&mut Connection) -> Result<T, Error>,
    ) -> String {
        let before = self.daemon.state();
        let text = match request(&mut self.connection) {
            Err(Error::Refused(refusal)) => {
                assert_eq!(refusal.code, i32::from(reason), "{}", refusal.description);
                refusal.description
            }
            other => panic!("expected {}, got {other:?}", reason.name()),
        };
        assert!(
            text.starts_with(reason.name()),
            "{text:?} does not name {}",
            reason.name()
        );
        assert_eq!(self.daemon.state(), before, "a refusal changed the state");
        let pong = self
            .connection
            .ask(Sum::PingRequest(PingRequest {}))
            .expect("the connection stays up");
        assert!(matches!(pong, Sum::PingResponse(_)), "{pong:?}");
        text
    }
}
