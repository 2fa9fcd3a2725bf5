//! A socket with deadlines: for its greeting, and for a client that does not take what it is sent.

use std::io::{Error, ErrorKind, IoSlice, Result};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep};

/// What a client must take within its patience once its socket is full, so that one that drips is cut off too.
const LEAST_TAKEN: usize = 64 << 10;
/// How long a closed connection is read on, in all and in silence, and how much: a socket that is closed with unread
/// bytes is reset, and the client never sees the answer that was sent before.
const LINGER: Duration = Duration::from_secs(10);
const LINGER_SILENCE: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 64 << 20;

/// Something that must take place before a deadline.
#[derive(Debug)]
struct Deadline {
    timer: Pin<Box<Sleep>>,
    /// The bytes moved meanwhile.
    moved: usize,
}

/// A socket, and what is given back once it is closed.
#[derive(Debug)]
pub struct Guarded<T: Send + 'static> {
    stream: Option<(TcpStream, T)>,
    patience: Duration,
    greeting: Option<(Deadline, usize)>,
    writing: Option<Deadline>,
    /// Whether there is nothing to be read any more, or nobody to be told anything.
    ended: bool,
}

impl<T: Send + 'static> Guarded<T> {
    /// `stream`, whose client has `patience` for `greeting` bytes, and for taking what it is sent.
    pub fn new(stream: TcpStream, held: T, patience: Duration, greeting: usize) -> Self {
        let greeting = (greeting > 0).then(|| (Deadline::new(patience), greeting));
        Self { stream: Some((stream, held)), patience, greeting, writing: None, ended: false }
    }

    fn stream(&mut self) -> Result<Pin<&mut TcpStream>> {
        // it is taken away when this is dropped, not before
        self.stream.as_mut().map(|(stream, _)| Pin::new(stream)).ok_or_else(|| ErrorKind::NotConnected.into())
    }

    /// Looks at what came of writing `asked` bytes.
    fn written(
        &mut self,
        context: &mut Context<'_>,
        asked: usize,
        written: Poll<Result<usize>>,
    ) -> Poll<Result<usize>> {
        match written {
            Poll::Ready(Ok(count)) if count < asked => {
                self.writing.get_or_insert_with(|| Deadline::new(self.patience)).moved += count;
            }
            Poll::Ready(_) => self.writing = None,
            Poll::Pending => {
                let writing = self.writing.get_or_insert_with(|| Deadline::new(self.patience));
                while writing.timer.as_mut().poll(context).is_ready() {
                    if writing.moved < LEAST_TAKEN {
                        self.ended = true;
                        return Poll::Ready(Err(Error::new(
                            ErrorKind::TimedOut,
                            "the client does not take its answers",
                        )));
                    }
                    writing.moved = 0;
                    writing.timer.as_mut().reset(Instant::now() + self.patience);
                }
            }
        }
        written
    }
}

impl Deadline {
    fn new(patience: Duration) -> Self {
        Self { timer: Box::pin(sleep(patience)), moved: 0 }
    }
}

impl<T: Send + Unpin + 'static> AsyncRead for Guarded<T> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<Result<()>> {
        if let Some((deadline, _)) = &mut self.greeting
            && deadline.timer.as_mut().poll(context).is_ready()
        {
            self.ended = true;
            return Poll::Ready(Err(Error::new(ErrorKind::TimedOut, "the client does not greet")));
        }
        let before = buffer.filled().len();
        ready!(self.stream()?.poll_read(context, buffer))?;
        let count = buffer.filled().len() - before;
        self.ended |= count == 0;
        if let Some((deadline, wanted)) = &mut self.greeting {
            deadline.moved += count;
            if deadline.moved >= *wanted {
                self.greeting = None;
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: Send + Unpin + 'static> AsyncWrite for Guarded<T> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize>> {
        let written = self.stream()?.poll_write(context, bytes);
        self.written(context, bytes.len(), written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<Result<usize>> {
        let written = self.stream()?.poll_write_vectored(context, parts);
        let asked = parts.iter().map(|part| part.len()).sum();
        self.written(context, asked, written)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        self.stream()?.poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        self.stream()?.poll_shutdown(context)
    }
}

impl<T: Send + 'static> Drop for Guarded<T> {
    fn drop(&mut self) {
        let Some((stream, held)) = self.stream.take() else { return };
        if !self.ended
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            runtime.spawn(linger(stream, held));
        }
    }
}

/// Ends what is sent and reads on until the client has seen it, holding `held` meanwhile.
pub async fn linger<T>(mut stream: TcpStream, held: T) {
    let reading = async {
        let _ = stream.shutdown().await;
        let (mut buffer, mut left) = (vec![0; 16 << 10], LINGER_BYTES);
        while let Ok(Ok(count @ 1..)) = tokio::time::timeout(LINGER_SILENCE, stream.read(&mut buffer)).await {
            left = left.saturating_sub(count);
            if left == 0 {
                break;
            }
        }
    };
    let _ = tokio::time::timeout(LINGER, reading).await;
    drop(held);
}
