//! The connection to a node's privval listener: a UNIX socket in the clear, or TCP with CometBFT's
//! SecretConnection.

use std::io;
use std::time::Duration;

use cometbft_p2p::{AsyncReadMsg, AsyncSecretConnection, AsyncWriteMsg, IdentitySecret};
use hsm_proto::privval::Message;
use prost::Message as _;
use prost::bytes::Buf;
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use crate::config::NodeAddress;
use crate::frame::{self, Framed};

/// A node accepts when it needs a signer; after this time without a handshake it is dialled anew.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// A node pings every 3.3 s. TCP does not notice a peer that is gone without a word; a UNIX socket does.
const SILENCE: Duration = Duration::from_secs(20);

/// The connection cannot be used, or not any more.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("cannot connect: {0}")]
    Dial(#[source] io::Error),
    #[error(
        "the name stands for {0}, which is not this host; set allow_remote_node = true if you mean it"
    )]
    NotLoopback(std::net::IpAddr),
    #[error("no SecretConnection handshake: {0}")]
    Handshake(String),
    #[error("the node sent nothing for {} s", SILENCE.as_secs())]
    Silent,
    #[error(transparent)]
    Frame(#[from] frame::Error),
    #[error("SecretConnection: {}", described(.0))]
    Secret(#[from] cometbft_p2p::Error),
    #[error("cannot write: {0}")]
    Write(#[source] io::Error),
}

/// A connected node.
pub(crate) enum Node {
    Unix(Framed<UnixStream>),
    Tcp(Box<AsyncSecretConnection<TcpStream>>),
}

impl Node {
    /// Connects. On TCP `identity` proves nothing to the node, which accepts any key, nor does the node's
    /// own, which it makes afresh at every start.
    pub(crate) async fn dial(
        address: &NodeAddress,
        identity: &IdentitySecret,
    ) -> Result<Self, Error> {
        match address {
            NodeAddress::Unix(path) => {
                let stream = UnixStream::connect(path).await.map_err(Error::Dial)?;
                Ok(Self::Unix(Framed::new(stream)))
            }
            NodeAddress::Tcp {
                address,
                allow_remote,
            } => {
                let stream = TcpStream::connect(address.as_str())
                    .await
                    .map_err(Error::Dial)?;
                let peer = stream.peer_addr().map_err(Error::Dial)?.ip();
                if !allow_remote && !peer.is_loopback() {
                    return Err(Error::NotLoopback(peer));
                }
                stream.set_nodelay(true).map_err(Error::Dial)?;
                handshake(stream, identity.clone()).await
            }
        }
    }

    /// The next message; `None` where the node closed the connection. A frame whose content is no privval
    /// message is read as an empty message: the next frame's place is still known.
    ///
    /// Not cancel safe on TCP: a cancelled connection must not be used again.
    pub(crate) async fn read(&mut self) -> Result<Option<Message>, Error> {
        match self {
            Self::Unix(framed) => Ok(framed.read().await?.map(decoded)),
            Self::Tcp(connection) => {
                let received = timeout(SILENCE, connection.read_msg::<Received>()).await;
                match received.map_err(|_| Error::Silent)? {
                    Ok(Received(message)) => Ok(Some(message)),
                    Err(cometbft_p2p::Error::Io(error))
                        if error.kind() == io::ErrorKind::UnexpectedEof =>
                    {
                        Ok(None)
                    }
                    Err(error) => Err(error.into()),
                }
            }
        }
    }

    /// Writes one message.
    pub(crate) async fn write(&mut self, message: Message) -> Result<(), Error> {
        match self {
            Self::Unix(framed) => {
                let prefixed = message.encode_length_delimited_to_vec();
                framed.write(&prefixed).await.map_err(Error::Write)
            }
            Self::Tcp(connection) => Ok(connection.write_msg(message).await?),
        }
    }
}

/// In a task of its own, because cometbft-p2p 0.3 panics on some malformed first messages, and a panic of
/// that task is only an error here.
async fn handshake(stream: TcpStream, identity: IdentitySecret) -> Result<Node, Error> {
    let mut task = tokio::spawn(async move { AsyncSecretConnection::new(stream, &identity).await });
    match timeout(HANDSHAKE, &mut task).await {
        Ok(Ok(Ok(connection))) => Ok(Node::Tcp(Box::new(connection))),
        Ok(Ok(Err(error))) => Err(Error::Handshake(described(&error))),
        Ok(Err(_)) => Err(Error::Handshake("malformed first message".to_owned())),
        Err(_) => {
            task.abort();
            Err(Error::Handshake(format!(
                "the node did not answer within {} s",
                HANDSHAKE.as_secs()
            )))
        }
    }
}

/// cometbft-p2p's errors name the kind only; the cause says more.
fn described(error: &cometbft_p2p::Error) -> String {
    match std::error::Error::source(error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}

fn decoded(frame: impl Buf) -> Message {
    let length = frame.remaining();
    Message::decode(frame).unwrap_or_else(|error| {
        tracing::warn!(length, %error, "the node sent a frame that is no privval message");
        Message::default()
    })
}

/// Takes a frame as [`decoded`] does, where cometbft-p2p would end the connection.
#[derive(Debug, Default)]
struct Received(Message);

impl prost::Message for Received {
    fn merge_length_delimited(&mut self, mut buf: impl Buf) -> Result<(), prost::DecodeError> {
        let length = prost::encoding::decode_varint(&mut buf)?;
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        self.0 = decoded(buf.take(length));
        Ok(())
    }

    fn encode_raw(&self, buf: &mut impl prost::bytes::BufMut) {
        self.0.encode_raw(buf);
    }

    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: prost::encoding::WireType,
        buf: &mut impl Buf,
        context: prost::encoding::DecodeContext,
    ) -> Result<(), prost::DecodeError> {
        self.0.merge_field(tag, wire_type, buf, context)
    }

    fn encoded_len(&self) -> usize {
        self.0.encoded_len()
    }

    fn clear(&mut self) {
        self.0.clear();
    }
}
