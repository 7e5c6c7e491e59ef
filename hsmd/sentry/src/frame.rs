//! Length-prefixed frames on a byte stream (CometBFT `libs/protoio`): the length as a varint, then that many
//! bytes.

use prost::bytes::{Bytes, BytesMut};
use prost::encoding::decode_varint;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// The longest frame that is read, in bytes. A node sends nothing longer than a vote with its extension, and
/// CometBFT passes on no extension over 1 MiB (`types.MaxVoteExtensionSize`); what an HSM can sign is far
/// shorter. cometbft-p2p holds the same limit on TCP.
pub(crate) const LONGEST_READ: usize = 1 << 20;

/// The longest frame that a node reads from its signer, in bytes, without the prefix
/// (`maxRemoteSignerMsgSize` in CometBFT's `privval/signer_endpoint.go`, the same in all lines).
pub(crate) const LONGEST_WRITE: usize = 10 * 1024;

/// A varint has at most this many bytes.
const LONGEST_PREFIX: usize = 10;

/// Where a frame ends is not known any more: the connection must be closed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("the length before a frame is not a varint")]
    Prefix,
    #[error("a frame of {length} bytes was announced, {LONGEST_READ} are allowed")]
    TooLong { length: u64 },
    #[error("the connection ended within a frame, after {received} bytes of it")]
    Truncated { received: usize },
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// A byte stream cut into frames.
pub(crate) struct Framed<Io> {
    io: Io,
    input: BytesMut,
}

impl<Io: AsyncRead + AsyncWrite + Unpin> Framed<Io> {
    pub(crate) fn new(io: Io) -> Self {
        Self {
            io,
            input: BytesMut::with_capacity(4096),
        }
    }

    /// The next frame without its prefix; `None` where the stream ended between frames.
    ///
    /// Cancel safe: what was received stays in the buffer.
    pub(crate) async fn read(&mut self) -> Result<Option<Bytes>, Error> {
        loop {
            if let Some(frame) = split(&mut self.input)? {
                return Ok(Some(frame));
            }
            self.input.reserve(4096);
            if self.io.read_buf(&mut self.input).await? == 0 {
                return match self.input.len() {
                    0 => Ok(None),
                    received => Err(Error::Truncated { received }),
                };
            }
        }
    }

    /// Writes what already carries its prefix.
    pub(crate) async fn write(&mut self, prefixed: &[u8]) -> std::io::Result<()> {
        self.io.write_all(prefixed).await
    }
}

/// Takes the first frame off the buffer; `None` where it is not complete yet.
fn split(input: &mut BytesMut) -> Result<Option<Bytes>, Error> {
    let prefix = input.iter().take(LONGEST_PREFIX);
    let Some(last) = prefix.clone().position(|byte| byte & 0x80 == 0) else {
        return match prefix.len() {
            LONGEST_PREFIX => Err(Error::Prefix),
            _ => Ok(None),
        };
    };
    let length = decode_varint(&mut input.as_ref()).map_err(|_| Error::Prefix)?;
    let body = usize::try_from(length)
        .ok()
        .filter(|&length| length <= LONGEST_READ)
        .ok_or(Error::TooLong { length })?;
    let start = last + 1;
    if input.len() < start + body {
        return Ok(None);
    }
    let mut frame = input.split_to(start + body);
    Ok(Some(frame.split_off(start).freeze()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn prefixed(body: &[u8]) -> Vec<u8> {
        let mut frame = Vec::new();
        prost::encoding::encode_varint(body.len() as u64, &mut frame);
        frame.extend_from_slice(body);
        frame
    }

    proptest! {
        #[test]
        fn frames_come_out_as_they_went_in_however_the_stream_is_cut(
            bodies in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..8),
            cut in 1_usize..40,
        ) {
            let stream: Vec<u8> = bodies.iter().flat_map(|body| prefixed(body)).collect();
            let (mut input, mut frames) = (BytesMut::new(), Vec::new());
            for piece in stream.chunks(cut) {
                input.extend_from_slice(piece);
                while let Some(frame) = split(&mut input).unwrap() {
                    frames.push(frame.to_vec());
                }
            }
            prop_assert_eq!(frames, bodies);
            prop_assert!(input.is_empty());
        }

        #[test]
        fn arbitrary_bytes_never_panic_and_never_yield_more_than_came_in(
            bytes in prop::collection::vec(any::<u8>(), 0..2000),
        ) {
            let mut input = BytesMut::from(bytes.as_slice());
            let mut yielded = 0;
            while let Ok(Some(frame)) = split(&mut input) {
                yielded += frame.len() + 1;
            }
            prop_assert!(yielded <= bytes.len());
        }
    }

    #[test]
    fn a_frame_over_the_limit_is_refused_before_its_bytes_are_awaited() {
        let mut largest = Vec::new();
        prost::encoding::encode_varint(LONGEST_READ as u64, &mut largest);
        assert!(matches!(split(&mut BytesMut::from(&*largest)), Ok(None)));

        for length in [LONGEST_READ as u64 + 1, u64::MAX] {
            let mut prefix = Vec::new();
            prost::encoding::encode_varint(length, &mut prefix);
            let refused = split(&mut BytesMut::from(&*prefix)).unwrap_err();
            assert!(matches!(refused, Error::TooLong { length: named } if named == length));
        }
    }

    #[test]
    fn a_prefix_without_an_end_is_refused() {
        assert!(matches!(
            split(&mut BytesMut::from(&[0xff; 9][..])),
            Ok(None)
        ));
        for bytes in [&[0xff_u8; 10][..], &[0xff; 11]] {
            assert!(matches!(
                split(&mut BytesMut::from(bytes)),
                Err(Error::Prefix)
            ));
        }
    }
}
