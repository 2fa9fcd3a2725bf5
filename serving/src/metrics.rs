//! What the server counts, in the Prometheus text format.

use metrics::{Counter, Gauge, Histogram, Label, counter, gauge, histogram, with_local_recorder};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};
use std::sync::Arc;
use std::time::Duration;

use crate::error::{Error, Result};

const SECONDS: &[f64] =
    &[25e-6, 50e-6, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2, 2.5e-2, 5e-2, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];
const ROWS: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 1024.0, 4096.0];

/// The recorder of one server.
#[derive(Clone)]
pub struct Metrics {
    recorder: Arc<PrometheusRecorder>,
    handle: PrometheusHandle,
    /// Connections open now, over HTTP.
    pub http_connections: Gauge,
    /// Connections open now, over gRPC.
    pub grpc_connections: Gauge,
}

/// The series of one model, kept at hand because looking one up costs more than counting.
#[derive(Clone)]
pub struct ModelMetrics {
    /// Time in the queue.
    pub queue_seconds: Histogram,
    /// Time of a run.
    pub run_seconds: Histogram,
    /// Rows of a batch.
    pub batch_rows: Histogram,
    /// Answered over HTTP.
    pub http: Served,
    /// Answered over gRPC.
    pub grpc: Served,
}

/// The series of successful requests over one protocol.
#[derive(Clone)]
pub struct Served {
    /// Requests answered.
    pub requests: Counter,
    /// Rows answered.
    pub rows: Counter,
    /// From the request's arrival to its answer.
    pub seconds: Histogram,
}

impl Metrics {
    /// A recorder of its own, so that several servers in one process do not mix.
    pub fn new() -> Result<Self> {
        let recorder = builder().map_err(|cause| Error::Internal(cause.to_string()))?.build_recorder();
        let handle = recorder.handle();
        let (http_connections, grpc_connections) = with_local_recorder(&recorder, || {
            describe();
            (
                gauge!("ocad_server_connections", "protocol" => "http"),
                gauge!("ocad_server_connections", "protocol" => "grpc"),
            )
        });
        Ok(Self { recorder: Arc::new(recorder), handle, http_connections, grpc_connections })
    }

    /// The series of model `name`.
    #[must_use]
    pub fn model(&self, name: &str) -> ModelMetrics {
        let served = |protocol: &'static str| Served {
            requests: counter!("ocad_server_requests_total", "protocol" => protocol, "model" => name.to_owned(), "outcome" => "ok"),
            rows: counter!("ocad_server_rows_total", "protocol" => protocol, "model" => name.to_owned()),
            seconds: histogram!("ocad_server_request_seconds", "protocol" => protocol, "model" => name.to_owned()),
        };
        with_local_recorder(&*self.recorder, || ModelMetrics {
            queue_seconds: histogram!("ocad_server_queue_seconds", "model" => name.to_owned()),
            run_seconds: histogram!("ocad_server_run_seconds", "model" => name.to_owned()),
            batch_rows: histogram!("ocad_server_batch_rows", "model" => name.to_owned()),
            http: served("http"),
            grpc: served("grpc"),
        })
    }

    /// Counts a request that failed; `model` is empty where the name is unknown, so that clients cannot make series.
    pub fn failed(&self, protocol: &'static str, model: &str, kind: &'static str) {
        with_local_recorder(&*self.recorder, || {
            counter!("ocad_server_requests_total", "protocol" => protocol, "model" => model.to_owned(), "outcome" => kind).increment(1);
        });
    }

    /// Counts a load of a version: `outcome` is `ok` or `failed`.
    pub fn reloaded(&self, model: &str, outcome: &'static str, took: Duration) {
        with_local_recorder(&*self.recorder, || {
            counter!("ocad_server_loads_total", "model" => model.to_owned(), "outcome" => outcome).increment(1);
            histogram!("ocad_server_load_seconds", "model" => model.to_owned()).record(took.as_secs_f64());
        });
    }

    /// Sets a gauge.
    pub fn set(&self, name: &'static str, labels: &[(&'static str, &str)], value: f64) {
        let labels: Vec<Label> = labels.iter().map(|(key, value)| Label::new(*key, (*value).to_owned())).collect();
        with_local_recorder(&*self.recorder, || gauge!(name, labels).set(value));
    }

    /// All series as Prometheus reads them.
    #[must_use]
    pub fn render(&self) -> String {
        self.handle.render()
    }

    /// Folds what was recorded since the last call, so that memory does not grow while nobody scrapes.
    pub fn upkeep(&self) {
        self.handle.run_upkeep();
    }
}

fn builder() -> Result<PrometheusBuilder, metrics_exporter_prometheus::BuildError> {
    PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".into()), SECONDS)?
        .set_buckets_for_metric(Matcher::Suffix("_rows".into()), ROWS)
}

fn describe() {
    use metrics::{describe_counter, describe_gauge, describe_histogram};
    describe_counter!(
        "ocad_server_requests_total",
        "requests by protocol, model and outcome (`ok` or the kind of the error)"
    );
    describe_counter!("ocad_server_rows_total", "rows answered");
    describe_counter!("ocad_server_loads_total", "versions loaded, by outcome");
    describe_histogram!("ocad_server_load_seconds", "verifying, building and warming a version");
    describe_histogram!("ocad_server_request_seconds", "from a request's arrival to its answer");
    describe_histogram!("ocad_server_queue_seconds", "time in the queue of a model");
    describe_histogram!("ocad_server_run_seconds", "time of one run of a batch");
    describe_histogram!("ocad_server_batch_rows", "rows of one batch");
    describe_gauge!("ocad_server_connections", "open connections");
    describe_gauge!("ocad_server_inflight_bytes", "memory of the requests in flight, as it is counted");
    describe_gauge!("ocad_server_ready", "1 when every model that a plain name asks for is served");
    describe_gauge!("ocad_server_registry_up", "1 when the registry could be read at the last look");
    describe_gauge!("ocad_server_model_version", "1 for the version that a plain name is answered by");
    describe_gauge!("ocad_server_model_stale", "1 when a newer choice failed to load and an older one goes on serving");
    describe_gauge!("ocad_server_queue_depth", "requests that wait for a model");
    describe_gauge!("ocad_server_resident_bytes", "estimated size of the loaded versions");
}
