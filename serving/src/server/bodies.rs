//! Bodies on their way in, which can be taken back, and on their way out, which are counted until they are sent.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, EXPECT};
use http::{HeaderValue, Request, Response};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::{Instant, timeout_at};

use super::peer::Sending;
use crate::budget::Ticket;

/// So much of a refused request's body is read on, where it comes at once, so that its connection can be kept.
const LEFTOVER: usize = 64 << 10;
const AT_ONCE: Duration = Duration::from_millis(20);

/// Bytes that are sent, and what is given back once they are.
struct Counted {
    bytes: Bytes,
    _ticket: Arc<Ticket>,
    _sending: Option<Arc<Sending>>,
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// `bytes`, counted by `ticket` until the last copy of them is dropped.
#[must_use]
pub fn counted(bytes: Bytes, ticket: Arc<Ticket>, sending: Option<Arc<Sending>>) -> Bytes {
    Bytes::from_owner(Counted { bytes, _ticket: ticket, _sending: sending })
}

/// The body of an answer over HTTP/1, counted until it is sent.
pub struct Billed<B> {
    /// The body.
    pub body: B,
    /// What counts it.
    pub ticket: Arc<Ticket>,
}

impl<B: Body<Data = Bytes> + Unpin> Body for Billed<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        let frame = frame
            .map(|frame| frame.map(|frame| frame.map_data(|bytes| counted(bytes, Arc::clone(&self.ticket), None))));
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The body of a request.
#[derive(Debug)]
pub enum Received {
    /// Nobody asks it back.
    Own(Incoming),
    /// Its connection takes it back.
    Lent(Arc<Mutex<Slot>>),
}

/// A body that two look at.
#[derive(Debug)]
pub struct Slot {
    body: Incoming,
    /// Whether the client waits to be told to send it.
    awaited: bool,
    ended: bool,
}

impl Slot {
    fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        self.awaited = false;
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        self.ended = frame.is_none() || self.body.is_end_stream();
        Poll::Ready(frame)
    }
}

impl Body for Received {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match &mut *self {
            Self::Own(body) => Pin::new(body).poll_frame(context),
            Self::Lent(slot) => locked(slot).poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Own(body) => body.is_end_stream(),
            Self::Lent(slot) => locked(slot).ended,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Own(body) => body.size_hint(),
            Self::Lent(slot) => locked(slot).body.size_hint(),
        }
    }
}

fn locked(slot: &Mutex<Slot>) -> MutexGuard<'_, Slot> {
    slot.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The way back to a body that was lent.
pub struct Loan(Arc<Mutex<Slot>>);

/// Lends the body of `request`, where it has one.
pub fn lend(request: Request<Incoming>) -> (Request<Received>, Option<Loan>) {
    if request.body().is_end_stream() {
        return (request.map(Received::Own), None);
    }
    let awaited = request.headers().contains_key(EXPECT);
    let (head, body) = request.into_parts();
    let slot = Arc::new(Mutex::new(Slot { body, awaited, ended: false }));
    (Request::from_parts(head, Received::Lent(Arc::clone(&slot))), Some(Loan(slot)))
}

impl Loan {
    /// Announces the close of the connection in `response`, where the body has not come to its end.
    pub async fn settle<B>(self, response: &mut Response<B>) {
        if !self.spend().await {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
    }

    /// Whether the body is read, or what is left of it comes at once.
    async fn spend(&self) -> bool {
        let (deadline, mut read) = (Instant::now() + AT_ONCE, 0);
        loop {
            let (ended, awaited, stated) = self.state();
            // to read is to tell a client that waits to send
            if ended || awaited || stated > LEFTOVER || read > LEFTOVER {
                return ended;
            }
            let frame = timeout_at(deadline, poll_fn(|context| locked(&self.0).poll_frame(context))).await;
            match frame {
                Ok(Some(Ok(frame))) => read += frame.data_ref().map_or(0, Bytes::len),
                Ok(None) => {}
                Ok(Some(Err(_))) | Err(_) => return false,
            }
        }
    }

    /// Whether the body has ended, whether the client waits to be told to send it, and how much is sure to come.
    fn state(&self) -> (bool, bool, usize) {
        let slot = locked(&self.0);
        (slot.ended, slot.awaited, usize::try_from(slot.body.size_hint().lower()).unwrap_or(usize::MAX))
    }
}
