//! Reading of a call's body, whole and bounded.

use std::time::Duration;

use axum::body::{Body, BodyDataStream, HttpBody};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;

/// Bytes of a too large body that are read and thrown away. A caller who is still sending when the connection closes
/// sees a reset instead of the answer, so this covers bodies up to that much over the limit.
const DISCARDED_BYTES: usize = 64 * 1024 * 1024;

/// Longest time of reading a too large body; after it the caller may see a reset.
const DISCARD_TIME: Duration = Duration::from_secs(2);

/// Tells why a body was not read.
#[derive(Debug)]
pub(super) enum BodyProblem {
    /// The body is larger than the limit.
    TooLarge,
    /// The caller broke off, or did not speak HTTP.
    Broken(axum::Error),
}

/// Reads a body of at most `limit` bytes. A body that came in one piece is not copied.
///
/// # Errors
/// When the body is larger, or the connection breaks.
pub(super) async fn read(body: Body, limit: usize) -> Result<Bytes, BodyProblem> {
    // A body that announces too large a size is refused before any of it is buffered.
    let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    let mut pieces = body.into_data_stream();
    if announced > limit {
        discard(pieces).await;
        return Err(BodyProblem::TooLarge);
    }
    // The first piece is kept as it came; the copying buffer is used from the second piece on.
    let mut only = None;
    let mut joined = BytesMut::new();
    while let Some(piece) = pieces.next().await {
        let piece = piece.map_err(BodyProblem::Broken)?;
        let before = only.as_ref().map_or(joined.len(), Bytes::len);
        if before + piece.len() > limit {
            discard(pieces).await;
            return Err(BodyProblem::TooLarge);
        }
        if before == 0 {
            only = Some(piece);
            continue;
        }
        if let Some(first) = only.take() {
            joined.reserve(announced.max(before + piece.len()));
            joined.extend_from_slice(&first);
        }
        joined.extend_from_slice(&piece);
    }
    Ok(only.unwrap_or_else(|| joined.freeze()))
}

async fn discard(mut pieces: BodyDataStream) {
    let all = async {
        let mut discarded = 0;
        while let Some(Ok(piece)) = pieces.next().await {
            discarded += piece.len();
            if discarded > DISCARDED_BYTES {
                return;
            }
        }
    };
    // The answer follows whether the body ended or the time was up.
    let _ = tokio::time::timeout(DISCARD_TIME, all).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn body_is_read_up_to_limit() {
        assert_eq!(&read(Body::from("12345"), 5).await.unwrap()[..], b"12345");
        assert_eq!(&read(Body::empty(), 5).await.unwrap()[..], b"");
        assert!(matches!(read(Body::from("123456"), 5).await, Err(BodyProblem::TooLarge)));
    }
}
