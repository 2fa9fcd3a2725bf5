//! From a registry's URL to the client of its object store, and from what that says to one clear line.
//!
//! Credentials, region and endpoint come from where the Python side takes them: `AWS_ACCESS_KEY_ID`,
//! `AWS_SECRET_ACCESS_KEY`, `AWS_ENDPOINT_URL_S3`, `AWS_ENDPOINT_URL`, `AWS_REGION`.

use std::env;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::path::Path as Key;
use object_store::{BackoffConfig, ClientOptions, ObjectStore, RetryConfig};

use super::listings::Connector;
use crate::error::{Error, Result};

const ACCESS: &str = "check `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY` and what that user may do with the bucket";
/// How often a request that failed is sent again; a look that fails comes again with the next poll in any case.
const RETRIES: usize = 3;
const CONNECT: Duration = Duration::from_secs(5);
/// For one request with its body, which is at most one chunk of a file.
const ANSWER: Duration = Duration::from_mins(1);
const PATIENCE: Duration = Duration::from_secs(20);

/// A bucket, and where in it a registry lies.
#[derive(Debug, Clone)]
pub struct Place {
    /// The URL, as the operator wrote it.
    pub url: String,
    /// The client of the bucket.
    pub store: Arc<dyn ObjectStore>,
    /// The registry's root in the bucket.
    pub root: Key,
}

/// Whether `registry` is a URL rather than a folder.
#[must_use]
pub fn is_url(registry: &Path) -> bool {
    registry.to_str().is_some_and(|text| text.contains("://"))
}

/// The place that `url` names. Nothing is requested yet.
pub fn open(url: &str) -> Result<Place> {
    let wrong = |cause: String| Error::Invalid(format!("`{url}` is no registry: {cause}"));
    let (protocol, rest) = url.split_once("://").unwrap_or_default();
    if !matches!(protocol, "s3" | "s3a") {
        return Err(wrong("give a folder, or a URL as `s3://BUCKET/PREFIX`".into()));
    }
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    if bucket.is_empty() {
        return Err(wrong("it names no bucket, as `s3://BUCKET/PREFIX` does".into()));
    }
    let root = Key::parse(prefix).map_err(|cause| wrong(format!("{cause}: correct its prefix")))?;
    // the only provider in this program; that it is installed already is as good
    let _ = rustls::crypto::ring::default_provider().install_default();
    let builder = AmazonS3Builder::from_env();
    let endpoint = [AmazonS3ConfigKey::S3Endpoint, AmazonS3ConfigKey::Endpoint]
        .iter()
        .find_map(|key| builder.get_config_value(key));
    let plain = env::var("AWS_ALLOW_HTTP").is_ok_and(|value| value.eq_ignore_ascii_case("true"));
    let plain = plain || endpoint.as_deref().is_some_and(is_loopback);
    let options = ClientOptions::new().with_allow_http(plain).with_connect_timeout(CONNECT).with_timeout(ANSWER);
    let retry = RetryConfig { backoff: BackoffConfig::default(), max_retries: RETRIES, retry_timeout: PATIENCE };
    let builder =
        builder.with_bucket_name(bucket).with_client_options(options).with_http_connector(Connector::default());
    let store = builder.with_retry(retry).build();
    let store = store.map_err(|cause| wrong(format!("{}: check the `AWS_…` variables", chain(&cause))))?;
    Ok(Place { url: url.trim_end_matches('/').to_owned(), store: Arc::new(store), root })
}

/// Whether the host of `endpoint` is this machine, over whose loopback nobody listens in.
fn is_loopback(endpoint: &str) -> bool {
    let Ok(uri) = endpoint.parse::<http::Uri>() else { return false };
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// What went wrong, and what to do, in one line.
#[must_use]
pub fn explained(cause: &object_store::Error) -> String {
    let text = chain(cause);
    let code = text.split_once("<Code>").and_then(|(_, rest)| rest.split_once("</Code>")).map_or("", |(code, _)| code);
    let said = if code.is_empty() { text.chars().take(300).collect() } else { format!("`{code}`") };
    match (code, cause) {
        ("AccessDenied" | "InvalidAccessKeyId" | "SignatureDoesNotMatch" | "ExpiredToken" | "InvalidToken", _)
        | ("", object_store::Error::Unauthenticated { .. } | object_store::Error::PermissionDenied { .. }) => {
            format!("the server refuses these credentials ({said}): {ACCESS}")
        }
        ("NoSuchBucket", _) | ("", object_store::Error::NotFound { .. }) => {
            "there is no such bucket: create it, or correct `--registry` and `AWS_ENDPOINT_URL`".into()
        }
        ("SlowDown" | "ServiceUnavailable" | "Throttling" | "TooManyRequests", _) => {
            format!("the server asks to slow down ({said}): raise `--poll`")
        }
        ("PermanentRedirect" | "AuthorizationHeaderMalformed", _) => {
            format!("the bucket is in another region ({said}): set `AWS_REGION` to it")
        }
        ("RequestTimeTooSkewed", _) => {
            format!("this machine's clock is too far from the server's ({said}): set the clock")
        }
        ("", _) => format!("no answer ({said}): check `AWS_ENDPOINT_URL` and the network"),
        _ => format!("the server fails ({said}): look at its log"),
    }
}

/// The messages of an error and its causes, each once, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let more = cause.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        source = cause.source();
    }
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::{is_loopback, open};

    #[test]
    fn plain_http_is_for_this_machine_alone() {
        for near in ["http://127.0.0.1:9000", "http://localhost", "http://[::1]:9000"] {
            assert!(is_loopback(near), "{near}");
        }
        for far in ["http://10.0.0.1:9000", "http://s3.example", "http://localhost.example", "nonsense"] {
            assert!(!is_loopback(far), "{far}");
        }
    }

    #[test]
    fn what_is_no_bucket_is_refused_with_what_to_write() {
        for (url, cause) in
            [("gs://bucket/x", "s3://BUCKET/PREFIX"), ("s3:///x", "no bucket"), ("s3://b/x//y", "prefix")]
        {
            let message = open(url).map(|place| place.url).unwrap_err().to_string();
            assert!(message.contains(cause), "{message}");
        }
    }
}
