//! What happens when there is too much, or too late: queues, deadlines, neighbours of a bad request, clients that leave.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use http::{Request, StatusCode};
use ocad_server::error::Error;
use ocad_server::model::queue::{Job, Limits, Queue};
use ocad_server::model::tensor::{Data, Tensor};
use serde_json::json;
use support::{Draft, Registry, get, post, rows, send};
use tokio::sync::oneshot;

fn limits() -> Limits {
    Limits { jobs: 4, rows: 8, wait: Duration::ZERO, batchable: true, spin: Duration::ZERO }
}

/// A job of `count` rows of `width` values, and where its answer would come.
fn job(count: i64, width: i64) -> (Job, oneshot::Receiver<ocad_server::model::queue::Answer>) {
    let (reply, answer) = oneshot::channel();
    let values = usize::try_from(count * width).unwrap();
    let input =
        Tensor { shape: vec![count, width], data: Data::zeros(ocad_server::model::tensor::DataType::Fp32, values) };
    let rows = usize::try_from(count).unwrap();
    let now = Instant::now();
    (
        Job { inputs: vec![input], rows, outputs: vec![0], queued: now, deadline: now + Duration::from_mins(1), reply },
        answer,
    )
}

fn taken(queue: &Queue) -> Vec<usize> {
    let mut batch = Vec::new();
    assert!(queue.take(0, &mut batch));
    batch.iter().map(|job| job.rows).collect()
}

#[test]
fn a_full_queue_refuses_and_an_open_one_keeps_order() {
    let queue = Queue::new("scaled", limits(), 1);
    let mut answers = Vec::new();
    for count in [3, 4, 2, 1] {
        let (job, answer) = job(count, 3);
        queue.push(job).unwrap();
        answers.push(answer);
    }
    assert!(matches!(queue.push(job(1, 3).0), Err(Error::Overloaded(_))));
    assert!(matches!(queue.admit(), Err(Error::Overloaded(_))));
    assert_eq!(taken(&queue), [3, 4], "9 rows are more than a batch");
    assert_eq!(taken(&queue), [2, 1]);
    assert_eq!(queue.depth(), 0);
}

#[test]
fn a_backlog_that_would_answer_too_late_refuses() {
    let queue = Queue::new("scaled", Limits { jobs: 512, ..limits() }, 1);
    let mut answers = Vec::new();
    let mut refused_at = || {
        (0..64).find(|_| {
            let (job, answer) = job(1, 3);
            answers.push(answer);
            queue.push(job).is_err()
        })
    };
    queue.ran(1, Duration::from_millis(100));
    assert_eq!(refused_at(), None, "one run that was held up says little");
    (0..100).for_each(|_| queue.ran(1, Duration::from_millis(10)));
    let refusal = queue.admit().unwrap_err().to_string();
    assert!(refusal.contains("64 requests") && refusal.contains("`scaled`"), "{refusal}");
    while queue.depth() > 0 {
        taken(&queue);
        queue.ran(8, Duration::from_millis(80));
    }
    assert_eq!(refused_at(), Some(16), "160 ms of work wait, in as few requests as are always let in");
}

#[test]
fn only_what_fits_together_runs_together() {
    let queue = Queue::new("scaled", limits(), 1);
    let jobs: Vec<_> = [(1, 3), (1, 4), (1, 4), (20, 4)].into_iter().map(|(count, width)| job(count, width)).collect();
    let (jobs, mut answers): (Vec<_>, Vec<_>) = jobs.into_iter().unzip();
    for job in jobs {
        queue.push(job).unwrap();
    }
    drop(answers.remove(2));
    assert_eq!(taken(&queue), [1], "another width starts another batch");
    assert_eq!(taken(&queue), [1], "the client of the third has gone, and the fourth is too large to join");
    assert_eq!(taken(&queue), [20], "a large request runs alone");
}

#[test]
fn a_closed_queue_is_emptied_and_then_ends() {
    let queue = Queue::new("scaled", limits(), 2);
    let (job_one, _answer) = job(1, 3);
    queue.push(job_one).unwrap();
    queue.close();
    assert!(matches!(queue.push(job(1, 3).0), Err(Error::Unavailable(_))));
    assert_eq!(taken(&queue), [1]);
    assert!(!queue.take(1, &mut Vec::new()));
}

#[tokio::test]
async fn a_deadline_that_passes_is_a_504() {
    let registry = Registry::new();
    registry.publish("scaled", "1.0.0", &Draft::scaled(2.0));
    // a batch that waits a minute to fill keeps the request queued until its deadline
    let app = registry.serve(&["--max-wait-us", "60000000"]);
    let request = Request::post("/v2/models/scaled/infer").header("x-request-timeout-ms", "5");
    let answer = send(&app, request.body(Body::from(rows(&[1.0; 3]).to_string())).unwrap()).await;
    assert_eq!(answer.status, StatusCode::GATEWAY_TIMEOUT, "by the header");
    let mut body = rows(&[1.0; 3]);
    body["parameters"] = json!({"timeout": 5000});
    assert_eq!(
        post(&app, "/v2/models/scaled/infer", body.to_string()).await.status,
        StatusCode::GATEWAY_TIMEOUT,
        "by the parameter"
    );
    let metrics = String::from_utf8(get(&app, "/metrics").await.body).unwrap();
    assert!(
        metrics.contains(r#"ocad_server_requests_total{protocol="http",model="scaled",outcome="deadline"} 2"#),
        "{metrics}"
    );
}

#[tokio::test]
async fn too_many_requests_are_told_to_come_back() {
    let registry = Registry::new();
    registry.publish("scaled", "1.0.0", &Draft::scaled(2.0));
    let app = registry.serve(&["--max-wait-us", "60000000", "--max-queue", "2"]);
    let waiting: Vec<_> = (0..2)
        .map(|_| {
            let app = Arc::clone(&app);
            tokio::spawn(async move { post(&app, "/v2/models/scaled/infer", rows(&[1.0; 3]).to_string()).await.status })
        })
        .collect();
    let model = app.catalog.get("scaled", None).await.unwrap();
    while model.depth() < 2 {
        tokio::task::yield_now().await;
    }
    let refused = post(&app, "/v2/models/scaled/infer", rows(&[1.0; 3]).to_string()).await;
    assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(refused.headers["retry-after"], "1");
    waiting.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_request_does_not_fail_its_neighbours() {
    let registry = Registry::new();
    registry.publish("lookup", "1.0.0", &Draft::lookup());
    let app = registry.serve(&["--max-wait-us", "20000"]);
    let ask = |id: i64| {
        let app = Arc::clone(&app);
        let body = json!({"inputs": [{"name": "ids", "datatype": "INT64", "shape": [1], "data": [id]}]}).to_string();
        tokio::spawn(async move { post(&app, "/v2/models/lookup/infer", body).await })
    };
    let asked: Vec<_> = [0, 1, 99, 3, 4].into_iter().map(|id| (id, ask(id))).collect();
    for (id, task) in asked {
        let answer = task.await.unwrap();
        if id == 99 {
            assert_eq!(answer.status, StatusCode::BAD_REQUEST);
        } else {
            assert_eq!(answer.json()["outputs"][0]["data"], json!([f64::from(i32::try_from(id).unwrap()) * 10.0]));
        }
    }
}
