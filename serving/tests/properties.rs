//! Properties: parsers never panic and lose nothing; batches never mix requests.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::time::{Duration, Instant};

use bytes::Bytes;
use ocad_server::http::request::read;
use ocad_server::model::tensor::{Data, DataType, volume};
use ocad_server::registry::manifest::Manifest;
use ocad_server::registry::{names, onnx, strict};
use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::json;
use support::{Draft, Registry};

fn datatypes() -> impl Strategy<Value = DataType> {
    proptest::sample::select(DataType::ALL)
}

proptest! {
    #[test]
    fn any_bytes_are_no_panic(bytes in vec(any::<u8>(), 0..400), header in proptest::option::of(0_usize..500), datatype in datatypes()) {
        let body = Bytes::from(bytes.clone());
        let _ = read(&body, header);
        let _ = Data::from_bytes(datatype, &bytes);
        let _ = Manifest::read(&bytes, "m", "1.0.0");
        let _ = onnx::references(&bytes);
        let _ = strict::parse(&bytes);
    }

    #[test]
    fn nearly_a_request_is_no_panic(cut in 0_usize..200, at in 0_usize..200, with in any::<u8>()) {
        let mut text = json!({"id": "a", "inputs": [{"name": "x", "datatype": "FP32", "shape": [2, 2], "data": [[1.5, -2e3], [null, 4]]}],
            "outputs": [{"name": "y", "parameters": {"binary_data": true}}], "parameters": {"timeout": 5}}).to_string().into_bytes();
        if let Some(byte) = text.get_mut(at) {
            *byte = with;
        }
        text.truncate(text.len() - cut.min(text.len()));
        let _ = read(&Bytes::from(text), None);
    }

    #[test]
    fn names_and_numbers_are_no_panic(text in ".{0,80}", shape in vec(any::<i64>(), 0..6)) {
        let _ = (names::selector(&text), names::version(&text), names::is_path(&text), names::entry_number(&text));
        let _ = volume(&shape);
    }

    #[test]
    fn json_integers_arrive_exactly(values in vec(any::<i64>(), 1..50)) {
        let text = json!({"inputs": [{"name": "x", "datatype": "INT64", "shape": [values.len()], "data": values}]}).to_string();
        let body = Bytes::from(text);
        prop_assert_eq!(&read(&body, None).unwrap().inputs[0].tensor.data, &Data::Int64(values));
    }

    #[test]
    fn json_floats_arrive_exactly_in_any_nesting(values in vec(any::<f32>().prop_filter("finite", |value| value.is_finite()), 4)) {
        let rows = json!([[values[0], values[1]], [values[2], values[3]]]);
        let text = json!({"inputs": [{"data": rows, "name": "x", "datatype": "FP32", "shape": [2, 2]}]}).to_string();
        let body = Bytes::from(text);
        prop_assert_eq!(&read(&body, None).unwrap().inputs[0].tensor.data, &Data::Fp32(values));
    }

    #[test]
    fn floats_are_written_so_that_they_read_back(values in vec(any::<f64>(), 0..20)) {
        let mut text = Vec::new();
        Data::Fp64(values.clone()).write_json(&mut text);
        let back: Vec<Option<f64>> = serde_json::from_slice(&text).unwrap();
        let finite: Vec<Option<f64>> = values.into_iter().map(|value| Some(value).filter(|value| value.is_finite())).collect();
        prop_assert_eq!(back, finite);
    }

    #[test]
    fn wire_bytes_read_back(datatype in datatypes(), bytes in vec(any::<u8>(), 0..64), texts in vec(".{0,9}", 0..5)) {
        let data = if datatype == DataType::Bytes {
            Data::Bytes(texts)
        } else {
            Data::from_bytes(datatype, &bytes[..bytes.len() / 8 * 8]).unwrap()
        };
        let mut wire = Vec::new();
        data.write_bytes(&mut wire);
        let mut again = Vec::new();
        Data::from_bytes(datatype, &wire).unwrap().write_bytes(&mut again);
        prop_assert_eq!(wire, again);
    }

    #[test]
    fn a_name_twice_is_refused_anywhere(depth in 0_usize..100, name in "[a-z]{1,4}") {
        let inner = format!(r#"{{"{name}": 1, "{name}": 2}}"#);
        let text = format!("{}{inner}{}", r#"{"a": "#.repeat(depth), "}".repeat(depth));
        prop_assert!(strict::parse(text.as_bytes()).is_err());
    }
}

/// One request of the test below: its rows, when it starts, and whether its client goes away.
type Call = (u8, u8, bool);

fn calls() -> impl Strategy<Value = Vec<Call>> {
    vec((1_u8..6, 0_u8..4, proptest::bool::weighted(0.25)), 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    #[test]
    fn every_request_gets_its_own_rows(calls in calls(), threads in 1_usize..3, rows in 1_usize..20, wait in 0_u64..300) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async move {
            let registry = Registry::new();
            registry.publish("scaled", "1.0.0", &Draft::scaled(2.0));
            let flags = [("--model-threads", threads.to_string()), ("--max-batch", rows.to_string()), ("--max-wait-us", wait.to_string())];
            let flags: Vec<&str> = flags.iter().flat_map(|(flag, value)| [*flag, value.as_str()]).collect();
            let app = registry.serve(&flags);
            let model = app.catalog.get("scaled", None).await.unwrap();
            let mut asked = Vec::new();
            for (index, (count, pause, leaves)) in calls.into_iter().enumerate() {
                let (model, count) = (model.clone(), usize::from(count));
                #[allow(clippy::cast_precision_loss)]
                let values: Vec<f32> = (0..count * 3).map(|value| (index * 1000 + value) as f32).collect();
                let tensor = ocad_server::model::tensor::Tensor { shape: vec![i64::try_from(count).unwrap(), 3], data: Data::Fp32(values.clone()) };
                let task = tokio::spawn(async move {
                    let deadline = Instant::now() + Duration::from_secs(20);
                    (values, model.infer(vec![tensor], count, vec![0], deadline).await)
                });
                if leaves {
                    task.abort();
                }
                asked.push((task, leaves));
                if pause == 0 {
                    tokio::task::yield_now().await;
                }
            }
            for (task, leaves) in asked {
                match task.await {
                    Ok((values, answer)) => {
                        let doubled: Vec<f32> = values.iter().map(|value| value * 2.0).collect();
                        assert_eq!(answer.unwrap()[0].data, Data::Fp32(doubled));
                    }
                    Err(_) => assert!(leaves, "a request that nobody left has no answer"),
                }
            }
            // a job whose client left last may still wait for a thread to drop it
            let emptied = async {
                while model.depth() > 0 {
                    tokio::task::yield_now().await;
                }
            };
            tokio::time::timeout(Duration::from_secs(20), emptied).await.expect("a job stays in the queue");
        });
    }
}
