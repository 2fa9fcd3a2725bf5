//! The runtime library and one session of it.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use half::{bf16, f16};
use ort::environment::Environment;
use ort::session::builder::GraphOptimizationLevel;
use ort::session::{Session, SessionInputValue};
use ort::value::{DynValue, PrimitiveTensorElementType, TensorRef, ValueRef, ValueType};

use super::leash::Leash;
use super::signature::{Port, Signature};
use super::tensor::{Data, DataType, Tensor};
use crate::error::{Error, Result};

/// The loaded ONNX Runtime library; there is one for the life of the process.
#[derive(Debug, Clone)]
pub struct Runtime(Environment);

impl Runtime {
    /// Loads the library at `path`.
    pub fn load(path: &Path) -> Result<Self> {
        let builder = ort::init_from(path).map_err(|cause| {
            Error::Unavailable(format!(
                "the ONNX Runtime library `{}` cannot be loaded ({cause}): give the path of a `libonnxruntime.so` of version 1.24 or newer with `--onnxruntime` or `ORT_DYLIB_PATH`",
                path.display()
            ))
        })?;
        let log: ort::logging::LoggerFunction = Arc::new(|level, _, _, place, message| {
            tracing::debug!(?level, place, message, "onnxruntime");
        });
        let environment = builder
            .with_logger(log)
            .with_name("ocad-server")
            .with_telemetry(false)
            .build()
            .map_err(|cause| Error::Internal(cause.to_string()))?;
        environment.set_log_level(ort::logging::LogLevel::Error);
        Ok(Self(environment))
    }
}

/// One session; it belongs to one thread.
pub struct Graph {
    session: Session,
    leash: Arc<Leash>,
}

impl Graph {
    /// Builds the session of the ONNX file at `path`, on one thread that never spins; [`Error::Deadline`] where that
    /// takes longer than until `until`.
    pub fn load(runtime: &Runtime, path: &Path, leash: Arc<Leash>, until: Instant) -> Result<Self> {
        let built = build(runtime, path, &leash, until);
        let cut = leash.free();
        built.map(|session| Self { session, leash }).map_err(|cause| {
            if cut {
                return Error::Deadline;
            }
            // answers name no path of this machine
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let cause = cause.to_string().replace(&*path.to_string_lossy(), &name);
            Error::Unavailable(format!("the runtime cannot load `{name}`: {cause}"))
        })
    }

    /// The inputs and outputs that the graph itself declares.
    pub fn signature(&self) -> Result<Signature> {
        let ports = |outlets: &[ort::value::Outlet]| outlets.iter().map(port).collect::<Result<Vec<_>>>();
        Ok(Signature { inputs: ports(self.session.inputs())?, outputs: ports(self.session.outputs())? })
    }

    /// Runs `inputs` (shape and values, in the graph's order) and hands the outputs to `read`; [`Error::Deadline`] where
    /// the run takes longer than until `until`.
    pub fn run<T>(
        &mut self,
        inputs: &[(&[i64], &Data)],
        until: Instant,
        read: impl FnOnce(&[Output<'_>]) -> Result<T>,
    ) -> Result<T> {
        let values = inputs
            .iter()
            .map(|(shape, data)| input_value(shape, data))
            .collect::<ort::Result<Vec<_>>>()
            .map_err(refused)?;
        self.leash.hold(until, None);
        let outputs = self.session.run_with_options(values.as_slice(), self.leash.options());
        let cut = self.leash.free();
        let outputs = outputs.map_err(|cause| if cut { Error::Deadline } else { refused(cause) })?;
        let outputs: Vec<Output<'_>> = outputs.values().map(Output).collect();
        read(&outputs)
    }
}

fn build(runtime: &Runtime, path: &Path, leash: &Leash, until: Instant) -> ort::Result<Session> {
    let mut builder = Session::builder(&runtime.0)?
        .with_optimization_level(GraphOptimizationLevel::All)?
        .with_intra_threads(1)?
        .with_inter_threads(1)?
        .with_intra_op_spinning(false)?
        .with_inter_op_spinning(false)?;
    leash.hold(until, Some(builder.canceler()));
    builder.commit_from_file(path)
}

/// A run that the runtime refuses for its values is the client's fault (an id outside a table), any other is ours.
#[allow(clippy::needless_pass_by_value)] // the shape that `map_err` takes
fn refused(cause: ort::Error) -> Error {
    if cause.code() == ort::ErrorCode::InvalidArgument {
        tracing::info!(cause = %cause, "the runtime refused the values of a request");
        Error::Invalid(
            "the model cannot take these values: check that ids are within the vocabulary of their field".into(),
        )
    } else {
        Error::Internal(cause.to_string())
    }
}

fn port(outlet: &ort::value::Outlet) -> Result<Port> {
    let ValueType::Tensor { ty, shape, .. } = outlet.dtype() else {
        return Err(Error::Unavailable(format!("`{}` is no tensor: only tensors are served", outlet.name())));
    };
    let datatype = DataType::from_runtime(*ty).ok_or_else(|| {
        Error::Unavailable(format!("`{}` is of type {ty:?}, which the protocol does not have", outlet.name()))
    })?;
    Ok(Port { name: outlet.name().to_owned(), datatype, shape: shape.to_vec() })
}

fn input_value<'v>(shape: &'v [i64], data: &'v Data) -> ort::Result<SessionInputValue<'v>> {
    fn view<'v, T: PrimitiveTensorElementType + Clone + std::fmt::Debug + 'static>(
        shape: &'v [i64],
        values: &'v [T],
    ) -> ort::Result<SessionInputValue<'v>> {
        TensorRef::from_array_view((shape, values)).map(Into::into)
    }
    match data {
        Data::Uint8(v) => view(shape, v),
        Data::Uint16(v) => view(shape, v),
        Data::Uint32(v) => view(shape, v),
        Data::Uint64(v) => view(shape, v),
        Data::Int8(v) => view(shape, v),
        Data::Int16(v) => view(shape, v),
        Data::Int32(v) => view(shape, v),
        Data::Int64(v) => view(shape, v),
        Data::Fp16(v) => view(shape, v),
        Data::Bf16(v) => view(shape, v),
        Data::Fp32(v) => view(shape, v),
        Data::Fp64(v) => view(shape, v),
        Data::Bool(v) => view(shape, v),
        Data::Bytes(v) => ort::value::Tensor::from_string_array((shape, v.as_slice())).map(Into::into),
    }
}

/// An output of a run, still in the runtime's memory.
pub struct Output<'a>(ValueRef<'a>);

impl Output<'_> {
    /// Its dimensions.
    pub fn shape(&self) -> Result<Vec<i64>> {
        match self.0.dtype() {
            ValueType::Tensor { shape, .. } => Ok(shape.to_vec()),
            other => Err(Error::Internal(format!("an output is no tensor but {other}"))),
        }
    }

    /// Copies all of it.
    pub fn whole(&self) -> Result<Tensor> {
        let shape = self.shape()?;
        let count = super::tensor::volume(&shape)?;
        Ok(Tensor { shape, data: self.values(0, count)? })
    }

    /// Copies `rows` rows from row `start`, of an output whose first dimension is the batch.
    pub fn rows(&self, start: usize, rows: usize) -> Result<Tensor> {
        let mut shape = self.shape()?;
        let stride = super::tensor::volume(&shape[1..])?;
        shape[0] = i64::try_from(rows).unwrap_or(i64::MAX);
        Ok(Tensor { data: self.values(start * stride, (start + rows) * stride)?, shape })
    }

    fn values(&self, from: usize, to: usize) -> Result<Data> {
        let ValueType::Tensor { ty, .. } = self.0.dtype() else {
            return Err(Error::Internal("an output is no tensor".into()));
        };
        let datatype = DataType::from_runtime(*ty).ok_or_else(|| Error::Internal(format!("an output is {ty:?}")))?;
        self.copy(datatype, from, to).map_err(|cause| Error::Internal(cause.to_string()))
    }

    fn copy(&self, datatype: DataType, from: usize, to: usize) -> ort::Result<Data> {
        let value: &DynValue = &self.0;
        Ok(match datatype {
            DataType::Uint8 => Data::Uint8(slice::<u8>(value, from, to)?),
            DataType::Uint16 => Data::Uint16(slice::<u16>(value, from, to)?),
            DataType::Uint32 => Data::Uint32(slice::<u32>(value, from, to)?),
            DataType::Uint64 => Data::Uint64(slice::<u64>(value, from, to)?),
            DataType::Int8 => Data::Int8(slice::<i8>(value, from, to)?),
            DataType::Int16 => Data::Int16(slice::<i16>(value, from, to)?),
            DataType::Int32 => Data::Int32(slice::<i32>(value, from, to)?),
            DataType::Int64 => Data::Int64(slice::<i64>(value, from, to)?),
            DataType::Fp16 => Data::Fp16(slice::<f16>(value, from, to)?),
            DataType::Bf16 => Data::Bf16(slice::<bf16>(value, from, to)?),
            DataType::Fp32 => Data::Fp32(slice::<f32>(value, from, to)?),
            DataType::Fp64 => Data::Fp64(slice::<f64>(value, from, to)?),
            DataType::Bool => Data::Bool(slice::<bool>(value, from, to)?),
            DataType::Bytes => Data::Bytes(value.try_extract_strings()?.1[from..to].to_vec()),
        })
    }
}

fn slice<T: PrimitiveTensorElementType + Clone>(value: &DynValue, from: usize, to: usize) -> ort::Result<Vec<T>> {
    value.try_extract_tensor::<T>().map(|(_, values)| values[from..to].to_vec())
}
