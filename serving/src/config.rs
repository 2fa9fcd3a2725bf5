//! The command line: one struct, and each flag is an environment variable too.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Parser;

use crate::error::{Error, Result};
use crate::infer::Fallback;
use crate::registry::cache::Cache;
use crate::registry::marks::Marks;
use crate::registry::objects::Objects;
use crate::registry::remote;
use crate::registry::signatures::Trust;
use crate::registry::store::{Copies, Folder, Store};

const AFTER: &str = "Each flag is an environment variable too: `--max-queue` is `OCAD_SERVER_MAX_QUEUE`.";

/// Serves every ONNX version of an ocad registry over the Open Inference Protocol.
#[derive(Debug, Clone, Parser)]
#[command(version, about, term_width = 100, after_help = AFTER)]
pub struct Config {
    /// Where the registry is: a folder, or the URL of a bucket and a prefix
    #[arg(long, env = "OCAD_SERVER_REGISTRY", hide_env = true, default_value = "models", value_name = "PLACE")]
    pub registry: PathBuf,
    /// Address of HTTP; port 0 takes a free one
    #[arg(long, env = "OCAD_SERVER_HTTP", hide_env = true, default_value = "127.0.0.1:8000", value_name = "ADDR")]
    pub http: SocketAddr,
    /// Address of gRPC; port 0 takes a free one
    #[arg(long, env = "OCAD_SERVER_GRPC", hide_env = true, default_value = "127.0.0.1:8001", value_name = "ADDR")]
    pub grpc: SocketAddr,
    /// The ONNX Runtime library, else `ORT_DYLIB_PATH`
    #[arg(long, env = "OCAD_SERVER_ONNXRUNTIME", hide_env = true, value_name = "FILE")]
    pub onnxruntime: Option<PathBuf>,
    /// Answer for a model without versions: NAME=NUMBER or NAME=REF; may be given again
    #[arg(
        long = "default",
        env = "OCAD_SERVER_DEFAULT",
        hide_env = true,
        value_name = "NAME=X",
        value_delimiter = ','
    )]
    pub defaults: Vec<String>,
    /// Event loop threads
    #[arg(long, env = "OCAD_SERVER_HTTP_THREADS", hide_env = true, default_value_t = 1, value_name = "N")]
    pub http_threads: usize,
    /// Inference threads of a model, each with a session
    #[arg(long, env = "OCAD_SERVER_MODEL_THREADS", hide_env = true, default_value_t = 2, value_name = "N")]
    pub model_threads: usize,
    /// Most rows of a batch; 1 never batches
    #[arg(long, env = "OCAD_SERVER_MAX_BATCH", hide_env = true, default_value_t = 128, value_name = "ROWS")]
    pub max_batch: usize,
    /// Whether the rows of several requests for a model may run together, whatever its versions say: NAME=on or
    /// NAME=off; may be given again
    #[arg(long = "batch", env = "OCAD_SERVER_BATCH", hide_env = true, value_name = "NAME=X", value_delimiter = ',')]
    pub batch: Vec<String>,
    /// Wait for a batch to fill; 0 never waits
    #[arg(long, env = "OCAD_SERVER_MAX_WAIT_US", hide_env = true, default_value_t = 0, value_name = "US")]
    pub max_wait_us: u64,
    /// Inference threads stay awake this long when requests come one by one; 0 saves power
    #[arg(long, env = "OCAD_SERVER_SPIN_US", hide_env = true, default_value_t = 100, value_name = "US")]
    pub spin_us: u64,
    /// Most requests waiting for a model; then 429
    #[arg(long, env = "OCAD_SERVER_MAX_QUEUE", hide_env = true, default_value_t = 512, value_name = "N")]
    pub max_queue: usize,
    /// Most memory of versions loaded on demand
    #[arg(long, env = "OCAD_SERVER_LAZY_MB", hide_env = true, default_value_t = 1024, value_name = "MB")]
    pub lazy_mb: u64,
    /// Most bytes of a request
    #[arg(long, env = "OCAD_SERVER_MAX_BODY_MB", hide_env = true, default_value_t = 64, value_name = "MB")]
    pub max_body_mb: usize,
    /// Most memory of requests in flight; then 429
    #[arg(long, env = "OCAD_SERVER_MEMORY_MB", hide_env = true, default_value_t = 512, value_name = "MB")]
    pub memory_mb: usize,
    /// Most of it for the requests of one client address
    #[arg(long, env = "OCAD_SERVER_CLIENT_MEMORY_MB", hide_env = true, default_value_t = 256, value_name = "MB")]
    pub client_memory_mb: usize,
    /// Most open connections, each of HTTP and gRPC
    #[arg(long, env = "OCAD_SERVER_MAX_CONNECTIONS", hide_env = true, default_value_t = 8192, value_name = "N")]
    pub max_connections: usize,
    /// Most of them from one client address
    #[arg(long, env = "OCAD_SERVER_CLIENT_CONNECTIONS", hide_env = true, default_value_t = 2048, value_name = "N")]
    pub client_connections: usize,
    /// Time for a client to send a request, or to take 64 KiB of an answer
    #[arg(long, env = "OCAD_SERVER_READ_TIMEOUT", hide_env = true, default_value_t = 30.0, value_name = "SECONDS")]
    pub read_timeout: f64,
    /// Time for an answer, where the client does not say
    #[arg(long, env = "OCAD_SERVER_TIMEOUT", hide_env = true, default_value_t = 30.0, value_name = "SECONDS")]
    pub timeout: f64,
    /// Time for a version to load and to run once
    #[arg(long, env = "OCAD_SERVER_LOAD_TIMEOUT", hide_env = true, default_value_t = 60.0, value_name = "SECONDS")]
    pub load_timeout: f64,
    /// Time for running requests when told to stop
    #[arg(long, env = "OCAD_SERVER_DRAIN_TIMEOUT", hide_env = true, default_value_t = 30.0, value_name = "SECONDS")]
    pub drain_timeout: f64,
    /// Look for changes this often, besides being told
    #[arg(long, env = "OCAD_SERVER_POLL", hide_env = true, default_value_t = 5.0, value_name = "SECONDS")]
    pub poll: f64,
    /// Allow clients to load and unload models
    #[arg(long, env = "OCAD_SERVER_ALLOW_CONTROL", hide_env = true)]
    pub allow_control: bool,
    /// File with the bearer token that clients must send
    #[arg(long, env = "OCAD_SERVER_TOKEN_FILE", hide_env = true, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// Serve only versions that a key of `--keys` has signed; with `=aliases` where signed aliases lead
    #[arg(
        long,
        env = "OCAD_SERVER_REQUIRE_SIGNATURE",
        hide_env = true,
        requires = "keys",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "versions",
        value_parser = required,
        value_name = "WHAT"
    )]
    pub require_signature: Option<Required>,
    /// Public keys whose signatures count; read again at each look
    #[arg(long, env = "OCAD_SERVER_KEYS", hide_env = true, requires = "require_signature", value_name = "FILE")]
    pub keys: Option<PathBuf>,
    /// Folder for digest verdicts, else `~/.cache/ocad-server`
    #[arg(long, env = "OCAD_SERVER_CACHE", hide_env = true, value_name = "DIR")]
    pub cache: Option<PathBuf>,
    /// What is logged: error, warn, info, debug, or a filter
    #[arg(long, env = "OCAD_SERVER_LOG", hide_env = true, default_value = "info", value_name = "LEVEL")]
    pub log: String,
}

impl Config {
    /// The path of the runtime library.
    pub fn runtime_library(&self) -> Result<PathBuf> {
        self.onnxruntime.clone().or_else(|| std::env::var_os("ORT_DYLIB_PATH").filter(|path| !path.is_empty()).map(PathBuf::from)).ok_or_else(|| {
            Error::Unavailable(
                "no ONNX Runtime library is named: give the path of `libonnxruntime.so` (PyPI's `onnxruntime` has it in `onnxruntime/capi/`) with `--onnxruntime` or `ORT_DYLIB_PATH`".into(),
            )
        })
    }

    /// The place of the registry.
    pub fn store(&self) -> Result<Box<dyn Store>> {
        let always = self.require_signature.is_some();
        if let Some(url) = self.registry.to_str().filter(|_| remote::is_url(&self.registry)) {
            return Ok(Box::new(Objects::new(remote::open(url)?, Cache::of_user()?, always)?));
        }
        if !self.registry.is_dir() {
            return Err(Error::Unavailable(format!(
                "there is no registry folder `{}`: register a model first, or name the folder with `--registry`",
                self.registry.display()
            )));
        }
        // without signatures, a user without a folder for copies reads in place
        let copies = match Cache::of_user() {
            Ok(cache) => Some(Copies { cache, always }),
            Err(cause) if always => return Err(cause),
            Err(_) => None,
        };
        Ok(Box::new(Folder::new(self.registry.clone(), copies)))
    }

    /// What must be signed; `None` where nothing must.
    pub fn trust(&self) -> Result<Option<Trust>> {
        let (Some(keys), Some(required)) = (&self.keys, self.require_signature) else { return Ok(None) };
        let marks = match required {
            Required::Versions => None,
            Required::Aliases => Some(Marks::new(Cache::of_user()?.root(), &self.place())),
        };
        Trust::read(keys, marks).map(Some)
    }

    /// The registry by one name, however it was given: a real path, or a URL.
    fn place(&self) -> String {
        if remote::is_url(&self.registry) {
            return self.registry.display().to_string().trim_end_matches('/').to_owned();
        }
        self.registry.canonicalize().unwrap_or_else(|_| self.registry.clone()).display().to_string()
    }

    /// The file of the digest verdicts; `None` where there is no folder for it.
    #[must_use]
    pub fn verdicts(&self) -> Option<PathBuf> {
        let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let folder = self.cache.clone().or_else(|| {
            let base = variable("XDG_CACHE_HOME").or_else(|| variable("HOME").map(|home| home.join(".cache")));
            base.map(|base| base.join("ocad-server"))
        });
        folder.map(|folder| folder.join("verdicts.json"))
    }

    /// What the operator says of single models' batches.
    pub fn batching(&self) -> Result<HashMap<String, bool>> {
        let read = |text: &String| match text.split_once('=') {
            Some((name, "on")) if !name.is_empty() => Ok((name.to_owned(), true)),
            Some((name, "off")) if !name.is_empty() => Ok((name.to_owned(), false)),
            _ => Err(Error::Invalid(format!("`--batch {text}` is not understood: write `NAME=on` or `NAME=off`"))),
        };
        self.batch.iter().map(read).collect()
    }

    /// The answers for models without a version.
    pub fn fallbacks(&self) -> Result<HashMap<String, Fallback>> {
        self.defaults.iter().map(|text| fallback(text)).collect()
    }
}

/// What must be signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Required {
    /// The versions.
    Versions,
    /// The versions, and the entries of aliases.
    Aliases,
}

/// `versions` or `aliases`; `true`, as an environment variable may say, for the first.
fn required(text: &str) -> Result<Required, &'static str> {
    match text {
        "versions" | "true" | "1" => Ok(Required::Versions),
        "aliases" => Ok(Required::Aliases),
        _ => Err("write `--require-signature` or `--require-signature=aliases`"),
    }
}

fn fallback(text: &str) -> Result<(String, Fallback)> {
    let wrong = || {
        Error::Invalid(format!(
            "`--default {text}` is not understood: write `NAME=NUMBER`, `NAME=MODEL` or `NAME=MODEL@VERSION`"
        ))
    };
    let (name, value) =
        text.split_once('=').filter(|(name, value)| !name.is_empty() && !value.is_empty()).ok_or_else(wrong)?;
    let fallback = match value.parse::<f32>() {
        Ok(number) if number.is_finite() => Fallback::Constant(number),
        Ok(_) => return Err(wrong()),
        Err(_) => match value.split_once('@') {
            Some((model, selector)) => Fallback::Model(model.to_owned(), Some(selector.to_owned())),
            None => Fallback::Model(value.to_owned(), None),
        },
    };
    Ok((name.to_owned(), fallback))
}
