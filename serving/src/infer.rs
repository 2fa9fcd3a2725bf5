//! The one path of an inference, whatever protocol it came by.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::budget::Budget;
use crate::error::{Error, Result};
use crate::metrics::{Metrics, Served};
use crate::model::catalog::Catalog;
use crate::model::served::Model;
use crate::model::signature::NamedTensor;
use crate::model::tensor::{Data, Tensor};
use crate::text::shown;

/// The most numbers that a constant answers with, over all outputs.
const MOST_CONSTANTS: usize = 1 << 20;

/// What answers for a model that has no version yet.
#[derive(Debug, Clone, PartialEq)]
pub enum Fallback {
    /// The same number for every row.
    Constant(f32),
    /// Another model, at a version or alias where one is given.
    Model(String, Option<String>),
}

/// The limits that every request keeps to.
#[derive(Debug, Clone)]
pub struct Limits {
    /// The most bytes of a body, also after decompression.
    pub body: usize,
    /// How long a client may take to send its request.
    pub read: Duration,
    /// How long an answer may take where the client does not say.
    pub answer: Duration,
}

/// The state that all handlers share.
pub struct App {
    /// The served models.
    pub catalog: Arc<Catalog>,
    /// What is counted.
    pub metrics: Metrics,
    /// The limits of a request.
    pub limits: Limits,
    /// Whether models may be loaded and unloaded by clients.
    pub allow_control: bool,
    /// The token that clients must send.
    pub token: Option<crate::auth::Token>,
    /// What answers for models without a version.
    pub fallbacks: HashMap<String, Fallback>,
    /// What the requests in flight may take.
    pub budget: Arc<Budget>,
}

/// The protocol of a request, for the metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP with JSON or binary tensors.
    Http,
    /// gRPC.
    Grpc,
}

impl Protocol {
    /// The label in metrics.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Grpc => "grpc",
        }
    }

    fn series(self, model: &Model) -> &Served {
        match self {
            Self::Http => &model.metrics.http,
            Self::Grpc => &model.metrics.grpc,
        }
    }
}

/// Who answers a request.
pub enum Source {
    /// A loaded version; whether it stands in for another model.
    Model(Arc<Model>, bool),
    /// A constant, under the name of the model that was asked for.
    Constant(f32, String),
}

/// What is to be done for a request, checked, and without anything of its body.
pub enum Plan {
    /// A run of the model.
    Run {
        /// The inputs in the graph's order.
        inputs: Vec<Tensor>,
        /// The rows of each.
        rows: usize,
        /// The outputs asked for, by position.
        positions: Vec<usize>,
    },
    /// Nothing: these are the outputs.
    Done(Vec<(String, Tensor)>),
}

/// An answered request.
pub struct Answer {
    /// Who answered.
    pub source: Source,
    /// The outputs with their names, in the order they were asked for.
    pub outputs: Vec<(String, Tensor)>,
}

impl Source {
    /// The name of the model that answers.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Model(model, _) => &model.name,
            Self::Constant(_, name) => name,
        }
    }

    /// Its version; empty for a constant.
    #[must_use]
    pub fn version(&self) -> &str {
        match self {
            Self::Model(model, _) => &model.version_text,
            Self::Constant(..) => "",
        }
    }

    /// The evidence of its version; `None` for a constant.
    #[must_use]
    pub fn digest(&self) -> Option<&str> {
        match self {
            Self::Model(model, _) => Some(&model.digest),
            Self::Constant(..) => None,
        }
    }

    /// Whether the model that was asked for has no version, and this stands in for it.
    #[must_use]
    pub fn is_default(&self) -> bool {
        !matches!(self, Self::Model(_, false))
    }

    /// An error when it is too busy to take another request.
    pub fn admit(&self) -> Result<()> {
        match self {
            Self::Model(model, _) => model.admit(),
            Self::Constant(..) => Ok(()),
        }
    }

    /// Checks `inputs` and the names of the outputs asked for, `None` for all.
    pub fn plan(&self, inputs: Vec<NamedTensor<'_>>, wanted: Option<&[String]>) -> Result<Plan> {
        let Self::Model(model, _) = self else { return self.constant(&inputs, wanted).map(Plan::Done) };
        let (inputs, rows) = model.signature.arrange(inputs)?;
        let positions = match wanted {
            Some(names) => model.signature.select(names.iter().map(String::as_str))?,
            None => (0..model.signature.outputs.len()).collect(),
        };
        Ok(Plan::Run { inputs, rows, positions })
    }

    /// The answer of a constant: one number per row of the first input, for each output asked for.
    fn constant(&self, inputs: &[NamedTensor<'_>], wanted: Option<&[String]>) -> Result<Vec<(String, Tensor)>> {
        let Self::Constant(value, _) = self else { return Err(Error::Internal("no constant".into())) };
        let rows = inputs.first().and_then(|input| input.tensor.shape.first()).copied().unwrap_or(1);
        let most = inputs.first().map_or(1, |input| input.tensor.data.len());
        let count = usize::try_from(rows).ok().filter(|count| (1..=most).contains(count));
        let count = count.ok_or_else(|| {
            Error::Invalid(format!("{rows} rows with {most} values are not possible: send at least one value a row"))
        })?;
        let names = wanted.map_or_else(|| vec!["output".to_owned()], <[String]>::to_vec);
        let mut seen = HashSet::new();
        if let Some(name) = names.iter().find(|name| !seen.insert(name.as_str())) {
            return Err(Error::Invalid(format!("output `{}` is asked for twice: ask once", shown(name))));
        }
        if count.saturating_mul(names.len()) > MOST_CONSTANTS {
            return Err(Error::TooLarge(format!(
                "{count} rows of {} outputs are more than {MOST_CONSTANTS} numbers: send fewer rows a request",
                names.len()
            )));
        }
        let tensor = Tensor { shape: vec![rows], data: Data::Fp32(vec![*value; count]) };
        Ok(names.into_iter().map(|name| (name, tensor.clone())).collect())
    }
}

impl App {
    /// Who answers `name` at `selector`, a version or an alias.
    pub async fn source(&self, name: &str, selector: Option<&str>) -> Result<Source> {
        match self.catalog.get(name, selector).await {
            Ok(model) => Ok(Source::Model(model, false)),
            Err(Error::NotFound(_)) if selector.is_none() && self.fallbacks.contains_key(name) => {
                match &self.fallbacks[name] {
                    Fallback::Constant(value) => Ok(Source::Constant(*value, name.to_owned())),
                    Fallback::Model(other, selector) => {
                        self.catalog.get(other, selector.as_deref()).await.map(|model| Source::Model(model, true))
                    }
                }
            }
            Err(error) => Err(error),
        }
    }

    /// Carries out `plan`, or counts why there is none.
    pub async fn infer(
        &self,
        source: Source,
        plan: Result<Plan>,
        deadline: Instant,
        call: (Protocol, Instant),
    ) -> Result<Answer> {
        let Source::Model(model, _) = &source else {
            let Plan::Done(outputs) = plan? else { return Err(Error::Internal("a constant does not run".into())) };
            return Ok(Answer { source, outputs });
        };
        let answered = run(model, plan, deadline).await;
        let (protocol, arrived) = call;
        match answered {
            Ok((outputs, rows)) => {
                let series = protocol.series(model);
                series.requests.increment(1);
                series.rows.increment(rows as u64);
                series.seconds.record(arrived.elapsed().as_secs_f64());
                model.statistics.succeeded(rows, arrived.elapsed());
                Ok(Answer { source, outputs })
            }
            Err(error) => {
                model.statistics.failed(arrived.elapsed());
                Err(error)
            }
        }
    }

    /// Counts a failure of a request for `name`.
    pub fn failed(&self, protocol: Protocol, name: &str, error: &Error) {
        let known = self.catalog.snapshot().models.contains_key(name);
        self.metrics.failed(protocol.label(), if known { name } else { "" }, error.kind());
    }
}

/// The outputs of `model` with their names, and the rows of the request.
async fn run(model: &Model, plan: Result<Plan>, deadline: Instant) -> Result<(Vec<(String, Tensor)>, usize)> {
    let Plan::Run { inputs, rows, positions } = plan? else {
        return Err(Error::Internal("a model has no ready answer".into()));
    };
    let names: Vec<String> = positions.iter().map(|position| model.signature.outputs[*position].name.clone()).collect();
    let tensors = model.infer(inputs, rows, positions, deadline).await?;
    Ok((names.into_iter().zip(tensors).collect(), rows))
}
