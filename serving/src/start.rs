//! Putting the parts together, from the configuration to the end of the last connection.

use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::auth::Token;
use crate::budget::{Bounds, Budget};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::infer::{App, Limits};
use crate::metrics::Metrics;
use crate::model::catalog::Catalog;
use crate::model::leash::Watchdog;
use crate::model::queue;
use crate::model::served::{Factory, Most};
use crate::model::session::Runtime;
use crate::model::worker::Dispatch;
use crate::registry::digest::Verdicts;
use crate::registry::watch::{Wake, Watch};
use crate::server::{self, Speaks, bind, serve};

/// How often recorded measurements are folded while nobody scrapes.
const UPKEEP: Duration = Duration::from_secs(5);

/// How long the registry's thread may take to end.
const PARTING: Duration = Duration::from_secs(5);

/// Runs the server until it is told to stop.
pub fn run(config: &Config) -> Result<()> {
    // each connection takes a descriptor; the default limit is made for interactive programs
    let _ = rlimit::increase_nofile_limit(u64::MAX);
    let runtime = if config.http_threads > 1 {
        tokio::runtime::Builder::new_multi_thread().worker_threads(config.http_threads).enable_all().build()
    } else {
        tokio::runtime::Builder::new_current_thread().enable_all().build()
    };
    let runtime = runtime.map_err(|cause| Error::Internal(format!("the event loop cannot be started: {cause}")))?;
    let ended = runtime.block_on(serve_all(config));
    runtime.shutdown_timeout(Duration::from_secs(1));
    ended
}

async fn serve_all(config: &Config) -> Result<()> {
    let app = Arc::new(assemble(config, Runtime::load(&config.runtime_library()?)?)?);
    let (http, grpc) = (bind(config.http)?, bind(config.grpc)?);
    let shown = |listener: &tokio::net::TcpListener| {
        listener.local_addr().map(|address| address.to_string()).unwrap_or_default()
    };
    println!("{}", json!({"http": shown(&http), "grpc": shown(&grpc)}));
    tracing::info!(http = shown(&http), grpc = shown(&grpc), registry = %config.registry.display(), "listening");
    let (watch, alarm) = Watch::new(seconds(config.poll));
    let catalog = Arc::clone(&app.catalog);
    let (ended, end) = std::sync::mpsc::channel();
    let follow = move || {
        catalog.follow(watch);
        let _ = ended.send(());
    };
    let follower = thread::Builder::new().name("registry".into()).spawn(follow);
    follower.map_err(|cause| Error::Internal(format!("a thread cannot be started: {cause}")))?;
    let (stop, stopped) = watch::channel(false);
    let limits = server::Limits {
        connections: config.max_connections,
        read: seconds(config.read_timeout),
        drain: seconds(config.drain_timeout),
        budget: Arc::clone(&app.budget),
    };
    let metrics = app.metrics.clone();
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(UPKEEP).await;
            metrics.upkeep();
        }
    });
    let connections = (app.metrics.http_connections.clone(), app.metrics.grpc_connections.clone());
    let http =
        serve(http, crate::http::app(Arc::clone(&app)), Speaks::Http1, limits.clone(), connections.0, stopped.clone());
    let grpc = serve(grpc, crate::grpc::service(Arc::clone(&app)), Speaks::Http2, limits, connections.1, stopped);
    let told = async {
        let reason = told_to_stop().await;
        app.catalog.drain();
        tracing::info!(reason, "draining");
        let _ = stop.send(true);
    };
    tokio::join!(http, grpc, told);
    alarm.ring(Wake::Stop);
    // it may wait for a disk that does not answer
    if end.recv_timeout(PARTING).is_err() {
        tracing::error!("the registry's thread has not ended, and is left");
    }
    tracing::info!("stopped");
    Ok(())
}

/// The state of a server over the configured registry, with nothing loaded yet. Needs a tokio runtime.
pub fn assemble(config: &Config, runtime: Runtime) -> Result<App> {
    let metrics = Metrics::new()?;
    let factory = Factory {
        runtime,
        threads: config.model_threads.max(1),
        limits: queue::Limits {
            jobs: config.max_queue.max(1),
            rows: config.max_batch.max(1),
            wait: Duration::from_micros(config.max_wait_us),
            batchable: true,
            spin: Duration::from_micros(config.spin_us),
        },
        batching: config.batching()?,
        dispatch: Dispatch::start(),
        metrics: metrics.clone(),
        watchdog: Watchdog::start()?,
        load_timeout: seconds(config.load_timeout),
        patience: seconds(config.timeout),
        most: Most { input: config.max_body_mb << 20, output: config.client_memory_mb << 20 },
    };
    let verdicts = Verdicts::open(config.verdicts());
    let catalog = Catalog::new(config.store()?, config.trust()?, verdicts, factory, config.lazy_mb << 20);
    Ok(App {
        catalog: Arc::new(catalog),
        metrics,
        limits: Limits {
            body: config.max_body_mb << 20,
            read: seconds(config.read_timeout),
            answer: seconds(config.timeout),
        },
        allow_control: config.allow_control,
        token: config.token_file.as_deref().map(|path: &Path| Token::read(path)).transpose()?,
        fallbacks: config.fallbacks()?,
        budget: Budget::new(Bounds {
            total: config.memory_mb << 20,
            client: config.client_memory_mb << 20,
            connections: config.client_connections.max(1),
        }),
    })
}

fn seconds(value: f64) -> Duration {
    // a nonsensical time is the shortest one, and one that clocks cannot hold is as good as none
    Duration::try_from_secs_f64(value).unwrap_or(Duration::from_millis(1)).min(Duration::from_hours(24 * 365))
}

async fn told_to_stop() -> &'static str {
    let attached = !outlives_its_terminal();
    let told =
        [(SignalKind::terminate(), "SIGTERM"), (SignalKind::interrupt(), "SIGINT"), (SignalKind::hangup(), "SIGHUP")];
    let handlers = told.map(|(kind, name)| signal(kind).map(|handler| (handler, name)));
    let [Ok(mut terminate), Ok(mut interrupt), Ok(mut hang_up)] = handlers else {
        // without handlers the default action ends the process, which is all that is left
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.0.recv() => terminate.1,
        _ = interrupt.0.recv() => interrupt.1,
        _ = hang_up.0.recv(), if attached => hang_up.1,
    }
}

/// Whether the server was started so that it outlives its terminal, as by `nohup`.
fn outlives_its_terminal() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & 1 == 1)
}
