//! The calls, each from its message to its answer.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::HeaderMap;

use super::message::{decode, encode};
use super::proto::{
    self, ModelConfigRequest, ModelConfigResponse, ModelInferRequest, ModelMetadataRequest, ModelMetadataResponse,
    ModelReadyRequest, ModelReadyResponse, ModelStatisticsRequest, ModelStatisticsResponse, RepositoryIndexRequest,
    RepositoryIndexResponse, RepositoryModelLoadRequest, RepositoryModelLoadResponse, RepositoryModelUnloadRequest,
    RepositoryModelUnloadResponse, ServerLiveRequest, ServerLiveResponse, ServerMetadataRequest,
    ServerMetadataResponse, ServerReadyRequest, ServerReadyResponse, repository_index_response,
};
use super::{convert, wire};
use crate::budget::Ticket;
use crate::error::{Error, Result};
use crate::http::models::{EXTENSIONS, PLATFORM};
use crate::infer::{App, Plan, Protocol, Source};
use crate::work;

/// A method of the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    ServerLive,
    ServerReady,
    ModelReady,
    ServerMetadata,
    ModelMetadata,
    ModelInfer,
    ModelConfig,
    ModelStatistics,
    RepositoryIndex,
    RepositoryModelLoad,
    RepositoryModelUnload,
}

impl Call {
    /// Every method.
    const ALL: [Self; 11] = [
        Self::ServerLive,
        Self::ServerReady,
        Self::ModelReady,
        Self::ServerMetadata,
        Self::ModelMetadata,
        Self::ModelInfer,
        Self::ModelConfig,
        Self::ModelStatistics,
        Self::RepositoryIndex,
        Self::RepositoryModelLoad,
        Self::RepositoryModelUnload,
    ];

    /// The name in the protocol.
    pub fn name(self) -> &'static str {
        match self {
            Self::ServerLive => "ServerLive",
            Self::ServerReady => "ServerReady",
            Self::ModelReady => "ModelReady",
            Self::ServerMetadata => "ServerMetadata",
            Self::ModelMetadata => "ModelMetadata",
            Self::ModelInfer => "ModelInfer",
            Self::ModelConfig => "ModelConfig",
            Self::ModelStatistics => "ModelStatistics",
            Self::RepositoryIndex => "RepositoryIndex",
            Self::RepositoryModelLoad => "RepositoryModelLoad",
            Self::RepositoryModelUnload => "RepositoryModelUnload",
        }
    }

    /// The method at `path`.
    pub fn of(path: &str) -> Option<Self> {
        let name = path.strip_prefix("/inference.GRPCInferenceService/")?;
        Self::ALL.into_iter().find(|call| call.name() == name)
    }

    /// Whether it is open to all and answered whatever else goes on.
    pub fn is_probe(self) -> bool {
        matches!(self, Self::ServerLive | Self::ServerReady)
    }
}

/// A selector is a version or an alias; the protocol writes none as the empty text.
fn selector(version: &str) -> Option<&str> {
    Some(version).filter(|version| !version.is_empty())
}

/// The encoded answer of any call but an inference.
pub async fn ask(app: &App, call: Call, message: Bytes) -> Result<Bytes> {
    match call {
        Call::ServerLive => {
            decode::<ServerLiveRequest>(message)?;
            encode(&ServerLiveResponse { live: true })
        }
        Call::ServerReady => {
            decode::<ServerReadyRequest>(message)?;
            encode(&ServerReadyResponse { ready: app.catalog.readiness().ready })
        }
        Call::ServerMetadata => {
            decode::<ServerMetadataRequest>(message)?;
            encode(&ServerMetadataResponse {
                name: "ocad-server".into(),
                version: env!("CARGO_PKG_VERSION").into(),
                extensions: EXTENSIONS.iter().map(ToString::to_string).collect(),
            })
        }
        Call::ModelReady => encode(&ready(app, decode(message)?).await?),
        Call::ModelMetadata => encode(&metadata(app, decode(message)?).await?),
        Call::ModelConfig => encode(&config(app, decode(message)?).await?),
        Call::ModelStatistics => {
            let ModelStatisticsRequest { name, version } = decode(message)?;
            let models = app.counted(&name, selector(&version)).await?;
            let model_stats = models.iter().map(|model| convert::statistics(model)).collect();
            encode(&ModelStatisticsResponse { model_stats })
        }
        Call::RepositoryIndex => encode(&index(app, &decode(message)?)),
        Call::RepositoryModelLoad => {
            app.control(&decode::<RepositoryModelLoadRequest>(message)?.model_name, true).await?;
            encode(&RepositoryModelLoadResponse {})
        }
        Call::RepositoryModelUnload => {
            app.control(&decode::<RepositoryModelUnloadRequest>(message)?.model_name, false).await?;
            encode(&RepositoryModelUnloadResponse {})
        }
        Call::ModelInfer => Err(Error::Internal("an inference is no question".into())),
    }
}

async fn ready(app: &App, request: ModelReadyRequest) -> Result<ModelReadyResponse> {
    match app.source(&request.name, selector(&request.version)).await {
        Ok(_) => Ok(ModelReadyResponse { ready: true }),
        Err(Error::Unavailable(_) | Error::NotFound(_)) => Ok(ModelReadyResponse { ready: false }),
        Err(error) => Err(error),
    }
}

async fn metadata(app: &App, request: ModelMetadataRequest) -> Result<ModelMetadataResponse> {
    Ok(match app.source(&request.name, selector(&request.version)).await? {
        Source::Model(model, _) => ModelMetadataResponse {
            name: model.name.clone(),
            versions: app.catalog.versions(&model.name),
            platform: PLATFORM.into(),
            inputs: convert::ports(&model.signature.inputs),
            outputs: convert::ports(&model.signature.outputs),
        },
        Source::Constant(_, name) => ModelMetadataResponse { name, platform: "constant".into(), ..Default::default() },
    })
}

async fn config(app: &App, request: ModelConfigRequest) -> Result<ModelConfigResponse> {
    let config = match app.source(&request.name, selector(&request.version)).await? {
        Source::Model(model, _) => convert::configuration(&model),
        Source::Constant(_, name) => proto::ModelConfig { name, platform: "constant".into(), ..Default::default() },
    };
    Ok(ModelConfigResponse { config: Some(config) })
}

fn index(app: &App, request: &RepositoryIndexRequest) -> RepositoryIndexResponse {
    let lines = app.catalog.listing(request.ready).into_iter();
    let models = lines.map(|line| repository_index_response::ModelIndex {
        name: line.name,
        version: line.version,
        state: line.state.into(),
        reason: line.reason,
    });
    RepositoryIndexResponse { models: models.collect() }
}

/// An inference: its answer, encoded. `model` is told the name that was asked for.
pub async fn infer(
    app: &App,
    headers: &HeaderMap,
    message: Bytes,
    ticket: &Arc<Ticket>,
    model: &mut String,
) -> Result<Bytes> {
    let arrived = Instant::now();
    let patience = convert::timeout(headers)?;
    let size = message.len();
    let counted = Arc::clone(ticket);
    let request = work::run(size, move || read(message, &counted)).await?;
    model.clone_from(&request.model_name);
    let source = app.source(&request.model_name, selector(&request.model_version)).await?;
    source.admit()?;
    let parameter = convert::timeout_parameter(&request);
    let patience = [patience, parameter].into_iter().flatten().fold(app.limits.answer, Duration::min);
    let (source, plan, id) = work::run(size, move || plan(source, request)).await?;
    ticket.give(size);
    let answer = app.infer(source, plan, arrived + patience, (Protocol::Grpc, arrived)).await?;
    let size = answer.outputs.iter().map(|(_, tensor)| tensor.data.len() * size_of::<u64>()).sum();
    ticket.answer(2 * size)?;
    work::run(size, move || encode(&convert::answer(answer, id))).await
}

/// Counts what `message` will take, and decodes it then.
fn read(message: Bytes, ticket: &Ticket) -> Result<ModelInferRequest> {
    ticket.take(wire::weight(&message)?)?;
    decode(message)
}

/// What `source` is to do for `request`, and the id of it.
fn plan(source: Source, request: ModelInferRequest) -> Result<(Source, Result<Plan>, String)> {
    let (inputs, wanted, id) = convert::inputs(request)?;
    let plan = source.plan(inputs, wanted.as_deref());
    Ok((source, plan, id))
}
