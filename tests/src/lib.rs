//! The harness of the end-to-end tests: it starts the real binaries in a directory of their own, plays
//! their peers, waits for conditions, and verifies what they sign with code that is not hsmd's.
//!
//! | module | role |
//! |---|---|
//! | [`audit`] | what hsmd's journal says, held against the promises |
//! | [`authority`] | a certificate authority and the certificates that tests need, good and bad |
//! | [`binaries`] | where the binaries and the components from outside are |
//! | [`client`] | a gRPC client of hsmd, with any certificate |
//! | [`cometbft`] | networks of real CometBFT nodes, and what they committed |
//! | [`commits`] | what a network committed: signatures, and who was missing |
//! | [`daemon`] | a running hsmd: configuration, commands, kills |
//! | [`etcd`] | a real etcd cluster |
//! | [`fleet`] | several sentries that ask one hsmd with several keys, without an hsm-sentry between |
//! | [`http`] | GET from a loopback server |
//! | [`namespace`] | a network namespace, and a link to it that can be cut |
//! | [`node`] | plays a CometBFT node towards a signer: the privval protocol over UNIX sockets and TCP |
//! | [`pair`] | two hsmd with one key, which share its mark through etcd |
//! | [`officers`] | officers, and what they sign with ssh-keygen |
//! | [`policy`] | an officer without ssh-keygen, for the policies of all tests |
//! | [`process`] | child processes, their logs, and waiting |
//! | [`sentry`] | a running hsm-sentry |
//! | [`sign_bytes`] | canonical sign bytes by tendermint-proto, and the verification of signatures |
//! | [`softhsm`] | SoftHSM tokens |
//! | [`swtpm`] | a software TPM |
//! | [`validator`] | one validator, set up and connected: hsmd on the mock, hsm-sentry, a played node |
//! | [`witness`] | a witness of transparency logs that is not ours |
//!
//! The harness fails by panicking, with a message that says what was expected: its callers are tests.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test harness fails by panicking"
)]

pub mod audit;
pub mod authority;
pub mod binaries;
pub mod client;
pub mod cometbft;
pub mod commits;
pub mod daemon;
pub mod etcd;
pub mod fleet;
pub mod http;
pub mod namespace;
pub mod node;
pub mod officers;
pub mod pair;
pub mod policy;
pub mod process;
pub mod security_key;
pub mod sentry;
pub mod sign_bytes;
pub mod softhsm;
pub mod swtpm;
pub mod validator;
pub mod witness;
