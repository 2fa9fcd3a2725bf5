//! An inference request as it comes over HTTP: JSON, and binary tensors behind it.

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;
use serde::de::{Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::error::{Error, Result};
use crate::model::json::{Values, read_values};
use crate::model::signature::NamedTensor;
use crate::model::tensor::{Data, DataType, MOST_RANK, Tensor, volume};
use crate::text::{cause, shown};

/// Room made for values before they are read: what a client claims in `shape` must not cost memory by itself.
const MOST_ROOM: usize = 1 << 18;

/// The most inputs, and the most outputs, of a request.
pub const MOST_TENSORS: usize = 1024;

/// A request that could be read.
#[derive(Debug)]
pub struct Request<'a> {
    /// The client's id, to be echoed.
    pub id: Option<String>,
    /// The inputs, not checked against a signature.
    pub inputs: Vec<NamedTensor<'a>>,
    /// The outputs asked for; `None` for all.
    pub outputs: Option<Vec<Wanted>>,
    /// Whether outputs that say nothing themselves are wanted as binary.
    pub binary: bool,
    /// The client's deadline in microseconds.
    pub timeout: Option<u64>,
}

/// A request whose JSON is read, and whose binary tensors are still bytes.
pub struct Draft<'a> {
    parsed: Body<'a>,
    binary: &'a [u8],
}

/// An output asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Its name.
    pub name: String,
    /// Whether it is wanted as binary, where the request says.
    pub binary: Option<bool>,
}

#[derive(Deserialize)]
struct Body<'a> {
    #[serde(default)]
    id: Option<String>,
    #[serde(borrow)]
    inputs: Few<Input<'a>, MOST_TENSORS>,
    #[serde(default)]
    outputs: Option<Few<Output, MOST_TENSORS>>,
    #[serde(default)]
    parameters: Option<Parameters>,
}

/// At most `N` elements: each takes far more memory than the bytes that it is written in.
struct Few<T, const N: usize>(Vec<T>);

impl<'de, T: Deserialize<'de>, const N: usize> Deserialize<'de> for Few<T, N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(FewVisitor(Vec::new()))
    }
}

struct FewVisitor<T, const N: usize>(Vec<T>);

impl<'de, T: Deserialize<'de>, const N: usize> Visitor<'de> for FewVisitor<T, N> {
    type Value = Few<T, N>;

    fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        write!(formatter, "an array of at most {N} elements")
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut sequence: A) -> Result<Few<T, N>, A::Error> {
        while let Some(element) = sequence.next_element()? {
            if self.0.len() == N {
                return Err(A::Error::custom(format_args!("more than {N} elements in an array: send at most {N}")));
            }
            self.0.push(element);
        }
        Ok(Few(self.0))
    }
}

#[derive(Deserialize)]
struct Output {
    name: String,
    #[serde(default)]
    parameters: Option<Parameters>,
}

/// The parameters that mean something here, of a request, an input or an output; others are ignored.
#[derive(Default, Deserialize)]
struct Parameters {
    #[serde(default)]
    binary_data_size: Option<usize>,
    #[serde(default)]
    binary_data: Option<bool>,
    #[serde(default)]
    binary_data_output: Option<bool>,
    #[serde(default)]
    timeout: Option<u64>,
    #[serde(default)]
    classification: Option<IgnoredAny>,
    #[serde(default)]
    shared_memory_region: Option<IgnoredAny>,
}

/// An input; `data` is read at once where `datatype` came before it, else kept as text until it is known.
struct Input<'a> {
    name: Cow<'a, str>,
    datatype: DataType,
    shape: Vec<i64>,
    data: Option<Data>,
    parameters: Parameters,
}

impl<'de: 'a, 'a> Deserialize<'de> for Input<'a> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(InputVisitor)
    }
}

struct InputVisitor;

#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "lowercase")]
enum Field {
    Name,
    Shape,
    Datatype,
    Data,
    Parameters,
    #[serde(other)]
    Other,
}

/// The parts of an input as far as they are known.
#[derive(Default)]
struct Parts<'de> {
    name: Option<Cow<'de, str>>,
    datatype: Option<DataType>,
    shape: Option<Vec<i64>>,
    data: Option<Data>,
    text: Option<&'de RawValue>,
    parameters: Option<Parameters>,
}

/// A text that borrows from the body where it can.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de> Visitor<'de> for InputVisitor {
    type Value = Input<'de>;

    fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str("an input with `name`, `shape`, `datatype` and `data`")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Input<'de>, A::Error> {
        let mut parts = Parts::default();
        while let Some(field) = map.next_key::<Field>()? {
            match field {
                Field::Name => parts.name = Some(map.next_value::<Text<'de>>()?.0),
                Field::Shape => parts.shape = Some(map.next_value::<Few<i64, MOST_RANK>>()?.0),
                Field::Datatype => {
                    parts.datatype =
                        Some(DataType::parse(&map.next_value::<Text<'de>>()?.0).map_err(A::Error::custom)?);
                }
                Field::Parameters => parts.parameters = map.next_value()?,
                Field::Data => match parts.datatype {
                    Some(datatype) => {
                        let values = Values { datatype, capacity: parts.room() };
                        parts.data = Some(map.next_value_seed(values).map_err(|cause| parts.explain(cause))?);
                    }
                    None => parts.text = Some(map.next_value()?),
                },
                Field::Other => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        parts.finish()
    }
}

impl<'de> Parts<'de> {
    fn room(&self) -> usize {
        self.shape.as_deref().and_then(|shape| volume(shape).ok()).unwrap_or(0).min(MOST_ROOM)
    }

    fn explain<E: serde::de::Error>(&self, cause: impl fmt::Display) -> E {
        E::custom(format_args!("input `{}`: {cause}", shown(self.name.as_deref().unwrap_or("?"))))
    }

    fn finish<E: serde::de::Error>(self) -> Result<Input<'de>, E> {
        let data = match (self.text, self.datatype) {
            (Some(text), Some(datatype)) => {
                Some(read_values(text.get(), datatype).map_err(|cause| self.explain(cause))?)
            }
            _ => self.data,
        };
        Ok(Input {
            name: self.name.ok_or_else(|| E::missing_field("name"))?,
            datatype: self.datatype.ok_or_else(|| E::missing_field("datatype"))?,
            shape: self.shape.ok_or_else(|| E::missing_field("shape"))?,
            data,
            parameters: self.parameters.unwrap_or_default(),
        })
    }
}

/// The memory that the values of `json` take at most once they are read: a number follows a bracket or a comma, and a
/// text has two quotes.
#[must_use]
pub fn weight(json: &[u8]) -> usize {
    let (mut commas, mut quotes) = (0, 0);
    for byte in json {
        commas += usize::from(*byte == b',');
        quotes += usize::from(*byte == b'"');
    }
    commas * size_of::<u64>() + quotes * size_of::<String>()
}

/// The JSON of `body` and what follows it; `header` says where it ends, `None` that it is all of the body.
pub fn split(body: &[u8], header: Option<usize>) -> Result<(&[u8], &[u8])> {
    let length = header.unwrap_or(body.len());
    body.split_at_checked(length).ok_or_else(|| {
        Error::Invalid(format!("`Inference-Header-Content-Length` is {length}, but the body has {} bytes", body.len()))
    })
}

/// Reads `json`, and leaves the `binary` tensors behind it.
pub fn parse<'a>(json: &'a [u8], binary: &'a [u8]) -> Result<Draft<'a>> {
    let parsed: Body<'a> = serde_json::from_slice(json).map_err(|error| {
        Error::Invalid(format!("the body is no inference request: {}{}", cause(&error), advice(json)))
    })?;
    Ok(Draft { parsed, binary })
}

impl<'a> Draft<'a> {
    /// The memory that the binary tensors take at most once they are read: a string of no bytes is four on the wire.
    #[must_use]
    pub fn weight(&self) -> usize {
        let texts = self.parsed.inputs.0.iter().any(|input| input.datatype == DataType::Bytes);
        self.binary.len() * if texts { 1 + size_of::<String>() / 4 } else { 1 }
    }

    /// Reads the binary tensors.
    pub fn finish(self) -> Result<Request<'a>> {
        let Self { parsed, mut binary } = self;
        let mut inputs = Vec::with_capacity(parsed.inputs.0.len());
        for input in parsed.inputs.0 {
            inputs.push(tensor(input, &mut binary)?);
        }
        if !binary.is_empty() {
            return Err(Error::Invalid(format!(
                "{} bytes follow the last binary input: no input claims them",
                binary.len()
            )));
        }
        let parameters = parsed.parameters.unwrap_or_default();
        let outputs = parsed.outputs.map(|outputs| outputs.0).filter(|outputs| !outputs.is_empty());
        Ok(Request {
            id: parsed.id.filter(|id| !id.is_empty()),
            inputs,
            outputs: outputs.map(wanted).transpose()?,
            binary: parameters.binary_data_output.unwrap_or(false),
            timeout: parameters.timeout.filter(|timeout| *timeout > 0),
        })
    }
}

/// Reads `body`, whose first `header` bytes are JSON (all of them when `None`) and whose rest is binary tensors.
pub fn read(body: &Bytes, header: Option<usize>) -> Result<Request<'_>> {
    let (json, binary) = split(body, header)?;
    parse(json, binary)?.finish()
}

/// What to do about numbers that some clients write although JSON has no words for them.
fn advice(json: &[u8]) -> &'static str {
    let holds = |word: &[u8]| json.windows(word.len()).any(|part| part == word);
    if holds(b"NaN") || holds(b"Infinity") {
        ": JSON has no `NaN` and no `Infinity`: send `null` for NaN, or binary tensors"
    } else {
        ""
    }
}

fn tensor<'a>(input: Input<'a>, binary: &mut &[u8]) -> Result<NamedTensor<'a>> {
    let Input { name, datatype, shape, data, parameters } = input;
    if parameters.shared_memory_region.is_some() {
        return Err(Error::Invalid(format!("input `{}`: shared memory is not served: send the values", shown(&name))));
    }
    let data = match (data, parameters.binary_data_size) {
        (Some(data), None) => data,
        (None, Some(size)) => {
            let (bytes, rest) = binary.split_at_checked(size).ok_or_else(|| {
                Error::Invalid(format!(
                    "input `{}` claims {size} binary bytes, but only {} are left in the body",
                    shown(&name),
                    binary.len()
                ))
            })?;
            *binary = rest;
            Data::from_bytes(datatype, bytes)
                .map_err(|cause| Error::Invalid(format!("input `{}`: {cause}", shown(&name))))?
        }
        (Some(_), Some(_)) => {
            return Err(Error::Invalid(format!(
                "input `{}` has both `data` and `binary_data_size`: send one",
                shown(&name)
            )));
        }
        (None, None) => {
            return Err(Error::Invalid(format!(
                "input `{}` has no values: send `data` or `binary_data_size`",
                shown(&name)
            )));
        }
    };
    Ok(NamedTensor { name, tensor: Tensor { shape, data } })
}

fn wanted(outputs: Vec<Output>) -> Result<Vec<Wanted>> {
    outputs
        .into_iter()
        .map(|output| {
            let parameters = output.parameters.unwrap_or_default();
            if parameters.classification.is_some() || parameters.shared_memory_region.is_some() {
                return Err(Error::Invalid(format!(
                    "output `{}`: classification and shared memory are not served",
                    shown(&output.name)
                )));
            }
            Ok(Wanted { name: output.name, binary: parameters.binary_data })
        })
        .collect()
}
