//! Encodes the frames on a child's socket: one question, one answer, and the next question. A host with several threads
//! has a socket for each of them beside the first socket, on which it goes on to answer liveness probes (`{"ping":
//! {}}`).
//!
//! A frame consists of the lengths of its head and of its body (32 bits each, big-endian), the head (JSON), and the
//! body (bytes).
//!
//! The head of a call is `{"invoke": {"content_type", "rows", "patience"}}`, and its body is the payload; `rows` has
//! the row count of each request, where the payload joins several requests. The head of the answer is `{"status",
//! "content_type", "too_large", "exhausted", "refused"}`, and its body is what the scoring server answers to the
//! payload without the requests whose numbers are in `refused`. The host looks for refused requests once a call of
//! several requests has failed, for as many seconds as `patience` says; `refused` is empty if that search found none.
//! (`{"load": …}` is answered by a head alone. A load with several `threads` is followed by the sockets of the threads,
//! and by a second answer once the threads wait at them.)

use std::io::{Error, ErrorKind, Result};

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Bytes of the two lengths before a head.
const PREFIX_BYTES: usize = 8;

/// Bytes of the longest head; a longer one is an error.
const MAX_HEAD_BYTES: usize = 4 << 20;

/// Bytes of the longest body that is copied behind its head and sent in one write; a longer one is sent uncopied in a
/// second write.
const INLINE_BODY_BYTES: usize = 16 << 10;

/// A frame that was read: the answer of a child.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Frame {
    /// The head: JSON.
    pub(crate) head: Bytes,
    /// The body: any bytes.
    pub(crate) body: Bytes,
}

/// Writes one frame.
pub(crate) async fn write(to: &mut (impl AsyncWrite + Unpin), head: &[u8], body: &[u8]) -> Result<()> {
    let mut start = BytesMut::with_capacity(PREFIX_BYTES + head.len() + INLINE_BODY_BYTES.min(body.len()));
    for part in [head, body] {
        let length = u32::try_from(part.len()).map_err(|_| Error::new(ErrorKind::InvalidInput, "more than 4 GiB"))?;
        start.extend_from_slice(&length.to_be_bytes());
    }
    start.extend_from_slice(head);
    if body.len() <= INLINE_BODY_BYTES {
        start.extend_from_slice(body);
        return to.write_all(&start).await;
    }
    to.write_all(&start).await?;
    to.write_all(body).await
}

/// Reads one frame with a body of at most `longest_body` bytes. Bytes behind the frame are an error, since nothing may
/// come unasked.
pub(super) async fn read(from: &mut (impl AsyncRead + Unpin), longest_body: usize) -> Result<Frame> {
    // Each frame has a buffer of its own, so that its memory is freed together with the answer.
    let mut buffer = BytesMut::with_capacity(4096);
    let frame = next(from, &mut buffer, longest_body).await?;
    if !buffer.is_empty() {
        return Err(Error::new(ErrorKind::InvalidData, "more than one frame"));
    }
    Ok(frame)
}

/// Reads the next of several frames, each with a body of at most `longest_body` bytes. What was read behind it stays in
/// the buffer, and so does what was read of it when the future is dropped.
pub(crate) async fn next(
    from: &mut (impl AsyncRead + Unpin),
    buffer: &mut BytesMut,
    longest_body: usize,
) -> Result<Frame> {
    fill(from, buffer, PREFIX_BYTES).await?;
    let length = |at: usize| {
        let bytes = [buffer[at], buffer[at + 1], buffer[at + 2], buffer[at + 3]];
        usize::try_from(u32::from_be_bytes(bytes)).unwrap_or(usize::MAX)
    };
    let (head, body) = (length(0), length(4));
    if head > MAX_HEAD_BYTES || body > longest_body {
        return Err(Error::new(ErrorKind::InvalidData, format!("a frame of {head} and {body} bytes")));
    }
    let length = PREFIX_BYTES + head + body;
    buffer.reserve(length.saturating_sub(buffer.len()));
    fill(from, buffer, length).await?;
    let frame = buffer.split_to(length).freeze();
    Ok(Frame { head: frame.slice(PREFIX_BYTES..PREFIX_BYTES + head), body: frame.slice(PREFIX_BYTES + head..) })
}

async fn fill(from: &mut (impl AsyncRead + Unpin), buffer: &mut BytesMut, length: usize) -> Result<()> {
    while buffer.len() < length {
        if from.read_buf(buffer).await? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    async fn through(head: &[u8], body: &[u8], room: usize) -> Result<Frame> {
        let (mut near, mut far) = tokio::io::duplex(room);
        let (written, answer) = tokio::join!(
            async move {
                let written = write(&mut near, head, body).await;
                drop(near);
                written
            },
            read(&mut far, 1 << 20)
        );
        written.and(answer)
    }

    #[tokio::test]
    async fn frame_arrives_whole_when_its_body_has_any_length() {
        for length in [0, 1, INLINE_BODY_BYTES, INLINE_BODY_BYTES + 1, 1 << 20] {
            let body = vec![7; length];
            let answer = through(br#"{"status":200}"#, &body, 1000).await.unwrap();
            assert_eq!((&answer.head[..], &answer.body[..]), (&br#"{"status":200}"#[..], &body[..]));
        }
    }

    #[tokio::test]
    async fn read_fails_when_bytes_are_no_frame() {
        for (bytes, kind) in [
            (&b""[..], ErrorKind::UnexpectedEof),
            (&[0, 0, 0, 2, 0, 0, 0, 0, b'{'], ErrorKind::UnexpectedEof),
            (&[0, 0, 0, 0, 0, 0, 0, 0, b'{'], ErrorKind::InvalidData),
            (b"Segmentation fault", ErrorKind::InvalidData),
        ] {
            assert_eq!(read(&mut &*bytes, 1 << 20).await.unwrap_err().kind(), kind, "{bytes:?}");
        }
        assert_eq!(through(b"{}", &[0; (1 << 20) + 1], 2 << 20).await.unwrap_err().kind(), ErrorKind::InvalidData);
    }

    proptest! {
        #[test]
        fn read_ends_in_a_frame_or_an_error_when_bytes_are_arbitrary(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            if let Ok(answer) = runtime.block_on(read(&mut &*bytes, 64)) {
                prop_assert_eq!(PREFIX_BYTES + answer.head.len() + answer.body.len(), bytes.len());
            }
        }
    }
}
