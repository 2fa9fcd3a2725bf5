//! A loaded version: its sessions on their threads, and the one way to ask it.

use std::collections::HashMap;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use semver::Version;
use tokio::sync::oneshot;

use super::leash::{Leash, Watchdog};
use super::queue::{Answer, Job, Limits, Queue};
use super::session::{Graph, Runtime};
use super::signature::{Port, Signature};
use super::statistics::Statistics;
use super::tensor::{Data, Tensor, volume};
use super::worker::{Dispatch, Worker};
use crate::error::{Error, Result};
use crate::metrics::{Metrics, ModelMetrics};
use crate::registry::index::{Record, Target};
use crate::registry::manifest::{PortEntry, Ports};
use crate::registry::verify::Verified;

/// What a string takes at least, in a request and here.
const STRING: usize = size_of::<String>();

/// What every model is loaded with.
#[derive(Clone)]
pub struct Factory {
    /// The runtime library.
    pub runtime: Runtime,
    /// Threads, and so sessions, of a model.
    pub threads: usize,
    /// The limits of its queue.
    pub limits: Limits,
    /// Models whose rows the operator says may, or may not, share a run, whatever their versions say.
    pub batching: HashMap<String, bool>,
    /// The way of the answers.
    pub dispatch: Dispatch,
    /// The server's metrics.
    pub metrics: Metrics,
    /// Who ends what takes too long.
    pub watchdog: Watchdog,
    /// How long a version may take to load and to run once.
    pub load_timeout: Duration,
    /// How long a request may take that loads a version.
    pub patience: Duration,
    /// What one row may take.
    pub most: Most,
}

/// The most bytes that a row may be declared to take: a model above them could never be asked or answer.
#[derive(Debug, Clone, Copy)]
pub struct Most {
    /// Of all inputs together.
    pub input: usize,
    /// Of all outputs together.
    pub output: usize,
}

/// A loaded version.
pub struct Model {
    /// The model's name.
    pub name: String,
    /// The version.
    pub version: Version,
    /// The version as text.
    pub version_text: String,
    /// The sha256 of its `metadata.json`.
    pub digest: String,
    /// What it takes and gives.
    pub signature: Signature,
    /// Whether rows of several requests run together.
    pub batchable: bool,
    /// The most rows of one batch.
    pub batch_rows: usize,
    /// The size of its graph and weights in bytes.
    pub size: u64,
    /// What it counts.
    pub metrics: ModelMetrics,
    /// What it counts for its own answer.
    pub statistics: Arc<Statistics>,
    queue: Arc<Queue>,
    used: AtomicU64,
    /// Its threads may open its files at any time.
    _hold: Option<File>,
}

impl Model {
    /// Builds the sessions of `record`, checks them against its signature, warms them and starts their threads;
    /// [`Error::Deadline`] where the first takes longer than until `until`.
    pub fn load(record: &Record, verified: Verified, factory: &Factory, until: Instant) -> Result<Self> {
        let onnx = verified.onnx.ok_or_else(|| Error::Internal("a version without a graph was to be loaded".into()))?;
        let mut graph = Graph::load(&factory.runtime, &onnx, Leash::new(&factory.watchdog)?, until)?;
        let signature = match &record.metadata.signature {
            Some(promised) => agree(graph.signature()?, promised)?,
            None => graph.signature()?,
        };
        let most = factory.most;
        confine(&signature.inputs, most.input, "inputs", "requests have at most that of `--max-body-mb`")?;
        confine(&signature.outputs, most.output, "outputs", "clients have at most that of `--client-memory-mb`")?;
        let by_row = warm(&mut graph, &signature, until)?;
        // what shares a run without a proof could answer one client with another one's rows in mind
        let proven = record.metadata.signature.as_ref().is_some_and(|signature| signature.batchable);
        let wanted = factory.batching.get(&record.name).copied().unwrap_or(proven && !verified.batch_dependent);
        let batchable = by_row && wanted && factory.limits.rows > 1;
        let queue = Arc::new(Queue::new(&record.name, Limits { batchable, ..factory.limits }, factory.threads));
        let metrics = factory.metrics.model(&record.name);
        let model = Self {
            name: record.name.clone(),
            version: record.version.clone(),
            version_text: record.version.to_string(),
            digest: record.digest.clone(),
            signature,
            batchable,
            batch_rows: factory.limits.rows,
            size: verified.size,
            metrics,
            statistics: Arc::default(),
            queue,
            used: AtomicU64::new(0),
            _hold: verified.hold,
        };
        model.start(graph, &onnx, factory)?;
        Ok(model)
    }

    /// Starts the first thread with `graph`; each of the others builds its own session, so that nobody waits for it.
    fn start(&self, graph: Graph, onnx: &Path, factory: &Factory) -> Result<()> {
        let mut first = Some(graph);
        for index in 0..factory.threads {
            let (queue, dispatch, metrics) = (Arc::clone(&self.queue), factory.dispatch.clone(), self.metrics.clone());
            let statistics = Arc::clone(&self.statistics);
            let (graph, factory, path, signature) =
                (first.take(), factory.clone(), onnx.to_owned(), self.signature.clone());
            let body = move || {
                let graph = graph.map_or_else(|| helper(&factory, &path, &signature), Ok);
                match graph {
                    Ok(graph) => {
                        Worker { index, graph, queue, dispatch, metrics, statistics, buffers: Vec::new() }.run();
                    }
                    Err(cause) => tracing::warn!(%cause, path = %path.display(), "a further session cannot be built"),
                }
            };
            thread::Builder::new()
                .name(format!("model-{index}"))
                .spawn(body)
                .map_err(|cause| Error::Internal(format!("a thread cannot be started: {cause}")))?;
        }
        Ok(())
    }

    /// Whether this is the version that `target` leads to.
    #[must_use]
    pub fn is(&self, target: &Target) -> bool {
        self.version == target.version && target.pinned.as_ref().is_none_or(|pinned| *pinned == self.digest)
    }

    /// An error when the queue is full already, which saves reading the request.
    pub fn admit(&self) -> Result<()> {
        self.queue.admit()
    }

    /// The requests that wait now.
    #[must_use]
    pub fn depth(&self) -> usize {
        self.queue.depth()
    }

    /// Notes the use of this version at `tick`, for the choice of what to unload.
    pub fn touch(&self, tick: u64) {
        self.used.store(tick, Ordering::Relaxed);
    }

    /// The last use.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// Runs `inputs` (arranged by the signature, of `rows` rows) and answers the outputs at `outputs`.
    pub async fn infer(&self, inputs: Vec<Tensor>, rows: usize, outputs: Vec<usize>, deadline: Instant) -> Answer {
        let (reply, answer) = oneshot::channel();
        self.queue.push(Job { inputs, rows, outputs, queued: Instant::now(), deadline, reply })?;
        match tokio::time::timeout_at(deadline.into(), answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(Error::Internal("a thread of the model ended without an answer".into())),
            Err(_) => Err(Error::Deadline),
        }
    }
}

impl Drop for Model {
    fn drop(&mut self) {
        self.queue.close();
    }
}

fn helper(factory: &Factory, path: &Path, signature: &Signature) -> Result<Graph> {
    let until = Instant::now() + factory.load_timeout;
    let mut graph = Graph::load(&factory.runtime, path, Leash::new(&factory.watchdog)?, until)?;
    warm(&mut graph, signature, until)?;
    Ok(graph)
}

/// Refuses `ports` of which one row takes more than `most` bytes, before anything makes room for it.
fn confine(ports: &[Port], most: usize, what: &str, why: &str) -> Result<()> {
    let mut total = 0_usize;
    for port in ports {
        let row: Vec<i64> = port.shape.iter().map(|dimension| if *dimension < 0 { 1 } else { *dimension }).collect();
        let size = volume(&row).ok().and_then(|count| count.checked_mul(port.datatype.size().unwrap_or(STRING)));
        total = size.and_then(|size| total.checked_add(size)).filter(|total| *total <= most).ok_or_else(|| {
            Error::Unavailable(format!(
                "one row of its {what} takes more than {most} bytes (`{}` is {} {:?}), and {why}",
                port.name,
                port.datatype.name(),
                port.shape
            ))
        })?;
    }
    Ok(())
}

/// The signature to serve by: what the graph declares, narrowed by what the metadata promises.
fn agree(graph: Signature, promised: &Ports) -> Result<Signature> {
    Ok(Signature {
        inputs: agree_ports(graph.inputs, &promised.inputs, "input")?,
        outputs: agree_ports(graph.outputs, &promised.outputs, "output")?,
    })
}

fn agree_ports(graph: Vec<Port>, promised: &[PortEntry], what: &str) -> Result<Vec<Port>> {
    if graph.len() != promised.len() {
        return Err(Error::Unavailable(format!(
            "the graph has {} {what}s, but its signature lists {}",
            graph.len(),
            promised.len()
        )));
    }
    graph
        .into_iter()
        .map(|port| {
            let entry = promised.iter().find(|entry| entry.name == port.name).ok_or_else(|| {
                Error::Unavailable(format!("the graph's {what} `{}` is not in its signature", port.name))
            })?;
            agree_port(port, entry, what)
        })
        .collect()
}

fn agree_port(mut port: Port, promised: &PortEntry, what: &str) -> Result<Port> {
    let fits = promised.datatype == port.datatype
        && promised.shape.len() == port.shape.len()
        && promised.shape.iter().zip(&port.shape).all(|(a, b)| a == b || *a < 0 || *b < 0);
    if !fits {
        return Err(Error::Unavailable(format!(
            "the graph's {what} `{}` is {} {:?}, but its signature says {} {:?}",
            port.name,
            port.datatype.name(),
            port.shape,
            promised.datatype.name(),
            promised.shape
        )));
    }
    for (own, promised) in port.shape.iter_mut().zip(&promised.shape) {
        *own = (*own).max(*promised);
    }
    Ok(port)
}

/// Runs zeros through the graph, one row and then two; answers whether two rows in give two rows out everywhere.
fn warm(graph: &mut Graph, signature: &Signature, until: Instant) -> Result<bool> {
    run_zeros(graph, signature, 1, until)?;
    if !signature.batchable() {
        return Ok(false);
    }
    match run_zeros(graph, signature, 2, until) {
        Ok(rows) => Ok(rows.iter().all(|count| *count == Some(2))),
        Err(Error::Deadline) => Err(Error::Deadline),
        // a graph that cannot run two rows is served one request at a time
        Err(_) => Ok(false),
    }
}

fn run_zeros(graph: &mut Graph, signature: &Signature, rows: i64, until: Instant) -> Result<Vec<Option<i64>>> {
    let mut inputs = Vec::with_capacity(signature.inputs.len());
    for port in &signature.inputs {
        let mut shape: Vec<i64> =
            port.shape.iter().map(|dimension| if *dimension < 0 { 1 } else { *dimension }).collect();
        if port.batched() {
            shape[0] = rows;
        }
        let data = Data::zeros(port.datatype, volume(&shape)?);
        inputs.push((shape, data));
    }
    let views: Vec<(&[i64], &Data)> = inputs.iter().map(|(shape, data)| (shape.as_slice(), data)).collect();
    graph
        .run(&views, until, |outputs| {
            outputs.iter().map(|output| output.shape().map(|shape| shape.first().copied())).collect()
        })
        .map_err(|cause| match cause {
            Error::Deadline => cause,
            _ => Error::Unavailable(format!("the graph does not run: {}", cause.cause().unwrap_or(&cause.to_string()))),
        })
}
