//! Between the protocol's messages and the server's own types.

use std::borrow::Cow;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;

use super::proto::infer_parameter::ParameterChoice;
use super::proto::model_config::SchedulingChoice;
use super::proto::model_infer_response::InferOutputTensor;
use super::proto::model_metadata_response::TensorMetadata;
use super::proto::{
    InferBatchStatistics, InferParameter, InferStatistics, InferTensorContents, ModelConfig, ModelDynamicBatching,
    ModelInferRequest, ModelInferResponse, ModelInput, ModelOutput, ModelStatistics, StatisticDuration,
};
use crate::error::{Error, Result};
use crate::http::models::PLATFORM;
use crate::infer::Answer;
use crate::model::served::Model;
use crate::model::signature::{NamedTensor, Port};
use crate::model::statistics::Span;
use crate::model::tensor::{Data, DataType, Tensor};
use crate::text::shown;

/// The inputs, the outputs asked for (`None` for all) and the id of a request.
pub type Parts = (Vec<NamedTensor<'static>>, Option<Vec<String>>, String);

/// The client's deadline, from the `grpc-timeout` header.
pub fn timeout(headers: &HeaderMap) -> Result<Option<Duration>> {
    let Some(value) = headers.get("grpc-timeout") else { return Ok(None) };
    let wrong = || Error::Invalid("the `grpc-timeout` header is no timeout: send up to 8 digits and a unit".into());
    let text = value.to_str().map_err(|_| wrong())?;
    let (digits, unit) = text.split_at_checked(text.len().saturating_sub(1)).ok_or_else(wrong)?;
    let number: u64 = digits.parse().map_err(|_| wrong())?;
    Ok(Some(match unit {
        "H" => Duration::from_secs(number.saturating_mul(3600)),
        "M" => Duration::from_secs(number.saturating_mul(60)),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return Err(wrong()),
    }))
}

/// The client's deadline, from the request's parameter `timeout` in microseconds.
#[must_use]
pub fn timeout_parameter(request: &ModelInferRequest) -> Option<Duration> {
    let microseconds = match request.parameters.get("timeout")?.parameter_choice.as_ref()? {
        ParameterChoice::Int64Param(value) => u64::try_from(*value).ok()?,
        ParameterChoice::Uint64Param(value) => *value,
        _ => return None,
    };
    Some(Duration::from_micros(microseconds)).filter(|timeout| !timeout.is_zero())
}

/// Reads the tensors of `request`, from its raw contents where it has any.
pub fn inputs(request: ModelInferRequest) -> Result<Parts> {
    let raw = request.raw_input_contents;
    if !raw.is_empty() && raw.len() != request.inputs.len() {
        return Err(Error::Invalid(format!(
            "{} raw contents were sent for {} inputs: send one each",
            raw.len(),
            request.inputs.len()
        )));
    }
    let mut raw = raw.into_iter();
    let inputs = request.inputs.into_iter().map(|input| {
        let datatype = DataType::parse(&input.datatype)?;
        if input.parameters.contains_key("shared_memory_region") {
            return Err(Error::Invalid(format!(
                "input `{}`: shared memory is not served: send the values",
                shown(&input.name)
            )));
        }
        let data = match (raw.next(), input.contents) {
            (Some(_), Some(_)) => Err(Error::Invalid("both raw and typed contents were sent: send one".into())),
            (Some(bytes), None) => Data::from_bytes(datatype, &bytes),
            (None, contents) => typed(datatype, contents.unwrap_or_default()),
        };
        let data = data.map_err(|cause| Error::Invalid(format!("input `{}`: {cause}", shown(&input.name))))?;
        Ok(NamedTensor { name: Cow::Owned(input.name), tensor: Tensor { shape: input.shape, data } })
    });
    let inputs = inputs.collect::<Result<Vec<_>>>()?;
    let wanted: Vec<String> = request.outputs.into_iter().map(|output| output.name).collect();
    Ok((inputs, Some(wanted).filter(|wanted| !wanted.is_empty()), request.id))
}

fn typed(datatype: DataType, contents: InferTensorContents) -> Result<Data> {
    fn narrow<T: TryFrom<U>, U: Copy + std::fmt::Display>(values: &[U], datatype: DataType) -> Result<Vec<T>> {
        let outside = |value| Error::Invalid(format!("`{value}` is no {}", datatype.name()));
        values.iter().map(|value| T::try_from(*value).map_err(|_| outside(*value))).collect()
    }
    Ok(match datatype {
        DataType::Bool => Data::Bool(contents.bool_contents),
        DataType::Int8 => Data::Int8(narrow(&contents.int_contents, datatype)?),
        DataType::Int16 => Data::Int16(narrow(&contents.int_contents, datatype)?),
        DataType::Int32 => Data::Int32(contents.int_contents),
        DataType::Int64 => Data::Int64(contents.int64_contents),
        DataType::Uint8 => Data::Uint8(narrow(&contents.uint_contents, datatype)?),
        DataType::Uint16 => Data::Uint16(narrow(&contents.uint_contents, datatype)?),
        DataType::Uint32 => Data::Uint32(contents.uint_contents),
        DataType::Uint64 => Data::Uint64(contents.uint64_contents),
        DataType::Fp32 => Data::Fp32(contents.fp32_contents),
        DataType::Fp64 => Data::Fp64(contents.fp64_contents),
        DataType::Bytes => Data::Bytes(texts(&contents.bytes_contents)?),
        DataType::Fp16 | DataType::Bf16 => {
            return Err(Error::Invalid(format!(
                "{} has no typed contents: send `raw_input_contents`",
                datatype.name()
            )));
        }
    })
}

fn texts(values: &[Bytes]) -> Result<Vec<String>> {
    let text = |(index, bytes): (usize, &Bytes)| {
        let text =
            std::str::from_utf8(bytes).map_err(|_| Error::Invalid(format!("element {index} is not valid UTF-8")));
        text.map(ToOwned::to_owned)
    };
    values.iter().enumerate().map(text).collect()
}

/// The response of `answer`, its values raw.
#[must_use]
pub fn answer(answer: Answer, id: String) -> ModelInferResponse {
    let source = &answer.source;
    let parameter = |choice| InferParameter { parameter_choice: Some(choice) };
    let mut parameters = vec![("version", ParameterChoice::StringParam(source.version().to_owned()))];
    parameters
        .extend(source.digest().map(|digest| ("metadata_sha256", ParameterChoice::StringParam(digest.to_owned()))));
    parameters.extend(source.is_default().then_some(("default", ParameterChoice::BoolParam(true))));
    let mut response = ModelInferResponse {
        model_name: source.name().to_owned(),
        model_version: source.version().to_owned(),
        id,
        parameters: parameters.into_iter().map(|(name, choice)| (name.to_owned(), parameter(choice))).collect(),
        ..Default::default()
    };
    for (name, tensor) in answer.outputs {
        let mut raw = Vec::with_capacity(tensor.data.len() * 8);
        tensor.data.write_bytes(&mut raw);
        response.raw_output_contents.push(raw.into());
        let datatype = tensor.data.datatype().name().to_owned();
        response.outputs.push(InferOutputTensor { name, datatype, shape: tensor.shape, ..Default::default() });
    }
    response
}

/// The protocol's description of `ports`.
#[must_use]
pub fn ports(ports: &[Port]) -> Vec<TensorMetadata> {
    let describe = |port: &Port| TensorMetadata {
        name: port.name.clone(),
        datatype: port.datatype.name().to_owned(),
        shape: port.shape.clone(),
    };
    ports.iter().map(describe).collect()
}

/// The configuration of `model` in the words of the model configuration extension.
#[must_use]
pub fn configuration(model: &Model) -> ModelConfig {
    let skip = usize::from(model.batchable);
    let dims = |port: &Port| port.shape[skip..].to_vec();
    let input =
        |port: &Port| ModelInput { name: port.name.clone(), data_type: data_type(port.datatype), dims: dims(port) };
    let output =
        |port: &Port| ModelOutput { name: port.name.clone(), data_type: data_type(port.datatype), dims: dims(port) };
    let rows = i32::try_from(model.batch_rows).unwrap_or(i32::MAX);
    ModelConfig {
        name: model.name.clone(),
        platform: PLATFORM.into(),
        backend: "onnxruntime".into(),
        max_batch_size: if model.batchable { rows } else { 0 },
        input: model.signature.inputs.iter().map(input).collect(),
        output: model.signature.outputs.iter().map(output).collect(),
        scheduling_choice: model.batchable.then(|| SchedulingChoice::DynamicBatching(ModelDynamicBatching::default())),
    }
}

fn data_type(datatype: DataType) -> i32 {
    let name = match datatype {
        DataType::Bytes => "TYPE_STRING".to_owned(),
        other => format!("TYPE_{}", other.name()),
    };
    super::proto::DataType::from_str_name(&name).map_or(0, |number| number as i32)
}

/// What `model` has done, in the words of the statistics extension.
#[must_use]
pub fn statistics(model: &Model) -> ModelStatistics {
    let duration = |span: Span| Some(StatisticDuration { count: span.count, ns: span.ns });
    let figures = model.statistics.figures();
    let requests = figures.requests;
    let batches = figures.batches.iter().map(|(rows, computed)| InferBatchStatistics {
        batch_size: *rows,
        compute_input: duration(computed.compute_input),
        compute_infer: duration(computed.compute_infer),
        compute_output: duration(computed.compute_output),
    });
    ModelStatistics {
        name: model.name.clone(),
        version: model.version_text.clone(),
        last_inference: figures.last_inference,
        inference_count: figures.inferences,
        execution_count: figures.executions,
        inference_stats: Some(InferStatistics {
            success: duration(figures.success),
            fail: duration(figures.fail),
            queue: duration(figures.queue),
            compute_input: duration(requests.compute_input),
            compute_infer: duration(requests.compute_infer),
            compute_output: duration(requests.compute_output),
            cache_hit: duration(Span::default()),
            cache_miss: duration(Span::default()),
        }),
        batch_stats: batches.collect(),
    }
}
