//! What a model takes and gives, and the checks of a request against it.

use std::borrow::Cow;

use super::tensor::{Data, DataType, MOST_RANK, Tensor, volume};
use crate::error::{Error, Result};
use crate::text::shown;

/// One input or output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    /// Its name in the graph.
    pub name: String,
    /// Its element type.
    pub datatype: DataType,
    /// Its dimensions; -1 is free.
    pub shape: Vec<i64>,
}

/// The inputs and outputs of a model, in the order of the graph.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature {
    /// What it takes.
    pub inputs: Vec<Port>,
    /// What it gives.
    pub outputs: Vec<Port>,
}

/// An input of a request before it is checked.
#[derive(Debug, Clone, PartialEq)]
pub struct NamedTensor<'a> {
    /// The name the client gave.
    pub name: Cow<'a, str>,
    /// Shape and values.
    pub tensor: Tensor,
}

impl Port {
    /// Whether the first dimension is free, so that rows of several requests may stand together.
    #[must_use]
    pub fn batched(&self) -> bool {
        self.shape.first() == Some(&-1)
    }

    /// The error of an input that does not fit, if it does not.
    fn check(&self, tensor: &Tensor) -> Result<()> {
        let given = tensor.data.datatype();
        if given != self.datatype {
            return Err(Error::Invalid(format!(
                "input `{}` is {}, but {} was sent: send {}",
                self.name,
                self.datatype.name(),
                given.name(),
                self.datatype.name()
            )));
        }
        if tensor.shape.len() > MOST_RANK {
            return Err(Error::Invalid(format!(
                "input `{}` was sent with {} dimensions: send {}",
                self.name,
                tensor.shape.len(),
                self.shape.len()
            )));
        }
        let fits = tensor.shape.len() == self.shape.len()
            && tensor.shape.iter().zip(&self.shape).all(|(given, wanted)| *wanted < 0 || given == wanted);
        if !fits {
            return Err(Error::Invalid(format!(
                "input `{}` has shape {:?}, but {:?} was sent: -1 may be any number",
                self.name, self.shape, tensor.shape
            )));
        }
        if tensor.shape.contains(&0) {
            return Err(Error::Invalid(format!("input `{}` holds no rows: send at least one", self.name)));
        }
        let (wanted, given) = (volume(&tensor.shape)?, tensor.data.len());
        if wanted != given {
            return Err(Error::Invalid(format!(
                "input `{}` of shape {:?} needs {wanted} values, but {given} were sent",
                self.name, tensor.shape
            )));
        }
        if let Data::Bytes(texts) = &tensor.data
            && let Some(position) = texts.iter().position(|text| text.contains('\0'))
        {
            return Err(Error::Invalid(format!(
                "input `{}`: element {position} holds a NUL, which the runtime's strings cannot: leave it out",
                self.name
            )));
        }
        Ok(())
    }
}

impl Signature {
    /// Whether every input and output has a free first dimension.
    #[must_use]
    pub fn batchable(&self) -> bool {
        !self.inputs.is_empty() && self.inputs.iter().chain(&self.outputs).all(Port::batched)
    }

    /// Brings the inputs of a request into the graph's order and checks each; answers them with the number of rows.
    pub fn arrange(&self, mut given: Vec<NamedTensor<'_>>) -> Result<(Vec<Tensor>, usize)> {
        let mut arranged = Vec::with_capacity(self.inputs.len());
        for port in &self.inputs {
            let position = given.iter().position(|input| input.name == port.name).ok_or_else(|| {
                Error::Invalid(format!("input `{}` is missing: this model takes {}", port.name, names(&self.inputs)))
            })?;
            let tensor = given.swap_remove(position).tensor;
            port.check(&tensor)?;
            arranged.push(tensor);
        }
        if let Some(extra) = given.first() {
            return Err(Error::Invalid(if self.inputs.iter().any(|port| port.name == extra.name) {
                format!("input `{}` was sent twice: send each input once", shown(&extra.name))
            } else {
                format!("`{}` is no input of this model: it takes {}", shown(&extra.name), names(&self.inputs))
            }));
        }
        let rows = self.rows(&arranged)?;
        Ok((arranged, rows))
    }

    fn rows(&self, arranged: &[Tensor]) -> Result<usize> {
        if !self.batchable() {
            return Ok(1);
        }
        let mut counts = arranged.iter().filter_map(|tensor| tensor.shape.first().copied());
        let first = counts.next().unwrap_or(1);
        if let Some(other) = counts.find(|count| *count != first) {
            return Err(Error::Invalid(format!(
                "the inputs disagree on the number of rows ({first} and {other}): the first dimension of all must be the same"
            )));
        }
        Ok(usize::try_from(first).unwrap_or(1))
    }

    /// The positions of the outputs named in a request, in its order.
    pub fn select<'a>(&self, wanted: impl Iterator<Item = &'a str>) -> Result<Vec<usize>> {
        let mut selected = Vec::new();
        for name in wanted {
            let position = self.outputs.iter().position(|port| port.name == name).ok_or_else(|| {
                let known = names(&self.outputs);
                Error::Invalid(format!("`{}` is no output of this model: it gives {known}", shown(name)))
            })?;
            if selected.contains(&position) {
                return Err(Error::Invalid(format!("output `{}` is asked for twice: ask once", shown(name))));
            }
            selected.push(position);
        }
        Ok(selected)
    }
}

fn names(ports: &[Port]) -> String {
    let quoted: Vec<String> = ports.iter().map(|port| format!("`{}`", port.name)).collect();
    quoted.join(", ")
}
