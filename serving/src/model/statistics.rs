//! What one version has done since it was loaded, in the terms of the protocol's statistics extension.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::Serialize;

use super::queue::Job;

/// The most sizes of batches that are told apart; clients choose them, so that there must be an end.
const SIZES: usize = 256;

/// How often something happened, and how long it took in all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Span {
    /// How often.
    pub count: u64,
    /// Nanoseconds in all.
    pub ns: u64,
}

/// The times of one run.
#[derive(Debug, Clone, Copy, Default)]
pub struct Stages {
    /// Bringing the inputs together.
    pub input: Duration,
    /// Running the graph.
    pub infer: Duration,
    /// Taking the outputs apart.
    pub output: Duration,
}

/// The spans of the three stages of runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Computed {
    /// Bringing the inputs together.
    pub compute_input: Span,
    /// Running the graph.
    pub compute_infer: Span,
    /// Taking the outputs apart.
    pub compute_output: Span,
}

/// What has been counted.
#[derive(Debug, Clone, Default)]
pub struct Figures {
    /// When the last request was answered, in ms since 1970; 0 where none was.
    pub last_inference: u64,
    /// Rows answered.
    pub inferences: u64,
    /// Runs.
    pub executions: u64,
    /// Requests answered, from their arrival.
    pub success: Span,
    /// Requests that failed.
    pub fail: Span,
    /// Requests that waited in the queue.
    pub queue: Span,
    /// The stages, once for each request.
    pub requests: Computed,
    /// The stages by rows of a run, once for each run.
    pub batches: BTreeMap<u64, Computed>,
}

/// The statistics of one version.
#[derive(Debug, Default)]
pub struct Statistics(Mutex<Figures>);

impl Span {
    fn add(&mut self, count: u64, elapsed: Duration) {
        self.count += count;
        self.ns += count * u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX >> 32);
    }
}

impl Computed {
    fn add(&mut self, count: u64, stages: Stages) {
        self.compute_input.add(count, stages.input);
        self.compute_infer.add(count, stages.infer);
        self.compute_output.add(count, stages.output);
    }
}

impl Statistics {
    fn lock(&self) -> MutexGuard<'_, Figures> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What has been counted so far.
    #[must_use]
    pub fn figures(&self) -> Figures {
        self.lock().clone()
    }

    /// Counts a run of `jobs` that was begun at `started`.
    pub fn ran(&self, jobs: &[Job], started: Instant, stages: Stages) {
        let rows: u64 = jobs.iter().map(|job| job.rows as u64).sum();
        let mut figures = self.lock();
        figures.executions += 1;
        for job in jobs {
            figures.queue.add(1, started.duration_since(job.queued));
        }
        figures.requests.add(jobs.len() as u64, stages);
        if figures.batches.len() < SIZES || figures.batches.contains_key(&rows) {
            figures.batches.entry(rows).or_default().add(1, stages);
        }
    }

    /// Counts a request of `rows` rows that was answered `elapsed` after its arrival.
    pub fn succeeded(&self, rows: usize, elapsed: Duration) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let mut figures = self.lock();
        figures.success.add(1, elapsed);
        figures.inferences += rows as u64;
        figures.last_inference = u64::try_from(now).unwrap_or(0);
    }

    /// Counts a request that failed `elapsed` after its arrival.
    pub fn failed(&self, elapsed: Duration) {
        self.lock().fail.add(1, elapsed);
    }
}
