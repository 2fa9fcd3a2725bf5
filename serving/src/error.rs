//! One error for the whole server and its one mapping to HTTP and gRPC statuses.

use http::StatusCode;
use tonic::Code;

/// Everything a request, a load or a start can fail with.
///
/// The message of every kind but [`Error::Internal`] is meant for the client; the cause of an internal error is logged
/// and never leaves the server.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The model, version, alias or path does not exist.
    #[error("{0}")]
    NotFound(String),
    /// The request does not fit the protocol or the model's signature.
    #[error("{0}")]
    Invalid(String),
    /// A body, tensor or header is larger than the configured limit.
    #[error("{0}")]
    TooLarge(String),
    /// The content encoding or type is not understood.
    #[error("{0}")]
    Unsupported(String),
    /// The bearer token is missing or wrong.
    #[error("a valid bearer token is required: send `Authorization: Bearer TOKEN`")]
    Unauthorized,
    /// The operation is switched off.
    #[error("{0}")]
    Forbidden(String),
    /// The method does not exist on this path.
    #[error("{0}")]
    Method(String),
    /// The model's queue, or the memory for requests in flight, is full.
    #[error("{0}")]
    Overloaded(String),
    /// The request's deadline passed before its answer was there.
    #[error("the deadline of this request passed before the model answered: allow more time or send fewer rows")]
    Deadline,
    /// The client took too long to send its request.
    #[error("the request body did not arrive in time: send it faster or in smaller parts")]
    SlowClient,
    /// The model exists but cannot be served now.
    #[error("{0}")]
    Unavailable(String),
    /// A fault of the server; the text is the cause and goes to the log only.
    #[error("internal error, see the server's log")]
    Internal(String),
}

/// The result of everything that can fail here.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// The label of this kind in metrics and logs.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::NotFound(_) => "not_found",
            Self::Invalid(_) => "invalid",
            Self::TooLarge(_) => "too_large",
            Self::Unsupported(_) => "unsupported",
            Self::Unauthorized => "unauthorized",
            Self::Forbidden(_) => "forbidden",
            Self::Method(_) => "method",
            Self::Overloaded(_) => "overloaded",
            Self::Deadline => "deadline",
            Self::SlowClient => "slow_client",
            Self::Unavailable(_) => "unavailable",
            Self::Internal(_) => "internal",
        }
    }

    /// The HTTP status of this kind.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        match self {
            Self::NotFound(_) => StatusCode::NOT_FOUND,
            Self::Invalid(_) => StatusCode::BAD_REQUEST,
            Self::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Unsupported(_) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::Forbidden(_) => StatusCode::FORBIDDEN,
            Self::Method(_) => StatusCode::METHOD_NOT_ALLOWED,
            Self::Overloaded(_) => StatusCode::TOO_MANY_REQUESTS,
            Self::Deadline => StatusCode::GATEWAY_TIMEOUT,
            Self::SlowClient => StatusCode::REQUEST_TIMEOUT,
            Self::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// The gRPC code of this kind.
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            Self::NotFound(_) => Code::NotFound,
            Self::Invalid(_) | Self::Unsupported(_) => Code::InvalidArgument,
            Self::TooLarge(_) | Self::Overloaded(_) => Code::ResourceExhausted,
            Self::Unauthorized => Code::Unauthenticated,
            Self::Forbidden(_) => Code::PermissionDenied,
            Self::Method(_) => Code::Unimplemented,
            Self::Deadline | Self::SlowClient => Code::DeadlineExceeded,
            Self::Unavailable(_) => Code::Unavailable,
            Self::Internal(_) => Code::Internal,
        }
    }

    /// The message in one line of bounded length, whatever a client has sent.
    #[must_use]
    pub fn line(&self) -> String {
        crate::text::line(&self.to_string()).into_owned()
    }

    /// The text that only the log may carry, where there is one.
    #[must_use]
    pub fn cause(&self) -> Option<&str> {
        match self {
            Self::Internal(cause) => Some(cause),
            _ => None,
        }
    }
}

impl From<Error> for tonic::Status {
    fn from(error: Error) -> Self {
        Self::new(error.code(), error.line())
    }
}
