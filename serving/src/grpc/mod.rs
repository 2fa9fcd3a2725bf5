//! The gRPC side of the Open Inference Protocol.

pub mod convert;

use std::sync::Arc;
use std::time::Instant;

use tonic::codec::CompressionEncoding;
use tonic::{Request, Response, Status};

use crate::error::{Error, Result};
use crate::http::models::{EXTENSIONS, PLATFORM};
use crate::http::observe::trace_ids;
use crate::infer::{App, Protocol, Source};

/// The protocol's messages and service, generated from `proto/grpc_inference.proto`.
#[allow(missing_docs, clippy::all, clippy::pedantic)]
pub mod proto {
    tonic::include_proto!("inference");
}

use proto::grpc_inference_service_server::{GrpcInferenceService, GrpcInferenceServiceServer};
use proto::{
    ModelConfigRequest, ModelConfigResponse, ModelInferRequest, ModelInferResponse, ModelMetadataRequest,
    ModelMetadataResponse, ModelReadyRequest, ModelReadyResponse, ModelStatisticsRequest, ModelStatisticsResponse,
    RepositoryIndexRequest, RepositoryIndexResponse, RepositoryModelLoadRequest, RepositoryModelLoadResponse,
    RepositoryModelUnloadRequest, RepositoryModelUnloadResponse, ServerLiveRequest, ServerLiveResponse,
    ServerMetadataRequest, ServerMetadataResponse, ServerReadyRequest, ServerReadyResponse, repository_index_response,
};

/// The service over the shared state.
pub struct Inference(Arc<App>);

/// The service over `app`, within its limit of a message's size.
#[must_use]
pub fn service(app: Arc<App>) -> GrpcInferenceServiceServer<Inference> {
    let limit = app.limits.body;
    GrpcInferenceServiceServer::new(Inference(app))
        .max_decoding_message_size(limit)
        .accept_compressed(CompressionEncoding::Gzip)
        .accept_compressed(CompressionEncoding::Deflate)
        .accept_compressed(CompressionEncoding::Zstd)
}

type Reply<T> = Result<Response<T>, Status>;

/// A selector is a version or an alias; the protocol writes none as the empty text.
fn selector(version: &str) -> Option<&str> {
    Some(version).filter(|version| !version.is_empty())
}

impl Inference {
    fn permit<T>(&self, request: &Request<T>) -> Result<()> {
        match &self.0.token {
            Some(token) => {
                token.check(request.metadata().get("authorization").map(tonic::metadata::MetadataValue::as_bytes))
            }
            None => Ok(()),
        }
    }

    async fn infer(&self, request: Request<ModelInferRequest>) -> Result<ModelInferResponse> {
        let arrived = Instant::now();
        self.permit(&request)?;
        let patience = convert::timeout(request.metadata())?;
        let request = request.into_inner();
        let source = self.0.source(&request.model_name, selector(&request.model_version)).await?;
        source.admit()?;
        let parameter = convert::timeout_parameter(&request);
        let patience = [patience, parameter].into_iter().flatten().fold(self.0.limits.answer, std::time::Duration::min);
        let (inputs, wanted, id) = convert::inputs(request)?;
        let answer =
            self.0.infer(source, inputs, wanted.as_deref(), arrived + patience, (Protocol::Grpc, arrived)).await?;
        Ok(convert::answer(answer, id))
    }
}

/// Logs a failed call as the HTTP side does.
fn log(method: &str, model: &str, (id, trace): (&str, &str), error: &Error) {
    let (trace, span) = trace_ids(trace);
    let message = error.to_string();
    if let Some(cause) = error.cause() {
        tracing::error!(protocol = "grpc", method, model, code = ?error.code(), request_id = id, trace_id = trace, parent_id = span, error = message, cause, "request");
    } else {
        tracing::info!(protocol = "grpc", method, model, code = ?error.code(), request_id = id, trace_id = trace, parent_id = span, error = message, "request");
    }
}

#[tonic::async_trait]
impl GrpcInferenceService for Inference {
    async fn server_live(&self, _request: Request<ServerLiveRequest>) -> Reply<ServerLiveResponse> {
        Ok(Response::new(ServerLiveResponse { live: true }))
    }

    async fn server_ready(&self, _request: Request<ServerReadyRequest>) -> Reply<ServerReadyResponse> {
        Ok(Response::new(ServerReadyResponse { ready: self.0.catalog.readiness().ready }))
    }

    async fn model_ready(&self, request: Request<ModelReadyRequest>) -> Reply<ModelReadyResponse> {
        self.permit(&request)?;
        let ModelReadyRequest { name, version } = request.into_inner();
        match self.0.source(&name, selector(&version)).await {
            Ok(_) => Ok(Response::new(ModelReadyResponse { ready: true })),
            Err(Error::Unavailable(_) | Error::NotFound(_)) => Ok(Response::new(ModelReadyResponse { ready: false })),
            Err(error) => Err(error.into()),
        }
    }

    async fn server_metadata(&self, request: Request<ServerMetadataRequest>) -> Reply<ServerMetadataResponse> {
        self.permit(&request)?;
        Ok(Response::new(ServerMetadataResponse {
            name: "ocad-server".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            extensions: EXTENSIONS.iter().map(ToString::to_string).collect(),
        }))
    }

    async fn model_metadata(&self, request: Request<ModelMetadataRequest>) -> Reply<ModelMetadataResponse> {
        self.permit(&request)?;
        let ModelMetadataRequest { name, version } = request.into_inner();
        let response = match self.0.source(&name, selector(&version)).await? {
            Source::Model(model, _) => ModelMetadataResponse {
                name: model.name.clone(),
                versions: self.0.catalog.versions(&model.name),
                platform: PLATFORM.into(),
                inputs: convert::ports(&model.signature.inputs),
                outputs: convert::ports(&model.signature.outputs),
            },
            Source::Constant(_, name) => {
                ModelMetadataResponse { name, platform: "constant".into(), ..Default::default() }
            }
        };
        Ok(Response::new(response))
    }

    async fn model_infer(&self, request: Request<ModelInferRequest>) -> Reply<ModelInferResponse> {
        let text =
            |name| request.metadata().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
        let (id, trace) = (text("x-request-id"), text("traceparent"));
        let model = request.get_ref().model_name.clone();
        match self.infer(request).await {
            Ok(response) => Ok(Response::new(response)),
            Err(error) => {
                self.0.failed(Protocol::Grpc, &model, &error);
                log("ModelInfer", &model, (&id, &trace), &error);
                Err(error.into())
            }
        }
    }

    async fn model_config(&self, request: Request<ModelConfigRequest>) -> Reply<ModelConfigResponse> {
        self.permit(&request)?;
        let ModelConfigRequest { name, version } = request.into_inner();
        let config = match self.0.source(&name, selector(&version)).await? {
            Source::Model(model, _) => convert::configuration(&model),
            Source::Constant(_, name) => proto::ModelConfig { name, platform: "constant".into(), ..Default::default() },
        };
        Ok(Response::new(ModelConfigResponse { config: Some(config) }))
    }

    async fn model_statistics(&self, request: Request<ModelStatisticsRequest>) -> Reply<ModelStatisticsResponse> {
        self.permit(&request)?;
        let ModelStatisticsRequest { name, version } = request.into_inner();
        let models = self.0.counted(&name, selector(&version)).await?;
        let model_stats = models.iter().map(|model| convert::statistics(model)).collect();
        Ok(Response::new(ModelStatisticsResponse { model_stats }))
    }

    async fn repository_index(&self, request: Request<RepositoryIndexRequest>) -> Reply<RepositoryIndexResponse> {
        self.permit(&request)?;
        let lines = self.0.catalog.listing(request.get_ref().ready).into_iter();
        let models = lines.map(|line| repository_index_response::ModelIndex {
            name: line.name,
            version: line.version,
            state: line.state.into(),
            reason: line.reason,
        });
        Ok(Response::new(RepositoryIndexResponse { models: models.collect() }))
    }

    async fn repository_model_load(
        &self,
        request: Request<RepositoryModelLoadRequest>,
    ) -> Reply<RepositoryModelLoadResponse> {
        self.permit(&request)?;
        self.0.control(&request.get_ref().model_name, true).await?;
        Ok(Response::new(RepositoryModelLoadResponse {}))
    }

    async fn repository_model_unload(
        &self,
        request: Request<RepositoryModelUnloadRequest>,
    ) -> Reply<RepositoryModelUnloadResponse> {
        self.permit(&request)?;
        self.0.control(&request.get_ref().model_name, false).await?;
        Ok(Response::new(RepositoryModelUnloadResponse {}))
    }
}
