//! Messages on their way in and out: their five bytes of prefix, compression, limits and trailers.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Response};
use http_body_util::BodyExt;
use hyper::body::{Body, Frame};
use prost::Message;
use tonic::Status;

use crate::budget::Ticket;
use crate::error::{Error, Result};
use crate::http::compress;
use crate::server::bodies::counted;
use crate::server::peer::{Peer, Sending};

/// A flag and a length stand before each message.
const PREFIX: usize = 5;
/// Room made for a message before it comes: what a client claims must not cost memory by itself.
const MOST_ROOM: usize = 1 << 20;
/// An answer is handed over in parts of this size, so that it shows whether the client takes them.
const PART: usize = 64 << 10;

/// What compressed messages may be compressed by.
pub const ENCODINGS: HeaderValue = HeaderValue::from_static("identity,gzip,deflate,zstd");

/// The one message of a call, decompressed, of at most `limit` bytes, counted by `ticket`.
pub async fn receive<B>(
    ticket: &Arc<Ticket>,
    headers: &HeaderMap,
    body: B,
    limit: usize,
    patience: Duration,
) -> Result<Bytes>
where
    B: Body<Data = Bytes> + Unpin,
{
    let collected = collect(ticket, body, limit);
    let (compressed, message) = tokio::time::timeout(patience, collected).await.map_err(|_| Error::SlowClient)??;
    if !compressed {
        return Ok(message);
    }
    let encoding = headers.get("grpc-encoding").ok_or_else(|| {
        Error::Invalid("a message is compressed, but there is no `grpc-encoding`: name gzip, deflate or zstd".into())
    })?;
    compress::expand(encoding.as_bytes(), message, limit, ticket).await
}

/// Reads a body of a few bytes that says nothing.
pub async fn skip<B>(mut body: B)
where
    B: Body<Data = Bytes> + Unpin,
{
    let mut left = PART;
    while let Some(Ok(frame)) = body.frame().await {
        left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
        if left == 0 {
            break;
        }
    }
}

/// Whether the message is compressed, and its bytes; those of a single frame are not copied.
async fn collect<B>(ticket: &Ticket, mut body: B, limit: usize) -> Result<(bool, Bytes)>
where
    B: Body<Data = Bytes> + Unpin,
{
    let cut = || Error::Invalid("the message ended before its stated length: send all of it".into());
    let (mut first, mut whole, mut stated) = (Bytes::new(), BytesMut::new(), None);
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|_| cut())?.into_data() else { continue };
        ticket.take(data.len())?;
        if first.is_empty() && whole.is_empty() {
            first = data;
        } else {
            if whole.is_empty() {
                let room = stated.map_or(0, |(_, length): (bool, usize)| length.min(MOST_ROOM) + PREFIX);
                whole.reserve(room.max(first.len() + data.len()));
                whole.extend_from_slice(&std::mem::take(&mut first));
            }
            whole.extend_from_slice(&data);
        }
        let sent = if whole.is_empty() { &first[..] } else { &whole[..] };
        stated = stated.or_else(|| prefix(sent));
        if let Some((_, length)) = stated {
            if length > limit {
                return Err(Error::TooLarge(format!(
                    "the message has {length} bytes, and at most {limit} are taken: send fewer rows a request"
                )));
            }
            if sent.len() > PREFIX + length {
                return Err(Error::Invalid("more than one message was sent: send one a call".into()));
            }
        }
    }
    let sent = if whole.is_empty() { first } else { whole.freeze() };
    let (compressed, length) = stated.ok_or_else(cut)?;
    if sent.len() < PREFIX + length {
        return Err(cut());
    }
    Ok((compressed, sent.slice(PREFIX..)))
}

/// The flag and the length of the message that begins `sent`, where they have come.
fn prefix(sent: &[u8]) -> Option<(bool, usize)> {
    let (prefix, _) = sent.split_first_chunk::<PREFIX>()?;
    let [flag, length @ ..] = *prefix;
    Some((flag != 0, usize::try_from(u32::from_be_bytes(length)).ok()?))
}

/// Decodes `message`.
pub fn decode<M: Message + Default>(message: Bytes) -> Result<M> {
    M::decode(message).map_err(|cause| Error::Invalid(format!("the message is no request of this method: {cause}")))
}

/// Encodes `message` with its prefix.
pub fn encode(message: &impl Message) -> Result<Bytes> {
    let length = message.encoded_len();
    let stated =
        u32::try_from(length).map_err(|_| Error::TooLarge("the answer has more than 4 GiB: ask for less".into()))?;
    let mut encoded = BytesMut::with_capacity(PREFIX + length);
    encoded.put_u8(0);
    encoded.put_u32(stated);
    message.encode(&mut encoded).map_err(|cause| Error::Internal(cause.to_string()))?;
    Ok(encoded.freeze())
}

/// The body of an answer: a message, and the trailers that say that all is well.
#[derive(Default)]
pub struct Reply {
    left: Bytes,
    sending: Option<Arc<Sending>>,
    trailers: Option<HeaderMap>,
}

/// The answer that carries `message`, counted by `ticket`, if any, until `peer` has taken it.
pub fn reply(message: Bytes, ticket: Option<Arc<Ticket>>, peer: &Peer) -> Response<Reply> {
    let sending = Arc::new(peer.sending());
    let left = match ticket {
        Some(ticket) => counted(message, ticket, Some(Arc::clone(&sending))),
        None => message,
    };
    let trailers = HeaderMap::from_iter([(Status::GRPC_STATUS.clone(), HeaderValue::from_static("0"))]);
    let mut response = Response::new(Reply { left, sending: Some(sending), trailers: Some(trailers) });
    response.headers_mut().insert(http::header::CONTENT_TYPE, tonic::metadata::GRPC_CONTENT_TYPE);
    response
}

impl Body for Reply {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if self.left.is_empty() {
            return Poll::Ready(self.trailers.take().map(|trailers| Ok(Frame::trailers(trailers))));
        }
        if let Some(sending) = &self.sending {
            sending.moved();
        }
        let part = self.left.len().min(PART);
        Poll::Ready(Some(Ok(Frame::data(self.left.split_to(part)))))
    }

    fn is_end_stream(&self) -> bool {
        self.left.is_empty() && self.trailers.is_none()
    }
}
