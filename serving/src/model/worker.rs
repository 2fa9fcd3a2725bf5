//! The threads of one model: each owns a session, takes batches from the queue and sends the answers back.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::{mpsc, oneshot};

use super::queue::{Answer, Job, Queue};
use super::session::{Graph, Output};
use super::statistics::{Stages, Statistics};
use super::tensor::{Data, Tensor};
use crate::error::{Error, Result};
use crate::metrics::ModelMetrics;

/// Answers on their way to the requests that wait for them.
pub type Replies = Vec<(oneshot::Sender<Answer>, Answer)>;

/// Hands a whole batch of answers to the event loop at once, which costs one wake-up instead of one per answer.
#[derive(Debug, Clone)]
pub struct Dispatch(mpsc::UnboundedSender<Replies>);

impl Dispatch {
    /// Starts the task that delivers; it ends with the last clone of the handle. Needs a tokio runtime.
    #[must_use]
    pub fn start() -> Self {
        let (sender, mut receiver) = mpsc::unbounded_channel::<Replies>();
        tokio::spawn(async move {
            while let Some(replies) = receiver.recv().await {
                deliver(replies);
            }
        });
        Self(sender)
    }

    fn send(&self, replies: Replies) {
        if replies.len() == 1 {
            deliver(replies);
        } else if let Err(undelivered) = self.0.send(replies) {
            deliver(undelivered.0);
        }
    }
}

fn deliver(replies: Replies) {
    for (reply, answer) in replies {
        // a closed channel is a client that has gone
        let _ = reply.send(answer);
    }
}

/// One thread's work.
pub struct Worker {
    /// Its position among the model's threads.
    pub index: usize,
    /// Its session.
    pub graph: Graph,
    /// Where work comes from.
    pub queue: Arc<Queue>,
    /// Where answers go.
    pub dispatch: Dispatch,
    /// What it counts.
    pub metrics: ModelMetrics,
    /// What it counts for the version's own answer.
    pub statistics: Arc<Statistics>,
    /// Memory for the inputs of a batch, kept between batches.
    pub buffers: Vec<Data>,
}

impl Worker {
    /// Serves until the queue is closed and empty.
    pub fn run(mut self) {
        let mut batch = Vec::new();
        while self.queue.take(self.index, &mut batch) {
            let started = Instant::now();
            let taken: usize = batch.iter().map(|job| job.rows).sum();
            let replies = self.execute(&mut batch, started);
            let elapsed = started.elapsed();
            self.queue.ran(taken, elapsed);
            self.metrics.batch_rows.record(usize_to_f64(taken));
            self.metrics.run_seconds.record(elapsed.as_secs_f64());
            self.dispatch.send(replies);
        }
    }

    fn execute(&mut self, batch: &mut Vec<Job>, started: Instant) -> Replies {
        let mut replies = Replies::with_capacity(batch.len());
        let (live, late): (Vec<Job>, Vec<Job>) = batch.drain(..).partition(|job| job.deadline > started);
        replies.extend(late.into_iter().map(|job| (job.reply, Err(Error::Deadline))));
        for job in &live {
            self.metrics.queue_seconds.record(started.duration_since(job.queued).as_secs_f64());
        }
        let together = if live.len() > 1 { self.guarded(|worker| worker.together(&live)).ok() } else { None };
        match together {
            Some((answers, stages)) => {
                self.statistics.ran(&live, started, stages);
                replies.extend(live.into_iter().map(|job| job.reply).zip(answers.into_iter().map(Ok)));
            }
            // alone, or after a batch that failed: one bad request must not fail its neighbours
            None => replies.extend(live.into_iter().map(|job| {
                if job.deadline <= Instant::now() {
                    return (job.reply, Err(Error::Deadline));
                }
                let answer = self.guarded(|worker| worker.alone(&job)).map(|(answer, stages)| {
                    self.statistics.ran(std::slice::from_ref(&job), started, stages);
                    answer
                });
                (job.reply, answer)
            })),
        }
        replies
    }

    /// Turns a panic below into an error of this batch, so that the thread lives on.
    fn guarded<T>(&mut self, work: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        catch_unwind(AssertUnwindSafe(|| work(self))).unwrap_or_else(|_| Err(Error::Internal("a run panicked".into())))
    }

    fn alone(&mut self, job: &Job) -> Result<(Vec<Tensor>, Stages)> {
        let mut clock = Clock::start();
        let inputs: Vec<(&[i64], &Data)> =
            job.inputs.iter().map(|input| (input.shape.as_slice(), &input.data)).collect();
        clock.gathered = Instant::now();
        let answer = self.graph.run(&inputs, job.deadline, |outputs| {
            clock.computed = Instant::now();
            job.outputs.iter().map(|position| output(outputs, *position)?.whole()).collect()
        })?;
        Ok((answer, clock.stop()))
    }

    /// Runs several jobs as one batch; the answers stand in their order.
    fn together(&mut self, jobs: &[Job]) -> Result<(Vec<Vec<Tensor>>, Stages)> {
        let mut clock = Clock::start();
        let shapes = gather(jobs, &mut self.buffers)?;
        let total = jobs.iter().map(|job| job.rows).sum::<usize>();
        let inputs: Vec<(&[i64], &Data)> = shapes.iter().map(Vec::as_slice).zip(&self.buffers).collect();
        clock.gathered = Instant::now();
        let until = jobs.iter().map(|job| job.deadline).max().unwrap_or(clock.gathered);
        let answers = self.graph.run(&inputs, until, |outputs| {
            clock.computed = Instant::now();
            for output in outputs {
                if output.shape()?.first().copied() != i64::try_from(total).ok() {
                    return Err(Error::Internal("the model does not answer row by row".into()));
                }
            }
            scatter(jobs, outputs)
        })?;
        Ok((answers, clock.stop()))
    }
}

/// When the stages of a run ended.
struct Clock {
    begun: Instant,
    gathered: Instant,
    computed: Instant,
}

impl Clock {
    fn start() -> Self {
        let begun = Instant::now();
        Self { begun, gathered: begun, computed: begun }
    }

    fn stop(self) -> Stages {
        Stages {
            input: self.gathered - self.begun,
            infer: self.computed - self.gathered,
            output: self.computed.elapsed(),
        }
    }
}

/// Puts the rows of all jobs behind one another; answers the shapes of the whole.
fn gather(jobs: &[Job], buffers: &mut Vec<Data>) -> Result<Vec<Vec<i64>>> {
    let Some(first) = jobs.first() else { return Ok(Vec::new()) };
    buffers.resize_with(first.inputs.len(), || Data::Bool(Vec::new()));
    let mut shapes = Vec::with_capacity(buffers.len());
    for (position, buffer) in buffers.iter_mut().enumerate() {
        let pattern = &first.inputs[position];
        if buffer.datatype() == pattern.data.datatype() {
            buffer.clear();
        } else {
            *buffer = Data::with_capacity(pattern.data.datatype(), pattern.data.len() * jobs.len());
        }
        let mut shape = pattern.shape.clone();
        shape[0] = 0;
        for job in jobs {
            shape[0] += job.inputs[position].shape[0];
            if !buffer.extend_from(&job.inputs[position].data) {
                return Err(Error::Internal("a batch mixes element types".into()));
            }
        }
        shapes.push(shape);
    }
    Ok(shapes)
}

/// Gives each job its own rows of the outputs that it asked for.
fn scatter(jobs: &[Job], outputs: &[Output<'_>]) -> Result<Vec<Vec<Tensor>>> {
    let mut start = 0;
    jobs.iter()
        .map(|job| {
            let rows = job.outputs.iter().map(|position| output(outputs, *position)?.rows(start, job.rows)).collect();
            start += job.rows;
            rows
        })
        .collect()
}

fn output<'a, 'v>(outputs: &'a [Output<'v>], position: usize) -> Result<&'a Output<'v>> {
    outputs.get(position).ok_or_else(|| Error::Internal(format!("the runtime gave no output {position}")))
}

#[allow(clippy::cast_precision_loss)]
fn usize_to_f64(value: usize) -> f64 {
    value as f64
}
