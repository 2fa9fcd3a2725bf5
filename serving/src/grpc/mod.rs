//! The gRPC side of the Open Inference Protocol: calls of one message each way.
//!
//! The token is looked at before any of the body, the message is counted before it is decoded, and a large one is
//! decoded off the event loop.

mod calls;
pub mod convert;
mod message;
pub mod wire;

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::{Extensions, HeaderMap, HeaderValue, Request, Response};
use hyper::body::Body;
use tonic::Status;

use self::calls::Call;
use self::message::{ENCODINGS, Reply, receive, reply, skip};
use crate::error::{Error, Result};
use crate::http::observe::trace_ids;
use crate::infer::{App, Protocol};
use crate::server::peer::Peer;
use crate::text::shown;

/// The protocol's messages, generated from `proto/grpc_inference.proto`.
#[allow(missing_docs, clippy::all, clippy::pedantic)]
pub mod proto {
    include!(concat!(env!("OUT_DIR"), "/inference.rs"));
}

/// The most bytes of a message that is no inference request.
const SMALL: usize = 64 << 10;

/// The service over the shared state.
#[derive(Clone)]
pub struct Service(Arc<App>);

/// The service over `app`.
#[must_use]
pub fn service(app: Arc<App>) -> Service {
    Service(app)
}

impl<B> tower::Service<Request<B>> for Service
where
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Send,
{
    type Response = Response<Reply>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Reply>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let app = Arc::clone(&self.0);
        Box::pin(async move {
            Ok(answer(&app, request).await.unwrap_or_else(|error| {
                let mut response = Status::from(error).into_http::<Reply>();
                response.headers_mut().insert("grpc-accept-encoding", ENCODINGS);
                response
            }))
        })
    }
}

/// The answer of a call; every failure is logged.
async fn answer<B>(app: &App, request: Request<B>) -> Result<Response<Reply>>
where
    B: Body<Data = Bytes> + Send + Unpin + 'static,
{
    let call = Call::of(request.uri().path());
    let call = call.ok_or_else(|| {
        let path = shown(request.uri().path());
        Error::Method(format!("there is no method `{path}`: see `grpc_inference.proto`"))
    })?;
    let (head, body) = request.into_parts();
    let mut model = String::new();
    let answered = attempt(app, call, (&head.headers, &head.extensions), body, &mut model).await;
    answered.inspect_err(|error| {
        if call == Call::ModelInfer {
            app.failed(Protocol::Grpc, &model, error);
        }
        log(call, &model, &head.headers, error);
    })
}

async fn attempt<B>(
    app: &App,
    call: Call,
    (headers, extensions): (&HeaderMap, &Extensions),
    body: B,
    model: &mut String,
) -> Result<Response<Reply>>
where
    B: Body<Data = Bytes> + Send + Unpin + 'static,
{
    if let Some(token) = app.token.as_ref().filter(|_| !call.is_probe()) {
        token.check(headers.get(AUTHORIZATION).map(HeaderValue::as_bytes))?;
    }
    let peer = Peer::of(extensions, &app.budget);
    if call.is_probe() {
        // answered whatever else goes on, so nothing of it is kept or counted
        let _ = tokio::time::timeout(app.limits.read, skip(body)).await;
        return Ok(reply(calls::ask(app, call, Bytes::new()).await?, None, &peer));
    }
    let ticket = peer.ticket(call.name(), headers)?;
    let limit = if call == Call::ModelInfer { app.limits.body } else { SMALL.min(app.limits.body) };
    let message = receive(&ticket, headers, body, limit, app.limits.read).await?;
    let answer = match call {
        Call::ModelInfer => calls::infer(app, headers, message, &ticket, model).await?,
        _ => calls::ask(app, call, message).await?,
    };
    ticket.answer(answer.len())?;
    Ok(reply(answer, Some(ticket), &peer))
}

/// Logs a failed call as the HTTP side does.
fn log(call: Call, model: &str, headers: &HeaderMap, error: &Error) {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let (id, (trace, span)) = (shown(text("x-request-id")), trace_ids(text("traceparent")));
    let (method, model, message) = (call.name(), shown(model), error.line());
    if let Some(cause) = error.cause() {
        tracing::error!(protocol = "grpc", method, model = &*model, code = ?error.code(), request_id = &*id, trace_id = trace, parent_id = span, error = message, cause, "request");
    } else {
        tracing::info!(protocol = "grpc", method, model = &*model, code = ?error.code(), request_id = &*id, trace_id = trace, parent_id = span, error = message, "request");
    }
}
