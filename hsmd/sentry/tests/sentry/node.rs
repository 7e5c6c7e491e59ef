//! A CometBFT node as its signer sees it: it listens, and asks one request at a time.

use std::path::Path;
use std::time::Duration;

use cometbft_p2p::rand_core::OsRng;
use cometbft_p2p::{AsyncReadMsg, AsyncSecretConnection, AsyncWriteMsg, IdentitySecret};
use hsm_proto::privval::message::Sum;
use hsm_proto::privval::*;
use prost::Message as _;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::time::timeout;

/// Longer than anything takes here, even on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) enum Listener {
    Unix(UnixListener),
    Tcp(TcpListener),
}

pub(crate) enum Node {
    Unix(UnixStream),
    Tcp(Box<AsyncSecretConnection<TcpStream>>),
}

impl Listener {
    pub(crate) fn unix(path: &Path) -> Self {
        // A node that was killed leaves its socket behind, and removes it at its next start.
        let _ = std::fs::remove_file(path);
        Self::Unix(UnixListener::bind(path).unwrap())
    }

    pub(crate) async fn tcp() -> (Self, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("tcp://{}", listener.local_addr().unwrap());
        (Self::Tcp(listener), address)
    }

    pub(crate) async fn accept(&self) -> Node {
        timeout(PATIENCE, async {
            match self {
                Self::Unix(listener) => Node::Unix(listener.accept().await.unwrap().0),
                Self::Tcp(listener) => {
                    let (stream, _) = listener.accept().await.unwrap();
                    let identity = IdentitySecret::generate(&mut OsRng);
                    let connection = AsyncSecretConnection::new(stream, &identity).await;
                    Node::Tcp(Box::new(connection.unwrap()))
                }
            }
        })
        .await
        .expect("the sentry dials")
    }
}

impl Node {
    pub(crate) async fn ask(&mut self, sum: Sum) -> Message {
        self.send(sum).await;
        self.answer().await
    }

    pub(crate) async fn send(&mut self, sum: Sum) {
        let message = Message { sum: Some(sum) };
        match self {
            Self::Unix(_) => {
                self.send_raw(&message.encode_length_delimited_to_vec())
                    .await
            }
            Self::Tcp(connection) => connection.write_msg(message).await.unwrap(),
        }
    }

    /// On a UNIX socket.
    pub(crate) async fn send_raw(&mut self, bytes: &[u8]) {
        let Self::Unix(stream) = self else {
            panic!("not a UNIX socket");
        };
        stream.write_all(bytes).await.unwrap();
    }

    pub(crate) async fn answer(&mut self) -> Message {
        timeout(PATIENCE, self.read()).await.expect("an answer")
    }

    /// As a node reads: the prefix byte by byte, then a body of at most 10 KiB.
    async fn read(&mut self) -> Message {
        let stream = match self {
            Self::Unix(stream) => stream,
            Self::Tcp(connection) => return connection.read_msg().await.unwrap(),
        };
        let mut prefix = Vec::new();
        while prefix.last().is_none_or(|byte| byte & 0x80 != 0) {
            prefix.push(stream.read_u8().await.expect("the connection stays up"));
        }
        let length = prost::decode_length_delimiter(prefix.as_slice()).unwrap();
        assert!(length <= 10 * 1024, "a node refuses {length} bytes");
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await.unwrap();
        Message::decode(body.as_slice()).unwrap()
    }

    /// The sentry closed the connection.
    pub(crate) async fn is_closed(&mut self) -> bool {
        let Self::Unix(stream) = self else {
            panic!("not a UNIX socket");
        };
        let read = timeout(PATIENCE, stream.read(&mut [0; 1])).await.unwrap();
        matches!(read, Ok(0) | Err(_))
    }

    pub(crate) async fn ping(&mut self) {
        let answer = self.ask(Sum::PingRequest(PingRequest {})).await;
        assert_eq!(answer.sum, Some(Sum::PingResponse(PingResponse {})));
    }

    /// A prevote at this height, signed.
    pub(crate) async fn prevote(&mut self, height: i64) -> Vote {
        signed_vote(self.ask(vote_request(prevote(height))).await)
    }
}

pub(crate) const CHAIN: &str = "test-chain";

pub(crate) fn block_id() -> BlockId {
    BlockId {
        hash: vec![1; 32],
        part_set_header: Some(PartSetHeader {
            total: 1,
            hash: vec![2; 32],
        }),
    }
}

pub(crate) fn prevote(height: i64) -> Vote {
    Vote {
        r#type: SignedMsgType::Prevote.into(),
        height,
        round: 2,
        block_id: Some(block_id()),
        timestamp: Some(prost_types::Timestamp {
            seconds: 1_800_000_000,
            nanos: 7,
        }),
        validator_address: vec![9; 20],
        validator_index: 4,
        ..Vote::default()
    }
}

pub(crate) fn precommit(height: i64, extension: &[u8]) -> Vote {
    Vote {
        r#type: SignedMsgType::Precommit.into(),
        extension: extension.to_vec(),
        ..prevote(height)
    }
}

pub(crate) fn vote_request(vote: Vote) -> Sum {
    Sum::SignVoteRequest(SignVoteRequest {
        vote: Some(vote),
        chain_id: CHAIN.to_owned(),
        skip_extension_signing: false,
    })
}

pub(crate) fn proposal(height: i64) -> Proposal {
    Proposal {
        r#type: SignedMsgType::Proposal.into(),
        height,
        round: 2,
        pol_round: -1,
        block_id: Some(block_id()),
        timestamp: prevote(height).timestamp,
        signature: Vec::new(),
    }
}

pub(crate) fn proposal_request(proposal: Proposal) -> Sum {
    Sum::SignProposalRequest(SignProposalRequest {
        proposal: Some(proposal),
        chain_id: CHAIN.to_owned(),
    })
}

pub(crate) fn public_key_request() -> Sum {
    Sum::PubKeyRequest(PubKeyRequest {
        chain_id: CHAIN.to_owned(),
    })
}

pub(crate) fn signed_vote(answer: Message) -> Vote {
    match answer.sum {
        Some(Sum::SignedVoteResponse(SignedVoteResponse {
            vote: Some(vote),
            error: None,
        })) => vote,
        other => panic!("no signed vote: {other:?}"),
    }
}

/// The error in any answer.
pub(crate) fn refusal(answer: Message) -> RemoteSignerError {
    let error = match answer.sum.expect("an answer") {
        Sum::PubKeyResponse(response) => response.error,
        Sum::SignedVoteResponse(response) => response.error,
        Sum::SignedProposalResponse(response) => response.error,
        Sum::SignBytesResponse(response) => response.error,
        other => panic!("no refusal: {other:?}"),
    };
    error.expect("a refusal")
}
