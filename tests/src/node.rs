//! Plays a CometBFT node towards a signer: listens where the node would, and speaks the privval protocol
//! over UNIX sockets, and over TCP inside a SecretConnection (CometBFT `privval/`, `p2p/conn`).

use std::fmt;
use std::io::{self, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::time::Duration;

use cometbft_p2p::{IdentitySecret, ReadMsg, SecretConnection, WriteMsg};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use prost::bytes::{Buf, BufMut};
use tendermint_proto::google::protobuf::Timestamp;
use tendermint_proto::v0_38::crypto::public_key;
use tendermint_proto::v0_38::privval::message::Sum;
use tendermint_proto::v0_38::privval::{
    Message, PubKeyRequest, RemoteSignerError, SignProposalRequest, SignVoteRequest,
};
use tendermint_proto::v0_38::types::{BlockId, PartSetHeader, Proposal, SignedMsgType, Vote};

/// How long a node waits for its signer to connect or to answer before the test fails.
const PATIENCE: Duration = Duration::from_secs(15);
/// What a node reads from its signer at most (CometBFT `privval/signer_endpoint.go`), bytes.
const MAX_RESPONSE: usize = 10 * 1024;

/// Where a node listens for its signer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A UNIX socket.
    Unix(PathBuf),
    /// A TCP port on 127.0.0.1.
    Tcp(u16),
}

impl fmt::Display for Address {
    /// As in CometBFT's `priv_validator_laddr` and in hsm-sentry's `node`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Tcp(port) => write!(f, "tcp://127.0.0.1:{port}"),
        }
    }
}

/// Why there is no answer.
#[derive(Debug)]
pub enum Error {
    /// The signer answered with a RemoteSignerError.
    Refused(RemoteSignerError),
    /// The connection is broken, or what came over it is.
    Broken(io::Error),
}

impl Error {
    /// The text of the refusal.
    ///
    /// # Panics
    ///
    /// If it is none.
    #[must_use]
    #[track_caller]
    pub fn refusal(&self) -> &str {
        match self {
            Self::Refused(error) => &error.description,
            Self::Broken(error) => {
                panic!("expected a RemoteSignerError, but the connection broke: {error}")
            }
        }
    }
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        Self::Broken(error)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(error) => {
                write!(f, "refused: {} (code {})", error.description, error.code)
            }
            Self::Broken(error) => write!(f, "connection broken: {error}"),
        }
    }
}

impl std::error::Error for Error {}

enum Listener {
    Unix(UnixListener),
    Tcp(TcpListener),
}

/// A node's listener.
pub struct Node {
    listener: Listener,
    address: Address,
}

impl Node {
    /// Listens. A socket file that is in the way is replaced.
    pub fn listen(address: Address) -> io::Result<Self> {
        let listener = match &address {
            Address::Unix(path) => {
                if path.exists() {
                    std::fs::remove_file(path)?;
                }
                Listener::Unix(UnixListener::bind(path)?)
            }
            Address::Tcp(port) => Listener::Tcp(TcpListener::bind(("127.0.0.1", *port))?),
        };
        Ok(Self { listener, address })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Waits for the signer to connect, and shakes hands with it.
    pub fn accept(&self) -> io::Result<Connection> {
        match &self.listener {
            Listener::Unix(listener) => {
                await_readable(listener.as_fd())?;
                let stream = listener.accept()?.0;
                stream.set_read_timeout(Some(PATIENCE))?;
                Ok(Connection::Unix(BufReader::new(stream)))
            }
            Listener::Tcp(listener) => {
                await_readable(listener.as_fd())?;
                let stream = listener.accept()?.0;
                stream.set_read_timeout(Some(PATIENCE))?;
                stream.set_nodelay(true)?;
                // Like CometBFT's, the key stands for nothing: the node makes a new one at each start.
                let key = IdentitySecret::from_bytes(&[7; 32]);
                let connection = SecretConnection::new(stream, &key).map_err(io::Error::other)?;
                Ok(Connection::Tcp(Box::new(connection)))
            }
        }
    }
}

fn await_readable(listener: BorrowedFd<'_>) -> io::Result<()> {
    let timeout = PollTimeout::try_from(PATIENCE).map_err(io::Error::other)?;
    let ready = poll(&mut [PollFd::new(listener, PollFlags::POLLIN)], timeout)?;
    if ready == 0 {
        return Err(io::Error::new(
            io::ErrorKind::TimedOut,
            "no signer connected",
        ));
    }
    Ok(())
}

/// A connection from the signer.
pub enum Connection {
    /// Plain, over a UNIX socket.
    Unix(BufReader<UnixStream>),
    /// Encrypted, over TCP.
    Tcp(Box<SecretConnection<TcpStream>>),
}

impl Connection {
    /// The public key that the signer holds for a chain: Ed25519 or secp256k1, raw.
    pub fn public_key(&mut self, chain_id: &str) -> Result<Vec<u8>, Error> {
        match self.ask(Sum::PubKeyRequest(PubKeyRequest {
            chain_id: chain_id.to_owned(),
        }))? {
            Sum::PubKeyResponse(answer) => {
                refused(answer.error)?;
                match answer.pub_key.and_then(|key| key.sum) {
                    Some(public_key::Sum::Ed25519(bytes) | public_key::Sum::Secp256k1(bytes)) => {
                        Ok(bytes)
                    }
                    None => Err(unexpected("an answer without a public key")),
                }
            }
            other => Err(unexpected(&format!("{other:?}"))),
        }
    }

    /// Has a vote signed: it comes back with signature, extension signature, and the timestamp signed.
    pub fn sign_vote(&mut self, chain_id: &str, vote: &Vote) -> Result<Vote, Error> {
        let request = SignVoteRequest {
            vote: Some(vote.clone()),
            chain_id: chain_id.to_owned(),
        };
        match self.ask(Sum::SignVoteRequest(request))? {
            Sum::SignedVoteResponse(answer) => {
                refused(answer.error)?;
                answer
                    .vote
                    .ok_or_else(|| unexpected("an answer without a vote"))
            }
            other => Err(unexpected(&format!("{other:?}"))),
        }
    }

    /// Has a proposal signed.
    pub fn sign_proposal(
        &mut self,
        chain_id: &str,
        proposal: &Proposal,
    ) -> Result<Proposal, Error> {
        let request = SignProposalRequest {
            proposal: Some(proposal.clone()),
            chain_id: chain_id.to_owned(),
        };
        match self.ask(Sum::SignProposalRequest(request))? {
            Sum::SignedProposalResponse(answer) => {
                refused(answer.error)?;
                answer
                    .proposal
                    .ok_or_else(|| unexpected("an answer without a proposal"))
            }
            other => Err(unexpected(&format!("{other:?}"))),
        }
    }

    /// Sends any message and reads the answer.
    pub fn ask(&mut self, request: Sum) -> Result<Sum, Error> {
        self.send(&Message { sum: Some(request) })?;
        self.receive()
    }

    /// Sends any protobuf message as a frame.
    pub fn send(&mut self, message: &impl prost::Message) -> io::Result<()> {
        match self {
            Self::Unix(stream) => stream
                .get_mut()
                .write_all(&message.encode_length_delimited_to_vec()),
            Self::Tcp(connection) => connection.write_msg(message).map_err(io::Error::other),
        }
    }

    /// Sends a frame whose length prefix says `length`, whatever follows it.
    pub fn send_frame(&mut self, length: usize, bytes: &[u8]) -> io::Result<()> {
        self.send(&Frame {
            length,
            bytes: bytes.to_vec(),
        })
    }

    /// Reads one answer.
    pub fn receive(&mut self) -> Result<Sum, Error> {
        let message: Message = self.receive_as()?;
        message.sum.ok_or_else(|| unexpected("an empty message"))
    }

    /// Reads one answer as a message of any type.
    pub fn receive_as<M: prost::Message + Default>(&mut self) -> io::Result<M> {
        match self {
            Self::Unix(stream) => read_frame(stream),
            Self::Tcp(connection) => connection.read_msg().map_err(io::Error::other),
        }
    }
}

fn refused(error: Option<RemoteSignerError>) -> Result<(), Error> {
    error.map_or(Ok(()), |error| Err(Error::Refused(error)))
}

fn unexpected(what: &str) -> Error {
    Error::Broken(io::Error::new(
        io::ErrorKind::InvalidData,
        format!("the signer sent {what}"),
    ))
}

fn read_frame<M: prost::Message + Default>(stream: &mut impl Read) -> io::Result<M> {
    let mut prefix = Vec::with_capacity(3);
    loop {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        prefix.push(byte[0]);
        if byte[0] < 0x80 {
            break;
        }
    }
    let length = prost::decode_length_delimiter(prefix.as_slice())?;
    if prefix.len() + length > MAX_RESPONSE {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "a message longer than a node reads",
        ));
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    Ok(M::decode(body.as_slice())?)
}

/// A message that says of itself that it is `length` bytes long.
#[derive(Debug)]
struct Frame {
    length: usize,
    bytes: Vec<u8>,
}

impl prost::Message for Frame {
    fn encode_raw(&self, buffer: &mut impl BufMut) {
        buffer.put_slice(&self.bytes);
    }

    fn merge_field(
        &mut self,
        _: u32,
        _: prost::encoding::WireType,
        _: &mut impl Buf,
        _: prost::encoding::DecodeContext,
    ) -> Result<(), prost::DecodeError> {
        unreachable!("a frame is only sent")
    }

    fn encoded_len(&self) -> usize {
        self.length
    }

    fn clear(&mut self) {
        self.bytes.clear();
    }
}

/// A block's identity made from one byte, so that two can be told apart at a glance.
#[must_use]
pub fn block(byte: u8) -> BlockId {
    BlockId {
        hash: vec![byte; 32],
        part_set_header: Some(PartSetHeader {
            total: 1,
            hash: vec![byte ^ 0xff; 32],
        }),
    }
}

/// A vote as CometBFT asks for one to be signed; `None` for nil.
#[must_use]
pub fn vote(kind: SignedMsgType, height: i64, round: i32, block_id: Option<BlockId>) -> Vote {
    Vote {
        r#type: kind.into(),
        height,
        round,
        block_id: Some(block_id.unwrap_or_else(nil)),
        timestamp: Some(now()),
        validator_address: vec![1; 20],
        ..Vote::default()
    }
}

/// A proposal of a block, without a proof-of-lock round.
#[must_use]
pub fn proposal(height: i64, round: i32, block_id: BlockId) -> Proposal {
    Proposal {
        r#type: SignedMsgType::Proposal.into(),
        height,
        round,
        pol_round: -1,
        block_id: Some(block_id),
        timestamp: Some(now()),
        signature: Vec::new(),
    }
}

/// This moment, by our clock.
///
/// # Panics
///
/// If the clock stands before 1970.
#[must_use]
pub fn now() -> Timestamp {
    let elapsed = std::time::UNIX_EPOCH.elapsed().expect("a clock after 1970");
    let seconds = i64::try_from(elapsed.as_secs()).expect("a year below 10^9");
    Timestamp {
        seconds,
        nanos: i32::try_from(elapsed.subsec_nanos()).expect("below 10^9"),
    }
}

/// The same moment, `seconds` later.
#[must_use]
pub fn later(timestamp: Option<Timestamp>, seconds: i64) -> Option<Timestamp> {
    timestamp.map(|time| Timestamp {
        seconds: time.seconds + seconds,
        ..time
    })
}

/// Nil on the wire: CometBFT sends an empty block id with an empty header.
fn nil() -> BlockId {
    BlockId {
        hash: Vec::new(),
        part_set_header: Some(PartSetHeader::default()),
    }
}
